//! Speed: this program and a PyTorch twin at the same work, alternating in one run.
//!
//! ```text
//! Bench::start (generated faces in a temporary folder) -> measure(row): contestants, each a child process of its own
//!                          ours.rs: `moue bench --serve`      peer.rs: `python3 training.py`
//!                 ours, peer, ours, peer ... -> medians, spread, ratio;  profile.rs: parts of a step, the same way
//!                 and once more, ours     -> shaders.rs: what each shader took, by the GPU's clock
//! ```
//! Child processes share neither memory nor caches, and each has a peak memory of its own. Alternating makes a machine that slows down for
//! a while slow for both. This module owns the rows, the order of measuring and the figures; what a row's work is stands in [`ours`], and
//! for the peer in `benches/peers/training.py`. It prints nothing.

pub mod contestant;
pub mod ours;
pub mod peer;
pub mod profile;
pub mod shaders;
pub mod sweep;

use crate::config::{Settings, Strategy};
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Class, Pack, PackWriter};
use crate::labels::Candidates;
use crate::transform::augment::fit;
use crate::usage;
use anyhow::{Context, Result, bail};
use contestant::Contestant;
use peer::Peer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shaders::Shaders;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Generated faces, unless a batch needs more.
const FACES: usize = 1024;
/// Between two measurements: threads of the one that has just worked go to sleep.
const PAUSE: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Row {
    /// A step of `pretrain.method`, batches ready in memory.
    Pretrain,
    /// A step of `finetune.objective`, batches ready in memory.
    Finetune,
    /// Logits of faces that are ready in memory.
    Predict,
    /// Finetuning batches, decoded and augmented, with nobody training.
    Loader,
    /// Pretraining targets of pixels that are on the device.
    Hog,
}

impl Row {
    pub const ALL: [Self; 5] = [Self::Pretrain, Self::Finetune, Self::Predict, Self::Loader, Self::Hog];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Finetune => "finetune",
            Self::Predict => "predict",
            Self::Loader => "loader",
            Self::Hog => "hog",
        }
    }

    /// # Errors
    /// A usage error that names the rows.
    pub fn parse(word: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|row| row.name() == word) {
            Some(row) => Ok(row),
            None => usage!("there is no row `{word}`; rows: {}", Self::ALL.map(Self::name).join(", ")),
        }
    }

    fn batch(self, s: &Settings) -> usize {
        match self {
            Self::Pretrain | Self::Hog => s.pretrain.batch,
            Self::Finetune | Self::Loader => s.finetune.batch,
            Self::Predict => s.run.evaluate_batch,
        }
    }
}

/// How much of a training step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// All of it.
    Whole,
    /// The loss, as it is computed where nothing is to be differentiated.
    Forward,
    /// Forward and backward.
    Gradients,
    /// The step's batches, made and dropped.
    Loader,
}

/// All that a contestant has to know: the first line it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub row: Row,
    pub part: Part,
    pub settings: Settings,
    pub classes: usize,
    /// Faces a step.
    pub batch: usize,
    /// For training and loading.
    pub threads: usize,
    /// As `--device` is typed.
    pub device: String,
    /// As `--compiler` is typed; none: moue's choice.
    pub compiler: Option<String>,
    /// Patches that pretraining hides of each face.
    pub hidden: usize,
    /// Whether PyTorch compiles its network.
    pub compile: bool,
    pub faces: Faces,
}

/// The same faces for every contestant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Faces {
    pub pack: PathBuf,
    /// The training faces that have candidates as bytes `[n, H, W, C]` at the size of the network.
    pub pixels: PathBuf,
    /// Of the same faces, `[n]`.
    pub candidates: Vec<Vec<Class>>,
}

/// What a contestant says when it is set up and warm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    pub version: String,
    pub device: String,
    pub is_cpu: bool,
    pub threads: usize,
    /// Values in the network; none where the row has no network.
    pub parameters: Option<usize>,
    /// Details for the record.
    #[serde(default)]
    pub details: Value,
}

/// What a contestant did in one of its turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    pub faces: u64,
    pub seconds: f64,
    /// Most memory that its process has had so far; none where the system does not say.
    pub peak_bytes: Option<u64>,
    /// Where they were timed and the device can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shaders: Option<Shaders>,
}

impl Turn {
    fn speed(&self) -> f64 {
        self.faces as f64 / self.seconds
    }
}

/// How long and how often to measure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Effort {
    pub rounds: usize,
    pub seconds: f64,
    /// Whether whole rows end with a turn of ours in which shaders are timed.
    pub shaders: bool,
}

/// One contestant's turns at a row.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    pub ready: Ready,
    /// Median over the rounds.
    pub faces_per_second: f64,
    pub peak_bytes: Option<u64>,
    pub turns: Vec<Turn>,
}

/// Ours over the peer's, in faces per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratio {
    /// Of the medians.
    pub median: f64,
    /// Of single rounds.
    pub min: f64,
    pub max: f64,
}

/// A row of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub row: Row,
    pub part: Part,
    /// Faces a step.
    pub batch: usize,
    pub ours: Score,
    pub peer: Option<Score>,
    pub ratio: Option<Ratio>,
    /// Why there is no peer.
    pub why: Option<String>,
    /// Of a turn of its own.
    pub shaders: Option<Shaders>,
}

/// How PyTorch takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    None,
    Eager,
    /// By `torch.compile`.
    Compiled,
}

/// Everything that rows share.
pub struct Bench {
    settings: Settings,
    device: String,
    compiler: Option<String>,
    threads: usize,
    effort: Effort,
    peer: Option<Peer>,
    compile: bool,
    classes: usize,
    faces: Faces,
    _folder: TempDir,
}

impl Bench {
    /// Generates the faces and unpacks the peer.
    ///
    /// # Errors
    /// When the temporary folder cannot be written, or the settings leave no face to train on.
    pub fn start(settings: &Settings, rows: &[Row], device: String, threads: usize, effort: Effort, rival: Rival) -> Result<Self> {
        let mut settings = settings.clone();
        if settings.labels.strategy.predicts() {
            // Those sets need trained models; how a face came to its candidates makes no step faster.
            settings.labels.strategy = Strategy::Votes;
        }
        (settings.run.threads, settings.run.workers) = (threads, threads);
        let folder = TempDir::with_prefix("moue-bench-").context("making a temporary folder")?;
        let train = rows.iter().map(|row| row.batch(&settings)).fold(FACES, usize::max);
        let config = GeneratorConfig { train, valid: 0, test: 0, size: settings.data.size.clamp(32, 224), ..GeneratorConfig::default() };
        let path = folder.path().join("faces.moue");
        let mut writer = PackWriter::create(&path, generated::protocol())?;
        generated::generate(&config, &mut writer)?;
        writer.finish(generated::provenance(&config))?;
        let pack = Pack::open(&path)?;
        let sets = Candidates::build(&pack, &settings.labels)?.sets;
        if sets.is_empty() {
            usage!("labels.* leave no generated face with candidates");
        }
        let mut bytes = Vec::new();
        for (face, _) in &sets {
            bytes.extend(fit(&pack.pixels(*face)?, settings.data.size, settings.data.channels).data);
        }
        let pixels = folder.path().join("faces.u8");
        std::fs::write(&pixels, bytes).with_context(|| format!("writing {}", pixels.display()))?;
        let candidates = sets.into_iter().map(|(_, set)| set.classes).collect();
        let peer = if rival == Rival::None { None } else { Some(Peer::unpack(folder.path())?) };
        let compile = rival == Rival::Compiled;
        let classes = pack.protocol().classes.len();
        let faces = Faces { pack: path, pixels, candidates };
        Ok(Self { settings, device, compiler: None, threads, effort, peer, compile, classes, faces, _folder: folder })
    }

    /// The same with burn's kernels compiled to a language, as for [`device::open_in`](crate::engine::device::open_in).
    #[must_use]
    pub fn in_language(self, compiler: Option<String>) -> Self {
        Self { compiler, ..self }
    }

    fn case(&self, row: Row, part: Part) -> Case {
        Case {
            row,
            part,
            settings: self.settings.clone(),
            classes: self.classes,
            batch: row.batch(&self.settings),
            threads: self.threads,
            device: self.device.clone(),
            compiler: self.compiler.clone(),
            hidden: self.settings.hidden_patches(),
            compile: self.compile,
            faces: self.faces.clone(),
        }
    }

    /// Lets both sides do (a part of) a row in turns.
    ///
    /// # Errors
    /// A side that fails, or whose network is not the other's. A peer that is not there is none: the row then says why.
    pub fn measure(&self, row: Row, part: Part) -> Result<Measured> {
        let case = self.case(row, part);
        let ours = match Contestant::start("moue", ours::command(self.threads)?, &case)? {
            Ok(ours) => ours,
            Err(why) => bail!("{}: {why}", row.name()),
        };
        let (peer, why) = match &self.peer {
            None => (None, Some("left out".to_string())),
            Some(peer) => match peer.start(&case, &ours.ready)? {
                Ok(peer) => (Some(peer), None),
                Err(why) => (None, Some(why)),
            },
        };
        if let Some(peer) = &peer
            && peer.ready.parameters != ours.ready.parameters
        {
            let count = |n: Option<usize>| n.map_or("no".into(), |n| n.to_string());
            bail!(
                "{}: the networks differ, moue's has {} parameters and PyTorch's {}",
                row.name(),
                count(ours.ready.parameters),
                count(peer.ready.parameters)
            );
        }
        let mut sides: Vec<(Contestant, Vec<Turn>)> = [Some(ours), peer].into_iter().flatten().map(|side| (side, Vec::new())).collect();
        for _ in 0..self.effort.rounds {
            for (side, turns) in &mut sides {
                turns.push(side.work(self.effort.seconds)?);
                std::thread::sleep(PAUSE);
            }
        }
        // While the peer is there: a GPU may lower its clock when nobody computes with its maker's own library.
        let timed = self.effort.shaders && part == Part::Whole;
        let shaders = if timed { sides[0].0.time_shaders(self.effort.seconds)?.shaders } else { None };
        let mut scores = sides.into_iter().map(|(side, turns)| Score::of(side.ready.clone(), turns));
        let ours = scores.next().context("ours is always measured")?;
        let peer = scores.next();
        let ratio = peer.as_ref().map(|peer| Ratio::of(&ours, peer));
        Ok(Measured { row, part, batch: case.batch, ours, peer, ratio, why, shaders })
    }

    /// What has been measured, with what on what.
    pub fn report(&self, rows: &[Measured], profiles: &[profile::Profile]) -> Value {
        let ours = rows.first().map(|row| &row.ours.ready);
        let peer = rows.iter().find_map(|row| row.peer.as_ref()).map(|peer| &peer.ready);
        json!({
            "bench": "training",
            "version": env!("CARGO_PKG_VERSION"),
            "device": ours.map(|ready| &ready.details),
            "limits": limits(),
            "threads": self.threads,
            "compiled_peer": self.compile,
            "effort": self.effort,
            "peer": peer,
            "settings": self.settings,
            "rows": rows,
            "profiles": profiles,
        })
    }
}

/// What the machine has, and how busy it was when the rows were done.
fn limits() -> Value {
    let cpu = crate::engine::adapters::cpu();
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    json!({"cpu": cpu.name, "cores": cpu.cores, "memory": cpu.memory, "load": load})
}

impl Score {
    fn of(ready: Ready, turns: Vec<Turn>) -> Self {
        let faces_per_second = median(turns.iter().map(Turn::speed));
        Self { ready, faces_per_second, peak_bytes: turns.iter().filter_map(|turn| turn.peak_bytes).max(), turns }
    }
}

impl Ratio {
    fn of(ours: &Score, peer: &Score) -> Self {
        let rounds = ours.turns.iter().zip(&peer.turns).map(|(ours, peer)| ours.speed() / peer.speed());
        let (min, max) = rounds.fold((f64::INFINITY, 0.0f64), |(min, max), ratio| (min.min(ratio), max.max(ratio)));
        Self { median: ours.faces_per_second / peer.faces_per_second, min, max }
    }
}

/// NaN of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 { f64::NAN } else { (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_with_the_spread_of_rounds() {
        let score = |speeds: &[u64]| {
            let ready =
                Ready { version: String::new(), device: String::new(), is_cpu: true, threads: 1, parameters: None, details: Value::Null };
            Score::of(ready, speeds.iter().map(|&faces| Turn { faces, seconds: 2.0, peak_bytes: Some(faces), shaders: None }).collect())
        };
        let (ours, peer) = (score(&[200, 400, 100]), score(&[100, 100, 400]));
        assert_eq!((ours.faces_per_second, peer.faces_per_second, ours.peak_bytes), (100.0, 50.0, Some(400)));
        let ratio = Ratio::of(&ours, &peer);
        assert_eq!((ratio.median, ratio.min, ratio.max), (2.0, 0.25, 4.0));
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
    }

    #[test]
    fn an_unknown_row_names_the_rows() {
        let error = Row::parse("pretrian").unwrap_err();
        assert_eq!(crate::failure::exit_code(&error), 2);
        assert!(Row::ALL.iter().all(|row| error.to_string().contains(row.name()) && Row::parse(row.name()).unwrap() == *row));
    }
}
