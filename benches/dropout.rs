//! Dropout of a decoder's inner layer: by moue's shader on a GPU, and by a mask that is drawn on the CPU and uploaded.
//!
//! `cargo bench --bench dropout [-- --device D --batch N --json FILE]`

mod measure;

use burn::tensor::{Distribution, Tensor, TensorData};
use measure::Bench;
use moue::kernels::dropout;
use moue::kernels::reference::dropout::Mask;
use moue::random::Streams;

/// Queries of a ViT-B's decoder, and what is inside its perceptron.
const QUERIES: usize = 8;
const HIDDEN: usize = 3072;

fn main() {
    let mut bench = Bench::new(&format!("dropout: {QUERIES} queries, {HIDDEN} hidden"), 64);
    let (values, device) = (bench.batch * QUERIES * HIDDEN, bench.device().clone());
    let x = Tensor::<1>::random([values], Distribution::Normal(0.0, 1.0), &device);
    let mask = Mask::draw(&mut Streams::new(0).at("bench", &[]), values, 0.1);
    let times = bench.time_tensor(|| dropout(x.clone(), mask));
    let ours = bench.row("moue", 8 * values, times);
    let times = bench.time_tensor(|| {
        let factors: Vec<f32> = mask.factors(values).collect();
        x.clone() * Tensor::from_data(TensorData::new(factors, [values]), &device)
    });
    let theirs = bench.row("a mask from the CPU", 12 * values, times);
    println!("a mask from the CPU / moue: {:.1}", theirs / ours);
    bench.finish("dropout");
}
