//! The ranking: how likely each face's given label is wrong, from all witnesses at once.
//!
//! A witness is whatever says how likely each class is: the annotators, the model, the way the label was decided, plain cross-entropy. Their
//! testimonies are pooled as weighted products of experts,
//!
//! ```text
//! q(c) ~ votes(c)^V * model(c)^M * history(c)^(H * stability) * baseline(c)^B        suspicion = 1 - q(given)
//!        each but the votes over its habit of c
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
//! - *Habits.* A network that hardly learned a rare class finds it unlikely on every face, also on those that carry its label: that is a fact
//!   about the network and none about the face. So what a model, a history or the baseline says of class c is divided by what it says of c on
//!   the faces that are labelled c (their geometric mean), as confident learning measures a class against its own self-confidence
//!   (Northcutt et al. 2021); but only the root of it, for part of the habit is knowledge: labels of a rare class *are* more often wrong
//!   where frequent classes are mistaken for it.
//!
//! The weights were chosen by hand among round numbers, on generated faces of other seeds than any result that is reported (see
//! `benches/peers/README.md`). There, half or twice any of them costs at most three points of average precision, but for half the votes, which
//! costs sixteen.

use super::evidence::{Evidence, Subject};
use crate::dataset::{Class, votes};
use crate::run::Predictions;

/// Exponents of the witnesses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    pub votes: f64,
    pub model: f64,
    pub history: f64,
    pub baseline: f64,
    /// S, votes that every class has from the start.
    pub smoothing: f64,
    /// How much of the witnesses' habits is taken off, 0 to 1.
    pub habit: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { votes: 1.0, model: 0.5, history: 0.25, baseline: 0.25, smoothing: 0.1, habit: 0.5 }
    }
}

/// Probabilities below this say no more than "hardly".
const FLOOR: f64 = 1e-4;
/// Confidences come in steps of 1/255; a witness cannot be surer than half of one.
const STEP: f64 = 0.5 / 255.0;
/// Weight of a face's history that flipped in the last epoch.
const UNSETTLED: f64 = 0.5;

/// Faces of the average class that every class counts beside its own, for a habit is not known from a handful.
const FEW: f64 = 5.0;

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
    let witnesses = Witness::ALL.map(|witness| (witness, witness.weight(weights), witness.habits(evidence, weights.habit)));
    let judge = |(n, face): (usize, &Subject)| {
        let given = face.given?;
        let mut log = annotators(face, given, evidence.classes.len(), weights.smoothing);
        log.iter_mut().for_each(|l| *l *= weights.votes);
        for (witness, weight, habits) in &witnesses {
            if let Some(Testimony { said, trust }) = witness.hear(evidence, face) {
                log.iter_mut().zip(said.iter().zip(habits)).for_each(|(sum, (said, habit))| *sum += weight * trust * (said - habit));
            }
        }
        Some(finding(n, face, given, &log))
    };
    let mut findings: Vec<Finding> = evidence.faces.iter().enumerate().filter_map(judge).collect();
    findings.sort_by(|a, b| b.suspicion.total_cmp(&a.suspicion).then(a.face.cmp(&b.face)));
    findings
}

/// What the votes say of each class, as logarithms, `[C]`.
fn annotators(face: &Subject, given: Class, classes: usize, smoothing: f64) -> Vec<f64> {
    let total: f64 = face.votes.iter().map(|&v| f64::from(v)).sum();
    let one = |c: usize| f64::from(u8::from(c == usize::from(given)));
    let count = |c: usize| if total > 0.0 { face.votes.get(c).map_or(0.0, |&v| f64::from(v)) } else { one(c) };
    (0..classes).map(|c| ((count(c) + smoothing) / (total.max(1.0) + smoothing * classes as f64)).max(f64::MIN_POSITIVE).ln()).collect()
}

/// Whoever learned from the labels, and so has habits.
#[derive(Clone, Copy)]
enum Witness {
    Model,
    History,
    Baseline,
}

/// What a witness says of one face.
struct Testimony {
    /// Logarithms, `[C]`.
    said: Vec<f64>,
    /// Of the witness's weight, 0 to 1.
    trust: f64,
}

impl Witness {
    const ALL: [Self; 3] = [Self::Model, Self::History, Self::Baseline];

    fn weight(self, weights: &Weights) -> f64 {
        match self {
            Self::Model => weights.model,
            Self::History => weights.history,
            Self::Baseline => weights.baseline,
        }
    }

    fn hear(self, evidence: &Evidence, face: &Subject) -> Option<Testimony> {
        let predicted = |predictions: &Option<Predictions>, row: Option<usize>| {
            let said = predictions.as_ref()?.row(row?).iter().map(|&p| f64::from(p).max(FLOOR).ln()).collect();
            Some(Testimony { said, trust: 1.0 })
        };
        let classes = evidence.classes.len();
        match (self, &evidence.traces, face.trace) {
            (Self::Model, ..) => predicted(&evidence.predictions, face.predicted),
            (Self::Baseline, ..) => predicted(&evidence.baseline, face.baseline),
            (Self::History, Some(traces), Some(row)) => {
                let (candidates, means) = (&traces.header.faces[row].candidates, traces.means(row));
                let believed = |c: usize| candidates.binary_search(&(c as Class)).map_or(0.0, |k| f64::from(means[k]));
                let said = (0..classes).map(|c| believed(c).max(STEP).ln()).collect();
                Some(Testimony { said, trust: UNSETTLED + (1.0 - UNSETTLED) * traces.settled(row) })
            }
            // No history: the decision alone, its margin split between the first and the second.
            (Self::History, ..) => {
                let (resolved, margin) = face.resolved.filter(|_| face.ambiguous == Some(true))?;
                let believed = |c: usize| f64::from(1.0 + if c == usize::from(resolved) { margin } else { -margin }) / 2.0;
                Some(Testimony { said: (0..classes).map(|c| believed(c).max(STEP).ln()).collect(), trust: UNSETTLED })
            }
        }
    }

    /// What it says of class c, on average over the faces that are labelled c: logarithms, `[C]`, times `strength`.
    fn habits(self, evidence: &Evidence, strength: f64) -> Vec<f64> {
        let mut sums = vec![(0.0, 0.0); evidence.classes.len()];
        for face in &evidence.faces {
            if let (Some(given), Some(testimony)) = (face.given, self.hear(evidence, face)) {
                let (sum, faces) = &mut sums[usize::from(given)];
                *sum += testimony.said[usize::from(given)];
                *faces += 1.0;
            }
        }
        let (sum, faces) = sums.iter().fold((0.0, 0.0), |all, class| (all.0 + class.0, all.1 + class.1));
        let usual = sum / f64::max(faces, 1.0);
        sums.into_iter().map(|(sum, faces)| strength * (sum + FEW * usual) / (faces + FEW)).collect()
    }
}

fn finding(face: usize, subject: &Subject, given: Class, log: &[f64]) -> Finding {
    let top = log.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = log.iter().map(|l| (l - top).exp()).sum();
    let pooled: Vec<f64> = log.iter().map(|l| (l - top).exp() / sum).collect();
    let others = (0..pooled.len()).filter(|&c| c != usize::from(given));
    let suggested = others.reduce(|best, c| if pooled[c] > pooled[best] { c } else { best }).unwrap_or(usize::from(given));
    Finding {
        face,
        given,
        suggested: suggested as Class,
        suspicion: 1.0 - pooled[usize::from(given)],
        entropy: votes::entropy(&subject.votes, pooled.len()),
        pooled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use crate::run::{RunFolder, predictions::Predicted};

    /// Faces with their given class (0 frequent, 1 rare), votes for both, and what the model makes of the rare one.
    fn evidence(faces: &[(Class, [u32; 2], f32)]) -> (tempfile::TempDir, Evidence) {
        let root = tempfile::tempdir().unwrap();
        let classes = vec!["frequent".to_string(), "rare".to_string()];
        let subject = |(n, (given, votes, _)): (usize, &(Class, [u32; 2], f32))| Subject {
            id: n.to_string(),
            given: Some(*given),
            votes: votes.to_vec(),
            predicted: Some(n),
            ..Subject::default()
        };
        let predicted = |n: usize| Predicted { id: n.to_string(), split: Split::Train, label: Some(faces[n].0), truth: None };
        let predictions = Predictions {
            classes: classes.clone(),
            faces: (0..faces.len()).map(predicted).collect(),
            probabilities: faces.iter().flat_map(|(.., rare)| [1.0 - rare, *rare]).collect(),
        };
        let evidence = Evidence {
            folder: RunFolder::create(&root.path().join("run")).unwrap(),
            classes,
            faces: faces.iter().enumerate().map(subject).collect(),
            pack: None,
            traces: None,
            predictions: Some(predictions),
            baseline: None,
            objective: None,
            notes: Vec::new(),
        };
        (root, evidence)
    }

    #[test]
    fn blindness_to_a_class_is_no_evidence_against_its_labels() {
        // Ninety faces that the model gets, ten of a class that it never learned, and one frequent face that it finds rather rare.
        let mut faces = vec![(0, [8, 2], 0.01); 90];
        faces.extend(vec![(1, [4, 6], 0.01); 10]);
        faces.push((0, [5, 5], 0.2));
        let (_root, evidence) = evidence(&faces);
        let first = |habit: f64| rank(&evidence, &Weights { habit, ..Weights::default() })[0].face;
        assert!((90..100).contains(&first(0.0)), "the blind model accuses what it does not know");
        assert_eq!(first(1.0), 100);
        // What all witnesses say alike of all faces of a class changes nothing in their order.
        let order = |habit: f64| {
            let found = rank(&evidence, &Weights { habit, ..Weights::default() });
            found.iter().filter(|f| f.given == 0).map(|f| f.face).collect::<Vec<_>>()
        };
        assert_eq!(order(0.0), order(1.0));
    }

    #[test]
    fn votes_and_the_model_together_name_the_other_class() {
        let (_root, evidence) = evidence(&[(0, [9, 1], 0.1), (0, [5, 5], 0.9), (1, [1, 9], 0.9), (1, [0, 10], 0.8)]);
        let found = rank(&evidence, &Weights::default());
        assert_eq!((found[0].face, found[0].suggested, found[0].is_contradicted()), (1, 1, true));
        assert!(found[1..].iter().all(|f| !f.is_contradicted() && f.suspicion < 0.5));
        assert!(found.iter().all(|f| (f.pooled.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    }
}
