//! `moue selftest`: does this device compute what it should?

use super::output::print;
use crate::config::{DeviceChoice, Kernels};
use crate::engine::adapters::LANGUAGES;
use crate::engine::device;
use crate::selftest::{Finding, Row, run};
use crate::usage;
use anyhow::{Result, bail};
use clap::Args;

/// Check that this device computes what it should: every kernel, every gradient, one training step of each kind
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue selftest --device vulkan\n\nPaste the table into a bug report. Exit status 1: a row failed.")]
pub struct SelftestArgs {
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Only the checks whose names contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Have burn's kernels compiled to spirv, msl or wgsl although moue would choose another language for this device (Vulkan, Metal)
    #[arg(long, value_name = "LANGUAGE", value_parser = LANGUAGES)]
    compiler: Option<String>,
}

impl SelftestArgs {
    pub fn run(self) -> Result<()> {
        let open = match &self.compiler {
            Some(language) => device::open_in(self.device, language, Kernels::Auto)?,
            None => device::open(self.device)?,
        };
        let text = |key: &str| open.description.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_string();
        print(|w| {
            writeln!(w, "moue {} on {}", env!("CARGO_PKG_VERSION"), open.name)?;
            let facts = ["api", "backend", "driver", "driver_version"].map(text);
            Ok(writeln!(w, "{}\n", facts.iter().filter(|f| !f.is_empty()).cloned().collect::<Vec<_>>().join(", "))?)
        })?;
        print(|w| Ok(writeln!(w, "{:<52} {:>10} {:>10} {:>9}", "check", "error", "bound", "GB/s")?))?;
        let mut told = Ok(());
        let rows = run(&open.device, &self.only, |row| {
            if told.is_ok() {
                told = tell(row);
            }
        });
        told?;
        if rows.is_empty() {
            usage!("--only {}: no check has this in its name", self.only);
        }
        let failed = rows.iter().filter(|row| !row.passed()).count();
        if failed > 0 {
            bail!("{failed} of {} checks failed on {}: results computed there cannot be trusted", rows.len(), open.name);
        }
        print(|w| Ok(writeln!(w, "\nall {} checks passed", rows.len())?))
    }
}

fn tell(row: &Row) -> Result<()> {
    print(|w| {
        let verdict = if row.passed() { "ok" } else { "FAILED" };
        match &row.result {
            Ok(Finding { lacks: Some(lacks), .. }) => writeln!(w, "{:<52} nothing to check: no {lacks}", row.check)?,
            Ok(found) => {
                let rate = found.bytes_per_second.map_or("-".into(), |r| format!("{:.2}", r / 1e9));
                writeln!(w, "{:<52} {:>10} {:>10} {rate:>9}  {verdict}", row.check, short(found.error), short(found.bound))?;
            }
            Err(e) => writeln!(w, "{:<52} {verdict}: {}", row.check, crate::failure::one_line(e))?,
        }
        Ok(())
    })
}

/// Few characters for numbers of any size.
fn short(value: f64) -> String {
    if value == 0.0 || (0.01..1e4).contains(&value) { format!("{value}").chars().take(6).collect() } else { format!("{value:.1e}") }
}
