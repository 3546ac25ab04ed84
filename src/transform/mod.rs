//! From a stored face to the pixels a network sees: augmentation and normalisation on the CPU, ahead of the device.

pub mod augment;
pub mod normalize;
