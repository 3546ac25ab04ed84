//! The terminal while the dashboard has it. Only what changed is drawn, at most 30 times a second, and the terminal is given back as it was on
//! every way out: a key, an error, a signal, a panic.

use super::app::App;
use super::theme::Depth;
use anyhow::{Context, Result};
use crossterm::event::{Event as Input, KeyEventKind};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, event, execute, terminal};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use std::io::{self, BufWriter, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No more than 30 frames a second.
const FRAME: Duration = Duration::from_millis(33);
/// Between two looks at a file that is being written.
const LOOK: Duration = Duration::from_millis(100);

static SHOWN: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// The terminal while the dashboard has it.
struct Screen;

impl Screen {
    fn enter() -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                Screen::leave();
                before(info);
            }));
        });
        terminal::enable_raw_mode().context("preparing the terminal")?;
        SHOWN.store(true, Ordering::SeqCst);
        let screen = Screen;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide).context("preparing the terminal")?;
        Ok(screen)
    }

    fn leave() {
        if SHOWN.swap(false, Ordering::SeqCst) {
            let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
            let _ = terminal::disable_raw_mode();
            let _ = io::stdout().flush();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        Self::leave();
    }
}

/// Shows `app` on the terminal until it is left.
///
/// # Errors
/// Where the terminal cannot be used, or goes away.
pub fn run(mut app: App) -> Result<()> {
    // Also SIGTERM and SIGHUP: the loop ends as if `q` had been pressed.
    ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst)).context("cannot listen for signals")?;
    let depth = Depth::from_environment();
    let screen = Screen::enter()?;
    // A frame leaves in one write: nothing flickers over a slow connection.
    let mut terminal =
        Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, io::stdout()))).context("opening the terminal")?;
    let (mut last, mut drawn): (Instant, Option<Instant>) = (Instant::now(), None);
    let mut changed = true;
    while !STOP.load(Ordering::SeqCst) {
        let elapsed = last.elapsed();
        last = Instant::now();
        let (news, more) = app.tick(elapsed);
        changed |= news;
        if changed && drawn.is_none_or(|at| at.elapsed() >= FRAME) {
            terminal
                .draw(|frame| {
                    let area = frame.area();
                    app.draw(area, frame.buffer_mut());
                    depth.translate(frame.buffer_mut());
                })
                .context("drawing on the terminal")?;
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
            match event::read().context("reading the keys")? {
                Input::Key(key) if key.kind != KeyEventKind::Release => {
                    if app.key(key) {
                        return Ok(());
                    }
                    changed = true;
                }
                Input::Resize(..) => changed = true,
                _ => {}
            }
        }
    }
    drop(screen);
    Ok(())
}
