//! Computations written for moue: what pretraining predicts (HOG), which patches the encoder sees, and what a transformer's time goes into on
//! a GPU (products of matrices, attention, layer norm, softmax, sums, the optimiser's step).
//!
//! ```text
//!                        shaders/NAME.wgsl      NAME.rs (bindings, dispatch) -> queue (burn's order) -> gpu (pipelines, binding limits)
//! functions below -> backends: wgpu ------------^
//!                              CPU  ----------> reference/NAME.rs (the twin that defines the result)
//!                              others --------> operations (burn's tensor operations)
//! ```
//! A kernel is five files with one name: shader, host side, CPU twin, golden vectors (`tests/golden/`) and bench. A shader may be put together
//! of several texts: `shaders/product/` and `shaders/layer_norm/` have the parts of these two, `shaders/shared/` what several have in common.
//! Kernels are part of burn's backends through an extension, [`Kernels`], so they work inside fusion and autodiff. Gathering rows serves
//! encoders that see visible patches only (MAE, masks in finetuning); dropout draws its masks where it is computed.
//!
//! [`layers`] holds the transformer's ordinary layers as one operation each: over slices on the CPU, by the kernels `product`, `attention`,
//! `layer_norm`, `softmax` and `column_sums` on a GPU. [`updates`] has what comes after the backward pass: the length of the gradient (`squares`) and the
//! optimiser's step (`adamw`), a launch or two for each parameter. [`timer`] tells how long each launch took.

pub mod reference;

#[cfg(feature = "train")]
pub mod adamw;
#[cfg(feature = "train")]
pub mod attention;
#[cfg(feature = "train")]
mod backends;
#[cfg(feature = "train")]
pub mod column_sums;
#[cfg(feature = "train")]
pub mod dropout;
#[cfg(feature = "train")]
pub mod gpu;
#[cfg(feature = "train")]
pub mod hog;
#[cfg(feature = "train")]
pub mod layer_norm;
#[cfg(feature = "train")]
pub mod layers;
#[cfg(feature = "train")]
pub mod operations;
#[cfg(feature = "train")]
pub mod patch_gather;
#[cfg(feature = "train")]
pub mod patch_pixels;
#[cfg(feature = "train")]
mod processors;
#[cfg(feature = "train")]
pub mod product;
#[cfg(feature = "train")]
pub mod queue;
#[cfg(feature = "train")]
pub mod softmax;
#[cfg(feature = "train")]
pub mod squares;
#[cfg(feature = "train")]
mod teams;
#[cfg(feature = "train")]
mod tensors;
#[cfg(feature = "train")]
pub mod timer;
#[cfg(feature = "train")]
pub mod translate;
#[cfg(feature = "train")]
pub mod updates;

#[cfg(feature = "train")]
pub use backends::{HogSpec, Kernels};
#[cfg(feature = "train")]
pub use tensors::{
    Mismatch, dropout, gather_rows, hog_cells, hog_tokens, hog_tokens_of_floats, patch_pixels, scatter_rows, upload_index, upload_pixels,
};
