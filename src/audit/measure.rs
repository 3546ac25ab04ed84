//! What a ranking is worth where the truth is known: precision, recall and average precision of "the given label is wrong".

use serde::Serialize;

/// One cut of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Faces above the cut.
    pub faces: usize,
    /// Wrongly labelled ones among them.
    pub wrong: usize,
    pub precision: f64,
    /// Share of all wrongly labelled faces that stand above the cut.
    pub recall: f64,
    /// Precision over the share of wrong labels among all faces.
    pub lift: f64,
}

/// A ranking measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    pub faces: usize,
    pub wrong: usize,
    /// Share of wrong labels among all ranked faces.
    pub base_rate: f64,
    /// Mean of the precisions at each wrongly labelled face, the usual summary; the base rate is what a random order gets.
    pub average_precision: f64,
    /// The top 1, 5, 10 and 20 %.
    pub cuts: Vec<Cut>,
}

/// Of `wrong` in rank order, the most suspicious first; `None` where no label is wrong.
pub fn measure(wrong: &[bool]) -> Option<Measured> {
    let total = wrong.iter().filter(|w| **w).count();
    if total == 0 {
        return None;
    }
    let base_rate = total as f64 / wrong.len() as f64;
    let (mut seen, mut sum) = (0, 0.0);
    let mut found = Vec::with_capacity(wrong.len() + 1);
    found.push(0);
    for (n, w) in wrong.iter().enumerate() {
        if *w {
            seen += 1;
            sum += seen as f64 / (n + 1) as f64;
        }
        found.push(seen);
    }
    let cut = |percent: usize| {
        let faces = (wrong.len() * percent).div_ceil(100);
        let precision = found[faces] as f64 / faces as f64;
        Cut { faces, wrong: found[faces], precision, recall: found[faces] as f64 / total as f64, lift: precision / base_rate }
    };
    let cuts = [1, 5, 10, 20].map(cut).to_vec();
    Some(Measured { faces: wrong.len(), wrong: total, base_rate, average_precision: sum / total as f64, cuts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_as_by_hand() {
        // Wrong at ranks 1, 3 and 4 of 6: (1/1 + 2/3 + 3/4) / 3.
        let m = measure(&[true, false, true, true, false, false]).unwrap();
        assert!((m.average_precision - (1.0 + 2.0 / 3.0 + 0.75) / 3.0).abs() < 1e-12);
        assert_eq!((m.base_rate, m.wrong), (0.5, 3));
        // Every cut holds at least one face: 20 % of 6 are two.
        assert_eq!((m.cuts[0].faces, m.cuts[0].precision, m.cuts[0].lift), (1, 1.0, 2.0));
        assert_eq!((m.cuts[3].faces, m.cuts[3].wrong, m.cuts[3].recall), (2, 1, 1.0 / 3.0));
        assert!(measure(&[false; 4]).is_none() && measure(&[]).is_none());
        let best = measure(&[true, true, false]).unwrap();
        assert_eq!(best.average_precision, 1.0);
    }
}
