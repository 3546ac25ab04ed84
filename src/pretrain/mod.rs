//! Self-supervised pretraining: predict the HOG of hidden patches (MaskFeat; Wei et al. 2022, METHOD 3).

pub mod mask;

use crate::config::{MaskKind, Normalize, Settings};
use crate::dataset::Pack;
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use crate::kernels::reference::hog;
use crate::model::{MaskedVit, Noise};
use crate::random::Streams;
use crate::transform::augment::{Augment, augment};
use crate::transform::normalize::patches;
use anyhow::Result;
use burn::prelude::*;
use std::sync::Arc;

/// Augmented faces with their masks and targets.
pub struct MaskedBatch {
    faces: usize,
    /// `[B, N, P * P * C]`
    patches: Vec<f32>,
    /// `[B, N]`, 1: hidden
    mask: Vec<f32>,
    /// `[B, N, T]`
    targets: Vec<f32>,
}

/// Makes [`MaskedBatch`]es from a pack.
pub struct MaskedFaces {
    pack: Arc<Pack>,
    /// Positions of the training faces in the pack.
    train: Vec<usize>,
    streams: Streams,
    side: usize,
    patch: usize,
    normalize: Normalize,
    augment: Augment,
    mask: (MaskKind, f64),
    layout: hog::Layout,
}

impl Source for MaskedFaces {
    type Batch = MaskedBatch;

    fn faces(&self) -> usize {
        self.train.len()
    }

    fn prepare(&self, epoch: u64, positions: &[usize]) -> Result<MaskedBatch> {
        let grid = self.side / self.patch;
        let mut batch = MaskedBatch { faces: positions.len(), patches: Vec::new(), mask: Vec::new(), targets: Vec::new() };
        for &position in positions {
            let index = self.train[position];
            let at = [epoch, index as u64];
            let face = self.pack.pixels(index)?;
            let crop = augment(&face, self.side, self.layout.channels, &self.augment, &mut self.streams.at("pretrain/augment", &at));
            let mask = mask::sample(self.mask.0, grid, self.mask.1, &mut self.streams.at("pretrain/mask", &at));
            batch.patches.extend(patches(&crop, self.patch, self.normalize));
            batch.mask.extend(mask.iter().map(|&m| f32::from(u8::from(m))));
            batch.targets.extend(hog::tokens(&hog::cells(&crop.data, self.layout), self.layout, self.patch));
        }
        Ok(batch)
    }
}

/// The MaskFeat objective: mean squared error over hidden tokens.
pub struct MaskFeat {
    source: Arc<MaskedFaces>,
    drop_path: f64,
}

impl MaskFeat {
    /// Pretrains on the faces at `train` (positions in `pack`).
    pub fn new(pack: Arc<Pack>, train: Vec<usize>, settings: &Settings, streams: Streams) -> Self {
        let s = settings;
        let layout =
            hog::Layout { width: s.data.size, height: s.data.size, channels: s.data.channels, cell: s.hog.cell, window: s.hog.window };
        let source = MaskedFaces {
            pack,
            train,
            streams,
            side: s.data.size,
            patch: s.vit.patch,
            normalize: s.data.normalize,
            augment: Augment { crop_min: s.pretrain.crop_min, rotate: 0.0, flip: s.pretrain.flip, erase: 0.0 },
            mask: (s.mask.kind, s.mask.ratio),
            layout,
        };
        Self { source: Arc::new(source), drop_path: s.pretrain.drop_path }
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
        let b = batch.faces;
        let n = batch.mask.len() / b;
        let tensor = |values: &Vec<f32>| {
            let width = values.len() / (b * n);
            Tensor::<3>::from_data(TensorData::new(values.clone(), [b, n, width]), device)
        };
        let mask = tensor(&batch.mask);
        let targets = tensor(&batch.targets);
        let width = targets.dims()[2];
        let predicted = model.forward(tensor(&batch.patches), mask.clone(), self.drop_path, noise);
        let error = ((predicted - targets).square() * mask).sum();
        // The mean runs over all hidden tokens of the step, whichever shard they are in.
        let scale = shard.share / (self.weight(batch).max(1.0) * width as f64);
        Pass { loss: error.mul_scalar(scale as f32), response: None }
    }

    fn end_epoch(&mut self, _model: &MaskedVit, _end: EpochEnd) -> Result<()> {
        Ok(())
    }
}
