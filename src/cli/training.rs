//! What `demo`, `pretrain` and `finetune` have in common: their arguments, and how those become a job.

use super::output::print;
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, Objective, Origin, Resolved};
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Pack, PackWriter};
use crate::engine::device;
use crate::labels::Candidates;
use crate::pipeline::{self, Job, JobEnd, Stages};
use crate::run::{Manifest, RunFolder, progress};
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
    /// Plain lines instead of the progress view
    #[arg(long)]
    pub no_tui: bool,
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

/// File of the generated faces in a run folder.
const GENERATED: &str = "faces.moue";

impl TrainingArgs {
    /// Builds the job, runs it and prints its result.
    pub fn carry_out(self, request: Request) -> Result<()> {
        pipeline::prepare()?;
        let resolved = self.resolve(&request)?;
        let settings = resolved.settings().clone();
        let device = device::open(self.device)?;
        let (folder, seed) = if self.resume {
            let folder = RunFolder::open(self.out.as_deref().unwrap_or(Path::new(".")))?;
            let seed = Manifest::read(&folder)?.seed;
            (folder, seed)
        } else {
            // Everything that can be refused is refused before the folder exists.
            if let Some(pack) = self.pack_path() {
                Pack::open(pack)?;
            }
            let folder = match &self.out {
                Some(out) => RunFolder::create(out)?,
                None => RunFolder::create_numbered(Path::new("runs"), request.command)?,
            };
            (folder, self.seed.unwrap_or(0))
        };
        let pack = Arc::new(self.open_pack(&request, &folder, seed)?);
        let partial = request.stages.finetune && settings.finetune.objective == Objective::Pll;
        let candidates = match (&request.labels, partial) {
            (Some(path), true) => Some(Candidates::read_csv(path, &pack)?),
            (None, true) => Some(Candidates::build(&pack, &settings.labels)?),
            _ => None,
        };
        let job = Job {
            command: std::env::args().collect(),
            stages: request.stages,
            resolved,
            seed,
            pack,
            device,
            folder: folder.clone(),
            resume: self.resume,
            from: request.from,
            candidates,
            sinks: vec![progress::standard(self.no_tui), progress::log(&folder)?],
        };
        match job.run()? {
            JobEnd::Done(comparison) => print(|out| {
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

    fn pack_path(&self) -> Option<&Path> {
        self.data.as_deref().filter(|d| *d != "demo").map(Path::new)
    }

    fn resolve(&self, request: &Request) -> Result<Resolved> {
        if !self.resume {
            return self.settings.resolve(request.preset);
        }
        if !self.settings.is_empty() || self.seed.is_some() {
            usage!("--resume goes on with the run's own settings and seed; leave out --preset, --config, --set and --seed");
        }
        let out = self.out.as_deref().unwrap_or(Path::new("."));
        let manifest = Manifest::read(&RunFolder::open(out)?)?;
        let values: Vec<(&str, &str)> = manifest.settings.iter().map(|(k, s)| (k, s.value.as_str().unwrap_or_default())).collect();
        Resolved::default().with_values(values, &Origin::Run(out.display().to_string()))
    }

    /// The pack to train on; generated faces are drawn into the run folder once.
    fn open_pack(&self, request: &Request, folder: &RunFolder, seed: u64) -> Result<Pack> {
        if let Some(path) = self.pack_path() {
            return Pack::open(path);
        }
        let path = folder.path().join(GENERATED);
        if self.resume && self.data.is_none() && !path.exists() {
            let manifest = Manifest::read(folder)?;
            let pack = manifest.data.context("the run's manifest names no pack; give it with --data")?.pack;
            return Pack::open(Path::new(&pack));
        }
        if !path.exists() {
            let config = GeneratorConfig { seed, ..request.generator.clone() };
            config.check()?;
            let mut writer = PackWriter::create(&path, generated::protocol())?;
            generated::generate(&config, &mut writer)?;
            writer.finish(generated::provenance(&config))?;
        }
        Pack::open(&path)
    }
}
