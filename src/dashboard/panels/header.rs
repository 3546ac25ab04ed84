//! The head of the screen: which run, how it is, what it is busy with and for how long, how far it is and when it will be done.

use super::percent;
use crate::dashboard::ink::{columns, fit, put, put_right};
use crate::dashboard::{Scene, Transport};
use crate::run::clock::hms;
use crate::run::pulse::Pulse;
use crate::run::{Outcome, progress::plain};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};

/// Columns of the share at the end of the line of progress.
const NUMBER: u16 = 6;

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let row = |y: u16| Rect { y: area.y + y, height: 1, ..area }.intersection(area);
    first(scene, row(0), buffer);
    second(scene, row(1), buffer);
    progress(scene, row(2), buffer);
}

/// The state in a glyph, a word and a colour.
fn status(scene: &Scene) -> (String, Style) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let asked = scene.wishes.unwrap_or_default();
    let (glyph, word, style) = match (scene.transport, scene.pulse) {
        (Transport::Follow, Pulse::Running) if asked.stop => (glyphs.done, "stopping".into(), theme.warn),
        (Transport::Follow, Pulse::Running) if asked.pause => (glyphs.paused, "paused".into(), theme.warn),
        (Transport::Follow, Pulse::Running) if asked.save => (glyphs.running, "saving".into(), theme.valid),
        (Transport::Play { speed }, _) => (glyphs.focus, format!("replay {speed}x"), theme.valid),
        (Transport::Hold, _) => (glyphs.paused, "held".into(), theme.valid),
        (Transport::Follow, Pulse::Running) => (glyphs.running, "running".into(), theme.good),
        (Transport::Follow, Pulse::Ended(Outcome::Completed)) => (glyphs.done, "completed".into(), theme.good),
        (Transport::Follow, Pulse::Ended(Outcome::Interrupted)) => (glyphs.paused, "interrupted".into(), theme.warn),
        (Transport::Follow, Pulse::Ended(Outcome::Failed)) => (glyphs.failed, "failed".into(), theme.bad),
        (Transport::Follow, Pulse::Crashed) => (glyphs.failed, "crashed".into(), theme.bad),
        (Transport::Follow, Pulse::Silent) => (glyphs.waiting, "silent".into(), theme.warn),
        (Transport::Follow, Pulse::Awaited) => (glyphs.waiting, "waiting".into(), theme.quiet),
    };
    (format!("{glyph} {word}"), style.add_modifier(Modifier::BOLD))
}

fn first(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let clock = hms(scene.now);
    let room = Rect { width: area.width - put_right(area, buffer, 0, &clock, theme.strong).min(area.width), ..area };
    let (word, style) = status(scene);
    let name_width = columns(&scene.about.name).min(room.width.saturating_sub(columns(&word) + 12)).min(40);
    let mut x = put(room, buffer, 0, 0, "moue ", theme.quiet);
    x += put(room, buffer, x, 0, &fit(&scene.about.name, name_width, glyphs), theme.strong);
    x += 2 + put(room, buffer, x + 2, 0, &word, style);
    // Stages: those that are done, the one that is shown, those to come.
    let shown = scene.shown().map(|(stage, _)| stage.place());
    let mut stages = scene.about.stages.clone();
    let unplanned = scene.state.summary.stages.iter().map(|s| s.place()).filter(|name| !scene.about.stages.contains(name));
    stages.extend(unplanned);
    let parts: Vec<(String, Style)> = stages
        .iter()
        .map(|name| {
            let known = scene.state.find(name).map(|i| &scene.state.summary.stages[i]);
            let style = if shown.as_ref() == Some(name) { theme.strong } else { theme.quiet };
            let mark = if known.is_some_and(|s| s.finished) { format!(" {}", glyphs.done) } else { String::new() };
            (plain(name) + &mark, style)
        })
        .collect();
    let width: u16 = parts.iter().map(|(text, _)| columns(text) + 3).sum();
    let whole = x + 3 + width <= room.width;
    x += 3;
    for (i, (text, style)) in parts.iter().enumerate() {
        // Where not all fit, the one that is shown.
        if whole || shown.as_ref() == Some(&stages[i]) {
            if whole && i > 0 {
                x += 1 + put(room, buffer, x + 1, 0, glyphs.then, theme.rule) + 1;
            }
            if x + columns(text) <= room.width {
                x += put(room, buffer, x, 0, text, *style);
            }
        }
    }
}

fn second(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    let Some((stage, history)) = scene.shown() else {
        let text = if scene.pulse != Pulse::Awaited {
            "no stage has begun"
        } else if scene.wishes.is_some() {
            "preparing the data"
        } else {
            "waiting for the run to begin"
        };
        put(area, buffer, 0, 0, text, theme.quiet);
        return;
    };
    let alive = matches!(scene.pulse, Pulse::Running) || scene.transport != Transport::Follow;
    let left = if stage.finished {
        Some(format!("took {}", hms(history.ended.unwrap_or(scene.state.summary.seconds) - stage.began)))
    } else {
        let since = scene.now - scene.state.summary.seconds;
        history.pace.eta(stage.steps).filter(|_| alive && stage.steps > 0).map(|eta| format!("eta {}", hms((eta - since).max(0.0))))
    };
    let left = left.unwrap_or_else(|| "eta --:--:--".into());
    let room = Rect { width: area.width - put_right(area, buffer, 0, &left, Style::new()).min(area.width), ..area };
    // Steps without a phase are training: it is what a stage does when it does nothing else.
    let phase = match scene.state.summary.phase {
        _ if !alive || stage.finished && scene.state.summary.outcome.is_some() => String::new(),
        Some((phase, since)) => format!("{} {}", phase.name(), hms((scene.now - since).max(0.0))),
        None if stage.finished => String::new(),
        None => format!("train {}", hms((scene.now - stage.began).max(0.0))),
    };
    let steps = stage.steps.to_string();
    let mut parts =
        if phase.is_empty() { Vec::new() } else { vec![(format!("{phase:<w$}", w = if area.width < 70 { 0 } else { 17 }), theme.train)] };
    parts.push((format!("epoch {:>w$.1}/{}", stage.epoch, stage.epochs, w = stage.epochs.to_string().len() + 2), Style::new()));
    if let Some(best) = stage.best {
        parts.push((format!("{} {} valid", theme.glyphs.best, percent(best.accuracy)), theme.valid));
    }
    if let Some(speed) = history.speed.last() {
        parts.push((format!("{speed:>5.0} faces/s"), theme.quiet));
    }
    parts.push((format!("step {:>w$}/{steps}", stage.step, w = steps.len()), theme.quiet));
    if let Some(test) = stage.test {
        parts.push((format!("test {}", percent(test.accuracy)), theme.strong));
    }
    if !scene.about.device.is_empty() {
        parts.push((scene.about.device.clone(), theme.quiet));
    }
    let mut x = 0;
    for (text, style) in parts {
        // In the order of their weight, as many as fit.
        if x + columns(&text) + 2 > room.width {
            break;
        }
        x += put(room, buffer, x, 0, &text, style) + 2;
    }
}

/// The share of the stage that a click on the line of progress means.
pub fn clicked(area: Rect, at: Position) -> Option<f64> {
    let width = area.width.saturating_sub(NUMBER);
    (area.contains(at) && at.y == area.y + 2 && at.x - area.x < width).then(|| f64::from(at.x - area.x) / f64::from(width.max(1)))
}

fn progress(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    let share = match scene.shown() {
        Some((stage, _)) if stage.steps > 0 => (stage.step as f64 / stage.steps as f64).clamp(0.0, 1.0),
        _ => 0.0,
    };
    let number = format!(" {:>3.0} %", (share * 100.0).floor());
    let width = area.width.saturating_sub(NUMBER);
    let done = (share * f64::from(width)).round() as usize;
    put(area, buffer, 0, 0, &glyphs.behind.repeat(done), theme.train);
    put(area, buffer, done as u16, 0, &glyphs.ahead.repeat(usize::from(width) - done), theme.rule);
    put_right(area, buffer, 0, &number, theme.quiet);
}
