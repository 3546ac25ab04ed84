//! The twin of `shaders/column_sums.wgsl`, in f64.

/// Sums over the rows of `[R, D]`: `[D]`.
pub fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    for row in x.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}
