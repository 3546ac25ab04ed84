//! A disk without room ends no run: what could not be written waits until it can be.

use super::control::{Control, Stopped};
use super::event::{At, Body, Level, Phase};
use super::writer::EventSender;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::time::Instant;

/// Whether an error says that there is no room, on the disk or in somebody's quota.
pub fn is_full(error: &anyhow::Error) -> bool {
    let kind = |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    // Libraries that wrap an error of the disk keep its words and not always its type.
    error.chain().any(|cause| cause.downcast_ref().is_some_and(kind) || cause.to_string().contains("No space left on device"))
}

/// Does work that writes. Where the disk has no room for it, says so and does it again, from its beginning, once there may be: the run holds
/// still meanwhile.
///
/// # Errors
/// Any other one of the work; [`Stopped`] where the run is asked to stop while it waits.
pub fn with_room<T>(events: &EventSender, control: &Control, at: &At, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let full = |error: &anyhow::Error| is_full(error);
    let error = match work() {
        Err(error) if full(&error) => error,
        done => return done,
    };
    let said = crate::failure::one_line(&error);
    tell(events, at, Level::Warning, format!("the disk is full ({said}): training waits until there is room"));
    let done = events.phase(at, Phase::Pause, || {
        loop {
            if !control.hold() {
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
    with_room(events, control, at, || {
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

    /// What the work says in turn; `None`: it is done. And what was told.
    fn wait(says: &[Option<ErrorKind>], control: &Control) -> (Result<usize>, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        let mut tries = 0;
        let done = with_room(&writer.sender(), control, &At::run(), || {
            tries += 1;
            match says[tries - 1] {
                Some(kind) => Err(io::Error::from(kind)).context("writing x.ckpt"),
                None => Ok(tries),
            }
        });
        writer.finish().unwrap();
        let told = EventReader::open(&folder).unwrap().filter_map(|e| match e.unwrap().body {
            Body::Message { text, .. } => Some(text),
            _ => None,
        });
        (done, told.collect())
    }

    #[test]
    fn work_is_done_again_once_there_is_room() {
        let full = Some(ErrorKind::StorageFull);
        let (done, told) = wait(&[full, Some(ErrorKind::QuotaExceeded), full, None], &Control::default());
        assert_eq!(done.unwrap(), 4);
        assert!(told.len() == 2 && told[0].contains("x.ckpt") && told[1].contains("goes on"), "{told:?}");
        let (done, told) = wait(&[None], &Control::default());
        assert_eq!((done.unwrap(), told.len()), (1, 0));
    }

    #[test]
    fn other_errors_and_a_stop_end_it() {
        let (done, told) = wait(&[Some(ErrorKind::PermissionDenied)], &Control::default());
        assert!(!done.unwrap_err().is::<Stopped>() && told.is_empty());
        let (done, _) = wait(&[Some(ErrorKind::StorageFull), Some(ErrorKind::NotFound)], &Control::default());
        assert!(!done.unwrap_err().is::<Stopped>());
        let control = Control::default();
        control.stop();
        let (done, told) = wait(&[Some(ErrorKind::StorageFull)], &control);
        let error = done.unwrap_err();
        assert!(error.is::<Stopped>() && format!("{error:#}").contains("x.ckpt") && told.len() == 1, "{error:#}");
    }
}
