//! Self-supervised pretraining: predict what is hidden of a face from what is not (METHOD 3).
//!
//! | `pretrain.method` | the encoder sees | hidden patches are predicted by | as | error |
//! |---|---|---|---|---|
//! | `maskfeat` (Wei et al. 2022) | mask tokens in their places | a linear head | HOG | squared |
//! | `mae_hog` (the paper's wording, contradiction C4) | visible patches only | a light decoder | HOG | squared |
//! | `mae` (He et al. 2022) | visible patches only | a light decoder | pixels | squared |
//! | `simmim` (Xie et al. 2022) | mask tokens in their places | a linear head | pixels | absolute |
//!
//! All four are one objective over two networks ([`MaskedModel`]) with the same data, augmentation and loop; every other difference is a
//! setting. Positions and the encoder's other details are moue's own (`vit.*`), not each reference's.

pub mod mask;
mod picture;
pub mod target;

use self::mask::Masking;
use self::target::Target;
use crate::config::{Method, Settings};
use crate::dataset::Pack;
use crate::engine::guard::Raw;
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use crate::model::{Crops, Hidden, Input, MaskedModel, Noise};
use crate::random::Streams;
use crate::report::reconstruction;
use crate::run::{Body, write_atomic};
use crate::transform::augment::{Augment, augment};
use anyhow::{Context, Result};
use burn::prelude::*;
use image::ImageFormat;
use safetensors::Dtype;
use std::marker::PhantomData;
use std::sync::Arc;

/// Pictures that a run leaves at most: those of the paper's 600 epochs would take more room than its network.
const PICTURES: u64 = 50;

/// Augmented faces with their masks.
pub struct MaskedBatch {
    pub crops: Crops,
    /// `[B, N]`
    pub hidden: Vec<bool>,
}

/// Makes [`MaskedBatch`]es from a pack.
pub struct MaskedFaces {
    pack: Arc<Pack>,
    /// Positions of the training faces in the pack.
    train: Vec<usize>,
    streams: Streams,
    input: Input,
    augment: Augment,
    masking: Masking,
}

impl Source for MaskedFaces {
    type Batch = MaskedBatch;

    fn faces(&self) -> usize {
        self.train.len()
    }

    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<MaskedBatch> {
        let Input { side, channels, .. } = self.input;
        let mut batch = MaskedBatch { crops: Crops::default(), hidden: Vec::new() };
        for &position in positions {
            let index = self.train[position];
            let at = [epoch, index as u64];
            let face = self.pack.pixels(index)?;
            let crop = augment(&face, side, channels, &self.augment, &mut self.streams.at("pretrain/augment", &at));
            self.input.push(&mut batch.crops, &crop);
            batch.hidden.extend(self.masking.sample(&mut self.streams.at("pretrain/mask", &at)));
        }
        Ok(batch)
    }

    fn upload_ahead(&self, batch: &MaskedBatch, device: &Device) {
        self.input.upload_ahead(&batch.crops, device);
    }

    fn names(&self, positions: &[usize]) -> Vec<String> {
        positions.iter().map(|&position| self.pack.faces()[self.train[position]].id.clone()).collect()
    }

    fn raw(&self, batch: &MaskedBatch) -> Vec<Raw> {
        let mut raw = self.input.raw(&batch.crops);
        let (patches, bytes) = (self.input.patches(), batch.hidden.iter().map(|h| u8::from(*h)).collect());
        raw.push(Raw { name: "hidden", dtype: Dtype::U8, shape: vec![batch.hidden.len() / patches, patches], bytes });
        raw
    }
}

/// Masked-image modelling with the network `M`: the mean error over the values of all hidden patches.
pub struct MaskedModelling<M> {
    source: Arc<MaskedFaces>,
    target: Target,
    /// Of a difference, element by element.
    error: fn(Tensor<3>) -> Tensor<3>,
    drop_path: f64,
    epochs: u64,
    checkpoint_every: u64,
    network: PhantomData<fn() -> M>,
}

impl<M> MaskedModelling<M> {
    /// Pretrains on the faces at `train` (positions in `pack`).
    pub fn new(pack: Arc<Pack>, train: Vec<usize>, settings: &Settings, streams: Streams) -> Self {
        let s = settings;
        let source = MaskedFaces {
            pack,
            train,
            streams,
            input: Input::of(s),
            augment: Augment { crop_min: s.pretrain.crop_min, rotate: 0.0, flip: s.pretrain.flip, erase: 0.0 },
            masking: Masking::of(s),
        };
        Self {
            source: Arc::new(source),
            target: Target::of(s),
            error: if s.pretrain.method == Method::Simmim { |difference| difference.abs() } else { |difference| difference.square() },
            drop_path: s.pretrain.drop_path,
            epochs: s.pretrain.epochs as u64,
            checkpoint_every: s.run.checkpoint_every as u64,
            network: PhantomData,
        }
    }
}

impl<M: MaskedModel> Objective for MaskedModelling<M> {
    type Model = M;
    type Source = MaskedFaces;

    fn source(&self) -> Arc<MaskedFaces> {
        self.source.clone()
    }

    fn weight(&self, batch: &MaskedBatch) -> f64 {
        batch.hidden.iter().filter(|h| **h).count() as f64
    }

    fn forward(&self, model: &M, batch: &MaskedBatch, shard: Shard, noise: &mut Noise, device: &Device) -> Pass {
        let input = &self.source.input;
        let faces = input.upload(&batch.crops, device);
        let hidden = Hidden::upload(&batch.hidden, input.patches(), device);
        let targets = self.target.values(&faces);
        let width = targets.dims()[2];
        let predicted = model.predict(&faces, &hidden, self.drop_path, noise);
        let error = ((self.error)(predicted - targets) * hidden.mask).sum();
        // The mean runs over all hidden patches of the step, whichever shard they are in.
        let scale = shard.share / (self.weight(batch).max(1.0) * width as f64);
        Pass { loss: error.mul_scalar(scale as f32), response: None }
    }

    /// Leaves a picture beside the checkpoint, `media/pretrain-<step>.png`.
    fn end_epoch(&mut self, model: &M, end: EpochEnd) -> Result<Option<f64>> {
        if !end.checkpoint || !pictured(end.epoch, self.epochs, self.checkpoint_every) {
            return Ok(None);
        }
        let picture = picture::read_picture(model, &self.source, &self.target)?;
        let media = end.folder.media();
        std::fs::create_dir_all(&media).with_context(|| format!("making the folder {}", media.display()))?;
        let name = format!("pretrain-{:08}.png", end.at.step);
        end.with_room(|| write_atomic(&media.join(&name), |out| Ok(picture.page.write_to(out, ImageFormat::Png)?)))?;
        let (path, gap) = (format!("media/{name}"), reconstruction::GAP);
        end.events.emit(end.at, Body::Picture { path, columns: picture.columns, rows: picture.rows, gap });
        Ok(None)
    }
}

/// Whether the checkpoint after `epoch` of `epochs` is the first in its fiftieth of the run; with fewer checkpoints than that, all are.
fn pictured(epoch: u64, epochs: u64, checkpoint_every: u64) -> bool {
    let part = |epoch: u64| epoch * PICTURES / epochs;
    part(epoch) > part(epoch.saturating_sub(checkpoint_every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_checkpoint_has_a_picture_unless_there_are_too_many() {
        for (epochs, every, pictures) in [(1, 1, 1), (8, 1, 8), (50, 1, 50), (16, 4, 4), (600, 1, 50), (600, 5, 50), (600, 20, 30)] {
            let drawn = (1..=epochs).filter(|e| e % every == 0 && pictured(*e, epochs, every)).count();
            assert_eq!(drawn, pictures, "{epochs} epochs, a checkpoint every {every}");
            assert!(pictured(epochs, epochs, every), "the last of {epochs}");
        }
    }
}
