//! burn on a real Vulkan adapter gives what it gives on the CPU. One small step (matrix product, layer norm, GELU, and back again), because
//! software Vulkan compiles and tunes every kernel on its first use.
//!
//! Without an adapter the test says so and passes, unless MOUE_NEEDS_VULKAN is set: then it fails. `tests/vulkan-driver.sh` installs one.
#![cfg(feature = "train")]

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::activation::gelu;
use moue::config::DeviceChoice;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::open;
use std::time::Instant;

/// Numbers without structure, the same on every device.
fn values(n: usize, salt: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7310 + salt).sin()).collect()
}

/// The loss and the gradients with respect to both factors of the product and to the gain of the norm.
fn step(device: &Device) -> [Vec<f32>; 4] {
    let device = device.clone().autodiff();
    let (rows, inner, columns) = (24, 40, 32);
    let tensor =
        |shape: [usize; 2], salt| Tensor::<2>::from_data(TensorData::new(values(shape[0] * shape[1], salt), shape), &device).require_grad();
    let (x, w) = (tensor([rows, inner], 0.1), tensor([inner, columns], 2.3));
    let norm: LayerNorm = LayerNormConfig::new(columns).init(&device);
    let loss = (gelu(norm.forward(x.clone().matmul(w.clone()))) * tensor([rows, columns], 4.7).detach()).sum();
    let gradients = loss.backward();
    let vector = |data: TensorData| data.to_vec::<f32>().expect("f32 tensors");
    [
        vector(loss.into_data()),
        vector(x.grad(&gradients).expect("x has a gradient").into_data()),
        vector(w.grad(&gradients).expect("w has a gradient").into_data()),
        vector(norm.gamma.val().grad(&gradients).expect("the gain has a gradient").into_data()),
    ]
}

#[test]
fn vulkan_computes_what_the_cpu_computes() {
    if !adapters().iter().any(|a| a.api == Api::Vulkan) {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
        return;
    }
    let cpu = open(DeviceChoice::Cpu).unwrap();
    assert!(cpu.is_cpu && cpu.setup.is_none());
    let expected = step(&cpu.device);

    let gpu = open(DeviceChoice::Vulkan(None)).unwrap();
    assert!(!gpu.is_cpu && gpu.setup.is_some());
    assert_eq!(gpu.description["api"], "Vulkan");
    for pass in ["first", "second"] {
        let start = Instant::now();
        let got = step(&gpu.device);
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
    let again = open(DeviceChoice::Vulkan(None)).unwrap();
    assert_eq!(again.device, gpu.device);
}
