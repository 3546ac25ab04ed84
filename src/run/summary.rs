//! What became of a run: a fold over its events that lists, tables and progress views share.
//!
//! Only the events count; the one thing taken from outside is the time of the last write, to tell a run that still goes on from one that
//! has died. Keeps the latest and best numbers, no histories.

use super::event::{Body, Event, Outcome, Phase, Stage, place};
use super::folder::RunFolder;
use super::reader::EventReader;
use crate::dataset::Split;
use anyhow::Result;
use std::time::Duration;

/// A run without an end that has written nothing for this long counts as silent: most likely it has crashed.
pub const SILENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Completed,
    Interrupted,
    Failed,
    Running,
    /// Not finished, and the last write is older than [`SILENCE`].
    Silent,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Completed => "completed",
            Status::Interrupted => "interrupted",
            Status::Failed => "failed",
            Status::Running => "running",
            Status::Silent => "silent",
        }
    }
}

/// One [`Body::Evaluation`] without its tables; shares in 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub step: u64,
    pub epoch: f64,
    pub accuracy: f64,
    pub mean_recall: f64,
    pub loss: Option<f64>,
}

/// The latest [`Body::Confidence`] without its histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labels {
    pub resolved: u64,
    pub ambiguous: u64,
    pub flips: u64,
    pub recovered: Option<f64>,
}

impl Labels {
    /// Share of the ambiguous faces that are resolved; 1 where there are none.
    pub fn resolved_share(&self) -> f64 {
        if self.ambiguous == 0 { 1.0 } else { self.resolved as f64 / self.ambiguous as f64 }
    }
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSummary {
    pub stage: Stage,
    pub label: String,
    /// When it began, in seconds of the run.
    pub began: f64,
    /// Sizes in all; 0 while unknown.
    pub steps: u64,
    pub epochs: f64,
    pub batch: u64,
    pub faces: u64,
    /// Progress.
    pub step: u64,
    pub epoch: f64,
    pub loss: Option<f64>,
    pub valid: Option<Score>,
    /// The validation of highest accuracy; the earlier one where two are equal.
    pub best: Option<Score>,
    pub test: Option<Score>,
    pub labels: Option<Labels>,
    pub checkpoint: Option<String>,
    pub finished: bool,
}

impl StageSummary {
    fn new(event: &Event) -> Self {
        Self {
            stage: event.stage,
            label: event.label.clone(),
            began: event.t,
            steps: 0,
            epochs: 0.0,
            batch: 0,
            faces: 0,
            step: 0,
            epoch: 0.0,
            loss: None,
            valid: None,
            best: None,
            test: None,
            labels: None,
            checkpoint: None,
            finished: false,
        }
    }

    /// `pretrain`, or `finetune/pll`.
    pub fn place(&self) -> String {
        place(self.stage, &self.label)
    }
}

/// The state of a run after some of its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSummary {
    pub command: String,
    pub version: String,
    /// In the order they began. Events outside all stages make none.
    pub stages: Vec<StageSummary>,
    /// Index of the stage that spoke last.
    pub current: Option<usize>,
    /// What the machine is busy with, and since when.
    pub phase: Option<(Phase, f64)>,
    /// Seconds of the last event.
    pub seconds: f64,
    pub outcome: Option<Outcome>,
    /// Of [`Body::RunFinished`].
    pub message: String,
    pub events: u64,
    /// Events that only a newer moue understands.
    pub skipped: u64,
}

impl RunSummary {
    /// # Errors
    /// Where the log is damaged. A run that has no events yet is an empty summary.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let mut summary = Self::default();
        if folder.events().exists() {
            let mut reader = EventReader::open(folder)?;
            for event in reader.by_ref() {
                summary.apply(&event?);
            }
            summary.skipped = reader.skipped();
        }
        Ok(summary)
    }

    pub fn apply(&mut self, event: &Event) {
        self.events += 1;
        self.seconds = event.t;
        match &event.body {
            Body::RunStarted { command, version } | Body::RunResumed { command, version } => {
                (self.command, self.version) = (command.clone(), version.clone());
                (self.outcome, self.phase) = (None, None);
                self.message.clear();
            }
            Body::RunFinished { outcome, message } => {
                (self.outcome, self.phase) = (Some(*outcome), None);
                self.message = message.clone();
            }
            Body::Phase { name, elapsed: None } => self.phase = Some((*name, event.t)),
            Body::Phase { name, elapsed: Some(_) } if self.phase.is_some_and(|(phase, _)| phase == *name) => self.phase = None,
            _ => {}
        }
        if event.stage != Stage::Run {
            self.apply_to_stage(event);
        }
    }

    fn apply_to_stage(&mut self, event: &Event) {
        let index = self.stages.iter().position(|s| s.stage == event.stage && s.label == event.label).unwrap_or_else(|| {
            self.stages.push(StageSummary::new(event));
            self.stages.len() - 1
        });
        self.current = Some(index);
        let stage = &mut self.stages[index];
        (stage.step, stage.epoch) = (event.step, event.epoch);
        match &event.body {
            Body::StageStarted { steps, epochs, batch, faces } => {
                (stage.steps, stage.epochs, stage.batch, stage.faces) = (*steps, *epochs, *batch, *faces);
                stage.finished = false;
            }
            Body::Scalars(scalars) => stage.loss = scalars.get("loss").or(stage.loss),
            Body::Confidence { resolved, ambiguous, flips, recovered, .. } => {
                stage.labels = Some(Labels { resolved: *resolved, ambiguous: *ambiguous, flips: *flips, recovered: *recovered });
            }
            Body::Evaluation { split, accuracy, mean_recall, loss, .. } => {
                let score = Score { step: event.step, epoch: event.epoch, accuracy: *accuracy, mean_recall: *mean_recall, loss: *loss };
                match split {
                    Split::Train => {}
                    Split::Test => stage.test = Some(score),
                    Split::Valid => {
                        stage.valid = Some(score);
                        // A score that is not a number is no best.
                        if !score.accuracy.is_nan() && stage.best.is_none_or(|best| score.accuracy > best.accuracy) {
                            stage.best = Some(score);
                        }
                    }
                }
            }
            Body::Checkpoint { path } => stage.checkpoint = Some(path.clone()),
            Body::StageFinished { .. } => stage.finished = true,
            _ => {}
        }
    }

    /// The stage that spoke last.
    pub fn stage(&self) -> Option<&StageSummary> {
        self.stages.get(self.current?)
    }

    /// The latest stage for which `of` is something: `summary.latest(|s| s.test)`.
    pub fn latest<T>(&self, of: impl Fn(&StageSummary) -> Option<T>) -> Option<T> {
        self.stages.iter().rev().find_map(of)
    }

    /// The status `quiet` after the last write.
    pub fn status(&self, quiet: Duration) -> Status {
        match self.outcome {
            Some(Outcome::Completed) => Status::Completed,
            Some(Outcome::Interrupted) => Status::Interrupted,
            Some(Outcome::Failed) => Status::Failed,
            None if quiet > SILENCE => Status::Silent,
            None => Status::Running,
        }
    }
}

/// How long ago the run wrote its events (or, before the first, its manifest). Zero where the clock or the file cannot tell.
pub fn quiet(folder: &RunFolder) -> Duration {
    let written = folder.events().metadata().or_else(|_| folder.manifest().metadata()).and_then(|m| m.modified());
    written.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::{event, every_body};
    use super::*;
    use crate::run::Scalars;

    fn evaluation(split: Split, accuracy: f64) -> Event {
        event(Body::Evaluation {
            split,
            accuracy,
            mean_recall: 0.1,
            per_class: vec![],
            confusion: vec![],
            loss: None,
            macro_f1: None,
            calibration_error: None,
        })
    }

    #[test]
    fn the_fold_keeps_best_and_latest() {
        let mut summary = RunSummary::default();
        every_body().into_iter().for_each(|body| summary.apply(&event(body)));
        for accuracy in [0.6, 0.7, f64::NAN, 0.7, 0.65] {
            summary.apply(&Event { epoch: accuracy * 10.0, ..evaluation(Split::Valid, accuracy) });
        }
        summary.apply(&evaluation(Split::Test, 0.3));
        let stage = summary.stage().unwrap();
        assert_eq!((stage.steps, stage.loss, stage.place().as_str()), (800, Some(0.5), "finetune/pll"));
        assert_eq!((stage.valid.unwrap().accuracy, stage.best.unwrap().epoch), (0.65, 7.0));
        assert_eq!(stage.labels.unwrap().resolved_share(), 0.15);
        assert_eq!(summary.latest(|s| s.test).unwrap().accuracy, 0.3);
        assert_eq!(summary.status(Duration::ZERO), Status::Failed);
        // The same stage of another objective is another stage.
        summary.apply(&Event { label: "ce".into(), ..event(Body::Scalars(Scalars::default())) });
        assert_eq!(summary.stages.len(), 2);
    }

    #[test]
    fn an_end_that_does_not_come_is_told_from_silence() {
        let mut summary = RunSummary::default();
        assert_eq!(summary.status(Duration::from_secs(599)), Status::Running);
        assert_eq!(summary.status(Duration::from_secs(601)), Status::Silent);
        summary.apply(&event(Body::RunFinished { outcome: Outcome::Interrupted, message: String::new() }));
        assert_eq!(summary.status(Duration::from_secs(601)), Status::Interrupted);
        summary.apply(&event(Body::RunResumed { command: String::new(), version: String::new() }));
        assert_eq!(summary.status(Duration::ZERO), Status::Running);
    }
}
