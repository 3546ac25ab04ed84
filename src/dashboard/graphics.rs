//! Real pictures on terminals that show them: the protocols of Kitty, iTerm2 and Sixel, through ratatui-image. Everywhere else panels draw with
//! half-blocks. What is asked of the terminal is asked before the first frame; encoded pictures are kept.

use super::faces::Source;
use crate::dataset::Pixels;
use clap::ValueEnum;
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, RgbImage};
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};
use ratatui::widgets::Widget;
use ratatui_image::picker::{Picker, ProtocolType};
use ratatui_image::protocol::Protocol;
use ratatui_image::{Image, Resize};
use std::cell::RefCell;
use std::collections::HashMap;

/// Encoded pictures kept; when there are more (many sizes, by resizing the terminal) all are made anew.
const MOST: usize = 256;

/// How pictures are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PictureMode {
    /// Real ones where the terminal is known to show them
    #[default]
    Auto,
    /// Half-block characters
    Blocks,
    /// Ask the terminal what it can show
    Ask,
}

pub struct Graphics {
    picker: Picker,
    made: RefCell<HashMap<(Source, Size), Option<Protocol>>>,
}

impl Graphics {
    /// Asks the terminal, which must not be in use yet; none where characters have to do.
    pub fn ask(mode: PictureMode) -> Option<Self> {
        let wanted = match mode {
            PictureMode::Auto => is_known(|name| std::env::var(name).ok()),
            PictureMode::Blocks => false,
            PictureMode::Ask => true,
        };
        let picker = wanted.then(Picker::from_query_stdio)?.ok()?;
        (picker.protocol_type() != ProtocolType::Halfblocks).then(|| Self { picker, made: RefCell::default() })
    }

    /// Draws the middle of a picture as large as `area`; false where it cannot be had.
    pub fn draw(&self, source: &Source, read: impl FnOnce() -> Option<Pixels>, area: Rect, buffer: &mut Buffer) -> bool {
        let mut made = self.made.borrow_mut();
        if made.len() >= MOST {
            made.clear();
        }
        let size = Size::new(area.width, area.height);
        let encode = || {
            let font = self.picker.font_size();
            let (width, height) = (u32::from(size.width) * u32::from(font.width), u32::from(size.height) * u32::from(font.height));
            let image = image(read()?)?.resize_to_fill(width.max(1), height.max(1), FilterType::CatmullRom);
            self.picker.new_protocol(image, size, Resize::Fit(None)).ok()
        };
        match made.entry((source.clone(), size)).or_insert_with(encode) {
            Some(protocol) => {
                Image::new(protocol).render(area, buffer);
                true
            }
            None => false,
        }
    }
}

fn image(pixels: Pixels) -> Option<DynamicImage> {
    let (width, height) = (pixels.width as u32, pixels.height as u32);
    match pixels.channels {
        1 => GrayImage::from_raw(width, height, pixels.data).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels.data).map(DynamicImage::from),
    }
}

/// Whether the terminal is one that shows pictures and answers when it is asked. Behind a multiplexer nobody can tell where a picture ends up.
fn is_known(variable: impl Fn(&str) -> Option<String>) -> bool {
    const TERMS: [&str; 6] = ["kitty", "ghostty", "wezterm", "foot", "mlterm", "contour"];
    const PROGRAMS: [&str; 5] = ["ghostty", "iterm", "wezterm", "rio", "mintty"];
    let lower = |name: &str| variable(name).unwrap_or_default().to_lowercase();
    let has = |name: &str, known: &[&str]| known.iter().any(|part| lower(name).contains(part));
    let multiplexed = variable("TMUX").is_some() || variable("STY").is_some() || has("TERM", &["screen", "tmux"]);
    !multiplexed
        && (has("TERM", &TERMS)
            || has("TERM_PROGRAM", &PROGRAMS)
            || has("LC_TERMINAL", &["iterm"])
            || ["KITTY_WINDOW_ID", "KONSOLE_VERSION"].iter().any(|name| variable(name).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terminals_that_answer_are_asked() {
        let asked = |set: &[(&str, &str)]| is_known(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()));
        for known in [("TERM", "xterm-kitty"), ("TERM", "foot-extra"), ("TERM_PROGRAM", "iTerm.app"), ("LC_TERMINAL", "iTerm2")] {
            assert!(asked(&[known]), "{known:?}");
            assert!(!asked(&[known, ("TMUX", "/tmp/tmux")]), "{known:?}");
        }
        assert!(!asked(&[("TERM", "xterm-256color")]) && !asked(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]) && !asked(&[]));
    }

    #[test]
    fn a_picture_fills_its_cells_in_every_protocol() {
        for protocol in [ProtocolType::Kitty, ProtocolType::Iterm2, ProtocolType::Sixel] {
            let mut picker = Picker::halfblocks();
            picker.set_protocol_type(protocol);
            let graphics = Graphics { picker, made: RefCell::default() };
            let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 8));
            let (area, source) = (Rect::new(3, 1, 12, 6), Source::Face("a".into()));
            let read = || Some(Pixels::new(4, 4, 1, (0..16).map(|i| i * 16).collect()));
            assert!(graphics.draw(&source, read, area, &mut buffer), "{protocol:?}");
            let marks = |buffer: &Buffer| buffer.content.iter().map(|cell| cell.symbol().len()).max();
            assert!(marks(&buffer) > Some(100), "{protocol:?} sends no picture");
            // It is kept: nothing is read again.
            assert!(graphics.draw(&source, || panic!("read twice"), area, &mut buffer));
            assert!(!graphics.draw(&Source::Face("b".into()), || None, area, &mut buffer));
        }
    }
}
