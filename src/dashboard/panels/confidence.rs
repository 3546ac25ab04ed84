//! How sure the run is of its labels: the histogram of the largest candidate confidence over the epochs, as a strip of heat, and as it is now,
//! as bars beside it on the same scale.

use super::{Note, epoch_axis, nothing, percent, tick};
use crate::dashboard::Scene;
use crate::dashboard::ink::{bar, put, put_right};
use crate::dashboard::series::Row;
use crate::dashboard::theme::{Theme, colour};
use crate::run::event::CONFIDENCE_BINS;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

const AXIS: u16 = 7;

pub fn note(scene: &Scene) -> Note {
    let Some(labels) = scene.shown().and_then(|(stage, _)| stage.labels) else { return Vec::new() };
    let text = format!("{} of {}", labels.resolved, labels.ambiguous);
    vec![(text, scene.theme.quiet), (format!("{:>7} decided", percent(labels.resolved_share())), scene.theme.train)]
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some((stage, history)) = scene.shown().filter(|(_, h)| !h.confidence.is_empty()) else {
        return nothing(scene, area, buffer, "no labels decided here yet");
    };
    let theme = scene.theme;
    let rows = history.confidence.rows();
    let axis = AXIS.min(area.width);
    let bars = (area.width / 4).clamp(6, 30).min(area.width - axis);
    let height = area.height.saturating_sub(1);
    let strip = Rect { x: area.x + axis, width: area.width - axis - bars, height, ..area };
    let now = Rect { x: strip.right(), width: bars, height, ..area };
    let foot = Rect { y: area.bottom() - 1, height: 1, ..strip };
    // The largest of K shares is never below 1 / K: the empty bins at the bottom are left out.
    let used = |i: usize| rows.iter().any(|row| row.shares[i] > 0.0);
    let lowest = (0..CONFIDENCE_BINS).find(|&i| used(i)).unwrap_or(0).min(CONFIDENCE_BINS - 2) / 2 * 2;
    let low = lowest as f64 / CONFIDENCE_BINS as f64;
    let labels = Rect { x: area.x, width: axis.saturating_sub(2), height, ..area };
    for row in 0..height {
        put(Rect { x: strip.x.saturating_sub(1), width: 1, ..labels }, buffer, 0, row, theme.glyphs.axis, theme.rule);
    }
    put_right(labels, buffer, 0, "1", theme.quiet);
    if height >= 5 {
        put_right(labels, buffer, (height - 1) / 2, &tick((low + 1.0) / 2.0), theme.quiet);
    }
    put_right(labels, buffer, height.saturating_sub(1), &tick(low), theme.quiet);

    let horizon = scene.horizon(stage);
    let column = |step: f64| ((step / horizon * f64::from(strip.width)).ceil() as u16).min(strip.width);
    // Each row of the history fills the columns from the one before it to its own.
    let mut x = 0;
    for (i, row) in rows.iter().enumerate() {
        let end = column(row.x);
        // Several rows in one column: the last one stands for them.
        if rows.get(i + 1).is_some_and(|next| column(next.x) == end) {
            continue;
        }
        for x in x..end {
            for y in 0..height {
                cell(theme, strip, buffer, (x, y), |part| density(row, lowest, part, f64::from(height)));
            }
        }
        x = x.max(end);
    }
    epoch_axis(scene, foot, buffer, horizon);

    if bars < 6 {
        return;
    }
    let last = rows[rows.len() - 1];
    let total: u64 = history.histogram.iter().sum();
    let exact = |i: usize| history.histogram.get(i).map_or(0.0, |&n| n as f64 / total.max(1) as f64);
    let exact = if history.histogram.len() == CONFIDENCE_BINS { std::array::from_fn(|i| exact(i) as f32) } else { last.shares };
    let mass: Vec<f64> = (0..height)
        .map(|y| {
            let from = 1.0 - f64::from(y + 1) / f64::from(height);
            within(&exact, lowest, from, from + 1.0 / f64::from(height))
        })
        .collect();
    let most = mass.iter().copied().fold(1e-9, f64::max);
    for (y, &share) in mass.iter().enumerate() {
        let y = y as u16;
        put(now, buffer, 0, y, theme.glyphs.axis, theme.rule);
        let number = format!("{:>4.0}", share * 100.0);
        let room = now.width.saturating_sub(6);
        put(now, buffer, 1, y, &bar(share / most, room, theme.glyphs), theme.train);
        if share >= 0.005 {
            put_right(now, buffer, y, &number, theme.quiet);
        }
    }
    put_right(Rect { y: foot.y, height: 1, ..now }, buffer, 0, "now, %", theme.quiet);
}

/// The share of the faces whose confidence lies in a part (0..1, from below) of the range from bin `lowest` on.
fn within(shares: &[f32; CONFIDENCE_BINS], lowest: usize, from: f64, to: f64) -> f64 {
    let bins = (CONFIDENCE_BINS - lowest) as f64;
    let (from, to) = (from * bins, to * bins);
    let overlap = |i: usize| (to.min(i as f64 + 1.0) - from.max(i as f64)).max(0.0);
    (0..CONFIDENCE_BINS - lowest).map(|i| f64::from(shares[lowest + i]) * overlap(i)).sum()
}

/// How dark a part of a column is: the root of the share in a bin there, so that few faces are seen too.
fn density(row: &Row, lowest: usize, (from, to): (f64, f64), height: f64) -> f64 {
    let bins = (CONFIDENCE_BINS - lowest) as f64;
    let (from, to) = (1.0 - to / height, 1.0 - from / height);
    let share = within(&row.shares, lowest, from, to);
    let width = ((to - from) * bins).max(1e-9);
    // A part finer than a bin shows the bin it lies in; one that holds several shows them all.
    (share / width.min(1.0)).min(1.0).sqrt()
}

/// One cell, of two halves where there are colours. `of` takes the rows from the top that a half covers.
fn cell(theme: &Theme, area: Rect, buffer: &mut Buffer, (x, y): (u16, u16), of: impl Fn((f64, f64)) -> f64) {
    let top = f64::from(y);
    if !theme.colours() {
        put(area, buffer, x, y, theme.shade(of((top, top + 1.0))), Style::new());
        return;
    }
    if theme.glyphs.ascii {
        if let Some(back) = theme.heat(of((top, top + 1.0))) {
            put(area, buffer, x, y, " ", Style::new().bg(colour(back)));
        }
        return;
    }
    if let (Some(upper), Some(lower)) = (theme.heat(of((top, top + 0.5))), theme.heat(of((top + 0.5, top + 1.0)))) {
        put(area, buffer, x, y, "▀", Style::new().fg(colour(upper)).bg(colour(lower)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_range_hold_all_faces_once() {
        let mut shares = [0.0; CONFIDENCE_BINS];
        (shares[6], shares[13], shares[19]) = (0.25, 0.25, 0.5);
        for parts in [1, 7, 14, 28, 50] {
            let sum: f64 =
                (0..parts).map(|k| within(&shares, 6, f64::from(k) / f64::from(parts), f64::from(k + 1) / f64::from(parts))).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{parts}: {sum}");
        }
        assert!((within(&shares, 6, 0.5, 1.0) - 0.75).abs() < 1e-6);
    }
}
