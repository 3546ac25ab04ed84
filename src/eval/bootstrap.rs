//! Whether two runs differ on the same faces: a paired bootstrap (Efron and Tibshirani 1993) of accuracy and mean class recall.

use crate::dataset::Class;
use crate::eval::Confusion;
use crate::random::{RngExt, Streams};

/// Two runs' predictions for the same labelled faces.
pub struct Paired<'a> {
    pub classes: usize,
    pub labels: &'a [Class],
    pub first: &'a [Class],
    pub second: &'a [Class],
}

/// A difference, second minus first, and its 95 % percentile interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub first: f64,
    pub second: f64,
    pub low: f64,
    pub high: f64,
    /// Share of resamples in which the second run is better; ties count half.
    pub second_better: f64,
}

/// What two runs differ in.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedComparison {
    pub accuracy: Difference,
    pub mean_recall: Difference,
    /// Faces that only the first, and only the second run gets right.
    pub only_first: u64,
    pub only_second: u64,
}

impl Paired<'_> {
    /// Draws the faces `resamples` times with replacement; each face brings both runs' predictions.
    ///
    /// # Panics
    /// If there is no face or the predictions differ in number.
    pub fn compare(&self, resamples: usize, streams: &Streams) -> PairedComparison {
        let n = self.labels.len();
        assert!(n > 0 && self.first.len() == n && self.second.len() == n, "both runs predict the same faces");
        let score = |faces: &mut dyn Iterator<Item = usize>| {
            let (mut a, mut b) = (Confusion::new(self.classes), Confusion::new(self.classes));
            for i in faces {
                a.add(self.labels[i], self.first[i]);
                b.add(self.labels[i], self.second[i]);
            }
            [(a.accuracy(), b.accuracy()), (a.mean_recall(), b.mean_recall())]
        };
        let observed = score(&mut (0..n));
        let mut draws = [Vec::with_capacity(resamples), Vec::with_capacity(resamples)];
        for resample in 0..resamples {
            let mut rng = streams.at("bootstrap", &[resample as u64]);
            let pairs = score(&mut (0..n).map(|_| rng.random_range(0..n)));
            for (draws, (a, b)) in draws.iter_mut().zip(pairs) {
                draws.push(b - a);
            }
        }
        let [accuracy, mean_recall] = [0, 1].map(|m| difference(observed[m], &mut draws[m]));
        let only =
            |right: &[Class], wrong: &[Class]| (0..n).filter(|&i| right[i] == self.labels[i] && wrong[i] != self.labels[i]).count() as u64;
        PairedComparison { accuracy, mean_recall, only_first: only(self.first, self.second), only_second: only(self.second, self.first) }
    }
}

fn difference((first, second): (f64, f64), draws: &mut [f64]) -> Difference {
    draws.sort_by(f64::total_cmp);
    let quantile = |q: f64| draws[((draws.len() - 1) as f64 * q).round() as usize];
    let better = draws.iter().map(|d| if *d == 0.0 { 0.5 } else { f64::from(u8::from(*d > 0.0)) }).sum::<f64>() / draws.len() as f64;
    Difference { first, second, low: quantile(0.025), high: quantile(0.975), second_better: better }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faces of which the first run gets `a` in ten right and the second `b`, independently.
    fn faces(n: usize, a: u32, b: u32) -> (Vec<Class>, Vec<Class>, Vec<Class>) {
        let mut rng = Streams::new(4).at("faces", &[]);
        let labels: Vec<Class> = (0..n).map(|i| (i % 3) as Class).collect();
        let mut run = |share: u32| labels.iter().map(|&l| if rng.random_range(0..10) < share { l } else { (l + 1) % 3 }).collect();
        let (first, second) = (run(a), run(b));
        (labels, first, second)
    }

    #[test]
    fn the_interval_has_the_width_that_theory_gives() {
        let (labels, first, second) = faces(900, 6, 7);
        let c = Paired { classes: 3, labels: &labels, first: &first, second: &second }.compare(2000, &Streams::new(1));
        let (d, n) = (c.accuracy.second - c.accuracy.first, 900.0);
        // Paired differences are -1, 0 or 1: their variance follows from the discordant counts.
        let discordant = (c.only_first + c.only_second) as f64 / n;
        let deviation = ((discordant - d * d) / n).sqrt();
        assert!((c.accuracy.high - c.accuracy.low - 2.0 * 1.96 * deviation).abs() < 0.2 * deviation, "{c:?} {deviation}");
        assert!(c.accuracy.low < d && d < c.accuracy.high && c.accuracy.second_better > 0.9);
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let (labels, first, _) = faces(300, 6, 6);
        let c = Paired { classes: 3, labels: &labels, first: &first, second: &first }.compare(200, &Streams::new(1));
        assert_eq!((c.accuracy.low, c.accuracy.high, c.accuracy.second_better, c.only_first), (0.0, 0.0, 0.5, 0));
    }
}
