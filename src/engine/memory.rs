//! How much memory training takes.

use burn::prelude::Device;

/// Bytes that the device's allocator has reserved; where it does not say (on the CPU), those of the process that are in memory.
pub fn reserved(device: &Device) -> Option<u64> {
    match device.memory_pool_usage() {
        Some(usage) => Some(usage.bytes_reserved),
        None => memory_stats::memory_stats().map(|stats| stats.physical_mem as u64),
    }
}
