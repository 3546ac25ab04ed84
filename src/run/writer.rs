//! Takes events from the training loop to `events.jsonl` and to the sinks that show them.
//!
//! One thread owns the file, one more each sink. The loop only ever appends to a queue in memory: it waits for no disk and no screen.
//! A disk that is full is waited for: what it did not take is kept ([`EventSender::is_held`]). A disk that fails otherwise is the run's business:
//! the first error is kept for [`EventWriter::check`] and [`EventWriter::finish`], and nothing is written after it, so the file holds no gap. A
//! sink that fails (a closed pipe, a lost terminal) is dropped in silence.

use super::disk;
use super::event::{At, Body, Event, Phase, VERSION};
use super::folder::{Lock, RunFolder, write_atomic};
use super::metrics;
use super::queue::Queue;
use super::reader::{EventReader, Line};
use crate::usage;
use anyhow::{Context, Result, anyhow};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest time an event stays in memory, and a sink without an event or a tick.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long [`EventWriter::finish`] waits for a sink that does not move, such as a stopped terminal.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long [`EventSender::settle`] waits for the disk.
const SETTLING: Duration = Duration::from_secs(30);

/// Shows events, each sink on a thread of its own. An error ends the sink, never the run.
pub trait Sink: Send {
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// Called about ten times a second, after the events that have come in.
    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// No more events come. Not called after an error.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says what happens in a run. Cheap to clone; never blocks. After the writer is finished, what is sent is lost.
#[derive(Clone)]
pub struct EventSender {
    queue: Arc<Queue>,
    log: Arc<Log>,
    began: Instant,
    /// Seconds of the run before this process took it up.
    before: f64,
    muted: bool,
}

impl EventSender {
    /// One that says nothing, for work whose events are on record. All else it does as this one.
    #[must_use]
    pub fn muted(&self) -> Self {
        Self { muted: true, ..self.clone() }
    }

    pub fn emit(&self, at: &At, body: Body) {
        if self.muted {
            return;
        }
        self.queue.push(Arc::new(Event {
            v: VERSION,
            t: self.seconds(),
            stage: at.stage,
            label: at.label.clone(),
            step: at.step,
            epoch: at.epoch,
            body,
        }));
    }

    /// Does `work` between the two events of a phase, so that a long silence has a name while it lasts.
    pub fn phase<T>(&self, at: &At, name: Phase, work: impl FnOnce() -> T) -> T {
        self.emit(at, Body::Phase { name, elapsed: None });
        let start = Instant::now();
        let result = work();
        self.emit(at, Body::Phase { name, elapsed: Some(milliseconds(start.elapsed().as_secs_f64())) });
        result
    }

    /// Whether the disk has no room for what was sent. It is kept, and written once there is room.
    pub fn is_held(&self) -> bool {
        self.log.held.load(Ordering::SeqCst)
    }

    /// Waits until all that was sent is on the disk; false where the disk does not take it.
    pub fn settle(&self) -> bool {
        self.queue.settle(SETTLING) && self.log.lock().settle()
    }

    /// Takes back what was sent after the last event that `last` accepts, which is called for each in the order of the file.
    ///
    /// # Errors
    /// Where the disk does not take the log, or gives it back damaged.
    pub fn take_back(&self, last: impl FnMut(&Event) -> bool) -> Result<()> {
        // What still waits must not come behind the cut.
        self.queue.settle(SETTLING);
        self.log.lock().cut(last).map(drop)
    }

    /// Seconds since the run began, as [`Event::t`] counts them.
    pub fn seconds(&self) -> f64 {
        milliseconds(self.before + self.began.elapsed().as_secs_f64())
    }
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// `events.jsonl` while it is written.
struct Log {
    file: Mutex<LogFile>,
    /// The disk has no room for what is to be written.
    held: AtomicBool,
    /// The first error, as text: it has to be told more than once.
    failure: Mutex<Option<String>>,
}

struct LogFile {
    folder: RunFolder,
    /// None after an error.
    file: Option<File>,
    /// What the disk has not taken yet.
    pending: Vec<u8>,
    /// Something was written that must be on the disk itself.
    unsynced: bool,
}

impl Log {
    fn new(folder: &RunFolder, file: File) -> Self {
        let file = LogFile { folder: folder.clone(), file: Some(file), pending: Vec::new(), unsynced: false };
        Self { file: Mutex::new(file), held: AtomicBool::new(false), failure: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, LogFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes events, and what earlier ones left. A resume reads up to a checkpoint's event: it is synced like the checkpoint itself.
    fn write(&self, events: &[Arc<Event>], last: bool) {
        let mut log = self.lock();
        let written = events.iter().try_for_each(|event| write_line(&mut log.pending, event)).map_err(anyhow::Error::from);
        log.unsynced |= last || events.iter().any(|e| matches!(e.body, Body::Checkpoint { .. }));
        match written.and_then(|()| log.flush()) {
            Ok(()) => self.held.store(false, Ordering::SeqCst),
            Err(error) if disk::is_full(&error) && !last => self.held.store(true, Ordering::SeqCst),
            Err(error) => {
                // Nothing is written behind a gap.
                log.file = None;
                self.fail(crate::failure::one_line(&error));
            }
        }
    }

    fn fail(&self, error: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl LogFile {
    fn path(&self) -> PathBuf {
        self.folder.events()
    }

    /// Gives the disk what it has not taken yet.
    fn flush(&mut self) -> Result<()> {
        let path = self.path();
        let Some(file) = &mut self.file else {
            self.pending.clear();
            return Ok(());
        };
        let mut flush = || -> io::Result<()> {
            while !self.pending.is_empty() {
                match file.write(&self.pending) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => drop(self.pending.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if std::mem::take(&mut self.unsynced) {
                file.sync_data()?;
            }
            Ok(())
        };
        flush().with_context(|| format!("writing {}", path.display()))
    }

    fn settle(&mut self) -> bool {
        self.unsynced = true;
        self.file.is_some() && self.flush().is_ok()
    }

    /// Cuts the log off behind the last event that `last` accepts; what stays, stays as it was written. The time of that event.
    fn cut(&mut self, mut last: impl FnMut(&Event) -> bool) -> Result<f64> {
        self.flush()?;
        let path = self.path();
        let mut reader = EventReader::open(&self.folder)?;
        let (mut length, mut time) = (0, 0.0);
        while let Some(line) = reader.next_line()? {
            let Line::Event(event) = line else {
                usage!("this run was written by a newer moue: resume it with that version");
            };
            if last(&event) {
                (length, time) = (reader.consumed(), event.t);
            }
        }
        write_atomic(&path, |w| Ok(io::copy(&mut File::open(&path)?.take(length), w)?))?;
        self.file = Some(append(&path)?);
        Ok(time)
    }
}

/// A run that was cut off before its first event has no log yet.
fn append(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create(true).open(path).with_context(|| format!("writing {}", path.display()))
}

/// Owns the threads behind [`EventSender`]. Dropping it writes what was sent, as [`finish`](Self::finish) does, but tells no errors.
pub struct EventWriter {
    folder: RunFolder,
    sender: EventSender,
    thread: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl EventWriter {
    /// Begins `events.jsonl` of a new run.
    ///
    /// # Errors
    /// Where the run already has events, or the disk refuses.
    pub fn create(folder: &RunFolder, lock: Lock, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let path = folder.events();
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("writing {}", path.display()))?;
        Self::start(Log::new(folder, file), 0.0, lock, sinks)
    }

    /// Goes on with the events of an earlier run up to and including the last one that `last` accepts (called for each in the order of the
    /// file; see [`until_checkpoint`]). Time goes on from there.
    ///
    /// # Errors
    /// As [`create`](Self::create); also for a damaged log, and ([`Usage`](crate::failure::Usage)) for one with events that only a
    /// newer moue understands, because nobody could say whether those lie behind the point of resume.
    pub fn resume(folder: &RunFolder, lock: Lock, sinks: Vec<Box<dyn Sink>>, last: impl FnMut(&Event) -> bool) -> Result<Self> {
        let log = Log::new(folder, append(&folder.events())?);
        let before = log.lock().cut(last)?;
        Self::start(log, before, lock, sinks)
    }

    fn start(log: Log, before: f64, lock: Lock, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let folder = log.lock().folder.clone();
        let (queue, log) = (Arc::new(Queue::default()), Arc::new(log));
        let shows = sinks.into_iter().map(Show::start).collect::<io::Result<Vec<_>>>().context("starting a progress view")?;
        let thread = {
            let (queue, log) = (Arc::clone(&queue), Arc::clone(&log));
            thread::Builder::new().name("events".into()).spawn(move || write_events(&log, &queue, shows))
        };
        let sender = EventSender { queue, log, began: Instant::now(), before, muted: false };
        Ok(Self { folder, sender, thread: Some(thread.context("starting the event writer")?), _lock: lock })
    }

    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// The error that stopped the log, if any. Costs a lock; call it once an interval.
    pub fn check(&self) -> Result<()> {
        match &*self.sender.log.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(anyhow!("{error}")),
            None => Ok(()),
        }
    }

    /// Writes and syncs all that was sent, lets the sinks end (waiting at most 5 s for one that does not move) and derives `metrics.csv`.
    pub fn finish(mut self) -> Result<()> {
        self.close();
        self.check()?;
        metrics::write(&self.folder)
    }

    fn close(&mut self) {
        self.sender.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.sender.log.fail("the event writer panicked".into());
        }
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.close();
    }
}

/// The checkpoint `path` (as its event names it), which may have been written more than once: the usual argument of
/// [`EventWriter::resume`].
pub fn until_checkpoint(path: &str) -> impl FnMut(&Event) -> bool + '_ {
    move |event| matches!(&event.body, Body::Checkpoint { path: p } if p == path)
}

fn write_line(w: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *w, event)?;
    w.write_all(b"\n")
}

fn write_events(log: &Log, queue: &Queue, shows: Vec<Show>) {
    while let Some(mut events) = queue.take(PATIENCE) {
        log.write(events.make_contiguous(), false);
        for event in &events {
            shows.iter().for_each(|show| show.queue.push(Arc::clone(event)));
        }
    }
    log.write(&[], true);
    let deadline = Instant::now() + FAREWELL;
    shows.iter().for_each(|show| show.queue.close());
    for show in shows {
        show.end(deadline);
    }
}

/// A sink's thread.
struct Show {
    queue: Arc<Queue>,
    done: mpsc::Receiver<()>,
}

impl Show {
    fn start(mut sink: Box<dyn Sink>) -> io::Result<Self> {
        /// Empties the queue when the thread ends, by whatever way: nobody reads it any more.
        struct Abandon(Arc<Queue>);
        impl Drop for Abandon {
            fn drop(&mut self) {
                self.0.abandon();
            }
        }
        let queue = Arc::new(Queue::default());
        let (ended, done) = mpsc::channel();
        let taker = Arc::clone(&queue);
        thread::Builder::new().name("progress".into()).spawn(move || {
            let abandon = Abandon(taker);
            let mut show = || -> io::Result<()> {
                while let Some(events) = abandon.0.take(PATIENCE) {
                    events.iter().try_for_each(|event| sink.event(event))?;
                    sink.tick()?;
                }
                sink.finish()
            };
            // A broken screen is no failure of the run, and there is nobody left to tell.
            let _ = show();
            drop(sink);
            let _ = ended.send(());
        })?;
        Ok(Self { queue, done })
    }

    /// Waits for the thread, which drops its end of the channel even where it panics.
    fn end(self, deadline: Instant) {
        let _ = self.done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Outcome, Stage};
    use super::*;
    use crate::failure::{exit_code, one_line};
    use crate::run::Scalars;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn run() -> (tempfile::TempDir, RunFolder) {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&root.path().join("run")).unwrap();
        (root, folder)
    }

    fn steps(sender: &EventSender, range: std::ops::Range<u64>) {
        let stage = At::stage(Stage::Pretrain, "");
        for step in range {
            let at = stage.step(step, step as f64 / 10.0);
            sender.emit(&at, Body::Scalars(Scalars::from([("loss", 1.0 / step as f64)])));
            if step % 4 == 0 {
                sender.emit(&at, Body::Checkpoint { path: format!("checkpoints/{step}") });
            }
        }
    }

    fn events(folder: &RunFolder) -> Vec<Event> {
        EventReader::open(folder).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn one_writer_at_a_time() {
        let (_root, folder) = run();
        assert_eq!(folder.is_written(), None);
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        assert_eq!(folder.is_written(), Some(true));
        steps(&writer.sender(), 0..7);
        let error = folder.lock().unwrap_err();
        assert!(exit_code(&error) == 2 && one_line(&error).contains("another process"), "{error:#}");
        // Dropping writes all that was sent, as in a panic of the loop.
        drop(writer);
        assert_eq!(events(&folder).len(), 9);
        drop(EventWriter::resume(&folder, folder.lock().unwrap(), vec![], |_| true).unwrap());
        assert_eq!(folder.is_written(), Some(false));
    }

    #[test]
    fn time_and_steps_go_on_after_a_resume() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        steps(&writer.sender(), 0..7);
        writer.sender().emit(&At::run(), Body::RunFinished { outcome: Outcome::Interrupted, message: String::new() });
        writer.finish().unwrap();
        assert!(folder.metrics().is_file());
        assert_eq!(events(&folder).len(), 10);
        // The machine went down while a line was being written.
        let text = fs::read_to_string(folder.events()).unwrap();
        fs::write(folder.events(), format!("{}{{\"v\":100,\"t\"", text.replace("\"t\":0.0", "\"t\":77.0"))).unwrap();

        let mut following = EventReader::open(&folder).unwrap();
        following.by_ref().for_each(|e| drop(e.unwrap()));
        let writer = EventWriter::resume(&folder, folder.lock().unwrap(), vec![], until_checkpoint("checkpoints/4")).unwrap();
        assert!(cfg!(not(unix)) || following.replaced());
        steps(&writer.sender(), 5..9);
        writer.finish().unwrap();
        let events = events(&folder);
        let seen: Vec<u64> = events.iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(events.is_sorted_by_key(|e| e.t), "{events:?}");
        assert!(!events.iter().any(|e| matches!(e.body, Body::RunFinished { .. })));
        // A second beginning of the same run is refused.
        assert!(EventWriter::create(&folder, folder.lock().unwrap(), vec![]).is_err());
    }

    #[test]
    fn what_a_resume_keeps_stays_as_it_was_written() {
        let (_root, folder) = run();
        // A number that a JSON reader gives back with another last digit.
        let odd = 0.11106361150741577;
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        writer.sender().emit(&At::run().step(5, 5.0 / 48.0), Body::Scalars(Scalars::from([("loss", odd)])));
        drop(writer);
        let text = fs::read_to_string(folder.events()).unwrap();
        assert!(text.contains(&odd.to_string()), "{text}");
        let resume = || drop(EventWriter::resume(&folder, folder.lock().unwrap(), vec![], |_| true).unwrap());
        resume();
        assert_eq!(fs::read_to_string(folder.events()).unwrap(), text);
        // Cut off before the first event.
        fs::remove_file(folder.events()).unwrap();
        resume();
        assert_eq!(fs::read_to_string(folder.events()).unwrap(), "");
    }

    #[test]
    fn a_resume_refuses_events_it_does_not_know() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        steps(&writer.sender(), 1..3);
        writer.finish().unwrap();
        let text = fs::read_to_string(folder.events()).unwrap().replacen("scalars", "spectra", 1);
        fs::write(folder.events(), &text).unwrap();
        let error = EventWriter::resume(&folder, folder.lock().unwrap(), vec![], |_| true).err().unwrap();
        assert!(exit_code(&error) == 2 && one_line(&error).contains("newer moue"), "{error:#}");
        assert_eq!(fs::read_to_string(folder.events()).unwrap(), text);
    }

    /// Fails, panics or hangs after some events.
    struct Bad(&'static str, Arc<AtomicUsize>);
    impl Sink for Bad {
        fn event(&mut self, _: &Event) -> io::Result<()> {
            if self.1.fetch_add(1, Ordering::SeqCst) < 3 {
                return Ok(());
            }
            match self.0 {
                "fail" => Err(io::ErrorKind::BrokenPipe.into()),
                "panic" => panic!("a sink that panics, as the test wants"),
                _ => {
                    thread::sleep(Duration::from_secs(60));
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn bad_sinks_stop_no_run() {
        let (_root, folder) = run();
        let counts: [Arc<AtomicUsize>; 3] = Default::default();
        let sinks = ["fail", "panic", "hang"].iter().zip(&counts).map(|(&how, n)| Box::new(Bad(how, Arc::clone(n))) as Box<dyn Sink>);
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), sinks.collect()).unwrap();
        let start = Instant::now();
        steps(&writer.sender(), 1..20_000);
        assert!(start.elapsed() < Duration::from_secs(20));
        writer.check().unwrap();
        writer.finish().unwrap();
        assert!(start.elapsed() < Duration::from_secs(50));
        let events = events(&folder);
        assert_eq!(events.iter().filter(|e| matches!(e.body, Body::Checkpoint { .. })).count(), 19_999 / 4);
        assert!(counts.iter().all(|n| n.load(Ordering::SeqCst) == 4));
    }

    #[test]
    fn the_newer_of_two_checkpoints_of_a_name_counts() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        for range in [0..5, 5..6, 4..5, 5..7] {
            steps(&writer.sender(), range);
        }
        writer.finish().unwrap();
        drop(EventWriter::resume(&folder, folder.lock().unwrap(), vec![], until_checkpoint("checkpoints/4")).unwrap());
        let seen: Vec<u64> = events(&folder).iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 4]);
    }

    #[test]
    fn what_was_sent_can_be_taken_back() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        let sender = writer.sender();
        steps(&sender, 0..11);
        assert!(sender.settle() && events(&folder).len() == 14);
        sender.take_back(until_checkpoint("checkpoints/4")).unwrap();
        assert_eq!(events(&folder).len(), 7);
        steps(&sender, 5..9);
        writer.finish().unwrap();
        let seen: Vec<u64> = events(&folder).iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    /// `/dev/full` refuses every write.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_waited_for() {
        let (_root, folder) = run();
        let full = || OpenOptions::new().append(true).open("/dev/full").unwrap();
        let wait = |until: &dyn Fn() -> bool| assert!((0..500).any(|_| (thread::sleep(Duration::from_millis(20)), until()).1));
        fs::write(folder.events(), "").unwrap();
        let start = || EventWriter::start(Log::new(&folder, full()), 0.0, folder.lock().unwrap(), vec![]).unwrap();
        let writer = start();
        let sender = writer.sender();
        steps(&sender, 1..6);
        wait(&|| sender.is_held());
        assert!(!sender.settle());
        writer.check().unwrap();
        // Somebody makes room.
        sender.log.lock().file = Some(append(&folder.events()).unwrap());
        wait(&|| !sender.is_held());
        steps(&sender, 6..9);
        writer.finish().unwrap();
        let seen: Vec<u64> = events(&folder).iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert_eq!(seen, (1..9).collect::<Vec<_>>());
        // Nobody does.
        let writer = start();
        steps(&writer.sender(), 1..3);
        let error = one_line(&writer.finish().unwrap_err());
        assert!(error.contains("No space left") && error.contains("events.jsonl"), "{error}");
    }
}
