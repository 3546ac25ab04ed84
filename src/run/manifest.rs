//! `manifest.json`: what a run was asked to do, with which settings (and where each came from), on which data and device.
//!
//! Written when the run starts and again when it ends. It explains a run to a person, lets a resume check that it continues the same thing, and
//! holds all that `moue rerun` needs to do it again; what *happened* stands in the events. Fields that a newer moue added are ignored on reading, and lost if this version writes the file again.

use super::clock;
use super::event::Outcome;
use super::fingerprint;
use super::folder::{RunFolder, write_atomic};
use super::values::Ordered;
use crate::dataset::Pack;
use crate::dataset::generated::GeneratorConfig;
use crate::dataset::leaks::{self, Leak};
use crate::limits;
use crate::usage;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;

/// The command as it was typed, under the program's own name: where that lies is of no use to anyone else.
pub fn command_line() -> Vec<String> {
    std::iter::once("moue".to_string()).chain(std::env::args().skip(1)).collect()
}

/// Format of the file; a reader refuses any other.
pub const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Version of the program that made the run.
    pub moue: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// UTC, ISO 8601.
    pub created: String,
    /// The stages to be done, in order, as [`place`](super::event::place) names them.
    #[serde(default)]
    pub stages: Vec<String>,
    /// The root of every random stream.
    pub seed: u64,
    /// Every resolved setting and the layer it came from, in the schema's order.
    #[serde(default)]
    pub settings: Ordered<Setting>,
    /// The device as the engine describes it; `name` is shown in lists.
    #[serde(default)]
    pub device: Value,
    /// Threads that worked on parts of a batch at once: the bits of the result depend on them. In this and the next fields none stands for a
    /// manifest from before they were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Threads that prepared faces: nothing depends on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// How the faces were generated, where the run generated its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorConfig>,
    /// Other runs and files that the run builds on, by the flag that named them: `from`, `labels`.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub inputs: Ordered<String>,
    /// What was in them: a [`fingerprint`] of the weights or the file.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub input_hashes: Ordered<String>,
    /// What a resume did otherwise than the run before it, of that on which results depend, in words: `threads from 2 to 3`. `device`,
    /// `threads` and `workers` are those of the last session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Finished>,
}

/// The program that made a run, beside its version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Version of burn that it was locked to.
    pub burn: String,
    /// Hash of the lock file, which names the version of every library.
    pub libraries: String,
    /// Processor and operating system, and whether it was optimised.
    pub target: String,
    /// [`fingerprint::program`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Program {
    /// This one.
    pub fn this() -> Self {
        const LOCK: &str = include_str!("../../Cargo.lock");
        let burn = LOCK.split_once("name = \"burn\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
        let optimised = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self {
            burn: burn.map_or("unknown", |(version, _)| version).into(),
            libraries: fingerprint::bytes(LOCK.as_bytes()),
            target: format!("{} {} {optimised}", std::env::consts::ARCH, std::env::consts::OS),
            file: fingerprint::program(),
        }
    }
}

/// A setting's value and the layer that set it: `default`, `preset demo`, `file moue.toml`, `flag`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub value: Value,
    pub origin: String,
}

/// The data a run trains on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    pub pack: String,
    /// [`Pack::hash`].
    pub pack_hash: String,
    pub protocol: String,
    /// [`Protocol::hash`](crate::dataset::Protocol::hash).
    pub protocol_hash: String,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// Pixel-identical faces in two splits; none where nobody has looked, as in runs from before there was a look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaks: Option<Vec<Leak>>,
}

impl Data {
    pub fn of(pack: &Pack) -> Self {
        let protocol = pack.protocol();
        Self {
            // Absolute, so that the run can be measured and resumed from any folder.
            pack: std::path::absolute(pack.path()).unwrap_or_else(|_| pack.path().into()).display().to_string(),
            pack_hash: pack.hash(),
            protocol: protocol.name.clone(),
            protocol_hash: protocol.hash(),
            classes: protocol.classes.clone(),
            leaks: None,
        }
    }

    /// Where the pack of the run in `folder` lies: where the manifest says, or else in the run's folder, with which it may have been moved.
    pub fn place(&self, folder: &RunFolder) -> PathBuf {
        let recorded = PathBuf::from(&self.pack);
        let beside = folder.path().join(recorded.file_name().unwrap_or_default());
        if !recorded.is_file() && beside.is_file() { beside } else { recorded }
    }

    /// Refuses a pack at the run's own place that is not the one that the run was trained on; `remedy` says how to go on.
    ///
    /// # Errors
    /// [`Usage`](crate::failure::Usage) where its hash differs.
    pub fn refuse_changed(&self, pack: &Pack, remedy: &str) -> Result<()> {
        if pack.hash() != self.pack_hash {
            usage!("pack {} was changed since the run was trained on it (its hash differs); {remedy}", pack.path().display());
        }
        Ok(())
    }

    /// Whether held-out faces stand among the training faces, in words.
    pub fn leaks_in_words(&self) -> String {
        match &self.leaks {
            None => "not looked for".into(),
            Some(found) => leaks::warning(found).unwrap_or_else(|| "no held-out face stands among the training faces".into()),
        }
    }
}

/// How the last session of the run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub outcome: Outcome,
    /// UTC, ISO 8601.
    pub at: String,
}

impl Manifest {
    /// A manifest of this program, made now. Reads the program's file.
    pub fn new(command: Vec<String>, seed: u64) -> Self {
        Self {
            format: FORMAT,
            moue: env!("CARGO_PKG_VERSION").into(),
            command,
            created: clock::iso(clock::now()),
            stages: Vec::new(),
            seed,
            settings: Ordered::default(),
            device: Value::Null,
            threads: None,
            workers: None,
            program: Some(Program::this()),
            data: None,
            generator: None,
            inputs: Ordered::default(),
            input_hashes: Ordered::default(),
            changes: Vec::new(),
            finished: None,
        }
    }

    /// # Errors
    /// Where the file is missing, damaged, or of another format ([`Usage`](crate::failure::Usage)).
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.manifest();
        let context = || format!("reading {}", path.display());
        let text = limits::read_text(&path).with_context(context)?;
        let value: Value = serde_json::from_str(&text).with_context(context)?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => usage!("{}: format {format}, this moue reads {FORMAT}", path.display()),
            None => usage!("{}: not a run's manifest (no `format`)", path.display()),
        }
        serde_json::from_value(value).with_context(context)
    }

    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        write_atomic(&folder.manifest(), |w| {
            serde_json::to_writer_pretty(&mut *w, self)?;
            Ok(w.write_all(b"\n")?)
        })
    }

    /// Records how the run ended, now. The caller writes the file.
    pub fn finish(&mut self, outcome: Outcome) {
        self.finished = Some(Finished { outcome, at: clock::iso(clock::now()) });
    }

    /// The device's name, for lists: `device.name`, or `device` itself where it is a string.
    pub fn device_name(&self) -> Option<&str> {
        self.device.as_str().or_else(|| self.device["name"].as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{PackWriter, generated};
    use serde_json::json;
    use std::fs;
    use std::path::Path;

    #[test]
    fn round_trip_keeps_the_order_of_settings() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("r")).unwrap();
        let mut manifest = Manifest::new(vec!["moue".into(), "demo".into()], u64::MAX);
        manifest.settings.set("train.lr", Setting { value: json!(1e-3), origin: "default".into() });
        manifest.settings.set("data.size", Setting { value: json!([96, 96]), origin: "flag".into() });
        manifest.device = json!({"name": "llvmpipe", "backend": "vulkan"});
        manifest.finish(Outcome::Completed);
        manifest.write(&folder).unwrap();
        let back = Manifest::read(&folder).unwrap();
        assert_eq!(back, manifest);
        assert_eq!(back.settings.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["train.lr", "data.size"]);
        assert_eq!(back.device_name(), Some("llvmpipe"));
        // The lock file names the burn that Cargo.toml pins.
        let pinned = include_str!("../../Cargo.toml").split_once("burn = { version = \"=").unwrap().1.split_once('"').unwrap().0;
        assert_eq!(back.program.unwrap().burn, pinned);
        fs::write(folder.manifest(), r#"{"format": 9}"#).unwrap();
        assert_eq!(crate::failure::exit_code(&Manifest::read(&folder).unwrap_err()), 2);
    }

    #[test]
    fn a_pack_that_moved_with_its_run_is_found_and_another_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let write = |path: &Path, provenance: Value, faces: usize| {
            let mut writer = PackWriter::create(path, generated::protocol()).unwrap();
            generated::generate(&GeneratorConfig { train: faces, valid: 0, test: 0, size: 32, ..Default::default() }, &mut writer).unwrap();
            writer.finish(provenance).unwrap();
            Pack::open(path).unwrap()
        };
        let (first, beside) = (root.path().join("faces.moue"), folder.path().join("faces.moue"));
        let data = Data::of(&write(&first, json!({}), 3));
        assert_eq!(data.place(&folder), first);
        fs::rename(&first, &beside).unwrap();
        assert_eq!(data.place(&folder), beside);
        data.refuse_changed(&Pack::open(&beside).unwrap(), "").unwrap();
        // What is said of the faces may change, the faces may not.
        data.refuse_changed(&write(&beside, json!({"note": 1}), 3), "").unwrap();
        let error = data.refuse_changed(&write(&beside, json!({}), 4), "--data reads it").unwrap_err();
        assert!(crate::failure::exit_code(&error) == 2 && error.to_string().ends_with("; --data reads it"), "{error}");
        // One that is nowhere is named where it was.
        fs::remove_file(&beside).unwrap();
        assert_eq!(data.place(&folder), first);
    }
}
