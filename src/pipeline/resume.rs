//! Where a run that is taken up again goes on.
//!
//! Trainings are looked at in the order in which they are done. All that are finished stay so; the first that is not goes on from the newest
//! checkpoint that is whole and that the log knows. What lies behind that point is removed, from the log and from the disk: it is done
//! again, and comes out the same.

use super::Training;
use crate::run::checkpoint::{self, State};
use crate::run::{Body, EventReader, RunFolder};
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Removes what lies behind the point of resume and returns the checkpoint there, as its event names it; none: the run begins anew.
///
/// # Errors
/// Where the log is damaged, or the disk fails.
pub fn point(folder: &RunFolder, trainings: &[Training]) -> Result<Option<String>> {
    let known = known(folder)?;
    let mut point = None;
    let mut trainings = trainings.iter();
    for training in &mut trainings {
        let found = checkpoint::list(folder, &training.name())?;
        let whole: Vec<_> = found.iter().rev().filter_map(|path| Some((path, checkpoint::Checkpoint::read(path).ok()?.state))).collect();
        let logged = whole.iter().find(|(path, _)| known.contains(&checkpoint::event_path(path)));
        // A log that has lost all it knew of several checkpoints is no reason to do days of work again. A single one was written right
        // before the end, and events before it may have been lost with its own.
        let lost = whole.first().filter(|_| whole.len() > 1);
        let Some((path, state)) = logged.or(lost) else {
            whole.iter().try_for_each(|(path, _)| remove(path))?;
            break;
        };
        for newer in found.iter().filter(|newer| newer > path) {
            // Damaged ones stay until they are overwritten: whoever reads checkpoints names them.
            if whole.iter().any(|(whole, _)| *whole == newer) {
                remove(newer)?;
            }
        }
        point = Some(checkpoint::event_path(path));
        if !is_done(state) {
            break;
        }
    }
    for later in trainings {
        checkpoint::list(folder, &later.name())?.iter().try_for_each(|path| remove(path))?;
    }
    Ok(point)
}

fn is_done(state: &State) -> bool {
    state.step == state.steps && !state.epoch_open
}

/// The checkpoints that the log knows.
fn known(folder: &RunFolder) -> Result<HashSet<String>> {
    let mut known = HashSet::new();
    // A run that was cut off before its first event has no log yet.
    if !folder.events().exists() {
        return Ok(known);
    }
    for event in EventReader::open(folder)? {
        if let Body::Checkpoint { path } = event?.body {
            known.insert(path);
        }
    }
    Ok(known)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Objective;
    use crate::run::checkpoint::Checkpoint;
    use crate::run::{At, EventWriter};

    const ALL: [Training; 3] = [Training::Pretrain, Training::Finetune(Objective::Pll), Training::Finetune(Objective::Ce)];

    /// Of each training the steps after which there is a checkpoint; those that are negative the log does not know.
    type Saved = [&'static [i64]; 3];

    /// A run of trainings of 20 steps.
    fn run(steps: Saved) -> (tempfile::TempDir, RunFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        for (training, steps) in ALL.iter().zip(steps) {
            for step in steps {
                let state = State { stage: training.name(), step: step.unsigned_abs(), steps: 20, ..State::default() };
                let path = at(&folder, training, step.unsigned_abs());
                Checkpoint::new(state, vec![("model.bpk".into(), vec![7; 64])]).write(&path).unwrap();
                if *step >= 0 {
                    writer.sender().emit(&At::run(), Body::Checkpoint { path: checkpoint::event_path(&path) });
                }
            }
        }
        writer.finish().unwrap();
        (root, folder)
    }

    fn at(folder: &RunFolder, training: &Training, step: u64) -> std::path::PathBuf {
        folder.checkpoints().join(checkpoint::file_name(&training.name(), step))
    }

    /// The point of resume and what is left of each training.
    fn resumed(folder: &RunFolder) -> (String, [usize; 3]) {
        let point = point(folder, &ALL).unwrap().unwrap_or_default();
        let left = ALL.map(|training| checkpoint::list(folder, &training.name()).unwrap().len());
        (point.replace("checkpoints/", ""), left)
    }

    #[test]
    fn the_first_unfinished_training_goes_on() {
        let cases: [(Saved, &str, [usize; 3]); 8] = [
            ([&[], &[], &[]], "", [0, 0, 0]),
            ([&[5, 10], &[], &[]], "pretrain-00000010.ckpt", [2, 0, 0]),
            ([&[20], &[5], &[]], "finetune-pll-00000005.ckpt", [1, 1, 0]),
            ([&[20], &[20], &[]], "finetune-pll-00000020.ckpt", [1, 1, 0]),
            ([&[20], &[20], &[10, 20]], "baseline-ce-00000020.ckpt", [1, 1, 2]),
            // Written, but the log does not reach so far.
            ([&[20], &[5, 10, -15], &[]], "finetune-pll-00000010.ckpt", [1, 2, 0]),
            ([&[20], &[-5], &[]], "pretrain-00000020.ckpt", [1, 0, 0]),
            // The log has lost all of it.
            ([&[-10, -20], &[], &[]], "pretrain-00000020.ckpt", [2, 0, 0]),
        ];
        for (steps, expected, left) in cases {
            let (_root, folder) = run(steps);
            assert_eq!(resumed(&folder), (expected.to_string(), left), "{steps:?}");
        }
    }

    #[test]
    fn a_finished_training_whose_end_is_damaged_is_done_again_with_all_behind_it() {
        let (_root, folder) = run([&[5, 20], &[5, 10], &[]]);
        fs::write(at(&folder, &ALL[0], 20), "torn").unwrap();
        assert_eq!(resumed(&folder), ("pretrain-00000005.ckpt".into(), [2, 0, 0]));
        // An epoch that was not ended is not done either.
        let (_root, folder) = run([&[20], &[], &[]]);
        let state = State { stage: ALL[0].name(), step: 20, steps: 20, epoch_open: true, ..State::default() };
        Checkpoint::new(state, vec![]).write(&at(&folder, &ALL[0], 20)).unwrap();
        Checkpoint::new(State { stage: ALL[1].name(), step: 5, steps: 20, ..State::default() }, vec![])
            .write(&at(&folder, &ALL[1], 5))
            .unwrap();
        assert_eq!(resumed(&folder), ("pretrain-00000020.ckpt".into(), [1, 0, 0]));
    }
}
