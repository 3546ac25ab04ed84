//! Random masks of a training forward pass (dropout, stochastic depth), drawn from a positioned stream, so that they are the same on every
//! device and after a resume. Those of dropout are drawn on the device that computes it.

use crate::kernels;
use crate::kernels::reference::dropout::Mask;
use crate::random::Stream;
use burn::prelude::*;

/// Source of masks for one forward pass of one shard. Without a stream (evaluation) every layer passes its input on.
pub struct Noise {
    rng: Option<Stream>,
}

impl Noise {
    pub fn none() -> Self {
        Self { rng: None }
    }

    pub fn new(rng: Stream) -> Self {
        Self { rng: Some(rng) }
    }

    /// None where everything is kept.
    fn mask(&mut self, values: usize, rate: f64) -> Option<Mask> {
        self.rng.as_mut().filter(|_| rate > 0.0).map(|rng| Mask::draw(rng, values, rate))
    }

    fn keep<const D: usize>(&mut self, shape: [usize; D], rate: f64, device: &Device) -> Option<Tensor<D>> {
        let values = shape.iter().product();
        let factors: Vec<f32> = self.mask(values, rate)?.factors(values).collect();
        Some(Tensor::from_data(TensorData::new(factors, shape), device))
    }

    /// Zeroes elements with probability `rate` and scales the rest by 1 / (1 - rate).
    pub fn dropout(&mut self, x: Tensor<3>, rate: f64) -> Tensor<3> {
        match self.mask(x.shape().num_elements(), rate) {
            Some(mask) => kernels::dropout(x, mask),
            None => x,
        }
    }

    /// The mask that [`Noise::drop_path`] would multiply a residual branch of so many faces with, `[B, 1, 1]`.
    pub fn path(&mut self, faces: usize, rate: f64, device: &Device) -> Option<Tensor<3>> {
        self.keep([faces, 1, 1], rate, device)
    }

    /// Zeroes the residual branch of whole faces (stochastic depth), `[B, ...]`.
    pub fn drop_path<const D: usize>(&mut self, branch: Tensor<D>, rate: f64) -> Tensor<D> {
        let mut faces = [1; D];
        faces[0] = branch.dims()[0];
        match self.keep(faces, rate, &branch.device()) {
            Some(mask) => branch * mask,
            None => branch,
        }
    }
}
