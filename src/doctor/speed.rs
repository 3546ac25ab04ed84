//! How long the trainings would take here, from a few of their real steps.
//!
//! Generated faces of the right size go through the very step that training does ([`step`]): at first as few as there are threads, then
//! twice as many as long as that is quick, up to what a batch holds at once. What a batch takes follows from the time of a face and that of
//! an update. Evaluation, reading from slow disks and other programs come on top.

use super::machine::Estimates;
use super::{Case, Row, duration};
use crate::config::{LabelSettings, Objective as Kind, Settings};
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Pack, PackWriter, Split};
use crate::engine::objective::{Objective, Source};
use crate::engine::optimizer::Optimizer;
use crate::engine::precision::LossScale;
use crate::engine::read_values;
use crate::engine::shards::{Network, Position, Shards};
use crate::engine::step::{Loaded, Place, Stepped, step};
use crate::failure;
use crate::finetune::Finetune;
use crate::labels::Candidates;
use crate::model::init::Init;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit};
use crate::pipeline::{Machine, Regime, Training};
use crate::pretrain::MaskedModelling;
use crate::random::Streams;
use anyhow::{Context, Result, anyhow};
use burn::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A run over this is something to know beforehand: it goes on overnight.
pub const LONG: f64 = 86_400.0;
/// A run over this is not to be started by accident: a mistake in it costs a week.
pub const TOO_LONG: f64 = 7.0 * LONG;
/// Generated faces, and with them the most faces in a measured step.
const FACES: usize = 256;
/// Where no memory is estimated.
const UNKNOWN: usize = 16;
/// A step that takes longer is not made larger.
const QUICK: Duration = Duration::from_millis(400);
/// Measured steps of a training go on for so long, and are at least one.
const MEASURE: Duration = Duration::from_millis(1000);

/// What the kinds of work in a step take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    /// Seconds to decode and augment a face, on one thread.
    prepare: f64,
    /// Seconds for a face's forward and backward pass.
    face: f64,
    /// Seconds for an update of the weights.
    update: f64,
    /// Faces in the measured step.
    at_once: usize,
}

impl Pace {
    /// Seconds for a step of so many faces. On a CPU those who prepare faces take their time from those who train; beside a GPU they work
    /// at the same time.
    fn step(&self, batch: f64, is_cpu: bool, machine: Machine) -> f64 {
        let compute = batch * self.face + self.update;
        let prepare = batch * self.prepare / if is_cpu { machine.shards } else { machine.workers }.max(1) as f64;
        if is_cpu { compute + prepare } else { compute.max(prepare) }
    }
}

/// Seconds of the trainings, in order; none of one that could not be measured.
#[derive(Debug, Default)]
pub struct Times {
    all: Vec<(String, Option<f64>)>,
    faces: usize,
    /// What is to be said of other programs that work meanwhile; empty where there are none.
    busy: String,
}

/// Load for each core (programs that want one) from which on what is measured is not what the machine can do.
const BUSY: f64 = 2.0;

/// Says how busy the machine was before anything was measured; nothing where it is not, or the system does not tell (`/proc/loadavg`).
fn busy() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = text.split(' ').next().and_then(|word| word.parse().ok());
    match load.filter(|load| *load > BUSY * cores as f64) {
        Some(load) => format!(", measured at a load of {load:.0} on {cores} cores"),
        None => String::new(),
    }
}

impl Times {
    /// Of all trainings, if all could be measured.
    pub fn total(&self) -> Option<f64> {
        self.all.iter().map(|(_, seconds)| *seconds).sum()
    }

    /// Whether the whole is too long.
    pub fn row(&self) -> Row {
        let name = "time";
        let Some(total) = self.total() else { return Row::ok(name, "not known: not everything could be measured") };
        let found = format!("{} for all trainings on {} faces{}", duration(total), self.faces, self.busy);
        let shorter = "fewer epochs, a smaller network (overlays vit-small, vit-tiny), or another device";
        match total {
            total if total > TOO_LONG => Row::stop(name, format!("{found}: more than {}", duration(TOO_LONG)), shorter),
            total if total > LONG => Row::warning(name, format!("{found}: more than a day"), shorter),
            _ => Row::ok(name, found),
        }
    }
}

/// Measures the trainings of a case one after another, until their times add up to more than `enough`.
///
/// # Errors
/// When faces cannot be generated into a temporary folder.
pub fn measure(case: &Case, estimates: &Estimates, enough: f64, mut tell: impl FnMut(Row)) -> Result<Times> {
    let mut times = Times { faces: case.train_faces(), busy: busy(), ..Times::default() };
    let bench = Bench::open(&case.settings, case)?;
    let mut folds: Option<Option<Pace>> = None;
    for training in case.trainings() {
        let name = training.name();
        let room = estimates.room(training).unwrap_or(UNKNOWN);
        // Folds differ in nothing but their faces.
        let known = matches!(training, Training::Fold(_)).then_some(folds).flatten();
        let (pace, row) = match known {
            Some(pace) => (pace, None),
            None if room == 0 => (None, Some(Row::ok(format!("speed, {name}"), "not measured: there is no room for it"))),
            None => match bench.pace(training, room) {
                Ok(pace) => (Some(pace), None),
                Err(error) => {
                    let found = format!("its steps fail: {}", failure::one_line(&error));
                    (None, Some(Row::stop(format!("speed, {name}"), found, "`moue selftest` tells whether the device is to blame")))
                }
            },
        };
        if let Training::Fold(_) = training {
            folds = Some(pace);
        }
        let spent = pace.map(|pace| {
            let regime = Regime::of(training, &case.settings);
            let faces = match training {
                Training::Fold(_) => times.faces as f64 * (1.0 - 1.0 / case.settings.labels.folds as f64),
                _ => times.faces as f64,
            };
            let batch = (regime.batch as f64).min(faces.max(1.0));
            let step = pace.step(batch, case.open.is_cpu, bench.machine);
            let seconds = regime.epochs as f64 * (faces / batch).floor() * step;
            (seconds, batch / step, regime.epochs, pace.at_once)
        });
        times.all.push((name.clone(), spent.map(|(seconds, ..)| seconds)));
        let row = match (row, spent) {
            (Some(row), _) => row,
            (None, Some((seconds, speed, epochs, at_once))) => {
                let found =
                    format!("{} for {epochs} epochs at {} faces/s ({at_once} faces a step measured)", duration(seconds), rounded(speed));
                Row::ok(format!("speed, {name}"), found)
            }
            (None, None) => Row::ok(format!("speed, {name}"), "not measured, like the fold before"),
        };
        tell(row);
        if times.all.iter().filter_map(|(_, seconds)| *seconds).sum::<f64>() > enough {
            break;
        }
    }
    Ok(times)
}

/// Three digits.
fn rounded(speed: f64) -> String {
    match speed {
        s if s < 10.0 => format!("{s:.2}"),
        s if s < 100.0 => format!("{s:.1}"),
        s => format!("{s:.0}"),
    }
}

/// What every measurement starts from.
struct Bench<'a> {
    settings: &'a Settings,
    pack: Arc<Pack>,
    candidates: Candidates,
    device: Device,
    is_cpu: bool,
    is_hardware: bool,
    machine: Machine,
    shards: Shards,
    _folder: TempDir,
}

impl<'a> Bench<'a> {
    fn open(settings: &'a Settings, case: &Case) -> Result<Self> {
        let folder = TempDir::with_prefix("moue-doctor-").context("making a temporary folder")?;
        let config =
            GeneratorConfig { train: FACES, valid: 0, test: 0, size: settings.data.size.clamp(32, 224), ..GeneratorConfig::default() };
        let path = folder.path().join("faces.moue");
        let mut writer = PackWriter::create(&path, generated::protocol())?;
        generated::generate(&config, &mut writer)?;
        writer.finish(generated::provenance(&config))?;
        let pack = Arc::new(Pack::open(&path)?);
        // How a face came to its candidates makes no step faster.
        let candidates = Candidates::build(&pack, &LabelSettings::default())?;
        let machine = Machine::of(settings, &case.open, case.precision());
        let shards = Shards::new(machine.shards)?.in_precision(machine.precision);
        let device = case.open.device.clone().autodiff();
        let (is_cpu, is_hardware) = (case.open.is_cpu, case.open.is_hardware);
        Ok(Self { settings, pack, candidates, device, is_cpu, is_hardware, machine, shards, _folder: folder })
    }

    /// A training's pace with at most `room` faces at once. A panic of the tensor library is an error.
    fn pace(&self, training: Training, room: usize) -> Result<Pace> {
        let _quiet = failure::expect_panics();
        catch_unwind(AssertUnwindSafe(|| match training {
            Training::Pretrain if self.settings.pretrain.method.visible_only() => self.pretraining::<MaskedAutoencoder>(room),
            Training::Pretrain => self.pretraining::<MaskedVit>(room),
            Training::Fold(_) => self.finetuning(training, Kind::Ce, room),
            Training::Finetune(kind) => self.finetuning(training, kind, room),
        }))
        .unwrap_or_else(|panic| Err(anyhow!("the tensor library gave up: {}", failure::panic_text(&*panic))))
    }

    fn init(&self) -> Init<'_> {
        Init { streams: Streams::new(0), device: &self.device }
    }

    fn pretraining<M: MaskedModel>(&self, room: usize) -> Result<Pace> {
        let objective = MaskedModelling::<M>::new(self.pack.clone(), self.pack.split(Split::Train), self.settings, Streams::new(0));
        self.steps(objective, M::new(&self.init(), self.settings), Training::Pretrain, room)
    }

    fn finetuning(&self, training: Training, kind: Kind, room: usize) -> Result<Pace> {
        let objective = Finetune::new(kind, self.pack.clone(), Some(&self.candidates), self.settings, Streams::new(0))?;
        let init = self.init();
        let model = Classifier::new(&init, Encoder::new(&init, self.settings), self.pack.protocol().classes.len(), self.settings);
        self.steps(objective, model, training, room)
    }

    /// Steps of growing size, the last size for a while. A GPU begins with what a batch holds at once: it compiles for each size anew.
    fn steps<O: Objective>(&self, mut objective: O, model: O::Model, training: Training, room: usize) -> Result<Pace> {
        let regime = Regime::of(training, self.settings);
        let planned = regime.batch.div_ceil(regime.accumulate.max(1));
        let most = planned.min(room).min(objective.source().faces()).max(1);
        let mut optimizer =
            Optimizer::new(&model, &training.optimizer(self.settings)).in_precision(self.shards.precision(), LossScale::default());
        let (mut slot, mut count) = (Some(Network::from(model)), 0);
        let mut turn = |faces: usize| -> Result<Pace> {
            let network = slot.take().context("the model is inside a step")?;
            let (network, pace) = self.step(&mut objective, network, &mut optimizer, training, faces, count)?;
            (slot, count) = (Some(network), count + 1);
            Ok(pace)
        };
        let growth = if self.is_cpu { 2 } else { 8 };
        let mut at_once = if self.is_hardware { most } else { self.shards.count().min(most) };
        let (first, began) = loop {
            // Finds memory, and on a GPU compiles.
            turn(at_once)?;
            let began = Instant::now();
            let pace = turn(at_once)?;
            if at_once == most || began.elapsed() > QUICK {
                break (pace, began);
            }
            at_once = (growth * at_once).min(most);
        };
        let mut all = vec![first];
        while began.elapsed() < MEASURE {
            all.push(turn(at_once)?);
        }
        let mean = |of: fn(&Pace) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Ok(Pace { prepare: mean(|p| p.prepare), face: mean(|p| p.face), update: mean(|p| p.update), at_once })
    }

    /// One step of so many faces.
    fn step<O: Objective>(
        &self,
        objective: &mut O,
        network: Network<O::Model>,
        optimizer: &mut Optimizer,
        training: Training,
        faces: usize,
        count: u64,
    ) -> Result<(Network<O::Model>, Pace)> {
        let (source, n) = (objective.source(), faces as f64);
        // Late enough that confidences are revised.
        let epoch = if training == Training::Pretrain { 0 } else { self.settings.revise.start_epoch as u64 };
        let here = Position { streams: Streams::new(0), stage: training.kind(), step: count };
        let began = Instant::now();
        let loaded = Loaded::prepare(&*source, epoch, &(0..faces).collect::<Vec<_>>(), self.shards.count())?;
        let prepare = began.elapsed().as_secs_f64() / n;
        // Alone, the passes tell what the update takes. A GPU works behind our back, and does an update of any network in no time.
        let passes = if self.is_cpu {
            let began = Instant::now();
            let pass = self.shards.gradients(&*objective, &network.model, &loaded.parts, here, optimizer.loss_factor(), &self.device)?;
            read_values(pass.loss)?;
            Some(began.elapsed().as_secs_f64())
        } else {
            None
        };
        let began = Instant::now();
        let place = Place { shards: &self.shards, device: &self.device };
        let rate = Regime::of(training, self.settings).min_lr;
        let Stepped { network, .. } = step(objective, network, optimizer, &loaded, None, rate, here, place)?;
        let whole = began.elapsed().as_secs_f64();
        let face = passes.unwrap_or(whole).min(whole) / n;
        Ok((network, Pace { prepare, face, update: whole - n * face, at_once: faces }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::engine::precision::Precision;

    #[test]
    fn a_step_adds_up_what_a_cpu_does_one_after_another() {
        let pace = Pace { prepare: 0.02, face: 0.1, update: 0.5, at_once: 4 };
        let machine = Machine { precision: Precision::Single, shards: 2, workers: 8 };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(pace.step(10.0, true, machine), 1.0 + 0.5 + 0.1);
        near(pace.step(10.0, false, machine), 1.5);
        // A GPU that waits for its faces.
        let slow = Pace { prepare: 2.0, ..pace };
        near(slow.step(10.0, false, machine), 2.5);
    }

    #[test]
    fn a_week_is_too_long_and_a_day_is_told() {
        let row = |seconds: &[Option<f64>]| {
            Times { all: seconds.iter().map(|s| (String::new(), *s)).collect(), faces: 10, busy: String::new() }.row()
        };
        assert_eq!(row(&[Some(LONG / 2.0), Some(LONG / 2.0)]).verdict, Verdict::Ok);
        assert_eq!(row(&[Some(LONG / 2.0), Some(LONG)]).verdict, Verdict::Warning);
        let stop = row(&[Some(TOO_LONG), Some(1.0)]);
        assert_eq!(stop.verdict, Verdict::Stop);
        assert!(stop.found.contains("7.0 days for all trainings on 10 faces"), "{stop:?}");
        assert!(row(&[Some(1.0), None]).found.contains("not known"));
    }

    #[test]
    fn speeds_have_three_digits() {
        assert_eq!([0.126, 12.34, 1234.5].map(rounded), ["0.13", "12.3", "1234"]);
    }
}
