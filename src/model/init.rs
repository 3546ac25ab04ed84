//! Initial values from named streams.

use crate::random::{RngExt, Streams, normal};
use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;

/// Under the root of every layer norm.
pub(super) const NORM_EPSILON: f64 = 1e-6;

/// Hands out initial parameters; each is drawn from the stream named by its path.
#[derive(Clone)]
pub struct Init<'a> {
    pub streams: Streams,
    pub device: &'a Device,
}

impl Init<'_> {
    /// Normal with standard deviation `std`, truncated at two of them.
    pub fn trunc_normal<const D: usize>(&self, path: &str, shape: [usize; D], std: f32) -> Param<Tensor<D>> {
        let mut rng = self.streams.at(path, &[]);
        let draw = || loop {
            let v = normal(&mut rng);
            if v.abs() <= 2.0 {
                break v * std;
            }
        };
        self.param(shape, std::iter::repeat_with(draw))
    }

    pub fn normal<const D: usize>(&self, path: &str, shape: [usize; D], std: f32) -> Param<Tensor<D>> {
        let mut rng = self.streams.at(path, &[]);
        self.param(shape, std::iter::repeat_with(|| normal(&mut rng) * std))
    }

    /// Uniform in [-bound, bound].
    pub fn uniform<const D: usize>(&self, path: &str, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        let mut rng = self.streams.at(path, &[]);
        self.param(shape, std::iter::repeat_with(|| (2.0 * rng.random::<f32>() - 1.0) * bound))
    }

    /// A parameter from explicit values, row-major.
    pub fn param<const D: usize>(&self, shape: [usize; D], values: impl Iterator<Item = f32>) -> Param<Tensor<D>> {
        let values: Vec<f32> = values.take(shape.iter().product()).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    /// Xavier-uniform weight `[d_in, d_out]`, zero bias: the transformer's linear layers.
    pub fn linear(&self, path: &str, d_in: usize, d_out: usize) -> Linear {
        let bound = (6.0 / (d_in + d_out) as f32).sqrt();
        self.linear_from(self.uniform(&format!("{path}.weight"), [d_in, d_out], bound))
    }

    /// Linear layer with the given weight `[d_in, d_out]` and zero bias.
    pub fn linear_from(&self, weight: Param<Tensor<2>>) -> Linear {
        let [d_in, d_out] = weight.dims();
        let mut linear = LinearConfig::new(d_in, d_out).init(self.device);
        linear.weight = weight;
        linear.bias = Some(Param::from_tensor(Tensor::zeros([d_out], self.device)));
        linear
    }

    pub fn norm(&self, width: usize) -> LayerNorm {
        LayerNormConfig::new(width).with_epsilon(NORM_EPSILON).init(self.device)
    }
}
