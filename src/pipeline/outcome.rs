//! What a finetuning run leaves: every face's resolved label, and the comparison with the plain baseline.

use crate::dataset::{Class, Pack, Split};
use crate::finetune::Finetune;
use crate::labels::Candidates;
use crate::labels::candidates::Coverage;
use crate::run::{Body, EventReader, RunFolder, Stage, write_atomic};
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

/// Scores of one objective on one split at its last epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    pub accuracy: f64,
    pub mean_recall: f64,
}

/// Partial labels beside plain cross-entropy.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The split that both are measured on: test where there is one, else validation.
    pub split: Option<Split>,
    pub partial: Option<Scores>,
    pub plain: Option<Scores>,
    /// Share of ambiguous training faces whose decided label is the true one.
    pub recovered: Option<f64>,
    pub coverage: Option<Coverage>,
}

impl Comparison {
    /// Reads the figures back from the finished run's own events, so that what is printed is what is on record.
    pub fn read(folder: &RunFolder, pack: &Pack, candidates: Option<&Candidates>) -> Result<Self> {
        let mut c = Self { coverage: candidates.and_then(|c| c.coverage(pack)), ..Self::default() };
        let split = [Split::Test, Split::Valid].into_iter().find(|s| !crate::finetune::scored_faces(pack, *s).is_empty());
        c.split = split;
        for event in EventReader::open(folder)? {
            let event = event?;
            match event.body {
                Body::Evaluation { split: s, accuracy, mean_recall, .. } if Some(s) == split => {
                    let scores = Some(Scores { accuracy, mean_recall });
                    match event.stage {
                        Stage::Finetune => c.partial = scores,
                        Stage::Baseline => c.plain = scores,
                        _ => {}
                    }
                }
                Body::Confidence { recovered, .. } if event.stage == Stage::Finetune => c.recovered = recovered,
                _ => {}
            }
        }
        Ok(c)
    }

    /// The table a person reads at the end of a run.
    pub fn table(&self) -> String {
        let percent = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v));
        let majority = self.coverage.filter(|c| c.ambiguous > 0).map(|c| c.ambiguous_given_right as f64 / c.ambiguous as f64);
        let split = self.split.map_or("no", Split::name);
        let mut text = String::new();
        let head = [format!("{split} accuracy"), "mean class accuracy".to_string(), "ambiguous labels right".to_string()];
        let _ = writeln!(text, "{:<34}{:>17}{:>22}{:>25}", "", head[0], head[1], head[2]);
        let mut row = |name: &str, scores: Option<Scores>, right: Option<f64>| {
            let accuracy = percent(scores.map(|s| s.accuracy));
            let mean = percent(scores.map(|s| s.mean_recall));
            let _ = writeln!(text, "{name:<34}{accuracy:>17}{mean:>22}{:>25}", percent(right));
        };
        if self.plain.is_some() {
            row("plain cross-entropy on majority", self.plain, majority);
        }
        if self.partial.is_some() {
            row("partial labels", self.partial, self.recovered);
        }
        if let Some(c) = self.coverage.filter(|c| c.ambiguous > 0) {
            let _ = writeln!(
                text,
                "ambiguous labels right: share of the {} ambiguous training faces whose label is the true one (first row: what majority \
                 vote gives);\nthe candidate sets hold the truth for {} of them.",
                c.ambiguous,
                percent(Some(c.ambiguous_covered as f64 / c.ambiguous as f64))
            );
        }
        text
    }
}
