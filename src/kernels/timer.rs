//! How long launches take on a device, by its own clock: a timestamp before each launch and one behind it.
//!
//! A launch waits for those before it anyway, so little is added. What lies between two launches is burn's own work, or a device that waits.

use super::gpu::{GpuError, Launch, read};
use std::collections::HashMap;
use std::fmt;

/// Timestamps of a set: what WebGPU allows.
const MOST: u32 = wgpu::QUERY_SET_MAX_QUERIES;

/// A shader as it was launched: launches of the same name did the same amount of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    kernel: &'static str,
    entry: &'static str,
    /// Those constants that are not zero.
    constants: Vec<(&'static str, u32)>,
    /// Workgroups.
    groups: usize,
}

impl Name {
    pub fn of<P>(launch: &Launch<P>) -> Self {
        let constants = launch.constants.iter().copied().filter(|(_, value)| *value != 0).collect();
        Self { kernel: launch.kernel.name, entry: launch.kernel.entry, constants, groups: launch.samples * launch.groups }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernel)?;
        if !self.kernel.starts_with(self.entry) {
            write!(f, " {}", self.entry)?;
        }
        for (name, value) in &self.constants {
            match value {
                1 => write!(f, " {name}")?,
                _ => write!(f, " {name}={value}")?,
            }
        }
        write!(f, " x {}", self.groups)
    }
}

/// A launch on the device's clock, in milliseconds since the first one.
#[derive(Clone, Debug, PartialEq)]
pub struct Lap {
    pub name: Name,
    pub begin: f64,
    pub end: f64,
}

/// Takes the time of launches.
#[derive(Default)]
pub struct Timer {
    sets: Vec<wgpu::QuerySet>,
    names: Vec<Name>,
}

impl Timer {
    /// Where the times of the next launch go.
    pub fn next(&mut self, device: &wgpu::Device, name: Name) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * self.names.len() as u32 % MOST;
        if first == 0 {
            self.sets.push(device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timer"),
                ty: wgpu::QueryType::Timestamp,
                count: MOST,
            }));
        }
        self.names.push(name);
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[self.sets.len() - 1],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// All laps, once what has been submitted is done.
    ///
    /// # Errors
    /// When the device does not hand them out.
    pub fn read(self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Vec<Lap>, GpuError> {
        let mut ticks: Vec<u64> = Vec::new();
        for (i, set) in self.sets.iter().enumerate() {
            let count = (2 * self.names.len() - i * MOST as usize).min(MOST as usize);
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let size = (count * size_of::<u64>()) as u64;
            let buffer = device.create_buffer(&wgpu::BufferDescriptor { label: Some("timer"), size, usage, mapped_at_creation: false });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("timer") });
            encoder.resolve_query_set(set, 0..count as u32, &buffer, 0);
            queue.submit([encoder.finish()]);
            ticks.extend(read::<u64>(device, queue, &buffer)?);
        }
        let period = f64::from(queue.get_timestamp_period()) / 1e6;
        let first = ticks.first().copied().unwrap_or(0);
        let milliseconds = |tick: u64| tick.wrapping_sub(first) as i64 as f64 * period;
        let laps = self.names.into_iter().zip(ticks.chunks_exact(2));
        Ok(laps.map(|(name, times)| Lap { name, begin: milliseconds(times[0]), end: milliseconds(times[1]) }).collect())
    }
}

/// The time of all laps of a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    pub name: Name,
    pub laps: usize,
    pub milliseconds: f64,
}

/// Laps by name, those that took longest first.
pub fn totals(laps: &[Lap]) -> Vec<Total> {
    let mut by_name: HashMap<&Name, (usize, f64)> = HashMap::new();
    for Lap { name, begin, end } in laps {
        let (count, milliseconds) = by_name.entry(name).or_default();
        *count += 1;
        *milliseconds += end - begin;
    }
    let of = |(name, (laps, milliseconds)): (&Name, (usize, f64))| Total { name: name.clone(), laps, milliseconds };
    let mut totals: Vec<Total> = by_name.into_iter().map(of).collect();
    totals.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds).then_with(|| a.name.to_string().cmp(&b.name.to_string())));
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(entry: &'static str, groups: usize) -> Name {
        Name { kernel: "softmax", entry, constants: vec![("SIDE", 4), ("TALL", 1)], groups }
    }

    #[test]
    fn laps_add_up_by_name() {
        let lap = |name: &Name, begin: f64, end: f64| Lap { name: name.clone(), begin, end };
        let (a, b) = (name("forward", 7), name("gradient", 7));
        let totals = totals(&[lap(&a, 0.0, 1.0), lap(&b, 1.5, 5.5), lap(&a, 6.0, 8.0)]);
        let expected = [(b.clone(), 1, 4.0), (a.clone(), 2, 3.0)];
        assert_eq!(totals, expected.map(|(name, laps, milliseconds)| Total { name, laps, milliseconds }));
        assert_eq!(a.to_string(), "softmax forward SIDE=4 TALL x 7");
        assert_ne!(a, name("forward", 8));
    }
}
