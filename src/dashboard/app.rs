//! The program around the frames: what keys do and how time passes. It knows no terminal, so tests press keys and look at frames;
//! [`super::terminal`] gives it one.

use super::faces::Faces;
use super::graphics::Graphics;
use super::keys::{Action, action};
use super::layout::{self, Kind, Panel, Placed};
use super::state::State;
use super::theme::Theme;
use super::timeline::{Timeline, place};
use super::{About, SMOOTHING, Scene, Transport, View, Wishes, draw};
use crate::failure::{Usage, one_line};
use crate::run::manifest::Manifest;
use crate::run::progress::plain;
use crate::run::pulse::Pulse;
use crate::run::summary::quiet;
use crate::run::{Control, Outcome, RunFolder, Stage};
use anyhow::Result;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at whether the run lives, and at whether it exists.
const PULSE: Duration = Duration::from_secs(1);
/// The same where the run is this process's own.
const SOON: Duration = Duration::from_millis(100);
/// Time spent reading a long log before the next frame.
const SLICE: Duration = Duration::from_millis(25);

/// What follows from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Stay,
    /// The view closes.
    Leave,
    /// The process ends at once.
    End,
}

pub struct App {
    /// The run of this process, which obeys; none: another's, or one that is over.
    control: Option<Control>,
    /// The folder of runs, and what the reader calls the run.
    dir: PathBuf,
    wanted: String,
    timeline: Option<Timeline>,
    about: About,
    faces: Faces,
    view: View,
    theme: Theme,
    transport: Transport,
    /// Seconds of the run that are shown while it does not follow.
    position: f64,
    pulse: Pulse,
    /// When the newest event came, on this machine's clock.
    heard: Instant,
    looked: Option<Instant>,
    /// Whether the log was read to its end once, and what is to begin then.
    settled: bool,
    replay: Option<f64>,
    /// The last whole second that was drawn.
    second: u64,
    problem: Option<String>,
    mouse: bool,
    graphics: Option<Graphics>,
    /// Where the last frame was drawn, to know what a click means.
    area: Cell<Rect>,
}

impl App {
    /// Follows the run called `wanted`, which need not exist yet.
    pub fn watch(dir: &Path, wanted: &str, theme: Theme) -> Self {
        Self {
            control: None,
            dir: dir.into(),
            wanted: wanted.into(),
            timeline: None,
            about: About::new(wanted, None),
            faces: Faces::default(),
            view: View::default(),
            theme,
            transport: Transport::Follow,
            position: 0.0,
            pulse: Pulse::Awaited,
            heard: Instant::now(),
            looked: None,
            settled: false,
            replay: None,
            second: 0,
            problem: None,
            mouse: true,
            graphics: None,
            area: Cell::default(),
        }
    }

    /// Shows runs of this process, which `control` steers: see [`App::turn_to`].
    pub fn live(theme: Theme, control: Control) -> Self {
        Self { control: Some(control), ..Self::watch(Path::new(""), "", theme) }
    }

    /// Follows the run at `path`, which need not exist yet.
    pub fn turn_to(&mut self, path: PathBuf) {
        let wanted = path.display().to_string();
        if wanted == self.wanted {
            return;
        }
        let next = Self::watch(Path::new(""), &wanted, self.theme.clone());
        let view = View { stage: None, pinned: None, ..self.view.clone() };
        let name = path.file_name().map_or(wanted, |name| name.to_string_lossy().into_owned());
        *self = Self {
            control: self.control.take(),
            view,
            about: About::new(&name, None),
            mouse: self.mouse,
            graphics: self.graphics.take(),
            ..next
        };
    }

    /// Plays the run from its beginning, `speed` times as fast as it went.
    pub fn replay(dir: &Path, wanted: &str, theme: Theme, speed: f64) -> Self {
        Self { replay: Some(speed), ..Self::watch(dir, wanted, theme) }
    }

    /// Opens a run that is there and reads all of it.
    ///
    /// # Errors
    /// Where there is no such run.
    pub fn open(dir: &Path, wanted: &str, theme: Theme) -> Result<Self> {
        let mut app = Self::watch(dir, wanted, theme);
        app.attach(RunFolder::find(dir, wanted)?, true);
        if let Some(timeline) = &mut app.timeline {
            timeline.read_all();
        }
        app.settled = true;
        app.look();
        Ok(app)
    }

    /// Shows the run as it was after `step` of the stage called `stage`, or of the first stage that came so far.
    ///
    /// # Errors
    /// Where no such stage came so far.
    pub fn seek_step(&mut self, stage: Option<&str>, step: u64) -> Result<()> {
        let Some(timeline) = &mut self.timeline else { return Ok(()) };
        let stages = &timeline.head().summary.stages;
        let found = stages.iter().position(|s| stage.is_none_or(|name| s.place() == name) && s.step >= step);
        let Some(index) = found else {
            let reached: Vec<String> = stages.iter().map(|s| format!("{} {}", s.place(), s.step)).collect();
            crate::usage!("no stage of the run came to step {step} (the last steps are: {})", plain(&reached.join(", ")));
        };
        timeline.seek(|s| s.summary.current.is_some_and(|i| i > index || i == index && s.summary.stages[i].step >= step));
        timeline.finish_step();
        (self.transport, self.position) = (Transport::Hold, timeline.state().summary.seconds);
        Ok(())
    }

    /// Shows the stage called `name`, as it is at the end.
    ///
    /// # Errors
    /// Where the run has no such stage.
    pub fn show_stage(&mut self, name: &str) -> Result<()> {
        let Some(timeline) = &self.timeline else { return Ok(()) };
        self.view.stage = timeline.head().find(name);
        if self.view.stage.is_none() {
            let stages: Vec<String> = timeline.head().summary.stages.iter().map(|s| s.place()).collect();
            crate::usage!("the run has no stage {name} (it has: {})", plain(&stages.join(", ")));
        }
        Ok(())
    }

    fn attach(&mut self, folder: RunFolder, wait: bool) {
        self.heard = Instant::now().checked_sub(quiet(&folder)).unwrap_or_else(Instant::now);
        self.about = About::new(&folder.name(), None);
        self.timeline = Some(Timeline::new(folder));
        self.read_manifest(wait);
    }

    fn read_manifest(&mut self, wait: bool) {
        let Some(folder) = self.timeline.as_ref().map(Timeline::folder) else { return };
        // A damaged manifest costs names and pictures, no more.
        if let Ok(manifest) = Manifest::read(folder) {
            self.about = About::new(&folder.name(), Some(&manifest));
            self.faces = Faces::open(folder.path(), self.about.pack.clone(), wait);
        }
    }

    /// Lets time pass. Returns whether there is something new to draw, and whether there is more to do at once.
    pub fn tick(&mut self, elapsed: Duration) -> (bool, bool) {
        let mut changed = false;
        // The run of this process is about to begin.
        let patience = if self.timeline.is_none() && self.control.is_some() { SOON } else { PULSE };
        let due = self.looked.is_none_or(|at| at.elapsed() >= patience);
        if self.timeline.is_none() && due {
            self.looked = Some(Instant::now());
            match RunFolder::find(&self.dir, &self.wanted) {
                Ok(folder) => self.attach(folder, false),
                // Waiting for a name that fits several runs would wait for ever.
                Err(error) => {
                    self.problem = error.downcast_ref::<Usage>().map(|_| plain(&one_line(&error))).filter(|e| e.contains("fits several"))
                }
            }
            changed = true;
        }
        let Some(timeline) = &mut self.timeline else { return (changed, false) };
        let unsettled = !self.faces.settled();
        let (news, more) = timeline.read(SLICE);
        if news {
            if self.settled {
                self.heard = Instant::now();
            }
            changed = true;
        }
        if !more && !self.settled {
            self.settled = true;
            if let Some(speed) = self.replay {
                timeline.seek(|_| true);
                (self.transport, self.position) = (Transport::Play { speed }, 0.0);
                changed = true;
            }
        }
        // A log that was read anew, as after a resume, is shown where it is now.
        if timeline.at_head() && self.transport != Transport::Follow {
            self.transport = Transport::Follow;
        }
        if let Transport::Play { speed } = self.transport {
            self.position += elapsed.as_secs_f64() * speed;
            changed |= timeline.play(self.position);
            if timeline.ended() {
                timeline.follow();
                self.transport = Transport::Follow;
                changed = true;
            }
        }
        if due {
            let before = self.pulse;
            if self.about.stages.is_empty() {
                self.read_manifest(false);
            }
            self.look();
            changed |= before != self.pulse;
        }
        let second = self.now() as u64;
        changed |= second != self.second || unsettled;
        self.second = second;
        (changed, more)
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        if let Some(timeline) = &self.timeline {
            // What speaks here lives, whatever a run that is resumed said last.
            self.pulse = if self.control.is_some() { Pulse::Running } else { Pulse::take(timeline.folder(), &timeline.head().summary) };
        }
    }

    fn now(&self) -> f64 {
        let Some(timeline) = &self.timeline else { return self.heard.elapsed().as_secs_f64() };
        let seconds = timeline.state().summary.seconds;
        match (self.transport, self.pulse) {
            (Transport::Follow, Pulse::Running) => seconds + self.heard.elapsed().as_secs_f64(),
            (Transport::Follow, _) => seconds,
            _ => self.position.max(seconds),
        }
    }

    fn notice(&self) -> Option<String> {
        if self.control.as_ref().is_some_and(Control::stopping) {
            return Some("stopping: the step is finished and saved (q again: end at once, from the last checkpoint)".into());
        }
        let Some(timeline) = &self.timeline else {
            // Of a run of this process the head says what it is doing.
            if self.control.is_some() {
                return None;
            }
            let waiting = format!("waiting for {} in {} to begin", self.wanted, self.dir.display());
            return Some(plain(&self.problem.clone().unwrap_or(waiting)));
        };
        let summary = &timeline.head().summary;
        if let Some(problem) = timeline.problem() {
            // The folder is known; the file in it and what is wrong with it have to fit.
            let folder = format!("{}/", timeline.folder().path().display());
            return Some(format!("{}; shown up to there", problem.replace(&plain(&folder), "")));
        }
        if !self.settled && summary.events > 20_000 {
            return Some(format!("reading the log: {} events", summary.events));
        }
        let follows = self.transport == Transport::Follow;
        match self.pulse {
            Pulse::Crashed if follows => {
                let saved = summary.latest(|s| s.checkpoint.clone()).map_or("nothing was saved".into(), |path| format!("saved: {path}"));
                Some(plain(&format!("crashed: its process is gone; {saved}")))
            }
            Pulse::Silent if follows => Some("silent for more than ten minutes; it may have crashed".into()),
            Pulse::Ended(Outcome::Failed | Outcome::Interrupted) if follows && !summary.message.is_empty() => Some(plain(&summary.message)),
            _ if summary.skipped > 0 => Some(format!("{} events of a newer moue are not shown", summary.skipped)),
            _ => None,
        }
    }

    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let empty = State::default();
        let (state, total) = match &self.timeline {
            Some(timeline) => (timeline.state(), timeline.head().summary.seconds),
            None => (&empty, 0.0),
        };
        self.area.set(area);
        let wishes = |c: &Control| Wishes { stop: c.stopping(), pause: c.paused(), save: c.saving() };
        let scene = Scene {
            wishes: self.control.as_ref().map(wishes),
            state,
            about: &self.about,
            faces: &self.faces,
            graphics: self.graphics.as_ref(),
            view: &self.view,
            theme: &self.theme,
            pulse: self.pulse,
            transport: self.transport,
            now: self.now(),
            total,
            notice: self.notice(),
        };
        draw(&scene, area, buffer);
    }

    /// Whether something may change with every frame.
    pub fn playing(&self) -> bool {
        matches!(self.transport, Transport::Play { .. })
    }

    pub fn theme(&self) -> &Theme {
        &self.theme
    }

    /// The run's name, safe for a terminal.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Draws real pictures from now on, where the terminal shows them.
    pub fn set_graphics(&mut self, graphics: Option<Graphics>) {
        self.graphics = graphics;
    }

    /// Whether clicks are to be told.
    pub fn wants_mouse(&self) -> bool {
        self.mouse
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        if self.view.typing && !key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Enter => {
                    self.view.typing = false;
                    self.view.log_up = 0;
                    self.find(1, true);
                }
                KeyCode::Esc => (self.view.typing, self.view.search) = (false, String::new()),
                KeyCode::Backspace => drop(self.view.search.pop()),
                KeyCode::Char(c) => self.view.search.push(c),
                _ => {}
            }
            return Next::Stay;
        }
        let Some(action) = action(key) else { return Next::Stay };
        if self.view.help && action != Action::Quit {
            self.view.help = false;
            return Next::Stay;
        }
        match action {
            Action::Quit => {
                return match &self.control {
                    None => Next::Leave,
                    Some(control) if control.stop() => Next::End,
                    Some(_) => Next::Stay,
                };
            }
            // Greyed in the help where the run is not of this process.
            Action::Pause => self.control.iter().for_each(Control::pause_or_go_on),
            Action::Save => self.control.iter().for_each(Control::save),
            Action::Mouse => self.mouse = !self.mouse,
            Action::Help => self.view.help = true,
            Action::Back => {
                if !self.view.search.is_empty() {
                    self.view.search.clear();
                } else {
                    self.view.zoom = false;
                }
            }
            Action::NextPanel(by) => self.view.bring(self.view.focus().next(by)),
            Action::Choose(panel) => self.view.bring(panel),
            Action::Zoom => self.view.zoom = !self.view.zoom,
            Action::LogScale => self.view.log_scale = !self.view.log_scale,
            Action::Smoothing => self.view.smoothing = (self.view.smoothing + 1) % SMOOTHING.len(),
            Action::NextClass => {
                let next = self.view.class.map_or(0, |c| c + 1);
                self.view.class = (next < self.about.classes.len()).then_some(next);
            }
            Action::NextStage => self.next_stage(),
            Action::Pin => self.pin(),
            Action::Theme => self.theme = self.theme.next(),
            Action::Search => {
                self.view.bring(Panel::Log);
                (self.view.typing, self.view.search) = (true, String::new());
            }
            Action::Match(by) => self.find(by, false),
            Action::Scroll(by) => self.scroll(by),
            Action::Hold | Action::Epoch(_) | Action::Event(_) | Action::Begin | Action::End | Action::Faster(_) => self.travel(action),
        }
        Next::Stay
    }

    /// Does what the mouse asks for: a click chooses a panel or, on the line of progress, a time; the right button zooms; the wheel scrolls the
    /// log.
    pub fn mouse(&mut self, mouse: MouseEvent) -> Next {
        let area = self.area.get();
        let at = Position::new(mouse.column, mouse.row);
        let kind = self.shown().map_or(Kind::Labels, Kind::of);
        let plan = layout::arrange(area, &self.view, kind);
        let placed = plan.panels.iter().find(|p| p.area.contains(at));
        match (mouse.kind, placed) {
            (MouseEventKind::Down(_), _) if self.view.help => self.view.help = false,
            (MouseEventKind::Down(MouseButton::Left), Some(placed)) => self.view.bring(super::panels::clicked(placed, at)),
            (MouseEventKind::Down(MouseButton::Right), Some(placed)) => {
                self.view.bring(placed.panel);
                self.view.zoom = !self.view.zoom;
            }
            (MouseEventKind::Down(MouseButton::Left), None) => {
                if let Some(share) = super::panels::header::clicked(plan.header, at) {
                    self.seek_share(share);
                }
            }
            (MouseEventKind::ScrollUp, Some(Placed { panel: Panel::Log, .. })) => self.scroll(3),
            (MouseEventKind::ScrollDown, Some(Placed { panel: Panel::Log, .. })) => self.scroll(-3),
            _ => {}
        }
        Next::Stay
    }

    fn shown(&self) -> Option<Stage> {
        let summary = &self.timeline.as_ref()?.state().summary;
        self.view.shown(summary).and_then(|i| Some(summary.stages.get(i)?.stage))
    }

    fn scroll(&mut self, by: isize) {
        self.view.bring(Panel::Log);
        let most = self.timeline.as_ref().map_or(0, |t| t.state().log.len().saturating_sub(1));
        self.view.log_up = self.view.log_up.saturating_add_signed(by).min(most);
    }

    /// Holds the view where `share` of the steps of the stage that is shown were done, as far as the run has come.
    fn seek_share(&mut self, share: f64) {
        let Some(timeline) = &mut self.timeline else { return };
        let Some(shown) = self.view.shown(&timeline.state().summary) else { return };
        let Some(stage) = timeline.head().summary.stages.get(shown) else { return };
        // Places count stages from 1.
        let target = (shown + 1, stage.epochs * share);
        timeline.seek(|s| place(s) >= target);
        self.position = timeline.state().summary.seconds;
        self.transport = Transport::Hold;
    }

    /// The newest stage, then the others one after the other.
    fn next_stage(&mut self) {
        let n = self.timeline.as_ref().map_or(0, |t| t.state().summary.stages.len());
        let next = self.view.stage.map_or(0, |i| i + 1);
        self.view.stage = (next < n).then_some(next);
    }

    fn pin(&mut self) {
        let Some(timeline) = &self.timeline else { return };
        let state = timeline.state();
        let Some((_, history)) = self.view.shown(&state.summary).and_then(|i| state.stage(i)) else { return };
        let at = self.view.pinned.as_ref().and_then(|id| history.watched.iter().position(|w| w.face == *id));
        let next = at.map_or(0, |i| i + 1);
        self.view.pinned = history.watched.get(next).map(|w| w.face.clone());
    }

    /// Scrolls the log to the next match above (`by` 1) or below; `here` also accepts the line that is lowest now.
    fn find(&mut self, by: isize, here: bool) {
        let Some(timeline) = &self.timeline else { return };
        let log = &timeline.state().log;
        let mut up = self.view.log_up as isize + if here { 0 } else { by };
        while (0..log.len() as isize).contains(&up) {
            if super::panels::matches(&log[log.len() - 1 - up as usize], &self.view.search) {
                self.view.log_up = up as usize;
                return;
            }
            up += by;
        }
    }

    /// Moves through the run's time.
    fn travel(&mut self, action: Action) {
        let Some(timeline) = &mut self.timeline else { return };
        let speed = self.replay.unwrap_or(1.0);
        if action == Action::End {
            timeline.follow();
            self.transport = Transport::Follow;
            return;
        }
        if let Action::Faster(by) = action {
            let faster = (speed * by).clamp(0.125, 65_536.0);
            self.replay = Some(faster);
            if let Transport::Play { .. } = self.transport {
                self.transport = Transport::Play { speed: faster };
            }
            return;
        }
        if timeline.at_head() {
            let events = timeline.head().summary.events;
            timeline.seek(|s| s.summary.events >= events);
        }
        let summary = &timeline.state().summary;
        let (here, epoch) = place(timeline.state());
        let events = summary.events;
        match action {
            Action::Hold => {
                self.transport = match self.transport {
                    Transport::Hold => Transport::Play { speed },
                    _ => Transport::Hold,
                };
                self.position = timeline.state().summary.seconds.max(self.position.min(timeline.head().summary.seconds));
                return;
            }
            Action::Epoch(by) => {
                let target = if by > 0.0 { epoch.floor() + by } else { epoch.ceil() + by };
                let stages = &timeline.head().summary.stages;
                let last = stages.get(here.saturating_sub(1)).map_or(0.0, |s| s.epoch);
                let target = match target {
                    t if t < 0.0 && here > 1 => (here - 1, stages.get(here - 2).map_or(0.0, |s| s.epoch)),
                    t if t > last && here < stages.len() => (here + 1, 0.0),
                    t => (here.max(1), t),
                };
                timeline.seek(|s| place(s) >= target);
                timeline.finish_step();
            }
            Action::Event(by) => {
                let target = events.saturating_add_signed(by);
                timeline.seek(|s| s.summary.events >= target);
            }
            _ => timeline.seek(|_| true),
        }
        self.position = timeline.state().summary.seconds;
        self.transport = Transport::Hold;
    }
}
