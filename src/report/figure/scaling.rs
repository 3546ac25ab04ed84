//! A cost against sizes, both on logarithmic axes: a power law is a straight line there, and its exponent the slope.

use super::axis::{Frame, Scale, apart, fit, path, range};
use super::{Figure, WIDTH};
use maud::{Markup, html};

/// One line.
pub struct Line {
    pub name: String,
    /// Size, as a multiple of what all lines share, and cost.
    pub points: Vec<(f64, f64)>,
}

/// What a figure says beside its lines.
pub struct Scaling<'a> {
    pub name: String,
    pub title: String,
    pub description: String,
    /// Names the vertical axis.
    pub above: &'a str,
}

const FRAME: Frame = Frame { left: 40.0, top: 24.0, right: 300.0, bottom: 204.0 };

impl Scaling<'_> {
    /// Sizes and costs that are not positive have no place here and are left out.
    pub fn draw(self, lines: &[Line]) -> Figure {
        let positive = |l: &Line| l.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect::<Vec<_>>();
        let points: Vec<Vec<(f64, f64)>> = lines.iter().map(positive).collect();
        let all = || points.iter().flatten();
        let log = |range: Option<(f64, f64)>| range.map_or((0.0, 1.0), |(low, high)| (low.log10(), high.log10()));
        let (sizes, costs) = (log(range(all().map(|p| p.0))), log(range(all().map(|p| p.1))));
        let x = Scale::new(sizes, (FRAME.left + 6.0, FRAME.right - 6.0));
        let y = Scale::new(costs, (FRAME.bottom - 4.0, FRAME.top + 4.0));
        let at = |&(size, cost): &(f64, f64)| (x.at(size.log10()), y.at(cost.log10()));
        let ends: Vec<f64> = points.iter().map(|p| p.last().map_or(FRAME.bottom, |p| at(p).1)).collect();
        let labels = apart(&ends, 27.0, FRAME.top + 6.0, FRAME.bottom - 8.0);
        let body = html! {
            (axes(&x, &y, sizes, costs, self.above))
            @for (i, (line, points)) in lines.iter().zip(&points).enumerate() {
                @let look = i % 4;
                path class={ "line s" (look) } d=(path(points.iter().map(|p| Some(at(p))))) {}
                @for (cx, cy) in points.iter().map(at) { circle class={ "f" (look) } cx=(cx) cy=(cy) r="2.5" {} }
                @let (text, label) = (FRAME.right + 14.0, labels[i]);
                path class={ "line s" (look) } d={ "M" (text) " " (label - 9.0) "h26" } {}
                text x=(text) y=(label + 6.0) { (fit(&line.name, WIDTH - text, 12.0)) }
            }
        };
        Figure { name: self.name, title: self.title, description: self.description, width: WIDTH, height: FRAME.bottom + 36.0, body }
    }
}

/// Powers of two below, 1, 2 and 5 times powers of ten beside.
fn axes(x: &Scale, y: &Scale, sizes: (f64, f64), costs: (f64, f64), above: &str) -> Markup {
    let within = |range: (f64, f64)| move |v: &f64| v.log10() >= range.0 - 1e-9 && v.log10() <= range.1 + 1e-9;
    let doubled = (-20..=20).map(|power| 2f64.powi(power)).filter(within(sizes));
    let round = (-9..=12).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power))).filter(within(costs));
    let multiple = |v: f64| if v < 1.0 { format!("1/{}", 1.0 / v) } else { format!("{v}") };
    html! {
        text class="quiet small" x="0" y=(FRAME.top - 9.0) { (above) }
        @for v in round {
            @let height = y.at(v.log10());
            path class="rule" d={ "M" (FRAME.left) " " (height) "H" (FRAME.right) } {}
            text class="quiet small end" x=(FRAME.left - 6.0) y=(height + 3.5) { (v) }
        }
        path class="axis" d={ "M" (FRAME.left) " " (FRAME.bottom) "H" (FRAME.right) } {}
        @for v in doubled {
            @let place = x.at(v.log10());
            path class="axis" d={ "M" (place) " " (FRAME.bottom) "v4" } {}
            text class="quiet small mid" x=(place) y=(FRAME.bottom + 16.0) { (multiple(v)) }
        }
        text class="quiet small end" x=(FRAME.right) y=(FRAME.bottom + 31.0) { "times the size of the preset" }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    #[test]
    fn a_power_law_is_a_straight_line() {
        let points = [0.5f64, 1.0, 2.0, 4.0].map(|size| (size, 30.0 * size.powf(1.5))).to_vec();
        let lines = [Line { name: "width".into(), points }, Line { name: "none".into(), points: vec![(0.0, 1.0), (1.0, f64::NAN)] }];
        let scaling = Scaling { name: "scaling".into(), title: "Cost".into(), description: "grows".into(), above: "ms" };
        let figure = scaling.draw(&lines);
        well_formed(&figure);
        let svg = figure.standalone();
        let heights: Vec<f64> = svg.split("cy=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        assert_eq!(heights.len(), 4);
        let steps: Vec<f64> = heights.windows(2).map(|w| w[0] - w[1]).collect();
        assert!(steps.iter().all(|step| *step > 10.0 && (step - steps[0]).abs() < 0.05), "{steps:?}");
        assert!(svg.contains(">1/2<") && svg.contains(">4<"), "{svg}");
    }
}
