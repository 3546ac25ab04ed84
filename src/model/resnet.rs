//! ResNet-18 (He et al. 2016), the paper's convolutional backbone (Table V).
//!
//! Two things differ from the original. [C] Pictures below 96 pixels get the small stem that is usual for them (3x3, stride 1, no pooling):
//! the original one leaves a 48-pixel face only 2 x 2 positions. [C] Group normalisation (Wu and He 2018) stands where batch
//! normalisation was: parts of a batch train apart, so statistics over them would depend on the number of threads, and evaluation would
//! need running averages beside the parameters.

use super::init::Init;
use super::layers::Layers;
use super::noise::Noise;
use super::vit::picture;
use crate::config::{RESNET_BLOCKS as BLOCKS, Settings};
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;

/// Smallest side in pixels that gets the original stem.
const LARGE: usize = 96;

/// A convolution with its norm. He initialisation: almost all of them are followed by ReLU.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: GroupNorm,
}

impl ConvNorm {
    fn new(init: &Init, path: &str, channels: [usize; 2], kernel: usize, stride: usize) -> Self {
        let pad = kernel / 2;
        let mut conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .init(init.device);
        let [c_in, c_out] = channels;
        let std = (2.0 / (kernel * kernel * c_in) as f32).sqrt();
        conv.weight = init.normal(&format!("{path}.weight"), [c_out, c_in, kernel, kernel], std);
        Self { conv, norm: GroupNormConfig::new(groups(c_out), c_out).init(init.device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

/// Wu and He's 32 groups, or as many fewer as divide the channels and leave each group two of them.
fn groups(channels: usize) -> usize {
    let most = (channels / 2).clamp(1, 32);
    (1..=most).rev().find(|&n| channels.is_multiple_of(n)).unwrap_or(1)
}

/// Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes.
#[derive(Module, Debug)]
struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(init: &Init, path: &str, [c_in, c_out]: [usize; 2]) -> Self {
        // Where channels double, the map halves.
        let stride = if c_in == c_out { 1 } else { 2 };
        let mut second = ConvNorm::new(init, &format!("{path}.second"), [c_out, c_out], 3, 1);
        // A block begins as its shortcut (Goyal et al. 2017).
        second.norm.gamma = Some(Param::from_tensor(Tensor::zeros([c_out], init.device)));
        Self {
            first: ConvNorm::new(init, &format!("{path}.first"), [c_in, c_out], 3, stride),
            second,
            shortcut: (stride > 1).then(|| ConvNorm::new(init, &format!("{path}.shortcut"), [c_in, c_out], 1, stride)),
        }
    }

    fn forward(&self, x: Tensor<4>, drop_path: f64, noise: &mut Noise) -> Tensor<4> {
        let branch = self.second.forward(relu(self.first.forward(x.clone())));
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(shortcut + noise.drop_path(branch, drop_path))
    }
}

/// The encoder. Input: normalised patches `[B, N, P * P * C]` of whole pictures; output: the last stage's map as tokens, row by row,
/// `[B, H * W, D]`, where H and W are the sides over 32 (small stem: over 8), rounded up. D is `vit.dim` under a query decoder, by a linear
/// projection; a pooled head reads the 8 * `resnet.width` features as they are.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvNorm,
    /// Stages 1 to 4, two each.
    blocks: Vec<BasicBlock>,
    proj: Option<Linear>,
    patch: usize,
    channels: usize,
    large: bool,
}

impl ResNet {
    pub fn new(init: &Init, s: &Settings) -> Self {
        let (width, large) = (s.resnet.width, s.data.size >= LARGE);
        let (kernel, stride) = if large { (7, 2) } else { (3, 1) };
        let out = |block: usize| width << (block / 2);
        let block = |i: usize| {
            let c_in = if i == 0 { width } else { out(i - 1) };
            BasicBlock::new(init, &format!("blocks.{i}"), [c_in, out(i)])
        };
        Self {
            stem: ConvNorm::new(init, "stem", [s.data.channels, width], kernel, stride),
            blocks: (0..BLOCKS).map(block).collect(),
            proj: s.decoder.enabled.then(|| init.linear("proj", out(BLOCKS - 1), s.vit.dim)),
            patch: s.vit.patch,
            channels: s.data.channels,
            large,
        }
    }

    /// `drop_path` is the rate at the last block, linear from 0 at the first.
    pub fn forward(&self, patches: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        let mut x = relu(self.stem.forward(picture(patches, self.patch, self.channels)));
        if self.large {
            x = max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]));
        }
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, drop_path * i as f64 / (BLOCKS - 1) as f64, noise);
        }
        let tokens = x.flatten::<3>(2, 3).swap_dims(1, 2);
        match &self.proj {
            Some(proj) => tokens.linear(proj),
            None => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Streams;

    fn shape(size: usize, decoder: bool) -> [usize; 3] {
        let mut s = Settings::default();
        (s.data.size, s.data.channels, s.resnet.width, s.decoder.enabled) = (size, 1, 4, decoder);
        (s.vit.patch, s.vit.dim, s.decoder.heads) = (8, 12, 2);
        let device = Device::flex();
        let network = ResNet::new(&Init { streams: Streams::new(1), device: &device }, &s);
        let patches = Tensor::<3>::ones([2, s.grid().pow(2), 64], &device);
        network.forward(patches, 0.0, &mut Noise::none()).dims()
    }

    #[test]
    fn the_stem_follows_the_size_and_the_width_follows_the_head() {
        assert_eq!(shape(48, true), [2, 36, 12]);
        assert_eq!(shape(40, false), [2, 25, 32]);
        assert_eq!(shape(96, true), [2, 9, 12]);
        assert_eq!(shape(224, false), [2, 49, 32]);
    }

    #[test]
    fn groups_divide_and_hold_two_channels() {
        assert_eq!([1, 2, 6, 32, 48, 64, 96, 512].map(groups), [1, 1, 3, 16, 24, 32, 32, 32]);
    }

    /// He et al. 2016: 11.7 million parameters, of which 0.5 million are the classifier of ImageNet.
    #[test]
    fn the_full_network_has_the_size_of_resnet_18() {
        let mut s = Settings::default();
        s.decoder.enabled = false;
        let device = Device::flex();
        let network = ResNet::new(&Init { streams: Streams::new(1), device: &device }, &s);
        assert_eq!(network.num_params(), 11_689_512 - 513_000);
    }
}
