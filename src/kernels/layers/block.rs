//! A transformer block as one operation. For the backward pass it keeps what is inside ([`Kept`]), or else nothing but its input
//! (activation checkpointing, Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016): then everything inside is computed a
//! second time, by the same operations and in the same order, so gradients are the same. Without a backward pass it keeps nothing.
//!
//! With weights in half precision, what passes from layer to layer inside is, too, and each layer rounds what it gives; the residual sums
//! stay in single precision, and are made where their last summand is. [`Layer`] has both ways. All of it is kernels of ours then, with
//! nothing for burn to fuse in between, so that a backend may take the block as a whole ([`Layers::half_block`] and what stands beside it).

use super::operations::{self, in_type};
use super::{Layers, Product, half};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, TensorMetadata};
use burn::prelude::Shape;
use burn::tensor::DType;

/// Layers of a [`Block`], and tensors of these that learn.
const LAYERS: usize = 6;
pub const PARAMETERS: usize = 2 * LAYERS;

/// Weight and bias of a linear layer, or gamma and beta of a norm.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Layer<B: Backend> {
    pub weight: FloatTensor<B>,
    pub bias: FloatTensor<B>,
}

/// What a branch passes on its way to the residual.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub enum Path<B: Backend> {
    /// Nothing: it is not dropped.
    Whole,
    /// A mask of samples, `[B, 1, 1]` for a branch `[B, N, D]`.
    Masked(FloatTensor<B>),
}

/// Gradients of a layer's weight and bias, where it learns.
type Learned<B> = Option<Layer<B>>;

/// All of a block that learns, or its gradients.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Parameters<B: Backend> {
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
}

/// A pre-norm transformer block.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Block<B: Backend> {
    #[extension_type]
    pub layers: Parameters<B>,
    #[extension_type]
    pub attention_path: Path<B>,
    #[extension_type]
    pub perceptron_path: Path<B>,
    pub heads: usize,
    /// ReLU in the perceptron, instead of GELU.
    pub relu: bool,
    /// Of both norms.
    pub epsilon: f64,
    /// The backward pass computes what is inside again instead of keeping it.
    pub recompute: bool,
}

/// What stands between a block's input and its output: in half precision where the weights are, but for `middle`.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Inside<B: Backend> {
    pub normed1: FloatTensor<B>,
    /// Queries, keys and values; these, attention's weights and what is read are always in the type of products.
    pub qkv: FloatTensor<B>,
    pub weights: FloatTensor<B>,
    pub read: FloatTensor<B>,
    /// Between the halves.
    pub middle: FloatTensor<B>,
    pub normed2: FloatTensor<B>,
    /// The perceptron's inner layer before a GELU, after a ReLU.
    pub inner: FloatTensor<B>,
    pub hidden: FloatTensor<B>,
}

/// What a block's backward pass is made of.
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    x: FloatTensor<B>,
    block: Block<B>,
    /// None where it is computed again.
    inside: Option<Inside<B>>,
}

impl<B: Backend> Parameters<B> {
    fn into_layers(self) -> [Layer<B>; LAYERS] {
        let Self { norm1, qkv, proj, norm2, fc1, fc2 } = self;
        [norm1, qkv, proj, norm2, fc1, fc2]
    }

    fn of_layers([norm1, qkv, proj, norm2, fc1, fc2]: [Layer<B>; LAYERS]) -> Self {
        Self { norm1, qkv, proj, norm2, fc1, fc2 }
    }

    /// In the order of layers, weight before bias.
    pub fn each(&self) -> [&FloatTensor<B>; PARAMETERS] {
        let Self { norm1, qkv, proj, norm2, fc1, fc2 } = self;
        let [a, b, c, d, e, f] = [norm1, qkv, proj, norm2, fc1, fc2].map(|layer| [&layer.weight, &layer.bias]);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], e[0], e[1], f[0], f[1]]
    }
}

impl<B: Backend> Block<B> {
    /// The same block on another backend.
    pub fn map<C: Backend>(self, change: impl Fn(FloatTensor<B>) -> FloatTensor<C>) -> Block<C> {
        let layer = |Layer { weight, bias }: Layer<B>| Layer { weight: change(weight), bias: change(bias) };
        let path = |path: Path<B>| match path {
            Path::Whole => Path::Whole,
            Path::Masked(mask) => Path::Masked(change(mask)),
        };
        Block {
            layers: Parameters::of_layers(self.layers.into_layers().map(layer)),
            attention_path: path(self.attention_path),
            perceptron_path: path(self.perceptron_path),
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
        if self.is_half() { B::half_block(x, self.clone()) } else { self.forward_by_layers(x) }
    }

    pub fn forward_by_layers(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let qkv = self.layers.qkv.in_products(self.normed1(x.clone()));
        let (read, _) = B::self_attention_with_weights(qkv, self.heads);
        let middle = self.middle(x, read);
        let (_, hidden) = self.layers.fc1.activated(self.normed2(middle.clone()), self.relu);
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
        if self.is_half() { B::half_inside(x, self.clone()) } else { self.inside_by_layers(x) }
    }

    pub fn inside_by_layers(&self, x: FloatTensor<B>) -> Inside<B> {
        let normed1 = self.normed1(x.clone());
        let qkv = self.layers.qkv.in_products(normed1.clone());
        let (read, weights) = B::self_attention_with_weights(qkv.clone(), self.heads);
        let middle = self.middle(x, read.clone());
        let normed2 = self.normed2(middle.clone());
        let (inner, hidden) = self.layers.fc1.activated(normed2.clone(), self.relu);
        Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden }
    }

    /// Whether its products are in half precision, and what goes in and comes out inside with them.
    fn is_half(&self) -> bool {
        self.layers.qkv.is_half()
    }

    fn normed1(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        self.layers.norm1.norm(x, self.epsilon, self.layers.qkv.weight.dtype())
    }

    fn middle(&self, x: FloatTensor<B>, read: FloatTensor<B>) -> FloatTensor<B> {
        self.layers.proj.onto(x, read, &self.attention_path)
    }

    fn normed2(&self, middle: FloatTensor<B>) -> FloatTensor<B> {
        self.layers.norm2.norm(middle, self.epsilon, self.layers.fc1.weight.dtype())
    }

    fn output(&self, middle: FloatTensor<B>, hidden: FloatTensor<B>) -> FloatTensor<B> {
        self.layers.fc2.onto(middle, hidden, &self.perceptron_path)
    }

    /// Gradients of the first norm and of the block's input, from those of what is normed and of what is between the halves.
    fn norm1_gradients(
        &self,
        x: FloatTensor<B>,
        of_normed: FloatTensor<B>,
        of_middle: FloatTensor<B>,
        learns: bool,
    ) -> (Learned<B>, FloatTensor<B>) {
        let gamma = self.layers.norm1.weight.clone();
        let (of_x, gamma, beta) = if self.layers.qkv.is_half() {
            B::norm_gradients_onto(x, gamma, of_normed, of_middle, self.epsilon)
        } else {
            operations::norm_gradients_onto::<B>(x, gamma, of_normed, of_middle, self.epsilon)
        };
        (learns.then_some(Layer { weight: gamma, bias: beta }), of_x)
    }

    /// Gradients of the second norm, of what is between the halves and, in the type of products, of attention's branch; from those of what
    /// is normed and of the block's output.
    fn norm2_gradients(
        &self,
        middle: FloatTensor<B>,
        of_normed: FloatTensor<B>,
        gradient: FloatTensor<B>,
        learns: bool,
    ) -> (Learned<B>, FloatTensor<B>, FloatTensor<B>) {
        let (gamma, path, products) = (self.layers.norm2.weight.clone(), &self.attention_path, self.layers.proj.weight.dtype());
        let (of_middle, of_branch, gamma, beta) = if self.layers.proj.is_half() {
            B::norm_gradients_along(middle, gamma, of_normed, gradient, path.clone(), self.epsilon)
        } else {
            operations::norm_gradients_along::<B>(middle, gamma, of_normed, gradient, path, self.epsilon, products)
        };
        (learns.then_some(Layer { weight: gamma, bias: beta }), of_middle, of_branch)
    }

    /// Gradients of the input and of each layer where `learns`, from the gradient of the output and, in the type of products, of the
    /// perceptron's branch. What is inside goes piece by piece, each with its last use.
    pub fn gradients_by_layers(
        &self,
        x: FloatTensor<B>,
        inside: Inside<B>,
        gradient: FloatTensor<B>,
        of_branch: FloatTensor<B>,
        learns: bool,
    ) -> (FloatTensor<B>, [Learned<B>; LAYERS]) {
        let Inside { normed1, qkv, weights, read, middle, normed2, inner, hidden } = inside;

        let fc2 = self.layers.fc2.parameter_gradients(hidden, of_branch.clone(), learns);
        let of_inner = self.layers.fc2.activated_gradient(of_branch, inner, self.relu);
        let fc1 = self.layers.fc1.parameter_gradients(normed2, of_inner.clone(), learns);
        let of_normed = self.layers.fc1.input_gradient(of_inner);
        let (norm2, of_middle, of_branch) = self.norm2_gradients(middle, of_normed, gradient, learns);

        let proj = self.layers.proj.parameter_gradients(read, of_branch.clone(), learns);
        let of_read = self.layers.proj.input_gradient_in_products(of_branch);
        let of_qkv = B::self_attention_gradient(qkv, weights, of_read, self.heads);
        let qkv = self.layers.qkv.parameter_gradients(normed1, of_qkv.clone(), learns);
        let of_normed = self.layers.qkv.input_gradient(of_qkv);
        let (norm1, of_x) = self.norm1_gradients(x, of_normed, of_middle, learns);

        (of_x, [norm1, qkv, proj, norm2, fc1, fc2])
    }

    /// The same where all layers learn.
    pub fn all_gradients_by_layers(
        &self,
        x: FloatTensor<B>,
        inside: Inside<B>,
        gradient: FloatTensor<B>,
        of_branch: FloatTensor<B>,
    ) -> (FloatTensor<B>, Parameters<B>) {
        let (of_x, layers) = self.gradients_by_layers(x, inside, gradient, of_branch, true);
        (of_x, Parameters::of_layers(layers.map(|layer| layer.expect("all layers learn"))))
    }
}

impl<B: Layers> Kept<B> {
    /// Gradients of the input and, in the order of [`Parameters::each`], of each layer where `learns`, from the gradient of the output.
    pub fn backward(self, gradient: FloatTensor<B>, learns: bool) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let Self { x, block, inside } = self;
        let inside = inside.unwrap_or_else(|| block.inside(x.clone()));
        let of_branch = in_type::<B>(block.perceptron_path.along(gradient.clone()), block.layers.fc2.weight.dtype());
        let (of_x, layers) = if learns && block.is_half() {
            let (of_x, parameters) = B::half_gradients(x, block, inside, gradient, of_branch);
            (of_x, parameters.into_layers().map(Some))
        } else {
            block.gradients_by_layers(x, inside, gradient, of_branch, learns)
        };
        (of_x, layers.into_iter().flatten().flat_map(|Layer { weight, bias }| [weight, bias]).collect())
    }
}

/// Of [`Layers::half_inside`] on wgpu.
pub fn inside_meta(x: &TensorSpec, block: &BlockMetadata) -> InsideMetadata {
    let of_width = |width: usize| half(&Shape::new([x.shape[0], x.shape[1], width]));
    let width = |layer: &LayerMetadata| layer.bias.shape[0];
    let qkv = of_width(width(&block.layers.qkv));
    let (read, weights) = super::self_attention_meta(&qkv, &block.heads);
    let (normed, hidden) = (half(&x.shape), of_width(width(&block.layers.fc1)));
    let (inner, middle) = (hidden.clone(), x.clone());
    InsideMetadata { normed1: normed.clone(), qkv, weights, read, middle, normed2: normed, inner, hidden }
}

/// Gradients of all parameters of [`Layers::half_gradients`].
pub fn gradients_meta(of: &ParametersMetadata) -> ParametersMetadata {
    let single = |of: &TensorSpec| TensorSpec { shape: of.shape.clone(), dtype: DType::F32 };
    let layer = |of: &LayerMetadata| LayerMetadata { weight: single(&of.weight), bias: single(&of.bias) };
    let ParametersMetadata { norm1, qkv, proj, norm2, fc1, fc2 } = of;
    let [norm1, qkv, proj, norm2, fc1, fc2] = [norm1, qkv, proj, norm2, fc1, fc2].map(layer);
    ParametersMetadata { norm1, qkv, proj, norm2, fc1, fc2 }
}

impl<B: Backend> Path<B> {
    /// What arrives of a branch, or of its gradient on the way back.
    pub fn along(&self, branch: FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Whole => branch,
            Self::Masked(mask) => B::float_mul(branch, mask.clone()),
        }
    }
}

impl<B: Layers> Layer<B> {
    /// Whether products of this layer are in half precision, and what goes in and comes out inside a block with them.
    fn is_half(&self) -> bool {
        self.weight.dtype() == DType::F16
    }

    /// A residual and, on top of it, what comes along a path of a linear layer's output.
    fn onto(&self, residual: FloatTensor<B>, x: FloatTensor<B>, path: &Path<B>) -> FloatTensor<B> {
        let (weight, bias) = (self.weight.clone(), self.bias.clone());
        if self.is_half() {
            B::affine_onto(x, weight, bias, residual, path.clone())
        } else {
            operations::affine_onto::<B>(x, weight, bias, residual, path)
        }
    }

    /// A linear layer's output in the type of the weight.
    fn in_products(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let (weight, bias) = (self.weight.clone(), self.bias.clone());
        if self.is_half() {
            B::affine_rounded(x, weight, bias)
        } else {
            in_type::<B>(B::affine(x, weight, bias, false), self.weight.dtype())
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

    /// Gradients of weight and bias where the layer `learns`, from its input and its output's gradient, which is in the type of the weight.
    fn parameter_gradients(&self, x: FloatTensor<B>, rounded: FloatTensor<B>, learns: bool) -> Learned<B> {
        learns.then(|| {
            let x = in_type::<B>(x, self.weight.dtype());
            let (weight, bias) = B::affine_parameter_gradients(x, rounded.clone(), rounded);
            Layer { weight, bias }
        })
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

    /// The gradient before an activation whose values are the input of this layer, and which [`Layer::activated`] gave `inner` of; in the
    /// type of the weight.
    fn activated_gradient(&self, rounded: FloatTensor<B>, inner: FloatTensor<B>, relu: bool) -> FloatTensor<B> {
        if self.is_half() {
            return B::activated_gradient(self.weight.clone(), rounded, inner, relu);
        }
        let gradient = self.input_gradient(rounded);
        let before = if relu { B::before_relu(inner, gradient) } else { B::before_gelu(inner, gradient) };
        in_type::<B>(before, self.weight.dtype())
    }

    /// A norm before a linear layer with products of this type.
    fn norm(&self, x: FloatTensor<B>, epsilon: f64, products: DType) -> FloatTensor<B> {
        let (gamma, beta) = (self.weight.clone(), self.bias.clone());
        if products == DType::F16 { B::norm_rounded(x, gamma, beta, epsilon) } else { B::norm(x, gamma, beta, epsilon) }
    }
}
