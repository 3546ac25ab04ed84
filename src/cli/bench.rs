//! `moue bench`: how fast training is here, beside PyTorch. Owns the arguments and the tables.

use super::output::{check_output, print};
use super::settings::SettingsArgs;
use crate::bench::profile::{Profile, Shares};
use crate::bench::{Bench, Effort, Measured, Part, Row, ours};
use crate::config::DeviceChoice;
use crate::run::write_atomic;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// How fast training is here, beside a PyTorch twin: the same network, batch, precision and threads
///
/// Both sides are processes of their own that work in turns on generated faces, `--rounds` times `--seconds` each. Faces per second are
/// medians over the rounds; a ratio above 1 says that moue is faster, in brackets the rounds' smallest and largest.
#[derive(Args, Debug)]
#[command(after_help = "\
Rows:
  pretrain   a step of pretrain.method; batches are ready in memory
  finetune   a step of finetune.objective, confidences revised; batches are ready in memory
  predict    logits of run.evaluate_batch faces
  loader     finetuning batches, augmented on all threads, nobody training
  hog        pretraining targets of pixels on the device

PyTorch: `python3` with torch (torchvision for the loader), on the CPU or on CUDA; without it only moue is measured, and the reason is said.

Example:
  moue bench
  moue bench --rows pretrain,finetune --profile --set pretrain.batch=64
  moue bench --preset paper-ferplus --device gpu --json speed.json")]
pub struct BenchArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// What to measure, of pretrain, finetune, predict, loader, hog (default: all)
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    rows: Vec<String>,
    /// Turns of each side
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a turn
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Threads of either side (default: run.threads, or one for each core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Write everything that was measured, with device, versions and limits
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure moue alone
    #[arg(long)]
    no_peer: bool,
    /// Also say where the time of a training step goes
    #[arg(long)]
    profile: bool,
    /// Take part in a bench: requests on the standard input, answers on the standard output
    #[arg(long, hide = true)]
    serve: bool,
}

impl BenchArgs {
    pub fn run(self) -> Result<()> {
        if self.serve {
            return ours::serve(std::io::stdin().lock(), std::io::stdout());
        }
        let mut rows = self.rows.iter().map(|word| Row::parse(word)).collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            rows = Row::ALL.to_vec();
        }
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            usage!("--seconds {}: a turn takes more than 0 and at most 3600 seconds", self.seconds);
        }
        if let Some(path) = &self.json {
            check_output(path)?;
        }
        let resolved = self.settings.resolve(Some("ferplus-cpu"))?;
        let settings = resolved.settings();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let chosen = self.threads.map_or(settings.run.threads, |n| n as usize);
        let threads = if chosen == 0 { cores } else { chosen };
        let effort = Effort { rounds: self.rounds as usize, seconds: self.seconds };
        let bench = Bench::start(settings, &rows, self.device.to_string(), threads, effort, !self.no_peer)?;
        let mut measured: Vec<Measured> = Vec::new();
        for &row in &rows {
            let next = bench.measure(row, Part::Whole)?;
            print(|w| {
                if measured.is_empty() {
                    writeln!(w, "{}", heading(&next, threads))?;
                }
                Ok(writeln!(w, "{}", line(&next))?)
            })?;
            measured.push(next);
        }
        if !self.no_peer {
            for row in &measured {
                if let Some(why) = &row.why {
                    print(|w| Ok(writeln!(w, "{}: no PyTorch ({why})", row.row.name())?))?;
                }
            }
        }
        let mut profiles = Vec::new();
        for &row in rows.iter().filter(|row| self.profile && matches!(row, Row::Pretrain | Row::Finetune)) {
            let profile = Profile::measure(&bench, row)?;
            print(|w| Ok(write!(w, "\n{}", table(&profile))?))?;
            profiles.push(profile);
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&bench.report(&measured, &profiles))?;
            write_atomic(path, |w| Ok(writeln!(w, "{text}")?))?;
        }
        Ok(())
    }
}

/// Who ran where, and the columns.
fn heading(first: &Measured, threads: usize) -> String {
    let ours = &first.ours.ready;
    let mut text = format!("moue {} on {}, {threads} threads", ours.version, ours.device);
    if let Some(peer) = &first.peer {
        text += &format!("\nPyTorch {} on {}, {} threads", peer.ready.version, peer.ready.device, peer.ready.threads);
    }
    let columns = format!(
        "{:<10} {:>6} {:>14} {:>14} {:>8} {:>15} {:>9} {:>9}",
        "", "batch", "moue faces/s", "PyTorch", "ratio", "(rounds)", "moue MB", "PyTorch"
    );
    format!("{text}\n\n{columns}")
}

fn line(row: &Measured) -> String {
    let megabytes = |bytes: Option<u64>| bytes.map_or("-".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
    let peer = row.peer.as_ref();
    let (ratio, spread) = match row.ratio {
        Some(ratio) => (format!("{:.2}", ratio.median), format!("({:.2} to {:.2})", ratio.min, ratio.max)),
        None => ("-".into(), String::new()),
    };
    format!(
        "{:<10} {:>6} {:>14.0} {:>14} {ratio:>8} {spread:>15} {:>9} {:>9}",
        row.row.name(),
        row.batch,
        row.ours.faces_per_second,
        peer.map_or("-".into(), |peer| format!("{:.0}", peer.faces_per_second)),
        megabytes(row.ours.peak_bytes),
        megabytes(peer.and_then(|peer| peer.peak_bytes)),
    )
}

/// A training step, taken apart.
fn table(profile: &Profile) -> String {
    let name = profile.row.name();
    let mut text =
        format!("{:<24} {:>10} {:>7} {:>12} {:>7}\n", format!("{name}, batch {}", profile.batch), "moue ms", "", "PyTorch ms", "");
    let lines = ["forward", "backward", "optimiser and the rest", "whole step", "loader alone"];
    for (i, what) in lines.into_iter().enumerate() {
        let cells = |s: &Shares| {
            let value = [s.forward, s.backward, s.rest, s.whole, s.loader][i];
            (format!("{value:.2}"), format!("{:.0} %", 100.0 * value / s.whole))
        };
        let (ms, share) = cells(&profile.ours);
        let (peer_ms, peer_share) = profile.peer.as_ref().map_or(("-".into(), String::new()), cells);
        text += format!("{what:<24} {ms:>10} {share:>7} {peer_ms:>12} {peer_share:>7}").trim_end();
        text.push('\n');
    }
    let Shares { loader, whole, .. } = profile.ours;
    text += &if profile.shares_cores {
        format!("the loader shares the cores: it takes {:.0} % of the time of training\n", 100.0 * loader / (loader + whole))
    } else if loader < whole {
        "the loader is hidden behind the step\n".to_string()
    } else {
        format!("the step waits for the loader, {:.1} times as long as itself\n", loader / whole)
    };
    text
}
