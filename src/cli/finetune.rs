//! `moue finetune`: encoder and query decoder, from candidate sets.

use super::training::{Request, TrainingArgs};
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::Stages;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Train the recogniser from ambiguous labels and resolve them; plain cross-entropy runs beside it
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue finetune --data fp.moue --from runs/fp-pretrain --preset ferplus-cpu --out runs/fp\n\n\
                  Only the baseline, or only partial labels:\n  moue finetune ... --set finetune.objective=ce\n  \
                  moue finetune ... --set finetune.baseline=false")]
pub struct FinetuneArgs {
    /// Run with the pretrained encoder, or a weights file: an encoder, or a network for the same classes to go on with (default: random
    /// weights)
    #[arg(long, value_name = "RUN_OR_WEIGHTS")]
    from: Option<PathBuf>,
    /// Candidate sets made by `moue labels` (default: made from the pack under labels.*, where no predictions are needed)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    training: TrainingArgs,
}

impl FinetuneArgs {
    pub fn run(self) -> Result<()> {
        if self.training.data.is_none() && !self.training.resume {
            usage!("finetune needs --data PACK (make one with `moue import`), or --data demo for generated faces");
        }
        let demo = self.training.data.as_deref() == Some("demo");
        let stages = Stages { finetune: true, ..Stages::default() };
        let preset = demo.then_some("demo");
        self.training.carry_out(Request {
            command: "finetune",
            stages,
            preset,
            generator: GeneratorConfig::default(),
            from: self.from,
            labels: self.labels,
        })
    }
}
