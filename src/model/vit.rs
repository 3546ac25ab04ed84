//! The vision transformer (Dosovitskiy et al. 2021), over all patches of a face or over those that are visible.

use super::init::{Init, NORM_EPSILON};
use super::layers::Layers;
use super::noise::Noise;
use crate::config::{Activation, Positions, Settings, Stem};
use crate::kernels::gather_rows;
use crate::kernels::layers::{self, BlockLayers};
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, Linear, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

/// Self-attention with one fused projection, weights laid out as timm's (`qkv` in that order).
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(init: &Init, path: &str, dim: usize, heads: usize) -> Self {
        // Each of the three square blocks gets its own Xavier bound, as if they were separate layers.
        let bound = (6.0 / (2 * dim) as f32).sqrt();
        let qkv = init.linear_from(init.uniform(&format!("{path}.qkv.weight"), [dim, 3 * dim], bound));
        Self { qkv, proj: init.linear(&format!("{path}.proj"), dim, dim), heads }
    }
}

/// Two-layer perceptron.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub(super) fn new(init: &Init, path: &str, dim: usize, hidden: usize) -> Self {
        Self { fc1: init.linear(&format!("{path}.fc1"), dim, hidden), fc2: init.linear(&format!("{path}.fc2"), hidden, dim) }
    }

    /// The inner layer with a ReLU.
    pub(super) fn hidden_relu(&self, x: Tensor<3>) -> Tensor<3> {
        x.linear_relu(&self.fc1)
    }

    pub(super) fn output(&self, h: Tensor<3>) -> Tensor<3> {
        h.linear(&self.fc2)
    }
}

/// Pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    /// ReLU in the perceptron, instead of GELU.
    relu: bool,
    /// The backward pass computes what is inside again instead of keeping it.
    recompute: bool,
}

impl Block {
    /// A block for tokens of width `dim`, otherwise as the encoder's.
    pub(super) fn new(init: &Init, path: &str, dim: usize, heads: usize, s: &Settings) -> Self {
        let hidden = (dim as f64 * s.vit.mlp_ratio).round() as usize;
        Self {
            norm1: init.norm(dim),
            attn: Attention::new(init, &format!("{path}.attn"), dim, heads),
            norm2: init.norm(dim),
            mlp: Mlp::new(init, &format!("{path}.mlp"), dim, hidden),
            relu: s.vit.activation == Activation::Relu,
            recompute: s.run.recompute,
        }
    }

    /// `[B, N, D]` -> `[B, N, D]`
    pub(super) fn forward(&self, x: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let (faces, device) = (x.dims()[0], x.device());
        // Drawn for attention first.
        let mut drop = || noise.path(faces, drop_path, &device);
        let drops = drop().zip(drop()).map(<[_; 2]>::from);
        layers::block(x, self.layers(), drops)
    }

    fn layers(&self) -> BlockLayers<'_> {
        let Self { norm1, attn, norm2, mlp, relu, recompute } = self;
        BlockLayers {
            norms: [norm1, norm2],
            epsilon: NORM_EPSILON,
            attention: [&attn.qkv, &attn.proj],
            heads: attn.heads,
            perceptron: [&mlp.fc1, &mlp.fc2],
            relu: *relu,
            recompute: *recompute,
        }
    }
}

/// Early convolutions: 3x3, stride 2, ReLU, doubling widths, until one position is left per patch.
#[derive(Module, Debug)]
pub struct ConvStem {
    convs: Vec<Conv2d>,
    patch: usize,
    channels: usize,
}

impl ConvStem {
    fn new(init: &Init, s: &Settings) -> Self {
        let levels = s.vit.patch.ilog2();
        let width = |level: u32| if level == 0 { s.data.channels } else { s.vit.dim >> (levels - level) };
        let conv = |level: u32| {
            let (c_in, c_out) = (width(level), width(level + 1));
            let mut conv = Conv2dConfig::new([c_in, c_out], [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(init.device);
            // He initialisation: the layers are followed by ReLU.
            let std = (2.0 / (9 * c_in) as f32).sqrt();
            conv.weight = init.normal(&format!("stem.{level}.weight"), [c_out, c_in, 3, 3], std);
            conv.bias = Some(Param::from_tensor(Tensor::zeros([c_out], init.device)));
            conv
        };
        Self { convs: (0..levels).map(conv).collect(), patch: s.vit.patch, channels: s.data.channels }
    }

    /// `[B, N, P * P * C]` -> `[B, N, D]`
    fn forward(&self, patches: Tensor<3>) -> Tensor<3> {
        let [b, n, _] = patches.dims();
        let mut x = picture(patches, self.patch, self.channels);
        for conv in &self.convs {
            x = relu(conv.forward(x));
        }
        let d = x.dims()[1];
        x.reshape([b, d, n]).swap_dims(1, 2)
    }
}

/// All patches of square pictures, `[B, N, P * P * C]`, put together again: `[B, C, H, W]`.
pub(super) fn picture(patches: Tensor<3>, patch: usize, channels: usize) -> Tensor<4> {
    let [b, n, _] = patches.dims();
    let grid = n.isqrt();
    let cut = patches.reshape([b, grid, grid, patch, patch, channels]).permute([0, 5, 1, 3, 2, 4]);
    cut.reshape([b, channels, grid * patch, grid * patch])
}

/// The encoder. Input: normalised patches `[B, N, P * P * C]`, all or K of them; output: tokens after the last norm, `[B, T, D]` with T = N
/// (or K), and one more with the class token first.
#[derive(Module, Debug)]
pub struct Vit {
    stem: Option<ConvStem>,
    patch_embed: Linear,
    cls_token: Option<Param<Tensor<3>>>,
    pos_embed: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Vit {
    pub fn new(init: &Init, s: &Settings) -> Self {
        let (dim, patches) = (s.vit.dim, s.grid().pow(2));
        let tokens = patches + usize::from(s.vit.cls);
        let stem = (s.vit.stem == Stem::Conv).then(|| ConvStem::new(init, s));
        let embedded = if stem.is_some() { dim } else { s.vit.patch.pow(2) * s.data.channels };
        Self {
            stem,
            patch_embed: init.linear("patch_embed", embedded, dim),
            cls_token: s.vit.cls.then(|| init.trunc_normal("cls_token", [1, 1, dim], 0.02)),
            pos_embed: match s.vit.positions {
                Positions::Normal => init.trunc_normal("pos_embed", [1, tokens, dim], 0.02),
                Positions::Sincos => init.param([1, tokens, dim], sincos(s.grid(), dim, s.vit.cls).into_iter()),
            },
            blocks: (0..s.vit.depth).map(|i| Block::new(init, &format!("blocks.{i}"), dim, s.vit.heads, s)).collect(),
            norm: init.norm(dim),
        }
    }

    pub fn forward(&self, patches: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        self.encode(self.embed(patches), drop_path, noise)
    }

    /// The same of some patches only: `patches` `[B, K, P * P * C]`, which stand at the places `index` `[B, K]` of the picture.
    ///
    /// # Panics
    /// With a convolutional stem, which needs the whole picture.
    pub fn forward_visible(&self, patches: Tensor<3>, index: Tensor<2, Int>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        assert!(self.stem.is_none(), "a convolutional stem cannot embed single patches");
        let [b, _, _] = patches.dims();
        let [_, t, d] = self.pos_embed.dims();
        let first = usize::from(self.cls_token.is_some());
        let every = self.pos_embed.val().slice([0..1, first..t, 0..d]).expand([b, t - first, d]);
        let x = self.embed(patches) + gather_rows(every, index).expect("an index for these patches");
        let x = match &self.cls_token {
            Some(cls) => {
                let cls = cls.val() + self.pos_embed.val().slice([0..1, 0..1, 0..d]);
                Tensor::cat(vec![cls.expand([b, 1, d]), x], 1)
            }
            None => x,
        };
        self.transform(x, drop_path, noise)
    }

    /// Whether the stem looks over the borders of patches.
    pub(super) fn overlaps(&self) -> bool {
        self.stem.is_some()
    }

    /// Patches `[B, N, P * P * C]` to embeddings `[B, N, D]`.
    pub(super) fn embed(&self, patches: Tensor<3>) -> Tensor<3> {
        match &self.stem {
            Some(stem) => stem.forward(patches).linear(&self.patch_embed),
            None => patches.linear(&self.patch_embed),
        }
    }

    /// Embedded (and possibly masked) patches `[B, N, D]` to tokens.
    pub(super) fn encode(&self, x: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let [b, _, d] = x.dims();
        let x = match &self.cls_token {
            Some(cls) => Tensor::cat(vec![cls.val().expand([b, 1, d]), x], 1),
            None => x,
        };
        self.transform(x + self.pos_embed.val(), drop_path, noise)
    }

    /// Blocks and last norm over placed tokens `[B, T, D]`.
    fn transform(&self, mut x: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let last = (self.blocks.len() - 1).max(1) as f64;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, drop_path * i as f64 / last, noise);
        }
        x.norm(&self.norm)
    }

    /// The patch tokens of an output, without the class token.
    pub fn patch_tokens(&self, tokens: Tensor<3>) -> Tensor<3> {
        match &self.cls_token {
            Some(_) => {
                let [b, t, d] = tokens.dims();
                tokens.slice([0..b, 1..t, 0..d])
            }
            None => tokens,
        }
    }
}

/// Sines and cosines of the patch's column (first half of the width) and row (second half) at frequencies 10000^(-4i / D), `[T, D]`; the
/// class token, if any, gets zeros (MAE's `get_2d_sincos_pos_embed`). Widths that are no multiple of four end in zeros.
pub(super) fn sincos(grid: usize, dim: usize, cls: bool) -> Vec<f32> {
    let quarter = dim / 4;
    let mut out = vec![0.0; if cls { dim } else { 0 }];
    for (row, column) in (0..grid).flat_map(|r| (0..grid).map(move |c| (r, c))) {
        let start = out.len();
        for place in [column, row] {
            let angle = |i: usize| place as f64 * 10000f64.powf(-(i as f64) / quarter.max(1) as f64);
            out.extend((0..quarter).map(|i| angle(i).sin() as f32));
            out.extend((0..quarter).map(|i| angle(i).cos() as f32));
        }
        out.resize(start + dim, 0.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::precision::Precision;
    use crate::engine::read_values;
    use crate::random::Streams;
    use burn::module::ModuleVisitor;
    use burn::tensor::Gradients;

    struct Collect<'a>(&'a Gradients, Vec<Vec<f32>>);

    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(read_values(param.val().grad(self.0).expect("a gradient")).unwrap());
        }
    }

    /// Output and all gradients of a network that drops paths; and, where nothing in it learns, the gradient of its input.
    fn pass(activation: Activation, precision: Precision, recompute: bool) -> [Vec<Vec<f32>>; 2] {
        let device = Device::flex().autodiff();
        let mut s = Settings::default();
        (s.data.size, s.data.channels) = (24, 1);
        (s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads, s.vit.stem, s.vit.activation) = (8, 24, 3, 3, Stem::Patch, activation);
        s.run.recompute = recompute;
        let vit = precision.leaves(Vit::new(&Init { streams: Streams::new(7), device: &device }, &s));
        let wave = |shape: [usize; 3]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin()).collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), &device)
        };
        let run = |vit: &Vit, patches: Tensor<3>| {
            let tokens = vit.forward(patches, 0.5, &mut Noise::new(Streams::new(1).at("noise", &[])));
            ((tokens.clone() * wave(tokens.dims())).sum().backward(), read_values(tokens).unwrap())
        };
        let (gradients, tokens) = run(&vit, wave([4, 9, 64]));
        let mut collect = Collect(&gradients, vec![tokens]);
        vit.visit(&mut collect);
        let patches = wave([4, 9, 64]).require_grad();
        let (gradients, tokens) = run(&vit.no_grad(), patches.clone());
        [collect.1, vec![tokens, read_values(patches.grad(&gradients).unwrap()).unwrap()]]
    }

    #[test]
    fn what_is_computed_again_comes_out_the_same() {
        for activation in [Activation::Relu, Activation::Gelu] {
            for precision in [Precision::Single, Precision::Mixed] {
                let kept = pass(activation, precision, false);
                // Class token, positions, embedding, last norm, and twelve of each block.
                assert_eq!(kept[0].len(), 1 + 6 + 3 * 12);
                assert_eq!(pass(activation, precision, true), kept, "{activation:?}, {precision:?}");
            }
        }
    }
}
