//! Checks of products of matrices and of sums of columns: golden vectors, and more sizes beside the CPU in double precision.

use super::kernels::{floats, normals, upload};
use super::{Finding, Golden, ROUNDED_BOUND, attention, rate, relative_error, repeated, rounded_error};
use crate::engine::read_values;
use crate::kernels::layers::{Layers, Path, Product};
use crate::kernels::product::Way;
use crate::kernels::queue;
use crate::kernels::reference::activation::{activation, slope};
use crate::kernels::reference::column_sums::column_sums;
use crate::kernels::reference::product::{Sizes, entries, entry};
use anyhow::Result;
use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use half::f16;

/// Largest error over the largest value: sums are f32, and what goes in is exact, also in f16.
pub const BOUND: f64 = 1e-5;
/// Weights of attention and what it gives are rounded to f16. So are, by burn, products of f16, and where f16 is the processor's own also
/// their sums.
pub const HALVES_BOUND: f64 = 2e-3;
/// burn rounds scores to f16, too, of which weights are the exponentials, and adds up a single row's products in f16.
pub const BURNS_BOUND: f64 = 1e-2;
pub const NO_HALVES: &str = "half precision";
const NO_SHADER: &str = "shader for products of f16";
/// Sizes that rates are measured with: a ViT-B/16 at 224 pixels.
const FACES: usize = 1;
const TOKENS: usize = 197;
const WIDTH: usize = 768;
/// Rows, K and N of layers whose results are rounded: less than a tile and several, with edges in all directions, and short and long sums.
const ROUNDED: [[usize; 3]; 8] =
    [[1, 16, 16], [19, 48, 16], [261, 16, 272], [300, 48, 272], [300, 80, 144], [1, 1008, 144], [19, 1008, 272], [261, 1008, 16]];
/// Sums on either side of what f16 holds, which is 65504 at most; so are halves of them.
const RANGE: [f64; 4] = [131_072.0, 131_008.0, 65_504.0, 640.0];
/// Values of a large product that are compared: all of them take the CPU too long.
const SAMPLES: usize = 500;

/// How our kernels multiply on this device; none where burn's do, as on the CPU.
pub fn way(device: &Device, halves: bool) -> Option<Way> {
    queue::gpu_of(device)?.products(halves)
}

/// Whether products of this type can be had: ours read f16 on every device, burn's do not.
pub fn computes(device: &Device, halves: bool) -> bool {
    !halves || way(device, true).is_some() || device.supports_dtype(FloatDType::F16)
}

fn bound(device: &Device, halves: bool) -> f64 {
    if halves && way(device, true).is_none() { HALVES_BOUND } else { BOUND }
}

/// Normal numbers, such as the type can hold.
pub fn held(name: &str, n: usize, halves: bool) -> Vec<f32> {
    let mut values = normals(name, n);
    if halves {
        values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    }
    values
}

/// Normal numbers of another deviation, rounded to f16.
fn scaled(name: &str, n: usize, deviation: f32) -> Vec<f32> {
    normals(name, n).iter().map(|v| f16::from_f32(deviation * v).to_f32()).collect()
}

/// Products of a layer from K to N values over M rows, and their sizes: of which two of x `[M, K]`, the weight `[K, N]` and the gradient of
/// the output `[M, N]` each is made.
fn products([m, k, n]: [usize; 3]) -> [(usize, usize, Product, Sizes); 3] {
    let forward = Sizes { m, k, n, turn_a: false, turn_b: false };
    let input = Sizes { m, k: n, n: k, turn_a: false, turn_b: true };
    let parameters = Sizes { m: k, k: m, n, turn_a: true, turn_b: false };
    [(0, 1, Product::Forward, forward), (2, 1, Product::Input, input), (0, 2, Product::Parameters, parameters)]
}

fn multiply(a: &Tensor<2>, b: &Tensor<2>, product: Product) -> Tensor<2> {
    let [a, b] = [a, b].map(|x| x.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::product(a, b, product))
}

fn multiply_rounded(a: &Tensor<2>, b: &Tensor<2>, product: Product) -> Tensor<2> {
    let [a, b] = [a, b].map(|x| x.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::product_rounded(a, b, product))
}

fn affine<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: &Tensor<1>) -> Tensor<D> {
    let (x, weight, bias) = (x.clone().into_dispatch(), weight.clone().into_dispatch(), bias.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::affine_rounded(x, weight, bias))
}

/// Before and after the activation.
fn activated<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, bias: &Tensor<1>, relu: bool) -> [Tensor<D>; 2] {
    let (x, weight, bias) = (x.clone().into_dispatch(), weight.clone().into_dispatch(), bias.clone().into_dispatch());
    let (inner, hidden) = <Dispatch as Layers>::affine_activated(x, weight, bias, relu);
    [inner, hidden].map(Tensor::from_dispatch)
}

/// A residual and, on top of it, what comes along a path.
fn onto<const D: usize>(residual: &Tensor<D>, x: &Tensor<D>, weight: &Tensor<2>, bias: &Tensor<1>, mask: Option<&Tensor<D>>) -> Tensor<D> {
    let [x, residual] = [x, residual].map(|x| x.clone().into_dispatch());
    let path = mask.map_or(Path::Whole, |mask| Path::Masked(mask.clone().into_dispatch()));
    let (weight, bias) = (weight.clone().into_dispatch(), bias.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::affine_onto(x, weight, bias, residual, path))
}

/// The gradient before an activation of `inner`.
fn before<const D: usize>(weight: &Tensor<2>, gradient: &Tensor<D>, inner: &Tensor<D>, relu: bool) -> Tensor<D> {
    let [gradient, inner] = [gradient, inner].map(|x| x.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::activated_gradient(weight.clone().into_dispatch(), gradient, inner, relu))
}

fn sums_of(x: &Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Layers>::column_sums(x.clone().into_dispatch()))
}

fn golden(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let golden = Golden::product()?;
    let columns = way(device, halves).map_or(1, Way::columns);
    let mut worst = 0.0f64;
    for stem in golden.stems(".x")? {
        let name = |part: &str| format!("{stem}.{part}");
        let [k, n] = golden.shape(&name("w"))?;
        // Results that do not have whole multiples of columns are burn's, rounded to f16.
        if halves && [k, n].iter().any(|width| !width.is_multiple_of(columns)) {
            continue;
        }
        let tensor = |part: &str| Ok::<_, anyhow::Error>(upload(&golden.floats(&name(part))?, golden.shape(&name(part))?, halves, device));
        let (x, w, g) = (tensor("x")?, tensor("w")?, tensor("g")?);
        let products = [("y", &x, &w, Product::Forward), ("of_x", &g, &w, Product::Input), ("of_w", &x, &g, Product::Parameters)];
        for (part, a, b, product) in products {
            worst = worst.max(relative_error(&read_values(multiply(a, b, product))?, &golden.floats(&name(part))?));
        }
    }
    Ok(Finding::new(worst, bound(device, halves)))
}

pub fn golden_f32(device: &Device) -> Result<Finding> {
    golden(device, false)
}

pub fn golden_f16(device: &Device) -> Result<Finding> {
    golden(device, true)
}

fn large(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let rows = FACES * TOKENS;
    let values = [("x", rows), ("weight", WIDTH), ("gradient", rows)].map(|(name, n)| held(name, n * WIDTH, halves));
    let on_device = values.each_ref().map(|v| upload(v, [v.len() / WIDTH, WIDTH], halves, device));
    let mut worst = 0.0f64;
    for (a, b, product, sizes) in products([rows, WIDTH, WIDTH]) {
        let all = read_values(multiply(&on_device[a], &on_device[b], product))?;
        if all.len() != sizes.m * sizes.n {
            return Ok(Finding::new(f64::INFINITY, bound(device, halves)));
        }
        let places = (0..SAMPLES).map(|i| i * (all.len() - 1) / (SAMPLES - 1));
        let (ours, exact): (Vec<f32>, Vec<f32>) =
            places.map(|i| (all[i], entry(&values[a], &values[b], &sizes, i / sizes.n, i % sizes.n) as f32)).unzip();
        worst = worst.max(relative_error(&ours, &exact));
    }
    let size = if halves { DType::F16.size() } else { DType::F32.size() };
    let bytes = size * (rows * WIDTH + WIDTH * WIDTH) + 4 * rows * WIDTH;
    let rate = rate(device, bytes, || Ok(multiply(&on_device[0], &on_device[1], Product::Forward)))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, bound(device, halves)) })
}

pub fn large_f32(device: &Device) -> Result<Finding> {
    large(device, false)
}

pub fn large_f16(device: &Device) -> Result<Finding> {
    large(device, true)
}

/// The largest error over the sizes of [`ROUNDED`], by [`rounded_error`] on our shaders, which round a product once, and over the largest
/// value elsewhere: burn rounds what it is made of, too. Errors of a size are those of all pairs of our values and exact ones.
fn over_sizes(device: &Device, pairs: impl Fn([usize; 3]) -> Result<Vec<(Vec<f32>, Vec<f64>)>>) -> Result<Finding> {
    if !computes(device, true) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let once = way(device, true).is_some();
    let error = |(ours, exact): (Vec<f32>, Vec<f64>)| {
        if once { rounded_error(&ours, &exact) } else { relative_error(&ours, &exact.iter().map(|v| *v as f32).collect::<Vec<_>>()) }
    };
    let mut worst = 0.0f64;
    for sizes in ROUNDED {
        worst = pairs(sizes)?.into_iter().map(error).fold(worst, f64::max);
    }
    Ok(Finding::new(worst, if once { ROUNDED_BOUND } else { BURNS_BOUND }))
}

/// `[M, D]` as `[B, N, D]`, with several faces where they share the rows.
fn of_faces(rows: usize, width: usize) -> [usize; 3] {
    let faces = if rows.is_multiple_of(3) { 3 } else { 1 };
    [faces, rows / faces, width]
}

pub fn rounded(device: &Device) -> Result<Finding> {
    over_sizes(device, |[m, k, n]| {
        let shapes = [("x", [m, k]), ("weight", [k, n]), ("gradient", [m, n])];
        let values = shapes.map(|(name, [rows, columns])| held(name, rows * columns, true));
        let on_device = [0, 1, 2].map(|i: usize| upload(&values[i], shapes[i].1, true, device));
        let kinds = products([m, k, n]).into_iter();
        kinds
            .map(|(a, b, product, sizes)| {
                let ours = read_values(multiply_rounded(&on_device[a], &on_device[b], product))?;
                Ok((ours, entries(&values[a], &values[b], &sizes)))
            })
            .collect()
    })
}

/// A layer over rows, whose bias takes the sums to where an activation is almost straight, on both sides.
struct Affine {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Sums and bias.
    exact: Vec<f64>,
}

impl Affine {
    fn new([m, k, n]: [usize; 3]) -> Self {
        let (x, weight) = (held("x", m * k, true), scaled("weight", k * n, (k as f32).powf(-0.5)));
        let bias: Vec<f32> = normals("bias", n).iter().map(|v| 3.0 * v).collect();
        let sums = entries(&x, &weight, &Sizes { m, k, n, turn_a: false, turn_b: false });
        let exact = sums.iter().zip(bias.iter().cycle()).map(|(sum, bias)| sum + f64::from(*bias)).collect();
        Self { x, weight, bias, exact }
    }

    fn upload(&self, [m, k, n]: [usize; 3], device: &Device) -> (Tensor<3>, Tensor<2>, Tensor<1>) {
        let (x, weight) = (upload(&self.x, of_faces(m, k), true, device), upload(&self.weight, [k, n], true, device));
        (x, weight, floats(self.bias.clone(), [n], device))
    }
}

pub fn rounded_bias(device: &Device) -> Result<Finding> {
    over_sizes(device, |sizes| {
        let layer = Affine::new(sizes);
        let (x, weight, bias) = layer.upload(sizes, device);
        Ok(vec![(read_values(affine(&x, &weight, &bias))?, layer.exact)])
    })
}

pub fn residual(device: &Device) -> Result<Finding> {
    if !computes(device, true) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let mut worst = 0.0f64;
    for sizes in ROUNDED {
        let (layer, shape) = (Affine::new(sizes), of_faces(sizes[0], sizes[2]));
        let (values, (x, weight, bias)) = (normals("residual", shape.iter().product()), layer.upload(sizes, device));
        let [faces, tokens, n] = shape;
        for masked in [false, true] {
            let factors: Vec<f32> = (0..faces).map(|face| if masked { [1.25, 0.0, 0.75][face % 3] } else { 1.0 }).collect();
            let mask = masked.then(|| floats(factors.clone(), [faces, 1, 1], device));
            let ours = read_values(onto(&floats(values.clone(), shape, device), &x, &weight, &bias, mask.as_ref()))?;
            let sums = layer.exact.iter().zip(&values).enumerate();
            let exact: Vec<f32> = sums.map(|(i, (sum, v))| (f64::from(*v) + f64::from(factors[i / (tokens * n)]) * sum) as f32).collect();
            worst = worst.max(relative_error(&ours, &exact));
        }
    }
    Ok(Finding::new(worst, if way(device, true).is_some() { BOUND } else { BURNS_BOUND }))
}

pub fn rounded_activation(device: &Device) -> Result<Finding> {
    over_sizes(device, |sizes| {
        let layer = Affine::new(sizes);
        let (x, weight, bias) = layer.upload(sizes, device);
        let mut pairs = Vec::new();
        for relu in [false, true] {
            let [inner, hidden] = activated(&x, &weight, &bias, relu);
            let (inner, hidden) = (read_values(inner)?, read_values(hidden)?);
            // Of the device's own values, which may be the next f16.
            let of_hidden = inner.iter().map(|v| activation(f64::from(*v), relu)).collect();
            pairs.push((inner, layer.exact.iter().map(|v| if relu { v.max(0.0) } else { *v }).collect()));
            pairs.push((hidden, of_hidden));
        }
        Ok(pairs)
    })
}

pub fn rounded_gradient(device: &Device) -> Result<Finding> {
    over_sizes(device, |[m, k, n]| {
        // As large for every N.
        let (weight, gradient) = (scaled("weight", k * n, 4.0 * (n as f32).powf(-0.5)), held("gradient", m * n, true));
        let sums = entries(&gradient, &weight, &Sizes { m, k: n, n: k, turn_a: false, turn_b: true });
        let (on_device, of_output) = (upload(&weight, [k, n], true, device), upload(&gradient, of_faces(m, n), true, device));
        let mut pairs = Vec::new();
        for relu in [false, true] {
            let mut inner = scaled("inner", m * k, 3.0);
            if relu {
                inner.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let ours = read_values(before(&on_device, &of_output, &upload(&inner, of_faces(m, k), true, device), relu))?;
            pairs.push((ours, sums.iter().zip(&inner).map(|(sum, v)| sum * slope(f64::from(*v), relu)).collect()));
        }
        Ok(pairs)
    })
}

/// How many values are not these, rounded to f16: infinite beyond its range.
fn others(ours: &[f32], exact: &[f64]) -> usize {
    let other = |(ours, exact): (&f32, &f64)| *ours != f16::from_f64(*exact).to_f32();
    ours.len().abs_diff(exact.len()) + ours.iter().zip(exact).filter(|pair| other(*pair)).count()
}

/// Sums beyond the range of f16, where scaled losses lead and what training looks for.
pub fn rounded_range(device: &Device) -> Result<Finding> {
    if way(device, true).is_none() {
        return Ok(Finding::nothing(NO_SHADER));
    }
    let (m, n) = (24, 48);
    let sign = |row: usize| if row.is_multiple_of(2) { 1.0 } else { -1.0 };
    let of_column = |column: usize| RANGE[column % RANGE.len()];
    let matrix = |[rows, columns]: [usize; 2], value: &dyn Fn(usize, usize) -> f64| {
        let values: Vec<f32> = (0..rows * columns).map(|i| value(i / columns, i % columns) as f32).collect();
        upload(&values, [rows, columns], true, device)
    };
    let exact: Vec<f64> = (0..m * n).map(|i| sign(i / n) * of_column(i % n)).collect();
    let mut wrong = 0;
    // Whole multiples of one number are added up, so sums are exact.
    for k in [16, 1024] {
        let share = |column: usize| of_column(column) / k as f64;
        let [a, a_turned] = [matrix([m, k], &|row, _| sign(row)), matrix([k, m], &|_, row| sign(row))];
        let [b, b_turned] = [matrix([k, n], &|_, column| share(column)), matrix([n, k], &|column, _| share(column))];
        for (a, b, product) in [(&a, &b, Product::Forward), (&a, &b_turned, Product::Input), (&a_turned, &b, Product::Parameters)] {
            wrong += others(&read_values(multiply_rounded(a, b, product))?, &exact);
        }
        let with_bias: Vec<f64> = exact.iter().enumerate().map(|(i, sum)| sum - of_column(i % n) / 2.0).collect();
        let bias = floats((0..n).map(|column| (-of_column(column) / 2.0) as f32).collect(), [n], device);
        wrong += others(&read_values(affine(&a, &b, &bias))?, &with_bias);
        // A GELU of what is infinite is not told here.
        let [inner, _] = activated(&a, &b, &bias, false);
        wrong += others(&read_values(inner)?, &with_bias);
        let positive: Vec<f64> = with_bias.iter().map(|v| v.max(0.0)).collect();
        for part in activated(&a, &b, &bias, true) {
            wrong += others(&read_values(part)?, &positive);
        }
        // Where both slopes are 1.
        let inner = matrix([m, n], &|_, _| 8.0);
        for relu in [false, true] {
            wrong += others(&read_values(before(&b_turned, &a, &inner, relu))?, &exact);
        }
    }
    Ok(Finding::new(wrong as f64, 0.0))
}

pub fn sums_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::column_sums()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".sums")? {
        let x = format!("{stem}.x");
        let x = floats(golden.floats(&x)?, golden.shape(&x)?, device);
        worst = worst.max(relative_error(&read_values(sums_of(&x))?, &golden.floats(&format!("{stem}.sums"))?));
    }
    Ok(Finding::new(worst, BOUND))
}

pub fn sums(device: &Device) -> Result<Finding> {
    let rows = FACES * TOKENS;
    let values = normals("x", rows * WIDTH);
    let x = floats(values.clone(), [rows, WIDTH], device);
    let worst = relative_error(&read_values(sums_of(&x))?, &column_sums(&values, WIDTH));
    let rate = rate(device, 4 * (rows + 1) * WIDTH, || Ok(sums_of(&x)))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, BOUND) })
}

pub fn repeats(device: &Device) -> Result<Finding> {
    // Edges in all directions; the gradient of the weight is summed in parts.
    let (rows, k, n) = (1001, 208, 112);
    let once = || -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for halves in [false, true].into_iter().filter(|halves| computes(device, *halves)) {
            let tensor = |name, shape: [usize; 2]| upload(&held(name, shape[0] * shape[1], halves), shape, halves, device);
            let (x, w, g) = (tensor("x", [rows, k]), tensor("weight", [k, n]), tensor("gradient", [rows, n]));
            for (a, b, product) in [(&x, &w, Product::Forward), (&g, &w, Product::Input), (&x, &g, Product::Parameters)] {
                all.extend(read_values(multiply(a, b, product))?);
                if halves {
                    all.extend(read_values(multiply_rounded(a, b, product))?);
                }
            }
            if halves {
                let bias = floats(normals("bias", n), [n], device);
                all.extend(read_values(affine(&x, &w, &bias))?);
                let residual = floats(normals("residual", rows * n), [rows, n], device);
                all.extend(read_values(onto(&residual, &x, &w, &bias, None))?);
                for relu in [false, true] {
                    let [inner, hidden] = activated(&x, &w, &bias, relu);
                    for part in [inner, hidden, before(&w, &g, &x, relu)] {
                        all.extend(read_values(part)?);
                    }
                }
            }
            all.extend(attention::results(device, halves)?);
        }
        all.extend(read_values(sums_of(&floats(normals("x", rows * n), [rows, n], device)))?);
        Ok(all)
    };
    repeated(once)
}

#[cfg(test)]
mod tests;
