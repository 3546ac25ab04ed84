//! Forward and backward over a batch, and what of that fits into the device's memory: where it had none, the parts of a batch are cut smaller,
//! and before that the next faces come later and the optimiser waits.

use super::guard;
use super::objective::{Objective, Source};
use super::optimizer::gradient_norm;
use super::reading::Reading;
use super::shards::{Network, Position, Shards};
use super::step::{Loaded, Place};
use crate::failure::{expect_panics, survive};
use anyhow::Result;
use burn::optim::GradientsParams;
use burn::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Forward and backward over a batch, and what the device says of them. It is waited for: whether a step is taken depends on that.
pub struct Passed<G = GradientsParams> {
    /// Multiplied by the factor that was asked for; or what was made of them before the device was waited for.
    pub gradients: G,
    /// `[n, C]` in batch order; empty where none is wanted.
    pub responses: Vec<f32>,
    pub loss: f64,
    /// Of the gradients, without the factor.
    pub norm: f64,
}

impl Passed {
    /// Over the parts of a batch as they are cut; the faces of the `next` step are uploaded while the device is at work.
    ///
    /// # Errors
    /// When the device cannot be read; [`Stopped`](crate::run::Stopped) where that is asked for between two rounds of parts.
    pub fn over<O: Objective>(
        objective: &O,
        model: &O::Model,
        factor: f32,
        parts: &[<O::Source as Source>::Batch],
        next: Option<&Loaded<<O::Source as Source>::Batch>>,
        here: Position,
        place: Place,
    ) -> Result<Self> {
        Self::followed(objective, &model.clone().into(), factor, parts, next, here, place, |gradients, _| Ok(gradients))
    }

    /// See [`guard::bad_tensors`].
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn bad_tensors<M: burn::module::Module>(&self, model: &M) -> Result<Vec<String>> {
        guard::bad_tensors(model, &self.gradients)
    }
}

impl<G> Passed<G> {
    /// [`Passed::over`] a batch, where `follow` makes something of the gradients and their
    /// length `[1]` (with the factor; none where there are no gradients) while the device is still at work.
    ///
    /// # Errors
    /// As there, and those of what follows.
    #[expect(clippy::too_many_arguments)]
    pub fn followed<O: Objective>(
        objective: &O,
        network: &Network<O::Model>,
        factor: f32,
        parts: &[<O::Source as Source>::Batch],
        next: Option<&Loaded<<O::Source as Source>::Batch>>,
        here: Position,
        Place { shards, device }: Place,
        follow: impl FnOnce(GradientsParams, Option<Tensor<1>>) -> Result<G>,
    ) -> Result<Self> {
        let pass = shards.gradients_from(objective, network, parts, here, factor, device)?;
        let norm = gradient_norm(&network.model, &pass.gradients);
        // All that is to be read at once: each reading waits for everything that was asked of the device before.
        let firsts: Vec<Tensor<1>> = std::iter::once(pass.loss).chain(norm.clone()).collect();
        let count = firsts.len();
        let responses = pass.responses.into_iter().flatten().map(|response| response.flatten::<1>(0, 1));
        let values = Tensor::cat(firsts.into_iter().chain(responses).collect(), 0);
        let reading = Reading::begin(values);
        let gradients = follow(pass.gradients, norm)?;
        if let Some(next) = next {
            next.upload_ahead(&*objective.source(), device);
        }
        let mut values = reading.wait()?;
        let responses = values.split_off(count);
        let norm = values.get(1).map_or(0.0, |norm| f64::from(*norm) / f64::from(factor));
        Ok(Self { gradients, responses, loss: f64::from(values[0]), norm })
    }

    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.norm.is_finite()
    }
}

/// Whether a device has memory for the network and the optimiser's state beside what they were before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    None,
    /// Nobody knows yet.
    Untried,
    Enough,
}

/// What fits into the device's memory.
pub struct Fit {
    /// Parts of a batch in turn, beside those of the shards.
    accumulate: AtomicUsize,
    /// How many they were at the beginning.
    began: usize,
    /// Passes that went well with [`Spare`] memory for what followed; [`NONE`].
    tried: AtomicUsize,
}

/// Passes after which there is [`Spare::Enough`]: the first step makes moments, the second has old ones and new ones.
const TRIALS: usize = 2;
const NONE: usize = usize::MAX;

impl Fit {
    pub fn new(accumulate: usize) -> Self {
        let began = accumulate.max(1);
        Self { accumulate: AtomicUsize::new(began), began, tried: AtomicUsize::new(0) }
    }

    /// Parts of a batch in turn, where there was no memory for as few as at the beginning.
    pub fn halved(&self) -> Option<usize> {
        Some(self.accumulate.load(Ordering::Relaxed)).filter(|parts| *parts > self.began)
    }

    /// From now on at least so many parts in turn: what was found out before a resume need not be found out again.
    pub fn at_least(&self, parts: usize) {
        self.accumulate.fetch_max(parts, Ordering::Relaxed);
    }

    /// Parts of a batch.
    pub fn parts(&self, shards: &Shards) -> usize {
        shards.count() * self.accumulate.load(Ordering::Relaxed)
    }

    /// [`Passed::followed`] over a batch; where there is no memory for its parts, over smaller ones, of which the batch then is made. What
    /// follows is also told what memory it has.
    ///
    /// # Errors
    /// As there, and where not even single faces fit.
    #[expect(clippy::too_many_arguments)]
    pub fn followed<O: Objective, G>(
        &self,
        objective: &O,
        network: &Network<O::Model>,
        factor: f32,
        loaded: &mut Loaded<<O::Source as Source>::Batch>,
        mut next: Option<&Loaded<<O::Source as Source>::Batch>>,
        here: Position,
        place: Place,
        mut tell: impl FnMut(String),
        follow: impl Fn(GradientsParams, Option<Tensor<1>>, Spare) -> Result<G>,
    ) -> Result<Passed<G>> {
        let Place { shards, device } = place;
        // Devices without memory panic, which is mended here.
        let _quiet = expect_panics();
        // It may have been prepared before there was no memory for such parts.
        loaded.cut(&*objective.source(), self.parts(shards))?;
        loop {
            let tried = self.tried.load(Ordering::Relaxed);
            let spare = match tried {
                NONE => Spare::None,
                0..TRIALS => Spare::Untried,
                _ => Spare::Enough,
            };
            let follow = |gradients, norm| follow(gradients, norm, spare);
            let error = match survive(|| Passed::followed(objective, network, factor, &loaded.parts, next, here, place, follow)) {
                Ok(pass) => {
                    if spare == Spare::Untried {
                        self.tried.store(tried + 1, Ordering::Relaxed);
                    }
                    return Ok(pass);
                }
                Err(error) => error,
            };
            if !is_out_of_memory(&error) {
                return Err(error);
            }
            device.memory_cleanup();
            // It may have been the next faces that there was no memory for.
            if next.take().is_some() || self.tried.swap(NONE, Ordering::Relaxed) != NONE {
                continue;
            }
            if loaded.parts.len() >= loaded.positions.len() {
                return Err(error);
            }
            self.accumulate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(2 * n)).ok();
            loaded.cut(&*objective.source(), self.parts(shards))?;
            let at_once = loaded.positions.len().div_ceil(loaded.parts.len()) * shards.count();
            tell(format!("the device had no memory for this step: from now on {at_once} faces at once, the batch stays what it is"));
        }
    }
}

/// Whether a device said so, or that a tensor is larger than its largest buffer: in the words of wgpu, Vulkan or burn's allocator, the last
/// two where the allocation itself failed unheard on another thread.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    const WORDS: [&str; 8] = [
        "out of memory",
        "out of device memory",
        "outofmemory",
        "out_of_device_memory",
        "can't allocate buffer of size",
        "every page size the memory tracks",
        "was never allocated: the reservation behind it failed",
        "memory location was never initialized",
    ];
    let text = format!("{error:#}").to_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::guard::Raw;
    use crate::engine::objective::{EpochEnd, Pass, Shard};
    use crate::engine::read_values;
    use crate::model::Noise;
    use crate::random::Streams;
    use anyhow::{Context, ensure};
    use burn::nn::{Linear, LinearConfig};
    use std::sync::Arc;

    impl Fit {
        /// With nothing that follows.
        #[expect(clippy::too_many_arguments)]
        fn passes<O: Objective>(
            &self,
            objective: &O,
            model: &O::Model,
            factor: f32,
            loaded: &mut Loaded<<O::Source as Source>::Batch>,
            next: Option<&Loaded<<O::Source as Source>::Batch>>,
            here: Position,
            place: Place,
            tell: impl FnMut(String),
        ) -> Result<Passed> {
            self.followed(objective, &model.clone().into(), factor, loaded, next, here, place, tell, |gradients, _, _| Ok(gradients))
        }
    }

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

        fn upload_ahead(&self, batch: &Vec<f32>, _device: &Device) {
            assert!(batch.len() < 100, "out of memory");
        }

        fn names(&self, positions: &[usize]) -> Vec<String> {
            positions.iter().map(usize::to_string).collect()
        }

        fn raw(&self, _batch: &Vec<f32>) -> Vec<Raw> {
            Vec::new()
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

        fn end_epoch(&mut self, _model: &Linear, _end: EpochEnd) -> Result<Option<f64>> {
            Ok(None)
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
        let pass = fit.passes(room, &model, 1.0, &mut loaded, None, here, place, |text| told.push(text))?;
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
        // In the words of an allocation that failed on another thread, and of a tensor that is larger than a buffer may be.
        for says in ["memory 7 was never allocated: the reservation behind it failed", "Can't allocate buffer of size: 4294967296"] {
            assert_eq!(gradient(&Room { faces: 3, says }).unwrap().1, 3, "{says}");
        }
        // Not even one fits; and what is no lack of memory is told as it is.
        let error = gradient(&Room { faces: 0, says: "out of device memory allocating 8 bytes" }).unwrap_err();
        assert!(format!("{error:#}").contains("out of device memory"), "{error:#}");
        let error = gradient(&Room { faces: 0, says: "an index is out of range" }).unwrap_err();
        assert!(format!("{error:#}").contains("out of range"), "{error:#}");
    }

    #[test]
    fn faces_that_do_not_fit_beside_a_step_are_uploaded_with_their_own() {
        let device = Device::flex().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let (shards, fit) = (Shards::new(2).unwrap(), Fit::new(1));
        let room = Room { faces: 12, says: "" };
        let source = room.source();
        let prepare = |faces: usize| Loaded::prepare(&*source, 0, &(0..faces).collect::<Vec<_>>(), 2).unwrap();
        let (mut loaded, next) = (prepare(12), prepare(200));
        let here = Position { streams: Streams::new(0), stage: "test", step: 0 };
        let place = Place { shards: &shards, device: &device };
        let pass = fit.passes(&room, &model, 1.0, &mut loaded, Some(&next), here, place, |text| panic!("{text}")).unwrap();
        assert!(pass.is_finite() && loaded.parts.len() == 2 && fit.parts(&shards) == 2);
    }

    #[test]
    fn without_memory_the_network_is_not_there_twice() {
        let device = Device::flex().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let (shards, fit) = (Shards::new(2).unwrap(), Fit::new(1));
        let room = Room { faces: 12, says: "" };
        let place = Place { shards: &shards, device: &device };
        // Enough until the fourth step, when another program wants some of it; from then on none.
        for (step, expected) in [Spare::Untried, Spare::Untried, Spare::Enough, Spare::None, Spare::None].into_iter().enumerate() {
            let mut loaded = Loaded::prepare(&*room.source(), 0, &(0..12).collect::<Vec<_>>(), 2).unwrap();
            let here = Position { streams: Streams::new(0), stage: "test", step: step as u64 };
            let told = |text| panic!("{text}");
            let follow = |_, norm: Option<Tensor<1>>, spare: Spare| {
                ensure!(step < 3 || spare == Spare::None, "out of memory");
                Ok((spare, read_values(norm.context("a norm")?)?))
            };
            let pass = fit.followed(&room, &model.clone().into(), 1.0, &mut loaded, None, here, place, told, follow).unwrap();
            let (had, norm) = &pass.gradients;
            assert!(pass.is_finite() && loaded.parts.len() == 2 && *had == expected, "step {step}: {had:?}");
            assert!((f64::from(norm[0]) - pass.norm).abs() < 1e-3 * pass.norm);
        }
    }

    /// Batches are prepared ahead, so some are as large as they were before the first one did not fit.
    #[test]
    fn what_was_prepared_before_is_cut_as_it_has_to_be_now() {
        let device = Device::flex().autodiff();
        let model = LinearConfig::new(1, 1).init(&device);
        let (shards, fit) = (Shards::new(2).unwrap(), Fit::new(1));
        let room = Room { faces: 3, says: "out of memory" };
        let source = room.source();
        let place = Place { shards: &shards, device: &device };
        let ahead = || Loaded::prepare(&*source, 0, &(0..12).collect::<Vec<_>>(), 2).unwrap();
        for (step, mut loaded) in [ahead(), ahead(), ahead()].into_iter().enumerate() {
            let here = Position { streams: Streams::new(0), stage: "test", step: step as u64 };
            let mut told = Vec::new();
            fit.passes(&room, &model, 1.0, &mut loaded, None, here, place, |text| told.push(text)).unwrap();
            assert_eq!((loaded.parts.len(), told.len(), fit.parts(&shards)), (4, usize::from(step == 0), 4), "step {step}");
        }
    }
}
