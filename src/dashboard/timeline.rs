//! A run's events as something that can be followed, played and searched: the one source behind `moue watch` and `moue replay`.
//!
//! The *head* reads the log to its present end and goes on as it grows. What is shown is either the head itself, or a second reader that stands
//! somewhere behind it. On its way the head leaves keyframes, copies of the state with their place in the file; a seek takes the last one
//! before its target and reads on from there. When there are many, every second one is dropped and the next ones are set twice as far
//! apart, so both the memory and the longest seek stay small whatever the length of the run.
//!
//! A log that is damaged is read up to the damage; [`Timeline::problem`] says what is wrong. A log that was replaced (a resume cuts it back) is
//! read anew.

use super::state::State;
use crate::failure::one_line;
use crate::run::event::Event;
use crate::run::reader::{EventReader, Mark};
use crate::run::{RunFolder, progress::plain};
use std::time::{Duration, Instant};

/// Keyframes kept at most, and the events between the first ones.
const KEYFRAMES: usize = 64;
const FIRST_GAP: u64 = 512;
/// Events between two looks at the clock.
const BATCH: usize = 256;

#[derive(Clone)]
struct Keyframe {
    mark: Mark,
    state: State,
}

/// A reader and the state it has come to.
struct Cursor {
    reader: EventReader,
    state: State,
    /// An event that was looked at and not yet taken in.
    next: Option<Event>,
}

impl Cursor {
    fn new(reader: EventReader, state: State) -> Self {
        Self { reader, state, next: None }
    }

    fn peek(&mut self) -> Result<Option<&Event>, String> {
        if self.next.is_none() {
            self.next = self.reader.next().transpose().map_err(|error| plain(&one_line(&error)))?;
        }
        Ok(self.next.as_ref())
    }

    /// Takes in the next event; false at the present end.
    fn step(&mut self) -> Result<bool, String> {
        let there = self.peek()?.is_some();
        if let Some(event) = self.next.take() {
            self.state.apply(&event);
        }
        self.state.summary.skipped = self.reader.skipped();
        Ok(there)
    }
}

pub struct Timeline {
    folder: RunFolder,
    head: Option<Cursor>,
    keyframes: Vec<Keyframe>,
    gap: u64,
    /// Behind the head; none while the head itself is shown.
    shown: Option<Cursor>,
    problem: Option<String>,
    empty: State,
}

impl Timeline {
    /// Reads nothing yet; the log need not exist.
    pub fn new(folder: RunFolder) -> Self {
        Self { folder, head: None, keyframes: Vec::new(), gap: FIRST_GAP, shown: None, problem: None, empty: State::default() }
    }

    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// What to show.
    pub fn state(&self) -> &State {
        self.shown.as_ref().map_or_else(|| self.head(), |cursor| &cursor.state)
    }

    /// The run as far as it has been read.
    pub fn head(&self) -> &State {
        self.head.as_ref().map_or(&self.empty, |cursor| &cursor.state)
    }

    pub fn at_head(&self) -> bool {
        self.shown.is_none()
    }

    /// Why the rest of the log cannot be shown.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Reads what the log has for at most `budget`. Returns whether there was something, and whether there may be more.
    pub fn read(&mut self, budget: Duration) -> (bool, bool) {
        let start = Instant::now();
        if self.head.as_ref().is_some_and(|head| head.reader.replaced()) {
            let folder = self.folder.clone();
            *self = Self::new(folder);
        }
        if self.head.is_none() && self.problem.is_none() && self.folder.events().exists() {
            match EventReader::open(&self.folder) {
                Ok(reader) => self.head = Some(Cursor::new(reader, State::default())),
                Err(error) => self.problem = Some(plain(&one_line(&error))),
            }
        }
        let Some(head) = &mut self.head else { return (false, false) };
        if self.problem.is_some() {
            return (false, false);
        }
        let mut news = false;
        loop {
            for _ in 0..BATCH {
                let due = self.keyframes.last().map_or(0, |k| k.state.summary.events + self.gap);
                if head.state.summary.events >= due {
                    if self.keyframes.len() == KEYFRAMES {
                        let mut keep = false;
                        self.keyframes.retain(|_| {
                            keep = !keep;
                            keep
                        });
                        self.gap *= 2;
                    }
                    self.keyframes.push(Keyframe { mark: head.reader.mark(), state: head.state.clone() });
                }
                match head.step() {
                    Ok(true) => news = true,
                    Ok(false) => return (news, false),
                    Err(error) => {
                        self.problem = Some(error);
                        return (true, false);
                    }
                }
            }
            if start.elapsed() >= budget {
                return (news, true);
            }
        }
    }

    /// Reads all there is.
    pub fn read_all(&mut self) {
        while self.read(Duration::MAX).1 {}
    }

    /// Shows the head from now on.
    pub fn follow(&mut self) {
        self.shown = None;
    }

    /// Shows the run as it was after the first event from which on `reached` holds; once true it must stay true. Where it never holds, the
    /// last event read.
    pub fn seek(&mut self, reached: impl Fn(&State) -> bool) {
        let after = self.keyframes.partition_point(|k| !reached(&k.state));
        let (mark, state) = match after.checked_sub(1) {
            Some(i) => (self.keyframes[i].mark, self.keyframes[i].state.clone()),
            None => (Mark::default(), State::default()),
        };
        match EventReader::open_at(&self.folder, mark) {
            Ok(reader) => {
                self.shown = Some(Cursor::new(reader, state));
                self.step_while(|state, _| !reached(state));
            }
            // Before the first event there is no log to stand in.
            Err(_) if self.head.is_none() => {}
            Err(error) => self.problem = Some(plain(&one_line(&error))),
        }
    }

    /// Takes in the events up to `seconds` of the run. Returns whether there were any.
    pub fn play(&mut self, seconds: f64) -> bool {
        self.step_while(|_, next| next.t <= seconds)
    }

    /// Takes in what else is told of the step that is shown: the reports at the end of an epoch are many events.
    pub fn finish_step(&mut self) {
        self.step_while(|state, next| {
            state.summary.stage().is_some_and(|s| s.stage == next.stage && s.label == next.label && s.step == next.step)
        });
    }

    /// Goes on from what is shown, not past the head, while the state and the event to come are wanted.
    fn step_while(&mut self, wanted: impl Fn(&State, &Event) -> bool) -> bool {
        let end = self.head().summary.events;
        let Some(cursor) = &mut self.shown else { return false };
        let mut news = false;
        while cursor.state.summary.events < end {
            let result = match cursor.peek() {
                Ok(None) => break,
                Ok(Some(_)) => {
                    let next = cursor.next.as_ref().expect("it was just looked at");
                    if !wanted(&cursor.state, next) {
                        break;
                    }
                    cursor.step()
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(stepped) => news |= stepped,
                Err(error) => {
                    self.problem.get_or_insert(error);
                    break;
                }
            }
        }
        news
    }

    /// Whether what is shown has come to the last event read.
    pub fn ended(&self) -> bool {
        self.state().summary.events >= self.head().summary.events
    }
}

/// Positions that only grow through a run: which stage speaks, and how far it is.
pub fn place(state: &State) -> (usize, f64) {
    let stage = state.summary.current.unwrap_or(0);
    let epoch = state.summary.stages.get(stage).map_or(0.0, |s| s.epoch);
    (state.summary.current.map_or(0, |i| i + 1), epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::tests::{event, every_body};
    use crate::run::{Body, Scalars, Stage};
    use std::fs::{self, OpenOptions};
    use std::io::{BufWriter, Write};

    fn scalars(i: u64, per_epoch: u64) -> Event {
        let numbers = Scalars::from([("loss", 1.0 / (i + 1) as f64), ("lr", 1e-3), ("grad_norm", 0.7), ("faces_per_second", 412.0)]);
        Event { t: i as f64 / 10.0, step: i, epoch: i as f64 / per_epoch as f64, ..event(Body::Scalars(numbers)) }
    }

    fn write(path: &std::path::Path, events: impl Iterator<Item = Event>) {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        let mut w = BufWriter::new(file);
        for event in events {
            serde_json::to_writer(&mut w, &event).unwrap();
            w.write_all(b"\n").unwrap();
        }
        w.flush().unwrap();
    }

    fn run(events: impl Iterator<Item = Event>) -> (tempfile::TempDir, Timeline) {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("events.jsonl"), events);
        let folder = RunFolder::open(root.path()).unwrap();
        (root, Timeline::new(folder))
    }

    #[test]
    fn seeking_shows_what_playing_shows() {
        let (_root, mut timeline) = run((0..20_000).map(|i| scalars(i, 100)));
        timeline.read_all();
        assert_eq!(timeline.head().summary.events, 20_000);
        assert!(timeline.keyframes.len() > 20);
        for target in [0, 1, 511, 512, 513, 9_999, 19_999] {
            timeline.seek(|s| s.summary.events >= target);
            let mut straight = State::default();
            // As it is read: JSON rounds in the last bit.
            let read = |event: Event| serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
            (0..target).for_each(|i| straight.apply(&read(scalars(i, 100))));
            let (seek, straight) = (timeline.state(), &straight);
            assert_eq!(seek.summary, straight.summary, "{target}");
            assert_eq!(seek.stage(0).map(|s| s.1.loss.clone()), straight.stage(0).map(|s| s.1.loss.clone()));
        }
        timeline.seek(|s| place(s) >= (1, 57.5));
        assert_eq!(timeline.state().summary.stage().unwrap().step, 5750);
        assert!(timeline.play(600.05) && !timeline.ended());
        assert_eq!(timeline.state().summary.stage().unwrap().step, 6000);
        // Half an interval later nothing has happened yet.
        assert!(!timeline.play(600.09));
        timeline.play(f64::INFINITY);
        assert!(timeline.ended() && !timeline.at_head());
    }

    #[test]
    fn a_growing_log_is_followed_and_a_replaced_one_read_anew() {
        let (root, mut timeline) = run((0..10).map(|i| scalars(i, 10)));
        assert_eq!(timeline.read(Duration::from_secs(9)), (true, false));
        assert_eq!(timeline.read(Duration::from_secs(9)), (false, false));
        let path = root.path().join("events.jsonl");
        write(&path, (10..15).map(|i| scalars(i, 10)));
        assert_eq!(timeline.read(Duration::from_secs(9)), (true, false));
        assert_eq!(timeline.state().summary.events, 15);
        write(&root.path().join("new"), (0..7).map(|i| scalars(i, 10)));
        fs::rename(root.path().join("new"), &path).unwrap();
        timeline.read_all();
        assert_eq!(timeline.state().summary.events, 7);
    }

    #[test]
    fn a_damaged_log_is_shown_up_to_the_damage() {
        let (root, mut timeline) = run((0..5).map(|i| scalars(i, 10)));
        let path = root.path().join("events.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"v\":101,\x1b[2J\n").unwrap();
        write(&path, (5..9).map(|i| scalars(i, 10)));
        timeline.read_all();
        assert_eq!(timeline.state().summary.events, 5);
        let problem = timeline.problem().unwrap();
        assert!(problem.contains("events.jsonl:6: damaged event") && !problem.contains('\x1b'), "{problem}");
        // Newer: nothing of it can be shown, and it says so.
        fs::write(&path, "{\"v\":203,\"body\":{}}\n").unwrap();
        let mut newer = Timeline::new(timeline.folder().clone());
        newer.read_all();
        assert!(newer.problem().unwrap().contains("version 2.3") && newer.state().summary.events == 0);
    }

    #[test]
    fn nothing_is_there_yet() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("manifest.json"), "{}").unwrap();
        let mut timeline = Timeline::new(RunFolder::open(root.path()).unwrap());
        assert_eq!(timeline.read(Duration::ZERO), (false, false));
        timeline.seek(|_| true);
        assert_eq!(timeline.state().summary.events, 0);
    }

    /// The promise of `moue replay`: any epoch of a million events in less than half a second, the slowest of many.
    #[test]
    fn any_epoch_of_a_million_events_is_near() {
        const EVENTS: u64 = 1_000_000;
        let (_root, mut timeline) = run((0..EVENTS).map(|i| match i % 100 {
            // Every kind of event, and a dozen watched faces an epoch.
            99 => Event { stage: Stage::Finetune, t: i as f64 / 10.0, ..event(every_body().swap_remove((i / 100 % 8) as usize + 3)) },
            n @ 80..92 => {
                let (candidates, confidences) = (vec![1, 4, 5], vec![0.2, 0.5, 0.3]);
                let body = Body::Watched { face: format!("face-{n}"), candidates, confidences, truth: Some(4) };
                Event { body, ..scalars(i, 1000) }
            }
            _ => scalars(i, 1000),
        }));
        let start = Instant::now();
        timeline.read_all();
        let first = start.elapsed();
        assert_eq!(timeline.head().summary.events, EVENTS);
        assert!(timeline.keyframes.len() <= KEYFRAMES);
        let mut slowest = Duration::ZERO;
        for k in 0..40 {
            let target = (k * 277 % 1000) as f64 * EVENTS as f64 / 10_000.0;
            let start = Instant::now();
            timeline.seek(|s| s.summary.seconds >= target);
            slowest = slowest.max(start.elapsed());
            assert!(timeline.state().summary.seconds >= target);
        }
        println!("1,000,000 events: read in {first:?}, slowest seek {slowest:?}");
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    }
}
