pub mod cli;
pub mod config;
pub mod dataset;
pub mod failure;
pub mod random;
