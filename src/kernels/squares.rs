//! Host side of `shaders/squares.wgsl`: the sum of the squares of a tensor, added to a running sum, of which the length of a gradient is
//! made. The CPU twin is [`reference::squares`](super::reference::squares).

use super::gpu::{Constants, Kernel, Launch, Operand};

const SOURCE: &str = include_str!("../../shaders/squares.wgsl");

/// Values `[N]`, sums of chunks `[G]`.
pub static SQUARES: Kernel =
    Kernel { name: "squares", source: SOURCE, entry: "squares", buffers: 2, results: 1, checks_itself: false, varies: false };
/// Values of four tensors `[N]` each, sums of chunks `[G]`.
pub static FOUR: Kernel =
    Kernel { name: "squares", source: SOURCE, entry: "squares_of_four", buffers: 5, results: 1, checks_itself: false, varies: false };
/// Sums of chunks `[G]`, the running sum `[1]`, the new one.
pub static ADD: Kernel =
    Kernel { name: "squares", source: SOURCE, entry: "add_squares", buffers: 3, results: 1, checks_itself: false, varies: false };

/// Values `[N]` of one chunk, the running sum `[1]`, the new one.
pub static ADD_CHUNK: Kernel =
    Kernel { name: "squares", source: SOURCE, entry: "add_chunk", buffers: 3, results: 1, checks_itself: false, varies: false };

/// Chunks at most: enough to keep a large GPU busy.
const MOST: usize = 1024;
/// Values that are worth a chunk of their own.
const LEAST: usize = 4096;

/// Values of each of G chunks.
fn chunk(values: usize) -> usize {
    values.div_ceil(MOST).max(LEAST)
}

/// G: chunks of so many values.
pub fn chunks(values: usize) -> usize {
    values.div_ceil(chunk(values))
}

/// Bytes of a sample of each buffer of [`squares`]: a chunk.
pub fn sizes(values: usize) -> [u64; 2] {
    [4 * chunk(values) as u64, 4]
}

/// Sums of the squares of the chunks of `values` values, f32.
pub fn squares<P>(values: usize, operands: [Operand<P>; 2]) -> Launch<P> {
    Launch {
        kernel: &SQUARES,
        constants: Constants::new(),
        operands: operands.into(),
        samples: chunks(values),
        groups: 1,
        params: vec![chunk(values) as u32],
    }
}

/// The same of the chunks of four tensors of so many values each, into the sums from `place` on.
pub fn squares_of_four<P>(values: [usize; 4], place: usize, operands: [Operand<P>; 5]) -> Launch<P> {
    let mut end = 0;
    let ends = values.map(|values| {
        end += chunks(values);
        end
    });
    Launch {
        kernel: &FOUR,
        constants: Constants::new(),
        operands: operands.into(),
        samples: end,
        groups: 1,
        params: [place].into_iter().chain(values.map(chunk)).chain(ends).map(|word| word as u32).collect(),
    }
}

/// The running sum and the sums of so many chunks.
pub fn add<P>(chunks: usize, operands: [Operand<P>; 3]) -> Launch<P> {
    Launch { kernel: &ADD, constants: Constants::new(), operands: operands.into(), samples: 1, groups: 1, params: vec![chunks as u32] }
}

/// The running sum and the squares of `values` values, which are one of [`chunks`].
pub fn add_chunk<P>(values: usize, operands: [Operand<P>; 3]) -> Launch<P> {
    Launch {
        kernel: &ADD_CHUNK,
        constants: Constants::new(),
        operands: operands.into(),
        samples: 1,
        groups: 1,
        params: vec![chunk(values) as u32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_value_once() {
        for values in [1, 255, 4096, 4097, 768 * 3072, 4096 * 1024 + 1, 50_000_001] {
            let (chunk, chunks) = (chunk(values), chunks(values));
            assert!(chunks * chunk >= values && (chunks - 1) * chunk < values && chunks <= MOST, "{values}: {chunks} of {chunk}");
        }
        assert_eq!(chunks(0), 0);
    }
}
