//! Activations behind a product, and their slopes, in double precision: a ReLU, or a GELU without approximation.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// What a ReLU, or else a GELU, makes of `x`.
pub fn activation(x: f64, relu: bool) -> f64 {
    if relu { x.max(0.0) } else { gelu(x) }
}

/// Its derivative; that of a ReLU is 0 at 0.
pub fn slope(x: f64, relu: bool) -> f64 {
    if relu { f64::from(x > 0.0) } else { gelu_slope(x) }
}

fn gelu(x: f64) -> f64 {
    x * share_below(x)
}

fn gelu_slope(x: f64) -> f64 {
    share_below(x) + 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * x * (-0.5 * x * x).exp()
}

/// Of the normal distribution.
fn share_below(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// The error function, by the series whose terms all have one sign: nothing cancels.
fn erf(x: f64) -> f64 {
    // Beyond that it differs from 1 by less than a double can tell.
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_values() {
        let known = [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (6.5, 1.0),
        ];
        for (x, exact) in known {
            for sign in [1.0, -1.0] {
                assert!((erf(sign * x) - sign * exact).abs() < 1e-14, "{x}: {} and {exact}", erf(sign * x));
            }
        }
        assert!((erf(6.0) - 1.0).abs() < 1e-13 && erf(f64::NAN).is_nan());
    }

    #[test]
    fn activations_by_hand() {
        for (x, exact) in [(0.0, 0.0), (1.0, 0.841_344_746_068_542_9), (-1.0, -0.158_655_253_931_457_05), (20.0, 20.0), (-20.0, 0.0)] {
            assert!((activation(x, false) - exact).abs() < 1e-14, "{x}: {}", activation(x, false));
        }
        assert_eq!([2.5, 0.0, -2.5].map(|x| activation(x, true)), [2.5, 0.0, 0.0]);
        assert_eq!([2.5, 0.0, -2.5].map(|x| slope(x, true)), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn slopes_are_differences() {
        for i in -60..=60 {
            let x = f64::from(i) / 10.0;
            let difference = (activation(x + 1e-4, false) - activation(x - 1e-4, false)) / 2e-4;
            assert!((slope(x, false) - difference).abs() < 1e-7, "{x}: {} and {difference}", slope(x, false));
        }
    }
}
