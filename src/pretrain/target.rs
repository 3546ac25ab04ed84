//! What pretraining predicts of a patch: its histograms of gradients, or its pixels (METHOD 3.1, 3.4).

use crate::config::{HogSettings, Method, Settings};
use crate::model::Faces;
use burn::prelude::*;

/// Keeps the deviation of a flat patch above zero (MAE).
const EPS: f32 = 1e-6;

/// The target of every patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `C * 9 * (P / cell)^2` values of the 8-bit crop.
    Hog(HogSettings),
    /// `P * P * C` normalised pixels in the order row, column, channel. SimMIM's head gives channels first: the same function, its outputs
    /// in another order.
    Pixels {
        /// Each patch with its own mean and deviation taken out.
        norm: bool,
    },
}

impl Target {
    pub fn of(s: &Settings) -> Self {
        match s.pretrain.method {
            Method::Maskfeat | Method::MaeHog => Target::Hog(s.hog.clone()),
            Method::Mae => Target::Pixels { norm: s.mim.norm_pix },
            Method::Simmim => Target::Pixels { norm: false },
        }
    }

    /// `[B, N, T]`
    pub fn values(&self, faces: &Faces) -> Tensor<3> {
        match self {
            Target::Hog(hog) => faces.hog(hog),
            Target::Pixels { norm: false } => faces.patches(),
            Target::Pixels { norm: true } => {
                let patches = faces.patches();
                let (mean, deviation) = statistics(patches.clone());
                (patches - mean) / deviation
            }
        }
    }

    /// Predictions `[B, N, T]` as normalised pixels `[B, N, P * P * C]`, with the mean and the deviation that the target was rid of: for
    /// looking at. Histograms stay what they are.
    pub fn restored(&self, predicted: Tensor<3>, faces: &Faces) -> Tensor<3> {
        match self {
            Target::Pixels { norm: true } => {
                let (mean, deviation) = statistics(faces.patches());
                predicted * deviation + mean
            }
            _ => predicted,
        }
    }
}

/// Mean and deviation of each patch, `[B, N, 1]`: MAE's, with the unbiased variance.
fn statistics(patches: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let [_, _, values] = patches.dims();
    let mean = patches.clone().mean_dim(2);
    let squares = (patches - mean.clone()).square().sum_dim(2);
    (mean, squares.div_scalar(values.saturating_sub(1).max(1) as f32).add_scalar(EPS).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Pixels;
    use crate::engine::read_values;
    use crate::model::Input;

    /// Two patches of 2 x 2 pixels in two colours of constant difference, and two flat ones.
    fn faces() -> (Settings, Faces) {
        let mut s = Settings::default();
        (s.data.size, s.data.normalize, s.vit.patch) = (4, crate::config::Normalize::Half, 2);
        (s.hog.cell, s.pretrain.method) = (2, Method::Mae);
        #[rustfmt::skip]
        let red = [
            10, 20,  7, 7,
            30, 60,  7, 7,
            99, 99,  0, 200,
            99, 99,  0, 0,
        ];
        let data = red.iter().flat_map(|&r| [r, r + 5, r + 10]).collect();
        let input = Input::of(&s);
        let crops = input.whole([Pixels::new(4, 4, 3, data)]);
        (s, input.upload(&crops, &Device::flex()))
    }

    /// MAE's target of the first patch: its twelve values in the order row, column, channel have the mean 35 and squared differences that
    /// add up to 4400, so an unbiased deviation of sqrt(4400 / 11) = 20; beside it the 1e-6 is nothing.
    #[test]
    fn normalised_pixels_are_those_computed_by_hand() {
        let (s, faces) = faces();
        let values = read_values(Target::of(&s).values(&faces)).unwrap();
        let expected = [-1.25, -1.0, -0.75, -0.75, -0.5, -0.25, -0.25, 0.0, 0.25, 1.25, 1.5, 1.75];
        assert!(values.iter().zip(expected).all(|(v, e): (&f32, f32)| (v - e).abs() < 1e-4), "{:?}", &values[..12]);
        // A patch without contrast but that of its colours: -5, 0 and 5, four times.
        let flat = [-1.0f32, 0.0, 1.0].map(|v| 5.0 * v / (200.0f32 / 11.0).sqrt());
        assert!(values[12..24].iter().enumerate().all(|(i, v)| (v - flat[i % 3]).abs() < 1e-3), "{:?}", &values[12..24]);
    }

    #[test]
    fn other_targets_are_plain() {
        let (mut s, faces) = faces();
        s.mim.norm_pix = false;
        let plain = read_values(Target::of(&s).values(&faces)).unwrap();
        assert!((plain[0] - (10.0 / 127.5 - 1.0)).abs() < 1e-6 && (plain[4] - (25.0 / 127.5 - 1.0)).abs() < 1e-6);
        // SimMIM's pixels do not depend on what MAE does with its own.
        (s.mim.norm_pix, s.pretrain.method) = (true, Method::Simmim);
        assert_eq!(read_values(Target::of(&s).values(&faces)).unwrap(), plain);
        s.pretrain.method = Method::MaeHog;
        assert_eq!(Target::of(&s).values(&faces).dims(), [1, 4, 27]);
    }

    #[test]
    fn a_perfect_prediction_is_restored_to_the_face() {
        let (s, faces) = faces();
        let target = Target::of(&s);
        let restored = read_values(target.restored(target.values(&faces), &faces)).unwrap();
        let own = read_values(faces.patches()).unwrap();
        assert!(restored.iter().zip(&own).all(|(a, b)| (a - b).abs() < 1e-5), "{restored:?}");
    }
}
