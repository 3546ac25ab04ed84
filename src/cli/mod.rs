//! The command line: one file per subcommand, each with its arguments as typed and the function that carries them out.

mod audit;
mod config;
mod data;
mod devices;
mod import;
mod labels;
pub mod output;
mod report;
mod runs;
mod settings;
mod watch;

#[cfg(feature = "train")]
mod ablate;
#[cfg(feature = "train")]
mod bench;
#[cfg(feature = "train")]
mod compare;
#[cfg(feature = "train")]
mod demo;
#[cfg(feature = "train")]
mod doctor;
#[cfg(feature = "train")]
mod evaluate;
#[cfg(feature = "train")]
mod export;
#[cfg(feature = "train")]
mod finetune;
#[cfg(feature = "train")]
mod hog;
#[cfg(feature = "train")]
mod import_weights;
#[cfg(feature = "train")]
mod order;
#[cfg(feature = "train")]
mod plan;
#[cfg(feature = "train")]
mod predict;
#[cfg(feature = "train")]
mod pretrain;
#[cfg(feature = "train")]
mod progress;
#[cfg(feature = "train")]
mod rerun;
#[cfg(feature = "train")]
mod selftest;
#[cfg(feature = "train")]
mod training;

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
    #[cfg(feature = "train")]
    Demo(demo::DemoArgs),
    Import(import::Import),
    /// Generate faces, look into a pack, check it
    Data(data::DataArgs),
    Devices(devices::DevicesArgs),
    #[cfg(feature = "train")]
    Doctor(doctor::DoctorArgs),
    Labels(labels::LabelsArgs),
    #[cfg(feature = "train")]
    Pretrain(pretrain::PretrainArgs),
    #[cfg(feature = "train")]
    Finetune(finetune::FinetuneArgs),
    #[cfg(feature = "train")]
    Rerun(rerun::RerunArgs),
    #[cfg(feature = "train")]
    Evaluate(evaluate::EvaluateArgs),
    #[cfg(feature = "train")]
    Compare(compare::CompareArgs),
    #[cfg(feature = "train")]
    Ablate(ablate::AblateArgs),
    #[cfg(feature = "train")]
    Predict(predict::PredictArgs),
    #[cfg(feature = "train")]
    Export(export::ExportArgs),
    #[cfg(feature = "train")]
    ImportWeights(import_weights::ImportWeightsArgs),
    #[cfg(feature = "train")]
    Hog(hog::HogArgs),
    Audit(audit::AuditArgs),
    Runs(runs::RunsArgs),
    Report(report::ReportArgs),
    Watch(watch::WatchArgs),
    Replay(watch::ReplayArgs),
    #[cfg(feature = "train")]
    Selftest(selftest::SelftestArgs),
    #[cfg(feature = "train")]
    Bench(bench::BenchArgs),
    Config(config::ConfigArgs),
}

impl Cli {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            #[cfg(feature = "train")]
            Command::Demo(args) => args.run(),
            Command::Import(import) => import.run(),
            Command::Data(args) => args.run(),
            Command::Devices(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Doctor(args) => args.run(),
            Command::Labels(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Pretrain(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Finetune(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Rerun(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Evaluate(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Compare(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Ablate(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Predict(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Export(args) => args.run(),
            #[cfg(feature = "train")]
            Command::ImportWeights(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Hog(args) => args.run(),
            Command::Audit(args) => args.run(),
            Command::Runs(args) => args.run(),
            Command::Report(args) => args.run(),
            Command::Watch(args) => args.run(),
            Command::Replay(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Selftest(args) => args.run(),
            #[cfg(feature = "train")]
            Command::Bench(args) => args.run(),
            Command::Config(args) => args.run(),
        }
    }
}
