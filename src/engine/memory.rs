//! How much memory training takes, and how much there is.

use burn::prelude::Device;

/// Bytes that the device's allocator has reserved; where it does not say (on the CPU), those of the process that are in memory.
pub fn reserved(device: &Device) -> Option<u64> {
    match device.memory_pool_usage() {
        Some(usage) => Some(usage.bytes_reserved),
        None => memory_stats::memory_stats().map(|stats| stats.physical_mem as u64),
    }
}

/// Bytes of main memory that nobody uses now, caches counted as free; none where the system does not say (`/proc/meminfo`).
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
