//! Which patches pretraining hides (METHOD 3.2).

use crate::config::MaskKind;
use crate::random::{RngExt, SliceRandom, Stream};

/// Hidden patches (`true`) of a `grid` x `grid` picture, row-major. The share hidden is close to `ratio`: exact for random masks, at most
/// the target for block masks.
pub fn sample(kind: MaskKind, grid: usize, ratio: f64, rng: &mut Stream) -> Vec<bool> {
    let cells = grid * grid;
    // A positive ratio hides something, also on the smallest grid.
    let target = ((cells as f64 * ratio).round() as usize).clamp(usize::from(ratio > 0.0), cells);
    let mut mask = vec![false; cells];
    match kind {
        MaskKind::Random => {
            let mut order: Vec<usize> = (0..cells).collect();
            order.shuffle(rng);
            order[..target].iter().for_each(|&i| mask[i] = true);
        }
        MaskKind::Block => blocks(&mut mask, grid, target, rng),
    }
    mask
}

/// Rectangles until the target is met or a round adds nothing (BEiT, MaskFeat): at least a fifth of the target each, aspect log-uniform
/// in [0.3, 1/0.3], ten tries a round.
fn blocks(mask: &mut [bool], grid: usize, target: usize, rng: &mut Stream) {
    let smallest = (target / 5).max(1) as f64;
    let log_aspect = 0.3f64.ln();
    let mut hidden = 0;
    while hidden < target {
        let room = (target - hidden) as f64;
        let mut added = 0;
        for _ in 0..10 {
            // Between a fifth of the target and the room left, whichever is larger (the reference draws so).
            let area = smallest + (room - smallest) * rng.random::<f64>();
            let aspect = (log_aspect - 2.0 * log_aspect * rng.random::<f64>()).exp();
            let h = (area * aspect).sqrt().round() as usize;
            let w = (area / aspect).sqrt().round() as usize;
            if h == 0 || w == 0 || h >= grid || w >= grid {
                continue;
            }
            let top = rng.random_range(0..=grid - h);
            let left = rng.random_range(0..=grid - w);
            let inside = || (top..top + h).flat_map(move |y| (left..left + w).map(move |x| y * grid + x));
            let new = inside().filter(|&i| !mask[i]).count();
            if new > 0 && new <= target - hidden {
                inside().for_each(|i| mask[i] = true);
                added = new;
                break;
            }
        }
        if added == 0 {
            break;
        }
        hidden += added;
    }
    if hidden == 0 && target > 0 {
        // A grid too small for any rectangle still has to hide something.
        let i = rng.random_range(0..mask.len());
        mask[i] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Streams;

    fn count(mask: &[bool]) -> usize {
        mask.iter().filter(|m| **m).count()
    }

    #[test]
    fn random_masks_are_exact() {
        for i in 0..20 {
            assert_eq!(count(&sample(MaskKind::Random, 6, 0.4, &mut Streams::new(1).at("m", &[i]))), 14);
        }
    }

    /// METHOD 3.2's simulation of the reference: mean 77.6, min 70 of 78 on a 14 x 14 grid; centres hidden far more often than corners.
    #[test]
    fn block_masks_match_the_reference_statistics() {
        let masks: Vec<_> = (0..2000).map(|i| sample(MaskKind::Block, 14, 0.4, &mut Streams::new(1).at("m", &[i]))).collect();
        let sizes: Vec<usize> = masks.iter().map(|m| count(m)).collect();
        let mean = sizes.iter().sum::<usize>() as f64 / 2000.0;
        assert!((mean - 77.6).abs() < 0.3, "mean {mean}");
        assert!(*sizes.iter().max().unwrap() == 78 && *sizes.iter().min().unwrap() >= 60);
        let hidden = |i: usize| masks.iter().filter(|m| m[i]).count() as f64 / 2000.0;
        assert!(hidden(0) < 0.08 && hidden(7 * 14 + 7) > 0.65, "corner {} centre {}", hidden(0), hidden(7 * 14 + 7));
    }

    #[test]
    fn every_grid_hides_something() {
        for grid in [1, 2, 3, 6] {
            for i in 0..50 {
                assert!(count(&sample(MaskKind::Block, grid, 0.4, &mut Streams::new(1).at("m", &[i]))) > 0);
            }
        }
    }
}
