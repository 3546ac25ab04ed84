//! What a training stage has to provide; see [`crate::pretrain`] and [`crate::finetune`].

use super::guard::Raw;
use super::shards::Shards;
use crate::model::Noise;
use crate::random::{Stream, shuffled};
use crate::run::{At, Control, EventSender, RunFolder, disk};
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use std::sync::Arc;

/// Where batches come from. Used by loader threads ahead of training, so it is apart from everything that training changes.
pub trait Source: Send + Sync {
    /// The faces of one shard, decoded, augmented and ready to upload.
    type Batch: Send + Sync;

    /// Training faces; positions run from 0 to this.
    fn faces(&self) -> usize;

    /// The positions of one epoch, in the order in which they are trained on: all of them, shuffled.
    fn order(&self, rng: &mut Stream) -> Vec<usize> {
        shuffled(self.faces(), rng)
    }

    /// Makes the batch of some positions. Depends on nothing but its arguments.
    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<Self::Batch>;

    /// Begins to bring a batch to the device that it will be trained on there.
    fn upload_ahead(&self, batch: &Self::Batch, device: &Device);

    /// What the faces at some positions are called.
    fn names(&self, positions: &[usize]) -> Vec<String>;

    /// A batch as it is uploaded, to be looked into.
    fn raw(&self, batch: &Self::Batch) -> Vec<Raw>;
}

/// One forward pass of one shard.
pub struct Pass {
    /// `[1]`: the shard's part of the step's loss; the parts of all shards add up to the loss.
    pub loss: Tensor<1>,
    /// `[b, C]`: a response that [`Objective::after_step`] wants to read, without its graph.
    pub response: Option<Tensor<2>>,
}

/// Where a shard stands in its step.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// This shard's weight over the weight of the whole step.
    pub share: f64,
    /// Exactly one shard of a step is the first: it carries terms that do not depend on faces.
    pub first: bool,
}

/// An epoch that has just ended.
pub struct EpochEnd<'a> {
    /// Epochs done.
    pub epoch: u64,
    /// Whether it was the stage's last.
    pub last: bool,
    /// Whether a checkpoint is written next.
    pub checkpoint: bool,
    pub at: &'a At,
    pub folder: &'a RunFolder,
    pub events: &'a EventSender,
    pub control: &'a Control,
    pub shards: &'a Shards,
}

impl EpochEnd<'_> {
    /// Does work that writes, see [`disk::with_room`].
    pub fn with_room<T>(&self, work: impl FnMut() -> Result<T>) -> Result<T> {
        disk::with_room(self.events, self.control, self.at, work)
    }
}

/// A training objective.
pub trait Objective: Sync {
    type Model: Module + Clone + Send + Sync;
    type Source: Source;

    fn source(&self) -> Arc<Self::Source>;

    /// The batch's weight in the mean that the loss is (faces, or masked tokens).
    fn weight(&self, batch: &<Self::Source as Source>::Batch) -> f64;

    /// The shard's part of the loss.
    fn forward(
        &self,
        model: &Self::Model,
        batch: &<Self::Source as Source>::Batch,
        shard: Shard,
        noise: &mut Noise,
        device: &Device,
    ) -> Pass;

    /// Whether [`Objective::after_step`] wants the responses of the updated network instead of those of the step's own forward pass.
    fn refreshes(&self) -> bool {
        false
    }

    /// The response of the updated network, `[b, C]`; asked for where [`Objective::refreshes`]. `model` carries no graph.
    fn respond(
        &self,
        _model: &Self::Model,
        _batch: &<Self::Source as Source>::Batch,
        _noise: &mut Noise,
        _device: &Device,
    ) -> Option<Tensor<2>> {
        None
    }

    /// Learns from the responses of one optimiser step: `positions` and `responses` (`[n, C]`) in batch order.
    fn after_step(&mut self, _epoch: u64, _positions: &[usize], _responses: &[f32]) {}

    /// A step was left out, for its gradient was not finite.
    fn left_out(&mut self) {}

    /// Emits what an epoch has to tell, after all that may take long; `model` is in evaluation form. Gives the accuracy on the validation
    /// split, where it was measured.
    ///
    /// # Errors
    /// [`Stopped`](crate::run::Stopped) where the run is asked to stop; nothing has been told then, and the same end of the epoch can be
    /// asked for again once [`Objective::restore`] has put back what stood before.
    fn end_epoch(&mut self, model: &Self::Model, end: EpochEnd) -> Result<Option<f64>>;

    /// State beyond the model that a checkpoint must keep, as named blobs.
    fn state(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// Puts [`Objective::state`] back.
    fn restore(&mut self, _state: &[(String, Vec<u8>)]) -> Result<()> {
        Ok(())
    }
}
