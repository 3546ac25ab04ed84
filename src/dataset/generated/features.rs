//! Eyes, brows, nose, mouth and the folds of the skin: where action units become geometry.
//!
//! Owns how each unit moves its landmarks. All lengths are face units; x grows to the right of the picture, y downwards. Nothing here
//! knows class names: an expression is nothing but its units.

use super::action_units::Unit;
use super::canvas::Point;
use super::draw::Painter;
use std::f32::consts::PI;

/// Evenly spaced positions `0..=1`.
fn steps(n: usize) -> impl Iterator<Item = f32> + Clone {
    (0..=n).map(move |i| i as f32 / n as f32)
}

fn sign(side: usize) -> f32 {
    if side == 0 { -1.0 } else { 1.0 }
}

/// The lids of one eye, from the inner to the outer corner.
struct Lids {
    upper: Vec<Point>,
    lower: Vec<Point>,
    centre: [f32; 2],
    upper_height: f32,
}

impl Painter<'_> {
    pub fn eye_centre(&self, side: usize) -> Point {
        self.at(sign(side) * self.identity.eye_x, self.identity.eye_y)
    }

    pub fn nose_tip(&self) -> Point {
        self.lifted(0.0, self.identity.eye_y + self.identity.nose_length - 0.03, 0.22)
    }

    fn lids(&self, side: usize) -> Lids {
        let (id, s) = (self.identity, sign(side));
        let au = |unit| self.face.side(unit, side);
        let tight = au(Unit::LidTighten7);
        let upper = (id.lid_upper + 0.062 * au(Unit::UpperLidRaise5)
            - 0.024 * tight * (1.0 - 0.5 * au(Unit::UpperLidRaise5))
            - 0.016 * au(Unit::CheekRaise6)
            - 0.022 * au(Unit::NoseWrinkle9)
            // Lowered brows press on the lid.
            - 0.01 * au(Unit::BrowLower4) * (1.0 - au(Unit::InnerBrowRaise1)).max(0.0)
            // Depressed corners go with a drooping lid.
            - 0.012 * au(Unit::LipCornerDepress15) * au(Unit::InnerBrowRaise1))
        .max(0.014);
        let lower = (id.lid_lower + 0.012 * au(Unit::UpperLidRaise5)
            - 0.024 * tight
            - 0.034 * au(Unit::CheekRaise6)
            - 0.024 * au(Unit::NoseWrinkle9))
        .max(-0.004);
        let (cx, cy) = (s * id.eye_x, id.eye_y);
        // The outer end of the lid sinks when only the inner brow is raised (sadness), the inner end when the brow is drawn down.
        let slant = 0.028 * au(Unit::InnerBrowRaise1) * (1.0 - au(Unit::OuterBrowRaise2)).max(0.0);
        let tilt = id.eye_tilt - slant;
        let point = |t: f32, height: f32, skew: f32| {
            // -1 at the inner corner, 1 at the outer.
            let u = 2.0 * t - 1.0;
            let arch = (1.0 - u * u).powf(0.75) * (1.0 + skew * u);
            (cx + s * u * id.eye_width, cy - tilt * u - height * arch)
        };
        let line = |height: f32, skew: f32| -> Vec<Point> {
            steps(10)
                .map(|t| {
                    let (x, y) = point(t, height, skew);
                    self.at(x, y)
                })
                .collect()
        };
        Lids { upper: line(upper, -0.15), lower: line(-lower, 0.15), centre: [cx, cy], upper_height: upper }
    }

    pub fn eyes(&mut self) {
        let (id, s) = (self.identity, self.scale);
        for side in 0..2 {
            let lids = self.lids(side);
            let au5 = self.face.side(Unit::UpperLidRaise5, side);
            // The socket lies in shadow under the brow.
            let socket = self.at(lids.centre[0] * 0.98, lids.centre[1] - 0.03);
            self.canvas.shade(&[socket], 0.19 * s, 0.17);
            let crease: Vec<Point> = steps(6)
                .map(|t| {
                    let u = 2.0 * t - 1.0;
                    let y = lids.centre[1] - (lids.upper_height + 0.035 - 0.012 * au5) * (1.0 - 0.55 * u * u) - 0.01;
                    self.at(lids.centre[0] + sign(side) * u * id.eye_width * 1.02, y)
                })
                .collect();
            self.canvas.shade(&crease, 0.016 * s, 0.38);

            let outline: Vec<Point> = lids.upper.iter().chain(lids.lower.iter().rev()).copied().collect();
            let white = self.canvas.mask(&outline);
            let tone = (0.62 + 0.3 * id.skin) * (0.75 + 0.3 * self.capture.ambient);
            self.canvas.paint(&white, 1.0, |_, _, _| tone);
            let gaze = self.capture.gaze;
            let (ix, iy) = (lids.centre[0] + gaze[0], lids.centre[1] - 0.012 + gaze[1]);
            let middle = self.at(ix, iy);
            let iris = self.canvas.mask(&self.ellipse(middle, 0.073, 0.073)).clipped(&white);
            let iris_tone = id.iris_tone;
            self.canvas.paint(&iris, 1.0, |_, _, _| iris_tone);
            let pupil = self.canvas.mask(&self.ellipse(middle, 0.032, 0.032)).clipped(&white);
            self.canvas.paint(&pupil, 1.0, |_, _, _| 0.02);
            let glint = self.at(ix + 0.025 * self.capture.light[0].signum(), iy - 0.028);
            let glint = self.canvas.mask(&self.ellipse(glint, 0.016, 0.016)).clipped(&white);
            self.canvas.paint(&glint, 0.9, |_, _, _| 0.97);
            // The upper lid shades the ball and carries the lashes.
            self.canvas.shade(&lids.upper, 0.02 * s, 0.25);
            self.canvas.stroke(&lids.upper, |t| s * (0.016 + 0.02 * (PI * t).sin()), 0.06, 0.85);
            self.canvas.shade(&lids.lower, 0.014 * s, 0.35);
        }
    }

    pub fn brows(&mut self) {
        let (id, s) = (self.identity, self.scale);
        for side in 0..2 {
            let au = |unit| self.face.side(unit, side);
            let (inner, outer, lower) = (au(Unit::InnerBrowRaise1), au(Unit::OuterBrowRaise2), au(Unit::BrowLower4));
            let nose = au(Unit::NoseWrinkle9);
            let line: Vec<Point> = steps(8)
                .map(|t| {
                    // t runs from the nose outwards.
                    let rest = id.brow_y + 0.03 - id.brow_arch * (PI * (0.15 + 0.75 * t)).sin() + 0.02 * t;
                    let raise =
                        0.125 * inner * (1.0 - t).powf(1.1) + 0.13 * outer * (PI * (0.12 + 0.66 * t)).sin().max(0.0) * (0.35 + 0.65 * t);
                    let press = lower * (1.0 - 0.92 * inner.min(1.0)) * 0.105 * (1.0 - 0.95 * t);
                    // Raised and drawn together: the brow straightens, its outer end sinks.
                    let sink = 0.05 * lower.min(inner) * t * (1.0 - outer).max(0.0);
                    let y = rest - raise + press + sink + nose * (0.055 * (1.0 - t) + 0.02) + 0.012 * au(Unit::CheekRaise6) * t;
                    let x = 0.135 + 0.36 * t - (0.045 * lower + 0.02 * nose) * (1.0 - t);
                    self.at(sign(side) * x, y)
                })
                .collect();
            let tone = (id.hair_tone * 0.75).min(id.skin * 0.55);
            let thick = id.brow_thickness;
            self.canvas.stroke(&line, |t| s * thick * (0.55 + 0.75 * (PI * (0.18 + 0.72 * t)).sin()) * (1.0 - 0.45 * t), tone, 0.88);
        }
    }

    pub fn nose(&mut self) {
        let (id, s) = (self.identity, self.scale);
        let wrinkle = self.unit(Unit::NoseWrinkle9);
        let raise = 0.045 * wrinkle + 0.012 * self.unit(Unit::UpperLipRaise10);
        let base = id.eye_y + id.nose_length;
        let wide = id.nose_width + 0.02 * wrinkle + 0.012 * self.unit(Unit::LipCornerPull12);
        let light = self.capture.light[0];
        // The flank away from the light.
        let away = if light > 0.0 { -1.0 } else { 1.0 };
        let flank = [
            self.lifted(away * 0.075, id.eye_y - 0.08, 0.03),
            self.lifted(away * 0.07, base - 0.16, 0.08),
            self.lifted(away * 0.11, base - 0.03, 0.08),
        ];
        self.canvas.shade(&flank, 0.045 * s, 0.14 + 0.2 * light.abs());
        let ridge = [self.lifted(0.0, id.eye_y, 0.1), self.lifted(0.0, base - 0.08, 0.2)];
        self.canvas.shade(&ridge, 0.04 * s, -0.14);
        let tip = self.nose_tip();
        self.canvas.shade(&[tip], 0.055 * s, -0.1);
        for side in [-1.0, 1.0] {
            let wing: Vec<Point> = [(0.82, -0.1), (1.02, -0.045), (0.98, 0.0), (0.7, 0.015)]
                .iter()
                .map(|&(x, y)| self.lifted(side * wide * x, base + y - raise, 0.1))
                .collect();
            self.canvas.shade(&wing, 0.02 * s, 0.32);
            let nostril = self.lifted(side * wide * 0.5, base + 0.012 - 0.5 * raise, 0.15);
            let hole = self.ellipse(nostril, 0.037, 0.019 + 0.006 * wrinkle);
            self.canvas.fill(&hole, 0.07, 0.75);
        }
        let under = [self.lifted(-wide * 0.6, base + 0.045, 0.1), self.lifted(wide * 0.6, base + 0.045, 0.1)];
        self.canvas.shade(&under, 0.035 * s, 0.2);
    }

    /// Wrinkles and bulges that the units press into the skin.
    pub fn folds(&mut self) {
        let (id, s) = (self.identity, self.scale);
        let strength = 0.75 + 0.5 * id.age;
        let face = self.face;
        let mean = |unit| face.mean(unit);
        // Forehead: brows raised.
        let lines = ((mean(Unit::InnerBrowRaise1) + mean(Unit::OuterBrowRaise2)) / 2.0).min(1.0);
        for k in 0..3 {
            let y = -0.5 - 0.075 * k as f32;
            let line: Vec<Point> = steps(6).map(|t| self.at(0.76 * (t - 0.5), y - 0.03 * (PI * t).sin() - 0.03 * lines)).collect();
            self.canvas.shade(&line, 0.015 * s, strength * (0.3 * lines + 0.1 * id.age));
        }
        // Between the brows: drawn together.
        for side in [-1.0, 1.0] {
            let frown = mean(Unit::BrowLower4).min(1.0);
            let line = [self.at(side * 0.05, -0.4), self.at(side * 0.045, -0.24)];
            self.canvas.shade(&line, 0.018 * s, strength * 0.42 * frown);
        }
        // Across the bridge of the nose.
        let wrinkle = mean(Unit::NoseWrinkle9);
        for k in 0..3 {
            let y = id.eye_y - 0.06 + 0.065 * k as f32;
            let line = [self.lifted(-0.1, y + 0.025, 0.05), self.lifted(0.0, y - 0.01, 0.1), self.lifted(0.1, y + 0.025, 0.05)];
            self.canvas.shade(&line, 0.016 * s, 0.42 * wrinkle);
        }
        for side in 0..2 {
            let x = sign(side);
            let au = |unit| self.face.side(unit, side);
            let base = id.eye_y + id.nose_length;
            // Nasolabial fold: deep and curved with 10 and 12, straight from the wing with 9.
            let depth = 0.38 * au(Unit::LipCornerPull12) + 0.38 * au(Unit::UpperLipRaise10) + 0.3 * au(Unit::NoseWrinkle9) + 0.12 * id.age;
            let out = 0.07 * au(Unit::LipCornerPull12) + 0.03 * au(Unit::LipStretch20);
            let fold: Vec<Point> = steps(5)
                .map(|t| self.at(x * (0.16 + (0.17 + out) * t + 0.05 * (PI * t).sin()), base - 0.06 + (id.mouth_y - base + 0.04) * t))
                .collect();
            self.canvas.shade(&fold, 0.026 * s, (strength * depth).min(0.55));
            // Raised cheeks bulge under a crease below the eye.
            let cheek = au(Unit::CheekRaise6);
            let crease: Vec<Point> =
                steps(5).map(|t| self.at(x * (id.eye_x - 0.15 + 0.32 * t), id.eye_y + 0.1 + 0.03 * (PI * t).sin() - 0.02 * t)).collect();
            self.canvas.shade(&crease, 0.02 * s, strength * (0.34 * cheek + 0.2 * au(Unit::LidTighten7) + 0.08 * id.age));
            let bulge = self.at(x * 0.42, id.eye_y + 0.25);
            self.canvas.shade(&[bulge], 0.13 * s, -0.14 * cheek.max(0.8 * au(Unit::LipCornerPull12)));
            // Crow's feet.
            for k in [-1.0, 1.0] {
                let foot = [
                    self.at(x * (id.eye_x + id.eye_width + 0.03), id.eye_y + 0.012 * k),
                    self.at(x * (id.eye_x + id.eye_width + 0.12), id.eye_y + 0.045 * k),
                ];
                self.canvas.shade(&foot, 0.013 * s, strength * 0.35 * cheek);
            }
        }
        // The chin boss wrinkles and flattens.
        let chin = mean(Unit::ChinRaise17);
        let y = 0.83 + self.jaw_drop() * 0.8;
        let boss: Vec<Point> = steps(5).map(|t| self.at(0.26 * (t - 0.5), y - 0.05 * (PI * t).sin())).collect();
        self.canvas.shade(&boss, 0.028 * s, 0.1 + 0.3 * chin);
    }

    /// Paints the mouth; returns its corners in pixels.
    pub fn mouth(&mut self) -> [Point; 2] {
        let (id, s) = (self.identity, self.scale);
        let face = self.face;
        let mean = |unit| face.mean(unit);
        let jaw = self.jaw_drop();
        let (pull, stretch) = (mean(Unit::LipCornerPull12), mean(Unit::LipStretch20));
        let press = (0.5 * mean(Unit::LipTighten23) + 0.5 * mean(Unit::LipPress24)).min(1.0);
        let part = mean(Unit::LipsPart25);
        let (raise, wrinkle, chin) = (mean(Unit::UpperLipRaise10), mean(Unit::NoseWrinkle9), mean(Unit::ChinRaise17));
        // A hanging jaw narrows the mouth unless something pulls its corners.
        let narrow = 0.42 * jaw * (1.0 - pull.max(stretch).min(1.0)) + 0.035 * press;
        let corner = |side: usize| {
            let au = |unit| self.face.side(unit, side);
            let x = id.mouth_width - narrow + 0.085 * au(Unit::LipCornerPull12) + 0.1 * au(Unit::LipStretch20) + 0.035 * au(Unit::Dimple14)
                - 0.012 * au(Unit::LipCornerDepress15);
            let y = id.mouth_y + id.mouth_rest + 0.3 * jaw - 0.105 * au(Unit::LipCornerPull12) - 0.06 * au(Unit::Dimple14)
                + 0.095 * au(Unit::LipCornerDepress15)
                + 0.022 * au(Unit::LipStretch20);
            [sign(side) * x, y]
        };
        let (left, right) = (corner(0), corner(1));
        let gap = 0.055 * part * (1.0 + 0.6 * stretch) + jaw * 0.95;
        let lift = 0.05 * raise + 0.02 * wrinkle + 0.012 * pull * part;
        let top = id.mouth_y - lift - 0.012 * part - 0.025 * chin + 0.018 * pull;
        let bottom = top + gap * (1.0 + 0.25 * pull) + lift * 0.55 * (part * 2.0).min(1.0);
        // Round for a dropped jaw, square for stretched or raised lips, a plain arc otherwise.
        let blend = (jaw * 5.0).min(1.0);
        let square = (0.75 * stretch + 0.6 * raise).min(1.0);
        let power = (1.0 - 0.42 * blend - 0.4 * square * (0.4 + 0.6 * part.min(1.0))).max(0.34);
        let curve = |t: f32, middle: f32, power: f32| {
            // Cosine spacing puts points where round mouths bend.
            let u = -(PI * t).cos();
            let along = 0.5 * (u + 1.0);
            let base = left[1] + (right[1] - left[1]) * along;
            let bow = (1.0 - u * u).max(0.0).powf(power);
            let level = 0.5 * (left[1] + right[1]);
            [left[0] + (right[0] - left[0]) * along, base + (middle - level) * bow, u, bow]
        };
        let thin = 1.0 - 0.68 * press - 0.22 * pull - 0.2 * stretch;
        let (upper, lower) = (id.lip_upper * thin * (1.0 - 0.25 * raise), id.lip_lower * thin * (1.0 + 0.15 * chin));
        let n = 16;
        let inner_top: Vec<_> = steps(n).map(|t| curve(t, top, power)).collect();
        let inner_bottom: Vec<_> = steps(n).map(|t| curve(t, bottom.max(top), power)).collect();
        let place = |p: &[f32; 4], dy: f32| self.lifted(p[0], p[1] + dy, 0.05);
        let lip_bow = |u: f32| 1.0 - 0.3 * (-(u / 0.13).powi(2)).exp();
        let outer_top: Vec<Point> =
            inner_top.iter().map(|p| place(p, -upper * p[3].powf(0.45 / power.max(0.45)) * lip_bow(p[2]))).collect();
        let outer_bottom: Vec<Point> = inner_bottom.iter().map(|p| place(p, lower * p[3].powf(0.6 / power.max(0.45)))).collect();
        let inner_top: Vec<Point> = inner_top.iter().map(|p| place(p, 0.0)).collect();
        let inner_bottom: Vec<Point> = inner_bottom.iter().map(|p| place(p, 0.0)).collect();

        // Shadow under the lower lip.
        let under: Vec<Point> = steps(4).map(|t| self.at(0.24 * (t - 0.5), bottom + lower + 0.05 - 0.02 * (PI * t).sin())).collect();
        self.canvas.shade(&under, 0.035 * s, 0.2 + 0.12 * chin);
        let ring = |a: &[Point], b: &[Point]| -> Vec<Point> { a.iter().chain(b.iter().rev()).copied().collect() };
        let tone = id.skin * (1.0 - id.lip_contrast);
        let lips = self.canvas.mask(&ring(&outer_top, &outer_bottom));
        let lit = self.lit(tone);
        self.canvas.paint(&lips, 0.9, lit);
        let top_lip = self.canvas.mask(&ring(&outer_top, &inner_top));
        self.canvas.paint(&top_lip, 0.9, |_, _, old| old * 0.82);
        let shine = self.lifted(0.0, bottom.max(top) + 0.5 * lower, 0.06);
        self.canvas.shade(&[shine], 0.05 * s, -0.16);

        if gap > 0.006 {
            let opening = self.canvas.mask(&ring(&inner_top, &inner_bottom));
            self.canvas.paint(&opening, 1.0, |_, _, _| 0.05);
            // Teeth hang from the upper lip; a raised or pulled lip bares them, a round mouth hides them.
            let bare = (0.35 + 0.65 * pull.max(stretch).max(raise)).min(1.0) * (1.0 - 0.45 * blend * (1.0 - pull.max(stretch).min(1.0)));
            let depth = (0.075 * bare).min(0.85 * gap);
            let teeth: Vec<Point> = ring(&inner_top, &inner_top.iter().map(|p| self.sunk(*p, depth)).collect::<Vec<_>>());
            let teeth = self.canvas.mask(&teeth).clipped(&opening);
            self.canvas.paint(&teeth, 0.95, |_, _, _| 0.86);
            if gap > 0.09 {
                let tongue = self.at(0.0, bottom - 0.02);
                let tongue = self.canvas.mask(&self.ellipse(tongue, 0.12, 0.05)).clipped(&opening);
                self.canvas.paint(&tongue, 0.8, |_, _, _| 0.27);
            }
            if stretch > 0.5 && part > 0.4 {
                let low = ring(&inner_bottom.iter().map(|p| self.sunk(*p, -0.028)).collect::<Vec<_>>(), &inner_bottom);
                let low = self.canvas.mask(&low).clipped(&opening);
                self.canvas.paint(&low, 0.8, |_, _, _| 0.75);
            }
        } else {
            self.canvas.stroke(&inner_top, |t| s * (0.02 + 0.014 * (PI * t).sin()), 0.1, 0.85);
        }
        for side in 0..2 {
            let au = |unit| self.face.side(unit, side);
            let [x, y] = if side == 0 { left } else { right };
            let dent = self.lifted(x + sign(side) * 0.012, y, 0.05);
            self.canvas.shade(&[dent], 0.03 * s, 0.3 + 0.2 * au(Unit::LipCornerPull12));
            let (dimple, depress) = (au(Unit::Dimple14), au(Unit::LipCornerDepress15));
            let mark = [self.at(x + sign(side) * 0.055, y - 0.06), self.at(x + sign(side) * 0.07, y + 0.05)];
            self.canvas.shade(&mark, 0.026 * s, 0.5 * dimple);
            let droop = [self.at(x + sign(side) * 0.01, y + 0.01), self.at(x + sign(side) * 0.045, y + 0.12)];
            self.canvas.shade(&droop, 0.022 * s, 0.36 * depress);
        }
        [self.lifted(left[0], left[1], 0.05), self.lifted(right[0], right[1], 0.05)]
    }

    /// `p` moved down by `depth` face units along the rolled vertical.
    fn sunk(&self, p: Point, depth: f32) -> Point {
        let (s, c) = self.capture.roll.sin_cos();
        [p[0] - depth * self.scale * s, p[1] + depth * self.scale * c]
    }
}
