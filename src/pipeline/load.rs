//! Networks from checkpoints of earlier runs.

use super::Training;
use crate::config::{Backbone, Origin, Resolved, Settings};
use crate::engine::checkpoint::{self, Checkpoint};
use crate::engine::train::load_model;
use crate::model::init::Init;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit, Vit};
use crate::random::Streams;
use crate::run::RunFolder;
use crate::usage;
use anyhow::Result;
use burn::prelude::*;
use std::path::Path;

/// The settings a checkpoint was made under.
pub fn settings_of(checkpoint: &Checkpoint, origin: &str) -> Result<Resolved> {
    let values = checkpoint.state.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    Resolved::default().with_values(values, &Origin::Run(origin.to_string()))
}

/// The encoder of a pretraining run.
///
/// # Errors
/// When the run has none, or its input or network is another than `settings` describe: every differing key is named.
pub fn pretrained_encoder(run: &Path, settings: &Settings, init: &Init) -> Result<Vit> {
    let (checkpoint, theirs) = pretraining(run, settings)?;
    let s = theirs.settings();
    if s.pretrain.method.visible_only() {
        encoder_of::<MaskedAutoencoder>(&checkpoint, s, init)
    } else {
        encoder_of::<MaskedVit>(&checkpoint, s, init)
    }
}

fn encoder_of<M: MaskedModel>(checkpoint: &Checkpoint, settings: &Settings, init: &Init) -> Result<Vit> {
    Ok(load_model(M::new(init, settings), checkpoint)?.into_encoder())
}

/// The checkpoint of a finished pretraining whose encoder is the one that `settings` describe. Costs a read and no network, so a command
/// can refuse a wrong `--from` before it makes anything.
pub fn pretraining(run: &Path, settings: &Settings) -> Result<(Checkpoint, Resolved)> {
    if !run.exists() {
        usage!("--from {}: there is no such run", run.display());
    }
    if settings.encoder.backbone != Backbone::Vit {
        usage!("--from {}: pretraining makes vision transformers, and encoder.backbone is resnet18; leave out --from", run.display());
    }
    let folder = RunFolder::open(run)?;
    let Some((_, checkpoint)) = checkpoint::newest(&folder, &Training::Pretrain.name(), |_| {})? else {
        usage!("--from {}: this run has no pretraining checkpoint", run.display());
    };
    let theirs = settings_of(&checkpoint, &run.display().to_string())?;
    let differing = differing_encoder_keys(theirs.settings(), settings);
    if !differing.is_empty() {
        usage!("--from {}: its encoder differs in {}; use the same preset and settings for both", run.display(), differing.join(", "));
    }
    if checkpoint.state.step < checkpoint.state.steps {
        usage!(
            "--from {}: its pretraining stopped at step {} of {}; finish it with `moue pretrain --resume --out {}`",
            run.display(),
            checkpoint.state.step,
            checkpoint.state.steps,
            run.display()
        );
    }
    Ok((checkpoint, theirs))
}

/// Keys of the input and the encoder in which two settings differ.
fn differing_encoder_keys(a: &Settings, b: &Settings) -> Vec<String> {
    let table = |s: &Settings| {
        let all = toml::Table::try_from(s).unwrap_or_default();
        ["data", "vit"].map(|name| (name, all.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default()))
    };
    let mut keys = Vec::new();
    for ((section, a), (_, b)) in table(a).into_iter().zip(table(b)) {
        for (field, value) in a {
            if b.get(&field) != Some(&value) {
                let other = b.get(&field).map(ToString::to_string).unwrap_or_default();
                keys.push(format!("{section}.{field} ({value} there, {other} here)"));
            }
        }
    }
    keys
}

/// A finetuned classifier in evaluation form, with the settings it was made under.
pub fn classifier(checkpoint: &Checkpoint, origin: &str, device: &Device) -> Result<(Classifier, Resolved)> {
    let resolved = settings_of(checkpoint, origin)?;
    // The initial values are overwritten; the seed only has to be some seed.
    let init = Init { streams: Streams::new(checkpoint.state.seed), device };
    let encoder = Encoder::new(&init, resolved.settings());
    let model = Classifier::new(&init, encoder, checkpoint.state.classes.len(), resolved.settings());
    Ok((load_model(model, checkpoint)?, resolved))
}
