//! Histograms of oriented gradients, the target of masked-image-modelling pretraining (MaskFeat; METHOD 3.1).
//!
//! Works on integer-valued 8-bit pixels, not on normalised ones: exact zeros of the gradient then stay exact, and a flat region gives
//! zeros instead of unit-length noise. Per channel: mirror padding by one pixel, Sobel, unsigned orientation in nine bins with a hard
//! vote, sums of magnitude over cells, L2 norm over the bins of a cell.

/// Orientation bins over 180 degrees.
pub const BINS: usize = 9;
/// Smallest norm that divides.
const EPS: f32 = 1e-12;

/// Geometry of the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub width: usize,
    pub height: usize,
    /// 1 or 3, interleaved in the input.
    pub channels: usize,
    /// Cell side in pixels.
    pub cell: usize,
    /// Side of the Gaussian window over magnitudes, 0 for none.
    pub window: usize,
}

impl Layout {
    pub fn cells_x(&self) -> usize {
        self.width / self.cell
    }

    pub fn cells_y(&self) -> usize {
        self.height / self.cell
    }

    /// Length of one patch's target: `C * 9 * (patch / cell)^2`.
    pub fn token_len(&self, patch: usize) -> usize {
        self.channels * BINS * (patch / self.cell).pow(2)
    }
}

/// Normalised Gaussian of side `n`, standard deviation n/2, sum 1, row-major.
fn gaussian(n: usize) -> Vec<f32> {
    let std = (n / 2) as f64;
    let weight = |i: usize| {
        let t = (i as f64 - (n as f64 - 1.0) / 2.0) / std;
        (-0.5 * t * t).exp()
    };
    let sum: f64 = (0..n).map(weight).sum::<f64>().powi(2);
    (0..n * n).map(|i| (weight(i / n) * weight(i % n) / sum) as f32).collect()
}

/// Cells of one picture: `pixels` is `[H, W, C]`, the result `[C, 9, H / cell, W / cell]`. Rows and columns beyond the last whole cell
/// are left out.
///
/// # Panics
/// If `pixels` does not have the layout's size.
pub fn cells(pixels: &[u8], layout: Layout) -> Vec<f32> {
    let Layout { width, height, channels, cell, window } = layout;
    assert_eq!(pixels.len(), width * height * channels);
    let (cells_x, cells_y) = (layout.cells_x(), layout.cells_y());
    let weights = (window > 0).then(|| gaussian(window));
    let mirror = |i: usize, step: isize, n: usize| -> usize {
        let j = i as isize + step;
        let last = n as isize - 1;
        let j = if j < 0 { -j } else { j };
        (if j > last { 2 * last - j } else { j }).max(0) as usize
    };
    let mut out = vec![0.0f32; channels * BINS * cells_y * cells_x];
    for y in 0..cells_y * cell {
        let rows = [mirror(y, -1, height), y, mirror(y, 1, height)];
        for x in 0..cells_x * cell {
            let columns = [mirror(x, -1, width), x, mirror(x, 1, width)];
            for c in 0..channels {
                let at = |row: usize, column: usize| f32::from(pixels[(rows[row] * width + columns[column]) * channels + c]);
                let (nw, n, ne) = (at(0, 0), at(0, 1), at(0, 2));
                let (w, e) = (at(1, 0), at(1, 2));
                let (sw, s, se) = (at(2, 0), at(2, 1), at(2, 2));
                let gx = (nw - ne) + 2.0 * (w - e) + (sw - se);
                let gy = (nw - sw) + 2.0 * (n - s) + (ne - se);
                let mut magnitude = (gx * gx + gy * gy).sqrt();
                if magnitude == 0.0 {
                    continue;
                }
                if let Some(weights) = &weights {
                    magnitude *= weights[(y % window) * window + x % window];
                }
                // atan2(gx, gy): the angle from the vertical axis, in units of 20 degrees.
                let phase = gx.atan2(gy) * (BINS as f32 / std::f32::consts::PI);
                let bin = (phase.floor() as i32).rem_euclid(BINS as i32) as usize;
                out[((c * BINS + bin) * cells_y + y / cell) * cells_x + x / cell] += magnitude;
            }
        }
    }
    let plane = cells_y * cells_x;
    for c in 0..channels {
        for i in 0..plane {
            let index = |bin: usize| (c * BINS + bin) * plane + i;
            let norm = (0..BINS).map(|b| out[index(b)] * out[index(b)]).sum::<f32>().sqrt().max(EPS);
            for b in 0..BINS {
                out[index(b)] /= norm;
            }
        }
    }
    out
}

/// Cells regrouped by patch (row-major): `[N, C * 9 * k * k]` with k cells a side, inner index `((c * 9 + b) * k + cy) * k + cx`.
pub fn tokens(cells: &[f32], layout: Layout, patch: usize) -> Vec<f32> {
    let (cells_x, cells_y) = (layout.cells_x(), layout.cells_y());
    let k = patch / layout.cell;
    let (grid_x, grid_y) = (cells_x / k, cells_y / k);
    let mut out = Vec::with_capacity(grid_x * grid_y * layout.token_len(patch));
    for (py, px) in (0..grid_y).flat_map(|py| (0..grid_x).map(move |px| (py, px))) {
        for plane in 0..layout.channels * BINS {
            for cy in 0..k {
                let start = (plane * cells_y + py * k + cy) * cells_x + px * k;
                out.extend_from_slice(&cells[start..start + k]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/hog.safetensors");

    fn floats(tensor: &safetensors::tensor::TensorView) -> Vec<f32> {
        match tensor.dtype() {
            safetensors::Dtype::F32 => tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            safetensors::Dtype::F64 => tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Largest difference; a non-finite reference is a broken golden, not a pass.
    fn worst(ours: &[f32], golden: &[f32]) -> f32 {
        assert_eq!(ours.len(), golden.len());
        assert!(golden.iter().all(|g| g.is_finite()));
        ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Every picture of the golden file as `[H, W, C]` bytes.
    fn pictures(file: &SafeTensors) -> Vec<(String, Vec<u8>, Layout)> {
        let mut all = Vec::new();
        for name in file.names() {
            let Some(stem) = name.strip_suffix(".input_u8") else { continue };
            let tensor = file.tensor(name).unwrap();
            let [channels, height, width] = tensor.shape()[..] else { panic!("{name}: {:?}", tensor.shape()) };
            let planar = tensor.data();
            let pixels = (0..height * width * channels).map(|i| planar[(i % channels) * height * width + i / channels]).collect();
            all.push((stem.to_string(), pixels, Layout { width, height, channels, cell: 8, window: 0 }));
        }
        assert_eq!(all.len(), 7);
        all
    }

    #[test]
    fn golden_cells_and_tokens() {
        let file = SafeTensors::deserialize(GOLDEN).unwrap();
        let mut compared = 0;
        for (name, pixels, layout) in pictures(&file) {
            for window in [0, 16] {
                if let Ok(golden) = file.tensor(&format!("{name}.cells.w{window}")) {
                    let ours = cells(&pixels, Layout { window, ..layout });
                    let error = worst(&ours, &floats(&golden));
                    assert!(error <= 2e-6, "{name} window {window}: {error}");
                    compared += 1;
                }
            }
            if let Ok(golden) = file.tensor(&format!("{name}.tokens.w0")) {
                let ours = tokens(&cells(&pixels, layout), layout, 16);
                assert!(worst(&ours, &floats(&golden)) <= 2e-6, "{name} tokens");
                compared += 1;
            }
        }
        assert!(compared >= 14, "only {compared} comparisons");
    }

    #[test]
    fn a_planted_fault_turns_the_golden_red() {
        let file = SafeTensors::deserialize(GOLDEN).unwrap();
        let (name, mut pixels, layout) = pictures(&file).into_iter().find(|p| p.0.starts_with("rand")).unwrap();
        pixels[5] ^= 0x40;
        assert!(worst(&cells(&pixels, layout), &floats(&file.tensor(&format!("{name}.cells.w0")).unwrap())) > 1e-3);
    }

    #[test]
    fn a_flat_picture_has_zero_targets() {
        let layout = Layout { width: 20, height: 12, channels: 3, cell: 4, window: 0 };
        assert!(cells(&[77; 20 * 12 * 3], layout).iter().all(|&v| v == 0.0));
        assert_eq!(layout.token_len(4), 27);
    }
}
