//! `moue evaluate`: a finished run on a split of a pack.

use super::output::print;
use crate::config::DeviceChoice;
use crate::dataset::{Pack, Split};
use crate::engine::{device, shards::Shards};
use crate::finetune;
use crate::pipeline::{find_checkpoint, load};
use crate::run::{Manifest, RunFolder};
use crate::usage;
use anyhow::{Context, Result};
use burn::module::Module;
use clap::Args;
use std::path::{Path, PathBuf};

/// Measure a run: accuracy, mean class accuracy, recall of each class, confusion matrix
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  moue evaluate runs/fp --split valid\n  moue evaluate runs/fp --which ce --data other.moue --split test --json"
)]
pub struct EvaluateArgs {
    /// Run folder
    run: PathBuf,
    /// Pack to measure on (default: the run's own)
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// train, valid or test
    #[arg(long, default_value = "test")]
    split: Split,
    /// pll or ce (default: pll, or ce where there is no other)
    #[arg(long, value_parser = ["pll", "ce"])]
    which: Option<String>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    pub fn run(self) -> Result<()> {
        let folder = RunFolder::open(&self.run)?;
        let checkpoint = find_checkpoint(&folder, self.which.as_deref())?;
        let path = match &self.data {
            Some(path) => path.clone(),
            None => PathBuf::from(&Manifest::read(&folder)?.data.context("the run names no pack; give one with --data")?.pack),
        };
        let pack = Pack::open(Path::new(&path))?;
        if pack.protocol().classes != checkpoint.state.classes {
            usage!(
                "pack {} has the classes {}, the run was trained on {}: their labels mean different things",
                path.display(),
                pack.protocol().classes.join(", "),
                checkpoint.state.classes.join(", ")
            );
        }
        let faces = finetune::scored_faces(&pack, self.split);
        if faces.is_empty() {
            usage!("pack {} has no labelled faces in its {} split", path.display(), self.split);
        }
        let open = device::open(self.device)?;
        let (model, resolved) = load::classifier(&checkpoint, &self.run.display().to_string(), &open.device)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = Shards::new(if open.is_cpu { cores } else { 1 })?;
        let (confusion, loss) = finetune::evaluate(&model.valid(), &pack, &faces, resolved.settings(), &shards)?;
        let classes = &pack.protocol().classes;
        if self.json {
            let value = serde_json::json!({
                "run": self.run, "stage": checkpoint.state.stage, "step": checkpoint.state.step, "pack": path, "split": self.split,
                "faces": faces.len(), "accuracy": confusion.accuracy(), "mean_recall": confusion.mean_recall(), "loss": loss,
                "classes": classes, "recall": confusion.recalls(), "confusion": confusion.counts(),
            });
            return print(|w| Ok(writeln!(w, "{value}")?));
        }
        print(|w| {
            writeln!(
                w,
                "{} after step {}, {} faces of {} ({})",
                checkpoint.state.stage,
                checkpoint.state.step,
                faces.len(),
                path.display(),
                self.split
            )?;
            writeln!(w, "accuracy            {:6.2} %", 100.0 * confusion.accuracy())?;
            writeln!(w, "mean class accuracy {:6.2} %", 100.0 * confusion.mean_recall())?;
            writeln!(w, "loss                {loss:8.4}\n")?;
            writeln!(w, "{:<12} recall   predicted:{}", "true class", classes.iter().map(|c| format!("{:>7.6}", c)).collect::<String>())?;
            for (c, row) in confusion.counts().iter().enumerate() {
                let recall = confusion.recalls()[c].map_or("     -".to_string(), |r| format!("{:5.1} %", 100.0 * r));
                writeln!(w, "{:<12}{recall}            {}", classes[c], row.iter().map(|n| format!("{n:>7}")).collect::<String>())?;
            }
            Ok(())
        })
    }
}
