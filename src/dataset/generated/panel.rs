//! Ten simulated annotators.
//!
//! Owns how people misread a face whose true expression is known. Three sources of error, all scaled by one noise level:
//!
//! - *Appearance*: each blend looks, to people, like its true component with a chance of its own, drawn once per face. It is not a function
//!   of the pixels, so a model that averages over many faces can see past it. This is by far the largest part.
//! - *Bias*: each annotator takes one class for a particular other one (some call every fear surprise).
//! - *Slips* and `unknown`: each annotator now and then answers something else, or nothing.
//!
//! Faces that are no blend are read nearly unanimously at every noise level.

use super::action_units::{CLASSES, choose, confusable};
use crate::random::{RngExt, Stream, Streams, normal};

/// Members of the panel.
pub const ANNOTATORS: usize = 10;

/// The vote column after the classes.
pub const UNKNOWN: usize = CLASSES.len();

#[derive(Clone, Debug)]
struct Annotator {
    /// Chance of a slip at noise 1.
    slip: f32,
    /// Chance of `unknown` at noise 1.
    unknown: f32,
    /// Takes `from` for `to` with chance `strength` where both are in the face.
    from: usize,
    to: usize,
    strength: f32,
}

/// The panel of one pack.
#[derive(Clone, Debug)]
pub struct Panel {
    members: Vec<Annotator>,
    noise: f32,
}

impl Panel {
    /// `noise`: 0 an almost clean panel, 1 wrong on about four in ten ambiguous faces, 2 wrong on more than half of them.
    pub fn new(streams: &Streams, noise: f32) -> Self {
        let members = (0..ANNOTATORS)
            .map(|member| {
                let mut rng = streams.at("annotator", &[member as u64]);
                let from = rng.random_range(0..CLASSES.len());
                Annotator {
                    slip: 0.004 + 0.03 * rng.random::<f32>().powi(2),
                    unknown: 0.002 + 0.014 * rng.random::<f32>().powi(2),
                    from,
                    to: choose(confusable(from), &mut rng),
                    strength: 0.1 + 0.35 * rng.random::<f32>(),
                }
            })
            .collect();
        Self { members, noise }
    }

    /// The column each annotator chooses for a face of class `truth`; `other` is the second component of a blend and the share of the
    /// true one.
    pub fn read(&self, truth: usize, other: Option<(usize, f32)>, rng: &mut Stream) -> [usize; ANNOTATORS] {
        let noise = self.noise;
        let appearance = match other {
            None => 0.995,
            Some((_, share)) => {
                // From nearly certain at noise 0 over a little better than a coin at 1 to worse than a coin at 2.
                let centre = if noise <= 1.0 { 0.985 - 0.425 * noise } else { 0.56 - 0.12 * (noise - 1.0) };
                let centre = (centre + 0.25 * noise.min(1.0) * (share - 0.67)).clamp(0.05, 0.985);
                let logit = (centre / (1.0 - centre)).ln() + 0.62 * noise.min(1.5) * normal(rng);
                // The true component is never invisible: it must keep its place among the candidates.
                (1.0 / (1.0 + (-logit).exp())).clamp(0.26, 0.99)
            }
        };
        let mut columns = [truth; ANNOTATORS];
        for (column, member) in columns.iter_mut().zip(&self.members) {
            let mistaken = other.map_or_else(|| choose(confusable(truth), rng), |o| o.0);
            let mut seen = appearance;
            let bias = member.strength * noise.min(1.5) * if other.is_some() { 0.5 } else { 0.06 };
            if (member.from, member.to) == (truth, mistaken) {
                seen *= 1.0 - bias;
            } else if (member.from, member.to) == (mistaken, truth) {
                seen += (1.0 - seen) * bias;
            }
            let (answer, slip, unknown) = (rng.random::<f32>(), rng.random::<f32>(), rng.random::<f32>());
            if answer >= seen {
                *column = mistaken;
            }
            if slip < member.slip * noise {
                *column = choose(confusable(*column), rng);
            }
            // People skip hard faces more often than easy ones.
            if unknown < member.unknown * noise * if other.is_some() { 1.5 } else { 0.5 } {
                *column = UNKNOWN;
            }
        }
        columns
    }
}

/// Votes per column, `[9]`: the classes, then `unknown`.
pub fn count(columns: &[usize; ANNOTATORS]) -> Vec<u32> {
    let mut votes = vec![0; UNKNOWN + 1];
    for &column in columns {
        votes[column] += 1;
    }
    votes
}

/// The emotion with most votes, the lower index on a tie; `None` without a vote for any emotion.
pub fn majority(votes: &[u32]) -> Option<usize> {
    let emotions = &votes[..UNKNOWN];
    let most = *emotions.iter().max()?;
    if most == 0 { None } else { emotions.iter().position(|&v| v == most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over blends: the share whose majority is true, and the share whose truth has at least two votes.
    fn on_blends(noise: f32) -> (f32, f32) {
        let (mut right, mut covered, mut total) = (0.0, 0.0, 0.0);
        for seed in 0..6 {
            let streams = Streams::new(seed);
            let panel = Panel::new(&streams, noise);
            for face in 0..2000u64 {
                let mut rng = streams.at("test", &[face]);
                let truth = (face % 8) as usize;
                let other = choose(confusable(truth), &mut rng);
                let votes = count(&panel.read(truth, Some((other, 0.67)), &mut rng));
                assert_eq!(votes.iter().sum::<u32>(), ANNOTATORS as u32);
                right += f32::from(majority(&votes) == Some(truth));
                covered += f32::from(votes[truth] >= 2);
                total += 1.0;
            }
        }
        (right / total, covered / total)
    }

    #[test]
    fn the_noise_level_sets_how_often_the_majority_is_right_on_blends() {
        for (noise, low, high, covered_at_least) in [(0.0, 0.99, 1.0, 0.99), (1.0, 0.55, 0.72, 0.93), (2.0, 0.25, 0.5, 0.85)] {
            let (right, covered) = on_blends(noise);
            assert!((low..=high).contains(&right), "noise {noise}: majority right on {right}");
            assert!(covered >= covered_at_least, "noise {noise}: truth covered on {covered}");
        }
    }

    #[test]
    fn plain_faces_are_read_almost_unanimously() {
        let streams = Streams::new(5);
        for (noise, least) in [(0.0, 9.8), (1.0, 9.5), (2.0, 9.0)] {
            let panel = Panel::new(&streams, noise);
            let agreeing: u32 = (0..2000u64)
                .map(|face| {
                    let truth = (face % 8) as usize;
                    count(&panel.read(truth, None, &mut streams.at("test", &[face])))[truth]
                })
                .sum();
            let mean = f64::from(agreeing) / 2000.0;
            assert!(mean >= least, "noise {noise}: {mean} of ten agree");
        }
    }

    #[test]
    fn ties_go_to_the_lower_index_and_unknown_never_wins() {
        assert_eq!(majority(&[0, 4, 0, 4, 0, 0, 0, 0, 2]), Some(1));
        assert_eq!(majority(&[0, 0, 0, 1, 0, 0, 0, 0, 9]), Some(3));
        assert_eq!(majority(&[0, 0, 0, 0, 0, 0, 0, 0, 10]), None);
    }
}
