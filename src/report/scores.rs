//! The result table: what each objective of each run is worth, how sure that is, and how it stands to plain cross-entropy.

use super::record::{Record, Trained};
use crate::config::Objective;
use crate::dataset::Split;
use crate::eval::Confusion;
use crate::eval::bootstrap::Intervals;
use crate::random::Streams;
use crate::run::Stage;

/// Resamples of an interval.
const RESAMPLES: usize = 1000;

/// One objective of one run, on one split, after its last epoch.
pub struct Row {
    /// Position of the run.
    pub run: usize,
    pub title: String,
    pub plain: bool,
    pub split: Split,
    pub epoch: f64,
    /// Whether the training came to its end.
    pub finished: bool,
    /// Faces measured; 0 where the log has no confusion matrix.
    pub faces: u64,
    pub accuracy: Score,
    pub mean_recall: Score,
    pub macro_f1: Option<Score>,
    pub calibration_error: Option<f64>,
    /// Best validation accuracy and its epoch: chosen by looking.
    pub best: Option<(f64, f64)>,
    /// Share of ambiguous training faces whose label is the true one; of plain cross-entropy, what majority vote gives.
    pub labels_right: Option<f64>,
}

/// A share in 0..1, and its 95 % interval over faces; without one where it is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

/// As tables call an objective or another stage.
pub fn title(stage: Stage, label: &str) -> String {
    match (stage, Objective::ALL.iter().find(|o| o.name() == label)) {
        (Stage::Finetune | Stage::Baseline, Some(objective)) => objective.title().into(),
        (Stage::Pretrain, _) if label.is_empty() => "pretraining".into(),
        (Stage::Labels, _) => format!("cross-fitting, {}", label.replace('-', " ")),
        _ => crate::run::event::place(stage, label),
    }
}

/// Whether a stage learns from the majority label alone.
pub fn is_plain(stage: &Trained) -> bool {
    stage.stage == Stage::Baseline || stage.label == Objective::Ce.name()
}

/// The rows of a run, plain cross-entropy first.
pub fn rows(run: usize, record: &Record) -> Vec<Row> {
    let Some(split) = record.split() else { return Vec::new() };
    let right = record.labels_right();
    let row = |stage: &Trained| -> Option<Row> {
        let scored = stage.scored(split)?;
        // Drawn for the run's own seed: the same page from the same folder.
        let streams = Streams::new(record.manifest.as_ref().map_or(0, |m| m.seed));
        let intervals = scored.confusion.as_ref().and_then(|c| Intervals::of(c, RESAMPLES, &streams));
        let score = |value: f64, of: fn(&Intervals) -> (f64, f64)| Score {
            value,
            interval: intervals.as_ref().filter(|_| value.is_finite()).map(of),
        };
        let plain = is_plain(stage);
        Some(Row {
            run,
            title: title(stage.stage, &stage.label),
            plain,
            split,
            epoch: scored.epoch,
            finished: stage.finished,
            faces: scored.confusion.as_ref().map_or(0, Confusion::total),
            accuracy: score(scored.accuracy, |i| i.accuracy),
            mean_recall: score(scored.mean_recall, |i| i.mean_recall),
            macro_f1: scored.macro_f1.map(|value| score(value, |i| i.macro_f1)),
            calibration_error: scored.calibration_error,
            best: stage.best().map(|r| (r.accuracy, r.epoch)),
            labels_right: if plain { right.map(|r| r.0) } else { stage.recovered.or(right.map(|r| r.1)) },
        })
    };
    let mut rows: Vec<Row> = record.stages.iter().filter(|s| s.recognises()).filter_map(row).collect();
    rows.sort_by_key(|r| !r.plain);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_the_names_of_the_tables() {
        assert_eq!(title(Stage::Finetune, "pll"), Objective::Pll.title());
        assert_eq!(title(Stage::Baseline, "ce"), Objective::Ce.title());
        assert_eq!(title(Stage::Pretrain, ""), "pretraining");
        assert_eq!(title(Stage::Labels, "fold-1"), "cross-fitting, fold 1");
        assert_eq!(title(Stage::Finetune, "newer"), "finetune/newer");
    }
}
