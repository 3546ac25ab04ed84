//! Takes events from the training loop to `events.jsonl` and to the sinks that show them.
//!
//! One thread owns the file, one more each sink. The loop only ever appends to a queue in memory: it waits for no disk and no screen.
//! A disk that fails is the run's business: the first error is kept for [`EventWriter::check`] and [`EventWriter::finish`], and nothing is written
//! after it, so the file holds no gap. A sink that fails (a closed pipe, a lost terminal) is dropped in silence.
//!
//! A lock on `.lock` keeps two processes from writing one run.

use super::event::{At, Body, Event, Phase, VERSION};
use super::folder::{RunFolder, write_atomic};
use super::metrics;
use super::queue::Queue;
use super::reader::{EventReader, Line};
use crate::usage;
use anyhow::{Context, Result, anyhow};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest time an event stays in memory, and a sink without an event or a tick.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long [`EventWriter::finish`] waits for a sink that does not move, such as a stopped terminal.
const FAREWELL: Duration = Duration::from_secs(5);

/// Tries, 10 ms apart, to lock a run that somebody has locked.
const GLANCES: usize = 5;

/// Whether a process writes the run; none where the file system, or a run without a lock, cannot tell.
pub fn is_written(folder: &RunFolder) -> Option<bool> {
    let file = File::open(folder.path().join(".lock")).ok()?;
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

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
    began: Instant,
    /// Seconds of the run before this process took it up.
    before: f64,
}

impl EventSender {
    pub fn emit(&self, at: &At, body: Body) {
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

    /// Seconds since the run began, as [`Event::t`] counts them.
    pub fn seconds(&self) -> f64 {
        milliseconds(self.before + self.began.elapsed().as_secs_f64())
    }
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// The first error of the file's thread. Kept as text: an error has to be told more than once.
type Failure = Arc<Mutex<Option<String>>>;

/// Owns the threads behind [`EventSender`]. Dropping it writes what was sent, as [`finish`](Self::finish) does, but tells no errors.
pub struct EventWriter {
    folder: RunFolder,
    sender: EventSender,
    failure: Failure,
    thread: Option<JoinHandle<()>>,
    _lock: File,
}

impl EventWriter {
    /// Begins `events.jsonl` of a new run.
    ///
    /// # Errors
    /// Where the run already has events, another process writes it, or the disk refuses.
    pub fn create(folder: &RunFolder, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let lock = lock(folder)?;
        let path = folder.events();
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("writing {}", path.display()))?;
        Self::start(folder, file, 0.0, lock, sinks)
    }

    /// Goes on with the events of an earlier run: a torn last line is cut off, and of the others only those stay that `keep` accepts
    /// (called for each event in the order of the file; see [`until_checkpoint`]). Time goes on from the last event kept.
    ///
    /// # Errors
    /// As [`create`](Self::create); also for a damaged log, and ([`Usage`](crate::failure::Usage)) for one with events that only a
    /// newer moue understands, because nobody could say whether those lie behind the point of resume.
    pub fn resume(folder: &RunFolder, sinks: Vec<Box<dyn Sink>>, mut keep: impl FnMut(&Event) -> bool) -> Result<Self> {
        let lock = lock(folder)?;
        let path = folder.events();
        let mut reader = EventReader::open(folder)?;
        let before = write_atomic(&path, |w| {
            let mut before = 0.0;
            while let Some(line) = reader.next_line()? {
                let Line::Event(event) = line else {
                    usage!("this run was written by a newer moue: resume it with that version");
                };
                if keep(&event) {
                    before = event.t;
                    write_line(w, &event)?;
                }
            }
            Ok(before)
        })?;
        let file = OpenOptions::new().append(true).open(&path).with_context(|| format!("writing {}", path.display()))?;
        Self::start(folder, file, before, lock, sinks)
    }

    fn start(folder: &RunFolder, file: File, before: f64, lock: File, sinks: Vec<Box<dyn Sink>>) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let failure = Failure::default();
        let shows = sinks.into_iter().map(Show::start).collect::<io::Result<Vec<_>>>().context("starting a progress view")?;
        let thread = {
            let (queue, failure, path) = (Arc::clone(&queue), Arc::clone(&failure), folder.events());
            thread::Builder::new().name("events".into()).spawn(move || write_events(file, path, &queue, shows, &failure))
        };
        Ok(Self {
            folder: folder.clone(),
            sender: EventSender { queue, began: Instant::now(), before },
            failure,
            thread: Some(thread.context("starting the event writer")?),
            _lock: lock,
        })
    }

    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// The error that stopped the log, if any. Costs a lock; call it once an interval.
    pub fn check(&self) -> Result<()> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
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
            keep_first(&self.failure, "the event writer panicked".into());
        }
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.close();
    }
}

/// Keeps a log up to and including the checkpoint `path` (as its event names it): the usual argument of [`EventWriter::resume`].
pub fn until_checkpoint(path: &str) -> impl FnMut(&Event) -> bool + '_ {
    let mut behind = false;
    move |event| {
        let keep = !behind;
        behind |= matches!(&event.body, Body::Checkpoint { path: p } if p == path);
        keep
    }
}

fn lock(folder: &RunFolder) -> Result<File> {
    let path = folder.path().join(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("writing {}", path.display()))?;
    let mut locked = file.try_lock();
    // Who watches a run touches the lock for an instant to see whether it is held.
    for _ in 0..GLANCES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        locked = file.try_lock();
    }
    match locked {
        Err(TryLockError::WouldBlock) => usage!("another process is writing the run {}", folder.path().display()),
        // A file system without locks (some network mounts) is no reason to refuse a run.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn write_line(w: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *w, event)?;
    w.write_all(b"\n")
}

fn keep_first(failure: &Failure, error: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

fn write_events(file: File, path: PathBuf, queue: &Queue, shows: Vec<Show>, failure: &Failure) {
    let mut writer = Some(BufWriter::with_capacity(1 << 16, file));
    while let Some(events) = queue.take(PATIENCE) {
        if let Some(w) = &mut writer {
            let mut result = events.iter().try_for_each(|event| write_line(w, event)).and_then(|()| w.flush());
            // A resume reads up to a checkpoint's event: it must be on the disk like the checkpoint itself.
            if events.iter().any(|e| matches!(e.body, Body::Checkpoint { .. })) {
                result = result.and_then(|()| w.get_ref().sync_data());
            }
            if let Err(error) = result {
                stop(&mut writer, &path, &error, failure);
            }
        }
        for event in &events {
            shows.iter().for_each(|show| show.queue.push(Arc::clone(event)));
        }
    }
    if let Some(w) = &writer
        && let Err(error) = w.get_ref().sync_all()
    {
        stop(&mut writer, &path, &error, failure);
    }
    let deadline = Instant::now() + FAREWELL;
    shows.iter().for_each(|show| show.queue.close());
    for show in shows {
        show.end(deadline);
    }
}

fn stop(writer: &mut Option<BufWriter<File>>, path: &Path, error: &io::Error, failure: &Failure) {
    keep_first(failure, format!("writing {}: {error}", path.display()));
    if let Some(w) = writer.take() {
        // Dropping the buffer would try to write it once more, behind the gap.
        let _ = w.into_parts();
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
        assert_eq!(is_written(&folder), None);
        let writer = EventWriter::create(&folder, vec![]).unwrap();
        assert_eq!(is_written(&folder), Some(true));
        steps(&writer.sender(), 0..7);
        let error = EventWriter::resume(&folder, vec![], |_| true).err().unwrap();
        assert!(exit_code(&error) == 2 && one_line(&error).contains("another process"), "{error:#}");
        // Dropping writes all that was sent, as in a panic of the loop.
        drop(writer);
        assert_eq!(events(&folder).len(), 9);
        drop(EventWriter::resume(&folder, vec![], |_| true).unwrap());
        assert_eq!(is_written(&folder), Some(false));
    }

    #[test]
    fn time_and_steps_go_on_after_a_resume() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, vec![]).unwrap();
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
        let writer = EventWriter::resume(&folder, vec![], until_checkpoint("checkpoints/4")).unwrap();
        assert!(cfg!(not(unix)) || following.replaced());
        steps(&writer.sender(), 5..9);
        writer.finish().unwrap();
        let events = events(&folder);
        let seen: Vec<u64> = events.iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(events.is_sorted_by_key(|e| e.t), "{events:?}");
        assert!(!events.iter().any(|e| matches!(e.body, Body::RunFinished { .. })));
        // A second beginning of the same run is refused.
        assert!(EventWriter::create(&folder, vec![]).is_err());
    }

    #[test]
    fn a_resume_refuses_events_it_does_not_know() {
        let (_root, folder) = run();
        let writer = EventWriter::create(&folder, vec![]).unwrap();
        steps(&writer.sender(), 1..3);
        writer.finish().unwrap();
        let text = fs::read_to_string(folder.events()).unwrap().replacen("scalars", "spectra", 1);
        fs::write(folder.events(), &text).unwrap();
        let error = EventWriter::resume(&folder, vec![], |_| true).err().unwrap();
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
        let writer = EventWriter::create(&folder, sinks.collect()).unwrap();
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

    /// `/dev/full` refuses every write.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told() {
        let (_root, folder) = run();
        std::os::unix::fs::symlink("/dev/full", folder.events()).unwrap();
        let file = OpenOptions::new().append(true).open(folder.events()).unwrap();
        let writer = EventWriter::start(&folder, file, 0.0, lock(&folder).unwrap(), vec![]).unwrap();
        steps(&writer.sender(), 1..3);
        let error = (0..100).find_map(|_| {
            thread::sleep(Duration::from_millis(20));
            writer.check().err()
        });
        assert!(one_line(&error.unwrap()).contains("No space left"));
        assert!(one_line(&writer.finish().unwrap_err()).contains("events.jsonl"));
    }
}
