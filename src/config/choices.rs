//! The words that settings choose among: one enum each, with what the engine asks of it.

use serde::{Deserialize, Serialize};

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $( $(#[$variant_meta:meta])* $variant:ident ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $( $(#[$variant_meta])* $variant ),* }
    };
}

choice!(
    /// Pixel normalisation before the patch embedding.
    Normalize {
        /// ImageNet mean and standard deviation per channel (gray: their averages).
        Imagenet,
        /// (x - 0.5) / 0.5.
        Half,
        /// Each face to zero mean and unit variance.
        PerFace,
    }
);
choice!(
    /// The network that turns a face into tokens.
    Backbone {
        /// The vision transformer of section vit.
        Vit,
        /// ResNet-18 of section resnet (He et al. 2016).
        Resnet18,
    }
);
choice!(
    /// Activation of the encoder's MLP.
    Activation {
        Gelu,
        /// Much cheaper than GELU where transcendental functions run on the CPU.
        Relu,
    }
);
choice!(
    /// How pixels become patch embeddings.
    Stem {
        /// One linear layer per patch (the original).
        Patch,
        /// Overlapping 3x3 convolutions of stride 2, then a linear layer (Xiao et al. 2021).
        Conv,
    }
);
choice!(
    /// Start of the position embeddings.
    Positions {
        /// Truncated normal, standard deviation 0.02.
        Normal,
        /// Two-dimensional sines and cosines.
        Sincos,
    }
);
choice!(
    /// Which patches pretraining hides.
    MaskKind {
        /// Rectangles, as BEiT and MaskFeat.
        Block,
        /// Independent patches, as MAE.
        Random,
    }
);
choice!(
    /// What masked-image modelling predicts, and by which network (METHOD 3.4, contradiction C4).
    Method {
        /// HOG, by the encoder itself with mask tokens in it.
        Maskfeat,
        /// HOG, by a light decoder over an encoder that sees visible patches only.
        MaeHog,
        /// Pixels, by the same network.
        Mae,
        /// Pixels, by the encoder itself with mask tokens in it.
        Simmim,
    }
);
choice!(
    /// Pixels whose gradients make the histograms.
    HogDomain {
        /// The 8-bit crop.
        U8,
        /// The network's normalised input, as published code has it.
        Normalized,
    }
);
choice!(
    /// How candidate sets are made.
    Strategy {
        /// From annotator vote counts.
        Votes,
        /// From a vote distribution (shares).
        Distribution,
        /// Those that came with the data.
        File,
        /// Top-k of cross-fit predictions for every face.
        TopkAll,
        /// Top-k of cross-fit predictions where they contradict the given label.
        CrossfitDisagree,
        /// Top-k of cross-fit predictions where an adversarial attack moves the face away from its given label.
        Gaave,
    }
);
choice!(
    /// What matrix products of a training step are computed in.
    Precision {
        /// Mixed where a GPU has half precision, else f32.
        Auto,
        F32,
        Mixed,
    }
);
choice!(
    /// Which of burn's kernels a GPU computes with.
    Kernels {
        /// Fixed.
        Auto,
        /// The same ones in each process.
        Fixed,
        /// The fastest ones, by trials in each process.
        Timed,
    }
);
choice!(
    /// Start of the class queries.
    QueryInit {
        /// The closed-form optimum of the uniformity loss: a regular simplex.
        Optimal,
        Random,
    }
);
choice!(
    /// Form of the uniformity loss.
    UniformKind {
        /// Mean log-sum-exp of cosines over tau (paper eq. 2).
        Dot,
        /// Wang and Isola's Gaussian potential, t = 2.
        Gaussian,
    }
);
choice!(
    /// Whether a query's similarity to itself is part of the sum.
    SelfTerm { Exclude, Include }
);
choice!(
    /// Response that revises confidences.
    Response { Sigmoid, Softmax }
);
choice!(
    /// Certainty measure compared with the threshold.
    Metric {
        /// p1 - p2
        Margin,
        /// 1 - p2 / p1
        Ratio,
        /// p1
        Top1,
    }
);
choice!(
    /// What an uncertain row becomes.
    Below {
        /// The two best candidates, renormalised.
        Top2Soft,
        /// The two best candidates, one half each.
        Top2Uniform,
        /// All candidates, renormalised.
        KeepAll,
    }
);
choice!(
    /// When confidences are revised.
    Order {
        /// After the optimiser step, from the same forward pass.
        AfterStep,
        /// Before the loss, from the same forward pass.
        BeforeLoss,
        /// After the optimiser step, from a second forward pass of the same batch.
        RefreshForward,
    }
);
choice!(
    /// What finetuning minimises.
    Objective {
        /// Partial-label loss with confidence revision (paper eq. 1-4).
        Pll,
        /// Plain cross-entropy on the given (majority) label.
        Ce,
        /// Cross-entropy on the annotators' vote shares (Barsoum et al. 2016).
        CeSoft,
        /// Cross-entropy on the given label with label smoothing (Szegedy et al. 2016).
        CeSmooth,
        /// Progressive identification of true labels (Lv et al. 2020).
        Proden,
        /// Risk-consistent partial-label learning (Feng et al. 2020).
        Rc,
        /// Classifier-consistent partial-label learning (Feng et al. 2020).
        Cc,
        /// Leveraged weighted loss (Wen et al. 2021).
        Lw,
        /// Consistency regularisation over three views (Wu et al. 2022).
        CrPll,
    }
);

impl Objective {
    pub const ALL: [Self; 9] = [Self::Ce, Self::CeSoft, Self::CeSmooth, Self::Pll, Self::Proden, Self::Rc, Self::Cc, Self::Lw, Self::CrPll];

    /// As settings, stages and `--which` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pll => "pll",
            Self::Ce => "ce",
            Self::CeSoft => "ce_soft",
            Self::CeSmooth => "ce_smooth",
            Self::Proden => "proden",
            Self::Rc => "rc",
            Self::Cc => "cc",
            Self::Lw => "lw",
            Self::CrPll => "cr_pll",
        }
    }

    /// As tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pll => "partial labels",
            Self::Ce => "plain cross-entropy on majority",
            Self::CeSoft => "cross-entropy on vote shares",
            Self::CeSmooth => "label smoothing on majority",
            Self::Proden => "PRODEN",
            Self::Rc => "RC",
            Self::Cc => "CC",
            Self::Lw => "LW",
            Self::CrPll => "CR-PLL",
        }
    }

    /// Whether it learns from candidate sets.
    pub fn is_partial(self) -> bool {
        !matches!(self, Self::Ce | Self::CeSoft | Self::CeSmooth)
    }
}

impl Backbone {
    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Backbone::Vit => "vit",
            Backbone::Resnet18 => "resnet18",
        }
    }
}

impl Strategy {
    /// Whether candidate sets come from models that have to be trained first.
    pub fn predicts(self) -> bool {
        matches!(self, Strategy::TopkAll | Strategy::CrossfitDisagree | Strategy::Gaave)
    }

    /// The word in a setting's value.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Votes => "votes",
            Strategy::Distribution => "distribution",
            Strategy::File => "file",
            Strategy::TopkAll => "topk_all",
            Strategy::CrossfitDisagree => "crossfit_disagree",
            Strategy::Gaave => "gaave",
        }
    }

    /// What labels.share is where nothing sets it: a distribution of many annotators nearly always holds stray votes (METHOD 2).
    pub fn default_share(self) -> f64 {
        if self == Strategy::Distribution { 0.2 } else { 0.0 }
    }
}

impl Method {
    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Method::Maskfeat => "maskfeat",
            Method::MaeHog => "mae_hog",
            Method::Mae => "mae",
            Method::Simmim => "simmim",
        }
    }

    /// Whether hidden patches are left out of the encoder, instead of standing in it as mask tokens.
    pub fn visible_only(self) -> bool {
        matches!(self, Method::MaeHog | Method::Mae)
    }

    /// Whether histograms are predicted, and not pixels.
    pub fn predicts_hog(self) -> bool {
        matches!(self, Method::Maskfeat | Method::MaeHog)
    }
}
