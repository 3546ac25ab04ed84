//! A transformer block as one operation. For the backward pass it keeps what is inside ([`Kept`]), or else nothing but its input
//! (activation checkpointing, Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016): then everything inside is computed a
//! second time, by the same operations and in the same order, so gradients are the same. Without a backward pass it keeps nothing.
//!
//! With weights in half precision, what passes from layer to layer inside is, too, and each layer rounds what it gives; the residual sums
//! stay in single precision. [`Layer`] has both ways.

use super::operations::in_type;
use super::{Layers, Product};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::tensor::DType;

/// Tensors of a [`Block`] that learn.
pub const PARAMETERS: usize = 12;

/// Weight and bias of a linear layer, or gamma and beta of a norm.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Layer<B: Backend> {
    pub weight: FloatTensor<B>,
    pub bias: FloatTensor<B>,
}

/// Masks of a block's two branches, `[B, 1, 1]`.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub enum Paths<B: Backend> {
    /// No path is dropped.
    Whole,
    Masked {
        attention: FloatTensor<B>,
        perceptron: FloatTensor<B>,
    },
}

/// A pre-norm transformer block.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Block<B: Backend> {
    #[extension_type]
    pub norm1: Layer<B>,
    /// To queries, keys and values side by side.
    #[extension_type]
    pub qkv: Layer<B>,
    #[extension_type]
    pub proj: Layer<B>,
    #[extension_type]
    pub norm2: Layer<B>,
    #[extension_type]
    pub fc1: Layer<B>,
    #[extension_type]
    pub fc2: Layer<B>,
    #[extension_type]
    pub paths: Paths<B>,
    pub heads: usize,
    /// ReLU in the perceptron, instead of GELU.
    pub relu: bool,
    /// Of both norms.
    pub epsilon: f64,
    /// The backward pass computes what is inside again instead of keeping it.
    pub recompute: bool,
}

/// What stands between a block's input and its output: in half precision where the weights are, but for `middle`.
#[derive(Clone, Debug)]
struct Inside<B: Backend> {
    normed1: FloatTensor<B>,
    /// Queries, keys and values; these, attention's weights and what is read are always in the type of products.
    qkv: FloatTensor<B>,
    weights: FloatTensor<B>,
    read: FloatTensor<B>,
    /// Between the halves.
    middle: FloatTensor<B>,
    normed2: FloatTensor<B>,
    /// The perceptron's inner layer before a GELU, after a ReLU.
    inner: FloatTensor<B>,
    hidden: FloatTensor<B>,
}

/// What a block's backward pass is made of.
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    x: FloatTensor<B>,
    block: Block<B>,
    /// None where it is computed again.
    inside: Option<Inside<B>>,
}

impl<B: Backend> Block<B> {
    /// All that learns.
    pub fn parameters(&self) -> [&FloatTensor<B>; PARAMETERS] {
        let Self { norm1, qkv, proj, norm2, fc1, fc2, .. } = self;
        let [a, b, c, d, e, f] = [norm1, qkv, proj, norm2, fc1, fc2].map(|layer| [&layer.weight, &layer.bias]);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], e[0], e[1], f[0], f[1]]
    }

    /// The same block on another backend.
    pub fn map<C: Backend>(self, change: impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> Block<C> {
        let layer = |layer: Layer<B>| Layer { weight: change(layer.weight), bias: change(layer.bias) };
        Block {
            norm1: layer(self.norm1),
            qkv: layer(self.qkv),
            proj: layer(self.proj),
            norm2: layer(self.norm2),
            fc1: layer(self.fc1),
            fc2: layer(self.fc2),
            paths: match self.paths {
                Paths::Whole => Paths::Whole,
                Paths::Masked { attention, perceptron } => Paths::Masked { attention: change(attention), perceptron: change(perceptron) },
            },
            heads: self.heads,
            relu: self.relu,
            epsilon: self.epsilon,
            recompute: self.recompute,
        }
    }
}

impl<B: Layers> Block<B> {
    /// `[B, N, D]` -> `[B, N, D]`, keeping nothing.
    pub fn forward(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let qkv = self.qkv.in_products(self.normed1(x.clone()));
        let (read, _) = B::self_attention_with_weights(qkv, self.heads);
        let middle = self.middle(x, read);
        let (_, hidden) = self.fc1.activated(self.normed2(middle.clone()), self.relu);
        self.output(middle, hidden)
    }

    /// [`Block::forward`], and what the backward pass needs.
    pub fn forward_for_backward(self, x: FloatTensor<B>) -> (FloatTensor<B>, Kept<B>) {
        if self.recompute {
            return (self.forward(x.clone()), Kept { x, block: self, inside: None });
        }
        let inside = self.inside(x.clone());
        let output = self.output(inside.middle.clone(), inside.hidden.clone());
        (output, Kept { x, block: self, inside: Some(inside) })
    }

    fn inside(&self, x: FloatTensor<B>) -> Inside<B> {
        let normed1 = self.normed1(x.clone());
        let qkv = self.qkv.in_products(normed1.clone());
        let (read, weights) = B::self_attention_with_weights(qkv.clone(), self.heads);
        let middle = self.middle(x, read.clone());
        let normed2 = self.normed2(middle.clone());
        let (inner, hidden) = self.fc1.activated(normed2.clone(), self.relu);
        Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden }
    }

    fn normed1(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        self.norm1.norm(x, self.epsilon, self.qkv.weight.dtype())
    }

    fn middle(&self, x: FloatTensor<B>, read: FloatTensor<B>) -> FloatTensor<B> {
        B::float_add(x, self.paths.attention(self.proj.forward(read)))
    }

    fn normed2(&self, middle: FloatTensor<B>) -> FloatTensor<B> {
        self.norm2.norm(middle, self.epsilon, self.fc1.weight.dtype())
    }

    fn output(&self, middle: FloatTensor<B>, hidden: FloatTensor<B>) -> FloatTensor<B> {
        B::float_add(middle, self.paths.perceptron(self.fc2.forward(hidden)))
    }
}

impl<B: Layers> Kept<B> {
    /// Gradients of the input and, in the order of [`Block::parameters`], of each layer where `learns`, from the gradient of the output.
    /// What was kept goes piece by piece, each with its last use.
    pub fn backward(self, gradient: FloatTensor<B>, learns: bool) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let Self { x, block, inside } = self;
        let Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden } = inside.unwrap_or_else(|| block.inside(x.clone()));

        let (fc2, rounded) = block.fc2.parameter_gradients(hidden, block.paths.perceptron(gradient.clone()), learns);
        let of_inner = block.fc2.activated_gradient(rounded, inner, block.relu);
        let (fc1, rounded) = block.fc1.parameter_gradients(normed2, of_inner, learns);
        let of_normed = block.fc1.input_gradient(rounded);
        let (norm2, of_middle) = block.norm2.norm_gradients(middle, of_normed, block.epsilon, learns);
        let of_middle = B::float_add(of_middle, gradient);

        let (proj, rounded) = block.proj.parameter_gradients(read, block.paths.attention(of_middle.clone()), learns);
        let of_read = block.proj.input_gradient_in_products(rounded);
        let of_qkv = B::self_attention_gradient(qkv, weights, of_read, block.heads);
        let (qkv, rounded) = block.qkv.parameter_gradients(normed1, of_qkv, learns);
        let of_normed = block.qkv.input_gradient(rounded);
        let (norm1, of_x) = block.norm1.norm_gradients(x, of_normed, block.epsilon, learns);
        let of_x = B::float_add(of_x, of_middle);

        (of_x, [norm1, qkv, proj, norm2, fc1, fc2].into_iter().flatten().flatten().collect())
    }
}

impl<B: Backend> Paths<B> {
    fn attention(&self, branch: FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Whole => branch,
            Self::Masked { attention, .. } => B::float_mul(branch, attention.clone()),
        }
    }

    fn perceptron(&self, branch: FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Whole => branch,
            Self::Masked { perceptron, .. } => B::float_mul(branch, perceptron.clone()),
        }
    }
}

impl<B: Layers> Layer<B> {
    /// Whether products of this layer are in half precision, and what goes in and comes out inside a block with them.
    fn is_half(&self) -> bool {
        self.weight.dtype() == DType::F16
    }

    /// A linear layer's output as it is added to the residual, in the bias's type.
    fn forward(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        B::affine(x, self.weight.clone(), self.bias.clone(), false)
    }

    /// The same in the type of the weight.
    fn in_products(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        if self.is_half() {
            B::affine_rounded(x, self.weight.clone(), self.bias.clone())
        } else {
            in_type::<B>(self.forward(x), self.weight.dtype())
        }
    }

    /// Before a GELU and after it; after a ReLU, twice.
    fn activated(&self, x: FloatTensor<B>, relu: bool) -> (FloatTensor<B>, FloatTensor<B>) {
        if self.is_half() {
            return B::affine_activated(x, self.weight.clone(), self.bias.clone(), relu);
        }
        let inner = B::affine(x, self.weight.clone(), self.bias.clone(), relu);
        let hidden = if relu { inner.clone() } else { B::gelu(inner.clone()) };
        (inner, hidden)
    }

    /// Gradients of weight and bias where the layer `learns`, from its input and its output's gradient; and this gradient in the type of
    /// the weight, for the gradient of the input.
    fn parameter_gradients(
        &self,
        x: FloatTensor<B>,
        gradient: FloatTensor<B>,
        learns: bool,
    ) -> (Option<[FloatTensor<B>; 2]>, FloatTensor<B>) {
        let rounded = in_type::<B>(gradient.clone(), self.weight.dtype());
        let parameters = learns.then(|| {
            let x = in_type::<B>(x, self.weight.dtype());
            let (weight, bias) = B::affine_parameter_gradients(x, rounded.clone(), gradient);
            [weight, bias]
        });
        (parameters, rounded)
    }

    /// From the rounded gradient of the output, in single precision.
    fn input_gradient(&self, rounded: FloatTensor<B>) -> FloatTensor<B> {
        B::affine_input_gradient(self.weight.clone(), rounded)
    }

    /// The same in the type of the weight.
    fn input_gradient_in_products(&self, rounded: FloatTensor<B>) -> FloatTensor<B> {
        if self.is_half() {
            B::product_rounded(rounded, self.weight.clone(), Product::Input)
        } else {
            in_type::<B>(self.input_gradient(rounded), self.weight.dtype())
        }
    }

    /// The gradient before an activation whose values are the input of this layer, and which [`Layer::activated`] gave `inner` of.
    fn activated_gradient(&self, rounded: FloatTensor<B>, inner: FloatTensor<B>, relu: bool) -> FloatTensor<B> {
        if self.is_half() {
            return B::activated_gradient(self.weight.clone(), rounded, inner, relu);
        }
        let gradient = self.input_gradient(rounded);
        if relu { B::before_relu(inner, gradient) } else { B::before_gelu(inner, gradient) }
    }

    /// A norm before a linear layer with products of this type.
    fn norm(&self, x: FloatTensor<B>, epsilon: f64, products: DType) -> FloatTensor<B> {
        let (gamma, beta) = (self.weight.clone(), self.bias.clone());
        if products == DType::F16 { B::norm_rounded(x, gamma, beta, epsilon) } else { B::norm(x, gamma, beta, epsilon) }
    }

    /// Gradients of gamma and beta where the norm `learns`, and of its input.
    fn norm_gradients(
        &self,
        x: FloatTensor<B>,
        gradient: FloatTensor<B>,
        epsilon: f64,
        learns: bool,
    ) -> (Option<[FloatTensor<B>; 2]>, FloatTensor<B>) {
        let (of_x, gamma, beta) = B::norm_gradients(x, self.weight.clone(), gradient, epsilon);
        (learns.then_some([gamma, beta]), of_x)
    }
}
