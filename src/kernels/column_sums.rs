//! Host side of `shaders/column_sums.wgsl`: the sums of the columns of `[R, D]`, which gradients of biases are. The CPU twin is
//! [`reference::column_sums`](super::reference::column_sums).

use super::gpu::{Constants, Kernel, Launch, Operand};

/// Source `[R, D]`, result `[G, D]`.
pub static COLUMN_SUMS: Kernel = Kernel {
    name: "column_sums",
    source: include_str!("../../shaders/column_sums.wgsl"),
    entry: "column_sums",
    buffers: 2,
    results: 1,
    checks_itself: false,
    varies: false,
};

/// Columns of a workgroup, as in the shader.
const LANES: usize = 256;
/// Workgroups that keep a large GPU busy.
const BUSY: usize = 1024;
/// Rows that are worth a chunk of their own.
const LEAST: usize = 32;

/// Chunks of rows in which `[R, D]` is summed: [`launch`] once more makes one of them.
pub fn chunks(rows: usize, width: usize) -> usize {
    let wanted = BUSY.div_ceil(width.div_ceil(LANES).max(1)).min(rows.div_ceil(LEAST)).max(1);
    rows.div_ceil(rows.div_ceil(wanted).max(1)).max(1)
}

/// Sums of the rows of each of `chunks` chunks, f32.
pub fn launch<P>(rows: usize, width: usize, chunks: usize, operands: [Operand<P>; 2]) -> Launch<P> {
    let params = [rows, width, rows.div_ceil(chunks)].map(|v| v as u32).into();
    let groups = chunks * width.div_ceil(LANES);
    Launch { kernel: &COLUMN_SUMS, constants: Constants::new(), operands: operands.into(), samples: 1, groups, params }
}
