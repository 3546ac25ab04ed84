//! [`Lines`]: the sink that prints one dense line per interval, for pipes, logs and `grep`; and what all views share. They only read events, so a
//! run is the same whether it is watched or not.

mod lines;

use super::folder::RunFolder;
use super::writer::Sink;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fs::OpenOptions;

pub use lines::{Lines, describe};

/// Appends the progress lines to the run's `log.txt`.
pub fn log(folder: &RunFolder) -> Result<Box<dyn Sink>> {
    let path = folder.log();
    let file = OpenOptions::new().append(true).create(true).open(&path);
    Ok(Box::new(Lines::new(file.with_context(|| format!("writing {}", path.display()))?)))
}

/// Estimates the time left from the pace of the last intervals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    /// Seconds and step of recent events.
    recent: VecDeque<(f64, u64)>,
}

impl Pace {
    const WINDOW: usize = 64;

    pub fn push(&mut self, seconds: f64, step: u64) {
        self.recent.push_back((seconds, step));
        if self.recent.len() > Self::WINDOW {
            self.recent.pop_front();
        }
    }

    /// Leaves out seconds in which nothing was to be done.
    pub fn skip(&mut self, seconds: f64) {
        self.recent.iter_mut().for_each(|(t, _)| *t += seconds);
    }

    /// Seconds until `steps`, counted from the last event; `None` before the second one.
    pub fn eta(&self, steps: u64) -> Option<f64> {
        let ((t0, s0), (t1, s1)) = (*self.recent.front()?, *self.recent.back()?);
        (s1 > s0 && t1 >= t0).then(|| (t1 - t0) / (s1 - s0) as f64 * steps.saturating_sub(s1) as f64)
    }
}

/// Text from a file made safe for a terminal: one line, no control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A number in few characters: `0.4312`, `9.10e-4`, `412.3`, `NaN`.
pub(crate) fn short(x: f64) -> String {
    match x.abs() {
        a if a.is_nan() || a.is_infinite() => x.to_string(),
        0.0 => "0".into(),
        a if !(1e-2..1e6).contains(&a) => format!("{x:.2e}"),
        a if a >= 1000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        _ => format!("{x:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let shown = [0.43123, 9.1e-4, 412.34, 51_234.0, 1e9, 0.0, f64::NAN, f64::NEG_INFINITY, -0.5].map(short);
        assert_eq!(shown, ["0.4312", "9.10e-4", "412.3", "51234", "1.00e9", "0", "NaN", "-inf", "-0.5000"]);
    }

    #[test]
    fn the_pace_forgets_a_slow_start() {
        let mut pace = Pace::default();
        assert_eq!(pace.eta(10), None);
        pace.push(0.0, 0);
        pace.push(60.0, 1);
        assert_eq!(pace.eta(11), Some(600.0));
        (2..=100).for_each(|step| pace.push(60.0 + step as f64, step));
        assert_eq!(pace.eta(110), Some(10.0));
        assert_eq!(pace.eta(90), Some(0.0));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
