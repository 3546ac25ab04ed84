//! The command line: one file per subcommand, each with its arguments as typed and the function that carries them out.

pub mod data;
mod devices;
pub mod output;
mod runs;

use clap::{Parser, Subcommand};

/// Train facial-expression recognition from ambiguous labels, and watch every label being decided.
#[derive(Debug, Parser)]
#[command(name = "moue", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Runs(runs::RunsArgs),
    /// Generate faces, look into a pack, check it
    Data(data::DataArgs),
    Devices(devices::DevicesArgs),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Runs(args) => args.run(),
            Command::Data(args) => args.run(),
            Command::Devices(args) => args.run(),
        }
    }
}
