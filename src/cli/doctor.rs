//! `moue doctor`: this configuration against this machine, before step 0. Owns the arguments and the table; checks are made in
//! [`crate::doctor`].

use super::output::print;
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, is_overlay, preset_names};
use crate::dataset::Pack;
use crate::dataset::generated::GeneratorConfig;
use crate::doctor::{Candidate, Case, Report, Row, Suggestion, Verdict, duration, examine, suggest};
use crate::engine::device;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Check a configuration against this machine and its data, before anything is trained
///
/// Device, driver, limits, memory, disk, and the time that all trainings would take, from a few of their real steps on generated faces; with
/// --data also the pack: hash, leaks between splits, class balance, labels. Each row is ok, a warning, or a stop with what to do about it.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  moue doctor
  moue doctor ferplus-cpu --data fp.moue
  moue doctor paper-rafdb,vit-small --device gpu --json

Exit status 1: a row says stop.")]
pub struct DoctorArgs {
    /// Presets of settings, the later over the earlier, as after --preset (default: demo)
    #[arg(value_name = "PRESET", value_delimiter = ',')]
    presets: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Pack that would be trained on
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// Training faces to count the time for, without --data (default: as many as `moue demo` or `--data demo` has)
    #[arg(long, value_name = "N", conflicts_with = "data", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    faces: Option<u64>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Preset where none is named that describes a whole run.
const FALLBACK: &str = "demo";
/// Columns of the table: names, verdicts, and all.
const NAME: usize = 22;
const VERDICT: usize = 9;
const WIDTH: usize = 110;

impl DoctorArgs {
    pub fn run(mut self) -> Result<()> {
        self.settings.preset.splice(0..0, std::mem::take(&mut self.presets));
        let resolved = self.settings.resolve(Some(FALLBACK))?;
        let pack = self.data.as_deref().map(Pack::open).transpose()?.map(Arc::new);
        let demo = self.settings.preset.iter().all(|name| is_overlay(name));
        let generated = if demo { GeneratorConfig::demo() } else { GeneratorConfig::default() };
        let case = Case {
            settings: resolved.settings().clone(),
            open: device::open_for(self.device, resolved.settings().run.kernels)?,
            pack,
            faces: self.faces.map_or(generated.train, |n| n as usize),
            runs: PathBuf::from("runs"),
        };
        let mut told = Ok(());
        let report = examine(&case, |row| {
            if told.is_ok() && !self.json {
                told = print(|w| Ok(write!(w, "{}", lines(row))?));
            }
        })?;
        told?;
        let suggestion = if report.machine_stops { suggest(&case, &report, self.candidates())? } else { None };
        if self.json {
            let value = json!({
                "rows": report.rows,
                "verdict": report.verdict(),
                "seconds": report.seconds,
                "suggestion": suggestion.as_ref().map(|s| json!({"command": self.command(s), "seconds": s.seconds})),
            });
            print(|w| Ok(writeln!(w, "{value}")?))?;
        } else {
            print(|w| Ok(writeln!(w, "\n{}", self.verdict(&report, suggestion.as_ref()))?))?;
        }
        match report.count(Verdict::Stop) {
            0 => Ok(()),
            1 => bail!("one check says stop"),
            stops => bail!("{stops} checks say stop"),
        }
    }

    /// Everything smaller that could be meant: what was typed with each overlay on top, and every preset of a whole run.
    fn candidates(&self) -> Vec<Candidate> {
        let typed = |presets: Vec<String>| SettingsArgs { preset: presets, ..self.settings.clone() };
        let mut all = Vec::new();
        for name in preset_names() {
            let args = match is_overlay(name) {
                true => {
                    let own = if self.settings.preset.iter().all(|p| is_overlay(p)) { vec![FALLBACK.to_string()] } else { Vec::new() };
                    typed(own.into_iter().chain(self.settings.preset.iter().cloned()).chain([name.to_string()]).collect())
                }
                false => SettingsArgs { preset: vec![name.to_string()], ..SettingsArgs::default() },
            };
            // Overlays that do not go with what was typed are none.
            let Ok(resolved) = args.resolve(None) else { continue };
            let rest = SettingsArgs { preset: Vec::new(), ..args.clone() }.words();
            all.push(Candidate { words: format!("{}{rest}", args.preset.join(",")), settings: resolved.settings().clone() });
        }
        all
    }

    /// The suggestion as it is typed.
    fn command(&self, suggestion: &Suggestion) -> String {
        let data = self.data.iter().map(|pack| format!(" --data {}", pack.display()));
        let faces = self.faces.iter().map(|n| format!(" --faces {n}"));
        let device = (self.device != DeviceChoice::Auto).then(|| format!(" --device {}", self.device));
        let rest: String = data.chain(faces).chain(device).collect();
        format!("moue doctor {}{rest}", suggestion.words)
    }

    /// The last lines.
    fn verdict(&self, report: &Report, suggestion: Option<&Suggestion>) -> String {
        let [ok, warnings, stops] = [Verdict::Ok, Verdict::Warning, Verdict::Stop].map(|v| report.count(v));
        match (warnings, stops) {
            (0, 0) => format!("all {ok} checks are ok: it can be started"),
            (_, 0) => format!("{ok} checks are ok, {warnings} to be aware of: it can be started"),
            _ => {
                let text = format!("stop: {stops} of {} checks say that this is not to be started here like this", report.rows.len());
                match (suggestion, report.machine_stops) {
                    (Some(s), _) => format!("{text}\ntry: {}  (about {})", self.command(s), duration(s.seconds)),
                    (None, true) => format!("{text}; no smaller preset fits either"),
                    (None, false) => text,
                }
            }
        }
    }
}

/// A row of the table, wrapped; what to do stands under what was found.
fn lines(row: &Row) -> String {
    let mut text = format!("{:<NAME$}{:<VERDICT$}", row.name, row.verdict.name());
    let indent = " ".repeat(NAME + VERDICT);
    let advice = if row.advice.is_empty() { String::new() } else { format!("-> {}", row.advice) };
    let parts = [row.found.as_str(), advice.as_str()];
    let wrapped: Vec<String> = parts.iter().filter(|part| !part.is_empty()).flat_map(|part| wrap(part, WIDTH - NAME - VERDICT)).collect();
    text += &wrapped.join(&format!("\n{indent}"));
    text.trim_end().to_string() + "\n"
}

/// Lines of at most `width` characters, broken between words; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable words", 5), ["unbreakable", "words"]);
        let row = Row { name: "time".into(), verdict: Verdict::Stop, found: "ten words ".repeat(20), advice: "wait".into() };
        let text = lines(&row);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH) && text.lines().count() == 4, "{text}");
        assert!(text.starts_with("time                  stop     ten words") && text.trim_end().ends_with("-> wait"), "{text}");
    }
}
