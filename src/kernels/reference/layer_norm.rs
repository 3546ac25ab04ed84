//! What `shaders/layer_norm.wgsl` computes, in double precision: layer norm of rows `[R, D]` and its gradients.

/// Mean of a row, and one over its deviation.
fn moments(row: &[f32], epsilon: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    (mean, (variance + epsilon).sqrt().recip())
}

/// x `[R, D]`, gamma and beta `[D]` -> `[R, D]`
///
/// # Panics
/// If there are not whole rows.
pub fn norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f64) -> Vec<f32> {
    assert!(gamma.len() == beta.len() && x.len().is_multiple_of(gamma.len()), "rows of another width");
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gamma.len()) {
        let (mean, scale) = moments(row, epsilon);
        let each = row.iter().zip(gamma).zip(beta);
        out.extend(each.map(|((v, g), b)| ((f64::from(*v) - mean) * scale * f64::from(*g) + f64::from(*b)) as f32));
    }
    out
}

/// Gradients of x `[R, D]`, gamma `[D]` and beta `[D]`, from x, gamma and the gradient of the output `[R, D]`.
///
/// # Panics
/// If there are not whole rows.
pub fn gradients(x: &[f32], gamma: &[f32], gradient: &[f32], epsilon: f64) -> [Vec<f32>; 3] {
    let width = gamma.len();
    assert!(x.len() == gradient.len() && x.len().is_multiple_of(width), "rows of another width");
    let (mut of_x, mut of_gamma, mut of_beta) = (Vec::with_capacity(x.len()), vec![0.0; width], vec![0.0; width]);
    for (row, slopes) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
        let (mean, scale) = moments(row, epsilon);
        let normal: Vec<f64> = row.iter().map(|v| (f64::from(*v) - mean) * scale).collect();
        let scaled: Vec<f64> = slopes.iter().zip(gamma).map(|(s, g)| f64::from(*s) * f64::from(*g)).collect();
        let first = scaled.iter().sum::<f64>() / width as f64;
        let second = scaled.iter().zip(&normal).map(|(s, n)| s * n).sum::<f64>() / width as f64;
        of_x.extend(scaled.iter().zip(&normal).map(|(s, n)| (scale * (s - first - n * second)) as f32));
        for (i, slope) in slopes.iter().enumerate() {
            of_gamma[i] += f64::from(*slope) * normal[i];
            of_beta[i] += f64::from(*slope);
        }
    }
    [of_x, of_gamma.iter().map(|v| *v as f32).collect(), of_beta.iter().map(|v| *v as f32).collect()]
}

/// The gradient of x on top of a residual, `[R, D]` both, and what a mask `[B]` of samples, with R / B rows each, leaves of the sum.
///
/// # Panics
/// If there are not whole rows for every sample.
pub fn along(of_x: &[f32], residual: &[f32], mask: &[f32]) -> [Vec<f32>; 2] {
    assert!(of_x.len() == residual.len() && of_x.len().is_multiple_of(mask.len()), "rows of another size");
    let sum: Vec<f32> = of_x.iter().zip(residual).map(|(a, b)| (f64::from(*a) + f64::from(*b)) as f32).collect();
    let each = sum.len() / mask.len();
    let branch = sum.iter().enumerate().map(|(i, v)| v * mask[i / each]).collect();
    [sum, branch]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_hand() {
        // Mean 2, variance 1.
        assert_eq!(norm(&[1.0, 3.0, 5.0, 5.0], &[2.0, 10.0], &[0.5, 0.0], 0.0)[..2], [-1.5, 10.0]);
        assert_eq!(norm(&[5.0, 5.0], &[2.0, 10.0], &[0.5, 0.25], 1e-6), [0.5, 0.25]);
        let [of_x, of_gamma, of_beta] = gradients(&[1.0, 3.0], &[1.0, 1.0], &[4.0, 6.0], 0.0);
        // Two values are -1 and 1 whatever they were.
        assert_eq!((of_x, of_gamma, of_beta), (vec![0.0, 0.0], vec![-4.0, 6.0], vec![4.0, 6.0]));
        // Two samples of a row each.
        let [sum, branch] = along(&[1.0, 2.0, 3.0, 4.0], &[0.5, -2.0, 1.0, 0.0], &[0.0, 1.5]);
        assert_eq!((sum, branch), (vec![1.5, 0.0, 4.0, 4.0], vec![0.0, 0.0, 6.0, 6.0]));
    }

    #[test]
    fn gradients_are_those_of_small_steps() {
        let (x, gamma, beta) = ([0.3f32, -1.2, 2.0, 0.7, 1.1, -0.4], [1.5f32, -0.5, 2.0], [0.1f32, 0.2, 0.3]);
        let slopes = [1.0f32, -2.0, 0.5, 0.25, 3.0, -1.0];
        let loss = |x: &[f32], gamma: &[f32]| {
            norm(x, gamma, &beta, 1e-2).iter().zip(&slopes).map(|(y, s)| f64::from(*y) * f64::from(*s)).sum::<f64>()
        };
        let [of_x, of_gamma, _] = gradients(&x, &gamma, &slopes, 1e-2);
        let step = 1.0 / 128.0;
        let moved = |values: &[f32], i: usize, by: f32| values.iter().enumerate().map(|(j, v)| if i == j { v + by } else { *v }).collect();
        for (i, ours) in of_x.iter().enumerate() {
            let [up, down]: [Vec<f32>; 2] = [step, -step].map(|by| moved(&x, i, by));
            assert!((f64::from(*ours) - (loss(&up, &gamma) - loss(&down, &gamma)) * 64.0).abs() < 2e-3, "x {i}");
        }
        for (i, ours) in of_gamma.iter().enumerate() {
            let [up, down]: [Vec<f32>; 2] = [step, -step].map(|by| moved(&gamma, i, by));
            assert!((f64::from(*ours) - (loss(&x, &up) - loss(&x, &down)) * 64.0).abs() < 2e-3, "gamma {i}");
        }
    }
}
