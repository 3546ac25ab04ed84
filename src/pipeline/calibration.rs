//! The temperature of a run's networks: fitted on the validation faces when a finetuning ends, kept in the run folder.
//!
//! `calibration.json` holds one entry for each finetuning stage, with the step of the checkpoint that it belongs to: an entry of another
//! step is as good as none. Runs from before there was one get it from [`fitted`], as long as their pack is still there.

use crate::config::Settings;
use crate::dataset::{Pack, Split};
use crate::engine::shards::Shards;
use crate::eval::calibration::Calibration;
use crate::finetune::{read_logits, scored_faces};
use crate::limits;
use crate::model::Classifier;
use crate::run::checkpoint::State;
use crate::run::{RunFolder, write_atomic};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    step: u64,
    #[serde(flatten)]
    calibration: Calibration,
}

/// The temperature that was fitted for a checkpoint.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn read(folder: &RunFolder, state: &State) -> Result<Option<Calibration>> {
    let entry = entries(folder)?.remove(&state.stage);
    Ok(entry.filter(|entry| entry.step == state.step).map(|entry| entry.calibration))
}

/// Keeps the temperature of a checkpoint.
pub fn write(folder: &RunFolder, stage: &str, step: u64, calibration: Calibration) -> Result<()> {
    // What cannot be read any more is made anew.
    let mut entries = entries(folder).unwrap_or_default();
    entries.insert(stage.to_string(), Entry { step, calibration });
    write_atomic(&folder.calibration(), |file| Ok(file.write_all(&serde_json::to_vec_pretty(&entries)?)?))
}

/// Fits a temperature on a pack's labelled validation faces; none where there are too few. `model` is in evaluation form.
pub fn fitted(model: &Classifier, pack: &Pack, settings: &Settings, shards: &Shards) -> Result<Option<Calibration>> {
    let faces = scored_faces(pack, Split::Valid);
    let labels: Vec<_> = faces.iter().filter_map(|&i| pack.faces()[i].label).collect();
    let logits = read_logits(model, pack, &faces, settings, shards)?;
    Ok(Calibration::fit(Split::Valid, pack.protocol().classes.len(), &labels, &logits))
}

fn entries(folder: &RunFolder) -> Result<BTreeMap<String, Entry>> {
    let path = folder.calibration();
    let bytes = match limits::read(&path, limits::TEXT) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged; remove it to have it made anew", path.display()))
}
