//! 8-bit pixels to the numbers of the patch embedding, already cut into patches.

use crate::config::Normalize;
use crate::dataset::Pixels;

/// ImageNet statistics of pixels in [0, 1].
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// A flat face has no contrast to scale up.
const MIN_STD: f32 = 1e-3;

/// Normalised patches of a square face, `[N, P * P * C]`: patches row-major, inside (row, column, channel).
pub fn patches(face: &Pixels, patch: usize, how: Normalize) -> Vec<f32> {
    let (side, channels) = (face.width, face.channels);
    let grid = side / patch;
    let (mean, std) = statistics(face, how);
    let mut out = Vec::with_capacity(face.data.len());
    for (py, px) in (0..grid).flat_map(|py| (0..grid).map(move |px| (py, px))) {
        for y in 0..patch {
            let start = ((py * patch + y) * side + px * patch) * channels;
            let row = &face.data[start..start + patch * channels];
            out.extend(row.iter().enumerate().map(|(i, &v)| {
                let c = i % channels;
                (f32::from(v) / 255.0 - mean[c]) / std[c]
            }));
        }
    }
    out
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

    #[test]
    fn patches_are_row_major_and_standardised() {
        let face = Pixels::new(4, 4, 1, (0..16).map(|v| v * 10).collect());
        let p = patches(&face, 2, Normalize::PerFace);
        assert!(p.iter().sum::<f32>().abs() < 1e-4);
        assert!((p.iter().map(|v| v * v).sum::<f32>() / 16.0 - 1.0).abs() < 1e-4);
        let half = patches(&face, 2, Normalize::Half);
        let expected: Vec<f32> = [0, 1, 4, 5, 2, 3, 6, 7].iter().map(|&i| (i as f32 * 10.0 / 255.0 - 0.5) / 0.5).collect();
        assert!(half.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn a_flat_face_stays_finite() {
        let p = patches(&Pixels::new(4, 4, 3, vec![9; 48]), 4, Normalize::PerFace);
        assert!(p.iter().all(|v| *v == 0.0));
    }
}
