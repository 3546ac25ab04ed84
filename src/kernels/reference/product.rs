//! What `shaders/product.wgsl` computes, in double precision: products of matrices, each of which may be stored turned; and self-attention,
//! which is made of them.

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

/// Sizes of queries, keys and values side by side, `[B, N, 3 D]`, which H heads share.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub samples: usize,
    pub tokens: usize,
    /// D
    pub width: usize,
    pub heads: usize,
}

/// Rows of a head's matrix, `[N, D / H]`.
type Matrix = Vec<Vec<f64>>;

impl Attention {
    fn check(&self, qkv: &[f32]) {
        let Self { samples, tokens, width, heads } = *self;
        assert!(qkv.len() == samples * tokens * 3 * width && width.is_multiple_of(heads), "{self:?}");
    }

    fn scale(&self) -> f64 {
        ((self.width / self.heads) as f64).powf(-0.5)
    }

    /// Samples and heads.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    /// Where a head's values of a token begin in `[B, N, parts D]`.
    fn at(&self, (sample, head): (usize, usize), token: usize, part: usize, parts: usize) -> usize {
        ((sample * self.tokens + token) * parts + part) * self.width + head * (self.width / self.heads)
    }

    fn matrix(&self, x: &[f32], place: (usize, usize), part: usize, parts: usize) -> Matrix {
        let row = |token: usize| {
            let first = self.at(place, token, part, parts);
            x[first..first + self.width / self.heads].iter().map(|v| f64::from(*v)).collect()
        };
        (0..self.tokens).map(row).collect()
    }

    fn put(&self, x: &mut [f32], matrix: &Matrix, place: (usize, usize), part: usize, parts: usize) {
        for (token, row) in matrix.iter().enumerate() {
            let first = self.at(place, token, part, parts);
            x[first..].iter_mut().zip(row).for_each(|(x, v)| *x = *v as f32);
        }
    }

    /// Weights `[N, N]` of a head.
    fn weights(&self, qkv: &[f32], place: (usize, usize)) -> Matrix {
        let [q, k] = [0, 1].map(|part| self.matrix(qkv, place, part, 3));
        let row = |query: &Vec<f64>| {
            let scores: Vec<f64> = k.iter().map(|key| self.scale() * dot(query, key)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|v| (v - most).exp()).sum();
            scores.iter().map(|v| (v - most).exp() / total).collect()
        };
        q.iter().map(row).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn turned(x: &Matrix) -> Matrix {
    (0..x[0].len()).map(|column| x.iter().map(|row| row[column]).collect()).collect()
}

fn times(a: &Matrix, b: &Matrix) -> Matrix {
    let b = turned(b);
    a.iter().map(|row| b.iter().map(|column| dot(row, column)).collect()).collect()
}

/// qkv `[B, N, 3 D]` -> what is read `[B, N, D]`, and the weights `[B, H, N, N]`.
///
/// # Panics
/// If qkv is of another size, or there is nothing in it.
pub fn self_attention(qkv: &[f32], s: &Attention) -> (Vec<f32>, Vec<f32>) {
    s.check(qkv);
    let (mut read, mut all) = (vec![0.0; qkv.len() / 3], Vec::new());
    for place in s.each() {
        let weights = s.weights(qkv, place);
        s.put(&mut read, &times(&weights, &s.matrix(qkv, place, 2, 3)), place, 0, 1);
        all.extend(weights.iter().flatten().map(|w| *w as f32));
    }
    (read, all)
}

/// qkv and its gradient `[B, N, 3 D]`, from the gradient of what is read, `[B, N, D]`.
///
/// # Panics
/// As [`self_attention`].
pub fn self_attention_gradient(qkv: &[f32], gradient: &[f32], s: &Attention) -> Vec<f32> {
    s.check(qkv);
    assert_eq!(3 * gradient.len(), qkv.len(), "a gradient of another size");
    let mut out = vec![0.0; qkv.len()];
    for place in s.each() {
        let [q, k, v] = [0, 1, 2].map(|part| s.matrix(qkv, place, part, 3));
        let (weights, gradient) = (s.weights(qkv, place), s.matrix(gradient, place, 0, 1));
        let of_weights = times(&gradient, &turned(&v));
        let row = |(weights, slopes): (&Vec<f64>, &Vec<f64>)| {
            let mean = dot(weights, slopes);
            weights.iter().zip(slopes).map(|(w, g)| s.scale() * w * (g - mean)).collect()
        };
        let of_scores: Matrix = weights.iter().zip(&of_weights).map(row).collect();
        let parts = [times(&of_scores, &k), times(&turned(&of_scores), &q), times(&turned(&weights), &gradient)];
        parts.iter().enumerate().for_each(|(part, matrix)| s.put(&mut out, matrix, place, part, 3));
    }
    out
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

    #[test]
    fn attention_by_hand() {
        // Scores of the first token are 0 and the logarithm of 3, those of the second are equal.
        let ln3 = 3f32.ln();
        let qkv = [1.0, 0.0, 4.0, 0.0, ln3, 8.0];
        let s = Attention { samples: 1, tokens: 2, width: 1, heads: 1 };
        let (read, weights) = self_attention(&qkv, &s);
        for (ours, exact) in read.iter().chain(&weights).zip([7.0, 6.0, 0.25, 0.75, 0.5, 0.5]) {
            assert!((ours - exact).abs() < 1e-6, "{read:?} {weights:?}");
        }
    }

    #[test]
    fn gradients_are_differences() {
        let s = Attention { samples: 2, tokens: 3, width: 4, heads: 2 };
        let wave = |n: usize, pace: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * pace).sin()).collect() };
        let (qkv, gradient) = (wave(72, 0.7), wave(24, 1.3));
        let of_qkv = self_attention_gradient(&qkv, &gradient, &s);
        let loss =
            |qkv: &[f32]| -> f64 { self_attention(qkv, &s).0.iter().zip(&gradient).map(|(r, g)| f64::from(*r) * f64::from(*g)).sum() };
        for i in 0..qkv.len() {
            let moved = |by: f32| {
                let mut qkv = qkv.clone();
                qkv[i] += by;
                loss(&qkv)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - f64::from(of_qkv[i])).abs() < 2e-4, "{i}: {slope} and {}", of_qkv[i]);
        }
    }
}
