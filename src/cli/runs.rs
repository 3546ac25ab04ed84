//! `moue runs`: what has been trained here, how it went, and its numbers as a table. Reads run folders only.

use super::output::print;
use crate::failure::one_line;
use crate::run::checkpoint::{self, State};
use crate::run::clock::hms;
use crate::run::fingerprint;
use crate::run::folder::{RunFolder, write_atomic};
use crate::run::manifest::Manifest;
use crate::run::metrics::Table;
use crate::run::progress::plain;
use crate::run::pulse::Pulse;
use crate::run::summary::{RunSummary, StageSummary};
use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};

/// List runs, show one, or export its numbers
///
/// A run may be named by its path, by its name, or by the beginning of a name that no other run shares (the column ID of the list).
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  moue runs\n  moue runs /data/runs\n  moue runs show finetune-2026-11-03-2\n  moue runs export pre --csv > metrics.csv"
)]
pub struct RunsArgs {
    /// The folder that holds the runs
    #[arg(default_value = "runs")]
    dir: PathBuf,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What a run was asked to do, and how each of its stages went
    Show {
        run: String,
        /// The folder that holds the runs
        #[arg(long, default_value = "runs")]
        dir: PathBuf,
        /// Also the settings that were left at their defaults
        #[arg(long)]
        all: bool,
    },
    /// The numbers of a run: one row per evaluation, per logged interval and per report on the labels
    Export {
        run: String,
        /// The folder that holds the runs
        #[arg(long, default_value = "runs")]
        dir: PathBuf,
        /// As comma-separated values
        #[arg(long, required = true)]
        csv: bool,
        /// Write to this file instead of the standard output
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

impl RunsArgs {
    pub fn run(self) -> Result<()> {
        match self.action {
            None => list(&self.dir),
            Some(Action::Show { run, dir, all }) => show(&RunFolder::find(&dir, &run)?, all),
            Some(Action::Export { run, dir, csv: _, out }) => {
                let table = Table::read(&RunFolder::find(&dir, &run)?)?;
                match out {
                    Some(path) => write_atomic(&path, |w| table.write_csv(w)),
                    None => print(|w| table.write_csv(w)),
                }
            }
        }
    }
}

const HEADER: [&str; 10] = ["ID", "NAME", "STATUS", "STAGE", "BEST VALID", "LAST VALID", "TEST", "RECOVERED", "TIME", "DEVICE"];

fn list(dir: &Path) -> Result<()> {
    let runs = RunFolder::list(dir)?;
    if runs.is_empty() {
        eprintln!("no runs in {}", dir.display());
        return Ok(());
    }
    let names: Vec<String> = runs.iter().map(RunFolder::name).collect();
    let mut rows = vec![HEADER.map(String::from)];
    for (run, name) in runs.iter().zip(&names) {
        rows.push(row(run, shortest_prefix(name, &names)));
    }
    let widths: Vec<usize> = (0..HEADER.len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    print(|w| {
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            writeln!(w, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    })
}

/// One damaged run must not hide the others: it is told on the error output and listed as such.
fn row(run: &RunFolder, id: &str) -> [String; 10] {
    let manifest = Manifest::read(run);
    let device = manifest.as_ref().ok().and_then(Manifest::device_name).map_or("-".into(), plain);
    let summary = match RunSummary::read(run) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("warning: {}", plain(&one_line(&error)));
            let mut row: [String; 10] = std::array::from_fn(|_| "-".to_string());
            (row[0], row[1], row[2], row[9]) = (plain(id), plain(&run.name()), "damaged".into(), device);
            return row;
        }
    };
    note_skipped(run, &summary);
    let stage = summary.stage();
    [
        plain(id),
        plain(&run.name()),
        Pulse::take(run, &summary).name().into(),
        stage.map_or("-".into(), |s| plain(&s.place())),
        percent(summary.latest(|s| s.best).map(|s| s.accuracy)),
        percent(summary.latest(|s| s.valid).map(|s| s.accuracy)),
        percent(summary.latest(|s| s.test).map(|s| s.accuracy)),
        percent(summary.latest(|s| s.labels).and_then(|l| l.recovered)),
        hms(summary.seconds),
        device,
    ]
}

fn note_skipped(run: &RunFolder, summary: &RunSummary) {
    if summary.skipped > 0 {
        eprintln!("note: {}: {} events of a newer moue are not shown", run.path().display(), summary.skipped);
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.2} %", share * 100.0))
}

/// The shortest beginning of `name` that no other name shares; all of it where another name goes on from it.
fn shortest_prefix<'a>(name: &'a str, names: &[String]) -> &'a str {
    let ends = name.char_indices().map(|(i, _)| i).skip(1).chain([name.len()]);
    let unique = |prefix: &str| names.iter().filter(|other| other.starts_with(prefix)).count() == 1;
    ends.map(|end| &name[..end]).find(|prefix| unique(prefix)).unwrap_or(name)
}

fn show(run: &RunFolder, all: bool) -> Result<()> {
    let summary = RunSummary::read(run)?;
    note_skipped(run, &summary);
    // A run that crashed very early may lack its manifest; what it says about itself is shown all the same.
    let manifest = if run.manifest().exists() { Some(Manifest::read(run)?) } else { None };
    let mut lines = vec![
        ("run", run.name()),
        ("folder", run.path().display().to_string()),
        ("status", Pulse::take(run, &summary).name().to_string()),
        ("time", hms(summary.seconds)),
    ];
    if !summary.message.is_empty() {
        lines.push(("message", summary.message.clone()));
    }
    if let Some(m) = &manifest {
        lines.push(("command", m.command.join(" ")));
        lines.push(("created", m.created.clone()));
        lines.push(("moue", m.moue.clone()));
        lines.push(("seed", m.seed.to_string()));
        lines.push(("device", m.device_name().unwrap_or("-").to_string()));
        lines.extend(m.changes.iter().map(|text| ("changed", format!("by a resume: {text}"))));
        if let Some(data) = &m.data {
            lines.push(("data", format!("{} ({})", data.pack, data.pack_hash)));
            lines.push(("protocol", format!("{} ({})", data.protocol, data.protocol_hash)));
            lines.push(("classes", data.classes.join(" ")));
            lines.push(("leaks", data.leaks_in_words()));
        }
    }
    print(|w| {
        for (name, value) in &lines {
            writeln!(w, "{name:<10} {}", plain(value))?;
        }
        if let Some(m) = &manifest {
            let (default, set): (Vec<_>, Vec<_>) = m.settings.iter().partition(|(_, setting)| setting.origin == "default" && !all);
            if !set.is_empty() || !default.is_empty() {
                writeln!(w, "\nsettings")?;
            }
            for (key, setting) in &set {
                writeln!(w, "  {}", plain(&format!("{key} = {}  ({})", setting.value, setting.origin)))?;
            }
            if !default.is_empty() {
                writeln!(w, "  {} at their defaults (--all shows them)", default.len())?;
            }
        }
        summary.stages.iter().try_for_each(|stage| show_stage(run, stage, w))
    })
}

fn show_stage(run: &RunFolder, s: &StageSummary, w: &mut dyn Write) -> Result<()> {
    let state = if s.finished { "finished" } else { "not finished" };
    writeln!(w, "\n{}  step {}/{}  epoch {:.1}/{}  {state}", plain(&s.place()), s.step, s.steps, s.epoch, s.epochs)?;
    if s.steps > 0 {
        writeln!(w, "  batch {}  faces {}", s.batch, s.faces)?;
    }
    if let Some(faces) = at_once(run, s) {
        writeln!(w, "  at once    {faces} faces: the device had no memory for more")?;
    }
    if let Some(loss) = s.loss {
        writeln!(w, "  loss {loss:.4}")?;
    }
    for (name, score) in [("best valid", s.best), ("last valid", s.valid), ("test", s.test)] {
        if let Some(score) = score {
            let (accuracy, recall) = (percent(Some(score.accuracy)), percent(Some(score.mean_recall)));
            writeln!(w, "  {name:<10} accuracy {accuracy}  mean recall {recall}  (epoch {:.1})", score.epoch)?;
        }
    }
    if let Some(labels) = s.labels {
        let share = percent(Some(labels.resolved_share()));
        writeln!(w, "  labels     {}/{} decided ({share})  recovered {}", labels.resolved, labels.ambiguous, percent(labels.recovered))?;
    }
    if let Some(path) = &s.checkpoint {
        writeln!(w, "  checkpoint {}", plain(path))?;
    }
    // For two people to see whether they have the same; of a network that is still trained it would be another in a moment.
    let hash = if s.finished { fingerprint::of_stage(run, &s.place()) } else { Ok(None) };
    match hash {
        Ok(Some(hash)) => writeln!(w, "  weights    {hash}")?,
        Ok(None) => {}
        Err(error) => eprintln!("warning: {}", plain(&one_line(&error))),
    }
    Ok(())
}

/// Faces at once, where the device had no memory for a whole batch, by the newest checkpoint that can be read.
fn at_once(run: &RunFolder, s: &StageSummary) -> Option<u64> {
    let newest = checkpoint::list(run, &s.place()).ok()?.into_iter().rev().find_map(|path| State::read(&path).ok())?;
    Some(s.batch.div_ceil(newest.parts?.max(1) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_as_short_as_they_can_be() {
        let names = ["demo-1", "demo-10", "demo-2", "évaluation"].map(String::from);
        let short: Vec<&str> = names.iter().map(|name| shortest_prefix(name, &names)).collect();
        assert_eq!(short, ["demo-1", "demo-10", "demo-2", "é"]);
    }
}
