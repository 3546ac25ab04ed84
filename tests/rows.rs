//! Layer norm and softmax over rows of every kind of width, beside plain code in double precision, on the CPU and on Vulkan: shapes that fill
//! no workgroup, views, rows too wide for the shaders, padding that holds what it likes, and what stands between operations that burn fuses.
//!
//! Without a Vulkan adapter the GPU's part says so and passes, unless MOUE_NEEDS_VULKAN is set: then it fails. `tests/run` sets it.
#![cfg(feature = "train")]

use burn::backend::Dispatch;
use burn::prelude::*;
use burn::tensor::DType;
use half::f16;
use moue::config::DeviceChoice;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::open;
use moue::engine::read_values;
use moue::kernels::layers::{Layers, Path};
use moue::kernels::reference::{layer_norm, softmax};

const EPSILON: f64 = 1e-6;

/// The CPU, and Vulkan where it is.
fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![("cpu", Device::flex())];
    if adapters().iter().any(|a| a.api == Api::Vulkan) {
        devices.push(("vulkan", open(DeviceChoice::Vulkan(None)).unwrap().device));
    } else {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
    }
    devices
}

/// Numbers from -1 to 1 in no order.
fn values(n: usize, salt: usize) -> Vec<f32> {
    let mixed = |i: usize| ((i + salt * 104_729) as u32).wrapping_mul(2_654_435_761) >> 8;
    (0..n).map(|i| mixed(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Largest difference over the largest value; infinite where lengths differ or anything is not finite.
fn error(ours: &[f32], exact: &[f32]) -> f64 {
    let largest = exact.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    moue::selftest::largest_difference(ours, exact) / f64::from(largest)
}

fn norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Tensor<1>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Layers>::norm(x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch(), EPSILON))
}

fn norm_gradients<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, gradient: Tensor<D>) -> [Vec<f32>; 3] {
    let [x, gradient] = [x, gradient].map(Tensor::into_dispatch);
    let (x, gamma, beta) = <Dispatch as Layers>::norm_gradients(x, gamma.into_dispatch(), gradient, EPSILON);
    let [gamma, beta] = [gamma, beta].map(|v| read_values(Tensor::<1>::from_dispatch(v)).unwrap());
    [read_values(Tensor::<D>::from_dispatch(x)).unwrap(), gamma, beta]
}

/// Gradients of x on top of a residual, of gamma and of beta.
fn norm_onto([x, gradient, residual]: [Tensor<2>; 3], gamma: Tensor<1>) -> [Vec<f32>; 3] {
    let [x, gradient, residual] = [x, gradient, residual].map(Tensor::into_dispatch);
    let (x, gamma, beta) = <Dispatch as Layers>::norm_gradients_onto(x, gamma.into_dispatch(), gradient, residual, EPSILON);
    let [gamma, beta] = [gamma, beta].map(|v| read_values(Tensor::<1>::from_dispatch(v)).unwrap());
    [read_values(Tensor::<2>::from_dispatch(x)).unwrap(), gamma, beta]
}

/// The same, with what comes of the first along a path in the second place.
fn norm_along([x, gradient, residual]: [Tensor<2>; 3], gamma: Tensor<1>, mask: Option<Tensor<2>>) -> [Vec<f32>; 4] {
    let [x, gradient, residual] = [x, gradient, residual].map(Tensor::into_dispatch);
    let path = mask.map_or(Path::Whole, |mask| Path::Masked(mask.into_dispatch()));
    let made = <Dispatch as Layers>::norm_gradients_along(x, gamma.into_dispatch(), gradient, residual, path, EPSILON);
    let (x, branch, gamma, beta) = made;
    let branch = Tensor::<2>::from_dispatch(branch);
    assert_eq!(branch.dtype(), DType::F16);
    let [gamma, beta] = [gamma, beta].map(|v| read_values(Tensor::<1>::from_dispatch(v)).unwrap());
    [read_values(Tensor::<2>::from_dispatch(x)).unwrap(), read_values(branch).unwrap(), gamma, beta]
}

fn weights_of(scores: Tensor<2>, columns: usize, scale: f32, dtype: DType) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Layers>::softmax_of(scores.into_dispatch(), columns, scale, dtype))
}

fn softmax_gradient(weights: Tensor<2>, gradient: Tensor<2>, columns: usize, scale: f32) -> Vec<f32> {
    let [weights, gradient] = [weights, gradient].map(Tensor::into_dispatch);
    read_values(Tensor::<2>::from_dispatch(<Dispatch as Layers>::softmax_gradient(weights, gradient, columns, scale))).unwrap()
}

/// Two values are -1 and 1 whatever they were: nothing is left to compare. The last is too wide for a workgroup's registers.
const WIDTHS: [usize; 12] = [1, 3, 7, 16, 96, 192, 384, 768, 1025, 2048, 4096, 4097];

#[test]
fn norms_of_every_width() {
    let mut wrong = Vec::new();
    let mut check = |what: String, worst: f64| {
        if worst > 2e-5 {
            wrong.push(format!("{what}: {worst}"));
        }
    };
    for (name, device) in devices() {
        for (rows, width) in WIDTHS.iter().flat_map(|w| [1, 3, 1576].map(|r| (r, *w))).filter(|(r, w)| r * w <= 1576 * 1025) {
            let (x, gradient) = (values(rows * width, 1), values(rows * width, 2));
            let (gamma, beta) = (values(width, 3), values(width, 4));
            let [on_device, slopes] = [&x, &gradient].map(|v| tensor(v, [rows, width], &device));
            let [scale, shift] = [&gamma, &beta].map(|v| tensor(v, [width], &device));
            let made = read_values(norm(on_device.clone(), scale.clone(), shift)).unwrap();
            check(format!("{name}, [{rows}, {width}]"), error(&made, &layer_norm::norm(&x, &gamma, &beta, EPSILON)));
            let ours = norm_gradients(on_device, scale, slopes);
            let exact = layer_norm::gradients(&x, &gamma, &gradient, EPSILON);
            for (what, (ours, exact)) in ["x", "gamma", "beta"].iter().zip(ours.iter().zip(&exact)) {
                check(format!("{name}, [{rows}, {width}], gradient of {what}"), error(ours, exact));
            }
            // A single value off would be told.
            let mut beta = beta;
            beta[width - 1] += 1e-3;
            assert!(error(&made, &layer_norm::norm(&x, &gamma, &beta, EPSILON)) > 2e-5, "{name}, [{rows}, {width}]");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a block's backward pass asks of a norm: a residual on top, and a branch of every row, each a sample with a value of the mask.
#[test]
fn norms_of_every_width_before_a_branch() {
    let mut wrong = Vec::new();
    let mut check = |what: String, ours: &[f32], exact: &[f32], bound: f64| {
        let worst = error(ours, exact);
        if worst > bound {
            wrong.push(format!("{what}: {worst}"));
        }
    };
    for (name, device) in devices() {
        for (rows, width) in WIDTHS.iter().flat_map(|w| [1, 3, 1576].map(|r| (r, *w))).filter(|(r, w)| r * w <= 1576 * 1025) {
            let [x, gradient, residual] = [1, 2, 5].map(|salt| values(rows * width, salt));
            let (gamma, factors) = (values(width, 3), values(rows, 6));
            let on_device = || [&x, &gradient, &residual].map(|v| tensor(v, [rows, width], &device));
            let scale = || tensor(&gamma, [width], &device);
            let [of_x, of_gamma, of_beta] = layer_norm::gradients(&x, &gamma, &gradient, EPSILON);
            let [sum, masked] = layer_norm::along(&of_x, &residual, &factors);
            let case = format!("{name}, [{rows}, {width}]");
            let parts = ["x", "gamma", "beta"];
            for (what, (ours, exact)) in parts.iter().zip(norm_onto(on_device(), scale()).iter().zip([&sum, &of_gamma, &of_beta])) {
                check(format!("{case}, onto a residual, gradient of {what}"), ours, exact, 2e-5);
            }
            // Rows of f16 are whole words; burn's operations on a GPU, for rows that are too wide, need an f16 that not every driver has.
            if width % 2 == 1 || width > 4096 {
                continue;
            }
            let mask = tensor(&factors, [rows, 1], &device);
            for (path, mask, branch) in [("whole", None, &sum), ("masked", Some(mask), &masked)] {
                let [ours, along, ours_gamma, ours_beta] = norm_along(on_device(), scale(), mask);
                let case = format!("{case}, {path}");
                check(format!("{case}, gradient of x"), &ours, &sum, 2e-5);
                check(format!("{case}, branch"), &along, branch, 1e-3);
                check(format!("{case}, gradient of gamma"), &ours_gamma, &of_gamma, 2e-5);
                check(format!("{case}, gradient of beta"), &ours_beta, &of_beta, 2e-5);
            }
            // The mask of another row would be told.
            if rows > 1 {
                assert!(error(&masked, &layer_norm::along(&of_x, &residual, &[&factors[1..], &factors[..1]].concat())[1]) > 1e-3, "{case}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn norms_of_views_and_of_nothing() {
    for (name, device) in devices() {
        let (b, n, d) = (5, 9, 24);
        let (whole, other) = (values(b * n * d, 5), values(b * n * d, 6));
        let (gamma, beta) = (values(d, 7), values(d, 8));
        let vectors = || (tensor(&gamma, [d], &device), tensor(&beta, [d], &device));
        // Turned, and rows from the middle of a larger tensor; gamma and beta are parts of one, too.
        let turned = tensor(&whole, [d, n, b], &device).swap_dims(0, 2);
        let plain = read_values(turned.clone()).unwrap();
        let (scale, shift) = vectors();
        let worst = error(&read_values(norm(turned, scale, shift)).unwrap(), &layer_norm::norm(&plain, &gamma, &beta, EPSILON));
        assert!(worst <= 1e-5, "{name}, turned: {worst}");
        let parts = tensor(&[gamma.clone(), beta.clone()].concat(), [2 * d], &device);
        let [x, gradient] = [&whole, &other].map(|v| tensor(v, [b, n, d], &device).narrow(0, 1, 3));
        let ours = norm_gradients(x.clone(), parts.clone().narrow(0, 0, d), gradient);
        let inside = n * d..4 * n * d;
        let exact = layer_norm::gradients(&whole[inside.clone()], &gamma, &other[inside.clone()], EPSILON);
        assert!(ours.iter().zip(&exact).all(|(ours, exact)| error(ours, exact) <= 1e-5), "{name}, a part");
        let made = read_values(norm(x, parts.clone().narrow(0, 0, d), parts.narrow(0, d, d))).unwrap();
        assert!(error(&made, &layer_norm::norm(&whole[inside], &gamma, &beta, EPSILON)) <= 1e-5, "{name}, parts");
        // No rows.
        let (scale, shift) = vectors();
        let none = Tensor::<3>::zeros([0, n, d], &device);
        assert_eq!(norm(none, scale, shift).dims(), [0, n, d], "{name}");
    }
}

#[test]
fn a_constant_row_is_its_shift_and_what_is_not_a_number_stays() {
    for (name, device) in devices() {
        let mut x = vec![3.25f32; 4 * 8];
        x[8] = f32::NAN;
        let (gamma, beta) = (values(8, 1), values(8, 2));
        let made = read_values(norm(tensor(&x, [4, 8], &device), tensor(&gamma, [8], &device), tensor(&beta, [8], &device))).unwrap();
        assert!(made[8..16].iter().all(|v| v.is_nan()), "{name}: {made:?}");
        for row in [0, 2, 3] {
            assert!(error(&made[8 * row..8 * row + 8], &beta) <= 1e-6, "{name}: {made:?}");
        }
        let weights = read_values(weights_of(tensor(&x, [4, 8], &device), 5, 1.0, DType::F32)).unwrap();
        // WGSL does not say what e to the power of no number is.
        assert!(weights[8..13].iter().any(|v| v.is_nan()), "{name}: {weights:?}");
        assert!(weights[..5].iter().chain(&weights[16..21]).all(|v| (v - 0.2).abs() < 1e-6), "{name}: {weights:?}");
        assert!(weights.chunks(8).all(|row| row[5..].iter().all(|v| *v == 0.0)), "{name}: {weights:?}");
    }
}

#[test]
fn softmax_of_every_width_leaves_padding_alone() {
    let shapes = [(1, 1, 1), (3, 8, 1), (1, 208, 197), (1576, 208, 197), (37, 7, 7), (5, 96, 90), (3, 1026, 1025), (2, 4096, 4000)];
    for (name, device) in devices() {
        for (rows, width, columns) in shapes.into_iter().chain([(9, 4098, 4000), (1576, 48, 36)]) {
            let case = format!("{name}, [{rows}, {width}], {columns} columns");
            let scale = 0.37;
            let mut scores: Vec<f32> = values(rows * width, 1).iter().map(|v| 12.0 * v).collect();
            let mut gradient = values(rows * width, 2);
            for (scores, gradient) in scores.chunks_mut(width).zip(gradient.chunks_mut(width)) {
                scores[columns..].fill(f32::INFINITY);
                gradient[columns..].fill(f32::NAN);
            }
            let exact = softmax::softmax(&scores, width, columns, scale);
            let [scores, slopes] = [&scores, &gradient].map(|v| tensor(v, [rows, width], &device));
            // Rows of f16 are whole words; burn's operations on a GPU, for rows that are too wide, need an f16 that not every driver has.
            let kinds = [(DType::F32, 1e-5), (DType::F16, 1e-3)];
            for (dtype, bound) in kinds.into_iter().filter(|(dtype, _)| *dtype == DType::F32 || (width % 2 == 0 && width <= 4096)) {
                let weights = weights_of(scores.clone(), columns, scale, dtype);
                assert_eq!(weights.dtype(), dtype, "{case}");
                let made = read_values(weights.clone()).unwrap();
                assert!(error(&made, &exact) <= bound, "{case}, {dtype:?}: {}", error(&made, &exact));
                let ours = softmax_gradient(weights, slopes.clone(), columns, scale);
                let of_scores = softmax::gradient(&made, &gradient, width, columns, scale);
                assert!(error(&ours, &of_scores) <= bound, "{case}, {dtype:?}, gradient: {}", error(&ours, &of_scores));
                for row in made.chunks(width).chain(ours.chunks(width)) {
                    assert!(row[columns..].iter().all(|v| *v == 0.0), "{case}, {dtype:?}: padding");
                }
                if dtype == DType::F16 {
                    assert!(made.iter().all(|v| f16::from_f32(*v).to_f32() == *v), "{case}");
                }
                // One column fewer would be told.
                if columns > 1 && columns < 100 {
                    let wrong = softmax::softmax(&read_values(scores.clone()).unwrap(), width, columns - 1, scale);
                    assert!(error(&made, &wrong) > bound, "{case}, {dtype:?}");
                }
            }
        }
    }
}

/// Where half precision ends, training has to see that it did: its loss is scaled too much.
#[test]
fn gradients_beyond_half_precision_are_infinite() {
    for (name, device) in devices() {
        // Both weights are a half, so slopes are a quarter of the difference of the two.
        for (slope, expected) in [(1.2e5, 6e4), (1.4e5, f32::INFINITY), (4e8, f32::INFINITY)] {
            let weights = weights_of(Tensor::zeros([1, 2], &device), 2, 1.0, DType::F16);
            let made = softmax_gradient(weights, tensor(&[slope, -slope], [1, 2], &device), 2, 1.0);
            assert_eq!(made, [expected, -expected], "{name}, {slope}");
        }
    }
}

/// Gradients through norm and softmax, between operations that burn fuses, are those that it has on the CPU.
#[test]
fn gradients_go_through_fused_neighbours() {
    let of = |device: &Device| {
        let device = device.clone().autodiff();
        let x = tensor(&values(6 * 20, 1), [6, 20], &device).require_grad();
        let [gamma, beta] = [2, 3].map(|salt| tensor(&values(20, salt), [20], &device).require_grad());
        let normed = norm(x.clone() * 2.0 + 1.0, gamma.clone(), beta.clone()) * 3.0;
        let weights = weights_of(normed, 17, 0.5, DType::F32) + 0.25;
        let gradients = (weights * tensor(&values(6 * 20, 4), [6, 20], &device)).sum().backward();
        let mut all = read_values(x.grad(&gradients).unwrap()).unwrap();
        [gamma, beta].iter().for_each(|v| all.extend(read_values(v.grad(&gradients).unwrap()).unwrap()));
        all
    };
    let all: Vec<_> = devices().iter().map(|(_, device)| of(device)).collect();
    assert!(all[0].iter().any(|v| v.abs() > 1e-3));
    for other in &all {
        assert!(error(other, &all[0]) <= 1e-5, "{other:?} beside {:?}", all[0]);
    }
}
