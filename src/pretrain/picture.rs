//! What the network makes of a few training faces, as a picture: the faces are the first of the pack, un-augmented, and their masks are
//! drawn once for a seed, so pictures of different steps can be laid side by side.

use super::MaskedFaces;
use super::target::Target;
use crate::engine::read_values;
use crate::kernels::reference::hog::Layout;
use crate::model::{Crops, Hidden, MaskedModel, Noise};
use crate::report::reconstruction::{Content, row, sheet};
use crate::transform::augment::fit;
use anyhow::{Context, Result};
use image::RgbImage;

/// The page, and its tiles in a row and rows.
pub struct Picture {
    pub page: RgbImage,
    pub columns: u32,
    pub rows: u32,
}

/// Faces in a picture.
const FACES: usize = 6;

/// Draws a row for each face. Waits for the device; `model` is in evaluation form.
pub fn read_picture<M: MaskedModel>(model: &M, source: &MaskedFaces, target: &Target) -> Result<Picture> {
    let device = model.devices().into_iter().next().context("a network without parameters")?;
    let input = &source.input;
    let (mut crops, mut faces, mut hidden) = (Crops::default(), Vec::new(), Vec::new());
    for &index in source.train.iter().take(FACES) {
        let face = fit(&source.pack.pixels(index)?, input.side, input.channels);
        input.push(&mut crops, &face);
        faces.push(face);
        hidden.extend(source.masking.sample(&mut source.streams.at("pretrain/picture", &[index as u64])));
    }
    let (n, uploaded) = (input.patches(), input.upload(&crops, &device));
    let masks = Hidden::upload(&hidden, n, &device);
    let predicted = model.predict(&uploaded, &masks, 0.0, &mut Noise::none());
    let predicted = read_values(target.restored(predicted, &uploaded))?;
    let wanted = read_values(target.values(&uploaded))?;
    let each = predicted.len() / faces.len();
    let rows = faces.iter().enumerate().map(|(i, face)| {
        let (predicted, hidden) = (&predicted[i * each..][..each], &hidden[i * n..][..n]);
        match target {
            Target::Hog(hog) => {
                let layout = Layout { width: input.side, height: input.side, channels: input.channels, cell: hog.cell, window: hog.window };
                let target = &wanted[i * each..][..each];
                row(face, hidden, input.patch, Content::Hog { layout, target, predicted })
            }
            Target::Pixels { .. } => {
                let scales = input.scales(face);
                let (scale, shift) = scales.split_at(input.channels);
                // A patch is whole pixels, channels last.
                let channel = |i: usize| i % input.channels;
                let pixels: Vec<f32> = predicted.iter().enumerate().map(|(i, v)| (v - shift[channel(i)]) / scale[channel(i)]).collect();
                row(face, hidden, input.patch, Content::Pixels { predicted: &pixels })
            }
        }
    });
    let rows: Vec<_> = rows.collect();
    Ok(Picture { page: sheet(&rows), columns: rows.first().map_or(0, Vec::len) as u32, rows: rows.len() as u32 })
}
