//! A table of shares as tinted cells: a confusion matrix, or how labels moved from class to class.

use super::axis::{fit, round};
use super::{Figure, WIDTH};
use maud::{Markup, html};

/// What the cells of a matrix are.
pub struct Matrix<'a> {
    pub name: String,
    pub title: String,
    pub description: String,
    pub classes: &'a [String],
    /// Counts `[row][column]`; shares of the row are shown.
    pub counts: &'a [Vec<u64>],
    /// What a row and a column are.
    pub rows: &'a str,
    pub columns: &'a str,
    /// The diagonal is what is hoped for, and framed.
    pub framed: bool,
}

/// More classes than this get a page's width and no numbers in the cells: the table below has them.
const READABLE: usize = 12;

impl Matrix<'_> {
    pub fn draw(self) -> Figure {
        let n = self.counts.len().max(1);
        let wide = n > READABLE;
        let width = if wide { (112.0 + 26.0 * n as f64).max(WIDTH) } else { WIDTH };
        let (left, top) = (104.0, 92.0);
        let side = round(((width - left - 34.0) / n as f64).min(48.0));
        let height = if wide { side } else { side.min(34.0) };
        let at = |row: usize, column: usize| (round(left + column as f64 * side), round(top + row as f64 * height));
        let class = |c: usize| self.classes.get(c).cloned().unwrap_or_else(|| format!("class {c}"));
        let bottom = round(top + n as f64 * height);
        let head = |c: usize| {
            let (x, y) = (round(left + (c as f64 + 0.5) * side), top - 7.0);
            html! { text x=(x) y=(y) transform={ "rotate(-40 " (x) " " (y) ")" } { (fit(&class(c), 92.0, 12.0)) } }
        };
        let row = |r: usize| {
            let counts = &self.counts[r];
            let faces: u64 = counts.iter().sum();
            let middle = round(at(r, 0).1 + height / 2.0 + 4.0);
            html! {
                text class="end" x=(left - 8.0) y=(middle) { (fit(&class(r), 96.0, 12.0)) }
                rect class=(if faces > 0 { "f0" } else { "rest" }) fill-opacity=(if faces > 0 { tint(0.0) } else { 0.35 }) x=(left) y=(at(r, 0).1)
                    width=(round(n as f64 * side - 1.0)) height=(round(height - 1.0)) {}
                @for (c, &count) in counts.iter().enumerate().take(n).filter(|(c, count)| faces > 0 && (**count > 0 || *c == r)) {
                    (self.cell(at(r, c), (side, height), count as f64 / faces as f64, r == c, wide))
                }
                @if faces == 0 { text class="quiet small" x=(left + 8.0) y=(middle) { "none" } }
                text class="quiet small" x=(left + n as f64 * side + 6.0) y=(middle) { (thousands(faces)) }
            }
        };
        let body = html! {
            text class="quiet small" x="0" y="10" { (self.rows) " \u{2193}   " (self.columns) " \u{2192}" }
            @for c in 0..self.counts.len() { (head(c)) }
            @for r in 0..self.counts.len() { (row(r)) }
            text class="quiet small" x=(left) y=(bottom + 17.0) { @if wide { "shares of the row" } @else { "cells: % of the row; right: faces" } }
        };
        Figure { name: self.name, title: self.title, description: self.description, width, height: bottom + 22.0, body }
    }

    fn cell(&self, (x, y): (f64, f64), (width, height): (f64, f64), share: f64, diagonal: bool, wide: bool) -> Markup {
        let percent = (share * 100.0).round();
        html! {
            rect class="edge page" x=(x) y=(y) width=(width) height=(height) {}
            rect class="f0" x=(x) y=(y) width=(width - 1.0) height=(height - 1.0) fill-opacity=(tint(share)) {}
            @if self.framed && diagonal {
                rect class="frame" x=(x) y=(y) width=(width - 1.0) height=(height - 1.0) stroke-opacity="0.55" {}
            }
            @if !wide && percent >= 1.0 {
                text class="mid" x=(round(x + width / 2.0)) y=(round(y + height / 2.0 + 4.0)) { (percent) }
            }
        }
    }
}

/// Deep enough to be seen at a glance, pale enough for the ink of both looks (a contrast of 4.5 and more).
fn tint(share: f64) -> f64 {
    round(0.03 + 0.5 * share)
}

/// `12 345`, with thin spaces.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    fn draw(classes: &[String], counts: &[Vec<u64>]) -> Figure {
        let (name, title, description) = ("confusion".into(), "Confusion".into(), "cells".into());
        Matrix { name, title, description, classes, counts, rows: "true", columns: "predicted", framed: true }.draw()
    }

    #[test]
    fn an_absent_class_has_no_shares() {
        let figure = draw(&["<b>".into(), "calm".into()], &[vec![3, 1], vec![0, 0]]);
        well_formed(&figure);
        let svg = figure.standalone();
        assert!(svg.contains(">75<") && svg.contains(">25<") && svg.matches(">none<").count() == 1, "{svg}");
        assert!(svg.contains("&lt;b&gt;"));
        assert_eq!(thousands(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn many_classes_grow_the_figure_and_names_may_be_missing() {
        let counts: Vec<Vec<u64>> = (0..30).map(|r| (0..30).map(|c| u64::from(r == c)).collect()).collect();
        let figure = draw(&[], &counts);
        well_formed(&figure);
        assert!(figure.width > 800.0 && figure.standalone().contains("class 29"));
        well_formed(&draw(&[], &[]));
    }
}
