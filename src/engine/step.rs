//! One optimiser step: forward and backward over all parts of a batch, the update, and what the objective learns from the responses.

use super::fit::{Passed, Spare};
use super::objective::{Objective, Source};
use super::optimizer::Optimizer;
use super::parameters::check_computed;
use super::read_values;
use super::shards::{Network, Position, Shards};
use crate::kernels::queue;
use anyhow::{Result, bail};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::prelude::*;

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
        let parts = positions.chunks(part(positions.len(), parts)).map(|p| source.prepare(epoch, p)).collect::<Result<_>>()?;
        Ok(Self { epoch, positions: positions.to_vec(), parts })
    }

    /// Cuts what was prepared in fewer parts than that anew.
    ///
    /// # Errors
    /// Unreadable faces.
    pub fn cut<S: Source<Batch = B>>(&mut self, source: &S, parts: usize) -> Result<()> {
        if self.parts.len() < self.positions.len().div_ceil(part(self.positions.len(), parts)) {
            *self = Self::prepare(source, self.epoch, &self.positions, parts)?;
        }
        Ok(())
    }

    /// Begins to bring all parts to the device that they will be trained on.
    pub fn upload_ahead<S: Source<Batch = B>>(&self, source: &S, device: &Device) {
        self.parts.iter().for_each(|part| source.upload_ahead(part, device));
    }
}

/// Faces of a part of so many, at most `parts` of them.
fn part(faces: usize, parts: usize) -> usize {
    faces.div_ceil(parts).max(1)
}

/// Where steps are computed.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub shards: &'a Shards,
    /// With differentiation.
    pub device: &'a Device,
}

impl Place<'_> {
    /// Whether the device computes while nobody waits for it, so that it would have nothing to do while loss and norm are read.
    fn works_alone(&self) -> bool {
        queue::gpu_of(&self.device.clone().inner()).is_some()
    }
}

/// What was made of a batch's gradients before the device was waited for.
pub enum Followed<M> {
    /// Nothing yet.
    Gradients(GradientsParams),
    /// The step, which counts if loss and norm turn out to be finite, and the optimiser after it.
    Step(Box<(Network<M>, Optimizer)>),
}

impl<M: Module + Clone> Followed<M> {
    /// The step at `rate` where it need not wait: on a device that works alone, with [`Spare`] memory, and for an objective that has no second pass.
    ///
    /// # Errors
    /// When that memory is tried and not there.
    pub fn new<O: Objective<Model = M>>(
        objective: &O,
        (network, optimizer): (&Network<M>, &Optimizer),
        (gradients, norm): (GradientsParams, Option<Tensor<1>>),
        spare: Spare,
        rate: f64,
        place: Place,
    ) -> Result<Self> {
        Ok(match norm.filter(|_| spare != Spare::None && place.works_alone() && !objective.refreshes()) {
            Some(norm) => {
                let mut optimizer = optimizer.clone();
                let model = optimizer.step_by(network.model.clone(), gradients, norm, rate);
                if spare == Spare::Untried {
                    check_computed(&model)?;
                }
                Self::Step(Box::new((place.shards.ready(model), optimizer)))
            }
            None => Self::Gradients(gradients),
        })
    }
}

/// What an optimiser step leaves beside the model.
pub struct Stepped<M> {
    pub network: Network<M>,
    pub loss: f64,
    /// Of the gradient, before clipping.
    pub norm: f64,
}

/// One optimiser step: forward and backward over all parts, the update at `rate`, and what the objective learns from the responses. A step
/// that overflows half precision changes nothing but the scale of the loss. The faces of the `next` step are uploaded meanwhile.
///
/// # Errors
/// When the device cannot be read, or the loss or gradient is not finite for another reason.
#[expect(clippy::too_many_arguments)]
pub fn step<O: Objective>(
    objective: &mut O,
    network: Network<O::Model>,
    optimizer: &mut Optimizer,
    loaded: &Loaded<<O::Source as Source>::Batch>,
    next: Option<&Loaded<<O::Source as Source>::Batch>>,
    rate: f64,
    here: Position,
    place: Place,
) -> Result<Stepped<O::Model>> {
    let follow = |gradients, norm| Followed::new(&*objective, (&network, &*optimizer), (gradients, norm), Spare::Enough, rate, place);
    let pass = Passed::followed(&*objective, &network, optimizer.loss_factor(), &loaded.parts, next, here, place, follow)?;
    let (loss, norm) = (pass.loss, pass.norm);
    if !pass.is_finite() {
        if optimizer.overflowed() {
            return Ok(Stepped { network, loss, norm });
        }
        bail!("not finite: loss {loss}, gradient norm {norm}");
    }
    Ok(Stepped { network: update(objective, network.model, optimizer, loaded, pass, rate, here, place)?, loss, norm })
}

/// The second half of [`step`].
#[expect(clippy::too_many_arguments)]
pub(super) fn update<O: Objective>(
    objective: &mut O,
    model: O::Model,
    optimizer: &mut Optimizer,
    loaded: &Loaded<<O::Source as Source>::Batch>,
    pass: Passed<Followed<O::Model>>,
    rate: f64,
    here: Position,
    Place { shards, device }: Place,
) -> Result<Network<O::Model>> {
    let network = match pass.gradients {
        Followed::Gradients(gradients) => optimizer.step(model, gradients, pass.norm, rate).into(),
        Followed::Step(step) => {
            *optimizer = step.1;
            step.0
        }
    };
    let refresh = objective.refreshes();
    let responses =
        if refresh { read_responses(shards.responses(&*objective, &network.model, &loaded.parts, here, device))? } else { pass.responses };
    if !responses.is_empty() {
        objective.after_step(loaded.epoch, &loaded.positions, &responses);
    }
    Ok(network)
}

fn read_responses(responses: Vec<Option<Tensor<2>>>) -> Result<Vec<f32>> {
    let parts: Vec<Tensor<2>> = responses.into_iter().flatten().collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    read_values(Tensor::cat(parts, 0))
}
