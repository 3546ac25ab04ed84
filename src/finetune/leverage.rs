//! The weights of the leveraged loss (Wen et al. 2021; METHOD 7): one for each face and class, all 1 / C at the start, then the network's
//! probabilities normalised separately inside and outside the candidate set.

use crate::dataset::Class;
use crate::labels::response::probabilities;

/// Keeps a side without probability finite; per class, as the published code adds it.
const EPSILON: f64 = 1e-8;

/// Weights of all training faces, `[n, C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Leverage {
    classes: usize,
    rows: Vec<f32>,
}

impl Leverage {
    pub fn new(classes: usize, faces: usize) -> Self {
        Self { classes, rows: vec![1.0 / classes as f32; classes * faces] }
    }

    pub fn row(&self, face: usize) -> &[f32] {
        &self.rows[face * self.classes..(face + 1) * self.classes]
    }

    /// Overwrites a face's weights from its logits `[C]`; logits that are not finite leave them as they are.
    pub fn revise(&mut self, face: usize, logits: &[f32], candidates: &[Class]) {
        let Some(p) = probabilities(logits) else { return };
        let inside = |c: usize| candidates.contains(&(c as Class));
        let side = |within: bool| p.iter().enumerate().filter(|(c, _)| inside(*c) == within).map(|(_, v)| v).sum::<f64>();
        let sums = [side(false), side(true)].map(|sum| sum + EPSILON * self.classes as f64);
        let row = &mut self.rows[face * self.classes..(face + 1) * self.classes];
        for (c, w) in row.iter_mut().enumerate() {
            *w = (p[c] / sums[usize::from(inside(c))]) as f32;
        }
    }

    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Puts back the rows of a checkpoint.
    ///
    /// # Errors
    /// If their number differs or one is not a finite weight.
    pub fn restore(&mut self, rows: Vec<f32>) -> Result<(), String> {
        if rows.len() != self.rows.len() || rows.iter().any(|w| !w.is_finite() || *w < 0.0) {
            return Err("the saved weights of the leveraged loss do not fit the training faces".into());
        }
        self.rows = rows;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_side_sums_to_one_or_vanishes(
            logits in prop::collection::vec(prop_oneof![6 => -90f32..90f32, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)], 6),
            mask in 1u8..64,
        ) {
            let set: Vec<Class> = (0..6).filter(|c| mask >> c & 1 == 1).collect();
            let mut weights = Leverage::new(6, 2);
            weights.revise(1, &logits, &set);
            prop_assert!(weights.row(0).iter().all(|w| *w == 1.0 / 6.0));
            let row = weights.row(1);
            prop_assert!(row.iter().all(|w| w.is_finite() && *w >= 0.0));
            if logits.iter().any(|z| !z.is_finite()) {
                prop_assert_eq!(row, weights.row(0));
            } else {
                for within in [true, false] {
                    let sum: f32 = row.iter().enumerate().filter(|(c, _)| set.contains(&(*c as Class)) == within).map(|(_, w)| w).sum();
                    prop_assert!(sum < 1.0 + 1e-5);
                }
                prop_assert!(row.iter().sum::<f32>() > 0.99);
            }
        }
    }
}
