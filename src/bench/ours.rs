//! Our side of every row: the very objects that training uses, in a process of its own (`moue bench --serve`).
//!
//! Training rows call [`step`], the loop's own, on batches that were prepared beforehand; the loader's row prepares them as the loop
//! does, and drops them. Reads requests and writes answers as [`super::contestant`] says.

use super::shaders::Shaders;
use super::{Case, Part, Ready, Row, Turn};
use crate::config::{DeviceChoice, Settings};
use crate::dataset::{Pack, Split};
use crate::engine::device::{self, OpenDevice};
use crate::engine::loader;
use crate::engine::objective::{Objective, Shard, Source};
use crate::engine::optimizer::Optimizer;
use crate::engine::precision::{LossScale, Precision};
use crate::engine::read_values;
use crate::engine::shards::{Network, Position, Shards};
use crate::engine::step::{Loaded, Place, Stepped, step};
use crate::engine::train::AHEAD;
use crate::finetune::Finetune;
use crate::kernels::gpu::Gpu;
use crate::kernels::queue;
use crate::labels::Candidates;
use crate::model::init::Init;
use crate::model::{Classifier, Crops, Encoder, Input, MaskedAutoencoder, MaskedModel, MaskedVit, Noise};
use crate::pipeline::{Regime, Training};
use crate::pretrain::MaskedModelling;
use crate::random::Streams;
use crate::weights::parameters;
use anyhow::{Context, Result, anyhow};
use burn::module::Module;
use burn::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Prepared batches that a training row goes through in turn.
const BATCHES: usize = 8;
/// Steps before the first turn: kernels are compiled and tuned, memory is there.
const WARM_UP: usize = 3;
/// Steps between two waits for a GPU, as often as training reads its loss.
const WAIT: usize = 20;

/// Works for so many seconds and says for how many faces.
type Work = Box<dyn FnMut(f64) -> Result<u64>>;

/// Starts this program as a contestant.
///
/// # Errors
/// When the system does not say where this program is.
pub fn command(threads: usize) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["bench", "--serve"]);
    limit_threads(&mut command, threads);
    Ok(command)
}

/// For thread pools that are made before anybody could be asked.
pub fn limit_threads(command: &mut Command, threads: usize) {
    for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(name, threads.to_string());
    }
}

#[derive(Deserialize)]
struct Request {
    seconds: f64,
    /// Whether the time of each shader is taken.
    #[serde(default)]
    shaders: bool,
}

/// Answers requests until the input ends.
///
/// # Errors
/// Input that is no request, or work that fails.
pub fn serve(input: impl BufRead, mut output: impl Write) -> Result<()> {
    let mut lines = input.lines();
    let Some(line) = lines.next() else { return Ok(()) };
    let case: Case = serde_json::from_str(&line?).context("reading the case")?;
    let side = Side::open(&case)?;
    let (mut work, parameters) = side.work(&case)?;
    let ready = Ready {
        version: env!("CARGO_PKG_VERSION").into(),
        device: side.open.name.clone(),
        is_cpu: side.open.is_cpu,
        threads: case.threads,
        parameters,
        details: side.open.description.clone(),
    };
    let mut answer = |value: serde_json::Value| -> Result<()> {
        writeln!(output, "{value}")?;
        Ok(output.flush()?)
    };
    answer(json!(ready))?;
    for line in lines {
        let Request { seconds, shaders } = serde_json::from_str(&line?).context("reading a request")?;
        let timed = side.gpu().filter(|gpu| shaders && gpu.time_launches());
        let began = Instant::now();
        let faces = work(seconds)?;
        let turn = Turn { faces, seconds: began.elapsed().as_secs_f64(), peak_bytes: peak_bytes(), shaders: None };
        let shaders = timed.map(|gpu| side.shaders(&gpu, faces as usize / case.batch)).transpose()?;
        answer(json!(Turn { shaders, ..turn }))?;
    }
    Ok(())
}

/// Most memory that this process has had.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// What every row starts from.
struct Side {
    open: OpenDevice,
    device: Device,
    shards: Arc<Shards>,
    pack: Arc<Pack>,
    settings: Settings,
}

impl Side {
    fn open(case: &Case) -> Result<Self> {
        let choice: DeviceChoice = case.device.parse()?;
        let kernels = case.settings.run.kernels;
        let mut open = match &case.compiler {
            Some(language) => device::open_in(choice, language, kernels)?,
            None => device::open_for(choice, kernels)?,
        };
        let precision = Precision::of(case.settings.run.precision, &open)?;
        open.description["precision"] = precision.name().into();
        let shards = Arc::new(Shards::new(if open.is_cpu { case.threads } else { 1 })?.in_precision(precision));
        let pack = Arc::new(Pack::open(Path::new(&case.faces.pack))?);
        Ok(Self { device: open.device.clone().autodiff(), open, shards, pack, settings: case.settings.clone() })
    }

    /// That our shaders run on.
    fn gpu(&self) -> Option<Arc<Gpu>> {
        queue::gpu_of(&self.open.device)
    }

    /// What they took in a turn of so many steps.
    fn shaders(&self, gpu: &Gpu, steps: usize) -> Result<Shaders> {
        // The last step may still be on its way.
        self.open.device.sync().map_err(|e| anyhow!("waiting for the device: {e:?}"))?;
        Ok(Shaders::of(&gpu.laps()?, steps))
    }

    fn init(&self) -> Init<'_> {
        Init { streams: Streams::new(0), device: &self.device }
    }

    fn finetune(&self) -> Result<(Finetune, Training)> {
        let s = &self.settings;
        let candidates = Candidates::build(&self.pack, &s.labels)?;
        let kind = s.finetune.objective;
        Ok((Finetune::new(kind, self.pack.clone(), Some(&candidates), s, Streams::new(0))?, Training::Finetune(kind)))
    }

    fn classifier(&self, case: &Case) -> Classifier {
        let init = self.init();
        Classifier::new(&init, Encoder::new(&init, &self.settings), case.classes, &self.settings)
    }

    /// The row's work, set up, and the values of its network.
    fn work(&self, case: &Case) -> Result<(Work, Option<usize>)> {
        match case.row {
            Row::Pretrain if self.settings.pretrain.method.visible_only() => self.pretraining::<MaskedAutoencoder>(case),
            Row::Pretrain => self.pretraining::<MaskedVit>(case),
            Row::Finetune => {
                let (objective, training) = self.finetune()?;
                self.training(case, objective, self.classifier(case), training)
            }
            Row::Loader => {
                let (objective, _) = self.finetune()?;
                Ok((self.loading(case, objective.source()), None))
            }
            Row::Predict => self.predicting(case),
            Row::Hog => Ok((self.describing(case)?, None)),
        }
    }

    fn pretraining<M: MaskedModel + 'static>(&self, case: &Case) -> Result<(Work, Option<usize>)> {
        let train = self.pack.split(Split::Train);
        let objective = MaskedModelling::<M>::new(self.pack.clone(), train, &self.settings, Streams::new(0));
        self.training(case, objective, M::new(&self.init(), &self.settings), Training::Pretrain)
    }

    /// Steps of a training, or a part of them.
    fn training<O>(&self, case: &Case, mut objective: O, model: O::Model, training: Training) -> Result<(Work, Option<usize>)>
    where
        O: Objective + 'static,
        O::Model: 'static,
    {
        let source = objective.source();
        let parameters = Some(parameters::count(&model));
        if case.part == Part::Loader {
            return Ok((self.loading(case, source), parameters));
        }
        let s = &self.settings;
        let regime = Regime::of(training, s);
        // Late enough that confidences are revised.
        let epoch = if training == Training::Pretrain { 0 } else { s.revise.start_epoch as u64 };
        let parts = self.shards.count() * regime.accumulate.max(1);
        let batches = (0..BATCHES)
            .map(|n| Loaded::prepare(&*source, epoch, &positions(n, case.batch, source.faces()), parts))
            .collect::<Result<Vec<_>>>()?;
        let optimizer = Optimizer::new(&model, &training.optimizer(s));
        let mut optimizer = optimizer.in_precision(self.shards.precision(), LossScale::default());
        let (shards, device, part, is_cpu) = (self.shards.clone(), self.device.clone(), case.part, self.open.is_cpu);
        let (mut slot, mut count) = (Some(Network::from(model)), 0);
        let work = repeated(case.batch, move || {
            let here = Position { streams: Streams::new(0), stage: training.kind(), step: count };
            let loaded = &batches[count as usize % BATCHES];
            count += 1;
            let next = (!is_cpu).then(|| &batches[count as usize % BATCHES]);
            let network = slot.take().context("the model is inside a step")?;
            let (network, pending) = match part {
                Part::Forward => {
                    let loss = forward(&objective, &network.model, loaded, here, &shards, &device);
                    (network, Some(loss))
                }
                Part::Gradients => {
                    let pass = shards.gradients(&objective, &network.model, &loaded.parts, here, optimizer.loss_factor(), &device)?;
                    (network, Some(pass.loss))
                }
                _ => {
                    let place = Place { shards: &shards, device: &device };
                    let Stepped { network, .. } = step(&mut objective, network, &mut optimizer, loaded, next, regime.lr, here, place)?;
                    // Every step has waited for its loss.
                    (network, None)
                }
            };
            slot = Some(network);
            Ok(pending)
        })?;
        Ok((work, parameters))
    }

    /// Batches of a source, made ahead as in training by all threads, and dropped.
    fn loading<S: Source + 'static>(&self, case: &Case, source: Arc<S>) -> Work {
        let (batch, workers, parts) = (case.batch, case.threads, self.shards.count());
        Box::new(move |seconds| {
            let (began, mut faces) = (Instant::now(), 0);
            let make = |item: usize| Loaded::prepare(&*source, item as u64, &positions(item, batch, source.faces()), parts);
            loader::ahead(0..usize::MAX, workers, AHEAD, make, |_, loaded, _| {
                faces += loaded?.positions.len() as u64;
                Ok(if began.elapsed().as_secs_f64() < seconds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            Ok(faces)
        })
    }

    /// Logits as evaluation reads them, of crops that are ready.
    fn predicting(&self, case: &Case) -> Result<(Work, Option<usize>)> {
        let model = self.classifier(case);
        let parameters = Some(parameters::count(&model));
        let model = model.valid();
        let (input, device, shards) = (Input::of(&self.settings), self.open.device.clone(), self.shards.clone());
        let parts = self.crops(case, input)?;
        let work = repeated(case.batch, move || {
            let forward =
                |_: usize, crops: &Crops| read_values(model.forward(input.upload(crops, &device).patches(), 0.0, 0.0, &mut Noise::none()));
            shards.map(&parts, forward).into_iter().collect::<Result<Vec<_>>>()?;
            Ok(None)
        })?;
        Ok((work, parameters))
    }

    /// Targets of uploaded pixels, on the threads that train.
    fn describing(&self, case: &Case) -> Result<Work> {
        let input = Input::of(&self.settings);
        let (hog, shards) = (self.settings.hog.clone(), self.shards.clone());
        let parts: Vec<_> = self.crops(case, input)?.iter().map(|crops| input.upload(crops, &self.open.device)).collect();
        repeated(case.batch, move || {
            // One value of each is enough to wait for.
            let firsts = shards.map(&parts, |_, faces| faces.hog(&hog).slice([0..1, 0..1, 0..1]).reshape([1]));
            Ok(Some(Tensor::<1>::cat(firsts, 0)))
        })
    }

    /// A batch of whole faces in the parts that the threads take.
    fn crops(&self, case: &Case, input: Input) -> Result<Vec<Crops>> {
        let train = self.pack.split(Split::Train);
        let chosen = positions(0, case.batch, train.len());
        let part = |chosen: &[usize]| Ok(input.whole(chosen.iter().map(|&i| self.pack.pixels(train[i])).collect::<Result<Vec<_>>>()?));
        chosen.chunks(case.batch.div_ceil(self.shards.count())).map(part).collect()
    }
}

/// The training faces of a step.
fn positions(step: usize, batch: usize, faces: usize) -> Vec<usize> {
    (0..batch).map(|i| (step.wrapping_mul(batch).wrapping_add(i)) % faces).collect()
}

/// Repeats a step of `batch` faces; what a step returns is read now and then, so that the device has done what was asked of it.
///
/// # Errors
/// When one of the steps that warm it up fails.
fn repeated(batch: usize, mut step: impl FnMut() -> Result<Option<Tensor<1>>> + 'static) -> Result<Work> {
    let wait = |pending: Option<Tensor<1>>| pending.map_or(Ok(()), |tensor| read_values(tensor).map(|_| ()));
    for _ in 0..WARM_UP {
        let pending = step()?;
        wait(pending)?;
    }
    Ok(Box::new(move |seconds| {
        let (began, mut steps) = (Instant::now(), 0);
        loop {
            let pending = step()?;
            steps += 1;
            let over = began.elapsed().as_secs_f64() >= seconds;
            if over || steps % WAIT == 0 {
                wait(pending)?;
            }
            if over {
                return Ok((steps * batch) as u64);
            }
        }
    }))
}

/// The loss of a step, `[1]`, without the graphs that a backward pass would need: dropping those unused costs more than using them.
fn forward<O: Objective>(
    objective: &O,
    model: &O::Model,
    loaded: &Loaded<<O::Source as Source>::Batch>,
    here: Position,
    shards: &Shards,
    device: &Device,
) -> Tensor<1> {
    let total: f64 = loaded.parts.iter().map(|part| objective.weight(part)).sum();
    let (model, device) = (model.valid(), device.clone().inner());
    let losses = shards.map(&loaded.parts, |i, batch| {
        let mut noise = Noise::new(here.streams.at(&format!("noise/{}", here.stage), &[here.step, i as u64]));
        let shard = Shard { share: objective.weight(batch) / total.max(f64::MIN_POSITIVE), first: i == 0 };
        objective.forward(&model, batch, shard, &mut noise, &device).loss
    });
    Tensor::cat(losses, 0).sum()
}
