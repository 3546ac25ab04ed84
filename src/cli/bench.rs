//! `moue bench`: how fast training is here, beside PyTorch. Owns the arguments and the tables.

use super::output::{check_output, print};
use super::settings::SettingsArgs;
use crate::bench::profile::{Profile, Shares};
use crate::bench::sweep::{self, Axis, Base, Course};
use crate::bench::{Bench, Effort, Measured, Part, Rival, Row, ours};
use crate::config::DeviceChoice;
use crate::engine::adapters::LANGUAGES;
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

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
  moue bench --preset paper-ferplus --device gpu --json speed.json
  moue bench --rows pretrain,finetune --sweep vit.dim=48,96,192,384 --figures figs")]
pub struct BenchArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Have burn's kernels compiled to spirv, msl or wgsl although moue would choose another language for this device (Vulkan, Metal)
    #[arg(long, value_name = "LANGUAGE", value_parser = LANGUAGES)]
    compiler: Option<String>,
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
    /// Have PyTorch compile its network (torch.compile) instead of running it eagerly
    #[arg(long, conflicts_with = "no_peer")]
    compile: bool,
    /// Also say where the time of a training step goes
    #[arg(long)]
    profile: bool,
    /// Also say how long each of moue's shaders takes on a GPU, by its own clock
    #[arg(long)]
    shaders: bool,
    /// Instead of rows against PyTorch: moue's time and memory while one setting takes these values, with the exponent of a power law; may be
    /// repeated (`--sweep vit.dim=48,96,192 --sweep finetune.batch=64,128,256`)
    #[arg(long, value_name = "KEY=VALUES", conflicts_with_all = ["profile", "shaders", "compile", "compiler", "no_peer"])]
    sweep: Vec<Axis>,
    /// Draw the sweeps as SVG files into this folder
    #[arg(long, value_name = "DIR", requires = "sweep")]
    figures: Option<PathBuf>,
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
            rows = if self.sweep.is_empty() { Row::ALL.to_vec() } else { vec![Row::Finetune] };
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
        let effort = Effort { rounds: self.rounds as usize, seconds: self.seconds, shaders: self.shaders };
        let rival = match (self.no_peer, self.compile) {
            (true, _) => Rival::None,
            (false, false) => Rival::Eager,
            (false, true) => Rival::Compiled,
        };
        if !self.sweep.is_empty() {
            let base = Base { resolved: &resolved, device: self.device.to_string(), threads, effort };
            return self.sweep(&base, &rows);
        }
        let bench = Bench::start(settings, &rows, self.device.to_string(), threads, effort, rival)?.in_language(self.compiler.clone());
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
        for row in measured.iter().filter(|_| self.shaders) {
            print(|w| Ok(write!(w, "\n{}", shaders_table(row))?))?;
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

    fn sweep(&self, base: &Base, rows: &[Row]) -> Result<()> {
        if let Some(folder) = &self.figures {
            std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        }
        let mut courses: Vec<Course> = Vec::new();
        for axis in &self.sweep {
            for &row in rows {
                let course = Course::measure(base, axis, row)?;
                print(|w| {
                    if courses.is_empty() {
                        writeln!(w, "moue {} on {}, {} threads", course.ready.version, course.ready.device, base.threads)?;
                    }
                    Ok(write!(w, "\n{}", told(&course))?)
                })?;
                courses.push(course);
            }
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&sweep::report(base, &courses))?;
            write_atomic(path, |w| Ok(writeln!(w, "{text}")?))?;
        }
        for figure in self.figures.iter().flat_map(|_| sweep::figures(&courses)) {
            let path = self.figures.as_deref().unwrap_or(Path::new(".")).join(format!("{}.svg", figure.name));
            write_atomic(&path, |w| Ok(w.write_all(figure.standalone().as_bytes())?))?;
        }
        Ok(())
    }
}

/// A sweep's table and its exponents.
fn told(course: &Course) -> String {
    let mut text = format!(
        "{:<24} {:>10} {:>12} {:>11} {:>9}\n",
        format!("{}: {}", course.row.name(), course.key),
        course.counts,
        "parameters",
        "ms a step",
        "peak MB"
    );
    for point in &course.points {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        text += &format!(
            "{:<24} {:>10} {:>12} {:>11.1} {:>9}\n",
            point.value,
            point.size,
            or_dash(point.parameters.map(|n| n.to_string())),
            point.milliseconds,
            or_dash(point.peak_bytes.map(|b| format!("{:.0}", b as f64 / 1e6))),
        );
    }
    let power = |cost: &str, exponent: Option<f64>| exponent.map(|e| format!("{cost} ~ {}^{e:.2}", course.counts));
    let powers: Vec<String> =
        [power("time", course.time_exponent), power("memory", course.memory_exponent)].into_iter().flatten().collect();
    text + &powers.join(", ") + "\n"
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

/// Rows of the table of shaders; those with less time are added up.
const SHADERS: usize = 24;

/// Where the time of the device goes.
fn shaders_table(row: &Measured) -> String {
    let name = row.row.name();
    let Some(shaders) = &row.shaders else {
        return format!("{name}: no shaders on the clock of the device: it is none, or tells no time\n");
    };
    let mut text = format!("{:<64} {:>8} {:>9}\n", format!("{name}, batch {}: shaders, and their workgroups", row.batch), "launches", "ms");
    let mut line = |what: &str, launches: f64, milliseconds: f64| {
        let share = 100.0 * milliseconds / shaders.milliseconds;
        text += &format!("{what:<64} {launches:>8.0} {milliseconds:>9.2} {share:>5.1} %\n");
    };
    let (shown, rest) = shaders.totals.split_at(shaders.totals.len().min(SHADERS));
    for total in shown {
        line(&total.name, total.launches, total.milliseconds);
    }
    if !rest.is_empty() {
        let (launches, milliseconds) = rest.iter().fold((0.0, 0.0), |(n, ms), t| (n + t.launches, ms + t.milliseconds));
        line(&format!("{} others", rest.len()), launches, milliseconds);
    }
    line("between them: burn's operations, and waiting", 0.0, shaders.between());
    line("all of a step", 0.0, shaders.milliseconds);
    text
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

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser;
    use clap::error::ErrorKind;

    #[test]
    fn a_sweep_has_no_peer_and_no_profile() {
        let sweep = ["moue", "bench", "--sweep", "vit.dim=48,96"];
        let parse = |words: &[&str]| Cli::try_parse_from([&sweep[..], words].concat()).map(drop).map_err(|e| e.kind());
        assert_eq!(parse(&["--rounds", "2"]), Ok(()));
        for word in ["--profile", "--shaders", "--compile", "--no-peer"] {
            assert_eq!(parse(&[word]), Err(ErrorKind::ArgumentConflict), "{word}");
        }
    }
}
