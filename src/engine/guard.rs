//! What becomes of a step whose loss or gradient is not finite.
//!
//! Such a step teaches nothing: it is left out, counted and told. So many in a row that it is no accident (`run.bad_steps`) take training
//! back to the newest checkpoint from before them, at a smaller rate. Where that has been done [`ROLLBACKS`] times, training ends and leaves
//! in the run folder what is needed to find the cause ([`Evidence`]).

use super::objective::Source;
use super::read_values;
use crate::run::{RunFolder, write_atomic};
use anyhow::{Context, Result};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;

/// Times that training goes back before it gives up.
pub const ROLLBACKS: i32 = 3;
/// The rate after going back, as a share of the one before.
const CUT: f64 = 0.3;

/// How a stage has fared so far. Travels in checkpoints, so that a resumed run fares the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Steps left out since the last good one.
    pub in_a_row: u64,
    /// Steps left out in all.
    pub left_out: u64,
    pub rollbacks: i32,
}

/// What to do after a step that was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    LeaveOut,
    GoBack,
    GiveUp,
}

impl Guard {
    /// What the scheduled rate is multiplied by.
    pub fn rate_factor(&self) -> f64 {
        CUT.powi(self.rollbacks)
    }

    /// After a good step.
    pub fn good(&mut self) {
        self.in_a_row = 0;
    }

    /// After one that was not finite; `most`: so many in a row are no accident.
    pub fn bad(&mut self, most: u64) -> Verdict {
        self.in_a_row += 1;
        self.left_out += 1;
        match (self.in_a_row < most, self.rollbacks < ROLLBACKS) {
            (true, _) => Verdict::LeaveOut,
            (false, true) => Verdict::GoBack,
            (false, false) => Verdict::GiveUp,
        }
    }

    /// Of training that goes back to where it stood as `then`.
    pub fn gone_back(&self, then: Self) -> Self {
        Self { in_a_row: 0, left_out: then.left_out, rollbacks: self.rollbacks + 1 }
    }
}

/// The tensors of a model and its gradients that are not finite, in the order of the network: parameters, then gradients.
///
/// # Errors
/// When the device cannot be read.
pub fn bad_tensors<M: Module>(model: &M, gradients: &GradientsParams) -> Result<Vec<String>> {
    let mut search = Search { gradients, path: Vec::new(), parameters: Vec::new(), slopes: Vec::new(), error: None };
    model.visit(&mut search);
    match search.error {
        Some(error) => Err(error),
        None => Ok([search.parameters, search.slopes].concat()),
    }
}

struct Search<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    parameters: Vec<String>,
    slopes: Vec<String>,
    error: Option<anyhow::Error>,
}

impl Search<'_> {
    fn is_bad<const D: usize>(&mut self, tensor: Tensor<D>) -> bool {
        match read_values(tensor.abs().sum()) {
            Ok(sum) => !sum[0].is_finite(),
            Err(error) => {
                self.error.get_or_insert(error);
                false
            }
        }
    }
}

impl ModuleVisitor for Search<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.is_bad(param.val().inner()) {
            self.parameters.push(self.path.join("."));
        }
        if let Some(gradient) = self.gradients.get::<D>(param.id)
            && self.is_bad(gradient)
        {
            self.slopes.push(format!("gradient of {}", self.path.join(".")));
        }
    }
}

/// A tensor of a batch as it stands in memory, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A step that ended a training.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub stage: &'a str,
    /// Counted from 1, as events count those that are done.
    pub step: u64,
    pub epoch: u64,
    pub rate: f64,
    pub loss: f64,
    pub norm: f64,
    /// See [`bad_tensors`].
    pub bad: &'a [String],
}

impl Evidence<'_> {
    /// Writes `fault/<stage>.json`, which names the step, its tensors that are not finite and its faces, and beside it the batch as
    /// `.safetensors`, a group of tensors for each part that was worked on at once.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn write<S: Source>(&self, folder: &RunFolder, source: &S, positions: &[usize], parts: &[S::Batch]) -> Result<()> {
        let place = folder.fault();
        std::fs::create_dir_all(&place).with_context(|| format!("making the folder {}", place.display()))?;
        let name = self.stage.replace('/', "-");
        let raw: Vec<(String, Raw)> = parts
            .iter()
            .enumerate()
            .flat_map(|(i, part)| source.raw(part).into_iter().map(move |r| (format!("{i}.{}", r.name), r)))
            .collect();
        let views = raw.iter().map(|(name, r)| Ok((name.as_str(), TensorView::new(r.dtype, r.shape.clone(), &r.bytes)?)));
        let batch = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None)?;
        write_atomic(&place.join(format!("{name}.safetensors")), |w| Ok(w.write_all(&batch)?))?;
        let number = |x: f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
        let text = json!({
            "stage": self.stage, "step": self.step, "epoch": self.epoch, "lr": self.rate, "loss": number(self.loss),
            "gradient_norm": number(self.norm), "first_bad_tensor": self.bad.first(), "bad_tensors": self.bad,
            "faces": source.names(positions), "batch": format!("{name}.safetensors"),
        });
        write_atomic(&place.join(format!("{name}.json")), |w| Ok(serde_json::to_writer_pretty(w, &text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_back_and_in_the_end_gives_up() {
        let mut guard = Guard::default();
        assert_eq!([guard.bad(3), guard.bad(3)], [Verdict::LeaveOut; 2]);
        guard.good();
        let then = guard;
        for rollback in 1..=ROLLBACKS {
            assert_eq!([guard.bad(3), guard.bad(3), guard.bad(3)], [Verdict::LeaveOut, Verdict::LeaveOut, Verdict::GoBack]);
            guard = guard.gone_back(then);
            assert_eq!((guard.in_a_row, guard.left_out, guard.rollbacks), (0, 2, rollback));
            assert!((guard.rate_factor() - CUT.powi(rollback)).abs() < 1e-12);
        }
        assert_eq!([guard.bad(2), guard.bad(2)], [Verdict::LeaveOut, Verdict::GiveUp]);
    }
}
