//! What `shaders/attention.wgsl` computes, in double precision: what queries read of the values of tokens, their own or others, as their
//! keys say; and its gradients.

use std::ops::Range;

/// Sizes of an attention: q `[B, Q, D]` over k and v `[B, K, D]`, with D cut into H heads.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// B
    pub samples: usize,
    /// Q
    pub queries: usize,
    /// K
    pub keys: usize,
    /// D
    pub width: usize,
    /// H
    pub heads: usize,
}

/// Rows of a head's matrix, as `[Q, D / H]`.
type Matrix = Vec<Vec<f64>>;

impl Attention {
    fn check(&self, q: &[f32], k: &[f32], v: &[f32]) {
        let Self { samples, queries, keys, width, heads } = *self;
        let [of_queries, of_keys] = [queries, keys].map(|tokens| samples * tokens * width);
        assert!(q.len() == of_queries && k.len() == of_keys && v.len() == of_keys && width.is_multiple_of(heads), "{self:?}");
        assert!(of_queries > 0 && of_keys > 0, "nothing to read: {self:?}");
    }

    fn scale(&self) -> f64 {
        ((self.width / self.heads) as f64).powf(-0.5)
    }

    /// Samples and heads.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.samples * heads).map(move |i| (i / heads, i % heads))
    }

    /// Where a head's values are in `[B, N, D]`: a range for each of the N tokens of a sample.
    fn rows(&self, (sample, head): (usize, usize), tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (width, each) = (self.width, self.width / self.heads);
        (sample * tokens..(sample + 1) * tokens).map(move |token| {
            let first = token * width + head * each;
            first..first + each
        })
    }

    /// A head's part of `[B, N, D]`.
    fn matrix(&self, x: &[f32], place: (usize, usize)) -> Matrix {
        let tokens = x.len() / self.samples / self.width;
        self.rows(place, tokens).map(|row| x[row].iter().map(|v| f64::from(*v)).collect()).collect()
    }

    fn put(&self, x: &mut [f32], matrix: &Matrix, place: (usize, usize)) {
        for (row, values) in self.rows(place, matrix.len()).zip(matrix) {
            x[row].iter_mut().zip(values).for_each(|(x, v)| *x = *v as f32);
        }
    }

    /// Weights `[Q, K]` of a head.
    fn weights(&self, q: &Matrix, k: &Matrix) -> Matrix {
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

/// q `[B, Q, D]`, k and v `[B, K, D]` -> what is read `[B, Q, D]`, and the weights `[B, H, Q, K]`.
///
/// # Panics
/// If q, k or v are of other sizes, there is nothing in them, or heads do not share D evenly.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], s: &Attention) -> (Vec<f32>, Vec<f32>) {
    s.check(q, k, v);
    let (mut read, mut all) = (vec![0.0; q.len()], Vec::new());
    for place in s.each() {
        let [q, k, v] = [q, k, v].map(|x| s.matrix(x, place));
        let weights = s.weights(&q, &k);
        s.put(&mut read, &times(&weights, &v), place);
        all.extend(weights.iter().flatten().map(|w| *w as f32));
    }
    (read, all)
}

/// Gradients of q, k and v, from these and the gradient of what is read, `[B, Q, D]`.
///
/// # Panics
/// As [`attention`], or if the gradient is of another size than q.
pub fn gradients(q: &[f32], k: &[f32], v: &[f32], gradient: &[f32], s: &Attention) -> [Vec<f32>; 3] {
    s.check(q, k, v);
    assert_eq!(gradient.len(), q.len(), "a gradient of another size");
    let mut made = [q, k, v].map(|x| vec![0.0; x.len()]);
    for place in s.each() {
        let [q, k, v, gradient] = [q, k, v, gradient].map(|x| s.matrix(x, place));
        let weights = s.weights(&q, &k);
        let of_weights = times(&gradient, &turned(&v));
        let row = |(weights, slopes): (&Vec<f64>, &Vec<f64>)| {
            let mean = dot(weights, slopes);
            weights.iter().zip(slopes).map(|(w, g)| s.scale() * w * (g - mean)).collect()
        };
        let of_scores: Matrix = weights.iter().zip(&of_weights).map(row).collect();
        let parts = [times(&of_scores, &k), times(&turned(&of_scores), &q), times(&turned(&weights), &gradient)];
        made.iter_mut().zip(&parts).for_each(|(made, part)| s.put(made, part, place));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_by_hand() {
        // Scores of the first query are 0 and the logarithm of 3, those of the second are equal, those of the third twice the first's.
        let (q, k, v) = ([1.0, 0.0, 2.0], [0.0, 3f32.ln()], [4.0, 8.0]);
        let s = Attention { samples: 1, queries: 3, keys: 2, width: 1, heads: 1 };
        let (read, weights) = attention(&q, &k, &v, &s);
        assert_eq!((read.len(), weights.len()), (3, 6));
        for (ours, exact) in read.iter().chain(&weights).zip([7.0, 6.0, 7.6, 0.25, 0.75, 0.5, 0.5, 0.1, 0.9]) {
            assert!((ours - exact).abs() < 1e-6, "{read:?} {weights:?}");
        }
    }

    #[test]
    fn gradients_are_differences() {
        let s = Attention { samples: 2, queries: 3, keys: 5, width: 4, heads: 2 };
        let wave = |n: usize, pace: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * pace).sin()).collect() };
        let (inputs, gradient) = ([wave(24, 0.7), wave(40, 0.9), wave(40, 1.1)], wave(24, 1.3));
        let loss = |[q, k, v]: &[Vec<f32>; 3]| -> f64 {
            attention(q, k, v, &s).0.iter().zip(&gradient).map(|(r, g)| f64::from(*r) * f64::from(*g)).sum()
        };
        let made = gradients(&inputs[0], &inputs[1], &inputs[2], &gradient, &s);
        for (part, of_part) in made.iter().enumerate() {
            assert_eq!(of_part.len(), inputs[part].len());
            for (i, ours) in of_part.iter().enumerate() {
                let moved = |by: f32| {
                    let mut inputs = inputs.clone();
                    inputs[part][i] += by;
                    loss(&inputs)
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - f64::from(*ours)).abs() < 2e-4, "{part}, {i}: {slope} and {ours}");
            }
        }
    }
}
