//! A trained network at work on pictures it has never seen.

use super::calibration;
use super::load::{Network, Trained, trained};
use crate::config::{DeviceChoice, Settings};
use crate::dataset::{Pack, Pixels};
use crate::engine::shards::Shards;
use crate::engine::{device, read_values};
use crate::eval::calibration::Calibration;
use crate::finetune::both_sides;
use crate::model::{Classifier, Crops, Input, Noise};
use crate::run::RunFolder;
use crate::transform::prepare::Preparation;
use crate::usage;
use crate::weights::{export, same_classes};
use anyhow::Result;
use burn::module::Module;
use burn::prelude::*;
use std::path::Path;

/// A classifier, ready to be asked.
pub struct Recogniser {
    /// In the order of the logits.
    pub classes: Vec<String>,
    /// None: probabilities are the softmax as it is.
    pub calibration: Option<Calibration>,
    /// What the user has to know: why there is no temperature, or what could not be done about it, and the remarks of [`Trained`].
    pub remarks: Vec<String>,
    pub preparation: Preparation,
    model: Classifier,
    settings: Settings,
    input: Input,
    device: Device,
    shards: Shards,
}

/// Faces as the network takes them: for each thread the faces, and their mirror images where evaluation averages over both.
pub struct Prepared(Vec<Vec<Crops>>);

impl Recogniser {
    /// The network of a run or of a weights file; `expected` are class names that the caller counts on.
    ///
    /// A run's temperature is the one fitted when its finetuning ended; where there is none (a run from before, or one still going on), it is
    /// fitted now on the run's own pack and kept for the next time.
    ///
    /// # Errors
    /// Nothing there that recognises, classes in another order than `expected`, or what [`trained`] refuses.
    pub fn open(path: &Path, which: Option<&str>, expected: Option<&[String]>, choice: DeviceChoice) -> Result<Self> {
        let open = device::open(choice)?;
        let Trained { network, card, resolved, folder, pack, remarks } = trained(path, which, &open.device)?;
        let Network::Classifier(model) = network else {
            export::whole(&card, path)?;
            usage!("{} holds no network that recognises", path.display());
        };
        if let Some(expected) = expected {
            same_classes(&card.classes, "--classes", expected)?;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut this = Self {
            classes: card.classes,
            calibration: card.calibration,
            remarks,
            preparation: card.preparation.unwrap_or_default(),
            model: model.valid(),
            settings: resolved.settings().clone(),
            input: Input::of(resolved.settings()),
            device: open.device,
            shards: Shards::new(if open.is_cpu { cores } else { 1 })?,
        };
        if let (None, Some(folder)) = (this.calibration, &folder) {
            this.calibrate(folder, pack.as_ref(), &card.origin, card.step)?;
        } else if this.calibration.is_none() {
            this.remarks.push("the weights file has no temperature: probabilities are not calibrated".into());
        }
        Ok(this)
    }

    fn calibrate(&mut self, folder: &RunFolder, pack: Option<&Pack>, stage: &str, step: u64) -> Result<()> {
        let Some(pack) = pack else {
            self.remarks.push("without the run's pack there is no temperature: probabilities are not calibrated".into());
            return Ok(());
        };
        self.calibration = calibration::fitted(&self.model, pack, &self.settings, &self.shards)?;
        let Some(fitted) = self.calibration else {
            self.remarks.push("the run's pack has too few labelled valid faces: probabilities are not calibrated".into());
            return Ok(());
        };
        if let Err(e) = calibration::write(folder, stage, step, fitted) {
            self.remarks.push(format!("the temperature could not be kept: {}", crate::failure::one_line(&e)));
        }
        Ok(())
    }

    /// Side of the network's input.
    pub fn side(&self) -> usize {
        self.input.side
    }

    /// Whether [`Self::read_attention`] has something to tell.
    pub fn explains(&self) -> bool {
        self.model.head.decoder.is_some()
    }

    /// The crop that the network sees of a face.
    pub fn crop(&self, face: &Pixels) -> Pixels {
        crate::transform::augment::fit(face, self.input.side, self.input.channels)
    }

    /// Crops, ready for the device.
    pub fn prepare(&self, crops: &[Pixels]) -> Prepared {
        let share = crops.len().div_ceil(self.shards.count()).max(1);
        let part = |part: &[Pixels]| {
            let whole = self.input.whole(part.iter().cloned());
            let mirrored = self.settings.run.evaluate_flip.then(|| self.input.mirrored(&whole));
            std::iter::once(whole).chain(mirrored).collect()
        };
        Prepared(crops.chunks(share).map(part).collect())
    }

    /// Logits `[faces, C]`, row-major, not yet divided by the temperature.
    pub fn read_logits(&self, faces: &Prepared) -> Result<Vec<f32>> {
        let parts = self.shards.map(&faces.0, |_, views| {
            let forward = |crops: &Crops| self.model.forward(self.patches(crops), 0.0, 0.0, &mut Noise::none());
            read_values(both_sides(views.iter().map(forward)))
        });
        Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// Where each class's query looks, `[faces, C, places]` row-major; see [`Classifier::attention`]. None without a query decoder.
    pub fn read_attention(&self, faces: &Prepared) -> Result<Option<Vec<f32>>> {
        let look = |_, views: &Vec<Crops>| self.model.attention(self.patches(&views[0])).map(read_values).transpose();
        let parts: Option<Vec<_>> = self.shards.map(&faces.0, look).into_iter().collect::<Result<_>>()?;
        Ok(parts.map(|parts| parts.concat()))
    }

    /// The temperature that logits are divided by.
    pub fn temperature(&self) -> f64 {
        self.calibration.map_or(1.0, |c| c.temperature)
    }

    fn patches(&self, crops: &Crops) -> Tensor<3> {
        self.input.upload(crops, &self.device).patches()
    }
}
