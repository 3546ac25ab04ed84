//! Where the time of a GPU goes: what each of moue's shaders took in a turn, by the device's own clock, and what lay between them.

use crate::kernels::timer::{Lap, totals};
use serde::{Deserialize, Serialize};

/// The launches of one step: all figures are means over the steps of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shaders {
    pub steps: usize,
    /// From the first launch of the turn to the end of the last, for each step.
    pub milliseconds: f64,
    /// Those that took longest first.
    pub totals: Vec<Total>,
    /// The last step, launch by launch.
    pub timeline: Vec<Event>,
}

/// All launches of a shader for so many workgroups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Total {
    pub name: String,
    /// In a step.
    pub launches: f64,
    pub milliseconds: f64,
}

/// A launch, in milliseconds since the first one of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub name: String,
    pub begin: f64,
    pub end: f64,
}

impl Shaders {
    /// Of the laps of so many steps.
    pub fn of(laps: &[Lap], steps: usize) -> Self {
        let steps = steps.max(1);
        let each = |value: f64| value / steps as f64;
        let milliseconds = match (laps.first(), laps.last()) {
            (Some(first), Some(last)) => last.end - first.begin,
            _ => 0.0,
        };
        let totals = totals(laps).into_iter().map(|total| Total {
            name: total.name.to_string(),
            launches: each(total.laps as f64),
            milliseconds: each(total.milliseconds),
        });
        let last = &laps[laps.len() - laps.len() / steps..];
        let start = last.first().map_or(0.0, |lap| lap.begin);
        let event = |lap: &Lap| Event { name: lap.name.to_string(), begin: lap.begin - start, end: lap.end - start };
        Self { steps, milliseconds: each(milliseconds), totals: totals.collect(), timeline: last.iter().map(event).collect() }
    }

    /// Milliseconds of a step in which none of our shaders ran.
    pub fn between(&self) -> f64 {
        self.milliseconds - self.totals.iter().map(|total| total.milliseconds).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gpu::Launch;
    use crate::kernels::product::PLAIN;
    use crate::kernels::timer::Name;

    #[test]
    fn figures_are_of_a_step() {
        let name = |groups: usize| {
            let launch: Launch<()> =
                Launch { kernel: &PLAIN[0], constants: Vec::new(), operands: Vec::new(), samples: 1, groups, params: Vec::new() };
            Name::of(&launch)
        };
        // Two steps of two launches, of which the second ones wait for a millisecond.
        let lap = |groups: usize, begin: f64, end: f64| Lap { name: name(groups), begin, end };
        let laps = [lap(8, 0.0, 2.0), lap(4, 3.0, 4.0), lap(8, 4.0, 7.0), lap(4, 8.0, 10.0)];
        let shaders = Shaders::of(&laps, 2);
        assert_eq!((shaders.milliseconds, shaders.between()), (5.0, 1.0));
        let totals: Vec<_> = shaders.totals.iter().map(|t| (t.name.as_str(), t.launches, t.milliseconds)).collect();
        assert_eq!(totals, [("product/plain x 8", 1.0, 2.5), ("product/plain x 4", 1.0, 1.5)]);
        let timeline: Vec<_> = shaders.timeline.iter().map(|event| (event.begin, event.end)).collect();
        assert_eq!(timeline, [(0.0, 3.0), (4.0, 6.0)]);
        assert_eq!(Shaders::of(&[], 3).milliseconds, 0.0);
    }
}
