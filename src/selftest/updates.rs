//! Checks of what comes after the backward pass, AdamW and sums of squares: golden vectors, and larger sizes beside the CPU in double
//! precision.

use super::kernels::{floats, normals};
use super::{Finding, Golden, rate, relative_error, repeated};
use crate::engine::read_values;
use crate::kernels::reference;
use crate::kernels::updates::{AdamWStep, adamw, add_squares, add_squares_of};
use anyhow::Result;
use burn::prelude::*;

/// Largest error over the largest value. Of one less a power of beta, f32 keeps few digits.
const BOUND: f64 = 1e-5;
/// Values that rates are measured with: a matrix of a ViT-B and one value more.
const VALUES: usize = 768 * 768 + 1;
/// Of tensors whose squares are summed together, and of one left over.
const MANY: [usize; 9] = [VALUES, 1, 768, 4096, 4097, 3, 768 * 32, 9000, 17];
/// A step in the midst of training.
const STEP: AdamWStep = AdamWStep { factor: 0.5, rate: 0.01, weight_decay: 0.05, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, time: 7 };

/// What all steps of a golden vector have, and how many they are of how many values.
fn golden_steps(golden: &Golden, stem: &str) -> Result<(AdamWStep, [usize; 2])> {
    let scalars = golden.floats(&format!("{stem}.scalars"))?;
    let [factor, rate, weight_decay, beta1, beta2, epsilon] = <[f32; 6]>::try_from(scalars.as_slice())?;
    let step = AdamWStep { factor, rate: f64::from(rate), weight_decay, beta1, beta2, epsilon, time: 0 };
    Ok((step, golden.shape(&format!("{stem}.gradients"))?))
}

pub fn adamw_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::adamw()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".gradients")? {
        let values = |part: &str| golden.floats(&format!("{stem}.{part}"));
        let (step, [steps, n]) = golden_steps(&golden, &stem)?;
        let (gradients, expected) = (values("gradients")?, [values("parameters")?, values("first")?, values("second")?]);
        let (mut parameter, mut moments) = (floats(values("parameter")?, [n], device), None);
        for time in 1..=steps {
            let these = (time - 1) * n..time * n;
            let gradient = floats(gradients[these.clone()].to_vec(), [n], device);
            let [new, first, second] = adamw(parameter, gradient, moments, None, AdamWStep { time, ..step });
            for (ours, expected) in [&new, &first, &second].into_iter().zip(&expected) {
                worst = worst.max(relative_error(&read_values(ours.clone())?, &expected[these.clone()]));
            }
            (parameter, moments) = (new, Some([first, second]));
        }
    }
    Ok(Finding::new(worst, BOUND))
}

/// Parameter, gradient and moments of a network that has learnt.
fn learnt(values: usize) -> [Vec<f32>; 4] {
    let second = normals("second", values).into_iter().map(|v| 0.1 + v * v).collect();
    [normals("parameter", values), normals("gradient", values), normals("first", values), second]
}

pub fn adamw_twin(device: &Device) -> Result<Finding> {
    let values = learnt(VALUES);
    let [parameter, gradient, first, second] = values.each_ref().map(|v| floats(v.clone(), [VALUES], device));
    let mut worst = 0.0f64;
    for (step, later, computed) in [(AdamWStep { time: 1, ..STEP }, false, None), (STEP, true, None), (STEP, true, Some(0.625))] {
        let moments = later.then(|| [first.clone(), second.clone()]);
        let factor = computed.map(|factor| floats(vec![factor], [1], device));
        let ours = adamw(parameter.clone(), gradient.clone(), moments, factor, step);
        let step = AdamWStep { factor: step.factor * computed.unwrap_or(1.0), ..step };
        let moments = later.then(|| [values[2].as_slice(), values[3].as_slice()]);
        let exact = reference::adamw::adamw(&values[0], &values[1], moments, &step);
        for (ours, exact) in ours.into_iter().zip(&exact) {
            worst = worst.max(relative_error(&read_values(ours)?, exact));
        }
    }
    let rate = rate(device, 7 * 4 * VALUES, || {
        let [made, ..] = adamw(parameter.clone(), gradient.clone(), Some([first.clone(), second.clone()]), None, STEP);
        Ok(made)
    })?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, BOUND) })
}

pub fn squares_golden(device: &Device) -> Result<Finding> {
    let golden = Golden::squares()?;
    let mut worst = 0.0f64;
    for stem in golden.stems(".x")? {
        let values = |part: &str| golden.floats(&format!("{stem}.{part}"));
        let [n] = golden.shape(&format!("{stem}.x"))?;
        let sum = add_squares(floats(values("before")?, [1], device), floats(values("x")?, [n], device));
        worst = worst.max(relative_error(&read_values(sum)?, &values("sum")?));
    }
    Ok(Finding::new(worst, BOUND))
}

pub fn squares_twin(device: &Device) -> Result<Finding> {
    let values = normals("x", VALUES);
    let (before, x) = (floats(vec![1e5], [1], device), floats(values.clone(), [VALUES], device));
    let ours = read_values(add_squares(before.clone(), x.clone()))?;
    let mut worst = relative_error(&ours, &[reference::squares::add_squares(1e5, &values)]);
    let parts: Vec<&[f32]> = MANY.iter().map(|n| &values[..*n]).collect();
    let tensors = parts.iter().map(|part| floats(part.to_vec(), [part.len()], device).into_dispatch()).collect();
    let ours = read_values(add_squares_of(before.clone(), tensors))?;
    let exact = parts.into_iter().fold(1e5, reference::squares::add_squares);
    worst = worst.max(relative_error(&ours, &[exact]));
    let rate = rate(device, 4 * VALUES, || Ok(add_squares(before.clone(), x.clone())))?;
    Ok(Finding { bytes_per_second: Some(rate), ..Finding::new(worst, BOUND) })
}

pub fn repeats(device: &Device) -> Result<Finding> {
    let values = 100_003;
    let [parameter, gradient, first, second] = learnt(values).map(|v| floats(v, [values], device));
    let once = || -> Result<Vec<f32>> {
        let zero = floats(vec![0.0], [1], device);
        let mut all = read_values(add_squares(add_squares(zero, gradient.clone()), parameter.clone()))?;
        for moments in [None, Some([first.clone(), second.clone()])] {
            for part in adamw(parameter.clone(), gradient.clone(), moments, None, STEP) {
                all.extend(read_values(part)?);
            }
        }
        Ok(all)
    };
    repeated(once)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_agree_with_the_goldens() {
        let golden = Golden::adamw().unwrap();
        for stem in golden.stems(".gradients").unwrap() {
            let values = |part: &str| golden.floats(&format!("{stem}.{part}")).unwrap();
            let (step, [_, n]) = golden_steps(&golden, &stem).unwrap();
            let expected = ["parameters", "first", "second"].map(values);
            let mut parameter = values("parameter");
            let mut moments: Option<[Vec<f32>; 2]> = None;
            for (i, gradient) in values("gradients").chunks(n).enumerate() {
                let step = AdamWStep { time: i + 1, ..step };
                let old = moments.as_ref().map(|both| both.each_ref().map(Vec::as_slice));
                let made = reference::adamw::adamw(&parameter, gradient, old, &step);
                for (ours, expected) in made.iter().zip(&expected) {
                    assert!(relative_error(ours, &expected[i * n..(i + 1) * n]) <= 1e-6, "{stem}, step {i}");
                }
                // A step more or less is another computation.
                let other = AdamWStep { time: i + 2, ..step };
                let [wrong, ..] = reference::adamw::adamw(&parameter, gradient, old, &other);
                assert!(relative_error(&wrong, &expected[0][i * n..(i + 1) * n]) > 1e-5, "{stem}, step {i}");
                let [new, first, second] = made;
                (parameter, moments) = (new, Some([first, second]));
            }
        }
        let golden = Golden::squares().unwrap();
        for stem in golden.stems(".x").unwrap() {
            let values = |part: &str| golden.floats(&format!("{stem}.{part}")).unwrap();
            let ours = reference::squares::add_squares(values("before")[0], &values("x"));
            assert!(relative_error(&[ours], &values("sum")) <= 2e-7, "{stem}");
        }
    }
}
