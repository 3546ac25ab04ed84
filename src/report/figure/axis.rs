//! What several figures share: a linear scale with readable ticks, axes, a path with gaps, and how long a text is.

use maud::{Markup, html};
use std::fmt::Write;

/// Maps values to units of the figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    values: (f64, f64),
    units: (f64, f64),
}

impl Scale {
    /// A range without extent (one reading, or none at all) is widened.
    pub fn new(values: (f64, f64), units: (f64, f64)) -> Self {
        let (low, high) = values;
        let values = match (low.is_finite() && high.is_finite(), high > low) {
            (false, _) => (0.0, 1.0),
            (true, false) => (low - 0.5, low + 0.5),
            (true, true) => values,
        };
        Self { values, units }
    }

    /// Values outside are drawn at the border.
    pub fn at(&self, value: f64) -> f64 {
        let ((low, high), (from, to)) = (self.values, self.units);
        round(from + (value.clamp(low, high) - low) / (high - low) * (to - from))
    }

    /// About `n` round values inside the range.
    pub fn ticks(&self, n: usize) -> Vec<f64> {
        let (low, high) = self.values;
        let step = step((high - low) / n.max(1) as f64);
        let first = (low / step - 1e-9).ceil() as i64;
        (first..).map(|i| i as f64 * step).take_while(|v| *v <= high + step * 1e-9).collect()
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `rough`.
fn step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.abs().max(1e-300).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// A range around all finite values; none where there are none.
pub fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|v| v.is_finite()).fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((low.min(v), high.max(v)))
    })
}

/// The area between the axes, in units.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

/// How the numbers at an axis are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    Plain,
    Percent,
}

impl Unit {
    pub fn text(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{}", (value * 1000.0).round() / 10.0),
            Unit::Plain => format!("{}", (value * 1e6).round() / 1e6),
        }
    }
}

/// Rules and numbers of both axes. `above` names the vertical axis, over its top; `below` the horizontal one, under its right end.
pub fn axes(frame: Frame, x: &Scale, y: &Scale, unit: Unit, above: &str, below: &str) -> Markup {
    html! {
        text class="quiet small" x="0" y=(frame.top - 9.0) { (above) }
        @for v in y.ticks(4) {
            path class="rule" d={ "M" (frame.left) " " (y.at(v)) "H" (frame.right) } {}
            text class="quiet small end" x=(frame.left - 6.0) y=(y.at(v) + 3.5) { (unit.text(v)) }
        }
        (horizontal(frame, x, Unit::Plain, below))
    }
}

/// The axis below alone.
pub fn horizontal(frame: Frame, x: &Scale, unit: Unit, below: &str) -> Markup {
    let Frame { left, right, bottom, .. } = frame;
    // Between whole epochs there is nothing to be told apart.
    let whole = |v: &f64| v.fract() == 0.0 || x.values.1 - x.values.0 < 2.0;
    html! {
        path class="axis" d={ "M" (left) " " (bottom) "H" (right) } {}
        @for v in x.ticks(6).into_iter().filter(whole) {
            path class="axis" d={ "M" (x.at(v)) " " (bottom) "v4" } {}
            text class="quiet small mid" x=(x.at(v)) y=(bottom + 16.0) { (unit.text(v)) }
        }
        text class="quiet small end" x=(right) y=(bottom + 31.0) { (below) }
    }
}

/// A line through the points; it breaks where one is missing. A point alone is a dot (with round caps).
pub fn path(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let mut d = String::new();
    let mut pen = 'M';
    for point in points {
        match point {
            Some((x, y)) => {
                // A move alone draws nothing; one to itself leaves a dot.
                let dot = if pen == 'M' { "h0" } else { "" };
                let _ = write!(d, "{pen}{} {}{dot}", round(x), round(y));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    d
}

/// At most `most` of `n` positions, evenly spaced, with the first and the last.
pub fn evenly(n: usize, most: usize) -> Vec<usize> {
    if n <= most { (0..n).collect() } else { (0..most).map(|i| (i * (n - 1) + (most - 1) / 2) / (most - 1)).collect() }
}

/// A hundredth of a unit is more than can be seen.
pub fn round(v: f64) -> f64 {
    (v * 100.0).round() / 100.0
}

/// The text, or its beginning, in about `width` units at `size` (letters are rather more than half as wide as high).
pub fn fit(text: &str, width: f64, size: f64) -> String {
    let most = (width / (0.58 * size)).floor().max(1.0) as usize;
    if text.chars().count() <= most { text.into() } else { text.chars().take(most.saturating_sub(1)).chain(['\u{2026}']).collect() }
}

/// Moves the heights of labels apart to at least `gap`, in their order, within `top..=bottom` where that is possible.
pub fn apart(heights: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut placed = heights.to_vec();
    let mut above = top - gap;
    for &i in &order {
        placed[i] = placed[i].max(above + gap);
        above = placed[i];
    }
    let mut below = bottom + gap;
    for &i in order.iter().rev() {
        placed[i] = placed[i].min(below - gap);
        below = placed[i];
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high| Scale::new((low, high), (0.0, 100.0)).ticks(4);
        assert_eq!(ticks(0.0, 22.0), [0.0, 10.0, 20.0]);
        assert_eq!(ticks(0.31, 0.69), [0.4, 0.5, 0.6000000000000001]);
        assert_eq!(ticks(-1.0, 1.0), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert!(ticks(3e-9, 5e-9).len() >= 3);
    }

    #[test]
    fn a_scale_without_extent_or_numbers_is_a_scale() {
        for values in [(2.0, 2.0), (f64::NAN, 1.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            let scale = Scale::new(values, (0.0, 10.0));
            assert!(scale.at(2.0).is_finite() && !scale.ticks(4).is_empty(), "{values:?}");
        }
        assert_eq!(Scale::new((0.0, 1.0), (10.0, 0.0)).at(7.0), 0.0);
    }

    #[test]
    fn lines_break_where_a_reading_is_missing() {
        assert_eq!(path([Some((0.0, 1.0)), Some((1.0, 2.0)), None, Some((3.0, 1.0 / 3.0))]), "M0 1h0L1 2M3 0.33h0");
    }

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        assert_eq!(apart(&[50.0, 52.0, 10.0], 10.0, 0.0, 100.0), [50.0, 60.0, 10.0]);
        assert_eq!(apart(&[99.0, 98.0], 10.0, 0.0, 100.0), [100.0, 90.0]);
        assert_eq!(fit("happiness", 30.0, 10.0), "happ\u{2026}");
    }

    #[test]
    fn a_choice_keeps_both_ends() {
        assert_eq!(evenly(3, 14), [0, 1, 2]);
        let choice = evenly(300, 14);
        assert!(choice.len() == 14 && choice[0] == 0 && choice[13] == 299 && choice.is_sorted());
    }
}
