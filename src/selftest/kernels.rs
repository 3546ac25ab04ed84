//! Checks of single kernels: golden vectors, CPU twins, gradients by finite differences.

use super::{Finding, Golden, largest_difference, rate, repeated};
use crate::engine::read_values;
use crate::kernels::reference;
use crate::kernels::reference::dropout::Mask;
use crate::kernels::reference::hog::Layout;
use crate::kernels::reference::patch_gather::Rows;
use crate::kernels::translate::variants;
use crate::kernels::{dropout, gather_rows, hog_cells, hog_tokens, patch_pixels, scatter_rows, upload_index, upload_pixels};
use crate::random::{RngExt, Streams, normal};
use anyhow::{Context, Result, ensure};
use burn::prelude::*;
use burn::tensor::DType;
use half::f16;

/// Integer input decides every bin, so only sums and roots may differ (METHOD 5).
const HOG_BOUND: f64 = 2e-6;
/// Batch and side of the pictures that rates are measured with.
const RATE: (usize, usize) = (8, 224);

pub fn translation(_: &Device) -> Result<Finding> {
    for variant in variants() {
        variant.translate().map_err(anyhow::Error::msg)?;
    }
    Ok(Finding::new(0.0, 0.0))
}

pub(super) fn floats<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor of its type, from f32 that it can hold.
pub fn upload<const D: usize>(values: &[f32], shape: [usize; D], halves: bool, device: &Device) -> Tensor<D> {
    match halves {
        true => Tensor::from_data(TensorData::new(values.iter().map(|v| f16::from_f32(*v)).collect(), shape), (device, DType::F16)),
        false => floats(values.to_vec(), shape, device),
    }
}

fn noise(name: &str, n: usize) -> Vec<u8> {
    let mut rng = Streams::new(0).at(name, &[n as u64]);
    (0..n).map(|_| rng.random()).collect()
}

pub(super) fn normals(name: &str, n: usize) -> Vec<f32> {
    let mut rng = Streams::new(0).at(name, &[n as u64]);
    (0..n).map(|_| normal(&mut rng)).collect()
}

fn picture(pixels: Vec<u8>, [height, width, channels]: [usize; 3], device: &Device) -> Tensor<4, Int> {
    let samples = pixels.len() / (height * width * channels);
    upload_pixels(pixels, [samples, height, width, channels], device)
}

pub fn hog_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::hog()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".input_u8")? {
        let (pixels, sides) = golden.picture(&format!("{stem}.input_u8"))?;
        for window in [0, 16] {
            let cells = hog_cells(picture(pixels.clone(), sides, device), 8, window)?;
            worst = worst.max(largest_difference(&read_values(cells)?, &golden.floats(&format!("{stem}.cells.w{window}"))?));
        }
        let tokens = format!("{stem}.tokens.w0");
        if golden.has(&tokens) {
            let ours = hog_tokens(picture(pixels, sides, device), 8, 0, 16)?;
            worst = worst.max(largest_difference(&read_values(ours)?, &golden.floats(&tokens)?));
        }
    }
    let (b, side) = RATE;
    let layout = Layout { width: side, height: side, channels: 3, cell: 8, window: 0 };
    let pixels = picture(noise("rate", b * layout.bytes()), [side, side, 3], device);
    let bytes = b * (layout.bytes() + 4 * layout.values(16));
    let rate = rate(device, bytes, || Ok(hog_tokens(pixels.clone(), 8, 0, 16)?))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, HOG_BOUND) })
}

pub fn hog_twin(device: &Device) -> Result<Finding> {
    let mut worst = 0.0f64;
    // Height, width, channels, cell, window, patch: ragged sides, cells that fill a workgroup once and more than once, single pixels.
    let cases = [
        (37, 53, 3, 8, 0, 16),
        (48, 48, 1, 4, 0, 8),
        (33, 70, 1, 5, 16, 10),
        (160, 161, 3, 80, 0, 80),
        (200, 200, 1, 200, 16, 200),
        (3, 5, 3, 1, 0, 2),
        (2, 1, 1, 1, 0, 1),
        (96, 208, 3, 16, 16, 16),
    ];
    for (height, width, channels, cell, window, patch) in cases {
        let layout = Layout { width, height, channels, cell, window };
        let pixels = noise("twin", 3 * layout.bytes());
        let on_device = || picture(pixels.clone(), [height, width, channels], device);
        let cells = read_values(hog_cells(on_device(), cell, window)?)?;
        worst = worst.max(largest_difference(&cells, &reference::hog::batch(&pixels, layout, 0)));
        let tokens = read_values(hog_tokens(on_device(), cell, window, patch)?)?;
        worst = worst.max(largest_difference(&tokens, &reference::hog::batch(&pixels, layout, patch)));
    }
    Ok(Finding::new(worst, HOG_BOUND))
}

pub fn hog_repeats(device: &Device) -> Result<Finding> {
    let pixels = noise("repeats", 4 * 64 * 64 * 3);
    let once = || read_values(hog_tokens(picture(pixels.clone(), [64, 64, 3], device), 8, 16, 16)?);
    repeated(once)
}

pub fn pixels_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::patch_pixels()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".pixels")? {
        let name = |part: &str| format!("{stem}.{part}");
        let pixels = upload_pixels(golden.bytes(&name("pixels"))?, golden.shape(&name("pixels"))?, device);
        let scales = floats(golden.floats(&name("scales"))?, golden.shape(&name("scales"))?, device);
        let index = upload_index(golden.ints(&name("index"))?, golden.shape(&name("index"))?, device);
        let ours = read_values(patch_pixels(pixels, scales, index, golden.ints(&name("side"))?[0] as usize)?)?;
        // Values go up to 255 times a few units of scale; one rounding of product and sum each.
        let reference = golden.floats(&name("patches"))?;
        let largest = reference.iter().fold(1.0f32, |m, v| m.max(v.abs()));
        ensure!(largest.is_finite(), "{stem}: the reference is not finite");
        worst = worst.max(largest_difference(&ours, &reference) / f64::from(largest));
    }
    let (b, side) = RATE;
    let pixels = picture(noise("rate", b * side * side * 3), [side, side, 3], device);
    let scales = floats(normals("scales", b * 6), [b, 2, 3], device);
    let kept = (side / 16usize).pow(2);
    let index = upload_index((0..b).flat_map(|_| 0..kept as i32).collect(), [b, kept], device);
    let rate = rate(device, b * side * side * 3 * 5, || Ok(patch_pixels(pixels.clone(), scales.clone(), index.clone(), 16)?))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, 1e-6) })
}

/// Bits of every value of a tensor of either float type.
fn read_bits(x: Tensor<3>) -> Result<Vec<u32>> {
    let data = x.try_into_data().map_err(|e| anyhow::anyhow!("reading from the device: {e:?}"))?;
    Ok(match data.dtype() {
        DType::F16 => data.try_to_vec::<f16>().map_err(|e| anyhow::anyhow!("{e:?}"))?.iter().map(|v| u32::from(v.to_bits())).collect(),
        _ => data.try_to_vec::<f32>().map_err(|e| anyhow::anyhow!("{e:?}"))?.iter().map(|v| v.to_bits()).collect(),
    })
}

/// A golden tensor on the device in its own type.
fn golden_tensor(golden: &Golden, name: &str, halves: bool, device: &Device) -> Result<Tensor<3>> {
    let shape = golden.shape::<3>(name)?;
    Ok(match halves {
        true => Tensor::from_data(TensorData::new(golden.halves(name)?, shape), (device, DType::F16)),
        false => floats(golden.floats(name)?, shape, device),
    })
}

/// Golden cases of gather and scatter, each with the types it is there in.
fn row_cases(golden: &Golden) -> Result<Vec<(String, &'static str)>> {
    let all = golden.stems(".index")?.into_iter().flat_map(|stem| ["f32", "f16"].map(|label| (stem.clone(), label)));
    let cases: Vec<_> = all.filter(|(stem, label)| golden.has(&format!("{stem}.{label}.x"))).collect();
    ensure!(["f32", "f16"].iter().all(|label| cases.iter().any(|c| c.1 == *label)), "golden rows of a type are missing");
    Ok(cases)
}

pub fn gather_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::patch_gather()?;
    let mut differing = 0;
    for (stem, label) in row_cases(&golden)? {
        let halves = label == "f16";
        let index = format!("{stem}.index");
        let list = upload_index(golden.ints(&index)?, golden.shape(&index)?, device);
        let ours = read_bits(gather_rows(golden_tensor(&golden, &format!("{stem}.{label}.x"), halves, device)?, list)?)?;
        let expected = format!("{stem}.{label}.gathered");
        let expected: Vec<u32> = match halves {
            true => golden.halves(&expected)?.iter().map(|v| u32::from(v.to_bits())).collect(),
            false => golden.floats(&expected)?.iter().map(|v| v.to_bits()).collect(),
        };
        differing += if ours.len() == expected.len() { ours.iter().zip(&expected).filter(|(a, b)| a != b).count() } else { expected.len() };
    }
    let (b, n, d, k) = (RATE.0, 196, 768, 78);
    let x = floats(normals("rate", b * n * d), [b, n, d], device);
    let list = upload_index((0..b * k).map(|i| (i * 7 % n) as i32).collect(), [b, k], device);
    let rate = rate(device, 2 * 4 * b * k * d, || Ok(gather_rows(x.clone(), list.clone())?))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(f64::from(differing as u32), 0.0) })
}

pub fn scatter_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::patch_gather()?;
    let mut worst = 0.0f64;
    for (stem, label) in row_cases(&golden)? {
        let name = |part: &str| format!("{stem}.{label}.{part}");
        let index = format!("{stem}.index");
        let list = upload_index(golden.ints(&index)?, golden.shape(&index)?, device);
        let rows = golden.shape::<3>(&name("x"))?[1];
        let ours = read_values(scatter_rows(golden_tensor(&golden, &name("g"), label == "f16", device)?, list, rows)?)?;
        // In units of the last place of sums up to 16.
        let unit = if label == "f16" { 16.0 * 2f64.powi(-11) } else { 16.0 * 2f64.powi(-24) };
        worst = worst.max(largest_difference(&ours, &golden.floats(&name("scattered"))?) / unit);
    }
    let (b, n, d, k) = (RATE.0, 196, 768, 78);
    let x = floats(normals("rate", b * k * d), [b, k, d], device);
    let list = upload_index((0..b * k).map(|i| (i * 7 % n) as i32).collect(), [b, k], device);
    let rate = rate(device, 4 * b * (k + n) * d, || Ok(scatter_rows(x.clone(), list.clone(), n)?))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, 2.0) })
}

/// Distance of two floats in units of the last place.
fn ulps(a: f32, b: f32) -> f64 {
    let ordered = |v: f32| if v.to_bits() >> 31 == 0 { i64::from(v.to_bits()) } else { -i64::from(v.to_bits() & 0x7fff_ffff) };
    if a.is_finite() && b.is_finite() { (ordered(a) - ordered(b)).abs() as f64 } else { f64::INFINITY }
}

pub fn scatter_twin(device: &Device) -> Result<Finding> {
    let rows = Rows { samples: 3, rows: 11, kept: 90, width: 10 };
    let values = normals("twin", rows.samples * rows.kept * rows.width);
    let list: Vec<i32> = (0..rows.samples * rows.kept).map(|i| (i * i % 13) as i32 - 1).collect();
    let expected = reference::patch_gather::scatter(&values, &list, &rows, |v| v, |v| v);
    let x = floats(values, [rows.samples, rows.kept, rows.width], device);
    let ours = read_values(scatter_rows(x, upload_index(list, [rows.samples, rows.kept], device), rows.rows)?)?;
    let worst = if ours.len() == expected.len() {
        ours.iter().zip(&expected).map(|(a, b)| ulps(*a, *b)).fold(0.0, f64::max)
    } else {
        f64::INFINITY
    };
    Ok(Finding::new(worst, 1.0))
}

/// The gradient of `sum(w * f(x)^2)` beside central differences, which are exact for it up to rounding. The sum is the host's, so that burn's
/// reductions take no part.
fn gradient(device: &Device, x: Vec<f32>, shape: [usize; 3], f: impl Fn(Tensor<3>) -> Result<Tensor<3>>) -> Result<Finding> {
    let training = device.clone().autodiff();
    let terms = |x: Tensor<3>| -> Result<Tensor<3>> {
        let y = f(x)?;
        let w = floats(normals("weights", y.dims().iter().product()), y.dims(), &y.device());
        Ok(y.square() * w)
    };
    let input = floats(x.clone(), shape, &training).require_grad();
    // From ones for every term, as if they had been summed.
    let gradients = terms(input.clone())?.backward();
    let gradient = read_values(input.grad(&gradients).ok_or_else(|| anyhow::anyhow!("there is no gradient"))?)?;
    let mut worst = 0.0f64;
    let step = 0.25f32;
    for i in (0..x.len()).step_by(x.len().div_ceil(12)) {
        let moved = |by: f32| -> Result<f64> {
            let mut x = x.clone();
            x[i] += by;
            Ok(read_values(terms(floats(x, shape, device))?)?.into_iter().map(f64::from).sum())
        };
        let numeric = (moved(step)? - moved(-step)?) / f64::from(2.0 * step);
        let error = (f64::from(gradient[i]) - numeric).abs();
        worst = worst.max(if error.is_finite() { error } else { f64::INFINITY });
    }
    Ok(Finding::new(worst, 1e-4))
}

pub fn gather_gradient(device: &Device) -> Result<Finding> {
    let list: Vec<i32> = vec![3, 1, 3, 0, 4, -1, 2, 2, 2, 6];
    gradient(device, normals("x", 2 * 5 * 6), [2, 5, 6], |x| {
        let index = upload_index(list.clone(), [2, 5], &x.device());
        Ok(gather_rows(x, index)?)
    })
}

pub fn scatter_gradient(device: &Device) -> Result<Finding> {
    let list: Vec<i32> = vec![3, 1, 3, 0, 4, -1, 2, 2, 2, 6];
    gradient(device, normals("x", 2 * 5 * 6), [2, 5, 6], |x| {
        let index = upload_index(list.clone(), [2, 5], &x.device());
        Ok(scatter_rows(x, index, 5)?)
    })
}

pub fn dropout_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::dropout()?;
    let mut wrong = 0;
    for stem in golden.stems(".x")? {
        let values = |part: &str| golden.floats(&format!("{stem}.{part}"));
        let stream: Vec<u32> = golden.ints(&format!("{stem}.stream"))?.into_iter().map(i32::cast_unsigned).collect();
        let first = u64::from(stream[8]) | u64::from(stream[9]) << 32;
        let mask = Mask::new(std::array::from_fn(|i| stream[i]), first, f64::from(values("rate")?[0]));
        let (x, y) = (values("x")?, values("y")?);
        let n = x.len();
        wrong += different(&read_values(dropout(floats(x, [n], device), mask))?, &y);
    }
    Ok(Finding::new(wrong as f64, 0.0))
}

/// Values of other bits, of as many at least.
fn different(ours: &[f32], reference: &[f32]) -> usize {
    ours.len().abs_diff(reference.len()) + ours.iter().zip(reference).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

pub fn dropout_twin(device: &Device) -> Result<Finding> {
    const VALUES: usize = 1 << 20;
    let (mut stream, mut wrong) = (Streams::new(0).at("dropout", &[]), 0);
    // One mask after the other: they begin anywhere in a block.
    for n in [1, 17, 4097, VALUES + 3] {
        let mask = Mask::draw(&mut stream, n, 0.1);
        let (values, slopes) = (normals("x", n), normals("gradient", n));
        let x = floats(values.clone(), [n], &device.clone().autodiff()).require_grad();
        let y = dropout(x.clone(), mask);
        let by_slopes = y.clone() * floats(slopes.clone(), [n], &device.clone().autodiff());
        let gradient = x.grad(&by_slopes.sum().backward()).context("a gradient")?;
        wrong += different(&read_values(y.inner())?, &reference::dropout::dropout(&values, &mask));
        wrong += different(&read_values(gradient)?, &reference::dropout::dropout(&slopes, &mask));
    }
    let (x, mask) = (floats(normals("x", VALUES), [VALUES], device), Mask::draw(&mut stream, VALUES, 0.1));
    let rate = rate(device, 8 * VALUES, || Ok(dropout(x.clone(), mask)))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(wrong as f64, 0.0) })
}
