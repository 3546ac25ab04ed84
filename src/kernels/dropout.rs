//! Host side of `shaders/dropout.wgsl`: dropout by the words of a stream. The CPU twin is [`reference::dropout`](super::reference::dropout).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::reference::dropout::{BLOCK, Mask};

/// Values, and what is left of them; `[N]` of f32 each.
pub static DROPOUT: Kernel = Kernel {
    name: "dropout",
    source: include_str!("../../shaders/dropout.wgsl"),
    entry: "dropout",
    buffers: 2,
    results: 1,
    checks_itself: false,
    varies: true,
};

/// Blocks of words of a workgroup, as in the shader.
const LANES: usize = 256;
/// Values at most: the shader counts them, and the words around them, in 32 bits.
pub const MOST: usize = 1 << 31;

/// What is left of so many values.
pub fn launch<P>(values: usize, mask: &Mask, operands: [Operand<P>; 2]) -> Launch<P> {
    let (block, skipped) = (mask.first / BLOCK as u64, (mask.first % BLOCK as u64) as usize);
    let mut params = vec![skipped as u32, values as u32, mask.threshold, mask.scale.to_bits(), block as u32, (block >> 32) as u32];
    params.extend(mask.key);
    Launch {
        kernel: &DROPOUT,
        constants: Constants::new(),
        operands: operands.into(),
        samples: 1,
        groups: (skipped + values).div_ceil(LANES * BLOCK),
        params,
    }
}
