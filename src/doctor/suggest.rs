//! What would fit instead: other configurations through the same checks, the largest first.

use super::machine::{self, Estimates};
use super::{Case, Report, Row, Verdict, data, disk, speed};
use crate::config::Settings;
use crate::pipeline::footprint::least;
use anyhow::Result;

/// A smaller network keeps the machine less busy than a larger one, so what is expected of it by its work alone is too good by up to this.
const DOUBT: f64 = 4.0;

/// Another configuration, and the words that ask for it.
pub struct Candidate {
    pub words: String,
    pub settings: Settings,
}

/// A configuration that passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// What follows `moue doctor`.
    pub words: String,
    /// Of all its trainings on the same faces.
    pub seconds: f64,
}

/// The candidate with the most work, of less than the case's own, that no check stops and that takes less than [`speed::LONG`].
///
/// # Errors
/// As [`super::examine`].
pub fn suggest(case: &Case, report: &Report, candidates: Vec<Candidate>) -> Result<Option<Suggestion>> {
    let own = work(&case.settings);
    let mut smaller: Vec<Candidate> = (candidates.into_iter())
        .filter(|c| c.settings.encoder.backbone == case.settings.encoder.backbone && work(&c.settings) < own)
        .collect();
    smaller.sort_by(|a, b| work(&b.settings).total_cmp(&work(&a.settings)));
    // Seconds for a unit of work, from what was measured last.
    let mut pace = report.seconds.map(|seconds| seconds / own);
    for candidate in smaller {
        let work = work(&candidate.settings);
        if pace.is_some_and(|pace| pace * work > DOUBT * speed::LONG) {
            continue;
        }
        let words = candidate.words.clone();
        match tried(case, candidate)? {
            Tried::Passes { batch_auto, seconds } => {
                let words = if batch_auto { format!("{words} --batch auto") } else { words };
                return Ok(Some(Suggestion { words, seconds }));
            }
            Tried::TakesAtLeast(seconds) => pace = Some(seconds / work),
            Tried::Fails => {}
        }
    }
    Ok(None)
}

/// Multiplications of a run for each of its faces, but for a factor that all have in common: weights, times patches, times epochs.
fn work(s: &Settings) -> f64 {
    least(s) * s.grid().pow(2) as f64 * (s.pretrain.epochs + s.finetune.epochs) as f64
}

/// What became of a candidate.
enum Tried {
    Passes { batch_auto: bool, seconds: f64 },
    TakesAtLeast(f64),
    Fails,
}

/// The checks on a candidate; in parts where it does not fit as a whole.
fn tried(case: &Case, Candidate { settings, .. }: Candidate) -> Result<Tried> {
    let mut other = Case { settings, open: case.open.clone(), pack: case.pack.clone(), faces: case.faces, runs: case.runs.clone() };
    let mut estimates = Estimates::of(&other);
    let batch_auto = worst(&estimates.rows(&other)) > Verdict::Ok;
    if batch_auto {
        (other.settings.pretrain.accumulate, other.settings.finetune.accumulate) = (0, 0);
        estimates = Estimates::of(&other);
    }
    let mut rows = machine::rows(&other);
    rows.extend(estimates.rows(&other));
    rows.push(disk::row(&other, &estimates));
    rows.extend(other.pack.as_ref().map(|pack| data::candidates(pack, &other.settings)));
    if worst(&rows) == Verdict::Stop {
        return Ok(Tried::Fails);
    }
    let mut failed = false;
    let times = speed::measure(&other, &estimates, speed::LONG, |row| failed |= row.verdict == Verdict::Stop)?;
    Ok(match times.total() {
        Some(seconds) if !failed && seconds <= speed::LONG => Tried::Passes { batch_auto, seconds },
        Some(seconds) if !failed => Tried::TakesAtLeast(seconds),
        _ => Tried::Fails,
    })
}

fn worst(rows: &[Row]) -> Verdict {
    rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Resolved;

    /// In the order in which a person would expect them to take time.
    #[test]
    fn work_grows_with_network_input_and_epochs() {
        let of =
            |presets: &[&str]| work(presets.iter().try_fold(Resolved::default(), |r, preset| r.with_preset(preset)).unwrap().settings());
        let falling = [
            of(&["paper-rafdb"]),
            of(&["paper-rafdb", "vit-small"]),
            of(&["paper-rafdb", "vit-tiny"]),
            of(&["ferplus-cpu"]),
            of(&["demo-quick"]),
        ];
        assert!(falling.is_sorted_by(|a, b| a > b), "{falling:?}");
    }
}
