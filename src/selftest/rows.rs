//! Checks of the kernels over rows, layer norm and softmax, and of sums of columns of f16: golden vectors, and larger sizes beside the CPU
//! in double precision.

use super::kernels::{floats, normals, upload};
use super::{Finding, Golden, ROUNDED_BOUND, rate, relative_error, repeated, rounded_error};
use crate::engine::read_values;
use crate::kernels::layers::{Layers, Path};
use crate::kernels::reference::column_sums::column_sums;
use crate::kernels::reference::{layer_norm, softmax};
use anyhow::{Result, ensure};
use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use half::f16;

const EPSILON: f64 = 1e-6;
/// Largest error over the largest value; a mean of 100 beside a deviation of 1 costs seven bits.
const NORM_BOUND: f64 = 2e-5;
/// Scores up to 100 are rounded before e is raised to them.
const SOFTMAX_BOUND: f64 = 1e-5;
/// An f16 has eleven bits; which way a number between two of them is rounded is not said.
const HALVES_BOUND: f64 = 1e-3;
/// Sums of f16 are f32.
const SUMS_BOUND: f64 = 1e-5;
/// Sizes that rates are measured with: a ViT-B/16 at 224 pixels, and its tokens with padding.
const FACES: usize = 8;
const TOKENS: usize = 197;
const WIDTH: usize = 768;
const HEADS: usize = 12;
const PADDED: usize = 208;

/// Layer norm of `[R, D]`.
fn norm([x, gamma, beta]: [Tensor<2>; 3]) -> Tensor<2> {
    let [gamma, beta] = [gamma, beta].map(|v| v.flatten::<1>(0, 1).into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::norm(x.into_dispatch(), gamma, beta, EPSILON))
}

/// The same of f16.
fn norm_rounded([x, gamma, beta]: [Tensor<2>; 3]) -> Tensor<2> {
    let [gamma, beta] = [gamma, beta].map(|v| v.flatten::<1>(0, 1).into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::norm_rounded(x.into_dispatch(), gamma, beta, EPSILON))
}

/// Gradients of x, gamma and beta.
fn norm_backward(x: Tensor<2>, gamma: Tensor<2>, gradient: Tensor<2>) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let gamma = gamma.flatten::<1>(0, 1).into_dispatch();
    let (x, gamma, beta) = <Dispatch as Layers>::norm_gradients(x.into_dispatch(), gamma, gradient.into_dispatch(), EPSILON);
    (Tensor::from_dispatch(x), Tensor::from_dispatch(gamma), Tensor::from_dispatch(beta))
}

/// Gradients of x on top of a residual, of gamma and of beta.
fn norm_onto([x, gradient, residual]: [Tensor<3>; 3], gamma: Tensor<1>) -> (Tensor<3>, Tensor<1>, Tensor<1>) {
    let [x, gradient, residual] = [x, gradient, residual].map(Tensor::into_dispatch);
    let (x, gamma, beta) = <Dispatch as Layers>::norm_gradients_onto(x, gamma.into_dispatch(), gradient, residual, EPSILON);
    (Tensor::from_dispatch(x), Tensor::from_dispatch(gamma), Tensor::from_dispatch(beta))
}

/// The same, and in the second place what comes along a path of the first.
fn norm_along(
    [x, gradient, residual]: [Tensor<3>; 3],
    gamma: Tensor<1>,
    mask: Option<Tensor<3>>,
) -> (Tensor<3>, Tensor<3>, Tensor<1>, Tensor<1>) {
    let [x, gradient, residual] = [x, gradient, residual].map(Tensor::into_dispatch);
    let path = mask.map_or(Path::Whole, |mask| Path::Masked(mask.into_dispatch()));
    let made = <Dispatch as Layers>::norm_gradients_along(x, gamma.into_dispatch(), gradient, residual, path, EPSILON);
    let (x, branch, gamma, beta) = made;
    (Tensor::from_dispatch(x), Tensor::from_dispatch(branch), Tensor::from_dispatch(gamma), Tensor::from_dispatch(beta))
}

fn weights_of(scores: Tensor<2>, columns: usize, scale: f32, dtype: DType) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Layers>::softmax_of(scores.into_dispatch(), columns, scale, dtype))
}

fn softmax_backward(weights: Tensor<2>, gradient: Tensor<2>, columns: usize, scale: f32) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Layers>::softmax_gradient(weights.into_dispatch(), gradient.into_dispatch(), columns, scale))
}

pub fn norm_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::layer_norm()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".x")? {
        let expected = |part: &str| golden.floats(&format!("{stem}.{part}"));
        let [rows, width] = golden.shape(&format!("{stem}.x"))?;
        let vector = |part: &str| Ok::<_, anyhow::Error>(floats(expected(part)?, [1, width], device));
        let (x, g) = (floats(expected("x")?, [rows, width], device), floats(expected("g")?, [rows, width], device));
        let y = norm([x.clone(), vector("gamma")?, vector("beta")?]);
        worst = worst.max(relative_error(&read_values(y)?, &expected("y")?));
        let (of_x, of_gamma, of_beta) = norm_backward(x, vector("gamma")?, g);
        worst = worst.max(relative_error(&read_values(of_x)?, &expected("of_x")?));
        worst = worst.max(relative_error(&read_values(of_gamma)?, &expected("of_gamma")?));
        worst = worst.max(relative_error(&read_values(of_beta)?, &expected("of_beta")?));
    }
    Ok(Finding::new(worst, NORM_BOUND))
}

pub fn norm_forward(device: &Device) -> Result<Finding> {
    let rows = FACES * TOKENS;
    let values = [normals("x", rows * WIDTH), normals("gamma", WIDTH), normals("beta", WIDTH)];
    let [x, gamma, beta] = values.clone().map(|v| floats(v.clone(), [v.len() / WIDTH, WIDTH], device));
    let ours = read_values(norm([x.clone(), gamma.clone(), beta.clone()]))?;
    let worst = relative_error(&ours, &layer_norm::norm(&values[0], &values[1], &values[2], EPSILON));
    let rate = rate(device, 2 * 4 * rows * WIDTH, || Ok(norm([x.clone(), gamma.clone(), beta.clone()])))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, NORM_BOUND) })
}

pub fn norm_halves(device: &Device) -> Result<Finding> {
    let mut worst = 0.0f64;
    // Lanes of one to four quads; last workgroups that are not whole.
    for (rows, width) in [(1, 2), (37, 16), (1001, 96), (21, 390), (FACES * TOKENS + 1, WIDTH), (3, 1026), (2, 4096)] {
        let values = [normals("x", rows * width), normals("gamma", width), normals("beta", width)];
        let on_device = values.clone().map(|v| floats(v.clone(), [v.len() / width, width], device));
        let made = norm_rounded(on_device);
        ensure!(made.dtype() == DType::F16, "a norm of {:?}", made.dtype());
        let exact = layer_norm::norm(&values[0], &values[1], &values[2], EPSILON);
        worst = worst.max(rounded_error(&read_values(made)?, &exact.into_iter().map(f64::from).collect::<Vec<_>>()));
    }
    let rows = FACES * TOKENS;
    let inputs = [("x", rows), ("gamma", 1), ("beta", 1)].map(|(name, n)| floats(normals(name, n * WIDTH), [n, WIDTH], device));
    let bytes_per_second = rate_of(device, (4 + 2) * rows * WIDTH, true, || norm_rounded(inputs.clone()))?;
    Ok(Finding { bytes_per_second, ..Finding::new(worst, ROUNDED_BOUND) })
}

pub fn norm_gradients(device: &Device) -> Result<Finding> {
    let rows = FACES * TOKENS;
    let values = [normals("x", rows * WIDTH), normals("gamma", WIDTH), normals("gradient", rows * WIDTH)];
    let [x, gamma, gradient] = values.clone().map(|v| floats(v.clone(), [v.len() / WIDTH, WIDTH], device));
    let (of_x, of_gamma, of_beta) = norm_backward(x.clone(), gamma.clone(), gradient.clone());
    let ours = [read_values(of_x)?, read_values(of_gamma)?, read_values(of_beta)?];
    let expected = layer_norm::gradients(&values[0], &values[1], &values[2], EPSILON);
    let mut worst = ours.iter().zip(&expected).map(|(ours, expected)| relative_error(ours, expected)).fold(0.0, f64::max);
    let residual = normals("residual", rows * WIDTH);
    let [sum, _] = layer_norm::along(&expected[0], &residual, &[1.0]);
    let tensors = || [&values[0], &values[2], &residual].map(|v| floats(v.clone(), [FACES, TOKENS, WIDTH], device));
    let onto = norm_onto(tensors(), gamma.clone().flatten::<1>(0, 1));
    let (of_x, _, of_gamma, of_beta) = norm_along(tensors(), gamma.clone().flatten::<1>(0, 1), None);
    for (of_x, of_gamma, of_beta) in [onto, (of_x, of_gamma, of_beta)] {
        worst = worst.max(relative_error(&read_values(of_x)?, &sum));
        worst = worst.max(relative_error(&read_values(of_gamma)?, &expected[1]));
        worst = worst.max(relative_error(&read_values(of_beta)?, &expected[2]));
    }
    // Each of the three is read from, in one tensor.
    let rate = rate(device, 3 * 4 * rows * WIDTH, || {
        let (of_x, of_gamma, of_beta) = norm_backward(x.clone(), gamma.clone(), gradient.clone());
        Ok(Tensor::cat(vec![of_x.slice([0..1, 0..1]).flatten::<1>(0, 1), of_gamma.narrow(0, 0, 1), of_beta.narrow(0, 0, 1)], 0))
    })?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, NORM_BOUND) })
}

pub fn norm_branch(device: &Device) -> Result<Finding> {
    let mut worst = 0.0f64;
    // Lanes of one to four quads; samples that end within a workgroup's rows.
    for shape in [[1, 1, 16], [5, 7, 96], [3, 7, 390], [FACES, TOKENS, WIDTH], [3, 1, 1026], [2, 3, 4096]] {
        let [faces, tokens, width] = shape;
        let values = ["x", "gradient", "residual"].map(|name| normals(name, faces * tokens * width));
        let gamma = normals("gamma", width);
        let [of_x, ..] = layer_norm::gradients(&values[0], &gamma, &values[1], EPSILON);
        for masked in [false, true] {
            let factors: Vec<f32> = (0..faces).map(|face| if masked { [1.25, 0.0, 0.75][face % 3] } else { 1.0 }).collect();
            let tensors = values.each_ref().map(|v| floats(v.clone(), shape, device));
            let mask = masked.then(|| floats(factors.clone(), [faces, 1, 1], device));
            let (_, branch, ..) = norm_along(tensors, floats(gamma.clone(), [width], device), mask);
            ensure!(branch.dtype() == DType::F16, "a branch of {:?}", branch.dtype());
            let [_, exact] = layer_norm::along(&of_x, &values[2], &factors);
            worst = worst.max(rounded_error(&read_values(branch)?, &exact.into_iter().map(f64::from).collect::<Vec<_>>()));
        }
    }
    let shape = [FACES, TOKENS, WIDTH];
    let tensors = ["x", "gradient", "residual"].map(|name| floats(normals(name, shape.iter().product()), shape, device));
    let (gamma, mask) = (floats(normals("gamma", WIDTH), [WIDTH], device), floats(vec![1.25; FACES], [FACES, 1, 1], device));
    let bytes = (4 * 4 + 2) * FACES * TOKENS * WIDTH;
    let branch = || norm_along(tensors.clone(), gamma.clone(), Some(mask.clone())).1.flatten::<2>(0, 1);
    let bytes_per_second = rate_of(device, bytes, true, branch)?;
    Ok(Finding { bytes_per_second, ..Finding::new(worst, ROUNDED_BOUND) })
}

pub fn repeats(device: &Device) -> Result<Finding> {
    let (rows, width, columns) = (1001, 200, 197);
    let [x, gradient] = ["x", "gradient"].map(|name| floats(normals(name, rows * width), [rows, width], device));
    let gamma = floats(normals("gamma", width), [1, width], device);
    let once = || -> Result<Vec<f32>> {
        let (of_x, of_gamma, of_beta) = norm_backward(x.clone(), gamma.clone(), gradient.clone());
        let weights = weights_of(norm([x.clone(), gamma.clone(), gamma.clone()]), columns, 0.125, DType::F32);
        let mut all = read_values(softmax_backward(weights, gradient.clone(), columns, 0.125))?;
        for part in [read_values(of_x)?, read_values(of_gamma)?, read_values(of_beta)?] {
            all.extend(part);
        }
        let tensors = [&x, &gradient, &x].map(|v| v.clone().reshape([7, rows / 7, width]));
        let (of_x, branch, of_gamma, of_beta) = norm_along(tensors, gamma.clone().flatten::<1>(0, 1), None);
        for part in [read_values(of_x)?, read_values(branch)?, read_values(of_gamma)?, read_values(of_beta)?] {
            all.extend(part);
        }
        Ok(all)
    };
    repeated(once)
}

/// Type, and bound, of weights.
fn kind(halves: bool) -> (DType, f64) {
    if halves { (DType::F16, HALVES_BOUND) } else { (DType::F32, SOFTMAX_BOUND) }
}

fn softmax_golden(device: &Device, halves: bool) -> Result<Finding> {
    let golden = Golden::softmax()?;
    let (dtype, bound) = kind(halves);
    let label = if halves { "f16" } else { "f32" };
    let mut worst = 0.0f64;
    for stem in golden.stems(&format!(".{label}.weights"))? {
        let shape = golden.shape(&format!("{stem}.scores"))?;
        let (columns, scale) = (golden.ints(&format!("{stem}.columns"))?[0] as usize, golden.floats(&format!("{stem}.scale"))?[0]);
        let (weights, of_scores) = (format!("{stem}.{label}.weights"), format!("{stem}.{label}.of_scores"));
        let weights = golden.floats(&weights)?;
        let scores = floats(golden.floats(&format!("{stem}.scores"))?, shape, device);
        let ours = read_values(weights_of(scores, columns, scale, dtype))?;
        worst = worst.max(relative_error(&ours, &weights)).max(padding(&ours, shape[1], columns));
        let gradient = floats(golden.floats(&format!("{stem}.g"))?, shape, device);
        let ours = read_values(softmax_backward(upload(&weights, shape, halves, device), gradient, columns, scale))?;
        worst = worst.max(relative_error(&ours, &golden.floats(&of_scores)?)).max(padding(&ours, shape[1], columns));
    }
    Ok(Finding::new(worst, bound))
}

/// Infinite if there is anything in the padding.
fn padding(values: &[f32], width: usize, columns: usize) -> f64 {
    if values.chunks(width).all(|row| row[columns..].iter().all(|v| *v == 0.0)) { 0.0 } else { f64::INFINITY }
}

pub fn softmax_golden_f32(device: &Device) -> Result<Finding> {
    softmax_golden(device, false)
}

pub fn softmax_golden_f16(device: &Device) -> Result<Finding> {
    softmax_golden(device, true)
}

/// The rate of what gives weights. Half precision needs a device that can make f32 of it, to read from what was made.
fn rate_of(device: &Device, bytes: usize, halves: bool, work: impl Fn() -> Tensor<2>) -> Result<Option<f64>> {
    if halves && !device.supports_dtype(FloatDType::F16) {
        return Ok(None);
    }
    rate(device, bytes, || Ok(work().slice([0..1, 0..1]).cast(FloatDType::F32))).map(Some)
}

fn softmax_forward(device: &Device, halves: bool) -> Result<Finding> {
    let (rows, scale, (dtype, bound)) = (FACES * HEADS * TOKENS, 0.125, kind(halves));
    let values: Vec<f32> = normals("scores", rows * PADDED).iter().map(|v| 30.0 * v).collect();
    let scores = floats(values.clone(), [rows, PADDED], device);
    let ours = read_values(weights_of(scores.clone(), TOKENS, scale, dtype))?;
    let worst = relative_error(&ours, &softmax::softmax(&values, PADDED, TOKENS, scale)).max(padding(&ours, PADDED, TOKENS));
    let bytes = (4 + dtype.size()) * rows * PADDED;
    let bytes_per_second = rate_of(device, bytes, halves, || weights_of(scores.clone(), TOKENS, scale, dtype))?;
    Ok(Finding { bytes_per_second, ..Finding::new(worst, bound) })
}

pub fn softmax_f32(device: &Device) -> Result<Finding> {
    softmax_forward(device, false)
}

pub fn softmax_f16(device: &Device) -> Result<Finding> {
    softmax_forward(device, true)
}

fn softmax_gradient(device: &Device, halves: bool) -> Result<Finding> {
    let (rows, scale, (dtype, bound)) = (FACES * HEADS * TOKENS, 0.125, kind(halves));
    let scores: Vec<f32> = normals("scores", rows * PADDED).iter().map(|v| 30.0 * v).collect();
    let mut weights = softmax::softmax(&scores, PADDED, TOKENS, scale);
    if halves {
        weights.iter_mut().for_each(|w| *w = f16::from_f32(*w).to_f32());
    }
    let slopes = normals("gradient", rows * PADDED);
    let (on_device, gradient) = (upload(&weights, [rows, PADDED], halves, device), floats(slopes.clone(), [rows, PADDED], device));
    let ours = read_values(softmax_backward(on_device.clone(), gradient.clone(), TOKENS, scale))?;
    let worst = relative_error(&ours, &softmax::gradient(&weights, &slopes, PADDED, TOKENS, scale)).max(padding(&ours, PADDED, TOKENS));
    let bytes = (4 + 2 * dtype.size()) * rows * PADDED;
    let bytes_per_second = rate_of(device, bytes, halves, || softmax_backward(on_device.clone(), gradient.clone(), TOKENS, scale))?;
    Ok(Finding { bytes_per_second, ..Finding::new(worst, bound) })
}

pub fn softmax_gradient_f32(device: &Device) -> Result<Finding> {
    softmax_gradient(device, false)
}

pub fn softmax_gradient_f16(device: &Device) -> Result<Finding> {
    softmax_gradient(device, true)
}

fn sums_of(x: &Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Layers>::column_sums(x.clone().into_dispatch()))
}

pub fn sums_halves(device: &Device) -> Result<Finding> {
    let of = |rows: usize, width: usize| -> (Vec<f32>, Tensor<2>) {
        let values: Vec<f32> = normals("x", rows * width).iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        let on_device = upload(&values, [rows, width], true, device);
        (values, on_device)
    };
    let mut worst = 0.0f64;
    // One row; more pairs of columns than a workgroup has lanes, and some left over; more rows than one chunk, and some left over.
    for (rows, width) in [(1, 66), (9, 602), (4097, 4), (33, 2)] {
        let (values, x) = of(rows, width);
        worst = worst.max(relative_error(&read_values(sums_of(&x))?, &column_sums(&values, width)));
    }
    let rows = FACES * TOKENS;
    let (values, x) = of(rows, WIDTH);
    worst = worst.max(relative_error(&read_values(sums_of(&x))?, &column_sums(&values, WIDTH)));
    let rate = rate(device, (2 * rows + 4) * WIDTH, || Ok(sums_of(&x)))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, SUMS_BOUND) })
}
