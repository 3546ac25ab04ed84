//! The picture of a face: head, hair, background, what lies before the face, and the camera.
//!
//! Owns the order of painting and the pose (face units to pixels); eyes, brows, nose and mouth are in `features`. It decides nothing:
//! the same person, activation and capture give the same bytes, only sensor noise draws from the stream it is given.

use super::action_units::{Activation, Unit};
use super::canvas::{Canvas, Point, ribbon, rounded};
use super::identity::{Beard, Capture, Hair, Identity, Occlusion};
use crate::dataset::Pixels;
use crate::random::{RngExt, Stream};
use std::f32::consts::{PI, TAU};

/// A face being painted. Methods of `features` take lengths in face units (see [`Identity`]).
pub(super) struct Painter<'a> {
    pub canvas: Canvas,
    pub identity: &'a Identity,
    pub face: &'a Activation,
    pub capture: &'a Capture,
    /// Pixels per face unit.
    pub scale: f32,
    centre: Point,
}

/// Renders one gray picture of `size` x `size` pixels.
///
/// The second value holds five landmarks in pixels: eye left and right in the picture, nose tip, mouth corners left and right.
pub(super) fn draw(size: usize, identity: &Identity, face: &Activation, capture: &Capture, rng: &mut Stream) -> (Pixels, [Point; 5]) {
    let side = size as f32;
    let (sin, cos) = capture.background_angle.sin_cos();
    let [near, far] = capture.background;
    let canvas = Canvas::new(size, size, |x, y| {
        let t = 0.5 + ((x / side - 0.5) * cos + (y / side - 0.5) * sin);
        near + (far - near) * t.clamp(0.0, 1.0)
    });
    let mut painter = Painter {
        canvas,
        identity,
        face,
        capture,
        scale: 0.46 * side * capture.zoom,
        centre: [(0.5 + capture.shift[0]) * side, (0.515 + capture.shift[1]) * side],
    };
    painter.scenery(rng);
    painter.hair_behind();
    painter.neck_and_ears();
    painter.head();
    painter.beard();
    painter.folds();
    painter.nose();
    painter.eyes();
    painter.brows();
    let corners = painter.mouth();
    painter.hair_front();
    painter.glasses();
    painter.occlude();
    let landmarks = [painter.eye_centre(0), painter.eye_centre(1), painter.nose_tip(), corners[0], corners[1]];
    let data = painter.photograph(rng);
    (Pixels::new(size, size, 1, data), landmarks)
}

impl Painter<'_> {
    /// A point of the face's surface in pixels; the surface is an ellipsoid, `lift` lies in front of it (the nose).
    pub fn lifted(&self, x: f32, y: f32, lift: f32) -> Point {
        let z = 0.72 * (1.0 - (x / 0.95).powi(2) - (y / 1.35).powi(2)).max(0.03).sqrt() - 0.2 + lift;
        self.project(x, y, z)
    }

    pub fn at(&self, x: f32, y: f32) -> Point {
        self.lifted(x, y, 0.0)
    }

    fn project(&self, x: f32, y: f32, z: f32) -> Point {
        let (sy, cy) = self.capture.yaw.sin_cos();
        let (x, z) = (x * cy + z * sy, z * cy - x * sy);
        let (sp, cp) = self.capture.pitch.sin_cos();
        self.turned(x, y * cp + z * sp)
    }

    /// Roll, scale and shift of a point that is already in the picture plane.
    pub fn turned(&self, x: f32, y: f32) -> Point {
        let (s, c) = self.capture.roll.sin_cos();
        [self.centre[0] + self.scale * (x * c - y * s), self.centre[1] + self.scale * (x * s + y * c)]
    }

    pub fn unit(&self, unit: Unit) -> f32 {
        self.face.mean(unit)
    }

    /// How far the jaw hangs, in face units.
    pub fn jaw_drop(&self) -> f32 {
        (0.155 * self.unit(Unit::JawDrop26) + 0.17 * self.unit(Unit::MouthStretch27)).min(0.3)
    }

    /// Lit skin at a pixel: Lambert on the head's ellipsoid.
    pub fn lit(&self, tone: f32) -> impl Fn(f32, f32, f32) -> f32 + use<> {
        let (roll_sin, roll_cos) = self.capture.roll.sin_cos();
        let (centre, scale, half_width) = (self.centre, self.scale, self.identity.half_width);
        let (light, ambient) = (self.capture.light, self.capture.ambient);
        move |px, py, _| {
            let (dx, dy) = ((px - centre[0]) / scale, (py - centre[1]) / scale);
            let (x, y) = ((dx * roll_cos + dy * roll_sin) / (1.08 * half_width), (dy * roll_cos - dx * roll_sin) / 1.15);
            let z = (1.0 - x * x - y * y).max(0.04).sqrt();
            let facing = (x * light[0] + y * light[1] + z * light[2]).max(0.0);
            tone * (ambient + (1.12 - ambient) * facing)
        }
    }

    pub fn ellipse(&self, centre: Point, rx: f32, ry: f32) -> Vec<Point> {
        let (s, c) = self.capture.roll.sin_cos();
        (0..20)
            .map(|i| {
                let (v, u) = (TAU * i as f32 / 20.0).sin_cos();
                let (x, y) = (u * rx * self.scale, v * ry * self.scale);
                [centre[0] + x * c - y * s, centre[1] + x * s + y * c]
            })
            .collect()
    }

    /// A few soft shapes behind the person.
    fn scenery(&mut self, rng: &mut Stream) {
        let side = self.canvas.width as f32;
        for _ in 0..rng.random_range(0..4) {
            let at = [side * rng.random::<f32>(), side * rng.random::<f32>()];
            let radius = side * (0.1 + 0.3 * rng.random::<f32>());
            self.canvas.shade(&[at], radius, 0.9 * (rng.random::<f32>() - 0.45));
        }
        if rng.random::<f32>() < 0.35 {
            // The edge of a door or a window.
            let x = side * rng.random::<f32>();
            let lean = side * 0.2 * (rng.random::<f32>() - 0.5);
            let right = if rng.random::<bool>() { side } else { 0.0 };
            self.canvas.fill(&[[x, 0.0], [right, 0.0], [right, side], [x + lean, side]], rng.random::<f32>(), 0.5);
        }
    }

    /// The head's outline from the crown clockwise; `grow` enlarges the skull (for hair).
    fn outline(&self, grow: f32) -> Vec<Point> {
        let id = self.identity;
        let chin = 1.0 + 0.75 * self.jaw_drop() - 0.02 * self.unit(Unit::ChinRaise17);
        // Cheeks widen with the pull of the lip corners.
        let cheeks = 0.02 * (self.unit(Unit::CheekRaise6) + self.unit(Unit::LipCornerPull12));
        (0..40)
            .map(|i| {
                let (s, c) = (TAU * i as f32 / 40.0 - PI / 2.0).sin_cos();
                let (x, y) = if s < 0.0 {
                    ((id.half_width + grow) * c.signum() * c.abs().powf(0.92), -0.1 + (0.88 + grow) * s)
                } else {
                    let width = id.half_width + cheeks * (PI * s).sin();
                    (width * c.signum() * c.abs().powf(id.jaw), -0.1 + (chin + 0.1) * s.powf(0.97))
                };
                // The silhouette lies where the depth is zero; yaw shows the cheek bone of the far side.
                self.project(x, y, 0.05 * (1.0 - c.abs()))
            })
            .collect()
    }

    fn hair_behind(&mut self) {
        let id = self.identity;
        if id.hair == Hair::Long {
            let w = id.half_width + 0.17;
            let points = [[-w * 1.05, 1.6], [-w * 1.05, 0.6], [-w * 1.02, -0.2], [-w * 0.95, -0.85], [-w * 0.4, -1.18], [0.0, -1.14]];
            let points = rounded(&points);
            let mut outline: Vec<Point> = points.iter().map(|p| self.turned(p[0], p[1])).collect();
            outline.extend(points.iter().rev().map(|p| self.turned(-p[0], p[1])));
            let tone = id.hair_tone * 0.8;
            self.canvas.fill(&outline, tone, 1.0);
        }
    }

    fn neck_and_ears(&mut self) {
        let id = self.identity;
        let skin = id.skin;
        let chest = [[-0.36, 0.5], [-0.4, 1.12], [-1.2, 1.4], [-1.2, 2.2], [1.2, 2.2], [1.2, 1.4], [0.4, 1.12], [0.36, 0.5]];
        let cloth: Vec<Point> = chest.iter().map(|p| self.turned(p[0], p[1] + 0.06)).collect();
        let tone = 0.15 + 0.7 * (self.capture.background[1] * 7.3).fract();
        self.canvas.fill(&cloth, tone, 1.0);
        let neck: Vec<Point> = [[-0.36, 0.4], [-0.4, 1.16], [-0.2, 1.5], [0.2, 1.5], [0.4, 1.16], [0.36, 0.4]]
            .iter()
            .map(|p| self.turned(p[0], p[1]))
            .collect();
        self.canvas.fill(&neck, skin * 0.55, 1.0);
        if id.hair != Hair::Long {
            for side in [-1.0, 1.0] {
                let ear = self.ellipse(self.project(side * (id.half_width + 0.02), 0.03, -0.05), 0.1, 0.2);
                let mask = self.canvas.mask(&ear);
                let lit = self.lit(skin * 0.86);
                self.canvas.paint(&mask, 1.0, lit);
                let inner = self.project(side * (id.half_width + 0.035), 0.03, -0.05);
                self.canvas.shade(&[inner], 0.06 * self.scale, 0.35);
            }
        }
    }

    fn head(&mut self) {
        let outline = self.outline(0.0);
        let mask = self.canvas.mask(&outline);
        let lit = self.lit(self.identity.skin);
        self.canvas.paint(&mask, 1.0, lit);
        let s = self.scale;
        // Cheek bones catch light, temples and the underside of the cheeks lose it.
        for side in [-1.0, 1.0] {
            let temple = self.at(side * 0.66, -0.3);
            self.canvas.shade(&[temple], 0.2 * s, 0.14);
            let cheek = self.at(side * 0.42, 0.22);
            self.canvas.shade(&[cheek], 0.17 * s, -0.07);
        }
        let forehead = self.at(0.0, -0.5);
        self.canvas.shade(&[forehead], 0.3 * s, -0.05);
    }

    fn beard(&mut self) {
        let id = self.identity;
        let dark = id.hair_tone * 0.9 + 0.03;
        let drop = self.jaw_drop();
        if matches!(id.beard, Beard::Full | Beard::Stubble) {
            let w = id.half_width;
            let half = [[w * 0.97, 0.05], [w * 0.84, 0.3], [0.42, 0.42], [0.2, 0.40], [0.0, 0.42]];
            let low = [[0.0, 1.03 + drop], [w * 0.4, 0.99 + drop], [w * 0.72, 0.76 + 0.6 * drop], [w * 0.93, 0.4 + 0.2 * drop]];
            let mut outline: Vec<Point> = half.iter().map(|p| self.at(p[0], p[1])).collect();
            outline.extend(half.iter().rev().skip(1).map(|p| self.at(-p[0], p[1])));
            outline.extend(low.iter().rev().map(|p| self.turned(-p[0], p[1])));
            outline.extend(low.iter().skip(1).map(|p| self.turned(p[0], p[1])));
            let opacity = if id.beard == Beard::Full { 0.78 } else { 0.27 };
            let mask = self.canvas.mask(&outline).clipped(&self.canvas.mask(&self.outline(0.01)));
            let (roll, centre, scale) = (self.capture.roll.sin_cos(), self.centre, self.scale);
            // Cheeks grow hair more thinly than the jaw.
            self.canvas.paint(&mask, opacity, |x, y, old| {
                let down = ((y - centre[1]) * roll.1 - (x - centre[0]) * roll.0) / scale;
                old + (dark - old) * ((down - 0.12) / 0.34).clamp(0.0, 1.0)
            });
        }
        if matches!(id.beard, Beard::Full | Beard::Moustache) {
            let lift = 0.06 * self.unit(Unit::UpperLipRaise10);
            let y = id.mouth_y - 0.105 - lift;
            let points = [[-0.27, y + 0.09], [-0.15, y + 0.01], [0.0, y - 0.01], [0.15, y + 0.01], [0.27, y + 0.09]];
            let line: Vec<Point> = points.iter().map(|p| self.lifted(p[0], p[1], 0.03)).collect();
            let s = self.scale;
            self.canvas.stroke(&line, |t| s * (0.02 + 0.075 * (PI * t).sin()), dark, 0.8);
        }
    }

    fn hair_front(&mut self) {
        let id = self.identity;
        if id.hair == Hair::Bald {
            return;
        }
        let w = id.half_width;
        let line = id.hairline;
        // Crown: the grown skull above the hairline.
        let mut crown: Vec<Point> = (0..=20)
            .map(|i| {
                let (s, c) = (PI + PI * i as f32 / 20.0).sin_cos();
                self.project((w + 0.07) * c, -0.16 + (0.82 + 0.11) * s, 0.0)
            })
            .collect();
        let edge: &[Point] = match id.hair {
            Hair::Fringe => {
                &[[0.95, -0.1], [0.9, -0.38], [0.62, -0.44], [0.2, -0.42], [-0.3, -0.47], [-0.7, -0.42], [-0.9, -0.36], [-0.95, -0.1]]
            }
            Hair::Long => &[
                [1.02, 0.5],
                [0.9, -0.1],
                [0.76, -0.42],
                [0.4, line + 0.03],
                [0.12, line - 0.1],
                [-0.35, line],
                [-0.76, -0.4],
                [-0.9, -0.1],
                [-1.02, 0.5],
            ],
            _ => &[
                [0.98, 0.02],
                [0.92, -0.3],
                [0.74, -0.5],
                [0.6, line + 0.03],
                [0.2, line - 0.04],
                [-0.2, line - 0.02],
                [-0.6, line + 0.03],
                [-0.74, -0.5],
                [-0.92, -0.3],
                [-0.98, 0.02],
            ],
        };
        let edge = rounded(edge);
        crown.extend(edge.iter().map(|p| self.at(p[0] * w, p[1])));
        let mask = self.canvas.mask(&crown);
        let tone = id.hair_tone;
        let (centre, scale, light) = (self.centre, self.scale, self.capture.light);
        // Strands: a ripple across the direction in which the hair falls, and a sheen towards the light.
        self.canvas.paint(&mask, 1.0, |x, y, _| {
            let (u, v) = ((x - centre[0]) / scale, (y - centre[1]) / scale);
            let ripple = 1.0 + 0.05 * (26.0 * u + 15.0 * u * v).sin() + 0.07 * (57.0 * u * (1.3 + 0.5 * v)).sin();
            let sheen = (-((u - 0.45 * light[0]).powi(2) + (v + 0.82).powi(2)) / 0.06).exp();
            tone * ripple + (0.05 + 0.12 * tone) * sheen
        });
        // Hair throws a narrow shadow on the forehead.
        let shadow: Vec<Point> = edge[1..edge.len() - 1].iter().map(|p| self.at(p[0] * w * 0.98, p[1] + 0.035)).collect();
        self.canvas.shade(&shadow, 0.035 * self.scale, 0.22);
    }

    fn glasses(&mut self) {
        if !self.identity.glasses {
            return;
        }
        let id = self.identity;
        let (y, thin) = (id.eye_y + 0.02, 0.028 * self.scale);
        let thin = thin.max(0.75);
        let frame = 0.06;
        for side in [-1.0, 1.0] {
            let rim: Vec<Point> = (0..=24)
                .map(|i| {
                    let (v, u) = (TAU * i as f32 / 24.0).sin_cos();
                    let soft = |t: f32| t.signum() * t.abs().powf(0.8);
                    self.lifted(side * id.eye_x + 0.205 * soft(u), y + 0.15 * soft(v), 0.04)
                })
                .collect();
            let lens = self.canvas.mask(&rim);
            self.canvas.paint(&lens, 0.08, |_, _, old| 0.6 * old + 0.4);
            self.canvas.stroke(&rim, |_| thin, frame, 0.85);
            let temple = [self.lifted(side * (id.eye_x + 0.205), y - 0.03, 0.04), self.project(side * id.half_width, y - 0.05, 0.0)];
            self.canvas.stroke(&temple, |_| thin, frame, 0.85);
        }
        let bridge =
            [self.lifted(-id.eye_x + 0.2, y - 0.02, 0.05), self.lifted(0.0, y - 0.05, 0.12), self.lifted(id.eye_x - 0.2, y - 0.02, 0.05)];
        self.canvas.stroke(&bridge, |_| thin, frame, 0.85);
    }

    fn occlude(&mut self) {
        match self.capture.occlusion {
            Occlusion::None => {}
            Occlusion::Hand { side, y, reach } => {
                let lit = self.lit(self.identity.skin * 0.93);
                for finger in 0..4 {
                    let fy = y + 0.155 * (finger as f32 - 1.5);
                    let tip = side * (0.78 - reach * (1.0 - 0.13 * (finger as f32 - 1.3).powi(2)));
                    let line: Vec<Point> = [tip, tip + side * 0.03, tip + side * 0.3, side * 1.5]
                        .iter()
                        .map(|&x| self.turned(x, fy + 0.12 * (x - tip).abs()))
                        .collect();
                    let s = self.scale;
                    self.canvas.shade(&[line[1], line[3]], 0.11 * s, 0.25);
                    let outline = ribbon(&line, |t| s * if t < 0.1 { 0.075 } else { 0.145 });
                    let mask = self.canvas.mask(&outline);
                    self.canvas.paint(&mask, 1.0, &lit);
                }
            }
            Occlusion::Bar { at, angle, width, tone } => {
                let (s, c) = angle.sin_cos();
                // Upright at angle 0.
                let ends = [self.turned(at[0] - 3.0 * s, at[1] + 3.0 * c), self.turned(at[0] + 3.0 * s, at[1] - 3.0 * c)];
                let thick = width * self.scale;
                self.canvas.stroke(&ends, |_| thick, tone, 1.0);
            }
            Occlusion::Strand { side, length } => {
                let line: Vec<Point> = (0..=6)
                    .map(|i| {
                        let t = i as f32 / 6.0;
                        self.at(side * (0.06 + 0.4 * (2.2 * t).sin()), -0.75 + length * t)
                    })
                    .collect();
                let (s, tone) = (self.scale, self.identity.hair_tone);
                self.canvas.stroke(&line, |t| s * (0.15 * (1.0 - t) + 0.012), tone, 0.95);
            }
        }
    }

    /// Lens and sensor: vignette, blur, contrast, noise.
    fn photograph(mut self, rng: &mut Stream) -> Vec<u8> {
        let side = self.canvas.width as f32;
        self.canvas.blur(self.capture.blur * side);
        let (contrast, brightness) = (self.capture.contrast, self.capture.brightness);
        // The sum of four uniform 16-bit draws, a cheap near-Gaussian with deviation `0.5774 * 65536`.
        let noise = self.capture.noise / (0.577_35 * 65_536.0);
        self.canvas.map(|_, _, v| {
            let bits: u64 = rng.random();
            let sum = (0..4).map(|k| (bits >> (16 * k)) & 0xffff).sum::<u64>() as f32 - 131_070.0;
            0.5 + contrast * (v - 0.5) + brightness + noise * sum
        });
        self.canvas.quantise()
    }
}
