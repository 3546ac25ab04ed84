//! The uniformity loss against independent values and gradients (`tests/golden/uniform.*`, double precision), on every device there is.
#![cfg(feature = "train")]

use burn::prelude::*;
use moue::config::{DeviceChoice, SelfTerm, UniformKind, UniformSettings};
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::open;
use moue::engine::read_values;
use moue::finetune::loss::uniformity;
use moue::selftest::largest_difference;
use safetensors::SafeTensors;
use serde_json::Value;

const TENSORS: &[u8] = include_bytes!("golden/uniform.safetensors");
const TABLE: &str = include_str!("golden/uniform.json");
const BOUND: f64 = 1e-5;

fn devices() -> Vec<Device> {
    let vulkan = adapters().iter().any(|a| a.api == Api::Vulkan);
    assert!(vulkan || std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
    if !vulkan {
        eprintln!("SKIPPED on Vulkan: no adapter; tests/vulkan-driver.sh installs one");
    }
    std::iter::once(Device::flex()).chain(vulkan.then(|| open(DeviceChoice::Vulkan(None)).unwrap().device)).collect()
}

fn values(file: &SafeTensors, name: &str) -> (Vec<f32>, [usize; 2]) {
    let tensor = file.tensor(name).unwrap();
    let values = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (values, tensor.shape().try_into().unwrap())
}

fn queries(file: &SafeTensors, name: &str, device: &Device) -> Tensor<2> {
    let (values, shape) = values(file, name);
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn settings(tau: f64, self_term: SelfTerm) -> UniformSettings {
    UniformSettings { tau, self_term, ..UniformSettings::default() }
}

#[test]
fn values_are_the_golden_ones() {
    let (file, table): (_, Value) = (SafeTensors::deserialize(TENSORS).unwrap(), serde_json::from_str(TABLE).unwrap());
    let mut compared = 0;
    for device in devices() {
        for classes in ["C7", "C8"] {
            let close = |settings: &UniformSettings, start: &str, expected: &Value| {
                let loss = uniformity(queries(&file, &format!("{classes}.{start}"), &device), settings);
                let (ours, expected) = (f64::from(read_values(loss).unwrap()[0]), expected.as_f64().unwrap());
                assert!((ours - expected).abs() <= BOUND * expected.abs().max(1.0), "{classes} {start} {settings:?}: {ours} {expected}");
                1
            };
            for row in table[classes]["table"].as_array().unwrap() {
                for (start, (self_term, label)) in ["simplex", "random", "collided"]
                    .into_iter()
                    .flat_map(|s| [(SelfTerm::Include, "incl"), (SelfTerm::Exclude, "excl")].map(|t| (s, t)))
                {
                    compared += close(&settings(row["tau"].as_f64().unwrap(), self_term), start, &row[format!("{start}_{label}")]);
                }
            }
            let gaussian = UniformSettings { kind: UniformKind::Gaussian, ..UniformSettings::default() };
            for start in ["simplex", "random"] {
                compared += close(&gaussian, start, &table[classes]["wang_isola_t2"][start]);
            }
        }
    }
    assert!(compared >= 2 * (7 * 6 + 2), "only {compared} comparisons");
}

#[test]
fn gradients_are_the_golden_ones() {
    let file = SafeTensors::deserialize(TENSORS).unwrap();
    for device in devices() {
        let device = device.autodiff();
        for (classes, (start, tau, self_term, label)) in ["C7", "C8"].into_iter().flat_map(|c| {
            [
                ("collided", 0.07, SelfTerm::Include, "incl"),
                ("random", 0.1, SelfTerm::Exclude, "excl"),
                ("random", 0.5, SelfTerm::Include, "incl"),
            ]
            .map(|case| (c, case))
        }) {
            let q = queries(&file, &format!("{classes}.{start}"), &device).require_grad();
            let gradients = uniformity(q.clone(), &settings(tau, self_term)).backward();
            let ours = read_values(q.grad(&gradients).unwrap()).unwrap();
            let (expected, _) = values(&file, &format!("{classes}.grad_{start}_tau{tau}_{label}"));
            let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let error = largest_difference(&ours, &expected) / f64::from(largest);
            assert!(largest > 0.0 && error <= BOUND, "{classes} {start} tau {tau} {label}: {error}");
            let wrong: Vec<f32> = expected.iter().map(|v| v * 1.0001).collect();
            assert!(largest_difference(&ours, &wrong) / f64::from(largest) > BOUND, "a planted fault of 0.01 % is not seen");
        }
    }
}
