//! What the person at the terminal, or a signal, asks of a run: to stop, to hold still, to save now. The training loop looks after every step;
//! whoever asks waits for nothing.

use super::prints::Prints;
use super::writer::Sink;
use crate::failure::survive;
use anyhow::{Context, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Between two looks of a loop that is held.
const LOOK: Duration = Duration::from_millis(50);
/// How long a signal leaves a step that can be done again to come to its end. What was before it takes its time to be saved, too.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a signal leaves any work to come to a place where it can be saved. Whoever ends a machine is not patient for much longer.
const GRACE: Duration = Duration::from_secs(8);

/// Work was broken off because the run is to stop. No failure: what is saved is whole, and a resume does the rest.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped on request")
    }
}

impl std::error::Error for Stopped {}

/// Who looks after a run: those that show it, the one that steers it, and the one that collects what is printed meanwhile.
#[derive(Default)]
pub struct Supervision {
    pub sinks: Vec<Box<dyn Sink>>,
    pub control: Control,
    pub prints: Prints,
}

/// Clones ask the same run.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Wishes>);

#[derive(Debug, Default)]
struct Wishes {
    stop: AtomicBool,
    pause: AtomicBool,
    save: AtomicBool,
    /// A signal has waited for [`PATIENCE`].
    overdue: AtomicBool,
    /// The work has seen that it is to stop, and only saves what there is.
    ending: AtomicBool,
    /// What is done last in a process that ends here.
    farewell: OnceLock<fn()>,
}

impl Control {
    /// Asks to finish the step, save and end. True if that was asked before: the person wants it at once.
    pub fn stop(&self) -> bool {
        self.0.stop.swap(true, Ordering::SeqCst)
    }

    pub fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// For work of many parts, between two of them.
    ///
    /// # Errors
    /// [`Stopped`] where the run is to stop.
    pub fn go_on(&self) -> Result<()> {
        if self.stopping() { Err(Stopped.into()) } else { Ok(()) }
    }

    /// A run begins: what one before it in this process came to does not count.
    pub fn begin(&self) {
        self.0.ending.store(false, Ordering::SeqCst);
    }

    /// The work says that it has come to its end, of whatever kind: from now on it is only saved.
    pub fn end(&self) {
        self.0.ending.store(true, Ordering::SeqCst);
    }

    /// Does `work`, which can be done again. Where a signal waits for its end for too long, `save` is called beside it and the process ends, so
    /// that nothing from before is lost. `save` calls [`Control::end`] once nothing but the disk is waited for: what comes from a device may
    /// have to wait for the step, too, and then the process ends without it.
    pub fn or_leave<R>(&self, work: impl FnOnce() -> R, save: impl FnOnce() -> Result<()> + Send) -> R {
        let (done, end) = mpsc::channel::<()>();
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
                if self.0.overdue.load(Ordering::SeqCst) {
                    self.leave(survive(save));
                }
            }
        };
        thread::scope(move |scope| {
            scope.spawn(look);
            let result = work();
            drop(done);
            result
        })
    }

    /// Ends the process, with 130 like every end that work did not come to by itself.
    fn leave(&self, saved: Result<()>) -> ! {
        if let Some(farewell) = self.0.farewell.get() {
            farewell();
        }
        let code = match saved {
            Ok(()) => {
                eprintln!("stopped in a step that takes long; what was before it is saved, and is gone on from as after any stop");
                130
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                1
            }
        };
        std::process::exit(code)
    }

    /// Lets a moment pass; false where the run is to stop instead of waiting.
    pub fn hold(&self) -> bool {
        if !self.stopping() {
            thread::sleep(LOOK);
        }
        !self.stopping()
    }

    /// Asks to hold still after the step, or to go on.
    pub fn pause_or_go_on(&self) {
        self.0.pause.fetch_xor(true, Ordering::SeqCst);
    }

    pub fn paused(&self) -> bool {
        self.0.pause.load(Ordering::SeqCst) && !self.stopping()
    }

    /// Returns when the run may go on, or is to stop.
    pub fn wait(&self) {
        while self.paused() {
            thread::sleep(LOOK);
        }
    }

    /// Asks for a checkpoint after the step.
    pub fn save(&self) {
        self.0.save.store(true, Ordering::SeqCst);
    }

    /// Whether a checkpoint is asked for and not yet taken up.
    pub fn saving(&self) -> bool {
        self.0.save.load(Ordering::SeqCst)
    }

    /// Takes the wish for a checkpoint, to fulfil it.
    pub fn take_save(&self) -> bool {
        self.0.save.swap(false, Ordering::SeqCst)
    }

    /// Takes SIGINT and SIGTERM (on Windows the console's events) as the wish to stop; the second one ends the process with code 130, after
    /// `farewell`. Where a step does not end for [`PATIENCE`], the process ends without it ([`Control::or_leave`]); where other work does not
    /// come to a place where it can be saved for [`GRACE`], it ends with 130, and what was saved before is on the disk. A terminal that goes
    /// away (SIGHUP) is no such wish, for a night's work must not hang on a connection: `hang_up` says what then. Once a process.
    pub fn listen(&self, farewell: fn(), hang_up: fn()) -> Result<()> {
        let control = self.clone();
        let _ = self.0.farewell.set(farewell);
        let stop = move || {
            if control.stop() {
                farewell();
                std::process::exit(130);
            }
            let control = control.clone();
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                control.0.overdue.store(true, Ordering::SeqCst);
                thread::sleep(GRACE - PATIENCE);
                if !control.0.ending.load(Ordering::SeqCst) {
                    farewell();
                    let seconds = GRACE.as_secs();
                    eprintln!("error: what was under way did not end within {seconds} s; go on from the newest checkpoint with --resume");
                    std::process::exit(130);
                }
            });
        };
        signals(stop, hang_up)
    }
}

#[cfg(unix)]
fn signals(stop: impl Fn() + Send + 'static, hang_up: impl Fn() + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let listen = move || signals.forever().for_each(|signal| if signal == SIGHUP { hang_up() } else { stop() });
    thread::Builder::new().name("signals".into()).spawn(listen).context("cannot listen for signals")?;
    Ok(())
}

#[cfg(not(unix))]
fn signals(stop: impl Fn() + Send + 'static, _: impl Fn() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(stop).context("cannot listen for interrupts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wish_is_taken_once() {
        let control = Control::default();
        let other = control.clone();
        other.save();
        assert!(control.saving() && control.take_save() && !control.take_save());
        assert!(!other.stop() && other.stop() && control.stopping());
    }

    #[test]
    fn work_in_parts_ends_between_two() {
        let control = Control::default();
        assert!(control.go_on().is_ok() && control.hold());
        control.stop();
        assert!(control.go_on().context("in a part").unwrap_err().is::<Stopped>() && !control.hold());
    }

    #[test]
    fn a_held_run_goes_on_when_asked_or_stopped() {
        for stop in [false, true] {
            let control = Control::default();
            control.pause_or_go_on();
            assert!(control.paused());
            let held = control.clone();
            let waiting = thread::spawn(move || held.wait());
            thread::sleep(2 * LOOK);
            assert!(!waiting.is_finished());
            if stop {
                control.stop();
            } else {
                control.pause_or_go_on();
            }
            let start = Instant::now();
            waiting.join().unwrap();
            assert!(start.elapsed() < Duration::from_secs(5) && !control.paused());
        }
    }
}
