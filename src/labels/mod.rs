//! From votes to candidate sets, and from candidate sets to a decided label.
//!
//! [`candidates`] says which classes a face may have; [`confidence`] holds how much each of them is believed and revises that belief
//! during training. Neither ever sees a true label or the test split.

pub mod candidates;
pub mod confidence;

pub use candidates::{CandidateSet, Candidates, Provenance};
pub use confidence::ConfidenceTable;
