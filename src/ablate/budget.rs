//! How long a run takes here, measured, and how many epochs fit into a budget.

use crate::config::{Origin, Resolved};
use crate::dataset::{Class, Face, Pack, PackWriter, Split};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::finetune::scored_faces;
use crate::labels::Candidates;
use crate::pipeline::{Job, JobEnd, Stages};
use crate::run::{Body, Control, EventReader, Phase, RunFolder, Stage, Supervision};
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
    /// Zero where nothing is evaluated.
    pub evaluate: f64,
}

/// Measures pretraining or finetuning on a few batches of the pack, in a folder that is thrown away.
pub fn probe(
    resolved: &Resolved,
    pretrain: bool,
    pack: &Pack,
    candidates: Option<&Candidates>,
    device: &OpenDevice,
    control: &Control,
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
    for (i, candidates) in sets.into_iter().filter(|(i, _)| usable(i)).take(batch * STEPS) {
        writer.push(Face { candidates, ..pack.faces()[i].clone() }, &pack.pixels(i)?)?;
    }
    for i in scored_faces(pack, Split::Valid).into_iter().take(VALID) {
        writer.push(pack.faces()[i].clone(), &pack.pixels(i)?)?;
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
    let (mut speeds, mut evaluated, mut faces) = (Vec::new(), 0.0, 0u64);
    for event in EventReader::open(&run)? {
        let event = event?;
        match event.body {
            Body::Scalars(scalars) => speeds.extend(scalars.get("faces_per_second").filter(|v| v.is_finite())),
            Body::Phase { name: Phase::Evaluate, elapsed: Some(elapsed) } => evaluated += elapsed,
            Body::Evaluation { confusion, .. } if event.stage != Stage::Run => faces += confusion.iter().flatten().sum::<u64>(),
            _ => {}
        }
    }
    let mut warm: Vec<f64> = speeds.into_iter().skip(WARM).collect();
    if warm.is_empty() {
        usage!("{} has too few training faces to measure a speed; leave --budget out", pack.path().display());
    }
    warm.sort_by(f64::total_cmp);
    let train = 1.0 / warm[warm.len() / 2];
    Ok(Pace { train, evaluate: if faces > 0 { evaluated / faces as f64 } else { 0.0 } })
}

/// Faces that a stage trains on and evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faces {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
}

/// Seconds that finetuning takes, evaluation included.
pub fn finetune_seconds(pace: Pace, faces: Faces, epochs: usize, evaluate_every: usize) -> f64 {
    let evaluations = epochs.div_ceil(evaluate_every.max(1));
    (epochs * faces.train) as f64 * pace.train + (evaluations * faces.valid + faces.test) as f64 * pace.evaluate
}

/// The most epochs, at least one and at most `most`, whose `seconds` fit into `budget`.
pub fn epochs_within(budget: f64, most: usize, seconds: impl Fn(usize) -> f64) -> usize {
    (1..=most).rev().find(|&epochs| seconds(epochs) <= budget).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(seconds(4), 40.0 + 2.0 + 2.0);
        assert_eq!(epochs_within(45.0, 20, seconds), 4);
        assert_eq!(epochs_within(1.0, 20, seconds), 1);
        assert_eq!(epochs_within(1e9, 20, seconds), 20);
    }
}
