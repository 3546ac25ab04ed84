//! How commands that train show it: the dashboard on a terminal, else lines.

use super::watch::LookArgs;
use crate::dashboard::live::Live;
use crate::dashboard::terminal;
use crate::run::progress::{self, Lines};
use crate::run::{Control, RunFolder, Supervision};
use anyhow::Result;
use clap::Args;
use std::io::{self, Write};

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Progress")]
pub struct ProgressArgs {
    /// Plain lines instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
    #[command(flatten)]
    look: LookArgs,
    /// The standard output is for something else.
    #[arg(skip)]
    aside: bool,
}

/// What shows the runs of a command, one after the other. Dropping it gives the terminal back.
pub struct Progress {
    control: Control,
    live: Option<Live>,
    aside: bool,
}

impl ProgressArgs {
    /// Plain lines on the standard error, for a command whose output another program reads.
    pub fn aside(self) -> Self {
        Self { no_tui: true, aside: true, ..self }
    }

    /// Takes the terminal where there is one that is fit. Nothing is to be refused any more.
    pub fn open(&self, control: &Control) -> Progress {
        let shown = !self.no_tui && terminal::is_fit();
        let live = shown.then(|| Live::open(self.look.theme(), self.look.graphics(), control.clone()).ok()).flatten();
        Progress { control: control.clone(), live, aside: self.aside }
    }
}

impl Progress {
    /// Turns to the run of this folder, which is about to begin.
    pub fn turn_to(&self, folder: &RunFolder) {
        if let Some(live) = &self.live {
            live.show(folder);
        }
    }

    /// Shows the run of this folder from now on.
    pub fn supervise(&self, folder: &RunFolder) -> Result<Supervision> {
        self.turn_to(folder);
        let mut supervision = Supervision { sinks: vec![progress::log(folder)?], control: self.control.clone(), ..Supervision::default() };
        match &self.live {
            Some(live) => supervision.prints = live.prints(),
            None if self.aside => supervision.sinks.push(Box::new(Lines::new(io::stderr()))),
            None => supervision.sinks.push(Box::new(Lines::new(io::stdout()))),
        }
        Ok(supervision)
    }

    /// A remark between two runs; the dashboard shows which run it is anyway.
    pub fn tell(&self, text: &str) {
        if self.live.is_none() {
            remark(io::stdout(), text);
        }
    }
}

/// Whoever looked may be gone: that is no reason to stop what is remarked upon.
fn remark(mut out: impl Write, text: &str) {
    let _ = writeln!(out, "\n{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_is_gone_stops_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        remark(Gone, "run 2 of 3");
        let mut out: Vec<u8> = Vec::new();
        remark(&mut out, "run 2 of 3");
        assert_eq!(out, b"\nrun 2 of 3\n");
    }
}
