//! How long a run takes here, measured, and how many epochs fit into a budget.

use crate::config::{Origin, Resolved};
use crate::dataset::{Class, Face, Pack, PackWriter, Split};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::finetune::scored_faces;
use crate::labels::Candidates;
use crate::pipeline::{Job, JobEnd, Stages};
use crate::run::{Body, Control, Event, EventReader, Phase, RunFolder, Supervision};
use crate::usage;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Optimiser steps of a probe; the first ones compile and warm up and do not count.
const STEPS: usize = 6;
const WARM: usize = 2;
/// Validation faces of a probe.
const VALID: usize = 256;

/// Wall-clock time for one run, as typed: `90s`, `2m`, `1.5h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub seconds: f64,
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let says = || format!("`{text}` is no time such as 90s, 2m or 1.5h");
        let unit = text.chars().last().ok_or_else(says)?;
        let scale = match unit {
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            _ => return Err(says()),
        };
        let number: f64 = text[..text.len() - unit.len_utf8()].trim().parse().map_err(|_| says())?;
        if !(number.is_finite() && number > 0.0) {
            return Err(says());
        }
        Ok(Self { seconds: number * scale })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.seconds;
        if s >= 3600.0 { write!(f, "{:.2} h", s / 3600.0) } else { write!(f, "{:.1} min", s / 60.0) }
    }
}

/// Seconds for one face in each kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub train: f64,
    /// Only looking at it. Zero in pretraining.
    pub evaluate: f64,
}

impl Pace {
    /// From the events of a training for one epoch on `faces`; none where too few of its steps were timed, unless roughly will do.
    fn read(events: impl IntoIterator<Item = Result<Event>>, faces: Faces, roughly: bool) -> Result<Option<Self>> {
        let (mut speeds, mut looking, mut stage) = (Vec::new(), 0.0, 0.0);
        for event in events {
            match event?.body {
                Body::Scalars(scalars) => speeds.extend(scalars.get("faces_per_second").filter(|v| v.is_finite())),
                Body::Phase { name: Phase::Evaluate, elapsed: Some(elapsed) } => looking += elapsed,
                Body::StageFinished { elapsed } => stage = elapsed,
                _ => {}
            }
        }
        if speeds.len() <= WARM && !roughly {
            return Ok(None);
        }
        // Of too few steps the last is the warmest.
        let mut warm = speeds.split_off(WARM.min(speeds.len().saturating_sub(1)));
        warm.sort_by(f64::total_cmp);
        // Where every step was left out, none was timed; the stage as a whole is.
        let train = warm.get(warm.len() / 2).map_or(stage / faces.train as f64, |speed| 1.0 / speed);
        Ok(Some(Self { train, evaluate: looking / faces.looked_at(1, 1) as f64 }))
    }
}

/// Measures pretraining or finetuning on a few batches of the pack, in a folder that is thrown away.
///
/// # Errors
/// What stops the training; and where the pack has too few faces to say more than roughly how fast it is, unless that will do.
pub fn probe(
    resolved: &Resolved,
    pretrain: bool,
    pack: &Pack,
    candidates: Option<&Candidates>,
    device: &OpenDevice,
    control: &Control,
    roughly: bool,
) -> Result<Pace> {
    let folder = tempfile::tempdir().context("making a folder for the probe")?;
    let s = resolved.settings();
    let batch = if pretrain { s.pretrain.batch } else { s.finetune.batch };
    let path = folder.path().join("probe.moue");
    let mut writer = PackWriter::create(&path, pack.protocol().clone())?;
    let partial = !pretrain && s.finetune.objective.is_partial();
    let sets: Vec<(usize, Vec<Class>)> = match candidates.filter(|_| partial) {
        Some(candidates) => candidates.sets.iter().map(|(i, set)| (*i, set.classes.clone())).collect(),
        None => pack.split(Split::Train).into_iter().map(|i| (i, Vec::new())).collect(),
    };
    let usable = |i: &usize| pretrain || partial || pack.faces()[*i].label.is_some() || !pack.faces()[*i].votes.is_empty();
    let mut faces = Faces { train: 0, valid: 0, test: 0 };
    for (i, candidates) in sets.into_iter().filter(|(i, _)| usable(i)).take(batch * STEPS) {
        writer.push(Face { candidates, ..pack.faces()[i].clone() }, &pack.pixels(i)?)?;
        faces.train += 1;
    }
    for i in scored_faces(pack, Split::Valid).into_iter().take(VALID) {
        writer.push(pack.faces()[i].clone(), &pack.pixels(i)?)?;
        faces.valid += 1;
    }
    writer.finish(serde_json::json!({"probe": true}))?;
    let part = Pack::open(&path)?;
    // The sets just written are the ones to learn from.
    let quick = [
        "labels.strategy=file",
        "finetune.epochs=1",
        "pretrain.epochs=1",
        "finetune.baseline=false",
        "run.log_every=1",
        "run.evaluate_every=1",
    ];
    let resolved = quick.iter().try_fold(resolved.clone(), |r, layer| r.with_layer(layer))?.checked(&Origin::Flag)?;
    let job = Job {
        command: vec!["probe".into()],
        stages: Stages { pretrain, finetune: !pretrain, ..Stages::default() },
        candidates: partial.then(|| Candidates::build(&part, &resolved.settings().labels)).transpose()?,
        precision: Precision::of(resolved.settings().run.precision, device)?,
        resolved,
        seed: 0,
        pack: Arc::new(part),
        device: device.clone(),
        folder: RunFolder::create(&folder.path().join("run"))?,
        resume: false,
        from: None,
        labels: None,
        supervision: Supervision { control: control.clone(), ..Supervision::default() },
        remarks: Vec::new(),
    };
    let run = job.folder.clone();
    if let JobEnd::Interrupted = job.run()? {
        bail!("stopped while measuring the speed");
    }
    match Pace::read(EventReader::open(&run)?, faces, roughly)? {
        Some(pace) => Ok(pace),
        None => usage!("{} has too few training faces to measure a speed; leave --budget out", pack.path().display()),
    }
}

/// Faces that a stage trains on and evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faces {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
}

impl Faces {
    /// How many times finetuning only looks at a face: in every evaluation on valid and the one on test, and when it is done for the
    /// temperature (valid) and for the predictions (all).
    fn looked_at(self, epochs: usize, evaluate_every: usize) -> usize {
        let evaluations = epochs.div_ceil(evaluate_every.max(1));
        evaluations * self.valid + self.test + self.valid + (self.train + self.valid + self.test)
    }
}

/// Seconds that finetuning takes, all that it only looks at included.
pub fn finetune_seconds(pace: Pace, faces: Faces, epochs: usize, evaluate_every: usize) -> f64 {
    (epochs * faces.train) as f64 * pace.train + faces.looked_at(epochs, evaluate_every) as f64 * pace.evaluate
}

/// The most epochs, at least one and at most `most`, whose `seconds` fit into `budget`.
pub fn epochs_within(budget: f64, most: usize, seconds: impl Fn(usize) -> f64) -> usize {
    (1..=most).rev().find(|&epochs| seconds(epochs) <= budget).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Scalars;
    use crate::run::event::tests::event;

    #[test]
    fn budgets_are_typed_with_a_unit() {
        assert_eq!("2m".parse::<Budget>().unwrap().seconds, 120.0);
        assert_eq!("1.5h".parse::<Budget>().unwrap().seconds, 5400.0);
        assert_eq!("90s".parse::<Budget>().unwrap().to_string(), "1.5 min");
        for wrong in ["2", "m", "", "-1m", "infh", "2 days", "2µ"] {
            assert!(wrong.parse::<Budget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn epochs_fill_the_budget_and_no_more() {
        let pace = Pace { train: 0.01, evaluate: 0.002 };
        let faces = Faces { train: 1000, valid: 500, test: 1000 };
        let seconds = |epochs| finetune_seconds(pace, faces, epochs, 2);
        // Two evaluations on valid and one on test; then the temperature, and what is predicted of all faces.
        assert_eq!(seconds(4), 40.0 + 2.0 + 2.0 + 1.0 + 5.0);
        assert_eq!(epochs_within(55.0, 20, seconds), 4);
        assert_eq!(epochs_within(1.0, 20, seconds), 1);
        assert_eq!(epochs_within(1e9, 20, seconds), 20);
    }

    /// The events of a probe with so many timed steps: it trains for 12 seconds, and looks at faces for 6.
    fn events(speeds: &[f64]) -> Vec<Result<Event>> {
        let looked = |elapsed| Body::Phase { name: Phase::Evaluate, elapsed: Some(elapsed) };
        let confusion = vec![vec![60, 0], vec![0, 40]];
        let evaluation = Body::Evaluation {
            split: Split::Valid,
            accuracy: 1.0,
            mean_recall: 1.0,
            per_class: vec![Some(1.0); 2],
            confusion,
            loss: None,
            macro_f1: None,
            calibration_error: None,
        };
        let steps = speeds.iter().map(|&speed| Body::Scalars(Scalars::from([("faces_per_second", speed)])));
        let rest = [looked(1.0), evaluation, Body::StageFinished { elapsed: 12.0 }, looked(1.0), looked(4.0)];
        steps.chain(rest).map(|body| Ok(event(body))).collect()
    }

    #[test]
    fn a_pace_is_that_of_all_faces_looked_at() {
        let faces = Faces { train: 300, valid: 100, test: 0 };
        let pace = Pace::read(events(&[5.0, 20.0, 40.0, 50.0, 60.0, 100.0]), faces, false).unwrap().unwrap();
        // 100 evaluated, again for the temperature, and 400 predictions, in 6 seconds.
        assert_eq!(pace, Pace { train: 1.0 / 60.0, evaluate: 6.0 / 600.0 });
        let unmeasured = Faces { train: 600, valid: 0, test: 0 };
        assert_eq!(Pace::read(events(&[5.0, 20.0, 40.0]), unmeasured, false).unwrap().unwrap().evaluate, 6.0 / 600.0);
    }

    #[test]
    fn a_small_pack_has_a_rough_pace_where_no_budget_needs_more() {
        let faces = Faces { train: 300, valid: 100, test: 0 };
        for (speeds, train) in [(&[5.0, 20.0][..], 1.0 / 20.0), (&[5.0], 1.0 / 5.0), (&[], 12.0 / 300.0)] {
            assert_eq!(Pace::read(events(speeds), faces, false).unwrap(), None, "{speeds:?}");
            assert_eq!(Pace::read(events(speeds), faces, true).unwrap().unwrap().train, train, "{speeds:?}");
        }
    }
}
