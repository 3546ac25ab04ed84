//! A transformer block as one operation, which keeps nothing but its input (activation checkpointing, Chen et al., *Training Deep Nets with
//! Sublinear Memory Cost*, 2016): the backward pass computes everything inside a second time, by the same operations and in the same order,
//! so gradients are those of the block that keeps it.

use super::Layers;
use super::operations::in_type;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};

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
}

/// What stands between a block's input and its output.
struct Inside<B: Backend> {
    normed1: FloatTensor<B>,
    /// Queries, keys and values, in the type of products.
    qkv: FloatTensor<B>,
    /// Of attention.
    weights: FloatTensor<B>,
    read: FloatTensor<B>,
    /// Between the halves.
    middle: FloatTensor<B>,
    normed2: FloatTensor<B>,
    /// The perceptron's inner layer before a GELU, after a ReLU.
    inner: FloatTensor<B>,
    hidden: FloatTensor<B>,
}

/// Gradients of a layer: of its input, and of weight and bias where they are asked for.
struct Gradients<B: Backend> {
    input: FloatTensor<B>,
    parameters: Option<[FloatTensor<B>; 2]>,
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
        }
    }
}

impl<B: Layers> Block<B> {
    /// `[B, N, D]` -> `[B, N, D]`
    pub fn forward(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let Inside { middle, hidden, .. } = self.inside(x);
        B::float_add(middle, self.paths.perceptron(self.fc2.forward(hidden, false)))
    }

    fn inside(&self, x: FloatTensor<B>) -> Inside<B> {
        let normed1 = self.norm1.norm(x.clone(), self.epsilon);
        let made = self.qkv.forward(normed1.clone(), false);
        let values = made.dtype();
        let qkv = in_type::<B>(made, self.qkv.weight.dtype());
        let (read, weights) = B::self_attention_with_weights(qkv.clone(), self.heads);
        let read = in_type::<B>(read, values);
        let middle = B::float_add(x, self.paths.attention(self.proj.forward(read.clone(), false)));
        let normed2 = self.norm2.norm(middle.clone(), self.epsilon);
        let inner = self.fc1.forward(normed2.clone(), self.relu);
        let hidden = if self.relu { inner.clone() } else { B::gelu(inner.clone()) };
        Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden }
    }

    /// Gradients of the input and, in the order of [`Block::parameters`], of each layer where `learns`, from the input and the gradient of the
    /// output.
    pub fn backward(&self, x: FloatTensor<B>, gradient: FloatTensor<B>, learns: bool) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden } = self.inside(x.clone());

        let fc2 = self.fc2.gradients(hidden, self.paths.perceptron(gradient.clone()), learns);
        let of_inner = if self.relu { B::before_relu(inner, fc2.input) } else { B::gelu_backward(inner, fc2.input) };
        let fc1 = self.fc1.gradients(normed2, of_inner, learns);
        let norm2 = self.norm2.norm_gradients(middle, fc1.input, self.epsilon, learns);
        let of_middle = B::float_add(norm2.input, gradient);

        let proj = self.proj.gradients(read, self.paths.attention(of_middle.clone()), learns);
        let (products, values) = (qkv.dtype(), proj.input.dtype());
        let of_made = B::self_attention_gradient(qkv, weights, in_type::<B>(proj.input, products), self.heads);
        let qkv = self.qkv.gradients(normed1, in_type::<B>(of_made, values), learns);
        let norm1 = self.norm1.norm_gradients(x, qkv.input, self.epsilon, learns);
        let of_x = B::float_add(norm1.input, of_middle);

        let layers = [norm1.parameters, qkv.parameters, proj.parameters, norm2.parameters, fc1.parameters, fc2.parameters];
        (of_x, layers.into_iter().flatten().flatten().collect())
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
    fn forward(&self, x: FloatTensor<B>, relu: bool) -> FloatTensor<B> {
        B::affine(x, self.weight.clone(), self.bias.clone(), relu)
    }

    fn gradients(&self, x: FloatTensor<B>, gradient: FloatTensor<B>, learns: bool) -> Gradients<B> {
        let rounded = in_type::<B>(gradient.clone(), self.weight.dtype());
        let parameters = learns.then(|| {
            let x = in_type::<B>(x, self.weight.dtype());
            let (weight, bias) = B::affine_parameter_gradients(x, rounded.clone(), gradient);
            [weight, bias]
        });
        Gradients { input: B::affine_input_gradient(self.weight.clone(), rounded), parameters }
    }

    fn norm(&self, x: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
        B::norm(x, self.weight.clone(), self.bias.clone(), epsilon)
    }

    fn norm_gradients(&self, x: FloatTensor<B>, gradient: FloatTensor<B>, epsilon: f64, learns: bool) -> Gradients<B> {
        let (input, gamma, beta) = B::norm_gradients(x, self.weight.clone(), gradient, epsilon);
        Gradients { input, parameters: learns.then_some([gamma, beta]) }
    }
}
