//! The kernels as functions on tensors. Shapes are checked here, once, for every backend.

use super::backends::{HogSpec, Kernels};
use super::operations;
use super::reference::dropout::Mask;
use super::reference::patch_pixels::Patches;
use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::DType;
use std::fmt;

/// Tensors that do not fit each other or the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

macro_rules! ensure {
    ($ok:expr, $($message:tt)*) => { if !$ok { return Err(Mismatch(format!($($message)*))) } };
}

/// 8-bit pictures `[B, H, W, C]` on the device, a byte each.
pub fn upload_pixels(pixels: Vec<u8>, shape: [usize; 4], device: &Device) -> Tensor<4, Int> {
    Tensor::from_data(TensorData::new(pixels, shape), (device, DType::U8))
}

/// An index list `[B, K]` on the device.
pub fn upload_index(index: Vec<i32>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(index, shape), (device, DType::I32))
}

fn check_pixels(pixels: &Tensor<4, Int>) -> Result<(), Mismatch> {
    let [_, height, width, channels] = pixels.dims();
    ensure!(height > 0 && width > 0, "pictures of {width} x {height} pixels");
    ensure!(pixels.dtype() == DType::U8, "pixels must be of type u8, not {:?}", pixels.dtype());
    ensure!(matches!(channels, 1 | 3), "pictures have {channels} channels; it must be 1 or 3");
    Ok(())
}

fn check_index(index: &Tensor<2, Int>, samples: usize) -> Result<(), Mismatch> {
    let [b, k] = index.dims();
    ensure!(index.dtype() == DType::I32, "an index must be of type i32, not {:?}", index.dtype());
    ensure!(b == samples, "an index [{b}, {k}] for {samples} samples");
    Ok(())
}

/// Rows of whole 32-bit words, which is what the shader moves.
fn check_rows(x: &Tensor<3>) -> Result<(), Mismatch> {
    let even = x.dims()[2].is_multiple_of(2);
    ensure!(matches!(x.dtype(), DType::F32 | DType::F16), "rows must be of type f32 or f16, not {:?}", x.dtype());
    ensure!(x.dtype() == DType::F32 || even, "rows of f16 must hold an even number of values, not {}", x.dims()[2]);
    Ok(())
}

fn hog(pixels: Tensor<4, Int>, spec: HogSpec) -> Result<Tensor<2>, Mismatch> {
    check_pixels(&pixels)?;
    let HogSpec { cell, patch, .. } = spec;
    ensure!(cell > 0, "a cell must be at least one pixel wide");
    ensure!(patch.is_multiple_of(cell), "cells of {cell} pixels do not divide patches of {patch}");
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::hog(pixels.into_dispatch(), spec)))
}

/// A reshape in which 0 is a size; burn's takes it for "as it was".
fn shaped<const D: usize>(values: Tensor<2>, shape: [usize; D]) -> Tensor<D> {
    if shape.contains(&0) { Tensor::zeros(shape, &values.device()) } else { values.reshape(shape) }
}

/// Histograms of oriented gradients of 8-bit pictures `[B, H, W, C]` in cells of `cell` pixels under a Gaussian window of side `window`
/// (0: none): `[B, C, 9, H / cell, W / cell]` (METHOD 3.1).
///
/// # Errors
/// Pixels that are not u8, other than 1 or 3 channels, a cell of no size.
pub fn hog_cells(pixels: Tensor<4, Int>, cell: usize, window: usize) -> Result<Tensor<5>, Mismatch> {
    let [b, h, w, c] = pixels.dims();
    let values = hog(pixels, HogSpec { cell, window, patch: 0 })?;
    Ok(shaped(values, [b, c, super::reference::hog::BINS, h / cell, w / cell]))
}

/// The same by patch, the targets of MaskFeat: `[B, N, C * 9 * (patch / cell)^2]`.
///
/// # Errors
/// As [`hog_cells`]; also where `cell` does not divide `patch`.
pub fn hog_tokens(pixels: Tensor<4, Int>, cell: usize, window: usize, patch: usize) -> Result<Tensor<3>, Mismatch> {
    ensure!(patch > 0, "a patch must be at least one pixel wide");
    let spec = HogSpec { cell, window, patch };
    let [b, h, w, c] = pixels.dims();
    let values = hog(pixels, spec)?;
    let layout = spec.layout([h, w, c]);
    Ok(shaped(values, [b, layout.patches(patch), layout.token_len(patch)]))
}

/// The same of pictures in any scale, `[B, H, W, C]` of f32, by tensor operations: no shader, because only the 8-bit kind is trained on
/// unless asked for (METHOD 3.1).
///
/// # Errors
/// As [`hog_tokens`].
pub fn hog_tokens_of_floats(pixels: Tensor<4>, cell: usize, window: usize, patch: usize) -> Result<Tensor<3>, Mismatch> {
    let [b, h, w, c] = pixels.dims();
    ensure!(matches!(c, 1 | 3), "pictures have 1 or 3 channels, not {c}");
    ensure!(cell > 0 && patch > 0 && patch.is_multiple_of(cell), "cells of {cell} pixels do not divide patches of {patch}");
    let spec = HogSpec { cell, window, patch };
    let values: Tensor<2> = Tensor::from_dispatch(operations::hog::<Dispatch>(pixels.into_dispatch(), spec));
    let layout = spec.layout([h, w, c]);
    Ok(shaped(values, [b, layout.patches(patch), layout.token_len(patch)]))
}

/// Normalised patches of 8-bit pictures `[B, H, W, C]`: `pixel * scale + shift` with `scales` `[B, 2, C]` (scales, then shifts), only
/// the patches that `index` `[B, K]` names: `[B, K, P * P * C]`. A patch that does not exist is zero.
///
/// # Errors
/// Tensors of another type or size.
pub fn patch_pixels(pixels: Tensor<4, Int>, scales: Tensor<3>, index: Tensor<2, Int>, patch: usize) -> Result<Tensor<3>, Mismatch> {
    check_pixels(&pixels)?;
    let [b, h, w, c] = pixels.dims();
    check_index(&index, b)?;
    ensure!(patch > 0, "a patch must be at least one pixel wide");
    ensure!(scales.dims() == [b, 2, c], "scales {:?} for {b} pictures of {c} channels; it must be [{b}, 2, {c}]", scales.dims());
    ensure!(scales.dtype() == DType::F32, "scales must be of type f32, not {:?}", scales.dtype());
    let patches = Patches { width: w, height: h, channels: c, side: patch };
    let out = <Dispatch as Kernels>::patch_pixels(pixels.into_dispatch(), scales.into_dispatch(), index.into_dispatch(), patches);
    Ok(Tensor::from_dispatch(out))
}

/// Rows of `x` `[B, N, D]` that `index` `[B, K]` names: `[B, K, D]`, differentiable. A row that does not exist is zero.
///
/// # Errors
/// Rows of a type other than f32 and f16, or of an odd number of f16; an index of another type or for another number of samples.
pub fn gather_rows(x: Tensor<3>, index: Tensor<2, Int>) -> Result<Tensor<3>, Mismatch> {
    check_rows(&x)?;
    check_index(&index, x.dims()[0])?;
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::gather_rows(x.into_dispatch(), index.into_dispatch())))
}

/// Rows `[B, K, D]` added to the places of `[B, rows, D]` that `index` `[B, K]` names, zero elsewhere; differentiable. Places that do not
/// exist are left out.
///
/// # Errors
/// As [`gather_rows`]; also an index for other than K rows.
pub fn scatter_rows(x: Tensor<3>, index: Tensor<2, Int>, rows: usize) -> Result<Tensor<3>, Mismatch> {
    check_rows(&x)?;
    let [b, k, _] = x.dims();
    check_index(&index, b)?;
    ensure!(index.dims()[1] == k, "an index of {} rows for {k}", index.dims()[1]);
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::scatter_rows(x.into_dispatch(), index.into_dispatch(), rows)))
}

/// x by a mask that is drawn where it is computed: the same on every device. Differentiable; the mask is drawn again in the backward pass.
pub fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kernels>::dropout(x.into_dispatch(), mask))
}
