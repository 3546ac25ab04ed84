//! Histograms of oriented gradients, the target of masked-image-modelling pretraining (MaskFeat; METHOD 3.1).
//!
//! Works on integer-valued 8-bit pixels, not on normalised ones: exact zeros of the gradient then stay exact, and a flat region gives
//! zeros instead of unit-length noise. Per channel: mirror padding by one pixel, Sobel, unsigned orientation in nine bins with a hard
//! vote, sums of magnitude over cells, L2 norm over the bins of a cell.
//!
//! CPU twin of `shaders/hog.wgsl`, and what trains on a CPU: pixel columns side by side in vector registers, pictures on all threads. Sums
//! have the order of the shader's; the result is the same bits whatever instructions the processor offers.

use rayon::prelude::*;

/// Orientation bins over 180 degrees.
pub const BINS: usize = 9;
/// Smallest norm that divides.
pub(crate) const EPS: f32 = 1e-12;

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

    /// Whole patches in a picture.
    pub fn patches(&self, patch: usize) -> usize {
        let k = patch / self.cell;
        (self.cells_x() / k) * (self.cells_y() / k)
    }

    /// Values of one picture: all tokens, or all cells where `patch` is 0.
    pub fn values(&self, patch: usize) -> usize {
        match patch {
            0 => self.channels * BINS * self.cells_y() * self.cells_x(),
            _ => self.patches(patch) * self.token_len(patch),
        }
    }

    /// Bytes of a picture.
    pub fn bytes(&self) -> usize {
        self.width * self.height * self.channels
    }
}

/// Cosines and sines of the borders between bins at 20, 40, 60 and 80 degrees from the vertical axis; the other four are their mirror images.
pub(crate) const BORDERS: [(f32, f32); (BINS - 1) / 2] =
    [(0.9396926, 0.34202015), (0.76604444, 0.64278764), (0.5, 0.8660254), (0.17364818, 0.9848077)];

/// One factor of the Gaussian window of side `n`: its outer product with itself has standard deviation n / 2 (rounded down) and sum 1.
pub fn window(n: usize) -> Vec<f32> {
    let std = (n / 2).max(1) as f64;
    let weight = |i: usize| {
        let t = (i as f64 - (n as f64 - 1.0) / 2.0) / std;
        (-0.5 * t * t).exp()
    };
    let sum: f64 = (0..n).map(weight).sum();
    (0..n).map(|i| (weight(i) / sum) as f32).collect()
}

/// Bin of a gradient: `floor(atan2(gx, gy) * 9 / pi) mod 9`, the angle from the vertical axis in steps of 20 degrees, without atan2.
///
/// Counts the borders at or below the angle. For every pair of Sobel sums of bytes the rounded products decide as exact arithmetic does
/// (a test goes through all of them), which no atan2 of a graphics driver promises.
#[inline(always)]
fn bin_of(gx: f32, gy: f32) -> u32 {
    let sign = if gx < 0.0 || (gx == 0.0 && gy < 0.0) { -1.0 } else { 1.0 };
    let (x, y) = (gx * sign, gy * sign);
    let mut bin = 0;
    for (cos, sin) in BORDERS {
        let (a, b) = (x * cos, y * sin);
        bin += u32::from(a >= b) + u32::from(-a >= b);
    }
    bin
}

/// Columns that are worked on together.
const BLOCK: usize = 32;

/// Mirrors without repeating the border: -1 -> 1, n -> n - 2.
fn mirror(i: isize, n: usize) -> usize {
    let last = n as isize - 1;
    let j = i.abs();
    (if j > last { 2 * last - j } else { j }).max(0) as usize
}

/// Rows of pixels as numbers, with one mirrored pixel on either side; `stride` numbers a row, zeros behind the last pixel.
fn fill_row(pixels: &[u8], row: usize, layout: &Layout, out: &mut [f32]) {
    let (c, width) = (layout.channels, layout.width);
    let bytes = &pixels[row * width * c..][..width * c];
    out[c..][..width * c].iter_mut().zip(bytes).for_each(|(out, &v)| *out = f32::from(v));
    for channel in 0..c {
        out[channel] = f32::from(bytes[mirror(-1, width) * c + channel]);
        out[(width + 1) * c + channel] = f32::from(bytes[mirror(width as isize, width) * c + channel]);
    }
}

/// One row of cells: `rows` holds `cell + 2` rows of `stride` numbers, `weights` a factor for each row and for each column (empty: none).
/// Adds up each column's votes, `sums` is `[9, columns]` in whole blocks.
#[inline(always)]
fn vote(rows: &[f32], stride: usize, channels: usize, weights: (&[f32], &[f32]), sums: &mut [f32], columns: usize) {
    let height = rows.len() / stride - 2;
    for start in (0..columns).step_by(BLOCK) {
        let mut votes = [[0.0f32; BLOCK]; BINS];
        for y in 0..height {
            let line = |dy: usize, dx: usize| -> &[f32; BLOCK] {
                rows[(y + dy) * stride + start + dx * channels..].first_chunk().expect("rows are padded to whole blocks")
            };
            let (nw, n, ne) = (line(0, 0), line(0, 1), line(0, 2));
            let (w, e) = (line(1, 0), line(1, 2));
            let (sw, s, se) = (line(2, 0), line(2, 1), line(2, 2));
            let mut magnitudes = [0.0f32; BLOCK];
            let mut bins = [0u32; BLOCK];
            for i in 0..BLOCK {
                let gx = (nw[i] - ne[i]) + 2.0 * (w[i] - e[i]) + (sw[i] - se[i]);
                let gy = (nw[i] - sw[i]) + 2.0 * (n[i] - s[i]) + (ne[i] - se[i]);
                magnitudes[i] = (gx * gx + gy * gy).sqrt();
                bins[i] = bin_of(gx, gy);
            }
            if let (Some(&row), Some(column)) = (weights.0.get(y), weights.1[start.min(weights.1.len())..].first_chunk::<BLOCK>()) {
                for i in 0..BLOCK {
                    magnitudes[i] *= row * column[i];
                }
            }
            for (bin, votes) in votes.iter_mut().enumerate() {
                for i in 0..BLOCK {
                    votes[i] += if bins[i] == bin as u32 { magnitudes[i] } else { 0.0 };
                }
            }
        }
        for (bin, votes) in votes.iter().enumerate() {
            sums[bin * columns + start..][..BLOCK].copy_from_slice(votes);
        }
    }
}

/// [`vote`] with the widest registers there are. The results do not depend on it: nothing is reordered or fused.
fn vote_fast(rows: &[f32], stride: usize, channels: usize, weights: (&[f32], &[f32]), sums: &mut [f32], columns: usize) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "functions compiled for a better processor than the least that is supported")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512(rows: &[f32], stride: usize, channels: usize, weights: (&[f32], &[f32]), sums: &mut [f32], columns: usize) {
            vote(rows, stride, channels, weights, sums, columns);
        }
        #[target_feature(enable = "avx2")]
        fn avx2(rows: &[f32], stride: usize, channels: usize, weights: (&[f32], &[f32]), sums: &mut [f32], columns: usize) {
            vote(rows, stride, channels, weights, sums, columns);
        }
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if has_avx512 {
            // SAFETY: the processor has just said that it has these instructions.
            return unsafe { avx512(rows, stride, channels, weights, sums, columns) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(rows, stride, channels, weights, sums, columns) };
        }
    }
    vote(rows, stride, channels, weights, sums, columns);
}

/// Cells of one picture: `pixels` is `[H, W, C]`, the result `[C, 9, H / cell, W / cell]`. Rows and columns beyond the last whole cell
/// are left out.
///
/// # Panics
/// If `pixels` does not have the layout's size.
pub fn cells(pixels: &[u8], layout: Layout) -> Vec<f32> {
    let Layout { height, channels, cell, .. } = layout;
    assert_eq!(pixels.len(), layout.bytes());
    let (cells_x, cells_y) = (layout.cells_x(), layout.cells_y());
    let used = cells_x * cell * channels;
    let columns = used.next_multiple_of(BLOCK);
    // A block reads one pixel to the right of its columns.
    let stride = (columns.max(layout.width * channels) + 2 * channels).next_multiple_of(BLOCK);
    let weights = if layout.window > 0 { window(layout.window) } else { Vec::new() };
    let cycle = |i: usize| weights[i % weights.len()];
    let across: Vec<f32> = if weights.is_empty() { Vec::new() } else { (0..columns).map(|i| cycle(i / channels)).collect() };
    let mut rows = vec![0.0f32; (cell + 2) * stride];
    let mut sums = vec![0.0f32; BINS * columns];
    let mut out = vec![0.0f32; layout.values(0)];
    for cell_y in 0..cells_y {
        let top = cell_y * cell;
        for (i, row) in rows.chunks_mut(stride).enumerate() {
            fill_row(pixels, mirror((top + i) as isize - 1, height), &layout, row);
        }
        let down: Vec<f32> = if weights.is_empty() { Vec::new() } else { (top..top + cell).map(cycle).collect() };
        vote_fast(&rows, stride, channels, (&down, &across), &mut sums, columns);
        for (channel, cell_x) in (0..channels).flat_map(|c| (0..cells_x).map(move |x| (c, x))) {
            let histogram: [f32; BINS] = std::array::from_fn(|bin| {
                let first = bin * columns + cell_x * cell * channels + channel;
                (0..cell).fold(0.0, |sum, i| sum + sums[first + i * channels])
            });
            let norm = histogram.iter().fold(0.0, |sum, v| sum + v * v).sqrt().max(EPS);
            for (bin, value) in histogram.iter().enumerate() {
                out[((channel * BINS + bin) * cells_y + cell_y) * cells_x + cell_x] = value / norm;
            }
        }
    }
    out
}

/// HOG of many pictures `[B, H, W, C]` on all threads: `[B, values]`, tokens of patches of side `patch`, or cells where that is 0.
///
/// # Panics
/// If `pixels` does not hold whole pictures.
pub fn batch(pixels: &[u8], layout: Layout, patch: usize) -> Vec<f32> {
    assert_eq!(pixels.len() % layout.bytes(), 0);
    let mut out = vec![0.0; pixels.len() / layout.bytes() * layout.values(patch)];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(layout.values(patch)).zip(pixels.par_chunks(layout.bytes())).for_each(|(out, picture)| {
        let cells = cells(picture, layout);
        out.copy_from_slice(&if patch == 0 { cells } else { tokens(&cells, layout, patch) });
    });
    out
}

/// Cells regrouped by patch (row-major): `[N, C * 9 * k * k]` with k cells a side, inner index `((c * 9 + b) * k + cy) * k + cx`. Cells
/// beyond the last whole patch are left out.
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

/// Tokens `[N, C * 9 * k * k]` put back into cells `[C, 9, H / cell, W / cell]`, the inverse of [`tokens`]. Cells beyond the last whole
/// patch are zero.
///
/// # Panics
/// If there are fewer tokens than the layout has patches.
pub fn from_tokens(tokens: &[f32], layout: Layout, patch: usize) -> Vec<f32> {
    let (cells_x, cells_y) = (layout.cells_x(), layout.cells_y());
    let k = patch / layout.cell;
    let (grid_x, grid_y) = (cells_x / k, cells_y / k);
    let mut out = vec![0.0; layout.values(0)];
    let mut rows = tokens.chunks_exact(k);
    for (py, px) in (0..grid_y).flat_map(|py| (0..grid_x).map(move |px| (py, px))) {
        for plane in 0..layout.channels * BINS {
            for cy in 0..k {
                let start = (plane * cells_y + py * k + cy) * cells_x + px * k;
                out[start..start + k].copy_from_slice(rows.next().expect("a token for each patch"));
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

    /// All pairs of Sobel sums that bytes can give, against the definition in double precision.
    #[test]
    fn every_gradient_falls_into_its_bin() {
        for gx in -1020..=1020i32 {
            for gy in -1020..=1020i32 {
                if (gx, gy) != (0, 0) {
                    let phase = f64::from(gx).atan2(f64::from(gy)) * BINS as f64 / std::f64::consts::PI;
                    let expected = (phase.floor() as i32).rem_euclid(BINS as i32) as u32;
                    assert_eq!(bin_of(gx as f32, gy as f32), expected, "gradient ({gx}, {gy})");
                }
            }
        }
    }

    #[test]
    fn wide_registers_change_no_bit() {
        let file = SafeTensors::deserialize(GOLDEN).unwrap();
        let (_, pixels, layout) = pictures(&file).into_iter().find(|p| p.0.starts_with("rand")).unwrap();
        let stride = (layout.width * layout.channels + 2 * layout.channels).next_multiple_of(BLOCK) + BLOCK;
        let mut rows = vec![0.0; 10 * stride];
        rows.chunks_mut(stride).enumerate().for_each(|(y, row)| fill_row(&pixels, y, &layout, row));
        let columns = (layout.width * layout.channels).next_multiple_of(BLOCK);
        let (mut plain, mut fast) = (vec![0.0; BINS * columns], vec![0.0; BINS * columns]);
        vote(&rows, stride, layout.channels, (&[], &[]), &mut plain, columns);
        vote_fast(&rows, stride, layout.channels, (&[], &[]), &mut fast, columns);
        assert_eq!(plain, fast);
        assert!(plain.iter().any(|v| *v > 0.0));
    }

    #[test]
    fn a_batch_is_its_pictures() {
        for (width, height, channels, cell, patch, window) in
            [(20, 12, 3, 4, 8, 16), (33, 47, 1, 8, 16, 0), (9, 8, 3, 8, 8, 5), (1, 1, 1, 1, 1, 0)]
        {
            let layout = Layout { width, height, channels, cell, window };
            let pixels: Vec<u8> = (0..2 * layout.bytes()).map(|i| (i * i % 251) as u8).collect();
            let each: Vec<f32> = pixels.chunks(layout.bytes()).flat_map(|p| tokens(&cells(p, layout), layout, patch)).collect();
            assert_eq!(batch(&pixels, layout, patch), each);
            assert_eq!(each.len(), 2 * layout.values(patch));
        }
        let small = Layout { width: 7, height: 30, channels: 1, cell: 8, window: 0 };
        assert!(cells(&[0; 210], small).is_empty() && batch(&[0; 420], small, 16).is_empty());
    }
}
