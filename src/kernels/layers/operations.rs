//! The layers by burn's operations, generic over the backend: what runs where there is no code for slices.

use super::{Layers, Path, Product};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::prelude::Shape;
use burn::tensor::{DType, Slice};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// The same values in another type.
pub fn in_type<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// `[D]` -> `[1, .., D]` of so many dimensions
fn along_last<B: Backend>(x: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let width = x.shape()[0];
    B::float_reshape(x, Shape::from((1..=rank).map(|d| if d == rank { width } else { 1 }).collect::<Vec<_>>()))
}

pub fn affine<B: Layers>(x: FloatTensor<B>, weight: FloatTensor<B>, bias: FloatTensor<B>, relu: bool) -> FloatTensor<B> {
    let x = in_type::<B>(x, weight.dtype());
    let y = in_type::<B>(B::product(x, weight, Product::Forward), bias.dtype());
    let rank = y.shape().num_dims();
    let y = B::float_add(y, along_last::<B>(bias, rank));
    if relu { B::relu(y) } else { y }
}

pub fn product_rounded<B: Layers>(a: FloatTensor<B>, b: FloatTensor<B>, product: Product) -> FloatTensor<B> {
    in_type::<B>(B::product(a, b, product), DType::F16)
}

pub fn affine_rounded<B: Layers>(x: FloatTensor<B>, weight: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    in_type::<B>(affine::<B>(x, weight, bias, false), DType::F16)
}

pub fn affine_activated<B: Layers>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    relu: bool,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let inner = in_type::<B>(affine::<B>(x, weight, bias, relu), DType::F16);
    // A GELU in single precision, of the values that its gradient will see.
    let hidden = if relu { inner.clone() } else { in_type::<B>(B::gelu(in_type::<B>(inner.clone(), DType::F32)), DType::F16) };
    (inner, hidden)
}

pub fn affine_onto<B: Layers>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    residual: FloatTensor<B>,
    path: &Path<B>,
) -> FloatTensor<B> {
    B::float_add(residual, path.along(B::affine(x, weight, bias, false)))
}

pub fn activated_gradient<B: Layers>(weight: FloatTensor<B>, rounded: FloatTensor<B>, inner: FloatTensor<B>, relu: bool) -> FloatTensor<B> {
    let gradient = B::product(rounded, weight, Product::Input);
    let inner = in_type::<B>(inner, DType::F32);
    in_type::<B>(if relu { before_relu::<B>(inner, gradient) } else { B::before_gelu(inner, gradient) }, DType::F16)
}

pub fn before_relu<B: Backend>(output: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    B::relu_backward(output, gradient)
}

/// By the normal distribution's share below x, and its density at x.
pub fn before_gelu<B: Backend>(x: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let error = B::float_erf(B::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
    let share = B::float_mul_scalar(B::float_add_scalar(error, 1.0.into()), 0.5.into());
    let bell = B::float_exp(B::float_mul_scalar(B::float_mul(x.clone(), x.clone()), (-0.5).into()));
    let density = B::float_mul_scalar(bell, (FRAC_1_SQRT_2 * FRAC_2_SQRT_PI / 2.0).into());
    B::float_mul(gradient, B::float_add(share, B::float_mul(x, density)))
}

pub fn product<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>, product: Product) -> FloatTensor<B> {
    let c = match product {
        Product::Forward => B::linear(a, b, None),
        Product::Input => B::linear_x_backward(b, a),
        Product::Parameters => B::linear_weight_backward(a, b),
    };
    in_type::<B>(c, DType::F32)
}

pub fn norm<B: Backend>(x: FloatTensor<B>, gamma: FloatTensor<B>, beta: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    B::layer_norm(x, gamma, Some(beta), epsilon)
}

pub fn norm_gradients<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    gradient: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let last = x.shape().num_dims() - 1;
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, last));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), last);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, epsilon.into())));
    let normal = B::float_mul(centred, scale.clone());
    let scaled = B::float_mul(gradient.clone(), along_last::<B>(gamma, last + 1));
    let first = B::float_mean_dim(scaled.clone(), last);
    let second = B::float_mul(normal.clone(), B::float_mean_dim(B::float_mul(scaled.clone(), normal.clone()), last));
    let of_x = B::float_mul(scale, B::float_sub(B::float_sub(scaled, first), second));
    let of_gamma = B::linear_bias_backward(B::float_mul(gradient.clone(), normal));
    (of_x, of_gamma, B::linear_bias_backward(gradient))
}

pub fn norm_gradients_onto<B: Layers>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    gradient: FloatTensor<B>,
    residual: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (of_x, of_gamma, of_beta) = B::norm_gradients(x, gamma, gradient, epsilon);
    (B::float_add(of_x, residual), of_gamma, of_beta)
}

/// In the second place what comes along the path, in the type of `products`.
pub fn norm_gradients_along<B: Layers>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    gradient: FloatTensor<B>,
    residual: FloatTensor<B>,
    path: &Path<B>,
    epsilon: f64,
    products: DType,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (of_x, of_gamma, of_beta) = norm_gradients_onto::<B>(x, gamma, gradient, residual, epsilon);
    let of_branch = in_type::<B>(path.along(of_x.clone()), products);
    (of_x, of_branch, of_gamma, of_beta)
}

pub fn softmax_of<B: Backend>(scores: FloatTensor<B>, columns: usize, scale: f32, dtype: DType) -> FloatTensor<B> {
    let (rank, shape) = (scores.shape().num_dims(), scores.shape());
    let scores = first::<B>(scores, rank - 1, columns);
    let weights = in_type::<B>(B::softmax(B::float_mul_scalar(scores, scale.into()), rank - 1), dtype);
    longer::<B>(weights, rank - 1, shape[rank - 1])
}

pub fn softmax_gradient<B: Backend>(weights: FloatTensor<B>, gradient: FloatTensor<B>, columns: usize, scale: f32) -> FloatTensor<B> {
    let (last, dtype) = (weights.shape().num_dims() - 1, weights.dtype());
    let width = weights.shape()[last];
    let [weights, gradient] = [weights, gradient].map(|x| first::<B>(in_type::<B>(x, DType::F32), last, columns));
    let mean = B::float_sum_dim(B::float_mul(gradient.clone(), weights.clone()), last);
    let of_scores = B::float_mul(B::float_sub(gradient, mean), B::float_mul_scalar(weights, scale.into()));
    longer::<B>(in_type::<B>(of_scores, dtype), last, width)
}

/// Weights have `columns` columns, of which those beyond the keys are zero.
pub fn attention_with_weights<B: Layers>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    heads: usize,
    columns: usize,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (scale, products, keys) = (scale(q.shape()[2], heads), q.dtype(), k.shape()[1]);
    // Before the product: in half precision there may be no such scores.
    let q = split::<B>(B::float_mul_scalar(q, scale.into()), heads);
    let [k, v] = [k, v].map(|x| longer::<B>(split::<B>(x, heads), 2, columns));
    let scores = in_type::<B>(B::float_matmul(q, B::float_swap_dims(k, 2, 3)), DType::F32);
    let weights = B::softmax_of(scores, keys, 1.0, products);
    (join::<B>(B::float_matmul(weights.clone(), v)), weights)
}

pub fn attention_gradients<B: Layers>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    weights: FloatTensor<B>,
    gradient: FloatTensor<B>,
    heads: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (scale, keys, columns) = (scale(q.shape()[2], heads), k.shape()[1], weights.shape()[3]);
    let [q, gradient] = [q, gradient].map(|x| split::<B>(x, heads));
    let [k, v] = [k, v].map(|x| longer::<B>(split::<B>(x, heads), 2, columns));
    let of_v = B::float_matmul(B::float_swap_dims(weights.clone(), 2, 3), gradient.clone());
    let of_weights = in_type::<B>(B::float_matmul(gradient, B::float_swap_dims(v, 2, 3)), DType::F32);
    let of_scores = B::softmax_gradient(weights, of_weights, keys, scale);
    let of_q = B::float_matmul(of_scores.clone(), k);
    let of_k = B::float_matmul(B::float_swap_dims(of_scores, 2, 3), q);
    let [of_k, of_v] = [of_k, of_v].map(|x| first::<B>(x, 2, keys));
    (join::<B>(of_q), join::<B>(of_k), join::<B>(of_v))
}

pub fn self_attention_gradient<B: Layers>(
    qkv: FloatTensor<B>,
    weights: FloatTensor<B>,
    gradient: FloatTensor<B>,
    heads: usize,
) -> FloatTensor<B> {
    let [q, k, v] = thirds::<B>(qkv);
    let (q, k, v) = attention_gradients::<B>(q, k, v, weights, gradient, heads);
    B::float_cat(vec![q, k, v], 2)
}

/// Of products of queries and keys of so many values, in all heads together.
pub fn scale(width: usize, heads: usize) -> f32 {
    ((width / heads) as f32).powf(-0.5)
}

/// The first `length` along a dimension.
fn first<B: Backend>(x: FloatTensor<B>, dimension: usize, length: usize) -> FloatTensor<B> {
    let shape = x.shape();
    if shape[dimension] == length {
        return x;
    }
    let slices: Vec<Slice> = (0..shape.num_dims()).map(|d| Slice::from(0..if d == dimension { length } else { shape[d] })).collect();
    B::float_slice(x, &slices)
}

/// With zeros along a dimension, up to `length`.
fn longer<B: Backend>(x: FloatTensor<B>, dimension: usize, length: usize) -> FloatTensor<B> {
    let mut shape = x.shape();
    if shape[dimension] == length {
        return x;
    }
    shape[dimension] = length - shape[dimension];
    let zeros = B::float_zeros(shape, &x.device(), x.dtype().into());
    B::float_cat(vec![x, zeros], dimension)
}

/// `[B, N, D]` -> `[B, H, N, D / H]`
fn split<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let x = B::float_reshape(x, Shape::new([shape[0], shape[1], heads, shape[2] / heads]));
    B::float_swap_dims(x, 1, 2)
}

/// `[B, H, N, D / H]` -> `[B, N, D]`
fn join<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    B::float_reshape(B::float_swap_dims(x, 1, 2), Shape::new([shape[0], shape[2], shape[1] * shape[3]]))
}

/// `[B, N, 3 D]` -> three times `[B, N, D]`
pub fn thirds<B: Backend>(qkv: FloatTensor<B>) -> [FloatTensor<B>; 3] {
    let shape = qkv.shape();
    let d = shape[2] / 3;
    std::array::from_fn(|i| {
        B::float_slice(qkv.clone(), &[Slice::from(0..shape[0]), Slice::from(0..shape[1]), Slice::from(i * d..(i + 1) * d)])
    })
}
