//! Pictures in the page: faces from the pack that the manifest names, and what pretraining left in `media`, small and as data URIs.

use super::record::Record;
use crate::dataset::{Face, Pack, picture};
use crate::failure::one_line;
use crate::limits;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, RgbImage};
use std::collections::HashMap;
use std::path::Path;

/// Longest side of a face, in pixels: enough for a dense screen.
const FACE: u32 = 120;
/// Width of a picture of pretraining.
const SHEET: u32 = 920;
/// How well a JPEG keeps a picture.
const QUALITY: u8 = 85;

/// The faces of a run's pack.
pub struct Faces {
    pack: Result<(Pack, HashMap<String, usize>), String>,
}

impl Faces {
    /// Opens the pack. One that is not here, or not the one that the run was trained on, gives no faces and a [`problem`](Faces::problem).
    pub fn open(record: &Record) -> Self {
        let Some(data) = record.manifest.as_ref().and_then(|m| m.data.as_ref()) else {
            return Self::none("the manifest names no pack");
        };
        let open = || -> Result<_> {
            let path = data.place(&record.folder);
            let pack = Pack::open(&path)?;
            if pack.hash() != data.pack_hash {
                bail!("{} is not the pack that the run was trained on: its hash differs", path.display());
            }
            let index = pack.faces().iter().enumerate().map(|(i, face)| (face.id.clone(), i)).collect();
            Ok((pack, index))
        };
        Self { pack: open().map_err(|e| one_line(&e)) }
    }

    pub fn none(why: &str) -> Self {
        Self { pack: Err(why.into()) }
    }

    /// Why there are no faces.
    pub fn problem(&self) -> Option<&str> {
        self.pack.as_ref().err().map(String::as_str)
    }

    pub fn face(&self, id: &str) -> Option<&Face> {
        let (pack, index) = self.pack.as_ref().ok()?;
        Some(&pack.faces()[*index.get(id)?])
    }

    /// The face as a data URI; none where it cannot be had.
    pub fn picture(&self, id: &str) -> Option<String> {
        let (pack, index) = self.pack.as_ref().ok()?;
        let pixels = pack.pixels(*index.get(id)?).ok()?;
        let (width, height) = (pixels.width as u32, pixels.height as u32);
        let face = if pixels.channels == 1 {
            DynamicImage::from(GrayImage::from_raw(width, height, pixels.data)?)
        } else {
            DynamicImage::from(RgbImage::from_raw(width, height, pixels.data)?)
        };
        // The middle square, as networks are shown it.
        let side = width.min(height);
        let face = face.crop_imm((width - side) / 2, (height - side) / 2, side, side);
        let face = if side > FACE { face.resize_exact(FACE, FACE, FilterType::Triangle) } else { face };
        let mut jpeg = Vec::new();
        face.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY)).ok()?;
        Some(uri(&jpeg))
    }
}

/// A picture file, made small, as a data URI, and its size.
///
/// # Errors
/// Where it is no picture.
pub fn sheet(path: &Path) -> Result<(String, u32, u32)> {
    let context = || format!("reading {}", path.display());
    let bytes = limits::read(path, picture::MAX_FILE).with_context(context)?;
    let (picture, _) = picture::open(&bytes).with_context(context)?;
    let picture = if picture.width() > SHEET { picture.resize(SHEET, u32::MAX, FilterType::Triangle) } else { picture };
    let mut jpeg = Vec::new();
    picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY)).with_context(context)?;
    Ok((uri(&jpeg), picture.width(), picture.height()))
}

fn uri(jpeg: &[u8]) -> String {
    format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_sheet_is_made_small_and_a_text_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        GrayImage::from_fn(1840, 100, |x, y| image::Luma([(x ^ y) as u8])).save(&path).unwrap();
        let (uri, width, height) = sheet(&path).unwrap();
        assert!(uri.starts_with("data:image/jpeg;base64,/9j/") && (width, height) == (920, 50), "{width} x {height}");
        std::fs::write(&path, "no picture").unwrap();
        assert!(one_line(&sheet(&path).unwrap_err()).contains("a.png"));
    }
}
