//! What `demo`, `pretrain` and `finetune` have in common: their arguments, and how those become a job.

use super::output::print;
use crate::config::{DeviceChoice, Objective, Origin, Resolved};
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Pack, PackWriter};
use crate::engine::device::{self, OpenDevice};
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
    /// Preset of settings; `moue config list` names them
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// TOML file of settings, over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, over preset and file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
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
/// Copy of the candidate sets given with `--labels`, so that a resume finds them again.
const CANDIDATES: &str = "candidates.csv";

impl TrainingArgs {
    /// Builds the job, runs it and prints its result.
    pub fn carry_out(self, request: Request) -> Result<()> {
        pipeline::prepare()?;
        let resolved = self.resolve(&request)?;
        let settings = resolved.settings().clone();
        let device = device::open(self.device)?;
        let (folder, seed) = if self.resume {
            let folder = RunFolder::open(self.out.as_deref().unwrap_or(Path::new(".")))?;
            let manifest = Manifest::read(&folder)?;
            if manifest.stages != request.stages.names(&settings) {
                usage!(
                    "{} is a run of {}, which `moue {} --resume` does not do; resume it with the command that began it",
                    folder.path().display(),
                    manifest.stages.join(", "),
                    request.command
                );
            }
            (folder, manifest.seed)
        } else {
            // Everything that can be refused is refused before the folder exists.
            if let Some(pack) = self.pack_path() {
                Pack::open(pack)?;
            }
            if let Some(run) = &request.from {
                pipeline::load::pretrained_checkpoint(run, &settings)?;
            }
            let folder = match &self.out {
                Some(out) => RunFolder::create(out)?,
                None => RunFolder::create_numbered(Path::new("runs"), request.command)?,
            };
            (folder, self.seed.unwrap_or(0))
        };
        let (command, resume) = (request.command, self.resume);
        let result = self.carry_out_in(&folder, request, resolved, device, seed);
        if result.is_err() && !resume && !folder.manifest().exists() {
            // Not yet a run: it would only stand in the way of the next attempt.
            let _ = std::fs::remove_dir_all(folder.path());
        }
        match result? {
            JobEnd::Done(comparison) => print(|out| {
                if let Some(comparison) = &comparison {
                    write!(out, "\n{}", comparison.table())?;
                }
                Ok(writeln!(out, "run: {}", folder.path().display())?)
            }),
            JobEnd::Interrupted => {
                print(|out| Ok(writeln!(out, "stopped; go on with: moue {command} --resume --out {}", folder.path().display())?))
            }
        }
    }

    fn carry_out_in(&self, folder: &RunFolder, request: Request, resolved: Resolved, device: OpenDevice, seed: u64) -> Result<JobEnd> {
        let settings = resolved.settings().clone();
        let pack = Arc::new(self.open_pack(&request, folder, seed)?);
        let begun = if self.resume { Some(Manifest::read(folder)?) } else { None };
        if let Some(data) = begun.as_ref().and_then(|m| m.data.as_ref())
            && data.pack_hash != pack.hash()
        {
            usage!("pack {} is not the one this run began with ({})", pack.path().display(), data.pack);
        }
        // What the run began with holds; a resume need not repeat it.
        let from = begun.and_then(|m| m.from.map(PathBuf::from)).or(request.from);
        let partial = request.stages.finetune && settings.finetune.objective == Objective::Pll;
        let kept = folder.path().join(CANDIDATES);
        let candidates = match (&request.labels, partial) {
            (_, true) if self.resume && kept.exists() => Some(Candidates::read_csv(&kept, &pack)?),
            (Some(path), true) => {
                let candidates = Candidates::read_csv(path, &pack)?;
                candidates.write_csv(&kept, &pack)?;
                Some(candidates)
            }
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
            from,
            candidates,
            sinks: vec![progress::standard(self.no_tui), progress::log(folder)?],
        };
        job.run()
    }

    fn pack_path(&self) -> Option<&Path> {
        self.data.as_deref().filter(|d| *d != "demo").map(Path::new)
    }

    fn resolve(&self, request: &Request) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        if self.resume {
            let out = self.out.as_deref().unwrap_or(Path::new("."));
            if self.preset.is_some() || self.config.is_some() || !self.set.is_empty() || self.seed.is_some() {
                usage!("--resume goes on with the run's own settings and seed; leave out --preset, --config, --set and --seed");
            }
            let manifest = Manifest::read(&RunFolder::open(out)?)?;
            let values: Vec<(String, String)> =
                manifest.settings.iter().map(|(k, s)| (k.to_string(), s.value.as_str().unwrap_or_default().to_string())).collect();
            return resolved.with_values(values.iter().map(|(k, v)| (k.as_str(), v.as_str())), &Origin::Run(out.display().to_string()));
        }
        if let Some(preset) = self.preset.as_deref().or(request.preset) {
            resolved = resolved.with_preset(preset)?;
        }
        if let Some(file) = &self.config {
            resolved = resolved.with_file(file)?;
        }
        for assignment in &self.set {
            resolved = resolved.with_flag(assignment)?;
        }
        resolved.checked(&Origin::Flag)
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
