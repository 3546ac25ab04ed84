//! The dashboard: watch a run make up its mind, live, from another terminal, or again afterwards.
//!
//! ```text
//! events.jsonl -> timeline (follow, play, seek) -> State::apply -> state --\
//! manifest.json -> About ---------------------------------------------------+-> Scene -> draw: layout -> panels -> Buffer
//! the pack -> Faces (pictures) ----------------------------------------------|                                      |
//! keys -> View (what the reader wants to see) ------------------------------/               terminal, or text and SVG (picture)
//! ```
//! [`draw`] is a pure function of the [`Scene`], so a picture in a document is what the terminal showed. Nothing here knows the engine. Over a
//! run of its own process ([`live`]) the dashboard is the same reader of the same files; what goes back are the reader's wishes, through
//! [`Control`](crate::run::Control).

pub mod app;
pub mod faces;
pub mod graphics;
pub mod ink;
pub mod keys;
pub mod layout;
pub mod live;
mod panels;
pub mod picture;
pub mod series;
pub mod state;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod timeline;

use crate::dataset::Class;
use crate::run::manifest::Manifest;
use crate::run::progress::plain;
use crate::run::pulse::Pulse;
use crate::run::summary::{RunSummary, StageSummary};
use faces::Faces;
use graphics::Graphics;
use layout::{Kind, Panel};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use state::{History, State};
use std::path::PathBuf;
use theme::Theme;

/// What the manifest says, as far as it is shown. Safe for a terminal.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub name: String,
    /// Stages to be done, in order.
    pub stages: Vec<String>,
    pub classes: Vec<String>,
    pub device: String,
    pub pack: Option<PathBuf>,
}

impl About {
    pub fn new(name: &str, manifest: Option<&Manifest>) -> Self {
        let list = |names: &[String]| names.iter().map(|name| plain(name)).collect();
        let data = manifest.and_then(|m| m.data.as_ref());
        Self {
            name: plain(name),
            stages: manifest.map(|m| list(&m.stages)).unwrap_or_default(),
            classes: data.map(|d| list(&d.classes)).unwrap_or_default(),
            device: manifest.and_then(Manifest::device_name).map(plain).unwrap_or_default(),
            pack: data.map(|d| PathBuf::from(&d.pack)),
        }
    }

    /// The class's name, or its number where the manifest has none.
    pub fn class(&self, class: Class) -> String {
        self.classes.get(usize::from(class)).cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

/// What the reader chose to see.
#[derive(Clone, Debug)]
pub struct View {
    /// Position of the stage shown; none: the one that speaks, at the end the last that decided labels.
    pub stage: Option<usize>,
    /// Panels that were chosen, the last one first: it has the keys, and it is in front where several share a place. Never empty.
    pub recent: Vec<Panel>,
    pub zoom: bool,
    pub log_scale: bool,
    /// Index into [`SMOOTHING`].
    pub smoothing: usize,
    pub class: Option<usize>,
    /// Id of the face that stays first.
    pub pinned: Option<String>,
    pub help: bool,
    /// What is looked for in the log, and whether it is being typed.
    pub search: String,
    pub typing: bool,
    /// Lines that the log is scrolled up from its end.
    pub log_up: usize,
}

/// Spans of the smoothed loss, as shares of its readings: a short run is hardly smoothed, a long one is, and neither lags visibly.
pub const SMOOTHING: [f64; 4] = [0.0, 0.02, 0.05, 0.15];

impl Default for View {
    fn default() -> Self {
        Self {
            stage: None,
            recent: vec![Panel::Loss],
            zoom: false,
            log_scale: false,
            smoothing: 2,
            class: None,
            pinned: None,
            help: false,
            search: String::new(),
            typing: false,
            log_up: 0,
        }
    }
}

impl View {
    pub fn focus(&self) -> Panel {
        self.recent[0]
    }

    /// Position of the stage that is shown.
    pub fn shown(&self, summary: &RunSummary) -> Option<usize> {
        let chosen = self.stage.filter(|&i| i < summary.stages.len());
        // When all is done, what was decided says more than what came last.
        let decided = || summary.stages.iter().rposition(|s| s.labels.is_some()).filter(|_| summary.outcome.is_some());
        chosen.or_else(decided).or(summary.current)
    }

    pub fn bring(&mut self, panel: Panel) {
        self.recent.retain(|p| *p != panel);
        self.recent.insert(0, panel);
    }
}

/// How what is shown relates to the run's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    /// The newest event, and the next ones as they come.
    Follow,
    Play {
        speed: f64,
    },
    Hold,
}

/// What the reader has asked of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub stop: bool,
    pub pause: bool,
    pub save: bool,
}

/// Everything a frame is made of.
pub struct Scene<'a> {
    pub state: &'a State,
    pub about: &'a About,
    pub faces: &'a Faces,
    /// Where the terminal shows real pictures.
    pub graphics: Option<&'a Graphics>,
    pub view: &'a View,
    pub theme: &'a Theme,
    pub pulse: Pulse,
    pub transport: Transport,
    /// None where the run cannot be steered from here.
    pub wishes: Option<Wishes>,
    /// Seconds of the run at which it is looked at, and those it has in all so far.
    pub now: f64,
    pub total: f64,
    /// What the reader has to know: a damaged log, a crash.
    pub notice: Option<String>,
}

impl Scene<'_> {
    pub fn shown(&self) -> Option<(&StageSummary, &History)> {
        self.state.stage(self.view.shown(&self.state.summary)?)
    }

    /// Steps that the time axis of a stage spans: the whole stage, or the half, quarter ... of it that the run is still in, so that a young
    /// curve is not a speck and the axis seldom changes.
    pub fn horizon(&self, stage: &StageSummary) -> f64 {
        let mut horizon = stage.steps.max(stage.step).max(1) as f64;
        while horizon / 2.0 >= stage.step as f64 * 1.02 && horizon > 32.0 {
            horizon /= 2.0;
        }
        horizon
    }

    /// The epoch of a step of the stage.
    pub fn epoch(&self, stage: &StageSummary, step: f64) -> f64 {
        if stage.steps > 0 {
            step * stage.epochs / stage.steps as f64
        } else if stage.step > 0 {
            step * stage.epoch / stage.step as f64
        } else {
            0.0
        }
    }
}

/// Draws one frame.
pub fn draw(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    let kind = scene.shown().map_or(Kind::Labels, |(stage, _)| Kind::of(stage.stage));
    let plan = layout::arrange(area, scene.view, kind);
    panels::header::render(scene, plan.header, buffer);
    for placed in &plan.panels {
        panels::render(scene, placed, buffer);
    }
    panels::footer::render(scene, plan.footer, buffer);
    if scene.view.help {
        panels::help::render(scene, area, buffer);
    }
}
