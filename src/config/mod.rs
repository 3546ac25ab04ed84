//! Settings: one schema, layered values that remember where they came from.
//!
//! Order of layers: default, presets, file (`--config`), flag (`--set` and friends). A later layer wins, also when it repeats the
//! value it replaces; unknown keys are refused with the nearest known one.

mod device;
mod resolve;
mod schema;

pub use device::{DEVICE_WORDS, DeviceChoice};
pub use resolve::{Origin, Resolved, is_overlay, preset_names, preset_text};
pub use schema::*;
