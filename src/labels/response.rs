//! What a network says about a face: its logits as probabilities (paper eq. 3; METHOD 1.6).
//!
//! This is the one place where logits become probabilities outside the network's own losses: over a face's candidates or over all classes,
//! by sigmoid or softmax, at a temperature or without. What is done with them (revised rows, scores, predictions) is decided elsewhere.

use crate::config::Response;
use crate::dataset::Class;

/// Normalised response over the candidates, `[C]`, zero elsewhere (eq. 3), from logits.
///
/// Computed in log space, so that it never vanishes: sigmoid is the softmax of -softplus(-z) over the candidates. Returns `None` when a
/// candidate's logit is not finite. Logits outside the candidate set are ignored, also when NaN.
pub fn response(kind: Response, logits: &[f32], candidates: &[Class]) -> Option<Vec<f64>> {
    let log_response = |z: f64| match kind {
        // log sigmoid(z), stable on both sides
        Response::Sigmoid => -((-z.abs()).exp().ln_1p() + (-z).max(0.0)),
        Response::Softmax => z,
    };
    let logs: Vec<f64> = candidates.iter().map(|&c| log_response(f64::from(logits[usize::from(c)]))).collect();
    if logs.is_empty() || logs.iter().any(|l| !l.is_finite()) {
        return None;
    }
    let mut p = vec![0.0; logits.len()];
    for (&c, share) in candidates.iter().zip(softmax(&logs, 1.0)) {
        p[usize::from(c)] = share;
    }
    Some(p)
}

/// Softmax of one face's logits over all classes, `[C]`; `None` when one is not finite.
pub fn probabilities(logits: &[f32]) -> Option<Vec<f64>> {
    logits.iter().all(|z| z.is_finite()).then(|| at_temperature(logits, 1.0))
}

/// Softmax of each row of logits, `[faces, C]` row-major. A row that is not finite says nothing: every class equally.
pub fn probability_rows(classes: usize, logits: &[f32]) -> Vec<f32> {
    let row = |z: &[f32]| probabilities(z).unwrap_or_else(|| vec![1.0 / classes as f64; classes]);
    logits.chunks(classes).flat_map(row).map(|p| p as f32).collect()
}

/// Softmax of one face's logits at a temperature (Guo et al. 2017), `[C]`; NaN where a logit is NaN.
pub fn at_temperature(logits: &[f32], temperature: f64) -> Vec<f64> {
    let logits: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    softmax(&logits, temperature)
}

/// Relative to the largest, so that nothing overflows.
fn softmax(logs: &[f64], temperature: f64) -> Vec<f64> {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logs.iter().map(|l| ((l - top) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(at_temperature(&[1e4, -1e4], 1.0), [1.0, 0.0]);
        assert!((at_temperature(&[300.0, 300.0], 0.05)[0] - 0.5).abs() < 1e-12);
    }

    /// A confidence row, a score and a calibrated prediction at temperature 1 are the same numbers to the last bit.
    #[test]
    fn all_classes_as_candidates_are_the_softmax() {
        let z = [0.3, -2.5, 1.75, 0.1];
        let p = at_temperature(&z, 1.0);
        assert_eq!(response(Response::Softmax, &z, &[0, 1, 2, 3]).as_ref(), Some(&p));
        assert_eq!(probabilities(&z).as_ref(), Some(&p));
        assert_eq!(probability_rows(4, &z), p.iter().map(|&v| v as f32).collect::<Vec<f32>>());
        let powers = z.map(|v| f64::from(v).exp());
        assert!(p.iter().zip(powers).all(|(p, power)| (p - power / powers.iter().sum::<f64>()).abs() < 1e-12), "{p:?}");
    }

    #[test]
    fn logits_that_are_not_finite_say_nothing() {
        assert_eq!(probabilities(&[0.0, f32::INFINITY]), None);
        assert_eq!(probability_rows(2, &[f32::NAN, 0.0, 0.0, 0.0]), [0.5; 4]);
        assert!(at_temperature(&[f32::NAN, 0.0], 2.0)[0].is_nan());
        assert_eq!(response(Response::Softmax, &[f32::NAN, 0.0], &[1]), Some(vec![0.0, 1.0]));
        assert_eq!(response(Response::Softmax, &[f32::NAN, 0.0], &[0, 1]), None);
    }
}
