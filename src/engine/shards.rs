//! One optimiser step's gradients, computed in parts.
//!
//! On the CPU each core takes a share of the batch: same weights (shared memory, no copies), own graph, own single-threaded pool, so
//! that the tensor library's inner parallelism does not fight the outer one. Gradients are summed in shard order, which makes the result
//! bit-reproducible for a given number of threads. A GPU gets one shard on the calling thread.

use super::objective::{Objective, Pass, Shard, Source};
use super::precision::Precision;
use crate::model::Noise;
use crate::random::Streams;
use crate::run::Control;
use anyhow::{Context, Result};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads that share a batch.
pub struct Shards {
    /// Empty: everything runs on the calling thread.
    pools: Vec<ThreadPool>,
    precision: Precision,
    /// Asks work of many parts to stop.
    control: Control,
}

/// A network, and the leaves of its next pass if these were made ahead ([`Shards::ready`]).
pub struct Network<M> {
    pub model: M,
    leaves: Option<M>,
}

impl<M> From<M> for Network<M> {
    fn from(model: M) -> Self {
        Self { model, leaves: None }
    }
}

/// What one step's passes gave.
pub struct StepGradients {
    pub gradients: GradientsParams,
    /// `[1]`, without its graph.
    pub loss: Tensor<1>,
    /// One for each part, in order.
    pub responses: Vec<Option<Tensor<2>>>,
}

/// The part of a run's position that random masks depend on.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    pub streams: Streams,
    /// Names the kind of stage.
    pub stage: &'a str,
    pub step: u64,
}

impl Position<'_> {
    /// The random masks of one part.
    fn noise(&self, part: usize) -> Noise {
        Noise::new(self.streams.at(&format!("noise/{}", self.stage), &[self.step, part as u64]))
    }
}

impl Shards {
    /// `threads` parts for a CPU; 1 for a GPU.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = |i: usize| ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("train-{i}")).build();
        let pools = if threads > 1 {
            (0..threads).map(pool).collect::<Result<_, _>>().context("cannot start training threads")?
        } else {
            Vec::new()
        };
        Ok(Self { pools, precision: Precision::default(), control: Control::default() })
    }

    /// The same threads, training in another precision.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same threads, under somebody's control.
    #[must_use]
    pub fn under(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// For work of many parts, between two of them.
    ///
    /// # Errors
    /// [`Stopped`](crate::run::Stopped) where it is to stop.
    pub fn go_on(&self) -> Result<()> {
        self.control.go_on()
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// Runs `work` for every item, `count()` at a time, and returns the results in order.
    pub fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
        if self.pools.is_empty() {
            return items.iter().enumerate().map(|(i, item)| work(i, item)).collect();
        }
        let mut results = Vec::with_capacity(items.len());
        for (round, chunk) in items.chunks(self.pools.len()).enumerate() {
            std::thread::scope(|scope| {
                let handles: Vec<_> = chunk
                    .iter()
                    .enumerate()
                    .map(|(k, item)| {
                        let (pool, work) = (&self.pools[k], &work);
                        let i = round * self.pools.len() + k;
                        scope.spawn(move || pool.install(|| work(i, item)))
                    })
                    .collect();
                for handle in handles {
                    results.push(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
            });
        }
        results
    }

    /// A network with the leaves of its next pass where that can be made ahead: on one thread.
    pub fn ready<M: Module + Clone>(&self, model: M) -> Network<M> {
        let differ = self.pools.is_empty() && self.precision == Precision::Mixed;
        Network { leaves: differ.then(|| self.precision.leaves(model.clone())), model }
    }

    /// Forward and backward over all parts of a step; gradients come out multiplied by `scale`.
    ///
    /// # Errors
    /// As [`Shards::gradients_from`].
    pub fn gradients<O: Objective>(
        &self,
        objective: &O,
        model: &O::Model,
        parts: &[<O::Source as Source>::Batch],
        position: Position,
        scale: f32,
        device: &Device,
    ) -> Result<StepGradients> {
        self.gradients_from(objective, &model.clone().into(), parts, position, scale, device)
    }

    /// The same, from leaves that were made ahead if these are there.
    ///
    /// # Errors
    /// [`Stopped`](crate::run::Stopped) where that is asked for while parts are left that nobody has begun.
    pub fn gradients_from<O: Objective>(
        &self,
        objective: &O,
        Network { model, leaves }: &Network<O::Model>,
        parts: &[<O::Source as Source>::Batch],
        position: Position,
        scale: f32,
        device: &Device,
    ) -> Result<StepGradients> {
        let total: f64 = parts.iter().map(|b| objective.weight(b)).sum();
        // Threads must not share graph nodes: each part differentiates its own leaves over the same memory.
        let own = !self.pools.is_empty() || self.precision == Precision::Mixed;
        let pass = |i: usize, batch: &<O::Source as Source>::Batch| {
            let model = match leaves {
                Some(leaves) => leaves.clone(),
                None if own => self.precision.leaves(model.clone()),
                None => model.clone(),
            };
            let mut noise = position.noise(i);
            let shard = Shard { share: objective.weight(batch) / total.max(f64::MIN_POSITIVE), first: i == 0 };
            let Pass { loss, response } = objective.forward(&model, batch, shard, &mut noise, device);
            let value = loss.clone().inner();
            let loss = if scale == 1.0 { loss } else { loss.mul_scalar(scale) };
            (GradientsParams::from_grads(loss.backward(), &model), value, response)
        };
        let mut accumulator = GradientsAccumulator::new();
        let mut loss: Option<Tensor<1>> = None;
        let mut responses = Vec::with_capacity(parts.len());
        // Added up round by round: more parts take no more memory.
        for (round, parts) in parts.chunks(self.count()).enumerate() {
            if round > 0 {
                self.go_on()?;
            }
            for (gradients, value, response) in self.map(parts, |k, batch| pass(round * self.count() + k, batch)) {
                accumulator.accumulate(model, gradients);
                loss = Some(match loss {
                    Some(sum) => sum + value,
                    None => value,
                });
                responses.push(response);
            }
        }
        let loss = loss.unwrap_or_else(|| Tensor::zeros([1], &device.clone()));
        Ok(StepGradients { gradients: accumulator.grads(), loss, responses })
    }

    /// A second forward pass over the parts of a step, by the updated network and under the same random masks as the first.
    pub fn responses<O: Objective>(
        &self,
        objective: &O,
        model: &O::Model,
        parts: &[<O::Source as Source>::Batch],
        position: Position,
        device: &Device,
    ) -> Vec<Option<Tensor<2>>> {
        let model = self.precision.rounded(model.valid());
        self.map(parts, |i, batch| objective.respond(&model, batch, &mut position.noise(i), &device.clone().inner()))
    }
}
