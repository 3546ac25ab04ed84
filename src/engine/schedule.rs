//! Learning rate as a pure function of the step: linear warm-up, then half a cosine down.

/// Rates are absolute; steps are optimiser steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub peak: f64,
    /// Rate before the first and after the last step.
    pub floor: f64,
    pub warmup_steps: f64,
    pub steps: u64,
}

impl Schedule {
    /// Rate of the optimiser step number `step` (from 0).
    pub fn rate(&self, step: u64) -> f64 {
        let done = step as f64 + 1.0;
        if done <= self.warmup_steps {
            return self.floor + (self.peak - self.floor) * done / self.warmup_steps;
        }
        let span = (self.steps as f64 - self.warmup_steps).max(1.0);
        let t = ((done - self.warmup_steps) / span).clamp(0.0, 1.0);
        self.floor + (self.peak - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_floor() {
        let s = Schedule { peak: 1e-3, floor: 1e-6, warmup_steps: 10.0, steps: 100 };
        assert!((s.rate(9) - 1e-3).abs() < 1e-12);
        assert!((s.rate(99) - 1e-6).abs() < 1e-12);
        assert!((0..9).all(|i| s.rate(i) < s.rate(i + 1)));
        assert!((10..99).all(|i| s.rate(i) > s.rate(i + 1)));
        // No warm-up at all is fine, too.
        let s = Schedule { warmup_steps: 0.0, ..s };
        assert!(s.rate(0) < 1e-3 && s.rate(0) > 0.99e-3);
    }
}
