//! Supervised finetuning: partial labels with confidence revision (paper eq. 1-4, Algorithm 1), its published rivals, and plain
//! cross-entropy beside them.
//!
//! All objectives share everything but the parts that their [`Recipe`] names: each trains against rows of a [`ConfidenceTable`], which
//! starts from candidate sets, votes or given labels and may be revised after every step.

pub mod leverage;
pub mod loss;
pub mod recipe;
pub mod record;

use crate::config::{self, Order, Settings};
use crate::dataset::{Class, Pack, Split};
use crate::engine::guard::Raw;
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use crate::engine::shards::Shards;
use crate::engine::{loader, read_values};
use crate::eval::Scored;
use crate::kernels::upload_index;
use crate::labels::candidates::shares;
use crate::labels::{Candidates, ConfidenceTable};
use crate::model::{Classifier, Crops, Input, Noise};
use crate::pretrain::mask;
use crate::random::{Stream, Streams, shuffled, weighted};
use crate::run::event::CONFIDENCE_BINS;
use crate::run::{Body, Phase, Scalars};
use crate::transform::augment::{Augment, augment};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use burn::tensor::activation::{log_softmax, softmax};
use leverage::Leverage;
use recipe::{Loss, Recipe, Targets};
use record::Record;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Faces whose confidences are followed through the run.
const WATCHED: usize = 12;

/// Augmented faces and which training positions they are.
pub struct FaceBatch {
    pub epoch: u64,
    pub positions: Vec<usize>,
    /// The ordinary view, then the strong ones.
    pub views: Vec<View>,
}

/// One augmented picture of each face of a batch.
#[derive(Clone, Default)]
pub struct View {
    pub crops: Crops,
    /// Places of the patches that the encoder sees, `[B, K]`; empty: all.
    pub visible: Vec<i32>,
}

/// Makes [`FaceBatch`]es from a pack.
pub struct LabelledFaces {
    pack: Arc<Pack>,
    /// Positions of the training faces in the pack.
    train: Vec<usize>,
    streams: Streams,
    input: Input,
    weak: Augment,
    strong: Augment,
    strong_views: usize,
    /// Running sums of the faces' sampling weights; empty: every face once an epoch.
    balance: Vec<f64>,
    /// Patches of each face that the encoder sees; none: all.
    visible: Option<usize>,
}

impl Source for LabelledFaces {
    type Batch = FaceBatch;

    fn faces(&self) -> usize {
        self.train.len()
    }

    fn order(&self, rng: &mut Stream) -> Vec<usize> {
        let n = self.train.len();
        if self.balance.is_empty() { shuffled(n, rng) } else { (0..n).map(|_| weighted(&self.balance, rng)).collect() }
    }

    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<FaceBatch> {
        let mut views = vec![View::default(); 1 + self.strong_views];
        for &position in positions {
            let index = self.train[position];
            let face = self.pack.pixels(index)?;
            for (n, view) in views.iter_mut().enumerate() {
                // Named without the objective: every objective sees the same ordinary crops and the same patches of them.
                let at = [epoch, index as u64, n as u64];
                let (how, kind, at) = if n == 0 { (&self.weak, "", &at[..2]) } else { (&self.strong, "/strong", &at[..]) };
                let stream = |what: &str| self.streams.at(&format!("finetune/{what}{kind}"), at);
                let crop = augment(&face, self.input.side, self.input.channels, how, &mut stream("augment"));
                self.input.push(&mut view.crops, &crop);
                if let Some(visible) = self.visible {
                    view.visible.extend(mask::visible(self.input.patches(), visible, &mut stream("mask")));
                }
            }
        }
        Ok(FaceBatch { epoch, positions: positions.to_vec(), views })
    }

    fn upload_ahead(&self, batch: &FaceBatch, device: &Device) {
        batch.views.iter().for_each(|view| self.input.upload_ahead(&view.crops, device));
    }

    fn names(&self, positions: &[usize]) -> Vec<String> {
        positions.iter().map(|&position| self.pack.faces()[self.train[position]].id.clone()).collect()
    }

    fn raw(&self, batch: &FaceBatch) -> Vec<Raw> {
        // The first view is the one that every objective has.
        self.input.raw(&batch.views[0].crops)
    }
}

/// A finetuning run's objective and what it has decided so far.
pub struct Finetune {
    source: Arc<LabelledFaces>,
    pack: Arc<Pack>,
    settings: Settings,
    recipe: Recipe,
    table: ConfidenceTable,
    leverage: Option<Leverage>,
    record: Record,
    /// Responses since the last event that were not finite.
    not_finite: u64,
    logits_seen: CandidateLogits,
    watched: Vec<usize>,
}

/// Logits of candidates since the last event. A sigmoid response (eq. 3) depends on what all of them have in common, and the loss does not
/// hold that in place: far from zero confidences say little (METHOD 1.6).
#[derive(Clone, Copy, Default)]
struct CandidateLogits {
    sum: f64,
    count: u64,
}

impl CandidateLogits {
    fn add(&mut self, logits: impl Iterator<Item = f32>) {
        for logit in logits.filter(|logit| logit.is_finite()) {
            self.sum += f64::from(logit);
            self.count += 1;
        }
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.sum.to_le_bytes(), self.count.to_le_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([sum, count], []) = bytes.as_chunks::<8>() else { return None };
        Some(Self { sum: f64::from_le_bytes(*sum), count: u64::from_le_bytes(*count) })
    }
}

impl Finetune {
    /// Finetuning under an objective. Candidate sets are read by those that learn from them.
    ///
    /// # Errors
    /// When the pack holds nothing that the objective can learn from.
    pub fn new(
        objective: config::Objective,
        pack: Arc<Pack>,
        candidates: Option<&Candidates>,
        settings: &Settings,
        streams: Streams,
    ) -> Result<Self> {
        let recipe = Recipe::of(objective, settings);
        let classes = pack.protocol().classes.len();
        let labelled = |i: usize| pack.faces()[i].label.map(|label| vec![label]);
        let (train, table) = match recipe.targets {
            Targets::Candidates => {
                let candidates = candidates.context("partial-label training needs candidate sets")?;
                let (train, sets) = candidates.sets.iter().map(|(i, set)| (*i, set.classes.clone())).unzip();
                (train, ConfidenceTable::new(classes, sets))
            }
            Targets::Given => {
                let (train, sets): (Vec<_>, Vec<_>) = pack.split(Split::Train).into_iter().filter_map(|i| Some((i, labelled(i)?))).unzip();
                (train, ConfidenceTable::new(classes, sets))
            }
            Targets::Votes => {
                let row = |i: usize| shares(&pack.faces()[i], classes, &settings.labels);
                let (train, rows): (Vec<_>, Vec<_>) = pack.split(Split::Train).into_iter().filter_map(|i| Some((i, row(i)?))).unzip();
                (train, ConfidenceTable::from_rows(classes, rows.concat()))
            }
        };
        if train.is_empty() {
            let wanted = if recipe.targets == Targets::Votes { "votes" } else { "a given label" };
            bail!("no training face of {} has {wanted}, so there is nothing for {} to learn", pack.path().display(), objective.title());
        }
        Ok(Self::assembled(objective, pack, train, table, settings, streams))
    }

    /// Plain cross-entropy on certain faces (positions in the pack) with the labels given here.
    pub fn plain_on(pack: Arc<Pack>, faces: Vec<(usize, Class)>, settings: &Settings, streams: Streams) -> Self {
        let (train, sets) = faces.into_iter().map(|(i, label)| (i, vec![label])).unzip();
        let table = ConfidenceTable::new(pack.protocol().classes.len(), sets);
        Self::assembled(config::Objective::Ce, pack, train, table, settings, streams)
    }

    fn assembled(
        objective: config::Objective,
        pack: Arc<Pack>,
        train: Vec<usize>,
        table: ConfidenceTable,
        s: &Settings,
        streams: Streams,
    ) -> Self {
        let recipe = Recipe::of(objective, s);
        let ambiguous: Vec<usize> = (0..table.len()).filter(|&i| table.is_ambiguous(i)).collect();
        let stride = ambiguous.len().div_ceil(WATCHED).max(1);
        let balance = if s.finetune.balanced { balance(&pack, &train, &table) } else { Vec::new() };
        let leveraged = matches!(recipe.loss, Loss::Leveraged { .. });
        Self {
            source: Arc::new(LabelledFaces {
                pack: pack.clone(),
                train,
                streams,
                input: Input::of(s),
                weak: recipe::weak(&s.finetune),
                strong: recipe::strong(&s.finetune),
                strong_views: recipe.strong_views,
                balance,
                visible: s.finetune_patches(),
            }),
            pack,
            settings: s.clone(),
            leverage: leveraged.then(|| Leverage::new(table.classes(), table.len())),
            recipe,
            record: Record::new(objective, &table),
            table,
            not_finite: 0,
            logits_seen: CandidateLogits::default(),
            watched: ambiguous.into_iter().step_by(stride).collect(),
        }
    }

    /// Whether labels are decided on the way.
    pub fn decides(&self) -> bool {
        self.recipe.revision.is_some()
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

    /// What is told of the confidences at the end of an epoch.
    fn confidences(&self) -> Vec<Body> {
        let ambiguous = (0..self.table.len()).filter(|&i| self.table.is_ambiguous(i));
        // The rule of eq. 4, which also holds where revise.ema keeps rows from ever being exactly one-hot.
        let resolved = ambiguous.clone().filter(|&i| f64::from(self.table.decision(i).1) > self.settings.revise.theta).count() as u64;
        let all = Body::Confidence {
            histogram: self.table.histogram(CONFIDENCE_BINS),
            resolved,
            ambiguous: ambiguous.count() as u64,
            flips: self.record.flips() as u64,
            recovered: self.recovered(),
        };
        let watched = |&i: &usize| {
            let face = &self.pack.faces()[self.source.train[i]];
            let candidates = self.table.candidates(i).to_vec();
            let confidences = candidates.iter().map(|&c| f64::from(self.table.row(i)[usize::from(c)])).collect();
            Body::Watched { face: face.id.clone(), candidates, confidences, truth: face.truth }
        };
        std::iter::once(all).chain(self.watched.iter().map(watched)).collect()
    }

    /// The evaluations that are due at the end of an epoch, and the accuracy on the validation split.
    fn evaluations(&self, model: &Classifier, end: &EpochEnd) -> Result<(Vec<Body>, Option<f64>)> {
        let (mut bodies, mut score) = (Vec::new(), None);
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
            let evaluate = || evaluate(model, &self.pack, &faces, &self.settings, end.shards);
            let scored = end.events.phase(end.at, Phase::Evaluate, evaluate)?;
            if split == Split::Valid {
                score = Some(scored.confusion.accuracy());
            }
            bodies.push(scored.into_event(split));
        }
        Ok((bodies, score))
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
        let logits = self.logits(model, batch, noise, device);
        let response = self.recipe.revision.is_some().then(|| mean_response(logits.iter().map(|z| z.clone().inner()).collect()));
        let mut loss = self.loss(&logits, batch, response.as_ref(), device);
        loss = loss.mul_scalar((shard.share / batch.positions.len() as f64) as f32);
        if self.recipe.uniform
            && shard.first
            && s.uniform.lambda > 0.0
            && let Some(queries) = model.trainable_queries()
        {
            let scale = s.uniform.lambda * if s.uniform.scale_by_tau { s.uniform.tau } else { 1.0 };
            loss = loss + loss::uniformity(queries, &s.uniform).mul_scalar(scale as f32);
        }
        // A refreshed response is worth more than this one.
        Pass { loss, response: response.filter(|_| !self.recipe.refreshes()) }
    }

    fn refreshes(&self) -> bool {
        self.recipe.refreshes()
    }

    fn respond(&self, model: &Classifier, batch: &FaceBatch, noise: &mut Noise, device: &Device) -> Option<Tensor<2>> {
        Some(mean_response(self.logits(model, batch, noise, device)))
    }

    fn after_step(&mut self, epoch: u64, positions: &[usize], responses: &[f32]) {
        let Some(rule) = self.rule(epoch) else { return self.record.step(&[]) };
        let revision = self.table.revise(positions, responses, &rule);
        self.record.step(&revision.flips);
        self.not_finite += revision.kept as u64;
        // Those of several views are no logits any more.
        if self.source.strong_views == 0 {
            for (&face, logits) in positions.iter().zip(responses.chunks(self.table.classes())) {
                self.logits_seen.add(self.table.candidates(face).iter().map(|&class| logits[usize::from(class)]));
            }
        }
        if let Some(leverage) = &mut self.leverage {
            for (&face, logits) in positions.iter().zip(responses.chunks(self.table.classes())) {
                leverage.revise(face, logits, self.table.candidates(face));
            }
        }
    }

    fn left_out(&mut self) {
        self.record.step(&[]);
    }

    fn end_epoch(&mut self, model: &Classifier, end: EpochEnd) -> Result<Option<f64>> {
        let (evaluations, score) = self.evaluations(model, &end)?;
        let mut bodies = Vec::new();
        if self.decides() {
            bodies = self.confidences();
            self.record.end_epoch(&self.pack, &self.source.train, &self.table, &end)?;
        }
        bodies.extend(evaluations);
        bodies.extend(std::mem::take(&mut self.logits_seen).mean().map(|mean| Body::Scalars(Scalars::from([("candidate_logit", mean)]))));
        match std::mem::take(&mut self.not_finite) {
            0 => {}
            count => bodies.push(Body::Scalars(Scalars::from([("responses_not_finite", count as f64)]))),
        }
        bodies.into_iter().for_each(|body| end.events.emit(end.at, body));
        Ok(score)
    }

    fn state(&self) -> Vec<(String, Vec<u8>)> {
        let floats = |rows: &[f32]| rows.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut state = vec![
            ("confidences.f32".into(), floats(self.table.rows())),
            ("not_finite.u64".into(), self.not_finite.to_le_bytes().to_vec()),
            ("candidate_logits.bin".into(), self.logits_seen.to_bytes()),
            ("record.bin".into(), self.record.state()),
        ];
        state.extend(self.leverage.as_ref().map(|l| ("leverage.f32".into(), floats(l.rows()))));
        state
    }

    fn restore(&mut self, state: &[(String, Vec<u8>)]) -> Result<()> {
        let blob = |name: &str| state.iter().find(|b| b.0 == name).map(|b| b.1.as_slice());
        let floats = |name: &str| -> Result<Vec<f32>> {
            let (rows, []) = blob(name).with_context(|| format!("the checkpoint has no {name}"))?.as_chunks::<4>() else {
                bail!("the saved {name} is damaged");
            };
            Ok(rows.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        // A checkpoint of a moue that kept no record has neither; its run's history begins with the epoch that comes next.
        self.not_finite = match blob("not_finite.u64") {
            Some(count) => u64::from_le_bytes(count.try_into().context("the saved count of responses is damaged")?),
            None => 0,
        };
        self.logits_seen = match blob("candidate_logits.bin") {
            Some(level) => CandidateLogits::from_bytes(level).context("the saved logits are damaged")?,
            None => CandidateLogits::default(),
        };
        if let Some(record) = blob("record.bin") {
            self.record.restore(record)?;
        }
        if let Some(leverage) = &mut self.leverage {
            leverage.restore(floats("leverage.f32")?).map_err(anyhow::Error::msg)?;
        }
        self.table.restore(floats("confidences.f32")?).map_err(anyhow::Error::msg)
    }
}

impl Finetune {
    /// Logits of every view, `[b, C]` each.
    fn logits(&self, model: &Classifier, batch: &FaceBatch, noise: &mut Noise, device: &Device) -> Vec<Tensor<2>> {
        let s = &self.settings;
        let view = |view: &View| {
            let faces = self.source.input.upload(&view.crops, device);
            let (drop_path, dropout) = (s.finetune.drop_path, s.decoder.dropout);
            match self.source.visible {
                None => model.forward(faces.patches(), drop_path, dropout, noise),
                Some(visible) => {
                    let index = upload_index(view.visible.clone(), [batch.positions.len(), visible], device);
                    model.forward_visible(faces.visible(index.clone()), index, drop_path, dropout, noise)
                }
            }
        };
        batch.views.iter().map(view).collect()
    }

    /// The loss of a batch, summed over its faces, `[1]`.
    fn loss(&self, logits: &[Tensor<2>], batch: &FaceBatch, response: Option<&Tensor<2>>, device: &Device) -> Tensor<1> {
        let shape = logits[0].dims();
        let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, shape), device);
        let of_faces = |row: &dyn Fn(usize) -> Vec<f32>| tensor(batch.positions.iter().flat_map(|&i| row(i)).collect());
        let members = || of_faces(&|i| self.table.membership(i));
        let rows = || {
            let mut rows: Vec<f32> = batch.positions.iter().flat_map(|&i| self.table.row(i).iter().copied()).collect();
            if let (Some(rule), Some(response)) = (self.rule(batch.epoch), response)
                && rule.order == Order::BeforeLoss
            {
                self.revise_rows(&mut rows, &batch.positions, response.clone(), &rule);
            }
            tensor(rows)
        };
        let z = logits[0].clone();
        match self.recipe.loss {
            Loss::CrossEntropy { smoothing: 0.0 } => loss::confidence_cross_entropy(z, rows()),
            Loss::CrossEntropy { smoothing } => loss::confidence_cross_entropy(z, loss::smoothed(rows(), smoothing)),
            Loss::CandidateMass => loss::candidate_mass(z, members()),
            Loss::Leveraged { beta } => {
                let weights = of_faces(&|i| self.leverage.as_ref().map_or_else(Vec::new, |l| l.row(i).to_vec()));
                loss::leveraged(z, weights, members(), beta)
            }
            Loss::Consistency { ramp } => {
                let weight = if ramp > 0.0 { (batch.epoch as f64 / ramp).min(1.0) } else { 1.0 };
                let rows = rows();
                let supervised = loss::complement(z, members());
                let divergences = logits.iter().map(|z| loss::divergence(z.clone(), rows.clone()));
                divergences.fold(supervised, |sum, d| sum + d.mul_scalar(weight as f32))
            }
        }
    }

    /// How an epoch's batches revise confidences; none: they do not, or not yet.
    fn rule(&self, epoch: u64) -> Option<config::ReviseSettings> {
        self.recipe.revision.clone().filter(|r| epoch >= r.start_epoch as u64)
    }

    /// Rows as they will be after the step, from the response of this very forward pass (`revise.order = "before_loss"`).
    fn revise_rows(&self, rows: &mut [f32], positions: &[usize], response: Tensor<2>, rule: &config::ReviseSettings) {
        let Ok(logits) = read_values(response) else { return };
        let classes = self.table.classes();
        for ((row, &i), z) in rows.chunks_mut(classes).zip(positions).zip(logits.chunks(classes)) {
            if let Some(revised) = self.table.revised(i, z, rule) {
                row.copy_from_slice(&revised);
            }
        }
    }
}

/// Running sums of 1 / (faces of the class) for each face's given label, or where it has none the mean over its candidates.
fn balance(pack: &Pack, train: &[usize], table: &ConfidenceTable) -> Vec<f64> {
    let classes = |i: usize| match pack.faces()[train[i]].label {
        Some(label) => vec![label],
        None => table.candidates(i).to_vec(),
    };
    let mut counts = vec![0.0; table.classes()];
    for i in 0..train.len() {
        let of = classes(i);
        of.iter().for_each(|&c| counts[usize::from(c)] += 1.0 / of.len() as f64);
    }
    let mut sum = 0.0;
    let weight = |i: usize| {
        let of = classes(i);
        sum += of.iter().map(|&c| 1.0 / counts[usize::from(c)]).sum::<f64>() / of.len() as f64;
        sum
    };
    (0..train.len()).map(weight).collect()
}

/// What confidences are revised from: the logits of the only view, or the mean log-probabilities of several, whose softmax over the
/// candidates is the views' normalised geometric mean (CR-PLL).
fn mean_response(logits: Vec<Tensor<2>>) -> Tensor<2> {
    let views = logits.len() as f32;
    if views == 1.0 {
        return logits.into_iter().next().expect("one view");
    }
    let log = logits.into_iter().map(|z| log_softmax(z, 1));
    log.reduce(|a, b| a + b).expect("several views").div_scalar(views)
}

/// Faces of a split that have a label to be measured against.
pub fn scored_faces(pack: &Pack, split: Split) -> Vec<usize> {
    pack.split(split).into_iter().filter(|&i| pack.faces()[i].label.is_some()).collect()
}

/// Logits of faces (positions in the pack), `[faces, C]` row-major; with `run.evaluate_flip` the log of the mean probability of each face
/// and its mirror image. `model` is in evaluation form.
///
/// # Errors
/// Unreadable faces, or a device that cannot be read; [`Stopped`](crate::run::Stopped) where that is asked for before the end.
pub fn read_logits(model: &Classifier, pack: &Pack, faces: &[usize], settings: &Settings, shards: &Shards) -> Result<Vec<f32>> {
    let input = Input::of(settings);
    let device = model.devices().into_iter().next().context("a network without parameters")?;
    let size = settings.run.evaluate_batch.max(1);
    let rounds: Vec<&[usize]> = faces.chunks(size * shards.count()).collect();
    let mut logits = Vec::new();
    let make = |round: usize| -> Result<Vec<Vec<Crops>>> {
        let part = |faces: &[usize]| -> Result<Vec<Crops>> {
            let whole = input.whole(faces.iter().map(|&i| pack.pixels(i)).collect::<Result<Vec<_>>>()?);
            let mirrored = settings.run.evaluate_flip.then(|| input.mirrored(&whole));
            Ok(std::iter::once(whole).chain(mirrored).collect())
        };
        rounds[round].chunks(rounds[round].len().div_ceil(shards.count())).map(part).collect()
    };
    loader::ahead(0..rounds.len(), 1, 2, make, |_, parts, _| {
        shards.go_on()?;
        let parts = parts?;
        let outputs = shards.map(&parts, |_, views| {
            let forward = |crops: &Crops| model.forward(input.upload(crops, &device).patches(), 0.0, 0.0, &mut Noise::none());
            read_values(both_sides(views.iter().map(forward)))
        });
        for output in outputs {
            logits.extend(output?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logits)
}

/// One forward pass's logits `[B, C]`; of two, of faces and of their mirror images, the log of the mean probability.
pub fn both_sides(mut passes: impl Iterator<Item = Tensor<2>>) -> Tensor<2> {
    match (passes.next(), passes.next()) {
        (Some(whole), Some(mirrored)) => (softmax(whole, 1) + softmax(mirrored, 1)).div_scalar(2.0).clamp_min(f32::MIN_POSITIVE).log(),
        (Some(whole), None) => whole,
        (None, _) => unreachable!("a face is looked at at least once"),
    }
}

/// What a network makes of labelled faces.
pub fn evaluate(model: &Classifier, pack: &Pack, faces: &[usize], settings: &Settings, shards: &Shards) -> Result<Scored> {
    let classes = pack.protocol().classes.len();
    let logits = read_logits(model, pack, faces, settings, shards)?;
    let labels = faces.iter().map(|&i| pack.faces()[i].label.context("only labelled faces are scored")).collect::<Result<Vec<_>>>()?;
    Ok(Scored::new(classes, &labels, &logits))
}
