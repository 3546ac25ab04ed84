//! Values that are read while the device goes on with what was asked of it afterwards.
//!
//! burn's own reading begins when somebody waits for it, behind all that has been asked of a device by then. Here a copy is asked for at once,
//! and what follows need not be done for it to be had.

use super::read_values;
use crate::kernels::queue::{Copied, gpu_of};
use crate::kernels::updates::copied_out;
use anyhow::{Context, Result};
use burn::prelude::*;
use std::sync::mpsc::{Receiver, channel};

/// Values on their way.
pub struct Reading {
    values: Tensor<1>,
    copied: Option<Receiver<Option<Copied>>>,
}

impl Reading {
    /// Asks for the values of f32.
    pub fn begin(values: Tensor<1>) -> Self {
        if gpu_of(&values.device()).is_none() {
            return Self { values, copied: None };
        }
        let (tell, copied) = channel();
        Self { values: copied_out(values, tell), copied: Some(copied) }
    }

    /// Waits for them.
    ///
    /// # Errors
    /// When the device does not hand them out, for example because it had no memory for what they are made of.
    pub fn wait(self) -> Result<Vec<f32>> {
        let device = self.values.device();
        let copied = match &self.copied {
            Some(copied) => {
                device.flush().map_err(|e| anyhow::anyhow!("waiting for the device: {e:?}"))?;
                copied.recv().ok().flatten()
            }
            None => None,
        };
        match copied {
            Some(copied) => Ok(gpu_of(&device).context("the device is gone")?.copied(copied)?),
            // What is wrong with the values is told when they are read.
            None => read_values(self.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_cpu_are_there() {
        let values = Tensor::<1>::from_data([1.0, 2.5], &Device::flex());
        assert_eq!(Reading::begin(values).wait().unwrap(), [1.0, 2.5]);
    }
}
