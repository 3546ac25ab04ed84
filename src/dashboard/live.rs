//! The dashboard over a run of this very process: it follows the run's folder like any other reader, on a thread of its own, so a slow or dead
//! terminal costs the run nothing; and it hands the reader's wishes to the run's [`Control`].

use super::app::{App, Next};
use super::graphics::Graphics;
use super::terminal::{Screen, leave};
use super::theme::Theme;
use crate::run::prints::Prints;
use crate::run::{Control, RunFolder};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

/// How long a terminal that does not move is waited for at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// The dashboard while it is shown. Dropping it gives the terminal back.
pub struct Live {
    /// Runs to be shown; closed at the end.
    runs: Option<Sender<PathBuf>>,
    done: Receiver<()>,
    prints: Prints,
}

impl Live {
    /// Takes the terminal.
    pub fn open(theme: Theme, graphics: Option<Graphics>, control: Control) -> Result<Self> {
        let prints = Prints::default();
        let mut screen = Screen::enter(&prints)?;
        let (runs, wanted) = mpsc::channel();
        let (ended, done) = mpsc::channel();
        let body = move || {
            let mut app = App::live(theme, control);
            app.set_graphics(graphics);
            let next = screen.show(&mut app, |app| match wanted.try_recv() {
                Ok(path) => {
                    app.turn_to(path);
                    false
                }
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => true,
            });
            drop(screen);
            if matches!(next, Ok(Next::End)) {
                std::process::exit(130);
            }
            // A terminal that went away is no reason to stop the run.
            let _ = ended.send(());
        };
        thread::Builder::new().name("dashboard".into()).spawn(body).context("starting the dashboard").inspect_err(|_| leave())?;
        Ok(Self { runs: Some(runs), done, prints })
    }

    /// Turns to a run that is about to begin, or has begun.
    pub fn show(&self, folder: &RunFolder) {
        if let Some(runs) = &self.runs {
            // Where the terminal is gone, nobody looks.
            let _ = runs.send(folder.path().to_path_buf());
        }
    }

    /// Takes what libraries print meanwhile.
    pub fn prints(&self) -> Prints {
        self.prints.clone()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.runs.take());
        let _ = self.done.recv_timeout(FAREWELL);
        // Where the thread does not come to its end, what follows still has to be printed, and not into the pipe.
        leave();
        self.prints.release();
    }
}
