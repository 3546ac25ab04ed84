//! The training engine: one loop for every objective.
//!
//! ```text
//! loader threads --batch--> shards (forward, backward) --gradients--> clip -> AdamW -> objective.after_step -> events
//!                                                                              \--> checkpoint (epoch ends, interruptions)
//! ```
//! A GPU is not waited for within a step: loss, norm and responses are [`reading`] on their way while the optimiser is launched, and where they
//! turn out not to be finite what it made is dropped ([`step`]).
//!
//! What goes wrong on the way has its places: [`fit`] where the device lacks memory, [`guard`] where numbers are not finite,
//! [`disk`](crate::run::disk) where there is no room, [`device::OpenDevice::is_lost`] where the
//! device is gone.
//!
//! [`objective::Objective`] is what pretraining and finetuning implement; everything else here is shared. The engine reads no flag and no
//! environment variable: all it needs arrives in a [`train::Plan`].

pub mod adapters;
pub mod device;
pub mod fit;
pub mod guard;
pub mod interval;
mod learner;
pub mod loader;
pub mod memory;
pub mod objective;
pub mod optimizer;
pub mod parameters;
pub mod precision;
pub mod reading;
pub mod schedule;
pub mod shards;
pub mod step;
pub mod train;
pub mod tuning;
mod wgsl_server;

use anyhow::Result;
use burn::tensor::Tensor;

/// Waits for the device and copies a tensor's values, row-major, as f32.
pub fn read_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data().map_err(|e| anyhow::anyhow!("reading from the device: {e:?}"))?;
    data.convert::<f32>().try_to_vec::<f32>().map_err(|e| anyhow::anyhow!("reading from the device: {e:?}"))
}
