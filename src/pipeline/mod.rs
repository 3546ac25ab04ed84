//! A run from plan to result: which stages there are, in which order, and what each hands to the next.
//!
//! ```text
//! pretrain:  masked-image modelling                      -> encoder
//! labels:    [encoder] -> each fold: plain training, predictions -> candidates.csv
//! finetune:  [encoder] -> candidates -> partial labels   -> classifier, labels.csv
//!                                    -> plain baseline   -> classifier
//! demo:      generated faces -> pretrain -> finetune     -> the comparison
//! ```
//! Every stage leaves a checkpoint; a resumed run skips what is done and goes on in the middle of what is not.

pub mod calibration;
pub mod footprint;
pub mod load;
pub mod outcome;
pub mod recogniser;
pub mod resume;
pub mod training;
pub mod trial;

use crate::config::{Objective, Resolved};
use crate::crossfit::CrossFit;
use crate::dataset::{Pack, Split, leaks};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::engine::shards::Shards;
use crate::engine::train::{Ended, Plan, train};
use crate::failure::survive;
use crate::finetune::Finetune;
use crate::labels::Candidates;
use crate::model::init::Init;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit, Vit};
use crate::pretrain::MaskedModelling;
use crate::random::Streams;
use crate::run::checkpoint::{self, Checkpoint, State};
use crate::run::differences::differences;
use crate::run::manifest::{Data, Setting};
use crate::run::{
    At, Body, EventSender, EventWriter, Level, Lock, Manifest, Outcome, Phase, RunFolder, RunSummary, Sink, Stopped, Supervision, disk,
    until_checkpoint,
};
use crate::usage;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

pub use footprint::{Fit, Footprint, Machine};
pub use load::Start;
pub use outcome::Comparison;
pub use recogniser::Recogniser;
pub use training::{Regime, Stages, Training};
pub use trial::Trial;

/// A run, ready to start: nothing in it is still to be looked up or chosen.
pub struct Job {
    pub command: Vec<String>,
    pub stages: Stages,
    pub resolved: Resolved,
    pub seed: u64,
    pub pack: Arc<Pack>,
    pub device: OpenDevice,
    pub precision: Precision,
    pub folder: RunFolder,
    pub resume: bool,
    /// Run whose pretrained encoder finetuning starts from.
    pub from: Option<PathBuf>,
    /// Candidate sets, for finetuning, and the file they came from.
    pub candidates: Option<Candidates>,
    pub labels: Option<PathBuf>,
    pub supervision: Supervision,
    /// Told before anything is trained.
    pub remarks: Vec<String>,
}

/// How a job ended.
pub enum JobEnd {
    Done(Results),
    Interrupted,
}

/// What a finished job has to show beside its run folder.
#[derive(Default)]
pub struct Results {
    /// Of cross-fitting.
    pub candidates: Option<Candidates>,
    /// Of finetuning.
    pub comparison: Option<Comparison>,
}

impl Job {
    /// Carries the job out.
    ///
    /// # Errors
    /// Whatever a stage reports; the events then end with the failure, and the run can be resumed from its newest checkpoint.
    pub fn run(mut self) -> Result<JobEnd> {
        let trainings = self.stages.trainings(self.resolved.settings());
        // Before anything is written: another process may be at it.
        let lock = self.folder.lock()?;
        let mut manifest = if self.resume { self.gone_on()? } else { self.manifest()? };
        manifest.finished = None;
        manifest.write(&self.folder)?;
        let sinks = std::mem::take(&mut self.supervision.sinks);
        let writer = if self.resume {
            self.folder.sweep(&lock)?;
            self.resumed_writer(&trainings, lock, sinks)?
        } else {
            EventWriter::create(&self.folder, lock, sinks)?
        };
        let events = writer.sender();
        let prints = self.supervision.prints.clone();
        let attached = prints.attach(events.clone());
        let (command, version) = (self.command.join(" "), env!("CARGO_PKG_VERSION").to_string());
        let begin = if self.resume { Body::RunResumed { command, version } } else { Body::RunStarted { command, version } };
        events.emit(&At::run(), begin);
        // A process may do several.
        self.supervision.control.begin();
        events.emit(&At::run(), Body::Message { level: Level::Info, text: self.where_it_runs() });
        for text in std::mem::take(&mut self.remarks) {
            events.emit(&At::run(), Body::Message { level: Level::Info, text });
        }
        let result = survive(|| {
            self.look_for_leaks(&mut manifest, &events)?;
            self.carry_out(&trainings, &events, &writer)
        });
        self.supervision.control.end();
        let result = match result {
            Err(error) if error.is::<Stopped>() => Ok(Ended::Interrupted),
            Err(error) if self.device.is_lost() => {
                Err(error.context(format!("{} is lost; what was saved is whole: go on with --resume", self.device.name)))
            }
            result => result,
        };
        let (outcome, message) = match &result {
            Ok(Ended::Done(_)) => (Outcome::Completed, String::new()),
            Ok(Ended::Interrupted) => (Outcome::Interrupted, "stopped on request; go on with --resume".to_string()),
            Err(e) => (Outcome::Failed, crate::failure::one_line(e)),
        };
        drop(attached);
        events.emit(&At::run(), Body::RunFinished { outcome, message });
        manifest.finish(outcome);
        // The stage's own error tells more than a log that could not be finished after it.
        let closed = writer.finish().and_then(|()| manifest.write(&self.folder));
        let end = result?;
        closed?;
        Ok(match end {
            Ended::Interrupted => JobEnd::Interrupted,
            Ended::Done(candidates) => {
                let comparison = || Comparison::read(&self.folder, &self.pack, self.candidates.as_ref());
                JobEnd::Done(Results { candidates, comparison: self.stages.finetune.then(comparison).transpose()? })
            }
        })
    }

    /// Counts copies of held-out faces among the training faces, once in a run, and says so: the run goes on, its scores are not honest.
    fn look_for_leaks(&self, manifest: &mut Manifest, events: &EventSender) -> Result<()> {
        let Some(data) = manifest.data.as_mut().filter(|data| data.leaks.is_none()) else { return Ok(()) };
        let found = events.phase(&At::run(), Phase::Load, || leaks::find(&self.pack)).context("looking for copies between splits")?;
        if let Some(text) = leaks::warning(&found) {
            let text = format!("{text}: {}", leaks::REMEDY);
            events.emit(&At::run(), Body::Message { level: Level::Warning, text });
        }
        data.leaks = Some(found);
        manifest.write(&self.folder)
    }

    fn where_it_runs(&self) -> String {
        let products = match self.precision {
            Precision::Single => "single precision",
            Precision::Mixed => "matrix products in half precision",
        };
        format!("device: {} ({}), {products}", self.device.name, self.device.why)
    }

    /// What the run's folder says of it at its beginning.
    ///
    /// # Errors
    /// Where an input cannot be read.
    pub fn manifest(&self) -> Result<Manifest> {
        let mut manifest = Manifest::new(self.command.clone(), self.seed);
        manifest.stages = self.stages.names(self.resolved.settings());
        manifest.device = self.device.description.clone();
        manifest.device["precision"] = self.precision.name().into();
        let machine = self.machine();
        (manifest.threads, manifest.workers) = (Some(machine.shards), Some(machine.workers));
        manifest.data = Some(Data::of(&self.pack));
        if self.pack.path().parent() == Some(self.folder.path()) {
            manifest.generator = serde_json::from_value(self.pack.provenance()["generator"].clone()).ok();
        }
        for (flag, path) in [("from", &self.from), ("labels", &self.labels)] {
            if let Some(path) = path {
                // Absolute, so that the run can be resumed and repeated from any folder.
                manifest.inputs.set(flag, std::path::absolute(path)?.display().to_string());
                manifest.input_hashes.set(flag, load::fingerprint(path)?);
            }
        }
        for (key, value, origin) in self.resolved.entries() {
            manifest.settings.set(key, Setting { value: serde_json::Value::String(value), origin: origin.to_string() });
        }
        Ok(manifest)
    }

    /// What the folder of a run that goes on says of it from now on. What differs from before and results depend on is told and recorded.
    fn gone_on(&mut self) -> Result<Manifest> {
        let (mut manifest, now) = (Manifest::read(&self.folder)?, self.manifest()?);
        let mut changes = std::mem::take(&mut manifest.changes);
        let found = differences(&manifest, &now).into_iter().filter(|difference| difference.matters);
        let found: Vec<String> = found.map(|d| format!("{} from {} to {}", d.what, d.then, d.now)).collect();
        if !found.is_empty() {
            self.remarks.push("the run goes on otherwise than before: its results may differ from those of an undisturbed one".into());
            self.remarks.extend(found.iter().map(|text| format!("changed by the resume: {text}")));
        }
        changes.extend(found);
        let mut told = HashSet::new();
        changes.retain(|text| told.insert(text.clone()));
        manifest.changes = changes;
        (manifest.device, manifest.threads, manifest.workers) = (now.device, now.threads, now.workers);
        match (&mut manifest.data, now.data) {
            // Where it lies now, and what is known of it.
            (Some(data), Some(now)) => data.pack = now.pack,
            (data, now) => *data = now,
        }
        Ok(manifest)
    }

    fn machine(&self) -> Machine {
        Machine::of(self.resolved.settings(), &self.device, self.precision)
    }

    /// Keeps the events up to the point of resume.
    fn resumed_writer(&self, trainings: &[Training], lock: Lock, sinks: Vec<Box<dyn Sink>>) -> Result<EventWriter> {
        match resume::point(&self.folder, trainings)? {
            Some(path) => EventWriter::resume(&self.folder, lock, sinks, until_checkpoint(&path)),
            None => EventWriter::resume(&self.folder, lock, sinks, |_| false),
        }
    }

    /// Does the trainings in order; the candidate sets where cross-fitting was among them.
    fn carry_out(&self, trainings: &[Training], events: &EventSender, writer: &EventWriter) -> Result<Ended<Option<Candidates>>> {
        let s = self.resolved.settings();
        let streams = Streams::new(self.seed);
        let device = self.device.device.clone().autodiff();
        let machine = self.machine();
        let shards = Shards::new(machine.shards)?.in_precision(self.precision).under(self.supervision.control.clone());
        let ended = RunSummary::read(&self.folder)?.stages.iter().filter(|stage| stage.finished).map(|stage| stage.place()).collect();
        let muted = events.muted();
        let context = StageContext { job: self, streams, device: &device, shards: &shards, machine, events, muted: &muted, ended };
        for name in &context.ended {
            events.emit(&At::run(), Body::Message { level: Level::Info, text: format!("{name} was done before") });
        }

        let mut start: Option<Start> = None;
        if trainings.contains(&Training::Pretrain) {
            match context.pretrain()? {
                Ended::Done(trained) => start = Some(Start::encoder(trained)),
                Ended::Interrupted => return Ok(Ended::Interrupted),
            }
            writer.check()?;
        }
        if !self.stages.labels && !self.stages.finetune {
            return Ok(Ended::Done(None));
        }
        let init = Init { streams, device: &device };
        let start = match (start, &self.from) {
            (Some(start), _) => start,
            (None, Some(from)) => load::start(from, s, &self.pack.protocol().classes, &init)?,
            (None, None) => {
                let text = "the encoder starts from random weights (no --from RUN with a pretrained one)".to_string();
                events.emit(&At::run(), Body::Message { level: Level::Info, text });
                Start::encoder(Encoder::new(&init, s))
            }
        };
        let mut candidates = None;
        if self.stages.labels {
            match context.crossfit(&start.encoder, writer)? {
                Ended::Done(found) => candidates = Some(found),
                Ended::Interrupted => return Ok(Ended::Interrupted),
            }
        }
        for training in trainings {
            let Training::Finetune(objective) = *training else { continue };
            if let Ended::Interrupted = context.finetune(objective, &start)? {
                return Ok(Ended::Interrupted);
            }
            writer.check()?;
        }
        Ok(Ended::Done(candidates))
    }
}

/// What the stages of one job share.
struct StageContext<'a> {
    job: &'a Job,
    streams: Streams,
    device: &'a Device,
    shards: &'a Shards,
    machine: Machine,
    events: &'a EventSender,
    /// The same, saying nothing.
    muted: &'a EventSender,
    /// Trainings that the log knew to the end when the job began.
    ended: Vec<String>,
}

impl<'a> StageContext<'a> {
    /// Tells of a training, unless all of it is on record: a resume loads what is done, which would count as the stage's own time.
    fn events_of(&self, training: Training) -> &'a EventSender {
        if self.ended.contains(&training.name()) { self.muted } else { self.events }
    }

    fn plan(&self, training: Training) -> Plan<'a> {
        let s = self.job.resolved.settings();
        let labelled = training != Training::Pretrain;
        let card = self.job.pack.protocol();
        let state = State {
            stage: training.name(),
            seed: self.job.seed,
            classes: if labelled { card.classes.clone() } else { Vec::new() },
            protocol_hash: if labelled { card.hash() } else { String::new() },
            protocol: labelled.then(|| card.clone()),
            settings: self.job.resolved.entries().map(|(k, v, _)| (k.to_string(), v)).collect(),
            ..State::default()
        };
        let regime = Regime::of(training, s);
        Plan {
            at: training.at(),
            epochs: regime.epochs as u64,
            batch: regime.batch,
            accumulate: self.accumulate(training, &regime),
            peak_rate: regime.lr,
            floor_rate: regime.min_lr,
            warmup_epochs: regime.warmup,
            optimizer: training.optimizer(s),
            log_every: s.run.log_every as u64,
            checkpoint_every: s.run.checkpoint_every as u64,
            keep_every: s.run.keep_every as u64,
            bad_steps: s.run.bad_steps as u64,
            workers: self.machine.workers,
            streams: self.streams,
            device: self.device,
            compiles: !self.job.device.is_cpu,
            shards: self.shards,
            folder: &self.job.folder,
            events: self.events_of(training),
            control: &self.job.supervision.control,
            state,
            resume: self.job.resume,
            kind: training.kind(),
        }
    }

    /// Parts of a batch in turn; where the settings leave that open, as few as the device's memory allows by estimate.
    fn accumulate(&self, training: Training, regime: &Regime) -> usize {
        if regime.accumulate > 0 {
            return regime.accumulate;
        }
        let job = self.job;
        let classes = job.pack.protocol().classes.len();
        let most = Footprint::of(training, job.resolved.settings(), classes, &self.machine).and_then(|f| f.most(&job.device));
        let accumulate = most.map_or(1, |most| regime.batch.div_ceil(most.clamp(1, regime.batch)));
        let at_once = regime.batch.div_ceil(accumulate);
        let text = format!("{}: {} faces a step, {at_once} at once by estimate", training.name(), regime.batch);
        self.events_of(training).emit(&training.at(), Body::Message { level: Level::Info, text });
        accumulate
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
        let settings = job.resolved.settings();
        let mut objective = self.events_of(Training::Pretrain).phase(&Training::Pretrain.at(), Phase::Load, || {
            MaskedModelling::<M>::new(job.pack.clone(), job.pack.split(Split::Train), settings, self.streams)
        });
        let fresh = || Ok(M::new(&self.init(), settings));
        Ok(match train(&mut objective, &fresh, &self.plan(Training::Pretrain))? {
            Ended::Done(model) => Ended::Done(model.into_encoder()),
            Ended::Interrupted => Ended::Interrupted,
        })
    }

    /// Trains and asks one model after another; each is dropped before the next.
    fn crossfit(&self, encoder: &Encoder, writer: &EventWriter) -> Result<Ended<Candidates>> {
        let job = self.job;
        let settings = job.resolved.settings();
        let say = |level: Level, text: String| self.events.emit(&At::run(), Body::Message { level, text });
        let mut crossfit = CrossFit::new(job.pack.clone(), settings, self.streams)?;
        crossfit.shortages().into_iter().for_each(|text| say(Level::Warning, text));
        let classes = job.pack.protocol().classes.len();
        for fold in 0..crossfit.folds() {
            let training = Training::Fold(fold);
            let events = self.events_of(training);
            let mut objective = events.phase(&training.at(), Phase::Load, || crossfit.training(fold));
            let fresh = || Ok(Classifier::new(&self.init(), encoder.clone(), classes, settings));
            let plan = self.plan(training);
            let Ended::Done(model) = train(&mut objective, &fresh, &plan)? else { return Ok(Ended::Interrupted) };
            let ask = || crossfit.ask(fold, &model.valid(), self.shards, plan.accumulate);
            events.phase(&training.at(), Phase::Evaluate, ask)?;
            writer.check()?;
        }
        let candidates = crossfit.candidates();
        self.with_room(&At::run(), || candidates.write_csv(&job.folder.candidates(), &job.pack))?;
        say(Level::Info, format!("{:.1} % of {} faces are ambiguous", 100.0 * candidates.ambiguous_share(), candidates.sets.len()));
        if let Some(agreement) = candidates.agreement(&job.pack) {
            say(Level::Info, format!("{:.1} % are predicted as their given label", 100.0 * agreement));
        }
        if let Some(kappas) = candidates.kappas(settings.labels.attack_steps + 1) {
            let counts: Vec<String> = kappas.iter().map(usize::to_string).collect();
            say(Level::Info, format!("faces with kappa 0 to {}: {}", kappas.len() - 1, counts.join(", ")));
        }
        Ok(Ended::Done(candidates))
    }

    fn finetune(&self, objective: Objective, start: &Start) -> Result<Ended<Classifier>> {
        let job = self.job;
        let settings = job.resolved.settings();
        let training = Training::Finetune(objective);
        let events = self.events_of(training);
        let mut finetune = events.phase(&training.at(), Phase::Load, || {
            Finetune::new(objective, job.pack.clone(), job.candidates.as_ref(), settings, self.streams)
        })?;
        let classes = job.pack.protocol().classes.len();
        let fresh = || start.classifier(&self.init(), classes, settings);
        let plan = self.plan(training);
        let Ended::Done(model) = train(&mut finetune, &fresh, &plan)? else { return Ok(Ended::Interrupted) };
        self.calibrate(&model, &plan)?;
        if finetune.decides() {
            self.with_room(&plan.at, || outcome::write_labels(&job.folder.labels(), &job.pack, &finetune))?;
        }
        let predict = || outcome::predictions(&model.valid(), &job.pack, settings, self.shards);
        let predictions = events.phase(&training.at(), Phase::Evaluate, predict)?;
        self.with_room(&plan.at, || predictions.write(&job.folder.predictions(objective.name())))?;
        Ok(Ended::Done(model))
    }

    /// Fits the temperature of a network whose training is done and keeps it beside the checkpoints.
    fn calibrate(&self, model: &Classifier, plan: &Plan) -> Result<()> {
        let job = self.job;
        let settings = job.resolved.settings();
        let fitted =
            plan.events.phase(&plan.at, Phase::Evaluate, || calibration::fitted(&model.valid(), &job.pack, settings, self.shards))?;
        match (fitted, checkpoint::latest_step(&job.folder, &plan.state.stage)?) {
            (Some(fitted), Some(step)) => self.with_room(&plan.at, || calibration::write(&job.folder, &plan.state.stage, step, fitted)),
            _ => Ok(()),
        }
    }

    /// Does work that writes, see [`disk::with_room`].
    fn with_room<T>(&self, at: &At, work: impl FnMut() -> Result<T>) -> Result<T> {
        disk::with_room(self.events, &self.job.supervision.control, at, work)
    }
}

/// The newest checkpoint of a finished (or at least begun) objective, or the one with the best validation score; none named: of the first
/// objective that the run has, the baseline last. With it what a user has to know: which damaged ones were passed over.
///
/// # Errors
/// There is none, or none that can be read; another objective's is no replacement for it.
pub fn find_checkpoint(folder: &RunFolder, which: Option<&str>, best: bool) -> Result<(Checkpoint, Vec<String>)> {
    let named = |o: &Objective| which.is_none_or(|w| w == o.name());
    let mut objectives: Vec<Objective> = Objective::ALL.into_iter().filter(named).collect();
    objectives.sort_by_key(|o| *o == Objective::Ce);
    let run = folder.path().display();
    for stage in objectives.into_iter().map(|objective| Training::Finetune(objective).name()) {
        let mut damaged = Vec::new();
        let found = if best {
            checkpoint::best(folder, &stage, |text| damaged.push(text))?.map(|path| Checkpoint::read(&path)).transpose()?
        } else {
            checkpoint::newest(folder, &stage, |text| damaged.push(text))?.map(|(_, newest)| newest)
        };
        if let Some(checkpoint) = found {
            return Ok((checkpoint, damaged));
        }
        if !damaged.is_empty() {
            bail!("run {run} has no readable checkpoint of {stage}: {} damaged", damaged.len());
        }
        if best && !checkpoint::list(folder, &stage)?.is_empty() {
            usage!("no checkpoint of {stage} in {run} was measured on a validation split");
        }
    }
    bail!("run {run} has no checkpoint of {}", which.unwrap_or("any objective"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceChoice;
    use crate::dataset::PackWriter;
    use crate::dataset::generated::{self, GeneratorConfig};
    use crate::engine::device;
    use std::path::Path;

    /// A job on a few generated faces, to go on with.
    fn job(root: &Path) -> Job {
        let path = root.join("faces.moue");
        let mut writer = PackWriter::create(&path, generated::protocol()).unwrap();
        let config = GeneratorConfig { train: 2, valid: 0, test: 0, size: 32, ..GeneratorConfig::default() };
        generated::generate(&config, &mut writer).unwrap();
        writer.finish(generated::provenance(&config)).unwrap();
        Job {
            command: Vec::new(),
            stages: Stages { pretrain: true, ..Stages::default() },
            resolved: Resolved::default().with_flag("run.threads=2").unwrap(),
            seed: 0,
            pack: Arc::new(Pack::open(&path).unwrap()),
            device: device::open(DeviceChoice::Cpu).unwrap(),
            precision: Precision::Single,
            folder: RunFolder::create(&root.join("run")).unwrap(),
            resume: true,
            from: None,
            candidates: None,
            labels: None,
            supervision: Supervision::default(),
            remarks: Vec::new(),
        }
    }

    #[test]
    fn a_run_that_goes_on_otherwise_says_so_and_keeps_it_on_record() {
        let root = tempfile::tempdir().unwrap();
        let mut job = job(root.path());
        let mut before = job.manifest().unwrap();
        before.write(&job.folder).unwrap();
        assert_eq!((job.gone_on().unwrap(), job.remarks.len()), (before.clone(), 0));

        // As another machine would have begun it.
        before.device["precision"] = "mixed".into();
        (before.threads, before.workers) = (Some(3), Some(99));
        before.data.as_mut().unwrap().pack = "/nowhere/faces.moue".into();
        before.write(&job.folder).unwrap();
        let after = job.gone_on().unwrap();
        let changes = ["device: precision from mixed to f32", "threads from 3 to 2"];
        assert_eq!(after.changes, changes);
        assert!(job.remarks.len() == 3 && job.remarks[0].contains("undisturbed"), "{:?}", job.remarks);
        assert_eq!((&after.device["precision"], after.threads), (&"f32".into(), Some(2)));
        assert_eq!(after.data.as_ref().unwrap().pack, job.pack.path().display().to_string());
        // Once it is on record, going on in that way is nothing new; and it stays there.
        after.write(&job.folder).unwrap();
        job.remarks.clear();
        assert_eq!((job.gone_on().unwrap().changes, job.remarks.len()), (changes.map(String::from).to_vec(), 0));
    }

    #[test]
    fn a_damaged_checkpoint_is_not_replaced_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let at = |stage: &str, step| folder.checkpoints().join(checkpoint::file_name(stage, step));
        for (stage, step, score) in [("finetune/pll", 5, Some(0.9)), ("finetune/pll", 10, Some(0.8)), ("baseline/ce", 10, None)] {
            let state = State { stage: stage.into(), step, score, ..State::default() };
            Checkpoint::new(state, Vec::new()).write(&at(stage, step)).unwrap();
        }
        let found = |which, best| find_checkpoint(&folder, which, best).map(|(c, remarks)| (c.state.stage, c.state.step, remarks.len()));
        assert_eq!(found(None, false).unwrap(), ("finetune/pll".into(), 10, 0));
        assert_eq!(found(None, true).unwrap(), ("finetune/pll".into(), 5, 0));
        assert!(found(Some("ce"), true).unwrap_err().to_string().contains("no checkpoint of baseline/ce in"));
        std::fs::write(at("finetune/pll", 10), "torn").unwrap();
        assert_eq!(found(None, false).unwrap(), ("finetune/pll".into(), 5, 1));
        let remarks = find_checkpoint(&folder, None, false).map(|found| found.1).unwrap();
        assert!(remarks[0].contains("finetune-pll-00000010.ckpt") && remarks[0].contains("using the one before it"), "{remarks:?}");
        // The baseline is another network.
        std::fs::write(at("finetune/pll", 5), "torn").unwrap();
        for best in [false, true] {
            assert!(found(None, best).unwrap_err().to_string().contains("no readable checkpoint of finetune/pll: 2 damaged"));
        }
        assert_eq!(found(Some("ce"), false).unwrap(), ("baseline/ce".into(), 10, 0));
    }
}
