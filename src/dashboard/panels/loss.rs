//! The loss: the smoothed curve over its raw readings, the validation, the best, and below them, where there is room, the accuracies.

use super::{Note, epoch_axis, nothing, percent, tick};
use crate::dashboard::ink::{Dots, put, put_right, round_range};
use crate::dashboard::series::Series;
use crate::dashboard::state::History;
use crate::dashboard::{SMOOTHING, Scene};
use crate::run::progress::short;
use crate::run::summary::StageSummary;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Columns of the axis.
const AXIS: u16 = 7;
/// Rows from which on the accuracies have a chart of their own.
const TALL: u16 = 16;
const RAW: u8 = 1;
const TRAIN: u8 = 2;
const VALID: u8 = 3;

pub fn note(scene: &Scene) -> Note {
    let Some((stage, history)) = scene.shown() else { return Vec::new() };
    let theme = scene.theme;
    let mut note = Vec::new();
    if scene.view.log_scale {
        note.push(("log".to_string(), theme.quiet));
    }
    if let Some(best) = stage.best {
        let text = format!("{} {} at {:.0}", theme.glyphs.best, percent(best.accuracy), best.epoch);
        note.push((text, theme.valid));
    }
    if let Some(loss) = history.valid_loss.last() {
        note.push((format!("valid {:>7}", short(loss)), theme.valid));
    }
    if let Some(loss) = history.loss.last() {
        note.push((format!("train {:>7}", short(loss)), if loss.is_finite() { theme.train } else { theme.bad }));
    }
    note
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some((stage, history)) = scene.shown().filter(|(_, h)| !h.loss.is_empty() || !h.accuracy.is_empty()) else {
        return nothing(scene, area, buffer, "no reading yet");
    };
    let axis = AXIS.min(area.width);
    let chart = Rect { x: area.x + axis, width: area.width - axis, height: area.height.saturating_sub(1), ..area };
    let foot = Rect { y: area.bottom() - 1, height: 1, ..chart };
    epoch_axis(scene, foot, buffer, scene.horizon(stage));
    let accuracies = if area.height >= TALL && !history.accuracy.is_empty() { chart.height * 2 / 5 } else { 0 };
    let upper = Rect { height: chart.height - accuracies, ..chart };
    losses(scene, stage, history, upper, axis, buffer);
    if accuracies > 1 {
        let lower = Rect { y: upper.bottom(), height: accuracies, ..chart };
        rates(scene, stage, history, lower, axis, buffer);
    }
}

/// From values to dots.
struct Scale {
    horizon: f64,
    low: f64,
    high: f64,
    log: bool,
    width: f64,
    height: f64,
}

impl Scale {
    fn x(&self, step: f64) -> i64 {
        (step / self.horizon * (self.width - 1.0)).round() as i64
    }

    /// None for what has no place on the scale.
    fn y(&self, value: f64) -> Option<i64> {
        let of = |v: f64| if self.log { v.ln() } else { v };
        if !value.is_finite() || self.log && value <= 0.0 {
            return None;
        }
        let share = (of(value) - of(self.low)) / (of(self.high) - of(self.low));
        Some(((1.0 - share.clamp(-0.5, 1.5)) * (self.height - 1.0)).round() as i64)
    }

    /// Draws a line through points; none is a gap.
    fn curve(&self, dots: &mut Dots, points: impl Iterator<Item = (f64, Option<f64>)>, layer: u8) {
        let mut before: Option<(i64, i64)> = None;
        for (step, value) in points {
            let at = value.and_then(|v| self.y(v)).map(|y| (self.x(step), y));
            if let Some(to) = at {
                dots.line(before.unwrap_or(to), to, layer);
            }
            before = at;
        }
    }
}

/// The range of the axis: all of the smooth curves, and the raw readings but for the wildest.
fn range(raw: &Series, curves: &[f64], log: bool) -> (f64, f64) {
    let ok = |v: &f64| v.is_finite() && (!log || *v > 0.0);
    let mut raw: Vec<f64> = raw.points().flat_map(|p| [f64::from(p.low), f64::from(p.high)]).filter(ok).collect();
    raw.sort_by(f64::total_cmp);
    let spare = raw.len() / 50;
    let ends = raw.get(spare).into_iter().chain(raw.len().checked_sub(spare + 1).and_then(|i| raw.get(i)));
    let all = || curves.iter().filter(|v| ok(v)).chain(ends.clone());
    let (low, high) = (all().copied().fold(f64::INFINITY, f64::min), all().copied().fold(f64::NEG_INFINITY, f64::max));
    if !log {
        return round_range(low, high);
    }
    // 1-2-5 steps.
    let step = |v: f64, up: bool| {
        let power = 10f64.powf(v.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        if up { steps.into_iter().find(|s| *s >= v) } else { steps.into_iter().rev().find(|s| *s <= v) }.unwrap_or(v)
    };
    if low.is_finite() && high > low { (step(low, false), step(high, true)) } else { (0.1, 1.0) }
}

fn axis_labels(scene: &Scene, area: Rect, axis: u16, buffer: &mut Buffer, scale: &Scale) {
    let glyphs = scene.theme.glyphs;
    let labels = Rect { x: area.x - axis, width: axis.saturating_sub(2), ..area };
    for row in 0..area.height {
        put(Rect { x: area.x - 1, width: 1, ..area }, buffer, 0, row, glyphs.axis, scene.theme.rule);
    }
    let middle = if scale.log { (scale.low * scale.high).sqrt() } else { (scale.low + scale.high) / 2.0 };
    put_right(labels, buffer, 0, &tick(scale.high), scene.theme.quiet);
    if area.height >= 5 {
        let text = if scale.log { format!("{middle:.2}") } else { tick(middle) };
        put_right(labels, buffer, (area.height - 1) / 2, &text, scene.theme.quiet);
    }
    if area.height >= 2 {
        put_right(labels, buffer, area.height - 1, &tick(scale.low), scene.theme.quiet);
    }
}

fn losses(scene: &Scene, stage: &StageSummary, history: &History, area: Rect, axis: u16, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let theme = scene.theme;
    let mut dots = Dots::new(area);
    let readings: f64 = history.loss.points().map(|p| f64::from(p.count)).sum();
    let span = (readings * SMOOTHING[scene.view.smoothing % SMOOTHING.len()]).max(1.0);
    let smooth = history.loss.smoothed((span - 1.0) / (span + 1.0));
    let valid: Vec<(f64, f64)> = history.valid_loss.points().map(|p| (p.x, f64::from(p.mean))).collect();
    let curves: Vec<f64> = smooth.iter().filter_map(|p| p.1).chain(valid.iter().map(|p| p.1)).collect();
    let (low, high) = range(&history.loss, &curves, scene.view.log_scale);
    let (width, height) = dots.size();
    let scale = Scale { horizon: scene.horizon(stage), low, high, log: scene.view.log_scale, width: width as f64, height: height as f64 };
    axis_labels(scene, area, axis, buffer, &scale);
    let mut before = None;
    for p in history.loss.points() {
        let (from, to) = (scale.y(f64::from(p.low)), scale.y(f64::from(p.high)));
        let (Some(from), Some(to)) = (from, to) else {
            before = None;
            continue;
        };
        let x = scale.x(p.x);
        dots.line((x, from), (x, to), RAW);
        let middle = (x, (from + to) / 2);
        dots.line(before.unwrap_or(middle), middle, RAW);
        before = Some(middle);
    }
    scale.curve(&mut dots, smooth.iter().copied(), TRAIN);
    scale.curve(&mut dots, valid.iter().map(|&(x, y)| (x, Some(y))), VALID);
    dots.render(area, buffer, &[theme.raw, theme.train, theme.valid], theme.glyphs);
    // Marks: each validation while they are few, what was not a number, the best.
    let column = |step: f64| (scale.x(step).max(0) as u16 / 2).min(area.width - 1);
    let row = |y: i64| (y.clamp(0, height as i64 - 1) / 4) as u16;
    if valid.len() <= usize::from(area.width) / 3 {
        for &(step, loss) in &valid {
            if let Some(y) = scale.y(loss) {
                put(area, buffer, column(step), row(y), theme.glyphs.dot, theme.valid);
            }
        }
    }
    for p in history.loss.points().filter(|p| p.bad > 0) {
        put(area, buffer, column(p.x), area.height - 1, theme.glyphs.gap, theme.bad);
    }
    if let Some(best) = stage.best {
        let y = best.loss.and_then(|loss| scale.y(loss)).map_or(0, row);
        put(area, buffer, column(best.step as f64), y, theme.glyphs.best, theme.valid.patch(theme.strong));
    }
}

fn rates(scene: &Scene, stage: &StageSummary, history: &History, area: Rect, axis: u16, buffer: &mut Buffer) {
    let theme = scene.theme;
    let mut label = format!("accuracy {}", history.accuracy.last().map_or("-".into(), percent));
    label += &format!("   mean recall {} (dotted)", history.recall.last().map_or("-".into(), percent));
    put(Rect { height: 1, ..area }, buffer, 0, 0, &label, theme.quiet);
    let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if area.is_empty() {
        return;
    }
    let mut dots = Dots::new(area);
    let values = |series: &Series| series.points().map(|p| (p.x, Some(f64::from(p.mean)))).collect::<Vec<_>>();
    let (accuracy, recall) = (values(&history.accuracy), values(&history.recall));
    let all = || accuracy.iter().chain(&recall).filter_map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = round_range(all().fold(1.0, f64::min), all().fold(0.0, f64::max));
    let (width, height) = dots.size();
    let scale = Scale {
        horizon: scene.horizon(stage),
        low: low.max(0.0),
        high: high.min(1.0),
        log: false,
        width: width as f64,
        height: height as f64,
    };
    axis_labels(scene, area, axis, buffer, &scale);
    // Every other dot, so that the two are told apart without colour.
    let mut dotted = Dots::new(area);
    scale.curve(&mut dotted, recall.iter().copied(), 1);
    dots.sieve(&dotted, 1);
    scale.curve(&mut dots, accuracy.iter().copied(), 2);
    dots.render(area, buffer, &[theme.quiet, theme.valid], theme.glyphs);
    if let Some(best) = stage.best
        && let Some(y) = scale.y(best.accuracy)
    {
        let column = (scale.x(best.step as f64).max(0) as u16 / 2).min(area.width - 1);
        let row = (y.clamp(0, height as i64 - 1) / 4) as u16;
        put(area, buffer, column, row, theme.glyphs.best, theme.valid.patch(Style::new()).patch(theme.strong));
    }
}
