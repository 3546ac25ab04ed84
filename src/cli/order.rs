//! What is to be trained, on which faces and which device, and where it goes: typed, or taken from the manifest of a run to go on with or to
//! do again. However it came to be known, it is carried out here.

use super::progress::ProgressArgs;
use crate::config::{Backbone, DeviceChoice, Origin, Resolved};
use crate::crossfit;
use crate::dashboard::terminal;
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::{Pack, PackWriter};
use crate::engine::adapters::adapters;
use crate::engine::device;
use crate::engine::precision::Precision;
use crate::labels::Candidates;
use crate::pipeline::{self, Job, JobEnd, Stages};
use crate::random::Streams;
use crate::run::differences::{Difference, differences};
use crate::run::manifest::command_line;
use crate::run::prints;
use crate::run::{Manifest, RunFolder};
use crate::usage;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run that was, with what it says of itself.
pub struct Earlier {
    pub folder: RunFolder,
    pub manifest: Manifest,
}

impl Earlier {
    /// # Errors
    /// No run there, or one that another format describes.
    pub fn read(folder: RunFolder) -> Result<Self> {
        let manifest = Manifest::read(&folder)?;
        Ok(Self { folder, manifest })
    }

    /// Its settings, as far as `take` wants them, with what precision, kernels and (on a CPU) threads came to: bits depend on them.
    pub fn settings(&self, take: impl Fn(&str) -> bool) -> Result<Resolved> {
        let (manifest, device) = (&self.manifest, &self.manifest.device);
        let origin = Origin::Run(self.folder.path().display().to_string());
        let settings = manifest.settings.iter().filter(|(key, _)| take(key));
        let values: Vec<(&str, &str)> = settings.map(|(key, s)| (key, s.value.as_str().unwrap_or_default())).collect();
        let resolved = Resolved::default().with_values(values, &origin)?;
        // Before threads were recorded, the description of the processor told how many 0 were.
        let cores = || device["cores"].as_u64().filter(|_| resolved.settings().run.threads == 0).map(|cores| cores as usize);
        let threads = if device["api"] == "cpu" { manifest.threads.or_else(cores) } else { None };
        let word = |field: &str| device[field].as_str().map(|word| format!("\"{word}\""));
        let threads = threads.map(|n| n.to_string());
        let settled = [("run.threads", threads), ("run.precision", word("precision")), ("run.kernels", word("kernels"))];
        resolved.with_values(settled.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))), &origin)
    }

    /// Another run or file that it was built on.
    pub fn input(&self, flag: &str) -> Option<PathBuf> {
        self.manifest.inputs.get(flag).map(PathBuf::from)
    }

    pub fn pack_hash(&self) -> Option<String> {
        self.manifest.data.as_ref().map(|data| data.pack_hash.clone())
    }

    /// In which way an input is not what it was. None where it is, or there was none, or no hash was recorded: then nobody can tell.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn changed(&self, flag: &str) -> Result<Option<String>> {
        let Some(path) = self.input(flag) else { return Ok(None) };
        if !path.exists() {
            return Ok(Some(format!("{} is gone", path.display())));
        }
        let now = pipeline::load::fingerprint(&path)?;
        let then = self.manifest.input_hashes.get(flag).filter(|then| **then != now);
        Ok(then.map(|then| format!("{} is not what the run began with ({then} then, {now} now)", path.display())))
    }

    /// The device of the run, under the number that it has today.
    ///
    /// # Errors
    /// It is not here, or none is recorded ([`Usage`](crate::failure::Usage)).
    pub fn device(&self) -> Result<DeviceChoice> {
        let (run, device) = (self.folder.path().display(), &self.manifest.device);
        match device["api"].as_str() {
            // The same code on whatever processor.
            Some("cpu") => return Ok(DeviceChoice::Cpu),
            Some(_) => {}
            None => usage!("{run} does not say which device it was trained on; name one with --device"),
        }
        let here = adapters().iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        match found_among(&here, device) {
            Some(choice) => Ok(choice),
            None => usage!(
                "{run} was trained on {}, which is not here (`moue devices` lists what is); name another device with --device",
                self.manifest.device_name().unwrap_or("a device without a name")
            ),
        }
    }

    /// The run gone on with, on what it was built on: on its own pack and device, unless others are named.
    ///
    /// # Errors
    /// An input was changed, or pack or device are not known or not here ([`Usage`](crate::failure::Usage)).
    pub fn resumed(
        self,
        command: &'static str,
        stages: Stages,
        resolved: Resolved,
        pack: Option<PathBuf>,
        device: Option<DeviceChoice>,
    ) -> Result<Order> {
        let run = self.folder.path().display();
        let Some(pack) = pack.or_else(|| self.manifest.data.as_ref().map(|data| data.place(&self.folder))) else {
            usage!("{run} does not say which pack it began with; name it with --data");
        };
        for flag in ["from", "labels"] {
            if let Some(why) = self.changed(flag)? {
                usage!("{run} cannot go on: {why}; put that back, or begin a new run with --{flag}");
            }
        }
        Ok(Order {
            command,
            stages,
            resolved,
            seed: self.manifest.seed,
            faces: Faces::Pack(pack),
            pack_hash: self.pack_hash(),
            from: self.input("from"),
            labels: self.input("labels"),
            device: device.map_or_else(|| self.device(), Ok)?,
            place: Place::Resumed(self.folder),
            repeats: None,
        })
    }
}

/// The word for a device among adapters, all of them as manifests describe them: by its name, for numbers change.
fn found_among(adapters: &[Value], device: &Value) -> Option<DeviceChoice> {
    let same = adapters.iter().filter(|adapter| adapter["api"] == device["api"] && adapter["name"] == device["name"]);
    let found = same.min_by_key(|adapter| adapter["index"] != device["index"])?;
    let api = found["api"].as_str()?.to_lowercase();
    let word = if api == "vulkan" { format!("{api}:{}", found["index"]) } else { api };
    word.parse().ok()
}

/// The faces to train on.
pub enum Faces {
    Pack(PathBuf),
    /// To be drawn into the run's folder.
    Generated(GeneratorConfig),
}

/// Where the run goes.
pub enum Place {
    /// A folder of its own; none named: a numbered one.
    New(Option<PathBuf>),
    /// A run that goes on from its newest checkpoint.
    Resumed(RunFolder),
}

/// A run as it was asked for.
pub struct Order {
    /// Name for the run folder.
    pub command: &'static str,
    pub stages: Stages,
    pub resolved: Resolved,
    pub seed: u64,
    pub faces: Faces,
    /// Hash that the pack must have, because an earlier run was trained on it.
    pub pack_hash: Option<String>,
    /// Run or weights file whose network training starts from.
    pub from: Option<PathBuf>,
    /// Candidate sets made by `moue labels`.
    pub labels: Option<PathBuf>,
    pub device: DeviceChoice,
    pub place: Place,
    /// The run that is done again: what differs from then is told before anything is trained.
    pub repeats: Option<Manifest>,
}

/// A job that has ended, with what it worked on.
pub struct Ran {
    pub folder: RunFolder,
    pub pack: Arc<Pack>,
    pub resolved: Resolved,
    pub end: JobEnd,
}

/// File of the generated faces in a run folder.
pub const GENERATED: &str = "faces.moue";

impl Order {
    /// Builds the job and runs it. Everything that can be refused is refused before a run folder exists.
    pub fn carry_out(self, progress: &ProgressArgs) -> Result<Ran> {
        let control = terminal::control(prints::silence_input)?;
        self.check_stages()?;
        let run = &self.resolved.settings().run;
        let device = device::open_for(self.device, run.kernels)?;
        let precision = match (Precision::of(run.precision, &device), &self.place) {
            (Err(e), Place::Resumed(folder)) => {
                let run = folder.path().display();
                return Err(e.context(format!("{run} goes on in the precision that it began in, unless --precision names another")));
            }
            (precision, _) => precision?,
        };
        self.check_inputs()?;
        let mut loaded = match &self.faces {
            Faces::Pack(path) => Some(self.with_candidates(Pack::open(path)?)?),
            Faces::Generated(_) => None,
        };
        let (folder, resume) = match &self.place {
            Place::Resumed(folder) => (folder.clone(), true),
            Place::New(Some(out)) => (RunFolder::create(out)?, false),
            Place::New(None) => (RunFolder::create_numbered(Path::new("runs"), self.command)?, false),
        };
        let progress = progress.open(&control);
        progress.turn_to(&folder);
        if let Faces::Generated(config) = &self.faces {
            let generated = generated_pack(config, folder.path()).and_then(|pack| self.with_candidates(pack));
            if generated.is_err() && !folder.manifest().exists() {
                // Not yet a run: it would only stand in the way of the next attempt. The error itself is what matters.
                let _ = std::fs::remove_dir_all(folder.path());
            }
            loaded = Some(generated?);
        }
        let (candidates, pack) = loaded.context("a pack was opened or generated")?;
        let pack = Arc::new(pack);
        let mut job = Job {
            command: command_line(),
            stages: self.stages,
            resolved: self.resolved.clone(),
            seed: self.seed,
            pack: pack.clone(),
            device,
            precision,
            folder: folder.clone(),
            resume,
            from: self.from,
            candidates,
            labels: self.labels,
            supervision: progress.supervise(&folder)?,
            remarks: Vec::new(),
        };
        if let Some(then) = &self.repeats {
            job.remarks = differences(then, &job.manifest()?).iter().map(Difference::to_string).collect();
        }
        let end = job.run();
        // Gives the terminal back: what follows is to be read.
        drop(progress);
        Ok(Ran { folder, pack, resolved: self.resolved, end: end? })
    }

    fn check_stages(&self) -> Result<()> {
        let settings = self.resolved.settings();
        let pretrains = self.stages.trainings(settings).contains(&pipeline::Training::Pretrain);
        if pretrains && settings.encoder.backbone != Backbone::Vit {
            usage!(
                "pretraining hides patches from a vision transformer, and encoder.backbone is resnet18; train it from random weights with \
                 `moue finetune` (or `moue demo --set pretrain.epochs=0`)"
            );
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<()> {
        let Some(from) = &self.from else { return Ok(()) };
        pipeline::load::check_start(from, self.resolved.settings(), None)?;
        if self.stages.labels && from.is_file() {
            pipeline::load::refuse_trained_on_labels(from)?;
        }
        Ok(())
    }

    /// A pack that is the right one, and candidate sets for its faces where the stages want them.
    fn with_candidates(&self, pack: Pack) -> Result<(Option<Candidates>, Pack)> {
        if self.pack_hash.as_ref().is_some_and(|hash| *hash != pack.hash()) {
            let what = if self.repeats.is_some() { "the earlier run" } else { "this run" };
            let hint = if self.repeats.is_some() { "; --data names another one on purpose" } else { "" };
            usage!("pack {} is not the one that {what} began with (its hash differs){hint}", pack.path().display());
        }
        let settings = self.resolved.settings();
        if let Some(from) = &self.from {
            pipeline::load::check_start(from, settings, Some(&pack.protocol().classes))?;
        }
        if self.stages.labels {
            crossfit::deal(&pack, &settings.labels, &Streams::new(self.seed))?;
        }
        let candidates = match &self.labels {
            _ if !(self.stages.finetune && settings.finetune.objective.is_partial()) => None,
            Some(path) => Some(Candidates::read_csv(path, &pack)?.with_given(&pack, &settings.labels)),
            None => Some(Candidates::build(&pack, &settings.labels)?),
        };
        Ok((candidates, pack))
    }
}

/// Draws the faces of `--data demo` into a folder.
pub fn generated_pack(config: &GeneratorConfig, folder: &Path) -> Result<Pack> {
    let path = folder.join(GENERATED);
    config.check()?;
    let mut writer = PackWriter::create(&path, generated::protocol())?;
    generated::generate(config, &mut writer)?;
    writer.finish(generated::provenance(config))?;
    Pack::open(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_is_known_by_its_name() {
        let adapter = |api: &str, index: u64, name: &str| json!({"api": api, "index": index, "name": name, "memory": 8});
        let here = [adapter("Vulkan", 0, "llvmpipe"), adapter("Vulkan", 1, "RTX"), adapter("Vulkan", 2, "RTX"), adapter("Gl", 0, "RTX")];
        let word = |device: Value| found_among(&here, &device).map(|choice| choice.to_string()).unwrap_or_default();
        assert_eq!(word(adapter("Vulkan", 2, "RTX")), "vulkan:2");
        // What had this number then is another one now.
        assert_eq!(word(adapter("Vulkan", 0, "RTX")), "vulkan:1");
        assert_eq!(word(adapter("Gl", 0, "RTX")), "gl");
        for gone in [adapter("Vulkan", 0, "Arc"), adapter("Metal", 0, "RTX"), json!({"api": "Vulkan", "index": 0})] {
            assert_eq!(word(gone), "");
        }
    }
}
