//! What libraries and drivers print while something else has the terminal. On Unix the standard output and error are led into a pipe, whose
//! lines become messages of the run, and so come into its log, or onto the standard error where there was no run; elsewhere they are left
//! alone.

use super::event::{At, Body, Level};
use super::writer::EventSender;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Lines kept while no run takes them.
const KEPT: usize = 1000;

/// Where printed lines go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Prints(Arc<Mutex<Taker>>);

#[derive(Default)]
struct Taker {
    run: Option<EventSender>,
    waiting: Vec<String>,
}

impl Prints {
    /// Lines become messages of this run, also those that wait; until the returned guard is dropped.
    pub fn attach(&self, run: EventSender) -> Attached<'_> {
        let mut taker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taker.waiting.drain(..).for_each(|line| tell(&run, line));
        taker.run = Some(run);
        Attached(self)
    }

    fn take(&self, line: String) {
        let mut taker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &taker.run {
            Some(run) => tell(run, line),
            None if taker.waiting.len() < KEPT => taker.waiting.push(line),
            None => {}
        }
    }

    /// Prints what no run took. Call it when the terminal is free again.
    pub fn release(&self) {
        let mut taker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in taker.waiting.drain(..) {
            // Nobody is left to tell of a failure.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

fn tell(run: &EventSender, line: String) {
    run.emit(&At::run(), Body::Message { level: Level::Info, text: format!("printed: {line}") });
}

pub struct Attached<'a>(&'a Prints);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).run = None;
    }
}

#[cfg(unix)]
mod capture {
    use super::*;
    use rustix::stdio::{dup2_stderr, dup2_stdout};
    use std::fs::File;
    use std::io::{BufRead, BufReader, IsTerminal};
    use std::os::fd::{AsFd, OwnedFd};
    use std::thread;

    /// The standard output and error as they were, while they are led away.
    static REAL: Mutex<Option<[OwnedFd; 2]>> = Mutex::new(None);

    /// Leads the standard output and error to `prints`, and returns the real standard output.
    pub fn begin(prints: &Prints) -> io::Result<Box<dyn Write + Send>> {
        let mut real = REAL.lock().unwrap_or_else(PoisonError::into_inner);
        let fds = [io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?];
        let out = File::from(fds[0].try_clone()?);
        let (reader, writer) = io::pipe()?;
        let prints = prints.clone();
        thread::Builder::new().name("prints".into()).spawn(move || {
            let mut line = Vec::new();
            let mut reader = BufReader::new(reader);
            while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line);
                if !text.trim().is_empty() {
                    prints.take(text.trim_end().to_string());
                }
                line.clear();
            }
        })?;
        io::stdout().flush()?;
        // An error output that goes to a file goes on going there.
        let errors_shown = io::stderr().is_terminal();
        *real = Some(fds);
        dup2_stdout(&writer)?;
        if errors_shown {
            dup2_stderr(&writer)?;
        }
        Ok(Box::new(out))
    }

    /// Puts an input in place of the standard one on which nothing ever comes. Whoever reads keys from a terminal that went away would otherwise
    /// read its end again and again (crossterm 0.29 does, inside one call), on a core that training needs.
    pub fn silence_input() {
        if let Ok((reader, writer)) = io::pipe()
            && rustix::stdio::dup2_stdin(&reader).is_ok()
        {
            std::mem::forget(writer);
        }
    }

    /// Gives the standard output and error back. Does nothing where they were not led away.
    pub fn end() {
        // Not to be waited for: a panic may come from anywhere.
        let Ok(mut real) = REAL.try_lock() else { return };
        if let Some([out, error]) = real.take() {
            let _ = io::stdout().flush();
            let _ = dup2_stdout(&out);
            let _ = dup2_stderr(&error);
        }
    }
}

#[cfg(not(unix))]
mod capture {
    use super::*;

    pub fn begin(_: &Prints) -> io::Result<Box<dyn Write + Send>> {
        Ok(Box::new(io::stdout()))
    }

    pub fn end() {}

    pub fn silence_input() {}
}

pub use capture::{begin, end, silence_input};
