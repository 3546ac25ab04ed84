//! Products of matrices on wgpu by our shaders: those of linear layers, and self-attention.
//!
//! Attention reads queries, keys and values where they lie, side by side in the output of one linear layer, and writes gradients to where
//! that layer's backward pass wants them: nothing is copied or turned. Its weights have a few columns more than there are keys ([`columns`]).

use super::gpu::column_sums;
use super::operations::scale;
use super::{Layers, Product, columns};
use crate::kernels::backends::{allocate, gpu_of, on_buffers};
use crate::kernels::gpu::Gpu;
use crate::kernels::product::{Matrices, Sizes, Turned, Way, launch};
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::prelude::Shape;
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};
use std::sync::Arc;

/// Where matrices lie in a tensor, as in [`Matrices`].
#[derive(Clone, Copy, Default)]
struct Place {
    first: usize,
    row: usize,
    head: usize,
    sample: usize,
}

impl Place {
    /// Rows one after the other.
    fn rows(row: usize) -> Self {
        Self { row, ..Self::default() }
    }
}

/// How matrices of a tensor's type are multiplied on its device.
struct Products {
    gpu: Arc<Gpu>,
    way: Way,
}

impl Products {
    /// For tensors of one type, and results of so many values of f32; none where a device or our kernels do not take them.
    fn of(tensors: &[&CubeTensor], results: &[usize]) -> Option<Self> {
        let (gpu, dtype) = (gpu_of(tensors[0])?, tensors[0].dtype);
        let way = match dtype {
            DType::F16 => gpu.products(true)?,
            DType::F32 => gpu.products(false)?,
            _ => return None,
        };
        let mut bytes = tensors.iter().map(|t| dtype.size() * t.meta.num_elements()).chain(results.iter().map(|n| 4 * n));
        let fits = bytes.all(|bytes| bytes > 0 && bytes as u64 <= gpu.largest_binding());
        (fits && tensors.iter().all(|t| t.dtype == dtype)).then_some(Self { gpu, way })
    }

    /// C of [`launch`], into `c`.
    fn multiply(&self, turned: Turned, sizes: &Sizes, [a, b, c]: [(&CubeTensor, Place); 3]) {
        on_buffers([(a.0, 0), (b.0, 0), (c.0, 0)], |operands| {
            let mut places = [a.1, b.1, c.1].into_iter();
            let matrices = operands.map(|operand| {
                let Place { first, row, head, sample } = places.next().expect("as many places as tensors");
                Matrices { operand, first, row, head, sample }
            });
            launch(&self.gpu, self.way, turned, sizes, matrices)
        });
    }
}

/// [`Layers::product`], if it can be had.
pub fn product(a: &CubeTensor, b: &CubeTensor, product: Product) -> Option<CubeTensor> {
    let (ashape, bshape) = (a.shape(), b.shape());
    let shape = product.shape(&ashape, &bshape);
    let width = |shape: &Shape| shape[shape.num_dims() - 1];
    let rows = |shape: &Shape| shape.num_elements() / width(shape).max(1);
    let (m, k, n, turned) = match product {
        Product::Forward => (rows(&ashape), width(&ashape), bshape[1], Turned::NEITHER),
        Product::Input => (rows(&ashape), width(&ashape), bshape[0], Turned::B),
        Product::Parameters => (width(&ashape), rows(&ashape), width(&bshape), Turned::A),
    };
    let products = Products::of(&[a, b], &[m * n])?;
    let sizes = Sizes::plain(products.way, m, k, n);
    let whole = |width: usize| width.is_multiple_of(products.way.whole());
    if !whole(width(&ashape)) || !whole(width(&bshape)) || !n.is_multiple_of(products.way.columns()) {
        return None;
    }
    let [a, b] = [a, b].map(|x| into_contiguous(x.clone()));
    let parts = allocate(&a, Shape::new([sizes.splits, m, n]), DType::F32);
    let places = [Place::rows(width(&ashape)), Place::rows(width(&bshape)), Place::rows(n)];
    products.multiply(turned, &sizes, [(&a, places[0]), (&b, places[1]), (&parts, places[2])]);
    let whole = if sizes.splits > 1 { column_sums(&parts, sizes.splits, m * n)? } else { parts };
    Some(CubeBackend::float_reshape(whole, shape))
}

/// An attention of tokens over themselves.
pub struct SelfAttention {
    products: Products,
    /// `[B, N, 3 D]`
    qkv: CubeTensor,
    samples: usize,
    tokens: usize,
    /// D
    width: usize,
    heads: usize,
}

impl SelfAttention {
    /// None where a device or our kernels do not take it.
    pub fn of(qkv: &CubeTensor, heads: usize) -> Option<Self> {
        let shape = qkv.shape();
        let (samples, tokens, width) = (shape[0], shape[1], shape[2] / 3);
        let squares = samples * heads * tokens * columns(tokens, qkv.dtype);
        let products = Products::of(&[qkv], &[squares, samples * tokens * 3 * width])?;
        let whole = [products.way.columns(), products.way.whole()].iter().all(|n| (width / heads).is_multiple_of(*n));
        whole.then(|| Self { products, qkv: into_contiguous(qkv.clone()), samples, tokens, width, heads })
    }

    fn columns(&self) -> usize {
        columns(self.tokens, self.qkv.dtype)
    }

    /// Queries (0), keys (1) or values (2) in `[B, N, 3 D]`.
    fn third(&self, i: usize) -> Place {
        let Self { tokens, width, heads, .. } = *self;
        Place { first: i * width, row: 3 * width, head: width / heads, sample: tokens * 3 * width }
    }

    /// Tokens `[B, N, D]`.
    fn tokens(&self) -> Place {
        let Self { tokens, width, heads, .. } = *self;
        Place { first: 0, row: width, head: width / heads, sample: tokens * width }
    }

    /// Scores and weights `[B, H, N, P]`.
    fn square(&self) -> Place {
        let Self { tokens, heads, .. } = *self;
        let row = self.columns();
        Place { first: 0, row, head: tokens * row, sample: heads * tokens * row }
    }

    /// Of products of tokens with tokens, and of weights with tokens.
    fn sizes(&self, squares: bool) -> Sizes {
        let Self { samples, tokens, width, heads, .. } = *self;
        let each = width / heads;
        let (n, columns, k) = if squares { (tokens, self.columns(), each) } else { (each, each, tokens) };
        Sizes { samples, heads, m: tokens, n, columns, k, splits: 1 }
    }

    fn new_square(&self) -> CubeTensor {
        allocate(&self.qkv, Shape::new([self.samples, self.heads, self.tokens, self.columns()]), DType::F32)
    }

    fn multiply(&self, turned: Turned, squares: bool, operands: [(&CubeTensor, Place); 3]) {
        self.products.multiply(turned, &self.sizes(squares), operands);
    }

    /// What is read `[B, N, D]`, and the weights.
    pub fn forward(&self) -> (CubeTensor, CubeTensor) {
        let (qkv, square) = (&self.qkv, self.square());
        let scores = self.new_square();
        self.multiply(Turned::B, true, [(qkv, self.third(0)), (qkv, self.third(1)), (&scores, square)]);
        let weights = CubeBackend::softmax_of(scores, self.tokens, scale(self.width, self.heads), qkv.dtype);
        let read = allocate(qkv, Shape::new([self.samples, self.tokens, self.width]), DType::F32);
        self.multiply(Turned::NEITHER, false, [(&weights, square), (qkv, self.third(2)), (&read, self.tokens())]);
        (read, weights)
    }

    /// The gradient of qkv, `[B, N, 3 D]`.
    pub fn backward(&self, weights: CubeTensor, gradient: CubeTensor) -> CubeTensor {
        let (qkv, square) = (&self.qkv, self.square());
        let [weights, gradient] = [weights, gradient].map(into_contiguous);
        let result = allocate(qkv, qkv.shape(), DType::F32);
        let of_weights = self.new_square();
        self.multiply(Turned::B, true, [(&gradient, self.tokens()), (qkv, self.third(2)), (&of_weights, square)]);
        self.multiply(Turned::A, false, [(&weights, square), (&gradient, self.tokens()), (&result, self.third(2))]);
        let of_scores = CubeBackend::softmax_gradient(weights, of_weights, self.tokens, scale(self.width, self.heads));
        self.multiply(Turned::NEITHER, false, [(&of_scores, square), (qkv, self.third(1)), (&result, self.third(0))]);
        self.multiply(Turned::A, false, [(&of_scores, square), (qkv, self.third(0)), (&result, self.third(1))]);
        result
    }
}
