//! `moue demo`: the whole method on generated faces, with nothing to download.

use super::training::{Request, TrainingArgs};
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::Stages;
use crate::usage;
use anyhow::Result;
use clap::Args;

/// Generate faces and annotators, pretrain, finetune on the ambiguous labels, and compare with plain cross-entropy
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue demo --out runs/demo\n  moue demo --quick --noise 1.5 --seed 3")]
pub struct DemoArgs {
    /// Under a minute: shows that everything works, not what the method can do
    #[arg(long, conflicts_with = "resume")]
    quick: bool,
    /// Noise of the simulated annotators: 0 (nearly clean) to 3
    #[arg(long, value_name = "X", default_value_t = 1.0, conflicts_with = "resume")]
    noise: f32,
    #[command(flatten)]
    training: TrainingArgs,
}

impl DemoArgs {
    pub fn run(self) -> Result<()> {
        if self.training.data.as_deref().is_some_and(|d| d != "demo") {
            usage!("moue demo trains on generated faces; use `moue pretrain` and `moue finetune` for --data PACK");
        }
        let whole = GeneratorConfig { noise: self.noise, ..GeneratorConfig::demo() };
        let (preset, generator) = match self.quick {
            true => ("demo-quick", GeneratorConfig { train: 1536, valid: 256, test: 512, ..whole }),
            false => ("demo", whole),
        };
        generator.check()?;
        let stages = Stages { pretrain: true, finetune: true, ..Stages::default() };
        self.training.carry_out(Request { command: "demo", stages, preset: Some(preset), generator, from: None, labels: None })
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser;
    use clap::error::ErrorKind;

    #[test]
    fn a_resume_draws_no_other_faces() {
        let demo = ["moue", "demo", "--out", "x"];
        let parse = |words: &[&str]| Cli::try_parse_from([&demo[..], words].concat()).map(drop).map_err(|e| e.kind());
        assert_eq!(parse(&["--resume"]), Ok(()));
        assert_eq!(parse(&["--quick", "--noise", "2"]), Ok(()));
        for words in [&["--resume", "--quick"][..], &["--noise", "2", "--resume"]] {
            assert_eq!(parse(words), Err(ErrorKind::ArgumentConflict), "{words:?}");
        }
    }
}
