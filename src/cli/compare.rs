//! `moue compare`: two trained networks on the same faces, with an interval for their difference.

use super::output::print;
use crate::config::{DeviceChoice, Objective};
use crate::dataset::Split;
use crate::eval::argmax;
use crate::eval::bootstrap::{Difference, Paired};
use crate::pipeline::{Trial, trial};
use crate::random::Streams;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Compare two runs, or two objectives of one run, on the same faces: differences with paired bootstrap intervals
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  moue compare runs/fp:ce runs/fp:pll --split valid\n  moue compare runs/a runs/b --data other.moue --json"
)]
pub struct CompareArgs {
    /// First network: RUN, or RUN:OBJECTIVE
    first: String,
    /// Second network: RUN, or RUN:OBJECTIVE
    second: String,
    /// Pack to measure on (default: the first run's own, refused where it was changed since)
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// train, valid or test
    #[arg(long, default_value = "test")]
    split: Split,
    /// Average the probabilities of each face and its mirror image
    #[arg(long)]
    flip: bool,
    /// Times that the faces are drawn with replacement
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    resamples: u32,
    /// Root of the drawing
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl CompareArgs {
    pub fn run(self) -> Result<()> {
        let first = self.open(&self.first, self.data.clone())?;
        let pack = first.pack.path().to_path_buf();
        let second = self.open(&self.second, Some(pack))?;
        first.remarks.iter().chain(&second.remarks).for_each(|remark| eprintln!("{remark}"));
        let classes = first.pack.protocol().classes.len();
        let labels = first.labels();
        let predict = |trial: &Trial| -> Result<Vec<_>> { Ok(trial.read_logits()?.chunks(classes).map(argmax).collect()) };
        let (a, b) = (predict(&first)?, predict(&second)?);
        let paired = Paired { classes, labels: &labels, first: &a, second: &b };
        let found = paired.compare(self.resamples as usize, &Streams::new(self.seed));
        if self.json {
            let value = |d: &Difference| {
                serde_json::json!({
                    "first": d.first, "second": d.second, "difference": d.second - d.first, "low": d.low, "high": d.high,
                    "second_better": d.second_better,
                })
            };
            let value = serde_json::json!({
                "first": self.first, "second": self.second, "pack": first.pack.path(), "split": self.split, "faces": labels.len(),
                "resamples": self.resamples, "accuracy": value(&found.accuracy), "mean_recall": value(&found.mean_recall),
                "only_first_right": found.only_first, "only_second_right": found.only_second,
            });
            return print(|w| Ok(writeln!(w, "{value}")?));
        }
        print(|w| {
            writeln!(w, "A: {} ({})\nB: {} ({})", self.first, first.state.stage, self.second, second.state.stage)?;
            writeln!(w, "{} faces of {} ({}), {} resamples\n", labels.len(), first.pack.path().display(), self.split, self.resamples)?;
            writeln!(w, "{:<20}{:>9}{:>9}{:>9}   {:<18}B better in", "", "A", "B", "B - A", "95 % interval")?;
            for (name, d) in [("accuracy", &found.accuracy), ("mean class accuracy", &found.mean_recall)] {
                writeln!(
                    w,
                    "{name:<20}{:>7.2} %{:>7.2} %{:>+9.2}   {:<18}{:.1} % of resamples",
                    100.0 * d.first,
                    100.0 * d.second,
                    100.0 * (d.second - d.first),
                    format!("{:+.2} to {:+.2}", 100.0 * d.low, 100.0 * d.high),
                    100.0 * d.second_better
                )?;
            }
            writeln!(w, "\nonly A right: {} faces; only B right: {}", found.only_first, found.only_second)?;
            let decided = found.accuracy.low > 0.0 || found.accuracy.high < 0.0;
            let text = if decided { "does not contain" } else { "contains" };
            writeln!(w, "the accuracy interval {text} zero. It tells how sure these two networks' order is on such faces;")?;
            writeln!(w, "how much another seed would change either, it does not know.")?;
            Ok(())
        })
    }

    fn open(&self, text: &str, data: Option<PathBuf>) -> Result<Trial> {
        // A colon may also be part of a path: only a known objective after it counts.
        let known = |name: &str| Objective::ALL.iter().any(|o| o.name() == name);
        let (run, which) = match text.rsplit_once(':') {
            Some((run, which)) if known(which) => (run, Some(which)),
            Some((run, which)) if !PathBuf::from(text).exists() && PathBuf::from(run).exists() => {
                usage!("`{which}` is no objective ({})", Objective::ALL.map(Objective::name).join(", "))
            }
            _ => (text, None),
        };
        Trial::open(trial::Request {
            run: run.as_ref(),
            which,
            data: data.as_deref(),
            split: self.split,
            best: false,
            flip: self.flip,
            device: self.device,
        })
    }
}
