//! Pictures for people, made from plain numbers: slices in, pictures out, no tensors.

pub mod attention;
pub mod glyphs;
pub mod reconstruction;
