//! CPU twins of the shaders, on plain slices. They define what a kernel computes; on the CPU backend they are the kernel.

pub mod hog;
pub mod patch_gather;
pub mod patch_pixels;
