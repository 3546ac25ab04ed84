//! How much memory a training will take, before it starts: what `moue config plan` prints.
//!
//! Weights, their gradients and AdamW's two moments are counted exactly. What a face takes is the sum of what the layers of
//! [`crate::kernels::layers`] keep for the backward pass, and of the gradients that are on the way at the widest place. Both leave out what
//! allocators and drivers keep for themselves: `tests/footprint.rs` holds the whole against what a training really takes.

use super::{Regime, Training};
use crate::config::{Activation, Backbone, Settings, Stem};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::engine::train::AHEAD;
use crate::model::init::Init;
use crate::model::masked::target_len;
use crate::model::{Classifier, Encoder, MaskedAutoencoder, MaskedModel, MaskedVit};
use crate::random::Streams;
use crate::weights::parameters;
use burn::prelude::*;

/// Bytes of a value in single and in half precision.
const SINGLE: f64 = 4.0;
const HALF: f64 = 2.0;
/// The program itself, with what its allocator keeps: what is left of measured peaks when everything else is taken off.
const PROGRAM: f64 = 100e6;

/// Where it is to be trained.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub precision: Precision,
    /// Parts that a batch is worked on at once, each with gradients of its own: threads on a CPU, 1 on a GPU.
    pub shards: usize,
    pub workers: usize,
}

/// Memory of a training, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Values in the network.
    pub parameters: usize,
    pub weights: f64,
    pub gradients: f64,
    /// AdamW's moments.
    pub optimizer: f64,
    /// What a face needs between its forward and its backward pass.
    pub face: f64,
    /// Faces that are worked on at once: `batch / accumulate`.
    pub at_once: usize,
    /// The program and the batches that its loader keeps ready; in main memory also where a GPU trains.
    pub host: f64,
}

impl Footprint {
    /// Of one training; none for networks that this does not know (resnet18).
    pub fn of(training: Training, s: &Settings, classes: usize, machine: &Machine) -> Option<Self> {
        if s.encoder.backbone != Backbone::Vit {
            return None;
        }
        let regime = Regime::of(training, s);
        let parameters = values(training, s, classes);
        let copy = SINGLE * parameters as f64;
        let rounded = if machine.precision == Precision::Mixed { HALF * parameters as f64 } else { 0.0 };
        let at_once = regime.batch.div_ceil(regime.accumulate.max(1));
        let pixels = (s.data.size.pow(2) * s.data.channels) as f64;
        Some(Self {
            parameters,
            weights: copy + rounded,
            // Those of each part, and their sum.
            gradients: copy * if machine.shards > 1 { machine.shards as f64 + 1.0 } else { 1.0 },
            optimizer: 2.0 * copy,
            face: face(training, s, classes, machine.precision),
            at_once,
            host: PROGRAM + (AHEAD + machine.workers) as f64 * regime.batch as f64 * pixels,
        })
    }

    /// What does not depend on how many faces are worked on at once.
    pub fn fixed(&self) -> f64 {
        self.weights + self.gradients + self.optimizer
    }

    /// On the device that trains.
    pub fn device(&self) -> f64 {
        self.fixed() + self.face * self.at_once as f64
    }

    /// The most faces at once that a device has memory for; none where its driver does not tell how much it has.
    pub fn most(&self, open: &OpenDevice) -> Option<usize> {
        let room = open.usable_memory()? - if open.is_cpu { self.host } else { 0.0 };
        Some(((room - self.fixed()) / self.face).max(0.0) as usize)
    }
}

/// Values in the network, by making it.
fn values(training: Training, s: &Settings, classes: usize) -> usize {
    let device = Device::flex();
    let init = Init { streams: Streams::new(0), device: &device };
    match training {
        Training::Pretrain if s.pretrain.method.visible_only() => parameters::count(&MaskedAutoencoder::new(&init, s)),
        Training::Pretrain => parameters::count(&MaskedVit::new(&init, s)),
        _ => parameters::count(&Classifier::new(&init, Encoder::new(&init, s), classes, s)),
    }
}

/// Sizes of a transformer's blocks.
struct Blocks {
    count: usize,
    tokens: f64,
    dim: f64,
    heads: f64,
    hidden: f64,
    gelu: bool,
}

impl Blocks {
    /// What the blocks keep for the backward pass.
    fn kept(&self, precision: Precision) -> f64 {
        let Self { tokens, dim, heads, hidden, gelu, .. } = *self;
        // Inputs of both norms, and what the activation's gradient is made of.
        let always = tokens * (2.0 * dim + hidden);
        // Inputs of four products, q, k and v, and the weights of attention; a ReLU's output is an input of the last product already.
        let second = if gelu || precision == Precision::Mixed { hidden } else { 0.0 };
        let products = tokens * (6.0 * dim + second) + heads * tokens * tokens;
        self.count as f64 * (SINGLE * always + product_bytes(precision) * products)
    }

    /// Gradients on the way at the widest place, the block's inner layer: of its output and of its input.
    fn passing(&self) -> f64 {
        SINGLE * self.tokens * (2.0 * self.hidden + 2.0 * self.dim)
    }
}

fn product_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::Single => SINGLE,
        Precision::Mixed => HALF,
    }
}

/// What one face takes.
fn face(training: Training, s: &Settings, classes: usize, precision: Precision) -> f64 {
    let (dim, patches) = (s.vit.dim as f64, s.grid().pow(2) as f64);
    let cls = f64::from(u8::from(s.vit.cls));
    let pretrains = training == Training::Pretrain;
    let seen = match training {
        Training::Pretrain if s.pretrain.method.visible_only() => patches - s.hidden_patches() as f64,
        Training::Pretrain => patches,
        _ => s.finetune_patches().map_or(patches, |n| n as f64),
    };
    let encoder = Blocks {
        count: s.vit.depth,
        tokens: seen + cls,
        dim,
        heads: s.vit.heads as f64,
        hidden: dim * s.vit.mlp_ratio,
        gelu: s.vit.activation == Activation::Gelu,
    };
    let values = (s.vit.patch.pow(2) * s.data.channels) as f64;
    // Normalised pixels, which the embedding keeps, and embedded patches before and after their positions are added.
    let mut kept = SINGLE * (seen * values + 2.0 * encoder.tokens * dim);
    if s.vit.stem == Stem::Conv {
        // Each convolution's output, before and after its ReLU.
        kept += SINGLE
            * (1..=s.vit.patch.ilog2())
                .map(|l| 2.0 * (s.data.size >> l).pow(2) as f64 * (s.vit.dim >> (s.vit.patch.ilog2() - l)) as f64)
                .sum::<f64>();
    }
    kept += encoder.kept(precision);
    let mut passing = encoder.passing();
    if pretrains {
        // Prediction, target, their difference and its gradient.
        let target = patches * target_len(s) as f64;
        kept += SINGLE * (4.0 * target + patches * dim);
        if s.pretrain.method.visible_only() {
            let width = s.mim.decoder_dim as f64;
            let decoder = Blocks {
                count: s.mim.decoder_depth,
                tokens: patches + cls,
                dim: width,
                heads: s.mim.decoder_heads as f64,
                hidden: width * s.vit.mlp_ratio,
                gelu: s.vit.activation == Activation::Gelu,
            };
            kept += decoder.kept(precision) + SINGLE * 3.0 * decoder.tokens * width;
            passing = passing.max(decoder.passing());
        }
    } else if s.decoder.enabled {
        let (queries, hidden) = (classes as f64, dim * s.decoder.mlp_ratio);
        // Keys and values of all tokens and the attention over them; the little that queries leave, dropout's masks included.
        let products = 2.0 * seen * dim + s.decoder.heads as f64 * queries * seen + queries * (5.0 * dim + hidden);
        let always = queries * (6.0 * dim + 3.0 * hidden);
        kept += s.decoder.layers as f64 * (product_bytes(precision) * products + SINGLE * always) + SINGLE * seen * dim;
        passing = passing.max(SINGLE * (4.0 * seen * dim + 3.0 * queries * hidden));
    }
    kept + passing
}
