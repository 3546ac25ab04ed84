//! What a training has come to: the network, the optimiser's moments, and the place in the stage. With the objective's state it is all that a
//! checkpoint holds.

use super::fit::Fit;
use super::guard::Guard;
use super::interval::{Interval, Sums};
use super::optimizer::Optimizer;
use super::parameters::{load_model, model_bytes, named};
use super::precision::LossScale;
use super::shards::Network;
use super::train::Plan;
use crate::run::checkpoint::{self, Checkpoint, MODEL, State};
use crate::run::{At, Body, Phase, disk};
use anyhow::{Context, Result};
use burn::module::Module;
use serde::{Deserialize, Serialize};

/// Names of a checkpoint's blobs.
const OPTIMIZER: &str = "optimizer.bpk";
const LOSS_SCALE: &str = "loss_scale.json";
const PROGRESS: &str = "progress.json";

/// Of a checkpoint: where the loop stood within its interval, and how it has fared.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Progress {
    interval: Sums,
    guard: Guard,
}

pub(super) struct Learner<M> {
    /// None while the optimiser has it.
    network: Option<Network<M>>,
    pub optimizer: Optimizer,
    pub interval: Interval,
    pub guard: Guard,
    /// Steps done.
    pub step: u64,
    /// All steps of the epoch are done, but it has not been ended.
    pub epoch_open: bool,
    per_epoch: u64,
}

impl<M: Module + Clone> Learner<M> {
    /// At the beginning of a stage.
    pub fn new(model: M, plan: &Plan, per_epoch: u64) -> Self {
        let model = named(model);
        let optimizer = optimizer(&model, plan, LossScale::default());
        let (interval, guard) = (Interval::new(Sums::default()), Guard::default());
        Self { network: Some(model.into()), optimizer, interval, guard, step: 0, epoch_open: false, per_epoch }
    }

    /// Where a checkpoint was written. The objective's state in it is the objective's affair.
    pub fn restore(&mut self, saved: &Checkpoint, plan: &Plan) -> Result<()> {
        let model = load_model(self.take_model()?, saved)?;
        let scale = saved.blobs.iter().find(|(name, _)| name == LOSS_SCALE).map(|(_, bytes)| serde_json::from_slice(bytes));
        let scale = scale.transpose().context(LOSS_SCALE)?;
        // Groups hold parameter ids, and the saved parameters brought their own.
        let optimizer = optimizer(&model, plan, scale.unwrap_or_default());
        self.optimizer = optimizer.restore(saved.blob(OPTIMIZER)?.to_vec()).map_err(anyhow::Error::msg)?;
        self.network = Some(model.into());
        let Progress { interval, guard } = progress(saved)?;
        (self.interval, self.guard) = (Interval::new(interval), guard);
        (self.step, self.epoch_open) = (saved.state.step, saved.state.epoch_open);
        Ok(())
    }

    pub fn model(&self) -> Result<&M> {
        Ok(&self.network()?.model)
    }

    pub fn network(&self) -> Result<&Network<M>> {
        self.network.as_ref().context("the optimiser has the model")
    }

    /// Takes the model out, for [`Learner::put_network`] to bring another.
    pub fn take_model(&mut self) -> Result<M> {
        Ok(self.network.take().context("the optimiser has the model")?.model)
    }

    pub fn put_network(&mut self, network: Network<M>) {
        self.network = Some(network);
    }

    pub fn at(&self, plan: &Plan) -> At {
        plan.at.step(self.step, self.step as f64 / self.per_epoch as f64)
    }

    /// Writes a checkpoint with the blobs of the objective, and tells of it: at the end of an epoch (from 1) with its score, or at a moment
    /// within one. Older checkpoints that are not to be kept go.
    pub fn save(&self, plan: &Plan, fit: &Fit, ended: Option<(u64, Option<f64>)>, objective: Vec<(String, Vec<u8>)>) -> Result<()> {
        self.write(plan, &self.checkpoint(plan, fit, ended, objective)?)
    }

    /// The second half of [`Learner::save`]: the disk's.
    pub fn write(&self, plan: &Plan, checkpoint: &Checkpoint) -> Result<()> {
        let Plan { folder, events, control, state, .. } = plan;
        let at = self.at(plan);
        let path = folder.checkpoints().join(checkpoint::file_name(&state.stage, self.step));
        events.phase(&at, Phase::Save, || {
            disk::with_room(events, control, &at, || {
                std::fs::create_dir_all(folder.checkpoints()).with_context(|| format!("creating {}", folder.checkpoints().display()))?;
                checkpoint.write(&path)
            })
        })?;
        events.emit(&at, Body::Checkpoint { path: checkpoint::event_path(&path) });
        retain(plan, checkpoint::KEEP)
    }

    /// The first half of [`Learner::save`]: what the device has to give.
    pub fn checkpoint(
        &self,
        plan: &Plan,
        fit: &Fit,
        ended: Option<(u64, Option<f64>)>,
        objective: Vec<(String, Vec<u8>)>,
    ) -> Result<Checkpoint> {
        let progress = Progress { interval: self.interval.sums(), guard: self.guard };
        let mut blobs = vec![
            (MODEL.to_string(), model_bytes(self.model()?)?),
            (OPTIMIZER.to_string(), self.optimizer.to_bytes().map_err(anyhow::Error::msg)?),
            (PROGRESS.to_string(), serde_json::to_vec(&progress)?),
        ];
        if let Some(scale) = self.optimizer.scale() {
            blobs.push((LOSS_SCALE.to_string(), serde_json::to_vec(&scale)?));
        }
        blobs.extend(objective);
        let (step, steps, epoch_open) = (self.step, self.per_epoch * plan.epochs, self.epoch_open);
        let (epoch, score) = (ended.map(|e| e.0), ended.and_then(|e| e.1));
        Ok(Checkpoint::new(State { step, steps, epoch, epoch_open, score, parts: fit.halved(), ..plan.state.clone() }, blobs))
    }
}

fn optimizer<M: Module>(model: &M, plan: &Plan, scale: LossScale) -> Optimizer {
    Optimizer::new(model, &plan.optimizer).in_precision(plan.shards.precision(), scale)
}

/// Earlier checkpoints may go once the log, on the disk, knows of the last: a resume goes on from what the log knows.
pub(super) fn retain(plan: &Plan, keep: usize) -> Result<()> {
    let Plan { folder, events, state, keep_every, .. } = plan;
    if events.settle() { checkpoint::retain(folder, &state.stage, keep, *keep_every) } else { Ok(()) }
}

/// Whether the step before a checkpoint was a good one.
pub(super) fn is_good(saved: &Checkpoint) -> bool {
    progress(saved).is_ok_and(|p| p.guard.in_a_row == 0)
}

/// Where the loop stood; a checkpoint from before kept nothing of it.
fn progress(saved: &Checkpoint) -> Result<Progress> {
    let found = saved.blobs.iter().find(|(name, _)| name == PROGRESS);
    Ok(found.map(|(_, bytes)| serde_json::from_slice(bytes)).transpose().context(PROGRESS)?.unwrap_or_default())
}
