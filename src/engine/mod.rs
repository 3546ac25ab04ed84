//! The training engine: one loop for every objective.
//!
//! ```text
//! loader threads --batch--> shards (forward, backward) --gradients--> clip -> AdamW -> objective.after_step -> events
//!                                                                              \--> checkpoint (epoch ends, interruptions)
//! ```
//! [`objective::Objective`] is what pretraining and finetuning implement; everything else here is shared. The engine reads no flag and no
//! environment variable: all it needs arrives in a [`train::Plan`].

pub mod adapters;
pub mod device;
