//! CPU twin of `shaders/patch_pixels.wgsl`: normalised patches of 8-bit pictures, only those that are named.

use rayon::prelude::*;

/// Geometry of the pictures and their patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    pub width: usize,
    pub height: usize,
    /// 1 or 3, interleaved.
    pub channels: usize,
    /// P: side of a patch in pixels.
    pub side: usize,
}

impl Patches {
    /// N: whole patches in a picture; rows and columns beyond them are left out.
    pub fn count(&self) -> usize {
        (self.width / self.side) * (self.height / self.side)
    }

    /// Values of a patch: `P * P * C`.
    pub fn values(&self) -> usize {
        self.side * self.side * self.channels
    }

    /// Bytes of a picture.
    pub fn bytes(&self) -> usize {
        self.width * self.height * self.channels
    }
}

/// Pictures `[B, H, W, C]`, scales then shifts `[B, 2, C]`, index `[B, K]` -> `pixel * scale + shift`, `[B, K, P * P * C]`; patches
/// row-major, inside (row, column, channel); a patch that does not exist is zero.
///
/// # Panics
/// If the slices do not fit each other.
pub fn patch_pixels(pixels: &[u8], scales: &[f32], index: &[i32], patches: &Patches) -> Vec<f32> {
    let Patches { width, channels, side, .. } = *patches;
    let samples = pixels.len() / patches.bytes();
    assert!(pixels.len() == samples * patches.bytes() && scales.len() == samples * 2 * channels);
    let kept = index.len().checked_div(samples).unwrap_or(0);
    assert_eq!(index.len(), samples * kept);
    let mut out = vec![0.0; index.len() * patches.values()];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(kept * patches.values()).enumerate().for_each(|(sample, out)| {
        let picture = &pixels[sample * patches.bytes()..][..patches.bytes()];
        let (scale, shift) = scales[sample * 2 * channels..][..2 * channels].split_at(channels);
        for (out, &patch) in out.chunks_mut(patches.values()).zip(&index[sample * kept..]) {
            let Some(patch) = usize::try_from(patch).ok().filter(|&p| p < patches.count()) else { continue };
            let (patch_y, patch_x) = (patch / (width / side), patch % (width / side));
            for (y, out) in out.chunks_mut(side * channels).enumerate() {
                let row = &picture[((patch_y * side + y) * width + patch_x * side) * channels..][..side * channels];
                if channels == 1 {
                    out.iter_mut().zip(row).for_each(|(out, &v)| *out = f32::from(v) * scale[0] + shift[0]);
                } else {
                    for (i, (out, &v)) in out.iter_mut().zip(row).enumerate() {
                        *out = f32::from(v) * scale[i % channels] + shift[i % channels];
                    }
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_patches_in_the_order_of_the_picture() {
        let patches = Patches { width: 5, height: 4, channels: 1, side: 2 };
        assert_eq!((patches.count(), patches.values()), (4, 4));
        let pixels: Vec<u8> = (0..40).collect();
        let out = patch_pixels(&pixels, &[1.0, 0.0, 2.0, -1.0], &[3, 0, 1, 7], &patches);
        let expected = [12.0, 13.0, 17.0, 18.0, 0.0, 1.0, 5.0, 6.0, 43.0, 45.0, 53.0, 55.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(out, expected);
    }

    #[test]
    fn channels_have_their_own_scale() {
        let patches = Patches { width: 2, height: 1, channels: 3, side: 1 };
        let out = patch_pixels(&[1, 2, 3, 4, 5, 6], &[1.0, 10.0, 100.0, 0.5, 0.0, 0.0], &[1], &patches);
        assert_eq!(out, [4.5, 50.0, 600.0]);
        assert!(patch_pixels(&[], &[], &[], &patches).is_empty());
    }
}
