//! The backbone of a classifier: one of several networks that turn a face into tokens.

use super::init::Init;
use super::noise::Noise;
use super::resnet::ResNet;
use super::vit::Vit;
use crate::config::{Backbone, Settings};
use burn::module::{Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor};
use burn::prelude::*;

/// A backbone. Parameters have the paths of the network inside (`encoder.blocks.0...`), without a name for the choice in between as
/// `derive(Module)` would give them: the optimiser's groups and checkpoints of either kind know but one encoder.
#[derive(Clone, Debug)]
pub enum Encoder {
    Vit(Vit),
    ResNet(ResNet),
}

impl Encoder {
    /// The one that the settings name, with random weights.
    pub fn new(init: &Init, s: &Settings) -> Self {
        match s.encoder.backbone {
            Backbone::Vit => Self::Vit(Vit::new(init, s)),
            Backbone::Resnet18 => Self::ResNet(ResNet::new(init, s)),
        }
    }

    /// Normalised patches `[B, N, P * P * C]` to tokens `[B, T, D]`.
    pub fn forward(&self, patches: Tensor<3>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        match self {
            Self::Vit(vit) => vit.forward(patches, drop_path, noise),
            Self::ResNet(resnet) => resnet.forward(patches, drop_path, noise),
        }
    }

    /// The same from some patches only: `patches` `[B, K, P * P * C]` at the places `index` `[B, K]`.
    pub fn forward_visible(&self, patches: Tensor<3>, index: Tensor<2, Int>, drop_path: f64, noise: &mut Noise) -> Tensor<3> {
        match self {
            Self::Vit(vit) => vit.forward_visible(patches, index, drop_path, noise),
            Self::ResNet(_) => unreachable!("settings refuse to leave patches out of a convolutional network"),
        }
    }

    /// The tokens of an output that stand for places, without a class token.
    pub fn patch_tokens(&self, tokens: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Vit(vit) => vit.patch_tokens(tokens),
            Self::ResNet(_) => tokens,
        }
    }
}

impl From<Vit> for Encoder {
    fn from(vit: Vit) -> Self {
        Self::Vit(vit)
    }
}

/// The same call on whichever network it is; `=> Self` where it gives back a network.
macro_rules! either {
    ($self:ident, $network:ident => Self::($call:expr)) => {
        match $self {
            Encoder::Vit($network) => Encoder::Vit($call),
            Encoder::ResNet($network) => Encoder::ResNet($call),
        }
    };
    ($self:ident, $network:ident => $call:expr) => {
        match $self {
            Encoder::Vit($network) => $call,
            Encoder::ResNet($network) => $call,
        }
    };
}

impl Module for Encoder {
    fn collect_devices(&self, devices: Devices) -> Devices {
        either!(self, network => network.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        either!(self, network => Self::(network.fork(device)))
    }

    fn to_device(self, device: &Device) -> Self {
        either!(self, network => Self::(network.to_device(device)))
    }

    fn train(self) -> Self {
        either!(self, network => Self::(network.train()))
    }

    fn valid(&self) -> Self {
        either!(self, network => Self::(network.valid()))
    }

    fn materialize(self) -> Self {
        either!(self, network => Self::(network.materialize()))
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        either!(self, network => network.visit(visitor))
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        either!(self, network => Self::(network.map(mapper)))
    }
}

impl ModuleDisplay for Encoder {}

impl ModuleDisplayDefault for Encoder {
    fn content(&self, content: Content) -> Option<Content> {
        either!(self, network => network.content(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;
    use crate::random::Streams;

    #[derive(Module, Debug)]
    struct Plain {
        encoder: Vit,
    }

    #[derive(Module, Debug)]
    struct Chosen {
        encoder: Encoder,
    }

    #[derive(Default)]
    struct Listing {
        path: Vec<String>,
        found: Vec<(String, Vec<f32>)>,
    }

    impl ModuleVisitor for Listing {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            self.found.push((self.path.join("."), read_values(param.val()).unwrap()));
        }
    }

    fn listing<M: Module>(module: &M) -> Vec<(String, Vec<f32>)> {
        let mut listing = Listing::default();
        module.visit(&mut listing);
        listing.found
    }

    /// Checkpoints from before there was a choice name parameters in the same way.
    #[test]
    fn the_choice_leaves_no_trace_in_paths_and_records() {
        let mut s = Settings::default();
        (s.data.size, s.vit.dim, s.vit.depth, s.vit.heads, s.decoder.heads) = (32, 8, 2, 2, 2);
        let device = Device::flex();
        let init = |seed| Init { streams: Streams::new(seed), device: &device };
        let saved = Plain { encoder: Vit::new(&init(1), &s) };
        let fresh = Chosen { encoder: Encoder::new(&init(2), &s) };
        assert_ne!(listing(&fresh), listing(&saved));
        let loaded = fresh.try_load_record(saved.clone().into_record()).unwrap();
        assert_eq!(listing(&loaded), listing(&saved));
        assert!(listing(&loaded).iter().any(|(path, _)| path == "encoder.blocks.1.attn.qkv.weight"));

        s.encoder.backbone = Backbone::Resnet18;
        s.resnet.width = 4;
        let resnet = Chosen { encoder: Encoder::new(&init(1), &s) };
        assert!(listing(&resnet).iter().any(|(path, _)| path == "encoder.blocks.7.second.conv.weight"));
        assert!(resnet.try_load_record(saved.into_record()).is_err());
    }
}
