//! Tries out whether a device multiplies right.

use super::super::gpu::{Gpu, GpuError, Operand, Region};
use super::{EIGHT, Ending, FOUR, Finish, Matrices, Sizes, Turned, Use, Way, launch, uses};
use half::f16;
use wgpu::BufferUsages;
use wgpu::util::{BufferInitDescriptor, DeviceExt};

/// Whether the kernels multiply right on a device: drivers differ in what they make of cooperative matrices. Small whole numbers, which f16
/// and f32 hold exactly, in everything that layers ask for, with edges in all directions; of GELU, which makes other numbers of them, only
/// that it runs.
pub fn works(gpu: &Gpu, way: Way) -> Result<bool, GpuError> {
    let uses = uses(way);
    let kernel = |&(turned, tall, finish): &Use| (way.kernel(finish), way.constants(turned, tall, finish));
    gpu.prepare(&uses.iter().map(kernel).collect::<Vec<_>>());
    for (turned, tall, finish) in uses {
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
    /// As C lies: what came before an activation, or a residual.
    before: Vec<f32>,
    /// Rows of C for each value of the mask.
    each: usize,
    mask: Vec<f32>,
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
        let before = fill(shapes[2], columns, 7);
        // One matrix has three samples, which begin anywhere in its tiles.
        let each = if matrices > 1 { sizes.heads * m } else { m.div_ceil(3) };
        let mask = (0..(matrices * m).div_ceil(each)).map(|i| number(i, 7)).collect();
        Self { turned, finish, sizes, shapes, a, b, bias, before, each, mask }
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
                    if self.before[FIRST + place] > 0.0 {
                        sum
                    } else {
                        0.0
                    }
                }
                Finish::Residual { masked } => {
                    let share = if masked { self.mask[place / (self.each * c_row)] } else { 1.0 };
                    self.before[FIRST + place] + share * (sum + self.bias[column])
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
        let result = || if self.finish.bytes() == 4 { single(&untouched) } else { halves(&untouched) };
        let ending = match self.finish {
            Finish::Single => Ending::Single,
            Finish::Rounded => Ending::Rounded,
            Finish::Biased => Ending::Biased(single(&self.bias)),
            Finish::Activated { relu } => Ending::Activated { bias: single(&self.bias), result: result(), relu },
            Finish::Gradient { relu } => Ending::Gradient { inner: halves(&self.before), relu },
            Finish::Residual { masked } => {
                let mask = masked.then(|| single(&self.mask));
                Ending::Residual { bias: single(&self.bias), residual: single(&self.before), mask }
            }
        };
        let mut shapes = self.shapes.iter();
        let [a, b, c] = [stored(&self.a), stored(&self.b), result()].map(|operand| {
            let [rows, row] = *shapes.next().expect("three shapes");
            Matrices { operand, first: FIRST, row, head: rows * row, sample: self.sizes.heads * rows * row }
        });
        let c = Matrices { sample: self.each * c.row, ..c };
        let launch = launch(way, self.turned, &self.sizes, [a, b, c], ending);
        let results: Vec<_> = launch.results().iter().map(|result| result.place.buffer.clone()).collect();
        gpu.run(&[launch])?;
        for result in results {
            let words = gpu.read(&result)?;
            let values = match self.finish.bytes() {
                4 => words,
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
