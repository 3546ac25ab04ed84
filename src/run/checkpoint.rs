//! Checkpoints: everything a stage needs to go on as if it had never stopped.
//!
//! One file, a zip archive without compression: `state.json`, `model.bpk`, `optimizer.bpk`, where the loop stood, and the objective's own
//! blobs (confidences). `state.json` holds the SHA-256 of every other entry. Files are written whole or not at all. Random streams are
//! functions of seed and position, so a step number is all that has to be kept of them.
//!
//! Of a stage that runs, the newest [`KEEP`] checkpoints stay, the one with the best validation score, and those that the settings keep for
//! good; of a finished stage the last instead of the newest few.

use super::folder::{RunFolder, write_atomic};
use crate::dataset::Protocol;
use crate::dataset::protocol::hex;
use crate::limits;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const FORMAT: u32 = 1;
/// No network of ours is larger; a claim beyond it is a damaged or hostile file.
const MAX_ENTRY: u64 = 16 << 30;
/// Entry that says what the others are.
const STATE: &str = "state.json";
/// The network's parameters.
pub const MODEL: &str = "model.bpk";
/// Newest checkpoints that are kept of a stage that still runs: where a power cut spoils one, the one before it is there.
pub const KEEP: usize = 3;

/// Where training stood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// The epoch that it ends; none within one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// All steps of an epoch are done, but what is told and measured at its end is still to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub epoch_open: bool,
    /// Accuracy on the validation split, where it was measured at this step: what the best checkpoint is chosen by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Parts of a batch in turn, where the device had no memory for as few as training began with: a resume begins with as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// SHA-256 of every blob, in hexadecimal. Empty in checkpoints from before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sha256: BTreeMap<String, String>,
}

/// A checkpoint in memory.
pub struct Checkpoint {
    pub state: State,
    /// `model.bpk`, `optimizer.bpk` and the objective's blobs, by name.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Checkpoint {
    pub fn new(state: State, blobs: Vec<(String, Vec<u8>)>) -> Self {
        let sha256 = blobs.iter().map(|(name, bytes)| (name.clone(), hash(bytes))).collect();
        Self { state: State { format: FORMAT, sha256, ..state }, blobs }
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
        let (mut archive, state) = Archive::open(path)?;
        let mut blobs = Vec::new();
        for i in 0..archive.zip.len() {
            if archive.zip.index_for_name(STATE) == Some(i) {
                continue;
            }
            let (name, bytes) = archive.entry(i)?;
            let expected = state.sha256.get(&name);
            if expected.is_none() && !state.sha256.is_empty() || expected.is_some_and(|sha256| *sha256 != hash(&bytes)) {
                bail!("{name} is not what was saved (its SHA-256 differs)");
            }
            blobs.push((name, bytes));
        }
        if let Some(name) = state.sha256.keys().find(|name| blobs.iter().all(|blob| blob.0 != **name)) {
            bail!("{name} is missing");
        }
        Ok(Self { state, blobs })
    }
}

impl State {
    /// What a checkpoint says of itself, without its blobs: quick, whatever their size.
    ///
    /// # Errors
    /// Names the file and the damage.
    pub fn read(path: &Path) -> Result<Self> {
        Archive::open(path).map(|(_, state)| state).with_context(|| format!("checkpoint {}", path.display()))
    }

    /// SHA-256 of the network's parameters; none in a checkpoint from before.
    pub fn weights(&self) -> Option<&str> {
        self.sha256.get(MODEL).map(String::as_str)
    }
}

struct Archive {
    zip: ZipArchive<File>,
    /// Bytes of the file that no entry was read from yet.
    left: u64,
}

impl Archive {
    fn open(path: &Path) -> Result<(Self, State)> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        let mut archive = Self { zip: ZipArchive::new(file).context("damaged or no checkpoint")?, left };
        let index = archive.zip.index_for_name(STATE).ok_or_else(|| anyhow!("{STATE} is missing"))?;
        let state: State = serde_json::from_slice(&archive.entry(index)?.1).with_context(|| format!("{STATE} does not parse"))?;
        if state.format != FORMAT {
            bail!("format {}, this moue reads {FORMAT}", state.format);
        }
        Ok((archive, state))
    }

    /// Name and bytes of an entry.
    fn entry(&mut self, index: usize) -> Result<(String, Vec<u8>)> {
        let mut entry = self.zip.by_index(index).context("damaged")?;
        let name = entry.name().context("damaged")?.into_owned();
        let most = if name == STATE { limits::TEXT } else { MAX_ENTRY };
        // Stored entries are not larger than the file that holds them, all together.
        if entry.compression() != CompressionMethod::Stored || entry.size() > self.left.min(most) {
            bail!("entry {name} has an impossible size");
        }
        self.left -= entry.size();
        let mut bytes = Vec::with_capacity(entry.size() as usize);
        entry.read_to_end(&mut bytes).with_context(|| format!("{name} is damaged"))?;
        Ok((name, bytes))
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// File name of a checkpoint of `stage` after `step` steps. Sorts by step.
pub fn file_name(stage: &str, step: u64) -> String {
    format!("{}-{step:08}.ckpt", stage.replace('/', "-"))
}

/// A checkpoint as events name it, relative to the run folder.
pub fn event_path(path: &Path) -> String {
    format!("checkpoints/{}", path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default())
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

/// The checkpoint of a stage with the highest validation score, the earliest of equal ones; none where none was scored. Damaged ones are
/// reported through `warn` and passed over.
pub fn best(folder: &RunFolder, stage: &str, mut warn: impl FnMut(String)) -> Result<Option<PathBuf>> {
    let mut best: Option<(f64, PathBuf)> = None;
    for path in list(folder, stage)? {
        match State::read(&path) {
            Ok(state) => {
                let score = state.score.filter(|score| best.as_ref().map_or(!score.is_nan(), |(most, _)| score > most));
                best = score.map(|score| (score, path)).or(best);
            }
            Err(e) => warn(format!("{}; choosing the best of the others", crate::failure::one_line(&e))),
        }
    }
    Ok(best.map(|(_, path)| path))
}

/// Removes all checkpoints of a stage but the newest `keep`, the best one, and those that end an epoch which is a multiple of `every` (0:
/// none of them).
pub fn retain(folder: &RunFolder, stage: &str, keep: usize, every: u64) -> Result<()> {
    let all = list(folder, stage)?;
    let best = best(folder, stage, |_| {})?;
    for path in &all[..all.len().saturating_sub(keep)] {
        let for_good = || every > 0 && State::read(path).is_ok_and(|s| s.epoch.is_some_and(|epoch| epoch.is_multiple_of(every)));
        if best.as_ref() != Some(path) && !for_good() {
            std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
        }
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
            ..State::default()
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
        retain(&folder, "finetune/pll", 1, 0).unwrap();
        assert_eq!(list(&folder, "finetune/pll").unwrap(), [at(200)]);
    }

    #[test]
    fn the_newest_the_best_and_every_nth_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run")).unwrap();
        for (epoch, score) in [0.1, 0.7, 0.3, 0.7, f64::NAN, 0.2, 0.4, 0.5, 0.6, 0.1].into_iter().enumerate() {
            let epoch = epoch as u64 + 1;
            let mut checkpoint = sample(epoch * 10);
            (checkpoint.state.epoch, checkpoint.state.score) = (Some(epoch), (!score.is_nan()).then_some(score));
            checkpoint.write(&folder.checkpoints().join(file_name("finetune/pll", epoch * 10))).unwrap();
        }
        let steps = || -> Vec<u64> {
            let all = list(&folder, "finetune/pll").unwrap();
            all.iter().map(|path| State::read(path).unwrap().step).collect()
        };
        retain(&folder, "finetune/pll", KEEP, 4).unwrap();
        assert_eq!(steps(), [20, 40, 80, 90, 100]);
        let at = |step| Some(folder.checkpoints().join(file_name("finetune/pll", step)));
        assert_eq!(best(&folder, "finetune/pll", |w| panic!("{w}")).unwrap(), at(20));
        retain(&folder, "finetune/pll", 1, 0).unwrap();
        assert_eq!(steps(), [20, 100]);
        assert_eq!(best(&folder, "finetune/ce", |w| panic!("{w}")).unwrap(), None);
        // Another one is not taken for the best in silence.
        std::fs::write(at(20).unwrap(), "torn").unwrap();
        let mut warnings = Vec::new();
        assert_eq!(best(&folder, "finetune/pll", |w| warnings.push(w)).unwrap(), at(100));
        assert!(warnings.len() == 1 && warnings[0].contains("finetune-pll-00000020.ckpt"), "{warnings:?}");
    }

    #[test]
    fn what_was_not_saved_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ckpt");
        let refused = |checkpoint: &Checkpoint, why: &str| {
            checkpoint.write(&path).unwrap();
            let error = Checkpoint::read(&path).err().map(|e| format!("{e:#}")).unwrap_or_default();
            assert!(error.contains(why), "{error}");
        };
        // Each of these is a sound archive.
        let mut other = sample(1);
        other.blobs[0].1[0] = 9;
        refused(&other, "SHA-256");
        let mut less = sample(1);
        less.blobs.pop();
        refused(&less, "optimizer.bpk is missing");
        let mut more = sample(1);
        more.blobs.push(("extra".into(), vec![]));
        refused(&more, "extra");
        // From before there were hashes.
        let mut old = sample(1);
        old.state.sha256.clear();
        old.write(&path).unwrap();
        assert_eq!((Checkpoint::read(&path).unwrap().blobs, State::read(&path).unwrap().weights()), (sample(1).blobs, None));
    }
}
