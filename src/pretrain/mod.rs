//! Self-supervised pretraining: predict the HOG of hidden patches (MaskFeat; Wei et al. 2022, METHOD 3).

pub mod mask;

use crate::config::{HogSettings, MaskKind, Settings};
use crate::dataset::Pack;
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use crate::model::{Crops, Input, MaskedVit, Noise};
use crate::random::Streams;
use crate::transform::augment::{Augment, augment};
use anyhow::Result;
use burn::prelude::*;
use std::sync::Arc;

/// Augmented faces with their masks.
pub struct MaskedBatch {
    pub crops: Crops,
    /// `[B, N]`, 1: hidden
    pub mask: Vec<f32>,
}

/// Makes [`MaskedBatch`]es from a pack.
pub struct MaskedFaces {
    pack: Arc<Pack>,
    /// Positions of the training faces in the pack.
    train: Vec<usize>,
    streams: Streams,
    input: Input,
    augment: Augment,
    mask: (MaskKind, f64),
}

impl Source for MaskedFaces {
    type Batch = MaskedBatch;

    fn faces(&self) -> usize {
        self.train.len()
    }

    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<MaskedBatch> {
        let Input { side, channels, patch, .. } = self.input;
        let mut batch = MaskedBatch { crops: Crops::default(), mask: Vec::new() };
        for &position in positions {
            let index = self.train[position];
            let at = [epoch, index as u64];
            let face = self.pack.pixels(index)?;
            let crop = augment(&face, side, channels, &self.augment, &mut self.streams.at("pretrain/augment", &at));
            let mask = mask::sample(self.mask.0, side / patch, self.mask.1, &mut self.streams.at("pretrain/mask", &at));
            self.input.push(&mut batch.crops, &crop);
            batch.mask.extend(mask.iter().map(|&m| f32::from(u8::from(m))));
        }
        Ok(batch)
    }
}

/// The MaskFeat objective: mean squared error over hidden tokens.
pub struct MaskFeat {
    source: Arc<MaskedFaces>,
    hog: HogSettings,
    drop_path: f64,
}

impl MaskFeat {
    /// Pretrains on the faces at `train` (positions in `pack`).
    pub fn new(pack: Arc<Pack>, train: Vec<usize>, settings: &Settings, streams: Streams) -> Self {
        let s = settings;
        let source = MaskedFaces {
            pack,
            train,
            streams,
            input: Input::of(s),
            augment: Augment { crop_min: s.pretrain.crop_min, rotate: 0.0, flip: s.pretrain.flip, erase: 0.0 },
            mask: (s.mask.kind, s.mask.ratio),
        };
        Self { source: Arc::new(source), hog: s.hog.clone(), drop_path: s.pretrain.drop_path }
    }
}

impl Objective for MaskFeat {
    type Model = MaskedVit;
    type Source = MaskedFaces;

    fn source(&self) -> Arc<MaskedFaces> {
        self.source.clone()
    }

    fn weight(&self, batch: &MaskedBatch) -> f64 {
        batch.mask.iter().map(|&m| f64::from(m)).sum()
    }

    fn forward(&self, model: &MaskedVit, batch: &MaskedBatch, shard: Shard, noise: &mut Noise, device: &Device) -> Pass {
        let input = &self.source.input;
        let faces = input.upload(&batch.crops, device);
        let mask = TensorData::new(batch.mask.clone(), [batch.crops.len(), input.patches(), 1]);
        let mask = Tensor::<3>::from_data(mask, device);
        let targets = faces.hog(self.hog.cell, self.hog.window);
        let width = targets.dims()[2];
        let predicted = model.forward(faces.patches(), mask.clone(), self.drop_path, noise);
        let error = ((predicted - targets).square() * mask).sum();
        // The mean runs over all hidden tokens of the step, whichever shard they are in.
        let scale = shard.share / (self.weight(batch).max(1.0) * width as f64);
        Pass { loss: error.mul_scalar(scale as f32), response: None }
    }

    fn end_epoch(&mut self, _model: &MaskedVit, _end: EpochEnd) -> Result<()> {
        Ok(())
    }
}
