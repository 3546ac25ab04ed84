//! `moue labels`: candidate sets from votes.

use super::output::print;
use super::settings::SettingsArgs;
use crate::dataset::Pack;
use crate::labels::Candidates;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Make candidate sets from a pack's votes and write them as a csv
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  moue labels fp.moue --preset ferplus-cpu --out fp.labels.csv\n  moue labels fp.moue --set labels.k=3 --set labels.share=0.3"
)]
pub struct LabelsArgs {
    /// Pack with votes
    pack: PathBuf,
    /// Csv to write (default: print the counts only)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl LabelsArgs {
    pub fn run(self) -> Result<()> {
        let resolved = self.settings.resolve(None)?;
        let pack = Pack::open(&self.pack)?;
        let candidates = Candidates::build(&pack, &resolved.settings().labels)?;
        if let Some(out) = &self.out {
            candidates.write_csv(out, &pack)?;
        }
        let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        print(|w| {
            for (k, n) in candidates.sizes().iter().enumerate().filter(|(_, n)| **n > 0) {
                writeln!(w, "{n:>8} training faces with {k} candidate{}", if k == 1 { "" } else { "s" })?;
            }
            if candidates.left_out > 0 {
                writeln!(w, "{:>8} left out: no class passes the rule", candidates.left_out)?;
            }
            let total = candidates.sets.len();
            let ambiguous = candidates.sets.iter().filter(|(_, s)| s.is_ambiguous()).count();
            writeln!(w, "ambiguous: {:.1} %", share(ambiguous, total))?;
            if share(ambiguous, total) > 50.0 {
                writeln!(w, "warning: more than half of the faces are ambiguous; a larger labels.share or labels.min_votes makes fewer")?;
            }
            if let Some(c) = candidates.coverage(&pack) {
                writeln!(
                    w,
                    "truth among the candidates: {:.1} % of {} ambiguous, {:.1} % of {} clear faces",
                    share(c.ambiguous_covered, c.ambiguous),
                    c.ambiguous,
                    share(c.clear_covered, c.clear),
                    c.clear
                )?;
            }
            match &self.out {
                Some(out) => Ok(writeln!(w, "written: {}", out.display())?),
                None => Ok(()),
            }
        })
    }
}
