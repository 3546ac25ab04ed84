//! burn on a Vulkan adapter gives what it gives on the CPU, forward and back: a matrix product with a layer norm and a GELU, attention, and
//! a step of our own vision transformer.
//!
//! Without an adapter the test says so and passes, unless MOUE_NEEDS_VULKAN is set: then it fails. `tests/vulkan-driver.sh` installs one.
//! It takes the compiler that moue takes on that adapter; on the software drivers of today that is WGSL (see `AdapterInfo::compiler`).
#![cfg(feature = "train")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Gradients, TensorData};
use moue::config::{Activation, DeviceChoice, Kernels, Settings};
use moue::engine::adapters::{Api, Compiler, adapters};
use moue::engine::device::{open, open_for, open_with};
use moue::engine::{read_values, tuning};
use moue::kernels::layers;
use moue::model::init::Init;
use moue::model::{Noise, Vit};
use moue::random::Streams;
use std::time::Instant;

/// Numbers without structure, the same on every device.
fn tensor<const D: usize>(shape: [usize; D], salt: f32, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.7310 + salt).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Values of one computation, each with its name.
type Values = Vec<(String, Vec<f32>)>;
type Computation = fn(&Device) -> Values;

fn gradient<const D: usize>(of: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    read_values(of.grad(gradients).expect("every input here has a gradient")).unwrap()
}

/// Spelled out: burn's own `gelu` has the gradient of the tanh approximation on a GPU and the exact one on the CPU, 5e-4 apart.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    x.clone() * ((x / std::f32::consts::SQRT_2).erf() + 1.0) * 0.5
}

fn product(device: &Device) -> Values {
    let (rows, inner, columns) = (12, 20, 16);
    let (x, w) = (tensor([rows, inner], 0.1, device).require_grad(), tensor([inner, columns], 2.3, device).require_grad());
    let norm: LayerNorm = LayerNormConfig::new(columns).init(device);
    let product = x.clone().matmul(w.clone());
    let loss = (gelu(norm.forward(product.clone())) * tensor([rows, columns], 4.7, device)).sum();
    let gradients = loss.backward();
    let gain = gradient(&norm.gamma.val(), &gradients);
    vec![
        ("product".into(), read_values(product).unwrap()),
        ("loss".into(), read_values(loss).unwrap()),
        ("x".into(), gradient(&x, &gradients)),
        ("w".into(), gradient(&w, &gradients)),
        ("gain".into(), gain),
    ]
}

fn attention(device: &Device) -> Values {
    // Not powers of two: the edges of tiles are where kernels go wrong.
    let shape = [2, 3, 19, 10];
    let [q, k, v] = [0.4, 1.9, 3.1].map(|salt| (tensor::<4>(shape, salt, device) * 2.0).require_grad());
    let weights = softmax(q.clone().matmul(k.clone().transpose()), 3);
    let attended = weights.clone().matmul(v.clone());
    let loss = (attended.clone() * tensor(shape, 5.3, device)).sum();
    let gradients = loss.backward();
    vec![
        ("weights".into(), read_values(weights).unwrap()),
        ("attended".into(), read_values(attended).unwrap()),
        ("q".into(), gradient(&q, &gradients)),
        ("k".into(), gradient(&k, &gradients)),
        ("v".into(), gradient(&v, &gradients)),
    ]
}

/// Our layer, of queries over other tokens.
fn attention_of_queries(device: &Device) -> Values {
    let (faces, queries, tokens, width, heads) = (2, 7, 19, 24, 3);
    let sources = [(queries, 0.4), (tokens, 1.9), (tokens, 3.1)];
    let [q, k, v] = sources.map(|(n, salt)| (tensor::<3>([faces, n, width], salt, device) * 2.0).require_grad());
    let read = layers::attention(q.clone(), k.clone(), v.clone(), heads, DType::F32);
    let loss = (read.clone() * tensor([faces, queries, width], 5.3, device)).sum();
    let gradients = loss.backward();
    vec![
        ("read".into(), read_values(read).unwrap()),
        ("q".into(), gradient(&q, &gradients)),
        ("k".into(), gradient(&k, &gradients)),
        ("v".into(), gradient(&v, &gradients)),
    ]
}

/// Collects the gradient of every parameter under its path.
struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Values,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), gradient(&param.val(), self.gradients)));
    }
}

fn transformer(device: &Device) -> Values {
    transformer_that(device, false)
}

fn recomputing_transformer(device: &Device) -> Values {
    transformer_that(device, true)
}

fn transformer_that(device: &Device, recomputes: bool) -> Values {
    let mut settings = Settings::default();
    settings.run.recompute = recomputes;
    (settings.data.size, settings.data.channels) = (24, 1);
    (settings.vit.patch, settings.vit.dim, settings.vit.depth, settings.vit.heads) = (8, 24, 2, 3);
    // For the reason above.
    settings.vit.activation = Activation::Relu;
    let (faces, patches, width) = (3, 9, 64);
    let vit = Vit::new(&Init { streams: Streams::new(7), device }, &settings);
    let tokens = vit.forward(tensor([faces, patches, width], 0.2, device), 0.0, &mut Noise::none());
    let loss = (tokens.clone() * tensor([faces, patches + 1, settings.vit.dim], 6.1, device)).mean();
    let gradients = loss.backward();
    let mut collect = Collect { path: Vec::new(), gradients: &gradients, found: vec![("tokens".into(), read_values(tokens).unwrap())] };
    vit.visit(&mut collect);
    collect.found
}

/// Differences are measured against the largest value of the same tensor: sums over many terms of both signs cancel.
fn compare(computation: &str, expected: &Values, got: &Values) {
    assert_eq!(expected.len(), got.len());
    for ((what, expected), (same, got)) in expected.iter().zip(got) {
        assert_eq!((what, expected.len()), (same, got.len()));
        let scale = expected.iter().fold(0f32, |largest, e| largest.max(e.abs()));
        // The bias of keys shifts all scores of a row alike: softmax does not see it, and what is left is rounding.
        assert!(scale > 1e-6 && scale.is_finite(), "{computation}, {what}: nothing to compare, the largest value is {scale}");
        for (i, (e, g)) in expected.iter().zip(got).enumerate() {
            assert!((e - g).abs() <= 1e-4 * scale, "{computation}, {what}[{i}]: {g}, on the cpu {e} (largest {scale})");
        }
    }
}

#[test]
fn vulkan_computes_what_the_cpu_computes() {
    if !adapters().iter().any(|a| a.api == Api::Vulkan) {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
        return;
    }
    let cpu = open(DeviceChoice::Cpu).unwrap();
    assert!(cpu.is_cpu && cpu.setup.is_none() && cpu.compiler.is_none());
    let gpu = open(DeviceChoice::Vulkan(None)).unwrap();
    assert!(!gpu.is_cpu && gpu.setup.is_some());
    let compiler = gpu.compiler.unwrap();
    assert_eq!(gpu.description["api"], "Vulkan");
    assert_eq!(gpu.description["backend"], format!("wgpu, {compiler}"));

    let computations: [(&str, Computation); 5] = [
        ("product", product),
        ("attention", attention),
        ("attention of queries", attention_of_queries),
        ("transformer", transformer),
        ("recomputing transformer", recomputing_transformer),
    ];
    for (name, compute) in computations {
        let expected = compute(&cpu.device.clone().autodiff());
        // The first pass compiles and tries kernels out; the second runs those that were chosen.
        for pass in ["first", "second"] {
            let start = Instant::now();
            let got = compute(&gpu.device.clone().autodiff());
            eprintln!("{} ({compiler}): {name}, {pass} pass {:.2} s", gpu.name, start.elapsed().as_secs_f64());
            compare(&format!("{name}, {pass} pass"), &expected, &got);
        }
    }

    // A second request for the same adapter is the same device, not an error; another compiler on it is one.
    assert_eq!(open(DeviceChoice::Vulkan(None)).unwrap().device, gpu.device);
    let other = if gpu.kernels == Some(tuning::Kernels::Fixed) { Kernels::Timed } else { Kernels::Fixed };
    let error = format!("{:#}", open_for(DeviceChoice::Vulkan(None), other).err().unwrap());
    assert!(error.contains("fixed") && error.contains("timed"), "{error}");
    let other = if compiler == Compiler::Wgsl { Compiler::Spirv } else { Compiler::Wgsl };
    let error = open_with(Api::Vulkan, other, Kernels::Auto).err().expect("one compiler for an adapter");
    eprintln!("{error:#}");
    assert!(open_with(Api::Vulkan, Compiler::Msl, Kernels::Auto).is_err());
}
