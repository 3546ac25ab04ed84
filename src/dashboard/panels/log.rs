//! What the run has said: newest line at the bottom, scrolled and searched by key.

use super::{Note, nothing};
use crate::dashboard::Scene;
use crate::dashboard::ink::{fit, put};
use crate::dashboard::state::LogLine;
use crate::run::Level;
use crate::run::clock::hms;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

pub fn note(scene: &Scene) -> Note {
    let theme = scene.theme;
    let mut note = Vec::new();
    let lines = scene.state.dropped + scene.state.log.len() as u64;
    if scene.view.search.is_empty() {
        note.push((format!("{lines} lines"), theme.quiet));
    } else {
        let n = scene.state.log.iter().filter(|line| matches(line, &scene.view.search)).count();
        note.push((format!("/{} {n} matches", scene.view.search), theme.warn));
    }
    if scene.view.log_up > 0 {
        note.push((format!("{} {} below", theme.glyphs.down, scene.view.log_up), theme.warn));
    }
    note
}

pub fn matches(line: &LogLine, search: &str) -> bool {
    !search.is_empty() && (line.text.to_lowercase().contains(&search.to_lowercase()) || line.place.contains(search))
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let (theme, log) = (scene.theme, &scene.state.log);
    if log.is_empty() {
        return nothing(scene, area, buffer, "nothing has been said yet");
    }
    let rows = usize::from(area.height);
    let end = log.len().saturating_sub(scene.view.log_up.min(log.len().saturating_sub(rows)));
    let start = end.saturating_sub(rows);
    // Short lines tell their stage where there is room for both.
    let place = if area.width >= 80 { log.iter().map(|l| l.place.chars().count()).max().unwrap_or(0).min(16) as u16 } else { 0 };
    for (y, line) in log.range(start..end).enumerate() {
        let y = y as u16;
        let (mark, style) = match line.level {
            Level::Info => (" ", Style::new()),
            Level::Warning => ("!", theme.warn),
            Level::Error => (theme.glyphs.failed, theme.bad),
        };
        let found = matches(line, &scene.view.search);
        let mut x = put(area, buffer, 0, y, &hms(line.t), theme.quiet) + 1;
        if place > 0 {
            x += put(area, buffer, x, y, &fit(&line.place, place, theme.glyphs), theme.quiet) + 1;
        }
        x += put(area, buffer, x, y, mark, style) + 1;
        let style = if found { style.add_modifier(Modifier::REVERSED) } else { style };
        put(area, buffer, x, y, fit(&line.text, area.width.saturating_sub(x), theme.glyphs).trim_end(), style);
    }
}
