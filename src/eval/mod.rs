//! Measures: what a confusion matrix says. Pure counting, no tensors.

use crate::dataset::{Class, Split};
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

    /// The event that reports this matrix.
    pub fn into_event(self, split: Split, loss: Option<f64>) -> Body {
        Body::Evaluation {
            split,
            accuracy: self.accuracy(),
            mean_recall: self.mean_recall(),
            per_class: self.recalls(),
            loss,
            confusion: self.counts,
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
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0, 0.0]), 2);
    }
}
