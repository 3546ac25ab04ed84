//! What turns 8-bit pixels into the numbers of the patch embedding; the device applies it (`kernels::patch_pixels`).

use crate::config::Normalize;
use crate::dataset::Pixels;

/// ImageNet statistics of pixels in [0, 1].
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// A flat face has no contrast to scale up.
const MIN_STD: f32 = 1e-3;

/// Scales, then shifts, of each channel: `pixel * scale + shift` is the normalised pixel, `[2, C]`.
pub fn scales(face: &Pixels, how: Normalize) -> Vec<f32> {
    let (mean, std) = statistics(face, how);
    let scales = std[..face.channels].iter().map(|std| 1.0 / (255.0 * std));
    scales.chain(mean.iter().zip(std).take(face.channels).map(|(mean, std)| -mean / std)).collect()
}

fn statistics(face: &Pixels, how: Normalize) -> ([f32; 3], [f32; 3]) {
    match how {
        Normalize::Half => ([0.5; 3], [0.5; 3]),
        Normalize::Imagenet if face.channels == 3 => (IMAGENET_MEAN, IMAGENET_STD),
        Normalize::Imagenet => ([IMAGENET_MEAN.iter().sum::<f32>() / 3.0; 3], [IMAGENET_STD.iter().sum::<f32>() / 3.0; 3]),
        Normalize::PerFace => {
            let n = face.data.len() as f64;
            let sum: u64 = face.data.iter().map(|&v| u64::from(v)).sum();
            let squares: u64 = face.data.iter().map(|&v| u64::from(v) * u64::from(v)).sum();
            let mean = sum as f64 / n;
            let std = (squares as f64 / n - mean * mean).max(0.0).sqrt();
            ([(mean / 255.0) as f32; 3], [((std / 255.0) as f32).max(MIN_STD); 3])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(face: &Pixels, how: Normalize) -> Vec<f32> {
        let scales = scales(face, how);
        face.data
            .iter()
            .enumerate()
            .map(|(i, &v)| f32::from(v) * scales[i % face.channels] + scales[face.channels + i % face.channels])
            .collect()
    }

    #[test]
    fn faces_are_standardised() {
        let face = Pixels::new(4, 4, 1, (0..16).map(|v| v * 10).collect());
        let p = normalised(&face, Normalize::PerFace);
        assert!(p.iter().sum::<f32>().abs() < 1e-4);
        assert!((p.iter().map(|v| v * v).sum::<f32>() / 16.0 - 1.0).abs() < 1e-4);
        let half = normalised(&face, Normalize::Half);
        assert!(half.iter().enumerate().all(|(i, v)| (v - (i as f32 * 10.0 / 255.0 - 0.5) / 0.5).abs() < 1e-6));
        let colour = normalised(&Pixels::new(1, 1, 3, vec![255; 3]), Normalize::Imagenet);
        assert!(colour.iter().enumerate().all(|(c, v)| (v - (1.0 - IMAGENET_MEAN[c]) / IMAGENET_STD[c]).abs() < 1e-5));
    }

    #[test]
    fn a_flat_face_stays_finite() {
        assert!(normalised(&Pixels::new(4, 4, 3, vec![9; 48]), Normalize::PerFace).iter().all(|v| v.abs() < 1e-4));
    }
}
