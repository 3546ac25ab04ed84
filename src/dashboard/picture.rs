//! A frame as a document: as plain text, or as an SVG that looks the same everywhere.
//!
//! Blocks, braille dots and lines are drawn as shapes, because fonts disagree about them; other characters are text whose width is given, so
//! that columns line up in any monospaced font.

use super::theme::{Rgb, Theme};
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use std::fmt::Write;

/// The frame's rows, without spaces at their ends.
pub fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let row: String = (buffer.area.left()..buffer.area.right()).map(|x| buffer[(x, y)].symbol()).collect();
        out.push_str(row.trim_end());
        out.push('\n');
    }
    out
}

/// Size of a cell in the SVG's units, and of the margin around all.
const CELL: (f64, f64) = (9.0, 19.0);
const MARGIN: f64 = 12.0;

pub fn svg(buffer: &Buffer, theme: &Theme, title: &str) -> String {
    let area = buffer.area;
    let (width, height) = (f64::from(area.width) * CELL.0 + 2.0 * MARGIN, f64::from(area.height) * CELL.1 + 2.0 * MARGIN);
    let mut out = String::new();
    let paper = hex(theme.paper);
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"'DejaVu Sans Mono','SF Mono',Menlo,Consolas,'Liberation Mono',monospace\" font-size=\"15\" xml:space=\"preserve\">\n\
         <title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{paper}\"/>",
        escape(title)
    );
    for y in 0..area.height {
        let top = MARGIN + f64::from(y) * CELL.1;
        let cell = |x: u16| &buffer[(area.x + x, area.y + y)];
        // Backgrounds first, equal neighbours as one.
        let mut x = 0;
        while x < area.width {
            let back = colours(cell(x), theme).1;
            let mut end = x + 1;
            while end < area.width && colours(cell(end), theme).1 == back {
                end += 1;
            }
            if back != theme.paper {
                rect(&mut out, left(x), top, f64::from(end - x) * CELL.0, CELL.1, back);
            }
            x = end;
        }
        let mut x = 0;
        while x < area.width {
            let here = cell(x);
            if here.symbol() == " " {
                x += 1;
                continue;
            }
            if shape(&mut out, here.symbol(), left(x), top, colours(here, theme).0) {
                x += 1;
                continue;
            }
            // A word of one look.
            let mut word = String::new();
            let start = x;
            while x < area.width && cell(x).symbol() != " " && same_look(cell(x), here) && !is_shape(cell(x).symbol()) {
                word.push_str(cell(x).symbol());
                x += ratatui::text::Span::raw(cell(x).symbol()).width().max(1) as u16;
            }
            let mut style = String::new();
            if here.modifier.contains(Modifier::BOLD) {
                style.push_str(" font-weight=\"bold\"");
            }
            if here.modifier.contains(Modifier::UNDERLINED) {
                style.push_str(" text-decoration=\"underline\"");
            }
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"{style}>{}</text>",
                left(start),
                top + CELL.1 * 0.76,
                f64::from(x - start) * CELL.0,
                hex(colours(here, theme).0),
                escape(&word)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn left(x: u16) -> f64 {
    MARGIN + f64::from(x) * CELL.0
}

fn hex(c: Rgb) -> String {
    format!("#{:02x}{:02x}{:02x}", c[0], c[1], c[2])
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, fill: Rgb) {
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{}\" shape-rendering=\"crispEdges\"/>",
        hex(fill)
    );
}

fn same_look(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.bg, a.modifier) == (b.fg, b.bg, b.modifier)
}

/// Foreground and background as they are seen.
fn colours(cell: &Cell, theme: &Theme) -> (Rgb, Rgb) {
    let of = |color: Color, default: Rgb| match color {
        Color::Rgb(r, g, b) => [r, g, b],
        _ => default,
    };
    let (mut front, mut back) = (of(cell.fg, theme.ink), of(cell.bg, theme.paper));
    if cell.modifier.contains(Modifier::DIM) {
        front = std::array::from_fn(|i| ((u16::from(front[i]) * 55 + u16::from(back[i]) * 45) / 100) as u8);
    }
    if cell.modifier.contains(Modifier::REVERSED) {
        std::mem::swap(&mut front, &mut back);
    }
    (front, back)
}

fn is_shape(symbol: &str) -> bool {
    shape(&mut String::new(), symbol, 0.0, 0.0, [0; 3])
}

/// Draws what is made of blocks, dots and lines; false for other characters.
fn shape(out: &mut String, symbol: &str, x: f64, y: f64, fill: Rgb) -> bool {
    let mut characters = symbol.chars();
    let (Some(c), None) = (characters.next(), characters.next()) else { return false };
    let (w, h) = CELL;
    let code = u32::from(c);
    match c {
        '▀' => rect(out, x, y, w, h / 2.0, fill),
        '█' => rect(out, x, y, w, h, fill),
        '▁'..='▇' => {
            let part = f64::from(code - 0x2580) / 8.0 * h;
            rect(out, x, y + h - part, w, part, fill);
        }
        '▉'..='▏' => rect(out, x, y, f64::from(0x2590 - code) / 8.0 * w, h, fill),
        '─' => rect(out, x, y + h / 2.0, w, 1.0, fill),
        '━' => rect(out, x, y + h / 2.0 - 1.0, w, 3.0, fill),
        '╸' => rect(out, x, y + h / 2.0 - 1.0, w / 2.0, 3.0, fill),
        '│' => rect(out, x + w / 2.0, y, 1.0, h, fill),
        '\u{2800}'..='\u{28ff}' => {
            const PLACES: [(f64, f64); 8] =
                [(0.25, 0.125), (0.25, 0.375), (0.25, 0.625), (0.75, 0.125), (0.75, 0.375), (0.75, 0.625), (0.25, 0.875), (0.75, 0.875)];
            for (i, (dx, dy)) in PLACES.into_iter().enumerate() {
                if code >> i & 1 == 1 {
                    let _ = writeln!(out, "<circle cx=\"{}\" cy=\"{}\" r=\"1.9\" fill=\"{}\"/>", x + dx * w, y + dy * h, hex(fill));
                }
            }
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::theme::ThemeName;
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn a_picture_holds_what_the_frame_does() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 2));
        buffer.set_string(0, 0, "a<b  ⠃▀", Style::new().fg(Color::Rgb(1, 2, 3)));
        buffer.set_string(0, 1, "x", Style::new().add_modifier(Modifier::REVERSED));
        assert_eq!(text(&buffer), "a<b  ⠃▀\nx\n");
        let theme = Theme::new(ThemeName::Light, false);
        let svg = svg(&buffer, &theme, "r & d");
        assert!(svg.contains(">a&lt;b</text>") && svg.contains("<title>r &amp; d</title>"), "{svg}");
        assert_eq!((svg.matches("<circle").count(), svg.matches("#010203").count()), (2, 4));
        // Reversed: the ink behind, the paper in front.
        assert!(svg.contains("fill=\"#fdfdfb\">x</text>") && svg.contains("height=\"19\" fill=\"#24292f\""), "{svg}");
    }
}
