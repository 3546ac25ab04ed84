//! Host side of `shaders/layer_norm.wgsl`: layer norm of rows `[R, D]` and its gradients. The reference is
//! [`reference::layer_norm`](super::reference::layer_norm).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::teams::Team;

const SOURCE: &str = concat!(include_str!("../../shaders/shared/halves.wgsl"), "\n", include_str!("../../shaders/layer_norm.wgsl"));

/// x `[R, D]`, gamma `[D]`, beta `[D]`, result `[R, D]` of f32 or f16.
pub static NORM: Kernel =
    Kernel { name: "layer_norm", source: SOURCE, entry: "norm", buffers: 4, results: 1, checks_itself: false, varies: false };
/// x `[R, D]`, gamma `[D]`, gradient of the output `[R, D]`, of x `[R, D]`, and sums of chunks `[G, 2, D]`.
pub static GRADIENTS: Kernel =
    Kernel { name: "layer_norm", source: SOURCE, entry: "norm_gradients", buffers: 5, results: 2, checks_itself: false, varies: false };
/// Sums of chunks `[G, 2, D]`, gradients of gamma and beta `[D]`.
pub static SUMS: Kernel =
    Kernel { name: "layer_norm", source: SOURCE, entry: "norm_sums", buffers: 3, results: 2, checks_itself: false, varies: false };

/// Chunks of rows at most, unless there are more rows than so many chunks of one turn hold: enough to keep a GPU busy.
const CHUNKS: usize = 1024;
/// Columns of a workgroup of [`SUMS`], as in the shader.
const COLUMNS: usize = 16;

/// The constants of [`NORM`] and [`GRADIENTS`] for rows shared by `team`; `halves`: a norm in half precision.
pub fn constants(team: Team, halves: bool) -> Constants {
    let mut all = team.constants();
    all.push(("HALVES", u32::from(halves)));
    all
}

/// What is normed: `[R, D]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    team: Team,
    rows: usize,
    width: usize,
    epsilon: f32,
}

impl Rows {
    /// None where there is nothing to do, and where rows are too wide for a workgroup.
    pub fn of(rows: usize, width: usize, epsilon: f64) -> Option<Self> {
        let team = Team::of(width).filter(|_| rows * width > 0)?;
        Some(Self { team, rows, width, epsilon: epsilon as f32 })
    }

    /// Rows that each team of a workgroup takes one after the other for the gradients.
    fn turns(&self) -> usize {
        self.rows.div_ceil(self.team.rows() * CHUNKS)
    }

    /// G: chunks of rows, of which each has its sums.
    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(self.team.rows() * self.turns())
    }

    /// Whether rows of f16 are whole words, as a norm in half precision wants them.
    pub fn halves(&self) -> bool {
        self.width.is_multiple_of(2)
    }

    fn bytes(&self) -> u64 {
        4 * self.width as u64
    }

    /// Bytes of a sample of each buffer of [`norm`]: a workgroup's rows.
    pub fn norm_sizes(&self, halves: bool) -> [u64; 4] {
        let rows = self.team.rows() as u64 * self.bytes();
        [rows, 0, 0, if halves { rows / 2 } else { rows }]
    }

    /// The same for [`gradients`]: a chunk.
    pub fn gradient_sizes(&self) -> [u64; 5] {
        let rows = (self.team.rows() * self.turns()) as u64 * self.bytes();
        [rows, 0, rows, rows, 2 * self.bytes()]
    }
}

/// The norm of x, of f16 if `halves`.
///
/// # Panics
/// If rows of f16 were not whole words.
pub fn norm<P>(rows: &Rows, halves: bool, operands: [Operand<P>; 4]) -> Launch<P> {
    assert!(!halves || rows.halves(), "{} values of f16 are not whole words", rows.width);
    Launch {
        kernel: &NORM,
        constants: constants(rows.team, halves),
        operands: operands.into(),
        samples: rows.rows.div_ceil(rows.team.rows()),
        groups: 1,
        params: vec![rows.width as u32, rows.epsilon.to_bits()],
    }
}

/// Gradients of x, and of gamma and beta chunk by chunk.
pub fn gradients<P>(rows: &Rows, operands: [Operand<P>; 5]) -> Launch<P> {
    Launch {
        kernel: &GRADIENTS,
        constants: constants(rows.team, false),
        operands: operands.into(),
        samples: rows.chunks(),
        groups: 1,
        params: vec![rows.width as u32, rows.epsilon.to_bits(), rows.turns() as u32],
    }
}

/// Sums over chunks.
pub fn sums<P>(rows: &Rows, operands: [Operand<P>; 3]) -> Launch<P> {
    Launch {
        kernel: &SUMS,
        constants: Constants::new(),
        operands: operands.into(),
        samples: 1,
        groups: (2 * rows.width).div_ceil(COLUMNS),
        params: [rows.width, rows.chunks()].map(|v| v as u32).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_row_once() {
        for (count, width) in [(1, 1), (1, 768), (1576, 768), (12_608, 768), (12_609, 192), (500_000, 96), (5000, 1025), (3000, 4096)] {
            let rows = Rows::of(count, width, 1e-6).unwrap();
            let each = rows.team.rows() * rows.turns();
            assert!(rows.chunks() * each >= count && (rows.chunks() - 1) * each < count && rows.chunks() <= CHUNKS, "{rows:?}");
        }
        assert!(Rows::of(0, 5, 1e-6).is_none() && Rows::of(5, 0, 1e-6).is_none() && Rows::of(1, 4097, 1e-6).is_none());
    }
}
