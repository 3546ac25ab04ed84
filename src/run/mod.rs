//! A run: its folder, its manifest, the stream of events it writes, and what can be read back from them.
//!
//! ```text
//! engine -> EventSender -> queue -> thread: events.jsonl -> EventReader -> RunSummary, metrics::Table, the dashboard
//!                                     \-> one thread each: Lines, log.txt
//! terminal, signals -> Control -> engine
//! ```
//! [`fingerprint`] gives two people a short word for the same weights, [`differences`] says from two manifests what is not as it was, and
//! [`repetition`] whether two runs found out the same: with the manifest, all that `moue rerun` needs.
//! The events are the truth, everything shown is made from them. This module trains nothing and never needs a GPU.

pub mod checkpoint;
pub mod clock;
pub mod control;
pub mod differences;
pub mod disk;
pub mod event;
pub mod fingerprint;
pub mod folder;
pub mod history;
pub mod manifest;
pub mod metrics;
pub mod predictions;
pub mod prints;
pub mod progress;
pub mod pulse;
mod queue;
pub mod reader;
pub mod repetition;
pub mod summary;
pub mod values;
pub mod writer;

pub use control::{Control, Stopped, Supervision};
pub use event::{At, Body, Event, Level, Outcome, Phase, Stage};
pub use folder::{Lock, RunFolder, write_atomic};
pub use history::HistoryReader;
pub use manifest::Manifest;
pub use predictions::Predictions;
pub use reader::EventReader;
pub use summary::{RunSummary, Status};
pub use values::{Ordered, Scalars};
pub use writer::{EventSender, EventWriter, Sink, until_checkpoint};
