//! The attack that tells a firm label from a loose one: a few sign-gradient steps away from the given label, and which class each step
//! lands in (projected gradient descent as in GAIRAT; METHOD 2, `gaave`).
//!
//! Works on pixels in [0, 1] before any normalisation, without a random start. Knows no faces and no models: the network is a function
//! from pixels to logits.

use crate::config::LabelSettings;
use crate::finetune::loss::confidence_cross_entropy;
use anyhow::{Context, Result};
use burn::prelude::*;

/// How far an attack goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attack {
    /// Steps K; there are K + 1 iterates.
    pub steps: usize,
    /// Largest change of a pixel in [0, 1].
    pub eps: f32,
    /// Change of a pixel in one step.
    pub step: f32,
}

impl Attack {
    pub fn of(settings: &LabelSettings) -> Self {
        Self { steps: settings.attack_steps, eps: settings.attack_eps as f32, step: settings.attack_step as f32 }
    }

    /// Logits `[B, C]`, without their graph, of the iterates x_0 ... x_K: x_0 is `pixels` `[B, H, W, C]` in [0, 1] (without a graph), and
    /// x_k+1 = x_k + step * sign of the gradient of the cross-entropy of `given` (one-hot, `[B, C]`) at x_k, clipped to `eps` around x_0
    /// and to [0, 1].
    ///
    /// `network` must treat each face by itself; its own weights may be without gradients.
    ///
    /// # Errors
    /// When the logits do not depend on the pixels.
    pub fn trajectory(
        &self,
        pixels: Tensor<4>,
        given: Tensor<2>,
        mut network: impl FnMut(Tensor<4>) -> Tensor<2>,
    ) -> Result<Vec<Tensor<2>>> {
        let (low, high) = (pixels.clone().sub_scalar(self.eps), pixels.clone().add_scalar(self.eps));
        let mut x = pixels;
        let mut seen = Vec::with_capacity(self.steps + 1);
        for _ in 0..self.steps {
            let leaf = x.autodiff().require_grad();
            let logits = network(leaf.clone());
            seen.push(logits.clone().inner());
            // The sum over the batch: no face's gradient depends on another's.
            let gradients = confidence_cross_entropy(logits, given.clone()).backward();
            let gradient = leaf.grad(&gradients).context("the logits do not depend on the pixels")?;
            let moved = leaf.inner() + gradient.sign().mul_scalar(self.step);
            x = moved.max_pair(low.clone()).min_pair(high.clone()).clamp(0.0, 1.0);
        }
        seen.push(network(x));
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Normalize, Resolved, Settings};
    use crate::dataset::Pixels;
    use crate::engine::read_values;
    use crate::model::init::Init;
    use crate::model::{Classifier, Crops, Input, Noise, Vit};
    use crate::random::{RngExt, Streams};

    fn settings(more: &[&str]) -> Settings {
        let tiny = ["data.size=16", "data.channels=1", "vit.patch=8", "vit.dim=16", "vit.heads=2", "vit.depth=2", "decoder.heads=2"];
        let set = |r: Resolved, word: &&str| r.with_flag(word).unwrap();
        tiny.iter().chain(more).fold(Resolved::default(), set).settings().clone()
    }

    /// Smooth faces of noise, some pixels black and some white.
    fn crops(input: &Input, faces: u64) -> Crops {
        input.whole((0..faces).map(|face| {
            let mut rng = Streams::new(3).at("faces", &[face]);
            let n = input.side * input.side * input.channels;
            Pixels::new(
                input.side,
                input.side,
                input.channels,
                (0..n).map(|_| (rng.random_range(0..300i32) - 20).clamp(0, 255) as u8).collect(),
            )
        }))
    }

    fn classifier(s: &Settings, device: &Device) -> Classifier {
        let init = Init { streams: Streams::new(7), device };
        Classifier::new(&init, Vit::new(&init, s), 5, s)
    }

    fn one_hot(given: &[usize], classes: usize, device: &Device) -> Tensor<2> {
        let mut rows = vec![0.0f32; given.len() * classes];
        rows.chunks_mut(classes).zip(given).for_each(|(row, &c)| row[c] = 1.0);
        Tensor::from_data(TensorData::new(rows, [given.len(), classes]), device)
    }

    fn value(loss: Tensor<1>) -> f64 {
        f64::from(read_values(loss).unwrap()[0])
    }

    #[test]
    fn a_linear_network_is_left_along_the_signs_of_its_weights() {
        let device = Device::flex();
        let tensor = |values: [f32; 4]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 4, 1]), &device);
        // Two classes; the second one's weights are the negative of these.
        let weights = tensor([2.0, -3.0, 0.0, 1.0]);
        let start = [0.5, 0.5, 0.5, 0.01];
        let mut seen = Vec::new();
        let attack = Attack { steps: 3, eps: 0.05, step: 0.02 };
        let logits = attack
            .trajectory(tensor(start), one_hot(&[0], 2, &device), |x| {
                seen.push(read_values(x.clone().inner()).unwrap());
                let z = (x * weights.clone()).sum().reshape([1, 1]);
                Tensor::cat(vec![z.clone(), z.neg()], 1)
            })
            .unwrap();
        let expected = [start, [0.48, 0.52, 0.5, 0.0], [0.46, 0.54, 0.5, 0.0], [0.45, 0.55, 0.5, 0.0]];
        assert_eq!((seen.len(), logits.len()), (4, 4));
        for (x, expected) in seen.iter().zip(expected) {
            assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?} {expected:?}");
        }
        let last = read_values(logits[3].clone()).unwrap();
        let z = 2.0 * 0.45 - 3.0 * 0.55;
        assert!((last[0] - z).abs() < 1e-5 && (last[1] + z).abs() < 1e-5, "{last:?}");
        // Without steps there is nothing but the face itself.
        let still = Attack { steps: 0, ..attack };
        assert_eq!(still.trajectory(tensor(start), one_hot(&[0], 2, &device), |x| x.reshape([2, 2])).unwrap().len(), 1);
    }

    #[test]
    fn iterates_stay_close_and_leave_the_given_label() {
        let device = Device::flex();
        for more in [&["data.normalize=per_face"][..], &["data.normalize=imagenet", "data.channels=3", "vit.stem=conv"]] {
            let s = settings(more);
            let (model, input) = (classifier(&s, &device.clone().autodiff()), Input::of(&s));
            let (pixels, patching) = input.upload_floats(&crops(&input, 6), &device);
            let given = one_hot(&[0, 1, 2, 3, 4, 0], 5, &device);
            let first = read_values(pixels.clone()).unwrap();
            let mut seen = Vec::new();
            // Five steps of 0.02 leave a ball of 0.05 if nothing holds them.
            let attack = Attack { steps: 5, eps: 0.05, step: 0.02 };
            let model = burn::module::Module::valid(&model);
            let logits = attack
                .trajectory(pixels, given.clone(), |x| {
                    seen.push(read_values(x.clone().inner()).unwrap());
                    model.forward(patching.patches(x), 0.0, 0.0, &mut Noise::none())
                })
                .unwrap();
            assert_eq!(first, seen[0]);
            for x in &seen {
                assert!(x.iter().zip(&first).all(|(x, first)| (x - first).abs() <= 0.05 + 1e-6 && (0.0..=1.0).contains(x)));
            }
            let reached = seen[5].iter().zip(&first).filter(|(x, first)| (*x - *first).abs() > 0.0499).count();
            assert!(reached * 4 > first.len(), "only {reached} of {} pixels reach the border of the ball", first.len());
            let losses: Vec<f64> = logits.into_iter().map(|z| value(confidence_cross_entropy(z, given.clone()))).collect();
            // Clipping may cost a late step its gain, never the first one's.
            assert!(losses[1..].iter().all(|loss| *loss > losses[0]) && losses[5] > 1.1 * losses[0], "{losses:?}");
        }
    }

    #[test]
    fn the_pixel_gradient_is_the_slope_of_the_loss() {
        let device = Device::flex();
        for more in [&["data.normalize=per_face"][..], &["data.normalize=half", "vit.stem=conv"]] {
            let s = settings(more);
            let (model, input) = (burn::module::Module::valid(&classifier(&s, &device.clone().autodiff())), Input::of(&s));
            let (pixels, patching) = input.upload_floats(&crops(&input, 3), &device);
            let given = one_hot(&[4, 0, 2], 5, &device);
            let loss =
                |x: Tensor<4>| confidence_cross_entropy(model.forward(patching.patches(x), 0.0, 0.0, &mut Noise::none()), given.clone());
            let leaf = pixels.clone().autodiff().require_grad();
            let gradient = leaf.grad(&loss(leaf.clone()).backward()).unwrap();
            let noise: Vec<f32> = {
                let mut rng = Streams::new(1).at("direction", &[]);
                (0..gradient.shape().num_elements()).map(|_| rng.random::<f32>() - 0.5).collect()
            };
            let mixed = gradient.clone().sign() * Tensor::from_data(TensorData::new(noise, gradient.shape()), &device).abs();
            for direction in [gradient.clone().sign(), mixed] {
                let slope = value((gradient.clone() * direction.clone()).sum());
                let h = 1e-3;
                let at = |h: f32| value(loss(pixels.clone() + direction.clone().mul_scalar(h)));
                let measured = (at(h) - at(-h)) / f64::from(2.0 * h);
                assert!(slope > 0.1 && (measured - slope).abs() < 0.02 * slope, "{more:?}: {measured} measured, {slope} computed");
            }
        }
    }

    #[test]
    fn the_unmoved_face_is_what_evaluation_sees() {
        let device = Device::flex();
        for normalize in [Normalize::PerFace, Normalize::Half, Normalize::Imagenet] {
            let mut s = settings(&["data.channels=3"]);
            s.data.normalize = normalize;
            let input = Input::of(&s);
            let crops = crops(&input, 2);
            let (pixels, patching) = input.upload_floats(&crops, &device);
            let moved = read_values(patching.patches(pixels.clone())).unwrap();
            let usual = read_values(input.upload(&crops, &device).patches()).unwrap();
            assert!(moved.iter().zip(&usual).all(|(a, b)| (a - b).abs() < 1e-4), "{normalize:?}");
            // A mirror image is its own inverse and turns columns around.
            let mirrored = input.mirrored(&crops);
            let (other, _) = input.upload_floats(&mirrored, &device);
            assert_eq!(read_values(other).unwrap(), read_values(pixels.flip([2])).unwrap());
            assert_eq!(read_values(input.upload(&input.mirrored(&mirrored), &device).patches()).unwrap(), usual);
        }
    }
}
