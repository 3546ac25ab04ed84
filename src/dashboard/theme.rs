//! Colours and characters: what the panels draw with.
//!
//! A colour has a meaning, and the meaning is the only thing panels name: training, validation, good, bad, warning. No state is told by a
//! colour alone; each also has a glyph or a word, so [`Theme::mono`] loses nothing but beauty. Sequential data (heat) use ramps of rising
//! lightness that also read in grey. [`Depth`] translates the finished picture for terminals with fewer colours.

use clap::ValueEnum;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThemeName {
    /// For dark terminals
    Dark,
    /// For light terminals
    Light,
    /// Colours that the common kinds of colour blindness tell apart
    Safe,
    /// No colours
    Mono,
}

pub type Rgb = [u8; 3];

#[derive(Clone, Debug)]
pub struct Theme {
    pub name: ThemeName,
    /// What the terminal's own foreground and background are taken to be, for pictures.
    pub ink: Rgb,
    pub paper: Rgb,
    pub quiet: Style,
    pub rule: Style,
    pub strong: Style,
    pub train: Style,
    /// Raw readings behind a smoothed curve.
    pub raw: Style,
    pub valid: Style,
    pub good: Style,
    pub bad: Style,
    pub warn: Style,
    /// From nothing to most; empty where there are no colours.
    ramp: &'static [Rgb],
    pub glyphs: &'static Glyphs,
}

/// Characters; every one is a single column wide.
#[derive(Debug)]
pub struct Glyphs {
    pub ascii: bool,
    pub rule: &'static str,
    pub axis: &'static str,
    /// From empty to full.
    pub shades: [&'static str; 5],
    pub running: &'static str,
    pub waiting: &'static str,
    pub done: &'static str,
    pub failed: &'static str,
    pub paused: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub same: &'static str,
    pub focus: &'static str,
    pub truth: &'static str,
    pub best: &'static str,
    pub pin: &'static str,
    pub gap: &'static str,
    pub cut: &'static str,
    pub then: &'static str,
    pub ahead: &'static str,
    pub behind: &'static str,
    pub dot: &'static str,
}

pub static UNICODE: Glyphs = Glyphs {
    ascii: false,
    rule: "─",
    axis: "│",
    shades: [" ", "░", "▒", "▓", "█"],
    running: "●",
    waiting: "○",
    done: "✓",
    failed: "✗",
    paused: "‖",
    up: "▲",
    down: "▼",
    same: "·",
    focus: "▸",
    truth: "◆",
    best: "★",
    pin: "■",
    gap: "×",
    cut: "…",
    then: "›",
    ahead: "─",
    behind: "━",
    dot: "•",
};

pub static ASCII: Glyphs = Glyphs {
    ascii: true,
    rule: "-",
    axis: "|",
    shades: [" ", ".", ":", "*", "#"],
    running: "o",
    waiting: ".",
    done: "+",
    failed: "X",
    paused: "=",
    up: "^",
    down: "v",
    same: "-",
    focus: ">",
    truth: "@",
    best: "*",
    pin: "!",
    gap: "x",
    cut: "~",
    then: ">",
    ahead: "-",
    behind: "=",
    dot: "o",
};

const fn rgb(c: Rgb) -> Style {
    Style::new().fg(Color::Rgb(c[0], c[1], c[2]))
}

impl Theme {
    pub fn new(name: ThemeName, ascii: bool) -> Self {
        let glyphs = if ascii { &ASCII } else { &UNICODE };
        let strong = Style::new().add_modifier(Modifier::BOLD);
        match name {
            ThemeName::Dark => Self {
                name,
                ink: [0xd6, 0xda, 0xe1],
                paper: [0x15, 0x18, 0x1d],
                quiet: rgb([0x8a, 0x91, 0x9d]),
                rule: rgb([0x3d, 0x44, 0x50]),
                strong,
                train: rgb([0x6c, 0xb4, 0xee]),
                raw: rgb([0x35, 0x54, 0x70]),
                valid: rgb([0xf0, 0xa3, 0x5e]),
                good: rgb([0x86, 0xc9, 0x7a]),
                bad: rgb([0xf0, 0x7c, 0x7c]),
                warn: rgb([0xe8, 0xc9, 0x5c]),
                ramp: &[[0x1b, 0x20, 0x28], [0x20, 0x3a, 0x5c], [0x2a, 0x6f, 0x97], [0x5f, 0xb0, 0xa8], [0xf0, 0xe6, 0x98]],
                glyphs,
            },
            ThemeName::Light => Self {
                name,
                ink: [0x24, 0x29, 0x2f],
                paper: [0xfd, 0xfd, 0xfb],
                quiet: rgb([0x6b, 0x72, 0x7c]),
                rule: rgb([0xc9, 0xce, 0xd4]),
                strong,
                train: rgb([0x1f, 0x6f, 0xb4]),
                raw: rgb([0xa9, 0xc8, 0xe2]),
                valid: rgb([0xc0, 0x5a, 0x0a]),
                good: rgb([0x2b, 0x7d, 0x2b]),
                bad: rgb([0xb9, 0x28, 0x28]),
                warn: rgb([0x8d, 0x66, 0x00]),
                ramp: &[[0xf3, 0xf4, 0xf2], [0xc6, 0xdc, 0xea], [0x7a, 0xb2, 0xd4], [0x2c, 0x72, 0xad], [0x0b, 0x2f, 0x63]],
                glyphs,
            },
            // The palette of Okabe and Ito (2008) for what is told apart, cividis (Nunez et al. 2018) for what is more or less.
            ThemeName::Safe => Self {
                name,
                ink: [0xd6, 0xda, 0xe1],
                paper: [0x12, 0x14, 0x18],
                quiet: rgb([0x94, 0x9a, 0xa6]),
                rule: rgb([0x3d, 0x44, 0x50]),
                strong,
                train: rgb([0x56, 0xb4, 0xe9]),
                raw: rgb([0x2d, 0x54, 0x6e]),
                valid: rgb([0xe6, 0x9f, 0x00]),
                good: rgb([0x00, 0xb0, 0x82]),
                bad: rgb([0xe8, 0x70, 0x20]),
                warn: rgb([0xf0, 0xe4, 0x42]),
                ramp: &[[0x06, 0x1a, 0x38], [0x2c, 0x41, 0x6e], [0x6f, 0x70, 0x73], [0xb3, 0xa7, 0x6e], [0xfd, 0xe7, 0x37]],
                glyphs,
            },
            ThemeName::Mono => {
                let plain = Style::new();
                let quiet = plain.add_modifier(Modifier::DIM);
                Self {
                    name,
                    ink: [0xd6, 0xda, 0xe1],
                    paper: [0x15, 0x18, 0x1d],
                    quiet,
                    rule: quiet,
                    strong,
                    train: plain,
                    raw: quiet,
                    valid: strong,
                    good: plain,
                    bad: strong,
                    warn: strong,
                    ramp: &[],
                    glyphs,
                }
            }
        }
    }

    /// What the environment asks for: `NO_COLOR` (no-color.org), a light background told by `COLORFGBG`, else dark.
    pub fn from_environment() -> ThemeName {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb" || term.starts_with("vt")) {
            return ThemeName::Mono;
        }
        let background = set("COLORFGBG").and_then(|v| v.rsplit(';').next().and_then(|bg| bg.parse::<u8>().ok()));
        if background.is_some_and(|bg| bg == 7 || bg == 15) { ThemeName::Light } else { ThemeName::Dark }
    }

    /// The next one, for a key that walks through them.
    pub fn next(&self) -> Self {
        let all = ThemeName::value_variants();
        let at = all.iter().position(|name| *name == self.name).unwrap_or(0);
        Self::new(all[(at + 1) % all.len()], self.glyphs.ascii)
    }

    pub fn colours(&self) -> bool {
        !self.ramp.is_empty()
    }

    /// The ramp at 0..1; none without colours.
    pub fn heat(&self, share: f64) -> Option<Rgb> {
        let last = self.ramp.len().checked_sub(1)?;
        let x = if share.is_finite() { share.clamp(0.0, 1.0) * last as f64 } else { 0.0 };
        let i = (x as usize).min(last.saturating_sub(1));
        let (a, b, t) = (self.ramp[i], self.ramp[(i + 1).min(last)], x - i as f64);
        Some(std::array::from_fn(|k| (f64::from(a[k]) + (f64::from(b[k]) - f64::from(a[k])) * t).round() as u8))
    }

    /// The character that is as dense as 0..1, for heat without colours. More than nothing is never blank.
    pub fn shade(&self, share: f64) -> &'static str {
        let index = if share > 0.0 { (share.min(1.0) * 4.0).round().max(1.0) as usize } else { 0 };
        self.glyphs.shades[index.min(4)]
    }

    /// Black or white, whichever is easier to read on `back` (WCAG relative luminance).
    pub fn on(back: Rgb) -> Color {
        let linear = |v: u8| (f64::from(v) / 255.0).powf(2.2);
        let luminance = 0.2126 * linear(back[0]) + 0.7152 * linear(back[1]) + 0.0722 * linear(back[2]);
        if luminance > 0.18 { Color::Rgb(0x10, 0x12, 0x16) } else { Color::Rgb(0xf2, 0xf4, 0xf7) }
    }
}

pub fn colour(c: Rgb) -> Color {
    Color::Rgb(c[0], c[1], c[2])
}

/// How many colours the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    True,
    /// The palette of xterm: a cube of 6 levels and 24 greys.
    Palette,
}

impl Depth {
    pub fn from_environment() -> Self {
        match std::env::var("COLORTERM") {
            Ok(value) if value == "truecolor" || value == "24bit" => Depth::True,
            _ => Depth::Palette,
        }
    }

    pub fn translate(self, buffer: &mut Buffer) {
        if self == Depth::True {
            return;
        }
        for cell in &mut buffer.content {
            (cell.fg, cell.bg) = (palette(cell.fg), palette(cell.bg));
        }
    }
}

fn palette(color: Color) -> Color {
    const LEVELS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let Color::Rgb(r, g, b) = color else { return color };
    let rgb = [i32::from(r), i32::from(g), i32::from(b)];
    let distance = |other: [i32; 3]| (0..3).map(|i| (rgb[i] - other[i]).pow(2)).sum::<i32>();
    let nearest = rgb.map(|v| (0..6).min_by_key(|&i| (LEVELS[i] - v).abs()).unwrap_or(0));
    let cube = nearest.map(|i| LEVELS[i]);
    let step = ((rgb.iter().sum::<i32>() / 3 - 8 + 5) / 10).clamp(0, 23);
    let grey = [8 + 10 * step; 3];
    if distance(grey) < distance(cube) {
        Color::Indexed(232 + step as u8)
    } else {
        Color::Indexed((16 + 36 * nearest[0] + 6 * nearest[1] + nearest[2]) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_only_get_lighter_or_darker() {
        for name in [ThemeName::Dark, ThemeName::Light, ThemeName::Safe] {
            let theme = Theme::new(name, false);
            let light: Vec<f64> = (0..=100)
                .map(|i| theme.heat(f64::from(i) / 100.0).unwrap())
                .map(|c| 0.2126 * f64::from(c[0]) + 0.7152 * f64::from(c[1]) + 0.0722 * f64::from(c[2]))
                .collect();
            assert!(light.is_sorted() || light.is_sorted_by(|a, b| a >= b), "{name:?}");
        }
        assert_eq!(Theme::new(ThemeName::Mono, true).heat(0.5), None);
    }

    #[test]
    fn little_is_more_than_nothing() {
        let theme = Theme::new(ThemeName::Mono, true);
        assert_eq!([0.0, 0.001, 0.5, 1.0, 7.0, f64::NAN].map(|x| theme.shade(x)), [" ", ".", ":", "#", "#", " "]);
    }

    #[test]
    fn every_glyph_is_one_column_wide() {
        for glyphs in [&UNICODE, &ASCII] {
            let text = format!("{glyphs:?}");
            let drawn = text.split('"').skip(1).step_by(2);
            for glyph in drawn {
                assert_eq!(ratatui::text::Span::raw(glyph).width(), 1, "{glyph}");
                assert!(!glyphs.ascii || glyph.is_ascii(), "{glyph}");
            }
        }
    }

    #[test]
    fn the_palette_keeps_what_it_has() {
        assert_eq!(palette(Color::Rgb(255, 0, 0)), Color::Indexed(196));
        assert_eq!(palette(Color::Rgb(128, 128, 128)), Color::Indexed(244));
        assert_eq!(palette(Color::Reset), Color::Reset);
    }
}
