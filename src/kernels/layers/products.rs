//! Products of matrices on wgpu by our shaders: those of linear layers, and attention.
//!
//! Attention reads queries, keys and values where they lie, each in a tensor of its own or side by side in the output of one linear layer,
//! and writes gradients to where the backward pass wants them: nothing is copied or turned. Its weights have a few columns more than there
//! are keys ([`columns`]).

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

/// An attention of queries over keys and values. T is 3 where each of these is a tensor `[B, N, D]` of its own, and 1 where they lie side
/// by side in one, `[B, N, 3 D]`, as in self-attention.
pub struct Attention<const T: usize> {
    products: Products,
    /// Of scores and weights.
    rows: softmax::Rows,
    tensors: [CubeTensor; T],
    samples: usize,
    queries: usize,
    keys: usize,
    /// D
    width: usize,
    heads: usize,
}

impl<const T: usize> Attention<T> {
    /// None where a device or our kernels do not take it.
    ///
    /// # Panics
    /// With queries, keys and values that do not fit each other.
    pub fn of(tensors: [&CubeTensor; T], heads: usize) -> Option<Self> {
        let shapes = [0, 1, 2].map(|i| tensors[i % T].shape());
        let ([samples, queries, row], keys, dtype) = (shapes[0].dims::<3>(), shapes[1][1], tensors[0].dtype);
        let fit = shapes[1..].iter().all(|shape| *shape == Shape::new([samples, keys, row]));
        assert!(fit, "queries, keys and values of other sizes: {shapes:?}");
        let (width, rows, columns) = (row * T / 3, samples * heads * queries, columns(keys, dtype));
        // Scores, and gradients; what is read is no larger than the gradient of queries.
        let results: Vec<usize> = std::iter::once(rows * columns).chain(tensors.iter().map(|t| t.meta.num_elements())).collect();
        let products = Products::of(&tensors, &results)?;
        let whole = [products.way.columns(), products.way.whole()].iter().all(|n| (width / heads).is_multiple_of(*n));
        let rows = softmax::Rows::of(rows, columns, keys, scale(width, heads), dtype == DType::F16)?;
        let tensors = tensors.map(Clone::clone);
        whole.then(|| Self { products, rows, tensors: tensors.map(into_contiguous), samples, queries, keys, width, heads })
    }

    fn columns(&self) -> usize {
        columns(self.keys, self.tensors[0].dtype)
    }

    /// Queries, keys and values, or their gradients, which lie in `tensors` as they do in this attention's.
    fn parts<'a>(&self, tensors: &'a [CubeTensor; T]) -> [(&'a CubeTensor, Place); 3] {
        let Self { queries, keys, width, heads, .. } = *self;
        let row = 3 / T * width;
        [(0, queries), (1, keys), (2, keys)].map(|(i, tokens)| {
            let first = if T == 1 { i * width } else { 0 };
            (&tensors[i % T], Place { first, row, head: width / heads, sample: tokens * row })
        })
    }

    /// What is read `[B, Q, D]`, or its gradient.
    fn read(&self) -> Place {
        let Self { queries, width, heads, .. } = *self;
        Place { first: 0, row: width, head: width / heads, sample: queries * width }
    }

    /// Scores and weights `[B, H, Q, P]`.
    fn scores(&self) -> Place {
        let Self { queries, heads, .. } = *self;
        let row = self.columns();
        Place { first: 0, row, head: queries * row, sample: heads * queries * row }
    }

    /// Of the products of an attention, each of which turns something else: B, where scores are made of queries and keys; nothing, where
    /// weights gather what keys have for queries; or A, where they gather what queries have for keys.
    fn sizes(&self, turned: Turned) -> Sizes {
        let Self { samples, queries, keys, width, heads, .. } = *self;
        let each = width / heads;
        let (m, n, columns, k) = match turned {
            Turned::B => (queries, keys, self.columns(), each),
            Turned::A => (keys, each, each, queries),
            _ => (queries, each, each, keys),
        };
        Sizes { samples, heads, m, n, columns, k, splits: 1 }
    }

    fn new_scores(&self, dtype: DType) -> CubeTensor {
        allocate(&self.tensors[0], Shape::new([self.samples, self.heads, self.queries, self.columns()]), dtype)
    }

    fn multiply(&self, turned: Turned, operands: [(&CubeTensor, Place); 3]) -> Launch<BufferBinding> {
        self.products.multiply(turned, &self.sizes(turned), operands)
    }

    /// What is read `[B, Q, D]`, and the weights.
    pub fn forward(&self) -> (CubeTensor, CubeTensor) {
        let ([q, k, v], place) = (self.parts(&self.tensors), self.scores());
        let [scores, weights] = [DType::F32, q.0.dtype].map(|dtype| self.new_scores(dtype));
        let read = allocate(q.0, Shape::new([self.samples, self.queries, self.width]), DType::F32);
        self.products.queue.submit([
            self.multiply(Turned::B, [q, k, (&scores, place)]),
            softmax::forward(&self.rows, operands([&scores, &weights], self.rows.forward_sizes())),
            self.multiply(Turned::NEITHER, [(&weights, place), v, (&read, self.read())]),
        ]);
        (read, weights)
    }

    /// Gradients of queries, keys and values, in tensors as these are.
    ///
    /// # Panics
    /// With weights or a gradient of another size.
    pub fn backward(&self, weights: CubeTensor, gradient: CubeTensor) -> [CubeTensor; T] {
        let ([q, k, v], place) = (self.parts(&self.tensors), self.scores());
        let [weights, gradient] = [weights, gradient].map(into_contiguous);
        let [of_weights, of_scores] = [DType::F32, q.0.dtype].map(|dtype| self.new_scores(dtype));
        assert_eq!((weights.shape(), weights.dtype), (of_scores.shape(), of_scores.dtype), "weights of another attention");
        let of_read = (&gradient, self.read());
        assert_eq!(gradient.shape(), Shape::new([self.samples, self.queries, self.width]), "a gradient of another size");
        let results = self.tensors.each_ref().map(|x| allocate(x, x.shape(), DType::F32));
        let [of_q, of_k, of_v] = self.parts(&results);
        self.products.queue.submit([
            self.multiply(Turned::B, [of_read, v, (&of_weights, place)]),
            self.multiply(Turned::A, [(&weights, place), of_read, of_v]),
            softmax::gradient(&self.rows, operands([&weights, &of_weights, &of_scores], self.rows.gradient_sizes())),
            self.multiply(Turned::NEITHER, [(&of_scores, place), k, of_q]),
            self.multiply(Turned::A, [(&of_scores, place), q, of_k]),
        ]);
        results
    }
}
