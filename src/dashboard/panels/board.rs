//! The candidate board: faces whose labels are being decided, each with its picture and its candidates' confidences, the one that moved most
//! first.

use super::{Note, nothing};
use crate::dashboard::Scene;
use crate::dashboard::faces::Source;
use crate::dashboard::ink::{columns, columns_chart, fit, put, track};
use crate::dashboard::state::Watched;
use crate::run::progress::plain;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Columns of the text beside a picture, at least and at most.
const TEXT: (u16, u16) = (14, 36);
/// Columns of a picture; half as many rows.
const PICTURES: [u16; 12] = [48, 40, 36, 32, 28, 24, 22, 20, 18, 16, 14, 12];
const GUTTER: u16 = 2;

pub fn note(scene: &Scene) -> Note {
    let faces = faces(scene);
    let theme = scene.theme;
    let mut note = Vec::new();
    if let Some(problem) = scene.faces.problem() {
        note.push((problem.to_string(), theme.warn));
    }
    if let Some(class) = scene.view.class {
        note.push((format!("only {}", scene.about.class(class as u16)), theme.warn));
    }
    if !faces.is_empty() {
        note.push((format!("{} is true", theme.glyphs.truth), theme.quiet));
        note.push((format!("{} watched", faces.len()), theme.quiet));
    }
    note
}

/// The faces to be shown, in order.
fn faces<'a>(scene: &'a Scene) -> Vec<&'a Watched> {
    let Some((_, history)) = scene.shown() else { return Vec::new() };
    let wanted = |w: &&Watched| scene.view.class.is_none_or(|c| w.candidates.iter().any(|&k| usize::from(k) == c));
    let mut faces: Vec<&Watched> = history.watched.iter().filter(wanted).collect();
    let pinned = |w: &Watched| scene.view.pinned.as_ref() == Some(&w.face);
    // In steps of a hundredth: what differs by less should not trade places.
    faces.sort_by_key(|w| (!pinned(w), -(w.change() * 100.0).round() as i64));
    faces
}

struct Grid {
    picture: u16,
    text: u16,
    across: u16,
    down: u16,
}

/// The largest pictures with which about as many faces are seen as the area is fit for.
fn grid(area: Rect, faces: usize) -> Option<Grid> {
    let wanted = (usize::from(area.width) * usize::from(area.height) / 220).clamp(1, faces.clamp(1, 6));
    let mut best: Option<Grid> = None;
    for picture in PICTURES {
        let (least, rows) = (picture + 1 + TEXT.0, picture / 2 + 1);
        let across = (area.width + GUTTER) / (least + GUTTER);
        // The last row of cells needs no gap below it.
        let down = (area.height + 1) / rows;
        if across == 0 || down == 0 {
            continue;
        }
        let text = ((area.width + GUTTER) / across - GUTTER - picture - 1).min(TEXT.1);
        let shown = usize::from(across * down);
        if best.as_ref().is_none_or(|b| shown > usize::from(b.across * b.down)) {
            best = Some(Grid { picture, text, across, down });
        }
        if shown >= wanted {
            break;
        }
    }
    best
}

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let faces = faces(scene);
    if faces.is_empty() {
        let none = if scene.view.class.is_some() { "no watched face has this candidate" } else { "no labels decided here yet" };
        return nothing(scene, area, buffer, none);
    }
    let Some(grid) = grid(area, faces.len()) else {
        // No room for pictures: names and numbers.
        for (y, w) in faces.iter().take(usize::from(area.height)).enumerate() {
            candidates(scene, w, Rect { y: area.y + y as u16, height: 1, ..area }, buffer);
        }
        return;
    };
    for (i, w) in faces.iter().take(usize::from(grid.across * grid.down)).enumerate() {
        let (column, row) = (i as u16 % grid.across, i as u16 / grid.across);
        let cell = Rect {
            x: area.x + column * (grid.picture + 1 + grid.text + GUTTER),
            y: area.y + row * (grid.picture / 2 + 1),
            width: grid.picture + 1 + grid.text,
            height: grid.picture / 2,
        };
        let cell = cell.intersection(area);
        let frame = Rect { width: grid.picture.min(cell.width), ..cell };
        super::picture(scene, &Source::Face(w.face.clone()), None, frame, buffer);
        let text = Rect { x: cell.x + grid.picture + 1, width: cell.width.saturating_sub(grid.picture + 1), ..cell };
        if text.width >= 8 {
            describe(scene, w, text, buffer);
        }
    }
}

/// The text of a face: its name, its candidates, what happened to it.
fn describe(scene: &Scene, w: &Watched, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let pinned = scene.view.pinned.as_ref() == Some(&w.face);
    let n = w.candidates.len() as u16;
    let mut y = 0;
    if area.height > n {
        let name = if pinned { format!("{} {}", glyphs.pin, plain(&w.face)) } else { plain(&w.face) };
        put(area, buffer, 0, y, &fit(&name, area.width, glyphs), if pinned { theme.strong } else { theme.quiet });
        y += 1;
    }
    // The verdict has the last row; between name and verdict each candidate has its share, up to four rows.
    let verdict = u16::from(area.height > y + n);
    let each = ((area.height - y - verdict) / n.max(1)).clamp(1, 4);
    for i in 0..w.candidates.len() {
        candidate(scene, w, i, Rect { y: area.y + y, height: each, ..area }.intersection(area), buffer);
        y += each;
    }
    if verdict == 1 && y < area.height {
        let moved = format!("moved {:>4.2}", w.change());
        let at = w.flipped.map(|epoch| format!(" at {epoch:.0}")).unwrap_or_default();
        let flips = format!("{} flip{}{at}", w.flips, if w.flips == 1 { "" } else { "s" });
        let style = if w.change() >= 0.05 { theme.warn } else { theme.quiet };
        let row = area.height - 1;
        let x = put(area, buffer, 0, row, &moved, style) + 2;
        // The last flip stands beside, or above where a row is left, or not at all: it is never cut.
        let beside = x + columns(&flips) <= area.width;
        if w.flips > 0 && (beside || y < row && columns(&flips) <= area.width) {
            let (x, row) = if beside { (x, row) } else { (0, row - 1) };
            put(area, buffer, x, row, &flips, theme.quiet);
        }
    }
}

/// One candidate: name, bar and value in a row; below them, where there is room, how it came to it.
fn candidate(scene: &Scene, w: &Watched, i: usize, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let value = w.now.get(i).copied().unwrap_or(f64::NAN);
    let top = w.likeliest() == Some(i);
    let truth = w.truth == Some(w.candidates[i]);
    let style = if top { theme.strong } else { Style::new() };
    let paint = if top { theme.train } else { theme.quiet };
    put(area, buffer, 0, 0, if truth { glyphs.truth } else { " " }, theme.good);
    // Two rows for the bar or one: what is wide has both side by side.
    let wide = area.width >= 26;
    let name = if wide { 10 } else { area.width.saturating_sub(2 + 5).min(10) };
    put(area, buffer, 2, 0, &fit(&scene.about.class(w.candidates[i]), name, glyphs), style);
    let number = if value.is_finite() { format!("{value:>5.2}") } else { "  NaN".into() };
    put(area, buffer, area.width.saturating_sub(5), 0, &number, if value.is_finite() { style } else { theme.bad });
    let rest = if wide {
        let room = area.width.saturating_sub(2 + name + 1 + 5);
        track(area, buffer, (2 + name + 1, 0), room, value, theme, paint);
        1
    } else if area.height >= 2 {
        track(area, buffer, (2, 1), area.width.saturating_sub(2), value, theme, paint);
        2
    } else {
        1
    };
    if area.height > rest
        && let Some((stage, _)) = scene.shown()
        && let Some(series) = w.history.get(i)
    {
        let rows = (area.height - rest).min(2);
        let chart = Rect { x: area.x + 2, y: area.y + rest, width: area.width.saturating_sub(2), height: rows };
        let heights = super::labels::heights(series, scene.horizon(stage), chart.width, Some(1.0));
        columns_chart(chart, buffer, &heights, if top { theme.raw } else { theme.rule }, theme.bad, glyphs);
    }
}

/// A face in one row: its candidates with their confidences.
fn candidates(scene: &Scene, w: &Watched, area: Rect, buffer: &mut Buffer) {
    let mut x = put(area, buffer, 0, 0, &fit(&plain(&w.face), 10, scene.theme.glyphs), scene.theme.quiet) + 1;
    for (i, &class) in w.candidates.iter().enumerate() {
        let truth = if w.truth == Some(class) { scene.theme.glyphs.truth } else { "" };
        let style = if w.likeliest() == Some(i) { scene.theme.strong } else { Style::new() };
        x += put(area, buffer, x, 0, &format!("{truth}{} {:.2}", scene.about.class(class), w.now[i]), style) + 2;
    }
}
