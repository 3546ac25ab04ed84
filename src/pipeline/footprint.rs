//! How much memory a training will take, before it starts: what `moue config plan` prints and `moue doctor` judges.
//!
//! Weights, their gradients and AdamW's two moments are counted exactly. What a face takes is the sum of what the layers of
//! [`crate::kernels::layers`] keep for the backward pass, and of what else is there at its widest place. After it the optimiser steps, for
//! which network and moments are there twice, but no faces: a training takes the larger of the two. What allocators and drivers keep for
//! themselves is left out: `tests/footprint.rs` holds the whole against what a training really takes.

use super::{Regime, Training};
use crate::config::{Activation, Backbone, Settings, Stem};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::engine::train::AHEAD;
use crate::finetune::recipe::Recipe;
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
/// Scores and weights of attention in half precision have whole multiples of so many columns.
const COLUMNS: usize = 16;

/// Where it is to be trained.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub precision: Precision,
    /// Parts that a batch is worked on at once, each with gradients of its own: threads on a CPU, 1 on a GPU.
    pub shards: usize,
    pub workers: usize,
}

impl Machine {
    /// As trainings use `open` under settings.
    pub fn of(s: &Settings, open: &OpenDevice, precision: Precision) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let or_cores = |n: usize| if n == 0 { cores } else { n };
        Self { precision, shards: if open.is_cpu { or_cores(s.run.threads) } else { 1 }, workers: or_cores(s.run.workers) }
    }
}

/// Whether a training has room on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is; so many faces at once would fit.
    Whole { most: usize },
    /// In parts of at most so many faces.
    Parts { most: usize },
    /// Not even one face at once.
    Not,
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
    /// What a face needs between its forward and its backward pass, in all its views.
    pub face: f64,
    /// The largest single tensor of a step, for each face in it.
    pub widest: f64,
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
            // Those of the parts that are worked on at once, and the sum of more than one part: in turn they take no more, however many.
            gradients: copy * (machine.shards + usize::from(machine.shards > 1 || regime.accumulate != 1)) as f64,
            optimizer: 2.0 * copy,
            face: face(training, s, classes, machine.precision),
            widest: widest(training, s),
            at_once,
            host: PROGRAM + (AHEAD + machine.workers) as f64 * regime.batch as f64 * views(training, s) * pixels,
        })
    }

    /// What does not depend on how many faces are worked on at once.
    pub fn fixed(&self) -> f64 {
        self.weights + self.gradients + self.optimizer
    }

    /// On the device that trains: in the backward pass, or in the step after it where that takes more.
    pub fn device(&self) -> f64 {
        (self.fixed() + self.face * self.at_once as f64).max(self.step())
    }

    /// At the end of an optimiser's step on a GPU: the network and the moments as they were, which stay until the step is known to be good,
    /// and as they will be. The faces are gone, and each gradient went with its use. A CPU steps one parameter after the other, and the
    /// gradients of several threads in its backward pass weigh as much as this.
    pub fn step(&self) -> f64 {
        2.0 * (self.weights + self.optimizer)
    }

    /// The most faces at once that a device has memory for, in tensors as large as it takes; none where nothing is known of either.
    pub fn most(&self, open: &OpenDevice) -> Option<usize> {
        let in_memory = open.usable_memory().map(|memory| self.most_within(memory, open.shares_memory()));
        in_memory.into_iter().chain(open.largest_tensor().map(|largest| self.most_in_tensors(largest))).min()
    }

    /// The most faces of which no tensor is larger than so many bytes.
    pub fn most_in_tensors(&self, largest: f64) -> usize {
        (largest / self.widest) as usize
    }

    /// The most faces at once in so many bytes, which hold the program, too, where it `shares` them. No room for [`Footprint::step`] makes
    /// them no fewer: then a training waits for a step to be good, and takes it one parameter after the other.
    pub fn most_within(&self, memory: f64, shares: bool) -> usize {
        let room = memory - if shares { self.host } else { 0.0 };
        ((room - self.fixed()) / self.face).max(0.0) as usize
    }

    /// How that goes with the faces at once that are planned.
    pub fn fit(&self, most: usize) -> Fit {
        match most {
            0 => Fit::Not,
            most if self.at_once <= most => Fit::Whole { most },
            most => Fit::Parts { most },
        }
    }
}

/// What is left to do where not even one face fits.
pub fn way_out(s: &Settings) -> &'static str {
    if s.run.recompute { "take a smaller network or input" } else { "try --set run.recompute=true, or take a smaller network or input" }
}

/// Bytes of the matrices that settings ask for, at the least: before a network is made only to count it.
pub fn least(s: &Settings) -> f64 {
    let blocks = |count: usize, width: usize, ratio: f64| count as f64 * (width as f64).powi(2) * (4.0 + 2.0 * ratio);
    let encoder = match s.encoder.backbone {
        Backbone::Vit => blocks(s.vit.depth, s.vit.dim, s.vit.mlp_ratio) + (s.grid().pow(2) * s.vit.dim) as f64,
        // 512 x 512 x 9 at the original width of 64: the larger half of it.
        Backbone::Resnet18 => 3.0 * 9.0 * (8.0 * s.resnet.width as f64).powi(2),
    };
    let decoder = if s.decoder.enabled { blocks(s.decoder.layers, s.vit.dim, s.decoder.mlp_ratio) } else { 0.0 };
    let mim = if s.pretrain.method.visible_only() { blocks(s.mim.decoder_depth, s.mim.decoder_dim, s.vit.mlp_ratio) } else { 0.0 };
    SINGLE * (encoder + decoder.max(mim))
}

/// As a person reads it.
pub fn bytes(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.1} kB", n / 1e3),
    }
}

/// Values in the network, by making it.
pub fn values(training: Training, s: &Settings, classes: usize) -> usize {
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
    /// Of each block only the input is kept.
    recompute: bool,
}

impl Blocks {
    /// What the blocks keep for the backward pass.
    fn kept(&self, precision: Precision) -> f64 {
        let Self { tokens, dim, .. } = *self;
        // Inputs of both norms.
        let always = tokens * 2.0 * dim;
        // Inputs of qkv, proj and fc1, the queries, keys and values, the inner layer, and the weights of attention.
        let products = tokens * (6.0 * dim + self.inner(precision)) + self.scores(precision);
        let block = SINGLE * always + product_bytes(precision) * products;
        // Computed again, it is there once.
        if self.recompute { self.count as f64 * SINGLE * tokens * dim + block } else { self.count as f64 * block }
    }

    /// Values that a token keeps of the inner layer: the input of the last product, and what the activation's gradient is made of. After a
    /// ReLU both are the same, but our shaders of half precision write it twice.
    fn inner(&self, precision: Precision) -> f64 {
        if self.gelu || precision == Precision::Mixed { 2.0 * self.hidden } else { self.hidden }
    }

    /// Scores of attention, or its weights.
    fn scores(&self, precision: Precision) -> f64 {
        let keys = self.tokens as usize;
        let columns = if precision == Precision::Mixed { keys.next_multiple_of(COLUMNS) } else { keys };
        self.heads * self.tokens * columns as f64
    }

    /// The largest single tensor, in single precision: the inner layer, q, k and v as one, or the scores of attention. Devices that never
    /// write these are asked for room for them nevertheless, before a kernel is chosen.
    fn widest(&self) -> f64 {
        let Self { tokens, dim, hidden, .. } = *self;
        SINGLE * (tokens * hidden.max(3.0 * dim)).max(self.scores(Precision::Mixed))
    }

    /// What is there beside all that is kept, at the widest place of a block's backward pass: in its perceptron, or in its attention.
    fn passing(&self, precision: Precision) -> f64 {
        let Self { tokens, dim, hidden, .. } = *self;
        let products = product_bytes(precision);
        // Gradients of the block's output, also as products take it, and before the activation.
        let perceptron = tokens * (SINGLE * dim + products * (dim + hidden));
        // Gradients of weights, scores and queries, keys and values (those of what is read and of the residual stand where their values
        // stood), less what is no longer kept: the inner layer and its input. On cooperative matrices gradients of weights never come to
        // memory: where there are many tokens this is some per cent too much for them.
        let attention = (SINGLE + products) * self.scores(precision) + products * tokens * (2.0 * dim - self.inner(precision));
        perceptron.max(attention)
    }
}

fn product_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::Single => SINGLE,
        Precision::Mixed => HALF,
    }
}

/// Augmented pictures of each face of a batch: every one is kept by the loader, and by a graph of its own.
fn views(training: Training, s: &Settings) -> f64 {
    match training {
        Training::Finetune(objective) => 1.0 + Recipe::of(objective, s).strong_views as f64,
        Training::Pretrain | Training::Fold(_) => 1.0,
    }
}

/// Patches that the encoder sees of a face.
fn seen(training: Training, s: &Settings) -> f64 {
    let patches = s.grid().pow(2) as f64;
    match training {
        Training::Pretrain if s.pretrain.method.visible_only() => patches - s.hidden_patches() as f64,
        Training::Pretrain => patches,
        _ => s.finetune_patches().map_or(patches, |n| n as f64),
    }
}

/// The encoder's blocks on so many patches.
fn encoder(s: &Settings, patches: f64) -> Blocks {
    let dim = s.vit.dim as f64;
    Blocks {
        count: s.vit.depth,
        tokens: patches + f64::from(u8::from(s.vit.cls)),
        dim,
        heads: s.vit.heads as f64,
        hidden: dim * s.vit.mlp_ratio,
        gelu: s.vit.activation == Activation::Gelu,
        recompute: s.run.recompute,
    }
}

/// The blocks that predict what is hidden, where the encoder sees only the rest.
fn mim_decoder(s: &Settings) -> Blocks {
    let width = s.mim.decoder_dim as f64;
    Blocks {
        count: s.mim.decoder_depth,
        dim: width,
        heads: s.mim.decoder_heads as f64,
        hidden: width * s.vit.mlp_ratio,
        ..encoder(s, s.grid().pow(2) as f64)
    }
}

/// Values of a face after each convolution of the stem; none where patches are embedded as they are.
fn stem(s: &Settings) -> impl Iterator<Item = f64> {
    let convolutions = if s.vit.stem == Stem::Conv { s.vit.patch.ilog2() } else { 0 };
    (1..=convolutions).map(move |l| (s.data.size >> l).pow(2) as f64 * (s.vit.dim >> (convolutions - l)) as f64)
}

/// The largest tensor that a step has of one face. Evaluation, in single precision and of all patches, has one for each of its faces, too.
fn widest(training: Training, s: &Settings) -> f64 {
    let blocks = encoder(s, seen(training, s)).widest();
    let other = match training {
        Training::Pretrain => {
            let target = SINGLE * (s.grid().pow(2) * target_len(s)) as f64;
            target.max(if s.pretrain.method.visible_only() { mim_decoder(s).widest() } else { 0.0 })
        }
        _ => 0.0,
    };
    stem(s).map(|values| SINGLE * values).fold(blocks.max(other), f64::max)
}

/// The same of a forward pass over all patches in single precision, as evaluation makes it.
pub fn widest_evaluating(s: &Settings) -> f64 {
    let blocks = encoder(s, s.grid().pow(2) as f64).widest();
    stem(s).map(|values| SINGLE * values).fold(blocks, f64::max)
}

/// What one face takes.
fn face(training: Training, s: &Settings, classes: usize, precision: Precision) -> f64 {
    let (dim, patches, seen) = (s.vit.dim as f64, s.grid().pow(2) as f64, seen(training, s));
    let encoder = encoder(s, seen);
    let values = (s.vit.patch.pow(2) * s.data.channels) as f64;
    // Normalised pixels, which the embedding keeps, and embedded patches before and after their positions are added.
    let mut kept = SINGLE * (seen * values + 2.0 * encoder.tokens * dim);
    // Each convolution's output, before and after its ReLU.
    kept += SINGLE * stem(s).map(|values| 2.0 * values).sum::<f64>();
    kept += encoder.kept(precision);
    let mut passing = encoder.passing(precision);
    if training == Training::Pretrain {
        // Prediction, target, their difference and its gradient.
        let target = patches * target_len(s) as f64;
        kept += SINGLE * (4.0 * target + patches * dim);
        if s.pretrain.method.visible_only() {
            let decoder = mim_decoder(s);
            kept += decoder.kept(precision) + SINGLE * 3.0 * decoder.tokens * decoder.dim;
            passing = passing.max(decoder.passing(precision));
        }
    } else if s.decoder.enabled {
        let (queries, hidden) = (classes as f64, dim * s.decoder.mlp_ratio);
        // Keys and values of all tokens and the attention over them; the little that queries leave. Masks of dropout are not kept.
        let products = 2.0 * seen * dim + s.decoder.heads as f64 * queries * seen + queries * (5.0 * dim + hidden);
        let always = queries * (4.0 * dim + 2.0 * hidden);
        kept += s.decoder.layers as f64 * (product_bytes(precision) * products + SINGLE * always) + SINGLE * seen * dim;
        passing = passing.max(SINGLE * (4.0 * seen * dim + 3.0 * queries * hidden));
    }
    // The backward pass goes through one view after the other.
    views(training, s) * kept + passing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Objective, Resolved};

    fn footprint(objective: Objective, accumulate: usize, shards: usize) -> Footprint {
        let resolved = Resolved::default().with_preset("demo-quick").unwrap();
        let resolved = resolved.with_flag(&format!("finetune.accumulate={accumulate}")).unwrap();
        let machine = Machine { precision: Precision::Single, shards, workers: 2 };
        Footprint::of(Training::Finetune(objective), resolved.settings(), 8, &machine).unwrap()
    }

    #[test]
    fn every_view_of_a_face_is_kept() {
        let (one, three) = (footprint(Objective::Pll, 1, 1), footprint(Objective::CrPll, 1, 1));
        assert!((2.5..3.0).contains(&(three.face / one.face)), "{} and {}", one.face, three.face);
        assert_eq!(three.host - PROGRAM, 3.0 * (one.host - PROGRAM));
        assert_eq!((three.weights, three.gradients, three.widest), (one.weights, one.gradients, one.widest));
    }

    #[test]
    fn more_parts_in_turn_take_no_more_gradients() {
        let sets = |accumulate, shards| {
            let f = footprint(Objective::Pll, accumulate, shards);
            f.gradients / f.weights
        };
        // One part; several in turn, and their sum; those of two threads, and their sum.
        assert_eq!([sets(1, 1), sets(2, 1), sets(16, 1), sets(0, 1)], [1.0, 2.0, 2.0, 2.0]);
        assert_eq!([sets(1, 2), sets(2, 2), sets(16, 2)], [3.0; 3]);
    }

    #[test]
    fn the_larger_of_two_moments_counts() {
        let f = footprint(Objective::Pll, 1, 1);
        let of_faces = |at_once| Footprint { at_once, ..f }.device();
        assert_eq!([of_faces(0), f.step()], [2.0 * (f.weights + f.optimizer); 2]);
        assert_eq!(of_faces(1_000_000), f.fixed() + f.face * 1e6);
        // Beside one that is taken in place, as many faces fit as before.
        assert_eq!(f.most_within(f.fixed() + 10.5 * f.face, false), 10);
    }

    /// ViT-B/16.
    fn base(size: usize) -> Resolved {
        Resolved::default().with_preset("paper-ferplus").unwrap().with_flag(&format!("data.size={size}")).unwrap()
    }

    /// 197 and 577 tokens, whose weights have 208 and 592 columns in half precision, and inner layers of 3072 values.
    #[test]
    fn blocks_keep_and_pass_what_they_do() {
        let blocks = |size: usize| encoder(base(size).settings(), (size / 16).pow(2) as f64);
        let (small, large) = (blocks(224), blocks(384));
        assert_eq!(small.kept(Precision::Single), 12.0 * 4.0 * (197.0 * 14.0 * 768.0 + 197.0 * 2.0 * 768.0 + 12.0 * 197.0 * 197.0));
        let mixed = 4.0 * 197.0 * 2.0 * 768.0 + 2.0 * (197.0 * 14.0 * 768.0 + 12.0 * 197.0 * 208.0);
        assert_eq!(small.kept(Precision::Mixed), 12.0 * mixed);
        let again = Blocks { recompute: true, ..blocks(224) };
        assert_eq!(again.kept(Precision::Mixed), 12.0 * 4.0 * 197.0 * 768.0 + mixed);
        assert_eq!(small.passing(Precision::Mixed), 197.0 * (4.0 * 768.0 + 2.0 * (768.0 + 3072.0)));
        assert_eq!(large.passing(Precision::Mixed), 6.0 * 12.0 * 577.0 * 592.0 - 2.0 * 577.0 * 6.0 * 768.0);
    }

    /// ViT-B/16 with the decoder for 8 classes, finetuned on an NVIDIA H200, in bytes that the driver told of the process. What it and the
    /// allocator keep for themselves is not estimated.
    #[test]
    fn a_card_had_little_more_in_use() {
        let (resolved, parameters) = (base(224), 99_988_232.0);
        for (precision, fixed, faces, used) in [(Precision::Mixed, 18.0, 256.0, 24.9e9), (Precision::Single, 16.0, 128.0, 22.4e9)] {
            let face = face(Training::Finetune(Objective::Pll), resolved.settings(), 8, precision);
            let ratio = (fixed * parameters + faces * face) / used;
            assert!((0.9..1.0).contains(&ratio), "{precision:?}: estimated {ratio:.3} times what was in use");
        }
    }

    /// Scores of attention need room in single precision whatever products are in, and their rows are whole multiples on GPUs.
    #[test]
    fn the_largest_tensor_bounds_the_faces_at_once() {
        let resolved = Resolved::default().with_preset("paper-rafdb").unwrap().with_flag("data.size=384").unwrap();
        let tokens = (384.0 / 16.0f64).powi(2) + f64::from(u8::from(resolved.settings().vit.cls));
        for precision in [Precision::Single, Precision::Mixed] {
            let machine = Machine { precision, shards: 1, workers: 2 };
            let f = Footprint::of(Training::Finetune(Objective::Pll), resolved.settings(), 7, &machine).unwrap();
            assert_eq!(f.widest, 4.0 * 12.0 * tokens * 592.0);
            assert_eq!(f.most_in_tensors(2_147_483_647.0), (2_147_483_647.0 / f.widest) as usize);
        }
    }
}
