//! Facial action units and the eight expressions composed of them.
//!
//! Owns which muscles an expression moves and how two expressions mix. It knows nothing of pixels (`draw`) nor of how people read a
//! face (`panel`).
//!
//! Source: the action units are those of the Facial Action Coding System, the combinations follow the emotion prototypes of EMFACS
//! (Ekman & Friesen, *Facial Action Coding System*, 1978; EMFACS-7, 1983). Strengths lie in `0..=1` (FACS intensity A to E).

use crate::random::{RngExt, Stream, normal};

/// One facial action unit; the number in the name is the FACS code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Unit {
    InnerBrowRaise1,
    OuterBrowRaise2,
    BrowLower4,
    UpperLidRaise5,
    CheekRaise6,
    LidTighten7,
    NoseWrinkle9,
    UpperLipRaise10,
    LipCornerPull12,
    Dimple14,
    LipCornerDepress15,
    ChinRaise17,
    LipStretch20,
    LipTighten23,
    LipPress24,
    LipsPart25,
    JawDrop26,
    MouthStretch27,
}

use Unit::*;

/// Number of action units drawn.
pub const UNITS: usize = 18;

/// Strength of every unit on the two sides of the face, `[UNITS, 2]`; side 0 lies on the left of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation([[f32; 2]; UNITS]);

impl Activation {
    pub const REST: Activation = Activation([[0.0; 2]; UNITS]);

    fn of(units: &[(Unit, f32)]) -> Self {
        let mut activation = Self::REST;
        for &(unit, strength) in units {
            activation.0[unit as usize] = [strength; 2];
        }
        activation
    }

    /// Strength of `unit` on `side` (0 or 1).
    pub fn side(&self, unit: Unit, side: usize) -> f32 {
        self.0[unit as usize][side]
    }

    /// Strength of `unit`, mean of both sides.
    pub fn mean(&self, unit: Unit) -> f32 {
        let [a, b] = self.0[unit as usize];
        (a + b) / 2.0
    }

    /// `share * a + (1 - share) * b`, unit by unit.
    pub fn mix(a: &Self, b: &Self, share: f32) -> Self {
        let mut out = Self::REST;
        for (o, (x, y)) in out.0.iter_mut().flatten().zip(a.0.iter().flatten().zip(b.0.iter().flatten())) {
            *o = share * x + (1.0 - share) * y;
        }
        out
    }

    pub fn scaled(&self, factor: f32) -> Self {
        Self::mix(self, &Self::REST, factor)
    }

    /// The same expression on the mirrored face.
    pub fn mirrored(&self) -> Self {
        let mut out = *self;
        out.0.iter_mut().for_each(|sides| sides.reverse());
        out
    }

    /// Euclidean distance over all units and sides.
    pub fn distance(&self, other: &Self) -> f32 {
        self.0.iter().flatten().zip(other.0.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    }

    /// What no two faces share: every active unit varies by `relative`, every unit twitches by `absolute`, sides differ a little.
    pub fn jittered(&self, relative: f32, absolute: f32, rng: &mut Stream) -> Self {
        let mut out = *self;
        for sides in &mut out.0 {
            let gain = 1.0 + relative * normal(rng);
            let twitch = absolute * normal(rng);
            for strength in sides {
                let lopsided = 1.0 + 0.4 * relative * normal(rng);
                *strength = (*strength * gain * lopsided + twitch).clamp(0.0, 1.25);
            }
        }
        out
    }
}

/// The expressions in FERPlus order.
pub const CLASSES: [&str; 8] = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"];

pub const NEUTRAL: usize = 0;

/// The ways in which people show `class`: the first is the textbook prototype, the others common variants of it.
///
/// # Panics
/// If `class` is not below 8.
pub fn prototypes(class: usize) -> Vec<Activation> {
    let of = Activation::of;
    match class {
        0 => vec![Activation::REST, of(&[(LipsPart25, 0.3)])],
        1 => vec![
            of(&[(CheekRaise6, 0.85), (LipCornerPull12, 1.0), (LipsPart25, 0.75)]),
            of(&[(CheekRaise6, 0.7), (LipCornerPull12, 1.0)]),
            of(&[(CheekRaise6, 1.0), (LipCornerPull12, 1.0), (LipsPart25, 1.0), (JawDrop26, 0.5)]),
        ],
        2 => vec![
            of(&[(InnerBrowRaise1, 1.0), (OuterBrowRaise2, 1.0), (UpperLidRaise5, 0.8), (LipsPart25, 0.6), (JawDrop26, 1.0)]),
            of(&[
                (InnerBrowRaise1, 0.9),
                (OuterBrowRaise2, 1.0),
                (UpperLidRaise5, 0.9),
                (LipsPart25, 0.6),
                (JawDrop26, 0.8),
                (MouthStretch27, 0.6),
            ]),
        ],
        3 => vec![
            of(&[(InnerBrowRaise1, 1.0), (BrowLower4, 0.6), (LipCornerDepress15, 1.0), (ChinRaise17, 0.5)]),
            of(&[(InnerBrowRaise1, 1.0), (BrowLower4, 0.5), (CheekRaise6, 0.3), (LipCornerDepress15, 0.9), (LipsPart25, 0.35)]),
        ],
        4 => vec![
            of(&[
                (BrowLower4, 1.0),
                (UpperLidRaise5, 0.35),
                (LidTighten7, 0.8),
                (LipTighten23, 0.9),
                (LipPress24, 0.6),
                (ChinRaise17, 0.3),
            ]),
            of(&[
                (BrowLower4, 1.0),
                (UpperLidRaise5, 0.6),
                (LidTighten7, 0.6),
                (UpperLipRaise10, 0.35),
                (LipTighten23, 0.6),
                (LipStretch20, 0.25),
                (LipsPart25, 0.85),
                (JawDrop26, 0.35),
            ]),
        ],
        5 => vec![
            of(&[
                (BrowLower4, 0.4),
                (LidTighten7, 0.4),
                (NoseWrinkle9, 1.0),
                (UpperLipRaise10, 0.8),
                (LipCornerDepress15, 0.4),
                (ChinRaise17, 0.4),
            ]),
            of(&[(BrowLower4, 0.4), (CheekRaise6, 0.3), (NoseWrinkle9, 1.0), (UpperLipRaise10, 1.0), (LipsPart25, 0.7), (JawDrop26, 0.25)]),
        ],
        6 => vec![
            of(&[
                (InnerBrowRaise1, 0.95),
                (OuterBrowRaise2, 0.5),
                (BrowLower4, 0.7),
                (UpperLidRaise5, 1.0),
                (LidTighten7, 0.2),
                (LipStretch20, 1.0),
                (LipsPart25, 0.75),
            ]),
            of(&[
                (InnerBrowRaise1, 0.95),
                (OuterBrowRaise2, 0.5),
                (BrowLower4, 0.7),
                (UpperLidRaise5, 1.0),
                (LipStretch20, 0.9),
                (LipsPart25, 0.8),
                (JawDrop26, 0.4),
            ]),
        ],
        7 => {
            // Unilateral: EMFACS R12A + R14, the only prototype that one side of the face shows alone.
            let mut smirk = Activation::REST;
            smirk.0[LipCornerPull12 as usize] = [0.0, 0.9];
            smirk.0[Dimple14 as usize] = [0.0, 1.0];
            smirk.0[LidTighten7 as usize] = [0.2, 0.35];
            let mut brow = smirk;
            brow.0[OuterBrowRaise2 as usize] = [0.0, 0.8];
            brow.0[InnerBrowRaise1 as usize] = [0.0, 0.3];
            vec![smirk, brow, smirk.mirrored(), brow.mirrored()]
        }
        _ => panic!("there are 8 expressions, not {class}"),
    }
}

/// Classes that `class` is taken for, with relative frequency (sums to 1).
///
/// # Panics
/// If `class` is not below 8.
pub fn confusable(class: usize) -> &'static [(usize, f32)] {
    match class {
        0 => &[(3, 0.45), (1, 0.2), (7, 0.25), (4, 0.1)],
        1 => &[(0, 0.5), (7, 0.3), (2, 0.2)],
        2 => &[(6, 0.7), (1, 0.3)],
        3 => &[(0, 0.45), (6, 0.35), (4, 0.2)],
        4 => &[(5, 0.6), (0, 0.2), (3, 0.2)],
        5 => &[(4, 0.75), (3, 0.15), (7, 0.1)],
        6 => &[(2, 0.65), (3, 0.35)],
        7 => &[(0, 0.5), (1, 0.35), (5, 0.15)],
        _ => panic!("there are 8 expressions, not {class}"),
    }
}

/// One index of a `(value, probability)` list.
pub fn choose<T: Copy>(options: &[(T, f32)], rng: &mut Stream) -> T {
    let mut left = rng.random::<f32>() * options.iter().map(|o| o.1).sum::<f32>();
    for &(value, probability) in options {
        left -= probability;
        if left < 0.0 {
            return value;
        }
    }
    options[options.len() - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Streams;

    #[test]
    fn prototypes_of_different_classes_lie_apart() {
        for (a, first) in CLASSES.iter().enumerate() {
            for (b, second) in CLASSES.iter().enumerate().take(a) {
                for x in prototypes(a) {
                    for y in prototypes(b) {
                        assert!(x.distance(&y) > 0.7, "{first} and {second} differ by {}", x.distance(&y));
                    }
                }
            }
        }
    }

    #[test]
    fn confusions_are_distributions_over_other_classes() {
        for (class, name) in CLASSES.iter().enumerate() {
            let sum: f32 = confusable(class).iter().map(|c| c.1).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
            assert!(confusable(class).iter().all(|c| c.0 != class && c.0 < 8));
        }
    }

    #[test]
    fn only_contempt_is_one_sided() {
        for (class, name) in CLASSES.iter().enumerate() {
            let lopsided = prototypes(class).iter().all(|p| *p != p.mirrored());
            assert_eq!(lopsided, class == 7, "{name}");
        }
    }

    #[test]
    fn jitter_keeps_strengths_in_range() {
        let mut rng = Streams::new(3).at("test", &[]);
        for _ in 0..200 {
            let face = prototypes(6)[0].jittered(0.3, 0.1, &mut rng);
            assert!(face.0.iter().flatten().all(|s| (0.0..=1.25).contains(s)));
        }
    }
}
