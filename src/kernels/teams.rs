//! How `shaders/layer_norm.wgsl` and `shaders/softmax.wgsl` share the values of a row among threads.

use super::gpu::Constants;

/// Threads of a workgroup, as in the shaders.
const THREADS: usize = 256;
const LEAST_LANES: usize = 16;
/// Quads of values that a thread keeps in registers.
const MOST_QUADS: usize = 4;

/// The threads of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Team {
    /// A power of two: a workgroup holds whole teams.
    lanes: usize,
    /// Quads of values of each.
    quads: usize,
}

impl Team {
    /// For rows of `width` values; none for rows that do not fit into the registers of a workgroup.
    pub fn of(width: usize) -> Option<Self> {
        // As few idle places as can be; among equals three quads before two and one, which leaves fewer to wait for each other.
        let within = |quads: usize| {
            let lanes = width.div_ceil(4 * quads).next_power_of_two().max(LEAST_LANES);
            (lanes <= THREADS).then_some(Self { lanes, quads })
        };
        (1..MOST_QUADS).rev().filter_map(within).min_by_key(Team::places).or_else(|| within(MOST_QUADS))
    }

    /// Every team that [`Team::of`] may give.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=MOST_QUADS).flat_map(|quads| [16, 32, 64, 128, 256].map(|lanes| Self { lanes, quads }))
    }

    fn places(&self) -> usize {
        4 * self.lanes * self.quads
    }

    /// Rows that a workgroup has at a time.
    pub fn rows(self) -> usize {
        THREADS / self.lanes
    }

    pub fn constants(self) -> Constants {
        vec![("LANES", self.lanes as u32), ("QUADS", self.quads as u32)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_and_few_places_are_idle() {
        for width in 1..=4096 {
            let team = Team::of(width).unwrap();
            assert!(team.places() >= width && THREADS.is_multiple_of(team.lanes), "{width}: {team:?}");
            assert!(Team::all().any(|known| known == team), "{width}: {team:?}");
            assert!(width <= 128 || width > 3072 || 2 * team.places() <= 3 * width, "{width}: {team:?}");
        }
        assert_eq!(Team::of(4097), None);
        assert_eq!(Team::of(768), Some(Team { lanes: 64, quads: 3 }));
        assert_eq!(Team::of(208), Some(Team { lanes: 32, quads: 2 }));
    }
}
