//! What pretraining makes of a few faces: each as it is, as the network sees it, what it is to predict of the hidden part, and what it does.

use super::{Note, nothing};
use crate::dashboard::Scene;
use crate::dashboard::faces::Source;
use crate::dashboard::ink::{columns, put};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Columns of a picture, at least; half as many rows.
const SMALLEST: u16 = 8;
const LARGEST: u16 = 48;
const GUTTER: u16 = 1;

pub fn note(scene: &Scene) -> Note {
    let Some(sheet) = scene.shown().and_then(|(_, h)| h.picture.as_ref()) else { return Vec::new() };
    vec![(format!("after epoch {:.0}", sheet.epoch), scene.theme.quiet)]
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some(sheet) = scene.shown().and_then(|(_, h)| h.picture.as_ref()) else {
        return nothing(scene, area, buffer, "pictures come with checkpoints");
    };
    let titles: &[&str] = match sheet.columns {
        4 => &["face", "seen", "target", "predicted"],
        3 => &["face", "seen", "predicted"],
        _ => &[],
    };
    let across = sheet.columns.clamp(1, 8) as u16;
    // As wide as fits, and no higher than half the place: two faces say more than one.
    let wide = (area.width + GUTTER) / across - GUTTER.min(area.width);
    let high = if area.height > SMALLEST { (area.height - 1) / 2 * 2 } else { 2 * area.height };
    let side = wide.min(high.max(SMALLEST)).min(LARGEST) / 2 * 2;
    if side < SMALLEST {
        return nothing(scene, area, buffer, "no room for pictures");
    }
    for (i, title) in (0..).zip(titles) {
        if columns(title) <= side {
            put(area, buffer, i * (side + GUTTER), 0, title, scene.theme.quiet);
        }
    }
    let mut y = 1;
    for row in 0..sheet.rows {
        if y + side / 2 > area.height {
            break;
        }
        for column in 0..across {
            let frame = Rect { x: area.x + column * (side + GUTTER), y: area.y + y, width: side, height: side / 2 }.intersection(area);
            let source = Source::Tile { path: sheet.path.clone(), column: column.into(), row };
            super::picture(scene, &source, Some(sheet), frame, buffer);
        }
        y += side / 2;
    }
}
