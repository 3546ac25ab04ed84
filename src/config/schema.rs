//! Every setting: its name, type, default and meaning, once. What its words may be is in [`super::choices`], what it must fit in
//! [`super::validate`].
//!
//! `settings!` turns one list into the structs the engine reads ([`Settings`]) and the table that `moue config explain` prints
//! ([`KEYS`]). Section tags such as `[P]` (paper), `[R]` (reference code) and `[C]` (our choice) say where a default comes from.

use super::choices::*;
use serde::{Deserialize, Serialize};

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name, `section.field`.
    pub name: &'static str,
    /// Rust type, which is also how the value is written in TOML.
    pub kind: &'static str,
    /// What it means, its unit and its source.
    pub doc: &'static str,
}

macro_rules! settings {
    ($( $(#[doc = $section_doc:literal])* $section:ident : $name:ident {
        $( $(#[doc = $doc:literal])* $field:ident : $kind:ty = $default:expr, )*
    } )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name { $( $(#[doc = $doc])* pub $field: $kind, )* }

            impl Default for $name {
                fn default() -> Self { Self { $( $field: $default.into(), )* } }
            }
        )*

        /// All settings of a run, resolved.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings { $( $(#[doc = $section_doc])* pub $section: $name, )* }

        /// The table of settings in the order of the schema.
        pub const KEYS: &[Key] = &[ $( $( Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            kind: stringify!($kind),
            doc: concat!($($doc),*),
        }, )* )* ];

        /// Sections with their one-line description.
        pub const SECTIONS: &[(&str, &str)] = &[ $( (stringify!($section), concat!($($section_doc),*)), )* ];
    };
}

settings! {
    /// How a face becomes the network's input.
    data: Data {
        /// Side of the square input in pixels; faces of another size are resampled. Must be a multiple of vit.patch.
        size: usize = 224usize,
        /// Input channels: 1 (gray) or 3 (RGB). Gray faces are repeated, colour faces averaged (Rec. 601) where they differ.
        channels: usize = 3usize,
        /// Pixel normalisation: imagenet (SCN, RUL, EAC), half (DMUE) or per_face. [R]
        normalize: Normalize = Normalize::Imagenet,
    }
    /// The encoder.
    encoder: EncoderSettings {
        /// vit, or resnet18 (paper Table V), which is trained from random weights: pretraining is for the vision transformer. Faces still
        /// travel as patches of vit.patch pixels, and vit.dim is the width of the query decoder. [P]
        backbone: Backbone = Backbone::Vit,
    }
    /// ResNet-18, with group instead of batch normalisation. finetune.drop_path acts on its blocks as on the transformer's.
    resnet: ResnetSettings {
        /// Channels of the first stage, doubled by each of the other three; even. Faces of 96 pixels and more get the original stem (7x7,
        /// stride 2, pooling), smaller ones a 3x3 convolution. [R: 64]
        width: usize = 64usize,
    }
    /// The vision transformer.
    vit: VitSettings {
        /// Patch side in pixels. ViT-B/16: 16. [P]
        patch: usize = 16usize,
        /// patch (the original linear embedding) or conv (early convolutions: learns far more from few faces; vit.patch must be a power
        /// of two).
        stem: Stem = Stem::Patch,
        /// Token width D.
        dim: usize = 768usize,
        /// Transformer blocks.
        depth: usize = 12usize,
        /// Attention heads; must divide vit.dim.
        heads: usize = 12usize,
        /// Width of the MLP as a multiple of vit.dim.
        mlp_ratio: f64 = 4.0,
        /// Activation of the MLP: gelu (the original) or relu (several times cheaper on a CPU).
        activation: Activation = Activation::Gelu,
        /// Start of the learned position embeddings: normal (0.02) or sincos (2-D, as MAE's fixed ones), which knows from the first step
        /// where a patch lies and learns much faster on a small budget.
        positions: Positions = Positions::Normal,
        /// Prepend a class token (kept for exchange of weights; the query decoder reads patch tokens).
        cls: bool = true,
    }
    /// The query decoder (METHOD 1.4; Query2Label).
    decoder: DecoderSettings {
        /// false: mean-pooled tokens, LayerNorm and a linear layer instead (paper Table VIII, row 1).
        enabled: bool = true,
        /// Transformer blocks in the decoder. [P]
        layers: usize = 2usize,
        /// Attention heads; must divide vit.dim.
        heads: usize = 12usize,
        /// Width of the feed-forward layer as a multiple of vit.dim. [C]
        mlp_ratio: f64 = 4.0,
        /// Dropout in attention output and feed-forward. [R: Query2Label]
        dropout: f64 = 0.1,
        /// Self-attention among class queries before cross-attention. [R: off]
        self_attn: bool = false,
        /// Let queries also attend to the class token (needs vit.cls).
        use_cls: bool = false,
        /// Normalise before instead of after each sub-layer. [R: after]
        pre_norm: bool = false,
    }
    /// Histogram-of-oriented-gradients targets (METHOD 3.1).
    hog: HogSettings {
        /// Cell side in pixels; must divide vit.patch. A 16-pixel patch has 2 x 2 cells x 9 bins x 3 channels = 108 values. [R]
        cell: usize = 8usize,
        /// Side of the Gaussian window that weights magnitudes, 0 for none (SlowFast: 0, mmselfsup: 16). [R]
        window: usize = 0usize,
        /// u8: gradients of the 8-bit crop; normalized: of the network's input, as the published code has it. The histograms are the same
        /// but for rounding: gradients that are exactly upright in integers fall into either of two bins in floats. normalized takes
        /// slower tensor operations. [C: u8, METHOD 3.1]
        domain: HogDomain = HogDomain::U8,
    }
    /// Masked-image-modelling masks.
    mask: MaskSettings {
        /// Share of patches hidden. [P, section IV-B]
        ratio: f64 = 0.4,
        /// block (MaskFeat) or random (MAE). Block masks fall short of the ratio by half a patch on average; mae and mae_hog, whose
        /// faces must all show the same number of patches, hide random ones on top.
        kind: MaskKind = MaskKind::Block,
        /// Patches along a side of what is hidden or shown as one; must divide data.size / vit.patch. SimMIM: 32 pixels, that is 2 patches of
        /// 16. The number of units hidden is rounded, of units larger than a patch rounded up. [R: SimMIM]
        unit: usize = 1usize,
    }
    /// Masked-image modelling: the targets and the decoder of mae and mae_hog (METHOD 3.4).
    mim: MimSettings {
        /// Width of the decoder's tokens. [R: MAE 512]
        decoder_dim: usize = 512usize,
        /// Transformer blocks of the decoder. [P: "2 transformer blocks in the decoder part", contradiction C9; R: MAE 8]
        decoder_depth: usize = 2usize,
        /// Attention heads of the decoder; must divide mim.decoder_dim. [R: MAE 16]
        decoder_heads: usize = 16usize,
        /// mae: predict each patch's pixels with their own mean and deviation taken out; false: the normalised pixels, which is what simmim
        /// always predicts. [R: MAE; P, Table II]
        norm_pix: bool = true,
    }
    /// Self-supervised pretraining.
    pretrain: PretrainSettings {
        /// maskfeat (HOG, mask tokens in the encoder), mae_hog (HOG, the encoder sees visible patches only, a light decoder predicts), mae
        /// (pixels, the same network) or simmim (pixels, mask tokens in the encoder, absolute error). Overlays mae, mae_hog and simmim hold
        /// each one's masks. [P: MaskFeat; C4, Table VII]
        method: Method = Method::Maskfeat,
        /// Passes over the training faces. [P]
        epochs: usize = 600usize,
        /// Faces per optimiser step. [P, IV-B]
        batch: usize = 192usize,
        /// Peak learning rate, absolute. [P, IV-B]
        lr: f64 = 2e-4,
        /// Learning rate at the first and the last step. [R]
        min_lr: f64 = 1e-6,
        /// Epochs of linear warm-up. [P, Table II]
        warmup: f64 = 40.0,
        /// Decoupled weight decay; none on biases, norms, tokens and positions. [P]
        weight_decay: f64 = 0.05,
        /// AdamW's first-moment decay. [P]
        beta1: f64 = 0.9,
        /// AdamW's second-moment decay. [P]
        beta2: f64 = 0.999,
        /// Largest global gradient norm; 0 turns clipping off. [R: 0.02]
        clip: f64 = 0.02,
        /// Micro-batches whose gradients are summed into one step; 0: as few as the device's memory allows, by estimate and then by trying.
        /// Where a device has no memory for a step, micro-batches are halved and the batch stays what it is.
        accumulate: usize = 1usize,
        /// Stochastic depth at the last block, linear from 0 at the first. [R]
        drop_path: f64 = 0.0,
        /// Smallest area share of the random resized crop; 1 turns it off. [R]
        crop_min: f64 = 0.5,
        /// Mirror half of the faces. [R]
        flip: bool = true,
    }
    /// Candidate sets.
    labels: LabelSettings {
        /// From annotators: votes, distribution; from data: file; from models that never saw the face (`moue labels` trains them):
        /// topk_all, crossfit_disagree, gaave (METHOD 2). [C: gaave follows Zheng et al., AAAI 2023, of which no code is public]
        strategy: Strategy = Strategy::Votes,
        /// Largest number of candidates per face, at most the number of classes. Candidates from predictions: exactly as many for each
        /// ambiguous face. [P: k = 2]
        k: usize = 2usize,
        /// votes: an emotion needs at least this many votes (1 drops nothing; FERPlus zeroes single votes: 2).
        min_votes: u32 = 2u32,
        /// votes, distribution: smallest share of the votes for classes (0.3: FERPlus' multi-target rule). Where nothing sets it: 0.2 under
        /// distribution, else 0. [C: METHOD 2]
        share: f64 = Strategy::Votes.default_share(),
        /// Always make the given label a candidate, also of the sets in a file (--labels); a set may then hold k + 1. [preset robust]
        include_given: bool = false,
        /// Share of ambiguous faces above which `moue labels` warns. [C: METHOD 2]
        max_share: f64 = 0.5,
        /// Candidates from predictions: stratified folds; each is predicted by a model trained on the others, under gaave with no class
        /// larger than the median class. [C: 2, GAAVE splits the data and balances the parts]
        folds: usize = 2usize,
        /// Candidates from predictions: epochs of plain cross-entropy for each fold's model; all else as under finetune.*, with the
        /// warm-up shortened in proportion. [C: METHOD 2 says 10 to 20]
        fold_epochs: usize = 12usize,
        /// gaave: steps of the attack. [C: GAAVE's own figure shows a start and four]
        attack_steps: usize = 4usize,
        /// gaave: largest change of a pixel in [0, 1]. [R: GAIRAT]
        attack_eps: f64 = 0.031,
        /// gaave: change of a pixel in each step of the attack. GAIRAT's networks are trained against attacks; one that is not gives way
        /// to far smaller steps, and then hardly any face is clean. [R: GAIRAT]
        attack_step: f64 = 0.007,
        /// gaave: a face is ambiguous if fewer than this many of its attack_steps + 1 iterates are predicted as its given label. [C: 5,
        /// a single loss is enough; GAAVE's cut is not published]
        kappa_min: usize = 5usize,
    }
    /// The class queries.
    queries: QuerySettings {
        /// optimal (closed-form simplex times sqrt(D), randomly rotated) or random (standard normal). [C]
        init: QueryInit = QueryInit::Optimal,
        /// Let finetuning move the queries. [C]
        trainable: bool = true,
    }
    /// The loss that spreads the queries on the hypersphere (paper eq. 2, METHOD 1.5).
    uniform: UniformSettings {
        /// Weight of the loss; 0 turns it off. [C: the paper names none]
        lambda: f64 = 1.0,
        /// Temperature. [P]
        tau: f64 = 0.001,
        /// Multiply the loss by tau, which removes the 1/tau scale of its gradient. [C, contradiction C10]
        scale_by_tau: bool = true,
        /// exclude or include each query's similarity to itself; included, the printed tau is inert. [C, C10]
        self_term: SelfTerm = SelfTerm::Exclude,
        /// dot (paper) or gaussian (Wang and Isola).
        kind: UniformKind = UniformKind::Dot,
    }
    /// Confidence revision (paper eq. 3-4, METHOD 1.6).
    revise: ReviseSettings {
        /// false: rows stay uniform on the candidates, eq. 1 alone (paper Tables V and VIII without "Re-conf").
        enabled: bool = true,
        /// sigmoid (paper) or softmax of the logits over the candidates.
        response: Response = Response::Sigmoid,
        /// Certainty compared with theta: margin, ratio or top1. [C]
        metric: Metric = Metric::Margin,
        /// Rows at or below theta become: top2_soft, top2_uniform or keep_all. [C]
        below: Below = Below::Top2Soft,
        /// Threshold in [0, 1]; a row whose certainty is above it becomes one-hot. [C]
        theta: f64 = 0.5,
        /// Share of the old row kept at each revision (0: overwrite). [P: revised every batch]
        ema: f64 = 0.0,
        /// First epoch that revises.
        start_epoch: usize = 0usize,
        /// When rows are revised: after_step, from the forward pass that gave the loss (PRODEN; costs nothing); before_loss, so that the
        /// loss already sees the new rows; refresh_forward, from a second forward pass after the step (RC, LW; a third dearer). [C]
        order: Order = Order::AfterStep,
    }
    /// Supervised finetuning.
    finetune: FinetuneSettings {
        /// What is minimised. On candidate sets: pll (the paper's: cross-entropy against revised confidences, and the uniformity loss), and
        /// published rivals without it, each with its own revision rule (METHOD 7): proden, rc, cc, lw, cr_pll. On the given label: ce, or
        /// ce_smooth; on the annotators' vote shares: ce_soft.
        objective: Objective = Objective::Pll,
        /// ce_smooth: share of each target that is spread over all classes. [R: 0.1, Szegedy et al. 2016]
        smoothing: f64 = 0.1,
        /// lw: weight of the classes outside the candidate set. [R: LW, 1 or 2]
        lw_beta: f64 = 2.0,
        /// cr_pll: share of the epochs over which the consistency term grows to its full weight. [R: CR-PLL, 100 of 200 epochs]
        cr_ramp: f64 = 0.5,
        /// Draw faces with replacement so that every class comes up equally often, by the given label (as many draws an epoch as there are
        /// faces). Rare classes gain, frequent ones are seen less. [R: DMUE, for AffectNet; C: off]
        balanced: bool = false,
        /// After the run, train the ce objective under the same budget and seed, and print both.
        baseline: bool = true,
        /// Passes over the training faces. [P: 100 RAF-DB, 100 FERPlus, 25 AffectNet]
        epochs: usize = 100usize,
        /// Faces per optimiser step. [P]
        batch: usize = 320usize,
        /// Peak learning rate, absolute. [P]
        lr: f64 = 1e-4,
        /// Learning rate at the first and the last step.
        min_lr: f64 = 1e-6,
        /// Epochs of linear warm-up. [C: 5 %]
        warmup: f64 = 5.0,
        /// Decoupled weight decay; none on biases, norms, tokens, positions and queries. [P]
        weight_decay: f64 = 0.05,
        /// AdamW's first-moment decay. [P]
        beta1: f64 = 0.9,
        /// AdamW's second-moment decay. [P, C8]
        beta2: f64 = 0.95,
        /// Largest global gradient norm; 0 turns clipping off.
        clip: f64 = 1.0,
        /// Micro-batches whose gradients are summed into one step; 0: as few as the device's memory allows, by estimate and then by trying.
        /// Where a device has no memory for a step, micro-batches are halved and the batch stays what it is.
        accumulate: usize = 1usize,
        /// Learning-rate factor per encoder layer from the top down; 1 turns it off. [R: 0.65]
        layer_decay: f64 = 0.65,
        /// Stochastic depth at the last block, linear from 0 at the first. [R]
        drop_path: f64 = 0.1,
        /// Smallest area share of the random resized crop; 1 turns it off. [C]
        crop_min: f64 = 0.8,
        /// Largest rotation in degrees. [C]
        rotate: f64 = 0.0,
        /// Mirror half of the faces.
        flip: bool = true,
        /// Probability of random erasing (area 0.02 to 0.25). [R]
        erase: f64 = 0.5,
        /// Share of each training face's patches that the encoder does not get to see, drawn anew every epoch; evaluation sees all. 0.4: the
        /// "mask ratio" of the paper's finetuning table. [C: 0, contradiction C7]
        mask_ratio: f64 = 0.0,
    }
    /// The run itself.
    run: RunSettings {
        /// Optimiser steps between two progress lines.
        log_every: usize = 20usize,
        /// Epochs between two evaluations on the validation split (the last epoch is always evaluated).
        evaluate_every: usize = 1usize,
        /// Epochs between two checkpoints (the last epoch is always kept).
        checkpoint_every: usize = 1usize,
        /// Epochs between two checkpoints that are kept for good; 0: none. Of the others the three newest stay, and the one with the highest
        /// accuracy on the validation split; once a stage is done, that one and the last.
        keep_every: usize = 0usize,
        /// Steps in a row with a loss or gradient that is not finite after which training goes back to the newest checkpoint before them, at
        /// 0.3 times the learning rate; where that has been done three times, it ends and says what was not finite. Single ones are left out
        /// and told. [C]
        bad_steps: usize = 5usize,
        /// Loader threads; 0: one for each CPU core. Results do not depend on it.
        workers: usize = 0usize,
        /// CPU training threads, each with a share of every batch; 0: one for each core. Bit-reproducible for a given number.
        threads: usize = 0usize,
        /// Faces per forward pass in evaluation.
        evaluate_batch: usize = 256usize,
        /// Average the probabilities of each face and its mirror image in evaluation (test-time augmentation; twice the time). [C: off]
        evaluate_flip: bool = false,
        /// f32; mixed: matrix products in half precision, with the weights, norms, softmax and losses in single precision and a loss scale
        /// that adapts; or auto: mixed on a GPU that has half precision, else f32. Convolutions and evaluation are always f32. [C: METHOD
        /// names none]
        precision: Precision = Precision::Auto,
        /// Keep of each transformer block of the encoder (and of pretraining's decoder) only its input, and compute what is inside again in
        /// the backward pass (activation checkpointing): the same gradients with a fraction of the memory, for about a third more time. The
        /// query decoder and resnet18 keep everything. [C: off]
        recompute: bool = false,
        /// How a GPU comes to burn's kernels, where moue has none of its own. fixed: the first that works in burn's order of preference, the
        /// same in each process (but for convolutions). timed: the fastest, by trials in each process, which may take minutes; last digits may
        /// differ from one run to the next. auto: fixed. A CPU has nothing to choose; what only reads a run (evaluate, predict, compare)
        /// takes auto. [C]
        kernels: Kernels = Kernels::Auto,
    }
}
