//! The layers on the CPU, in f32; other types and layouts that are not rows go through burn's operations.

use super::matrix::{Matrix, Place, fresh, new_product, product, replace_product};
use super::operations::{self, scale};
use super::{Layers, Product, passes};
use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::prelude::{Shape, TensorData};
use burn::tensor::DType;

type Values = FloatTensor<Flex>;

/// A tensor of its own memory.
fn tensor(values: Vec<f32>, shape: Shape) -> Values {
    Values::from_data(TensorData::new(values, shape))
}

/// A tensor whose values follow one another, `[.., D]`.
fn rows(x: &Values) -> Values {
    x.to_contiguous()
}

fn slice(x: &Values) -> &[f32] {
    x.as_slice().expect("contiguous f32")
}

/// A shape of another width.
fn wide(shape: &Shape, width: usize) -> Shape {
    let last = shape.num_dims() - 1;
    Shape::from((0..=last).map(|d| if d == last { width } else { shape[d] }).collect::<Vec<_>>())
}

fn all_f32<const N: usize>(tensors: [&Values; N]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// A matrix with columns side by side or, as a transposed weight, one below the other.
///
/// # Panics
/// Where it runs backwards: no weight does.
fn matrix(x: &Values) -> Matrix<'_> {
    let stride = |i: usize| usize::try_from(x.layout().strides()[i]).expect("a matrix that runs forwards");
    Matrix(x.storage(), Place { start: x.layout().start_offset(), row: stride(0), column: stride(1) })
}

/// Tokens `[B, N, D]` of which each is a row, wherever it is.
struct Tokens<'a> {
    values: &'a [f32],
    at: Placed,
}

/// Where tokens `[B, N, D]` lie in a slice.
#[derive(Clone, Copy)]
struct Placed {
    start: usize,
    sample: usize,
    token: usize,
}

impl Placed {
    /// Samples, tokens and values follow one another.
    fn packed(start: usize, tokens: usize, width: usize) -> Self {
        Self { start, sample: tokens * width, token: width }
    }

    /// The matrix `[N, D / H]` of a sample and head.
    fn head(self, sample: usize, first: usize) -> Place {
        Place { start: self.start + sample * self.sample + first, row: self.token, column: 1 }
    }
}

impl<'a> Tokens<'a> {
    /// # Panics
    /// Where a token's values do not follow one another: [`token_rows`] sees to that.
    fn of(x: &'a Values) -> Self {
        let strides = x.layout().strides();
        let at = Placed { start: x.layout().start_offset(), sample: strides[0] as usize, token: strides[1] as usize };
        Self { values: x.storage(), at }
    }

    fn head(&self, sample: usize, first: usize) -> Matrix<'a> {
        Matrix(self.values, self.at.head(sample, first))
    }
}

/// The tensor itself where every token is a row in memory, as in a slice of a wider tensor; else a copy.
fn token_rows(x: Values) -> Values {
    let strides = x.layout().strides();
    if strides[2] == 1 && strides.iter().all(|s| *s >= 0) { x } else { x.to_contiguous() }
}

/// Sizes of an attention.
#[derive(Clone, Copy)]
struct Sizes {
    samples: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    /// D / H
    width: usize,
    scale: f32,
}

impl Sizes {
    fn of(q: &Shape, k: &Shape, heads: usize) -> Self {
        Self { samples: q[0], heads, queries: q[1], keys: k[1], width: q[2] / heads, scale: scale(q[2], heads) }
    }

    /// Samples and heads, and where a head's weights are.
    fn each(&self) -> impl Iterator<Item = (usize, usize, Place)> + use<> {
        let Self { heads, queries, keys, .. } = *self;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads, Place { start: i * queries * keys, row: keys, column: 1 }))
    }
}

/// Weights `[B, H, Q, K]` of all heads.
fn attention_weights(q: &Tokens, k: &Tokens, s: &Sizes) -> Vec<f32> {
    #[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
    // SAFETY: each head's product writes its part, and the parts make up the whole.
    let mut weights = unsafe {
        fresh(s.samples * s.heads * s.queries * s.keys, |out| {
            for (b, h, place) in s.each() {
                let k = k.head(b, h * s.width);
                let turned = Matrix(k.0, k.1.transposed());
                product(out, place, q.head(b, h * s.width), turned, [s.queries, s.width, s.keys], s.scale);
            }
        })
    };
    passes::softmax(&mut weights, s.keys);
    weights
}

/// What heads read by their weights, `[B, Q, D]`.
#[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
fn read(weights: &[f32], v: &Tokens, s: &Sizes) -> Vec<f32> {
    let at = Placed::packed(0, s.queries, s.heads * s.width);
    // SAFETY: each head's product writes its columns of its sample's rows; together these are all values.
    unsafe {
        fresh(s.samples * s.queries * s.heads * s.width, |out| {
            for (b, h, place) in s.each() {
                let weights = Matrix(weights, place);
                product(out, at.head(b, h * s.width), weights, v.head(b, h * s.width), [s.queries, s.keys, s.width], 1.0);
            }
        })
    }
}

/// Gradients of queries, keys and values, written to their places in one vector of `len` values, which they must make up.
#[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
fn attention_gradients(
    [q, k, v, gradient]: [&Tokens; 4],
    weights: &[f32],
    s: &Sizes,
    len: usize,
    [to_q, to_k, to_v]: [Placed; 3],
) -> Vec<f32> {
    let mut of_weights = vec![0.0; s.queries * s.keys];
    let all = Place::rows(s.keys);
    // SAFETY: as in `read`, for each of the three; the callers' places cover the vector.
    unsafe {
        fresh(len, |out| {
            for (b, h, place) in s.each() {
                let first = h * s.width;
                let (gradient, weights) = (gradient.head(b, first), Matrix(weights, place));
                let turned = Matrix(weights.0, place.transposed());
                product(out, to_v.head(b, first), turned, gradient, [s.keys, s.queries, s.width], 1.0);
                let v = v.head(b, first);
                let turned = Matrix(v.0, v.1.transposed());
                replace_product(&mut of_weights, all, gradient, turned, [s.queries, s.width, s.keys]);
                let of_head = &weights.0[place.start..place.start + s.queries * s.keys];
                passes::softmax_backward(of_head, &mut of_weights, s.keys, s.scale);
                product(out, to_q.head(b, first), Matrix(&of_weights, all), k.head(b, first), [s.queries, s.keys, s.width], 1.0);
                let turned = Matrix(&of_weights, all.transposed());
                product(out, to_k.head(b, first), turned, q.head(b, first), [s.keys, s.queries, s.width], 1.0);
            }
        })
    }
}

/// A part of a vector as a tensor of its own.
fn part(values: &Values, start: usize, shape: Shape) -> Values {
    values.narrow(0, start, shape.num_elements()).reshape(shape)
}

impl Layers for Flex {
    fn affine(x: Values, weight: Values, bias: Values, relu: bool) -> Values {
        if !all_f32([&x, &weight, &bias]) {
            return operations::affine::<Self>(x, weight, bias, relu);
        }
        let (x, bias, [k, n]) = (rows(&x), rows(&bias), [weight.shape()[0], weight.shape()[1]]);
        let (input, bias) = (slice(&x), slice(&bias));
        let m = input.len() / k.max(1);
        let mut out = new_product(Matrix(input, Place::rows(k)), matrix(&weight), [m, k, n]);
        if relu {
            passes::shift_relu(&mut out, bias)
        } else {
            passes::shift(&mut out, bias)
        }
        tensor(out, wide(&x.shape(), n))
    }

    fn before_relu(output: Values, mut gradient: Values) -> Values {
        if !all_f32([&output, &gradient]) || !output.is_contiguous() {
            return operations::before_relu::<Self>(output, gradient);
        }
        if !gradient.is_contiguous() || gradient.layout().start_offset() > 0 {
            gradient = gradient.to_contiguous();
        }
        // In place where nobody else holds the gradient.
        passes::relu_backward(slice(&output), gradient.storage_mut());
        gradient
    }

    fn before_gelu(x: Values, gradient: Values) -> Values {
        Self::gelu_backward(x, gradient)
    }

    fn affine_input_gradient(weight: Values, rounded: Values) -> Values {
        if !all_f32([&weight, &rounded]) {
            return Self::product(rounded, weight, Product::Input);
        }
        let (gradient, [k, n]) = (rows(&rounded), [weight.shape()[0], weight.shape()[1]]);
        let values = slice(&gradient);
        let weight = matrix(&weight);
        let size = [values.len() / n.max(1), n, k];
        tensor(new_product(Matrix(values, Place::rows(n)), Matrix(weight.0, weight.1.transposed()), size), wide(&gradient.shape(), k))
    }

    fn affine_parameter_gradients(x: Values, rounded: Values, gradient: Values) -> (Values, Values) {
        if !all_f32([&x, &rounded, &gradient]) {
            return (Self::product(x, rounded, Product::Parameters), Self::column_sums(gradient));
        }
        let (x, gradient) = (rows(&x), rows(&gradient));
        let width = |t: &Values| t.shape()[t.shape().num_dims() - 1];
        let (k, n) = (width(&x), width(&gradient));
        let (input, output) = (slice(&x), slice(&gradient));
        let size = [k, input.len() / k.max(1), n];
        let weight = new_product(Matrix(input, Place::rows(k).transposed()), Matrix(output, Place::rows(n)), size);
        (tensor(weight, Shape::new([k, n])), tensor(passes::column_sums(output, n), Shape::new([n])))
    }

    fn norm(x: Values, gamma: Values, beta: Values, epsilon: f64) -> Values {
        if !all_f32([&x, &gamma, &beta]) {
            return operations::norm::<Self>(x, gamma, beta, epsilon);
        }
        let [x, gamma, beta] = [x, gamma, beta].map(|t| rows(&t));
        let len = slice(&x).len();
        assert!(len.is_multiple_of(slice(&gamma).len()) && slice(&beta).len() == slice(&gamma).len(), "rows of another width");
        #[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
        // SAFETY: every value of every row is written, and there are only whole rows.
        let out = unsafe { fresh(len, |out| passes::layer_norm(out, slice(&x), slice(&gamma), slice(&beta), epsilon as f32)) };
        tensor(out, x.shape())
    }

    fn norm_gradients(x: Values, gamma: Values, gradient: Values, epsilon: f64) -> (Values, Values, Values) {
        if !all_f32([&x, &gamma, &gradient]) {
            return operations::norm_gradients::<Self>(x, gamma, gradient, epsilon);
        }
        let [x, gamma, gradient] = [x, gamma, gradient].map(|t| rows(&t));
        let (rows, of_rows, scale) = (slice(&x), slice(&gradient), slice(&gamma));
        let (mut of_gamma, mut of_beta) = (vec![0.0; scale.len()], vec![0.0; scale.len()]);
        assert!(rows.len().is_multiple_of(scale.len()) && of_rows.len() == rows.len(), "rows of another width");
        #[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
        // SAFETY: as above.
        let of_x = unsafe {
            fresh(rows.len(), |out| {
                passes::layer_norm_backward(out, &mut of_gamma, &mut of_beta, rows, of_rows, scale, epsilon as f32);
            })
        };
        (tensor(of_x, x.shape()), tensor(of_gamma, gamma.shape()), tensor(of_beta, gamma.shape()))
    }

    fn attention_with_weights(q: Values, k: Values, v: Values, heads: usize) -> (Values, Values) {
        if !all_f32([&q, &k, &v]) {
            let keys = k.shape()[1];
            return operations::attention_with_weights::<Self>(q, k, v, heads, keys);
        }
        let s = Sizes::of(&q.shape(), &k.shape(), heads);
        let shape = q.shape();
        let [q, k, v] = [q, k, v].map(token_rows);
        let weights = attention_weights(&Tokens::of(&q), &Tokens::of(&k), &s);
        let out = read(&weights, &Tokens::of(&v), &s);
        (tensor(out, shape), tensor(weights, Shape::new([s.samples, heads, s.queries, s.keys])))
    }

    fn attention_gradients(q: Values, k: Values, v: Values, weights: Values, gradient: Values, heads: usize) -> (Values, Values, Values) {
        if !all_f32([&q, &k, &v, &weights, &gradient]) {
            return operations::attention_gradients::<Self>(q, k, v, weights, gradient, heads);
        }
        let s = Sizes::of(&q.shape(), &k.shape(), heads);
        let (like_q, like_k) = (q.shape(), k.shape());
        let [q, k, v, gradient] = [q, k, v, gradient].map(token_rows);
        let ends =
            [like_q.num_elements(), like_q.num_elements() + like_k.num_elements(), like_q.num_elements() + 2 * like_k.num_elements()];
        let width = heads * s.width;
        let places = [Placed::packed(0, s.queries, width), Placed::packed(ends[0], s.keys, width), Placed::packed(ends[1], s.keys, width)];
        let inputs = [&q, &k, &v, &gradient].map(Tokens::of);
        let all = attention_gradients(inputs.each_ref(), slice(&rows(&weights)), &s, ends[2], places);
        let all = tensor(all, Shape::new([ends[2]]));
        (part(&all, 0, like_q), part(&all, ends[0], like_k.clone()), part(&all, ends[1], like_k))
    }

    fn self_attention_gradient(qkv: Values, weights: Values, gradient: Values, heads: usize) -> Values {
        if !all_f32([&qkv, &weights, &gradient]) {
            return operations::self_attention_gradient::<Self>(qkv, weights, gradient, heads);
        }
        let (shape, qkv) = (qkv.shape(), rows(&qkv));
        let [n, d] = [shape[1], shape[2] / 3];
        let s = Sizes::of(&Shape::new([shape[0], n, d]), &Shape::new([shape[0], n, d]), heads);
        let places = [0, d, 2 * d].map(|start| Placed { start, sample: n * 3 * d, token: 3 * d });
        let [q, k, v] = places.map(|at| Tokens { values: slice(&qkv), at });
        let gradient = token_rows(gradient);
        let gradient = Tokens::of(&gradient);
        let values = attention_gradients([&q, &k, &v, &gradient], slice(&rows(&weights)), &s, shape.num_elements(), places);
        tensor(values, shape)
    }
}
