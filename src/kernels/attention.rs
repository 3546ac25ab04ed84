//! Host side of `shaders/attention.wgsl`: scaled dot-product attention of f16 and its gradient in one launch each, on cooperative matrices
//! (tensor cores). Scores and their like never come to memory. The reference is [`reference::attention`](super::reference::attention).
//!
//! Without such matrices, and for wider heads, attention is made of [`product`](super::product)s and [`softmax`](super::softmax).

use super::gpu::{Constants, Gpu, GpuError, Kernel, Launch, Operand, Region};
use super::product::{Matrices, Way};
use super::reference::attention::{self as reference, Attention};
use half::f16;
use wgpu::util::{BufferInitDescriptor, DeviceExt};

/// Parts of a shader: what it computes with first, where `enable` stands.
macro_rules! source {
    ($($part:literal),+) => { concat!($(include_str!(concat!("../../shaders/", $part)), "\n"),+) };
}

/// Attention, and its gradient.
macro_rules! kernels {
    ($name:literal, $first:literal) => {
        [
            Kernel {
                name: $name,
                source: source!($first, "shared/halves.wgsl", "product/rounding.wgsl", "attention.wgsl"),
                entry: "attention",
                buffers: 5,
                results: 2,
                checks_itself: true,
                varies: false,
            },
            Kernel {
                name: $name,
                source: source!($first, "shared/halves.wgsl", "product/rounding.wgsl", "attention.wgsl", "attention/gradient.wgsl"),
                entry: "attention_gradient",
                buffers: 6,
                results: 2,
                checks_itself: true,
                varies: false,
            },
        ]
    };
}

/// Of queries, keys and values: weights, and what is read. Of the gradient of that, values, keys and weights: those of queries and of scores.
pub static MATRICES: [Kernel; 2] = kernels!("attention", "attention/matrices.wgsl");
pub static EMULATED: [Kernel; 2] = kernels!("attention/emulated", "attention/emulated.wgsl");

/// Queries of a workgroup, as in the shader.
const DOWN: usize = 128;
/// Values that are read and written at once.
const EIGHT: usize = 8;
/// Widths of a head that the shader is made for.
pub const WIDTHS: [usize; 4] = [16, 32, 48, 64];
/// Columns of weights are whole multiples of so many.
const COLUMNS: usize = 16;

/// The shaders for a way to multiply matrices, if it has them.
fn of_way(way: Way) -> Option<&'static [Kernel; 2]> {
    match way {
        Way::Matrices => Some(&MATRICES),
        Way::Emulated => Some(&EMULATED),
        Way::Plain { .. } => None,
    }
}

/// The shader's constants for heads of this width.
pub fn constants(width: usize) -> Constants {
    vec![("WIDTH", width as u32)]
}

/// An attention of Q queries over K keys and values, for each head of each sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    pub samples: usize,
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    /// Of weights, which are zero from K on: K or the next multiple of 16.
    pub columns: usize,
    /// Of a head: one of [`WIDTHS`].
    pub width: usize,
    /// Of scores; positive.
    pub scale: f32,
}

impl Sizes {
    /// Values `[B, H, Q, columns]`.
    fn weights(&self) -> usize {
        self.samples * self.heads * self.queries * self.columns
    }

    /// # Panics
    /// Where a tensor ends before its values, or these are not where the shader reads whole eights: it does not look.
    fn check<P>(&self, tokens: usize, x: &Matrices<P>) {
        let eights = [x.first, x.row, x.sample].iter().all(|place| place.is_multiple_of(EIGHT));
        let last = x.first + (self.samples - 1) * x.sample + (tokens - 1) * x.row + self.heads * self.width;
        let inside = eights && x.head == self.width && x.row >= self.heads * self.width && 2 * last as u64 <= x.operand.size;
        assert!(inside, "heads beyond their tensor of {} bytes: first {}, row {}, sample {}", x.operand.size, x.first, x.row, x.sample);
    }

    /// `left` and `result` of queries; `right` and `gathered` of keys, which lie alike.
    fn launch<P>(
        &self,
        way: Way,
        kernel: usize,
        [left, right, gathered, result]: [Matrices<P>; 4],
        weights: Operand<P>,
        of_scores: Option<Operand<P>>,
    ) -> Launch<P> {
        let kernel = &of_way(way).expect("a way with cooperative matrices")[kernel];
        let &Self { samples, heads, queries, keys, columns, width, scale } = self;
        assert!(WIDTHS.contains(&width) && columns == keys.next_multiple_of(COLUMNS) && scale > 0.0, "other sizes: {self:?}");
        assert!(samples * heads * queries * keys > 0, "nothing to attend to: {self:?}");
        [(queries, &left), (keys, &right), (keys, &gathered), (queries, &result)].into_iter().for_each(|(tokens, x)| self.check(tokens, x));
        assert!((right.row, right.sample) == (gathered.row, gathered.sample), "keys and values that lie in other ways");
        assert!([&weights].into_iter().chain(&of_scores).all(|x| x.size >= 2 * self.weights() as u64), "weights of another size");
        let sizes = [queries, keys, columns, heads].map(|v| v as u32);
        let places = [
            left.first,
            left.row,
            left.sample,
            right.first,
            gathered.first,
            right.row,
            right.sample,
            result.first,
            result.row,
            result.sample,
        ];
        // The shader has the place where a sixth of the buffers begins.
        let sixth = if kernel.buffers > 5 { None } else { Some(0) };
        Launch {
            kernel,
            constants: constants(width),
            operands: [left.operand, right.operand, gathered.operand, weights, result.operand].into_iter().chain(of_scores).collect(),
            samples: 1,
            groups: samples * heads * queries.div_ceil(DOWN),
            params: sixth.into_iter().chain(sizes).chain([scale.to_bits()]).chain(places.map(|v| v as u32)).collect(),
        }
    }
}

/// What is read, and the weights `[B, H, Q, columns]`, from queries, keys and values.
///
/// # Panics
/// Where something ends before its values, or begins or goes on at other places than multiples of eight; without cooperative matrices.
pub fn forward<P>(way: Way, sizes: &Sizes, [q, k, v, read]: [Matrices<P>; 4], weights: Operand<P>) -> Launch<P> {
    sizes.launch(way, 0, [q, k, v, read], weights, None)
}

/// The gradient of queries, and that of scores in the order of weights, from the gradient of what is read, values, keys and weights.
///
/// # Panics
/// As [`forward`].
pub fn gradient<P>(way: Way, sizes: &Sizes, [slopes, v, k, of_q]: [Matrices<P>; 4], [weights, of_scores]: [Operand<P>; 2]) -> Launch<P> {
    sizes.launch(way, 1, [slopes, v, k, of_q], weights, Some(of_scores))
}

/// Whether the kernels are right on a device, for heads of this width: what is made of cooperative matrices differs from driver to driver.
/// With edges in all directions, a subgroup without rows, and fewer keys than a lane's own.
///
/// # Errors
/// Where they cannot run.
pub fn works(gpu: &Gpu, way: Way, width: usize) -> Result<bool, GpuError> {
    let Some(kernels) = of_way(way).filter(|_| WIDTHS.contains(&width)) else { return Ok(false) };
    gpu.prepare(&kernels.each_ref().map(|kernel| (kernel, constants(width))));
    for (queries, keys) in [(150, 45), (7, 70), (130, 5)] {
        if !Trial::new(width, queries, keys).agrees(gpu, way)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Largest error of a trial over the largest value: weights, and what is made by them, are rounded to f16.
const BOUND: f64 = 2e-3;
/// What results hold beforehand.
const UNTOUCHED: f32 = -1000.5;
/// Values in front of those of a trial, and behind each token's.
const FIRST: usize = 8;
const GAP: usize = 8;

/// Two samples of two heads.
struct Trial {
    sizes: Sizes,
    /// Queries, keys, values and the gradient of what is read, `[B, N, D]`.
    values: [Vec<f32>; 4],
}

impl Trial {
    fn new(width: usize, queries: usize, keys: usize) -> Self {
        let columns = keys.next_multiple_of(COLUMNS);
        let sizes = Sizes { samples: 2, heads: 2, queries, keys, columns, width, scale: (width as f32).powf(-0.5) };
        // Numbers from -2 to 2 without order, which f16 holds.
        let value = |i: usize, salt: usize| (((i + salt) * 7919 % 1013 * 31) % 257) as f32 / 64.0 - 2.0;
        let tensor = |tokens: usize, salt| (0..2 * tokens * 2 * width).map(|i| value(i, salt)).collect();
        Self { sizes, values: [tensor(queries, 1), tensor(keys, 2), tensor(keys, 3), tensor(queries, 5)] }
    }

    /// `[B, N, D]` as it lies in memory, with gaps.
    fn spread(&self, values: &[f32]) -> Vec<f32> {
        let rows = values.chunks(2 * self.sizes.width).flat_map(|row| row.iter().copied().chain([99.0; GAP]));
        [99.0; FIRST].into_iter().chain(rows).collect()
    }

    /// Values of a tensor that lies like that; none where something else was written.
    fn gathered(&self, spread: &[f32]) -> Option<Vec<f32>> {
        let (before, rows) = spread.split_at(FIRST);
        let rows = rows.chunks(2 * self.sizes.width + GAP).map(|row| row.split_at(2 * self.sizes.width));
        let gaps = before.iter().chain(rows.clone().flat_map(|(_, gap)| gap));
        gaps.into_iter().all(|v| *v == UNTOUCHED).then(|| rows.flat_map(|(row, _)| row.to_vec()).collect())
    }

    /// Weights, or gradients of scores `[B, H, Q, K]`, of which what lies behind the keys is left out; none where that is not zero.
    fn of_keys(&self, all: &[f32]) -> Option<Vec<f32>> {
        let rows = all.chunks(self.sizes.columns).map(|row| row.split_at(self.sizes.keys));
        rows.clone().all(|(_, behind)| behind.iter().all(|v| *v == 0.0)).then(|| rows.flat_map(|(row, _)| row.to_vec()).collect())
    }

    /// The gradients of scores from rounded weights `[B, H, Q, K]`.
    fn of_scores(&self, weights: &[f32]) -> Vec<f32> {
        let Sizes { heads, queries, keys, width, scale, .. } = self.sizes;
        let [_, _, v, gradient] = &self.values;
        let head = |x: &[f32], token: usize, tokens: usize, matrix: usize| -> Vec<f64> {
            let first = ((matrix / heads * tokens + token) * heads + matrix % heads) * width;
            x[first..first + width].iter().map(|v| f64::from(*v)).collect()
        };
        let row = |(i, weights): (usize, &[f32])| -> Vec<f32> {
            let (matrix, slopes) = (i / queries, head(gradient, i % queries, queries, i / queries));
            let of_weight = |key| head(v, key, keys, matrix).iter().zip(&slopes).map(|(v, g)| v * g).sum::<f64>();
            let of_weights: Vec<f64> = (0..keys).map(of_weight).collect();
            let mean: f64 = weights.iter().zip(&of_weights).map(|(w, g)| f64::from(*w) * g).sum();
            weights.iter().zip(&of_weights).map(|(w, g)| (f64::from(scale) * f64::from(*w) * (g - mean)) as f32).collect()
        };
        weights.chunks(keys).enumerate().flat_map(row).collect()
    }

    fn agrees(&self, gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
        let Sizes { samples, heads, queries, keys, columns, width, .. } = self.sizes;
        let tokens = |values: &[f32], tokens: usize| {
            let row = heads * width + GAP;
            Matrices { operand: halves(gpu, values), first: FIRST, row, head: width, sample: tokens * row }
        };
        let of_queries = || tokens(&vec![UNTOUCHED; FIRST + samples * queries * (heads * width + GAP)], queries);
        let of_weights = || halves(gpu, &vec![UNTOUCHED; self.sizes.weights()]);
        let [q, k, v, gradient] = [(0, queries), (1, keys), (2, keys), (3, queries)].map(|(i, n)| tokens(&self.spread(&self.values[i]), n));
        let exact = Attention { samples, queries, keys, width: heads * width, heads };
        let [of_q, ..] = reference::gradients(&self.values[0], &self.values[1], &self.values[2], &self.values[3], &exact);
        let (read, weights) = reference::attention(&self.values[0], &self.values[1], &self.values[2], &exact);
        let rounded: Vec<f32> = weights.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        let with_columns: Vec<f32> =
            rounded.chunks(keys).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, columns - keys))).collect();
        let launches = [
            forward(way, &self.sizes, [q, k.clone(), v.clone(), of_queries()], of_weights()),
            self::gradient(way, &self.sizes, [gradient, v, k, of_queries()], [halves(gpu, &with_columns), of_weights()]),
        ];
        gpu.run(&launches)?;
        let mut right = true;
        let [forward, backward] = launches.each_ref().map(Launch::results);
        for (squares, expected, rows, expected_rows) in
            [(&forward[0], &weights, &forward[1], &read), (&backward[1], &self.of_scores(&rounded), &backward[0], &of_q)]
        {
            right &= near(self.of_keys(&values(gpu, squares)?), expected) && near(self.gathered(&values(gpu, rows)?), expected_rows);
        }
        Ok(right)
    }
}

fn halves(gpu: &Gpu, values: &[f32]) -> Operand {
    let contents: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let buffer = gpu.device().create_buffer_init(&BufferInitDescriptor { label: Some("attention"), contents: &contents, usage });
    Operand { size: buffer.size(), place: Region { buffer, offset: 0 }, per_sample: 0 }
}

fn values(gpu: &Gpu, operand: &Operand) -> Result<Vec<f32>, GpuError> {
    let words = gpu.read(&operand.place.buffer)?;
    let halves = words.iter().flat_map(|word| [word.to_bits() as u16, (word.to_bits() >> 16) as u16]);
    Ok(halves.map(|half| f16::from_bits(half).to_f32()).collect())
}

fn near(ours: Option<Vec<f32>>, exact: &[f32]) -> bool {
    let largest = exact.iter().fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
    let close = |(ours, exact): (&f32, &f32)| (f64::from(*ours) - f64::from(*exact)).abs() <= BOUND * largest;
    ours.is_some_and(|ours| ours.len() == exact.len() && ours.iter().zip(exact).all(close))
}
