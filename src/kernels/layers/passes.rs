//! Passes over rows of values, vectorised for the processor at hand.
//!
//! Sums run in [`LANES`] interleaved parts and no multiplication is fused with an addition, so results are the same on every processor.

use std::mem::MaybeUninit;

const LANES: usize = 16;

/// Functions that are compiled for several levels of the processor; the best one is chosen when they run.
macro_rules! vectorised {
    ($($(#[$doc:meta])* pub fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => { $(
        $(#[$doc])*
        pub fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "functions compiled for a better processor than the least that is supported")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has what the function was compiled for.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($argument),*) };
                }
            }
            body($($argument),*)
        }
    )* };
}

#[inline(always)]
fn lanes(row: &[f32], mut add: impl FnMut(&mut f32, usize)) -> f32 {
    let mut sums = [0.0f32; LANES];
    let whole = row.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            add(sum, start + lane);
        }
    }
    for i in whole..row.len() {
        add(&mut sums[i - whole], i);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    sums[0]
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    lanes(row, |s, i| *s += row[i])
}

/// Sum of products.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    lanes(a, |s, i| *s += a[i] * b[i])
}

/// e to the power of x, for x up to 0, with a relative error of 2e-7; below -87 what it is there.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // A number this large has units for its last place: adding it rounds.
    const ROUND: f32 = 12_582_912.0;
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    // Not `max`, which would make a number of what is none.
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2.0 - n * LN2.1;
    // Cephes' polynomial for |r| <= ln 2 / 2.
    let p = ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 0.166_666_65) * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Mean of a row and the reciprocal of its deviation.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row) / n;
    let variance = lanes(row, |s, i| *s += (row[i] - mean) * (row[i] - mean)) / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

vectorised! {
    /// Softmax of every row of `width` values, in place.
    pub fn softmax(rows: &mut [f32], width: usize) {
        for row in rows.chunks_exact_mut(width) {
            let mut most = [f32::NEG_INFINITY; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            for chunk in chunks {
                most.iter_mut().zip(chunk).for_each(|(m, v)| *m = m.max(*v));
            }
            let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| m.max(*v));
            row.iter_mut().for_each(|v| *v = exp(*v - most));
            let scale = 1.0 / sum(row);
            row.iter_mut().for_each(|v| *v *= scale);
        }
    }

    /// Of probabilities `p` and the gradient `g` of them, row by row: the gradient of what softmax was taken of, times `scale`, into `g`.
    pub fn softmax_backward(p: &[f32], g: &mut [f32], width: usize, scale: f32) {
        for (p, g) in p.chunks_exact(width).zip(g.chunks_exact_mut(width)) {
            let mean = dot(p, g);
            g.iter_mut().zip(p).for_each(|(g, p)| *g = (*g - mean) * p * scale);
        }
    }

    /// Adds `bias` to every row.
    pub fn shift(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
        }
    }

    /// Adds `bias` to every row, and makes zero of what is negative; what is not a number stays.
    pub fn shift_relu(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (v, b) in row.iter_mut().zip(bias) {
                let sum = *v + b;
                *v = if sum <= 0.0 { 0.0 } else { sum };
            }
        }
    }

    /// Gradients where the outputs of a ReLU are positive, zero elsewhere.
    pub fn relu_backward(outputs: &[f32], gradients: &mut [f32]) {
        gradients.iter_mut().zip(outputs).for_each(|(g, y)| *g = if *y > 0.0 { *g } else { 0.0 });
    }

    /// Sums over rows, `[R, D]` -> `[D]`.
    pub fn column_sums(rows: &[f32], width: usize) -> Vec<f32> {
        let mut sums = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        sums
    }

    /// Rows `[R, D]` with mean 0 and deviation 1, scaled and shifted, into `out`.
    pub fn layer_norm(out: &mut [MaybeUninit<f32>], rows: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
        let width = gamma.len();
        let beta = &beta[..width];
        for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, epsilon);
            for i in 0..width {
                out[i].write((row[i] - mean) * scale * gamma[i] + beta[i]);
            }
        }
    }

    /// Gradients of [`layer_norm`] with respect to rows (into `out`), `gamma` and `beta` (added to), from its input and the gradient of
    /// its output.
    pub fn layer_norm_backward(
        out: &mut [MaybeUninit<f32>],
        of_gamma: &mut [f32],
        of_beta: &mut [f32],
        rows: &[f32],
        gradients: &[f32],
        gamma: &[f32],
        epsilon: f32,
    ) {
        let width = gamma.len();
        let (of_gamma, of_beta) = (&mut of_gamma[..width], &mut of_beta[..width]);
        let (mut normal, mut scaled) = (vec![0.0; width], vec![0.0; width]);
        let (normal, scaled) = (&mut normal[..width], &mut scaled[..width]);
        for ((row, g), out) in rows.chunks_exact(width).zip(gradients.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = moments(row, epsilon);
            // Two loops over few slices each: a compiler that has to look at more of them gives up on doing many values at once.
            for i in 0..width {
                normal[i] = (row[i] - mean) * scale;
                scaled[i] = g[i] * gamma[i];
            }
            for i in 0..width {
                of_gamma[i] += g[i] * normal[i];
                of_beta[i] += g[i];
            }
            let (first, second) = (sum(scaled) / width as f32, dot(scaled, normal) / width as f32);
            for i in 0..width {
                out[i].write(scale * (scaled[i] - first - normal[i] * second));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_e() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours - exact).abs() <= 2e-7 * exact, "{x}: {ours} {exact}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn softmax_is_that_of_its_definition() {
        for width in [1, 7, 16, 36, 50] {
            let rows: Vec<f32> = (0..3 * width).map(|i| ((i * 37) % 101) as f32 / 10.0 - 5.0).collect();
            let mut ours = rows.clone();
            softmax(&mut ours, width);
            for (row, ours) in rows.chunks(width).zip(ours.chunks(width)) {
                let total: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                assert!(row.iter().zip(ours).all(|(v, o)| (f64::from(*v).exp() / total - f64::from(*o)).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn a_row_that_is_not_a_number_stays_so() {
        let mut row = [0.0, f32::NAN, 1.0];
        softmax(&mut row, 3);
        assert!(row.iter().any(|v| v.is_nan()));
    }
}
