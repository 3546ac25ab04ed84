//! The kernels by burn's tensor operations, generic over the backend: what runs where there is neither a shader nor a twin, and what the
//! benches measure ours against.

use super::backends::HogSpec;
use super::reference::dropout::Mask;
use super::reference::hog::{BINS, BORDERS, EPS, window};
use super::reference::patch_pixels::Patches;
use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::prelude::{Shape, TensorData};
use burn::tensor::{BoolDType, FloatDType, IndexingUpdateOp, Slice};

/// A tensor cut to a range of one dimension.
fn part<B: Backend>(x: FloatTensor<B>, dim: usize, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let slices: Vec<Slice> =
        x.shape().iter().enumerate().map(|(d, &n)| if d == dim { Slice::from(range.clone()) } else { Slice::from(0..n) }).collect();
    B::float_slice(x, &slices)
}

/// How a device stores truth values.
fn truth<B: Backend>(device: &B::Device) -> BoolDType {
    get_device_settings::<B>(device).bool_dtype
}

/// One mirrored row or column on either side.
fn mirrored<B: Backend>(x: FloatTensor<B>, dim: usize) -> FloatTensor<B> {
    let n = x.shape()[dim];
    let (second, last_but_one) = (1.min(n - 1), n.saturating_sub(2));
    let before = part::<B>(x.clone(), dim, second..second + 1);
    let after = part::<B>(x.clone(), dim, last_but_one..last_but_one + 1);
    B::float_cat(vec![before, x, after], dim)
}

fn twice<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul_scalar(x, 2.0f32.into())
}

fn number<B: Backend>(x: BoolTensor<B>) -> FloatTensor<B> {
    B::bool_into_float(x, FloatDType::F32)
}

/// HOG of pictures given as numbers 0 to 255, `[B, H, W, C]`: `[B, values]`.
pub fn hog<B: Backend>(pixels: FloatTensor<B>, spec: HogSpec) -> FloatTensor<B> {
    let shape = pixels.shape();
    let [b, h, w, c] = [shape[0], shape[1], shape[2], shape[3]];
    let layout = spec.layout([h, w, c]);
    let (cell, cells_x, cells_y) = (spec.cell, layout.cells_x(), layout.cells_y());
    let device = pixels.device();
    if b * layout.values(spec.patch) == 0 {
        return B::float_zeros(Shape::new([b, layout.values(spec.patch)]), &device, FloatDType::F32);
    }
    let native = truth::<B>(&device);
    let padded = mirrored::<B>(mirrored::<B>(B::float_permute(pixels, &[0, 3, 1, 2]), 2), 3);
    // Only pixels inside whole cells.
    let at = |dy: usize, dx: usize| part::<B>(part::<B>(padded.clone(), 2, dy..dy + cells_y * cell), 3, dx..dx + cells_x * cell);
    let difference = |a: (usize, usize), b: (usize, usize)| B::float_sub(at(a.0, a.1), at(b.0, b.1));
    let gradient = |pairs: [((usize, usize), (usize, usize)); 3]| {
        let [first, middle, last] = pairs.map(|(a, b)| difference(a, b));
        B::float_add(B::float_add(first, twice::<B>(middle)), last)
    };
    let gx = gradient([((0, 0), (0, 2)), ((1, 0), (1, 2)), ((2, 0), (2, 2))]);
    let gy = gradient([((0, 0), (2, 0)), ((0, 1), (2, 1)), ((0, 2), (2, 2))]);
    let squares = B::float_add(B::float_mul(gx.clone(), gx.clone()), B::float_mul(gy.clone(), gy.clone()));
    let mut magnitude = B::float_sqrt(squares);
    if spec.window > 0 {
        let weights = window(spec.window);
        let weight = |y: usize, x: usize| weights[y % spec.window] * weights[x % spec.window];
        let values: Vec<f32> =
            (0..cells_y * cell).flat_map(|y| (0..cells_x * cell).map(move |x| (y, x))).map(|(y, x)| weight(y, x)).collect();
        let shape = [1, 1, cells_y * cell, cells_x * cell];
        let plane = B::float_from_data(TensorData::new(values, shape), &device);
        magnitude = B::float_mul(magnitude.clone(), B::float_expand(plane, magnitude.shape()));
    }
    // Both halves of the circle onto one.
    let negative = B::float_lower_elem(gx.clone(), 0.0f32.into(), native);
    let straight_down =
        B::bool_and(B::float_equal_elem(gx.clone(), 0.0f32.into(), native), B::float_lower_elem(gy.clone(), 0.0f32.into(), native));
    let flip = number::<B>(B::bool_or(negative, straight_down));
    let sign = B::float_add_scalar(B::float_mul_scalar(flip, (-2.0f32).into()), 1.0f32.into());
    let (x, y) = (B::float_mul(gx, sign.clone()), B::float_mul(gy, sign));
    let bins = BORDERS
        .iter()
        .flat_map(|&(cos, sin)| [(cos, sin), (-cos, sin)])
        .map(|(cos, sin)| {
            let (x, y) = (B::float_mul_scalar(x.clone(), cos.into()), B::float_mul_scalar(y.clone(), sin.into()));
            number::<B>(B::float_greater_equal(x, y, native))
        })
        .reduce(B::float_add)
        .expect("there are borders");
    let histograms = (0..BINS)
        .map(|bin| {
            let votes = B::float_mul(number::<B>(B::float_equal_elem(bins.clone(), (bin as f32).into(), native)), magnitude.clone());
            let by_cell = B::float_reshape(votes, Shape::new([b, c, cells_y, cell, cells_x, cell]));
            B::float_reshape(B::float_sum_dim(B::float_sum_dim(by_cell, 5), 3), Shape::new([b, c, 1, cells_y, cells_x]))
        })
        .collect();
    let cells = B::float_cat(histograms, 2);
    let norm = B::float_sqrt(B::float_sum_dim(B::float_mul(cells.clone(), cells.clone()), 2));
    let norm = B::float_expand(B::float_clamp_min(norm, EPS.into()), cells.shape());
    let cells = B::float_div(cells, norm);
    let values = if spec.patch == 0 {
        cells
    } else {
        let k = spec.patch / cell;
        let (grid_x, grid_y) = (cells_x / k, cells_y / k);
        let whole = part::<B>(part::<B>(cells, 3, 0..grid_y * k), 4, 0..grid_x * k);
        B::float_permute(B::float_reshape(whole, Shape::new([b, c, BINS, grid_y, k, grid_x, k])), &[0, 3, 5, 1, 2, 4, 6])
    };
    B::float_reshape(values, Shape::new([b, layout.values(spec.patch)]))
}

/// Which entries of an index exist, and the index with the others set to 0.
fn present<B: Backend>(index: IntTensor<B>, rows: usize) -> (IntTensor<B>, BoolTensor<B>) {
    let native = truth::<B>(&index.device());
    let inside = B::bool_and(
        B::int_greater_equal_elem(index.clone(), 0i64.into(), native),
        B::int_lower_elem(index.clone(), (rows as i64).into(), native),
    );
    (B::int_clamp(index, 0i64.into(), (rows.max(1) as i64 - 1).into()), inside)
}

/// `[B, K]` -> `[B, K, D]`
fn wide<B: Backend>(index: IntTensor<B>, width: usize) -> IntTensor<B> {
    let shape = index.shape();
    B::int_expand(B::int_reshape(index, Shape::new([shape[0], shape[1], 1])), Shape::new([shape[0], shape[1], width]))
}

/// Zero in rows that do not exist.
fn without_absent<B: Backend>(rows: FloatTensor<B>, inside: BoolTensor<B>) -> FloatTensor<B> {
    let shape = rows.shape();
    let absent = B::bool_expand(B::bool_reshape(B::bool_not(inside), Shape::new([shape[0], shape[1], 1])), shape);
    B::float_mask_fill(rows, absent, 0.0f32.into())
}

/// Any shape, by factors that are drawn on the CPU.
pub fn dropout<B: Backend>(x: FloatTensor<B>, mask: &Mask) -> FloatTensor<B> {
    let shape = x.shape();
    let factors = TensorData::new(mask.factors(shape.num_elements()).collect::<Vec<f32>>(), shape).convert_dtype(x.dtype());
    let factors = B::float_from_data(factors, &x.device());
    B::float_mul(x, factors)
}

/// `[B, N, D]`, `[B, K]` -> `[B, K, D]`
pub fn gather_rows<B: Backend>(x: FloatTensor<B>, index: IntTensor<B>) -> FloatTensor<B> {
    let (shape, kept) = (x.shape(), index.shape()[1]);
    if shape[0] * shape[1] * shape[2] * kept == 0 {
        return B::float_zeros(Shape::new([shape[0], kept, shape[2]]), &x.device(), x.dtype().into());
    }
    let (index, inside) = present::<B>(index, shape[1]);
    without_absent::<B>(B::float_gather(1, x, wide::<B>(index, shape[2])), inside)
}

/// `[B, K, D]`, `[B, K]` -> `[B, rows, D]`
pub fn scatter_rows<B: Backend>(x: FloatTensor<B>, index: IntTensor<B>, rows: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let zeros = B::float_zeros(Shape::new([shape[0], rows, shape[2]]), &x.device(), x.dtype().into());
    if shape[0] * shape[1] * shape[2] * rows == 0 {
        return zeros;
    }
    let (index, inside) = present::<B>(index, rows);
    B::float_scatter(1, zeros, wide::<B>(index, shape[2]), without_absent::<B>(x, inside), IndexingUpdateOp::Add)
}

/// Pictures as numbers `[B, H, W, C]`, scales and shifts `[B, 2, C]`, index `[B, K]` -> `[B, K, P * P * C]`
pub fn patch_pixels<B: Backend>(pixels: FloatTensor<B>, scales: FloatTensor<B>, index: IntTensor<B>, patches: Patches) -> FloatTensor<B> {
    let (b, c, p) = (pixels.shape()[0], patches.channels, patches.side);
    let (grid_x, grid_y) = (patches.width / p, patches.height / p);
    if b * patches.count() == 0 {
        return B::float_zeros(Shape::new([b, index.shape()[1], patches.values()]), &pixels.device(), FloatDType::F32);
    }
    let whole = part::<B>(part::<B>(pixels, 1, 0..grid_y * p), 2, 0..grid_x * p);
    let factor = |row: usize| {
        let shape = Shape::new([b, 1, 1, c]);
        B::float_expand(B::float_reshape(part::<B>(scales.clone(), 1, row..row + 1), shape), whole.shape())
    };
    let normalised = B::float_add(B::float_mul(whole.clone(), factor(0)), factor(1));
    let cut = B::float_permute(B::float_reshape(normalised, Shape::new([b, grid_y, p, grid_x, p, c])), &[0, 1, 3, 2, 4, 5]);
    gather_rows::<B>(B::float_reshape(cut, Shape::new([b, patches.count(), patches.values()])), index)
}

/// Bytes as numbers.
pub fn numbers<B: Backend>(pixels: IntTensor<B>) -> FloatTensor<B> {
    B::int_into_float(pixels, FloatDType::F32)
}

/// A list of numbers on a device.
pub fn values<B: Backend>(values: Vec<f32>, device: &B::Device) -> FloatTensor<B> {
    let length = values.len();
    B::float_from_data(TensorData::new(values, [length]), device)
}
