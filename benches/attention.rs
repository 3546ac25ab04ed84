//! Self-attention, forwards and its gradient: the layer on the device (shaders on a GPU), and burn's tensor operations there.
//!
//! `cargo bench --bench attention [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, FloatDType, Tensor};
use measure::{Bench, compare, first, name, random};
use moue::kernels::layers::Layers;

/// ViT-B/16 at 224 pixels.
const TOKENS: usize = 197;
const DIM: usize = 768;
const HEADS: usize = 12;

fn main() {
    let mut bench = Bench::new(&format!("attention: {TOKENS} tokens of {DIM}, {HEADS} heads"), 64);
    for dtype in bench.dtypes() {
        attention(&mut bench, dtype);
    }
    bench.finish("attention");
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
    let ours = bench.row(&format!("forward, moue, {}", name(dtype)), bytes, times);
    let times = bench.time_tensor(|| first(join(weights().matmul(third(2)))));
    let theirs = bench.row(&format!("forward, burn's operations, {}", name(dtype)), bytes, times);
    compare(2 * operations, ours, theirs);

    let bytes = dtype.size() * (7 * tokens + squares);
    let made = ours_with_weights().1;
    let times = bench.time_tensor(|| {
        let [qkv, gradient] = [qkv.clone(), gradient.clone()].map(Tensor::into_dispatch);
        first(Tensor::<3>::from_dispatch(<Dispatch as Layers>::self_attention_gradient(qkv, made.clone(), gradient, HEADS)))
    });
    let ours = bench.row(&format!("gradient, moue, {}", name(dtype)), bytes, times);
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
    let theirs = bench.row(&format!("gradient, burn's operations, {}", name(dtype)), bytes, times);
    compare(4 * operations, ours, theirs);
}
