//! Learned position embeddings on another grid: bicubic, as the programs whose files are read do it.
//!
//! Two variants of the same filter are in use. [`Filter::Plain`] (MAE, transformers: PyTorch's `bicubic`) takes the four nearest entries, with
//! Keys' a = -0.75, and repeats the border. [`Filter::Antialiased`] (timm) has a = -0.5, widens when the grid shrinks, and leaves out what
//! lies beyond the border. Both take the centres of cells as positions (no aligned corners). A class token's entry is its caller's affair.

/// The bicubic variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Plain,
    Antialiased,
}

/// Keys' cubic convolution kernel at distance `x`.
fn cubic(x: f64, a: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

/// For each of `to` places, which of `from` entries it mixes and with which weights.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Vec<(usize, f64)>> {
    let step = from as f64 / to as f64;
    let last = from as i64 - 1;
    let at = |i: usize| match filter {
        Filter::Plain => {
            let x = step * (i as f64 + 0.5) - 0.5;
            let first = x.floor() as i64;
            (first - 1..=first + 2).map(|j| (j.clamp(0, last) as usize, cubic(x - j as f64, -0.75))).collect()
        }
        Filter::Antialiased => {
            let (centre, width) = (step * (i as f64 + 0.5), step.max(1.0));
            let (low, high) = ((centre - 2.0 * width + 0.5) as i64, (centre + 2.0 * width + 0.5) as i64);
            let near: Vec<(usize, f64)> =
                (low.max(0)..high.min(last + 1)).map(|j| (j as usize, cubic((j as f64 - centre + 0.5) / width, -0.5))).collect();
            let sum: f64 = near.iter().map(|(_, weight)| weight).sum();
            near.into_iter().map(|(j, weight)| (j, weight / sum)).collect()
        }
    };
    (0..to).map(at).collect()
}

/// Embeddings `[from * from, D]`, row-major, on a grid of `to` x `to`: `[to * to, D]`.
///
/// # Panics
/// If `values` is not `from * from * dim` long.
pub fn resample(values: &[f32], from: usize, to: usize, dim: usize, filter: Filter) -> Vec<f32> {
    assert_eq!(values.len(), from * from * dim, "a square grid");
    if from == to {
        return values.to_vec();
    }
    let taps = taps(from, to, filter);
    // Columns first: [from, to, D].
    let mut wide = vec![0.0f64; from * to * dim];
    for (cell, out) in wide.chunks_mut(dim).enumerate() {
        for &(j, weight) in &taps[cell % to] {
            let source = &values[(cell / to * from + j) * dim..][..dim];
            out.iter_mut().zip(source).for_each(|(o, &v)| *o += weight * f64::from(v));
        }
    }
    let mut out = Vec::with_capacity(to * to * dim);
    for cell in 0..to * to {
        let mut row = vec![0.0f64; dim];
        for &(j, weight) in &taps[cell / to] {
            let source = &wide[(j * to + cell % to) * dim..][..dim];
            row.iter_mut().zip(source).for_each(|(o, &v)| *o += weight * v);
        }
        out.extend(row.into_iter().map(|v| v as f32));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that `torch.nn.functional.interpolate` (2.15, bicubic, align_corners=False) gave for a 3 x 3 grid of i * i.
    #[test]
    fn agrees_with_torch() {
        let grid: Vec<f32> = (0..9).map(|i| (i * i) as f32).collect();
        let close = |ours: &[f32], theirs: &[f32]| {
            assert_eq!(ours.len(), theirs.len());
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-4), "{ours:?} {theirs:?}");
        };
        close(&resample(&grid, 3, 2, 1, Filter::Plain), &PLAIN_2);
        close(&resample(&grid, 3, 4, 1, Filter::Plain), &PLAIN_4);
        close(&resample(&grid, 3, 2, 1, Filter::Antialiased), &ANTIALIASED_2);
        close(&resample(&grid, 3, 4, 1, Filter::Antialiased), &ANTIALIASED_4);
    }

    const PLAIN_2: [f32; 4] = [1.43076, 6.52237, 32.39737, 53.18076];
    const PLAIN_4: [f32; 16] = [
        -0.68686, -0.5641, 0.91175, 2.6771, 2.49059, 4.78462, 9.65483, 13.59144, 19.01332, 24.70171, 34.87837, 42.20934, 36.97397,
        44.83363, 58.40466, 67.90689,
    ];
    const ANTIALIASED_2: [f32; 4] = [2.87117, 8.19785, 30.28452, 47.04453];
    const ANTIALIASED_4: [f32; 16] = [
        -0.50601, -0.22833, 1.26734, 3.04333, 3.5198, 6.02156, 10.75674, 14.7568, 19.20442, 24.9457, 34.39948, 41.63906, 36.71497,
        44.68032, 57.37362, 66.83727,
    ];

    #[test]
    fn every_component_is_its_own_picture_and_constants_stay() {
        let two: Vec<f32> = (0..16).flat_map(|i| [3.5, i as f32]).collect();
        for (filter, to) in [(Filter::Plain, 7), (Filter::Antialiased, 7), (Filter::Plain, 3), (Filter::Antialiased, 2)] {
            let out = resample(&two, 4, to, 2, filter);
            let alone = resample(&(0..16).map(|i| i as f32).collect::<Vec<_>>(), 4, to, 1, filter);
            assert!(out.chunks(2).zip(&alone).all(|(pair, alone)| (pair[0] - 3.5).abs() < 1e-5 && pair[1] == *alone));
        }
        assert_eq!(resample(&two, 4, 4, 2, Filter::Plain), two);
    }
}
