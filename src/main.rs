//! Parse, dispatch, exit code. 0: done; 1: the work failed; 2: it was asked for wrongly.

use clap::Parser;
use moue::cli::Cli;
use moue::failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", failure::one_line(&error));
            ExitCode::from(failure::exit_code(&error))
        }
    }
}
