//! Temperature scaling (Guo et al. 2017): one number that makes a network's probabilities mean what they say.
//!
//! Logits are divided by a temperature before the softmax; the one that minimises the cross-entropy on labelled faces that training never
//! saw (validation) is kept. Predictions stay the same, only how sure they are changes. In the inverse temperature the loss is convex, so
//! that the golden section finds the minimum.

use super::Scored;
use crate::dataset::{Class, Split};
use crate::labels::response::at_temperature;
use serde::{Deserialize, Serialize};

/// Temperatures between which the best is looked for. A fit at either end says that the faces do not determine one: all predictions are
/// right, or none tells anything.
const RANGE: (f64, f64) = (0.05, 20.0);
/// Fewer faces than this say too little.
pub const MIN_FACES: usize = 30;

/// A fitted temperature, with what it was fitted on and what it changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub temperature: f64,
    pub split: Split,
    pub faces: usize,
    /// Mean cross-entropy before and after.
    pub loss: [f64; 2],
    /// Expected calibration error before and after, on the same faces.
    pub calibration_error: [f64; 2],
}

impl Calibration {
    /// Fits a temperature to labelled faces, `logits` `[faces, C]` row-major; none where there are fewer than [`MIN_FACES`] or a logit is
    /// not finite.
    pub fn fit(split: Split, classes: usize, labels: &[Class], logits: &[f32]) -> Option<Self> {
        if labels.len() < MIN_FACES || logits.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let loss = |log: f64| mean_loss(classes, labels, logits, log.exp());
        let temperature = golden_section(loss, RANGE.0.ln(), RANGE.1.ln()).exp();
        let scored = |t: f64| Scored::new(classes, labels, &scaled(logits, t));
        let (before, after) = (scored(1.0), scored(temperature));
        Some(Self {
            temperature,
            split,
            faces: labels.len(),
            loss: [before.loss, after.loss],
            calibration_error: [before.calibration_error, after.calibration_error],
        })
    }
}

/// Logits divided by a temperature.
pub fn scaled(logits: &[f32], temperature: f64) -> Vec<f32> {
    logits.iter().map(|&z| (f64::from(z) / temperature) as f32).collect()
}

fn mean_loss(classes: usize, labels: &[Class], logits: &[f32], temperature: f64) -> f64 {
    let one = |(&label, z): (&Class, &[f32])| -at_temperature(z, temperature)[usize::from(label)].max(f64::MIN_POSITIVE).ln();
    labels.iter().zip(logits.chunks(classes)).map(one).sum::<f64>() / labels.len() as f64
}

/// The place in `[low, high]` where a function with one valley is lowest, to a millionth.
fn golden_section(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut fa, mut fb) = (f(a), f(b));
    while high - low > 1e-6 {
        if fa < fb {
            (high, b, fb) = (b, a, fa);
            a = high - ratio * (high - low);
            fa = f(a);
        } else {
            (low, a, fa) = (a, b, fb);
            b = low + ratio * (high - low);
            fb = f(b);
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{RngExt, Streams, normal};

    /// Labels drawn from the softmax of logits, which are then made too sure by a factor: that factor is what must be found.
    #[test]
    fn the_factor_that_made_logits_too_sure_is_found() {
        let mut rng = Streams::new(3).at("calibration", &[]);
        let (mut labels, mut logits) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let z: Vec<f32> = (0..4).map(|_| 1.5 * normal(&mut rng)).collect();
            let (p, mut left) = (at_temperature(&z, 1.0), rng.random::<f64>());
            let label = p.iter().position(|p| {
                left -= p;
                left <= 0.0
            });
            labels.push(label.unwrap_or(3) as Class);
            logits.extend(z.iter().map(|z| 2.5 * z));
        }
        let fit = Calibration::fit(Split::Valid, 4, &labels, &logits).unwrap();
        assert!((fit.temperature - 2.5).abs() < 0.08, "{fit:?}");
        assert!(fit.loss[1] < fit.loss[0] && fit.calibration_error[0] > 0.1 && fit.calibration_error[1] < 0.02, "{fit:?}");
        // No other temperature near it is better.
        for t in [0.97, 1.03] {
            assert!(mean_loss(4, &labels, &logits, t * fit.temperature) > fit.loss[1]);
        }
    }

    #[test]
    fn too_little_is_no_fit() {
        let logits = [1.0, 0.0].repeat(MIN_FACES);
        assert!(Calibration::fit(Split::Valid, 2, &[0; MIN_FACES - 1], &logits[2..]).is_none());
        // All right: as sure as allowed. All wrong: as unsure as allowed.
        assert!(Calibration::fit(Split::Valid, 2, &[0; MIN_FACES], &logits).unwrap().temperature < 0.06);
        assert!(Calibration::fit(Split::Valid, 2, &[1; MIN_FACES], &logits).unwrap().temperature > 19.0);
        assert!(Calibration::fit(Split::Valid, 2, &[1; MIN_FACES], &[f32::NAN; 2 * MIN_FACES]).is_none());
    }
}
