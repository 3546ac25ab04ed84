//! `moue devices`: what this machine can train on, and what `--device auto` makes of it. Prints only; choosing is the engine's.

use anyhow::Result;
use clap::Args;

/// List what can be trained on, and what `--device auto` takes
///
/// DEVICE is what `--device` takes; of several adapters under Metal, Dx12 or OpenGL the word alone means the best one. COMPILER is the
/// language that burn's kernels are compiled to: SPIR-V and MSL are faster than WGSL, where the driver is up to them. MATRICES are the
/// shapes of cooperative matrices (tensor cores). LARGEST BUFFER is what one kernel may read as one piece.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  moue devices\n  moue devices --json\n\nThe Vulkan loader complains about an unset XDG_RUNTIME_DIR on the error output; \
set it to any folder of yours to have quiet."
)]
pub struct DevicesArgs {
    /// As JSON, with everything that is known about each adapter
    #[arg(long)]
    json: bool,
}

impl DevicesArgs {
    #[cfg(feature = "train")]
    pub fn run(self) -> Result<()> {
        listing::run(self.json)
    }

    /// The small build reads runs and nothing else.
    #[cfg(not(feature = "train"))]
    pub fn run(self) -> Result<()> {
        crate::usage!("this build has no device support: it was made without the feature `train`");
    }
}

#[cfg(feature = "train")]
mod listing {
    use crate::cli::output::print;
    use crate::engine::adapters::{AdapterInfo, CpuInfo, adapters, cpu};
    use crate::engine::device::decide;
    use crate::run::progress::plain;
    use anyhow::Result;
    use serde_json::json;

    const HEADER: [&str; 9] = ["DEVICE", "KIND", "NAME", "DRIVER", "COMPILER", "F16", "MATRICES", "LARGEST BUFFER", "MEMORY"];

    pub fn run(json: bool) -> Result<()> {
        let (adapters, cpu) = (adapters(), cpu());
        let (picked, why) = decide(&adapters);
        let auto = picked.map_or("cpu".into(), |i| adapters[i].place());
        if json {
            let all = json!({"adapters": adapters, "cpu": cpu, "auto": {"device": auto, "why": why}});
            return print(|w| Ok(writeln!(w, "{}", serde_json::to_string_pretty(&all)?)?));
        }
        let mut rows = vec![HEADER.map(String::from)];
        rows.extend(adapters.iter().map(adapter_row));
        rows.push(cpu_row(&cpu));
        let widths: Vec<usize> = (0..HEADER.len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        print(|w| {
            for row in &rows {
                let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
                writeln!(w, "{}", cells.join("  ").trim_end())?;
            }
            writeln!(w)?;
            for (place, reason) in adapters.iter().filter_map(|a| Some((a.place(), a.refused.as_ref()?))) {
                writeln!(w, "{place} is not usable: {}", plain(reason))?;
            }
            Ok(writeln!(w, "--device auto takes {auto}: {}", plain(&why))?)
        })
    }

    fn adapter_row(a: &AdapterInfo) -> [String; 9] {
        let driver = [a.driver.as_str(), a.driver_version.as_str()].join(" ");
        [
            a.place(),
            a.kind.to_string(),
            plain(&a.name),
            plain(driver.trim()),
            a.compiler.to_string(),
            if a.f16 { "yes" } else { "no" }.into(),
            shapes(&a.matrices),
            bytes(a.largest_buffer.min(a.largest_storage_binding)),
            a.memory.map_or("-".into(), bytes),
        ]
    }

    fn cpu_row(cpu: &CpuInfo) -> [String; 9] {
        let dash = || "-".to_string();
        let name = format!("{}, {} threads", plain(&cpu.name), cpu.cores);
        ["cpu".into(), "cpu".into(), name, "flex (part of moue)".into(), dash(), dash(), dash(), dash(), cpu.memory.map_or(dash(), bytes)]
    }

    /// The shapes alone: with the element types they would fill the screen.
    fn shapes(matrices: &[String]) -> String {
        let mut shapes: Vec<&str> = matrices.iter().filter_map(|m| m.split(' ').next()).collect();
        shapes.sort_unstable();
        shapes.dedup();
        match shapes.as_slice() {
            [] => "-".into(),
            [first] => first.to_string(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        }
    }

    fn bytes(n: u64) -> String {
        const UNITS: [(u64, &str); 3] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")];
        // Drivers state "no limit of ours" as some enormous number.
        if n >= 1 << 45 {
            return "no limit".into();
        }
        match UNITS.iter().find(|(unit, _)| n >= *unit) {
            Some((unit, name)) => format!("{:.1} {name}", n as f64 / *unit as f64),
            None => format!("{n} B"),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn cells_are_short() {
            assert_eq!(bytes(128 << 20), "128.0 MiB");
            assert_eq!(bytes(24 << 30), "24.0 GiB");
            assert_eq!(bytes(u64::MAX), "no limit");
            let matrices = ["16x16x16 f16 x f16 -> f16", "16x16x16 f16 x f16 -> f32", "16x8x16 f16 x f16 -> f32"].map(String::from);
            assert_eq!(shapes(&matrices), "16x16x16 and 1 more");
            assert_eq!(shapes(&[]), "-");
        }
    }
}
