//! What the labels of a pack look like: counts, disagreement, and how often the majority is right where the truth is known.
//!
//! Owns the arithmetic of `moue data info`; it prints nothing and changes nothing.

use super::{Face, Pack, Protocol, Split};

/// Share of a face's votes that an emotion needs to count as one reading of the face. With ten votes: two.
const READING: f64 = 0.15;

/// Votes an emotion of `face` needs to count as a reading: 15 % of all votes and at least two.
fn needed(face: &Face) -> u32 {
    let total: u64 = face.votes.iter().map(|&v| u64::from(v)).sum();
    ((total as f64 * READING).ceil() as u32).max(2)
}

/// Whether annotators read `face` in more than one way: two or more emotions with at least two of ten votes each.
pub fn ambiguous(face: &Face, card: &Protocol) -> bool {
    let needed = needed(face);
    face.votes.iter().take(card.classes.len()).filter(|&&v| v >= needed).count() >= 2
}

/// Entropy of the votes over the emotions in bits; `None` without such votes.
pub fn entropy(face: &Face, card: &Protocol) -> Option<f64> {
    let emotions = &face.votes[..face.votes.len().min(card.classes.len())];
    let total: f64 = emotions.iter().map(|&v| f64::from(v)).sum();
    if total == 0.0 {
        return None;
    }
    Some(emotions.iter().filter(|&&v| v > 0).map(|&v| f64::from(v) / total).map(|p| -p * p.log2()).sum::<f64>().max(0.0))
}

/// Counts over the faces of a pack or one split.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub faces: usize,
    /// Faces per given label, `[classes]`.
    pub labels: Vec<usize>,
    pub unlabelled: usize,
    /// Faces with at least one vote.
    pub voted: usize,
    /// Faces by vote entropy: `[0, (0, 0.5], (0.5, 1], (1, 1.5], above]` bits.
    pub entropy: [usize; 5],
    pub entropy_mean: f64,
    /// Faces that annotators read in more than one way, see [`ambiguous`].
    pub ambiguous: usize,
    /// Ambiguous faces whose truth is known; of these the majority is right on `ambiguous_right`, and the truth is among the readings
    /// on `ambiguous_covered`.
    pub ambiguous_known: usize,
    pub ambiguous_right: usize,
    pub ambiguous_covered: usize,
    /// Voted faces whose truth is known, and those whose majority is right.
    pub known: usize,
    pub right: usize,
}

impl Profile {
    /// The profile of one split, or of all faces.
    pub fn of(pack: &Pack, split: Option<Split>) -> Self {
        let card = pack.protocol();
        let classes = card.classes.len();
        let mut out = Self { labels: vec![0; classes], ..Self::default() };
        let mut entropies = 0.0;
        for face in pack.faces().iter().filter(|f| split.is_none_or(|s| s == f.split)) {
            out.faces += 1;
            match face.label {
                Some(class) => out.labels[usize::from(class)] += 1,
                None => out.unlabelled += 1,
            }
            let Some(bits) = entropy(face, card) else { continue };
            out.voted += 1;
            entropies += bits;
            out.entropy[if bits == 0.0 { 0 } else { ((bits * 2.0).ceil() as usize).min(4) }] += 1;
            let unclear = ambiguous(face, card);
            out.ambiguous += usize::from(unclear);
            if let Some(truth) = face.truth.map(usize::from) {
                let emotions = &face.votes[..classes];
                let most = emotions.iter().max().copied().unwrap_or(0);
                let right = emotions.iter().position(|&v| v == most) == Some(truth);
                out.known += 1;
                out.right += usize::from(right);
                if unclear {
                    out.ambiguous_known += 1;
                    out.ambiguous_right += usize::from(right);
                    out.ambiguous_covered += usize::from(emotions[truth] >= needed(face));
                }
            }
        }
        out.entropy_mean = if out.voted > 0 { entropies / out.voted as f64 } else { 0.0 };
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Protocol {
        Protocol {
            name: "two".into(),
            classes: vec!["calm".into(), "glad".into()],
            extra_columns: vec!["unknown".into()],
            rule: "argmax".into(),
            source: "test".into(),
        }
    }

    fn face(votes: &[u32]) -> Face {
        let mut face = Face::new("f", Split::Train);
        face.votes = votes.to_vec();
        face
    }

    #[test]
    fn entropy_counts_emotions_only() {
        assert_eq!(entropy(&face(&[5, 5, 0]), &card()), Some(1.0));
        assert_eq!(entropy(&face(&[4, 0, 6]), &card()), Some(0.0));
        assert_eq!(entropy(&face(&[0, 0, 10]), &card()), None);
        assert_eq!(entropy(&face(&[]), &card()), None);
    }

    #[test]
    fn two_of_ten_votes_make_a_reading() {
        assert!(ambiguous(&face(&[8, 2, 0]), &card()));
        assert!(!ambiguous(&face(&[9, 1, 0]), &card()));
        // `unknown` is no reading.
        assert!(!ambiguous(&face(&[8, 0, 2]), &card()));
        // Weights in thousandths.
        assert!(ambiguous(&face(&[800, 200, 0]), &card()));
        assert!(!ambiguous(&face(&[900, 100, 0]), &card()));
    }
}
