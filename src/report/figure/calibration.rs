//! A reliability diagram: how often predictions are right that claim to be so sure (Guo et al. 2017), over the number of faces in each bin.

use super::axis::{Frame, Scale, Unit, axes, round};
use super::{Figure, WIDTH};
use crate::eval::{CALIBRATION_BINS, Reliability};
use maud::html;

const FRAME: Frame = Frame { left: 40.0, top: 24.0, right: 440.0, bottom: 234.0 };
/// Height of the histogram below.
const COUNTS: f64 = 40.0;

pub fn draw(name: String, title: String, reliability: &Reliability, look: usize) -> Figure {
    let bins = reliability.bins();
    let faces: u64 = bins.iter().map(|b| b.faces).sum();
    let most = bins.iter().map(|b| b.faces).max().unwrap_or(0).max(1) as f64;
    let (x, y) = (Scale::new((0.0, 1.0), (FRAME.left, FRAME.right)), Scale::new((0.0, 1.0), (FRAME.bottom, FRAME.top)));
    let bar = (FRAME.right - FRAME.left) / CALIBRATION_BINS as f64;
    let base = FRAME.bottom + 36.0 + COUNTS;
    let error = 100.0 * reliability.error(faces as usize);
    let body = html! {
        (axes(FRAME, &x, &y, Unit::Percent, "right, %", ""))
        @for (i, bin) in bins.iter().enumerate().filter(|(_, b)| b.faces > 0) {
            @let (left, right) = (round(FRAME.left + i as f64 * bar + 1.0), bin.right as f64 / bin.faces as f64);
            @let claimed = bin.confidence / bin.faces as f64;
            @let (high, low) = (y.at(right.max(claimed)), y.at(right.min(claimed)));
            rect class={ "f" (look % 4) } fill-opacity="0.75" x=(left) y=(y.at(right)) width=(round(bar - 2.0)) height=(round(FRAME.bottom - y.at(right))) {}
            rect class="gap" x=(left) y=(high) width=(round(bar - 2.0)) height=(round(low - high)) {}
            @let height = round(COUNTS * (bin.faces as f64 / most));
            rect class="rest" x=(left) y=(round(base - height)) width=(round(bar - 2.0)) height=(height) {}
        }
        path class="even" d={ "M" (x.at(0.0)) " " (y.at(0.0)) "L" (x.at(1.0)) " " (y.at(1.0)) } {}
        path class="axis" d={ "M" (FRAME.left) " " (base) "H" (FRAME.right) } {}
        text class="quiet small" x=(FRAME.left) y=(base - COUNTS - 4.0) { "faces (most in a bin: " (super::confusion::thousands(most as u64)) ")" }
        text class="quiet small end" x=(FRAME.right) y=(base + 15.0) { "probability of the predicted class" }
        text class="strong" x=(FRAME.left + 12.0) y=(FRAME.top + 20.0) { "calibration error " (format!("{error:.1}")) "\u{202f}%" }
    };
    let over: f64 = bins.iter().map(|b| b.confidence - b.right as f64).sum::<f64>() / faces.max(1) as f64;
    let description = format!(
        "Bars: share of {faces} faces that is right, by the probability of the predicted class; red: how far that is from the probability. On the \
         whole the network is {} by {:.1} points; calibration error {error:.1} %.",
        if over >= 0.0 { "too sure" } else { "not sure enough" },
        100.0 * over.abs()
    );
    Figure { name, title, description, width: WIDTH, height: base + 20.0, body }
}

#[cfg(test)]
mod tests {
    use super::super::tests::well_formed;
    use super::*;

    #[test]
    fn the_error_that_is_shown_is_the_one_that_is_measured() {
        let mut reliability = Reliability::default();
        for right in [true, true, true, false] {
            reliability.add(0.95, right);
        }
        let figure = draw("calibration".into(), "Calibration".into(), &reliability, 0);
        well_formed(&figure);
        assert!(figure.description.contains("too sure by 20.0 points; calibration error 20.0 %"), "{}", figure.description);
        assert_eq!(figure.standalone().matches("class=\"gap\"").count(), 1);
        well_formed(&draw("calibration".into(), "Calibration".into(), &Reliability::default(), 0));
    }
}
