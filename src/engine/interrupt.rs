//! A request to stop: the first one finishes the step and saves, the second ends the process at once.

use crate::run::progress::restore_terminal;
use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens for SIGINT, SIGTERM and console events. Call once, before training.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            restore_terminal();
            std::process::exit(130);
        }
    })
    .context("cannot listen for interrupts")
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
