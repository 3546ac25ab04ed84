//! What `demo`, `pretrain`, `finetune` and `labels` have in common: their arguments, and how those become an order.

use super::order::{Earlier, Faces, Order, Place, Ran};
use super::output::print;
use super::progress::ProgressArgs;
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, Strategy};
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::{JobEnd, Results, Stages};
use crate::run::RunFolder;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::path::{Path, PathBuf};

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

impl TrainingArgs {
    /// Carries the order out and prints its result.
    pub fn carry_out(self, request: Request) -> Result<()> {
        let command = request.command;
        let Ran { folder, end, .. } = self.run(request)?;
        match end {
            JobEnd::Done(Results { comparison, .. }) => print(|out| {
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

    /// Carries the order out.
    pub fn run(self, request: Request) -> Result<Ran> {
        let order = if self.resume { self.resumed(request)? } else { self.typed(request)? };
        order.carry_out(&self.progress)
    }

    /// A new run, as the command line says.
    fn typed(&self, request: Request) -> Result<Order> {
        let resolved = self.settings.resolve(request.preset)?;
        let settings = resolved.settings();
        let partial = request.stages.finetune && settings.finetune.objective.is_partial();
        if partial && request.labels.is_none() && settings.labels.strategy.predicts() {
            self.refuse_to_predict(settings.labels.strategy, request.from.as_deref())?;
        }
        let seed = self.seed.unwrap_or(0);
        Ok(Order {
            command: request.command,
            stages: request.stages,
            resolved,
            seed,
            faces: self.pack().map_or(Faces::Generated(GeneratorConfig { seed, ..request.generator }), Faces::Pack),
            pack_hash: None,
            from: request.from,
            labels: request.labels,
            device: self.device,
            place: Place::New(self.out.clone()),
            repeats: None,
        })
    }

    /// The run in `--out` as its manifest says.
    fn resumed(&self, request: Request) -> Result<Order> {
        if !self.settings.is_empty() || self.seed.is_some() {
            usage!("--resume goes on with the run's own settings and seed; leave out --preset, --config, --set and --seed");
        }
        let earlier = Earlier::read(RunFolder::open(self.out.as_deref().unwrap_or(Path::new(".")))?)?;
        let resolved = earlier.settings(|_| true)?;
        let (folder, stages) = (earlier.folder.path().display(), &earlier.manifest.stages);
        if *stages != request.stages.names(resolved.settings()) {
            usage!(
                "{folder} is a run of {}, which `moue {} --resume` does not do; resume it with the command that began it",
                stages.join(", "),
                request.command
            );
        }
        let Some(pack) = self.pack().or_else(|| earlier.manifest.data.as_ref().map(|data| PathBuf::from(&data.pack))) else {
            usage!("{folder} does not say which pack it began with; name it with --data");
        };
        Ok(Order {
            command: request.command,
            stages: request.stages,
            resolved,
            seed: earlier.manifest.seed,
            faces: Faces::Pack(pack),
            pack_hash: earlier.pack_hash(),
            from: earlier.input("from"),
            labels: earlier.input("labels"),
            device: self.device,
            place: Place::Resumed(earlier.folder),
            repeats: None,
        })
    }

    /// The pack that was named; none: generated faces.
    fn pack(&self) -> Option<PathBuf> {
        self.data.as_deref().filter(|data| *data != "demo").map(PathBuf::from)
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
}
