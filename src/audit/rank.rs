//! The ranking: how likely each face's given label is wrong, from all witnesses at once.
//!
//! A witness is whatever says how likely each class is: the annotators, the model, the way the label was decided, plain cross-entropy. Their
//! testimonies are pooled as weighted products of experts,
//!
//! ```text
//! q(c) ~ votes(c)^V * model(c)^M * history(c)^(H * stability) * baseline(c)^B        suspicion = 1 - q(given)
//! ```
//!
//! and the class with the largest q but for the given one is what the label should be if it is wrong. Why so:
//!
//! - *Products.* Witnesses err for different reasons, so agreement of two should count for more than either. A product does that, an average
//!   does not.
//! - *votes(c)* is (votes for c + S) / (all votes + S C). Ten who agree are strong evidence, five against four hardly any: the entropy of the
//!   votes enters here. S is what keeps a unanimous vote from being beyond doubt, for wrong labels also hide where all agree. A face
//!   without votes has one, for its given label.
//! - *model(c)* is the finished model's softmax, also for faces that training never doubted. It was trained on the face, under a label it
//!   was free to choose among the candidates only, and is surer of itself than it is right: half the weight.
//! - *history(c)* is the mean of the confidences over the epochs, the late ones counting most; the margin between two candidates is the
//!   ratio of theirs. A face that never flipped, or long ago, speaks with full weight, one that flips to the end with half of it
//!   (*stability* = 1/2 + 1/2 * share of the epochs since the last flip). Classes outside the candidate set have not been asked: they get
//!   the least that a candidate can have.
//! - *baseline(c)* is the softmax of plain cross-entropy, trained to repeat the given labels: where it still contradicts one, it says more
//!   than a model that was told to doubt.
//!
//! The weights were chosen by hand among round numbers, on generated faces of other seeds than any result that is reported (see
//! `benches/peers/README.md`). There, half or twice any of them costs at most three points of average precision, but for half the votes, which
//! costs sixteen.

use super::evidence::{Evidence, Subject};
use crate::dataset::{Class, votes};

/// Exponents of the witnesses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    pub votes: f64,
    pub model: f64,
    pub history: f64,
    pub baseline: f64,
    /// S, votes that every class has from the start.
    pub smoothing: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { votes: 1.0, model: 0.5, history: 0.25, baseline: 0.25, smoothing: 0.1 }
    }
}

/// Probabilities below this say no more than "hardly".
const FLOOR: f64 = 1e-4;
/// Confidences come in steps of 1/255; a witness cannot be surer than half of one.
const STEP: f64 = 0.5 / 255.0;
/// Weight of a face's history that flipped in the last epoch.
const UNSETTLED: f64 = 0.5;

/// One ranked face.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Position in [`Evidence::faces`].
    pub face: usize,
    pub given: Class,
    /// The class that the witnesses together find most likely after the given one, or before it where they contradict it.
    pub suggested: Class,
    /// How likely the given label is wrong, 0 to 1: for ordering, not calibrated.
    pub suspicion: f64,
    /// q of each class, `[C]`.
    pub pooled: Vec<f64>,
    /// Of the votes for classes, in bits; none without votes.
    pub entropy: Option<f64>,
}

impl Finding {
    /// Whether the witnesses together find another class more likely than the given one.
    pub fn is_contradicted(&self) -> bool {
        self.pooled[usize::from(self.suggested)] > self.pooled[usize::from(self.given)]
    }
}

/// All faces that have a label to be judged, the most suspicious first; ties in the order of the data.
pub fn rank(evidence: &Evidence, weights: &Weights) -> Vec<Finding> {
    let judge = |(n, face): (usize, &Subject)| Some(finding(n, face, face.given?, evidence, weights));
    let mut findings: Vec<Finding> = evidence.faces.iter().enumerate().filter_map(judge).collect();
    findings.sort_by(|a, b| b.suspicion.total_cmp(&a.suspicion).then(a.face.cmp(&b.face)));
    findings
}

fn finding(n: usize, face: &Subject, given: Class, evidence: &Evidence, weights: &Weights) -> Finding {
    let classes = evidence.classes.len();
    let mut log = vec![0.0; classes];
    let mut hear = |weight: f64, say: &dyn Fn(usize) -> f64, least: f64| {
        log.iter_mut().enumerate().for_each(|(c, sum)| *sum += weight * say(c).max(least).ln());
    };
    let total: f64 = face.votes.iter().map(|&v| f64::from(v)).sum();
    let one = |c: usize| f64::from(u8::from(c == usize::from(given)));
    let count = |c: usize| if total > 0.0 { face.votes.get(c).map_or(0.0, |&v| f64::from(v)) } else { one(c) };
    hear(weights.votes, &|c| (count(c) + weights.smoothing) / (total.max(1.0) + weights.smoothing * classes as f64), f64::MIN_POSITIVE);
    for (predictions, row, weight) in
        [(&evidence.predictions, face.predicted, weights.model), (&evidence.baseline, face.baseline, weights.baseline)]
    {
        if let (Some(predictions), Some(row)) = (predictions, row) {
            hear(weight, &|c| f64::from(predictions.row(row)[c]), FLOOR);
        }
    }
    if let (Some(traces), Some(row)) = (&evidence.traces, face.trace) {
        let (candidates, means) = (&traces.header.faces[row].candidates, traces.means(row));
        let believed = |c: usize| candidates.binary_search(&(c as Class)).map_or(0.0, |k| f64::from(means[k]));
        let stability = UNSETTLED + (1.0 - UNSETTLED) * traces.settled(row);
        hear(weights.history * stability, &believed, STEP);
    } else if let (Some(true), Some((resolved, margin))) = (face.ambiguous, face.resolved) {
        // No history: the decision alone, its margin split between the first and the second.
        let believed = |c: usize| f64::from(1.0 + if c == usize::from(resolved) { margin } else { -margin }) / 2.0;
        hear(weights.history * UNSETTLED, &believed, STEP);
    }
    let top = log.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = log.iter().map(|l| (l - top).exp()).sum();
    let pooled: Vec<f64> = log.iter().map(|l| (l - top).exp() / sum).collect();
    let others = (0..classes).filter(|&c| c != usize::from(given));
    let suggested = others.reduce(|best, c| if pooled[c] > pooled[best] { c } else { best }).unwrap_or(usize::from(given));
    Finding {
        face: n,
        given,
        suggested: suggested as Class,
        suspicion: 1.0 - pooled[usize::from(given)],
        entropy: votes::entropy(&face.votes, classes),
        pooled,
    }
}
