//! `moue watch` and `moue replay`: the dashboard on a run folder. Neither needs a GPU, nor the process that trains.

use super::output::print;
use crate::dashboard::app::App;
use crate::dashboard::graphics::{Graphics, PictureMode};
use crate::dashboard::picture;
use crate::dashboard::terminal::{self, Screen};
use crate::dashboard::theme::{Theme, ThemeName};
use crate::run::folder::write_atomic;
use crate::run::prints::Prints;
use crate::usage;
use anyhow::Result;
use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// How the dashboard looks.
#[derive(Debug, Default, Args)]
pub struct LookArgs {
    /// Colours [default: by NO_COLOR and COLORFGBG, else dark]
    #[arg(long, value_enum)]
    theme: Option<ThemeName>,
    /// Only characters that every font has
    #[arg(long)]
    ascii: bool,
    /// How faces are drawn
    #[arg(long, value_enum, default_value_t)]
    pictures: PictureMode,
}

impl LookArgs {
    pub fn theme(&self) -> Theme {
        Theme::new(self.theme.unwrap_or_else(Theme::from_environment), self.ascii)
    }

    /// Asks the terminal, before it is taken.
    pub fn graphics(&self) -> Option<Graphics> {
        Graphics::ask(self.pictures)
    }
}

/// Watch a run decide its labels, live and from any terminal
///
/// The run may be named by its path, by its name, or by the beginning of a name that no other run shares. It need not exist yet: the dashboard
/// waits for it. `?` shows the keys.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("frame").multiple(true).args(["snapshot", "svg"]),
    after_help = "Examples:\n  moue watch finetune-2026-11-03-2\n  moue watch demo --snapshot 120x40\n  moue watch demo --snapshot 120x40 --at 400 --svg demo.svg"
)]
pub struct WatchArgs {
    run: String,
    /// The folder that holds the runs
    #[arg(long, default_value = "runs")]
    dir: PathBuf,
    /// Print one frame of this size as text and end
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    snapshot: Option<Rect>,
    /// Write the frame to this file as a picture instead [default size: 120x40]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The frame as it was after this step
    #[arg(long, value_name = "STEP", requires = "frame")]
    at: Option<u64>,
    /// The stage shown, as in finetune/pll [default: the first that came to STEP, else the one that speaks]
    #[arg(long, value_name = "STAGE", requires = "frame")]
    stage: Option<String>,
    #[command(flatten)]
    look: LookArgs,
}

/// Play a run again, with seek, hold and step
///
/// `?` shows the keys.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moue replay finetune-2026-11-03-2\n  moue replay demo --speed 100")]
pub struct ReplayArgs {
    run: String,
    /// The folder that holds the runs
    #[arg(long, default_value = "runs")]
    dir: PathBuf,
    /// How many times as fast as it went
    #[arg(long, value_name = "X", default_value = "20", value_parser = speed)]
    speed: f64,
    #[command(flatten)]
    look: LookArgs,
}

/// Cells of a frame that is printed; more is a slip of the finger.
const LARGEST: u16 = 1000;

fn size(text: &str) -> Result<Rect, String> {
    let parts = text.split_once(['x', 'X']);
    let sides = parts.and_then(|(w, h)| Some((w.parse::<u16>().ok()?, h.parse::<u16>().ok()?)));
    match sides {
        Some((w @ 1..=LARGEST, h @ 1..=LARGEST)) => Ok(Rect::new(0, 0, w, h)),
        _ => Err(format!("not a size such as 120x40 (at most {LARGEST} each)")),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
    number.filter(|x| (0.01..=1e6).contains(x)).ok_or_else(|| "not a speed such as 20 (0.01 to 1000000)".into())
}

impl WatchArgs {
    pub fn run(self) -> Result<()> {
        let theme = self.look.theme();
        if self.snapshot.is_none() && self.svg.is_none() {
            needs_terminal("watch")?;
            return show(App::watch(&self.dir, &self.run, theme), &self.look);
        }
        let mut app = App::open(&self.dir, &self.run, theme)?;
        match (&self.stage, self.at) {
            (stage, Some(step)) => app.seek_step(stage.as_deref(), step)?,
            (Some(stage), None) => app.show_stage(stage)?,
            (None, None) => {}
        }
        let mut buffer = Buffer::empty(self.snapshot.unwrap_or(Rect::new(0, 0, 120, 40)));
        app.draw(buffer.area, &mut buffer);
        match self.svg {
            Some(path) => {
                let title = format!("moue watch {}", app.name());
                write_atomic(&path, |w| Ok(w.write_all(picture::svg(&buffer, app.theme(), &title).as_bytes())?))
            }
            None => print(|w| Ok(w.write_all(picture::text(&buffer).as_bytes())?)),
        }
    }
}

impl ReplayArgs {
    pub fn run(self) -> Result<()> {
        needs_terminal("replay")?;
        crate::run::RunFolder::find(&self.dir, &self.run)?;
        show(App::replay(&self.dir, &self.run, self.look.theme(), self.speed), &self.look)
    }
}

fn show(mut app: App, look: &LookArgs) -> Result<()> {
    app.set_graphics(look.graphics());
    // A signal ends it as `q` does, and so does the end of the terminal.
    let control = terminal::control(terminal::end)?;
    let prints = Prints::default();
    let shown = Screen::enter(&prints).and_then(|mut screen| screen.show(&mut app, |_| control.stopping()));
    prints.release();
    shown.map(|_| ())
}

fn needs_terminal(command: &str) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        usage!("`moue {command}` needs a terminal (`moue watch RUN --snapshot 120x40` prints one frame without)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_speeds_as_typed() {
        assert_eq!(size("120x40"), Ok(Rect::new(0, 0, 120, 40)));
        assert!(["120", "0x4", "4x1001", "axb", "-1x4"].iter().all(|text| size(text).is_err()));
        assert_eq!((speed("20x"), speed("0.5")), (Ok(20.0), Ok(0.5)));
        assert!(["0", "-3", "inf", "NaN", "fast"].iter().all(|text| speed(text).is_err()));
    }
}
