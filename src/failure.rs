//! What kind of failure ended a command.
//!
//! Errors travel as `anyhow::Error` with context. The one distinction the program makes is whether the user *asked* for something
//! impossible ([`Usage`], exit code 2) or the work itself failed (everything else, exit code 1).

use anyhow::{Result, anyhow};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request that cannot be carried out as typed: an unknown setting, a device that does not exist, a path that is no pack.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Shorthand for `Err(Usage(..).into())`.
#[macro_export]
macro_rules! usage {
    ($($arg:tt)*) => { return Err($crate::failure::Usage(format!($($arg)*)).into()) };
}

/// Longest line, in characters: a message may quote a damaged file.
const LONGEST: usize = 2000;

/// One line for a person, safe for a terminal: the chain of causes joined by `: `, without the repetition that wrapped io errors bring.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string().replace(char::is_control, " ");
        if text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// The exit code that `error` deserves: 2 for bad usage, 1 for failed work.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Usage>()) { 2 } else { 1 }
}

/// What a caught panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Panics that somebody is about to catch and mend.
static EXPECTED: AtomicUsize = AtomicUsize::new(0);

/// While it lives, panics are not for the user to see.
pub struct Expecting(());

/// Says that panics, on whatever thread, are caught from now on.
#[must_use]
pub fn expect_panics() -> Expecting {
    EXPECTED.fetch_add(1, Ordering::SeqCst);
    Expecting(())
}

impl Drop for Expecting {
    fn drop(&mut self) {
        EXPECTED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The work's result; a panic, as which the tensor library tells what went wrong on a device, is an error.
///
/// # Errors
/// The work's own, and panics.
pub fn survive<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(anyhow!("the tensor library gave up: {}", panic_text(&*panic))))
}

/// Whether panics are being caught: for panic hooks that show something.
pub fn panics_are_expected() -> bool {
    EXPECTED.load(Ordering::SeqCst) > 0
}
