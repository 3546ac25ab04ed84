//! Networks: the vision transformer, its masked-image-modelling forms, ResNet-18 and the query decoder.
//!
//! Parameters carry timm's names (`blocks.0.attn.qkv.weight`), so weights can be exchanged. Every initial value and every random mask
//! comes from a named stream on the CPU: the same seed starts the same network on every device.

pub mod decoder;
pub mod encoder;
pub mod init;
pub mod input;
mod layers;
pub mod masked;
pub mod noise;
pub mod resnet;
pub mod vit;

pub use decoder::{Classifier, Head};
pub use encoder::Encoder;
pub use input::{Crops, Faces, Input, Patching};
pub use masked::{Hidden, MaskedAutoencoder, MaskedModel, MaskedVit};
pub use noise::Noise;
pub use resnet::ResNet;
pub use vit::Vit;
