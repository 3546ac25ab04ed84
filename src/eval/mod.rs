//! Measures: what predictions are worth, and whether two runs differ. Pure counting, no tensors.

pub mod bootstrap;
pub mod calibration;

use crate::dataset::{Class, Split};
use crate::labels::response::probabilities;
use crate::run::Body;

/// Counts `[true class][predicted class]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    counts: Vec<Vec<u64>>,
}

impl Confusion {
    pub fn new(classes: usize) -> Self {
        Self { counts: vec![vec![0; classes]; classes] }
    }

    /// From counts `[true class][predicted class]`; none where they are not square.
    pub fn from_counts(counts: Vec<Vec<u64>>) -> Option<Self> {
        let square = counts.iter().all(|row| row.len() == counts.len());
        square.then_some(Self { counts })
    }

    pub fn add(&mut self, truth: Class, predicted: Class) {
        self.counts[usize::from(truth)][usize::from(predicted)] += 1;
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Share of faces whose prediction is right; NaN without faces.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.counts.len()).map(|c| self.counts[c][c]).sum();
        right as f64 / self.total() as f64
    }

    /// Recall of each class; none where the class does not occur.
    pub fn recalls(&self) -> Vec<Option<f64>> {
        let recall = |(c, row): (usize, &Vec<u64>)| {
            let faces: u64 = row.iter().sum();
            (faces > 0).then(|| row[c] as f64 / faces as f64)
        };
        self.counts.iter().enumerate().map(recall).collect()
    }

    /// Mean of the recalls of the classes that occur ("mean class accuracy"); NaN without faces.
    pub fn mean_recall(&self) -> f64 {
        let recalls: Vec<f64> = self.recalls().into_iter().flatten().collect();
        recalls.iter().sum::<f64>() / recalls.len() as f64
    }

    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Mean over the classes that occur of the harmonic mean of precision and recall, 0 for a class that is never hit; NaN without faces.
    pub fn macro_f1(&self) -> f64 {
        let f1 = |c: usize| {
            let faces: u64 = self.counts[c].iter().sum();
            let predicted: u64 = self.counts.iter().map(|row| row[c]).sum();
            (faces > 0).then(|| 2.0 * self.counts[c][c] as f64 / (faces + predicted) as f64)
        };
        let all: Vec<f64> = (0..self.counts.len()).filter_map(f1).collect();
        all.iter().sum::<f64>() / all.len() as f64
    }

    /// Each true class's faces as shares of the row, `[true class][predicted class]`; none where the class does not occur.
    pub fn row_shares(&self) -> Vec<Option<Vec<f64>>> {
        let share = |row: &Vec<u64>| {
            let faces: u64 = row.iter().sum();
            (faces > 0).then(|| row.iter().map(|&n| n as f64 / faces as f64).collect())
        };
        self.counts.iter().map(share).collect()
    }
}

/// Equal-width bins of the calibration error (Guo et al. 2017).
pub const CALIBRATION_BINS: usize = 15;

/// Faces by the probability of their predicted class: what the calibration error is made of, and a reliability diagram shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reliability {
    bins: [Bin; CALIBRATION_BINS],
}

/// Faces whose predicted class has a probability in `[i, i + 1) / 15`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    pub faces: u64,
    pub right: u64,
    /// Sum of the probabilities of the predicted classes.
    pub confidence: f64,
}

impl Reliability {
    pub fn add(&mut self, confidence: f64, right: bool) {
        let bin = &mut self.bins[((confidence * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1)];
        bin.faces += 1;
        bin.right += u64::from(right);
        bin.confidence += confidence;
    }

    pub fn bins(&self) -> &[Bin; CALIBRATION_BINS] {
        &self.bins
    }

    /// Expected calibration error of `faces` in all: how far, on average, the probability of the predicted class is from the share that is right.
    pub fn error(&self, faces: usize) -> f64 {
        self.bins.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum::<f64>() / faces.max(1) as f64
    }
}

/// What a network makes of labelled faces.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub confusion: Confusion,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Expected calibration error: how far, on average, the probability of the predicted class is from the share that is right.
    pub calibration_error: f64,
}

impl Scored {
    /// From one label and one row of logits (`[faces, C]`, row-major) a face. A face without finite logits has an infinite loss.
    pub fn new(classes: usize, labels: &[Class], logits: &[f32]) -> Self {
        let mut confusion = Confusion::new(classes);
        let mut loss = 0.0;
        let mut reliability = Reliability::default();
        for (&label, z) in labels.iter().zip(logits.chunks(classes)) {
            let predicted = argmax(z);
            confusion.add(label, predicted);
            let Some(p) = probabilities(z) else {
                loss = f64::INFINITY;
                continue;
            };
            loss -= p[usize::from(label)].max(f64::MIN_POSITIVE).ln();
            reliability.add(p[usize::from(predicted)], predicted == label);
        }
        let calibration_error = reliability.error(labels.len());
        Self { confusion, loss: loss / labels.len().max(1) as f64, calibration_error }
    }

    /// The event that reports it.
    pub fn into_event(self, split: Split) -> Body {
        Body::Evaluation {
            split,
            accuracy: self.confusion.accuracy(),
            mean_recall: self.confusion.mean_recall(),
            macro_f1: Some(self.confusion.macro_f1()),
            calibration_error: Some(self.calibration_error),
            per_class: self.confusion.recalls(),
            loss: Some(self.loss),
            confusion: self.confusion.counts,
        }
    }
}

/// Index of the largest logit, the lower class on ties; NaN never wins.
pub fn argmax(logits: &[f32]) -> Class {
    let mut best = 0;
    for (c, &v) in logits.iter().enumerate() {
        if v > logits[best] || logits[best].is_nan() && !v.is_nan() {
            best = c;
        }
    }
    best as Class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_classes_do_not_dilute_the_mean() {
        let mut m = Confusion::new(3);
        for (t, p) in [(0, 0), (0, 0), (0, 1), (0, 0), (1, 1), (1, 0)] {
            m.add(t, p);
        }
        assert_eq!(m.accuracy(), 4.0 / 6.0);
        assert_eq!(m.recalls(), [Some(0.75), Some(0.5), None]);
        assert_eq!(m.mean_recall(), 0.625);
        // F1 of class 0: 2 * 3 / (4 + 4), of class 1: 2 * 1 / (2 + 2).
        assert_eq!(m.macro_f1(), 0.625);
        assert_eq!(m.row_shares(), [Some(vec![0.75, 0.25, 0.0]), Some(vec![0.5, 0.5, 0.0]), None]);
    }

    #[test]
    fn calibration_compares_confidence_with_the_share_that_is_right() {
        // Probability 0.8 on class 0 four times, three of them right: off by 0.05; then 0.9 on class 1, wrong: off by 0.9.
        let logit = |p: f64| (p / (1.0 - p)).ln() as f32;
        let logits: Vec<f32> = [0.8, 0.8, 0.8, 0.8, 0.1].iter().flat_map(|&p| [logit(p), 0.0]).collect();
        let scored = Scored::new(2, &[0, 0, 0, 1, 0], &logits);
        assert!((scored.calibration_error - (4.0 * 0.05 + 0.9) / 5.0).abs() < 1e-6, "{}", scored.calibration_error);
        let loss = -(3.0 * 0.8f64.ln() + 0.2f64.ln() + 0.1f64.ln()) / 5.0;
        assert!((scored.loss - loss).abs() < 1e-6);
        assert_eq!(Scored::new(2, &[0], &[f32::NAN, 0.0]).loss, f64::INFINITY);
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0, 0.0]), 2);
    }
}
