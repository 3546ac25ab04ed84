//! Host side of `shaders/layer_norm.wgsl`: layer norm of rows `[R, D]` and its gradients. The reference is
//! [`reference::layer_norm`](super::reference::layer_norm).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::teams::Team;

/// The shader's text behind those parts of layer_norm/ that say where results go.
macro_rules! source {
    ($($part:literal),+) => {
        concat!(
            include_str!("../../shaders/shared/halves.wgsl"),
            "\n",
            $(include_str!(concat!("../../shaders/layer_norm/", $part, ".wgsl")), "\n",)+
            include_str!("../../shaders/layer_norm.wgsl")
        )
    };
}

const ALONE: &str = source!("alone");

const fn kernel(name: &'static str, source: &'static str, entry: &'static str, buffers: usize, results: usize) -> Kernel {
    Kernel { name, source, entry, buffers, results, checks_itself: false, varies: false }
}

/// x `[R, D]`, gamma `[D]`, beta `[D]`, result `[R, D]` of f32 or f16.
pub static NORM: Kernel = kernel("layer_norm", ALONE, "norm", 4, 1);
/// x `[R, D]`, gamma `[D]`, gradient of the output `[R, D]`, of x `[R, D]`, and sums of chunks `[G, 2, D]`.
pub static GRADIENTS: Kernel = kernel("layer_norm", ALONE, "norm_gradients", 5, 2);
/// x `[R, D]`, gamma `[D]`, gradient of the output and a residual `[R, D]`, that of x on top of the residual `[R, D]`, and sums of chunks.
pub static GRADIENTS_ONTO: Kernel = kernel("layer_norm/onto", source!("residual", "onto"), "norm_gradients", 6, 2);
/// The same with a mask `[B]` before the results, and with what it leaves of the sum, `[R, D]` of f16, before those of chunks.
pub static GRADIENTS_ALONG: Kernel = kernel("layer_norm/along", source!("residual", "along"), "norm_gradients", 8, 3);
/// Sums of chunks `[G, 2, D]`, gradients of gamma and beta `[D]`.
pub static SUMS: Kernel = kernel("layer_norm", ALONE, "norm_sums", 3, 2);

/// Buffers that parameters of gradients have a place for.
const MOST_BUFFERS: usize = 8;
/// Chunks of rows at most, unless there are more rows than so many chunks of one turn hold: enough to keep a GPU busy.
const CHUNKS: usize = 1024;
/// Columns of a workgroup of [`SUMS`], as in the shader.
const COLUMNS: usize = 16;

/// The constants of norms and gradients for rows shared by `team`; `halves`: a norm in half precision.
pub fn constants(team: Team, halves: bool) -> Constants {
    let mut all = team.constants();
    all.push(("HALVES", u32::from(halves)));
    all
}

/// Those of [`GRADIENTS_ALONG`].
pub fn along_constants(team: Team, masked: bool) -> Constants {
    let mut all = constants(team, true);
    all.push(("MASKED", u32::from(masked)));
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

    /// And for [`gradients_onto`].
    pub fn onto_sizes(&self) -> [u64; 6] {
        let [x, gamma, gradient, of_x, chunk] = self.gradient_sizes();
        [x, gamma, gradient, of_x, of_x, chunk]
    }

    /// A sample of the launch is a chunk; one of what is normed has `rows_each`, if there is a mask.
    fn gradients<P>(&self, kernel: &'static Kernel, constants: Constants, rows_each: usize, operands: Vec<Operand<P>>) -> Launch<P> {
        // All have the places where the fifth to the eighth of the buffers begin.
        let beginnings = std::iter::repeat_n(0, MOST_BUFFERS - kernel.buffers);
        let params = [self.width as u32, self.epsilon.to_bits(), self.turns() as u32, rows_each as u32];
        Launch { kernel, constants, operands, samples: self.chunks(), groups: 1, params: beginnings.chain(params).collect() }
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
    rows.gradients(&GRADIENTS, constants(rows.team, false), 0, operands.into())
}

/// The same with the gradient of x on top of a residual.
pub fn gradients_onto<P>(rows: &Rows, operands: [Operand<P>; 6]) -> Launch<P> {
    rows.gradients(&GRADIENTS_ONTO, constants(rows.team, false), 0, operands.into())
}

/// [`gradients_onto`] of x, gamma, gradient and residual, and between that and the chunks' sums the same in half precision, times the value
/// of a mask `[B]` for each sample, if there is one. This launch is not cut, whatever the operands say: behind the first part of the rows a
/// shader would not know whose row it has.
///
/// # Panics
/// If rows of f16 were not whole words, or samples of the mask not whole rows.
pub fn gradients_along<P: Clone>(rows: &Rows, sources: [Operand<P>; 4], mask: Option<Operand<P>>, results: [Operand<P>; 3]) -> Launch<P> {
    let samples = mask.as_ref().map_or(1, |mask| (mask.size / 4) as usize);
    assert!(rows.halves(), "{} values of f16 are not whole words", rows.width);
    assert!(samples > 0 && rows.rows.is_multiple_of(samples), "{} rows of {samples} samples", rows.rows);
    let constants = along_constants(rows.team, mask.is_some());
    // Any buffer stands for a mask that is not read.
    let mask = mask.unwrap_or_else(|| sources[1].clone());
    let operands = sources.into_iter().chain([mask]).chain(results).map(|operand| Operand { per_sample: 0, ..operand });
    let launch = rows.gradients(&GRADIENTS_ALONG, constants, rows.rows / samples, operands.collect());
    Launch { samples: 1, groups: rows.chunks(), ..launch }
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
