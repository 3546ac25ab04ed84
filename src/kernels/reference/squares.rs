//! The twin of `shaders/squares.wgsl`, in f64.

/// A running sum and the squares of x.
pub fn add_squares(sum: f32, x: &[f32]) -> f32 {
    (f64::from(sum) + x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()) as f32
}
