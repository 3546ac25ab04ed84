//! Host side of `shaders/hog.wgsl`: its bindings, its constants and how many workgroups it takes. The CPU twin is
//! [`reference::hog`](super::reference::hog).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::reference::hog::{Layout, window};

/// Pixels `[B, H, W, C]` as bytes, window weights, result `[B, values]`.
pub static HOG: Kernel = Kernel {
    name: "hog",
    source: include_str!("../../shaders/hog.wgsl"),
    entry: "hog",
    buffers: 3,
    results: 1,
    checks_itself: false,
    varies: false,
};

/// Threads of a workgroup, as in the shader.
const LANES: usize = 192;

/// Cells that a workgroup makes: as many as have a lane for each of their columns, and about as many in every workgroup of a row.
fn run(layout: &Layout) -> usize {
    let most = (LANES / (layout.cell * layout.channels)).max(1);
    let cells = layout.cells_x().max(1);
    cells.div_ceil(cells.div_ceil(most))
}

/// The shader's constants for a geometry; `patch` is the side of the patches whose values stand together, 0 for plain cells.
pub fn constants(layout: &Layout, patch: usize) -> Constants {
    vec![
        ("CELL", layout.cell as u32),
        ("CHANNELS", layout.channels as u32),
        ("WINDOW", layout.window as u32),
        ("PATCH_CELLS", (patch / layout.cell) as u32),
    ]
}

/// The window's weights as the shader reads them. Without a window one value that is not read: WebGPU allows no two writable bindings of
/// the same memory, so nothing else can stand in.
pub fn weights(layout: &Layout) -> Vec<f32> {
    if layout.window > 0 { window(layout.window) } else { vec![1.0] }
}

/// The HOG of `samples` pictures, of pixels and weights. There are `[H, W, C]` bytes for each, and as many results as [`Layout::values`]
/// says, both without gaps.
pub fn launch<P>(layout: &Layout, patch: usize, samples: usize, operands: [Operand<P>; 3]) -> Launch<P> {
    let run = run(layout);
    let runs = layout.cells_x().div_ceil(run);
    let sizes = [layout.width, layout.height, layout.cells_x(), layout.cells_y(), runs, layout.values(patch), run];
    Launch {
        kernel: &HOG,
        constants: constants(layout, patch),
        operands: operands.into(),
        samples,
        groups: runs * layout.cells_y(),
        params: sizes.map(|v| v as u32).into(),
    }
}
