//! Networks from checkpoints of earlier runs, and from weights files.

use super::{Training, calibration, find_checkpoint};
use crate::config::{Backbone, Origin, Resolved, Settings};
use crate::dataset::Pack;
use crate::engine::parameters::load_model;
use crate::failure::one_line;
use crate::model::init::Init;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit, Vit};
use crate::random::Streams;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::{Manifest, RunFolder, fingerprint};
use crate::transform::prepare::Preparation;
use crate::usage;
use crate::weights::{self, Card, Part, same_classes};
use anyhow::{Context, Result, ensure};
use burn::prelude::*;
use std::path::{Path, PathBuf};

/// The settings a checkpoint was made under.
pub fn settings_of(checkpoint: &Checkpoint, origin: &str) -> Result<Resolved> {
    let values = checkpoint.state.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    Resolved::default().with_values(values, &Origin::Run(origin.to_string()))
}

/// Refuses settings of a network that is larger than what a file holds of it, before that network is made: both come from the file.
fn holds(values: u64, least: u64) -> Result<()> {
    ensure!(values >= least, "it holds {values} values, and its settings describe a network of at least {least}");
    Ok(())
}

/// Values in a checkpoint, each of two bytes or more.
fn values(checkpoint: &Checkpoint) -> Result<u64> {
    Ok(checkpoint.blob("model.bpk")?.len() as u64 / 2)
}

/// What finetuning starts from.
pub struct Start {
    pub encoder: Encoder,
    /// A weights file that also holds the head for the same classes.
    head: Option<PathBuf>,
}

impl Start {
    /// An encoder whose head has yet to be trained.
    pub fn encoder(encoder: impl Into<Encoder>) -> Self {
        Self { encoder: encoder.into(), head: None }
    }

    /// A classifier with the encoder in place, and the head where there is one.
    pub fn classifier(&self, init: &Init, classes: usize, s: &Settings) -> Result<Classifier> {
        let fresh = Classifier::new(init, self.encoder.clone(), classes, s);
        match &self.head {
            Some(path) => weights::export::load(&weights::export::open(path)?.0, fresh, ""),
            None => Ok(fresh),
        }
    }
}

/// The encoder of a pretraining run or of a weights file, and the head of a weights file that has one.
///
/// # Errors
/// See [`check_start`].
pub fn start(from: &Path, settings: &Settings, classes: &[String], init: &Init) -> Result<Start> {
    if from.is_file() {
        let card = check_weights(from, settings, Some(classes))?;
        let encoder = weights::export::load(&weights::export::open(from)?.0, Encoder::new(init, settings), "encoder.")?;
        return Ok(Start { encoder, head: (card.part == Part::Classifier).then(|| from.to_path_buf()) });
    }
    let (checkpoint, theirs) = pretraining(from, settings)?;
    Ok(Start::encoder(pretrained_network(&checkpoint, &theirs, init)?))
}

/// Whether a training under `settings` can start from a run or a weights file, and with a head for `classes`. Costs a read and no network,
/// so a command can refuse a wrong `--from` before it makes anything.
///
/// # Errors
/// [`Usage`](crate::failure::Usage) when there is no encoder, its input or network is another than `settings` describe (every differing
/// key is named), or the head is for classes in another order (both are shown).
pub fn check_start(from: &Path, settings: &Settings, classes: Option<&[String]>) -> Result<()> {
    if from.is_file() { check_weights(from, settings, classes).map(drop) } else { pretraining(from, settings).map(drop) }
}

/// Hash of what a training starts from or takes its candidate sets from: of the pretrained weights of a run, or of a file.
///
/// # Errors
/// Where there is no such thing, or it is damaged.
pub fn fingerprint(path: &Path) -> Result<String> {
    if path.is_file() {
        return fingerprint::file(path);
    }
    match fingerprint::of_stage(&RunFolder::open(path)?, &Training::Pretrain.name())? {
        Some(hash) => Ok(hash),
        None => usage!("{}: this run has no pretraining checkpoint", path.display()),
    }
}

/// Refuses a classifier where models must not have seen the labels they are asked about.
pub fn refuse_trained_on_labels(from: &Path) -> Result<()> {
    if weights::export::open(from)?.1.part == Part::Classifier {
        usage!(
            "--from {}: a network that was trained on labels cannot tell what models without them would say; give an encoder",
            from.display()
        );
    }
    Ok(())
}

fn check_weights(from: &Path, settings: &Settings, classes: Option<&[String]>) -> Result<Card> {
    let (_, card) = weights::export::open(from)?;
    let theirs = card.resolved(from)?;
    let mut sections = vec!["data", "encoder", "vit"];
    if settings.encoder.backbone != Backbone::Vit {
        sections.push("resnet");
    }
    if let (Part::Classifier, Some(classes)) = (card.part, classes) {
        same_classes(&card.classes, "the training data", classes)?;
        sections.push("decoder");
    }
    refuse_differing(from, theirs.settings(), settings, &sections)?;
    Ok(card)
}

fn refuse_differing(from: &Path, theirs: &Settings, settings: &Settings, sections: &[&str]) -> Result<()> {
    let differing = differing_keys(theirs, settings, sections);
    if !differing.is_empty() {
        usage!("--from {}: its network differs in {}; use the same preset and settings for both", from.display(), differing.join(", "));
    }
    Ok(())
}

/// The encoder of a pretraining run's checkpoint.
fn pretrained_network(checkpoint: &Checkpoint, theirs: &Resolved, init: &Init) -> Result<Vit> {
    let s = theirs.settings();
    let visible_only = s.pretrain.method.visible_only();
    holds(values(checkpoint)?, s.least_encoder() + if visible_only { s.least_mim_decoder() } else { 0 })?;
    if visible_only { encoder_of::<MaskedAutoencoder>(checkpoint, s, init) } else { encoder_of::<MaskedVit>(checkpoint, s, init) }
}

fn encoder_of<M: MaskedModel>(checkpoint: &Checkpoint, settings: &Settings, init: &Init) -> Result<Vit> {
    Ok(load_model(M::new(init, settings), checkpoint)?.into_encoder())
}

/// The checkpoint of a finished pretraining whose encoder is the one that `settings` describe.
pub fn pretraining(run: &Path, settings: &Settings) -> Result<(Checkpoint, Resolved)> {
    if !run.exists() {
        usage!("--from {}: there is no such run or weights file", run.display());
    }
    if settings.encoder.backbone != Backbone::Vit {
        usage!("--from {}: pretraining makes vision transformers, and encoder.backbone is resnet18; leave out --from", run.display());
    }
    let folder = RunFolder::open(run)?;
    let mut damaged = Vec::new();
    let Some((_, checkpoint)) = checkpoint::newest(&folder, &Training::Pretrain.name(), |text| damaged.push(text))? else {
        if !damaged.is_empty() {
            usage!(
                "--from {}: this run has no readable pretraining checkpoint: {} damaged; do it again with `moue pretrain --resume \
                 --out {}`",
                run.display(),
                damaged.len(),
                run.display()
            );
        }
        usage!("--from {}: this run has no pretraining checkpoint; a finetuned network goes on from its `moue export`", run.display());
    };
    let theirs = settings_of(&checkpoint, &run.display().to_string())?;
    refuse_differing(run, theirs.settings(), settings, &["data", "vit"])?;
    // A damaged last checkpoint leaves this one, too: none before it is of a finished pretraining, but the user has to know why.
    if checkpoint.state.step < checkpoint.state.steps {
        let damaged = if damaged.is_empty() { String::new() } else { format!(" ({})", damaged.join("; ")) };
        usage!(
            "--from {}: its pretraining stopped at step {} of {}{damaged}; finish it with `moue pretrain --resume --out {}`",
            run.display(),
            checkpoint.state.step,
            checkpoint.state.steps,
            run.display()
        );
    }
    Ok((checkpoint, theirs))
}

/// Keys of some sections in which two settings differ.
fn differing_keys(a: &Settings, b: &Settings, sections: &[&str]) -> Vec<String> {
    let table = |s: &Settings| toml::Table::try_from(s).unwrap_or_default();
    let (a, b) = (table(a), table(b));
    let mut keys = Vec::new();
    for section in sections {
        let fields = |s: &toml::Table| s.get(*section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let (a, b) = (fields(&a), fields(&b));
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
    let s = resolved.settings();
    let classes = checkpoint.state.classes.len();
    holds(values(checkpoint)?, s.least_encoder() + s.least_head(classes)).with_context(|| origin.to_string())?;
    // The initial values are overwritten; the seed only has to be some seed.
    let init = Init { streams: Streams::new(checkpoint.state.seed), device };
    let model = Classifier::new(&init, Encoder::new(&init, s), classes, s);
    let model = load_model(model, checkpoint).with_context(|| format!("{origin}, a network of {classes} classes"))?;
    Ok((model, resolved))
}

/// A trained network with what is known of it.
pub struct Trained {
    pub network: Network,
    /// What a weights file of it says.
    pub card: Card,
    pub resolved: Resolved,
    /// The run that it comes from; none: a weights file.
    pub folder: Option<RunFolder>,
    /// The pack of a classifier's run, where it is still there.
    pub pack: Option<Pack>,
    /// What the user has to know: which damaged checkpoints were passed over, and what is not known without the pack.
    pub remarks: Vec<String>,
}

pub enum Network {
    Encoder(Box<Vit>),
    Classifier(Box<Classifier>),
}

/// The word for the pretrained encoder where an objective can be named.
pub const PRETRAINED: &str = "pretrain";

/// The network of a run or of a weights file. Of a run: that of the objective `which`, or the pretrained encoder for [`PRETRAINED`]; none named:
/// what the run is about.
///
/// # Errors
/// Nothing trained there, weights that do not fit what is said of them, or a pack of the run's own that was changed since.
pub fn trained(path: &Path, which: Option<&str>, device: &Device) -> Result<Trained> {
    // The initial values are overwritten; the seed only has to be some seed.
    let init = Init { streams: Streams::new(0), device };
    if path.is_file() {
        if which.is_some() {
            usage!("{} is a weights file, which holds one network; leave out --which", path.display());
        }
        let (file, card) = weights::export::open(path)?;
        let resolved = card.resolved(path)?;
        let s = resolved.settings();
        let least = s.least_encoder() + if card.part == Part::Classifier { s.least_head(card.classes.len()) } else { 0 };
        holds(file.values(), least).with_context(|| path.display().to_string())?;
        let network = match card.part {
            Part::Encoder => Network::Encoder(Box::new(weights::export::load(&file, Vit::new(&init, s), "encoder.")?)),
            Part::Classifier => {
                let fresh = Classifier::new(&init, Encoder::new(&init, s), card.classes.len(), s);
                Network::Classifier(Box::new(weights::export::load(&file, fresh, "")?))
            }
        };
        return Ok(Trained { network, card, resolved, folder: None, pack: None, remarks: Vec::new() });
    }
    let folder = RunFolder::open(path)?;
    let mut remarks = Vec::new();
    let mut pretrained = || checkpoint::newest(&folder, &Training::Pretrain.name(), |text| remarks.push(text));
    let encoder = match which {
        Some(PRETRAINED) => match pretrained()? {
            Some(found) => Some(found),
            None => usage!("{}: this run has no pretraining checkpoint", path.display()),
        },
        Some(_) => None,
        // A run of pretraining alone.
        None if Manifest::read(&folder).is_ok_and(|m| m.stages == [Training::Pretrain.name()]) => pretrained()?,
        None => None,
    };
    let origin = path.display().to_string();
    if let Some((_, checkpoint)) = encoder {
        let resolved = settings_of(&checkpoint, &origin)?;
        let network = Network::Encoder(Box::new(pretrained_network(&checkpoint, &resolved, &init)?));
        let card = Card::of(&checkpoint.state, Part::Encoder);
        return Ok(Trained { network, card, resolved, folder: Some(folder), pack: None, remarks });
    }
    let (checkpoint, mut remarks) = find_checkpoint(&folder, which, false)?;
    let data = Manifest::read(&folder)?.data;
    if let Some(data) = &data {
        same_classes(&checkpoint.state.classes, &format!("the manifest of {origin}"), &data.classes)?;
    }
    // One that is gone, or cannot be read any more, is not needed to use the network; but it knew what the network does not.
    let opened = data.as_ref().context("the run names no pack").and_then(|data| Ok((data, Pack::open(&data.place(&folder))?)));
    let pack = match opened {
        Ok((data, pack)) => {
            data.refuse_changed(&pack, "put the run's own back, or move this one away to do without")?;
            Some(pack)
        }
        Err(e) => {
            let unknown = "how the run's faces were made of pictures is not known, so others are only fitted to the network's side";
            remarks.push(format!("{}: {unknown}", one_line(&e)));
            None
        }
    };
    let (model, resolved) = classifier(&checkpoint, &origin, device)?;
    let card = Card {
        calibration: calibration::read(&folder, &checkpoint.state)?,
        preparation: pack.as_ref().map(|pack| Preparation::of(pack.provenance())),
        ..Card::of(&checkpoint.state, Part::Classifier)
    };
    Ok(Trained { network: Network::Classifier(Box::new(model)), card, resolved, folder: Some(folder), pack, remarks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::checkpoint::State;
    use std::fs;

    #[test]
    fn a_damaged_pretraining_is_not_passed_over_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        fs::write(folder.events(), "").unwrap();
        let at = |step| folder.checkpoints().join(checkpoint::file_name("pretrain", step));
        for step in [10, 20] {
            let state = State { stage: "pretrain".into(), step, steps: 20, ..State::default() };
            Checkpoint::new(state, Vec::new()).write(&at(step)).unwrap();
        }
        let refused =
            || pretraining(folder.path(), Resolved::default().settings()).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(refused(), "");
        fs::write(at(20), "torn").unwrap();
        let said = refused();
        assert!(said.contains("stopped at step 10 of 20 (checkpoint ") && said.contains("pretrain-00000020.ckpt: damaged"), "{said}");
        assert!(said.contains("moue pretrain --resume"), "{said}");
        fs::write(at(10), "torn").unwrap();
        let said = refused();
        assert!(said.contains("no readable pretraining checkpoint: 2 damaged") && said.contains("moue pretrain --resume"), "{said}");
    }
}
