//! What a finetuning run leaves: every face's resolved label, what the model says about each, and the comparison with the plain baseline.

use super::Training;
use crate::config::{Objective, Settings};
use crate::dataset::{Class, Pack, Split};
use crate::engine::shards::Shards;
use crate::finetune::{Finetune, read_logits, scored_faces};
use crate::labels::Candidates;
use crate::labels::candidates::Coverage;
use crate::labels::response::probability_rows;
use crate::model::Classifier;
use crate::run::{Body, EventReader, Predictions, RunFolder, write_atomic};
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;

/// Writes `labels.csv`: one line for each training face with its given and its decided label, the decision's margin and the confidence of
/// every class. The true class is written where it is known, for measuring only.
pub fn write_labels(path: &Path, pack: &Pack, run: &Finetune) -> Result<()> {
    let name = |c: Class| pack.protocol().classes[usize::from(c)].as_str();
    let (train, table) = run.decisions();
    write_atomic(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        let mut header = vec!["id".to_string(), "given".into(), "decided".into(), "margin".into(), "ambiguous".into(), "truth".into()];
        header.extend(pack.protocol().classes.iter().map(|c| format!("confidence_{c}")));
        writer.write_record(&header)?;
        for (row, &index) in train.iter().enumerate() {
            let face = &pack.faces()[index];
            let (decided, margin) = table.decision(row);
            let mut record = vec![
                face.id.clone(),
                face.label.map_or("", name).to_string(),
                name(decided).to_string(),
                format!("{margin:.4}"),
                u8::from(table.is_ambiguous(row)).to_string(),
                face.truth.map_or("", name).to_string(),
            ];
            record.extend(table.row(row).iter().map(|v| format!("{v:.4}")));
            writer.write_record(&record)?;
        }
        writer.flush()?;
        Ok(())
    })
}

/// What a finished model says about all training faces and the scored faces of the other splits: one pass over the pack, a small part of
/// one epoch's time. Nothing is chosen by what it says.
pub fn predictions(model: &Classifier, pack: &Pack, settings: &Settings, shards: &Shards) -> Result<Predictions> {
    let mut faces = pack.split(Split::Train);
    faces.extend([Split::Valid, Split::Test].iter().flat_map(|&split| scored_faces(pack, split)));
    let logits = read_logits(model, pack, &faces, settings, shards)?;
    Ok(Predictions::of(pack, &faces, probability_rows(pack.protocol().classes.len(), &logits)))
}

/// Scores of one objective.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    pub objective: Objective,
    /// On the comparison's split, at the last evaluation.
    pub accuracy: f64,
    pub mean_recall: f64,
    pub macro_f1: Option<f64>,
    pub calibration_error: Option<f64>,
    /// The best validation accuracy of all epochs and its epoch. It is chosen by looking: the last epoch is the honest figure.
    pub best: Option<(f64, f64)>,
    /// Share of ambiguous training faces whose decided label is the true one.
    pub recovered: Option<f64>,
}

/// All objectives of a run side by side.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The split that all are measured on: test where there is one, else validation.
    pub split: Option<Split>,
    /// In the order in which they are shown: the plain baseline first.
    pub rows: Vec<Scores>,
    pub coverage: Option<Coverage>,
}

impl Comparison {
    /// Reads the figures back from the finished run's own events, so that what is printed is what is on record.
    pub fn read(folder: &RunFolder, pack: &Pack, candidates: Option<&Candidates>) -> Result<Self> {
        let split = [Split::Test, Split::Valid].into_iter().find(|s| !scored_faces(pack, *s).is_empty());
        let mut rows = Vec::new();
        let events = EventReader::open(folder)?.collect::<Result<Vec<_>>>()?;
        for objective in Objective::ALL {
            let at = Training::Finetune(objective).at();
            let mut scores: Option<Scores> = None;
            let (mut best, mut recovered) = (None::<(f64, f64)>, None);
            for event in events.iter().filter(|e| e.stage == at.stage && e.label == at.label) {
                match &event.body {
                    Body::Evaluation { split: s, accuracy, mean_recall, macro_f1, calibration_error, .. } => {
                        if *s == Split::Valid && best.is_none_or(|(known, _)| *accuracy > known) {
                            best = Some((*accuracy, event.epoch));
                        }
                        if Some(*s) == split {
                            let (accuracy, mean_recall) = (*accuracy, *mean_recall);
                            let (macro_f1, calibration_error) = (*macro_f1, *calibration_error);
                            scores =
                                Some(Scores { objective, accuracy, mean_recall, macro_f1, calibration_error, best: None, recovered: None });
                        }
                    }
                    Body::Confidence { recovered: share, .. } => recovered = *share,
                    _ => {}
                }
            }
            rows.extend(scores.map(|s| Scores { best, recovered, ..s }));
        }
        Ok(Self { split, rows, coverage: candidates.and_then(|c| c.coverage(pack)) })
    }

    /// The table a person reads at the end of a run.
    pub fn table(&self) -> String {
        let percent = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v));
        let majority = self.coverage.filter(|c| c.ambiguous > 0).map(|c| c.ambiguous_given_right as f64 / c.ambiguous as f64);
        let split = self.split.map_or("no", Split::name);
        let mut text = String::new();
        let head = [format!("{split} accuracy"), "mean class accuracy".into(), "macro F1".into(), "ambiguous labels right".into()];
        let _ = writeln!(text, "{:<34}{:>15}{:>21}{:>10}{:>24}", "", head[0], head[1], head[2], head[3]);
        for row in &self.rows {
            let right = if row.objective == Objective::Ce { majority } else { row.recovered };
            let _ = writeln!(
                text,
                "{:<34}{:>15}{:>21}{:>10}{:>24}",
                row.objective.title(),
                percent(Some(row.accuracy)),
                percent(Some(row.mean_recall)),
                percent(row.macro_f1),
                percent(right)
            );
        }
        if let Some(c) = self.coverage.filter(|c| c.ambiguous > 0) {
            let _ = writeln!(
                text,
                "ambiguous labels right: share of the {} ambiguous training faces whose label is the true one (plain cross-entropy: what \
                 majority vote gives);\nthe candidate sets hold the truth for {} of them.",
                c.ambiguous,
                percent(Some(c.ambiguous_covered as f64 / c.ambiguous as f64))
            );
        }
        let best: Vec<String> = self
            .rows
            .iter()
            .filter_map(|r| {
                r.best.map(|(accuracy, epoch)| format!("{} {} (epoch {epoch:.0})", r.objective.name(), percent(Some(accuracy))))
            })
            .collect();
        if !best.is_empty() {
            let _ = writeln!(text, "above: after the last epoch. Best epoch on valid, chosen by looking: {}", best.join(", "));
        }
        text
    }
}
