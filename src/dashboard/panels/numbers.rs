//! The numbers behind the run: learning rate, gradient norm and throughput over time, where the time went, what was saved.

use super::labels::trends;
use super::{Note, nothing};
use crate::dashboard::Scene;
use crate::dashboard::ink::{columns, fit, put};
use crate::dashboard::state::PHASES;
use crate::run::progress::{plain, short};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub fn note(scene: &Scene) -> Note {
    let Some((stage, _)) = scene.shown().filter(|(stage, _)| stage.steps > 0) else { return Vec::new() };
    vec![(format!("batches of {} of {} faces", stage.batch, stage.faces), scene.theme.quiet)]
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let Some((stage, history)) = scene.shown() else { return nothing(scene, area, buffer, "no reading yet") };
    let theme = scene.theme;
    let lines = [
        ("lr", &history.rate, None, theme.train),
        ("gradient", &history.norm, None, theme.train),
        ("faces/s", &history.speed, None, theme.train),
        ("memory", &history.memory, None, theme.train),
    ];
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.1.is_empty()).collect();
    let mut facts: Vec<String> = history.others.iter().map(|(name, x)| format!("{name} {}", short(*x))).collect();
    facts.extend(PHASES.iter().zip(history.phases).filter(|(_, seconds)| *seconds >= 0.05).map(|(p, s)| format!("{} {s:.1} s", p.name())));
    facts.extend(stage.checkpoint.as_ref().map(|path| plain(path)));
    // The facts have the last rows; as many as they fill at this width.
    let mut rows: Vec<String> = Vec::new();
    for fact in facts {
        match rows.last_mut() {
            Some(row) if columns(row) + 3 + columns(&fact) <= area.width => *row = format!("{row}   {fact}"),
            _ => rows.push(fact),
        }
    }
    let below = (rows.len() as u16).min(area.height.saturating_sub(lines.len() as u16));
    let above = Rect { height: area.height - below, ..area };
    trends(scene, above, buffer, &lines, |name, value| if name == "memory" { bytes(value) } else { short(value) });
    for (y, row) in rows.iter().take(usize::from(below)).enumerate() {
        put(area, buffer, 0, above.height + y as u16, fit(row, area.width, theme.glyphs).trim_end(), theme.quiet);
    }
}

/// `412 MiB`, `5.3 GiB`.
fn bytes(x: f64) -> String {
    let mib = x / 1024.0 / 1024.0;
    if mib < 1000.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
