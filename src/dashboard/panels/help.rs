//! The help: every key and what it does, over everything else.

use crate::dashboard::Scene;
use crate::dashboard::ink::{fit, put};
use crate::dashboard::keys::{Action, KEYS, STOP_HELP};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

/// Columns of the key and of its explanation.
const KEY: u16 = 10;
const TEXT: u16 = 28;

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let across = if area.width >= 2 * (KEY + TEXT) + 4 { 2 } else { 1 };
    let down = KEYS.len().div_ceil(across) as u16;
    let (width, height) = ((KEY + TEXT) * across as u16 + 4, down + 4);
    let box_ = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width: width.min(area.width),
        height: height.min(area.height),
    };
    Clear.render(box_, buffer);
    let rule = glyphs.rule.repeat(usize::from(box_.width));
    put(box_, buffer, 0, 0, &rule, theme.rule);
    put(box_, buffer, 2, 0, " keys ", theme.strong);
    for (i, key) in KEYS.iter().enumerate() {
        let (column, row) = (i as u16 / down, i as u16 % down + 2);
        if row + 1 >= box_.height {
            continue;
        }
        let x = 2 + column * (KEY + TEXT);
        let help = if key.action == Action::Quit && scene.wishes.is_some() { STOP_HELP } else { key.help };
        // What only the terminal that started the run may ask.
        let idle = key.action.steers() && scene.wishes.is_none();
        let (name, text) = if idle { (theme.quiet, theme.quiet) } else { (theme.strong, Style::new()) };
        put(box_, buffer, x, row, &fit(key.shown, KEY, glyphs), name);
        put(box_, buffer, x + KEY, row, &fit(help, TEXT, glyphs), text);
    }
    put(box_, buffer, 0, box_.height.saturating_sub(1), &rule, theme.rule);
}
