//! The terminal while the dashboard has it. Only what changed is drawn, at most 30 times a second, and the terminal is given back as it was on
//! every way out: a key, an error, a signal, a panic.

use super::app::{App, Next};
use super::theme::Depth;
use crate::failure;
use crate::run::Control;
use crate::run::prints::{self, Prints};
use anyhow::{Context, Result};
use crossterm::event::{DisableMouseCapture, EnableMouseCapture, Event as Input, KeyEventKind};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, event, execute, terminal};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

/// No more than 30 frames a second.
const FRAME: Duration = Duration::from_millis(33);
/// Between two looks at a file that is being written.
const LOOK: Duration = Duration::from_millis(100);
/// Columns and rows below which nothing useful fits.
const SMALLEST: (u16, u16) = (40, 12);

/// Of the way out with a frame that is being written, twenty times.
const PATIENCE: Duration = Duration::from_millis(10);

static SHOWN: AtomicBool = AtomicBool::new(false);
static DRAWING: Mutex<()> = Mutex::new(());

/// A control that signals speak to; a second signal ends the process, with the terminal as it was, and where the terminal goes away `hang_up` says
/// what then. Once a process.
pub fn control(hang_up: fn()) -> Result<Control> {
    let control = Control::default();
    control.listen(leave, hang_up)?;
    Ok(control)
}

/// Ends a process that only shows something: there is nobody left to show it to.
pub fn end() {
    leave();
    std::process::exit(129);
}

/// Gives the terminal back, for a way out that runs no destructors. Does nothing where the dashboard does not have it.
pub fn leave() {
    // A frame that is being written is waited for, but not for ever: the thread that panics may itself hold the lock.
    let _drawing = (0..20).find_map(|_| DRAWING.try_lock().ok().or_else(|| (thread::sleep(PATIENCE), None).1));
    if SHOWN.swap(false, Ordering::SeqCst) {
        prints::end();
        let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Whether the standard input and output are a terminal that can show the dashboard.
pub fn is_fit() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let large = |(width, height)| width >= SMALLEST.0 && height >= SMALLEST.1;
    !dumb && io::stdout().is_terminal() && io::stdin().is_terminal() && terminal::size().is_ok_and(large)
}

/// The terminal while the dashboard has it.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Box<dyn Write + Send>>>>,
    depth: Depth,
    mouse: bool,
}

impl Screen {
    /// Takes the terminal. What is printed meanwhile goes to `prints`.
    pub fn enter(prints: &Prints) -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // One that is caught and mended is no reason to give up the screen.
                if !failure::panics_are_expected() {
                    leave();
                    before(info);
                }
            }));
        });
        terminal::enable_raw_mode().context("preparing the terminal")?;
        SHOWN.store(true, Ordering::SeqCst);
        let enter = || -> io::Result<Self> {
            let mut out = prints::begin(prints)?;
            execute!(out, EnterAlternateScreen, EnableMouseCapture, cursor::Hide)?;
            // A frame leaves in one write: nothing flickers over a slow connection.
            let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, out)))?;
            Ok(Self { terminal, depth: Depth::from_environment(), mouse: true })
        };
        enter().inspect_err(|_| leave()).context("preparing the terminal")
    }

    /// Shows `app` until it is left or `ended`.
    ///
    /// # Errors
    /// Where the terminal goes away.
    pub fn show(&mut self, app: &mut App, mut ended: impl FnMut(&mut App) -> bool) -> Result<Next> {
        let (mut last, mut drawn): (Instant, Option<Instant>) = (Instant::now(), None);
        let mut changed = true;
        while !ended(app) {
            let elapsed = last.elapsed();
            last = Instant::now();
            let (news, more) = app.tick(elapsed);
            changed |= news;
            if changed && drawn.is_none_or(|at| at.elapsed() >= FRAME) {
                if !self.draw(app)? {
                    return Ok(Next::Leave);
                }
                (drawn, changed) = (Some(Instant::now()), false);
            }
            let wait = match (more, changed || app.playing()) {
                (true, _) => Duration::ZERO,
                (false, true) => FRAME.saturating_sub(drawn.map_or(FRAME, |at| at.elapsed())),
                (false, false) => LOOK,
            };
            let mut patience = wait;
            while event::poll(patience).context("reading the keys")? {
                patience = Duration::ZERO;
                let next = match event::read().context("reading the keys")? {
                    Input::Key(key) if key.kind != KeyEventKind::Release => app.key(key),
                    Input::Mouse(mouse) => app.mouse(mouse),
                    Input::Resize(..) => Next::Stay,
                    _ => continue,
                };
                if next != Next::Stay {
                    return Ok(next);
                }
                changed = true;
            }
            self.listen_to_mouse(app.wants_mouse())?;
        }
        Ok(Next::Leave)
    }

    /// Draws a frame, unless a panic has taken the terminal.
    fn draw(&mut self, app: &App) -> Result<bool> {
        let _drawing = DRAWING.lock();
        if !SHOWN.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let depth = &self.depth;
        self.terminal
            .draw(|frame| {
                let area = frame.area();
                app.draw(area, frame.buffer_mut());
                depth.translate(frame.buffer_mut());
            })
            .context("drawing on the terminal")?;
        Ok(true)
    }

    fn listen_to_mouse(&mut self, wanted: bool) -> Result<()> {
        if self.mouse != wanted {
            self.mouse = wanted;
            let out = self.terminal.backend_mut();
            if wanted { execute!(out, EnableMouseCapture) } else { execute!(out, DisableMouseCapture) }
                .context("drawing on the terminal")?;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A screen that could not be written may still hold half a frame, which must not come after the end.
        leave();
    }
}
