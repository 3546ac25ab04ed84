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
