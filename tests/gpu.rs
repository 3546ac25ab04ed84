//! burn on a Vulkan adapter gives what it gives on the CPU: one small step of a matrix product, a layer norm and a GELU, forward and back.
//!
//! Without an adapter the test says so and passes, unless MOUE_NEEDS_VULKAN is set: then it fails. `tests/vulkan-driver.sh` installs one.
//! Where burn's matrix products are broken (see `AdapterInfo::refused`; every software driver of today) the test makes sure that training is
//! refused there, and computes the product by broadcasting instead, so that the rest is still compared.
#![cfg(feature = "train")]

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use moue::config::DeviceChoice;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::{open, open_unsound};
use moue::failure::exit_code;
use std::time::Instant;

const ROWS: usize = 12;
const INNER: usize = 20;
const COLUMNS: usize = 16;

/// Numbers without structure, the same on every device.
fn values(n: usize, salt: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7310 + salt).sin()).collect()
}

/// Spelled out: burn's own `gelu` has the gradient of the tanh approximation on a GPU and the exact one on the CPU, 5e-4 apart.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    x.clone() * ((x / std::f32::consts::SQRT_2).erf() + 1.0) * 0.5
}

/// The loss, and its gradients with respect to both factors of the product and to the gain of the norm.
fn step(device: &Device, broadcast: bool) -> [Vec<f32>; 4] {
    let device = device.clone().autodiff();
    let tensor = |shape: [usize; 2], salt| Tensor::<2>::from_data(TensorData::new(values(shape[0] * shape[1], salt), shape), &device);
    let (x, w) = (tensor([ROWS, INNER], 0.1).require_grad(), tensor([INNER, COLUMNS], 2.3).require_grad());
    let product = match broadcast {
        true => (x.clone().unsqueeze_dim::<3>(2) * w.clone().unsqueeze_dim::<3>(0)).sum_dim(1).squeeze_dim(1),
        false => x.clone().matmul(w.clone()),
    };
    let norm: LayerNorm = LayerNormConfig::new(COLUMNS).init(&device);
    let loss = (gelu(norm.forward(product)) * tensor([ROWS, COLUMNS], 4.7)).sum();
    let gradients = loss.backward();
    let vector = |data: TensorData| data.try_to_vec::<f32>().expect("f32 tensors");
    [
        vector(loss.into_data()),
        vector(x.grad(&gradients).expect("x has a gradient").into_data()),
        vector(w.grad(&gradients).expect("w has a gradient").into_data()),
        vector(norm.gamma.val().grad(&gradients).expect("the gain has a gradient").into_data()),
    ]
}

#[test]
fn vulkan_computes_what_the_cpu_computes() {
    let adapters = adapters();
    let mut vulkan = adapters.iter().filter(|a| a.api == Api::Vulkan).peekable();
    if vulkan.peek().is_none() {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
        return;
    }
    let cpu = open(DeviceChoice::Cpu).unwrap();
    assert!(cpu.is_cpu && cpu.setup.is_none());
    let expected = step(&cpu.device, false);

    let lavapipe = vulkan.clone().any(|a| a.driver == "llvmpipe");
    let broken = vulkan.all(|a| a.refused.is_some());
    let gpu = if broken {
        let error = open(DeviceChoice::Vulkan(None)).err().expect("a broken adapter is refused");
        assert_eq!(exit_code(&error), 2);
        if lavapipe {
            // It would end this process: even burn's layer norm is a kernel with shared memory there.
            assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "{error}; tests/vulkan-driver.sh finds a better driver");
            eprintln!("SKIPPED: {error}; tests/vulkan-driver.sh finds a better driver");
            return;
        }
        eprintln!("NOTE: {error}; the product is broadcast here instead");
        open_unsound(Api::Vulkan).unwrap()
    } else {
        open(DeviceChoice::Vulkan(None)).unwrap()
    };
    assert!(!gpu.is_cpu && gpu.setup.is_some());
    assert_eq!(gpu.description["api"], "Vulkan");
    for pass in ["first", "second"] {
        let start = Instant::now();
        let got = step(&gpu.device, broken);
        eprintln!("{}: {pass} step {:.2} s", gpu.name, start.elapsed().as_secs_f64());
        for (what, (expected, got)) in ["loss", "x", "w", "gain"].iter().zip(expected.iter().zip(&got)) {
            assert_eq!(expected.len(), got.len());
            assert!(expected.iter().any(|e| e.abs() > 1e-2), "{what} is nothing but zeros");
            for (i, (e, g)) in expected.iter().zip(got).enumerate() {
                assert!(e.is_finite() && (e - g).abs() <= 1e-4 * e.abs().max(1.0), "{pass} step, {what}[{i}]: {g}, on the cpu {e}");
            }
        }
    }

    // A second request for the same adapter is the same device, not an error.
    let again = if broken { open_unsound(Api::Vulkan).unwrap() } else { open(DeviceChoice::Vulkan(None)).unwrap() };
    assert_eq!(again.device, gpu.device);
}
