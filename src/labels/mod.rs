//! From votes to candidate sets, and from candidate sets to a decided label.
//!
//! [`candidates`] says which classes a face may have, from votes or a file; [`predicted`] says it from predictions; [`response`] makes
//! probabilities of what a network says; [`confidence`] holds how much each class is
//! believed and revises that belief during training. None of them ever sees a true label or the test split.

pub mod candidates;
pub mod confidence;
pub mod predicted;
pub mod response;

pub use candidates::{CandidateSet, Candidates, Prediction, Provenance};
pub use confidence::ConfidenceTable;
pub use predicted::Evidence;
