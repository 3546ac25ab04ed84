//! A configuration against a machine and its data, before the first step.
//!
//! ```text
//! Case (settings, opened device, pack) -> machine: device, driver, limits, half precision, memory
//!                                      -> speed:   a few real steps of each training -> time
//!                                      -> disk:    checkpoints and histories against free space
//!                                      -> data:    hash, leaks, class balance, labels
//!                                      -> rows -> suggest: what would fit instead
//! ```
//! Every check ends in one [`Row`]: a verdict, what was found, and what to do about it. Nothing is changed, and nothing is allocated that the
//! estimates say has no room.

mod data;
mod disk;
mod machine;
mod speed;
mod suggest;

use crate::config::{Backbone, Settings};
use crate::dataset::generated;
use crate::dataset::{Class, Pack, Split};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::pipeline::{Machine, Stages, Training};
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

pub use suggest::{Candidate, Suggestion, suggest};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It can be started; one should know.
    Warning,
    /// Not to be started like this.
    Stop,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Stop => "stop",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: String,
    pub verdict: Verdict,
    pub found: String,
    /// What to do; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Row {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Warning, found: found.into(), advice: advice.into() }
    }

    fn stop(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Stop, found: found.into(), advice: advice.into() }
    }
}

/// What is examined.
pub struct Case {
    pub settings: Settings,
    pub open: OpenDevice,
    pub pack: Option<Arc<Pack>>,
    /// Training faces that the time is counted for where there is no pack.
    pub faces: usize,
    /// Where run folders would go; it need not exist.
    pub runs: PathBuf,
}

/// All that was found.
pub struct Report {
    pub rows: Vec<Row>,
    /// Of all trainings; none where they could not be measured.
    pub seconds: Option<f64>,
    /// Whether another configuration might mend a stop: those of the data stay.
    pub machine_stops: bool,
}

impl Report {
    /// The worst of all rows.
    pub fn verdict(&self) -> Verdict {
        self.rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Ok)
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }
}

impl Case {
    /// All that the settings train, one after another.
    fn trainings(&self) -> Vec<Training> {
        let s = &self.settings;
        let predicts = s.finetune.objective.is_partial() && s.labels.strategy.predicts();
        Stages { pretrain: s.encoder.backbone == Backbone::Vit, labels: predicts, finetune: true }.trainings(s)
    }

    /// What trainings would compute in; where the settings ask for what the device lacks, what it has.
    fn precision(&self) -> Precision {
        Precision::of(self.settings.run.precision, &self.open).unwrap_or_default()
    }

    fn machine(&self) -> Machine {
        Machine::of(&self.settings, &self.open, self.precision())
    }

    fn classes(&self) -> usize {
        self.pack.as_ref().map_or_else(|| generated::protocol().classes.len(), |pack| pack.protocol().classes.len())
    }

    /// Training faces of the pack, or as many as were named.
    fn train_faces(&self) -> usize {
        self.pack.as_ref().map_or(self.faces, |pack| pack.split(Split::Train).len())
    }
}

/// Makes all checks, telling each row as it is done.
///
/// # Errors
/// What keeps a check from being made at all, such as a full temporary folder; what a check finds is a row.
pub fn examine(case: &Case, mut tell: impl FnMut(&Row)) -> Result<Report> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |row: Row| {
        tell(&row);
        rows.push(row);
    };
    machine::rows(case).into_iter().for_each(&mut add);
    let estimates = machine::Estimates::of(case);
    estimates.rows(case).into_iter().for_each(&mut add);
    let times = speed::measure(case, &estimates, f64::INFINITY, &mut add)?;
    let time = times.row();
    add(time);
    add(disk::row(case, &estimates));
    let machine_stops = rows.iter().any(|row| row.verdict == Verdict::Stop);
    let mut add = |row: Row| {
        tell(&row);
        rows.push(row);
    };
    data::rows(case, &mut add);
    Ok(Report { rows, seconds: times.total(), machine_stops })
}

/// A duration as a person says it.
pub fn duration(seconds: f64) -> String {
    const UNITS: [(f64, &str); 3] = [(86_400.0, "days"), (3600.0, "h"), (60.0, "min")];
    match UNITS.iter().find(|(unit, _)| seconds >= 2.0 * unit) {
        Some((unit, name)) => {
            let value = seconds / unit;
            if value < 10.0 { format!("{value:.1} {name}") } else { format!("{value:.0} {name}") }
        }
        None => format!("{seconds:.0} s"),
    }
}

/// Class names of indices, for sentences.
fn names(pack: &Pack, classes: impl Iterator<Item = usize>) -> String {
    let all = &pack.protocol().classes;
    classes.map(|c| all[usize::from(c as Class)].as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_is_the_verdict() {
        let rows = vec![Row::ok("a", "fine"), Row::stop("b", "no", "less"), Row::warning("c", "hm", "look")];
        let report = Report { rows, seconds: None, machine_stops: true };
        assert_eq!(report.verdict(), Verdict::Stop);
        assert_eq!([Verdict::Ok, Verdict::Warning, Verdict::Stop].map(|v| report.count(v)), [1; 3]);
        assert_eq!(Report { rows: Vec::new(), seconds: None, machine_stops: false }.verdict(), Verdict::Ok);
    }

    #[test]
    fn durations_are_in_the_unit_one_would_say() {
        let said = [0.4, 119.0, 120.0, 5400.0, 90_000.0, 200_000.0, 8.64e6].map(duration);
        assert_eq!(said, ["0 s", "119 s", "2.0 min", "90 min", "25 h", "2.3 days", "100 days"]);
    }
}
