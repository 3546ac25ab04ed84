//! A disk without room ends no run: what could not be written waits until it can be.

use super::control::{Control, Stopped};
use super::event::{At, Body, Level, Phase};
use super::writer::EventSender;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Pauses between tries: each is twice as long as the one before it, up to the longest.
#[derive(Clone, Copy)]
struct Pauses {
    next: Duration,
    longest: Duration,
}

/// Of work that begins anew at each try: a checkpoint of a gigabyte is written until the disk takes no more, and removed.
const WRITING: Pauses = Pauses { next: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// Of a look that costs nothing: as short as [`Control::hold`] makes them.
const LOOKING: Pauses = Pauses { next: Duration::ZERO, longest: Duration::ZERO };

impl Pauses {
    /// Lets the next pause pass; false as soon as the run is to stop instead of waiting.
    fn hold(&mut self, control: &Control) -> bool {
        let began = Instant::now();
        while control.hold() {
            if began.elapsed() >= self.next {
                self.next = (2 * self.next).min(self.longest);
                return true;
            }
        }
        false
    }
}

/// Whether an error says that there is no room, on the disk or in somebody's quota.
pub fn is_full(error: &anyhow::Error) -> bool {
    let kind = |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    // Libraries that wrap an error of the disk keep its words and not always its type.
    error.chain().any(|cause| cause.downcast_ref().is_some_and(kind) || cause.to_string().contains("No space left on device"))
}

/// Does work that writes. Where the disk has no room for it, says so and does it again, from its beginning, after a second and then after
/// longer and longer pauses up to half a minute: the run holds still meanwhile.
///
/// # Errors
/// Any other one of the work; [`Stopped`] where the run is asked to stop while it waits.
pub fn with_room<T>(events: &EventSender, control: &Control, at: &At, work: impl FnMut() -> Result<T>) -> Result<T> {
    again(WRITING, events, control, at, work)
}

fn again<T>(mut pauses: Pauses, events: &EventSender, control: &Control, at: &At, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let full = |error: &anyhow::Error| is_full(error);
    let error = match work() {
        Err(error) if full(&error) => error,
        done => return done,
    };
    let said = crate::failure::one_line(&error);
    tell(events, at, Level::Warning, format!("the disk is full ({said}): training waits until there is room"));
    let done = events.phase(at, Phase::Pause, || {
        loop {
            if !pauses.hold(control) {
                return Err(Stopped).with_context(|| format!("not written, for the disk is full: {said}"));
            }
            match work() {
                Err(error) if full(&error) => {}
                done => return done,
            }
        }
    })?;
    tell(events, at, Level::Info, "there is room on the disk again: training goes on".into());
    Ok(done)
}

/// Waits while the disk has no room for the run's events; how long that was, in seconds, where it was at all.
///
/// # Errors
/// [`Stopped`] where the run is asked to stop while it waits.
pub fn wait_for_events(events: &EventSender, control: &Control, at: &At) -> Result<Option<f64>> {
    if !events.is_held() {
        return Ok(None);
    }
    let began = Instant::now();
    again(LOOKING, events, control, at, || {
        if events.is_held() { Err(std::io::Error::from(ErrorKind::StorageFull)).context("writing events.jsonl") } else { Ok(()) }
    })?;
    Ok(Some(began.elapsed().as_secs_f64()))
}

fn tell(events: &EventSender, at: &At, level: Level, text: String) {
    events.emit(at, Body::Message { level, text });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{EventReader, EventWriter, RunFolder};
    use std::io;

    const SHORT: Pauses = Pauses { next: Duration::from_millis(200), longest: Duration::from_millis(300) };

    /// What the work says in turn, `None`: it is done; with when each try began, and what was told. Without pauses: those of [`with_room`].
    fn wait(says: &[Option<ErrorKind>], pauses: Option<Pauses>, control: &Control) -> (Result<usize>, Vec<Instant>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        let mut tries = Vec::new();
        let work = || {
            tries.push(Instant::now());
            match says[tries.len() - 1] {
                Some(kind) => Err(io::Error::from(kind)).context("writing x.ckpt"),
                None => Ok(tries.len()),
            }
        };
        let done = match pauses {
            Some(pauses) => again(pauses, &writer.sender(), control, &At::run(), work),
            None => with_room(&writer.sender(), control, &At::run(), work),
        };
        writer.finish().unwrap();
        let told = EventReader::open(&folder).unwrap().filter_map(|e| match e.unwrap().body {
            Body::Message { text, .. } => Some(text),
            _ => None,
        });
        (done, tries, told.collect())
    }

    #[test]
    fn work_is_done_again_once_there_is_room() {
        let full = Some(ErrorKind::StorageFull);
        let (done, tries, told) = wait(&[full, Some(ErrorKind::QuotaExceeded), full, None], Some(SHORT), &Control::default());
        assert_eq!(done.unwrap(), 4);
        assert!(told.len() == 2 && told[0].contains("x.ckpt") && told[1].contains("goes on"), "{told:?}");
        // What is written only to be removed keeps the disk busy: longer and longer pauses.
        let gaps: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().zip([SHORT.next, SHORT.longest, SHORT.longest]).all(|(gap, least)| *gap >= least), "{gaps:?}");
        let (done, tries, told) = wait(&[full, None], None, &Control::default());
        assert_eq!((done.unwrap(), told.len()), (2, 2));
        assert!(tries[1] - tries[0] >= Duration::from_secs(1), "{tries:?}");
        let (done, _, told) = wait(&[None], None, &Control::default());
        assert_eq!((done.unwrap(), told.len()), (1, 0));
    }

    #[test]
    fn other_errors_and_a_stop_end_it() {
        let (done, _, told) = wait(&[Some(ErrorKind::PermissionDenied)], None, &Control::default());
        assert!(!done.unwrap_err().is::<Stopped>() && told.is_empty());
        let (done, ..) = wait(&[Some(ErrorKind::StorageFull), Some(ErrorKind::NotFound)], Some(LOOKING), &Control::default());
        assert!(!done.unwrap_err().is::<Stopped>());
        // A stop within a pause does not wait for its end.
        let control = Control::default();
        let person = control.clone();
        let asking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            person.stop()
        });
        let (began, long) = (Instant::now(), Pauses { next: Duration::from_secs(60), longest: Duration::from_secs(60) });
        let (done, _, told) = wait(&[Some(ErrorKind::StorageFull)], Some(long), &control);
        let error = done.unwrap_err();
        assert!(error.is::<Stopped>() && format!("{error:#}").contains("x.ckpt") && told.len() == 1, "{error:#}");
        assert!(!asking.join().unwrap() && began.elapsed() < Duration::from_secs(30));
    }
}
