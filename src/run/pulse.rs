//! Whether a run is alive: told from its last event, from the lock that its process holds, and from the time since it last wrote.
//!
//! A process that is killed loses its lock at once, so a crash shows within seconds. Where the lock cannot tell (some network file systems), a
//! run that has written nothing for long is only called silent.

use crate::run::summary::{RunSummary, Status, quiet};
use crate::run::{Outcome, RunFolder};
use std::time::Duration;

/// A process needs a moment between taking the lock and its first event, and between its last event and the end; and a log on a network disk
/// arrives late.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// There is no such run yet.
    Awaited,
    Running,
    /// No process writes it any more, and it has not said how it ended.
    Crashed,
    /// Nothing for long; whether it lives cannot be told.
    Silent,
    Ended(Outcome),
}

impl Pulse {
    pub fn take(folder: &RunFolder, summary: &RunSummary) -> Self {
        let quiet = quiet(folder);
        let held = if summary.outcome.is_some() || quiet < GRACE { None } else { folder.is_written() };
        Self::judge(summary, quiet, held)
    }

    /// `held`: whether a process holds the run's lock, where that is known.
    fn judge(summary: &RunSummary, quiet: Duration, held: Option<bool>) -> Self {
        match (summary.outcome, held) {
            (Some(outcome), _) => Pulse::Ended(outcome),
            (None, Some(false)) if quiet >= GRACE => Pulse::Crashed,
            (None, Some(true)) => Pulse::Running,
            (None, _) if summary.status(quiet) == Status::Silent => Pulse::Silent,
            (None, _) => Pulse::Running,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Pulse::Awaited => "waiting",
            Pulse::Running => "running",
            Pulse::Crashed => "crashed",
            Pulse::Silent => "silent",
            Pulse::Ended(outcome) => outcome.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{At, Body, EventWriter};
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    #[test]
    fn the_lock_tells_a_crash_from_a_long_silence() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("r")).unwrap();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        writer.sender().emit(&At::run(), Body::RunStarted { command: String::new(), version: String::new() });
        while folder.events().metadata().unwrap().len() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let summary = RunSummary::read(&folder).unwrap();
        let age = |seconds| {
            let file = File::options().append(true).open(folder.events()).unwrap();
            file.set_times(FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(seconds))).unwrap();
        };
        assert_eq!(Pulse::take(&folder, &summary), Pulse::Running);
        // A compiling GPU is silent for minutes, but its process holds the lock.
        age(3000);
        assert_eq!(Pulse::take(&folder, &summary), Pulse::Running);
        drop(writer);
        age(10);
        assert_eq!(Pulse::take(&folder, &summary), Pulse::Crashed);
        // Without a lock only time tells.
        std::fs::remove_file(folder.path().join(".lock")).unwrap();
        assert_eq!(Pulse::take(&folder, &summary), Pulse::Running);
        age(3000);
        assert_eq!(Pulse::take(&folder, &summary), Pulse::Silent);
    }

    #[test]
    fn an_end_is_an_end() {
        let summary = RunSummary { outcome: Some(Outcome::Failed), ..RunSummary::default() };
        assert_eq!(Pulse::judge(&summary, Duration::from_secs(9999), Some(false)), Pulse::Ended(Outcome::Failed));
    }
}
