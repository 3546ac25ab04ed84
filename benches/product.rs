//! Products of a linear layer, forwards and its gradients: the layer on the device (a shader on a GPU), and burn's matrix products there.
//!
//! `cargo bench --bench product [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};
use measure::{Bench, compare, first, name, random};
use moue::kernels::layers::{Layers, Product};

/// ViT-B/16 at 224 pixels.
const TOKENS: usize = 197;
const DIM: usize = 768;
const HIDDEN: usize = 3072;

fn main() {
    let mut bench = Bench::new(&format!("product: {TOKENS} tokens of {DIM}, {HIDDEN} hidden"), 64);
    for dtype in bench.dtypes() {
        linear(&mut bench, dtype);
    }
    bench.finish("product");
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
