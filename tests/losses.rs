//! The finetuning losses against independent values and gradients (`tests/golden/{uniform,pll}.*`, double precision), on every device
//! there is, and every objective's update rule.
#![cfg(feature = "train")]

use burn::prelude::*;
use moue::config::{DeviceChoice, SelfTerm, UniformKind, UniformSettings};
use moue::config::{Objective, Settings};
use moue::dataset::Class;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::open;
use moue::engine::read_values;
use moue::finetune::leverage::Leverage;
use moue::finetune::loss::{candidate_mass, complement, confidence_cross_entropy, divergence, leveraged, smoothed, uniformity};
use moue::finetune::recipe::Recipe;
use moue::labels::ConfidenceTable;
use moue::selftest::largest_difference;
use safetensors::SafeTensors;
use serde_json::Value;

const TENSORS: &[u8] = include_bytes!("golden/uniform.safetensors");
const TABLE: &str = include_str!("golden/uniform.json");
const BOUND: f64 = 1e-5;
const PLL: &str = include_str!("golden/pll.json");
/// Of the rivals' losses and updates.
const PLL_BOUND: f64 = 2e-6;

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

/// A matrix of the golden batch: 4 faces, 7 classes.
fn matrix(golden: &Value) -> Vec<f32> {
    let rows = golden.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    let values: Vec<f32> = rows.map(|v| v.as_f64().unwrap() as f32).collect();
    assert_eq!(values.len(), 28);
    values
}

fn candidate_sets(golden: &Value) -> Vec<Vec<Class>> {
    matrix(&golden["candidates"]).chunks(7).map(|row| (0..7).filter(|&c| row[usize::from(c)] == 1.0).collect()).collect()
}

#[test]
fn rival_losses_are_the_golden_ones() {
    let golden: Value = serde_json::from_str(PLL).unwrap();
    for device in devices() {
        let tensor = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [4, 7]), &device);
        let of = |key: &str| tensor(matrix(&golden[key]));
        let check = |name: &str, loss: Tensor<1>, expected: &Value| {
            // Losses here are sums over the batch, the golden ones means.
            let (ours, expected) = (f64::from(read_values(loss).unwrap()[0]) / 4.0, expected.as_f64().unwrap());
            assert!((ours - expected).abs() <= PLL_BOUND * expected.abs().max(1.0), "{name}: {ours} {expected}");
            assert!((ours * 1.0001 - expected).abs() > PLL_BOUND * expected.abs().max(1.0), "{name}: a planted fault is not seen");
        };
        let (z, rows, members) = (of("logits"), of("confidence0"), of("candidates"));
        check("cross-entropy", confidence_cross_entropy(z.clone(), rows.clone()), &golden["softmax_ce_with_confidence0"]);
        check("CC", candidate_mass(z.clone(), members.clone()), &golden["cc_loss"]);
        let weights = tensor(Leverage::new(7, 4).rows().to_vec());
        for (beta, expected) in golden["lw_sigmoid_loss_init_1_over_C"].as_object().unwrap() {
            check("LW", leveraged(z.clone(), weights.clone(), members.clone(), beta.parse().unwrap()), expected);
        }
        let cr = &golden["crpll"];
        for (i, view) in ["logits", "logits_view1", "logits_view2"].into_iter().enumerate() {
            check("CR-PLL consistency", divergence(of(view), rows.clone()), &cr["consistency"][i]);
        }
        check("CR-PLL supervised", complement(z.clone(), members), &cr["supervised_neg"]);
        // Label smoothing by its definition: a tenth of the mean of all classes' cross-entropies.
        let even = tensor(vec![1.0 / 7.0; 28]);
        let parts =
            confidence_cross_entropy(z.clone(), rows.clone()).mul_scalar(0.9) + confidence_cross_entropy(z.clone(), even).mul_scalar(0.1);
        let smooth = read_values(confidence_cross_entropy(z, smoothed(rows, 0.1)) - parts).unwrap()[0];
        assert!(smooth.abs() < 1e-5, "label smoothing is off by {smooth}");
    }
}

#[test]
fn rival_updates_are_the_golden_ones() {
    let golden: Value = serde_json::from_str(PLL).unwrap();
    let (logits, sets) = (matrix(&golden["logits"]), candidate_sets(&golden));
    let close = |name: &str, ours: &[f32], expected: &Value| {
        let error = largest_difference(ours, &matrix(expected));
        assert!(error <= PLL_BOUND, "{name}: {error}");
    };
    let revised = |objective, response: &[f32]| {
        let mut table = ConfidenceTable::new(7, sets.clone());
        close("start", table.rows(), &golden["confidence0"]);
        let rule = Recipe::of(objective, &Settings::default()).revision.unwrap();
        table.revise(&[0, 1, 2, 3], response, &rule);
        table.rows().to_vec()
    };
    for objective in [Objective::Proden, Objective::Rc, Objective::Cc, Objective::Lw] {
        close(objective.name(), &revised(objective, &logits), &golden["proden_or_rc_update"]);
    }
    let views = ["logits", "logits_view1", "logits_view2"].map(|key| matrix(&golden[key]));
    let device = Device::flex();
    let log = |values: &[f32]| {
        let z = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [4, 7]), &device);
        read_values(burn::tensor::activation::log_softmax(z, 1)).unwrap()
    };
    let [a, b, c] = views.each_ref().map(|v| log(v));
    let mean: Vec<f32> = (0..28).map(|i| (a[i] + b[i] + c[i]) / 3.0).collect();
    close("cr_pll", &revised(Objective::CrPll, &mean), &golden["crpll"]["confidence_update"]);
    let mut weights = Leverage::new(7, 4);
    (0..4).for_each(|i| weights.revise(i, &logits[7 * i..7 * i + 7], &sets[i]));
    close("lw weights", weights.rows(), &golden["lw_weight_update"]);
}
