//! From a picture of a face to the crop that a network was trained on: as the importer made the faces of its pack.

use super::align::align;
use crate::dataset::{Pixels, picture};
use anyhow::{Result, bail};
use fast_image_resize::Resizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the faces of a pack were made of pictures: `moue import`'s `--size` and `--align`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// Side that faces were stretched or warped to; none: they kept their own size.
    pub size: Option<usize>,
    /// What was shown around aligned faces beyond the template; none: they were not aligned.
    pub align_margin: Option<f64>,
}

/// Largest side that faces are made in, as `moue import --size` allows; what a pack or a file of weights says may be anything.
const MOST: usize = 4096;

/// Pictures larger than this many times the network's side are first shrunk by a filter that reads every pixel.
const LARGE: usize = 8;

impl Preparation {
    /// From a pack's provenance. Packs that no importer made (generated faces) have none of it.
    pub fn of(provenance: &Value) -> Self {
        serde_json::from_value(provenance["settings"].clone()).unwrap_or_default()
    }

    /// One face for a network of `side` x `side` pixels, not yet at that size. With landmarks it is aligned, whatever the pack's faces were.
    ///
    /// # Errors
    /// A size that cannot be. Landmarks that are not 5 or 68 points or fit no face.
    pub fn apply(&self, source: Pixels, landmarks: Option<&[[f32; 2]]>, side: usize) -> Result<Pixels> {
        if let Some(size) = self.size.filter(|size| !(1..=MOST).contains(size)) {
            bail!("the network's faces were said to be of {size} pixels a side (allowed: 1 to {MOST})");
        }
        let size = match (landmarks, self.size) {
            (Some(points), size) => return Ok(align(&source, points, size.unwrap_or(side), self.align_margin.unwrap_or(0.0))?.0),
            (None, Some(size)) => size,
            (None, None) if source.width.max(source.height) > LARGE * side => LARGE / 2 * side,
            (None, None) => return Ok(source),
        };
        picture::resize(&mut Resizer::new(), &source, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::align::TEMPLATE_112;
    use serde_json::json;

    #[test]
    fn faces_are_made_as_the_pack_was() {
        let imported = Preparation::of(&json!({"importer": "rafdb", "settings": {"size": 64, "align_margin": 0.25, "drop_leaks": false}}));
        assert_eq!(imported, Preparation { size: Some(64), align_margin: Some(0.25) });
        assert_eq!(Preparation::of(&json!({"generator": 1})), Preparation::default());
        let face = || Pixels::new(224, 112, 1, (0..224 * 112).map(|i| (i % 224) as u8).collect());
        let side = |p: &Preparation, points: Option<&[[f32; 2]]>| {
            let made = p.apply(face(), points, 16).unwrap();
            (made.width, made.height)
        };
        let points = TEMPLATE_112.map(|p| p.map(|v| v as f32));
        assert_eq!(side(&imported, None), (64, 64));
        assert_eq!(side(&imported, Some(&points)), (64, 64));
        assert_eq!(side(&Preparation::default(), Some(&points)), (16, 16));
        // Beyond eight times the side every pixel counts; below, the face stays what it is.
        assert_eq!(side(&Preparation::default(), None), (64, 64));
        let own = Preparation::default().apply(face(), None, 28).unwrap();
        assert_eq!(own, face());
        assert!(imported.apply(face(), Some(&points[..3]), 16).is_err());
        for size in [0, 1 << 40] {
            assert!(Preparation { size: Some(size), align_margin: None }.apply(face(), None, 16).is_err());
        }
    }
}
