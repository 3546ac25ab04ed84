//! Settings: one schema, layered values that remember where they came from.
//!
//! Order of layers: default, presets, file (`--config`), flag (`--set` and friends). A later layer wins, also when it repeats the
//! value it replaces; unknown keys are refused with the nearest known one.

mod choices;
mod device;
mod resolve;
mod schema;
mod validate;

pub use choices::*;
pub use device::{DEVICE_WORDS, DeviceChoice};
pub use resolve::{Origin, Resolved, is_overlay, preset_names, preset_text};
pub use schema::*;
pub use validate::RESNET_BLOCKS;
