//! How the labels settle: the share decided, the share of true classes found where those are known, and the flips, over the epochs.

use super::{Note, nothing, percent};
use crate::dashboard::Scene;
use crate::dashboard::ink::{Dots, put, put_right};
use crate::dashboard::series::Series;
use crate::dashboard::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

pub fn note(scene: &Scene) -> Note {
    let Some(labels) = scene.shown().and_then(|(stage, _)| stage.labels) else { return Vec::new() };
    vec![(format!("{} ambiguous faces", labels.ambiguous), scene.theme.quiet)]
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some((_, history)) = scene.shown().filter(|(_, h)| !h.flips.is_empty()) else {
        return nothing(scene, area, buffer, "no labels decided here yet");
    };
    let theme = scene.theme;
    let lines = [
        ("decided", &history.resolved, Some(1.0), theme.train),
        ("recovered", &history.recovered, Some(1.0), theme.good),
        ("flips", &history.flips, None, theme.valid),
    ];
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.1.is_empty()).collect();
    trends(scene, area, buffer, &lines, |name, value| if name == "flips" { format!("{value:.0}") } else { percent(value) });
}

/// Rows of a name, its newest value and its history, sharing the height.
pub(super) fn trends(
    scene: &Scene,
    area: Rect,
    buffer: &mut Buffer,
    lines: &[(&str, &Series, Option<f64>, Style)],
    show: impl Fn(&str, f64) -> String,
) {
    let theme = scene.theme;
    let Some((stage, _)) = scene.shown() else { return };
    let n = (lines.len() as u16).min(area.height);
    for (i, (name, series, top, style)) in lines.iter().take(usize::from(n)).enumerate() {
        let i = i as u16;
        let (from, to) = (area.height * i / n, area.height * (i + 1) / n);
        // A row between, where there is room for it.
        let height = if to - from >= 3 { to - from - 1 } else { to - from };
        let row = Rect { y: area.y + from, height, ..area };
        let label = Rect { width: 20.min(area.width), ..row };
        put(label, buffer, 0, 0, name, theme.quiet);
        let last = series.last().unwrap_or(f64::NAN);
        put_right(label, buffer, 0, &show(name, last), if last.is_finite() { *style } else { theme.bad });
        let chart = Rect { x: label.right() + 1, width: area.width.saturating_sub(label.width + 1), ..row };
        line(chart, buffer, theme, &heights(series, scene.horizon(stage), chart.width * 2, *top), *style);
    }
}

/// A thin line through heights, two a column, over its ground; a gap is marked.
fn line(area: Rect, buffer: &mut Buffer, theme: &Theme, heights: &[Option<f64>], style: Style) {
    let mut dots = Dots::new(area);
    let (width, height) = dots.size();
    for x in 0..width as i64 {
        dots.dot(x, height as i64 - 1, 1);
    }
    let mut before = None;
    for (x, y) in heights.iter().enumerate() {
        let here = y.map(|y| (x as i64, ((1.0 - y.clamp(0.0, 1.0)) * (height as f64 - 1.0)).round() as i64));
        if let Some(to) = here {
            dots.line(before.unwrap_or(to), to, 2);
        }
        before = here;
    }
    dots.render(area, buffer, &[theme.rule, style], theme.glyphs);
    for x in (0..heights.len()).filter(|&x| heights[x].is_none()) {
        put(area, buffer, x as u16 / 2, area.height.saturating_sub(1), theme.glyphs.gap, theme.bad);
    }
}

/// Heights for columns over `horizon` steps: the mean of each column's points; none where they were not finite; as far as the series goes.
pub(super) fn heights(series: &Series, horizon: f64, width: u16, top: Option<f64>) -> Vec<Option<f64>> {
    let most = series.points().map(|p| f64::from(p.high)).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let top = top.unwrap_or(most).max(1e-12);
    let mut heights: Vec<Option<f64>> = Vec::new();
    for p in series.points() {
        let end = ((p.x / horizon * f64::from(width)).ceil() as usize).clamp(1, usize::from(width.max(1)));
        let value = p.mean.is_finite().then(|| f64::from(p.mean) / top);
        if heights.len() >= end {
            // Several in a column: the last stands for them, unless it is the good one after a gap.
            if let Some(last) = heights.last_mut() {
                *last = if last.is_none() { None } else { value };
            }
        } else {
            heights.resize(end, value);
        }
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_reach_as_far_as_the_series() {
        let mut series = Series::new(64);
        for (x, value) in [(10.0, 1.0), (20.0, 2.0), (30.0, f64::NAN), (31.0, 4.0)] {
            series.push(x, value);
        }
        assert_eq!(heights(&series, 100.0, 10, None), [Some(0.25), Some(0.5), None, Some(1.0)]);
        assert_eq!(heights(&series, 100.0, 1, None), [None]);
        assert_eq!(heights(&series, 40.0, 2, Some(2.0)), [Some(1.0), None]);
    }
}
