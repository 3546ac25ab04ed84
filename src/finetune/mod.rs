//! Supervised finetuning: partial labels with confidence revision (paper eq. 1-4, Algorithm 1), and plain cross-entropy beside it.
//!
//! Both objectives share everything but where targets come from: the partial-label run trains against rows of a
//! [`ConfidenceTable`] that it revises after every step, plain cross-entropy against one-hot rows of the given labels.

pub mod loss;

use crate::config::{self, Order, Settings};
use crate::dataset::{Class, Pack, Split};
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use crate::engine::shards::Shards;
use crate::engine::{loader, read_values};
use crate::eval::{Confusion, argmax};
use crate::labels::confidence::{self, Revision};
use crate::labels::{Candidates, ConfidenceTable};
use crate::model::{Classifier, Crops, Input, Noise};
use crate::random::Streams;
use crate::run::event::CONFIDENCE_BINS;
use crate::run::{Body, Phase, Scalars};
use crate::transform::augment::{Augment, augment};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Faces whose confidences are followed through the run.
const WATCHED: usize = 12;

/// Augmented faces and which training positions they are.
pub struct FaceBatch {
    pub epoch: u64,
    pub positions: Vec<usize>,
    pub crops: Crops,
}

/// Makes [`FaceBatch`]es from a pack.
pub struct LabelledFaces {
    pack: Arc<Pack>,
    /// Positions of the training faces in the pack.
    train: Vec<usize>,
    streams: Streams,
    input: Input,
    augment: Augment,
}

impl Source for LabelledFaces {
    type Batch = FaceBatch;

    fn faces(&self) -> usize {
        self.train.len()
    }

    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<FaceBatch> {
        let mut batch = FaceBatch { epoch, positions: positions.to_vec(), crops: Crops::default() };
        for &position in positions {
            let index = self.train[position];
            let face = self.pack.pixels(index)?;
            // Named without the objective: every objective sees the same crops.
            let mut rng = self.streams.at("finetune/augment", &[epoch, index as u64]);
            let crop = augment(&face, self.input.side, self.input.channels, &self.augment, &mut rng);
            self.input.push(&mut batch.crops, &crop);
        }
        Ok(batch)
    }
}

/// A finetuning run's objective and what it has decided so far.
pub struct Finetune {
    source: Arc<LabelledFaces>,
    pack: Arc<Pack>,
    settings: Settings,
    table: ConfidenceTable,
    partial: bool,
    since_event: Revision,
    watched: Vec<usize>,
}

impl Finetune {
    /// Partial-label finetuning on the faces that have candidate sets.
    pub fn partial(pack: Arc<Pack>, candidates: &Candidates, settings: &Settings, streams: Streams) -> Self {
        let (train, sets) = candidates.sets.iter().map(|(i, set)| (*i, set.classes.clone())).unzip();
        Self::new(pack, train, sets, true, settings, streams)
    }

    /// Plain cross-entropy on the given labels; faces without one are left out.
    ///
    /// # Errors
    /// When no training face has a label.
    pub fn plain(pack: Arc<Pack>, settings: &Settings, streams: Streams) -> Result<Self> {
        let labelled = |i: &usize| pack.faces()[*i].label.map(|l| (*i, vec![l]));
        let (train, sets): (Vec<_>, Vec<_>) = pack.split(Split::Train).iter().filter_map(labelled).unzip();
        if train.is_empty() {
            bail!("no training face of {} has a given label, so there is nothing for plain cross-entropy to learn", pack.path().display());
        }
        Ok(Self::new(pack, train, sets, false, settings, streams))
    }

    fn new(pack: Arc<Pack>, train: Vec<usize>, sets: Vec<Vec<Class>>, partial: bool, s: &Settings, streams: Streams) -> Self {
        let table = ConfidenceTable::new(pack.protocol().classes.len(), sets);
        let f = &s.finetune;
        let augment = Augment { crop_min: f.crop_min, rotate: f.rotate, flip: f.flip, erase: f.erase };
        let ambiguous: Vec<usize> = (0..table.len()).filter(|&i| table.is_ambiguous(i)).collect();
        let stride = ambiguous.len().div_ceil(WATCHED).max(1);
        Self {
            source: Arc::new(LabelledFaces { pack: pack.clone(), train, streams, input: Input::of(s), augment }),
            pack,
            settings: s.clone(),
            table,
            partial,
            since_event: Revision::default(),
            watched: ambiguous.into_iter().step_by(stride).collect(),
        }
    }

    /// Each training face's position in the pack, and the table of their confidences in the same order.
    pub fn decisions(&self) -> (&[usize], &ConfidenceTable) {
        (&self.source.train, &self.table)
    }

    /// Share of ambiguous faces whose decided class is the true one, where truth is known.
    pub fn recovered(&self) -> Option<f64> {
        let known = |&i: &usize| self.pack.faces()[self.source.train[i]].truth.map(|t| self.table.decision(i).0 == t);
        let outcomes: Vec<bool> = (0..self.table.len()).filter(|&i| self.table.is_ambiguous(i)).filter_map(|i| known(&i)).collect();
        (!outcomes.is_empty()).then(|| outcomes.iter().filter(|o| **o).count() as f64 / outcomes.len() as f64)
    }

    fn tell_confidences(&mut self, end: &EpochEnd) {
        let ambiguous = (0..self.table.len()).filter(|&i| self.table.is_ambiguous(i));
        // The rule of eq. 4, which also holds where revise.ema keeps rows from ever being exactly one-hot.
        let resolved = ambiguous.clone().filter(|&i| f64::from(self.table.decision(i).1) > self.settings.revise.theta).count() as u64;
        let body = Body::Confidence {
            histogram: self.table.histogram(CONFIDENCE_BINS),
            resolved,
            ambiguous: ambiguous.count() as u64,
            flips: self.since_event.flips as u64,
            recovered: self.recovered(),
        };
        end.events.emit(end.at, body);
        self.since_event = Revision::default();
        for &i in &self.watched {
            let face = &self.pack.faces()[self.source.train[i]];
            let candidates = self.table.candidates(i).to_vec();
            let confidences = candidates.iter().map(|&c| f64::from(self.table.row(i)[usize::from(c)])).collect();
            end.events.emit(end.at, Body::Watched { face: face.id.clone(), candidates, confidences, truth: face.truth });
        }
    }
}

impl Objective for Finetune {
    type Model = Classifier;
    type Source = LabelledFaces;

    fn source(&self) -> Arc<LabelledFaces> {
        self.source.clone()
    }

    fn weight(&self, batch: &FaceBatch) -> f64 {
        batch.positions.len() as f64
    }

    fn forward(&self, model: &Classifier, batch: &FaceBatch, shard: Shard, noise: &mut Noise, device: &Device) -> Pass {
        let s = &self.settings;
        let input = self.source.input.upload(&batch.crops, device).patches();
        let logits = model.forward(input, s.finetune.drop_path, s.decoder.dropout, noise);
        let response = self.partial.then(|| logits.clone().inner());
        let mut targets: Vec<f32> = batch.positions.iter().flat_map(|&i| self.table.row(i).iter().copied()).collect();
        if s.revise.order == Order::BeforeLoss
            && self.revises(batch.epoch)
            && let Some(response) = &response
        {
            self.revise_targets(&mut targets, &batch.positions, response.clone());
        }
        let [b, c] = logits.dims();
        let targets = Tensor::from_data(TensorData::new(targets, [b, c]), device);
        let mut loss = loss::confidence_cross_entropy(logits, targets).mul_scalar((shard.share / b as f64) as f32);
        if self.partial
            && shard.first
            && s.uniform.lambda > 0.0
            && let Some(queries) = model.trainable_queries()
        {
            let scale = s.uniform.lambda * if s.uniform.scale_by_tau { s.uniform.tau } else { 1.0 };
            loss = loss + loss::uniformity(queries, &s.uniform).mul_scalar(scale as f32);
        }
        Pass { loss, response }
    }

    fn after_step(&mut self, epoch: u64, positions: &[usize], responses: &[f32]) {
        if self.partial && self.revises(epoch) {
            let revision = self.table.revise(positions, responses, &self.settings.revise);
            self.since_event.flips += revision.flips;
            self.since_event.kept += revision.kept;
        }
    }

    fn end_epoch(&mut self, model: &Classifier, end: EpochEnd) -> Result<()> {
        if self.partial {
            self.tell_confidences(&end);
        }
        let due = end.last || end.epoch.is_multiple_of(self.settings.run.evaluate_every as u64);
        for split in [Split::Valid, Split::Test] {
            // The test split is read once, when nothing can be chosen any more.
            if !due || split == Split::Test && !end.last {
                continue;
            }
            let faces = scored_faces(&self.pack, split);
            if faces.is_empty() {
                continue;
            }
            let body = end.events.phase(end.at, Phase::Evaluate, || -> Result<Body> {
                let (confusion, loss) = evaluate(model, &self.pack, &faces, &self.settings, end.shards)?;
                Ok(confusion.into_event(split, Some(loss)))
            })?;
            end.events.emit(end.at, body);
        }
        if self.since_event.kept > 0 {
            end.events.emit(end.at, Body::Scalars(Scalars::from([("responses_not_finite", self.since_event.kept as f64)])));
        }
        Ok(())
    }

    fn state(&self) -> Vec<(String, Vec<u8>)> {
        let counts = [self.since_event.flips as u64, self.since_event.kept as u64];
        vec![
            ("confidences.f32".into(), self.table.rows().iter().flat_map(|v| v.to_le_bytes()).collect()),
            ("revisions.u64".into(), counts.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ]
    }

    fn restore(&mut self, state: &[(String, Vec<u8>)]) -> Result<()> {
        let blob = |name: &str| state.iter().find(|b| b.0 == name).map(|b| b.1.as_slice());
        let (rows, []) = blob("confidences.f32").context("the checkpoint has no confidences")?.as_chunks::<4>() else {
            bail!("the saved confidences are damaged");
        };
        let ([flips, kept], []) = blob("revisions.u64").context("the checkpoint has no revision counts")?.as_chunks::<8>() else {
            bail!("the saved revision counts are damaged");
        };
        self.since_event = Revision { flips: u64::from_le_bytes(*flips) as usize, kept: u64::from_le_bytes(*kept) as usize };
        self.table.restore(rows.iter().map(|b| f32::from_le_bytes(*b)).collect()).map_err(anyhow::Error::msg)
    }
}

impl Finetune {
    fn revises(&self, epoch: u64) -> bool {
        epoch >= self.settings.revise.start_epoch as u64
    }

    /// Targets are what the rows will be after the step, from the response of this very forward pass (`revise.order = "before_loss"`).
    fn revise_targets(&self, targets: &mut [f32], positions: &[usize], response: Tensor<2>) {
        let Ok(logits) = read_values(response) else { return };
        let classes = self.table.classes();
        for ((row, &i), z) in targets.chunks_mut(classes).zip(positions).zip(logits.chunks(classes)) {
            if let Some(revised) = self.table.revised(i, z, &self.settings.revise) {
                row.copy_from_slice(&revised);
            }
        }
    }
}

/// Faces of a split that have a label to be measured against.
pub fn scored_faces(pack: &Pack, split: Split) -> Vec<usize> {
    pack.split(split).into_iter().filter(|&i| pack.faces()[i].label.is_some()).collect()
}

/// Logits of faces (positions in the pack), `[faces, C]` row-major. `model` is in evaluation form.
pub fn read_logits(model: &Classifier, pack: &Pack, faces: &[usize], settings: &Settings, shards: &Shards) -> Result<Vec<f32>> {
    let input = Input::of(settings);
    let device = model.devices().into_iter().next().context("a network without parameters")?;
    let size = settings.run.evaluate_batch.max(1);
    let rounds: Vec<&[usize]> = faces.chunks(size * shards.count()).collect();
    let mut logits = Vec::new();
    let make = |round: usize| -> Result<Vec<Crops>> {
        let part = |faces: &[usize]| Ok(input.whole(faces.iter().map(|&i| pack.pixels(i)).collect::<Result<Vec<_>>>()?));
        rounds[round].chunks(rounds[round].len().div_ceil(shards.count())).map(part).collect()
    };
    loader::ahead(0..rounds.len(), 1, 2, make, |_, parts| {
        let parts = parts?;
        let outputs = shards.map(&parts, |_, crops| {
            let input = input.upload(crops, &device).patches();
            read_values(model.forward(input, 0.0, 0.0, &mut Noise::none()))
        });
        for output in outputs {
            logits.extend(output?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logits)
}

/// Confusion matrix and mean cross-entropy of labelled faces.
pub fn evaluate(model: &Classifier, pack: &Pack, faces: &[usize], settings: &Settings, shards: &Shards) -> Result<(Confusion, f64)> {
    let classes = pack.protocol().classes.len();
    let logits = read_logits(model, pack, faces, settings, shards)?;
    let mut confusion = Confusion::new(classes);
    let mut loss = 0.0;
    for (&i, z) in faces.iter().zip(logits.chunks(classes)) {
        let label = pack.faces()[i].label.context("only labelled faces are scored")?;
        confusion.add(label, argmax(z));
        loss -= confidence::response(config::Response::Softmax, z, &(0..classes as Class).collect::<Vec<_>>())
            .map_or(f64::NAN, |p| p[usize::from(label)].max(f64::MIN_POSITIVE).ln());
    }
    Ok((confusion, loss / faces.len().max(1) as f64))
}
