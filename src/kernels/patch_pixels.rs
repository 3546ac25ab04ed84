//! Host side of `shaders/patch_pixels.wgsl`: normalised patches of 8-bit pictures by index. The CPU twin is
//! [`reference::patch_pixels`](super::reference::patch_pixels).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::reference::patch_pixels::Patches;

/// Pixels `[B, H, W, C]` as bytes, scales `[B, 2, C]`, index `[B, K]`, result `[B, K, P * P * C]`.
pub static PATCH_PIXELS: Kernel = Kernel {
    name: "patch_pixels",
    source: include_str!("../../shaders/patch_pixels.wgsl"),
    entry: "patch_pixels",
    buffers: 4,
    results: 1,
    checks_itself: false,
    varies: false,
};

/// The shader's constants for a geometry.
pub fn constants(patches: &Patches) -> Constants {
    vec![("CHANNELS", patches.channels as u32), ("SIDE", patches.side as u32)]
}

/// Makes `kept` patches of each of `samples` pictures.
pub fn launch<P>(patches: &Patches, samples: usize, kept: usize, operands: [Operand<P>; 4]) -> Launch<P> {
    let sizes = [patches.width, patches.height, kept];
    Launch {
        kernel: &PATCH_PIXELS,
        constants: constants(patches),
        operands: operands.into(),
        samples,
        groups: kept,
        params: sizes.map(|v| v as u32).into(),
    }
}
