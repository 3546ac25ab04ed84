//! Host side of `shaders/product.wgsl` and `shaders/product/plain.wgsl`: products of matrices, summed in f32, on cooperative matrices (tensor
//! cores) or without.
//!
//! burn has such kernels, too. On an H200 under Vulkan they reach a twentieth of what the device can do, and each shape is tuned for seconds
//! before the first step. These are two kernels for all shapes. Cooperative matrices multiply f16 where a device has what the first kernel is
//! written for; else the second one does, which needs no feature. Either is used where it gives right results when the device is opened
//! ([`Gpu::products`]); where none does, products are burn's.
//!
//! What a layer does with a product in half precision, before anybody else reads it, is done while its values are still in registers
//! ([`Ending`]): bias, activation and its gradient, rounding.

use super::gpu::{ALIGNED, BASES, Constants, Gpu, GpuError, Kernel, Launch, Operand, Region};
use half::f16;
use std::fmt;
use wgpu::util::{BufferInitDescriptor, DeviceExt};
use wgpu::{BufferUsages, CooperativeScalarType, Features};

/// A shader's text: `enable` stands first in it, so parts are put together in the order in which they are named.
macro_rules! source {
    ($($part:expr),+) => { concat!($(include_str!(concat!("../../shaders/", $part)), "\n"),+) };
}

/// A kernel that hands C to one of product/endings.
macro_rules! ending {
    ($name:literal, $ending:literal, $buffers:literal, $results:literal: [$($first:literal),*] [$($rest:literal),+]) => {
        kernel(
            concat!($name, "/", $ending),
            source!($($first,)* concat!("product/endings/", $ending, ".wgsl"), "shared/halves.wgsl", "product/rounding.wgsl", $($rest),+),
            $buffers,
            $results,
        )
    };
}

/// The kernels of a way, one for each [`Finish`] in its order: the texts that stand first, and those behind them where C stays as it is, and
/// elsewhere.
macro_rules! kernels {
    ($name:literal: $first:tt [$($single:literal),+] $rest:tt) => {
        [
            kernels!(@single $name: $first [$($single),+]),
            ending!($name, "rounded", 3, 1: $first $rest),
            ending!($name, "biased", 4, 1: $first $rest),
            ending!($name, "activated", 5, 2: $first $rest),
            ending!($name, "gradient", 4, 1: $first $rest),
        ]
    };
    (@single $name:literal: [$($first:literal),*] [$($single:literal),+]) => {
        kernel($name, source!($($first,)* $($single),+), 3, 1)
    };
}

const fn kernel(name: &'static str, source: &'static str, buffers: usize, results: usize) -> Kernel {
    Kernel { name, source, entry: "product", buffers, results, checks_itself: true, varies: false }
}

/// Ways to finish a product.
const FINISHES: usize = 5;
pub static MATRICES: [Kernel; FINISHES] = kernels!("product": ["product/matrices.wgsl", "product/params.wgsl"]
    ["product/store.wgsl", "product.wgsl"] ["product/finish.wgsl", "product.wgsl"]);
pub static EMULATED: [Kernel; FINISHES] = kernels!("product/emulated": ["product/emulated.wgsl", "product/params.wgsl"]
    ["product/store.wgsl", "product.wgsl"] ["product/finish.wgsl", "product.wgsl"]);
pub static PLAIN: [Kernel; FINISHES] = kernels!("product/plain": ["product/params.wgsl"]
    ["product/endings/single.wgsl", "product/plain.wgsl"] ["product/plain.wgsl"]);

/// Values along K that a workgroup takes at a time, as in the shaders: a multiple of all.
const DEPTH: usize = 32;
/// Side of a matrix that a subgroup holds.
const FRAGMENT: usize = 16;
/// Values that the plain shader reads, and where rows begin; and values that the other one reads.
const FOUR: usize = 4;
const EIGHT: usize = 8;
/// Workgroup memory of [`Way::Matrices`], and of [`Way::Plain`].
pub const WORKGROUP_BYTES: u32 = 48 << 10;
pub const PLAIN_BYTES: u32 = 17 << 10;
/// Slices along K that a part has at least.
const SLICES: usize = 8;

/// How values are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// f16 by the device's cooperative matrices.
    Matrices,
    /// f32, or f16, by every lane for itself.
    Plain { halves: bool },
    /// Whole numbers of 8 bits by the shader for cooperative matrices with these written out, for tests on devices without them.
    Emulated,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Matrices => "cooperative matrices",
            Self::Plain { .. } => "shader",
            Self::Emulated => "emulated matrices",
        })
    }
}

impl Way {
    /// C has rows of whole multiples of so many columns.
    pub fn columns(self) -> usize {
        match self {
            Self::Plain { .. } => FOUR,
            Self::Matrices | Self::Emulated => FRAGMENT,
        }
    }

    /// A and B have rows of whole multiples of so many values: what the shader reads at once.
    pub fn whole(self) -> usize {
        match self {
            Self::Plain { .. } => FOUR,
            Self::Matrices | Self::Emulated => EIGHT,
        }
    }

    /// Of a value of A and B.
    fn bytes(self) -> usize {
        match self {
            Self::Plain { halves: false } => 4,
            Self::Matrices | Self::Plain { halves: true } => 2,
            Self::Emulated => 1,
        }
    }

    /// Rows and columns of C that a workgroup makes, as in the shaders.
    fn tile(self, tall: bool) -> [usize; 2] {
        match self {
            Self::Plain { .. } => [128, 128],
            Self::Matrices | Self::Emulated => [256, if tall { 64 } else { 128 }],
        }
    }

    /// What it costs a workgroup to write its values and somebody to add them up, in values along K that it could multiply instead. For
    /// cooperative matrices from a profile of an H200: 128 kB there and back at its share of the memory's rate, beside 1.3 TFLOP/s.
    fn cost_of_writing(self) -> usize {
        match self {
            Self::Plain { .. } => 40,
            Self::Matrices | Self::Emulated => 200,
        }
    }

    /// The shader for it.
    pub fn kernel(self, finish: Finish) -> &'static Kernel {
        let kernels = match self {
            Self::Matrices => &MATRICES,
            Self::Plain { .. } => &PLAIN,
            Self::Emulated => &EMULATED,
        };
        let place = match finish {
            Finish::Single => 0,
            Finish::Rounded => 1,
            Finish::Biased => 2,
            Finish::Activated { .. } => 3,
            Finish::Gradient { .. } => 4,
        };
        &kernels[place]
    }

    /// The shader's constants.
    pub fn constants(self, turned: Turned, tall: bool, finish: Finish) -> Constants {
        let mut constants = vec![("TURN_A", u32::from(turned.a)), ("TURN_B", u32::from(turned.b))];
        match self {
            Self::Plain { halves } => constants.push(("HALVES", u32::from(halves))),
            Self::Matrices | Self::Emulated => constants.push(("TALL", u32::from(tall))),
        }
        if let Finish::Activated { relu } | Finish::Gradient { relu } = finish {
            constants.push(("RELU", u32::from(relu)));
        }
        constants
    }
}

/// What becomes of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// f32, as it is.
    Single,
    /// f16.
    Rounded,
    /// f16, with a bias for each column.
    Biased,
    /// The same, and what an activation makes of that: a ReLU, or else a GELU.
    Activated { relu: bool },
    /// f16: C is the gradient of what an activation has made; this is that of what it was made of.
    Gradient { relu: bool },
}

/// [`Finish`] with the operands that it takes beside C, which has the type that it says. Those as large as C lie as it does.
#[derive(Clone, Debug)]
pub enum Ending<P = Region> {
    Single,
    Rounded,
    /// f32 `[N]`.
    Biased(Operand<P>),
    /// C is what comes before the activation.
    Activated {
        bias: Operand<P>,
        result: Operand<P>,
        relu: bool,
    },
    Gradient {
        /// What came before the activation.
        inner: Operand<P>,
        relu: bool,
    },
}

impl<P> Ending<P> {
    pub fn finish(&self) -> Finish {
        match *self {
            Self::Single => Finish::Single,
            Self::Rounded => Finish::Rounded,
            Self::Biased(_) => Finish::Biased,
            Self::Activated { relu, .. } => Finish::Activated { relu },
            Self::Gradient { relu, .. } => Finish::Gradient { relu },
        }
    }

    /// Of a value of C.
    fn bytes(&self) -> usize {
        if matches!(self, Self::Single) { 4 } else { 2 }
    }

    /// All operands in the order of a shader's buffers.
    fn operands(self, [a, b, c]: [Operand<P>; 3]) -> Vec<Operand<P>> {
        match self {
            Self::Single | Self::Rounded => vec![a, b, c],
            Self::Biased(bias) => vec![a, b, bias, c],
            Self::Activated { bias, result, .. } => vec![a, b, bias, c, result],
            Self::Gradient { inner, .. } => vec![a, b, inner, c],
        }
    }

    /// Of operands beside a C of so many bytes.
    fn check(&self, sizes: &Sizes, c: u64) {
        let fits = match self {
            Self::Single | Self::Rounded => true,
            Self::Biased(bias) => bias.size >= 4 * sizes.columns as u64,
            Self::Activated { bias, result, .. } => bias.size >= 4 * sizes.columns as u64 && result.size >= c,
            Self::Gradient { inner, .. } => inner.size >= c,
        };
        assert!(fits, "operands that are smaller than C: {sizes:?}");
        assert!(sizes.splits == 1 || matches!(self, Self::Single), "the end of a sum that is in parts");
    }
}

/// Sizes of C `[M, N]` = A `[M, K]` B `[K, N]`, for each head of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub samples: usize,
    pub heads: usize,
    pub m: usize,
    /// Columns of B.
    pub n: usize,
    /// Columns of C that are written, a multiple of [`Way::columns`] and at least N: those of the product beyond N are zero.
    pub columns: usize,
    pub k: usize,
    /// Parts of K with a C each, which the caller adds up.
    pub splits: usize,
    /// For a C of few columns: a workgroup makes half as many.
    pub tall: bool,
}

/// Where matrices lie in a tensor; all in values. Rows begin at multiples of four. Those of A and B go on to a multiple of [`Way::whole`], and
/// what goes on there is a number, and zero where K runs along the rows of both.
#[derive(Clone, Debug)]
pub struct Matrices<P = Region> {
    pub operand: Operand<P>,
    pub first: usize,
    /// From one row, as stored, to the next, and so on.
    pub row: usize,
    pub head: usize,
    pub sample: usize,
}

impl<P> Matrices<P> {
    /// Of `[rows, columns]` as stored, in values of so many bytes.
    fn check(&self, sizes: &Sizes, [rows, columns]: [usize; 2], bytes: usize) {
        let &Self { ref operand, first, row, head, sample } = self;
        let fours = [first, row, head, sample].iter().all(|place| place.is_multiple_of(FOUR));
        let last = first + (sizes.samples - 1) * sample + (sizes.heads - 1) * head + rows.saturating_sub(1) * row + columns;
        let inside = fours && row >= columns && last * bytes <= operand.size as usize;
        assert!(inside, "matrices beyond their tensor of {} bytes: first {first}, row {row}, head {head}, sample {sample}", operand.size);
    }
}

/// Which of A and B are stored turned, as `[K, M]` and `[N, K]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    pub a: bool,
    pub b: bool,
}

impl Turned {
    pub const NEITHER: Self = Self { a: false, b: false };
    pub const A: Self = Self { a: true, b: false };
    pub const B: Self = Self { a: false, b: true };
}

impl Sizes {
    /// One product of whole tensors.
    pub fn plain(m: usize, k: usize, n: usize) -> Self {
        Self { samples: 1, heads: 1, m, n, columns: n, k, splits: 1, tall: false }
    }

    /// The same in as many parts of K as a device with so many processors is done with first: each of them has a workgroup at a time, and
    /// the last round of these may leave most without one.
    pub fn in_parts(self, way: Way, processors: usize) -> Self {
        let most = self.k.div_ceil(SLICES * DEPTH).max(1);
        let in_parts = |splits| Self { splits, ..self };
        let time = |sizes: &Self| sizes.groups(way).div_ceil(processors) * (sizes.k_each() + way.cost_of_writing());
        // No part is empty.
        let some = |sizes: &Self| sizes.splits == 1 || sizes.k > (sizes.splits - 1) * sizes.k_each();
        (1..=most).map(in_parts).filter(some).min_by_key(time).unwrap_or(self)
    }

    fn k_each(&self) -> usize {
        self.k.div_ceil(self.splits).next_multiple_of(DEPTH)
    }

    fn groups(&self, way: Way) -> usize {
        let [down, across] = way.tile(self.tall);
        self.samples * self.heads * self.splits * self.m.div_ceil(down) * self.columns.div_ceil(across)
    }
}

/// What is asked of a shader, beside sizes: what is turned, whether C has few columns, and what becomes of it.
pub type Use = (Turned, bool, Finish);

/// Everything that layers ask of a way.
pub fn uses(way: Way) -> Vec<Use> {
    let linear = [Turned::NEITHER, Turned::B, Turned::A].map(|turned| (turned, false, Finish::Single));
    if let Way::Plain { halves: false } = way {
        return linear.into();
    }
    let rounded = [Turned::NEITHER, Turned::B, Turned::A].map(|turned| (turned, false, Finish::Rounded));
    let activated = [false, true]
        .into_iter()
        .flat_map(|relu| [(Turned::NEITHER, false, Finish::Activated { relu }), (Turned::B, false, Finish::Gradient { relu })]);
    // Of attention, where C with few columns is another shader.
    let tall = [(Turned::B, true, Finish::Single), (Turned::NEITHER, true, Finish::Rounded), (Turned::A, true, Finish::Rounded)];
    let tall = tall.into_iter().filter(|_| !matches!(way, Way::Plain { .. }));
    linear.into_iter().chain(rounded).chain([(Turned::NEITHER, false, Finish::Biased)]).chain(activated).chain(tall).collect()
}

/// The ways that a device may have for products of f32 and of f16, best first. [`works`] tells whether it has them indeed.
pub fn ways(device: &wgpu::Device, adapter: &wgpu::Adapter) -> [Vec<Way>; 2] {
    let limits = device.limits();
    let plain = limits.max_compute_workgroup_storage_size >= PLAIN_BYTES && limits.max_compute_invocations_per_workgroup >= 256;
    let plain = |halves| plain.then_some(Way::Plain { halves });
    let matrices = suits(device, adapter).then_some(Way::Matrices);
    [plain(false).into_iter().collect(), matrices.into_iter().chain(plain(true)).collect()]
}

/// What [`Way::Matrices`] is written for: cooperative 16 x 16 matrices of f16 summed in f32, and subgroups of 32 lanes.
fn suits(device: &wgpu::Device, adapter: &wgpu::Adapter) -> bool {
    let (info, limits) = (adapter.get_info(), device.limits());
    let side = FRAGMENT as u32;
    let shape = |p: &wgpu::CooperativeMatrixProperties| {
        (p.m_size, p.n_size, p.k_size) == (side, side, side)
            && (p.ab_type, p.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
    };
    device.features().contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16)
        && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
        && limits.max_compute_workgroup_storage_size >= WORKGROUP_BYTES
        // Where buffers begin, which matrices are loaded from.
        && u64::from(limits.min_storage_buffer_offset_alignment).is_multiple_of(ALIGNED)
        && adapter.cooperative_matrix_properties().iter().any(shape)
}

/// C of all samples and heads; with parts of K, `[splits]` times all of that.
///
/// # Panics
/// Where a matrix reaches beyond its operand, is empty, or is not whole fours: the shader does not look.
pub fn launch<P>(way: Way, turned: Turned, sizes: &Sizes, [a, b, c]: [Matrices<P>; 3], ending: Ending<P>) -> Launch<P> {
    let whole = |columns: usize| columns.next_multiple_of(way.whole());
    let stored = |turned: bool, rows: usize, columns: usize| if turned { [columns, whole(rows)] } else { [rows, whole(columns)] };
    a.check(sizes, stored(turned.a, sizes.m, sizes.k), way.bytes());
    b.check(sizes, stored(turned.b, sizes.k, sizes.n), way.bytes());
    assert!(sizes.k > (sizes.splits - 1) * sizes.k_each() && sizes.n > 0, "nothing to multiply: {sizes:?}");
    // Parts follow one another.
    c.check(sizes, [sizes.splits * sizes.m, sizes.columns], ending.bytes());
    ending.check(sizes, c.operand.size);
    assert!(sizes.splits == 1 || sizes.samples * sizes.heads == 1, "parts of many matrices");
    assert!(sizes.columns >= sizes.n && sizes.columns.is_multiple_of(way.columns()), "columns that are not whole multiples");
    // Else what is behind a row of B would count as columns.
    assert!(turned.b || sizes.n == sizes.columns || sizes.n.is_multiple_of(way.whole()), "columns behind the rows of B");
    let finish = ending.finish();
    let kernel = way.kernel(finish);
    let params = [
        sizes.m,
        sizes.n,
        sizes.columns,
        sizes.k,
        sizes.k_each(),
        sizes.splits,
        sizes.heads,
        a.row,
        b.row,
        c.row,
        a.head,
        b.head,
        c.head,
        a.sample,
        b.sample,
        c.sample,
        sizes.m * c.row,
        a.first,
        b.first,
        c.first,
    ]
    .map(|v| v as u32);
    // All shaders have the place where the fifth of the buffers begins.
    let fifth = if kernel.buffers > BASES { None } else { Some(0) };
    Launch {
        kernel,
        constants: way.constants(turned, sizes.tall, finish),
        operands: ending.operands([a.operand, b.operand, c.operand]),
        samples: 1,
        groups: sizes.groups(way),
        params: fifth.into_iter().chain(params).collect(),
    }
}

/// Whether the kernels multiply right on a device: drivers differ in what they make of cooperative matrices. Small whole numbers, which f16
/// and f32 hold exactly, in everything that layers ask for, with edges in all directions; of GELU, which makes other numbers of them, only
/// that it runs.
pub fn works(gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
    for (turned, tall, finish) in uses(way) {
        let exact = !matches!(finish, Finish::Activated { relu: false } | Finish::Gradient { relu: false });
        let heads = Sizes { samples: 2, heads: 2, m: 19, n: if turned.b { 21 } else { 24 }, columns: 32, k: 45, splits: 1, tall };
        let whole = Sizes { tall, ..Sizes::plain(261, 70, 144) };
        let parts = Sizes { splits: if finish == Finish::Single { 2 } else { 1 }, ..whole };
        for sizes in [heads, parts] {
            if !Trial::new(turned, finish, sizes).agrees(gpu, way)? && exact {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Matrices of a trial, and where they lie.
struct Trial {
    turned: Turned,
    finish: Finish,
    sizes: Sizes,
    /// Rows and columns of A, B and C as stored, for each head.
    shapes: [[usize; 2]; 3],
    a: Vec<f32>,
    b: Vec<f32>,
    /// For each column.
    bias: Vec<f32>,
    /// As C lies.
    inner: Vec<f32>,
}

/// What stands in front of each matrix of a trial.
const FIRST: usize = 8;
/// What results hold beforehand.
const UNTOUCHED: f32 = -1000.5;

/// Whole numbers from -5 to 5.
fn number(i: usize, salt: usize) -> f32 {
    ((i * 7919 + salt) % 11) as f32 - 5.0
}

impl Trial {
    fn new(turned: Turned, finish: Finish, sizes: Sizes) -> Self {
        let Sizes { m, n, columns, k, .. } = sizes;
        let stored = |turned: bool, rows: usize, columns: usize| if turned { [columns, rows] } else { [rows, columns] };
        let wide = |[rows, columns]: [usize; 2]| [rows, columns.next_multiple_of(EIGHT) + FOUR];
        let shapes = [wide(stored(turned.a, m, k)), wide(stored(turned.b, k, n)), [m, columns + FOUR]];
        let matrices = sizes.samples * sizes.heads;
        // Zero behind the columns that count, as the shader wants it; nothing counts on what is behind the rows.
        let fill = |[rows, row]: [usize; 2], used: usize, salt: usize| -> Vec<f32> {
            let value = |i: usize| if i % row < used { number(i, salt) } else { 0.0 };
            (0..FIRST + matrices * rows * row).map(|i| if i < FIRST { 99.0 } else { value(i - FIRST) }).collect()
        };
        let a = fill(shapes[0], if turned.a { m } else { k }, 1);
        let b = fill(shapes[1], if turned.b { k } else { n }, 5);
        let bias = (0..columns).map(|i| number(i, 3)).collect();
        let inner = fill(shapes[2], columns, 7);
        Self { turned, finish, sizes, shapes, a, b, bias, inner }
    }

    /// Values of C, which is the last of the results, in the order of memory.
    fn expected(&self) -> Vec<f32> {
        let Sizes { m, n, columns, k, splits, .. } = self.sizes;
        let [[a_rows, a_row], [b_rows, b_row], [_, c_row]] = self.shapes;
        let matrices = self.sizes.samples * self.sizes.heads;
        let mut c = vec![UNTOUCHED; FIRST + splits * matrices * m * c_row];
        for (place, value) in c[FIRST..].iter_mut().enumerate() {
            let (matrix, row, column) = (place / (m * c_row), place / c_row % m, place % c_row);
            let (part, matrix) = (matrix / matrices, matrix % matrices);
            if column >= columns {
                continue;
            }
            let a = |i: usize| self.a[FIRST + matrix * a_rows * a_row + if self.turned.a { i * a_row + row } else { row * a_row + i }];
            let b =
                |i: usize| self.b[FIRST + matrix * b_rows * b_row + if self.turned.b { column * b_row + i } else { i * b_row + column }];
            let each = self.sizes.k_each();
            let inside = if column < n { part * each..((part + 1) * each).min(k) } else { 0..0 };
            let sum: f32 = inside.map(|i| a(i) * b(i)).sum();
            *value = match self.finish {
                Finish::Single | Finish::Rounded => sum,
                Finish::Biased => sum + self.bias[column],
                Finish::Activated { .. } => (sum + self.bias[column]).max(0.0),
                Finish::Gradient { .. } => {
                    if self.inner[FIRST + place] > 0.0 {
                        sum
                    } else {
                        0.0
                    }
                }
            };
        }
        c
    }

    fn agrees(&self, gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
        let expected = self.expected();
        let operand = |contents: &[u8]| {
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
            let buffer = gpu.device().create_buffer_init(&BufferInitDescriptor { label: Some("product"), contents, usage });
            Operand { size: buffer.size(), place: Region { buffer, offset: 0 }, per_sample: 0 }
        };
        let single = |values: &[f32]| operand(bytemuck::cast_slice(values));
        let halves = |values: &[f32]| operand(&values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect::<Vec<_>>());
        let stored = |values: &[f32]| match way {
            Way::Matrices | Way::Plain { halves: true } => halves(values),
            Way::Plain { halves: false } => single(values),
            Way::Emulated => operand(&values.iter().map(|v| *v as i8 as u8).collect::<Vec<_>>()),
        };
        let untouched = vec![UNTOUCHED; expected.len()];
        let result = || if self.finish == Finish::Single { single(&untouched) } else { halves(&untouched) };
        let ending = match self.finish {
            Finish::Single => Ending::Single,
            Finish::Rounded => Ending::Rounded,
            Finish::Biased => Ending::Biased(single(&self.bias)),
            Finish::Activated { relu } => Ending::Activated { bias: single(&self.bias), result: result(), relu },
            Finish::Gradient { relu } => Ending::Gradient { inner: halves(&self.inner), relu },
        };
        let mut shapes = self.shapes.iter();
        let matrices = [stored(&self.a), stored(&self.b), result()].map(|operand| {
            let [rows, row] = *shapes.next().expect("three shapes");
            Matrices { operand, first: FIRST, row, head: rows * row, sample: self.sizes.heads * rows * row }
        });
        let launch = launch(way, self.turned, &self.sizes, matrices, ending);
        let results: Vec<_> = launch.results().iter().map(|result| result.place.buffer.clone()).collect();
        gpu.run(&[launch])?;
        for result in results {
            let words = gpu.read(&result)?;
            let values = match self.finish {
                Finish::Single => words,
                _ => words
                    .iter()
                    .flat_map(|word| [word.to_bits() as u16, (word.to_bits() >> 16) as u16])
                    .map(|half| f16::from_bits(half).to_f32())
                    .collect(),
            };
            if values != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with 132 processors, as an H200: a ViT-B's gradients of parameters fill whole rounds, few of them.
    #[test]
    fn parts_fill_the_last_round() {
        for (m, n) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
            let sizes = Sizes::plain(m, 50_432, n).in_parts(Way::Matrices, 132);
            let groups = sizes.groups(Way::Matrices);
            let share = groups as f64 / (groups.div_ceil(132) * 132) as f64;
            assert!(share > 0.95 && sizes.k_each() > 2000, "{sizes:?} {share}");
        }
        // Nothing is gained where there is much to do, or little to add up.
        assert_eq!(Sizes::plain(50_432, 768, 3072).in_parts(Way::Matrices, 132).splits, 1);
        assert_eq!(Sizes::plain(8, 16, 8).in_parts(Way::Plain { halves: false }, 132).splits, 1);
    }

    #[test]
    fn no_part_is_empty() {
        for k in [1, 31, 32, 33, 256, 257, 1000, 4097] {
            for processors in [1, 7, 64, 304] {
                let sizes = Sizes::plain(100, k, 100).in_parts(Way::Matrices, processors);
                assert!(sizes.splits == 1 || k > (sizes.splits - 1) * sizes.k_each(), "{sizes:?}");
            }
        }
    }
}
