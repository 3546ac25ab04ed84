//! CPU twins of the shaders, on plain slices. They define what a kernel computes; on the CPU backend they are the kernel (but for
//! layer norm, softmax, products and attention, which `kernels::layers` has vectorised, and sums of columns, sums of squares and AdamW,
//! which burn computes).

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod column_sums;
pub mod dropout;
pub mod hog;
pub mod layer_norm;
pub mod patch_gather;
pub mod patch_pixels;
pub mod product;
pub mod softmax;
pub mod squares;
