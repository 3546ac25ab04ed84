//! A step of AdamW for one parameter: ours on the device (a shader on a GPU), and burn's, of its tensor operations, there.
//!
//! `cargo bench --bench adamw [-- --device D --json FILE]`

mod measure;

use burn::optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Distribution, Tensor};
use measure::Bench;
use moue::kernels::updates::{AdamWStep, adamw};

/// Parameters of a ViT-B: a bias and two matrices.
const VALUES: [usize; 3] = [768, 768 * 768, 768 * 3072];
const STEP: AdamWStep = AdamWStep { factor: 0.5, rate: 1e-3, weight_decay: 0.05, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, time: 7 };

fn main() {
    let mut bench = Bench::new("adamw: parameters of a ViT-B", 64);
    let device = bench.device().clone();
    let burns = AdamWConfig::new().with_epsilon(STEP.epsilon).with_weight_decay(STEP.weight_decay).build();
    for values in VALUES {
        let tensor = || Tensor::<1>::random([values], Distribution::Uniform(0.1, 1.0), &device);
        let [parameter, gradient, moment_1, moment_2] = [(); 4].map(|()| tensor());
        let bytes = 7 * 4 * values;
        let times = bench.time_tensor(|| {
            let moments = [moment_1.clone(), moment_2.clone()];
            let [made, ..] = adamw(parameter.clone(), gradient.clone(), Some(moments), None, STEP);
            made
        });
        let ours = bench.row(&format!("{values} values, moue"), bytes, times);
        let times = bench.time_tensor(|| {
            let (moment_1, moment_2) = (moment_1.clone(), moment_2.clone());
            let momentum = AdaptiveMomentumState { time: STEP.time - 1, moment_1, moment_2, max_moment_2: None };
            let scaled = gradient.clone().mul_scalar(STEP.factor);
            burns.step(STEP.rate, parameter.clone(), scaled, Some(AdamWState { momentum })).0
        });
        let theirs = bench.row(&format!("{values} values, burn's AdamW"), bytes, times);
        println!("burn's AdamW / moue: {:.1}", theirs / ours);
    }
    bench.finish("adamw");
}
