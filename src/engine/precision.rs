//! What matrix products are computed in, and the scale that keeps gradients in half precision from vanishing.
//!
//! Mixed precision (Micikevicius et al., *Mixed Precision Training*, 2018): the weights that the optimiser holds, and softmax, norms, losses and
//! sums stay in single precision. For a step the matrices of linear layers are rounded to half precision, and [`crate::kernels::layers`]
//! computes products in the type of their weights. Small gradients would round to zero, so the loss is multiplied by a scale before the
//! backward pass and gradients are divided by it after; where they overflow, the step is left out and the scale halved ([`LossScale`]).

use super::device::OpenDevice;
use crate::config;
use crate::usage;
use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// What a device trains in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Single,
    Mixed,
}

impl Precision {
    /// What a setting means on a device: `auto` is mixed on graphics hardware that computes in half precision, else single. A CPU has no
    /// such hardware: it can, slower.
    ///
    /// # Errors
    /// Mixed asked of a device that has no half precision ([`Usage`](crate::failure::Usage)).
    pub fn of(setting: config::Precision, open: &OpenDevice) -> Result<Self> {
        let able = open.device.supports_dtype(FloatDType::F16);
        match setting {
            config::Precision::F32 => Ok(Self::Single),
            config::Precision::Auto if able && open.is_hardware => Ok(Self::Mixed),
            config::Precision::Auto => Ok(Self::Single),
            config::Precision::Mixed if able => Ok(Self::Mixed),
            config::Precision::Mixed => usage!("{} does not compute in half precision: leave out --precision mixed", open.name),
        }
    }

    /// As a setting words it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "f32",
            Self::Mixed => "mixed",
        }
    }

    /// The model as its leaves for one pass: parameters of their own graph with the same ids and values, but for matrices of linear layers,
    /// which have the type of products.
    pub(crate) fn leaves<M: Module>(self, model: M) -> M {
        model.map(&mut Rounded { precision: self, leaves: true, is_matrix: Vec::new() })
    }

    /// The same of a model without a graph.
    pub(super) fn rounded<M: Module>(self, model: M) -> M {
        match self {
            Self::Single => model,
            Self::Mixed => model.map(&mut Rounded { precision: self, leaves: false, is_matrix: Vec::new() }),
        }
    }
}

struct Rounded {
    precision: Precision,
    leaves: bool,
    /// Of each module on the way down: whether it is the matrix of a linear layer.
    is_matrix: Vec<bool>,
}

impl Rounded {
    fn value<const D: usize>(&self, t: Tensor<D>) -> Tensor<D> {
        let rounds = self.precision == Precision::Mixed && self.is_matrix.last() == Some(&true);
        if rounds { t.cast(FloatDType::F16) } else { t }
    }
}

impl ModuleMapper for Rounded {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.is_matrix.push(name == "weight" && container == "Struct:Linear");
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.is_matrix.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|t| {
            if !self.leaves {
                return self.value(t);
            }
            let trains = t.is_require_grad();
            Tensor::from_inner(self.value(t.inner())).set_require_grad(trains)
        })
    }
}

/// The factor of the loss: as large as it may be without gradients that overflow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    pub value: f32,
    /// Steps without an overflow since it last changed.
    steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { value: 65_536.0, steps: 0 }
    }
}

impl LossScale {
    /// Steps after which a larger scale is tried, as in PyTorch.
    const PATIENCE: u32 = 2000;
    /// Nothing is gained above.
    const LARGEST: f32 = 16_777_216.0;

    /// After a step whose gradients were finite.
    pub(super) fn fitted(&mut self) {
        self.steps += 1;
        if self.steps >= Self::PATIENCE {
            *self = Self { value: (2.0 * self.value).min(Self::LARGEST), steps: 0 };
        }
    }

    /// After a step whose gradients were not: halves the scale. False where the scale is not what makes them so, for unscaled gradients
    /// overflow, too.
    pub(super) fn overflowed(&mut self) -> bool {
        if self.value <= 1.0 {
            return false;
        }
        *self = Self { value: self.value / 2.0, steps: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::DType;

    #[derive(Module, Debug)]
    struct Network {
        linear: Linear,
        norm: LayerNorm,
        queries: Param<Tensor<2>>,
    }

    #[test]
    fn matrices_of_linear_layers_are_rounded_and_nothing_else() {
        let device = Device::flex().autodiff();
        let queries = Param::from_tensor(Tensor::ones([2, 3], &device).mul_scalar(1.0001));
        let network = Network { linear: LinearConfig::new(3, 2).init(&device), norm: LayerNormConfig::new(3).init(&device), queries };
        let leaves = Precision::Mixed.leaves(network.clone());
        assert_eq!(leaves.linear.weight.val().dtype(), DType::F16);
        assert!(leaves.linear.weight.val().is_require_grad() && leaves.linear.weight.id == network.linear.weight.id);
        assert_eq!(leaves.linear.bias.as_ref().unwrap().val().dtype(), DType::F32);
        assert_eq!((leaves.norm.gamma.val().dtype(), leaves.queries.val().dtype()), (DType::F32, DType::F32));
        let (exact, rounded) = (read_values(network.linear.weight.val()).unwrap(), read_values(leaves.linear.weight.val()).unwrap());
        assert!(exact.iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0) && exact != rounded);
        assert_eq!(Precision::Single.leaves(network.clone()).linear.weight.val().dtype(), DType::F32);
        assert_eq!(Precision::Mixed.rounded(network.valid()).linear.weight.val().dtype(), DType::F16);
    }

    #[test]
    fn the_scale_halves_at_an_overflow_and_grows_in_time() {
        let mut scale = LossScale::default();
        assert!(scale.overflowed());
        assert_eq!(scale.value, 32_768.0);
        (0..LossScale::PATIENCE - 1).for_each(|_| scale.fitted());
        assert_eq!(scale.value, 32_768.0);
        scale.fitted();
        assert_eq!(scale.value, 65_536.0);
        (0..LossScale::PATIENCE - 1).for_each(|_| scale.fitted());
        assert!(scale.overflowed());
        scale.fitted();
        assert_eq!(scale.value, 32_768.0);
        assert_eq!((0..15).filter(|_| scale.overflowed()).count(), 15);
        assert!(scale.value == 1.0 && !scale.overflowed());
        (0..40 * LossScale::PATIENCE).for_each(|_| scale.fitted());
        assert_eq!(scale.value, LossScale::LARGEST);
    }
}
