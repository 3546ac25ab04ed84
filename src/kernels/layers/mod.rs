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
//! Inside a block of such layers, what one hands to the next is rounded where it is made, and stays in half precision.
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

use block::{Block, Layer, Paths};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchTensor, TensorMetadata, backend_extension};
use burn::module::Param;
use burn::nn::{LayerNorm, Linear};
use burn::prelude::*;
use burn::tensor::DType;
use operations::in_type;

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
    let paths = match drops.map(|masks| masks.map(Tensor::into_dispatch)) {
        Some([attention, perceptron]) => Paths::Masked { attention, perceptron },
        None => Paths::Whole,
    };
    let BlockLayers { heads, relu, epsilon, recompute, .. } = layers;
    let block = Block::<Dispatch> { norm1, qkv, proj, norm2, fc1, fc2, paths, heads, relu, epsilon, recompute };
    Tensor::from_dispatch(<Dispatch as Layers>::block(x.into_dispatch(), block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;
    use burn::backend::Flex;
    use burn::nn::{LayerNormConfig, LinearConfig};
    use burn::tensor::activation::{gelu, relu, softmax};

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + salt * 104_729) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    fn tensor<const D: usize>(shape: [usize; D], salt: usize, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values(shape.iter().product(), salt), shape), device)
    }

    fn close(name: &str, ours: Vec<f32>, theirs: Vec<f32>) {
        within(2e-5, name, ours, theirs);
    }

    /// Largest difference over the largest value.
    fn within(bound: f32, name: &str, ours: Vec<f32>, theirs: Vec<f32>) {
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let largest = theirs.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= bound * largest, "{name}: {a} instead of {b}");
        }
    }

    /// Outputs, and gradients with respect to every input, of two functions of the same inputs.
    fn same<const N: usize>(
        name: &str,
        inputs: [Tensor<3>; N],
        ours: impl Fn([Tensor<3>; N]) -> Tensor<3>,
        theirs: impl Fn([Tensor<3>; N]) -> Tensor<3>,
    ) {
        near(2e-5, name, inputs, ours, theirs);
    }

    fn near<const N: usize>(
        bound: f32,
        name: &str,
        inputs: [Tensor<3>; N],
        ours: impl Fn([Tensor<3>; N]) -> Tensor<3>,
        theirs: impl Fn([Tensor<3>; N]) -> Tensor<3>,
    ) {
        for (i, (ours, theirs)) in outcome(&inputs, ours).into_iter().zip(outcome(&inputs, theirs)).enumerate() {
            let what = if i == 0 { "output".into() } else { format!("gradient {i}") };
            within(bound, &format!("{name}, {what}"), ours, theirs);
        }
    }

    /// The output of a function, and its gradients with respect to every input.
    fn outcome<const N: usize>(inputs: &[Tensor<3>; N], function: impl Fn([Tensor<3>; N]) -> Tensor<3>) -> Vec<Vec<f32>> {
        let inputs = inputs.clone().map(|x| Tensor::from_inner(x.inner()).require_grad());
        let out = function(inputs.clone());
        // A gradient that differs from value to value.
        let weights = tensor(out.dims(), 99, &out.device());
        let gradients = (out.clone() * weights).sum().backward();
        let mut all = vec![read_values(out).unwrap()];
        all.extend(inputs.iter().map(|x| read_values(x.grad(&gradients).expect("a gradient")).unwrap()));
        all
    }

    fn linear_of(weight: Tensor<3>, bias: Tensor<3>) -> Linear {
        let ([_, k, n], mut linear) = (weight.dims(), LinearConfig::new(1, 1).init(&weight.device()));
        linear.weight = Param::initialized(burn::module::ParamId::new(), weight.reshape([k, n]));
        linear.bias = Some(Param::initialized(burn::module::ParamId::new(), bias.reshape([n])));
        linear
    }

    fn norm_of(gamma: Tensor<3>, beta: Tensor<3>) -> LayerNorm {
        let ([_, _, d], device) = (gamma.dims(), gamma.device());
        let mut norm = LayerNormConfig::new(d).init(&device);
        norm.gamma = Param::initialized(burn::module::ParamId::new(), gamma.reshape([d]));
        norm.beta = Some(Param::initialized(burn::module::ParamId::new(), beta.reshape([d])));
        norm
    }

    fn heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
        let [b, n, d] = x.dims();
        x.reshape([b, n, heads, d / heads]).swap_dims(1, 2)
    }

    /// Attention from burn's tensors.
    fn plain_attention([q, k, v]: [Tensor<3>; 3], h: usize) -> Tensor<3> {
        let [b, n, d] = q.dims();
        let scores = heads(q, h).matmul(heads(k, h).transpose()).mul_scalar(((d / h) as f32).powf(-0.5));
        softmax(scores, 3).matmul(heads(v, h)).swap_dims(1, 2).reshape([b, n, d])
    }

    #[test]
    fn layers_are_what_burn_makes_of_their_parts() {
        let device = Device::flex().autodiff();
        for [b, n, k, m] in [[2, 5, 7, 9], [3, 36, 96, 64], [1, 1, 1, 1]] {
            let inputs = [tensor([b, n, k], 1, &device), tensor([1, k, m], 2, &device), tensor([1, 1, m], 3, &device)];
            let plain = |[x, w, bias]: [Tensor<3>; 3]| x.matmul(w) + bias;
            same("linear", inputs.clone(), |[x, w, bias]| linear(x, &linear_of(w, bias)), plain);
            same("linear and relu", inputs.clone(), |[x, w, bias]| linear_relu(x, &linear_of(w, bias)), |i| relu(plain(i)));
            // An input whose rows are columns.
            let turned = [inputs[0].clone().swap_dims(0, 1), inputs[1].clone(), inputs[2].clone()];
            same(
                "linear of a view",
                turned,
                |[x, w, bias]| linear(x.swap_dims(0, 1), &linear_of(w, bias)),
                |[x, w, bias]| plain([x.swap_dims(0, 1), w, bias]),
            );
        }
        for [b, n, d] in [[2, 5, 7], [3, 36, 96], [1, 2, 16]] {
            let inputs = [tensor([b, n, d], 4, &device), tensor([1, 1, d], 5, &device), tensor([1, 1, d], 6, &device)];
            let ours = |[x, gamma, beta]: [Tensor<3>; 3]| layer_norm(x, &norm_of(gamma, beta), 1e-6);
            let theirs = |[x, gamma, beta]: [Tensor<3>; 3]| {
                let centred = x.clone() - x.mean_dim(2);
                let variance = centred.clone().square().mean_dim(2);
                centred / (variance + 1e-6).sqrt() * gamma + beta
            };
            same("norm", inputs, ours, theirs);
        }
        for [b, q, k, d, h] in [[2, 3, 5, 8, 2], [2, 36, 36, 96, 3], [3, 7, 36, 96, 1], [1, 1, 1, 4, 4]] {
            let inputs = [tensor([b, q, d], 7, &device), tensor([b, k, d], 8, &device), tensor([b, k, d], 9, &device)];
            same("attention", inputs, |[q, k, v]| attention(q, k, v, h, DType::F32), |i| plain_attention(i, h));
        }
    }

    /// Rounded to half precision, products and their gradients are what they were but for a few roundings, and in single precision again.
    #[test]
    fn products_in_half_precision_are_near() {
        let device = Device::flex().autodiff();
        let [b, n, k, m, h] = [3, 12, 48, 32, 4];
        let inputs = [tensor([b, n, k], 1, &device), tensor([1, k, m], 2, &device), tensor([1, 1, m], 3, &device)];
        let rounded = |w: Tensor<3>| w.cast(burn::tensor::FloatDType::F16);
        near(2e-3, "linear", inputs, |[x, w, c]| linear(x, &linear_of(rounded(w), c)), |[x, w, c]| linear(x, &linear_of(w, c)));
        let inputs = [tensor([b, n, k], 7, &device), tensor([b, m, k], 8, &device), tensor([b, m, k], 9, &device)];
        let of = |products: DType| move |[q, k, v]: [Tensor<3>; 3]| attention(q, k, v, h, products);
        near(4e-3, "attention", inputs.clone(), of(DType::F16), of(DType::F32));
        let read = of(DType::F16)(inputs.clone());
        assert_eq!(read.dtype(), DType::F32);
        // It was not the same computation.
        assert_ne!(read_values(read).unwrap(), read_values(of(DType::F32)(inputs)).unwrap());
    }

    /// A block that drops paths: its input and parameters are inputs of functions.
    #[derive(Clone, Copy)]
    struct Case {
        relu: bool,
        /// Matrices are rounded to half precision.
        half: bool,
        recompute: bool,
    }

    impl Case {
        const HEADS: usize = 3;
        const EPSILON: f64 = 1e-6;

        /// Input `[3, 7, 12]`, and parameters in the order of [`Block::parameters`].
        fn inputs(device: &Device) -> [Tensor<3>; 13] {
            let (d, hidden) = (12, 20);
            let norm = |salt| [tensor([1, 1, d], salt, device), tensor([1, 1, d], salt + 1, device)];
            let linear = |k, n, salt| [tensor([1, k, n], salt, device), tensor([1, 1, n], salt + 1, device)];
            let [[a, b], [c, e], [f, g]] = [norm(2), linear(d, 3 * d, 4), linear(d, d, 6)];
            let [[h, i], [j, k], [l, m]] = [norm(8), linear(d, hidden, 10), linear(hidden, d, 12)];
            [tensor([3, 7, d], 1, device), a, b, c, e, f, g, h, i, j, k, l, m]
        }

        /// Of attention, and of the perceptron.
        fn drops(device: &Device) -> [Tensor<3>; 2] {
            [[1.5f32, 0.0, 1.5], [1.5, 1.5, 0.0]].map(|mask| Tensor::from_data(TensorData::new(mask.to_vec(), [3, 1, 1]), device))
        }

        /// Norms, and linear layers.
        fn layers(self, parameters: [Tensor<3>; 12]) -> ([LayerNorm; 2], [Linear; 4]) {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = parameters;
            let rounded = |weight: Tensor<3>| if self.half { weight.cast(burn::tensor::FloatDType::F16) } else { weight };
            let linear = |weight, bias| linear_of(rounded(weight), bias);
            ([norm_of(a, b), norm_of(g, h)], [linear(c, d), linear(e, f), linear(i, j), linear(k, l)])
        }

        fn whole(self, [x, parameters @ ..]: [Tensor<3>; 13]) -> Tensor<3> {
            let (drops, ([norm1, norm2], [qkv, proj, fc1, fc2])) = (Self::drops(&x.device()), self.layers(parameters));
            let layers = BlockLayers {
                norms: [&norm1, &norm2],
                epsilon: Self::EPSILON,
                attention: [&qkv, &proj],
                heads: Self::HEADS,
                perceptron: [&fc1, &fc2],
                relu: self.relu,
                recompute: self.recompute,
            };
            block(x, layers, Some(drops))
        }

        /// The same from single layers.
        fn parts(self, [x, parameters @ ..]: [Tensor<3>; 13]) -> Tensor<3> {
            let ([drop1, drop2], ([norm1, norm2], [qkv, proj, fc1, fc2])) = (Self::drops(&x.device()), self.layers(parameters));
            let made = linear(layer_norm(x.clone(), &norm1, Self::EPSILON), &qkv);
            let [b, n, d] = x.dims();
            let thirds = [0, 1, 2].map(|i| made.clone().slice([0..b, 0..n, i * d..(i + 1) * d]));
            let x = x + linear(plain_attention(thirds, Self::HEADS), &proj) * drop1;
            let normed = layer_norm(x.clone(), &norm2, Self::EPSILON);
            let hidden = if self.relu { linear_relu(normed, &fc1) } else { gelu(linear(normed, &fc1)) };
            x + linear(hidden, &fc2) * drop2
        }
    }

    #[test]
    fn a_block_is_what_its_layers_make() {
        let inputs = Case::inputs(&Device::flex().autodiff());
        for relu in [false, true] {
            let case = Case { relu, half: false, recompute: false };
            same(&format!("block, relu {relu}"), inputs.clone(), |inputs| case.whole(inputs), |inputs| case.parts(inputs));
        }
    }

    /// Kept, computed again, and without a backward pass.
    #[test]
    fn a_block_is_the_same_whatever_it_keeps() {
        let inputs = Case::inputs(&Device::flex().autodiff());
        for (relu, half) in [(false, false), (true, false), (false, true), (true, true)] {
            let case = |recompute| Case { relu, half, recompute };
            let kept = outcome(&inputs, |inputs| case(false).whole(inputs));
            assert_eq!(outcome(&inputs, |inputs| case(true).whole(inputs)), kept, "relu {relu}, half {half}");
            let out = case(false).whole(inputs.clone().map(|x| x.inner()));
            assert!(!out.device().is_autodiff() && out.dtype() == DType::F32);
            assert_eq!(read_values(out).unwrap(), kept[0], "relu {relu}, half {half}");
        }
    }

    /// With a GELU: what a ReLU lets through may hang on the last digit.
    #[test]
    fn a_block_in_half_precision_is_near() {
        let inputs = Case::inputs(&Device::flex().autodiff());
        let of = |half: bool| move |inputs: [Tensor<3>; 13]| Case { relu: false, half, recompute: false }.whole(inputs);
        near(5e-3, "block", inputs.clone(), of(true), of(false));
        // It was not the same computation.
        assert_ne!(outcome(&inputs, of(true)), outcome(&inputs, of(false)));
    }

    /// The bodies of the trait, which a GPU runs, beside the code for slices.
    #[test]
    fn operations_do_the_same() {
        let raw = |shape: [usize; 3], salt| FloatTensor::<Flex>::from_data(TensorData::new(values(shape.iter().product(), salt), shape));
        let flat = |x: FloatTensor<Flex>| -> Vec<f32> { x.to_contiguous().as_slice::<f32>().unwrap().to_vec() };
        let [b, q, k, d, h] = [2, 4, 6, 12, 3];
        let keys = k;
        let inputs = || (raw([b, q, d], 1), raw([b, k, d], 2), raw([b, k, d], 3));
        let (read, weights) = {
            let (q, k, v) = inputs();
            operations::attention_with_weights::<Flex>(q, k, v, h, keys)
        };
        let (ours, our_weights) = {
            let (q, k, v) = inputs();
            Flex::attention_with_weights(q, k, v, h)
        };
        close("read", flat(ours), flat(read));
        close("weights", flat(our_weights.clone()), flat(weights.clone()));
        let gradient = raw([b, q, d], 4);
        let (q1, k1, v1) = {
            let (q, k, v) = inputs();
            operations::attention_gradients::<Flex>(q, k, v, weights, gradient.clone(), h)
        };
        let (q2, k2, v2) = {
            let (q, k, v) = inputs();
            Flex::attention_gradients(q, k, v, our_weights, gradient, h)
        };
        for (name, a, b) in [("q", q2, q1), ("k", k2, k1), ("v", v2, v1)] {
            close(name, flat(a), flat(b));
        }
        let qkv = raw([b, k, 3 * d], 5);
        let (_, weights) = Flex::self_attention_with_weights(qkv.clone(), h);
        let theirs = operations::self_attention_gradient::<Flex>(qkv.clone(), weights.clone(), raw([b, k, d], 6), h);
        close("qkv", flat(Flex::self_attention_gradient(qkv, weights, raw([b, k, d], 6), h)), flat(theirs));
        let row = |salt| raw([1, 1, d], salt).reshape(Shape::new([d]));
        let (x, gradient) = (raw([b, q, d], 7), raw([b, q, d], 8));
        let theirs = operations::before_gelu::<Flex>(x.clone(), gradient.clone());
        close("gelu", flat(Flex::before_gelu(x.clone(), gradient.clone())), flat(theirs));
        let theirs = operations::norm_gradients::<Flex>(x.clone(), row(9), gradient.clone(), 1e-6);
        let ours = Flex::norm_gradients(x, row(9), gradient, 1e-6);
        for (name, a, b) in [("x", ours.0, theirs.0), ("gamma", ours.1, theirs.1), ("beta", ours.2, theirs.2)] {
            close(name, flat(a), flat(b));
        }
    }
}
