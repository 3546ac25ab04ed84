//! Softmax over attention scores with padded rows, forwards and its gradient: the layer on the device (a shader on a GPU), and burn's tensor
//! operations there, which have no padding.
//!
//! `cargo bench --bench softmax [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Distribution, FloatDType, Tensor};
use measure::Bench;
use moue::kernels::layers::Layers;

/// ViT-B/16 at 224 pixels.
const HEADS: usize = 12;
const TOKENS: usize = 197;
const PADDED: usize = 208;
const SCALE: f32 = 0.125;

fn main() {
    let mut bench = Bench::new(&format!("softmax: {HEADS} heads of {TOKENS} tokens, {PADDED} columns"), 64);
    let (b, device) = (bench.batch, bench.device().clone());
    let random = |columns| Tensor::<4>::random([b, HEADS, TOKENS, columns], Distribution::Normal(0.0, 8.0), &device);
    let (scores, gradient, plain, plain_gradient) = (random(PADDED), random(PADDED), random(TOKENS), random(TOKENS));
    let values = b * HEADS * TOKENS * TOKENS;

    let weights =
        |dtype: DType| Tensor::<4>::from_dispatch(<Dispatch as Layers>::softmax_of(scores.clone().into_dispatch(), TOKENS, SCALE, dtype));
    // In f32 again where that is: a device may have no f16 of its own.
    let first = |x: Tensor<4>| x.slice([0..1, 0..1, 0..1, 0..1]).cast(FloatDType::F32);
    let halves = device.supports_dtype(FloatDType::F16);
    let kinds = || [("f32", DType::F32), ("f16", DType::F16)].into_iter().filter(move |(_, dtype)| halves || *dtype == DType::F32);

    let times = bench.time_tensor(|| softmax(plain.clone() * SCALE, 3));
    let theirs = bench.row("forward, burn's tensor operations", 8 * values, times);
    for (name, dtype) in kinds() {
        let times = bench.time_tensor(|| first(weights(dtype)));
        let ours = bench.row(&format!("forward, moue, {name}"), (4 + dtype.size()) * values, times);
        println!("burn's operations / moue: {:.1}", theirs / ours);
    }

    let made = softmax(plain.clone() * SCALE, 3);
    let times = bench.time_tensor(|| {
        let mean = (plain_gradient.clone() * made.clone()).sum_dim(3);
        (plain_gradient.clone() - mean) * (made.clone() * SCALE)
    });
    let theirs = bench.row("gradient, burn's tensor operations", 12 * values, times);
    for (name, dtype) in kinds() {
        let made = weights(dtype);
        let times = bench.time_tensor(|| {
            let [made, gradient] = [made.clone(), gradient.clone()].map(Tensor::into_dispatch);
            first(Tensor::from_dispatch(<Dispatch as Layers>::softmax_gradient(made, gradient, TOKENS, SCALE)))
        });
        let ours = bench.row(&format!("gradient, moue, {name}"), (4 + 2 * dtype.size()) * values, times);
        println!("burn's operations / moue: {:.1}", theirs / ours);
    }
    bench.finish("softmax");
}
