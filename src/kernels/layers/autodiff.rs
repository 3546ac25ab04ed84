//! Gradients of the layers.

use super::Layers;
use super::block::{self, PARAMETERS};
use super::operations::in_type;
use burn::backend::TensorMetadata;
use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

#[derive(Debug)]
struct Affine;
#[derive(Debug)]
struct Norm;
#[derive(Debug)]
struct Attention;
#[derive(Debug)]
struct Block;
/// A block's input and parameters.
const NODES: usize = 1 + PARAMETERS;

impl<B: Layers> Backward<B, 3> for Affine {
    /// Input in the weight's type, weight, and the output if there is a ReLU.
    type State = (FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (x, weight, output) = ops.state;
        let mut gradient = grads.consume::<B>(&ops.node);
        if let Some(output) = output {
            gradient = B::before_relu(output, gradient);
        }
        let [of_x, of_weight, of_bias] = ops.parents;
        // Once for both products.
        let rounded = in_type::<B>(gradient.clone(), weight.dtype());
        if of_weight.is_some() || of_bias.is_some() {
            let (weight, bias) = B::affine_parameter_gradients(x, rounded.clone(), gradient);
            of_weight.into_iter().for_each(|node| grads.register::<B>(node.id, weight.clone()));
            of_bias.into_iter().for_each(|node| grads.register::<B>(node.id, bias.clone()));
        }
        if let Some(node) = of_x {
            grads.register::<B>(node.id, B::affine_input_gradient(weight, rounded));
        }
    }
}

impl<B: Layers> Backward<B, 3> for Norm {
    /// Input, gamma, epsilon.
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (x, gamma, epsilon) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, gamma, beta) = B::norm_gradients(x, gamma, gradient, epsilon);
        for (node, gradient) in ops.parents.into_iter().zip([x, gamma, beta]) {
            node.into_iter().for_each(|node| grads.register::<B>(node.id, gradient.clone()));
        }
    }
}

impl<B: Layers> Backward<B, 3> for Attention {
    /// Queries, keys, values, weights, heads.
    type State = ([FloatTensor<B>; 4], usize);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let ([q, k, v, weights], heads) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let (products, values) = (q.dtype(), gradient.dtype());
        let (q, k, v) = B::attention_gradients(q, k, v, weights, in_type::<B>(gradient, products), heads);
        for (node, gradient) in ops.parents.into_iter().zip([q, k, v]) {
            node.into_iter().for_each(|node| grads.register::<B>(node.id, in_type::<B>(gradient.clone(), values)));
        }
    }
}

impl<B: Layers> Backward<B, NODES> for Block {
    type State = block::Kept<B>;

    fn backward(self, ops: Ops<Self::State, NODES>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [input, parameters @ ..] = ops.parents;
        let learns = parameters.iter().any(Option::is_some);
        let (of_x, of_parameters) = ops.state.backward(grads.consume::<B>(&ops.node), learns);
        for (node, gradient) in std::iter::once(input).chain(parameters).zip(std::iter::once(of_x).chain(of_parameters)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Layers, C: CheckpointStrategy> Layers for Autodiff<B, C> {
    fn affine(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>, relu: bool) -> FloatTensor<Self> {
        match Affine.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let weight = weight.into_primitive();
                let x = in_type::<B>(x.into_primitive(), weight.dtype());
                let output = B::affine(x.clone(), weight.clone(), bias.into_primitive(), relu);
                prepared.finish((x, weight, relu.then(|| output.clone())), output)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::affine(x.into_primitive(), weight.into_primitive(), bias.into_primitive(), relu))
            }
        }
    }

    fn norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        match Norm.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
                prepared.finish((x.clone(), gamma.clone(), epsilon), B::norm(x, gamma, beta.into_primitive(), epsilon))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::norm(x.into_primitive(), gamma.into_primitive(), beta.into_primitive(), epsilon))
            }
        }
    }

    fn attention_of(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, heads: usize, products: DType) -> FloatTensor<Self> {
        let values = q.primitive().dtype();
        match Attention.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let [q, k, v] = [q, k, v].map(|x| in_type::<B>(x.into_primitive(), products));
                let (read, weights) = B::attention_with_weights(q.clone(), k.clone(), v.clone(), heads);
                prepared.finish(([q, k, v, weights], heads), in_type::<B>(read, values))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::attention_of(q.into_primitive(), k.into_primitive(), v.into_primitive(), heads, products))
            }
        }
    }

    fn block(x: FloatTensor<Self>, block: block::Block<Self>) -> FloatTensor<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = block.layers.each().map(|parameter| parameter.node());
        let nodes = [x.node(), a, b, c, d, e, f, g, h, i, j, k, l];
        let (x, block) = (x.into_primitive(), block.map::<B>(|tensor| tensor.into_primitive()));
        match Block.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, kept) = block.forward_for_backward(x);
                prepared.finish(kept, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(block.forward(x)),
        }
    }
}
