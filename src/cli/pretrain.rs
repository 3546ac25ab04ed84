//! `moue pretrain`: the encoder, without labels.

use super::training::{Request, TrainingArgs};
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::Stages;
use crate::usage;
use anyhow::Result;
use clap::Args;

/// Pretrain the vision transformer without labels: predict the HOG (MaskFeat) or the pixels (MAE, SimMIM) of hidden patches
#[derive(Args, Debug)]
#[command(after_help = "\
What is predicted, and by which network, is pretrain.method: maskfeat, mae_hog, mae or simmim (`moue config explain pretrain.method`). \
Beside each checkpoint (at most 50 of them) there is a picture of what the network makes of a few training faces: \
RUN/media/pretrain-STEP.png.

Example:
  moue pretrain --data fp.moue --preset ferplus-cpu --out runs/fp-pretrain
  moue pretrain --data fp.moue --preset ferplus-cpu --set pretrain.method=mae --set mask.kind=random --set mask.ratio=0.75")]
pub struct PretrainArgs {
    #[command(flatten)]
    training: TrainingArgs,
}

impl PretrainArgs {
    pub fn run(self) -> Result<()> {
        if self.training.data.is_none() && !self.training.resume {
            usage!("pretrain needs --data PACK (make one with `moue import`), or --data demo for generated faces");
        }
        let demo = self.training.data.as_deref() == Some("demo");
        let stages = Stages { pretrain: true, ..Stages::default() };
        let preset = demo.then_some("demo");
        self.training.carry_out(Request {
            command: "pretrain",
            stages,
            preset,
            generator: GeneratorConfig::default(),
            from: None,
            labels: None,
        })
    }
}
