//! The training loop.

use super::loader;
use super::memory;
use super::objective::{EpochEnd, Objective, Source};
use super::optimizer::{Optimizer, OptimizerConfig, Update, gradient_norm};
use super::precision::LossScale;
use super::read_values;
use super::schedule::Schedule;
use super::shards::{Position, Shards, StepGradients};
use crate::failure;
use crate::random::Streams;
use crate::run::checkpoint::{self, Checkpoint, State};
use crate::run::{At, Body, Control, EventSender, Level, Phase, RunFolder, Scalars};
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::prelude::*;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Batches that the loader keeps ready.
pub const AHEAD: usize = 4;
/// Name of a checkpoint's blob.
const LOSS_SCALE: &str = "loss_scale.json";
/// Checkpoints kept of a stage that still runs; of a finished one the last.
pub const KEEP: usize = 2;

/// All that a stage's training needs to know.
pub struct Plan<'a> {
    pub at: At,
    pub epochs: u64,
    /// Faces per optimiser step; at most the number of training faces.
    pub batch: usize,
    pub accumulate: usize,
    pub peak_rate: f64,
    pub floor_rate: f64,
    pub warmup_epochs: f64,
    pub optimizer: OptimizerConfig,
    pub log_every: u64,
    pub checkpoint_every: u64,
    pub workers: usize,
    pub streams: Streams,
    /// The device that training tensors live on, with differentiation.
    pub device: &'a Device,
    /// Whether the first step compiles and tunes kernels, as on every GPU.
    pub compiles: bool,
    pub shards: &'a Shards,
    pub folder: &'a RunFolder,
    pub events: &'a EventSender,
    pub control: &'a Control,
    /// Names the streams of face order and random masks: stages of one kind see the same ones, so objectives differ in nothing else.
    pub kind: &'a str,
    /// What every checkpoint of the stage says beside its step.
    pub state: State,
    /// Go on from the newest checkpoint of this stage, if there is one.
    pub resume: bool,
}

/// How training ended.
pub enum Ended<M> {
    Done(M),
    /// Stopped on request after a step; the checkpoint is written.
    Interrupted,
}

/// The faces of one optimiser step, cut into the parts that shards work on.
pub struct Loaded<B> {
    pub epoch: u64,
    pub positions: Vec<usize>,
    pub parts: Vec<B>,
}

impl<B> Loaded<B> {
    /// Prepares the faces at `positions` in about equal parts, at most `parts` of them.
    ///
    /// # Errors
    /// Unreadable faces.
    pub fn prepare<S: Source<Batch = B>>(source: &S, epoch: u64, positions: &[usize], parts: usize) -> Result<Self> {
        let chunk = positions.len().div_ceil(parts);
        let parts = positions.chunks(chunk).map(|p| source.prepare(epoch, p)).collect::<Result<_>>()?;
        Ok(Self { epoch, positions: positions.to_vec(), parts })
    }
}

/// Where steps are computed.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub shards: &'a Shards,
    /// With differentiation.
    pub device: &'a Device,
}

/// What an optimiser step leaves beside the model, still on the device: the loss and the gradient's norm, `[1]` each.
pub struct Stepped<M> {
    pub model: M,
    pub loss: Tensor<1>,
    pub norm: Option<Tensor<1>>,
    /// Gradients overflowed half precision: nothing was learned, not from the responses either.
    pub skipped: bool,
}

/// One optimiser step: forward and backward over all parts, the update at `rate`, and what the objective learns from the responses.
///
/// # Errors
/// When the device cannot be read, or gradients are not finite under any scale of the loss.
pub fn step<O: Objective>(
    objective: &mut O,
    model: O::Model,
    optimizer: &mut Optimizer,
    loaded: &Loaded<<O::Source as Source>::Batch>,
    rate: f64,
    here: Position,
    place: Place,
) -> Result<Stepped<O::Model>> {
    let pass = place.shards.gradients(&*objective, &model, &loaded.parts, here, optimizer.loss_factor(), place.device);
    update(objective, model, optimizer, loaded, pass, rate, here, place)
}

/// The second half of [`step`].
#[expect(clippy::too_many_arguments)]
fn update<O: Objective>(
    objective: &mut O,
    model: O::Model,
    optimizer: &mut Optimizer,
    loaded: &Loaded<<O::Source as Source>::Batch>,
    pass: StepGradients,
    rate: f64,
    here: Position,
    Place { shards, device }: Place,
) -> Result<Stepped<O::Model>> {
    let parts = &loaded.parts;
    let Update { model, norm, skipped } = optimizer.step(model, pass.gradients, rate)?;
    if skipped {
        return Ok(Stepped { model, loss: pass.loss, norm, skipped });
    }
    let responses = if objective.refreshes() { shards.responses(&*objective, &model, parts, here, device) } else { pass.responses };
    let responses = read_responses(responses)?;
    if !responses.is_empty() {
        objective.after_step(loaded.epoch, &loaded.positions, &responses);
    }
    Ok(Stepped { model, loss: pass.loss, norm, skipped })
}

/// How small the parts of a batch are cut: smaller where the device had no memory for them.
struct Fit {
    /// Parts in turn, beside those of the shards.
    accumulate: AtomicUsize,
    /// Steps in which the device is waited for, because it tells only then that it had no memory.
    watched: AtomicU64,
}

/// A device takes as much memory as it will ever take in its first few steps. One that lacks it later, because of other programs, ends the
/// run, which can be resumed.
const WATCHED: u64 = 3;

impl Fit {
    fn new(accumulate: usize) -> Self {
        Self { accumulate: AtomicUsize::new(accumulate.max(1)), watched: AtomicU64::new(WATCHED) }
    }

    fn parts(&self, shards: &Shards) -> usize {
        shards.count() * self.accumulate.load(Ordering::Relaxed)
    }

    /// Half as large from now on.
    fn halve(&self) {
        self.accumulate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(2 * n)).ok();
        self.watched.store(WATCHED, Ordering::Relaxed);
    }

    /// Forward and backward over a batch; where there is no memory for its parts, over smaller ones, of which the batch then is made.
    #[expect(clippy::too_many_arguments)]
    fn gradients<O: Objective>(
        &self,
        objective: &O,
        model: &O::Model,
        factor: f32,
        loaded: &mut Loaded<<O::Source as Source>::Batch>,
        here: Position,
        Place { shards, device }: Place,
        mut tell: impl FnMut(String),
    ) -> Result<StepGradients> {
        loop {
            let pass = survive(|| {
                let pass = shards.gradients(objective, model, &loaded.parts, here, factor, device);
                if self.watched.load(Ordering::Relaxed) > 0
                    && let Some(norm) = gradient_norm(model, &pass.gradients)
                {
                    read_values(norm)?;
                }
                Ok(pass)
            });
            let error = match pass {
                Ok(pass) => {
                    self.watched.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1))).ok();
                    return Ok(pass);
                }
                Err(error) => error,
            };
            if !is_out_of_memory(&error) || loaded.parts.len() >= loaded.positions.len() {
                return Err(error);
            }
            device.memory_cleanup();
            self.halve();
            *loaded = Loaded::prepare(&*objective.source(), loaded.epoch, &loaded.positions, self.parts(shards))?;
            let at_once = loaded.positions.len().div_ceil(loaded.parts.len()) * shards.count();
            tell(format!("the device had no memory for this step: from now on {at_once} faces at once, the batch stays what it is"));
        }
    }
}

/// The work's result; a panic of the tensor library is an error.
fn survive<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _quiet = failure::expect_panics();
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("the tensor library gave up: {}", failure::panic_text(&*panic))))
}

/// Whether a device said so, in the words of wgpu, Vulkan or burn's allocator.
fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    ["out of memory", "out of device memory", "outofmemory", "out_of_device_memory"].iter().any(|words| text.contains(words))
}

/// Sums since the last progress event, kept on the device until they are read.
#[derive(Default)]
struct Interval {
    loss: Option<Tensor<1>>,
    norm: Option<Tensor<1>>,
    steps: u64,
    faces: u64,
    since: Option<Instant>,
}

impl Interval {
    fn add(&mut self, loss: Tensor<1>, norm: Option<Tensor<1>>, faces: usize) {
        let sum = |old: Option<Tensor<1>>, new: Tensor<1>| match old {
            Some(old) => old + new,
            None => new,
        };
        self.loss = Some(sum(self.loss.take(), loss));
        if let Some(norm) = norm {
            self.norm = Some(sum(self.norm.take(), norm));
        }
        self.steps += 1;
        self.faces += faces as u64;
    }

    /// Waits until the device has done the steps so far.
    fn wait(&self) -> Result<()> {
        self.loss.clone().map_or(Ok(()), |loss| read_values(loss).map(|_| ()))
    }

    /// A step that taught nothing still took its time.
    fn skip(&mut self, faces: usize) {
        self.faces += faces as u64;
    }

    /// Mean loss, mean gradient norm and faces per second: one read from the device. None where every step was left out.
    fn read_and_reset(&mut self) -> Result<Option<(f64, f64, f64)>> {
        if self.loss.is_none() {
            return Ok(None);
        }
        let zero = || self.loss.as_ref().map(|l| l.zeros_like());
        let parts: Vec<Tensor<1>> = [self.loss.clone(), self.norm.clone().or_else(zero)].into_iter().flatten().collect();
        let values = read_values(Tensor::cat(parts, 0))?;
        let seconds = self.since.map_or(f64::NAN, |t| t.elapsed().as_secs_f64());
        let n = self.steps as f64;
        let out = (f64::from(values[0]) / n, f64::from(values[1]) / n, self.faces as f64 / seconds);
        *self = Self { since: Some(Instant::now()), ..Self::default() };
        Ok(Some(out))
    }
}

/// Trains `model` on `objective` and returns it, or stops at an interrupt with a checkpoint.
///
/// # Errors
/// Unreadable data, a full disk, a loss that is not finite, a checkpoint that belongs to something else.
pub fn train<O: Objective>(objective: &mut O, mut model: O::Model, plan: &Plan) -> Result<Ended<O::Model>> {
    let source = objective.source();
    let faces = source.faces();
    let batch = plan.batch.min(faces);
    let per_epoch = (faces / batch.max(1)) as u64;
    if per_epoch == 0 {
        bail!("there are no training faces");
    }
    let steps = per_epoch * plan.epochs;
    let schedule = Schedule { peak: plan.peak_rate, floor: plan.floor_rate, warmup_steps: plan.warmup_epochs * per_epoch as f64, steps };
    let precision = plan.shards.precision();
    let mut optimizer = Optimizer::new(&model, &plan.optimizer).in_precision(precision, LossScale::default());
    let name = plan.state.stage.clone();
    let mut step = 0;
    if plan.resume
        && let Some((path, saved)) = checkpoint::newest(plan.folder, &name, |text| warn(plan, text))?
    {
        if saved.state.steps != steps {
            bail!("{} belongs to a stage of {} steps, this one has {steps}", path.display(), saved.state.steps);
        }
        model = load_model(model, &saved)?;
        // Groups hold parameter ids, and the saved parameters brought their own.
        let scale = saved.blobs.iter().find(|(name, _)| name == LOSS_SCALE).map(|(_, bytes)| serde_json::from_slice(bytes));
        let scale = scale.transpose().with_context(|| format!("{}: {LOSS_SCALE}", path.display()))?;
        optimizer = Optimizer::new(&model, &plan.optimizer)
            .in_precision(precision, scale.unwrap_or_default())
            .restore(saved.blob("optimizer.bpk")?.to_vec())
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        objective.restore(&saved.blobs).with_context(|| format!("{}", path.display()))?;
        step = saved.state.step;
    }
    plan.events.emit(
        &plan.at.step(step, step as f64 / per_epoch as f64),
        Body::StageStarted { steps, epochs: plan.epochs as f64, batch: batch as u64, faces: faces as u64 },
    );
    let began = Instant::now();
    let mut interval = Interval { since: Some(began), ..Interval::default() };
    let mut compiling = plan.compiles.then(Instant::now);
    if compiling.is_some() {
        plan.events.emit(&plan.at.step(step, step as f64 / per_epoch as f64), Body::Phase { name: Phase::Compile, elapsed: None });
    }
    let fit = Fit::new(plan.accumulate);
    // The model moves into each step and back out.
    let mut slot = Some(model);
    while step < steps {
        let epoch = step / per_epoch;
        let order = source.order(&mut plan.streams.at(&format!("order/{}", plan.kind), &[epoch]));
        let make = |item: usize| -> Result<Loaded<<O::Source as Source>::Batch>> {
            Loaded::prepare(&*source, epoch, &order[item * batch..(item + 1) * batch], fit.parts(plan.shards))
        };
        let first = (step % per_epoch) as usize;
        let mut interrupted = false;
        loader::ahead(first..per_epoch as usize, plan.workers, AHEAD, make, |_, made| {
            let mut loaded = made?;
            let here = Position { streams: plan.streams, stage: plan.kind, step };
            let place = Place { shards: plan.shards, device: plan.device };
            let doing = || format!("step {} of {name}", step + 1);
            let tell = |text| warn(plan, text);
            let model = slot.as_ref().context("the model is inside a step")?;
            let factor = optimizer.loss_factor();
            let pass = fit.gradients(objective, model, factor, &mut loaded, here, place, tell).with_context(doing)?;
            let model = slot.take().context("the model is inside a step")?;
            let stepped = update(objective, model, &mut optimizer, &loaded, pass, schedule.rate(step), here, place);
            let Stepped { model, loss, norm, skipped } = stepped.with_context(doing)?;
            slot = Some(model);
            step += 1;
            if skipped {
                interval.skip(loaded.positions.len());
                let factor = optimizer.loss_factor();
                let text =
                    format!("step {step} of {name} left out: gradients overflowed half precision; the loss is now scaled by {factor}");
                plan.events.emit(&plan.at.step(step, step as f64 / per_epoch as f64), Body::Message { level: Level::Info, text });
            } else {
                interval.add(loss, norm, loaded.positions.len());
            }
            if let Some(began) = compiling.take() {
                interval.wait()?;
                let elapsed = Some(began.elapsed().as_secs_f64());
                plan.events.emit(&plan.at.step(step, step as f64 / per_epoch as f64), Body::Phase { name: Phase::Compile, elapsed });
            }
            if step.is_multiple_of(plan.log_every) || step == steps {
                log(&mut interval, plan, step, per_epoch, schedule.rate(step - 1), optimizer.scale())?;
            }
            let at = plan.at.step(step, step as f64 / per_epoch as f64);
            // At the end of an epoch there is more to tell before there is something to save.
            if !step.is_multiple_of(per_epoch) && plan.control.take_save() {
                let model = slot.as_ref().context("the model is inside a step")?;
                save(objective, model, &optimizer, plan, step, steps, &at)?;
            }
            if plan.control.paused() {
                let held = Instant::now();
                plan.events.phase(&at, Phase::Pause, || plan.control.wait());
                interval.since = interval.since.map(|since| since + held.elapsed());
            }
            interrupted = plan.control.stopping();
            Ok(if interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let model = slot.as_ref().context("the model is inside a step")?;
        let at = plan.at.step(step, step as f64 / per_epoch as f64);
        // An interrupt on the last step of an epoch still ends the epoch, so that a resumed run tells what an uninterrupted one tells.
        if interrupted && !step.is_multiple_of(per_epoch) {
            save(objective, model, &optimizer, plan, step, steps, &at)?;
            return Ok(Ended::Interrupted);
        }
        let last = step == steps;
        let checkpoint = last || interrupted || plan.control.take_save() || (epoch + 1).is_multiple_of(plan.checkpoint_every);
        let end = EpochEnd { epoch: epoch + 1, last, checkpoint, at: &at, folder: plan.folder, events: plan.events, shards: plan.shards };
        objective.end_epoch(&model.valid(), end)?;
        if checkpoint {
            save(objective, model, &optimizer, plan, step, steps, &at)?;
        }
        if interrupted && !last {
            return Ok(Ended::Interrupted);
        }
        interval.since = Some(Instant::now());
        (interval.faces, interval.steps, interval.loss, interval.norm) = (0, 0, None, None);
    }
    plan.events.emit(&plan.at.step(step, plan.epochs as f64), Body::StageFinished { elapsed: began.elapsed().as_secs_f64() });
    checkpoint::retain(plan.folder, &name, 1)?;
    Ok(Ended::Done(slot.context("the model is inside a step")?))
}

fn warn(plan: &Plan, text: String) {
    plan.events.emit(&plan.at, Body::Message { level: Level::Warning, text });
}

fn log(interval: &mut Interval, plan: &Plan, step: u64, per_epoch: u64, rate: f64, scale: Option<LossScale>) -> Result<()> {
    let Some((loss, norm, speed)) = interval.read_and_reset()? else { return Ok(()) };
    let at = plan.at.step(step, step as f64 / per_epoch as f64);
    let mut scalars = Scalars::from([("loss", loss), ("lr", rate), ("grad_norm", norm), ("faces_per_second", speed)]);
    if let Some(scale) = scale {
        scalars.set("loss_scale", f64::from(scale.value));
    }
    if let Some(bytes) = memory::reserved(plan.device) {
        scalars.set("memory_bytes", bytes as f64);
    }
    plan.events.emit(&at, Body::Scalars(scalars));
    if !loss.is_finite() || !norm.is_finite() {
        let section = if plan.kind == "pretrain" { "pretrain" } else { "finetune" };
        bail!(
            "training diverged at step {step} of {}: loss {loss}, gradient norm {norm}; lower {section}.lr or set {section}.clip \
             (the newest checkpoint is in {})",
            plan.state.stage,
            plan.folder.checkpoints().display()
        );
    }
    Ok(())
}

fn read_responses(responses: Vec<Option<Tensor<2>>>) -> Result<Vec<f32>> {
    let parts: Vec<Tensor<2>> = responses.into_iter().flatten().collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    read_values(Tensor::cat(parts, 0))
}

fn save<O: Objective>(objective: &O, model: &O::Model, optimizer: &Optimizer, plan: &Plan, step: u64, steps: u64, at: &At) -> Result<()> {
    let written = plan.events.phase(at, Phase::Save, || -> Result<String> {
        let mut blobs = vec![
            ("model.bpk".to_string(), model_bytes(model)?),
            ("optimizer.bpk".to_string(), optimizer.to_bytes().map_err(anyhow::Error::msg)?),
        ];
        if let Some(scale) = optimizer.scale() {
            blobs.push((LOSS_SCALE.to_string(), serde_json::to_vec(&scale)?));
        }
        blobs.extend(objective.state());
        let state = State { step, steps, ..plan.state.clone() };
        let file = checkpoint::file_name(&plan.state.stage, step);
        std::fs::create_dir_all(plan.folder.checkpoints()).with_context(|| format!("creating {}", plan.folder.checkpoints().display()))?;
        Checkpoint::new(state, blobs).write(&plan.folder.checkpoints().join(&file))?;
        checkpoint::retain(plan.folder, &plan.state.stage, KEEP)?;
        Ok(file)
    })?;
    plan.events.emit(at, Body::Checkpoint { path: format!("checkpoints/{written}") });
    Ok(())
}

/// The model's parameters with their ids, as burnpack bytes.
pub fn model_bytes<M: Module + Clone>(model: &M) -> Result<Vec<u8>> {
    Ok(model.clone().into_record().into_bytes().map_err(|e| anyhow::anyhow!("{e}"))?.to_vec())
}

/// Puts a checkpoint's parameters into a model of the same shape.
pub fn load_model<M: Module>(model: M, checkpoint: &Checkpoint) -> Result<M> {
    let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(checkpoint.blob("model.bpk")?.to_vec()));
    record
        .and_then(|record| model.try_load_record(record))
        .map_err(|e| anyhow::anyhow!("the saved weights do not fit the network that the settings describe: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::objective::{Pass, Shard};
    use crate::model::Noise;
    use burn::nn::{Linear, LinearConfig};
    use std::sync::Arc;

    /// Faces are their positions.
    struct Numbers(usize);

    impl Source for Numbers {
        type Batch = Vec<f32>;

        fn faces(&self) -> usize {
            self.0
        }

        fn prepare(&self, _epoch: u64, positions: &[usize]) -> Result<Vec<f32>> {
            Ok(positions.iter().map(|&p| p as f32).collect())
        }
    }

    /// On a device that has memory for so many faces at once.
    struct Room {
        faces: usize,
        says: &'static str,
    }

    impl Objective for Room {
        type Model = Linear;
        type Source = Numbers;

        fn source(&self) -> Arc<Numbers> {
            Arc::new(Numbers(12))
        }

        fn weight(&self, batch: &Vec<f32>) -> f64 {
            batch.len() as f64
        }

        fn forward(&self, model: &Linear, batch: &Vec<f32>, shard: Shard, _noise: &mut Noise, device: &Device) -> Pass {
            assert!(batch.len() <= self.faces, "{}", self.says);
            let x = Tensor::<2>::from_data(TensorData::new(batch.clone(), [batch.len(), 1]), device);
            let loss = model.forward(x).square().mean().mul_scalar(shard.share as f32);
            Pass { loss, response: None }
        }

        fn end_epoch(&mut self, _model: &Linear, _end: EpochEnd) -> Result<()> {
            Ok(())
        }
    }

    /// The weight's gradient, faces at once, and what was told.
    fn gradient(room: &Room) -> Result<(Vec<f32>, usize, Vec<String>)> {
        let device = Device::flex().autodiff();
        let mut model = LinearConfig::new(1, 1).init(&device);
        (model.weight, model.bias) = (model.weight.map(|w| Tensor::from_inner(w.ones_like().inner()).require_grad()), None);
        let shards = Shards::new(2)?;
        let fit = Fit::new(1);
        let source = room.source();
        let mut loaded = Loaded::prepare(&*source, 0, &(0..12).collect::<Vec<_>>(), fit.parts(&shards))?;
        let here = Position { streams: Streams::new(0), stage: "test", step: 0 };
        let mut told = Vec::new();
        let place = Place { shards: &shards, device: &device };
        let pass = fit.gradients(room, &model, 1.0, &mut loaded, here, place, |text| told.push(text))?;
        let gradient = pass.gradients.get::<2>(model.weight.id).context("the weight's gradient")?;
        Ok((read_values(gradient)?, loaded.parts[0].len(), told))
    }

    #[test]
    fn without_memory_parts_are_halved_and_the_gradient_stays() {
        let wgpu = "wgpu error: Out of Memory";
        let (whole, at_once, told) = gradient(&Room { faces: 12, says: wgpu }).unwrap();
        assert_eq!((at_once, told.len()), (6, 0));
        for (faces, expected) in [(3, 3), (2, 2), (1, 1)] {
            let (ours, at_once, told) = gradient(&Room { faces, says: wgpu }).unwrap();
            assert_eq!(at_once, expected);
            assert!(told.last().unwrap().contains(&format!("{} faces at once", 2 * expected)), "{told:?}");
            assert!((ours[0] - whole[0]).abs() < 1e-3 * whole[0].abs(), "{ours:?} instead of {whole:?}");
        }
        // Not even one fits; and what is no lack of memory is told as it is.
        let error = gradient(&Room { faces: 0, says: "out of device memory allocating 8 bytes" }).unwrap_err();
        assert!(format!("{error:#}").contains("out of device memory"), "{error:#}");
        let error = gradient(&Room { faces: 0, says: "an index is out of range" }).unwrap_err();
        assert!(format!("{error:#}").contains("out of range"), "{error:#}");
    }
}
