//! Confidence vectors and their revision (paper eq. 3-4; METHOD 1.2, 1.6).
//!
//! Each face owns a row over the C classes that is non-negative, sums to one and is zero outside its candidate set. Rows start uniform
//! on the candidates and are overwritten from the network's response to that face. All of this is plain arithmetic on slices: rows are
//! C numbers, the table belongs to the checkpoint, and the same code serves every device.

use super::response::response;
use crate::config::{Below, Metric, ReviseSettings};
use crate::dataset::Class;

/// Sum of direct responses below which a row carries no information.
const VANISHING: f64 = 1e-12;

/// Normalises a response that is given directly (`[C]`, any scale). `None` when a candidate's value is negative or not finite, or all
/// candidates together vanish.
pub fn normalise(direct: &[f64], candidates: &[Class]) -> Option<Vec<f64>> {
    let values = candidates.iter().map(|&c| direct[usize::from(c)]);
    if values.clone().any(|v| !v.is_finite() || v < 0.0) {
        return None;
    }
    let sum: f64 = values.sum();
    if sum <= VANISHING {
        return None;
    }
    let mut p = vec![0.0; direct.len()];
    for &c in candidates {
        p[usize::from(c)] = direct[usize::from(c)] / sum;
    }
    Some(p)
}

/// Revises one row from the normalised response `p` (eq. 4). Ties go to the lower class; the comparison with theta is strict.
pub fn revise(p: &[f64], candidates: &[Class], settings: &ReviseSettings) -> Vec<f64> {
    let mut ranked: Vec<usize> = candidates.iter().map(|&c| usize::from(c)).collect();
    ranked.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    let mut row = vec![0.0; p.len()];
    let (first, second) = match ranked[..] {
        [] => return row,
        [only] => {
            row[only] = 1.0;
            return row;
        }
        [first, second, ..] => (first, second),
    };
    let (p1, p2) = (p[first], p[second]);
    let certainty = match settings.metric {
        Metric::Margin => p1 - p2,
        Metric::Ratio => 1.0 - p2 / p1,
        Metric::Top1 => p1,
    };
    if certainty > settings.theta {
        row[first] = 1.0;
        return row;
    }
    match settings.below {
        Below::Top2Soft => {
            row[first] = p1 / (p1 + p2);
            row[second] = p2 / (p1 + p2);
        }
        Below::Top2Uniform => {
            row[first] = 0.5;
            row[second] = 0.5;
        }
        Below::KeepAll => row.copy_from_slice(p),
    }
    row
}

/// The rows of all training faces, `[n, C]`, with each face's candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfidenceTable {
    classes: usize,
    candidates: Vec<Vec<Class>>,
    rows: Vec<f32>,
}

/// What one revision of a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Rows whose best class changed, in batch order.
    pub flips: Vec<Flip>,
    /// Rows that could not be revised because the response was not finite.
    pub kept: usize,
}

/// The best class of a row became another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    /// Row of the table.
    pub face: usize,
    pub from: Class,
    pub to: Class,
}

impl ConfidenceTable {
    /// Uniform rows over the candidates (METHOD 1.2).
    ///
    /// # Panics
    /// If a candidate set is empty or names a class beyond `classes`: both are refused where sets are made.
    pub fn new(classes: usize, candidates: Vec<Vec<Class>>) -> Self {
        let mut rows = vec![0.0; classes * candidates.len()];
        for (row, set) in rows.chunks_mut(classes).zip(&candidates) {
            assert!(!set.is_empty(), "a face without candidates cannot be trained on");
            for &c in set {
                row[usize::from(c)] = 1.0 / set.len() as f32;
            }
        }
        Self { classes, candidates, rows }
    }

    /// Rows that are given, `[n, C]`; each face's candidates are the classes with a share.
    ///
    /// # Panics
    /// If a row has no share at all.
    pub fn from_rows(classes: usize, rows: Vec<f32>) -> Self {
        let support = |row: &[f32]| row.iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(c, _)| c as Class).collect();
        let table = Self::new(classes, rows.chunks(classes).map(support).collect());
        Self { rows, ..table }
    }

    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    pub fn row(&self, face: usize) -> &[f32] {
        &self.rows[face * self.classes..(face + 1) * self.classes]
    }

    pub fn candidates(&self, face: usize) -> &[Class] {
        &self.candidates[face]
    }

    /// 1 for each candidate, 0 for all other classes, `[C]`.
    pub fn membership(&self, face: usize) -> Vec<f32> {
        let mut row = vec![0.0; self.classes];
        self.candidates[face].iter().for_each(|&c| row[usize::from(c)] = 1.0);
        row
    }

    pub fn is_ambiguous(&self, face: usize) -> bool {
        self.candidates[face].len() > 1
    }

    /// The class believed most, lower index on ties, and its lead over the next.
    pub fn decision(&self, face: usize) -> (Class, f32) {
        let row = self.row(face);
        let (mut best, mut value, mut next) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (c, &v) in row.iter().enumerate() {
            if v > value {
                next = value;
                (best, value) = (c, v);
            } else if v > next {
                next = v;
            }
        }
        (best as Class, value - next.max(0.0))
    }

    /// What a face's row becomes by its logits `[C]`; `None` when those of its candidates are not finite.
    pub fn revised(&self, face: usize, logits: &[f32], settings: &ReviseSettings) -> Option<Vec<f32>> {
        let candidates = &self.candidates[face];
        let new = revise(&response(settings.response, logits, candidates)?, candidates, settings);
        let mix = |(&old, new): (&f32, f64)| (settings.ema * f64::from(old) + (1.0 - settings.ema) * new) as f32;
        Some(self.row(face).iter().zip(new).map(mix).collect())
    }

    /// Overwrites the rows of `faces` from their logits (`[faces, C]`, row-major). A face that occurs twice keeps its last row.
    pub fn revise(&mut self, faces: &[usize], logits: &[f32], settings: &ReviseSettings) -> Revision {
        let mut outcome = Revision::default();
        for (&face, logits) in faces.iter().zip(logits.chunks(self.classes)) {
            if self.candidates[face].len() == 1 {
                continue;
            }
            let Some(row) = self.revised(face, logits, settings) else {
                outcome.kept += 1;
                continue;
            };
            let from = self.decision(face).0;
            self.rows[face * self.classes..(face + 1) * self.classes].copy_from_slice(&row);
            let to = self.decision(face).0;
            if to != from {
                outcome.flips.push(Flip { face, from, to });
            }
        }
        outcome
    }

    /// Histogram of the largest confidence of ambiguous faces over (0, 1] in `bins` equal bins, upper edge included.
    pub fn histogram(&self, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for face in (0..self.len()).filter(|&f| self.is_ambiguous(f)) {
            let top = self.row(face).iter().copied().fold(0.0, f32::max);
            let bin = ((f64::from(top) * bins as f64).ceil() as usize).clamp(1, bins) - 1;
            counts[bin] += 1;
        }
        counts
    }

    /// All rows, `[n, C]`, for a checkpoint.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Puts back the rows of a checkpoint.
    ///
    /// # Errors
    /// If they do not fit the table or break its invariants.
    pub fn restore(&mut self, rows: Vec<f32>) -> Result<(), String> {
        if rows.len() != self.rows.len() {
            return Err(format!("{} confidences saved, {} needed: the training faces differ", rows.len(), self.rows.len()));
        }
        for (face, row) in rows.chunks(self.classes).enumerate() {
            let sum: f32 = row.iter().sum();
            let outside = row.iter().enumerate().any(|(c, &v)| v != 0.0 && !self.candidates[face].contains(&(c as Class)));
            if outside || (sum - 1.0).abs() > 1e-4 || row.iter().any(|v| v.is_nan() || *v < 0.0) {
                return Err(format!("the saved confidences of training face {face} do not fit its candidates"));
            }
        }
        self.rows = rows;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Response;
    use proptest::prelude::*;
    use serde_json::Value;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/confidence.json")).unwrap()
    }

    fn floats(v: &Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
    }

    fn members(v: &Value) -> Vec<Class> {
        floats(v).iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(c, _)| c as Class).collect()
    }

    fn settings(case: &Value) -> ReviseSettings {
        ReviseSettings {
            metric: serde_json::from_value(case["metric"].clone()).unwrap(),
            below: serde_json::from_value(case["below"].clone()).unwrap(),
            theta: case["threshold"].as_f64().unwrap(),
            ..ReviseSettings::default()
        }
    }

    /// The golden cases give direct responses; a row that cannot be read keeps the previous one, or starts uniform.
    fn outcome(case: &Value, theta_shift: f64) -> Vec<f64> {
        let candidates = members(&case["candidates"]);
        let direct = floats(&case["response"]);
        let mut settings = settings(case);
        settings.theta += theta_shift;
        match normalise(&direct, &candidates) {
            Some(p) => revise(&p, &candidates, &settings),
            None if case["previous"].is_array() => floats(&case["previous"]),
            None => {
                let table = ConfidenceTable::new(direct.len(), vec![candidates]);
                table.row(0).iter().map(|&v| f64::from(v)).collect()
            }
        }
    }

    fn worst(theta_shift: f64) -> f64 {
        let golden = golden();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 20);
        let error = |case: &Value| {
            let expected = floats(&case["expected"]);
            assert!(expected.iter().all(|e| e.is_finite()));
            outcome(case, theta_shift).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        cases.iter().map(error).fold(0.0, f64::max)
    }

    #[test]
    fn golden_revisions() {
        assert!(worst(0.0) <= 1e-6);
    }

    #[test]
    fn a_planted_fault_turns_the_golden_red() {
        // A threshold moved by a hair must be noticed by the case on the edge.
        assert!(worst(-1e-3) > 0.1);
    }

    #[test]
    fn golden_responses_from_logits() {
        let golden = golden();
        for case in golden["from_logits"].as_array().unwrap() {
            let logits: Vec<f32> = floats(&case["logits"]).iter().map(|&v| v as f32).collect();
            let candidates = members(&case["candidates"]);
            for (kind, key) in [(Response::Sigmoid, "sigmoid_normalised"), (Response::Softmax, "softmax_restricted")] {
                let p = response(kind, &logits, &candidates).unwrap();
                for (a, b) in p.iter().zip(floats(&case[key])) {
                    assert!((a - b).abs() <= 1e-6, "{key}: {p:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rows_stay_distributions_on_the_candidates(
            logits in prop::collection::vec(prop_oneof![4 => -300f32..300f32, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)], 6),
            mask in 1u8..64,
            theta in 0.0f64..=1.0,
            ema in 0.0f64..1.0,
            metric in prop_oneof![Just(Metric::Margin), Just(Metric::Ratio), Just(Metric::Top1)],
            below in prop_oneof![Just(Below::Top2Soft), Just(Below::Top2Uniform), Just(Below::KeepAll)],
            kind in prop_oneof![Just(Response::Sigmoid), Just(Response::Softmax)],
        ) {
            let set: Vec<Class> = (0..6).filter(|c| mask >> c & 1 == 1).collect();
            let mut table = ConfidenceTable::new(6, vec![set.clone()]);
            let settings = ReviseSettings { theta, ema, metric, below, response: kind, ..ReviseSettings::default() };
            for _ in 0..3 {
                table.revise(&[0], &logits, &settings);
                let row = table.row(0);
                prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                for (c, &v) in row.iter().enumerate() {
                    prop_assert!(v >= 0.0 && v.is_finite());
                    prop_assert!(v == 0.0 || set.contains(&(c as Class)));
                }
            }
        }
    }

    #[test]
    fn flips_are_told_against_the_tie_rule() {
        let mut table = ConfidenceTable::new(3, vec![vec![0, 2], vec![1]]);
        let revision = table.revise(&[0, 1], &[0.0, 9.0, 4.0, 0.0, -9.0, 4.0], &ReviseSettings { theta: 0.1, ..Default::default() });
        assert_eq!(revision, Revision { flips: vec![Flip { face: 0, from: 0, to: 2 }], kept: 0 });
        assert_eq!(table.decision(0), (2, 1.0));
        assert_eq!(table.row(1), [0.0, 1.0, 0.0]);
        assert_eq!(table.histogram(20).iter().sum::<u64>(), 1);
    }
}
