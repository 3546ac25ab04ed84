//! What `demo`, `pretrain`, `finetune` and `labels` have in common: their arguments, and how those become a job.

use super::output::print;
use super::progress::ProgressArgs;
use super::settings::SettingsArgs;
use crate::config::{Backbone, DeviceChoice, Origin, Resolved, Strategy};
use crate::crossfit;
use crate::dashboard::terminal;
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Pack, PackWriter};
use crate::engine::device;
use crate::engine::precision::Precision;
use crate::labels::Candidates;
use crate::pipeline::{self, Job, JobEnd, Results, Stages};
use crate::random::Streams;
use crate::run::manifest::command_line;
use crate::run::prints;
use crate::run::{Manifest, RunFolder};
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of every command that trains.
#[derive(Args, Debug)]
pub struct TrainingArgs {
    /// Run folder to make (default: runs/<command>-<date>-<n>)
    #[arg(long, value_name = "RUN")]
    pub out: Option<PathBuf>,
    /// Pack to train on, or `demo` for generated faces
    #[arg(long, value_name = "PACK")]
    pub data: Option<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Root of every random stream (default 0)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Go on with the run in --out from its newest checkpoint
    #[arg(long, requires = "out")]
    pub resume: bool,
    #[command(flatten)]
    pub progress: ProgressArgs,
}

/// What a command adds to the common arguments.
pub struct Request {
    /// Name for the run folder.
    pub command: &'static str,
    pub stages: Stages,
    /// Preset when none is given.
    pub preset: Option<&'static str>,
    /// How faces are generated for `--data demo`.
    pub generator: GeneratorConfig,
    pub from: Option<PathBuf>,
    pub labels: Option<PathBuf>,
}

/// A job that has ended, with what it worked on.
pub struct Ran {
    pub folder: RunFolder,
    pub pack: Arc<Pack>,
    pub resolved: Resolved,
    pub end: JobEnd,
}

/// File of the generated faces in a run folder.
pub(super) const GENERATED: &str = "faces.moue";

impl TrainingArgs {
    /// Builds the job, runs it and prints its result.
    pub fn carry_out(self, request: Request) -> Result<()> {
        let Ran { folder, end, .. } = self.run(&request)?;
        match end {
            JobEnd::Done(Results { comparison, .. }) => print(|out| {
                if let Some(comparison) = &comparison {
                    write!(out, "\n{}", comparison.table())?;
                }
                Ok(writeln!(out, "run: {}", folder.path().display())?)
            }),
            JobEnd::Interrupted => {
                print(|out| Ok(writeln!(out, "stopped; go on with: moue {} --resume --out {}", request.command, folder.path().display())?))
            }
        }
    }

    /// Builds the job and runs it. Everything that can be refused is refused before a run folder exists.
    pub fn run(self, request: &Request) -> Result<Ran> {
        let control = terminal::control(prints::silence_input)?;
        let earlier = if self.resume { Some(self.earlier()?) } else { None };
        let resolved = self.resolve(request, earlier.as_ref())?;
        let settings = resolved.settings().clone();
        if let Some((folder, manifest)) = &earlier
            && manifest.stages != request.stages.names(&settings)
        {
            usage!(
                "{} is a run of {}, which `moue {} --resume` does not do; resume it with the command that began it",
                folder.path().display(),
                manifest.stages.join(", "),
                request.command
            );
        }
        if request.stages.names(&settings).iter().any(|name| *name == pipeline::Training::Pretrain.name())
            && settings.encoder.backbone != Backbone::Vit
        {
            usage!(
                "pretraining hides patches from a vision transformer, and encoder.backbone is resnet18; train it from random weights with \
                 `moue finetune` (or `moue demo --set pretrain.epochs=0`)"
            );
        }
        let device = device::open(self.device)?;
        let precision = Precision::of(settings.run.precision, &device)?;
        let input = |flag: &str, typed: &Option<PathBuf>| match &earlier {
            Some((_, manifest)) => manifest.inputs.get(flag).map(PathBuf::from),
            None => typed.clone(),
        };
        let (from, labels) = (input("from", &request.from), input("labels", &request.labels));
        if let Some(from) = &from {
            pipeline::load::check_start(from, &settings, None)?;
            if request.stages.labels && from.is_file() {
                pipeline::load::refuse_trained_on_labels(from)?;
            }
        }
        let partial = request.stages.finetune && settings.finetune.objective.is_partial();
        if partial && labels.is_none() && settings.labels.strategy.predicts() {
            self.refuse_to_predict(settings.labels.strategy, from.as_deref())?;
        }
        let seed = earlier.as_ref().map_or(self.seed.unwrap_or(0), |(_, manifest)| manifest.seed);
        let candidates = |pack: &Pack| -> Result<Option<Candidates>> {
            if let Some(from) = &from {
                pipeline::load::check_start(from, &settings, Some(&pack.protocol().classes))?;
            }
            if request.stages.labels {
                crossfit::deal(pack, &settings.labels, &Streams::new(seed))?;
            }
            Ok(match &labels {
                _ if !partial => None,
                Some(path) => Some(Candidates::read_csv(path, pack)?),
                None => Some(Candidates::build(pack, &settings.labels)?),
            })
        };
        let mut loaded = match self.pack_path(earlier.as_ref()) {
            Some(path) => {
                let pack = Pack::open(&path)?;
                Some((candidates(&pack)?, pack))
            }
            None => None,
        };
        let folder = match (&earlier, &self.out) {
            (Some((folder, _)), _) => folder.clone(),
            (None, Some(out)) => RunFolder::create(out)?,
            (None, None) => RunFolder::create_numbered(Path::new("runs"), request.command)?,
        };
        let progress = self.progress.open(&control);
        progress.turn_to(&folder);
        if loaded.is_none() {
            let generator = GeneratorConfig { seed, ..request.generator.clone() };
            let generated = generated_pack(&generator, folder.path()).and_then(|pack| Ok((candidates(&pack)?, pack)));
            if generated.is_err() && !folder.manifest().exists() {
                // Not yet a run: it would only stand in the way of the next attempt. The error itself is what matters.
                let _ = std::fs::remove_dir_all(folder.path());
            }
            loaded = Some(generated?);
        }
        let (candidates, pack) = loaded.context("a pack was opened or generated")?;
        if let Some(data) = earlier.as_ref().and_then(|(_, m)| m.data.as_ref())
            && data.pack_hash != pack.hash()
        {
            usage!("--resume: pack {} is not the one this run began with (its hash differs)", pack.path().display());
        }
        let pack = Arc::new(pack);
        let job = Job {
            command: command_line(),
            stages: request.stages,
            resolved: resolved.clone(),
            seed,
            pack: pack.clone(),
            device,
            precision,
            folder: folder.clone(),
            resume: self.resume,
            from,
            candidates,
            labels,
            supervision: progress.supervise(&folder)?,
        };
        let end = job.run();
        // Gives the terminal back: what follows is to be read.
        drop(progress);
        let end = end?;
        Ok(Ran { folder, pack, resolved, end })
    }

    /// Candidate sets from predictions are a run of their own.
    fn refuse_to_predict(&self, strategy: Strategy, from: Option<&Path>) -> Result<()> {
        let pack = self.data.as_deref().filter(|data| *data != "demo").unwrap_or("PACK");
        let from = from.map_or(String::new(), |run| format!(" --from {}", run.display()));
        usage!(
            "labels.strategy = \"{}\" makes candidate sets from models that are trained first; type `moue labels {pack}{}{from} --out \
             candidates.csv`, then give `moue finetune` --labels candidates.csv",
            strategy.name(),
            self.settings.words()
        )
    }

    /// The run that `--resume` goes on with.
    fn earlier(&self) -> Result<(RunFolder, Manifest)> {
        if !self.settings.is_empty() || self.seed.is_some() {
            usage!("--resume goes on with the run's own settings and seed; leave out --preset, --config, --set and --seed");
        }
        let folder = RunFolder::open(self.out.as_deref().unwrap_or(Path::new(".")))?;
        let manifest = Manifest::read(&folder)?;
        Ok((folder, manifest))
    }

    fn resolve(&self, request: &Request, earlier: Option<&(RunFolder, Manifest)>) -> Result<Resolved> {
        let Some((folder, manifest)) = earlier else { return self.settings.resolve(request.preset) };
        let values: Vec<(&str, &str)> = manifest.settings.iter().map(|(k, s)| (k, s.value.as_str().unwrap_or_default())).collect();
        Resolved::default().with_values(values, &Origin::Run(folder.path().display().to_string()))
    }

    /// The pack to open; none: generated faces, which live in the run folder.
    fn pack_path(&self, earlier: Option<&(RunFolder, Manifest)>) -> Option<PathBuf> {
        let typed = self.data.as_deref().filter(|d| *d != "demo").map(PathBuf::from);
        typed.or_else(|| earlier.and_then(|(_, m)| m.data.as_ref()).map(|d| PathBuf::from(&d.pack)))
    }
}

/// Draws the faces of `--data demo` into a folder.
pub(super) fn generated_pack(config: &GeneratorConfig, folder: &Path) -> Result<Pack> {
    let path = folder.join(GENERATED);
    config.check()?;
    let mut writer = PackWriter::create(&path, generated::protocol())?;
    generated::generate(config, &mut writer)?;
    writer.finish(generated::provenance(config))?;
    Pack::open(&path)
}
