//! What `shaders/softmax.wgsl` computes, in double precision: softmax of rows `[M, P]` of which the first K columns count, and its gradient.

/// Scores `[M, P]`, multiplied by `scale` -> weights `[M, P]`, zero in the columns from K on.
///
/// # Panics
/// If there are not whole rows of at least K columns.
pub fn softmax(scores: &[f32], width: usize, columns: usize, scale: f32) -> Vec<f32> {
    assert!(scores.len().is_multiple_of(width) && (1..=width).contains(&columns), "{columns} of {width} columns");
    let mut out = vec![0.0; scores.len()];
    for (row, out) in scores.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let values: Vec<f64> = row[..columns].iter().map(|v| f64::from(*v) * f64::from(scale)).collect();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = values.iter().map(|v| (v - most).exp()).sum();
        out.iter_mut().zip(&values).for_each(|(out, v)| *out = ((v - most).exp() / total) as f32);
    }
    out
}

/// Weights and their gradient, `[M, P]` -> the gradient of scores `[M, P]`, zero in the columns from K on.
///
/// # Panics
/// As [`softmax`].
pub fn gradient(weights: &[f32], gradient: &[f32], width: usize, columns: usize, scale: f32) -> Vec<f32> {
    assert!(weights.len() == gradient.len() && weights.len().is_multiple_of(width) && (1..=width).contains(&columns));
    let mut out = vec![0.0; weights.len()];
    for ((weights, slopes), out) in weights.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
        let pairs = || weights[..columns].iter().zip(slopes).map(|(w, g)| (f64::from(*w), f64::from(*g)));
        let mean: f64 = pairs().map(|(w, g)| w * g).sum();
        out.iter_mut().zip(pairs()).for_each(|(out, (w, g))| *out = (f64::from(scale) * w * (g - mean)) as f32);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_hand() {
        let ln2 = std::f32::consts::LN_2;
        let made = softmax(&[0.0, 2.0 * ln2, 900.0, 1e3, 1e3, 0.0], 3, 2, 0.5);
        for (ours, exact) in made.iter().zip([1.0 / 3.0, 2.0 / 3.0, 0.0, 0.5, 0.5, 0.0]) {
            assert!((ours - exact).abs() < 1e-6, "{made:?}");
        }
        assert_eq!(gradient(&[0.25, 0.75, 0.5], &[4.0, 8.0, 1e9], 3, 2, 2.0), [-1.5, 1.5, 0.0]);
        assert_eq!(gradient(&[1.0, 0.0], &[4.0, f32::NAN], 2, 1, 2.0), [0.0, 0.0]);
    }
}
