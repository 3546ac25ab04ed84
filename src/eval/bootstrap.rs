//! How sure measured figures are: the bootstrap over faces (Efron and Tibshirani 1993), of one run's scores and of the differences between
//! two runs on the same faces. It knows how much other faces would change a figure, not how much another seed would.

use crate::dataset::Class;
use crate::eval::Confusion;
use crate::random::{RngExt, Streams, weighted};

/// Draws of faces that one interval may take: large test sets are resampled less often, and need it less.
const DRAWS: u64 = 20_000_000;

/// 95 % percentile intervals `(low, high)` of one run's scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervals {
    pub accuracy: (f64, f64),
    pub mean_recall: (f64, f64),
    pub macro_f1: (f64, f64),
}

impl Intervals {
    /// Draws as many faces as were measured, with replacement. All these scores depend only on how many faces fell into each cell of the
    /// confusion matrix, so the matrix stands for the faces. At most `resamples` times; none without faces.
    pub fn of(confusion: &Confusion, resamples: usize, streams: &Streams) -> Option<Self> {
        let faces = confusion.total();
        let classes = confusion.counts().len();
        let mut running = 0.0;
        let sums: Vec<f64> = confusion.counts().iter().flatten().map(|&n| (running += n as f64, running).1).collect();
        let resamples = resamples.min((DRAWS / faces.max(1)) as usize).max(100);
        let mut draws = [const { Vec::new() }; 3];
        for resample in 0..resamples {
            let mut rng = streams.at("bootstrap", &[resample as u64]);
            let mut drawn = Confusion::new(classes);
            for _ in 0..faces {
                let cell = weighted(&sums, &mut rng);
                drawn.add((cell / classes) as Class, (cell % classes) as Class);
            }
            let scores = [drawn.accuracy(), drawn.mean_recall(), drawn.macro_f1()];
            draws.iter_mut().zip(scores).for_each(|(draws, score)| draws.push(score));
        }
        let [accuracy, mean_recall, macro_f1] = draws.map(|mut draws| interval(&mut draws));
        (faces > 0).then_some(Self { accuracy, mean_recall, macro_f1 })
    }
}

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
    let (low, high) = interval(draws);
    let better = draws.iter().map(|d| if *d == 0.0 { 0.5 } else { f64::from(u8::from(*d > 0.0)) }).sum::<f64>() / draws.len() as f64;
    Difference { first, second, low, high, second_better: better }
}

/// Sorts the draws and takes the middle 95 %.
fn interval(draws: &mut [f64]) -> (f64, f64) {
    draws.sort_by(f64::total_cmp);
    let quantile = |q: f64| draws[((draws.len() - 1) as f64 * q).round() as usize];
    (quantile(0.025), quantile(0.975))
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
    fn one_run_has_the_interval_of_a_share() {
        let (labels, first, _) = faces(900, 6, 7);
        let mut confusion = Confusion::new(3);
        labels.iter().zip(&first).for_each(|(&truth, &predicted)| confusion.add(truth, predicted));
        let found = Intervals::of(&confusion, 2000, &Streams::new(1)).unwrap();
        let accuracy = confusion.accuracy();
        let deviation = (accuracy * (1.0 - accuracy) / 900.0).sqrt();
        assert!((found.accuracy.1 - found.accuracy.0 - 2.0 * 1.96 * deviation).abs() < 0.2 * deviation, "{found:?} {deviation}");
        for (score, (low, high)) in [(confusion.mean_recall(), found.mean_recall), (confusion.macro_f1(), found.macro_f1)] {
            assert!(low < score && score < high && high - low < 0.1, "{score} in {low}..{high}");
        }
        assert_eq!(Intervals::of(&Confusion::new(3), 100, &Streams::new(1)), None);
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let (labels, first, _) = faces(300, 6, 6);
        let c = Paired { classes: 3, labels: &labels, first: &first, second: &first }.compare(200, &Streams::new(1));
        assert_eq!((c.accuracy.low, c.accuracy.high, c.accuracy.second_better, c.only_first), (0.0, 0.0, 0.5, 0));
    }
}
