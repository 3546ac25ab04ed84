//! Products of a transformer: those of a linear layer, forwards and its gradients, and self-attention. The layers on the device (a shader on
//! a GPU), and burn's matrix products there.
//!
//! `cargo bench --bench product [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use measure::Bench;
use moue::kernels::layers::{Layers, Product};

/// ViT-B/16 at 224 pixels.
const TOKENS: usize = 197;
const DIM: usize = 768;
const HIDDEN: usize = 3072;
const HEADS: usize = 12;

fn main() {
    let mut bench = Bench::new(&format!("product: {TOKENS} tokens of {DIM}, {HIDDEN} hidden, {HEADS} heads"), 64);
    let halves = bench.device().supports_dtype(FloatDType::F16);
    for dtype in [DType::F32, DType::F16].into_iter().filter(|dtype| halves || *dtype == DType::F32) {
        linear(&mut bench, dtype);
        attention(&mut bench, dtype);
    }
    bench.finish("product");
}

fn name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "f32" }
}

fn random<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let x = Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), device);
    if dtype == DType::F16 { x.cast(FloatDType::F16) } else { x }
}

/// The first value, in f32 whatever it was.
fn first<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.slice([const { 0..1 }; D]).cast(FloatDType::F32)
}

fn compare(operations: usize, ours: f64, theirs: f64) {
    let speed = |seconds: f64| operations as f64 / seconds / 1e12;
    println!("moue {:.2} TFLOP/s, burn {:.2} TFLOP/s; burn's products / moue: {:.1}", speed(ours), speed(theirs), theirs / ours);
}

/// The first layer of the perceptron.
fn linear(bench: &mut Bench, dtype: DType) {
    let (rows, device) = (bench.batch * TOKENS, bench.device().clone());
    let x = random([rows, DIM], dtype, &device);
    let weight = random([DIM, HIDDEN], dtype, &device);
    let gradient = random([rows, HIDDEN], dtype, &device);
    let (values, operations) = (rows * DIM + DIM * HIDDEN + rows * HIDDEN, 2 * rows * DIM * HIDDEN);
    let kinds = [("forward", &x, &weight, Product::Forward, rows * HIDDEN), ("of input", &gradient, &weight, Product::Input, rows * DIM)];
    for (label, a, b, product, made) in kinds.into_iter().chain([("of weight", &x, &gradient, Product::Parameters, DIM * HIDDEN)]) {
        // What is multiplied in its type, what is made in f32; burn makes its type.
        let bytes = dtype.size() * (values - made);
        let times = bench.time_tensor(|| {
            let [a, b] = [a, b].map(|x| x.clone().into_dispatch());
            Tensor::<2>::from_dispatch(<Dispatch as Layers>::product(a, b, product))
        });
        let ours = bench.row(&format!("linear {label}, moue, {}", name(dtype)), bytes + 4 * made, times);
        let times = bench.time_tensor(|| {
            let (a, b) = (a.clone(), b.clone());
            first(match product {
                Product::Forward => a.matmul(b),
                Product::Input => a.matmul(b.transpose()),
                Product::Parameters => a.transpose().matmul(b),
            })
        });
        let theirs = bench.row(&format!("linear {label}, burn's matmul, {}", name(dtype)), dtype.size() * values, times);
        compare(operations, ours, theirs);
    }
}

/// `[B, N, D]` -> `[B, H, N, D / H]`
fn split(x: Tensor<3>) -> Tensor<4> {
    let [b, n, d] = x.dims();
    x.reshape([b, n, HEADS, d / HEADS]).swap_dims(1, 2)
}

/// `[B, H, N, D / H]` -> `[B, N, D]`
fn join(x: Tensor<4>) -> Tensor<3> {
    let [b, h, n, width] = x.dims();
    x.swap_dims(1, 2).reshape([b, n, h * width])
}

fn attention(bench: &mut Bench, dtype: DType) {
    let (b, device) = (bench.batch, bench.device().clone());
    let qkv = random([b, TOKENS, 3 * DIM], dtype, &device);
    let gradient = random([b, TOKENS, DIM], dtype, &device);
    let (tokens, squares) = (b * TOKENS * DIM, b * HEADS * TOKENS * TOKENS);
    // Two products of tokens and tokens forwards, four backwards.
    let operations = 2 * tokens * TOKENS;
    let scale = ((DIM / HEADS) as f32).powf(-0.5);
    let typed = |x: Tensor<4>| if dtype == DType::F16 { x.cast(FloatDType::F16) } else { x };
    let single = |x: Tensor<4>| if dtype == DType::F16 { x.cast(FloatDType::F32) } else { x };
    let third = |i: usize| split(qkv.clone().slice([0..b, 0..TOKENS, i * DIM..(i + 1) * DIM]));
    let ours_with_weights = || <Dispatch as Layers>::self_attention_with_weights(qkv.clone().into_dispatch(), HEADS);
    let weights = || typed(softmax(single(third(0).matmul(third(1).transpose())) * scale, 3));

    let bytes = dtype.size() * (4 * tokens + squares);
    let times = bench.time_tensor(|| first(Tensor::<3>::from_dispatch(ours_with_weights().0)));
    let ours = bench.row(&format!("attention forward, moue, {}", name(dtype)), bytes, times);
    let times = bench.time_tensor(|| first(join(weights().matmul(third(2)))));
    let theirs = bench.row(&format!("attention forward, burn's operations, {}", name(dtype)), bytes, times);
    compare(2 * operations, ours, theirs);

    let bytes = dtype.size() * (7 * tokens + squares);
    let made = ours_with_weights().1;
    let times = bench.time_tensor(|| {
        let [qkv, gradient] = [qkv.clone(), gradient.clone()].map(Tensor::into_dispatch);
        first(Tensor::<3>::from_dispatch(<Dispatch as Layers>::self_attention_gradient(qkv, made.clone(), gradient, HEADS)))
    });
    let ours = bench.row(&format!("attention gradient, moue, {}", name(dtype)), bytes, times);
    let made = weights();
    let times = bench.time_tensor(|| {
        let (gradient, weights) = (split(gradient.clone()), single(made.clone()));
        let of_weights = single(gradient.clone().matmul(third(2).transpose()));
        let mean = (of_weights.clone() * weights.clone()).sum_dim(3);
        let of_scores = typed((of_weights - mean) * (weights * scale));
        let of_v = made.clone().transpose().matmul(gradient);
        let parts = [of_scores.clone().matmul(third(1)), of_scores.transpose().matmul(third(0)), of_v];
        first(Tensor::cat(parts.map(join).to_vec(), 2))
    });
    let theirs = bench.row(&format!("attention gradient, burn's operations, {}", name(dtype)), bytes, times);
    compare(4 * operations, ours, theirs);
}
