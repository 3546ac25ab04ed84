pub mod cli;
pub mod dataset;
pub mod failure;
pub mod random;
pub mod transform;
