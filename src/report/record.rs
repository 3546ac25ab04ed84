//! What a run folder says: everything that a report is made of, read once.
//!
//! Only the folder is read; the pack that the manifest names is opened by [`super::faces`]. Whatever is missing, cut or foreign does not stop
//! the reading: it is left out whole and told in [`Record::gaps`], in words that the page shows. Only a folder that says nothing at all is
//! an error.

use crate::dashboard::series::{Rows, Series};
use crate::dataset::{Class, Split};
use crate::eval::Confusion;
use crate::failure::one_line;
use crate::limits::Records;
use crate::run::event::{Body, Event, Level, Stage, place};
use crate::run::manifest::Manifest;
use crate::run::summary::{RunSummary, Status, quiet};
use crate::run::{EventReader, RunFolder};
use crate::usage;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Points of a curve.
const CURVE: usize = 600;
/// Warnings and errors that are repeated on the page.
const MESSAGES: usize = 20;

/// One run.
pub struct Record {
    pub folder: RunFolder,
    pub name: String,
    pub manifest: Option<Manifest>,
    pub summary: RunSummary,
    /// How the run ended, or that it did not, in words; `true`: as it should.
    pub ending: (String, bool),
    /// In the order in which they began.
    pub stages: Vec<Trained>,
    /// Class names in label order; empty where nothing names them.
    pub classes: Vec<String>,
    /// Lines of `labels.csv`.
    pub labels: Vec<Label>,
    /// Pictures that pretraining left, oldest first.
    pub media: Vec<PathBuf>,
    pub messages: Vec<(Level, String)>,
    /// What cannot be shown, and why.
    pub gaps: Vec<String>,
}

/// One stage of a run and how its numbers developed, by epoch.
pub struct Trained {
    pub stage: Stage,
    pub label: String,
    pub epochs: f64,
    /// Training faces; 0 while unknown.
    pub faces: u64,
    pub finished: bool,
    pub loss: Series,
    pub valid: Vec<Reading>,
    pub test: Vec<Reading>,
    pub confidence: Rows,
    /// Epoch and share of ambiguous faces whose label counts as decided.
    pub decided: Vec<(f64, f64)>,
    pub flips: Vec<(f64, u64)>,
    /// The newest share of ambiguous faces whose likeliest candidate is the true class, where that is known.
    pub recovered: Option<f64>,
    pub ambiguous: u64,
    pub watched: Vec<Watched>,
}

/// One evaluation.
#[derive(Clone, Debug)]
pub struct Reading {
    pub epoch: f64,
    pub accuracy: f64,
    pub mean_recall: f64,
    pub macro_f1: Option<f64>,
    pub calibration_error: Option<f64>,
    pub loss: Option<f64>,
    /// Only of the newest evaluation of a split.
    pub confusion: Option<Confusion>,
}

/// A face whose candidates the events follow.
#[derive(Clone, Debug)]
pub struct Watched {
    pub face: String,
    pub candidates: Vec<Class>,
    pub truth: Option<Class>,
    pub epochs: Vec<f64>,
    pub shares: Vec<Vec<f32>>,
}

/// One face of `labels.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    pub face: String,
    pub given: Option<Class>,
    pub decided: Class,
    pub margin: f32,
    pub ambiguous: bool,
    pub truth: Option<Class>,
}

impl Trained {
    pub fn place(&self) -> String {
        place(self.stage, &self.label)
    }

    /// Whether faces with given labels are learned, and not an encoder or a fold's model.
    pub fn recognises(&self) -> bool {
        matches!(self.stage, Stage::Finetune | Stage::Baseline)
    }

    /// The newest evaluation of a split.
    pub fn scored(&self, split: Split) -> Option<&Reading> {
        match split {
            Split::Train => None,
            Split::Valid => self.valid.last(),
            Split::Test => self.test.last(),
        }
    }

    /// The validation of highest accuracy; the earlier one where two are equal.
    pub fn best(&self) -> Option<&Reading> {
        self.valid.iter().filter(|r| !r.accuracy.is_nan()).reduce(|best, r| if r.accuracy > best.accuracy { r } else { best })
    }

    fn new(event: &Event) -> Self {
        Self {
            stage: event.stage,
            label: event.label.clone(),
            epochs: 0.0,
            faces: 0,
            finished: false,
            loss: Series::new(CURVE),
            valid: Vec::new(),
            test: Vec::new(),
            confidence: Rows::default(),
            decided: Vec::new(),
            flips: Vec::new(),
            recovered: None,
            ambiguous: 0,
            watched: Vec::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        let epoch = event.epoch;
        match event.body {
            Body::StageStarted { epochs, faces, .. } => (self.epochs, self.faces) = (epochs, faces),
            Body::StageFinished { .. } => self.finished = true,
            Body::Scalars(scalars) => {
                if let Some(loss) = scalars.get("loss") {
                    self.loss.push(epoch, loss);
                }
            }
            Body::Confidence { histogram, resolved, ambiguous, flips, recovered } => {
                self.confidence.push(epoch, &histogram);
                if ambiguous > 0 {
                    self.decided.push((epoch, resolved as f64 / ambiguous as f64));
                }
                self.flips.push((epoch, flips));
                (self.recovered, self.ambiguous) = (recovered, ambiguous);
            }
            Body::Evaluation { split, accuracy, mean_recall, confusion, loss, macro_f1, calibration_error, .. } => {
                let list = match split {
                    Split::Train => return,
                    Split::Valid => &mut self.valid,
                    Split::Test => &mut self.test,
                };
                // The matrices of the past are not shown.
                list.iter_mut().for_each(|r| r.confusion = None);
                let confusion = Confusion::from_counts(confusion).filter(|c| c.total() > 0);
                list.push(Reading { epoch, accuracy, mean_recall, macro_f1, calibration_error, loss, confusion });
            }
            Body::Watched { face, candidates, confidences, truth } => {
                if candidates.len() != confidences.len() {
                    return;
                }
                let index = self.watched.iter().position(|w| w.face == face && w.candidates == candidates).unwrap_or_else(|| {
                    self.watched.push(Watched { face, candidates, truth, epochs: Vec::new(), shares: Vec::new() });
                    self.watched.len() - 1
                });
                self.watched[index].epochs.push(epoch);
                self.watched[index].shares.push(confidences.iter().map(|&c| c as f32).collect());
            }
            _ => {}
        }
    }
}

impl Record {
    /// # Errors
    /// If neither manifest nor events can be read.
    pub fn read(folder: RunFolder) -> Result<Self> {
        let mut gaps = Vec::new();
        let manifest = Manifest::read(&folder);
        let mut record = Self {
            name: folder.name(),
            manifest: None,
            summary: RunSummary::default(),
            ending: (String::new(), false),
            stages: Vec::new(),
            classes: Vec::new(),
            labels: Vec::new(),
            media: Vec::new(),
            messages: Vec::new(),
            gaps: Vec::new(),
            folder,
        };
        let broken = record.read_events(&mut gaps);
        if let (Err(error), 0) = (&manifest, record.summary.events) {
            usage!("{} says nothing of a run: {}", record.folder.path().display(), broken.unwrap_or_else(|| one_line(error)));
        }
        match manifest {
            Ok(manifest) => record.manifest = Some(manifest),
            Err(error) => gaps.push(format!("The plan, the device and the data hashes cannot be shown: {}.", one_line(&error))),
        }
        record.classes = record.manifest.as_ref().and_then(|m| Some(m.data.as_ref()?.classes.clone())).unwrap_or_default();
        if record.folder.labels().exists() {
            match read_labels(&record.folder, &record.classes) {
                Ok(labels) => {
                    // A table that was cut between two lines reads like a whole one.
                    let (found, wanted) = (labels.len() as u64, record.decider().map_or(0, |s| s.faces));
                    if wanted > 0 && found != wanted {
                        gaps.push(format!("labels.csv holds {found} of {wanted} training faces: what is counted from it is incomplete."));
                    }
                    record.labels = labels;
                }
                Err(error) => gaps.push(format!("The decided labels are not shown: {}.", one_line(&error))),
            }
        }
        record.media = pictures(&record.folder);
        record.ending = record.told_ending(broken.as_deref());
        gaps.extend(broken.map(|error| format!("The log is damaged; what follows there is not shown: {error}.")));
        if record.summary.skipped > 0 {
            gaps.push(format!("{} events of a newer moue are not shown.", record.summary.skipped));
        }
        record.gaps = gaps;
        Ok(record)
    }

    /// Folds the events in; the error that ended it early, if one did.
    fn read_events(&mut self, gaps: &mut Vec<String>) -> Option<String> {
        if !self.folder.events().exists() {
            gaps.push("There is no events.jsonl: nothing is known of what happened.".into());
            return None;
        }
        let mut reader = match EventReader::open(&self.folder) {
            Ok(reader) => reader,
            Err(error) => return Some(one_line(&error)),
        };
        for event in reader.by_ref() {
            match event {
                Ok(event) => self.apply(event),
                Err(error) => return Some(one_line(&error)),
            }
        }
        self.summary.skipped = reader.skipped();
        None
    }

    fn apply(&mut self, event: Event) {
        self.summary.apply(&event);
        if let Body::Message { level: level @ (Level::Warning | Level::Error), text } = &event.body
            && self.messages.len() < MESSAGES
        {
            self.messages.push((*level, text.clone()));
        }
        if event.stage != Stage::Run {
            let known = self.stages.iter().position(|s| s.stage == event.stage && s.label == event.label);
            let index = known.unwrap_or_else(|| {
                self.stages.push(Trained::new(&event));
                self.stages.len() - 1
            });
            self.stages[index].apply(event);
        }
    }

    fn told_ending(&self, broken: Option<&str>) -> (String, bool) {
        let message = if self.summary.message.is_empty() { String::new() } else { format!(": {}", self.summary.message) };
        let at = self.summary.stage().map(|s| format!(" in {} at epoch {:.1} of {:.0}", s.place(), s.epoch, s.epochs)).unwrap_or_default();
        match self.summary.status(quiet(&self.folder)) {
            Status::Completed => ("completed".into(), true),
            Status::Interrupted => (format!("interrupted{at}{message}; --resume goes on"), false),
            Status::Failed => (format!("failed{at}{message}"), false),
            _ if broken.is_some() => (format!("unknown: its log is damaged{at}"), false),
            _ if self.folder.is_written() == Some(true) => (format!("still running{at}: all figures are of the moment"), false),
            _ if self.folder.is_written() == Some(false) => (format!("crashed{at}: its process is gone"), false),
            Status::Running => (format!("still running{at}, as far as can be told: all figures are of the moment"), false),
            Status::Silent => (format!("silent{at}: it has most likely crashed"), false),
        }
    }

    /// The name of a class, or its number where nothing names it.
    pub fn class(&self, class: Class) -> String {
        self.classes.get(usize::from(class)).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// The split on which results are compared: test where there is one, else validation.
    pub fn split(&self) -> Option<Split> {
        [Split::Test, Split::Valid].into_iter().find(|split| self.stages.iter().any(|s| s.recognises() && s.scored(*split).is_some()))
    }

    /// The stage that decides labels, if there is one.
    pub fn decider(&self) -> Option<&Trained> {
        self.stages.iter().rev().find(|s| s.recognises() && !s.confidence.is_empty())
    }

    /// Share of ambiguous faces whose given, and whose decided label is the true one, where that is known.
    pub fn labels_right(&self) -> Option<(f64, f64)> {
        let known: Vec<(&Label, Class)> = self.labels.iter().filter(|l| l.ambiguous).filter_map(|l| Some((l, l.truth?))).collect();
        let share = |right: &dyn Fn(&Label, Class) -> bool| known.iter().filter(|(l, t)| right(l, *t)).count() as f64 / known.len() as f64;
        (!known.is_empty()).then(|| (share(&|l, t| l.given == Some(t)), share(&|l, t| l.decided == t)))
    }
}

fn read_labels(folder: &RunFolder, classes: &[String]) -> Result<Vec<Label>> {
    let path = folder.labels();
    let mut reader = csv::Reader::from_reader(Records::open(&path).with_context(|| format!("reading {}", path.display()))?);
    let header = reader.headers().context("labels.csv")?.clone();
    if header.iter().take(6).ne(["id", "given", "decided", "margin", "ambiguous", "truth"]) {
        bail!("labels.csv is no table of decided labels");
    }
    if classes.is_empty() {
        bail!("the manifest does not name the classes");
    }
    let class = |name: &str| -> Result<Option<Class>> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = classes.iter().position(|c| c == name).with_context(|| format!("labels.csv: `{name}` is no class of this run"))?;
        Ok(Some(found as Class))
    };
    let row = |row: csv::Result<csv::StringRecord>| -> Result<Label> {
        let row = row.context("labels.csv is damaged")?;
        let line = row.position().map_or(0, csv::Position::line);
        Ok(Label {
            face: row[0].into(),
            given: class(&row[1])?,
            decided: class(&row[2])?.with_context(|| format!("labels.csv:{line}: no decided label"))?,
            margin: row[3].parse().with_context(|| format!("labels.csv:{line}: margin `{}`", &row[3]))?,
            ambiguous: &row[4] == "1",
            truth: class(&row[5])?,
        })
    };
    reader.records().map(row).collect()
}

/// Pictures in `media`, by name, which counts steps.
fn pictures(folder: &RunFolder) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.media()).into_iter().flatten().flatten().map(|e| e.path());
    let mut pictures: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "png") && p.is_file()).collect();
    pictures.sort();
    pictures
}
