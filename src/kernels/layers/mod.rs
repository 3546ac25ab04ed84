//! A transformer's layers in one step each: linear with ReLU, layer norm, attention; and a whole block ([`block`]), which keeps what is
//! inside for the backward pass, or computes it twice to save memory.
//!
//! burn takes them as several operations, each with a tensor of its own in memory, forwards and again backwards. On the CPU, where memory
//! is what limits these networks, that costs more than the matrix products themselves. Here a layer is one operation with a gradient
//! written for it ([`autodiff`]): on the CPU it runs over slices ([`cpu`]), on a GPU products, attention, norms, softmax and sums are
//! shaders of ours ([`gpu`], [`products`]), between which burn fuses what is left, and everywhere else it is made of burn's operations (the
//! bodies of the trait).
//!
//! Matrix products are computed in the type of their weights: of a layer whose weight is in half precision, input and gradients are rounded
//! to it for the products, and all that goes in and comes out is single precision nevertheless. Attention, which has no weights, is told.
//! Inside a block of such layers, what one hands to the next is rounded where it is made, and stays in half precision; what a branch adds
//! to the residual is added where it is made, too.
//!
//! ```text
//! functions below -> Layers: Autodiff -> the same, forwards and backwards, of the backend inside
//!                            Flex, f32 -> cpu -> matrix (products), passes (rows)
//!                            wgpu -----> gpu (norm, softmax, sums), products (linear layers, attention) -> kernels::NAME
//!                            others ----> burn's operations
//! ```

mod autodiff;
mod block;
mod cpu;
mod gpu;
mod matrix;
mod operations;
mod passes;
mod products;

use block::{Block, Inside, Layer, Parameters};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchTensor, TensorMetadata, backend_extension};
use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::prelude::*;
use burn::tensor::DType;
use operations::in_type;

pub use block::Path;

/// The layers as part of a backend. Shapes are as the functions on tensors below say.
#[backend_extension(Autodiff, Cube, Flex, Fusion)]
pub trait Layers: Backend {
    /// x `[.., K]`, weight `[K, N]`, bias `[N]` -> `[.., N]` in the bias's type, at least zero if `relu`
    #[fusion(default)]
    fn affine(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>, relu: bool) -> FloatTensor<Self> {
        operations::affine::<Self>(x, weight, bias, relu)
    }

    /// The gradient before a ReLU, from its output and the gradient of it.
    #[fusion(default)]
    fn before_relu(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        operations::before_relu::<Self>(output, gradient)
    }

    /// The gradient before a GELU, from what came before it and the gradient of its output: by the normal distribution itself, as GELU is.
    /// burn's is that of the approximation by tanh, except on the CPU.
    #[fusion(default)]
    fn before_gelu(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        operations::before_gelu::<Self>(x, gradient)
    }

    /// Gradient of x from weight `[K, N]` and, rounded to its type, the gradient of the output `[.., N]`; in single precision.
    #[fusion(default)]
    fn affine_input_gradient(weight: FloatTensor<Self>, rounded: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(rounded, weight, Product::Input)
    }

    /// Gradients of weight and bias from x `[.., K]`, in the type of products, and the gradient of the output `[.., N]`, rounded to it and as
    /// it is; in single precision.
    #[fusion(default)]
    fn affine_parameter_gradients(
        x: FloatTensor<Self>,
        rounded: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        (Self::product(x, rounded, Product::Parameters), Self::column_sums(gradient))
    }

    /// A product of a linear layer, summed in single precision and of that type; shapes are as [`Product`] says.
    #[fusion(meta = |a, b, product| TensorSpec { shape: product.shape(&a.shape, &b.shape), dtype: DType::F32 })]
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>, product: Product) -> FloatTensor<Self> {
        operations::product::<Self>(a, b, product)
    }

    /// [`Layers::product`] of f16, rounded to it.
    #[fusion(meta = |a, b, product| TensorSpec { shape: product.shape(&a.shape, &b.shape), dtype: DType::F16 })]
    fn product_rounded(a: FloatTensor<Self>, b: FloatTensor<Self>, product: Product) -> FloatTensor<Self> {
        operations::product_rounded::<Self>(a, b, product)
    }

    /// x `[.., K]` and weight `[K, N]` of f16, bias `[N]` of f32 -> `[.., N]` of f16, rounded once.
    #[fusion(meta = |x, weight, _bias| half(&Product::Forward.shape(&x.shape, &weight.shape)))]
    fn affine_rounded(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        operations::affine_rounded::<Self>(x, weight, bias)
    }

    /// [`Layers::affine_rounded`] before and after an activation, which is that of the rounded values: a ReLU, or else a GELU. Behind a
    /// ReLU both are the same.
    #[fusion(meta = |x, weight, _bias, _relu| {
        let both = half(&Product::Forward.shape(&x.shape, &weight.shape));
        (both.clone(), both)
    })]
    fn affine_activated(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        operations::affine_activated::<Self>(x, weight, bias, relu)
    }

    /// A residual `[.., N]` and, on top of it, what comes along a path of x `[.., K]`, weight `[K, N]` and bias `[N]` -> `[.., N]`: x and
    /// weight of f16, all else of f32.
    #[fusion(dtype = residual, shape = residual)]
    fn affine_onto(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        #[extension_type] path: Path<Self>,
    ) -> FloatTensor<Self> {
        operations::affine_onto::<Self>(x, weight, bias, residual, &path)
    }

    /// The gradient before the activation of [`Layers::affine_activated`], of f16: from what it has before the activation, `[.., K]`, and
    /// the weight `[K, N]` of the layer behind it and the gradient of that layer's output, `[.., N]`, all of f16.
    #[fusion(dtype = inner, shape = inner)]
    fn activated_gradient(
        weight: FloatTensor<Self>,
        rounded: FloatTensor<Self>,
        inner: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        operations::activated_gradient::<Self>(weight, rounded, inner, relu)
    }

    /// Sums over all but the last dimension, `[.., D]` of f32 or f16 -> `[D]`, in single precision.
    #[fusion(meta = |x| TensorSpec { shape: Shape::new([x.shape[x.shape.num_dims() - 1]]), dtype: DType::F32 })]
    fn column_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_bias_backward(in_type::<Self>(x, DType::F32))
    }

    /// x `[.., D]`, gamma and beta `[D]` -> `[.., D]`
    #[fusion(dtype = x, shape = x)]
    fn norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        operations::norm::<Self>(x, gamma, beta, epsilon)
    }

    /// [`Layers::norm`] of f32, rounded to f16.
    #[fusion(meta = |x, _gamma, _beta, _epsilon| half(&x.shape))]
    fn norm_rounded(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        in_type::<Self>(Self::norm(x, gamma, beta, epsilon), DType::F16)
    }

    /// Gradients of x, gamma and beta, from x, gamma and the output's.
    #[fusion(meta = |x, gamma, _gradient, _epsilon| (x.clone(), gamma.clone(), gamma.clone()))]
    fn norm_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        operations::norm_gradients::<Self>(x, gamma, gradient, epsilon)
    }

    /// [`Layers::norm_gradients`], that of x on top of a residual `[.., D]`: the gradient that came past the norm; all of f32.
    #[fusion(meta = |x, gamma, _gradient, _residual, _epsilon| (x.clone(), gamma.clone(), gamma.clone()))]
    fn norm_gradients_onto(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        operations::norm_gradients_onto::<Self>(x, gamma, gradient, residual, epsilon)
    }

    /// [`Layers::norm_gradients_onto`]; in the second place what comes along a path of the gradient of x, rounded to f16.
    #[fusion(meta = |x, gamma, _gradient, _residual, _path, _epsilon| (x.clone(), half(&x.shape), gamma.clone(), gamma.clone()))]
    fn norm_gradients_along(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        #[extension_type] path: Path<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        operations::norm_gradients_along::<Self>(x, gamma, gradient, residual, &path, epsilon, DType::F16)
    }

    /// Scores `[.., P]` of which the first K `columns` count -> weights `[.., P]` of the type `dtype`: softmax of `scale` times the scores,
    /// zero in the other columns.
    #[fusion(dtype = *dtype, shape = scores)]
    fn softmax_of(scores: FloatTensor<Self>, columns: usize, scale: f32, dtype: DType) -> FloatTensor<Self> {
        operations::softmax_of::<Self>(scores, columns, scale, dtype)
    }

    /// The gradient of scores in the weights' type, from weights and their gradient in f32, both `[.., P]`; zero in the columns from K on.
    #[fusion(dtype = weights, shape = weights)]
    fn softmax_gradient(weights: FloatTensor<Self>, gradient: FloatTensor<Self>, columns: usize, scale: f32) -> FloatTensor<Self> {
        operations::softmax_gradient::<Self>(weights, gradient, columns, scale)
    }

    /// q `[B, Q, D]`, k and v `[B, K, D]`, all in one type -> what is read `[B, Q, D]` and the weights `[B, H, Q, K]` in that type; softmax
    /// in single precision. On wgpu weights have more columns ([`columns`]).
    #[fusion(meta = attention_meta)]
    fn attention_with_weights(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let keys = k.shape()[1];
        operations::attention_with_weights::<Self>(q, k, v, heads, keys)
    }

    /// Gradients of q, k and v, from these, the weights and the gradient of what is read, all in one type.
    #[fusion(meta = |q, k, v, _weights, _gradient, _heads| (q.clone(), k.clone(), v.clone()))]
    fn attention_gradients(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        operations::attention_gradients::<Self>(q, k, v, weights, gradient, heads)
    }

    /// [`Layers::attention_with_weights`] of q, k and v side by side: `[B, N, 3 D]` -> `[B, N, D]` and `[B, H, N, N]`
    #[fusion(meta = self_attention_meta)]
    fn self_attention_with_weights(qkv: FloatTensor<Self>, heads: usize) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v] = operations::thirds::<Self>(qkv);
        Self::attention_with_weights(q, k, v, heads)
    }

    /// The gradient of qkv, from it, the weights and the gradient of what is read, all in one type.
    #[fusion(dtype = qkv, shape = qkv)]
    fn self_attention_gradient(
        qkv: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        operations::self_attention_gradient::<Self>(qkv, weights, gradient, heads)
    }

    /// [`Layers::attention_with_weights`] with products of another type and without the weights.
    #[fusion(default)]
    fn attention_of(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: usize, products: DType) -> FloatTensor<Self> {
        let values = q.dtype();
        let [q, k, v] = [q, k, v].map(|x| in_type::<Self>(x, products));
        in_type::<Self>(Self::attention_with_weights(q, k, v, heads).0, values)
    }

    /// A block over x `[B, N, D]`.
    #[fusion(default)]
    fn block(x: FloatTensor<Self>, #[extension_type] block: Block<Self>) -> FloatTensor<Self> {
        block.forward(x)
    }

    /// [`Layers::block`] with products in half precision.
    #[fusion(dtype = x, shape = x)]
    fn half_block(x: FloatTensor<Self>, #[extension_type] block: Block<Self>) -> FloatTensor<Self> {
        block.forward_by_layers(x)
    }

    /// What is inside of such a block.
    #[fusion(meta = block::inside_meta)]
    fn half_inside(x: FloatTensor<Self>, #[extension_type] block: Block<Self>) -> Inside<Self> {
        block.inside_by_layers(x)
    }

    /// Gradients of the input of such a block and, in single precision, of all that learns; from its input, what is inside, the gradient of
    /// its output and, in half precision, that of the perceptron's branch.
    #[fusion(meta = |x, block, _inside, _gradient, _of_branch| (x.clone(), block::gradients_meta(&block.layers)))]
    fn half_gradients(
        x: FloatTensor<Self>,
        #[extension_type] block: Block<Self>,
        #[extension_type] inside: Inside<Self>,
        gradient: FloatTensor<Self>,
        of_branch: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, Parameters<Self>) {
        block.all_gradients_by_layers(x, inside, gradient, of_branch)
    }
}

/// A product of a linear layer with weight `[K, N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Input `[.., K]` and weight -> output `[.., N]`
    Forward,
    /// Gradient of the output `[.., N]` and weight -> gradient of the input `[.., K]`
    Input,
    /// Input `[.., K]` and gradient of the output `[.., N]` -> gradient of the weight
    Parameters,
}

impl Product {
    fn shape(self, a: &Shape, b: &Shape) -> Shape {
        let last = |shape: &Shape| shape[shape.num_dims() - 1];
        match self {
            Self::Forward | Self::Input => {
                let mut shape = a.clone();
                shape[a.num_dims() - 1] = if self == Self::Forward { b[1] } else { b[0] };
                shape
            }
            Self::Parameters => Shape::new([last(a), last(b)]),
        }
    }
}

/// Columns of attention weights over so many keys on wgpu, of which those beyond the keys are zero: what products write at least.
fn columns(keys: usize, products: DType) -> usize {
    keys.next_multiple_of(if products == DType::F16 { 16 } else { 4 })
}

/// A tensor in half precision.
fn half(shape: &Shape) -> TensorSpec {
    TensorSpec { shape: shape.clone(), dtype: DType::F16 }
}

/// What [`Layers::attention_with_weights`] gives on wgpu.
fn attention_meta(q: &TensorSpec, k: &TensorSpec, _v: &TensorSpec, heads: &usize) -> (TensorSpec, TensorSpec) {
    let (samples, queries, columns) = (q.shape[0], q.shape[1], columns(k.shape[1], q.dtype));
    (q.clone(), TensorSpec { shape: Shape::new([samples, *heads, queries, columns]), dtype: q.dtype })
}

fn self_attention_meta(qkv: &TensorSpec, heads: &usize) -> (TensorSpec, TensorSpec) {
    let third = TensorSpec { shape: Shape::new([qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3]), dtype: qkv.dtype };
    attention_meta(&third, &third, &third, heads)
}

/// `x` `[.., K]` -> `x weight + bias` `[.., N]`.
pub fn linear<const D: usize>(x: Tensor<D>, layer: &Linear) -> Tensor<D> {
    affine(x, layer, false)
}

/// The larger of [`linear`] and zero.
pub fn linear_relu<const D: usize>(x: Tensor<D>, layer: &Linear) -> Tensor<D> {
    affine(x, layer, true)
}

fn affine<const D: usize>(x: Tensor<D>, layer: &Linear, relu: bool) -> Tensor<D> {
    let weight = layer.weight.val();
    let bias = layer.bias.as_ref().expect("every linear layer has a bias").val();
    assert_eq!(x.dims()[D - 1], weight.dims()[0], "values for a layer of other width");
    Tensor::from_dispatch(<Dispatch as Layers>::affine(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), relu))
}

/// `x` `[.., D]` with mean 0 and deviation 1 along D, scaled and shifted. `epsilon` is the layer's, which burn does not tell.
pub fn layer_norm<const D: usize>(x: Tensor<D>, layer: &LayerNorm, epsilon: f64) -> Tensor<D> {
    let gamma = layer.gamma.val();
    let beta = layer.beta.as_ref().expect("every norm has a shift").val();
    assert_eq!(x.dims()[D - 1], gamma.dims()[0], "values for a norm of other width");
    Tensor::from_dispatch(<Dispatch as Layers>::norm(x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch(), epsilon))
}

/// Scaled dot-product attention of `heads` heads, with products in the type `products`: q `[B, Q, D]`, k and v `[B, K, D]` -> `[B, Q, D]`.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, products: DType) -> Tensor<3> {
    let ([b, _, d], [_, n, _]) = (q.dims(), k.dims());
    assert!(k.dims() == [b, n, d] && v.dims() == [b, n, d] && d.is_multiple_of(heads), "queries, keys and values of other sizes");
    Tensor::from_dispatch(<Dispatch as Layers>::attention_of(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), heads, products))
}

/// The layers of a pre-norm transformer block.
pub struct BlockLayers<'a> {
    /// Before attention, and before the perceptron; `epsilon` is that of both.
    pub norms: [&'a LayerNorm; 2],
    pub epsilon: f64,
    /// To queries, keys and values side by side, and of what is read.
    pub attention: [&'a Linear; 2],
    pub heads: usize,
    pub perceptron: [&'a Linear; 2],
    /// ReLU in the perceptron, instead of GELU.
    pub relu: bool,
    /// Training keeps the block's input only and computes what is inside again in the backward pass.
    pub recompute: bool,
}

/// A pre-norm block over `x` `[B, N, D]`. `drops` are masks `[B, 1, 1]` of its two branches, attention and perceptron.
///
/// # Panics
/// With layers or masks of other sizes.
pub fn block(x: Tensor<3>, layers: BlockLayers, drops: Option<[Tensor<3>; 2]>) -> Tensor<3> {
    let [b, _, d] = x.dims();
    let sizes = |products: [&Linear; 2]| products.map(|layer| layer.weight.dims());
    let hidden = layers.perceptron[1].weight.dims()[0];
    assert!(d.is_multiple_of(layers.heads), "heads share the width");
    assert_eq!(
        (sizes(layers.attention), sizes(layers.perceptron)),
        ([[d, 3 * d], [d, d]], [[d, hidden], [hidden, d]]),
        "products of other sizes"
    );
    assert!(layers.norms.iter().all(|norm| norm.gamma.dims() == [d]), "norms of another width");
    assert!(drops.iter().flatten().all(|mask| mask.dims() == [b, 1, 1]), "masks of other faces");
    let of_products = layers.attention.iter().chain(&layers.perceptron).map(|layer| layer.weight.val().dtype());
    assert!(of_products.is_sorted_by(|a, b| a == b), "products of several types");
    let pair = |weight: DispatchTensor, bias: &Option<Param<Tensor<1>>>| Layer {
        weight,
        bias: bias.as_ref().expect("every layer has a bias").val().into_dispatch(),
    };
    let [norm1, norm2] = layers.norms.map(|norm| pair(norm.gamma.val().into_dispatch(), &norm.beta));
    let linear = |layer: &Linear| pair(layer.weight.val().into_dispatch(), &layer.bias);
    let ([qkv, proj], [fc1, fc2]) = (layers.attention.map(linear), layers.perceptron.map(linear));
    let [attention_path, perceptron_path] = match drops {
        Some(masks) => masks.map(|mask| Path::Masked(mask.into_dispatch())),
        None => [Path::Whole, Path::Whole],
    };
    let BlockLayers { heads, relu, epsilon, recompute, .. } = layers;
    let layers = Parameters { norm1, qkv, proj, norm2, fc1, fc2 };
    let block = Block::<Dispatch> { layers, attention_path, perceptron_path, heads, relu, epsilon, recompute };
    Tensor::from_dispatch(<Dispatch as Layers>::block(x.into_dispatch(), block))
}

#[cfg(test)]
mod tests;
