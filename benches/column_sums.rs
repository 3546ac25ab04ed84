//! Sums of columns, which gradients of biases are, in single and in half precision: the layer on the device (a shader on a GPU), and burn's
//! sum over a dimension there.
//!
//! `cargo bench --bench column_sums [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::{Distribution, FloatDType, Tensor};
use measure::Bench;
use moue::kernels::layers::Layers;

/// ViT-B/16 at 224 pixels: its tokens, and what a bias is added to.
const TOKENS: usize = 197;
const WIDTHS: [usize; 3] = [768, 2304, 3072];

fn main() {
    let mut bench = Bench::new(&format!("column_sums: {TOKENS} tokens"), 64);
    let (rows, device) = (bench.batch * TOKENS, bench.device().clone());
    for width in WIDTHS {
        let x = Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device);
        let bytes = 4 * (rows + 1) * width;
        let sums = |x: &Tensor<2>| Tensor::<1>::from_dispatch(<Dispatch as Layers>::column_sums(x.clone().into_dispatch()));
        let times = bench.time_tensor(|| sums(&x));
        let ours = bench.row(&format!("{width} columns, moue"), bytes, times);
        if device.supports_dtype(FloatDType::F16) {
            let halves = x.clone().cast(FloatDType::F16);
            let times = bench.time_tensor(|| sums(&halves));
            bench.row(&format!("{width} columns of f16, moue"), (2 * rows + 4) * width, times);
        }
        let times = bench.time_tensor(|| x.clone().sum_dim(0));
        let theirs = bench.row(&format!("{width} columns, burn's sum_dim"), bytes, times);
        println!("burn's sum / moue: {:.1}", theirs / ours);
    }
    bench.finish("column_sums");
}
