//! The last row: what the reader has to know, or the search that is being typed, or the keys that matter.

use crate::dashboard::ink::{columns, fit, put, put_right};
use crate::dashboard::{Scene, Transport};
use crate::run::clock::hms;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub fn render(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let (theme, glyphs) = (scene.theme, scene.theme.glyphs);
    if area.is_empty() {
        return;
    }
    if scene.view.typing {
        let x = put(area, buffer, 0, 0, &format!("search the log: {}", scene.view.search), theme.strong);
        put(area, buffer, x, 0, glyphs.shades[4], theme.train);
        return;
    }
    let clock = if scene.transport == Transport::Follow { String::new() } else { format!(" {} of {}", hms(scene.now), hms(scene.total)) };
    let room = Rect { width: area.width - put_right(area, buffer, 0, &clock, theme.valid).min(area.width), ..area };
    if let Some(notice) = &scene.notice {
        put(room, buffer, 0, 0, &fit(&format!("! {notice}"), room.width, glyphs), theme.warn);
        return;
    }
    let mut x = 0;
    // Over a run of this process the keys that steer it come before those that look back.
    let steered = scene.wishes.is_some();
    let keys = [
        ("q", if steered { "stop" } else { "leave" }),
        ("?", "help"),
        ("Tab", "panel"),
        ("z", "zoom"),
        ("g", "stage"),
        ("P", "pause"),
        ("S", "save"),
        ("Space", "hold"),
        ("Left/Right", "epoch"),
        ("End", "follow"),
    ];
    for (key, what) in keys.into_iter().filter(|(key, _)| steered || !matches!(*key, "P" | "S")) {
        if x + columns(key) + columns(what) + 3 > room.width {
            break;
        }
        x += put(room, buffer, x, 0, key, theme.strong) + 1;
        x += put(room, buffer, x, 0, what, theme.quiet) + 2;
    }
}
