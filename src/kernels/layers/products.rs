//! Products of matrices on wgpu by our shaders: those of linear layers, and self-attention.
//!
//! Attention reads queries, keys and values where they lie, side by side in the output of one linear layer, and writes gradients to where
//! that layer's backward pass wants them: nothing is copied or turned. Its weights have a few columns more than there are keys ([`columns`]).

use super::gpu::sum_columns;
use super::operations::scale;
use super::{Product, columns};
use crate::kernels::gpu::Launch;
use crate::kernels::product::{Matrices, Sizes, Turned, Way, launch};
use crate::kernels::queue::{Queue, allocate, operands};
use crate::kernels::softmax;
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::prelude::Shape;
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};
use cubecl::server::BufferBinding;

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
    queue: Queue,
    way: Way,
}

impl Products {
    /// For tensors of one type, and results of so many values of f32; none where a device or our kernels do not take them.
    fn of(tensors: &[&CubeTensor], results: &[usize]) -> Option<Self> {
        let (queue, dtype) = (Queue::of(tensors[0])?, tensors[0].dtype);
        let way = match dtype {
            DType::F16 => queue.gpu().products(true)?,
            DType::F32 => queue.gpu().products(false)?,
            _ => return None,
        };
        let this = Self { queue, way };
        let mut bytes = tensors.iter().map(|t| dtype.size() * t.meta.num_elements()).chain(results.iter().map(|n| 4 * n));
        (bytes.all(|bytes| this.binds(bytes)) && tensors.iter().all(|t| t.dtype == dtype)).then_some(this)
    }

    fn binds(&self, bytes: usize) -> bool {
        bytes > 0 && bytes as u64 <= self.queue.gpu().largest_binding()
    }

    /// C of [`launch`], into `c`.
    fn multiply(&self, turned: Turned, sizes: &Sizes, tensors: [(&CubeTensor, Place); 3]) -> Launch<BufferBinding> {
        let places = tensors.map(|(_, place)| place);
        let mut places = places.into_iter();
        let matrices = operands(tensors.map(|(tensor, _)| tensor), [0; 3]).map(|operand| {
            let Place { first, row, head, sample } = places.next().expect("as many places as tensors");
            Matrices { operand, first, row, head, sample }
        });
        launch(self.way, turned, sizes, matrices)
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
    let fits = whole(width(&ashape)) && whole(width(&bshape)) && n.is_multiple_of(products.way.columns());
    if !fits || !products.binds(4 * sizes.splits * m * n) {
        return None;
    }
    let [a, b] = [a, b].map(|x| into_contiguous(x.clone()));
    let parts = allocate(&a, Shape::new([sizes.splits, m, n]), DType::F32);
    let places = [Place::rows(width(&ashape)), Place::rows(width(&bshape)), Place::rows(n)];
    let mut launches = vec![products.multiply(turned, &sizes, [(&a, places[0]), (&b, places[1]), (&parts, places[2])])];
    let whole = if sizes.splits > 1 { sum_columns(&parts, [sizes.splits, m * n], &mut launches) } else { parts };
    products.queue.submit(launches);
    Some(CubeBackend::float_reshape(whole, shape))
}

/// An attention of tokens over themselves.
pub struct SelfAttention {
    products: Products,
    /// Of scores and weights.
    rows: softmax::Rows,
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
        let (rows, columns) = (samples * heads * tokens, columns(tokens, qkv.dtype));
        let products = Products::of(&[qkv], &[rows * columns, samples * tokens * 3 * width])?;
        let whole = [products.way.columns(), products.way.whole()].iter().all(|n| (width / heads).is_multiple_of(*n));
        let rows = softmax::Rows::of(rows, columns, tokens, scale(width, heads), qkv.dtype == DType::F16)?;
        whole.then(|| Self { products, rows, qkv: into_contiguous(qkv.clone()), samples, tokens, width, heads })
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

    fn new_square(&self, dtype: DType) -> CubeTensor {
        allocate(&self.qkv, Shape::new([self.samples, self.heads, self.tokens, self.columns()]), dtype)
    }

    fn multiply(&self, turned: Turned, squares: bool, operands: [(&CubeTensor, Place); 3]) -> Launch<BufferBinding> {
        self.products.multiply(turned, &self.sizes(squares), operands)
    }

    /// What is read `[B, N, D]`, and the weights.
    pub fn forward(&self) -> (CubeTensor, CubeTensor) {
        let (qkv, square) = (&self.qkv, self.square());
        let (scores, weights) = (self.new_square(DType::F32), self.new_square(qkv.dtype));
        let read = allocate(qkv, Shape::new([self.samples, self.tokens, self.width]), DType::F32);
        self.products.queue.submit([
            self.multiply(Turned::B, true, [(qkv, self.third(0)), (qkv, self.third(1)), (&scores, square)]),
            softmax::forward(&self.rows, operands([&scores, &weights], self.rows.forward_sizes())),
            self.multiply(Turned::NEITHER, false, [(&weights, square), (qkv, self.third(2)), (&read, self.tokens())]),
        ]);
        (read, weights)
    }

    /// The gradient of qkv, `[B, N, 3 D]`.
    ///
    /// # Panics
    /// With weights or a gradient of another size.
    pub fn backward(&self, weights: CubeTensor, gradient: CubeTensor) -> CubeTensor {
        let (qkv, square) = (&self.qkv, self.square());
        let [weights, gradient] = [weights, gradient].map(into_contiguous);
        let (result, of_weights) = (allocate(qkv, qkv.shape(), DType::F32), self.new_square(DType::F32));
        assert_eq!((weights.shape(), weights.dtype), (of_weights.shape(), qkv.dtype), "weights of another attention");
        assert_eq!(gradient.shape(), Shape::new([self.samples, self.tokens, self.width]), "a gradient of another size");
        let of_scores = self.new_square(qkv.dtype);
        self.products.queue.submit([
            self.multiply(Turned::B, true, [(&gradient, self.tokens()), (qkv, self.third(2)), (&of_weights, square)]),
            self.multiply(Turned::A, false, [(&weights, square), (&gradient, self.tokens()), (&result, self.third(2))]),
            softmax::gradient(&self.rows, operands([&weights, &of_weights, &of_scores], self.rows.gradient_sizes())),
            self.multiply(Turned::NEITHER, false, [(&of_scores, square), (qkv, self.third(1)), (&result, self.third(0))]),
            self.multiply(Turned::A, false, [(&of_scores, square), (qkv, self.third(0)), (&result, self.third(1))]),
        ]);
        result
    }
}
