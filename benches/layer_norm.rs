//! Layer norm of a transformer's tokens, forwards and its gradients: the layer on the device (a shader on a GPU), and burn's tensor operations
//! there.
//!
//! `cargo bench --bench layer_norm [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::{Distribution, FloatDType, Tensor};
use measure::Bench;
use moue::kernels::layers::{Layers, Path};

/// ViT-B/16 at 224 pixels.
const TOKENS: usize = 197;
const DIM: usize = 768;
const EPSILON: f64 = 1e-6;

fn main() {
    let mut bench = Bench::new(&format!("layer_norm: {TOKENS} tokens of {DIM}"), 64);
    let (b, device) = (bench.batch, bench.device().clone());
    let [x, gradient, residual] = [(); 3].map(|()| Tensor::<3>::random([b, TOKENS, DIM], Distribution::Normal(0.0, 1.0), &device));
    let [gamma, beta] = [(); 2].map(|()| Tensor::<1>::random([DIM], Distribution::Normal(0.0, 1.0), &device));
    let normal = |x: Tensor<3>| {
        let centred = x.clone() - x.mean_dim(2);
        let scale = (centred.clone().square().mean_dim(2) + EPSILON).sqrt().recip();
        (centred * scale.clone(), scale)
    };

    let bytes = 2 * 4 * b * TOKENS * DIM;
    let times = bench.time_tensor(|| {
        let [x, gamma, beta] = [x.clone().into_dispatch(), gamma.clone().into_dispatch(), beta.clone().into_dispatch()];
        Tensor::<3>::from_dispatch(<Dispatch as Layers>::norm(x, gamma, beta, EPSILON))
    });
    let ours = bench.row("forward, moue", bytes, times);
    let times = bench.time_tensor(|| normal(x.clone()).0 * gamma.clone().unsqueeze() + beta.clone().unsqueeze());
    let theirs = bench.row("forward, burn's tensor operations", bytes, times);
    println!("burn's operations / moue: {:.1}", theirs / ours);
    if device.supports_dtype(FloatDType::F16) {
        let bytes = (4 + 2) * b * TOKENS * DIM;
        let times = bench.time_tensor(|| {
            let [x, gamma, beta] = [x.clone().into_dispatch(), gamma.clone().into_dispatch(), beta.clone().into_dispatch()];
            let made = Tensor::<3>::from_dispatch(<Dispatch as Layers>::norm_rounded(x, gamma, beta, EPSILON));
            made.slice([0..1, 0..1, 0..1]).cast(FloatDType::F32)
        });
        bench.row("forward in f16, moue", bytes, times);
    }

    // Each gradient is read from: fusion drops what nobody reads.
    let firsts = |of_x: Tensor<3>, of_gamma: Tensor<1>, of_beta: Tensor<1>| {
        Tensor::cat(vec![of_x.slice([0..1, 0..1, 0..1]).flatten::<1>(0, 2), of_gamma.narrow(0, 0, 1), of_beta.narrow(0, 0, 1)], 0)
    };
    let bytes = 3 * 4 * b * TOKENS * DIM;
    let times = bench.time_tensor(|| {
        let [x, gradient] = [x.clone(), gradient.clone()].map(Tensor::into_dispatch);
        let (of_x, of_gamma, of_beta) = <Dispatch as Layers>::norm_gradients(x, gamma.clone().into_dispatch(), gradient, EPSILON);
        firsts(Tensor::from_dispatch(of_x), Tensor::from_dispatch(of_gamma), Tensor::from_dispatch(of_beta))
    });
    let ours = bench.row("gradients, moue", bytes, times);
    let times = bench.time_tensor(|| {
        let (normal, scale) = normal(x.clone());
        let scaled = gradient.clone() * gamma.clone().unsqueeze();
        let second = normal.clone() * (scaled.clone() * normal.clone()).mean_dim(2);
        let of_x = (scaled.clone() - scaled.mean_dim(2) - second) * scale;
        let sums = |x: Tensor<3>| x.sum_dim(0).sum_dim(1).flatten::<1>(0, 2);
        firsts(of_x, sums(gradient.clone() * normal), sums(gradient.clone()))
    });
    let theirs = bench.row("gradients, burn's tensor operations", bytes, times);
    println!("burn's operations / moue: {:.1}", theirs / ours);
    // What a block's backward pass asks for in mixed precision: in one operation, which is done whole whatever is read of it.
    let bytes = (4 * 4 + 2) * b * TOKENS * DIM;
    let times = bench.time_tensor(|| {
        let [x, gradient, residual] = [x.clone(), gradient.clone(), residual.clone()].map(Tensor::into_dispatch);
        let gamma = gamma.clone().into_dispatch();
        let made = <Dispatch as Layers>::norm_gradients_along(x, gamma, gradient, residual, Path::Whole, EPSILON);
        let (of_x, _, of_gamma, of_beta) = made;
        firsts(Tensor::from_dispatch(of_x), Tensor::from_dispatch(of_gamma), Tensor::from_dispatch(of_beta))
    });
    bench.row("gradients on top of others, and in f16, moue", bytes, times);
    bench.finish("layer_norm");
}
