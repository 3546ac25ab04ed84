//! How well each annotator agrees with the others and with the labels that training resolved.
//!
//! Reads the panels of a pack, where they are recorded: which column each annotator chose for each face. An annotator is compared with the
//! majority of the *others* (ties and faces nobody else read are left out, so that nobody agrees with their own vote), and with the
//! resolved label. Cohen's kappa puts the first in proportion to what two people with the same habits would agree on by chance.

use crate::dataset::{Class, Face, Pack, Split};
use serde::Serialize;

/// One annotator's record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    pub annotator: String,
    /// Training faces read, also as no class (`unknown`).
    pub faces: usize,
    /// Share of them that were answered with no class.
    pub no_class: f64,
    /// Share that agrees with the majority of the others; none where there is no such face.
    pub with_others: Option<f64>,
    /// Cohen's kappa of the same comparison; none where it is not defined.
    pub kappa: Option<f64>,
    /// Share that agrees with the resolved label.
    pub with_resolved: Option<f64>,
    /// Share that agrees with the true class, where that is known.
    pub with_truth: Option<f64>,
    /// Most frequent confusion: (others' majority, own answer, how often).
    pub confusion: Option<(Class, Class, usize)>,
}

/// One row for each annotator, in the pack's order; empty where the pack records no panel. `resolved`: of a face by its position in the pack.
pub fn agreement(pack: &Pack, resolved: impl Fn(usize) -> Option<Class>) -> Vec<Agreement> {
    let train = pack.split(Split::Train);
    let classes = pack.protocol().classes.len();
    let members = train.iter().map(|&i| pack.faces()[i].panel.len()).max().unwrap_or(0);
    (0..members)
        .map(|member| {
            let mut tally = Tally::new(classes);
            for &i in &train {
                tally.add(&pack.faces()[i], member, resolved(i));
            }
            tally.into_agreement(name(pack, member))
        })
        .filter(|a| a.faces > 0)
        .collect()
}

/// What the pack calls an annotator; importers that read names write them down.
fn name(pack: &Pack, member: usize) -> String {
    let named = pack.provenance()["annotators"][member].as_str().map(str::to_string);
    named.unwrap_or_else(|| format!("annotator {}", member + 1))
}

/// The class that most of the others chose; none on a tie, or where no class was chosen.
fn majority_of_others(face: &Face, member: usize, classes: usize) -> Option<Class> {
    let mut counts = vec![0u32; classes];
    let others = face.panel.iter().enumerate().filter(|(m, _)| *m != member).filter_map(|(_, answer)| *answer);
    others.filter(|&c| usize::from(c) < classes).for_each(|c| counts[usize::from(c)] += 1);
    let most = counts.iter().copied().max().filter(|&n| n > 0)?;
    let mut winners = (0..classes).filter(|&c| counts[c] == most);
    let winner = winners.next()? as Class;
    winners.next().is_none().then_some(winner)
}

struct Tally {
    faces: usize,
    no_class: usize,
    /// `[others' majority][own answer]`
    counts: Vec<Vec<usize>>,
    /// (agreeing, compared)
    resolved: (usize, usize),
    truth: (usize, usize),
}

impl Tally {
    fn new(classes: usize) -> Self {
        Self { faces: 0, no_class: 0, counts: vec![vec![0; classes]; classes], resolved: (0, 0), truth: (0, 0) }
    }

    fn add(&mut self, face: &Face, member: usize, resolved: Option<Class>) {
        let Some(Some(answer)) = face.panel.get(member).copied() else { return };
        self.faces += 1;
        let classes = self.counts.len();
        if usize::from(answer) >= classes {
            self.no_class += 1;
            return;
        }
        if let Some(others) = majority_of_others(face, member, classes) {
            self.counts[usize::from(others)][usize::from(answer)] += 1;
        }
        for (known, (agreeing, compared)) in [(resolved, &mut self.resolved), (face.truth, &mut self.truth)] {
            if let Some(class) = known {
                *agreeing += usize::from(class == answer);
                *compared += 1;
            }
        }
    }

    fn into_agreement(self, annotator: String) -> Agreement {
        let share = |(n, of): (usize, usize)| (of > 0).then(|| n as f64 / of as f64);
        let classes = self.counts.len();
        let total: usize = self.counts.iter().flatten().sum();
        let same: usize = (0..classes).map(|c| self.counts[c][c]).sum();
        let rows = |c: usize| self.counts[c].iter().sum::<usize>() as f64;
        let columns = |c: usize| self.counts.iter().map(|row| row[c]).sum::<usize>() as f64;
        let with_others = share((same, total));
        let kappa = with_others.and_then(|observed| {
            let chance = (0..classes).map(|c| rows(c) * columns(c)).sum::<f64>() / (total as f64).powi(2);
            (chance < 1.0).then(|| (observed - chance) / (1.0 - chance))
        });
        let cells = (0..classes).flat_map(|a| (0..classes).map(move |b| (a, b))).filter(|(a, b)| a != b);
        // The first of several equally frequent ones.
        let confusion = cells
            .map(|(a, b)| (a as Class, b as Class, self.counts[a][b]))
            .filter(|c| c.2 > 0)
            .reduce(|best, c| if c.2 > best.2 { c } else { best });
        Agreement {
            annotator,
            faces: self.faces,
            no_class: self.no_class as f64 / self.faces.max(1) as f64,
            with_others,
            kappa,
            with_resolved: share(self.resolved),
            with_truth: share(self.truth),
            confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(panel: &[Option<Class>], truth: Option<Class>) -> Face {
        Face { panel: panel.to_vec(), truth, ..Face::new("f", Split::Train) }
    }

    #[test]
    fn nobody_agrees_with_their_own_vote() {
        // Without one's own vote: a tie, a majority, and nobody left.
        assert_eq!(majority_of_others(&face(&[Some(0), Some(0), Some(1)], None), 0, 2), None);
        assert_eq!(majority_of_others(&face(&[Some(0), Some(1), Some(1)], None), 0, 2), Some(1));
        assert_eq!(majority_of_others(&face(&[Some(0), None, Some(2)], None), 0, 2), None);
    }

    #[test]
    fn kappa_and_confusions_are_counted() {
        let mut tally = Tally::new(2);
        // Agrees on 6 of 8: rows 4 and 4, columns 4 and 4, chance one half, kappa one half.
        for (others, own, times) in [(0, 0, 3), (0, 1, 1), (1, 1, 3), (1, 0, 1)] {
            for _ in 0..times {
                tally.add(&face(&[Some(own), Some(others), Some(others)], Some(others)), 0, Some(own));
            }
        }
        tally.add(&face(&[Some(2), Some(0), Some(0)], Some(0)), 0, Some(0));
        tally.add(&face(&[None, Some(0), Some(0)], Some(0)), 0, Some(0));
        let a = tally.into_agreement("a".into());
        assert_eq!((a.faces, a.with_others, a.kappa), (9, Some(0.75), Some(0.5)));
        assert_eq!((a.no_class, a.with_resolved, a.with_truth), (1.0 / 9.0, Some(1.0), Some(0.75)));
        assert_eq!(a.confusion, Some((0, 1, 1)));
        assert_eq!(Tally::new(2).into_agreement("b".into()).with_others, None);
    }
}
