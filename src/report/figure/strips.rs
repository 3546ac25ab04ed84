//! How faces come to their labels: each face with its candidates' shares of the confidence through time (the paper's figures 10 to 12).
//!
//! Every column is an epoch and adds up to one: the first candidate from below, the others on top. A tick marks where the likeliest
//! candidate changed. Names stand at the right, at the height of what they ended with.

use super::axis::{apart, evenly, fit, path, round};
use super::{Figure, WIDTH};
use maud::{Markup, html};

/// One face.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// Shown where there is no picture.
    pub id: String,
    /// A small picture as a data URI.
    pub picture: Option<String>,
    pub candidates: Vec<Candidate>,
    /// Epochs, and the confidence of each candidate there.
    pub epochs: Vec<f64>,
    pub shares: Vec<Vec<f32>>,
    /// Epochs at which the likeliest candidate changed.
    pub flips: Vec<f64>,
}

/// One class that a face may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub class: String,
    /// What else is known of it: `given`, `true`.
    pub notes: Vec<&'static str>,
}

const SIDE: f64 = 60.0;
const STEP: f64 = 76.0;
const LEFT: f64 = SIDE + 12.0;
const RIGHT: f64 = 292.0;
const COLUMNS: usize = 60;

pub fn draw(name: String, title: String, description: String, strips: &[Strip]) -> Figure {
    let body = html! {
        @for (i, strip) in strips.iter().enumerate() { (row(strip, round(14.0 + i as f64 * STEP))) }
        @if let Some(strip) = strips.first() {
            @let y = 14.0 + strips.len() as f64 * STEP;
            text class="quiet small" x=(LEFT) y=(y) { "epoch " (strip.epochs.first().copied().unwrap_or(0.0).round()) }
            text class="quiet small end" x=(RIGHT) y=(y) { (strip.epochs.last().copied().unwrap_or(0.0).round()) }
        }
    };
    Figure { name, title, description, width: WIDTH, height: 14.0 + strips.len() as f64 * STEP + 6.0, body }
}

fn row(strip: &Strip, top: f64) -> Markup {
    let chosen = evenly(strip.epochs.len(), COLUMNS);
    let columns: Vec<Vec<(f64, f64)>> = chosen.iter().map(|&i| parts(&strip.shares[i])).collect();
    let last = strip.shares.last().cloned().unwrap_or_default();
    // The middle of each candidate's part of the last column.
    let middles: Vec<f64> = parts(&last).into_iter().map(|(from, to)| top + SIDE * (1.0 - (from + to) / 2.0)).collect();
    let labels = apart(&middles, 15.0, top + 6.0, top + SIDE - 6.0);
    // A column shows how its epoch ended, so it stands for the time before.
    let (start, end) = (strip.epochs.first().copied().unwrap_or(0.0), strip.epochs.last().copied().unwrap_or(1.0));
    let start = start - (end - start) / strip.epochs.len().saturating_sub(1).max(1) as f64;
    let tick = |epoch: f64| round(LEFT + (RIGHT - LEFT) * ((epoch - start) / (end - start).max(1e-9)).clamp(0.0, 1.0));
    html! {
        g {
            title { (strip.id) }
            @match &strip.picture {
                Some(picture) => image x="0" y=(top) width=(SIDE) height=(SIDE) href=(picture) {},
                None => {
                    rect class="rest" fill-opacity="0.5" x="0" y=(top) width=(SIDE) height=(SIDE) {}
                    text class="quiet small mid" x=(SIDE / 2.0) y=(top + SIDE / 2.0 + 4.0) { (fit(&strip.id, SIDE - 4.0, 10.5)) }
                }
            }
            @for c in 0..strip.candidates.len() {
                path class={ "f" (c % 4) } fill-opacity=(opacity(c)) d=(area(&columns, c, top)) {}
            }
            @for &epoch in strip.flips.iter().take(COLUMNS) { path class="frame" d={ "M" (tick(epoch)) " " (top - 6.0) "v5" } {} }
            @for (c, (candidate, y)) in strip.candidates.iter().zip(labels).enumerate() {
                rect class={ "f" (c % 4) } fill-opacity=(opacity(c)) x=(RIGHT + 7.0) y=(round(y - 5.0)) width="8" height="8" {}
                text class={ "small" @if last.get(c).is_some_and(|s| *s > 0.5) { " strong" } } x=(RIGHT + 20.0) y=(round(y + 3.0)) { (words(candidate)) }
            }
        }
    }
}

/// The candidates differ in lightness too.
fn opacity(candidate: usize) -> f64 {
    if candidate % 4 == 1 { 0.45 } else { 0.85 }
}

/// The outline of a candidate's part of all columns: along its upper edge and back along its lower one.
fn area(columns: &[Vec<(f64, f64)>], candidate: usize, top: f64) -> String {
    let width = (RIGHT - LEFT) / columns.len().max(1) as f64;
    let edge = |i: usize, upper: bool| {
        let (from, to) = columns[i].get(candidate).copied().unwrap_or((0.0, 0.0));
        let y = top + SIDE * (1.0 - if upper { to } else { from });
        let (start, end) = (LEFT + i as f64 * width, LEFT + (i + 1) as f64 * width);
        if upper { [Some((start, y)), Some((end, y))] } else { [Some((end, y)), Some((start, y))] }
    };
    let there = (0..columns.len()).flat_map(|i| edge(i, true));
    path(there.chain((0..columns.len()).rev().flat_map(|i| edge(i, false)))) + "z"
}

fn words(candidate: &Candidate) -> String {
    let notes = if candidate.notes.is_empty() { String::new() } else { format!(" ({})", candidate.notes.join(", ")) };
    let room = WIDTH - RIGHT - 20.0 - notes.chars().count() as f64 * 5.9;
    fit(&candidate.class, room.max(20.0), 10.5) + &notes
}

/// Where each candidate's part of a column begins and ends; what is no number has no height.
fn parts(shares: &[f32]) -> Vec<(f64, f64)> {
    let mut below = 0.0f64;
    let part = |&s: &f32| {
        let from = below;
        below = (below + if s.is_finite() { f64::from(s).max(0.0) } else { 0.0 }).min(1.0);
        (from, below)
    };
    shares.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    fn strip(epochs: usize) -> Strip {
        let share = |e: usize| e as f32 / epochs.max(2) as f32;
        Strip {
            id: "<i>face</i>".into(),
            picture: None,
            candidates: vec![
                Candidate { class: "calm & glad".into(), notes: vec!["given"] },
                Candidate { class: "sad".into(), notes: vec!["given", "true"] },
            ],
            epochs: (0..epochs).map(|e| e as f64).collect(),
            shares: (0..epochs).map(|e| vec![share(e), 1.0 - share(e)]).collect(),
            flips: vec![epochs as f64 / 2.0],
        }
    }

    #[test]
    fn columns_add_up_and_long_histories_are_sampled() {
        assert_eq!(parts(&[0.25, f32::NAN, 0.75]), [(0.0, 0.25), (0.25, 0.25), (0.25, 1.0)]);
        let figure = draw("strips".into(), "Strips".into(), "two faces".into(), &[strip(300), strip(1)]);
        well_formed(&figure);
        let svg = figure.standalone();
        assert_eq!(svg.matches("<path class=\"f0\"").count(), 2);
        // Of three hundred epochs sixty columns are drawn, each with two corners above and two below.
        let outline = svg.split("<path class=\"f0\"").nth(1).and_then(|t| t.split('>').next()).unwrap();
        assert_eq!(outline.matches('L').count() + 1, 4 * COLUMNS, "{outline}");
        assert!(svg.contains("sad (given, true)") && svg.contains("&lt;i&gt;"), "{svg}");
        well_formed(&draw("strips".into(), "Strips".into(), "none".into(), &[strip(0)]));
    }
}
