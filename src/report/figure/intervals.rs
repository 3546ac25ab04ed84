//! Scores with their intervals on one scale: which differences could be chance is seen at a glance.

use super::axis::{Frame, Scale, Unit, fit, horizontal, range, round};
use super::{Figure, WIDTH};
use maud::html;

/// One line: its name, whether it is the plain baseline, its value and interval.
pub struct Line {
    pub name: String,
    pub plain: bool,
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

const STEP: f64 = 38.0;

/// Draws lines below one another; `gaps` are lines before which more room is left.
pub fn draw(name: String, title: String, measure: &str, lines: &[Line], gaps: &[usize]) -> Figure {
    let edges = lines.iter().flat_map(|l| [l.value, l.interval.map_or(l.value, |i| i.0), l.interval.map_or(l.value, |i| i.1)]);
    let (low, high) = range(edges).unwrap_or((0.0, 1.0));
    let room = ((high - low) * 0.1).max(0.01);
    let heights: Vec<f64> =
        (0..lines.len()).map(|i| 24.0 + i as f64 * STEP + 12.0 * gaps.iter().filter(|g| **g <= i).count() as f64).collect();
    let frame = Frame { left: 8.0, top: 8.0, right: WIDTH - 58.0, bottom: heights.last().map_or(40.0, |y| y + 16.0) };
    let x = Scale::new(((low - room).max(0.0), (high + room).min(1.0)), (frame.left, frame.right));
    let body = html! {
        (horizontal(frame, &x, Unit::Percent, measure))
        @for (line, &y) in lines.iter().zip(&heights) {
            @let look = if line.plain { 1 } else { 0 };
            text class="small" x=(frame.left) y=(y - 9.0) { (fit(&line.name, frame.right - frame.left, 10.5)) }
            @if let Some((low, high)) = line.interval {
                @let whisker = format!("M{0} {2}H{1}M{0} {3}v8M{1} {3}v8", x.at(low), x.at(high), y, y - 4.0);
                path class={ "line solid s" (look) } d=(whisker) {}
            }
            @if line.value.is_finite() {
                @if line.plain { circle class={ "line page solid s" (look) } cx=(x.at(line.value)) cy=(y) r="5" {} }
                @else { circle class={ "f" (look) } cx=(x.at(line.value)) cy=(y) r="5.5" {} }
                text class="strong" x=(frame.right + 8.0) y=(y + 4.0) { (format!("{:.1}", 100.0 * line.value)) "\u{202f}%" }
            } @else {
                text class="told" x=(frame.right + 8.0) y=(y + 4.0) { "none" }
            }
        }
    };
    let one = |l: &Line| match l.interval {
        Some((low, high)) => format!("{}: {:.1} % ({:.1} to {:.1}).", l.name, 100.0 * l.value, 100.0 * low, 100.0 * high),
        None => format!("{}: {:.1} %, without an interval.", l.name, 100.0 * l.value),
    };
    let description = if lines.is_empty() { "No score.".into() } else { lines.iter().map(one).collect::<Vec<_>>().join(" ") };
    Figure { name, title, description, width: WIDTH, height: round(frame.bottom + 36.0), body }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    #[test]
    fn a_score_that_is_no_number_has_no_place() {
        let line = |value, interval| Line { name: "a & b".into(), plain: false, value, interval };
        let figure = draw("results".into(), "Results".into(), "accuracy", &[line(0.6, Some((0.5, 0.7))), line(f64::NAN, None)], &[1]);
        well_formed(&figure);
        let svg = figure.standalone();
        assert_eq!((svg.matches("<circle").count(), svg.matches(">none<").count()), (1, 1));
        assert!(figure.description.contains("60.0 % (50.0 to 70.0)"));
        well_formed(&draw("results".into(), "Results".into(), "accuracy", &[], &[]));
    }
}
