//! `moue labels`: candidate sets, from what a pack holds or from predictions.

use super::output::{check_output, print};
use super::settings::SettingsArgs;
use crate::config::{LabelSettings, Settings, Strategy};
use crate::dataset::Pack;
use crate::labels::Candidates;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

#[cfg(not(feature = "train"))]
const EXAMPLES: &str = "\
Example:
  moue labels fp.moue --preset ferplus-cpu --out fp.labels.csv
  moue labels fp.moue --set labels.k=3 --set labels.share=0.3";
#[cfg(feature = "train")]
const EXAMPLES: &str = "\
Example:
  moue labels fp.moue --preset ferplus-cpu --out fp.labels.csv
  moue labels fp.moue --set labels.k=3 --set labels.share=0.3

Without votes (a training run of its own, which keeps candidates.csv and can be resumed):
  moue labels aff.moue --preset paper-affectnet7 --from runs/pretrain --out aff.labels.csv";

/// Make candidate sets from a pack's votes, or from models trained on parts of it, and write them as a csv
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct LabelsArgs {
    /// Pack with the faces
    pack: PathBuf,
    /// Csv to write (default: print the counts only)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[cfg(feature = "train")]
    #[command(flatten)]
    prediction: prediction::PredictionArgs,
}

impl LabelsArgs {
    pub fn run(self) -> Result<()> {
        if let Some(out) = &self.out {
            check_output(out)?;
        }
        #[cfg(feature = "train")]
        if self.prediction.resume {
            return self.predict();
        }
        let resolved = self.settings.resolve(None)?;
        let settings = resolved.settings();
        if settings.labels.strategy.predicts() {
            return self.predict();
        }
        #[cfg(feature = "train")]
        self.prediction.refuse(settings.labels.strategy)?;
        let pack = Pack::open(&self.pack)?;
        let candidates = Candidates::build(&pack, &settings.labels)?;
        if let Some(out) = &self.out {
            candidates.write_csv(out, &pack)?;
        }
        print(|w| {
            describe(w, &candidates, &pack, settings)?;
            match &self.out {
                Some(out) => Ok(writeln!(w, "written: {}", out.display())?),
                None => Ok(()),
            }
        })
    }

    #[cfg(not(feature = "train"))]
    fn predict(self) -> Result<()> {
        usage!(
            "candidate sets from predictions (labels.strategy = topk_all, crossfit_disagree or gaave) need training, and this moue was \
             built without it; use one built with the feature `train`, or votes, distribution or file"
        )
    }
}

fn describe(w: &mut dyn Write, candidates: &Candidates, pack: &Pack, settings: &Settings) -> Result<()> {
    let s = &settings.labels;
    let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    for (k, n) in candidates.sizes().iter().enumerate().filter(|(_, n)| **n > 0) {
        writeln!(w, "{n:>8} training faces with {k} candidate{}", if k == 1 { "" } else { "s" })?;
    }
    if candidates.left_out > 0 {
        writeln!(w, "{:>8} left out: no class passes the rule", candidates.left_out)?;
    }
    let ambiguous = candidates.ambiguous_share();
    writeln!(w, "ambiguous: {:.1} %", 100.0 * ambiguous)?;
    if s.strategy.predicts() {
        let counts: Vec<String> = candidates.provenances().iter().map(|(why, n)| format!("{} {n}", why.name())).collect();
        writeln!(w, "provenance: {}", counts.join(", "))?;
    }
    if let Some(agreement) = candidates.agreement(pack) {
        writeln!(w, "predicted as the given label by models that never saw the face: {:.1} %", 100.0 * agreement)?;
    }
    if let Some(kappas) = candidates.kappas(s.attack_steps + 1) {
        let counts: Vec<String> = kappas.iter().enumerate().map(|(kappa, n)| format!("{kappa}: {n}")).collect();
        writeln!(w, "iterates of the attack predicted as the given label: {}", counts.join(", "))?;
    }
    if ambiguous == 0.0 {
        writeln!(w, "note: no face has more than one candidate, so partial-label training has nothing to decide")?;
    }
    if ambiguous > s.max_share
        && let Some(fewer) = fewer(s)
    {
        writeln!(w, "warning: more than {:.0} % of the faces are ambiguous (labels.max_share); {fewer}", 100.0 * s.max_share)?;
    }
    if let Some(c) = candidates.coverage(pack) {
        writeln!(
            w,
            "truth among the candidates: {:.1} % of {} ambiguous, {:.1} % of {} clear faces",
            share(c.ambiguous_covered, c.ambiguous),
            c.ambiguous,
            share(c.clear_covered, c.clear),
            c.clear
        )?;
    }
    Ok(())
}

/// What makes fewer faces ambiguous; `None` where it is the strategy's very meaning that all are.
fn fewer(settings: &LabelSettings) -> Option<&'static str> {
    match settings.strategy {
        Strategy::Votes => Some("a larger labels.share or labels.min_votes makes fewer"),
        Strategy::Distribution => Some("a larger labels.share makes fewer"),
        Strategy::File => Some("look at where they come from"),
        Strategy::TopkAll => None,
        Strategy::CrossfitDisagree => Some("better models make fewer: --from a pretrained encoder, a larger labels.fold_epochs"),
        Strategy::Gaave => Some(
            "better models make fewer: --from a pretrained encoder, a larger labels.fold_epochs; so do a smaller labels.attack_step or \
             labels.kappa_min",
        ),
    }
}

#[cfg(feature = "train")]
mod prediction {
    //! The arguments of strategies that predict, and the run behind them.

    use super::super::progress::ProgressArgs;
    use super::super::training::{Request, TrainingArgs};
    use super::*;
    use crate::config::DeviceChoice;
    use crate::dataset::generated::GeneratorConfig;
    use crate::pipeline::{JobEnd, Stages};
    use anyhow::Context;

    #[derive(Args, Debug)]
    #[command(next_help_heading = "Predictions (labels.strategy = topk_all, crossfit_disagree, gaave)")]
    pub struct PredictionArgs {
        /// Run folder to make (default: runs/labels-<date>-<n>)
        #[arg(long, value_name = "RUN")]
        pub run: Option<PathBuf>,
        /// Run with a pretrained encoder (default: random weights)
        #[arg(long, value_name = "RUN")]
        pub from: Option<PathBuf>,
        /// Root of every random stream (default 0)
        #[arg(long, value_name = "N")]
        pub seed: Option<u64>,
        /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl (default: auto; of a run that goes on: its own)
        #[arg(long, value_name = "DEVICE")]
        pub device: Option<DeviceChoice>,
        /// Go on with the run in --run from its newest checkpoint, on its device, in its precision, with its number of threads; --device,
        /// --precision and --set of run.threads, run.workers, run.precision, run.kernels change that, and then results may differ
        #[arg(long, requires = "run")]
        pub resume: bool,
        #[command(flatten)]
        pub progress: ProgressArgs,
    }

    impl PredictionArgs {
        /// Refuses arguments that would have no effect.
        pub fn refuse(&self, strategy: Strategy) -> Result<()> {
            let typed = [
                ("--run", self.run.is_some()),
                ("--from", self.from.is_some()),
                ("--seed", self.seed.is_some()),
                ("--device", self.device.is_some()),
                ("--no-tui", self.progress.no_tui),
            ];
            match typed.iter().find(|(_, typed)| *typed) {
                Some((flag, _)) => usage!("{flag} is for strategies that train; labels.strategy = \"{}\" does not", strategy.name()),
                None => Ok(()),
            }
        }
    }

    impl LabelsArgs {
        /// Trains, predicts, and tells of the candidate sets.
        pub(super) fn predict(self) -> Result<()> {
            let Self { pack: path, out, settings, prediction: p } = self;
            let training = TrainingArgs {
                out: p.run,
                data: Some(path.display().to_string()),
                settings,
                seed: p.seed,
                device: p.device,
                resume: p.resume,
                progress: p.progress,
            };
            let request = Request {
                command: "labels",
                stages: Stages { labels: true, ..Stages::default() },
                preset: None,
                generator: GeneratorConfig::default(),
                from: p.from,
                labels: None,
            };
            let ran = training.run(request)?;
            let results = match ran.end {
                JobEnd::Done(results) => results,
                JobEnd::Interrupted => {
                    return print(|w| {
                        let out = out.map_or(String::new(), |out| format!(" --out {}", out.display()));
                        let (path, run) = (path.display(), ran.folder.path().display());
                        Ok(writeln!(w, "stopped; go on with: moue labels {path} --resume --run {run}{out}")?)
                    });
                }
            };
            let candidates = results.candidates.context("cross-fitting ends with candidate sets")?;
            if let Some(out) = &out {
                candidates.write_csv(out, &ran.pack)?;
            }
            print(|w| {
                writeln!(w)?;
                describe(w, &candidates, &ran.pack, ran.resolved.settings())?;
                let file = out.unwrap_or_else(|| ran.folder.candidates());
                writeln!(w, "written: {}", file.display())?;
                Ok(writeln!(w, "run: {}", ran.folder.path().display())?)
            })
        }
    }
}
