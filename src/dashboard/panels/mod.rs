//! The panels, one file each: pure functions of the scene that draw into an area of any size.
//!
//! This file draws what they share: the line above each with its title, the panels that share its place, and a short reading at the right.

mod board;
mod classes;
mod confidence;
mod confusion;
pub mod footer;
pub mod header;
pub mod help;
mod labels;
mod log;
mod loss;
mod numbers;
mod pictures;

use super::Scene;
use super::faces::{Source, Thumbnail};
use super::ink::{columns, put};
use super::layout::{Panel, Placed};
use super::state::Sheet;
use super::theme::colour;
use crate::run::progress::short;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};

pub(super) use log::matches;

/// Parts of a panel's reading, at the right of its title line; the first ones are left out where they do not fit.
type Note = Vec<(String, Style)>;

pub fn render(scene: &Scene, placed: &Placed, buffer: &mut Buffer) {
    let area = placed.area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    let note = match placed.panel {
        Panel::Loss => loss::note(scene),
        Panel::Confidence => confidence::note(scene),
        Panel::Board => board::note(scene),
        Panel::Classes => classes::note(scene),
        Panel::Confusion => confusion::note(scene),
        Panel::Labels => labels::note(scene),
        Panel::Numbers => numbers::note(scene),
        Panel::Pictures => pictures::note(scene),
        Panel::Log => log::note(scene),
    };
    title(scene, placed, &note, Rect { height: 1, ..area }, buffer);
    let inner = Rect { y: area.y + 1, height: area.height - 1, ..area };
    if inner.is_empty() {
        return;
    }
    match placed.panel {
        Panel::Loss => loss::render(scene, inner, buffer),
        Panel::Confidence => confidence::render(scene, inner, buffer),
        Panel::Board => board::render(scene, inner, buffer),
        Panel::Classes => classes::render(scene, inner, buffer),
        Panel::Confusion => confusion::render(scene, inner, buffer),
        Panel::Labels => labels::render(scene, inner, buffer),
        Panel::Numbers => numbers::render(scene, inner, buffer),
        Panel::Pictures => pictures::render(scene, inner, buffer),
        Panel::Log => log::render(scene, inner, buffer),
    }
}

fn title(scene: &Scene, placed: &Placed, note: &Note, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    put(area, buffer, 0, 0, &glyphs.rule.repeat(usize::from(area.width)), theme.rule);
    let focused = scene.view.focus() == placed.panel;
    let mut x = put(area, buffer, 0, 0, if focused { glyphs.focus } else { glyphs.rule }, if focused { theme.strong } else { theme.rule });
    for panel in named(placed) {
        let style = match (panel == placed.panel, focused) {
            (true, true) => theme.strong.add_modifier(Modifier::UNDERLINED),
            (true, false) => theme.strong,
            _ => theme.quiet,
        };
        x += put(area, buffer, x, 0, " ", theme.rule);
        x += put(area, buffer, x, 0, panel.title(), style);
    }
    x += put(area, buffer, x, 0, " ", theme.rule);
    let width = |parts: &[(String, Style)]| parts.iter().map(|(text, _)| columns(text) + 2).sum::<u16>();
    let first = (0..note.len()).find(|&i| x + 2 + width(&note[i..]) <= area.width);
    let Some(parts) = first.map(|i| &note[i..]) else { return };
    let mut at = area.width - width(parts);
    for (i, (text, style)) in parts.iter().enumerate() {
        at += put(area, buffer, at, 0, if i == 0 { " " } else { "  " }, theme.rule);
        at += put(area, buffer, at, 0, text, *style);
    }
    put(area, buffer, at, 0, " ", theme.rule);
}

/// The panels named in a title line: all of the place where there is room, else the one in front.
fn named(placed: &Placed) -> impl Iterator<Item = Panel> {
    let all: u16 = placed.shared.iter().map(|p| columns(p.title()) + 1).sum();
    let whole = all + 24 < placed.area.width;
    placed.shared.iter().copied().filter(move |p| whole || *p == placed.panel)
}

/// The panel that a click means: the one named there, else the one in front.
pub(super) fn clicked(placed: &Placed, at: Position) -> Panel {
    let mut x = placed.area.x + 1;
    for panel in named(placed) {
        let next = x + 1 + columns(panel.title());
        if at.y == placed.area.y && (x..next).contains(&at.x) {
            return panel;
        }
        x = next;
    }
    placed.panel
}

/// A word in the middle of a panel that has nothing to show yet.
fn nothing(scene: &Scene, area: Rect, buffer: &mut Buffer, text: &str) {
    let x = area.width.saturating_sub(columns(text)) / 2;
    put(area, buffer, x, area.height.saturating_sub(1) / 2, text, scene.theme.quiet);
}

/// A square picture, two columns a row: a real one where the terminal shows those, else characters; a rule where it cannot be had.
fn picture(scene: &Scene, source: &Source, sheet: Option<&Sheet>, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    // A real picture would lie over the help.
    let graphics = scene.graphics.filter(|_| !scene.view.help && !area.is_empty());
    if graphics.is_some_and(|g| g.draw(source, || scene.faces.pixels(source, sheet), area, buffer)) {
        return;
    }
    match scene.faces.thumbnail(source, sheet, usize::from(area.width), usize::from(area.height) * 2) {
        Some(thumbnail) => half_blocks(scene, &thumbnail, area, buffer),
        None => {
            for y in 0..area.height {
                put(area, buffer, 0, y, &scene.theme.glyphs.same.repeat(usize::from(area.width)), scene.theme.rule);
            }
        }
    }
}

/// Half-blocks, two pixels a cell; without colours shades of grey, one pixel a cell.
fn half_blocks(scene: &Scene, thumbnail: &Thumbnail, area: Rect, buffer: &mut Buffer) {
    const RAMP: [&str; 10] = [" ", ".", ":", "-", "=", "+", "*", "#", "%", "@"];
    let theme = scene.theme;
    for y in 0..area.height {
        let (Some(upper), Some(lower)) = (thumbnail.get(usize::from(y) * 2), thumbnail.get(usize::from(y) * 2 + 1)) else { return };
        for x in 0..area.width {
            let (Some(&a), Some(&b)) = (upper.get(usize::from(x)), lower.get(usize::from(x))) else { break };
            if theme.colours() && !theme.glyphs.ascii {
                put(area, buffer, x, y, "▀", Style::new().fg(colour(a)).bg(colour(b)));
                continue;
            }
            let grey = a.iter().chain(&b).map(|&v| f64::from(v)).sum::<f64>() / 6.0 / 255.0;
            let mark =
                if theme.glyphs.ascii { RAMP[(grey * 9.0).round() as usize] } else { theme.glyphs.shades[(grey * 4.0).round() as usize] };
            put(area, buffer, x, y, mark, Style::new());
        }
    }
}

/// A number in the fewest characters, for axes: `0.5`, `1`, `2e-4`.
fn tick(x: f64) -> String {
    let a = x.abs();
    if x == 0.0 || (0.01..10_000.0).contains(&a) {
        let text = format!("{x:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else if x.is_finite() {
        format!("{x:.0e}")
    } else {
        short(x)
    }
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { short(share) }
}

/// The time axis under a chart of `horizon` steps: its first and last epoch, and the word between them.
fn epoch_axis(scene: &Scene, area: Rect, buffer: &mut Buffer, horizon: f64) {
    let Some((stage, _)) = scene.shown() else { return };
    let quiet = scene.theme.quiet;
    put(area, buffer, 0, 0, "0", quiet);
    super::ink::put_right(area, buffer, 0, &tick(scene.epoch(stage, horizon)), quiet);
    if area.width >= 20 {
        put(area, buffer, (area.width - 5) / 2, 0, "epoch", quiet);
    }
}
