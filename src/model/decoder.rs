//! The classifier: encoder and query decoder (one learnable query per class; METHOD 1.4, after Query2Label), or a pooled linear head.

use super::encoder::Encoder;
use super::init::Init;
use super::layers::{Layers, products};
use super::noise::Noise;
use super::vit::Mlp;
use crate::config::{QueryInit, Settings};
use crate::kernels::layers;
use crate::random::{Streams, normal};
use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::prelude::*;
use burn::tensor::activation::softmax;

/// Attention of queries over a memory of another length.
#[derive(Module, Debug)]
pub struct CrossAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    heads: usize,
}

impl CrossAttention {
    fn new(init: &Init, path: &str, dim: usize, heads: usize) -> Self {
        let linear = |name: &str| init.linear(&format!("{path}.{name}"), dim, dim);
        Self { q: linear("q"), k: linear("k"), v: linear("v"), proj: linear("proj"), heads }
    }

    /// Who looks where: softmax over the keys, mean over the heads. Queries `[B, Nq, D]`, keys `[B, Nk, D]` -> `[B, Nq, Nk]`
    fn weights(&self, q: Tensor<3>, k: Tensor<3>) -> Tensor<3> {
        let ([b, n, d], [_, m, _]) = (q.dims(), k.dims());
        let head = d / self.heads;
        let q = q.linear(&self.q).reshape([b, n, self.heads, head]).swap_dims(1, 2);
        let k = k.linear(&self.k).reshape([b, m, self.heads, head]).swap_dims(1, 2);
        softmax(q.mul_scalar((head as f32).powf(-0.5)).matmul(k.transpose()), 3).mean_dim(1).reshape([b, n, m])
    }

    /// Queries and keys `[B, Nq, D]`, `[B, Nk, D]`; values `[B, Nk, D]` -> `[B, Nq, D]`
    fn forward(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let (q, k, v) = (q.linear(&self.q), k.linear(&self.k), v.linear(&self.v));
        layers::attention(q, k, v, self.heads, products(&self.q)).linear(&self.proj)
    }
}

/// One decoder block: optional self-attention among queries, cross-attention to the image, feed-forward.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    self_attn: Option<CrossAttention>,
    norm_self: Option<LayerNorm>,
    cross_attn: CrossAttention,
    norm_cross: LayerNorm,
    mlp: Mlp,
    norm_mlp: LayerNorm,
    pre_norm: bool,
}

impl DecoderLayer {
    fn new(init: &Init, path: &str, s: &Settings) -> Self {
        let (dim, heads) = (s.vit.dim, s.decoder.heads);
        let hidden = (dim as f64 * s.decoder.mlp_ratio).round() as usize;
        Self {
            self_attn: s.decoder.self_attn.then(|| CrossAttention::new(init, &format!("{path}.self_attn"), dim, heads)),
            norm_self: s.decoder.self_attn.then(|| init.norm(dim)),
            cross_attn: CrossAttention::new(init, &format!("{path}.cross_attn"), dim, heads),
            norm_cross: init.norm(dim),
            mlp: Mlp::new(init, &format!("{path}.mlp"), dim, hidden),
            norm_mlp: init.norm(dim),
            pre_norm: s.decoder.pre_norm,
        }
    }

    /// One sub-layer with its residual: norm inside the branch (pre) or after the sum (post).
    fn residual(&self, x: Tensor<3>, norm: &LayerNorm, branch: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        if self.pre_norm { x.clone() + branch(x.norm(norm)) } else { (x.clone() + branch(x)).norm(norm) }
    }

    /// What cross-attention asks with: the target `[B, C, D]` after self-attention, if there is any.
    fn asked(&self, target: Tensor<3>, queries: &Tensor<3>, dropout: f64, noise: &mut Noise) -> Tensor<3> {
        match (&self.self_attn, &self.norm_self) {
            (Some(attention), Some(norm)) => self.residual(target, norm, |x| {
                let placed = x.clone() + queries.clone();
                noise.dropout(attention.forward(placed.clone(), placed, x), dropout)
            }),
            _ => target,
        }
    }

    /// Where each query looks, `[B, C, N]`: the weights of this layer's cross-attention, mean over its heads.
    fn attention(&self, target: Tensor<3>, queries: Tensor<3>, memory: Tensor<3>) -> Tensor<3> {
        let x = self.asked(target, &queries, 0.0, &mut Noise::none());
        let x = if self.pre_norm { x.norm(&self.norm_cross) } else { x };
        self.cross_attn.weights(x + queries, memory)
    }

    /// Target `[B, C, D]`, queries `[1, C, D]` (positional term), memory `[B, N, D]` -> `[B, C, D]`
    fn forward(&self, target: Tensor<3>, queries: Tensor<3>, memory: Tensor<3>, dropout: f64, noise: &mut Noise) -> Tensor<3> {
        let x = self.asked(target, &queries, dropout, noise);
        let x = self.residual(x, &self.norm_cross, |x| {
            noise.dropout(self.cross_attn.forward(x + queries.clone(), memory.clone(), memory.clone()), dropout)
        });
        self.residual(x, &self.norm_mlp, |x| {
            let hidden = noise.dropout(self.mlp.hidden_relu(x), dropout);
            noise.dropout(self.mlp.output(hidden), dropout)
        })
    }
}

/// Query decoder with a class-wise linear output: `z_c = w_c . h_c + b_c`.
#[derive(Module, Debug)]
pub struct QueryDecoder {
    pub queries: Param<Tensor<2>>,
    layers: Vec<DecoderLayer>,
    norm: LayerNorm,
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl QueryDecoder {
    fn new(init: &Init, classes: usize, s: &Settings) -> Self {
        let dim = s.vit.dim;
        let bound = (dim as f32).powf(-0.5);
        let queries = match s.queries.init {
            QueryInit::Random => init.normal("decoder.queries", [classes, dim], 1.0),
            QueryInit::Optimal => init.param([classes, dim], optimal_queries(classes, dim, &init.streams).into_iter()),
        };
        Self {
            queries: if s.queries.trainable { queries } else { queries.set_require_grad(false) },
            layers: (0..s.decoder.layers).map(|i| DecoderLayer::new(init, &format!("decoder.layers.{i}"), s)).collect(),
            norm: init.norm(dim),
            weight: init.uniform("decoder.weight", [classes, dim], bound),
            bias: init.uniform("decoder.bias", [classes], bound),
        }
    }

    /// The target `[B, C, D]` after so many layers.
    fn decode(&self, layers: usize, memory: Tensor<3>, dropout: f64, noise: &mut Noise) -> Tensor<3> {
        let ([b, _, d], [classes, _]) = (memory.dims(), self.queries.dims());
        let queries = self.queries.val().unsqueeze_dim::<3>(0);
        let start = Tensor::zeros([b, classes, d], &memory.device());
        self.layers[..layers].iter().fold(start, |x, layer| layer.forward(x, queries.clone(), memory.clone(), dropout, noise))
    }

    /// Where each class's query looks in the last layer, `[B, C, N]`.
    fn attention(&self, memory: Tensor<3>) -> Tensor<3> {
        let before = self.layers.len() - 1;
        let x = self.decode(before, memory.clone(), 0.0, &mut Noise::none());
        self.layers[before].attention(x, self.queries.val().unsqueeze_dim::<3>(0), memory)
    }

    fn forward(&self, memory: Tensor<3>, dropout: f64, noise: &mut Noise) -> Tensor<2> {
        let ([b, _, _], [classes, _]) = (memory.dims(), self.queries.dims());
        let x = self.decode(self.layers.len(), memory, dropout, noise);
        let weighted = x.norm(&self.norm) * self.weight.val().unsqueeze_dim::<3>(0);
        weighted.sum_dim(2).reshape([b, classes]) + self.bias.val().unsqueeze_dim::<2>(0)
    }
}

/// sqrt(D) times the vertices of a regular simplex in a seeded random orientation, `[C, D]` row-major: the closed-form optimum of the
/// uniformity loss for C <= D + 1 (METHOD 1.5), all pairwise cosines -1 / (C - 1).
pub fn optimal_queries(classes: usize, dim: usize, streams: &Streams) -> Vec<f32> {
    let mut rng = streams.at("decoder.queries", &[]);
    // Orthonormal columns by Gram-Schmidt on Gaussian vectors, one per class.
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(classes);
    while basis.len() < classes.min(dim) {
        let mut v: Vec<f64> = (0..dim).map(|_| f64::from(normal(&mut rng))).collect();
        for _ in 0..2 {
            for u in &basis {
                let dot: f64 = v.iter().zip(u).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(u).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = v.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(v.iter().map(|a| a / norm).collect());
        }
    }
    let mean = 1.0 / classes as f64;
    let length = (1.0 - mean).sqrt();
    let scale = (dim as f64).sqrt() / length;
    let mut out = Vec::with_capacity(classes * dim);
    for c in 0..classes {
        for d in 0..dim {
            let v: f64 = basis.iter().enumerate().map(|(j, u)| (f64::from(u8::from(j == c)) - mean) * u[d]).sum();
            out.push((v * scale) as f32);
        }
    }
    out
}

/// Pooled tokens, norm, linear (paper Table VIII, row 1).
#[derive(Module, Debug)]
pub struct PooledHead {
    norm: LayerNorm,
    linear: Linear,
}

/// What turns tokens into class logits.
#[derive(Module, Debug)]
pub struct Head {
    pub decoder: Option<QueryDecoder>,
    pooled: Option<PooledHead>,
}

/// Encoder and head.
#[derive(Module, Debug)]
pub struct Classifier {
    pub encoder: Encoder,
    pub head: Head,
    use_cls: bool,
}

impl Classifier {
    pub fn new(init: &Init, encoder: impl Into<Encoder>, classes: usize, s: &Settings) -> Self {
        let width = s.token_width();
        let decoder = s.decoder.enabled.then(|| QueryDecoder::new(init, classes, s));
        let pooled = (!s.decoder.enabled).then(|| PooledHead {
            norm: init.norm(width),
            linear: init.linear_from(init.trunc_normal("head.weight", [width, classes], 0.02)),
        });
        Self { encoder: encoder.into(), head: Head { decoder, pooled }, use_cls: s.decoder.use_cls }
    }

    /// Normalised patches `[B, N, P * P * C]` -> logits `[B, C]`
    pub fn forward(&self, patches: Tensor<3>, drop_path: f64, dropout: f64, noise: &mut Noise) -> Tensor<2> {
        self.classify(self.encoder.forward(patches, drop_path, noise), dropout, noise)
    }

    /// The same from some patches only: `patches` `[B, K, P * P * C]` at the places `index` `[B, K]`.
    pub fn forward_visible(&self, patches: Tensor<3>, index: Tensor<2, Int>, drop_path: f64, dropout: f64, noise: &mut Noise) -> Tensor<2> {
        self.classify(self.encoder.forward_visible(patches, index, drop_path, noise), dropout, noise)
    }

    /// Where each class's query looks: the cross-attention of the decoder's last layer, mean over its heads, over the N places of the
    /// face, `[B, C, N]`; with `decoder.use_cls` a row may sum to less than one, the rest lies on the class token. None with a pooled head.
    pub fn attention(&self, patches: Tensor<3>) -> Option<Tensor<3>> {
        let decoder = self.head.decoder.as_ref()?;
        let tokens = self.encoder.forward(patches, 0.0, &mut Noise::none());
        let [_, all, _] = tokens.dims();
        let places = self.encoder.patch_tokens(tokens.clone());
        let [_, n, _] = places.dims();
        let weights = decoder.attention(if self.use_cls { tokens } else { places });
        let [b, c, m] = weights.dims();
        let first = if self.use_cls { all - n } else { 0 };
        Some(weights.slice([0..b, 0..c, first..m]))
    }

    /// Tokens of the encoder `[B, T, D]` -> logits `[B, C]`
    fn classify(&self, tokens: Tensor<3>, dropout: f64, noise: &mut Noise) -> Tensor<2> {
        let memory = if self.use_cls { tokens } else { self.encoder.patch_tokens(tokens) };
        match (&self.head.decoder, &self.head.pooled) {
            (Some(decoder), _) => decoder.forward(memory, dropout, noise),
            (None, Some(pooled)) => {
                let [b, _, d] = memory.dims();
                memory.mean_dim(1).reshape([b, d]).norm(&pooled.norm).linear(&pooled.linear)
            }
            (None, None) => unreachable!("a head has a decoder or a pooled layer"),
        }
    }

    /// The class queries `[C, D]`, if there are any that train.
    pub fn trainable_queries(&self) -> Option<Tensor<2>> {
        self.head.decoder.as_ref().map(|d| d.queries.val()).filter(|q| q.is_require_grad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;

    /// Rows sum to one over what is looked at, and are the weights that the layer itself mixes values by.
    #[test]
    fn attention_says_where_queries_look() {
        let mut s = Settings::default();
        (s.data.size, s.data.channels, s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads) = (32, 1, 8, 24, 1, 3);
        (s.decoder.heads, s.decoder.dropout) = (3, 0.0);
        let device = Device::flex();
        for (self_attn, pre_norm, use_cls) in [(false, false, false), (true, false, true), (true, true, false)] {
            (s.decoder.self_attn, s.decoder.pre_norm, s.decoder.use_cls) = (self_attn, pre_norm, use_cls);
            let model = Classifier::new(
                &Init { streams: Streams::new(5), device: &device },
                Encoder::new(&Init { streams: Streams::new(5), device: &device }, &s),
                4,
                &s,
            );
            let patches: Vec<f32> = (0..2 * 16 * 64).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 3.0).collect();
            let patches = Tensor::<3>::from_data(TensorData::new(patches, [2, 16, 64]), &device);
            let seen = model.attention(patches.clone()).unwrap();
            assert_eq!(seen.dims(), [2, 4, 16]);
            let rows: Vec<f32> = read_values(seen.clone()).unwrap().chunks(16).map(|row| row.iter().sum()).collect();
            assert!(rows.iter().all(|sum| if use_cls { *sum < 1.0 } else { (sum - 1.0).abs() < 1e-5 }), "{rows:?}");

            // The same from the layer itself: its values weighted by what was seen, projected, are what its attention gives.
            let decoder = model.head.decoder.as_ref().unwrap();
            let tokens = model.encoder.forward(patches, 0.0, &mut Noise::none());
            let memory = if use_cls { tokens } else { model.encoder.patch_tokens(tokens) };
            let queries = decoder.queries.val().unsqueeze_dim::<3>(0);
            let x = decoder.decode(1, memory.clone(), 0.0, &mut Noise::none());
            let layer = &decoder.layers[1];
            let x = layer.asked(x, &queries, 0.0, &mut Noise::none());
            let x = if pre_norm { x.norm(&layer.norm_cross) } else { x } + queries;
            // With one head the mean over heads is the head.
            let single = CrossAttention { heads: 1, ..layer.cross_attn.clone() };
            let mixed = single.weights(x.clone(), memory.clone()).matmul(memory.clone().linear(&single.v)).linear(&single.proj);
            let given = single.forward(x, memory.clone(), memory);
            let (mixed, given) = (read_values(mixed).unwrap(), read_values(given).unwrap());
            assert!(mixed.iter().zip(&given).all(|(a, b)| (a - b).abs() < 1e-4));
        }
        s.decoder.enabled = false;
        let init = Init { streams: Streams::new(5), device: &device };
        assert!(Classifier::new(&init, Encoder::new(&init, &s), 4, &s).attention(Tensor::zeros([1, 16, 64], &device)).is_none());
    }

    #[test]
    fn optimal_queries_form_a_simplex() {
        for (classes, dim) in [(7, 96), (8, 16), (2, 8)] {
            let q = optimal_queries(classes, dim, &Streams::new(5));
            let dot = |a: usize, b: usize| -> f64 {
                (0..dim).map(|d| f64::from(q[a * dim + d]) * f64::from(q[b * dim + d])).sum::<f64>() / dim as f64
            };
            for a in 0..classes {
                for b in 0..classes {
                    let expected = if a == b { 1.0 } else { -1.0 / (classes as f64 - 1.0) };
                    assert!((dot(a, b) - expected).abs() < 1e-5, "{classes} {a} {b}: {}", dot(a, b));
                }
            }
        }
        assert_ne!(optimal_queries(7, 96, &Streams::new(5)), optimal_queries(7, 96, &Streams::new(6)));
    }
}
