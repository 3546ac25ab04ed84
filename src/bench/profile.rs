//! Where a training step's time goes, without a clock inside the loop: the loader, the forward pass, forward and backward, and the whole
//! step are each measured as they are, and the differences are the parts.

use super::{Bench, Measured, Part, Row, Score};
use anyhow::Result;
use serde::Serialize;

/// Milliseconds of a step's parts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shares {
    pub forward: f64,
    pub backward: f64,
    /// Clipping, the update, and what the objective learns from responses.
    pub rest: f64,
    pub whole: f64,
    /// Making the step's batches on all threads while nobody trains.
    pub loader: f64,
}

/// A training's parts, of either side.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    pub row: Row,
    /// Faces a step.
    pub batch: usize,
    /// Whether loader and training share their cores: then the loader's time adds to the step's, else it is hidden while it is shorter.
    pub shares_cores: bool,
    pub ours: Shares,
    pub peer: Option<Shares>,
}

impl Shares {
    /// From the seconds of a loaded batch, a forward pass, forward and backward, and a whole step.
    fn of([loader, forward, gradients, whole]: [f64; 4]) -> Self {
        Self { forward, backward: gradients - forward, rest: whole - gradients, whole, loader }
    }
}

impl Profile {
    /// Measures the parts of a training row.
    ///
    /// # Errors
    /// As [`Bench::measure`].
    pub fn measure(bench: &Bench, row: Row) -> Result<Self> {
        let parts = [Part::Loader, Part::Forward, Part::Gradients, Part::Whole];
        let measured = parts.into_iter().map(|part| bench.measure(row, part)).collect::<Result<Vec<Measured>>>()?;
        let batch = measured[0].batch;
        let milliseconds = |score: &Score| 1e3 * batch as f64 / score.faces_per_second;
        let of = |side: &dyn Fn(&Measured) -> Option<f64>| -> Option<Shares> {
            let all: Option<Vec<f64>> = measured.iter().map(side).collect();
            all?.try_into().ok().map(Shares::of)
        };
        let ours = measured.iter().map(|m| milliseconds(&m.ours)).collect::<Vec<_>>();
        Ok(Self {
            row,
            batch,
            shares_cores: measured[0].ours.ready.is_cpu,
            ours: Shares::of([ours[0], ours[1], ours[2], ours[3]]),
            peer: of(&|m| m.peer.as_ref().map(milliseconds)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_differences() {
        let shares = Shares::of([1.0, 3.0, 9.0, 11.0]);
        assert_eq!((shares.forward, shares.backward, shares.rest, shares.whole, shares.loader), (3.0, 6.0, 2.0, 11.0, 1.0));
    }
}
