//! The few marks that panels are made of: text that is cut, not wrapped; bars of an eighth of a cell; curves on a grid of dots.
//!
//! Everything draws into an area of a [`Buffer`] and never outside of it, whatever its size.

use super::theme::{Glyphs, Theme};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Writes `text` from column `x`, row `y` of `area` (from its corner), cut at its right edge. Returns the columns written.
pub fn put(area: Rect, buffer: &mut Buffer, x: u16, y: u16, text: &str, style: Style) -> u16 {
    let area = area.intersection(buffer.area);
    if x >= area.width || y >= area.height {
        return 0;
    }
    // What was there before leaves no trace, neither its colour nor its weight.
    let style = Style::reset().patch(style);
    let (end, _) = buffer.set_stringn(area.x + x, area.y + y, text, usize::from(area.width - x), style);
    end - area.x - x
}

/// Writes `text` so that it ends at the right edge of `area`; left out where it does not fit.
pub fn put_right(area: Rect, buffer: &mut Buffer, y: u16, text: &str, style: Style) -> u16 {
    let width = columns(text);
    if width > area.width {
        return 0;
    }
    put(area, buffer, area.width - width, y, text, style)
}

pub fn columns(text: &str) -> u16 {
    ratatui::text::Span::raw(text).width().min(usize::from(u16::MAX)) as u16
}

/// `text` in exactly `width` columns: cut with a mark, or filled with spaces.
pub fn fit(text: &str, width: u16, glyphs: &Glyphs) -> String {
    let width = usize::from(width);
    let mut out = String::new();
    if usize::from(columns(text)) <= width {
        out.push_str(text);
    } else {
        for c in text.chars() {
            if usize::from(columns(&out)) + usize::from(columns(c.encode_utf8(&mut [0; 4]))) + 1 > width {
                break;
            }
            out.push(c);
        }
        if width > 0 {
            out.push_str(glyphs.cut);
        }
    }
    let used = usize::from(columns(&out));
    out + &" ".repeat(width.saturating_sub(used))
}

/// A thin bar of `share` (0..1) of `width` columns, and the rest of its track.
pub fn track(area: Rect, buffer: &mut Buffer, (x, y): (u16, u16), width: u16, share: f64, theme: &Theme, style: Style) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let halves = (share * f64::from(width) * 2.0).round() as u16;
    let glyphs = theme.glyphs;
    put(area, buffer, x, y, &glyphs.ahead.repeat(usize::from(width)), theme.rule);
    put(area, buffer, x, y, &glyphs.behind.repeat(usize::from(halves / 2)), style);
    if halves % 2 == 1 && !glyphs.ascii {
        put(area, buffer, x + halves / 2, y, "╸", style);
    }
}

/// A horizontal bar of `share` (0..1) of `width` columns, as high as its row.
pub fn bar(share: f64, width: u16, glyphs: &Glyphs) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    if glyphs.ascii {
        return "#".repeat((share * f64::from(width)).round() as usize);
    }
    let mut eighths = (share * f64::from(width) * 8.0).round() as usize;
    if share > 0.0 {
        eighths = eighths.max(1);
    }
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

/// Upright bars over the whole of `area`, one a column; `heights` in 0..1, none is a gap, which is marked on the ground.
pub fn columns_chart(area: Rect, buffer: &mut Buffer, heights: &[Option<f64>], style: Style, gap: Style, glyphs: &Glyphs) {
    const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    for (x, height) in heights.iter().take(usize::from(area.width)).enumerate() {
        let Some(height) = height else {
            put(area, buffer, x as u16, area.height.saturating_sub(1), glyphs.gap, gap);
            continue;
        };
        let filled = (height.clamp(0.0, 1.0) * f64::from(area.height) * 8.0).round().max(1.0) as u16;
        for row in 0..area.height {
            let eighths = filled.saturating_sub((area.height - 1 - row) * 8).min(8);
            let mark = match (glyphs.ascii, eighths) {
                (false, n) => EIGHTHS[usize::from(n)],
                (true, 0) => " ",
                (true, 1..=4) => ".",
                (true, _) => "#",
            };
            if eighths > 0 {
                put(area, buffer, x as u16, row, mark, style);
            }
        }
    }
}

/// Curves on a grid of dots, two across and four down in each cell. Where layers meet in a cell only the uppermost is seen there, so that
/// a curve stays a line over what lies behind it.
pub struct Dots {
    width: usize,
    height: usize,
    cells: Vec<(u8, u8)>,
}

impl Dots {
    pub fn new(area: Rect) -> Self {
        let (width, height) = (usize::from(area.width), usize::from(area.height));
        Self { width, height, cells: vec![(0, 0); width * height] }
    }

    /// The extent in dots.
    pub fn size(&self) -> (usize, usize) {
        (self.width * 2, self.height * 4)
    }

    /// A dot, counted from the upper left; outside the grid nothing happens. Layers count from 1.
    pub fn dot(&mut self, x: i64, y: i64, layer: u8) {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= self.width * 2 || y >= self.height * 4 {
            return;
        }
        let cell = &mut self.cells[y / 4 * self.width + x / 2];
        if cell.1 > layer {
            return;
        }
        if cell.1 < layer {
            *cell = (0, layer);
        }
        cell.0 |= BITS[y % 4][x % 2];
    }

    /// A straight line (Bresenham 1965). Its ends may lie anywhere: of what lies far from the grid nothing is walked.
    pub fn line(&mut self, from: (i64, i64), to: (i64, i64), layer: u8) {
        let (width, height) = self.size();
        let turned = |((x, y), (x1, y1)): Ends| ((y, x), (y1, x1));
        let near = clip((from, to), width as i64).and_then(|ends| clip(turned(ends), height as i64));
        let Some(((mut x, mut y), (x1, y1))) = near.map(turned) else { return };
        let (dx, dy) = ((x1 - x).abs(), -(y1 - y).abs());
        let (sx, sy) = ((x1 - x).signum(), (y1 - y).signum());
        let mut error = dx + dy;
        // A line never needs more dots than this.
        for _ in 0..=(dx - dy) {
            self.dot(x, y, layer);
            if (x, y) == (x1, y1) {
                break;
            }
            let twice = 2 * error;
            if twice >= dy {
                (error, x) = (error + dy, x + sx);
            }
            if twice <= dx {
                (error, y) = (error + dx, y + sy);
            }
        }
    }

    /// Takes over every other dot of another grid of the same size, on `layer`.
    pub fn sieve(&mut self, other: &Self, layer: u8) {
        // A checkerboard: dots 1, 3, 5 and 8 of a braille cell.
        for (cell, &(bits, _)) in self.cells.iter_mut().zip(&other.cells) {
            let bits = bits & 0b1001_0101;
            if bits != 0 && cell.1 <= layer {
                *cell = (bits, layer);
            }
        }
    }

    /// Draws the grid, `styles[layer - 1]` for each layer.
    pub fn render(&self, area: Rect, buffer: &mut Buffer, styles: &[Style], glyphs: &Glyphs) {
        for (i, &(bits, layer)) in self.cells.iter().enumerate() {
            if bits == 0 {
                continue;
            }
            let style = styles.get(usize::from(layer) - 1).copied().unwrap_or_default();
            let mark = match glyphs.ascii {
                false => char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' '),
                true if layer == 1 => '.',
                true => match (bits & 0x1b != 0, bits & 0xe4 != 0) {
                    (true, true) => '*',
                    (true, false) => '\'',
                    _ => ',',
                },
            };
            put(area, buffer, (i % self.width) as u16, (i / self.width) as u16, mark.encode_utf8(&mut [0; 4]), style);
        }
    }
}

/// The ends of a line.
type Ends = ((i64, i64), (i64, i64));

/// The part of a line that lies, by its first coordinate, on a grid of `extent` dots or within as many on either side of it; none where
/// nothing does. Those margins leave every line alone that ends near the grid.
fn clip((from, to): Ends, extent: i64) -> Option<Ends> {
    let (low, high) = (-extent, 2 * extent);
    if from.0.max(to.0) < low || from.0.min(to.0) > high {
        return None;
    }
    // In floats, for differences of the ends may be more than 64 bits hold.
    let way = |a: i64, b: i64| b as f64 - a as f64;
    let end = |(x, y): (i64, i64)| {
        let edge = x.clamp(low, high);
        let share = way(from.0, edge) / way(from.0, to.0);
        if edge == x { (x, y) } else { (edge, (from.1 as f64 + share * way(from.1, to.1)).round() as i64) }
    };
    Some((end(from), end(to)))
}

/// A range that holds `low..=high` and ends in round numbers, so that an axis seldom moves while values do.
pub fn round_range(low: f64, high: f64) -> (f64, f64) {
    if !(low.is_finite() && high.is_finite()) {
        return (0.0, 1.0);
    }
    let span = (high - low).max(high.abs() * 0.05).max(1e-12);
    let power = 10f64.powf((span / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| span / step <= 5.0).unwrap_or(power * 10.0);
    let bottom = (low / step).floor() * step;
    let top = (high / step).ceil() * step;
    (bottom, if top > bottom { top } else { bottom + step })
}

#[cfg(test)]
mod tests {
    use super::super::theme::{ASCII, UNICODE};
    use super::*;

    fn row(buffer: &Buffer, y: u16) -> String {
        (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect()
    }

    #[test]
    fn text_stays_in_its_area() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 10, 2));
        let area = Rect::new(2, 0, 5, 1);
        assert_eq!(put(area, &mut buffer, 1, 0, "abcdefgh", Style::new()), 4);
        assert_eq!((put(area, &mut buffer, 9, 0, "x", Style::new()), put(area, &mut buffer, 0, 3, "x", Style::new())), (0, 0));
        assert_eq!(row(&buffer, 0), "   abcd   ");
        assert_eq!(fit("expression", 6, &UNICODE), "expre…");
        assert_eq!((fit("日本語", 4, &ASCII), fit("a", 0, &ASCII), fit("a", 3, &ASCII)), ("日~ ".into(), String::new(), "a  ".into()));
    }

    #[test]
    fn bars_fill_in_eighths() {
        assert_eq!([0.0, 1e-6, 0.5, 0.97, 1.0, f64::NAN].map(|x| bar(x, 4, &UNICODE)), ["", "▏", "██", "███▉", "████", ""]);
        assert_eq!(bar(0.5, 4, &ASCII), "##");
        let mut buffer = Buffer::empty(Rect::new(0, 0, 4, 2));
        let heights = [Some(0.0), Some(0.75), None, Some(1.0)];
        columns_chart(buffer.area, &mut buffer, &heights, Style::new(), Style::new(), &UNICODE);
        assert_eq!((row(&buffer, 0), row(&buffer, 1)), (" ▄ █".into(), "▁█×█".into()));
    }

    #[test]
    fn an_upper_curve_hides_what_is_behind_it() {
        let mut dots = Dots::new(Rect::new(0, 0, 2, 1));
        dots.line((0, 3), (3, 3), 1);
        dots.line((0, 0), (1, 0), 2);
        dots.dot(0, 2, 1);
        dots.line((-5, 900), (-1, 2000), 2);
        let mut buffer = Buffer::empty(Rect::new(0, 0, 2, 1));
        dots.render(buffer.area, &mut buffer, &[Style::new(), Style::new()], &UNICODE);
        assert_eq!(row(&buffer, 0), "⠉⣀");
    }

    #[test]
    fn a_line_may_end_anywhere() {
        let drawn = |from, to| {
            let mut dots = Dots::new(Rect::new(0, 0, 4, 2));
            dots.line(from, to, 1);
            dots.cells
        };
        // As between ends at the border of the grid.
        assert_eq!(drawn((i64::MAX, 3), (i64::MIN, 3)), drawn((7, 3), (0, 3)));
        assert_eq!(drawn((5, i64::MIN), (5, 1 << 60)), drawn((5, 0), (5, 7)));
        assert_eq!(drawn((0, 0), (1 << 60, 1 << 60)), drawn((0, 0), (7, 7)));
        assert_eq!(drawn((2, 7), (i64::MAX, 7)), drawn((2, 7), (7, 7)));
        for beside in [drawn((i64::MAX, 0), (9_999, 5)), drawn((0, i64::MIN), (5, -1000)), drawn((i64::MIN, 0), (0, i64::MAX))] {
            assert!(beside.iter().all(|cell| cell.0 == 0), "{beside:?}");
        }
    }

    #[test]
    fn axes_end_in_round_numbers() {
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-9 && (b - d).abs() < 1e-9;
        assert!(near(round_range(0.31, 1.93), (0.0, 2.0)), "{:?}", round_range(0.31, 1.93));
        assert!(near(round_range(0.52, 0.93), (0.5, 1.0)), "{:?}", round_range(0.52, 0.93));
        assert_eq!(round_range(f64::NAN, 1.0), (0.0, 1.0));
        let (low, high) = round_range(3.0, 3.0);
        assert!(low <= 3.0 && high > low);
    }
}
