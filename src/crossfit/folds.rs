//! Which model is trained on which faces: stratified folds, and the cap that keeps frequent classes from drowning rare ones.
//!
//! Knows faces as positions in a pack with their given labels; no pixels, no tensors. Every choice comes from a named stream.

use crate::dataset::Class;
use crate::random::{SliceRandom, Streams};

/// A training face (position in the pack) and its given label.
pub type Given = (usize, Class);

/// Training faces dealt to folds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    /// The faces of each fold, in pack order.
    parts: Vec<Vec<Given>>,
}

impl Folds {
    /// Deals the faces of each class in random order to `count` folds, each class going on where the one before ended: folds differ by at
    /// most one face in size, and by at most one in any class.
    pub fn new(faces: &[Given], count: usize, streams: &Streams) -> Self {
        let mut parts = vec![Vec::new(); count];
        let mut next = (0..count).cycle();
        for (class, mut members) in by_class(faces) {
            members.shuffle(&mut streams.at("labels/folds", &[u64::from(class)]));
            members.into_iter().zip(&mut next).for_each(|(face, fold)| parts[fold].push((face, class)));
        }
        parts.iter_mut().for_each(|part: &mut Vec<Given>| part.sort_unstable());
        Self { parts }
    }

    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// The faces that the model of `fold` must not see, in pack order.
    pub fn held_out(&self, fold: usize) -> &[Given] {
        &self.parts[fold]
    }

    /// The faces that the model of `fold` may see, in pack order.
    pub fn training(&self, fold: usize) -> Vec<Given> {
        let others = self.parts.iter().enumerate().filter(|(part, _)| *part != fold);
        let mut faces: Vec<Given> = others.flat_map(|(_, part)| part).copied().collect();
        faces.sort_unstable();
        faces
    }
}

/// At most the median class count of each class, chosen at random, in pack order (GAAVE's subset refactoring). The median is over classes
/// that occur; of two middle counts, their mean rounded down.
pub fn capped(faces: &[Given], fold: usize, streams: &Streams) -> Vec<Given> {
    let classes = by_class(faces);
    let mut counts: Vec<usize> = classes.iter().map(|(_, members)| members.len()).collect();
    counts.sort_unstable();
    let Some(last) = counts.len().checked_sub(1) else { return Vec::new() };
    let cap = (counts[last / 2] + counts[counts.len() / 2]) / 2;
    let mut kept = Vec::new();
    for (class, mut members) in classes {
        members.shuffle(&mut streams.at("labels/cap", &[fold as u64, u64::from(class)]));
        kept.extend(members.into_iter().take(cap).map(|face| (face, class)));
    }
    kept.sort_unstable();
    kept
}

/// Classes that occur, ascending, with their faces in the given order.
fn by_class(faces: &[Given]) -> Vec<(Class, Vec<usize>)> {
    let mut classes: Vec<(Class, Vec<usize>)> = Vec::new();
    for &(face, class) in faces {
        match classes.binary_search_by_key(&class, |(class, _)| *class) {
            Ok(at) => classes[at].1.push(face),
            Err(at) => classes.insert(at, (class, vec![face])),
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `counts[c]` faces of class c, interleaved, at odd positions.
    fn faces(counts: &[usize]) -> Vec<Given> {
        let mut left = counts.to_vec();
        let mut faces = Vec::new();
        while left.iter().any(|&n| n > 0) {
            for (class, n) in left.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
                faces.push((2 * faces.len() + 1, class as Class));
                *n -= 1;
            }
        }
        faces
    }

    fn count(faces: &[Given], class: usize) -> usize {
        faces.iter().filter(|f| usize::from(f.1) == class).count()
    }

    #[test]
    fn folds_are_stratified_and_disjoint() {
        // A class that is absent, one of a single face, one with fewer faces than folds.
        let counts = [40, 0, 7, 1, 2, 23];
        let faces = faces(&counts);
        for m in [2, 3, 5] {
            let folds = Folds::new(&faces, m, &Streams::new(4));
            let mut all: Vec<Given> = (0..m).flat_map(|f| folds.held_out(f)).copied().collect();
            all.sort_unstable();
            assert_eq!(all, faces, "every face is held out once");
            for fold in 0..m {
                let (out, training) = (folds.held_out(fold), folds.training(fold));
                assert!(training.iter().all(|face| !out.contains(face)) && training.is_sorted());
                assert_eq!(training.len() + out.len(), faces.len());
                assert!(out.len().abs_diff(faces.len() / m) <= 1);
                for (class, &n) in counts.iter().enumerate() {
                    assert!((n / m..=n.div_ceil(m)).contains(&count(out, class)), "class {class} of fold {fold} of {m}");
                }
            }
        }
    }

    #[test]
    fn the_seed_decides_who_goes_where() {
        let faces = faces(&[30, 30]);
        let folds = |seed| Folds::new(&faces, 2, &Streams::new(seed));
        assert_eq!(folds(1), folds(1));
        assert_ne!(folds(1), folds(2));
        // Not simply every other face.
        assert!(folds(1).held_out(0).windows(2).any(|w| w[1].0 - w[0].0 != 2));
    }

    #[test]
    fn frequent_classes_are_cut_to_the_median() {
        let kept = |counts: &[usize], fold, seed| capped(&faces(counts), fold, &Streams::new(seed));
        let counts = [100, 5, 0, 20, 30];
        let cut = kept(&counts, 0, 1);
        // The middle counts of 5, 20, 30, 100 are 20 and 30.
        assert_eq!((0..5).map(|c| count(&cut, c)).collect::<Vec<_>>(), [25, 5, 0, 20, 25]);
        assert!(cut.is_sorted() && cut.iter().all(|face| faces(&counts).contains(face)));
        assert_eq!(cut, kept(&counts, 0, 1));
        assert_ne!(cut, kept(&counts, 0, 2));
        assert_ne!(cut, kept(&counts, 1, 1));
        assert_eq!((0..3).map(|c| count(&kept(&[9, 3, 6], 0, 1), c)).collect::<Vec<_>>(), [6, 3, 6]);
        assert_eq!(kept(&[], 0, 1), []);
    }
}
