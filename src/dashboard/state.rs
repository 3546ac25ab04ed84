//! What the dashboard knows of a run: a fold over its events, [`State::apply`].
//!
//! Everything shown is made from this and from nothing else that changes. Memory is bounded whatever the run's length: histories are thinned
//! ([`Series`]), messages and watched faces are limited. Copies are cheap: stages that no longer change are shared between them, so a
//! [`Timeline`](super::timeline::Timeline) can keep many. No clock, no file, no terminal.

use super::series::{Rows, Series};
use crate::dataset::{Class, Split};
use crate::run::clock::hms;
use crate::run::event::{Body, Event, Level, Phase, Stage};
use crate::run::progress::{Pace, plain, short};
use crate::run::summary::{RunSummary, StageSummary};
use std::collections::VecDeque;
use std::sync::Arc;

/// Points of a curve; more than the dots across a wide terminal.
const CURVE: usize = 1024;
/// Points of a watched face's history.
const FACE: usize = 128;
/// Faces that are followed; a run that watches more shows the first ones.
const FACES: usize = 32;
/// Candidates of a face.
const CANDIDATES: usize = 16;
/// Named numbers of a stage beside the well-known ones.
const OTHERS: usize = 16;
const LINES: usize = 2000;
/// Classes of a table that is kept; the label cards of the field have 7 or 8.
const CLASSES: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct State {
    pub summary: RunSummary,
    /// One for each of the summary's stages, in the same order.
    histories: Vec<Arc<History>>,
    pub log: VecDeque<Arc<LogLine>>,
    /// Lines that were dropped from the front of the log.
    pub dropped: u64,
}

/// How the numbers of one stage developed.
#[derive(Clone, Debug)]
pub struct History {
    pub(crate) pace: Pace,
    pub loss: Series,
    pub rate: Series,
    pub norm: Series,
    pub speed: Series,
    /// Bytes.
    pub memory: Series,
    pub picture: Option<Sheet>,
    /// The newest value of every other scalar, by name.
    pub others: Vec<(String, f64)>,
    pub valid_loss: Series,
    /// Shares in 0..1 of the validation.
    pub accuracy: Series,
    pub recall: Series,
    /// The newest evaluation of the validation split, or of the test split where there is no validation.
    pub tables: Option<Tables>,
    pub confidence: Rows,
    /// The newest histogram, as counts.
    pub histogram: Vec<u64>,
    /// Shares in 0..1 of the ambiguous faces.
    pub resolved: Series,
    pub recovered: Series,
    /// Faces, since the report before.
    pub flips: Series,
    pub watched: Vec<Watched>,
    /// Seconds spent in finished phases, in the order of [`PHASES`].
    pub phases: [f64; PHASES.len()],
    /// When the stage ended, in seconds of the run.
    pub ended: Option<f64>,
}

pub const PHASES: [Phase; 7] = [Phase::Load, Phase::Compile, Phase::Autotune, Phase::Train, Phase::Evaluate, Phase::Save, Phase::Pause];

/// The tables of one evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    pub split: Split,
    pub epoch: f64,
    pub accuracy: f64,
    pub mean_recall: f64,
    pub macro_f1: Option<f64>,
    pub calibration_error: Option<f64>,
    /// Recall of each class, and what it was in the evaluation of this split before.
    pub per_class: Vec<Option<f64>>,
    pub before: Vec<Option<f64>>,
    /// `[true class][predicted class]`
    pub confusion: Vec<Vec<u64>>,
}

/// A page of tiles on disk, as [`Body::Picture`] describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    pub path: String,
    pub columns: u32,
    pub rows: u32,
    pub gap: u32,
    pub epoch: f64,
}

/// One face whose label is being decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub face: String,
    pub candidates: Vec<Class>,
    pub truth: Option<Class>,
    /// Of each candidate: now, at the report before, and over the epochs.
    pub now: Vec<f64>,
    pub before: Vec<f64>,
    pub history: Vec<Series>,
    /// How often the most likely candidate changed, and when it last did.
    pub flips: u32,
    pub flipped: Option<f64>,
}

impl Watched {
    /// Share of the confidence that moved between the last two reports: half the L1 distance.
    pub fn change(&self) -> f64 {
        let moved = self.now.iter().zip(&self.before).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
        if moved.is_finite() { moved } else { 1.0 }
    }

    /// Position of the most likely candidate; none where no confidence is a number.
    pub fn likeliest(&self) -> Option<usize> {
        top(&self.now)
    }
}

fn top(values: &[f64]) -> Option<usize> {
    (0..values.len()).filter(|&i| !values[i].is_nan()).reduce(|a, b| if values[b] > values[a] { b } else { a })
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Seconds of the run.
    pub t: f64,
    pub level: Level,
    /// `finetune/pll`; empty for the run as a whole.
    pub place: String,
    /// Without control characters.
    pub text: String,
}

impl Default for History {
    fn default() -> Self {
        let curve = || Series::new(CURVE);
        Self {
            pace: Pace::default(),
            loss: curve(),
            rate: curve(),
            norm: curve(),
            speed: curve(),
            memory: curve(),
            picture: None,
            others: Vec::new(),
            valid_loss: curve(),
            accuracy: curve(),
            recall: curve(),
            tables: None,
            confidence: Rows::default(),
            histogram: Vec::new(),
            resolved: curve(),
            recovered: curve(),
            flips: curve(),
            watched: Vec::new(),
            phases: [0.0; PHASES.len()],
            ended: None,
        }
    }
}

impl State {
    pub fn apply(&mut self, event: &Event) {
        self.summary.apply(event);
        self.histories.resize_with(self.summary.stages.len(), Arc::default);
        if event.stage != Stage::Run
            && let Some(index) = self.summary.current
        {
            Arc::make_mut(&mut self.histories[index]).apply(event);
        }
        if let Some((level, text)) = tell(event, self.summary.stage()) {
            if self.log.len() == LINES {
                self.log.pop_front();
                self.dropped += 1;
            }
            let place = if event.stage == Stage::Run { String::new() } else { plain(&event.place()) };
            self.log.push_back(Arc::new(LogLine { t: event.t, level, place, text: plain(&text) }));
        }
    }

    /// A stage and its history.
    pub fn stage(&self, index: usize) -> Option<(&StageSummary, &History)> {
        Some((self.summary.stages.get(index)?, self.histories.get(index)?))
    }

    /// Position of the first event that `stage/label` names, by [`StageSummary::place`].
    pub fn find(&self, place: &str) -> Option<usize> {
        self.summary.stages.iter().position(|s| s.place() == place)
    }
}

impl History {
    fn apply(&mut self, event: &Event) {
        let step = event.step as f64;
        match &event.body {
            Body::StageStarted { .. } => (self.pace, self.ended) = (Pace::default(), None),
            Body::StageFinished { .. } => self.ended = Some(event.t),
            Body::Phase { name, elapsed: Some(seconds) } if seconds.is_finite() => {
                if *name == Phase::Pause {
                    self.pace.skip(*seconds);
                }
                if let Some(i) = PHASES.iter().position(|p| p == name) {
                    self.phases[i] += seconds;
                }
            }
            Body::Scalars(scalars) => {
                for (name, x) in scalars.iter() {
                    match name {
                        "loss" => {
                            self.pace.push(event.t, event.step);
                            self.loss.push(step, x);
                        }
                        "lr" => self.rate.push(step, x),
                        "grad_norm" => self.norm.push(step, x),
                        "faces_per_second" => self.speed.push(step, x),
                        "memory_bytes" => self.memory.push(step, x),
                        _ => {
                            let name = plain(name);
                            match self.others.iter().position(|(known, _)| *known == name) {
                                Some(i) => self.others[i].1 = x,
                                None if self.others.len() < OTHERS => self.others.push((name, x)),
                                None => {}
                            }
                        }
                    }
                }
            }
            Body::Picture { path, columns, rows, gap } => {
                self.picture = Some(Sheet { path: path.clone(), columns: *columns, rows: *rows, gap: *gap, epoch: event.epoch });
            }
            Body::Confidence { histogram, resolved, ambiguous, flips, recovered } => {
                self.confidence.push(step, histogram);
                self.histogram.clone_from(histogram);
                self.histogram.truncate(crate::run::event::CONFIDENCE_BINS);
                if *ambiguous > 0 {
                    self.resolved.push(step, *resolved as f64 / *ambiguous as f64);
                }
                self.flips.push(step, *flips as f64);
                if let Some(share) = recovered {
                    self.recovered.push(step, *share);
                }
            }
            Body::Evaluation { split, accuracy, mean_recall, per_class, confusion, loss, macro_f1, calibration_error } => {
                if *split == Split::Valid {
                    self.accuracy.push(step, *accuracy);
                    self.recall.push(step, *mean_recall);
                    if let Some(loss) = loss {
                        self.valid_loss.push(step, *loss);
                    }
                }
                let (validated, known) = match &self.tables {
                    Some(tables) => (tables.split == Split::Valid, tables.split == *split),
                    None => (false, false),
                };
                if *split == Split::Train || (*split == Split::Test && validated) {
                    return;
                }
                let before = if known { self.tables.take().map(|t| t.per_class).unwrap_or_default() } else { Vec::new() };
                self.tables = Some(Tables {
                    split: *split,
                    epoch: event.epoch,
                    accuracy: *accuracy,
                    mean_recall: *mean_recall,
                    macro_f1: *macro_f1,
                    calibration_error: *calibration_error,
                    per_class: per_class.iter().take(CLASSES).copied().collect(),
                    before,
                    confusion: confusion.iter().take(CLASSES).map(|row| row.iter().take(CLASSES).copied().collect()).collect(),
                });
            }
            Body::Watched { face, candidates, confidences, truth } => self.watch(event, face, candidates, confidences, *truth),
            _ => {}
        }
    }

    fn watch(&mut self, event: &Event, face: &str, candidates: &[Class], confidences: &[f64], truth: Option<Class>) {
        let n = candidates.len().min(confidences.len()).min(CANDIDATES);
        let (candidates, confidences) = (&candidates[..n], &confidences[..n]);
        let known = self.watched.iter().position(|w| w.face == face);
        let index = match known {
            Some(index) => index,
            None if self.watched.len() == FACES => return,
            None => {
                self.watched.push(Watched {
                    face: face.into(),
                    candidates: candidates.into(),
                    truth,
                    now: confidences.into(),
                    before: confidences.into(),
                    history: vec![Series::new(FACE); n],
                    flips: 0,
                    flipped: None,
                });
                self.watched.len() - 1
            }
        };
        let w = &mut self.watched[index];
        if w.candidates != candidates {
            // Candidate sets are fixed in a stage; a log that says otherwise starts the face anew.
            (w.candidates, w.history, w.now) = (candidates.into(), vec![Series::new(FACE); n], confidences.into());
        }
        let was = w.likeliest();
        w.before = std::mem::replace(&mut w.now, confidences.into());
        w.history.iter_mut().zip(confidences).for_each(|(series, &x)| series.push(event.step as f64, x));
        if was.is_some() && w.likeliest() != was {
            (w.flips, w.flipped) = (w.flips + 1, Some(event.epoch));
        }
    }
}

/// The log's line for an event; none for readings, which have their own panels.
fn tell(event: &Event, stage: Option<&StageSummary>) -> Option<(Level, String)> {
    let info = |text: String| Some((Level::Info, text));
    match &event.body {
        Body::RunStarted { command, version } => info(format!("started by moue {version}: {command}")),
        Body::RunResumed { command, version } => info(format!("resumed by moue {version}: {command}")),
        Body::StageStarted { steps, epochs, batch, faces } => {
            info(format!("begins: {steps} steps, {epochs} epochs, batches of {batch} of {faces} faces"))
        }
        Body::Evaluation { split, accuracy, mean_recall, loss, .. } => {
            let best = *split == Split::Valid && stage.and_then(|s| s.best).is_some_and(|b| b.step == event.step);
            let loss = loss.map(|loss| format!("  loss {}", short(loss))).unwrap_or_default();
            let best = if best { " (best)" } else { "" };
            let (a, r) = (accuracy * 100.0, mean_recall * 100.0);
            info(format!("epoch {:.1}  {split} {a:.1} %{best}  recall {r:.1} %{loss}", event.epoch))
        }
        Body::Phase { name, elapsed: Some(s) } if *s >= 10.0 => info(format!("{} took {s:.1} s", name.name())),
        Body::Checkpoint { path } => info(format!("saved {path}")),
        Body::Message { level, text } => Some((*level, text.clone())),
        Body::StageFinished { elapsed } => info(format!("done after {}", hms(*elapsed))),
        Body::RunFinished { outcome, message } => {
            let level = if *outcome == crate::run::Outcome::Failed { Level::Error } else { Level::Info };
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            Some((level, format!("{}{message}", outcome.name())))
        }
        Body::Phase { .. } | Body::Scalars(_) | Body::Confidence { .. } | Body::Watched { .. } | Body::Picture { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::tests::{event, every_body};

    fn watched(step: u64, confidences: [f64; 2]) -> Event {
        let body = Body::Watched { face: "a".into(), candidates: vec![1, 4], confidences: confidences.into(), truth: Some(4) };
        Event { step, epoch: step as f64 / 10.0, ..event(body) }
    }

    #[test]
    fn every_kind_of_event_is_taken_in() {
        let mut state = State::default();
        every_body().into_iter().for_each(|body| state.apply(&event(body)));
        let (stage, history) = state.stage(0).unwrap();
        assert_eq!((stage.place().as_str(), stage.steps), ("finetune/pll", 800));
        assert_eq!((history.loss.last(), history.accuracy.last(), history.resolved.last()), (Some(0.5), Some(0.5), Some(0.15)));
        assert_eq!(history.tables.as_ref().unwrap().confusion, [[1, 1], [0, 0]]);
        assert_eq!(history.watched[0].likeliest(), Some(1));
        assert_eq!(state.log.iter().filter(|line| line.level == Level::Error).count(), 1);
        assert!(state.log.iter().any(|line| line.text == "two lines"), "{:?}", state.log);
    }

    #[test]
    fn a_face_remembers_its_flips() {
        let mut state = State::default();
        for (step, p) in [(0, [0.6, 0.4]), (10, [0.4, 0.6]), (20, [0.3, 0.7]), (30, [f64::NAN, 0.9]), (40, [0.8, 0.2])] {
            state.apply(&watched(step, p));
        }
        let (_, history) = state.stage(0).unwrap();
        let w = &history.watched[0];
        assert_eq!((w.flips, w.flipped, w.now[0]), (2, Some(4.0), 0.8));
        // What cannot be told from a number that is no number counts as moved.
        assert_eq!(w.change(), 1.0);
    }

    #[test]
    fn a_hostile_log_stays_small() {
        let mut state = State::default();
        for i in 0..5000 {
            state.apply(&event(Body::Message { level: Level::Info, text: format!("{i}\x1b[31m") }));
            state.apply(&event(Body::Watched { face: i.to_string(), candidates: vec![0; 9], confidences: vec![0.5], truth: None }));
            state.apply(&event(Body::Scalars(crate::run::Scalars::from([(i.to_string(), 1.0)]))));
        }
        let (_, history) = state.stage(0).unwrap();
        assert_eq!((state.log.len(), state.dropped), (LINES, 3000));
        assert_eq!((history.watched.len(), history.others.len()), (FACES, OTHERS));
        assert!(state.log.iter().all(|line| !line.text.contains('\x1b')));
    }

    #[test]
    fn a_test_does_not_push_the_validation_aside() {
        let mut state = State::default();
        let evaluation = |split, recall| {
            event(Body::Evaluation {
                split,
                accuracy: recall,
                mean_recall: recall,
                per_class: vec![Some(recall)],
                confusion: vec![vec![1]],
                loss: None,
                macro_f1: None,
                calibration_error: None,
            })
        };
        for (split, recall) in [(Split::Test, 0.1), (Split::Valid, 0.4), (Split::Valid, 0.5), (Split::Test, 0.9)] {
            state.apply(&evaluation(split, recall));
        }
        let tables = state.stage(0).unwrap().1.tables.clone().unwrap();
        assert_eq!((tables.split, tables.per_class, tables.before), (Split::Valid, vec![Some(0.5)], vec![Some(0.4)]));
    }
}
