//! Means over the steps between two readings.

use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Sums since the last reading.
pub struct Interval {
    sums: Sums,
    faces: u64,
    since: Instant,
}

/// What of an interval a checkpoint keeps, so that the first reading after a resume is that of a run without an interruption. Numbers are
/// kept as their bits: text would round them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    loss: u64,
    norm: u64,
    steps: u64,
}

/// Means of an interval.
pub struct Means {
    pub loss: f64,
    pub norm: f64,
    /// Faces per second.
    pub speed: f64,
}

impl Interval {
    /// Begins now, with what an earlier process has summed.
    pub fn new(sums: Sums) -> Self {
        Self { sums, faces: 0, since: Instant::now() }
    }

    /// A step over so many faces.
    pub fn add(&mut self, loss: f64, norm: f64, faces: usize) {
        let add = |sum: &mut u64, value: f64| *sum = (f64::from_bits(*sum) + value).to_bits();
        add(&mut self.sums.loss, loss);
        add(&mut self.sums.norm, norm);
        self.sums.steps += 1;
        self.skip(faces);
    }

    /// A step that taught nothing still took its time.
    pub fn skip(&mut self, faces: usize) {
        self.faces += faces as u64;
    }

    /// Time that was not spent on steps.
    pub fn held(&mut self, seconds: f64) {
        self.since += std::time::Duration::from_secs_f64(seconds);
    }

    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The means, and the next interval begins. None where every step was left out.
    pub fn read(&mut self) -> Option<Means> {
        if self.sums.steps == 0 {
            return None;
        }
        let mean = |sum: u64| f64::from_bits(sum) / self.sums.steps as f64;
        let speed = self.faces as f64 / self.since.elapsed().as_secs_f64();
        let means = Means { loss: mean(self.sums.loss), norm: mean(self.sums.norm), speed };
        *self = Self::new(Sums::default());
        Some(means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_interval_reads_as_a_whole_one() {
        let values = [0.1, 0.7, 1.0 / 3.0, 0.2];
        let mut whole = Interval::new(Sums::default());
        values.iter().for_each(|v| whole.add(*v, 10.0 * v, 8));
        let mut first = Interval::new(Sums::default());
        values[..2].iter().for_each(|v| first.add(*v, 10.0 * v, 8));
        let saved = serde_json::to_string(&first.sums()).unwrap();
        let mut second = Interval::new(serde_json::from_str(&saved).unwrap());
        second.skip(8);
        values[2..].iter().for_each(|v| second.add(*v, 10.0 * v, 8));
        let (a, b) = (whole.read().unwrap(), second.read().unwrap());
        assert_eq!((a.loss.to_bits(), a.norm.to_bits()), (b.loss.to_bits(), b.norm.to_bits()));
        assert!((a.loss - values.iter().sum::<f64>() / 4.0).abs() < 1e-15);
        assert!(whole.read().is_none());
    }
}
