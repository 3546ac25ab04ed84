//! Checks of products of matrices, linear and in attention, and of sums of columns: golden vectors, and more sizes beside the CPU in double
//! precision.

use super::kernels::{floats, normals, upload};
use super::{Finding, Golden, rate, relative_error, repeated};
use crate::engine::read_values;
use crate::kernels::gpu;
use crate::kernels::layers::{Layers, Product};
use crate::kernels::product::Way;
use crate::kernels::reference::column_sums::column_sums;
use crate::kernels::reference::product::{Sizes, entry, product};
use crate::kernels::reference::softmax;
use anyhow::Result;
use burn::backend::{Dispatch, DispatchDevice};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use half::f16;
use std::ops::Range;

/// Largest error over the largest value: sums are f32, and what goes in is exact, also in f16.
const BOUND: f64 = 1e-5;
/// Weights of attention are rounded to f16. So are, by burn, products of f16, and where f16 is the processor's own also their sums.
const HALVES_BOUND: f64 = 2e-3;
/// burn rounds scores to f16, too, of which weights are the exponentials.
const SCORES_BOUND: f64 = 1e-2;
const NO_HALVES: &str = "half precision";
/// Sizes that rates are measured with: a ViT-B/16 at 224 pixels.
const FACES: usize = 1;
const TOKENS: usize = 197;
const WIDTH: usize = 768;
/// Queries over other tokens: one, less than and as many as are read at once, and more; keys that fill whole tiles and rows, or do not.
const QUERIES: [usize; 4] = [1, 7, 8, 33];
const KEYS: [usize; 4] = [5, 17, 196, 197];
/// Values of a large product that are compared: all of them take the CPU too long.
const SAMPLES: usize = 500;

/// How our kernels multiply on this device; none where burn's do, as on the CPU.
fn way(device: &Device, halves: bool) -> Option<Way> {
    match device.as_dispatch() {
        DispatchDevice::Cube(cubecl::Device::Wgpu(device)) => gpu::shared(device)?.products(halves),
        _ => None,
    }
}

/// Whether products of this type can be had: ours read f16 on every device, burn's do not.
fn computes(device: &Device, halves: bool) -> bool {
    !halves || way(device, true).is_some() || device.supports_dtype(FloatDType::F16)
}

fn bound(device: &Device, halves: bool) -> f64 {
    if halves && way(device, true).is_none() { HALVES_BOUND } else { BOUND }
}

/// Normal numbers, such as the type can hold.
fn held(name: &str, n: usize, halves: bool) -> Vec<f32> {
    let mut values = normals(name, n);
    if halves {
        values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    }
    values
}

fn multiply(a: &Tensor<2>, b: &Tensor<2>, product: Product) -> Tensor<2> {
    let [a, b] = [a, b].map(|x| x.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as Layers>::product(a, b, product))
}

/// What is read and the gradient of qkv, from qkv `[B, N, 3 D]` and the gradient of what is read.
fn attend(qkv: &Tensor<3>, gradient: &Tensor<3>, heads: usize) -> [Tensor<3>; 2] {
    let [qkv, gradient] = [qkv, gradient].map(|x| x.clone().into_dispatch());
    let (read, weights) = <Dispatch as Layers>::self_attention_with_weights(qkv.clone(), heads);
    [read, <Dispatch as Layers>::self_attention_gradient(qkv, weights, gradient, heads)].map(Tensor::from_dispatch)
}

/// An attention of queries over other tokens, whose heads share the width.
#[derive(Clone, Copy)]
struct Cross {
    samples: usize,
    queries: usize,
    keys: usize,
    width: usize,
    heads: usize,
}

impl Cross {
    /// Queries, keys, values, and the gradient of what is read.
    fn values(&self, halves: bool) -> [Vec<f32>; 4] {
        let Self { samples, queries, keys, width, .. } = *self;
        let parts = [("queries", queries), ("keys", keys), ("values", keys), ("of read", queries)];
        parts.map(|(name, tokens)| held(name, samples * tokens * width, halves))
    }

    /// What is read, and the gradients of queries, keys and values.
    fn attend(&self, values: &[Vec<f32>; 4], halves: bool, device: &Device) -> [Tensor<3>; 4] {
        let Self { samples, width, heads, .. } = *self;
        let tensor = |v: &Vec<f32>| upload(v, [samples, v.len() / samples / width, width], halves, device).into_dispatch();
        let [q, k, v, gradient] = values.each_ref().map(tensor);
        let (read, weights) = <Dispatch as Layers>::attention_with_weights(q.clone(), k.clone(), v.clone(), heads);
        let (of_q, of_k, of_v) = <Dispatch as Layers>::attention_gradients(q, k, v, weights, gradient, heads);
        [read, of_q, of_k, of_v].map(Tensor::from_dispatch)
    }

    /// Rows of a head, of one sample of so many values of all.
    fn rows(&self, len: usize, sample: usize, head: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let Self { samples, width, heads, .. } = *self;
        let (tokens, each) = (len / samples / width, width / heads);
        (sample * tokens..(sample + 1) * tokens).map(move |token| {
            let first = token * width + head * each;
            first..first + each
        })
    }

    /// As [`Self::attend`], in double precision, each step rounded to f32.
    fn exact(&self, values: &[Vec<f32>; 4]) -> [Vec<f32>; 4] {
        let Self { samples, queries, keys, width, heads } = *self;
        let each = width / heads;
        let scale = (each as f32).powf(-0.5);
        let scores = Sizes { m: queries, k: each, n: keys, turn_a: false, turn_b: true };
        let over_keys = Sizes { m: queries, k: keys, n: each, turn_a: false, turn_b: false };
        let over_queries = Sizes { m: keys, k: queries, n: each, turn_a: true, turn_b: false };
        let mut made = [3, 0, 1, 2].map(|like: usize| vec![0.0; values[like].len()]);
        for (sample, head) in (0..samples).flat_map(|sample| (0..heads).map(move |head| (sample, head))) {
            let of_head =
                |values: &Vec<f32>| -> Vec<f32> { self.rows(values.len(), sample, head).flat_map(|row| values[row].to_vec()).collect() };
            let [q, k, v, gradient] = values.each_ref().map(of_head);
            let weights = softmax::softmax(&product(&q, &k, &scores), keys, keys, scale);
            let of_scores = softmax::gradient(&weights, &product(&gradient, &v, &scores), keys, keys, scale);
            let parts = [
                product(&weights, &v, &over_keys),
                product(&of_scores, &k, &over_keys),
                product(&of_scores, &q, &over_queries),
                product(&weights, &gradient, &over_queries),
            ];
            for (made, part) in made.iter_mut().zip(&parts) {
                let rows = self.rows(made.len(), sample, head).zip(part.chunks(each));
                rows.for_each(|(row, values)| made[row].copy_from_slice(values));
            }
        }
        made
    }
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
    let forward = Sizes { m: rows, k: WIDTH, n: WIDTH, turn_a: false, turn_b: false };
    let input = Sizes { turn_b: true, ..forward };
    let parameters = Sizes { m: WIDTH, k: rows, n: WIDTH, turn_a: true, turn_b: false };
    let mut worst = 0.0f64;
    for (a, b, product, sizes) in
        [(0, 1, Product::Forward, forward), (2, 1, Product::Input, input), (0, 2, Product::Parameters, parameters)]
    {
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

fn attention(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let golden = Golden::product()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".qkv")? {
        let name = |part: &str| format!("{stem}.{part}");
        let tensor = |part: &str| Ok::<_, anyhow::Error>(upload(&golden.floats(&name(part))?, golden.shape(&name(part))?, halves, device));
        let [read, of_qkv] = attend(&tensor("qkv")?, &tensor("g")?, golden.ints(&name("heads"))?[0] as usize);
        worst = worst.max(relative_error(&read_values(read)?, &golden.floats(&name("read"))?));
        worst = worst.max(relative_error(&read_values(of_qkv)?, &golden.floats(&name("of_qkv"))?));
    }
    Ok(Finding::new(worst, if halves { HALVES_BOUND } else { BOUND }))
}

pub fn attention_f32(device: &Device) -> Result<Finding> {
    attention(device, false)
}

pub fn attention_f16(device: &Device) -> Result<Finding> {
    attention(device, true)
}

fn queries(device: &Device, halves: bool) -> Result<Finding> {
    if !computes(device, halves) {
        return Ok(Finding::nothing(NO_HALVES));
    }
    let mut worst = 0.0f64;
    for (queries, keys) in QUERIES.into_iter().flat_map(|queries| KEYS.map(|keys| (queries, keys))) {
        let sizes = Cross { samples: 2, queries, keys, width: 32, heads: 2 };
        let values = sizes.values(halves);
        for (ours, exact) in sizes.attend(&values, halves, device).into_iter().zip(sizes.exact(&values)) {
            worst = worst.max(relative_error(&read_values(ours)?, &exact));
        }
    }
    let bound = match (halves, way(device, halves)) {
        (false, _) => BOUND,
        (true, Some(_)) => HALVES_BOUND,
        (true, None) => SCORES_BOUND,
    };
    Ok(Finding::new(worst, bound))
}

pub fn queries_f32(device: &Device) -> Result<Finding> {
    queries(device, false)
}

pub fn queries_f16(device: &Device) -> Result<Finding> {
    queries(device, true)
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
    let (faces, tokens, width, heads) = (3, 37, 64, 2);
    let once = || -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for halves in [false, true].into_iter().filter(|halves| computes(device, *halves)) {
            let tensor = |name, shape: [usize; 2]| upload(&held(name, shape[0] * shape[1], halves), shape, halves, device);
            let (x, w, g) = (tensor("x", [rows, k]), tensor("weight", [k, n]), tensor("gradient", [rows, n]));
            for (a, b, product) in [(&x, &w, Product::Forward), (&g, &w, Product::Input), (&x, &g, Product::Parameters)] {
                all.extend(read_values(multiply(a, b, product))?);
            }
            let tensor = |name, width| upload(&held(name, faces * tokens * width, halves), [faces, tokens, width], halves, device);
            for part in attend(&tensor("qkv", 3 * width), &tensor("of read", width), heads) {
                all.extend(read_values(part)?);
            }
            let sizes = Cross { samples: faces, queries: 7, keys: tokens, width, heads };
            for part in sizes.attend(&sizes.values(halves), halves, device) {
                all.extend(read_values(part)?);
            }
        }
        all.extend(read_values(sums_of(&floats(normals("x", rows * n), [rows, n], device)))?);
        Ok(all)
    };
    repeated(once)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::reference::product::{Attention, self_attention, self_attention_gradient};

    #[test]
    fn twins_agree_with_the_goldens() {
        let golden = Golden::product().unwrap();
        let values = |stem: &str, part: &str| golden.floats(&format!("{stem}.{part}")).unwrap();
        for stem in golden.stems(".x").unwrap() {
            let ([m, k], [_, n]) = (golden.shape(&format!("{stem}.x")).unwrap(), golden.shape(&format!("{stem}.w")).unwrap());
            let forward = Sizes { m, k, n, turn_a: false, turn_b: false };
            let input = Sizes { m, k: n, n: k, turn_a: false, turn_b: true };
            let parameters = Sizes { m: k, k: m, n, turn_a: true, turn_b: false };
            for (part, a, b, sizes) in [("y", "x", "w", forward), ("of_x", "g", "w", input), ("of_w", "x", "g", parameters)] {
                let ours = product(&values(&stem, a), &values(&stem, b), &sizes);
                assert!(relative_error(&ours, &values(&stem, part)) <= 2e-7, "{stem}.{part}");
            }
        }
        for stem in golden.stems(".qkv").unwrap() {
            let [samples, tokens, width] = golden.shape(&format!("{stem}.g")).unwrap();
            let heads = golden.ints(&format!("{stem}.heads")).unwrap()[0] as usize;
            let sizes = Attention { samples, tokens, width, heads };
            let (qkv, g) = (values(&stem, "qkv"), values(&stem, "g"));
            assert!(relative_error(&self_attention(&qkv, &sizes).0, &values(&stem, "read")) <= 2e-7, "{stem}");
            let of_qkv = self_attention_gradient(&qkv, &g, &sizes);
            assert!(relative_error(&of_qkv, &values(&stem, "of_qkv")) <= 2e-7, "{stem}");
            // Thirds of it are an attention of queries over as many tokens.
            let third = |x: &[f32], i: usize| -> Vec<f32> { x.chunks(width).skip(i).step_by(3).flatten().copied().collect() };
            let cross = Cross { samples, queries: tokens, keys: tokens, width, heads };
            let [read, parts @ ..] = cross.exact(&[third(&qkv, 0), third(&qkv, 1), third(&qkv, 2), g.clone()]);
            assert!(relative_error(&read, &values(&stem, "read")) <= 2e-6, "{stem}");
            for (i, part) in parts.iter().enumerate() {
                assert!(relative_error(part, &third(&of_qkv, i)) <= 2e-6, "{stem}, {i}");
            }
            // A head more or less is another computation.
            let other = Attention { heads: 3 - heads, ..sizes };
            assert!(relative_error(&self_attention(&qkv, &other).0, &values(&stem, "read")) > 1e-2, "{stem}");
        }
        let golden = Golden::column_sums().unwrap();
        for stem in golden.stems(".sums").unwrap() {
            let [_, width] = golden.shape(&format!("{stem}.x")).unwrap();
            let ours = column_sums(&golden.floats(&format!("{stem}.x")).unwrap(), width);
            assert!(relative_error(&ours, &golden.floats(&format!("{stem}.sums")).unwrap()) <= 2e-7, "{stem}");
        }
    }
}
