//! Named random streams.
//!
//! Every random choice in moue comes from a stream that is derived from the run's 64-bit seed, the *name* of its purpose and its
//! *position* (epoch, step, face ...), never from the order in which threads happen to run. So the same seed gives the same draws with
//! any number of loader threads, on any device, and after a resume.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

pub use rand::RngExt;
pub use rand::seq::SliceRandom;

/// A generator at one position of one named stream.
pub type Stream = ChaCha8Rng;

/// The root of all streams of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream `name` at `position`, for example `at("mask", &[epoch, face])`.
    ///
    /// All 64 bits of the seed and of every coordinate take part (SHA-256 of a length-delimited encoding).
    pub fn at(&self, name: &str, position: &[u64]) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        for p in position {
            hash.update(p.to_le_bytes());
        }
        Stream::from_seed(hash.finalize().into())
    }
}

/// The numbers below `n` in random order.
pub fn shuffled(n: usize, rng: &mut Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

/// An index drawn with the weights whose running sums are given; the last sum must be above 0.
pub fn weighted(sums: &[f64], rng: &mut Stream) -> usize {
    let at = rng.random::<f64>() * sums.last().copied().unwrap_or_default();
    sums.partition_point(|sum| *sum <= at).min(sums.len().saturating_sub(1))
}

/// One draw from the standard normal distribution (Box-Muller, the cosine half).
pub fn normal(rng: &mut Stream) -> f32 {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random::<f64>();
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_seed_name_and_position_only() {
        let draw = |seed, name: &str, pos: &[u64]| Streams::new(seed).at(name, pos).random::<u64>();
        let base = draw(7, "mask", &[1, 2]);
        assert_eq!(base, draw(7, "mask", &[1, 2]));
        // The high half of the seed counts.
        assert_ne!(base, draw(7 | (1 << 40), "mask", &[1, 2]));
        assert_ne!(base, draw(7, "flip", &[1, 2]));
        assert_ne!(base, draw(7, "mask", &[2, 1]));
    }

    #[test]
    fn draws_follow_their_weights() {
        let mut rng = Streams::new(1).at("test", &[]);
        let mut counts = [0; 4];
        // Weights 1, 0, 3, 4.
        (0..8000).for_each(|_| counts[weighted(&[1.0, 1.0, 4.0, 8.0], &mut rng)] += 1);
        assert_eq!(counts[1], 0);
        for (count, expected) in counts.into_iter().zip([1000, 0, 3000, 4000]) {
            assert!((count as i64 - expected).abs() < 200, "{counts:?}");
        }
        let mut order = shuffled(50, &mut rng);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut rng = Streams::new(1).at("test", &[]);
        let draws: Vec<f32> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / 20_000.0;
        let var = draws.iter().map(|d| (d - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.04, "mean {mean} variance {var}");
    }
}
