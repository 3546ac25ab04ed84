//! Whether what a run leaves behind has room where it would go.

use super::machine::Estimates;
use super::{Case, Row};
use crate::pipeline::footprint::bytes;
use crate::pipeline::{Regime, Training};
use crate::run::checkpoint::KEEP;
use std::path::{Path, PathBuf};

/// A checkpoint holds each weight and AdamW's two moments of it in single precision.
const CHECKPOINT: f64 = 3.0 * 4.0;
/// A history's bytes for a face and an epoch at the most, where each face is seen once an epoch (see [`crate::run::history`]).
const HISTORY: f64 = 24.0;
/// Events, tables, pictures of what pretraining predicts.
const REST: f64 = 50e6;

/// Free space against checkpoints and histories.
pub fn row(case: &Case, estimates: &Estimates) -> Row {
    let parameters: Vec<Option<usize>> =
        case.trainings().into_iter().map(|training| Some(estimates.footprint(training)?.parameters)).collect();
    let Some(parameters) = parameters.into_iter().collect::<Option<Vec<usize>>>() else {
        return Row::ok("disk", "no estimate: the size of the network is not known");
    };
    let decided: f64 = (case.trainings().into_iter())
        .filter(|training| matches!(training, Training::Finetune(objective) if objective.is_partial()))
        .map(|training| (Regime::of(training, &case.settings).epochs * case.train_faces()) as f64)
        .sum();
    let place = existing(&case.runs);
    let for_good = |training| Regime::of(training, &case.settings).epochs.checked_div(case.settings.run.keep_every).unwrap_or(0);
    let trainings: Vec<_> = parameters.into_iter().zip(case.trainings().into_iter().map(for_good)).collect();
    judged(most(&trainings) + HISTORY * decided + REST, &place, free(&place))
}

/// Bytes of checkpoints at the fullest moment of a run: the last and the best of each training that is done; the newest and the best of the
/// one that runs, while another is written; and those that are kept for good. Of each training: its parameters, and how many of those.
fn most(trainings: &[(usize, usize)]) -> f64 {
    let size = |(parameters, for_good): (usize, usize), others: usize| CHECKPOINT * parameters as f64 * (for_good + others) as f64;
    let done = |before: &[(usize, usize)]| before.iter().map(|&training| size(training, 2)).sum::<f64>();
    (0..trainings.len()).map(|i| done(&trainings[..i]) + size(trainings[i], KEEP + 2)).fold(0.0, f64::max)
}

fn judged(needed: f64, place: &Path, free: Option<f64>) -> Row {
    let name = "disk";
    let Some(free) = free else { return Row::ok(name, format!("a run takes {}; the system does not tell what is free", bytes(needed))) };
    let found = format!("a run takes {}, {} are free in {}", bytes(needed), bytes(free), place.display());
    match free / needed {
        share if share < 1.0 => Row::stop(name, found, "make room, or run from a folder on another disk (or name one with --out)"),
        share if share < 2.0 => Row::warning(name, found, "that is enough for one run"),
        _ => Row::ok(name, found),
    }
}

/// The path, or the nearest folder above it that is there.
fn existing(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    path.ancestors().find(|folder| folder.is_dir()).unwrap_or(&path).to_path_buf()
}

/// Bytes that a user may still write; none where the system does not tell.
#[cfg(unix)]
fn free(place: &Path) -> Option<f64> {
    let stat = rustix::fs::statvfs(place).ok()?;
    Some(stat.f_bavail as f64 * stat.f_frsize as f64)
}

#[cfg(not(unix))]
fn free(_place: &Path) -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_fullest_moment_counts() {
        // While the second is trained: two checkpoints of the first, five of the second; and seven that are kept for good.
        assert_eq!(most(&[(100, 0), (100, 7), (10, 0)]), 12.0 * (200.0 + 500.0 + 700.0));
        assert_eq!(most(&[]), 0.0);
    }

    #[test]
    fn a_full_disk_is_a_stop_and_an_unknown_one_is_told() {
        let row = |free| judged(10e9, Path::new("/runs"), free);
        assert_eq!(
            [Some(9e9), Some(15e9), Some(25e9), None].map(|free| row(free).verdict),
            [Verdict::Stop, Verdict::Warning, Verdict::Ok, Verdict::Ok]
        );
        assert!(row(None).found.contains("does not tell"));
    }

    #[test]
    fn a_folder_that_is_still_to_be_made_lies_on_the_disk_of_its_parent() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(existing(&root.path().join("runs/of/mine")), root.path());
        #[cfg(unix)]
        assert!(free(root.path()).is_some_and(|bytes| bytes > 0.0));
    }
}
