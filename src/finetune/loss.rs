//! The terms of finetuning losses, each summed over the batch: `[B, C]` -> `[1]`. Which objective is made of which is said in
//! [`super::recipe`].

use crate::config::{SelfTerm, UniformKind, UniformSettings};
use burn::prelude::*;
use burn::tensor::activation::{log_softmax, sigmoid};

/// Cross-entropy against confidence vectors, summed over the batch (paper eq. 1): logits and targets `[B, C]` -> `[1]`.
///
/// Targets are constants; through log-softmax, so that it is finite for any finite logits.
pub fn confidence_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (log_softmax(logits, 1) * targets).sum().neg()
}

/// `targets` with a share `smoothing` of each row spread evenly over all classes (label smoothing; Szegedy et al. 2016).
pub fn smoothed(targets: Tensor<2>, smoothing: f64) -> Tensor<2> {
    let classes = targets.dims()[1] as f64;
    targets.mul_scalar(1.0 - smoothing).add_scalar(smoothing / classes)
}

/// Minus the log of the candidates' summed probability (CC, Feng et al. 2020): logits and membership (1 or 0) `[B, C]` -> `[1]`.
pub fn candidate_mass(logits: Tensor<2>, candidates: Tensor<2>) -> Tensor<1> {
    // Outside the candidates a logit becomes a constant so low that it adds nothing, and so gets no gradient.
    let inside = logits.clone() * candidates.clone() + candidates.sub_scalar(1.0).mul_scalar(1e30);
    (log_sum_exp(logits) - log_sum_exp(inside)).sum()
}

/// Leveraged weighted loss with the sigmoid (LW, Wen et al. 2021): the sum of `w * sigmoid(-z)` over the candidates and of
/// `beta * w * sigmoid(z)` over all other classes; logits, weights and membership `[B, C]` -> `[1]`.
pub fn leveraged(logits: Tensor<2>, weights: Tensor<2>, candidates: Tensor<2>, beta: f64) -> Tensor<1> {
    let inside = sigmoid(logits.clone().neg()) * candidates.clone();
    let outside = sigmoid(logits) * candidates.neg().add_scalar(1.0);
    ((inside + outside.mul_scalar(beta)) * weights).sum()
}

/// Kullback-Leibler divergence of the predictions from the rows, KL(rows | softmax) (CR-PLL, Wu et al. 2022): `[B, C]` twice -> `[1]`.
pub fn divergence(logits: Tensor<2>, rows: Tensor<2>) -> Tensor<1> {
    // 0 log 0 = 0
    let negentropy = (rows.clone() * rows.clone().clamp_min(f32::MIN_POSITIVE).log()).sum();
    confidence_cross_entropy(logits, rows) + negentropy
}

/// Minus the log-likelihood that no class outside the candidates is the true one, `log(1.0000001 - p)` each (CR-PLL's supervised term).
pub fn complement(logits: Tensor<2>, candidates: Tensor<2>) -> Tensor<1> {
    let outside = candidates.neg().add_scalar(1.0);
    // In single precision 1.0000001 is 1 + epsilon: certainty on a wrong class costs 15.9 and still has a slope.
    let log = log_softmax(logits, 1).exp().neg().add_scalar(1.0000001).log();
    (log * outside).sum().neg()
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
        f64::from(crate::engine::read_values(t).unwrap()[0])
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
