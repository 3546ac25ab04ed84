//! Host side of `shaders/column_sums.wgsl`: the sums of the columns of `[R, D]`, which gradients of biases are. The CPU twin is
//! [`reference::column_sums`](super::reference::column_sums).

use super::gpu::{Constants, Kernel, Launch, Operand};

/// Source `[R, D]` of f32 or f16, result `[G, D]` of f32.
pub static COLUMN_SUMS: Kernel = Kernel {
    name: "column_sums",
    source: include_str!("../../shaders/column_sums.wgsl"),
    entry: "column_sums",
    buffers: 2,
    results: 1,
    checks_itself: false,
    varies: false,
};

/// Words of a row that a workgroup has, as in the shader.
const LANES: usize = 256;
/// Workgroups that keep a large GPU busy.
const BUSY: usize = 1024;
/// Rows that are worth a chunk of their own.
const LEAST: usize = 32;

/// The shader's constant: whether words hold two f16.
pub fn constants(halves: bool) -> Constants {
    vec![("HALVES", u32::from(halves))]
}

/// Workgroups that share a row.
fn across(width: usize, halves: bool) -> usize {
    let words = if halves { width / 2 } else { width };
    words.div_ceil(LANES)
}

/// Chunks of rows in which `[R, D]`, of f16 if `halves`, is summed: [`launch`] once more makes one of them.
pub fn chunks(rows: usize, width: usize, halves: bool) -> usize {
    let wanted = BUSY.div_ceil(across(width, halves).max(1)).min(rows.div_ceil(LEAST)).max(1);
    rows.div_ceil(rows.div_ceil(wanted).max(1)).max(1)
}

/// Sums of the rows of each of `chunks` chunks, f32, of rows of f16 if `halves`.
///
/// # Panics
/// With rows of f16 that are not whole words.
pub fn launch<P>(rows: usize, width: usize, chunks: usize, halves: bool, operands: [Operand<P>; 2]) -> Launch<P> {
    assert!(!halves || width.is_multiple_of(2), "{width} values of f16 are not whole words");
    let params = [rows, width, rows.div_ceil(chunks)].map(|v| v as u32).into();
    let groups = chunks * across(width, halves);
    Launch { kernel: &COLUMN_SUMS, constants: constants(halves), operands: operands.into(), samples: 1, groups, params }
}
