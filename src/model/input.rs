//! How faces become a network's input: 8-bit crops go to the device as they are, and become normalised patches (and HOG targets) there.

use crate::config::{HogDomain, HogSettings, Normalize, Settings};
use crate::dataset::Pixels;
use crate::engine::guard::Raw;
use crate::kernels;
use crate::transform::augment::fit;
use crate::transform::normalize::scales;
use burn::prelude::*;
use safetensors::Dtype;
use std::sync::{Mutex, PoisonError};

/// The input that settings describe.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    pub side: usize,
    pub channels: usize,
    pub patch: usize,
    normalize: Normalize,
}

/// Crops on the host, ready to upload: bytes `[B, H, W, C]`, and each one's scales and shifts `[B, 2, C]`.
#[derive(Clone, Debug, Default)]
pub struct Crops {
    pixels: Vec<u8>,
    scales: Vec<f32>,
    count: usize,
    uploaded: Uploaded,
}

/// Crops on a device before somebody asked for them there. Not part of what crops are: a copy has none.
#[derive(Debug, Default)]
struct Uploaded(Mutex<Option<(Device, Faces)>>);

impl Clone for Uploaded {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Crops on the device.
#[derive(Debug)]
pub struct Faces {
    /// `[B, H, W, C]` of u8
    pixels: Tensor<4, Int>,
    /// `[B, 2, C]`
    scales: Tensor<3>,
    patch: usize,
}

impl Input {
    pub fn of(s: &Settings) -> Self {
        Self { side: s.data.size, channels: s.data.channels, patch: s.vit.patch, normalize: s.data.normalize }
    }

    /// Patches of a face, N.
    pub fn patches(&self) -> usize {
        (self.side / self.patch).pow(2)
    }

    /// Adds a crop of `side` x `side` pixels with `channels` channels.
    pub fn push(&self, crops: &mut Crops, crop: &Pixels) {
        debug_assert_eq!((crop.width, crop.height, crop.channels), (self.side, self.side, self.channels));
        crops.pixels.extend_from_slice(&crop.data);
        crops.scales.extend(self.scales(crop));
        crops.count += 1;
    }

    /// Scales, then shifts, of each channel of a crop, `[2, C]`: `pixel * scale + shift` is what the network sees.
    pub fn scales(&self, crop: &Pixels) -> Vec<f32> {
        scales(crop, self.normalize)
    }

    /// Whole faces, as evaluation sees them.
    pub fn whole(&self, faces: impl IntoIterator<Item = Pixels>) -> Crops {
        let mut crops = Crops::default();
        faces.into_iter().for_each(|face| self.push(&mut crops, &fit(&face, self.side, self.channels)));
        crops
    }

    /// The mirror images of crops.
    pub fn mirrored(&self, crops: &Crops) -> Crops {
        let rows = crops.pixels.chunks(self.side * self.channels);
        let pixels = rows.flat_map(|row| row.chunks(self.channels).rev().flatten()).copied().collect();
        // Scales and shifts are of whole crops: a mirror does not change them.
        Crops { pixels, scales: crops.scales.clone(), count: crops.count, uploaded: Uploaded::default() }
    }

    /// Crops as they are uploaded: `pixels` `[B, H, W, C]` of u8, `scales` `[B, 2, C]`.
    pub fn raw(&self, crops: &Crops) -> Vec<Raw> {
        let scales = crops.scales.iter().flat_map(|v| v.to_le_bytes()).collect();
        let pixels = vec![crops.count, self.side, self.side, self.channels];
        vec![
            Raw { name: "pixels", dtype: Dtype::U8, shape: pixels, bytes: crops.pixels.clone() },
            Raw { name: "scales", dtype: Dtype::F32, shape: vec![crops.count, 2, self.channels], bytes: scales },
        ]
    }

    /// Uploads crops that will be asked for later: while a device computes, this takes none of its time.
    pub fn upload_ahead(&self, crops: &Crops, device: &Device) {
        let faces = self.upload(crops, device);
        *crops.uploaded.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((device.clone(), faces));
    }

    /// Crops on a device; once those that were uploaded ahead.
    pub fn upload(&self, crops: &Crops, device: &Device) -> Faces {
        let ahead = crops.uploaded.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((there, faces)) = ahead
            && there == *device
            && there.is_autodiff() == device.is_autodiff()
        {
            return faces;
        }
        let shape = [crops.count, self.side, self.side, self.channels];
        let scales = TensorData::new(crops.scales.clone(), [crops.count, 2, self.channels]);
        Faces {
            pixels: kernels::upload_pixels(crops.pixels.clone(), shape, device),
            scales: Tensor::from_data(scales, device),
            patch: self.patch,
        }
    }

    /// Pixels in [0, 1], `[B, H, W, C]`, that may be moved and differentiated, and what makes patches of them.
    pub fn upload_floats(&self, crops: &Crops, device: &Device) -> (Tensor<4>, Patching) {
        let (b, c) = (crops.count, self.channels);
        let pixels: Vec<f32> = crops.pixels.iter().map(|&v| f32::from(v) / 255.0).collect();
        let pixels = Tensor::from_data(TensorData::new(pixels, [b, self.side, self.side, c]), device);
        let scales = Tensor::<3>::from_data(TensorData::new(crops.scales.clone(), [b, 2, c]), device);
        let row = |i: usize| scales.clone().slice([0..b, i..i + 1, 0..c]).reshape([b, 1, 1, c]);
        (pixels, Patching { scale: row(0).mul_scalar(255.0), shift: row(1), patch: self.patch })
    }
}

/// Normalises and cuts pixels in [0, 1] near those of certain crops. Scales and shifts are those of the crops: under
/// `data.normalize = "per_face"` a pixel that moves does not move its face's mean and deviation, so that the gradient is that of the
/// pixel alone.
pub struct Patching {
    /// `[B, 1, 1, C]`
    scale: Tensor<4>,
    shift: Tensor<4>,
    patch: usize,
}

impl Patching {
    /// All normalised patches of pixels `[B, H, W, C]`, `[B, N, P * P * C]`; differentiable.
    pub fn patches(&self, pixels: Tensor<4>) -> Tensor<3> {
        let ([b, h, w, c], p) = (pixels.dims(), self.patch);
        let normalised = pixels * self.scale.clone() + self.shift.clone();
        let cut = normalised.reshape([b, h / p, p, w / p, p, c]).permute([0, 1, 3, 2, 4, 5]);
        cut.reshape([b, (h / p) * (w / p), p * p * c])
    }
}

impl Crops {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes `[B, H, W, C]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

impl Faces {
    /// Normalised patches that `index` `[B, K]` names, `[B, K, P * P * C]`.
    pub fn visible(&self, index: Tensor<2, Int>) -> Tensor<3> {
        kernels::patch_pixels(self.pixels.clone(), self.scales.clone(), index, self.patch).expect("crops are what `Input` made them")
    }

    /// All normalised patches, `[B, N, P * P * C]`.
    pub fn patches(&self) -> Tensor<3> {
        let [b, h, w, _] = self.pixels.dims();
        let n = (h / self.patch) * (w / self.patch);
        let every = (0..b).flat_map(|_| 0..n as i32).collect();
        self.visible(kernels::upload_index(every, [b, n], &self.pixels.device()))
    }

    /// HOG of every patch, `[B, N, C * 9 * (P / cell)^2]`.
    pub fn hog(&self, settings: &HogSettings) -> Tensor<3> {
        let (cell, window) = (settings.cell, settings.window);
        let tokens = match settings.domain {
            HogDomain::U8 => kernels::hog_tokens(self.pixels.clone(), cell, window, self.patch),
            HogDomain::Normalized => kernels::hog_tokens_of_floats(self.normalised(), cell, window, self.patch),
        };
        tokens.expect("settings are valid")
    }

    /// What the network sees, as whole pictures `[B, H, W, C]`.
    fn normalised(&self) -> Tensor<4> {
        let [b, h, w, c] = self.pixels.dims();
        let p = self.patch;
        let cut = self.patches().reshape([b, h / p, w / p, p, p, c]);
        cut.permute([0, 1, 3, 2, 4, 5]).reshape([b, h / p * p, w / p * p, c])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;
    use crate::random::{RngExt, Streams};

    /// METHOD 3.1: histograms do not depend on an affine change of the pixels, but for gradients that only integers make exactly upright.
    #[test]
    fn both_domains_of_hog_agree_where_rounding_does_not_decide() {
        let mut s = Settings::default();
        (s.data.size, s.vit.patch, s.hog.cell) = (32, 16, 8);
        let mut rng = Streams::new(1).at("noise", &[]);
        let noise = |_| rng.random::<u8>();
        let input = Input::of(&s);
        let faces = input.upload(&input.whole([Pixels::new(32, 32, 3, (0..32 * 32 * 3).map(noise).collect())]), &Device::flex());
        let tokens = |domain: HogDomain| read_values(faces.hog(&HogSettings { domain, ..s.hog.clone() })).unwrap();
        let (bytes, floats) = (tokens(HogDomain::U8), tokens(HogDomain::Normalized));
        assert_eq!(bytes.len(), 4 * 108);
        let off = bytes.iter().zip(&floats).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        // Of 64 gradients in a cell about one in a thousand is exactly upright.
        assert!(off < bytes.len() / 10 && bytes.iter().any(|v| *v > 0.1), "{off} of {}", bytes.len());
        let rotated: Vec<f32> = bytes.iter().skip(4).chain(&bytes[..4]).copied().collect();
        assert!(rotated.iter().zip(&floats).filter(|(a, b)| (*a - *b).abs() > 1e-4).count() > bytes.len() / 2, "the test sees nothing");
    }
    /// And are gone then: a second pass over a batch uploads it again.
    #[test]
    fn crops_uploaded_ahead_are_taken_once_and_by_their_own_device() {
        let mut s = Settings::default();
        (s.data.size, s.vit.patch) = (8, 4);
        let input = Input::of(&s);
        let crops = input.whole([Pixels::new(8, 8, 3, (0..8 * 8 * 3).map(|i| (i * 7) as u8).collect())]);
        let (device, graph) = (Device::flex(), Device::flex().autodiff());
        let is_there = |crops: &Crops| crops.uploaded.0.lock().unwrap().is_some();
        let values = |device: &Device| read_values(input.upload(&crops, device).patches()).unwrap();
        let expected = values(&device);
        for asked in [&device, &graph] {
            input.upload_ahead(&crops, &graph);
            assert!(is_there(&crops) && !is_there(&crops.clone()));
            assert_eq!(values(asked), expected);
            assert!(!is_there(&crops));
        }
        assert_eq!(values(&graph), expected);
    }
}
