//! Layers as methods of what goes through them.

use super::init::NORM_EPSILON;
use crate::kernels::layers;
use burn::nn::{LayerNorm, Linear};
use burn::prelude::*;
use burn::tensor::DType;

pub(super) trait Layers: Sized {
    /// `[.., D]` -> `[.., D']`
    fn linear(self, layer: &Linear) -> Self;

    /// Its positive part.
    fn linear_relu(self, layer: &Linear) -> Self;

    /// `[.., D]` -> `[.., D]`
    fn norm(self, layer: &LayerNorm) -> Self;
}

impl<const D: usize> Layers for Tensor<D> {
    fn linear(self, layer: &Linear) -> Self {
        layers::linear(self, layer)
    }

    fn linear_relu(self, layer: &Linear) -> Self {
        layers::linear_relu(self, layer)
    }

    fn norm(self, layer: &LayerNorm) -> Self {
        layers::layer_norm(self, layer, NORM_EPSILON)
    }
}

/// The type that a layer's products are computed in.
pub(super) fn products(layer: &Linear) -> DType {
    layer.weight.val().dtype()
}
