//! What `demo`, `pretrain`, `finetune` and `labels` have in common: their arguments, and how those become an order.

use super::order::{Earlier, Faces, Order, Place, Ran};
use super::output::print;
use super::progress::ProgressArgs;
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, Origin, Strategy};
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::{JobEnd, Results, Stages};
use crate::run::RunFolder;
use crate::run::differences::SETTLED;
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
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl (default: auto; of a run that goes on: its own)
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Go on with the run in --out from its newest checkpoint, on its device, in its precision, with its number of threads; --device,
    /// --precision and --set of run.threads, run.workers, run.precision, run.kernels change that, and then results may differ
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
            device: self.device.unwrap_or_default(),
            place: Place::New(self.out.clone()),
            repeats: None,
        })
    }

    /// The run in `--out` as its manifest says; what it runs on may be another machine.
    fn resumed(&self, request: Request) -> Result<Order> {
        let of_machine = |set: &String| set.split_once('=').is_some_and(|(key, _)| SETTLED.contains(&key.trim()));
        let (mut machine, others): (Vec<String>, Vec<String>) = self.settings.set.iter().cloned().partition(of_machine);
        machine.extend(self.settings.precision.iter().map(|word| format!("run.precision={word}")));
        let others = SettingsArgs { set: others, precision: None, ..self.settings.clone() };
        if !others.is_empty() || self.seed.is_some() {
            usage!(
                "--resume goes on with the run's own settings and seed; leave out --preset, --config, --batch, --seed, --set (but of {})",
                SETTLED.join(", ")
            );
        }
        for (flag, typed) in [("--from", &request.from), ("--labels", &request.labels)] {
            if typed.is_some() {
                usage!("--resume goes on with what the run began with; leave out {flag}");
            }
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
        let resolved = machine.iter().try_fold(resolved, |resolved, set| resolved.with_flag(set))?.checked(&Origin::Flag)?;
        earlier.resumed(request.command, request.stages, resolved, self.pack(), self.device)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Precision, Resolved};
    use crate::pipeline::load;
    use crate::run::Manifest;
    use crate::run::manifest::{Data, Setting};
    use serde_json::json;
    use std::fs;

    /// A run that was finetuned on a CPU, in mixed precision and on three threads, as the machine had it: the settings leave that open. It
    /// was moved here with its pack.
    fn run(root: &Path) -> (RunFolder, Manifest) {
        let folder = RunFolder::create(&root.join("run")).unwrap();
        let mut manifest = Manifest::new(Vec::new(), 7);
        for (key, value, origin) in Resolved::default().entries() {
            manifest.settings.set(key, Setting { value: value.into(), origin: origin.to_string() });
        }
        manifest.stages = finetuning().stages.names(Resolved::default().settings());
        manifest.device = json!({"name": "CPU (some)", "api": "cpu", "precision": "mixed"});
        manifest.threads = Some(3);
        let (pack, nothing) = ("/nowhere/faces.moue".into(), String::new());
        let classes = vec!["calm".to_string(), "joy".into()];
        manifest.data =
            Some(Data { pack, pack_hash: nothing.clone(), protocol: nothing.clone(), protocol_hash: nothing, classes, leaks: None });
        manifest.write(&folder).unwrap();
        fs::write(folder.path().join("faces.moue"), "faces").unwrap();
        (folder, manifest)
    }

    fn finetuning() -> Request {
        let stages = Stages { finetune: true, ..Stages::default() };
        Request { command: "finetune", stages, preset: None, generator: GeneratorConfig::default(), from: None, labels: None }
    }

    /// `--resume --out RUN` and no more.
    fn resume(folder: &RunFolder) -> TrainingArgs {
        TrainingArgs {
            out: Some(folder.path().to_path_buf()),
            data: None,
            settings: SettingsArgs::default(),
            seed: None,
            device: None,
            resume: true,
            progress: ProgressArgs::default(),
        }
    }

    fn refused(args: &TrainingArgs, request: Request, parts: &[&str]) {
        let error = args.resumed(request).err().unwrap();
        assert_eq!(crate::failure::exit_code(&error), 2);
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "no `{part}` in {error}"));
    }

    #[test]
    fn a_run_goes_on_as_it_began_unless_something_else_is_typed() {
        let root = tempfile::tempdir().unwrap();
        let (folder, mut manifest) = run(root.path());
        let on = |args: &TrainingArgs| {
            let order = args.resumed(finetuning()).unwrap();
            let run = &order.resolved.settings().run;
            (order.seed, order.device, run.threads, run.precision)
        };
        assert_eq!(on(&resume(&folder)), (7, DeviceChoice::Cpu, 3, Precision::Mixed));
        let set = |text: &str| SettingsArgs { set: vec![text.into()], ..SettingsArgs::default() };
        let settings = SettingsArgs { precision: Some("f32".into()), ..set("run.threads=5") };
        let typed = TrainingArgs { settings, device: Some(DeviceChoice::Vulkan(None)), ..resume(&folder) };
        assert_eq!(on(&typed), (7, DeviceChoice::Vulkan(None), 5, Precision::F32));
        // What is the run's own is not to be changed, and nothing that is typed is left unread.
        refused(&TrainingArgs { settings: set("vit.dim=32"), ..resume(&folder) }, finetuning(), &["--set", "run.threads"]);
        refused(&TrainingArgs { seed: Some(7), ..resume(&folder) }, finetuning(), &["--seed"]);
        refused(&resume(&folder), Request { from: Some("B".into()), ..finetuning() }, &["leave out --from"]);
        refused(&resume(&folder), Request { labels: Some("z.csv".into()), ..finetuning() }, &["leave out --labels"]);

        manifest.device = json!({"name": "Voodoo", "api": "Vulkan", "index": 0, "precision": "f32", "kernels": "timed"});
        manifest.write(&folder).unwrap();
        refused(&resume(&folder), finetuning(), &["Voodoo", "--device"]);
        // The one thread that worked for a GPU is no number for a CPU.
        let typed = TrainingArgs { device: Some(DeviceChoice::Cpu), ..resume(&folder) };
        assert_eq!(on(&typed), (7, DeviceChoice::Cpu, 0, Precision::F32));
    }

    #[test]
    fn a_run_goes_on_with_what_it_was_built_on() {
        let root = tempfile::tempdir().unwrap();
        let (folder, mut manifest) = run(root.path());
        let labels = root.path().join("l.csv");
        fs::write(&labels, "id,candidates\n").unwrap();
        manifest.inputs.set("labels", labels.display().to_string());
        manifest.input_hashes.set("labels", load::fingerprint(&labels).unwrap());
        manifest.write(&folder).unwrap();
        let order = resume(&folder).resumed(finetuning()).unwrap();
        assert_eq!(order.labels.as_ref(), Some(&labels));
        assert!(matches!(&order.faces, Faces::Pack(path) if *path == folder.path().join("faces.moue")));
        fs::write(&labels, "id,candidates\nf,a\n").unwrap();
        refused(&resume(&folder), finetuning(), &["l.csv is not what the run began with", "--labels"]);
        fs::remove_file(&labels).unwrap();
        refused(&resume(&folder), finetuning(), &["l.csv is gone"]);
    }
}
