//! Host side of `shaders/patch_gather.wgsl`: rows of `[B, N, D]` by index, and the way back. The CPU twin is
//! [`reference::patch_gather`](super::reference::patch_gather).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::reference::patch_gather::Rows;

const SOURCE: &str = include_str!("../../shaders/patch_gather.wgsl");

/// Source `[B, N, D]`, index `[B, K]`, result `[B, K, D]`.
pub static GATHER: Kernel =
    Kernel { name: "patch_gather", source: SOURCE, entry: "gather", buffers: 3, results: 1, checks_itself: false, varies: false };
/// Source `[B, K, D]`, index `[B, K]`, result `[B, N, D]`.
pub static SCATTER: Kernel =
    Kernel { name: "patch_gather", source: SOURCE, entry: "scatter", buffers: 3, results: 1, checks_itself: false, varies: false };

/// Rows that one workgroup of a scatter makes, as in the shader.
const BLOCK: usize = 8;
/// Rows that a scatter can take from each sample: the bits in the shader's workgroup memory.
pub const MOST_KEPT: usize = 8192;

/// The shader's constant: whether words hold two f16.
pub fn constants(halves: bool) -> Constants {
    vec![("HALVES", u32::from(halves))]
}

fn params(rows: &Rows, words: usize) -> Vec<u32> {
    [rows.rows, rows.kept, words].map(|v| v as u32).into()
}

/// Rows of `words` 32-bit words each.
pub fn gather<P>(rows: &Rows, words: usize, operands: [Operand<P>; 3]) -> Launch<P> {
    // Copies words, whatever is in them.
    Launch {
        kernel: &GATHER,
        constants: constants(false),
        operands: operands.into(),
        samples: rows.samples,
        groups: rows.kept,
        params: params(rows, words),
    }
}

/// Sums rows of f32, or of f16 in pairs if `halves`, in the order of the index list. At most [`MOST_KEPT`] rows a sample.
pub fn scatter<P>(rows: &Rows, words: usize, halves: bool, operands: [Operand<P>; 3]) -> Launch<P> {
    Launch {
        kernel: &SCATTER,
        constants: constants(halves),
        operands: operands.into(),
        samples: rows.samples,
        groups: rows.rows.div_ceil(BLOCK),
        params: params(rows, words),
    }
}
