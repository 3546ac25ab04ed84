//! How sure the labels are, epoch by epoch: ridges of the largest candidate confidence (the paper's figure 5 over time).

use super::axis::{Scale, evenly, path, round};
use super::{Figure, WIDTH};
use crate::run::event::CONFIDENCE_BINS;
use maud::html;

/// Shares of the confidence bins at an epoch, and the share of labels that counted as decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    pub epoch: f64,
    pub shares: [f32; CONFIDENCE_BINS],
    pub decided: Option<f64>,
}

/// Rows of the figure; of a longer training an even choice with the first and the last.
const ROWS: usize = 14;
/// Units between rows, and the height of a bin that holds everything.
const STEP: f64 = 21.0;
const PEAK: f64 = 50.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 400.0;

/// The lower edge of the first bin that any of the ridges uses: what lies below is the same nothing in all of them.
pub fn lowest(ridges: &[Ridge]) -> f64 {
    let used = |bin: &usize| ridges.iter().any(|r| r.shares[*bin] > 0.0);
    (0..CONFIDENCE_BINS).find(used).unwrap_or(0) as f64 / CONFIDENCE_BINS as f64
}

/// Draws ridges from `from` (see [`lowest`]; the same for runs that are compared) to 1.
pub fn draw(name: String, title: String, ridges: &[Ridge], from: f64) -> Figure {
    let chosen = evenly(ridges.len(), ROWS);
    let top = PEAK + 16.0;
    let x = Scale::new((from, 1.0), (LEFT, RIGHT));
    let bottom = top + STEP * chosen.len().saturating_sub(1) as f64;
    let width = 1.0 / CONFIDENCE_BINS as f64;
    let hill = |ridge: &Ridge, base: f64| {
        // A step for each bin: the counts are all that is known.
        let bins = (0..CONFIDENCE_BINS).filter(|i| (*i as f64 + 0.5) * width > from);
        let steps = bins.flat_map(|i| {
            let y = base - PEAK * f64::from(ridge.shares[i]).sqrt();
            [Some((x.at(i as f64 * width), y)), Some((x.at((i + 1) as f64 * width), y))]
        });
        path([Some((LEFT, base))].into_iter().chain(steps).chain([Some((RIGHT, base))])) + "z"
    };
    let body = html! {
        text class="quiet small" x="0" y="10" { "epoch" }
        text class="quiet small end" x=(WIDTH) y="10" { "decided" }
        @for (row, &i) in chosen.iter().enumerate() {
            @let (ridge, base) = (&ridges[i], round(top + row as f64 * STEP));
            path class="page" d=(hill(ridge, base)) {}
            path class="hill" d=(hill(ridge, base)) {}
            text class="quiet small end" x=(LEFT - 8.0) y=(base) { ((ridge.epoch * 10.0).round() / 10.0) }
            @if let Some(decided) = ridge.decided.filter(|d| d.is_finite()) {
                text class="small end" x=(WIDTH) y=(base) { ((decided * 100.0).round()) "\u{202f}%" }
            }
        }
        @for v in x.ticks(5) {
            path class="axis" d={ "M" (x.at(v)) " " (bottom + 3.0) "v4" } {}
            text class="quiet small mid" x=(x.at(v)) y=(bottom + 19.0) { (super::axis::Unit::Plain.text(v)) }
        }
        text class="quiet small end" x=(RIGHT) y=(bottom + 34.0) { "confidence of the likeliest candidate" }
    };
    Figure { name, title, description: describe(ridges), width: WIDTH, height: bottom + 39.0, body }
}

fn describe(ridges: &[Ridge]) -> String {
    let sure = |r: &Ridge| f64::from(r.shares[CONFIDENCE_BINS - 1]) * 100.0;
    match (ridges.first(), ridges.last()) {
        (Some(first), Some(last)) => format!(
            "Each row is an epoch, each step's height the square root of the share of ambiguous faces in that bin. {:.0} % of them lie above 0.95 \
             after epoch {:.0}, {:.0} % after epoch {:.0}.",
            sure(first),
            first.epoch,
            sure(last),
            last.epoch
        ),
        _ => "No epoch was reported.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    #[test]
    fn three_hundred_epochs_become_few_rows() {
        let ridges: Vec<Ridge> = (1..=300)
            .map(|e| {
                let mut shares = [0.0; CONFIDENCE_BINS];
                (shares[10], shares[19]) = (1.0 - e as f32 / 300.0, e as f32 / 300.0);
                Ridge { epoch: f64::from(e), shares, decided: Some(f64::from(e) / 300.0) }
            })
            .collect();
        assert_eq!(lowest(&ridges), 0.5);
        let figure = draw("ridge".into(), "Ridge".into(), &ridges, 0.5);
        well_formed(&figure);
        let svg = figure.standalone();
        assert_eq!(svg.matches("class=\"hill\"").count(), ROWS);
        assert!(svg.contains(">1</text>") && svg.contains(">300</text>") && figure.description.contains("100 % after epoch 300"), "{svg}");
        well_formed(&draw("ridge".into(), "Ridge".into(), &[], 0.0));
    }
}
