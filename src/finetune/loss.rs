//! The two terms of the finetuning loss.

use crate::config::{SelfTerm, UniformKind, UniformSettings};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;

/// Cross-entropy against confidence vectors, summed over the batch (paper eq. 1): logits and targets `[B, C]` -> `[1]`.
///
/// Targets are constants; through log-softmax, so that it is finite for any finite logits.
pub fn confidence_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (log_softmax(logits, 1) * targets).sum().neg()
}

/// Uniformity of the class queries `[C, D]` on the hypersphere (paper eq. 2, METHOD 1.5) -> `[1]`, unweighted and unscaled.
///
/// `dot`: mean over i of log sum over j of exp(cos(i, j) / tau); `gaussian`: log mean over pairs of exp(-2 |qi - qj|^2) with unit q.
/// Always log-sum-exp: the plain sum overflows at every temperature the paper uses.
pub fn uniformity(queries: Tensor<2>, settings: &UniformSettings) -> Tensor<1> {
    let [classes, _] = queries.dims();
    let device = queries.device();
    let norm = queries.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    let unit = queries / norm;
    let cosines = unit.clone().matmul(unit.transpose());
    // Far below any cosine over tau, yet finite: the diagonal then adds nothing to a log-sum-exp.
    let diagonal = Tensor::<2>::eye(classes, &device);
    match settings.kind {
        UniformKind::Dot => {
            let mut scaled = cosines.mul_scalar(1.0 / settings.tau);
            if settings.self_term == SelfTerm::Exclude {
                scaled = scaled - diagonal.mul_scalar(4.0 / settings.tau + 200.0);
            }
            log_sum_exp(scaled).mean()
        }
        UniformKind::Gaussian => {
            // |qi - qj|^2 = 2 - 2 cos
            let potential = cosines.sub_scalar(1.0).mul_scalar(4.0) - diagonal.mul_scalar(1e3);
            let pairs = (classes * (classes - 1)) as f32;
            log_sum_exp(potential.reshape([1, classes * classes])).sub_scalar(pairs.ln()).mean()
        }
    }
}

/// Over each row: `[R, N]` -> `[R, 1]`
fn log_sum_exp(x: Tensor<2>) -> Tensor<2> {
    let top = x.clone().detach().max_dim(1);
    (x - top.clone()).exp().sum_dim(1).log() + top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decoder::optimal_queries;
    use crate::random::Streams;

    fn read(t: Tensor<1>) -> f64 {
        f64::from(t.into_data().to_vec::<f32>().unwrap()[0])
    }

    /// METHOD 1.5: at the simplex the loss is log(C-1) - 1/((C-1) tau) without, 1/tau + log(1 + (C-1) e^(-C/((C-1) tau))) with self term.
    #[test]
    fn the_simplex_reaches_the_closed_form_minimum() {
        let device = Device::flex();
        for classes in [7usize, 8] {
            let values = optimal_queries(classes, 64, &Streams::new(2));
            let q = Tensor::<2>::from_data(TensorData::new(values, [classes, 64]), &device);
            for tau in [0.001, 0.005, 0.01, 0.07, 0.5, 1.0] {
                let c = classes as f64;
                let exclude = (c - 1.0).ln() - 1.0 / ((c - 1.0) * tau);
                let include = 1.0 / tau + (1.0 + (c - 1.0) * (-c / ((c - 1.0) * tau)).exp()).ln();
                for (self_term, expected) in [(SelfTerm::Exclude, exclude), (SelfTerm::Include, include)] {
                    let settings = UniformSettings { tau, self_term, ..UniformSettings::default() };
                    let value = read(uniformity(q.clone(), &settings));
                    assert!(
                        (value - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                        "C {classes} tau {tau} {self_term:?}: {value} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_gradient_pushes_collided_queries_apart() {
        let device = Device::flex().autodiff();
        let q = Tensor::<2>::from_data([[1.0, 0.0, 0.0], [0.999, 0.01, 0.0], [0.0, 0.0, 1.0]], &device).require_grad();
        for kind in [UniformKind::Dot, UniformKind::Gaussian] {
            let settings = UniformSettings { tau: 0.1, kind, ..UniformSettings::default() };
            let before = uniformity(q.clone(), &settings);
            let gradient = q.grad(&before.clone().backward()).unwrap();
            let after = uniformity(q.clone().inner() - gradient.mul_scalar(0.01), &settings);
            assert!(read(after) < read(before.inner()));
        }
    }

    #[test]
    fn cross_entropy_of_a_one_hot_target_is_minus_log_softmax() {
        let device = Device::flex();
        let z = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [-500.0, 0.0, 500.0]], &device);
        let t = Tensor::<2>::from_data([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], &device);
        let expected = -(2.0f64 - (1.0f64.exp() + 2.0f64.exp() + 3.0f64.exp()).ln());
        assert!((read(confidence_cross_entropy(z, t)) - expected).abs() < 1e-5);
    }
}
