//! Sums of squares, of which the length of the gradient is made: ours on the device (a shader on a GPU), and burn's sum of squares there.
//!
//! `cargo bench --bench squares [-- --device D --json FILE]`

mod measure;

use burn::tensor::{Distribution, Tensor};
use measure::Bench;
use moue::kernels::updates::add_squares;

/// Parameters of a ViT-B: a bias and two matrices.
const VALUES: [usize; 3] = [768, 768 * 768, 768 * 3072];

fn main() {
    let mut bench = Bench::new("squares: gradients of a ViT-B", 64);
    let device = bench.device().clone();
    for values in VALUES {
        let x = Tensor::<1>::random([values], Distribution::Normal(0.0, 1.0), &device);
        let before = Tensor::<1>::ones([1], &device);
        let bytes = 4 * values;
        let times = bench.time_tensor(|| add_squares(before.clone(), x.clone()));
        let ours = bench.row(&format!("{values} values, moue"), bytes, times);
        let times = bench.time_tensor(|| before.clone() + x.clone().square().sum());
        let theirs = bench.row(&format!("{values} values, burn's sum"), bytes, times);
        println!("burn's sum / moue: {:.1}", theirs / ours);
    }
    bench.finish("squares");
}
