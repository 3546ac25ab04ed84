//! Who is photographed and how: the proportions of a person and the conditions of one picture.
//!
//! Owns the distributions of everything that is *not* expression. A person is drawn once per identity, a capture once per face, so two
//! pictures of one person share bones, hair and resting face but neither pose nor light.

use super::action_units::choose;
use crate::random::{RngExt, Stream, normal};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hair {
    Bald,
    Short,
    Fringe,
    Long,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beard {
    None,
    Stubble,
    Moustache,
    Full,
}

/// Proportions of a person in face units: the head's half height is 1, x to the right, y down, the origin between the eyes' level and
/// the nose.
#[derive(Clone, Debug)]
pub struct Identity {
    pub half_width: f32,
    /// Below 1 a square jaw, above 1 a pointed one.
    pub jaw: f32,
    pub eye_x: f32,
    pub eye_y: f32,
    pub eye_width: f32,
    pub lid_upper: f32,
    pub lid_lower: f32,
    /// Outer eye corner above the inner one.
    pub eye_tilt: f32,
    pub iris_tone: f32,
    pub brow_y: f32,
    pub brow_arch: f32,
    pub brow_thickness: f32,
    pub nose_length: f32,
    pub nose_width: f32,
    pub mouth_y: f32,
    pub mouth_width: f32,
    pub lip_upper: f32,
    pub lip_lower: f32,
    /// Resting mouth corners below (positive) or above the middle: some people look sad or pleased at rest.
    pub mouth_rest: f32,
    /// 0 (black) to 1 (white).
    pub skin: f32,
    pub hair_tone: f32,
    pub hair: Hair,
    pub hairline: f32,
    pub beard: Beard,
    pub glasses: bool,
    /// 0 smooth to 1 wrinkled at rest.
    pub age: f32,
    pub lip_contrast: f32,
}

/// `mean + deviation * N(0,1)`, cut at two deviations so that no face is monstrous.
fn around(mean: f32, deviation: f32, rng: &mut Stream) -> f32 {
    mean + deviation * normal(rng).clamp(-2.0, 2.0)
}

impl Identity {
    pub fn draw(rng: &mut Stream) -> Self {
        let skin = 0.34 + 0.46 * rng.random::<f32>().powf(0.7);
        let age = rng.random::<f32>().powi(2);
        let dark_hair = 0.05 + 0.16 * rng.random::<f32>();
        let fair_hair = 0.35 + 0.35 * rng.random::<f32>();
        let hair_tone = if rng.random::<f32>() < 0.25 + 0.3 * age && skin > 0.45 { fair_hair } else { dark_hair };
        Self {
            half_width: around(0.74, 0.035, rng),
            jaw: around(0.86, 0.09, rng),
            eye_x: around(0.305, 0.013, rng),
            eye_y: around(-0.08, 0.018, rng),
            eye_width: around(0.155, 0.011, rng),
            lid_upper: around(0.072, 0.009, rng),
            lid_lower: around(0.045, 0.006, rng),
            eye_tilt: around(0.012, 0.013, rng),
            iris_tone: 0.06 + 0.28 * rng.random::<f32>().powi(2),
            brow_y: around(-0.315, 0.02, rng),
            brow_arch: around(0.055, 0.014, rng),
            brow_thickness: around(0.062, 0.014, rng),
            nose_length: around(0.37, 0.025, rng),
            nose_width: around(0.135, 0.015, rng),
            mouth_y: around(0.575, 0.02, rng),
            mouth_width: around(0.265, 0.02, rng),
            lip_upper: around(0.05, 0.012, rng),
            lip_lower: around(0.068, 0.014, rng),
            mouth_rest: around(0.0, 0.011, rng),
            skin,
            hair_tone,
            hair: choose(&[(Hair::Bald, 0.1), (Hair::Short, 0.4), (Hair::Fringe, 0.2), (Hair::Long, 0.3)], rng),
            hairline: around(-0.66, 0.045, rng),
            beard: choose(&[(Beard::None, 0.72), (Beard::Stubble, 0.12), (Beard::Moustache, 0.07), (Beard::Full, 0.09)], rng),
            glasses: rng.random::<f32>() < 0.13,
            age,
            lip_contrast: 0.14 + 0.2 * rng.random::<f32>(),
        }
    }
}

/// Something in front of the face. Positions and sizes in face units.
#[derive(Clone, Copy, Debug)]
pub enum Occlusion {
    None,
    /// Fingers reaching in from the side `side` (-1 or 1) at height `y`.
    Hand {
        side: f32,
        y: f32,
        reach: f32,
    },
    /// A straight bar (a pole, a microphone stand, the edge of a poster) through `at`, turned by `angle` radians.
    Bar {
        at: [f32; 2],
        angle: f32,
        width: f32,
        tone: f32,
    },
    /// A strand of hair from the forehead down over one side.
    Strand {
        side: f32,
        length: f32,
    },
}

/// Conditions of one picture.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Radians; positive turns the face to the right of the picture.
    pub yaw: f32,
    /// Radians; positive nods down.
    pub pitch: f32,
    /// Radians; positive tilts clockwise.
    pub roll: f32,
    pub zoom: f32,
    /// Shift of the head's centre as a share of the picture's side.
    pub shift: [f32; 2],
    /// Direction towards the light, unit length: right, down, out of the picture.
    pub light: [f32; 3],
    pub ambient: f32,
    pub background: [f32; 2],
    pub background_angle: f32,
    pub gaze: [f32; 2],
    pub occlusion: Occlusion,
    /// Standard deviation of the lens blur as a share of the picture's side.
    pub blur: f32,
    /// Standard deviation of the sensor noise, luminance 0 to 1.
    pub noise: f32,
    pub contrast: f32,
    pub brightness: f32,
}

impl Capture {
    pub fn draw(rng: &mut Stream) -> Self {
        let sign = |rng: &mut Stream| if rng.random::<bool>() { 1.0 } else { -1.0 };
        let azimuth = around(0.0, 0.65, rng);
        let height = around(0.45, 0.3, rng);
        let light = [azimuth.sin() * height.cos(), -height.sin(), azimuth.cos() * height.cos()];
        let kind = rng.random::<f32>();
        let occlusion = if kind < 0.05 {
            Occlusion::Hand { side: sign(rng), y: 0.15 + 0.75 * rng.random::<f32>(), reach: 0.3 + 0.25 * rng.random::<f32>() }
        } else if kind < 0.085 {
            Occlusion::Bar {
                at: [around(0.0, 0.4, rng), around(0.1, 0.45, rng)],
                angle: around(0.0, 1.0, rng),
                width: 0.1 + 0.12 * rng.random::<f32>(),
                tone: rng.random::<f32>(),
            }
        } else if kind < 0.14 {
            Occlusion::Strand { side: sign(rng), length: 0.5 + 0.7 * rng.random::<f32>() }
        } else {
            Occlusion::None
        };
        let sharp = rng.random::<f32>();
        Self {
            yaw: around(0.0, 0.19, rng),
            pitch: around(0.0, 0.09, rng),
            roll: around(0.0, 0.1, rng),
            zoom: around(1.03, 0.05, rng),
            shift: [around(0.0, 0.02, rng), around(0.005, 0.018, rng)],
            light,
            ambient: 0.42 + 0.3 * rng.random::<f32>(),
            background: [0.08 + 0.84 * rng.random::<f32>(), 0.08 + 0.84 * rng.random::<f32>()],
            background_angle: std::f32::consts::TAU * rng.random::<f32>(),
            gaze: [around(0.0, 0.02, rng), around(0.0, 0.008, rng)],
            occlusion,
            blur: 0.014 * sharp.powi(3),
            noise: 0.006 + 0.028 * rng.random::<f32>().powi(3),
            contrast: around(1.0, 0.12, rng),
            brightness: around(0.0, 0.045, rng),
        }
    }
}
