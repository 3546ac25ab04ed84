//! One training step of each kind on the device and on the CPU: the same initial values and faces, so the same loss and gradients.

use super::Finding;
use crate::config::Settings;
use crate::dataset::Pixels;
use crate::engine::precision::Precision;
use crate::engine::read_values;
use crate::finetune::loss::{confidence_cross_entropy, uniformity};
use crate::model::init::Init;
use crate::model::{Classifier, Crops, Hidden, Input, MaskedAutoencoder, MaskedModel, MaskedVit, Noise, Vit};
use crate::random::{RngExt, Streams};
use anyhow::{Context, Result};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::FloatDType;

const FACES: usize = 4;
const CLASSES: usize = 8;
/// Relative to the largest gradient of the parameter; f32 sums in another order stay far below.
const BOUND: f64 = 1e-3;
/// Length of the difference over that of all gradients, with products in half precision: their unit roundoff is 5e-4, and a ReLU of the
/// decoder whose input was rounded over zero changes single gradients by much.
const BOUND_MIXED: f64 = 2e-2;
/// Of the loss, as in training: the backward pass would round small gradients to zero.
const LOSS_SCALE: f32 = 1024.0;
/// Parameters whose gradients are smaller than this share of the network's largest have nothing but rounding in them (the bias of
/// attention keys is one, by its nature).
const FLOOR: f64 = 1e-3;

fn tiny() -> Settings {
    let mut s = Settings::default();
    (s.data.size, s.data.channels) = (32, 1);
    (s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads) = (8, 32, 2, 2);
    (s.decoder.heads, s.decoder.layers) = (2, 1);
    s.hog.cell = 4;
    (s.mim.decoder_dim, s.mim.decoder_heads, s.mim.decoder_depth) = (16, 2, 1);
    s
}

fn faces(s: &Settings) -> (Input, Crops) {
    let input = Input::of(s);
    let mut rng = Streams::new(0).at("selftest/faces", &[]);
    let mut picture = || Pixels::new(s.data.size, s.data.size, 1, (0..s.data.size.pow(2)).map(|_| rng.random()).collect());
    (input, input.whole((0..FACES).map(|_| picture()).collect::<Vec<_>>()))
}

struct Gradients {
    all: GradientsParams,
    read: Vec<Result<Vec<f32>>>,
}

impl ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.all.get::<D>(param.id) {
            self.read.push(read_values(gradient));
        }
    }
}

/// The loss, then every parameter's gradient.
fn backward<M: Module>(model: &M, loss: Tensor<1>, scale: f32) -> Result<Vec<Vec<f32>>> {
    let value = read_values(loss.clone().inner())?;
    let scaled = loss.mul_scalar(scale);
    let mut gradients = Gradients { all: GradientsParams::from_grads(scaled.backward(), model), read: Vec::new() };
    model.visit(&mut gradients);
    let mut all = vec![value];
    for gradient in gradients.read {
        all.push(gradient?.into_iter().map(|g| g / scale).collect());
    }
    Ok(all)
}

fn compare(device: &Device, step: fn(&Device) -> Result<Vec<Vec<f32>>>) -> Result<Finding> {
    let expected = step(&Device::flex())?;
    let ours = step(device)?;
    // The loss and a gradient for most parameters.
    let mut worst = if ours.len() == expected.len() && ours.len() > 10 { 0.0f64 } else { f64::INFINITY };
    let largest = |values: &[f32]| values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    // The first is the loss.
    let overall = expected.iter().skip(1).map(|g| largest(g)).fold(0.0, f64::max);
    for (ours, expected) in ours.iter().zip(&expected) {
        let error = super::largest_difference(ours, expected) / largest(expected).max(FLOOR * overall);
        worst = worst.max(if error.is_finite() { error } else { f64::INFINITY });
    }
    Ok(Finding::new(worst, BOUND))
}

/// A step with the HOG as its target; patch i of the batch is hidden where `hide` says so.
fn masked<M: MaskedModel>(device: &Device, hide: fn(usize) -> bool) -> Result<Vec<Vec<f32>>> {
    let (s, device) = (tiny(), device.clone().autodiff());
    let model = M::new(&Init { streams: Streams::new(1), device: &device }, &s);
    let (input, crops) = faces(&s);
    let faces = input.upload(&crops, &device);
    let hidden = Hidden::upload(&(0..FACES * input.patches()).map(hide).collect::<Vec<_>>(), input.patches(), &device);
    let predicted = model.predict(&faces, &hidden, 0.0, &mut Noise::none());
    let loss = ((predicted - faces.hog(&s.hog)).square() * hidden.mask).mean();
    backward(&model, loss, 1.0)
}

pub fn pretraining(device: &Device) -> Result<Finding> {
    compare(device, |device| masked::<MaskedVit>(device, |i| i.is_multiple_of(3)))
}

/// Twelve patches of each face are hidden, other ones of each.
pub fn pretraining_visible(device: &Device) -> Result<Finding> {
    compare(device, |device| masked::<MaskedAutoencoder>(device, |i| !(i % 16 + i / 16).is_multiple_of(4)))
}

/// A step on two candidates for each face.
fn labelled(device: &Device, precision: Precision, scale: f32) -> Result<Vec<Vec<f32>>> {
    let (s, device) = (tiny(), device.clone().autodiff());
    let init = Init { streams: Streams::new(2), device: &device };
    let model = precision.leaves(Classifier::new(&init, Vit::new(&init, &s), CLASSES, &s));
    let (input, crops) = faces(&s);
    let logits = model.forward(input.upload(&crops, &device).patches(), 0.0, 0.0, &mut Noise::none());
    let targets = (0..FACES * CLASSES).map(|i| if (i % CLASSES) / 2 == i / CLASSES { 0.5 } else { 0.0 }).collect::<Vec<f32>>();
    let targets = Tensor::from_data(TensorData::new(targets, [FACES, CLASSES]), &device);
    let queries = model.trainable_queries().context("the decoder has queries")?;
    let loss = confidence_cross_entropy(logits, targets).mul_scalar(1.0 / FACES as f32);
    backward(&model, loss + uniformity(queries, &s.uniform).mul_scalar(s.uniform.tau as f32), scale)
}

pub fn finetuning(device: &Device) -> Result<Finding> {
    compare(device, |device| labelled(device, Precision::Single, 1.0))
}

pub fn finetuning_mixed(device: &Device) -> Result<Finding> {
    if !device.supports_dtype(FloatDType::F16) {
        return Ok(Finding::nothing("half precision"));
    }
    let single = labelled(&Device::flex(), Precision::Single, 1.0)?;
    let mixed = labelled(device, Precision::Mixed, LOSS_SCALE)?;
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let all = |g: &[Vec<f32>]| g.iter().skip(1).flatten().copied().collect::<Vec<f32>>();
    let (single_all, mixed_all) = (all(&single), all(&mixed));
    if single_all.len() != mixed_all.len() {
        return Ok(Finding::new(f64::INFINITY, BOUND_MIXED));
    }
    let error = length(&mut single_all.iter().zip(&mixed_all).map(|(a, b)| a - b)) / length(&mut single_all.iter().copied());
    let of_loss = f64::from((single[0][0] - mixed[0][0]).abs() / single[0][0].abs());
    let worst = error.max(of_loss);
    Ok(Finding::new(if worst.is_finite() { worst } else { f64::INFINITY }, BOUND_MIXED))
}
