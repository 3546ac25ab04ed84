//! What `shaders/product.wgsl` computes, in double precision: products of matrices, each of which may be stored turned.

/// Sizes of C `[M, N]` = A `[M, K]` B `[K, N]`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// A is stored as `[K, M]`.
    pub turn_a: bool,
    /// B is stored as `[N, K]`.
    pub turn_b: bool,
}

/// One value of C.
///
/// # Panics
/// If A or B are of other sizes, or C has no such value.
pub fn entry(a: &[f32], b: &[f32], s: &Sizes, row: usize, column: usize) -> f64 {
    assert!(a.len() == s.m * s.k && b.len() == s.k * s.n && row < s.m && column < s.n, "{s:?} at {row}, {column}");
    let a = |i: usize| a[if s.turn_a { i * s.m + row } else { row * s.k + i }];
    let b = |i: usize| b[if s.turn_b { column * s.k + i } else { i * s.n + column }];
    (0..s.k).map(|i| f64::from(a(i)) * f64::from(b(i))).sum()
}

/// C `[M, N]`, not rounded.
///
/// # Panics
/// As [`entry`].
pub fn entries(a: &[f32], b: &[f32], s: &Sizes) -> Vec<f64> {
    (0..s.m * s.n).map(|place| entry(a, b, s, place / s.n, place % s.n)).collect()
}

/// C `[M, N]`.
///
/// # Panics
/// As [`entry`].
pub fn product(a: &[f32], b: &[f32], s: &Sizes) -> Vec<f32> {
    entries(a, b, s).into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        // [1 2 3; 4 5 6] [1 0; 0 1; 2 -1]
        let exact = [7.0, -1.0, 16.0, -1.0];
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 0.0, 1.0, 2.0, -1.0]);
        let (turned_a, turned_b) = ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0], [1.0, 0.0, 2.0, 0.0, 1.0, -1.0]);
        let sizes = |turn_a, turn_b| Sizes { m: 2, k: 3, n: 2, turn_a, turn_b };
        assert_eq!(product(&a, &b, &sizes(false, false)), exact);
        assert_eq!(product(&turned_a, &b, &sizes(true, false)), exact);
        assert_eq!(product(&a, &turned_b, &sizes(false, true)), exact);
        assert_eq!(entry(&turned_a, &turned_b, &sizes(true, true), 1, 0), 16.0);
    }
}
