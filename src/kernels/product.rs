//! Host side of `shaders/product.wgsl` and `shaders/product/plain.wgsl`: products of matrices, summed in f32, on cooperative matrices (tensor
//! cores) or without.
//!
//! burn has such kernels, too. On an H200 under Vulkan they reach a twentieth of what the device can do, and each shape is tuned for seconds
//! before the first step. These are two kernels for all shapes. Cooperative matrices multiply f16 where a device has what the first kernel is
//! written for; else the second one does, which needs no feature. Either is used where it gives right results when the device is opened
//! ([`Gpu::products`]); where none does, products are burn's.

use super::gpu::{ALIGNED, Constants, Gpu, GpuError, Kernel, Launch, Operand, Region};
use half::f16;
use std::fmt;
use wgpu::util::{BufferInitDescriptor, DeviceExt};
use wgpu::{BufferUsages, CooperativeScalarType, Features};

/// A shader's text: `enable` stands first in it, so parts are put together in the order in which they are named.
macro_rules! source {
    ($($part:literal),+) => { concat!($(include_str!($part), "\n"),+) };
}

const fn kernel(name: &'static str, source: &'static str) -> Kernel {
    Kernel { name, source, entry: "product", buffers: 3, results: 1, checks_itself: true, varies: false }
}

pub static MATRICES: Kernel =
    kernel("product", source!("../../shaders/product/matrices.wgsl", "../../shaders/product/params.wgsl", "../../shaders/product.wgsl"));
pub static EMULATED: Kernel = kernel(
    "product/emulated",
    source!("../../shaders/product/emulated.wgsl", "../../shaders/product/params.wgsl", "../../shaders/product.wgsl"),
);
pub static PLAIN: Kernel = kernel("product/plain", source!("../../shaders/product/params.wgsl", "../../shaders/product/plain.wgsl"));

/// Values along K that a workgroup takes at a time, as in the shaders: a multiple of all.
const DEPTH: usize = 32;
/// Side of a matrix that a subgroup holds.
const FRAGMENT: usize = 16;
/// Values that the plain shader reads, and where rows begin; and values that the other one reads.
const FOUR: usize = 4;
const EIGHT: usize = 8;
/// Workgroup memory of [`Way::Matrices`], and of [`Way::Plain`].
pub const WORKGROUP_BYTES: u32 = 40 << 10;
pub const PLAIN_BYTES: u32 = 17 << 10;
/// Workgroups of a launch below which K is cut into parts: enough for the largest GPUs to be busy.
const BUSY: usize = 256;
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
    fn tile(self) -> [usize; 2] {
        match self {
            Self::Plain { .. } => [128, 128],
            Self::Matrices | Self::Emulated => [256, 128],
        }
    }

    fn kernel(self) -> &'static Kernel {
        match self {
            Self::Matrices => &MATRICES,
            Self::Plain { .. } => &PLAIN,
            Self::Emulated => &EMULATED,
        }
    }

    /// The shader's constants.
    pub fn constants(self, turned: Turned) -> Constants {
        let mut constants = vec![("TURN_A", u32::from(turned.a)), ("TURN_B", u32::from(turned.b))];
        if let Self::Plain { halves } = self {
            constants.push(("HALVES", u32::from(halves)));
        }
        constants
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
    /// Columns of C that are written, a multiple of [`Way::columns`] and at least N: those beyond N are zero.
    pub columns: usize,
    pub k: usize,
    /// Parts of K with a C each, which the caller adds up.
    pub splits: usize,
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
    /// One product of whole tensors, with as many parts of K as keep a large GPU busy.
    pub fn plain(way: Way, m: usize, k: usize, n: usize) -> Self {
        let [down, across] = way.tile();
        let groups = m.div_ceil(down) * n.div_ceil(across);
        let most = k.div_ceil(SLICES * DEPTH).max(1);
        let splits = BUSY.div_ceil(groups.max(1)).min(most);
        // As many as are not empty.
        let splits = k.div_ceil(k.div_ceil(splits).next_multiple_of(DEPTH).max(1)).max(1);
        Self { samples: 1, heads: 1, m, n, columns: n, k, splits }
    }

    fn k_each(&self) -> usize {
        self.k.div_ceil(self.splits).next_multiple_of(DEPTH)
    }

    fn groups(&self, way: Way) -> usize {
        let [down, across] = way.tile();
        self.samples * self.heads * self.splits * self.m.div_ceil(down) * self.columns.div_ceil(across)
    }
}

/// Every arrangement that layers use.
pub const ARRANGEMENTS: [Turned; 3] = [Turned::NEITHER, Turned::B, Turned::A];

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

/// C of all samples and heads; with parts of K, `[splits]` times all of that. C's values are f32.
///
/// # Panics
/// Where a matrix reaches beyond its operand, is empty, or is not whole fours: the shader does not look.
pub fn launch<P>(way: Way, turned: Turned, sizes: &Sizes, [a, b, c]: [Matrices<P>; 3]) -> Launch<P> {
    let whole = |columns: usize| columns.next_multiple_of(way.whole());
    let stored = |turned: bool, rows: usize, columns: usize| if turned { [columns, whole(rows)] } else { [rows, whole(columns)] };
    a.check(sizes, stored(turned.a, sizes.m, sizes.k), way.bytes());
    b.check(sizes, stored(turned.b, sizes.k, sizes.n), way.bytes());
    assert!(sizes.k > (sizes.splits - 1) * sizes.k_each() && sizes.n > 0, "nothing to multiply: {sizes:?}");
    // Parts follow one another.
    c.check(sizes, [sizes.splits * sizes.m, sizes.columns], 4);
    assert!(sizes.splits == 1 || sizes.samples * sizes.heads == 1, "parts of many matrices");
    assert!(sizes.columns >= sizes.n && sizes.columns.is_multiple_of(way.columns()), "columns that are not whole multiples");
    // Else what is behind a row of B would count as columns.
    assert!(turned.b || sizes.n == sizes.columns || sizes.n.is_multiple_of(way.whole()), "columns behind the rows of B");
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
    Launch {
        kernel: way.kernel(),
        constants: way.constants(turned),
        operands: vec![a.operand, b.operand, c.operand],
        samples: 1,
        groups: sizes.groups(way),
        params: params.into(),
    }
}

/// Whether the kernel multiplies right on a device: drivers differ in what they make of cooperative matrices. Small whole numbers, which f16
/// and f32 hold exactly, in every arrangement that layers use, with edges in all directions.
pub fn works(gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
    for turned in ARRANGEMENTS {
        let heads = Sizes { samples: 2, heads: 2, m: 19, n: if turned.b { 21 } else { 24 }, columns: 32, k: 45, splits: 1 };
        let parts = Sizes { samples: 1, heads: 1, m: 261, n: 144, columns: 144, k: 70, splits: 2 };
        for sizes in [heads, parts] {
            if !Trial::new(turned, sizes).agrees(gpu, way)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Matrices of a trial, and where they lie.
struct Trial {
    turned: Turned,
    sizes: Sizes,
    /// Rows and columns of A, B and C as stored, for each head.
    shapes: [[usize; 2]; 3],
    a: Vec<f32>,
    b: Vec<f32>,
}

/// What stands in front of each matrix of a trial.
const FIRST: usize = 8;
/// What C holds beforehand.
const UNTOUCHED: f32 = -1000.5;

impl Trial {
    fn new(turned: Turned, sizes: Sizes) -> Self {
        let Sizes { m, n, columns, k, .. } = sizes;
        let stored = |turned: bool, rows: usize, columns: usize| if turned { [columns, rows] } else { [rows, columns] };
        let wide = |[rows, columns]: [usize; 2]| [rows, columns.next_multiple_of(EIGHT) + FOUR];
        let shapes = [wide(stored(turned.a, m, k)), wide(stored(turned.b, k, n)), [m, columns + FOUR]];
        let matrices = sizes.samples * sizes.heads;
        // Zero behind the columns that count, as the shader wants it; nothing counts on what is behind the rows.
        let fill = |[rows, row]: [usize; 2], used: usize, salt: usize| -> Vec<f32> {
            let value = |i: usize| if i % row < used { ((i * 7919 + salt) % 11) as f32 - 5.0 } else { 0.0 };
            (0..FIRST + matrices * rows * row).map(|i| if i < FIRST { 99.0 } else { value(i - FIRST) }).collect()
        };
        let a = fill(shapes[0], if turned.a { m } else { k }, 1);
        let b = fill(shapes[1], if turned.b { k } else { n }, 5);
        Self { turned, sizes, shapes, a, b }
    }

    /// Values of C in the order of memory.
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
            *value = inside.map(|i| a(i) * b(i)).sum();
        }
        c
    }

    fn agrees(&self, gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
        let expected = self.expected();
        let buffer = |contents: &[u8]| {
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
            gpu.device().create_buffer_init(&BufferInitDescriptor { label: Some("product"), contents, usage })
        };
        let words = |values: &[f32]| -> Vec<u8> {
            match way {
                Way::Matrices | Way::Plain { halves: true } => values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect(),
                Way::Plain { halves: false } => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
                Way::Emulated => values.iter().map(|v| *v as i8 as u8).collect(),
            }
        };
        let buffers = [buffer(&words(&self.a)), buffer(&words(&self.b)), buffer(bytemuck::cast_slice(&vec![UNTOUCHED; expected.len()]))];
        let result = buffers[2].clone();
        let mut shapes = self.shapes.iter();
        let matrices = buffers.map(|buffer| {
            let [rows, row] = *shapes.next().expect("three shapes");
            let size = buffer.size();
            let operand = Operand { place: Region { buffer, offset: 0 }, size, per_sample: 0 };
            Matrices { operand, first: FIRST, row, head: rows * row, sample: self.sizes.heads * rows * row }
        });
        gpu.run(&[launch(way, self.turned, &self.sizes, matrices)])?;
        Ok(gpu.read(&result)? == expected)
    }
}
