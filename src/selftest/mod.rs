//! Does this device compute what it should? Every golden vector and every gradient of our kernels, and one training step of each kind beside
//! the CPU: what `moue selftest` prints and what a bug report needs.
//!
//! A check gives the largest error it saw and the bound for it; results or references that are not finite have an infinite error, and a
//! panic of the driver fails its row instead of the whole table.

mod attention;
mod golden;
mod kernels;
mod products;
mod rows;
mod step;
mod updates;

use crate::engine::read_values;
use anyhow::Result;
use burn::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use golden::Golden;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Largest error, in the unit of `bound`.
    pub error: f64,
    pub bound: f64,
    /// Bytes read and written per second, for kernels.
    pub bytes_per_second: Option<f64>,
    /// What the device lacks, so that there was nothing to check.
    pub lacks: Option<&'static str>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub check: &'static str,
    pub result: Result<Finding>,
}

impl Row {
    pub fn passed(&self) -> bool {
        self.result.as_ref().is_ok_and(|f| f.error <= f.bound)
    }
}

impl Finding {
    fn new(error: f64, bound: f64) -> Self {
        Self { error, bound, bytes_per_second: None, lacks: None }
    }

    fn nothing(lacks: &'static str) -> Self {
        Self { lacks: Some(lacks), ..Self::new(0.0, 0.0) }
    }
}

type Check = fn(&Device) -> Result<Finding>;

const CHECKS: &[(&str, Check)] = &[
    ("shaders translate to every API", kernels::translation),
    ("hog: golden vectors", kernels::hog_golden),
    ("hog: odd sizes, as the CPU twin", kernels::hog_twin),
    ("hog: the same bits again", kernels::hog_repeats),
    ("patch_pixels: golden vectors", kernels::pixels_golden),
    ("patch_gather: golden vectors, f32 and f16", kernels::gather_golden),
    ("patch_gather: scatter, golden vectors", kernels::scatter_golden),
    ("patch_gather: scatter, ulps to the CPU twin", kernels::scatter_twin),
    ("patch_gather: gradient, finite differences", kernels::gather_gradient),
    ("patch_gather: scatter gradient, finite differences", kernels::scatter_gradient),
    ("dropout: golden vectors", kernels::dropout_golden),
    ("dropout: as the CPU twin, with gradients", kernels::dropout_twin),
    ("layer_norm: golden vectors, with gradients", rows::norm_golden),
    ("layer_norm: forward, as the CPU in f64", rows::norm_forward),
    ("layer_norm: forward in f16, as the CPU in f64", rows::norm_halves),
    ("layer_norm: gradients, as the CPU in f64", rows::norm_gradients),
    ("layer_norm: along a path, f16, as the CPU in f64", rows::norm_branch),
    ("softmax: golden vectors, with gradients, f32", rows::softmax_golden_f32),
    ("softmax: golden vectors, with gradients, f16", rows::softmax_golden_f16),
    ("softmax: f32, as the CPU in f64", rows::softmax_f32),
    ("softmax: f16, as the CPU in f64", rows::softmax_f16),
    ("softmax: gradient, f32, as the CPU in f64", rows::softmax_gradient_f32),
    ("softmax: gradient, f16, as the CPU in f64", rows::softmax_gradient_f16),
    ("layer_norm and softmax: the same bits again", rows::repeats),
    ("product: golden vectors, f32", products::golden_f32),
    ("product: golden vectors, f16", products::golden_f16),
    ("product: f32, as the CPU in f64", products::large_f32),
    ("product: f16, as the CPU in f64", products::large_f16),
    ("product: rounded to f16, as the CPU in f64", products::rounded),
    ("product: rounded, with a bias, as the CPU in f64", products::rounded_bias),
    ("product: onto a residual, as the CPU in f64", products::residual),
    ("product: rounded, activated, as the CPU in f64", products::rounded_activation),
    ("product: rounded, times slopes, as the CPU in f64", products::rounded_gradient),
    ("product: rounded, beyond the range of f16", products::rounded_range),
    ("attention: golden vectors, f32", attention::golden_f32),
    ("attention: golden vectors, f16", attention::golden_f16),
    ("attention of queries: f32, as the CPU in f64", attention::queries_f32),
    ("attention of queries: f16, as the CPU in f64", attention::queries_f16),
    ("column_sums: golden vectors", products::sums_golden),
    ("column_sums: as the CPU in f64", products::sums),
    ("column_sums: f16, as the CPU in f64", rows::sums_halves),
    ("products and sums: the same bits again", products::repeats),
    ("adamw: golden vectors", updates::adamw_golden),
    ("adamw: as the CPU in f64", updates::adamw_twin),
    ("squares: golden vectors", updates::squares_golden),
    ("squares: as the CPU in f64", updates::squares_twin),
    ("adamw and squares: the same bits again", updates::repeats),
    ("pretraining step, as on the CPU", step::pretraining),
    ("pretraining step on visible patches, as on the CPU", step::pretraining_visible),
    ("finetuning step, as on the CPU", step::finetuning),
    ("finetuning step in mixed precision, as in f32", step::finetuning_mixed),
];

/// Runs the checks whose names contain `only` on `device`, telling each row as it is done.
pub fn run(device: &Device, only: &str, mut tell: impl FnMut(&Row)) -> Vec<Row> {
    let mut rows = Vec::with_capacity(CHECKS.len());
    for &(check, work) in CHECKS.iter().filter(|(check, _)| check.contains(only)) {
        let result = catch_unwind(AssertUnwindSafe(|| work(device)))
            .unwrap_or_else(|panic| Err(anyhow::anyhow!("it panicked: {}", crate::failure::panic_text(&*panic))));
        let row = Row { check, result };
        tell(&row);
        rows.push(row);
    }
    rows
}

/// Largest absolute difference; infinite where lengths differ or anything is not finite.
pub fn largest_difference(ours: &[f32], reference: &[f32]) -> f64 {
    if ours.len() != reference.len() || reference.is_empty() {
        return f64::INFINITY;
    }
    let difference = |(a, b): (&f32, &f32)| if a.is_finite() && b.is_finite() { f64::from(a - b).abs() } else { f64::INFINITY };
    ours.iter().zip(reference).map(difference).fold(0.0, f64::max)
}

/// Largest difference over the largest value.
fn relative_error(ours: &[f32], reference: &[f32]) -> f64 {
    let largest = reference.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    largest_difference(ours, reference) / f64::from(largest)
}

/// Error of a value that is rounded to f16 once, over the value: the next f16 on either side is at most 2^-10 away.
const ROUNDED_BOUND: f64 = 1e-3;
/// Share of the largest value that is added to each for that: beside zero, where errors of sums count, it allows 2e-5 of the largest. That is
/// also more than any f16 for which a device may write zero, where results go up to four and more.
const BESIDE_ZERO: f64 = 0.02;

/// Largest error of values that were rounded to f16 once, of each over itself, as [`ROUNDED_BOUND`] says.
fn rounded_error(ours: &[f32], exact: &[f64]) -> f64 {
    if ours.len() != exact.len() {
        return f64::INFINITY;
    }
    let largest = exact.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
    let error = |(ours, exact): (&f32, &f64)| {
        let error = (f64::from(*ours) - *exact).abs() / (exact.abs() + BESIDE_ZERO * largest);
        if error.is_finite() { error } else { f64::INFINITY }
    };
    ours.iter().zip(exact).map(error).fold(0.0, f64::max)
}

/// How many values of `once` have other bits when it is done again, three times.
fn repeated(once: impl Fn() -> Result<Vec<f32>>) -> Result<Finding> {
    let first = once()?;
    let mut changed = 0;
    for _ in 0..3 {
        changed += once()?.iter().zip(&first).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    }
    Ok(Finding::new(changed as f64, 0.0))
}

/// Launches between two reads when a rate is measured.
const LAUNCHES: usize = 8;

/// Bytes per second of `work`, which moves `bytes` and returns what keeps its result alive.
fn rate<const D: usize>(device: &Device, bytes: usize, work: impl Fn() -> Result<Tensor<D>>) -> Result<f64> {
    // One read for many launches, or the way to the host is all that is measured. Each result is read from: fusion drops what nobody reads.
    let launches = || -> Result<()> {
        let firsts: Result<Vec<_>> = (0..LAUNCHES).map(|_| Ok(work()?.slice([const { 0..1 }; D]))).collect();
        read_values(Tensor::cat(firsts?, 0)).map(drop)
    };
    launches()?;
    let (began, mut best, mut rounds) = (Instant::now(), Duration::MAX, 0);
    while rounds < 2 || (began.elapsed() < Duration::from_millis(200) && rounds < 100) {
        device.sync().map_err(|e| anyhow::anyhow!("waiting for the device: {e:?}"))?;
        let start = Instant::now();
        launches()?;
        best = best.min(start.elapsed());
        rounds += 1;
    }
    Ok((LAUNCHES * bytes) as f64 / best.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unequal_or_infinite_passes() {
        assert_eq!(largest_difference(&[1.0, 2.5], &[1.0, 2.0]), 0.5);
        for (ours, reference) in [(vec![f32::NAN], vec![1.0]), (vec![1.0], vec![f32::NAN]), (vec![1.0], vec![]), (vec![], vec![])] {
            assert_eq!(largest_difference(&ours, &reference), f64::INFINITY);
        }
    }

    #[test]
    fn the_cpu_passes_and_a_panic_is_a_failed_row() {
        let rows = run(&Device::flex(), "", |_| {});
        assert_eq!(rows.len(), CHECKS.len());
        let failed: Vec<&Row> = rows.iter().filter(|r| !r.passed()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let row = Row { check: "", result: Ok(Finding::new(f64::NAN, 1.0)) };
        assert!(!row.passed());
    }
}
