//! The one event type: what a run says while it works, as it stands in `events.jsonl` (one JSON object a line).
//!
//! **Version.** [`Event::v`] is `100 * major + minor`. A newer minor may add kinds of event, stages, phases and optional fields; nothing is renamed,
//! removed or given another meaning without a new major. So a reader accepts every event of its own major: unknown fields are
//! ignored, events of an unknown kind are skipped *and counted*; an event of another major is an error. To keep that promise readable the
//! serialised form is plain: no flattened or untagged parts, a body is `{"kind": {fields}}`.
//!
//! **Numbers** that may diverge keep NaN and the infinities, as strings (see [`super::values`]). Times are in seconds since the run began
//! (a resumed run goes on counting), steps are optimizer steps of the stage, epochs are passes over the stage's data.
//!
//! This file holds no reading, writing or display.

use super::values::{Scalars, number, numbers, optional};
use crate::dataset::{Class, Split};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the events this program writes, `100 * major + minor`.
pub const VERSION: u32 = 102;

/// Bins of a [`Body::Confidence`] histogram; bin `i` counts maxima in `[i / 20, (i + 1) / 20)`, 1 in the last.
pub const CONFIDENCE_BINS: usize = 20;

/// One thing that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// See [`VERSION`].
    pub v: u32,
    /// Seconds since the run began, without the time between an interruption and its resume.
    pub t: f64,
    pub stage: Stage,
    /// Tells stages of one kind apart: the objective (`pll`, `ce`), empty where there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Optimizer steps done in this stage.
    pub step: u64,
    /// Passes over the stage's data, in fractions.
    #[serde(with = "number")]
    pub epoch: f64,
    pub body: Body,
}

impl Event {
    /// `pretrain`, or `finetune/pll` where there is a label.
    pub fn place(&self) -> String {
        place(self.stage, &self.label)
    }

    /// Whether both events belong to the same stage of the run.
    pub fn same_stage(&self, other: &Event) -> bool {
        self.stage == other.stage && self.label == other.label
    }

    /// Only intermediate readings may be replaced by newer ones when a consumer lags; everything else arrives.
    pub(super) fn coalesces_with(&self, newer: &Event) -> bool {
        self.same_stage(newer)
            && match (&self.body, &newer.body) {
                (Body::Scalars(_), Body::Scalars(_)) => true,
                (Body::Watched { face: a, .. }, Body::Watched { face: b, .. }) => a == b,
                _ => false,
            }
    }
}

/// `pretrain`, or `finetune/pll` where there is a label.
pub fn place(stage: Stage, label: &str) -> String {
    if label.is_empty() { stage.name().into() } else { format!("{}/{label}", stage.name()) }
}

/// Where in the run an event happens: all of an [`Event`] that the engine knows before it has something to say.
#[derive(Clone, Debug, PartialEq)]
pub struct At {
    pub stage: Stage,
    pub label: String,
    pub step: u64,
    pub epoch: f64,
}

impl At {
    /// Step 0 of a stage; `label` may be empty.
    pub fn stage(stage: Stage, label: impl Into<String>) -> Self {
        Self { stage, label: label.into(), step: 0, epoch: 0.0 }
    }

    /// Outside all stages: the start and the end of the run.
    pub fn run() -> Self {
        Self::stage(Stage::Run, "")
    }

    /// The same stage at another step.
    pub fn step(&self, step: u64, epoch: f64) -> Self {
        Self { step, epoch, ..self.clone() }
    }
}

/// The part of a run an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The run as a whole.
    Run,
    Pretrain,
    Finetune,
    /// Training on the given labels alone, to compare with.
    Baseline,
    /// Writing out or revising the labels of a data set.
    Labels,
    Evaluate,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Run => "run",
            Stage::Pretrain => "pretrain",
            Stage::Finetune => "finetune",
            Stage::Baseline => "baseline",
            Stage::Labels => "labels",
            Stage::Evaluate => "evaluate",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the machine is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Load,
    Compile,
    Autotune,
    Train,
    Evaluate,
    Save,
    /// Held still on request. Since 1.02.
    Pause,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Load => "load",
            Phase::Compile => "compile",
            Phase::Autotune => "autotune",
            Phase::Train => "train",
            Phase::Evaluate => "evaluate",
            Phase::Save => "save",
            Phase::Pause => "pause",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    /// Stopped on request; can be resumed.
    Interrupted,
    Failed,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Interrupted => "interrupted",
            Outcome::Failed => "failed",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The first event of a run.
    RunStarted {
        command: String,
        version: String,
    },
    /// The run goes on from a checkpoint; events after that checkpoint have been dropped.
    RunResumed {
        command: String,
        version: String,
    },
    /// The machine turns to `name` (`elapsed` absent) or is done with it after `elapsed` seconds.
    Phase {
        name: Phase,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elapsed: Option<f64>,
    },
    /// Sizes of the stage: optimizer steps and epochs in all, faces a step, faces in the training data.
    StageStarted {
        steps: u64,
        #[serde(with = "number")]
        epochs: f64,
        batch: u64,
        faces: u64,
    },
    /// Means over the interval since the last such event.
    Scalars(Scalars),
    /// How sure the labels of the ambiguous faces are (faces with more than one candidate).
    Confidence {
        /// Counts of the largest candidate confidence, [`CONFIDENCE_BINS`] equal bins over 0..1.
        histogram: Vec<u64>,
        /// Ambiguous faces whose label counts as decided.
        resolved: u64,
        /// Faces with more than one candidate.
        ambiguous: u64,
        /// Faces whose most likely candidate changed since the last such event.
        flips: u64,
        /// Share (0..1) of the ambiguous faces whose most likely candidate is the true class, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
        recovered: Option<f64>,
    },
    /// Shares are in 0..1.
    Evaluation {
        split: Split,
        #[serde(with = "number")]
        accuracy: f64,
        /// Mean of the classes' recalls, over the classes that occur.
        #[serde(with = "number")]
        mean_recall: f64,
        /// Recall of each class; none where the class does not occur.
        per_class: Vec<Option<f64>>,
        /// Counts `[true class][predicted class]`.
        confusion: Vec<Vec<u64>>,
        #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
        loss: Option<f64>,
        /// Mean of the classes' F1, over the classes that occur. Since 1.01.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
        macro_f1: Option<f64>,
        /// Expected calibration error of the predicted class, 15 bins. Since 1.01.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
        calibration_error: Option<f64>,
    },
    /// One face whose candidates are followed through the run.
    Watched {
        /// The face's id in the pack.
        face: String,
        candidates: Vec<Class>,
        /// One for each candidate.
        #[serde(with = "numbers")]
        confidences: Vec<f64>,
        /// The true class, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        truth: Option<Class>,
    },
    /// A checkpoint is complete on disk; `path` is relative to the run folder.
    Checkpoint {
        path: String,
    },
    /// A picture of what the network makes of a few faces is complete on disk: a row of square tiles for each face, `gap` pixels around each.
    /// Four tiles are the face, what is seen of it, the target and the prediction; three lack the target, which is the face itself. `path` is
    /// relative to the run folder. Since 1.02.
    Picture {
        path: String,
        columns: u32,
        rows: u32,
        gap: u32,
    },
    Message {
        level: Level,
        text: String,
    },
    /// `elapsed`: seconds spent in the stage.
    StageFinished {
        elapsed: f64,
    },
    /// The last event of a run; where it is missing the run still goes on or has crashed.
    RunFinished {
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
}

impl Body {
    /// The serialised names of all kinds, to tell a newer kind from a damaged line.
    pub(super) const NAMES: [&'static str; 13] = [
        "run_started",
        "run_resumed",
        "phase",
        "stage_started",
        "scalars",
        "confidence",
        "evaluation",
        "watched",
        "checkpoint",
        "picture",
        "message",
        "stage_finished",
        "run_finished",
    ];
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn event(body: Body) -> Event {
        Event { v: VERSION, t: 1.5, stage: Stage::Finetune, label: "pll".into(), step: 7, epoch: 0.5, body }
    }

    pub fn every_body() -> Vec<Body> {
        vec![
            Body::RunStarted { command: "moue demo".into(), version: "0.1.0".into() },
            Body::RunResumed { command: "moue demo --resume".into(), version: "0.1.0".into() },
            Body::Phase { name: Phase::Compile, elapsed: None },
            Body::StageStarted { steps: 800, epochs: 20.0, batch: 64, faces: 2560 },
            Body::Scalars(Scalars::from([("loss", 0.5), ("lr", 1e-3)])),
            Body::Confidence { histogram: vec![1; 20], resolved: 3, ambiguous: 20, flips: 2, recovered: Some(0.75) },
            Body::Evaluation {
                split: Split::Valid,
                accuracy: 0.5,
                mean_recall: 0.25,
                per_class: vec![Some(0.5), None],
                confusion: vec![vec![1, 1], vec![0, 0]],
                loss: Some(1.25),
                macro_f1: Some(0.25),
                calibration_error: Some(0.1),
            },
            Body::Watched { face: "a.png".into(), candidates: vec![1, 4], confidences: vec![0.25, 0.75], truth: Some(4) },
            Body::Checkpoint { path: "checkpoints/pll-7".into() },
            Body::Picture { path: "media/pretrain-7.png".into(), columns: 4, rows: 6, gap: 8 },
            Body::Message { level: Level::Warning, text: "two\nlines".into() },
            Body::StageFinished { elapsed: 12.5 },
            Body::RunFinished { outcome: Outcome::Failed, message: "no".into() },
        ]
    }

    #[test]
    fn every_kind_round_trips_on_one_line() {
        let bodies = every_body();
        assert_eq!(bodies.len(), Body::NAMES.len());
        for (body, name) in bodies.into_iter().zip(Body::NAMES) {
            let event = event(body);
            let text = serde_json::to_string(&event).unwrap();
            assert!(!text.contains('\n'), "{text}");
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["body"][name].is_object(), "{name}: {text}");
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        }
    }

    #[test]
    fn a_diverged_run_still_speaks() {
        let events = [
            event(Body::Scalars(Scalars::from([("loss", f64::NAN), ("grad_norm", f64::INFINITY)]))),
            event(Body::Evaluation {
                split: Split::Test,
                accuracy: f64::NAN,
                mean_recall: f64::NEG_INFINITY,
                per_class: vec![],
                confusion: vec![],
                loss: Some(f64::NAN),
                macro_f1: Some(f64::NAN),
                calibration_error: None,
            }),
            event(Body::Watched { face: "a".into(), candidates: vec![0], confidences: vec![f64::NAN], truth: None }),
            event(Body::Confidence { histogram: vec![], resolved: 0, ambiguous: 0, flips: 0, recovered: Some(f64::NAN) }),
        ];
        for event in events {
            let text = serde_json::to_string(&event).unwrap();
            assert!(!text.contains("null"), "{text}");
            // NaN is unequal to itself; the text form tells.
            let back: Event = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
