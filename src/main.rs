//! Parse, dispatch, exit code. 0: done; 1: the work failed; 2: it was asked for wrongly.

#![forbid(unsafe_code)]

use clap::Parser;
use moue::cli::Cli;
use moue::failure;
use std::process::ExitCode;

// Training allocates and frees large tensors at a high rate; the system allocator returns each to the kernel, which costs a quarter of
// the time of a CPU step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", failure::one_line(&error));
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
