//! The kernels on burn's backends: shaders on wgpu, twins on the CPU, tensor operations elsewhere, gradients for what has them.

use super::queue::{Queue, allocate, operands};
use super::reference::dropout::Mask;
use super::reference::hog::Layout;
use super::reference::patch_gather::Rows;
use super::reference::patch_pixels::Patches;
use super::{dropout, hog, operations, patch_gather, patch_pixels, reference};
use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::prelude::{Shape, TensorData};
use burn::tensor::{DType, f16};
use burn_wgpu::CubeBackend;

/// What a HOG is made of, beside the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HogSpec {
    /// Side of a cell in pixels.
    pub cell: usize,
    /// Side of the Gaussian window, 0: none.
    pub window: usize,
    /// Side of the patches whose values stand together, 0: plain cells.
    pub patch: usize,
}

impl HogSpec {
    /// The geometry for pictures `[H, W, C]`.
    pub fn layout(&self, [height, width, channels]: [usize; 3]) -> Layout {
        Layout { width, height, channels, cell: self.cell, window: self.window }
    }

    fn result(&self, pixels: &Shape) -> Shape {
        Shape::new([pixels[0], self.layout([pixels[1], pixels[2], pixels[3]]).values(self.patch)])
    }
}

/// `[B, N, D]` with other rows.
fn with_rows(x: &Shape, rows: usize) -> Shape {
    Shape::new([x[0], rows, x[2]])
}

/// moue's kernels as part of a backend. [`super`]'s functions on tensors check what these take for granted.
#[backend_extension(Autodiff, Cube, Flex, Fusion)]
pub trait Kernels: Backend {
    /// Pixels `[B, H, W, C]` of u8 -> `[B, values]`
    #[fusion(meta = |pixels, spec| burn::backend::fusion::custom::TensorSpec { shape: spec.result(&pixels.shape), dtype: DType::F32 })]
    fn hog(pixels: IntTensor<Self>, spec: HogSpec) -> FloatTensor<Self> {
        operations::hog::<Self>(operations::numbers::<Self>(pixels), spec)
    }

    /// Pixels `[B, H, W, C]` of u8, scales `[B, 2, C]`, index `[B, K]` of i32 -> `[B, K, P * P * C]`
    #[fusion(dtype = scales, shape = Shape::new([index[0], index[1], patches.values()]))]
    fn patch_pixels(pixels: IntTensor<Self>, scales: FloatTensor<Self>, index: IntTensor<Self>, patches: Patches) -> FloatTensor<Self> {
        operations::patch_pixels::<Self>(operations::numbers::<Self>(pixels), scales, index, patches)
    }

    /// `[B, N, D]`, index `[B, K]` of i32 -> `[B, K, D]`
    #[fusion(dtype = x, shape = with_rows(x, index[1]))]
    fn gather_rows(x: FloatTensor<Self>, index: IntTensor<Self>) -> FloatTensor<Self> {
        operations::gather_rows::<Self>(x, index)
    }

    /// `[B, K, D]`, index `[B, K]` of i32 -> `[B, rows, D]`
    #[fusion(dtype = x, shape = with_rows(x, *rows))]
    fn scatter_rows(x: FloatTensor<Self>, index: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        operations::scatter_rows::<Self>(x, index, rows)
    }

    /// Values by a mask.
    #[fusion(dtype = x, shape = x)]
    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        operations::dropout::<Self>(x, &mask)
    }
}

fn rows_of(x: &Shape, index: &Shape, rows: usize) -> Rows {
    Rows { samples: x[0], rows, kept: index[1], width: x[2] }
}

impl Kernels for Flex {
    fn hog(pixels: IntTensor<Self>, spec: HogSpec) -> FloatTensor<Self> {
        let shape = pixels.shape();
        let layout = spec.layout([shape[1], shape[2], shape[3]]);
        let pixels = pixels.to_contiguous();
        let values = reference::hog::batch(pixels.as_slice().expect("contiguous u8"), layout, spec.patch);
        FloatTensor::<Self>::from_data(TensorData::new(values, spec.result(&shape)))
    }

    fn patch_pixels(pixels: IntTensor<Self>, scales: FloatTensor<Self>, index: IntTensor<Self>, patches: Patches) -> FloatTensor<Self> {
        let [b, k] = [index.shape()[0], index.shape()[1]];
        let (pixels, scales, index) = (pixels.to_contiguous(), scales.to_contiguous(), index.to_contiguous());
        let values = reference::patch_pixels::patch_pixels(
            pixels.as_slice().expect("contiguous u8"),
            scales.as_slice().expect("contiguous f32"),
            index.as_slice().expect("contiguous i32"),
            &patches,
        );
        FloatTensor::<Self>::from_data(TensorData::new(values, [b, k, patches.values()]))
    }

    fn gather_rows(x: FloatTensor<Self>, index: IntTensor<Self>) -> FloatTensor<Self> {
        let rows = rows_of(&x.shape(), &index.shape(), x.shape()[1]);
        let shape = [rows.samples, rows.kept, rows.width];
        let (x, index) = (x.to_contiguous(), index.to_contiguous());
        let list = index.as_slice().expect("contiguous i32");
        let data = match x.dtype() {
            DType::F16 => {
                TensorData::new(reference::patch_gather::gather(x.as_slice::<f16>().expect("contiguous f16"), list, &rows), shape)
            }
            _ => TensorData::new(reference::patch_gather::gather(x.as_slice::<f32>().expect("contiguous f32"), list, &rows), shape),
        };
        FloatTensor::<Self>::from_data(data)
    }

    fn scatter_rows(x: FloatTensor<Self>, index: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        let rows = rows_of(&x.shape(), &index.shape(), rows);
        let shape = [rows.samples, rows.rows, rows.width];
        let (x, index) = (x.to_contiguous(), index.to_contiguous());
        let list = index.as_slice().expect("contiguous i32");
        let data = match x.dtype() {
            DType::F16 => {
                let x = x.as_slice::<f16>().expect("contiguous f16");
                TensorData::new(reference::patch_gather::scatter(x, list, &rows, f16::to_f32, f16::from_f32), shape)
            }
            _ => {
                let x = x.as_slice::<f32>().expect("contiguous f32");
                TensorData::new(reference::patch_gather::scatter(x, list, &rows, |v| v, |v| v), shape)
            }
        };
        FloatTensor::<Self>::from_data(data)
    }

    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        if x.dtype() != DType::F32 {
            return operations::dropout::<Self>(x, &mask);
        }
        let (shape, x) = (x.shape(), x.to_contiguous());
        FloatTensor::<Self>::from_data(TensorData::new(reference::dropout::dropout(x.as_slice().expect("contiguous f32"), &mask), shape))
    }
}

impl Kernels for CubeBackend {
    fn hog(pixels: IntTensor<Self>, spec: HogSpec) -> FloatTensor<Self> {
        let shape = pixels.shape();
        let (layout, result) = (spec.layout([shape[1], shape[2], shape[3]]), spec.result(&shape));
        let Some(queue) = Queue::of(&pixels).filter(|_| result.num_elements() > 0) else {
            return operations::hog::<Self>(operations::numbers::<Self>(pixels), spec);
        };
        let pixels = burn_wgpu::into_contiguous(pixels);
        let weights = operations::values::<Self>(hog::weights(&layout), &pixels.device);
        let out = allocate(&pixels, result, DType::F32);
        let sizes = [layout.bytes(), 0, 4 * layout.values(spec.patch)].map(|v| v as u64);
        queue.submit([hog::launch(&layout, spec.patch, shape[0], operands([&pixels, &weights, &out], sizes))]);
        out
    }

    fn patch_pixels(pixels: IntTensor<Self>, scales: FloatTensor<Self>, index: IntTensor<Self>, patches: Patches) -> FloatTensor<Self> {
        let [b, k] = [index.shape()[0], index.shape()[1]];
        let Some(queue) = Queue::of(&scales).filter(|_| b * k * patches.count() > 0) else {
            return operations::patch_pixels::<Self>(operations::numbers::<Self>(pixels), scales, index, patches);
        };
        let [pixels, scales, index] = [pixels, scales, index].map(burn_wgpu::into_contiguous);
        let out = allocate(&scales, Shape::new([b, k, patches.values()]), DType::F32);
        let sizes = [patches.bytes(), 8 * patches.channels, 4 * k, 4 * k * patches.values()].map(|v| v as u64);
        queue.submit([patch_pixels::launch(&patches, b, k, operands([&pixels, &scales, &index, &out], sizes))]);
        out
    }

    fn gather_rows(x: FloatTensor<Self>, index: IntTensor<Self>) -> FloatTensor<Self> {
        let rows = rows_of(&x.shape(), &index.shape(), x.shape()[1]);
        let row_bytes = rows.width * x.dtype().size();
        let some = rows.samples * rows.rows * rows.kept * rows.width > 0;
        let Some(queue) = Queue::of(&x).filter(|_| some) else {
            return operations::gather_rows::<Self>(x, index);
        };
        let [x, index] = [x, index].map(burn_wgpu::into_contiguous);
        let out = allocate(&x, Shape::new([rows.samples, rows.kept, rows.width]), x.dtype());
        let sizes = [rows.rows * row_bytes, 4 * rows.kept, rows.kept * row_bytes].map(|v| v as u64);
        queue.submit([patch_gather::gather(&rows, row_bytes / 4, operands([&x, &index, &out], sizes))]);
        out
    }

    fn scatter_rows(x: FloatTensor<Self>, index: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        let rows = rows_of(&x.shape(), &index.shape(), rows);
        let row_bytes = rows.width * x.dtype().size();
        let some = rows.samples * rows.rows * rows.kept * rows.width > 0;
        let Some(queue) = Queue::of(&x).filter(|_| some && rows.kept <= patch_gather::MOST_KEPT) else {
            return operations::scatter_rows::<Self>(x, index, rows.rows);
        };
        let [x, index] = [x, index].map(burn_wgpu::into_contiguous);
        let out = allocate(&x, Shape::new([rows.samples, rows.rows, rows.width]), x.dtype());
        let sizes = [rows.kept * row_bytes, 4 * rows.kept, rows.rows * row_bytes].map(|v| v as u64);
        queue.submit([patch_gather::scatter(&rows, row_bytes / 4, x.dtype() == DType::F16, operands([&x, &index, &out], sizes))]);
        out
    }

    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let values = x.shape().num_elements();
        let fits = |queue: &Queue| (1..dropout::MOST).contains(&values) && 4 * values as u64 <= queue.gpu().largest_binding();
        let Some(queue) = Queue::of(&x).filter(|queue| x.dtype() == DType::F32 && fits(queue)) else {
            return operations::dropout::<Self>(x, &mask);
        };
        let x = burn_wgpu::into_contiguous(x);
        let out = allocate(&x, x.shape(), DType::F32);
        queue.submit([dropout::launch(values, &mask, operands([&x, &out], [0; 2]))]);
        out
    }
}

/// Its gradient is dropped by the same mask.
#[derive(Debug)]
struct Dropout;

impl<B: Kernels> Backward<B, 1> for Dropout {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let mask = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::dropout(grad, mask));
    }
}

/// Each of gather and scatter is the other's gradient.
#[derive(Debug)]
struct GatherRows;
#[derive(Debug)]
struct ScatterRows;

impl<B: Kernels> Backward<B, 1> for GatherRows {
    type State = (IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (index, rows) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::scatter_rows(grad, index, rows));
    }
}

impl<B: Kernels> Backward<B, 1> for ScatterRows {
    type State = IntTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let index = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::gather_rows(grad, index));
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    // Pixels are data: nothing is differentiated with respect to them.
    fn hog(pixels: IntTensor<Self>, spec: HogSpec) -> FloatTensor<Self> {
        Self::from_inner(B::hog(pixels, spec))
    }

    fn patch_pixels(pixels: IntTensor<Self>, scales: FloatTensor<Self>, index: IntTensor<Self>, patches: Patches) -> FloatTensor<Self> {
        Self::from_inner(B::patch_pixels(pixels, Self::inner(scales), index, patches))
    }

    fn gather_rows(x: FloatTensor<Self>, index: IntTensor<Self>) -> FloatTensor<Self> {
        let rows = x.primitive().shape()[1];
        match GatherRows.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((index.clone(), rows), B::gather_rows(x.into_primitive(), index)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::gather_rows(x.into_primitive(), index)),
        }
    }

    fn scatter_rows(x: FloatTensor<Self>, index: IntTensor<Self>, rows: usize) -> FloatTensor<Self> {
        match ScatterRows.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(index.clone(), B::scatter_rows(x.into_primitive(), index, rows)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::scatter_rows(x.into_primitive(), index, rows)),
        }
    }

    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        match Dropout.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(mask, B::dropout(x.into_primitive(), mask)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::dropout(x.into_primitive(), mask)),
        }
    }
}
