//! From a stored picture to the pixels a network sees: alignment at import; augmentation and normalisation ahead of the device.

pub mod align;
pub mod augment;
pub mod normalize;
pub mod prepare;
