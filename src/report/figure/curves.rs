//! Numbers over the epochs of training: losses and accuracies.

use super::axis::{Frame, Scale, Unit, apart, axes, fit, path};
use super::{Figure, WIDTH};
use maud::html;

/// One line.
pub struct Curve {
    pub name: String,
    /// Which of the looks `s0` to `s3`; later ones repeat.
    pub look: usize,
    /// Epoch and value; none: not a number.
    pub points: Vec<(f64, Option<f64>)>,
    /// A single reading that is marked with a diamond, beside the line's end: the test split.
    pub after: Option<f64>,
    /// The best point: where a ring is drawn.
    pub best: Option<(f64, f64)>,
}

/// What all curves of a figure, and the same figure of other runs, have in common.
pub struct Curves<'a> {
    pub name: String,
    pub title: String,
    pub description: String,
    pub unit: Unit,
    pub above: &'a str,
    /// Ranges of epochs and values, the same for all runs that are compared.
    pub epochs: (f64, f64),
    pub values: (f64, f64),
}

const FRAME: Frame = Frame { left: 40.0, top: 24.0, right: 338.0, bottom: 204.0 };

impl Curves<'_> {
    pub fn draw(self, curves: &[Curve]) -> Figure {
        let x = Scale::new(self.epochs, (FRAME.left, FRAME.right));
        let y = Scale::new(self.values, (FRAME.bottom, FRAME.top));
        let line = |points: &[(f64, Option<f64>)]| path(points.iter().map(|&(e, v)| Some((x.at(e), y.at(v?)))));
        let lost = |c: &Curve| c.points.iter().filter(|p| p.1.is_none()).map(|p| x.at(p.0)).collect::<Vec<_>>();
        let last = |c: &Curve| c.points.iter().rev().find_map(|&(_, v)| v);
        let ends: Vec<f64> = curves.iter().map(|c| y.at(last(c).unwrap_or(self.values.0))).collect();
        let labels = apart(&ends, 27.0, FRAME.top + 6.0, FRAME.bottom - 8.0);
        let body = html! {
            (axes(FRAME, &x, &y, self.unit, self.above, "epoch"))
            @for (c, label) in curves.iter().zip(labels) {
                @let look = c.look % 4;
                path class={ "line s" (look) } d=(line(&c.points)) {}
                @for at in lost(c) { path class="alarm" d={ "M" (at - 3.0) " " (FRAME.top) "l6 6m0 -6l-6 6" } {} }
                @if let Some((epoch, value)) = c.best {
                    circle class={ "line page solid s" (look) } cx=(x.at(epoch)) cy=(y.at(value)) r="4" {}
                }
                @if let Some(value) = c.after {
                    path class={ "f" (look) " edge" } d={ "M" (FRAME.right + 8.0) " " (y.at(value) - 6.0) "l6 6l-6 6l-6 -6z" } {}
                }
                @let text = FRAME.right + 20.0;
                path class={ "line s" (look) } d={ "M" (text) " " (label - 9.0) "h26" } {}
                text x=(text) y=(label + 6.0) { (fit(&c.name, WIDTH - text, 12.0)) }
            }
        };
        Figure { name: self.name, title: self.title, description: self.description, width: WIDTH, height: FRAME.bottom + 36.0, body }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    fn curves(values: (f64, f64)) -> Curves<'static> {
        let (name, title, description) = ("loss".into(), "Loss".into(), "falls".into());
        Curves { name, title, description, unit: Unit::Plain, above: "loss", epochs: (0.0, 3.0), values }
    }

    fn curve(values: &[f64]) -> Curve {
        let points = values.iter().enumerate().map(|(i, v)| (i as f64, v.is_finite().then_some(*v))).collect();
        Curve { name: "a <b>".into(), look: 5, points, after: Some(0.5), best: Some((1.0, 0.2)) }
    }

    #[test]
    fn a_diverged_loss_breaks_the_line_and_is_marked() {
        let figure = curves((0.0, 2.0)).draw(&[curve(&[2.0, f64::NAN, 1.0, f64::INFINITY]), curve(&[])]);
        well_formed(&figure);
        let svg = figure.standalone();
        assert_eq!(svg.matches("class=\"alarm\"").count(), 2);
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("class=\"line s1\""), "{svg}");
        well_formed(&curves((f64::NAN, f64::NAN)).draw(&[]));
    }
}
