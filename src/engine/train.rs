//! The training loop.

use super::fit::{Fit, Passed};
use super::guard::{Evidence, Verdict};
use super::interval::{Interval, Sums};
use super::learner::{Learner, is_good, retain};
use super::loader;
use super::memory;
use super::objective::{EpochEnd, Objective, Source};
use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use super::shards::{Position, Shards};
use super::step::{Followed, Loaded, Place, update};
use crate::random::Streams;
use crate::run::checkpoint::{self, Checkpoint, State};
use crate::run::{At, Body, Control, Event, EventSender, Level, Outcome, Phase, RunFolder, Scalars, Stopped, disk, until_checkpoint};
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::prelude::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// Batches that the loader keeps ready.
pub const AHEAD: usize = 4;

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
    /// Epochs between checkpoints that are kept for good; 0: none.
    pub keep_every: u64,
    /// Steps in a row that are not finite after which training goes back.
    pub bad_steps: u64,
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
    /// Stopped on request; the checkpoint is written.
    Interrupted,
}

/// A stage under way.
struct Training<'a, O: Objective> {
    objective: &'a mut O,
    plan: &'a Plan<'a>,
    fit: &'a Fit,
    learner: Learner<O::Model>,
    /// The step whose state is on the disk.
    saved: Option<u64>,
    steps: u64,
    per_epoch: u64,
    /// Makes the model as it is at the beginning: what training goes back to as long as nothing is on the disk.
    fresh: &'a dyn Fn() -> Result<O::Model>,
    /// The objective's state at the beginning.
    blank: Vec<(String, Vec<u8>)>,
}

/// What became of a step.
enum StepEnd {
    Learned,
    LeftOut,
    WentBack(Back),
}

/// Where training went back to.
struct Back {
    /// The epoch that had ended there, with its score.
    ended: Option<(u64, Option<f64>)>,
    /// There was no checkpoint: all that was told of the stage has been taken back.
    anew: bool,
}

/// Trains the model that `fresh` makes on `objective` and returns it, or stops at an interrupt with a checkpoint. `fresh` makes the same model
/// whenever it is called.
///
/// # Errors
/// Unreadable data, a disk that fails, a loss that is not finite whatever is done about it, a checkpoint that belongs to something else.
pub fn train<O: Objective>(objective: &mut O, fresh: &dyn Fn() -> Result<O::Model>, plan: &Plan) -> Result<Ended<O::Model>> {
    let source = objective.source();
    let faces = source.faces();
    let batch = plan.batch.min(faces);
    let per_epoch = (faces / batch.max(1)) as u64;
    if per_epoch == 0 {
        bail!("there are no training faces");
    }
    let steps = per_epoch * plan.epochs;
    let schedule = Schedule { peak: plan.peak_rate, floor: plan.floor_rate, warmup_steps: plan.warmup_epochs * per_epoch as f64, steps };
    let fit = Fit::new(plan.accumulate);
    let mut t = Training::new(objective, fresh, plan, &fit, steps, per_epoch)?;
    let begin = Body::StageStarted { steps, epochs: plan.epochs as f64, batch: batch as u64, faces: faces as u64 };
    plan.events.emit(&t.at(), begin.clone());
    let began = Instant::now();
    let mut compiling = plan.compiles.then(Instant::now);
    if compiling.is_some() {
        plan.events.emit(&t.at(), Body::Phase { name: Phase::Compile, elapsed: None });
    }
    while t.learner.step < steps || t.learner.epoch_open {
        let epoch = if t.learner.epoch_open { t.learner.step / per_epoch - 1 } else { t.learner.step / per_epoch };
        let order = source.order(&mut plan.streams.at(&format!("order/{}", plan.kind), &[epoch]));
        let make = |item: usize| -> Result<Loaded<<O::Source as Source>::Batch>> {
            Loaded::prepare(&*source, epoch, &order[item * batch..(item + 1) * batch], fit.parts(plan.shards))
        };
        let first = if t.learner.epoch_open { per_epoch } else { t.learner.step % per_epoch };
        let mut went_back = None;
        let ended = loader::ahead(first as usize..per_epoch as usize, plan.workers, AHEAD, make, |_, made, next| {
            plan.control.go_on()?;
            let rate = schedule.rate(t.learner.step);
            // A processor is at work itself, and has what it works on.
            let next = next.and_then(|next| next.as_ref().ok()).filter(|_| plan.compiles);
            match t.take(made?, next, rate).with_context(|| format!("step {} of {}", t.learner.step + 1, plan.state.stage))? {
                StepEnd::WentBack(back) => {
                    went_back = Some(back);
                    return Ok(ControlFlow::Break(()));
                }
                StepEnd::Learned | StepEnd::LeftOut => {}
            }
            if let Some(began) = compiling.take() {
                let elapsed = Some(began.elapsed().as_secs_f64());
                plan.events.emit(&t.at(), Body::Phase { name: Phase::Compile, elapsed });
            }
            if t.learner.step.is_multiple_of(plan.log_every) || t.learner.step == steps {
                t.log(rate);
            }
            // At the end of an epoch there is more to tell before there is something to save.
            if !t.learner.step.is_multiple_of(per_epoch) {
                if plan.control.take_save() {
                    t.save(None)?;
                }
                t.hold()?;
            }
            Ok(ControlFlow::Continue(()))
        });
        match (ended, went_back) {
            (Ok(()), Some(Back { ended, anew })) => {
                if anew {
                    plan.events.emit(&t.at(), begin.clone());
                }
                // A resume has to know of the smaller rate.
                t.save(ended)?;
                continue;
            }
            // An interrupt on its last step, or while it is measured, leaves the epoch open: a resume ends it as if nothing had been.
            (Ok(()), None) => t.learner.epoch_open = true,
            (Err(error), _) if error.is::<Stopped>() => {
                plan.control.end();
                // Right after an epoch's end there is nothing to add, and its checkpoint knows how good it is.
                if t.saved != Some(t.learner.step) {
                    t.save(None)?;
                }
                return Ok(Ended::Interrupted);
            }
            (Err(error), _) => return Err(error),
        }
        if let ControlFlow::Break(()) = t.end_epoch(epoch)? {
            return Ok(Ended::Interrupted);
        }
    }
    plan.events.emit(&plan.at.step(t.learner.step, plan.epochs as f64), Body::StageFinished { elapsed: began.elapsed().as_secs_f64() });
    retain(plan, 1)?;
    Ok(Ended::Done(t.learner.take_model()?))
}

impl<'a, O: Objective> Training<'a, O> {
    fn new(
        objective: &'a mut O,
        fresh: &'a dyn Fn() -> Result<O::Model>,
        plan: &'a Plan,
        fit: &'a Fit,
        steps: u64,
        per_epoch: u64,
    ) -> Result<Self> {
        let blank = objective.state();
        let learner = Learner::new(plan.events.phase(&plan.at, Phase::Load, fresh)?, plan, per_epoch);
        let mut t = Self { objective, plan, fit, learner, saved: None, steps, per_epoch, fresh, blank };
        if plan.resume
            && let Some((path, saved)) = checkpoint::newest(plan.folder, &plan.state.stage, |text| t.tell(Level::Warning, text))?
        {
            if saved.state.steps != steps {
                bail!("{} belongs to a stage of {} steps, this one has {steps}", path.display(), saved.state.steps);
            }
            t.restore(&saved).with_context(|| path.display().to_string())?;
            if let Some(parts) = fit.halved() {
                let at_once = plan.batch.div_ceil(parts);
                t.tell(Level::Info, format!("{at_once} faces at once, as before: the device had no memory for more"));
            }
        }
        Ok(t)
    }

    fn at(&self) -> At {
        self.learner.at(self.plan)
    }

    fn tell(&self, level: Level, text: String) {
        self.plan.events.emit(&self.at(), Body::Message { level, text });
    }

    /// One step, taken, left out, or with those before it taken back.
    fn take(
        &mut self,
        mut loaded: Loaded<<O::Source as Source>::Batch>,
        next: Option<&Loaded<<O::Source as Source>::Batch>>,
        rate: f64,
    ) -> Result<StepEnd> {
        let Self { objective, plan, fit, learner, saved, .. } = self;
        let (objective, plan, fit) = (&mut **objective, *plan, *fit);
        let here = Position { streams: plan.streams, stage: plan.kind, step: learner.step };
        let place = Place { shards: plan.shards, device: plan.device };
        let rate = rate * learner.guard.rate_factor();
        let factor = learner.optimizer.loss_factor();
        let told = |text| plan.events.emit(&learner.at(plan), Body::Message { level: Level::Warning, text });
        // Until the optimiser has its turn nothing changes, and what was before the step can be saved beside it.
        let is_saved = learner.step == 0 || *saved == Some(learner.step);
        let save = || {
            let checkpoint = (!is_saved).then(|| learner.checkpoint(plan, fit, None, objective.state())).transpose()?;
            plan.control.end();
            leave(plan, learner, checkpoint)
        };
        let passes = || {
            let (network, optimizer, objective) = (learner.network()?, &learner.optimizer, &*objective);
            let follow = |gradients, norm, spare| Followed::new(objective, (network, optimizer), (gradients, norm), spare, rate, place);
            fit.followed(objective, network, factor, &mut loaded, next, here, place, told, follow)
        };
        let pass = plan.control.or_leave(passes, save)?;
        if objective.refreshes() {
            // A second pass is to come, and nothing is changed yet.
            plan.control.go_on()?;
        }
        if pass.is_finite() {
            let (loss, norm) = (pass.loss, pass.norm);
            let network = update(objective, learner.take_model()?, &mut learner.optimizer, &loaded, pass, rate, here, place)?;
            learner.put_network(network);
            learner.step += 1;
            learner.guard.good();
            learner.interval.add(loss, norm, loaded.positions.len());
            return Ok(StepEnd::Learned);
        }
        let name = format!("step {} of {}", self.learner.step + 1, plan.state.stage);
        if self.learner.optimizer.overflowed() {
            let factor = self.learner.optimizer.loss_factor();
            self.leave_out(&loaded);
            self.tell(Level::Info, format!("{name} left out: gradients overflowed half precision; the loss is now scaled by {factor}"));
            return Ok(StepEnd::LeftOut);
        }
        let what = format!("loss {}, gradient norm {}", pass.loss, pass.norm);
        match self.learner.guard.bad(plan.bad_steps) {
            Verdict::LeaveOut => {
                self.leave_out(&loaded);
                self.tell(Level::Warning, format!("{name} left out: {what}"));
                Ok(StepEnd::LeftOut)
            }
            Verdict::GoBack => {
                let from = self.learner.step + 1;
                let back = self.go_back().with_context(|| format!("going back, for {what}"))?;
                let (row, stage, rate) = (plan.bad_steps, &plan.state.stage, self.learner.guard.rate_factor());
                let text = format!(
                    "{row} steps of {stage} up to {from} were not finite ({what}): back to step {}, with {rate:.3} of the learning rate",
                    self.learner.step
                );
                self.tell(Level::Warning, text);
                Ok(StepEnd::WentBack(back))
            }
            Verdict::GiveUp => {
                // The optimiser may have the gradients, so they are made again.
                let model = self.learner.model()?;
                let again = Passed::over(&*self.objective, model, factor, &loaded.parts, None, here, place)?;
                let bad = again.bad_tensors(model)?;
                let (stage, step, epoch) = (plan.state.stage.as_str(), self.learner.step + 1, loaded.epoch);
                let evidence = Evidence { stage, step, epoch, rate, loss: pass.loss, norm: pass.norm, bad: &bad };
                evidence.write(plan.folder, &*self.objective.source(), &loaded.positions, &loaded.parts)?;
                let section = if plan.kind == "pretrain" { "pretrain" } else { "finetune" };
                bail!(
                    "training diverged, also at {:.3} of the learning rate: {what}, first bad tensor: {}; the batch and its faces are in {}; \
                     lower {section}.lr, set {section}.clip{} (the newest checkpoint is in {})",
                    self.learner.guard.rate_factor(),
                    bad.first().map_or("none but the loss", String::as_str),
                    plan.folder.fault().display(),
                    if self.learner.optimizer.scale().is_some() { " or take --precision f32" } else { "" },
                    plan.folder.checkpoints().display()
                );
            }
        }
    }

    fn leave_out(&mut self, loaded: &Loaded<<O::Source as Source>::Batch>) {
        self.objective.left_out();
        self.learner.interval.skip(loaded.positions.len());
        self.learner.step += 1;
    }

    /// Back to the newest checkpoint from before the steps that are not finite. What was told since is taken back, as at a resume.
    fn go_back(&mut self) -> Result<Back> {
        let plan = self.plan;
        let guard = self.learner.guard;
        let mut newer = Vec::new();
        let mut good: Option<(PathBuf, Checkpoint)> = None;
        for path in checkpoint::list(plan.folder, &plan.state.stage)?.into_iter().rev() {
            match Checkpoint::read(&path) {
                Ok(saved) if is_good(&saved) => {
                    good = Some((path, saved));
                    break;
                }
                _ => newer.push(path),
            }
        }
        let back = match good {
            Some((path, saved)) => {
                self.restore(&saved).with_context(|| path.display().to_string())?;
                plan.events.take_back(until_checkpoint(&checkpoint::event_path(&path)))?;
                Back { ended: saved.state.epoch.map(|epoch| (epoch, saved.state.score)), anew: false }
            }
            None => {
                self.learner = Learner::new((self.fresh)()?, plan, self.per_epoch);
                self.objective.restore(&self.blank)?;
                self.saved = None;
                plan.events.take_back(until_stage(&plan.at))?;
                Back { ended: None, anew: true }
            }
        };
        for path in newer {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        self.learner.guard = guard.gone_back(self.learner.guard);
        Ok(back)
    }

    fn restore(&mut self, saved: &Checkpoint) -> Result<()> {
        self.learner.restore(saved, self.plan)?;
        self.objective.restore(&saved.blobs)?;
        if let Some(parts) = saved.state.parts {
            self.fit.at_least(parts.min(self.plan.batch));
        }
        self.saved = (!self.learner.epoch_open).then_some(self.learner.step);
        Ok(())
    }

    /// What there is to tell since the last reading.
    fn log(&mut self, rate: f64) {
        let Some(means) = self.learner.interval.read() else { return };
        let rate = rate * self.learner.guard.rate_factor();
        let mut scalars = Scalars::from([("loss", means.loss), ("lr", rate), ("grad_norm", means.norm), ("faces_per_second", means.speed)]);
        if let Some(scale) = self.learner.optimizer.scale() {
            scalars.set("loss_scale", f64::from(scale.value));
        }
        if self.learner.guard.left_out > 0 {
            scalars.set("steps_left_out", self.learner.guard.left_out as f64);
        }
        if let Some(bytes) = memory::reserved(self.plan.device) {
            scalars.set("memory_bytes", bytes as f64);
        }
        self.plan.events.emit(&self.at(), Body::Scalars(scalars));
    }

    /// Holds still where a person or a full disk asks for it.
    fn hold(&mut self) -> Result<()> {
        let Plan { control, events, .. } = self.plan;
        let held = Instant::now();
        if control.paused() {
            events.phase(&self.at(), Phase::Pause, || control.wait());
            self.learner.interval.held(held.elapsed().as_secs_f64());
        }
        if let Some(seconds) = disk::wait_for_events(events, control, &self.at())? {
            self.learner.interval.held(seconds);
        }
        Ok(())
    }

    /// Tells and measures what an epoch (from 0) ends with, and saves what is due. Breaks off at an interrupt.
    fn end_epoch(&mut self, epoch: u64) -> Result<ControlFlow<()>> {
        let plan = self.plan;
        let at = self.at();
        let last = self.learner.step == self.steps;
        let asked = plan.control.take_save();
        let checkpoint = last || asked || plan.control.stopping() || (epoch + 1).is_multiple_of(plan.checkpoint_every);
        // The reading of an interval ends with its epoch.
        self.learner.interval = Interval::new(Sums::default());
        let before = self.objective.state();
        let (events, shards, folder, control) = (plan.events, plan.shards, plan.folder, plan.control);
        let end = EpochEnd { epoch: epoch + 1, last, checkpoint, at: &at, folder, events, control, shards };
        let valid = self.learner.model()?.valid();
        match self.objective.end_epoch(&valid, end) {
            Ok(score) => {
                self.learner.epoch_open = false;
                // What is left to be done is to save, however long that takes.
                if plan.control.stopping() {
                    plan.control.end();
                }
                if checkpoint {
                    self.save(Some((epoch + 1, score)))?;
                }
            }
            Err(error) if error.is::<Stopped>() => {
                plan.control.end();
                self.learner.save(plan, self.fit, None, before)?;
                return Ok(ControlFlow::Break(()));
            }
            Err(error) => return Err(error),
        }
        if !last && plan.control.stopping() {
            if !checkpoint {
                self.save(Some((epoch + 1, None)))?;
            }
            return Ok(ControlFlow::Break(()));
        }
        self.hold()?;
        self.learner.interval = Interval::new(Sums::default());
        Ok(ControlFlow::Continue(()))
    }

    /// Writes a checkpoint: of the end of an epoch with its score, or of a moment within one.
    fn save(&mut self, ended: Option<(u64, Option<f64>)>) -> Result<()> {
        self.learner.save(self.plan, self.fit, ended, self.objective.state())?;
        self.saved = (!self.learner.epoch_open).then_some(self.learner.step);
        Ok(())
    }
}

/// Ends the run's record within a step, with a checkpoint of what was before it if that is not on the disk already.
fn leave<M: Module + Clone>(plan: &Plan, learner: &Learner<M>, checkpoint: Option<Checkpoint>) -> Result<()> {
    if let Some(checkpoint) = checkpoint {
        learner.write(plan, &checkpoint)?;
    }
    let message = format!("the step of {} under way takes long, and is begun again at a resume", plan.state.stage);
    plan.events.emit(&At::run(), Body::RunFinished { outcome: Outcome::Interrupted, message });
    if !plan.events.settle() {
        bail!("the end of events.jsonl is not on the disk");
    }
    Ok(())
}

/// All before a stage started.
fn until_stage(at: &At) -> impl FnMut(&Event) -> bool + '_ {
    let mut behind = false;
    move |event| {
        behind |= matches!(event.body, Body::StageStarted { .. }) && event.stage == at.stage && event.label == at.label;
        !behind
    }
}
