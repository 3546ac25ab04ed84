//! Checkpoints: everything a stage needs to go on as if it had never stopped.
//!
//! One file, a zip archive without compression: `state.json`, `model.bpk`, `optimizer.bpk` and the objective's own blobs (confidences).
//! Every entry carries a CRC-32. Files are written whole or not at all. Random streams are functions of seed and position, so a step
//! number is all that has to be kept of them.

use super::folder::{RunFolder, write_atomic};
use crate::dataset::Protocol;
use crate::limits;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const FORMAT: u32 = 1;
const STATE: &str = "state.json";
/// No network of ours is larger; a claim beyond it is a damaged or hostile file.
const MAX_ENTRY: u64 = 16 << 30;

/// Where training stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    /// Stage as events name it, for example `finetune/pll`.
    pub stage: String,
    /// Optimiser steps done, and the stage's total.
    pub step: u64,
    pub steps: u64,
    pub seed: u64,
    /// Class names in label order; empty for pretraining.
    pub classes: Vec<String>,
    /// Hash of the label-protocol card; empty for pretraining.
    pub protocol_hash: String,
    /// The card itself, so that a checkpoint explains its labels without its data; none for pretraining, and in checkpoints from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Every setting as TOML text: what the network is and how its input is made.
    pub settings: Vec<(String, String)>,
}

/// A checkpoint in memory.
pub struct Checkpoint {
    pub state: State,
    /// `model.bpk`, `optimizer.bpk` and the objective's blobs, by name.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Checkpoint {
    pub fn new(state: State, blobs: Vec<(String, Vec<u8>)>) -> Self {
        Self { state: State { format: FORMAT, ..state }, blobs }
    }

    pub fn blob(&self, name: &str) -> Result<&[u8]> {
        let found = self.blobs.iter().find(|b| b.0 == name);
        found.map(|b| b.1.as_slice()).ok_or_else(|| anyhow!("the checkpoint has no {name}"))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, |file| {
            let mut zip = ZipWriter::new(file);
            let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            zip.start_file(STATE, plain)?;
            zip.write_all(&serde_json::to_vec_pretty(&self.state)?)?;
            for (name, bytes) in &self.blobs {
                zip.start_file(name.as_str(), plain)?;
                zip.write_all(bytes)?;
            }
            zip.finish()?;
            Ok(())
        })
    }

    /// # Errors
    /// Names the file and the damage.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_inner(path).with_context(|| format!("checkpoint {}", path.display()))
    }

    fn read_inner(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut zip = ZipArchive::new(file).context("damaged or no checkpoint")?;
        let mut state = None;
        let mut blobs = Vec::new();
        let mut left = length;
        for i in 0..zip.len() {
            let mut entry = zip.by_index(i).context("damaged")?;
            let name = entry.name().context("damaged")?.into_owned();
            let most = if name == STATE { limits::TEXT } else { MAX_ENTRY };
            // Stored entries are not larger than the file that holds them, all together.
            if entry.compression() != CompressionMethod::Stored || entry.size() > left.min(most) {
                bail!("entry {name} has an impossible size");
            }
            left -= entry.size();
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).with_context(|| format!("{name} is damaged"))?;
            if name == STATE {
                state = Some(serde_json::from_slice::<State>(&bytes).context("state.json does not parse")?);
            } else {
                blobs.push((name, bytes));
            }
        }
        let state = state.ok_or_else(|| anyhow!("state.json is missing"))?;
        if state.format != FORMAT {
            bail!("format {}, this moue reads {FORMAT}", state.format);
        }
        Ok(Self { state, blobs })
    }
}

/// File name of a checkpoint of `stage` after `step` steps. Sorts by step.
pub fn file_name(stage: &str, step: u64) -> String {
    format!("{}-{step:08}.ckpt", stage.replace('/', "-"))
}

/// Checkpoints of one stage in a run, oldest first.
pub fn list(folder: &RunFolder, stage: &str) -> Result<Vec<PathBuf>> {
    let prefix = format!("{}-", stage.replace('/', "-"));
    let mut found: Vec<PathBuf> = match std::fs::read_dir(folder.checkpoints()) {
        Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).with_context(|| format!("reading {}", folder.checkpoints().display())),
    };
    found.retain(|p| {
        let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let digits = name.strip_prefix(&prefix).and_then(|r| r.strip_suffix(".ckpt"));
        digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
    });
    found.sort();
    Ok(found)
}

/// The step of a stage's newest checkpoint, from its name alone.
pub fn latest_step(folder: &RunFolder, stage: &str) -> Result<Option<u64>> {
    let newest = list(folder, stage)?.pop();
    Ok(newest.and_then(|path| path.file_stem()?.to_str()?.rsplit('-').next()?.parse().ok()))
}

/// The newest readable checkpoint of a stage; damaged ones are reported through `warn` and passed over.
pub fn newest(folder: &RunFolder, stage: &str, mut warn: impl FnMut(String)) -> Result<Option<(PathBuf, Checkpoint)>> {
    for path in list(folder, stage)?.into_iter().rev() {
        match Checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Some((path, checkpoint))),
            Err(e) => warn(format!("{}; using the one before it", crate::failure::one_line(&e))),
        }
    }
    Ok(None)
}

/// Removes all but the newest `keep` checkpoints of a stage.
pub fn retain(folder: &RunFolder, stage: &str, keep: usize) -> Result<()> {
    let all = list(folder, stage)?;
    for path in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(step: u64) -> Checkpoint {
        let state = State {
            format: FORMAT,
            stage: "finetune/pll".into(),
            step,
            steps: 100,
            seed: 1,
            classes: vec!["a".into()],
            protocol_hash: "x".into(),
            protocol: None,
            settings: vec![("vit.dim".into(), "96".into())],
        };
        Checkpoint::new(state, vec![("model.bpk".into(), (0..=255).collect()), ("optimizer.bpk".into(), vec![7; 99])])
    }

    #[test]
    fn a_damaged_newest_checkpoint_falls_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run")).unwrap();
        std::fs::create_dir_all(folder.checkpoints()).unwrap();
        let at = |step| folder.checkpoints().join(file_name("finetune/pll", step));
        for step in [5, 10, 200] {
            sample(step).write(&at(step)).unwrap();
        }
        let (path, checkpoint) = newest(&folder, "finetune/pll", |w| panic!("{w}")).unwrap().unwrap();
        assert_eq!((path, checkpoint.state.step), (at(200), 200));
        assert_eq!(latest_step(&folder, "finetune/pll").unwrap(), Some(200));
        assert_eq!(checkpoint.blob("model.bpk").unwrap(), (0..=255).collect::<Vec<u8>>());

        let bytes = std::fs::read(at(200)).unwrap();
        std::fs::write(at(200), &bytes[..bytes.len() / 2]).unwrap();
        let mut warnings = Vec::new();
        let (_, checkpoint) = newest(&folder, "finetune/pll", |w| warnings.push(w)).unwrap().unwrap();
        assert_eq!((checkpoint.state.step, warnings.len()), (10, 1));
        assert!(newest(&folder, "finetune/ce", |w| panic!("{w}")).unwrap().is_none());

        // A flipped byte inside an entry is noticed by its checksum.
        let mut bytes = std::fs::read(at(10)).unwrap();
        let place = bytes.windows(4).position(|w| w == [7, 7, 7, 7]).unwrap();
        bytes[place] = 8;
        std::fs::write(at(10), &bytes).unwrap();
        assert!(Checkpoint::read(&at(10)).is_err());
        retain(&folder, "finetune/pll", 1).unwrap();
        assert_eq!(list(&folder, "finetune/pll").unwrap(), [at(200)]);
    }
}
