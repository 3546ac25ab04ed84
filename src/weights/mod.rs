//! Weights in and out: networks as files that other programs write and read.
//!
//! ```text
//! timm, MAE, SlowFast, transformers (.safetensors, .pth) --import--> encoder --\
//!                                                                             weights file --> finetune --from, predict
//! run folder -------------------------------------------- export ------------/     \--> timm, transformers
//! ```
//! A *weights file* of ours is a safetensors file with moue's own parameter names and a [`Card`] in its metadata: which network it is, under
//! which settings, and what its classes are called. [`layout`] knows the names that others give to the same tensors, [`import`] matches a
//! file against a network and tells what it found, [`positions`] carries position embeddings to another grid, [`file`] reads and writes.
//!
//! Files come from strangers. Nothing in them is ever executed: a `.pth` file is parsed as data, and an object that is not a tensor or a
//! plain value is a name without a meaning. Only tensors that the network has a place for are read, after their shape was compared.

#[cfg(feature = "train")]
pub mod export;
pub mod file;
#[cfg(feature = "train")]
pub mod import;
pub mod layout;
#[cfg(feature = "train")]
pub mod parameters;
#[cfg(feature = "train")]
pub mod positions;

pub use file::TensorFile;
#[cfg(feature = "train")]
pub use import::{Report, import};
pub use layout::Layout;

use crate::config::{Origin, Resolved};
use crate::dataset::Protocol;
use crate::dataset::protocol::check_text;
use crate::eval::calibration::Calibration;
use crate::run::checkpoint::State;
use crate::transform::prepare::Preparation;
use crate::usage;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Format of [`Card`]; a reader refuses any other.
const FORMAT: u32 = 1;

/// How much of a network a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The encoder alone: to be finetuned.
    Encoder,
    /// Encoder and head: recognises.
    Classifier,
}

/// What a file of weights says about itself, in its metadata under the key `moue`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub format: u32,
    /// Version of the program that wrote it.
    pub moue: String,
    pub part: Part,
    /// Whose names the tensors bear.
    pub layout: Layout,
    /// Where the weights come from: a run's stage, or the file that was imported.
    pub origin: String,
    /// Optimiser steps of that stage.
    #[serde(default)]
    pub step: u64,
    /// Every setting as TOML text: what the network is and how its input is made.
    pub settings: Vec<(String, String)>,
    /// Class names in label order; empty for an encoder.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The label-protocol card of the data it was trained on; checkpoints from before they carried it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How the faces it was trained on were made of pictures, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
    /// The temperature that calibrates its probabilities, where it was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

impl Card {
    /// The card of a checkpoint's network.
    pub fn of(state: &State, part: Part) -> Self {
        let classifier = part == Part::Classifier;
        Self {
            format: FORMAT,
            moue: env!("CARGO_PKG_VERSION").into(),
            part,
            layout: Layout::Moue,
            origin: state.stage.clone(),
            step: state.step,
            settings: state.settings.clone(),
            classes: if classifier { state.classes.clone() } else { Vec::new() },
            protocol: if classifier { state.protocol.clone() } else { None },
            preparation: None,
            calibration: None,
        }
    }

    /// The card of an encoder that was imported from a file under certain settings.
    pub fn imported(origin: &str, resolved: &Resolved) -> Self {
        Self {
            format: FORMAT,
            moue: env!("CARGO_PKG_VERSION").into(),
            part: Part::Encoder,
            layout: Layout::Moue,
            origin: origin.into(),
            step: 0,
            settings: resolved.entries().map(|(key, value, _)| (key.to_string(), value)).collect(),
            classes: Vec::new(),
            protocol: None,
            preparation: None,
            calibration: None,
        }
    }

    /// The settings that it names.
    pub fn resolved(&self, origin: &Path) -> Result<Resolved> {
        let values = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        Resolved::default().with_values(values, &Origin::Run(origin.display().to_string()))
    }

    fn from_json(text: &str) -> Result<Self> {
        let card: Self = serde_json::from_str(text)?;
        if card.format != FORMAT {
            bail!("format {}, this moue reads {FORMAT}", card.format);
        }
        if card.protocol.as_ref().is_some_and(|p| p.classes != card.classes) {
            bail!("its classes are not those of its label protocol");
        }
        card.classes.iter().try_for_each(|name| check_text(name).context("a class"))?;
        Ok(card)
    }
}

/// Refuses labels of one class order for a network of another, with both shown. `theirs` is what `place` has.
///
/// # Errors
/// [`Usage`](crate::failure::Usage) where they differ.
pub fn same_classes(network: &[String], place: &str, theirs: &[String]) -> Result<()> {
    if network != theirs {
        usage!(
            "{place} has the classes {}, the network was trained on {}: their labels mean different things",
            theirs.join(", "),
            network.join(", ")
        );
    }
    Ok(())
}
