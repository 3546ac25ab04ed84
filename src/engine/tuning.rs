//! Which of its kernels burn takes for an operation on a GPU: the fastest, or always the same.
//!
//! burn has several kernels for matrix products, reductions and more. At the first operation of a shape it tries them, in an order of
//! preference, until one comes near the speed of the device, which it measures beforehand; where none does, the fastest wins. The sums of
//! two kernels differ in their last digits, and timings differ from process to process, so a training repeated or resumed may end with
//! other weights. Trials also cost: on an H200, where the driver takes up to 19 seconds for one of these kernels, a ViT-B/16 had not made its
//! first step after 80 seconds. Told that the device is very slow, burn is content with the first kernel that works: the same one in each
//! process. What a transformer's time goes into are kernels of our own anyway ([`crate::kernels`]).

use super::wgsl_server::Server;
use crate::config;
use anyhow::{Result, anyhow};
use cubecl::client::Client;
use cubecl::throughput::{MemoryAccess, MemorySpec, ThroughputKey, ThroughputMode, ThroughputValue, working_set_sweep};
use cubecl::wgpu::WgpuDevice;
use cubecl_common::device::Device;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// How kernels are chosen on an opened device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// By burn's order of preference. The one choice that is still left to timing is how a reduction that is read by the operations after it
    /// (a softmax, a norm) is fused with them; and convolutions are always timed.
    Fixed,
    /// By time, anew in each process.
    Timed,
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Timed => "timed",
        })
    }
}

/// Per second: bytes of memory, operations and starts of kernels.
struct Speed {
    bytes: usize,
    operations: usize,
    starts: usize,
}

/// Every kernel reaches it.
const NONE: Speed = Speed { bytes: 1, operations: 1, starts: 1 };
/// What a software driver reaches with ease: what matters there is an early end of the trials, not the last third of the speed.
const SOFTWARE: Speed = Speed { bytes: 100_000_000, operations: 100_000_000, starts: 100 };

impl Kernels {
    /// What a setting means.
    pub fn of(setting: config::Kernels) -> Self {
        match setting {
            config::Kernels::Fixed | config::Kernels::Auto => Self::Fixed,
            config::Kernels::Timed => Self::Timed,
        }
    }

    /// Makes burn choose so on a device that is registered and that nothing has been computed on. On a software driver the speeds are stated
    /// in any case: measuring them takes copies of up to a gigabyte, which are seconds for each, or out of memory, which is a panic on a
    /// thread of cubecl's.
    pub(super) fn apply(self, device: &WgpuDevice, is_hardware: bool) -> Result<()> {
        let client = Client::load::<Server>(device.to_id());
        match self {
            Self::Fixed => state(&client, &NONE),
            Self::Timed if !is_hardware => state(&client, &SOFTWARE),
            Self::Timed => Ok(()),
        }
    }
}

/// Tells burn the speed of a device, which it would otherwise measure. That stays in this process as long as cubecl is built without its
/// feature `persistence`, which deny.toml sees to.
fn state(client: &Client, speed: &Speed) -> Result<()> {
    let accesses = [MemoryAccess::Copy, MemoryAccess::Read, MemoryAccess::Write];
    let sizes = working_set_sweep(MemoryAccess::Copy.default_working_set());
    let memory = accesses.iter().flat_map(|&access| sizes.iter().map(move |&bytes| ThroughputMode::Memory(MemorySpec::new(access, bytes))));
    let compute = client.properties().features.types.elem.keys().map(|&dtype| ThroughputMode::ComputeDirect { dtype });
    let speeds = memory.map(|mode| (mode, speed.bytes)).chain(compute.map(|mode| (mode, speed.operations)));
    for (mode, ops_count) in speeds.chain([(ThroughputMode::Launch, speed.starts)]) {
        let value = ThroughputValue { ops_count, duration: Duration::from_secs(1) };
        let stated = client.measure_throughput(ThroughputKey { mode }, || Ok(value));
        stated.map_err(|e| anyhow!("stating the speed of {mode:?}: {e}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_fixed_unless_somebody_asks_for_the_fastest() {
        assert_eq!(Kernels::of(config::Kernels::Auto), Kernels::Fixed);
        assert_eq!(Kernels::of(config::Kernels::Timed), Kernels::Timed);
    }
}
