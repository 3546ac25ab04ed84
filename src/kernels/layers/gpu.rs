//! The layers on a GPU by our shaders: products ([`products`](super::products)), norm, softmax and sums of columns, in f32; products,
//! weights of attention, a norm's result and what is summed also in f16. Where a shader does not fit, burn's operations do, apart from what
//! is submitted together.

use super::super::queue::{Queue, allocate, apart, operand, operands, together};
use super::super::{column_sums as kernel, gpu::Launch, layer_norm, softmax};
use super::block::{Block, Inside, Parameters};
use super::products::{self, Attention};
use super::{Layers, Path, Product, columns, operations};
use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::prelude::Shape;
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};
use cubecl::server::BufferBinding;

fn all_f32<const N: usize>(tensors: [&CubeTensor; N]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// R and D of `[.., D]`, where D is not 0.
fn sizes(x: &CubeTensor) -> Option<[usize; 2]> {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    Some([shape.num_elements().checked_div(width)?, width])
}

/// Checked: a tensor that is too small would be read beyond its end.
fn norm_rows<const N: usize>(x: &CubeTensor, vectors: [&CubeTensor; N], epsilon: f64) -> Option<layer_norm::Rows> {
    let [rows, width] = sizes(x)?;
    assert!(vectors.iter().all(|v| v.shape().num_elements() == width), "rows of another width");
    layer_norm::Rows::of(rows, width, epsilon)
}

fn softmax_rows(x: &CubeTensor, columns: usize, scale: f32, weights: DType) -> Option<softmax::Rows> {
    let [rows, width] = sizes(x)?;
    assert!((1..=width).contains(&columns), "{columns} of {width} columns");
    softmax::Rows::of(rows, width, columns, scale, weights == DType::F16).filter(|_| matches!(weights, DType::F32 | DType::F16))
}

/// The layer norm of f32 in `dtype`, which is f32 or f16; none where the shader does not fit.
fn norm(x: &CubeTensor, gamma: &CubeTensor, beta: &CubeTensor, epsilon: f64, dtype: DType) -> Option<CubeTensor> {
    let (queue, halves) = (Queue::of(x)?, dtype == DType::F16);
    let rows = norm_rows(x, [gamma, beta], epsilon).filter(|rows| all_f32([x, gamma, beta]) && (!halves || rows.halves()))?;
    let [x, gamma, beta] = [x, gamma, beta].map(|t| into_contiguous(t.clone()));
    let out = allocate(&x, x.shape(), dtype);
    queue.submit([layer_norm::norm(&rows, halves, operands([&x, &gamma, &beta, &out], rows.norm_sizes(halves)))]);
    Some(out)
}

impl Path<CubeBackend> {
    /// Whether it is one for branches `[B, ..]` like this one: a mask would be `[B]` of f32.
    pub fn suits(&self, branch: &CubeTensor) -> bool {
        let (shape, of_samples) = (branch.shape(), |mask: &CubeTensor, n| mask.shape()[0] == n && mask.meta.num_elements() == n);
        match self {
            Self::Whole => true,
            Self::Masked(mask) => shape.num_dims() > 1 && of_samples(mask, shape[0]) && all_f32([mask]),
        }
    }

    /// Its mask, contiguous.
    pub fn mask(&self) -> Option<CubeTensor> {
        match self {
            Self::Whole => None,
            Self::Masked(mask) => Some(into_contiguous(mask.clone())),
        }
    }
}

/// Gradients of a norm of f32, of which those of gamma and beta are summed in chunks first.
struct NormGradients {
    queue: Queue,
    rows: layer_norm::Rows,
    /// x, gamma and the gradient of the output.
    sources: [CubeTensor; 3],
    of_x: CubeTensor,
    chunks: CubeTensor,
}

impl NormGradients {
    /// None where the shader does not fit.
    fn of(x: &CubeTensor, gamma: &CubeTensor, gradient: &CubeTensor, epsilon: f64) -> Option<Self> {
        assert_eq!(x.shape(), gradient.shape(), "a gradient of another size");
        let rows = norm_rows(x, [gamma], epsilon).filter(|_| all_f32([x, gamma, gradient]))?;
        let queue = Queue::of(x)?;
        let of_x = allocate(x, x.shape(), DType::F32);
        let chunks = allocate(x, Shape::new([rows.chunks(), 2, gamma.shape().num_elements()]), DType::F32);
        Some(Self { queue, rows, sources: [x, gamma, gradient].map(|t| into_contiguous(t.clone())), of_x, chunks })
    }

    /// The same where it also fits a residual.
    fn onto(x: &CubeTensor, gamma: &CubeTensor, gradient: &CubeTensor, residual: &CubeTensor, epsilon: f64) -> Option<Self> {
        if residual.shape() != x.shape() || !all_f32([residual]) {
            return None;
        }
        Self::of(x, gamma, gradient, epsilon)
    }

    /// Gradients of x, gamma and beta, of which a launch writes the first and the chunks of the others.
    fn submit(self, launch: Launch<BufferBinding>) -> (CubeTensor, CubeTensor, CubeTensor) {
        let Self { queue, rows, sources: [_, gamma, _], of_x, chunks } = self;
        let [of_gamma, of_beta] = [(); 2].map(|()| allocate(&gamma, Shape::new([gamma.shape().num_elements()]), DType::F32));
        queue.submit([launch, layer_norm::sums(&rows, operands([&chunks, &of_gamma, &of_beta], [0; 3]))]);
        (of_x, of_gamma, of_beta)
    }
}

/// Launches, behind those that came before, of the sums of the rows of contiguous `[R, D]` in a fixed order: `[D]` of f32. R and D are not
/// 0; values are f32, or f16 where D is even.
pub fn sum_columns(x: &CubeTensor, [mut rows, width]: [usize; 2], launches: &mut Vec<Launch<BufferBinding>>) -> CubeTensor {
    let mut x = x.clone();
    loop {
        let halves = x.dtype() == DType::F16;
        let chunks = kernel::chunks(rows, width, halves);
        let sums = allocate(&x, Shape::new([chunks, width]), DType::F32);
        launches.push(kernel::launch(rows, width, chunks, halves, operands([&x, &sums], [0; 2])));
        (x, rows) = (sums, chunks);
        if chunks == 1 {
            return CubeBackend::float_reshape(x, Shape::new([width]));
        }
    }
}

impl Layers for CubeBackend {
    fn column_sums(x: CubeTensor) -> CubeTensor {
        let dtype = x.dtype();
        let fits = |(queue, [rows, width]): &(Queue, [usize; 2])| {
            let taken = dtype == DType::F32 || (dtype == DType::F16 && width.is_multiple_of(2));
            // The sums of a single row of f16 are larger than it.
            let bytes = width * (dtype.size() * rows).max(DType::F32.size());
            taken && *rows > 0 && bytes as u64 <= queue.gpu().largest_binding()
        };
        let Some((queue, sizes)) = Queue::of(&x).zip(sizes(&x)).filter(fits) else {
            return apart(|| Self::linear_bias_backward(operations::in_type::<Self>(x, DType::F32)));
        };
        let mut launches = Vec::new();
        let sums = sum_columns(&into_contiguous(x), sizes, &mut launches);
        queue.submit(launches);
        sums
    }

    fn product(a: CubeTensor, b: CubeTensor, kind: Product) -> CubeTensor {
        products::product(&a, &b, kind).unwrap_or_else(|| apart(|| operations::product::<Self>(a, b, kind)))
    }

    fn product_rounded(a: CubeTensor, b: CubeTensor, kind: Product) -> CubeTensor {
        products::product_rounded(&a, &b, kind).unwrap_or_else(|| apart(|| operations::product_rounded::<Self>(a, b, kind)))
    }

    fn affine_rounded(x: CubeTensor, weight: CubeTensor, bias: CubeTensor) -> CubeTensor {
        let made = products::affine_rounded(&x, &weight, &bias);
        made.unwrap_or_else(|| apart(|| operations::affine_rounded::<Self>(x, weight, bias)))
    }

    fn affine_activated(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, relu: bool) -> (CubeTensor, CubeTensor) {
        let made = products::affine_activated(&x, &weight, &bias, relu);
        made.unwrap_or_else(|| apart(|| operations::affine_activated::<Self>(x, weight, bias, relu)))
    }

    fn affine_onto(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, residual: CubeTensor, path: Path<Self>) -> CubeTensor {
        let made = products::affine_onto(&x, &weight, &bias, &residual, &path);
        made.unwrap_or_else(|| apart(|| operations::affine_onto::<Self>(x, weight, bias, residual, &path)))
    }

    fn activated_gradient(weight: CubeTensor, rounded: CubeTensor, inner: CubeTensor, relu: bool) -> CubeTensor {
        let made = products::activated_gradient(&weight, &rounded, &inner, relu);
        made.unwrap_or_else(|| apart(|| operations::activated_gradient::<Self>(weight, rounded, inner, relu)))
    }

    fn attention_with_weights(q: CubeTensor, k: CubeTensor, v: CubeTensor, heads: usize) -> (CubeTensor, CubeTensor) {
        if let Some(attention) = Attention::of([&q, &k, &v], heads) {
            return attention.forward();
        }
        let columns = columns(k.shape()[1], q.dtype);
        apart(|| operations::attention_with_weights::<Self>(q, k, v, heads, columns))
    }

    fn attention_gradients(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        weights: CubeTensor,
        gradient: CubeTensor,
        heads: usize,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if gradient.dtype == q.dtype
            && let Some(attention) = Attention::of([&q, &k, &v], heads)
        {
            return attention.backward(weights, gradient).into();
        }
        apart(|| operations::attention_gradients::<Self>(q, k, v, weights, gradient, heads))
    }

    fn self_attention_with_weights(qkv: CubeTensor, heads: usize) -> (CubeTensor, CubeTensor) {
        if let Some(attention) = Attention::of([&qkv], heads) {
            return attention.forward();
        }
        apart(|| {
            let [q, k, v] = operations::thirds::<Self>(qkv);
            Self::attention_with_weights(q, k, v, heads)
        })
    }

    fn self_attention_gradient(qkv: CubeTensor, weights: CubeTensor, gradient: CubeTensor, heads: usize) -> CubeTensor {
        if gradient.dtype == qkv.dtype
            && let Some(attention) = Attention::of([&qkv], heads)
        {
            let [of_qkv] = attention.backward(weights, gradient);
            return of_qkv;
        }
        apart(|| {
            let [q, k, v] = operations::thirds::<Self>(qkv);
            let (q, k, v) = Self::attention_gradients(q, k, v, weights, gradient, heads);
            Self::float_cat(vec![q, k, v], 2)
        })
    }

    fn norm(x: CubeTensor, gamma: CubeTensor, beta: CubeTensor, epsilon: f64) -> CubeTensor {
        norm(&x, &gamma, &beta, epsilon, DType::F32).unwrap_or_else(|| apart(|| operations::norm::<Self>(x, gamma, beta, epsilon)))
    }

    fn norm_rounded(x: CubeTensor, gamma: CubeTensor, beta: CubeTensor, epsilon: f64) -> CubeTensor {
        norm(&x, &gamma, &beta, epsilon, DType::F16)
            .unwrap_or_else(|| apart(|| operations::in_type::<Self>(Self::norm(x, gamma, beta, epsilon), DType::F16)))
    }

    fn norm_gradients(x: CubeTensor, gamma: CubeTensor, gradient: CubeTensor, epsilon: f64) -> (CubeTensor, CubeTensor, CubeTensor) {
        let Some(made) = NormGradients::of(&x, &gamma, &gradient, epsilon) else {
            return apart(|| operations::norm_gradients::<Self>(x, gamma, gradient, epsilon));
        };
        let ([x, gamma, gradient], sizes) = (&made.sources, made.rows.gradient_sizes());
        let launch = layer_norm::gradients(&made.rows, operands([x, gamma, gradient, &made.of_x, &made.chunks], sizes));
        made.submit(launch)
    }

    fn norm_gradients_onto(
        x: CubeTensor,
        gamma: CubeTensor,
        gradient: CubeTensor,
        residual: CubeTensor,
        epsilon: f64,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let Some(made) = NormGradients::onto(&x, &gamma, &gradient, &residual, epsilon) else {
            return apart(|| operations::norm_gradients_onto::<Self>(x, gamma, gradient, residual, epsilon));
        };
        let ([x, gamma, gradient], residual, sizes) = (&made.sources, into_contiguous(residual), made.rows.onto_sizes());
        let launch = layer_norm::gradients_onto(&made.rows, operands([x, gamma, gradient, &residual, &made.of_x, &made.chunks], sizes));
        made.submit(launch)
    }

    fn norm_gradients_along(
        x: CubeTensor,
        gamma: CubeTensor,
        gradient: CubeTensor,
        residual: CubeTensor,
        path: Path<Self>,
        epsilon: f64,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        // The launch binds whole tensors.
        let bytes = (DType::F32.size() * x.shape().num_elements()) as u64;
        let fits = |made: &NormGradients| made.rows.halves() && path.suits(&x) && bytes <= made.queue.gpu().largest_binding();
        let Some(made) = NormGradients::onto(&x, &gamma, &gradient, &residual, epsilon).filter(fits) else {
            return apart(|| operations::norm_gradients_along::<Self>(x, gamma, gradient, residual, &path, epsilon, DType::F16));
        };
        let ([x, gamma, gradient], residual) = (&made.sources, into_contiguous(residual));
        let (branch, mask) = (allocate(x, x.shape(), DType::F16), path.mask());
        let sources = operands([x, gamma, gradient, &residual], [0; 4]);
        let results = operands([&made.of_x, &branch, &made.chunks], [0; 3]);
        let mask = mask.as_ref().map(operand);
        let launch = layer_norm::gradients_along(&made.rows, sources, mask, results);
        let (of_x, of_gamma, of_beta) = made.submit(launch);
        (of_x, branch, of_gamma, of_beta)
    }

    fn softmax_of(scores: CubeTensor, columns: usize, scale: f32, dtype: DType) -> CubeTensor {
        let rows = softmax_rows(&scores, columns, scale, dtype).filter(|_| all_f32([&scores]));
        let (Some(queue), Some(rows)) = (Queue::of(&scores), rows) else {
            return apart(|| operations::softmax_of::<Self>(scores, columns, scale, dtype));
        };
        let scores = into_contiguous(scores);
        let weights = allocate(&scores, scores.shape(), dtype);
        queue.submit([softmax::forward(&rows, operands([&scores, &weights], rows.forward_sizes()))]);
        weights
    }

    fn softmax_gradient(weights: CubeTensor, gradient: CubeTensor, columns: usize, scale: f32) -> CubeTensor {
        assert_eq!(weights.shape(), gradient.shape(), "a gradient of another size");
        let rows = softmax_rows(&weights, columns, scale, weights.dtype()).filter(|_| all_f32([&gradient]));
        let (Some(queue), Some(rows)) = (Queue::of(&weights), rows) else {
            return apart(|| operations::softmax_gradient::<Self>(weights, gradient, columns, scale));
        };
        let [weights, gradient] = [weights, gradient].map(into_contiguous);
        let of_scores = allocate(&weights, weights.shape(), weights.dtype());
        queue.submit([softmax::gradient(&rows, operands([&weights, &gradient, &of_scores], rows.gradient_sizes()))]);
        of_scores
    }

    // All within these are our shaders, but for what goes apart.
    fn half_block(x: CubeTensor, block: Block<Self>) -> CubeTensor {
        together(|| block.forward_by_layers(x))
    }

    fn half_inside(x: CubeTensor, block: Block<Self>) -> Inside<Self> {
        together(|| block.inside_by_layers(x))
    }

    fn half_gradients(
        x: CubeTensor,
        block: Block<Self>,
        inside: Inside<Self>,
        gradient: CubeTensor,
        of_branch: CubeTensor,
    ) -> (CubeTensor, Parameters<Self>) {
        together(|| block.all_gradients_by_layers(x, inside, gradient, of_branch))
    }
}
