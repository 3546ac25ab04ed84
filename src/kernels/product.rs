//! Host side of `shaders/product.wgsl` and `shaders/product/plain.wgsl`: products of matrices, summed in f32, on cooperative matrices (tensor
//! cores) or without.
//!
//! burn has such kernels, too. On an H200 under Vulkan they reach a twentieth of what the device can do, and each shape is tuned for seconds
//! before the first step. These are two kernels for all shapes. Cooperative matrices multiply f16 where a device has what the first kernel is
//! written for; else the second one does, which needs no feature. Either is used where it gives right results when the device is opened
//! ([`Gpu::products`](super::gpu::Gpu::products)); where none does, products are burn's.
//!
//! What a layer does with a product in half precision, before anybody else reads it, is done while its values are still in registers
//! ([`Ending`]): bias, activation and its gradient, rounding, the sum with a residual.

mod trial;

use super::gpu::{ALIGNED, BASES, Constants, Kernel, Launch, Operand, Region};
use std::fmt;
use wgpu::{CooperativeScalarType, Features};

pub use trial::works;

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
            ending!($name, "residual", 6, 1: $first $rest),
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
const FINISHES: usize = 6;
/// Buffers of a kernel at most.
const MOST_BUFFERS: usize = 6;
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
            Finish::Residual { .. } => 5,
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
        match finish {
            Finish::Activated { relu } | Finish::Gradient { relu } => constants.push(("RELU", u32::from(relu))),
            Finish::Residual { masked } => constants.push(("MASKED", u32::from(masked))),
            Finish::Single | Finish::Rounded | Finish::Biased => {}
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
    /// f32, with a bias for each column, times a mask's value for the sample if `masked`, on top of a residual.
    Residual { masked: bool },
}

impl Finish {
    /// Of a value of C.
    fn bytes(self) -> usize {
        if matches!(self, Self::Single | Self::Residual { .. }) { 4 } else { 2 }
    }
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
    Residual {
        bias: Operand<P>,
        /// f32, of the size of C.
        residual: Operand<P>,
        /// f32 `[B]`: of C's samples, one after the other as [`Matrices::sample`] says, also where [`Sizes`] take all of them for one.
        mask: Option<Operand<P>>,
    },
}

impl<P: Clone> Ending<P> {
    pub fn finish(&self) -> Finish {
        match *self {
            Self::Single => Finish::Single,
            Self::Rounded => Finish::Rounded,
            Self::Biased(_) => Finish::Biased,
            Self::Activated { relu, .. } => Finish::Activated { relu },
            Self::Gradient { relu, .. } => Finish::Gradient { relu },
            Self::Residual { ref mask, .. } => Finish::Residual { masked: mask.is_some() },
        }
    }

    /// All operands in the order of a shader's buffers, where any stands for a mask that is not there.
    fn operands(self, [a, b, c]: [Operand<P>; 3]) -> Vec<Operand<P>> {
        match self {
            Self::Single | Self::Rounded => vec![a, b, c],
            Self::Biased(bias) => vec![a, b, bias, c],
            Self::Activated { bias, result, .. } => vec![a, b, bias, c, result],
            Self::Gradient { inner, .. } => vec![a, b, inner, c],
            Self::Residual { bias, residual, mask } => {
                let mask = mask.unwrap_or_else(|| bias.clone());
                vec![a, b, bias, residual, mask, c]
            }
        }
    }

    /// Of operands beside C.
    fn check(&self, sizes: &Sizes, c: &Matrices<P>) {
        let for_columns = |bias: &Operand<P>| bias.size >= 4 * sizes.columns as u64;
        let as_large = |other: &Operand<P>| other.size >= c.operand.size;
        let fits = match self {
            Self::Single | Self::Rounded => true,
            Self::Biased(bias) => for_columns(bias),
            Self::Activated { bias, result, .. } => for_columns(bias) && as_large(result),
            Self::Gradient { inner, .. } => as_large(inner),
            Self::Residual { bias, residual, mask } => {
                let masked = |mask: &Operand<P>| mask.size * c.sample as u64 >= c.operand.size - 4 * c.first as u64;
                for_columns(bias) && as_large(residual) && mask.iter().all(masked)
            }
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
    let residual = [false, true].map(|masked| Finish::Residual { masked });
    let with_bias = [Finish::Biased].into_iter().chain(residual).map(|finish| (Turned::NEITHER, false, finish));
    linear.into_iter().chain(rounded).chain(with_bias).chain(activated).chain(tall).collect()
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
pub fn launch<P: Clone>(way: Way, turned: Turned, sizes: &Sizes, [a, b, c]: [Matrices<P>; 3], ending: Ending<P>) -> Launch<P> {
    let whole = |columns: usize| columns.next_multiple_of(way.whole());
    let stored = |turned: bool, rows: usize, columns: usize| if turned { [columns, whole(rows)] } else { [rows, whole(columns)] };
    a.check(sizes, stored(turned.a, sizes.m, sizes.k), way.bytes());
    b.check(sizes, stored(turned.b, sizes.k, sizes.n), way.bytes());
    assert!(sizes.k > (sizes.splits - 1) * sizes.k_each() && sizes.n > 0, "nothing to multiply: {sizes:?}");
    let finish = ending.finish();
    // Parts follow one another.
    c.check(sizes, [sizes.splits * sizes.m, sizes.columns], finish.bytes());
    ending.check(sizes, &c);
    assert!(sizes.splits == 1 || sizes.samples * sizes.heads == 1, "parts of many matrices");
    assert!(sizes.columns >= sizes.n && sizes.columns.is_multiple_of(way.columns()), "columns that are not whole multiples");
    // Else what is behind a row of B would count as columns.
    assert!(turned.b || sizes.n == sizes.columns || sizes.n.is_multiple_of(way.whole()), "columns behind the rows of B");
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
    // All shaders have the places where the fifth and the sixth of the buffers begin.
    let beginnings = std::iter::repeat_n(0, MOST_BUFFERS - kernel.buffers.max(BASES));
    Launch {
        kernel,
        constants: way.constants(turned, sizes.tall, finish),
        operands: ending.operands([a.operand, b.operand, c.operand]),
        samples: 1,
        groups: sizes.groups(way),
        params: beginnings.chain(params).collect(),
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

    /// Three samples of two rows each: the shader does not look whether there are as many values.
    #[test]
    fn a_mask_has_a_value_for_each_sample() {
        let onto = |residual: u64, mask: u64| {
            let operand = |size: u64| Operand { place: (), size, per_sample: 0 };
            let matrices = |size: u64, sample: usize| Matrices { operand: operand(size), first: 0, row: 8, head: 0, sample };
            let ending = Ending::Residual { bias: operand(32), residual: operand(residual), mask: Some(operand(mask)) };
            let matrices = [matrices(96, 0), matrices(128, 0), matrices(192, 16)];
            launch(Way::Plain { halves: true }, Turned::NEITHER, &Sizes::plain(6, 8, 8), matrices, ending)
        };
        let sizes: Vec<u64> = onto(192, 12).operands.iter().map(|operand| operand.size).collect();
        assert_eq!(sizes, [96, 128, 32, 192, 12, 192]);
        for (residual, mask) in [(192, 8), (188, 12)] {
            assert!(std::panic::catch_unwind(|| onto(residual, mask)).is_err(), "{residual} and {mask} bytes");
        }
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
