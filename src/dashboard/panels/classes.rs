//! The recall of each class, and what it gained or lost since the evaluation before.

use super::{Note, nothing, percent};
use crate::dashboard::Scene;
use crate::dashboard::ink::{fit, put, track};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

pub fn note(scene: &Scene) -> Note {
    let Some(tables) = scene.shown().and_then(|(_, h)| h.tables.as_ref()) else { return Vec::new() };
    let theme = scene.theme;
    let mut note = Vec::new();
    if let Some(error) = tables.calibration_error {
        note.push((format!("calibration error {}", percent(error)), theme.quiet));
    }
    if let Some(f1) = tables.macro_f1 {
        note.push((format!("F1 {}", percent(f1)), theme.quiet));
    }
    note.push((format!("{} at epoch {:.0}", tables.split, tables.epoch), theme.quiet));
    note.push((format!("{:>7}", percent(tables.accuracy)), theme.valid));
    note
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some(tables) = scene.shown().and_then(|(_, h)| h.tables.as_ref()).filter(|t| !t.per_class.is_empty()) else {
        return nothing(scene, area, buffer, "no evaluation yet");
    };
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let name = (area.width / 4).clamp(5, 12);
    // Recall, and the change with its arrow.
    let numbers = 6 + 8;
    let room = area.width.saturating_sub(name + 1 + numbers);
    // The chosen class comes into sight where not all fit.
    let rows = usize::from(area.height);
    let first = scene.view.class.map_or(0, |c| (c + 1).saturating_sub(rows)).min(tables.per_class.len().saturating_sub(rows));
    for (y, (class, recall)) in tables.per_class.iter().enumerate().skip(first).take(rows).enumerate() {
        let y = y as u16;
        let chosen = scene.view.class;
        let style = match chosen {
            Some(c) if c == class => theme.strong,
            Some(_) => theme.quiet,
            None => Style::new(),
        };
        put(area, buffer, 0, y, &fit(&scene.about.class(class as u16), name, glyphs), style);
        let Some(recall) = recall else {
            put(area, buffer, name + 1, y, "does not occur", theme.quiet);
            continue;
        };
        let paint = if chosen.is_none_or(|c| c == class) { theme.valid } else { theme.quiet };
        track(area, buffer, (name + 1, y), room, *recall, theme, paint);
        let x = name + 1 + room;
        put(area, buffer, x, y, &format!("{:>6.1}", recall * 100.0), style);
        if let Some(Some(before)) = tables.before.get(class) {
            let change = (recall - before) * 100.0;
            let (glyph, style) = match change {
                c if c >= 0.05 => (glyphs.up, theme.good),
                c if c <= -0.05 => (glyphs.down, theme.bad),
                _ => (glyphs.same, theme.quiet),
            };
            let number = if glyph == glyphs.same { String::new() } else { format!("{:>5.1}", change.abs()) };
            put(area, buffer, x + 7, y, &format!("{glyph}{number}"), style);
        }
    }
}
