//! How many labels change their mind in each epoch.

use super::axis::{Frame, Scale, Unit, axes, round};
use super::{Figure, WIDTH};
use maud::html;

const FRAME: Frame = Frame { left: 40.0, top: 24.0, right: 440.0, bottom: 164.0 };
/// Columns; of a longer training some epochs share one, and its height is their mean.
const COLUMNS: usize = 100;

/// Draws epoch and flips of each report; `epochs` and `most` are the same for runs that are compared.
pub fn draw(name: String, title: String, flips: &[(f64, u64)], epochs: f64, most: f64) -> Figure {
    let x = Scale::new((0.0, epochs.max(1.0)), (FRAME.left, FRAME.right));
    let y = Scale::new((0.0, most.max(1.0)), (FRAME.bottom, FRAME.top));
    let each = flips.len().div_ceil(COLUMNS).max(1);
    let mut before = 0.0;
    let columns = flips.chunks(each).map(|chunk| {
        let end = chunk.last().map_or(before, |c| c.0);
        let mean = chunk.iter().map(|c| c.1 as f64).sum::<f64>() / chunk.len() as f64;
        let column = (x.at(before), x.at(end), mean);
        before = end;
        column
    });
    let columns: Vec<(f64, f64, f64)> = columns.collect();
    let body = html! {
        (axes(FRAME, &x, &y, Unit::Plain, "labels that changed since the report before", "epoch"))
        @for (from, to, mean) in columns {
            @let gap = ((to - from) * 0.12).min(1.5);
            rect class="f0" fill-opacity="0.8" x=(round(from + gap)) y=(y.at(mean)) width=(round((to - from - 2.0 * gap).max(0.5)))
                height=(round(FRAME.bottom - y.at(mean))) {}
        }
    };
    let all: u64 = flips.iter().map(|f| f.1).sum();
    let peak =
        flips.iter().max_by_key(|f| f.1).map_or(String::new(), |(epoch, n)| format!(" Most, {n}, were reported at epoch {epoch:.0}."));
    let description = format!("{all} changes of the likeliest candidate in all.{peak}");
    Figure { name, title, description, width: WIDTH, height: FRAME.bottom + 36.0, body }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    #[test]
    fn long_trainings_share_columns() {
        let flips: Vec<(f64, u64)> = (1..=300).map(|e| (f64::from(e), 300 - e as u64)).collect();
        let figure = draw("flips".into(), "Flips".into(), &flips, 300.0, 299.0);
        well_formed(&figure);
        assert_eq!(figure.standalone().matches("<rect class=\"f0\"").count(), 100);
        assert!(figure.description.starts_with("44850 changes") && figure.description.contains("299, were reported at epoch 1."));
        well_formed(&draw("flips".into(), "Flips".into(), &[], 0.0, 0.0));
    }
}
