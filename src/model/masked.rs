//! Networks of masked-image modelling: what predicts the hidden patches of a face from the visible ones (METHOD 3.2, 3.4).
//!
//! [`MaskedVit`] lets the encoder see learned tokens in the places of hidden patches (MaskFeat, SimMIM). [`MaskedAutoencoder`] lets it see
//! the visible patches alone and has a light decoder predict the others (MAE). What a network predicts is its caller's affair: it only
//! knows how many values there are to a patch.

use super::init::Init;
use super::input::Faces;
use super::layers::Layers;
use super::noise::Noise;
use super::vit::{Block, Vit, sincos};
use crate::config::Settings;
use crate::kernels::reference::hog::Layout;
use crate::kernels::{scatter_rows, upload_index};
use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::prelude::*;

/// Which patches of a batch are hidden, on the device.
pub struct Hidden {
    /// `[B, N, 1]`, 1: hidden
    pub mask: Tensor<3>,
    /// Places of the visible patches `[B, K]` in ascending order, where every face has the same number of them.
    visible: Option<Tensor<2, Int>>,
}

impl Hidden {
    /// Uploads the masks (`true`: hidden) of faces of `patches` patches each, `[B, N]` row-major.
    pub fn upload(hidden: &[bool], patches: usize, device: &Device) -> Self {
        let faces = hidden.len() / patches;
        let mask = hidden.iter().map(|&h| f32::from(u8::from(h))).collect::<Vec<_>>();
        let mask = Tensor::from_data(TensorData::new(mask, [faces, patches, 1]), device);
        let places = |face: &[bool]| (0..patches as i32).filter(|&i| !face[i as usize]).collect::<Vec<_>>();
        let visible: Vec<Vec<i32>> = hidden.chunks(patches).map(places).collect();
        let kept = visible.first().map_or(0, Vec::len);
        let even = kept > 0 && visible.iter().all(|v| v.len() == kept);
        Self { mask, visible: even.then(|| upload_index(visible.concat(), [faces, kept], device)) }
    }
}

/// A network that pretraining can train.
pub trait MaskedModel: Module + Clone + Send + Sync {
    fn new(init: &Init, s: &Settings) -> Self;

    /// Predicted targets of every patch, `[B, N, T]`; those of visible patches mean nothing.
    fn predict(&self, faces: &Faces, hidden: &Hidden, drop_path: f64, noise: &mut Noise) -> Tensor<3>;

    /// What finetuning goes on with.
    fn into_encoder(self) -> Vit;
}

/// Values that `pretrain.method` predicts for a patch: HOG of its cells, or its pixels.
pub fn target_len(s: &Settings) -> usize {
    let (side, channels) = (s.data.size, s.data.channels);
    if s.pretrain.method.predicts_hog() {
        Layout { width: side, height: side, channels, cell: s.hog.cell, window: s.hog.window }.token_len(s.vit.patch)
    } else {
        s.vit.patch.pow(2) * channels
    }
}

/// The encoder with mask tokens: embeddings of hidden patches become a learned token, and a linear head predicts the target of each patch.
#[derive(Module, Debug)]
pub struct MaskedVit {
    pub encoder: Vit,
    mask_token: Param<Tensor<3>>,
    head: Linear,
}

impl MaskedModel for MaskedVit {
    fn new(init: &Init, s: &Settings) -> Self {
        let dim = s.vit.dim;
        Self {
            encoder: Vit::new(init, s),
            mask_token: init.trunc_normal("mask_token", [1, 1, dim], 0.02),
            head: init.linear_from(init.trunc_normal("head.weight", [dim, target_len(s)], 0.02)),
        }
    }

    fn predict(&self, faces: &Faces, hidden: &Hidden, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let (patches, mask) = (faces.patches(), hidden.mask.clone());
        // Convolutions look over patch borders: what is hidden must be gone before them.
        let visible = mask.clone().neg().add_scalar(1.0);
        let x = self.encoder.embed(if self.encoder.overlaps() { patches * visible.clone() } else { patches });
        let x = x * visible + self.mask_token.val() * mask;
        let tokens = self.encoder.encode(x, drop_path, noise);
        self.encoder.patch_tokens(tokens).linear(&self.head)
    }

    fn into_encoder(self) -> Vit {
        self.encoder
    }
}

/// An encoder of visible patches and a light decoder of all, with MAE's names and layout: linear to the decoder's width, a learned token
/// in hidden places, fixed sine and cosine positions, pre-norm blocks, norm, linear to the target.
#[derive(Module, Debug)]
pub struct MaskedAutoencoder {
    pub encoder: Vit,
    decoder_embed: Linear,
    mask_token: Param<Tensor<3>>,
    /// Fixed; the class token's, if there is one, first.
    decoder_pos_embed: Param<Tensor<3>>,
    decoder_blocks: Vec<Block>,
    decoder_norm: LayerNorm,
    decoder_pred: Linear,
}

impl MaskedAutoencoder {
    /// Encoded visible patches `[B, K, D]` (and a class token before them) at the places `index` `[B, K]` -> all tokens `[B, N, Dd]` (and
    /// the class token), mask tokens where `mask` `[B, N, 1]` is 1, positions added.
    fn unshuffled(&self, tokens: Tensor<3>, index: Tensor<2, Int>, mask: Tensor<3>) -> Tensor<3> {
        let [_, kept] = index.dims();
        let [_, patches, _] = mask.dims();
        let x = tokens.linear(&self.decoder_embed);
        let [b, t, d] = x.dims();
        let visible = x.clone().slice([0..b, t - kept..t, 0..d]);
        let visible = scatter_rows(visible, index, patches).expect("a place for each visible token");
        let all = visible + self.mask_token.val() * mask;
        let all = if t > kept { Tensor::cat(vec![x.slice([0..b, 0..t - kept, 0..d]), all], 1) } else { all };
        all + self.decoder_pos_embed.val()
    }
}

impl MaskedModel for MaskedAutoencoder {
    fn new(init: &Init, s: &Settings) -> Self {
        let (dim, heads) = (s.mim.decoder_dim, s.mim.decoder_heads);
        let positions = sincos(s.grid(), dim, s.vit.cls);
        let (out, path) = (target_len(s), "decoder_pred");
        Self {
            encoder: Vit::new(init, s),
            decoder_embed: init.linear("decoder_embed", s.vit.dim, dim),
            mask_token: init.normal("mask_token", [1, 1, dim], 0.02),
            decoder_pos_embed: init.param([1, positions.len() / dim, dim], positions.into_iter()).set_require_grad(false),
            decoder_blocks: (0..s.mim.decoder_depth).map(|i| Block::new(init, &format!("decoder_blocks.{i}"), dim, heads, s)).collect(),
            decoder_norm: init.norm(dim),
            // Pixels have unit variance, as Xavier's start gives it; histograms are much smaller, hence MaskFeat's start.
            decoder_pred: if s.pretrain.method.predicts_hog() {
                init.linear_from(init.trunc_normal(&format!("{path}.weight"), [dim, out], 0.02))
            } else {
                init.linear(path, dim, out)
            },
        }
    }

    /// # Panics
    /// Where faces show different numbers of patches, or none.
    fn predict(&self, faces: &Faces, hidden: &Hidden, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let index = hidden.visible.clone().expect("exact masks that show something");
        let tokens = self.encoder.forward_visible(faces.visible(index.clone()), index.clone(), drop_path, noise);
        let mut x = self.unshuffled(tokens, index, hidden.mask.clone());
        for block in &self.decoder_blocks {
            x = block.forward(x, 0.0, noise);
        }
        self.encoder.patch_tokens(x.norm(&self.decoder_norm)).linear(&self.decoder_pred)
    }

    fn into_encoder(self) -> Vit {
        self.encoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Method, Positions};
    use crate::dataset::Pixels;
    use crate::engine::parameters::{load_model, model_bytes};
    use crate::engine::read_values;
    use crate::model::{Crops, Input};
    use crate::random::{RngExt, Streams};
    use crate::run::checkpoint::{Checkpoint, State};
    use burn::optim::GradientsParams;

    /// Sixteen patches a face.
    const N: usize = 16;

    fn tiny(cls: bool, positions: Positions) -> Settings {
        let mut s = Settings::default();
        (s.data.size, s.data.channels, s.hog.cell) = (32, 1, 4);
        (s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads) = (8, 12, 2, 2);
        (s.vit.cls, s.vit.positions, s.pretrain.method) = (cls, positions, Method::MaeHog);
        (s.mim.decoder_dim, s.mim.decoder_heads) = (8, 2);
        s
    }

    fn pictures(s: &Settings, salt: u64) -> Vec<Pixels> {
        let mut rng = Streams::new(salt).at("pictures", &[]);
        let side = s.data.size;
        (0..2).map(|_| Pixels::new(side, side, 1, (0..side * side).map(|_| rng.random()).collect())).collect()
    }

    fn upload(s: &Settings, pictures: &[Pixels], device: &Device) -> Faces {
        let input = Input::of(s);
        let mut crops = Crops::default();
        pictures.iter().for_each(|p| input.push(&mut crops, p));
        input.upload(&crops, device)
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    /// Every patch named, in another order for each face: the tokens are those of the full encoder, in that order.
    #[test]
    fn a_visible_encoder_that_sees_all_is_the_full_one() {
        let device = Device::flex();
        for (cls, positions) in [(false, Positions::Normal), (true, Positions::Normal), (true, Positions::Sincos)] {
            let s = tiny(cls, positions);
            let encoder = Vit::new(&Init { streams: Streams::new(3), device: &device }, &s);
            let faces = upload(&s, &pictures(&s, 1), &device);
            let all = read_values(encoder.forward(faces.patches(), 0.0, &mut Noise::none())).unwrap();
            let orders: [Vec<i32>; 2] = [(0..N as i32).collect(), (0..N as i32).map(|i| (i * 7 + 3) % N as i32).collect()];
            let index = upload_index(orders.concat(), [2, N], &device);
            let visible = encoder.forward_visible(faces.visible(index.clone()), index, 0.0, &mut Noise::none());
            let visible = read_values(visible).unwrap();
            let (tokens, first) = (N + usize::from(cls), usize::from(cls));
            let token = |values: &[f32], face: usize, place: usize| values[(face * tokens + place) * 12..][..12].to_vec();
            for (face, order) in orders.iter().enumerate() {
                for (k, &place) in order.iter().enumerate() {
                    let (ours, full) = (token(&visible, face, first + k), token(&all, face, first + place as usize));
                    assert!(close(&ours, &full), "cls {cls}, face {face}, place {place}: {ours:?} {full:?}");
                }
                assert!(!cls || close(&token(&visible, face, 0), &token(&all, face, 0)), "the class token of face {face}");
            }
            assert!(!close(&token(&all, 0, first), &token(&all, 0, first + 1)), "all tokens are equal: the test shows nothing");
        }
    }

    fn mixed() -> Vec<bool> {
        // Ten of sixteen are hidden, others of each face.
        (0..2 * N).map(|i| (i % N * 5 + i / N * 3) % N < 10).collect()
    }

    #[test]
    fn unshuffling_puts_tokens_where_they_belong() {
        let device = Device::flex();
        for cls in [false, true] {
            let s = tiny(cls, Positions::Normal);
            let model = MaskedAutoencoder::new(&Init { streams: Streams::new(3), device: &device }, &s);
            let masks = mixed();
            let hidden = Hidden::upload(&masks, N, &device);
            let first = usize::from(cls);
            // Visible token k of face b carries 100 b + its place in every component.
            let places: Vec<Vec<usize>> = masks.chunks(N).map(|m| (0..N).filter(|&i| !m[i]).collect()).collect();
            let tokens: Vec<f32> = places
                .iter()
                .enumerate()
                .flat_map(|(b, p)| std::iter::repeat_n(-1.0, first).chain(p.iter().map(move |&place| (100 * b + place) as f32)))
                .flat_map(|v| [v; 12])
                .collect();
            let tokens = Tensor::<3>::from_data(TensorData::new(tokens, [2, first + 6, 12]), &device);
            let out = read_values(model.unshuffled(tokens, hidden.visible.clone().unwrap(), hidden.mask)).unwrap();
            let ones = read_values(Tensor::<3>::ones([1, 1, 12], &device).linear(&model.decoder_embed)).unwrap();
            let token = read_values(model.mask_token.val()).unwrap();
            let positions = read_values(model.decoder_pos_embed.val()).unwrap();
            for (face, place) in (0..2).flat_map(|face| (0..first + N).map(move |place| (face, place))) {
                let row = &out[(face * (first + N) + place) * 8..][..8];
                let expected = |d: usize| {
                    let patch = place.wrapping_sub(first);
                    let content = match () {
                        _ if place < first => -ones[d],
                        _ if masks[face * N + patch] => token[d],
                        _ => (100 * face + patch) as f32 * ones[d],
                    };
                    content + positions[place * 8 + d]
                };
                let expected: Vec<f32> = (0..8).map(expected).collect();
                assert!(row.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3), "cls {cls}, face {face}, place {place}");
            }
        }
    }

    /// Whatever stands in hidden patches, predictions stay the same bits; what stands in visible ones changes them.
    #[test]
    fn nothing_hidden_is_seen() {
        fn predict<M: MaskedModel>(s: &Settings, pictures: &[Pixels]) -> Vec<f32> {
            let device = Device::flex();
            let model = M::new(&Init { streams: Streams::new(3), device: &device }, s);
            let hidden = Hidden::upload(&mixed(), N, &device);
            let predicted = model.predict(&upload(s, pictures, &device), &hidden, 0.0, &mut Noise::none());
            assert_eq!(predicted.dims(), [2, N, target_len(s)]);
            read_values(predicted).unwrap()
        }
        // Normalised by the face itself, a hidden patch would tell through the face's mean.
        let s = tiny(true, Positions::Normal);
        let (own, others) = (pictures(&s, 1), pictures(&s, 2));
        let mixture = |from_others: bool| -> Vec<Pixels> {
            let faces = own.iter().zip(&others).zip(mixed().chunks(N).map(<[bool]>::to_vec).collect::<Vec<_>>());
            faces
                .map(|((own, other), mask)| {
                    let at = |i: usize| if mask[i / 32 / 8 * 4 + i % 32 / 8] == from_others { other.data[i] } else { own.data[i] };
                    Pixels::new(32, 32, 1, (0..32 * 32).map(at).collect())
                })
                .collect()
        };
        for predict in [predict::<MaskedAutoencoder>, predict::<MaskedVit>] {
            let first = predict(&s, &own);
            assert!(first == predict(&s, &mixture(true)), "a hidden pixel changed a prediction");
            assert!(first != predict(&s, &mixture(false)), "predictions do not depend on the face");
        }
    }

    #[test]
    fn uneven_masks_have_no_index() {
        let device = Device::flex();
        let mut masks = mixed();
        assert_eq!(Hidden::upload(&masks, N, &device).visible.unwrap().dims(), [2, 6]);
        let hidden = masks.iter_mut().find(|h| **h).unwrap();
        *hidden = false;
        assert!(Hidden::upload(&masks, N, &device).visible.is_none());
        assert!(Hidden::upload(&[true; N], N, &device).visible.is_none());
    }

    /// Everything but the fixed positions gets a gradient, and stays so after a checkpoint.
    #[test]
    fn decoder_positions_are_fixed() {
        let device = Device::flex().autodiff();
        let s = tiny(true, Positions::Normal);
        let model = MaskedAutoencoder::new(&Init { streams: Streams::new(3), device: &device }, &s);
        let state = State { stage: "pretrain".into(), steps: 1, ..State::default() };
        let checkpoint = Checkpoint::new(state, vec![("model.bpk".into(), model_bytes(&model).unwrap())]);
        let other = MaskedAutoencoder::new(&Init { streams: Streams::new(4), device: &device }, &s);
        let loaded = load_model(other, &checkpoint).unwrap();
        for model in [model, loaded] {
            let hidden = Hidden::upload(&mixed(), N, &device);
            let loss = model.predict(&upload(&s, &pictures(&s, 1), &device), &hidden, 0.0, &mut Noise::none()).square().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            assert!(gradients.get::<3>(model.decoder_pos_embed.id).is_none());
            assert!(gradients.get::<3>(model.mask_token.id).is_some());
            assert!(gradients.get::<2>(model.decoder_embed.weight.id).is_some());
        }
    }
}
