//! `moue evaluate`: a finished run on a split of a pack.

use super::output::print;
use crate::config::{DeviceChoice, Objective};
use crate::dataset::Split;
use crate::eval::Scored;
use crate::pipeline::{Trial, trial};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Measure a run: accuracy, mean class accuracy, macro F1, calibration, confusion matrix
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  moue evaluate runs/fp --split valid\n  moue evaluate runs/fp --which ce --data other.moue --split test --json"
)]
pub struct EvaluateArgs {
    /// Run folder
    run: PathBuf,
    /// Pack to measure on (default: the run's own, refused where it was changed since)
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// train, valid or test
    #[arg(long, default_value = "test")]
    split: Split,
    /// Objective whose network is taken: pll, ce, proden ... (default: what the run is about, not its baseline)
    #[arg(long, value_name = "OBJECTIVE", value_parser = Objective::ALL.map(Objective::name))]
    which: Option<String>,
    /// Take the checkpoint with the highest validation accuracy, which was chosen by looking, instead of the last
    #[arg(long)]
    best: bool,
    /// Average the probabilities of each face and its mirror image
    #[arg(long)]
    flip: bool,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    pub fn run(self) -> Result<()> {
        let trial = Trial::open(trial::Request {
            run: &self.run,
            which: self.which.as_deref(),
            data: self.data.as_deref(),
            best: self.best,
            split: self.split,
            flip: self.flip,
            device: self.device,
        })?;
        trial.remarks.iter().for_each(|remark| eprintln!("{remark}"));
        let classes = &trial.pack.protocol().classes;
        let Scored { confusion, loss, calibration_error } = Scored::new(classes.len(), &trial.labels(), &trial.read_logits()?);
        if self.json {
            let value = serde_json::json!({
                "run": self.run, "stage": trial.state.stage, "step": trial.state.step, "pack": trial.pack.path(), "split": self.split,
                "flip": trial.flips(), "faces": trial.faces.len(), "accuracy": confusion.accuracy(),
                "mean_recall": confusion.mean_recall(), "macro_f1": confusion.macro_f1(), "calibration_error": calibration_error,
                "loss": loss, "classes": classes, "recall": confusion.recalls(), "confusion": confusion.counts(),
            });
            return print(|w| Ok(writeln!(w, "{value}")?));
        }
        print(|w| {
            writeln!(
                w,
                "{} after step {}, {} faces of {} ({}){}",
                trial.state.stage,
                trial.state.step,
                trial.faces.len(),
                trial.pack.path().display(),
                self.split,
                if trial.flips() { ", each averaged with its mirror image" } else { "" }
            )?;
            writeln!(w, "accuracy            {:6.2} %", 100.0 * confusion.accuracy())?;
            writeln!(w, "mean class accuracy {:6.2} %", 100.0 * confusion.mean_recall())?;
            writeln!(w, "macro F1            {:6.2} %", 100.0 * confusion.macro_f1())?;
            writeln!(w, "calibration error   {:6.2} %", 100.0 * calibration_error)?;
            writeln!(w, "loss                {loss:8.4}\n")?;
            writeln!(w, "{:<12}  faces  predicted, % of row:{}", "true class", names(classes))?;
            for (c, row) in confusion.row_shares().iter().enumerate() {
                let faces: u64 = confusion.counts()[c].iter().sum();
                let cells: String = match row {
                    Some(row) => row.iter().map(|v| format!("{:>8.1}", 100.0 * v)).collect(),
                    None => classes.iter().map(|_| format!("{:>8}", "-")).collect(),
                };
                writeln!(w, "{:<12}{faces:>7}                     {cells}", classes[c])?;
            }
            Ok(())
        })
    }
}

/// Class names as heads of columns.
fn names(classes: &[String]) -> String {
    classes.iter().map(|c| format!("{:>8.7}", c)).collect()
}
