//! Products of matrices on wgpu by our shaders: those of linear layers, and attention.
//!
//! A linear layer's result in half precision is made in the product itself, with bias and activation or with the activation's gradient; and
//! so is its sum with a residual, in single precision.
//! Attention reads queries, keys and values where they lie, each in a tensor of its own or side by side in the output of one linear layer,
//! and writes gradients to where the backward pass wants them: nothing is copied or turned. Its weights have a few columns more than there
//! are keys ([`columns`]). Where there are cooperative matrices, scores stay in the kernel that makes weights of them.

use super::gpu::sum_columns;
use super::operations::scale;
use super::{Path, Product, columns};
use crate::kernels::attention::{self, Sizes as Heads};
use crate::kernels::gpu::Launch;
use crate::kernels::product::{Ending, Matrices, Sizes, Turned, Way, launch};
use crate::kernels::queue::{Queue, allocate, operand, operands};
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
    /// For tensors of one type, and results of so many values of f32 at most; none where a device or our kernels do not take them.
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

    /// C of [`launch`], into the last of the tensors.
    fn multiply(
        &self,
        turned: Turned,
        sizes: &Sizes,
        tensors: [(&CubeTensor, Place); 3],
        ending: Ending<BufferBinding>,
    ) -> Launch<BufferBinding> {
        launch(self.way, turned, sizes, tensors.map(matrices), ending)
    }
}

fn matrices((tensor, Place { first, row, head, sample }): (&CubeTensor, Place)) -> Matrices<BufferBinding> {
    Matrices { operand: operand(tensor), first, row, head, sample }
}

/// A product of a linear layer.
struct Linear {
    products: Products,
    turned: Turned,
    sizes: Sizes,
    /// A and B, and where they lie.
    operands: [(CubeTensor, Place); 2],
    /// Of C.
    shape: Shape,
}

impl Linear {
    /// None where a device or our kernels do not take it.
    fn of(a: &CubeTensor, b: &CubeTensor, product: Product) -> Option<Self> {
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
        let whole = |width: usize| width.is_multiple_of(products.way.whole());
        if !whole(width(&ashape)) || !whole(width(&bshape)) || !n.is_multiple_of(products.way.columns()) {
            return None;
        }
        let operands = [(a, width(&ashape)), (b, width(&bshape))].map(|(x, width)| (into_contiguous(x.clone()), Place::rows(width)));
        Some(Self { products, turned, sizes: Sizes::plain(m, k, n), operands, shape })
    }

    /// The same of f16.
    fn of_halves(a: &CubeTensor, b: &CubeTensor, product: Product) -> Option<Self> {
        Self::of(a, b, product).filter(|_| a.dtype == DType::F16)
    }

    /// A result that is not there yet.
    fn allocate(&self, dtype: DType) -> CubeTensor {
        allocate(&self.operands[0].0, self.shape.clone(), dtype)
    }

    /// C is in so many samples, which only a mask tells from each other.
    fn launch(&self, sizes: &Sizes, c: &CubeTensor, samples: usize, ending: Ending<BufferBinding>) -> Launch<BufferBinding> {
        let [(a, at_a), (b, at_b)] = &self.operands;
        let at_c = Place { sample: sizes.m / samples * sizes.n, ..Place::rows(sizes.n) };
        self.products.multiply(self.turned, sizes, [(a, *at_a), (b, *at_b), (c, at_c)], ending)
    }

    fn submit(&self, c: &CubeTensor, ending: Ending<BufferBinding>) {
        self.products.queue.submit([self.launch(&self.sizes, c, 1, ending)]);
    }

    /// Whether a tensor of f32 holds a bias for each column.
    fn has_bias(&self, bias: &CubeTensor) -> bool {
        bias.dtype == DType::F32 && bias.meta.num_elements() == self.sizes.n
    }
}

/// [`Layers::product`], if it can be had.
pub fn product(a: &CubeTensor, b: &CubeTensor, product: Product) -> Option<CubeTensor> {
    let linear = Linear::of(a, b, product)?;
    let Products { queue, way } = &linear.products;
    let in_parts = linear.sizes.in_parts(*way, queue.gpu().processors());
    let Sizes { m, n, splits, .. } = in_parts;
    let sizes = if linear.products.binds(4 * splits * m * n) { in_parts } else { linear.sizes };
    let parts = allocate(a, Shape::new([sizes.splits, m, n]), DType::F32);
    let mut launches = vec![linear.launch(&sizes, &parts, 1, Ending::Single)];
    let whole = if sizes.splits > 1 { sum_columns(&parts, [sizes.splits, m * n], &mut launches) } else { parts };
    queue.submit(launches);
    Some(CubeBackend::float_reshape(whole, linear.shape))
}

/// [`Layers::product_rounded`], if it can be had.
pub fn product_rounded(a: &CubeTensor, b: &CubeTensor, product: Product) -> Option<CubeTensor> {
    let linear = Linear::of_halves(a, b, product)?;
    let c = linear.allocate(DType::F16);
    linear.submit(&c, Ending::Rounded);
    Some(c)
}

/// [`Layers::affine_rounded`], if it can be had.
pub fn affine_rounded(x: &CubeTensor, weight: &CubeTensor, bias: &CubeTensor) -> Option<CubeTensor> {
    let linear = Linear::of_halves(x, weight, Product::Forward)?;
    if !linear.has_bias(bias) {
        return None;
    }
    let (c, bias) = (linear.allocate(DType::F16), into_contiguous(bias.clone()));
    linear.submit(&c, Ending::Biased(operand(&bias)));
    Some(c)
}

/// [`Layers::affine_activated`], if it can be had.
pub fn affine_activated(x: &CubeTensor, weight: &CubeTensor, bias: &CubeTensor, relu: bool) -> Option<(CubeTensor, CubeTensor)> {
    let linear = Linear::of_halves(x, weight, Product::Forward)?;
    if !linear.has_bias(bias) {
        return None;
    }
    let (inner, hidden, bias) = (linear.allocate(DType::F16), linear.allocate(DType::F16), into_contiguous(bias.clone()));
    let [bias, result] = operands([&bias, &hidden], [0; 2]);
    linear.submit(&inner, Ending::Activated { bias, result, relu });
    Some((inner, hidden))
}

/// [`Layers::affine_onto`], if it can be had.
pub fn affine_onto(
    x: &CubeTensor,
    weight: &CubeTensor,
    bias: &CubeTensor,
    residual: &CubeTensor,
    path: &Path<CubeBackend>,
) -> Option<CubeTensor> {
    let linear = Linear::of_halves(x, weight, Product::Forward)?;
    if !linear.has_bias(bias) || residual.dtype != DType::F32 || residual.shape() != linear.shape || !path.suits(residual) {
        return None;
    }
    let (c, mask) = (linear.allocate(DType::F32), path.mask());
    let samples = mask.as_ref().map_or(1, |mask| mask.meta.num_elements());
    let [bias, residual] = [bias, residual].map(|x| into_contiguous(x.clone()));
    let [bias, residual] = operands([&bias, &residual], [0; 2]);
    let mask = mask.as_ref().map(operand);
    let ending = Ending::Residual { bias, residual, mask };
    linear.products.queue.submit([linear.launch(&linear.sizes, &c, samples, ending)]);
    Some(c)
}

/// [`Layers::activated_gradient`], if it can be had.
pub fn activated_gradient(weight: &CubeTensor, rounded: &CubeTensor, inner: &CubeTensor, relu: bool) -> Option<CubeTensor> {
    let linear = Linear::of_halves(rounded, weight, Product::Input)?;
    if inner.dtype != DType::F16 || inner.meta.num_elements() != linear.shape.num_elements() {
        return None;
    }
    let (c, inner) = (linear.allocate(DType::F16), into_contiguous(inner.clone()));
    linear.submit(&c, Ending::Gradient { inner: operand(&inner), relu });
    Some(c)
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
    /// Scores and their gradients stay in a kernel of their own.
    fused: Option<(Way, Heads)>,
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
        let (each, scale) = (width / heads, scale(width, heads));
        let rows = softmax::Rows::of(rows, columns, keys, scale, dtype == DType::F16)?;
        let fused = if dtype == DType::F16 { products.queue.gpu().attention(each) } else { None };
        let fused = fused.map(|way| (way, Heads { samples, heads, queries, keys, columns, width: each, scale }));
        let tensors = tensors.map(Clone::clone);
        whole.then(|| Self { products, rows, tensors: tensors.map(into_contiguous), samples, queries, keys, width, heads, fused })
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
        Sizes { samples, heads, m, n, columns, k, splits: 1, tall: true }
    }

    fn new_scores(&self, dtype: DType) -> CubeTensor {
        allocate(&self.tensors[0], Shape::new([self.samples, self.heads, self.queries, self.columns()]), dtype)
    }

    /// Scores and their like, in single precision.
    fn scores_of(&self, operands: [(&CubeTensor, Place); 3]) -> Launch<BufferBinding> {
        self.products.multiply(Turned::B, &self.sizes(Turned::B), operands, Ending::Single)
    }

    /// What is gathered by weights, in the type of values.
    fn gather(&self, turned: Turned, operands: [(&CubeTensor, Place); 3]) -> Launch<BufferBinding> {
        let ending = if operands[2].0.dtype == DType::F16 { Ending::Rounded } else { Ending::Single };
        self.products.multiply(turned, &self.sizes(turned), operands, ending)
    }

    /// What is read `[B, Q, D]`, and the weights, both in the type of q, k and v.
    pub fn forward(&self) -> (CubeTensor, CubeTensor) {
        let ([q, k, v], place) = (self.parts(&self.tensors), self.scores());
        let weights = self.new_scores(q.0.dtype);
        let made = allocate(q.0, Shape::new([self.samples, self.queries, self.width]), q.0.dtype);
        let read = (&made, self.read());
        if let Some((way, heads)) = &self.fused {
            self.products.queue.submit([attention::forward(*way, heads, [q, k, v, read].map(matrices), operand(&weights))]);
        } else {
            let scores = self.new_scores(DType::F32);
            self.products.queue.submit([
                self.scores_of([q, k, (&scores, place)]),
                softmax::forward(&self.rows, operands([&scores, &weights], self.rows.forward_sizes())),
                self.gather(Turned::NEITHER, [(&weights, place), v, read]),
            ]);
        }
        (made, weights)
    }

    /// Gradients of queries, keys and values, in tensors as these are and of their type.
    ///
    /// # Panics
    /// With weights or a gradient of another size.
    pub fn backward(&self, weights: CubeTensor, gradient: CubeTensor) -> [CubeTensor; T] {
        let ([q, k, v], place) = (self.parts(&self.tensors), self.scores());
        let [weights, gradient] = [weights, gradient].map(into_contiguous);
        let of_scores = self.new_scores(q.0.dtype);
        assert_eq!((weights.shape(), weights.dtype), (of_scores.shape(), of_scores.dtype), "weights of another attention");
        let of_read = (&gradient, self.read());
        assert_eq!(gradient.shape(), Shape::new([self.samples, self.queries, self.width]), "a gradient of another size");
        let results = self.tensors.each_ref().map(|x| allocate(x, x.shape(), x.dtype));
        let [of_q, of_k, of_v] = self.parts(&results);
        let mut launches = if let Some((way, heads)) = &self.fused {
            let between = operands([&weights, &of_scores], [0; 2]);
            vec![attention::gradient(*way, heads, [of_read, v, k, of_q].map(matrices), between)]
        } else {
            let of_weights = self.new_scores(DType::F32);
            vec![
                self.scores_of([of_read, v, (&of_weights, place)]),
                softmax::gradient(&self.rows, operands([&weights, &of_weights, &of_scores], self.rows.gradient_sizes())),
                self.gather(Turned::NEITHER, [(&of_scores, place), k, of_q]),
            ]
        };
        launches
            .extend([self.gather(Turned::A, [(&weights, place), of_read, of_v]), self.gather(Turned::A, [(&of_scores, place), q, of_k])]);
        self.products.queue.submit(launches);
        results
    }
}
