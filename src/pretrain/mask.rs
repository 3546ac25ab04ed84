//! Which patches pretraining hides (METHOD 3.2, 3.4).

use crate::config::{MaskKind, Settings};
use crate::random::{RngExt, SliceRandom, Stream};

/// How masks are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    pub kind: MaskKind,
    /// Patches along a side of the picture.
    pub grid: usize,
    /// Patches along a side of what is hidden or shown as one; divides `grid`.
    pub unit: usize,
    /// Units to hide.
    pub target: usize,
    /// Whether every mask meets the target: batches of an encoder that sees visible patches only have the same number of them for all
    /// faces. Where rectangles fall short, random units are hidden on top.
    pub exact: bool,
}

impl Masking {
    pub fn of(s: &Settings) -> Self {
        let grid = s.grid();
        let target = s.mask.hidden_units(grid);
        Self { kind: s.mask.kind, grid, unit: s.mask.unit, target, exact: s.pretrain.method.visible_only() }
    }

    /// Hidden patches (`true`), row-major. Random and exact masks hide the target, block masks at most that.
    pub fn sample(&self, rng: &mut Stream) -> Vec<bool> {
        let side = self.grid / self.unit;
        let mut units = vec![false; side * side];
        match self.kind {
            MaskKind::Random => top_up(&mut units, self.target, rng),
            MaskKind::Block => {
                blocks(&mut units, side, self.target, rng);
                if self.exact {
                    top_up(&mut units, self.target, rng);
                }
            }
        }
        (0..self.grid.pow(2)).map(|i| units[i / self.grid / self.unit * side + i % self.grid / self.unit]).collect()
    }
}

/// `visible` of `patches` places in ascending order: a random subset.
pub fn visible(patches: usize, visible: usize, rng: &mut Stream) -> Vec<i32> {
    let mut hidden = vec![false; patches];
    top_up(&mut hidden, patches - visible, rng);
    (0..patches as i32).filter(|&i| !hidden[i as usize]).collect()
}

/// Hides units that are not hidden yet, in random order, until `target` are.
fn top_up(mask: &mut [bool], target: usize, rng: &mut Stream) {
    let mut shown: Vec<usize> = (0..mask.len()).filter(|&i| !mask[i]).collect();
    let missing = target.saturating_sub(mask.len() - shown.len());
    if missing > 0 {
        shown.shuffle(rng);
        shown[..missing].iter().for_each(|&i| mask[i] = true);
    }
}

/// Rectangles until the target is met or a round adds nothing (BEiT, MaskFeat): at least a fifth of the target each, aspect log-uniform
/// in [0.3, 1/0.3], ten tries a round.
fn blocks(mask: &mut [bool], grid: usize, target: usize, rng: &mut Stream) {
    let smallest = (target / 5).max(1) as f64;
    let log_aspect = 0.3f64.ln();
    let mut hidden = 0;
    while hidden < target {
        let room = (target - hidden) as f64;
        let mut added = 0;
        for _ in 0..10 {
            // Between a fifth of the target and the room left, whichever is larger (the reference draws so).
            let area = smallest + (room - smallest) * rng.random::<f64>();
            let aspect = (log_aspect - 2.0 * log_aspect * rng.random::<f64>()).exp();
            let h = (area * aspect).sqrt().round() as usize;
            let w = (area / aspect).sqrt().round() as usize;
            if h == 0 || w == 0 || h >= grid || w >= grid {
                continue;
            }
            let top = rng.random_range(0..=grid - h);
            let left = rng.random_range(0..=grid - w);
            let inside = || (top..top + h).flat_map(move |y| (left..left + w).map(move |x| y * grid + x));
            let new = inside().filter(|&i| !mask[i]).count();
            if new > 0 && new <= target - hidden {
                inside().for_each(|i| mask[i] = true);
                added = new;
                break;
            }
        }
        if added == 0 {
            break;
        }
        hidden += added;
    }
    if hidden == 0 && target > 0 {
        // A grid too small for any rectangle still has to hide something.
        let i = rng.random_range(0..mask.len());
        mask[i] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Streams;

    fn count(mask: &[bool]) -> usize {
        mask.iter().filter(|m| **m).count()
    }

    fn masking(kind: MaskKind, grid: usize, unit: usize, ratio: f64, exact: bool) -> Masking {
        let mut s = Settings::default();
        (s.data.size, s.mask.unit, s.mask.ratio) = (grid * s.vit.patch, unit, ratio);
        Masking { kind, exact, ..Masking::of(&s) }
    }

    fn samples(masking: Masking, n: u64) -> Vec<Vec<bool>> {
        (0..n).map(|i| masking.sample(&mut Streams::new(1).at("m", &[i]))).collect()
    }

    #[test]
    fn random_masks_are_exact() {
        for mask in samples(masking(MaskKind::Random, 6, 1, 0.4, false), 20) {
            assert_eq!(count(&mask), 14);
        }
    }

    /// METHOD 3.2's simulation of the reference: mean 77.6, min 70 of 78 on a 14 x 14 grid; centres hidden far more often than corners.
    #[test]
    fn block_masks_match_the_reference_statistics() {
        let masks = samples(masking(MaskKind::Block, 14, 1, 0.4, false), 2000);
        let sizes: Vec<usize> = masks.iter().map(|m| count(m)).collect();
        let mean = sizes.iter().sum::<usize>() as f64 / 2000.0;
        assert!((mean - 77.6).abs() < 0.3, "mean {mean}");
        assert!(*sizes.iter().max().unwrap() == 78 && *sizes.iter().min().unwrap() >= 60);
        let hidden = |i: usize| masks.iter().filter(|m| m[i]).count() as f64 / 2000.0;
        assert!(hidden(0) < 0.08 && hidden(7 * 14 + 7) > 0.65, "corner {} centre {}", hidden(0), hidden(7 * 14 + 7));
    }

    /// An exact mask is the mask that there would have been, and random patches where that falls short.
    #[test]
    fn exact_block_masks_hide_the_target_and_stay_blocks() {
        let (loose, exact) = (masking(MaskKind::Block, 14, 1, 0.4, false), masking(MaskKind::Block, 14, 1, 0.4, true));
        let mut short = 0;
        for (loose, exact) in samples(loose, 300).iter().zip(&samples(exact, 300)) {
            assert_eq!(count(exact), 78);
            assert!(loose.iter().zip(exact).all(|(l, e)| *e || !*l));
            short += usize::from(count(loose) < 78);
        }
        assert!(short > 30, "only {short} of 300 masks fell short: the test shows nothing");
    }

    /// METHOD 3.4: SimMIM hides ceil(49 * 0.6) = 30 units of 2 x 2 patches; MAE keeps int(196 * 0.25) = 49 and int(196 * 0.15) = 29 patches.
    #[test]
    fn counts_are_those_of_the_references() {
        for (unit, ratio, hidden) in [(2, 0.6, 30 * 4), (1, 0.75, 147), (1, 0.85, 167), (2, 0.0, 0), (7, 0.25, 49), (14, 0.1, 196)] {
            let masking = masking(MaskKind::Random, 14, unit, ratio, false);
            let mut s = Settings::default();
            (s.mask.unit, s.mask.ratio) = (unit, ratio);
            assert_eq!(s.hidden_patches(), hidden, "unit {unit}, ratio {ratio}");
            assert!(samples(masking, 5).iter().all(|m| count(m) == hidden), "unit {unit}, ratio {ratio}");
        }
    }

    #[test]
    fn units_are_hidden_as_one() {
        for kind in [MaskKind::Random, MaskKind::Block] {
            let masks = samples(masking(kind, 6, 2, 0.5, true), 50);
            for mask in &masks {
                assert_eq!(count(mask), 5 * 4);
                for i in 0..36 {
                    let corner = i / 12 * 12 + i % 6 / 2 * 2;
                    assert_eq!(mask[i], mask[corner], "{kind:?}: patch {i} and the corner of its unit");
                }
            }
            // Every unit is hidden now and then, none always.
            for i in 0..36 {
                let hidden = masks.iter().filter(|m| m[i]).count();
                assert!((1..50).contains(&hidden), "{kind:?}: patch {i} is hidden {hidden} times of 50");
            }
        }
    }

    #[test]
    fn every_grid_hides_something() {
        for grid in [1, 2, 3, 6] {
            assert!(samples(masking(MaskKind::Block, grid, 1, 0.4, false), 50).iter().all(|m| count(m) > 0));
        }
    }

    #[test]
    fn visible_places_are_a_random_subset_in_order() {
        let draws: Vec<Vec<i32>> = (0..200).map(|i| visible(16, 10, &mut Streams::new(1).at("v", &[i]))).collect();
        assert!(draws.iter().all(|d| d.len() == 10 && d.is_sorted_by(|a, b| a < b) && (0..16).contains(&d[9])));
        for place in 0..16 {
            let share = draws.iter().filter(|d| d.contains(&place)).count() as f64 / 200.0;
            assert!((share - 10.0 / 16.0).abs() < 0.12, "place {place}: {share}");
        }
        assert_eq!(visible(4, 4, &mut Streams::new(1).at("v", &[])), [0, 1, 2, 3]);
    }
}
