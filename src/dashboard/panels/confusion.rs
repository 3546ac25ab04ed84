//! The confusion matrix as a heat table: for each true class the shares, in percent, of what it was taken for.

use super::{Note, nothing};
use crate::dashboard::Scene;
use crate::dashboard::ink::{columns, fit, put, put_right};
use crate::dashboard::theme::{Theme, colour};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

pub fn note(scene: &Scene) -> Note {
    let Some(tables) = scene.shown().and_then(|(_, h)| h.tables.as_ref()) else { return Vec::new() };
    vec![
        ("rows true, columns predicted, %".to_string(), scene.theme.quiet),
        (format!("{} at epoch {:.0}", tables.split, tables.epoch), scene.theme.quiet),
    ]
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some(tables) = scene.shown().and_then(|(_, h)| h.tables.as_ref()).filter(|t| !t.confusion.is_empty()) else {
        return nothing(scene, area, buffer, "no evaluation yet");
    };
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let n = tables.confusion.len().max(1) as u16;
    // Numbers need three columns and a space; what is left goes to the names.
    let name = area.width.saturating_sub(4 * n).clamp(3, 12).min(area.width);
    let cell = (area.width.saturating_sub(name + 1) / n).clamp(3, 10);
    let cells = Rect { x: area.x + name + 1, width: area.width.saturating_sub(name + 1), ..area };
    let high = ((area.height.saturating_sub(1)) / n).clamp(1, 3).min(cell / 3);
    let name_of = |class: usize| scene.about.class(class as u16);
    for class in 0..usize::from(n) {
        let style = if scene.view.class == Some(class) { theme.strong } else { theme.quiet };
        let text = fit(&name_of(class), cell - 1, if cell < 6 { &CUT } else { glyphs });
        put(cells, buffer, class as u16 * cell, 0, &format!("{:>w$}", text.trim_end(), w = usize::from(cell - 1)), style);
    }
    for (row, counts) in tables.confusion.iter().enumerate() {
        let top = 1 + row as u16 * high;
        let middle = top + (high - 1) / 2;
        let total: u64 = counts.iter().sum();
        let style = if scene.view.class == Some(row) { theme.strong } else { theme.quiet };
        put_right(Rect { width: name, ..area }, buffer, middle, fit(&name_of(row), name, glyphs).trim_end(), style);
        for (column, &count) in counts.iter().enumerate() {
            let share = if total > 0 { count as f64 / total as f64 } else { 0.0 };
            let x = column as u16 * cell;
            let (text, mut style) = match count {
                0 => (glyphs.same.to_string(), theme.quiet),
                _ => (format!("{:.0}", share * 100.0), Style::new()),
            };
            if let Some(back) = theme.heat(share.sqrt()).filter(|_| count > 0) {
                style = Style::new().fg(Theme::on(back)).bg(colour(back));
            }
            if row == column {
                style = style.add_modifier(Modifier::BOLD);
            }
            let other = scene.view.class.is_some_and(|c| c != row && c != column);
            if other {
                style = theme.quiet;
            }
            for y in top..top + high {
                put(cells, buffer, x, y, &" ".repeat(usize::from(cell)), style);
            }
            let inset = cell.saturating_sub(columns(&text) + 1);
            put(cells, buffer, x + inset, middle, &text, style);
        }
    }
}

/// Short heads are cut without a mark.
static CUT: crate::dashboard::theme::Glyphs = crate::dashboard::theme::Glyphs { cut: "", ..crate::dashboard::theme::UNICODE };
