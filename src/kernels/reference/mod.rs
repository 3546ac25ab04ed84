//! CPU twins: the same arithmetic as the shaders, in the same order, on plain slices.

pub mod hog;
