//! All figures of a report, by topic and run, drawn to the same scales; and what cannot be drawn, with the reason.
//!
//! This file holds what the topics share: the run, the scales, the order of the page, and how numbers are written. `decisions` draws labels
//! being decided, `training` curves, `recognisers` what finished networks confuse and how sure they are.

mod decisions;
mod recognisers;
mod training;

use super::faces::Faces;
use super::figure::axis::range;
use super::figure::ridge::Ridge;
use super::figure::{Figure, ridge, slug};
use super::record::{Record, Trained};
use super::scores::is_plain;
use super::stories::Stories;
use crate::failure::one_line;
use crate::run::Predictions;

/// One run with everything that is drawn of it.
pub struct Run {
    pub record: Record,
    pub faces: Faces,
    pub stories: Stories,
    /// Objective and what its model says about every face.
    pub predictions: Vec<(String, Predictions)>,
    /// Part of file names; empty where only one run is reported.
    pub slug: String,
}

/// Sections of the report that hold figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Confidence,
    Faces,
    Training,
    Confusion,
    Calibration,
    Pretraining,
}

/// Part of a section.
pub struct Part {
    pub topic: Topic,
    /// Position of the run.
    pub run: usize,
    pub content: Content,
}

pub enum Content {
    /// A figure, what else has to be known to read it, and its numbers as a table: head and rows.
    Figure(Box<Figure>, String, Table),
    /// A picture as a data URI with its size, and what it shows.
    Picture { uri: String, width: u32, height: u32, says: String },
    /// What is not there, and why.
    Missing(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Rows of a table beside a curve.
const ROWS: usize = 24;
/// Pictures of pretraining of a run: the first and the last; of many runs the last, so that the page stays small.
const SHEETS: usize = 2;
const MANY: usize = 4;

impl Run {
    /// Reads what stands beside the record; what of that is damaged is told in its gaps.
    pub fn read(mut record: Record, faces: Faces, slug: String) -> Self {
        let mut predictions = Vec::new();
        for stage in record.stages.iter().filter(|s| s.recognises()) {
            let path = record.folder.predictions(&stage.label);
            if path.exists() {
                match Predictions::read(&path) {
                    Ok(found) => predictions.push((stage.label.clone(), found)),
                    Err(error) => record.gaps.push(format!("What {} predicts is not shown: {}.", stage.place(), one_line(&error))),
                }
            }
        }
        let stories = Stories::read(&record);
        Self { record, faces, stories, predictions, slug }
    }

    fn name(&self, parts: &[&str]) -> String {
        slug([&[self.slug.as_str()], parts].concat().join("-").as_str())
    }

    pub fn predicted(&self, objective: &str) -> Option<&Predictions> {
        self.predictions.iter().find(|p| p.0 == objective).map(|p| &p.1)
    }
}

/// Everything, in the order of the page.
pub fn draw(runs: &[Run]) -> Vec<Part> {
    let scales = Scales::of(runs);
    let mut parts = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let mut add = |topic, content: Vec<Content>| parts.extend(content.into_iter().map(|content| Part { topic, run: i, content }));
        add(Topic::Confidence, decisions::confidence(run, &scales));
        add(Topic::Faces, decisions::faces(run));
        add(Topic::Training, training::training(run, &scales));
        add(Topic::Confusion, recognisers::confusion(run));
        add(Topic::Calibration, recognisers::calibrated(run));
        add(Topic::Pretraining, training::pretraining(run, &scales, if runs.len() > MANY { 1 } else { SHEETS }));
    }
    parts
}

/// What all runs are drawn to.
struct Scales {
    epochs: f64,
    loss: (f64, f64),
    accuracy: (f64, f64),
    confidence: f64,
    flips: (f64, f64),
    pretrain: (f64, (f64, f64)),
}

impl Scales {
    fn of(runs: &[Run]) -> Self {
        let stages = |wanted: fn(&Trained) -> bool| runs.iter().flat_map(|r| &r.record.stages).filter(move |s| wanted(s));
        let finetune = || stages(Trained::recognises);
        let epochs = |s: &Trained| s.epochs.max(s.loss.points().last().map_or(0.0, |p| p.x)).max(s.valid.last().map_or(0.0, |r| r.epoch));
        let most = |all: &mut dyn Iterator<Item = f64>| all.filter(|v| v.is_finite()).fold(1.0, f64::max);
        let losses = finetune().flat_map(|s| smooth(s).into_iter().filter_map(|p| p.1).chain(s.valid.iter().filter_map(|r| r.loss)));
        let shares = finetune().flat_map(|s| s.valid.iter().chain(&s.test).map(|r| r.accuracy));
        let pretrain = || stages(|s| !s.recognises());
        let ridges: Vec<Ridge> = finetune().flat_map(ridges).collect();
        Self {
            epochs: most(&mut finetune().map(epochs)),
            loss: padded(range(losses), 0.0),
            accuracy: padded(range(shares), 0.0),
            confidence: ridge::lowest(&ridges),
            flips: (
                most(&mut finetune().filter(|s| !s.flips.is_empty()).map(epochs)),
                most(&mut finetune().flat_map(|s| s.flips.iter().map(|f| f.1 as f64))),
            ),
            pretrain: (
                most(&mut pretrain().map(epochs)),
                padded(range(pretrain().flat_map(|s| smooth(s).into_iter().filter_map(|p| p.1))), f64::NEG_INFINITY),
            ),
        }
    }
}

/// A little room around the values, but not below what they cannot be.
fn padded(range: Option<(f64, f64)>, least: f64) -> (f64, f64) {
    let (low, high) = range.unwrap_or((0.0, 1.0));
    let room = ((high - low) * 0.06).max(1e-6);
    ((low - room).max(least), high + room)
}

/// The training loss without its jitter: a short training is hardly smoothed.
fn smooth(stage: &Trained) -> Vec<(f64, Option<f64>)> {
    let readings: u32 = stage.loss.points().map(|p| p.count).sum();
    stage.loss.smoothed(1.0 - 1.0 / (f64::from(readings) * 0.02).max(1.0))
}

fn ridges(stage: &Trained) -> Vec<Ridge> {
    let decided = |x: f64| stage.decided.iter().find(|d| d.0 == x).map(|d| d.1);
    stage.confidence.rows().into_iter().map(|r| Ridge { epoch: r.x, shares: r.shares, decided: decided(r.x) }).collect()
}

fn number(v: f64) -> String {
    if v.is_finite() { format!("{v:.4}") } else { "not a number".into() }
}

fn percent(v: f64) -> String {
    if v.is_finite() { format!("{:.1} %", 100.0 * v) } else { "not a number".into() }
}

/// Recognisers with their looks: plain cross-entropy has the same in every run.
fn looks(run: &Run) -> Vec<(usize, &Trained)> {
    let mut others = [0, 2, 3].into_iter().cycle();
    let recognisers = run.record.stages.iter().filter(|s| s.recognises());
    recognisers.map(|s| (if is_plain(s) { 1 } else { others.next().unwrap_or(0) }, s)).collect()
}

/// The three largest cells off the diagonal, in words.
fn largest(classes: &[String], counts: &[Vec<u64>]) -> String {
    let name = |c: usize| classes.get(c).cloned().unwrap_or_else(|| format!("class {c}"));
    let cells = counts.iter().enumerate().flat_map(|(r, row)| row.iter().enumerate().map(move |(c, n)| (*n, r, c)));
    let mut cells: Vec<(u64, usize, usize)> = cells.filter(|(n, r, c)| *n > 0 && r != c).collect();
    cells.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let words: Vec<String> = cells.iter().take(3).map(|&(n, r, c)| format!("{} \u{2192} {} ({n})", name(r), name(c))).collect();
    if words.is_empty() { "none off the diagonal".into() } else { words.join(", ") }
}

fn counted(classes: &[String], counts: &[Vec<u64>]) -> Table {
    let name = |c: usize| classes.get(c).cloned().unwrap_or_else(|| format!("class {c}"));
    let head = [String::new()].into_iter().chain((0..counts.len()).map(name)).collect();
    let row = |(r, row): (usize, &Vec<u64>)| [name(r)].into_iter().chain(row.iter().map(u64::to_string)).collect();
    Table { head, rows: counts.iter().enumerate().map(row).collect() }
}
