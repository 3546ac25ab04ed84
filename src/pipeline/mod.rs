//! A run from plan to result: which stages there are, in which order, and what each hands to the next.
//!
//! ```text
//! pretrain:  masked-image modelling                      -> encoder
//! finetune:  [encoder] -> candidates -> partial labels   -> classifier, labels.csv
//!                                    -> plain baseline   -> classifier
//! demo:      generated faces -> pretrain -> finetune     -> the comparison
//! ```
//! Every stage leaves a checkpoint; a resumed run skips what is done and goes on in the middle of what is not.

pub mod load;
pub mod outcome;
pub mod trial;

use crate::config::{Objective, Resolved, Settings};
use crate::dataset::{Pack, Split};
use crate::engine::checkpoint::{self, State};
use crate::engine::device::OpenDevice;
use crate::engine::interrupt;
use crate::engine::optimizer::OptimizerConfig;
use crate::engine::shards::Shards;
use crate::engine::train::{Ended, Plan, train};
use crate::finetune::Finetune;
use crate::labels::Candidates;
use crate::model::init::Init;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit, Vit};
use crate::pretrain::MaskedModelling;
use crate::random::Streams;
use crate::run::event::place;
use crate::run::manifest::{Data, Setting};
use crate::run::{At, Body, EventSender, EventWriter, Level, Manifest, Outcome, Phase, RunFolder, Sink, Stage, until_checkpoint};
use anyhow::{Result, bail};
use burn::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;

pub use outcome::Comparison;
pub use trial::Trial;

/// Stages a command may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    pub pretrain: bool,
    pub finetune: bool,
}

/// A run, ready to start: nothing in it is still to be looked up or chosen.
pub struct Job {
    pub command: Vec<String>,
    pub stages: Stages,
    pub resolved: Resolved,
    pub seed: u64,
    pub pack: Arc<Pack>,
    pub device: OpenDevice,
    pub folder: RunFolder,
    pub resume: bool,
    /// Run whose pretrained encoder finetuning starts from.
    pub from: Option<PathBuf>,
    /// Candidate sets, for finetuning, and the file they came from.
    pub candidates: Option<Candidates>,
    pub labels: Option<PathBuf>,
    pub sinks: Vec<Box<dyn Sink>>,
}

/// How a job ended.
pub enum JobEnd {
    /// All stages are done; the comparison where finetuning was one of them.
    Done(Option<Comparison>),
    Interrupted,
}

pub const PRETRAIN: &str = "pretrain";

/// Where an objective is trained: the plain baseline is a stage of its own kind.
pub fn stage_of(objective: Objective) -> (Stage, &'static str) {
    let stage = if objective == Objective::Ce { Stage::Baseline } else { Stage::Finetune };
    (stage, objective.name())
}

/// The name of that stage, as events and checkpoints carry it: `finetune/pll`.
pub fn stage_name(objective: Objective) -> String {
    let (stage, label) = stage_of(objective);
    place(stage, label)
}

impl Stages {
    /// The objectives to be trained, in order; the plain baseline comes last.
    pub fn objectives(self, settings: &Settings) -> Vec<Objective> {
        let chosen = settings.finetune.objective;
        let baseline = settings.finetune.baseline && chosen != Objective::Ce;
        if self.finetune { std::iter::once(chosen).chain(baseline.then_some(Objective::Ce)).collect() } else { Vec::new() }
    }

    /// Names of the stages, as events and checkpoints carry them.
    pub fn names(self, settings: &Settings) -> Vec<String> {
        let pretrain = self.pretrain && settings.pretrain.epochs > 0;
        let finetune = self.objectives(settings).into_iter().map(stage_name);
        pretrain.then(|| PRETRAIN.to_string()).into_iter().chain(finetune).collect()
    }
}

impl Job {
    /// Carries the job out.
    ///
    /// # Errors
    /// Whatever a stage reports; the events then end with the failure, and the run can be resumed from its newest checkpoint.
    pub fn run(mut self) -> Result<JobEnd> {
        let names = self.stages.names(self.resolved.settings());
        let mut manifest = if self.resume { Manifest::read(&self.folder)? } else { self.manifest(&names) };
        manifest.finished = None;
        manifest.write(&self.folder)?;
        let sinks = std::mem::take(&mut self.sinks);
        let writer = if self.resume { self.resumed_writer(&names, sinks)? } else { EventWriter::create(&self.folder, sinks)? };
        let events = writer.sender();
        let (command, version) = (self.command.join(" "), env!("CARGO_PKG_VERSION").to_string());
        let begin = if self.resume { Body::RunResumed { command, version } } else { Body::RunStarted { command, version } };
        events.emit(&At::run(), begin);
        events.emit(&At::run(), Body::Message { level: Level::Info, text: format!("device: {} ({})", self.device.name, self.device.why) });
        let result = self.stages(&names, &events, &writer);
        let (outcome, message) = match &result {
            Ok(Ended::Done(())) => (Outcome::Completed, String::new()),
            Ok(Ended::Interrupted) => (Outcome::Interrupted, "stopped on request; go on with --resume".to_string()),
            Err(e) => (Outcome::Failed, crate::failure::one_line(e)),
        };
        events.emit(&At::run(), Body::RunFinished { outcome, message });
        manifest.finish(outcome);
        // The stage's own error tells more than a log that could not be finished after it.
        let closed = writer.finish().and_then(|()| manifest.write(&self.folder));
        let end = result?;
        closed?;
        Ok(match end {
            Ended::Interrupted => JobEnd::Interrupted,
            Ended::Done(()) if self.stages.finetune => {
                JobEnd::Done(Some(Comparison::read(&self.folder, &self.pack, self.candidates.as_ref())?))
            }
            Ended::Done(()) => JobEnd::Done(None),
        })
    }

    fn manifest(&self, names: &[String]) -> Manifest {
        let mut manifest = Manifest::new(self.command.clone(), self.seed);
        manifest.stages = names.to_vec();
        manifest.device = self.device.description.clone();
        manifest.data = Some(Data::of(&self.pack));
        for (flag, path) in [("from", &self.from), ("labels", &self.labels)] {
            if let Some(path) = path {
                manifest.inputs.set(flag, path.display().to_string());
            }
        }
        for (key, value, origin) in self.resolved.entries() {
            manifest.settings.set(key, Setting { value: serde_json::Value::String(value), origin: origin.to_string() });
        }
        manifest
    }

    /// Keeps the events up to the newest checkpoint that can be read.
    fn resumed_writer(&self, names: &[String], sinks: Vec<Box<dyn Sink>>) -> Result<EventWriter> {
        for name in names.iter().rev() {
            if let Some((path, _)) = checkpoint::newest(&self.folder, name, |_| {})? {
                let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                return EventWriter::resume(&self.folder, sinks, until_checkpoint(&format!("checkpoints/{file}")));
            }
        }
        EventWriter::resume(&self.folder, sinks, |_| false)
    }

    fn stages(&self, names: &[String], events: &EventSender, writer: &EventWriter) -> Result<Ended<()>> {
        let s = self.resolved.settings();
        let streams = Streams::new(self.seed);
        let device = self.device.device.clone().autodiff();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let or_cores = |n: usize| if n == 0 { cores } else { n };
        let shards = Shards::new(if self.device.is_cpu { or_cores(s.run.threads) } else { 1 })?;
        let context = StageContext { job: self, streams, device: &device, shards: &shards, workers: or_cores(s.run.workers), events };

        let mut encoder = None;
        if names.iter().any(|n| n == PRETRAIN) {
            match context.pretrain()? {
                Ended::Done(trained) => encoder = Some(trained),
                Ended::Interrupted => return Ok(Ended::Interrupted),
            }
            writer.check()?;
        }
        if !self.stages.finetune {
            return Ok(Ended::Done(()));
        }
        let init = Init { streams, device: &device };
        let encoder = match (encoder, &self.from) {
            (Some(encoder), _) => encoder.into(),
            (None, Some(run)) => load::pretrained_encoder(run, s, &init)?.into(),
            (None, None) => {
                let text = "the encoder starts from random weights (no --from RUN with a pretrained one)".to_string();
                events.emit(&At::run(), Body::Message { level: Level::Info, text });
                Encoder::new(&init, s)
            }
        };
        for objective in self.stages.objectives(s) {
            if let Ended::Interrupted = context.finetune(objective, encoder.clone())? {
                return Ok(Ended::Interrupted);
            }
            writer.check()?;
        }
        Ok(Ended::Done(()))
    }
}

/// The optimiser of a stage.
pub fn optimizer(s: &Settings, stage: &str) -> OptimizerConfig {
    let (p, f, depth) = (&s.pretrain, &s.finetune, s.encoder_blocks());
    if stage == PRETRAIN {
        return OptimizerConfig { weight_decay: p.weight_decay, beta1: p.beta1, beta2: p.beta2, clip: p.clip, layer_decay: 1.0, depth };
    }
    OptimizerConfig { weight_decay: f.weight_decay, beta1: f.beta1, beta2: f.beta2, clip: f.clip, layer_decay: f.layer_decay, depth }
}

/// What the stages of one job share.
struct StageContext<'a> {
    job: &'a Job,
    streams: Streams,
    device: &'a Device,
    shards: &'a Shards,
    workers: usize,
    events: &'a EventSender,
}

impl<'a> StageContext<'a> {
    fn plan(&self, name: &str, at: At) -> Plan<'a> {
        let s = self.job.resolved.settings();
        let pretrain = name == PRETRAIN;
        let card = self.job.pack.protocol();
        let state = State {
            format: 0,
            stage: name.to_string(),
            step: 0,
            steps: 0,
            seed: self.job.seed,
            classes: if pretrain { Vec::new() } else { card.classes.clone() },
            protocol_hash: if pretrain { String::new() } else { card.hash() },
            settings: self.job.resolved.entries().map(|(k, v, _)| (k.to_string(), v)).collect(),
        };
        let (p, f) = (&s.pretrain, &s.finetune);
        let pick = |a: usize, b: usize| if pretrain { a } else { b };
        let rate = |a: f64, b: f64| if pretrain { a } else { b };
        Plan {
            at,
            epochs: pick(p.epochs, f.epochs) as u64,
            batch: pick(p.batch, f.batch),
            accumulate: pick(p.accumulate, f.accumulate),
            peak_rate: rate(p.lr, f.lr),
            floor_rate: rate(p.min_lr, f.min_lr),
            warmup_epochs: rate(p.warmup, f.warmup),
            optimizer: optimizer(s, name),
            log_every: s.run.log_every as u64,
            checkpoint_every: s.run.checkpoint_every as u64,
            workers: self.workers,
            streams: self.streams,
            device: self.device,
            shards: self.shards,
            folder: &self.job.folder,
            events: self.events,
            state,
            resume: self.job.resume,
            kind: if pretrain { "pretrain" } else { "finetune" },
        }
    }

    fn init(&self) -> Init<'a> {
        Init { streams: self.streams, device: self.device }
    }

    fn pretrain(&self) -> Result<Ended<Vit>> {
        if self.job.resolved.settings().pretrain.method.visible_only() {
            self.pretrain_network::<MaskedAutoencoder>()
        } else {
            self.pretrain_network::<MaskedVit>()
        }
    }

    fn pretrain_network<M: MaskedModel>(&self) -> Result<Ended<Vit>> {
        let job = self.job;
        let at = At::stage(Stage::Pretrain, "");
        let settings = job.resolved.settings();
        let (mut objective, model) = self.events.phase(&at, Phase::Load, || {
            let objective = MaskedModelling::<M>::new(job.pack.clone(), job.pack.split(Split::Train), settings, self.streams);
            (objective, M::new(&self.init(), settings))
        });
        Ok(match train(&mut objective, model, &self.plan(PRETRAIN, at))? {
            Ended::Done(model) => Ended::Done(model.into_encoder()),
            Ended::Interrupted => Ended::Interrupted,
        })
    }

    fn finetune(&self, objective: Objective, encoder: Encoder) -> Result<Ended<Classifier>> {
        let job = self.job;
        let settings = job.resolved.settings();
        let (stage, label) = stage_of(objective);
        let at = At::stage(stage, label);
        let loaded = self.events.phase(&at, Phase::Load, || -> Result<_> {
            let finetune = Finetune::new(objective, job.pack.clone(), job.candidates.as_ref(), settings, self.streams)?;
            let classes = job.pack.protocol().classes.len();
            Ok((finetune, Classifier::new(&self.init(), encoder, classes, settings)))
        });
        let (mut finetune, model) = loaded?;
        let ended = train(&mut finetune, model, &self.plan(&stage_name(objective), at))?;
        if finetune.decides()
            && let Ended::Done(_) = ended
        {
            outcome::write_labels(&job.folder.labels(), &job.pack, &finetune)?;
        }
        Ok(ended)
    }
}

/// The newest checkpoint of a finished (or at least begun) objective; none named: the first that the run has, the baseline last.
pub fn find_checkpoint(folder: &RunFolder, which: Option<&str>) -> Result<checkpoint::Checkpoint> {
    let named = |o: &Objective| which.is_none_or(|w| w == o.name());
    let baseline_last = |o: &Objective| *o == Objective::Ce;
    let mut objectives: Vec<Objective> = Objective::ALL.into_iter().filter(named).collect();
    objectives.sort_by_key(baseline_last);
    for objective in &objectives {
        if let Some((_, found)) = checkpoint::newest(folder, &stage_name(*objective), |_| {})? {
            return Ok(found);
        }
    }
    bail!("run {} has no readable checkpoint of {}", folder.path().display(), which.unwrap_or("any objective"))
}

/// Listens for interrupts before the first job of a process.
pub fn prepare() -> Result<()> {
    interrupt::listen()
}
