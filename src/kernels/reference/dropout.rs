//! The twin of `shaders/dropout.wgsl`, and what both draw: the words of a ChaCha8 stream (Bernstein, *ChaCha, a variant of Salsa20*, 2008).

use crate::random::Stream;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Words of a block of ChaCha.
pub const BLOCK: usize = 16;
/// Bits of a word that are compared: those of a number in [0, 1) in single precision.
const BITS: u32 = 24;

/// Which of so many values dropout leaves (Srivastava et al., *Dropout*, 2014): one word of a stream decides on each, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// Of the stream.
    pub key: [u32; 8],
    /// The first value's word.
    pub first: u64,
    /// Where the upper 24 bits of a word are below this, the value goes.
    pub threshold: u32,
    /// What the others are multiplied by: 1 / (1 - rate).
    pub scale: f32,
}

impl Mask {
    /// By the words of a key's stream from the `first` on: each value goes with probability `rate`.
    pub fn new(key: [u32; 8], first: u64, rate: f64) -> Self {
        Self { key, first, threshold: (rate * f64::from(1 << BITS)).ceil() as u32, scale: (1.0 / (1.0 - rate)) as f32 }
    }

    /// For so many values; their words are drawn from the stream.
    pub fn draw(stream: &mut Stream, values: usize, rate: f64) -> Self {
        let (seed, first) = (stream.get_seed(), stream.get_word_pos());
        stream.set_word_pos(first + values as u128);
        let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| seed[4 * i + byte]));
        Self::new(std::array::from_fn(word), first as u64, rate)
    }

    /// What each of so many values is multiplied by: 0 or the scale.
    pub fn factors(&self, values: usize) -> impl Iterator<Item = f32> {
        let mut seed = [0; 32];
        seed.iter_mut().zip(self.key.iter().flat_map(|word| word.to_le_bytes())).for_each(|(to, byte)| *to = byte);
        let mut stream = Stream::from_seed(seed);
        stream.set_word_pos(u128::from(self.first));
        let Self { threshold, scale, .. } = *self;
        (0..values).map(move |_| if stream.next_u32() >> (32 - BITS) < threshold { 0.0 } else { scale })
    }
}

/// x by the mask.
pub fn dropout(x: &[f32], mask: &Mask) -> Vec<f32> {
    x.iter().zip(mask.factors(x.len())).map(|(x, factor)| x * factor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{RngExt, Streams};

    /// Masks of networks that were trained before there was a shader.
    #[test]
    fn a_mask_is_uniform_numbers_below_the_rate() {
        for rate in [0.1f64, 0.5, 0.25, 1.0 / 3.0, 1e-9, 0.999_999_9] {
            let mut stream = Streams::new(3).at("noise", &[5]);
            let mut same = stream.clone();
            for values in [1, 15, 16, 40, 1000] {
                let factors: Vec<f32> = Mask::draw(&mut stream, values, rate).factors(values).collect();
                let scale = (1.0 / (1.0 - rate)) as f32;
                let drawn: Vec<f32> = (0..values).map(|_| if f64::from(same.random::<f32>()) < rate { 0.0 } else { scale }).collect();
                assert_eq!(factors, drawn, "{rate} {values}");
            }
            assert_eq!(stream.random::<u64>(), same.random::<u64>());
        }
    }
}
