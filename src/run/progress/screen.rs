//! A few rows at the bottom of the terminal that show where the run stands; results and warnings scroll by above them.
//!
//! An inline view: no alternate screen, no raw mode, no keys, so the terminal keeps its history and Ctrl-C its meaning. What is drawn is a pure function of
//! the [`View`], a fold over events. If the terminal fails, lines are printed instead.

use super::{Lines, Pace, describe, plain, short};
use crate::run::clock::hms;
use crate::run::event::{Body, Event, Level};
use crate::run::summary::RunSummary;
use crate::run::writer::Sink;
use crossterm::cursor::{MoveTo, Show};
use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Gauge, Paragraph, Sparkline, Widget, Wrap};
use ratatui::{Terminal, TerminalOptions, Viewport};
use std::error::Error;
use std::io::{self, Stdout, Write};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// Rows of the view.
pub const ROWS: u16 = 8;
/// Columns below which nothing useful fits.
const NARROWEST: u16 = 40;
/// No more than ten pictures a second.
const FRAME: Duration = Duration::from_millis(100);

/// Whether a view is on the terminal, the row below it, and who is drawing: what a panic in any thread needs to clean up.
static SHOWN: AtomicBool = AtomicBool::new(false);
static BELOW: AtomicU16 = AtomicU16::new(0);
static DRAWING: Mutex<()> = Mutex::new(());

/// Leaves the view as it stands and gives the cursor back, for an exit that runs no destructors (a second Ctrl-C). Does nothing where no view is
/// shown.
pub fn restore_terminal() {
    // The thread that panics may itself hold the lock: do not wait for ever.
    let mut patience = 20;
    let _drawing = loop {
        match DRAWING.try_lock() {
            Ok(guard) => break Some(guard),
            Err(_) if patience == 0 => break None,
            Err(_) => patience -= 1,
        }
        thread::sleep(Duration::from_millis(10));
    };
    if SHOWN.swap(false, Ordering::SeqCst) {
        let last = BELOW.load(Ordering::SeqCst).saturating_sub(1);
        let _ = crossterm::queue!(io::stdout(), MoveTo(0, last), Show);
        let _ = io::stdout().write_all(b"\r\n").and_then(|()| io::stdout().flush());
    }
}

/// The inline view. Dropping it gives the terminal back.
pub struct Screen<B: Backend> {
    terminal: Option<Terminal<B>>,
    view: View,
    drawn: Option<Instant>,
    /// When the last event came: the clock shown goes on from its time.
    heard: Instant,
    lines: Lines<Stdout>,
    /// The process's own terminal, which a panic has to restore.
    own: bool,
}

impl Screen<CrosstermBackend<Stdout>> {
    /// # Errors
    /// Where the terminal is too narrow or does not answer.
    pub fn open() -> io::Result<Self> {
        let (columns, rows) = crossterm::terminal::size()?;
        if columns < NARROWEST || rows <= ROWS {
            return Err(io::Error::other("the terminal is too small"));
        }
        let mut screen = Self::with_backend(CrosstermBackend::new(io::stdout()))?;
        screen.own = true;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore_terminal();
                before(info);
            }));
        });
        SHOWN.store(true, Ordering::SeqCst);
        Ok(screen)
    }
}

impl<B: Backend> Screen<B>
where
    B::Error: Error + Send + Sync + 'static,
{
    fn with_backend(backend: B) -> io::Result<Self> {
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport: Viewport::Inline(ROWS) }).map_err(io::Error::other)?;
        let lines = Lines::new(io::stdout());
        Ok(Self { terminal: Some(terminal), view: View::default(), drawn: None, heard: Instant::now(), lines, own: false })
    }

    /// Does `draw` unless a panic has taken the terminal; gives the view up where it fails.
    fn with_terminal(&mut self, draw: impl FnOnce(&mut Terminal<B>, &View) -> Result<(), B::Error>) {
        let _drawing = DRAWING.lock();
        let Some(terminal) = &mut self.terminal else { return };
        if self.own && !SHOWN.load(Ordering::SeqCst) {
            self.terminal = None;
            return;
        }
        if draw(terminal, &self.view).is_err() {
            self.terminal = None;
            if self.own {
                SHOWN.store(false, Ordering::SeqCst);
            }
        } else if self.own {
            BELOW.store(terminal.get_frame().area().bottom(), Ordering::SeqCst);
        }
    }

    fn draw(&mut self) {
        let now = self.view.summary.seconds + self.heard.elapsed().as_secs_f64();
        self.with_terminal(|terminal, view| terminal.draw(|frame| view.render(now, frame.area(), frame.buffer_mut())).map(|_| ()));
        self.drawn = Some(Instant::now());
    }

    /// Prints a line above the view, wrapped to the terminal.
    fn print(&mut self, line: &str) {
        self.with_terminal(|terminal, _| {
            let width = terminal.size()?.width.max(1);
            // Wrapping at words can need more rows than the characters alone.
            let paragraph = Paragraph::new(line.to_string()).wrap(Wrap { trim: false });
            let rows = (1..=64).find(|&rows| fits(&paragraph, width, rows)).unwrap_or(64);
            terminal.insert_before(rows, |buffer| paragraph.render(buffer.area, buffer))
        });
    }
}

/// Whether the wrapped text leaves the row after `rows` empty.
fn fits(paragraph: &Paragraph, width: u16, rows: u16) -> bool {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, rows + 1));
    paragraph.render(buffer.area, &mut buffer);
    (0..width).all(|x| buffer[(x, rows)].symbol() == " ")
}

impl<B: Backend + Send> Sink for Screen<B>
where
    B::Error: Error + Send + Sync + 'static,
{
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.heard = Instant::now();
        self.view.apply(event);
        if self.terminal.is_none() {
            return self.lines.event(event);
        }
        let lasting = match &event.body {
            Body::Scalars(_) | Body::Confidence { .. } | Body::Watched { .. } | Body::Phase { .. } | Body::Checkpoint { .. } => false,
            Body::Message { level, .. } => *level != Level::Info,
            _ => true,
        };
        if lasting && let Some(line) = describe(event, self.view.summary.stage()) {
            self.print(&line);
        }
        if self.drawn.is_none_or(|at| at.elapsed() >= FRAME) {
            self.draw();
        }
        if self.terminal.is_none() {
            // It was lost on this very event: better told twice than not at all.
            self.lines.adopt(&self.view.summary, &self.view.pace);
            return self.lines.event(event);
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        if self.terminal.is_some() && self.drawn.is_none_or(|at| at.elapsed() >= FRAME) {
            self.draw();
            if self.terminal.is_none() {
                self.lines.adopt(&self.view.summary, &self.view.pace);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        // What matters has scrolled by above; the last state of the view would only look like a run that goes on.
        self.with_terminal(|terminal, _| {
            let top = terminal.get_frame().area().as_position();
            // Not `terminal.clear()`, which first asks the terminal where its cursor is.
            terminal.set_cursor_position(Position::new(0, top.y))?;
            terminal.backend_mut().clear_region(ClearType::AfterCursor)?;
            terminal.show_cursor()
        });
        self.terminal = None;
        if self.own {
            SHOWN.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl<B: Backend> Drop for Screen<B> {
    fn drop(&mut self) {
        if self.own && self.terminal.is_some() {
            restore_terminal();
        }
    }
}

/// What the screen shows: a fold over events.
#[derive(Clone, Debug, Default)]
pub struct View {
    summary: RunSummary,
    pace: Pace,
    loss: History,
    rate: Option<f64>,
    lr: Option<f64>,
    message: Option<(Level, String)>,
}

impl View {
    pub fn apply(&mut self, event: &Event) {
        self.summary.apply(event);
        match &event.body {
            Body::StageStarted { .. } => {
                (self.pace, self.loss, self.rate, self.lr) = (Pace::default(), History::default(), None, None);
            }
            Body::Scalars(scalars) => {
                self.pace.push(event.t, event.step);
                self.rate = scalars.get("faces_per_second").or(self.rate);
                self.lr = scalars.get("lr").or(self.lr);
                if let Some(loss) = scalars.get("loss") {
                    self.loss.push(loss);
                }
            }
            Body::Message { level, text } => self.message = Some((*level, plain(text))),
            Body::Checkpoint { path } => self.message = Some((Level::Info, plain(&format!("saved {path}")))),
            _ => {}
        }
    }

    /// Draws the view at `now` seconds of the run into `area`, which is [`ROWS`] high or less.
    pub fn render(&self, now: f64, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        let width = usize::from(area.width);
        let row = |i: u16, rows: u16| Rect::new(area.x, area.y + i, area.width, rows).intersection(area);
        let put = |i: u16, style: Style, parts: &[String], buffer: &mut Buffer| {
            Line::styled(fit(parts, width), style).render(row(i, 1), buffer);
        };
        let (quiet, bold) = (Style::new().add_modifier(Modifier::DIM), Style::new().add_modifier(Modifier::BOLD));
        let stage = self.summary.stage();

        let mut title = vec![format!("moue {}", stage.map_or("starting".into(), |s| plain(&s.place()))), hms(now)];
        if let Some((phase, since)) = self.summary.phase {
            title.push(format!("{} {}", phase.name(), hms((now - since).max(0.0))));
        }
        put(0, bold, &title, buffer);

        if let Some(s) = stage.filter(|s| s.steps > 0) {
            let left = self.pace.eta(s.steps).map(|eta| (eta - (now - self.summary.seconds)).max(0.0));
            let label = format!("step {}/{}  eta {}", s.step, s.steps, hms(left.unwrap_or(f64::NAN)));
            let gauge = Gauge::default().gauge_style(Style::new().fg(Color::Cyan)).use_unicode(true);
            gauge.ratio((s.step as f64 / s.steps as f64).clamp(0.0, 1.0)).label(label).render(row(1, 1), buffer);
            let mut parts = vec![format!("epoch {:.1}/{}", s.epoch, s.epochs)];
            parts.extend(self.rate.map(|rate| format!("{rate:.0} faces/s")));
            parts.extend(self.lr.map(|lr| format!("lr {}", short(lr))));
            parts.push(format!("batch {}", s.batch));
            put(2, Style::new(), &parts, buffer);
        }
        if let Some(loss) = stage.and_then(|s| s.loss) {
            put(3, Style::new(), &[format!("loss {}", short(loss))], buffer);
            let label = 14.min(area.width);
            let chart = Rect { x: area.x + label, width: area.width - label, ..row(3, 2) };
            let bars = self.loss.bars(usize::from(chart.width), u64::from(chart.height) * 8);
            Sparkline::default().data(bars).max(u64::from(chart.height) * 8).style(Style::new().fg(Color::Yellow)).render(chart, buffer);
        }
        if let Some((s, valid)) = self.summary.latest(|s| Some((s.clone(), s.valid?))) {
            let mut parts = vec![format!("valid {}", percent(valid.accuracy))];
            parts.extend(s.best.map(|best| format!("best {} (epoch {:.1})", percent(best.accuracy), best.epoch)));
            parts.push(format!("mean recall {}", percent(valid.mean_recall)));
            put(5, Style::new(), &parts, buffer);
        }
        if let Some(labels) = self.summary.latest(|s| s.labels) {
            let share = percent(labels.resolved_share());
            let mut parts = vec![format!("labels {}/{} decided ({share})", labels.resolved, labels.ambiguous)];
            parts.extend(labels.recovered.map(|share| format!("recovered {}", percent(share))));
            parts.push(format!("flips {}", labels.flips));
            put(6, Style::new(), &parts, buffer);
        }
        if let Some((level, text)) = &self.message {
            let style = match level {
                Level::Info => quiet,
                Level::Warning => Style::new().fg(Color::Yellow),
                Level::Error => Style::new().fg(Color::Red),
            };
            // The one row that may be cut: it is written out in the log.
            Line::styled(text.as_str(), style).render(row(7, 1), buffer);
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// As many whole parts as fit, the first in any case.
fn fit(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        if line.is_empty() {
            line.push_str(part);
        } else if line.chars().count() + 2 + part.chars().count() <= width {
            line = line + "  " + part;
        }
    }
    line
}

/// The losses of a stage at a resolution that its length allows: each value is the mean over `stride` readings.
#[derive(Clone, Debug)]
struct History {
    values: Vec<f64>,
    stride: u32,
    sum: f64,
    count: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { values: Vec::new(), stride: 1, sum: 0.0, count: 0 }
    }
}

impl History {
    const MOST: usize = 2048;

    fn push(&mut self, x: f64) {
        self.sum += x;
        self.count += 1;
        if self.count < self.stride {
            return;
        }
        self.values.push(self.sum / f64::from(self.count));
        (self.sum, self.count) = (0.0, 0);
        if self.values.len() == Self::MOST {
            self.values = self.values.chunks(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.stride *= 2;
        }
    }

    /// Heights 1 to `top` of at most `width` bars over the range of the finite values; none where the loss was not finite.
    fn bars(&self, width: usize, top: u64) -> Vec<Option<u64>> {
        let n = self.values.len();
        if n == 0 || width == 0 || top == 0 {
            return Vec::new();
        }
        let bars = width.min(n);
        let means = (0..bars).map(|i| &self.values[i * n / bars..(i + 1) * n / bars]);
        let means: Vec<f64> = means.map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
        // A diverged loss must not flatten or empty the chart.
        let finite = || means.iter().copied().filter(|x| x.is_finite());
        let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        let height = |x: f64| {
            let share = if high > low { (x - low) / (high - low) } else { 0.5 };
            1 + (share * (top - 1) as f64).round() as u64
        };
        means.iter().map(|&x| x.is_finite().then(|| height(x))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use crate::run::event::tests::event;
    use crate::run::{Outcome, Phase, Scalars};
    use ratatui::backend::TestBackend;

    fn events() -> Vec<Event> {
        let mut events = vec![
            event(Body::Phase { name: Phase::Train, elapsed: None }),
            event(Body::StageStarted { steps: 800, epochs: 20.0, batch: 64, faces: 2560 }),
        ];
        for step in 1..=120 {
            let loss = if step == 60 { f64::NAN } else { 2.0 / step as f64 };
            let scalars = Scalars::from([("loss", loss), ("lr", 9.1e-4), ("faces_per_second", 412.4)]);
            events.push(Event { t: step as f64, step, epoch: step as f64 / 40.0, ..event(Body::Scalars(scalars)) });
        }
        let evaluation = |accuracy| Body::Evaluation {
            split: Split::Valid,
            accuracy,
            mean_recall: 0.592,
            per_class: vec![],
            confusion: vec![],
            loss: None,
            macro_f1: None,
            calibration_error: None,
        };
        let end = |body| Event { t: 120.0, step: 120, epoch: 3.0, ..event(body) };
        events.push(Event { epoch: 2.0, ..end(evaluation(0.66)) });
        events.push(end(evaluation(0.6521)));
        events.push(end(Body::Confidence { histogram: vec![], resolved: 812, ambiguous: 1601, flips: 12, recovered: Some(0.712) }));
        events.push(end(Body::Message { level: Level::Warning, text: "one face\x1b[2J of the pack is black".into() }));
        events
    }

    fn rows(buffer: &Buffer) -> Vec<String> {
        let area = buffer.area;
        let row = |y| (0..area.width).map(|x| buffer[(area.x + x, area.y + y)].symbol()).collect::<String>();
        (0..area.height).map(|y| row(y).trim_end().to_string()).collect()
    }

    fn view(width: u16) -> Vec<String> {
        let mut view = View::default();
        events().iter().for_each(|event| view.apply(event));
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, ROWS));
        view.render(130.0, buffer.area, &mut buffer);
        rows(&buffer)
    }

    #[test]
    fn eighty_columns() {
        let rows = view(80);
        assert_eq!(rows[0], "moue finetune/pll  00:02:10  train 00:02:09");
        assert!(rows[1].contains("step 120/800  eta 00:11:10") && rows[1].starts_with('█'), "{}", rows[1]);
        assert_eq!(rows[2], "epoch 3.0/20  412 faces/s  lr 9.10e-4  batch 64");
        assert!(rows[3].starts_with("loss 0.0167   █"), "{}", rows[3]);
        assert!(rows[4].ends_with('▁'), "{}", rows[4]);
        assert_eq!(rows[5], "valid 65.2 %  best 66.0 % (epoch 2.0)  mean recall 59.2 %");
        assert_eq!(rows[6], "labels 812/1601 decided (50.7 %)  recovered 71.2 %  flips 12");
        assert_eq!(rows[7], "one face [2J of the pack is black");
    }

    #[test]
    fn forty_columns_leave_whole_parts_out() {
        let rows = view(40);
        assert_eq!(rows[0], "moue finetune/pll  00:02:10");
        assert!(rows[1].contains("step 120/800  eta 00:11:10"), "{}", rows[1]);
        assert_eq!(rows[2], "epoch 3.0/20  412 faces/s  lr 9.10e-4");
        assert_eq!(rows[5], "valid 65.2 %  best 66.0 % (epoch 2.0)");
        assert_eq!(rows[6], "labels 812/1601 decided (50.7 %)");
    }

    #[test]
    fn any_size_draws() {
        let mut full = View::default();
        events().iter().for_each(|event| full.apply(event));
        for view in [View::default(), full] {
            for width in [0, 1, 13, 14, 15, 40, 250] {
                for height in 0..=ROWS {
                    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
                    view.render(1e9, Rect::new(0, 0, width, ROWS), &mut buffer);
                }
            }
        }
    }

    #[test]
    fn results_scroll_by_above_the_view() {
        let mut screen = Screen::with_backend(TestBackend::new(60, 20)).unwrap();
        events().iter().for_each(|event| screen.event(event).unwrap());
        screen.draw();
        let shown = rows(screen.terminal.as_ref().unwrap().backend().buffer());
        let line = |text: &str| shown.iter().position(|row| row.contains(text)).unwrap_or_else(|| panic!("{text}: {shown:#?}"));
        // Wrapped at a word, the rest on the next row.
        let evaluation = line("valid acc=0.6521");
        assert!(line("warning: one face") > evaluation && line("moue finetune/pll  00:") > evaluation);
        assert_eq!(shown.iter().filter(|row| row.contains("step 120/800  eta")).count(), 1, "{shown:#?}");
        screen.event(&event(Body::RunFinished { outcome: Outcome::Completed, message: String::new() })).unwrap();
        screen.finish().unwrap();
    }

    #[test]
    fn a_long_stage_keeps_its_whole_history() {
        let mut history = History::default();
        (0..100_000).for_each(|i| history.push(100_000.0 - f64::from(i)));
        assert!(history.values.len() < History::MOST);
        let bars = history.bars(50, 16);
        assert_eq!((bars.len(), bars[0], bars[49]), (50, Some(16), Some(1)));
        history.push(f64::INFINITY);
        assert_eq!(history.bars(50, 16)[0], Some(16));
        assert_eq!(History::default().bars(50, 16), []);
    }
}
