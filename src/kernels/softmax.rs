//! Host side of `shaders/softmax.wgsl`: softmax of rows `[M, P]` of which the first K columns count, and its gradient. The reference is
//! [`reference::softmax`](super::reference::softmax).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::teams::Team;

const SOURCE: &str = concat!(include_str!("../../shaders/shared/halves.wgsl"), "\n", include_str!("../../shaders/softmax.wgsl"));

/// Scores, weights.
pub static SOFTMAX: Kernel =
    Kernel { name: "softmax", source: SOURCE, entry: "softmax", buffers: 2, results: 1, checks_itself: false, varies: false };
/// Weights, their gradient, that of scores.
pub static GRADIENT: Kernel =
    Kernel { name: "softmax", source: SOURCE, entry: "softmax_gradient", buffers: 3, results: 1, checks_itself: false, varies: false };

/// The shader's constants for rows shared by `team`; `halves`: weights in half precision.
pub fn constants(team: Team, halves: bool) -> Constants {
    let mut all = team.constants();
    all.push(("HALVES", u32::from(halves)));
    all
}

/// Rows `[M, P]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    team: Team,
    rows: usize,
    width: usize,
    columns: usize,
    scale: f32,
    halves: bool,
}

impl Rows {
    /// M `rows` of P `width`, of which K `columns` count. None where there is nothing to do, where rows are too wide for a workgroup, and where
    /// `halves` do not fill whole words.
    pub fn of(rows: usize, width: usize, columns: usize, scale: f32, halves: bool) -> Option<Self> {
        let team = Team::of(width).filter(|_| rows * width > 0 && !(halves && width % 2 == 1))?;
        Some(Self { team, rows, width, columns, scale, halves })
    }

    /// Bytes of a sample, which is a workgroup's rows: of f32, and of weights.
    fn sizes(&self) -> [u64; 2] {
        let values = (self.team.rows() * self.width) as u64;
        [4 * values, if self.halves { 2 } else { 4 } * values]
    }

    /// The same for the buffers of [`forward`].
    pub fn forward_sizes(&self) -> [u64; 2] {
        self.sizes()
    }

    /// The same for the buffers of [`gradient`].
    pub fn gradient_sizes(&self) -> [u64; 3] {
        let [floats, weights] = self.sizes();
        [weights, floats, weights]
    }

    fn launch<P>(&self, kernel: &'static Kernel, operands: Vec<Operand<P>>) -> Launch<P> {
        Launch {
            kernel,
            constants: constants(self.team, self.halves),
            operands,
            samples: self.rows.div_ceil(self.team.rows()),
            groups: 1,
            params: vec![self.width as u32, self.columns as u32, self.scale.to_bits()],
        }
    }
}

/// Weights from scores.
pub fn forward<P>(rows: &Rows, operands: [Operand<P>; 2]) -> Launch<P> {
    rows.launch(&SOFTMAX, operands.into())
}

/// The gradient of scores from weights and their gradient.
pub fn gradient<P>(rows: &Rows, operands: [Operand<P>; 3]) -> Launch<P> {
    rows.launch(&GRADIENT, operands.into())
}
