//! Face alignment: the least-squares similarity from landmarks to the ArcFace template, and the warp that carries it out.
//!
//! The template is the one of InsightFace (112 pixels a side), scaled to the wanted size. Pixel coordinates are those of OpenCV's
//! `warpAffine`: integer coordinates are pixel centres, what lies outside the picture is black. Landmarks in other numbers than 5 or
//! 68, and landmarks that all coincide, are refused.

use crate::dataset::Pixels;
use anyhow::{Result, bail};

/// Eyes (left in the picture first), nose tip, mouth corners, in pixels of a 112 x 112 picture.
pub const TEMPLATE_112: [[f64; 2]; 5] =
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]];
pub const TEMPLATE_SIDE: usize = 112;

/// `[[a, -b, x], [b, a, y]]`: maps `(u, v)` to `(a u - b v + x, b u + a v + y)`.
pub type Similarity = [[f64; 3]; 2];

/// The template for a picture of `size` pixels a side that shows `1 + margin` times the template's field of view.
pub fn template(size: usize, margin: f64) -> [[f64; 2]; 5] {
    let scale = size as f64 / TEMPLATE_SIDE as f64;
    let centre = TEMPLATE_SIDE as f64 / 2.0;
    TEMPLATE_112.map(|p| p.map(|v| ((v - centre) / (1.0 + margin) + centre) * scale))
}

/// Five points from 5 or 68 (the iBUG order: eyes 36-41 and 42-47, nose tip 30, mouth corners 48 and 54).
///
/// # Errors
/// If the number of landmarks is another one.
pub fn five_points(landmarks: &[[f32; 2]]) -> Result<[[f64; 2]; 5]> {
    let point = |i: usize| landmarks[i].map(f64::from);
    let mean = |range: std::ops::Range<usize>| {
        let n = range.len() as f64;
        range.map(point).fold([0.0; 2], |sum, p| [sum[0] + p[0] / n, sum[1] + p[1] / n])
    };
    match landmarks.len() {
        5 => Ok(std::array::from_fn(point)),
        68 => Ok([mean(36..42), mean(42..48), point(30), point(48), point(54)]),
        n => bail!("alignment needs 5 or 68 landmarks, not {n}"),
    }
}

/// The similarity (rotation, one scale, shift; no mirror) that carries `from` closest to `to` in the least-squares sense.
///
/// In the plane Umeyama's solution has this closed form; it also equals his when the best unconstrained map would be a mirror image.
///
/// # Errors
/// If the points of `from` coincide or fit no orientation.
pub fn similarity(from: &[[f64; 2]], to: &[[f64; 2]]) -> Result<Similarity> {
    assert_eq!(from.len(), to.len(), "points come in pairs");
    let n = from.len() as f64;
    let mean = |p: &[[f64; 2]]| p.iter().fold([0.0; 2], |m, p| [m[0] + p[0] / n, m[1] + p[1] / n]);
    let (mf, mt) = (mean(from), mean(to));
    let (mut spread, mut along, mut across) = (0.0, 0.0, 0.0);
    for (f, t) in from.iter().zip(to) {
        let (fx, fy, tx, ty) = (f[0] - mf[0], f[1] - mf[1], t[0] - mt[0], t[1] - mt[1]);
        spread += fx * fx + fy * fy;
        along += fx * tx + fy * ty;
        across += fx * ty - fy * tx;
    }
    let (a, b) = (along / spread, across / spread);
    if !(a.is_finite() && b.is_finite()) || a * a + b * b < 1e-12 {
        bail!("the landmarks coincide");
    }
    Ok([[a, -b, mt[0] - a * mf[0] + b * mf[1]], [b, a, mt[1] - b * mf[0] - a * mf[1]]])
}

/// Where `m` carries a point.
pub fn apply(m: &Similarity, [u, v]: [f64; 2]) -> [f64; 2] {
    [m[0][0] * u + m[0][1] * v + m[0][2], m[1][0] * u + m[1][1] * v + m[1][2]]
}

/// The picture of `size` x `size` pixels that `m` makes of `source`: bilinear, black outside, channels kept.
pub fn warp(source: &Pixels, m: &Similarity, size: usize) -> Pixels {
    let (a, b) = (m[0][0], m[1][0]);
    let norm = a * a + b * b;
    let mut data = Vec::with_capacity(size * size * source.channels);
    for y in 0..size {
        for x in 0..size {
            let (dx, dy) = (x as f64 - m[0][2], y as f64 - m[1][2]);
            let (u, v) = ((a * dx + b * dy) / norm, (a * dy - b * dx) / norm);
            for c in 0..source.channels {
                data.push(bilinear(source, u, v, c));
            }
        }
    }
    Pixels::new(size, size, source.channels, data)
}

fn bilinear(source: &Pixels, u: f64, v: f64, channel: usize) -> u8 {
    let (left, top) = (u.floor(), v.floor());
    let (fu, fv) = (u - left, v - top);
    let at = |x: f64, y: f64| {
        let inside = x >= 0.0 && y >= 0.0 && x < source.width as f64 && y < source.height as f64;
        if inside { f64::from(source.data[(y as usize * source.width + x as usize) * source.channels + channel]) } else { 0.0 }
    };
    let upper = at(left, top) * (1.0 - fu) + at(left + 1.0, top) * fu;
    let lower = at(left, top + 1.0) * (1.0 - fu) + at(left + 1.0, top + 1.0) * fu;
    (upper * (1.0 - fv) + lower * fv).round() as u8
}

/// Aligns one face: the warped picture and its landmarks in the new picture's coordinates.
///
/// # Errors
/// If the landmarks are not 5 or 68 points or fit no similarity.
pub fn align(source: &Pixels, landmarks: &[[f32; 2]], size: usize, margin: f64) -> Result<(Pixels, Vec<[f32; 2]>)> {
    let m = similarity(&five_points(landmarks)?, &template(size, margin))?;
    let moved = landmarks.iter().map(|p| apply(&m, p.map(f64::from)).map(|v| v as f32)).collect();
    Ok((warp(source, &m, size), moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_agree_with_the_golden_ones() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/misc.json")).unwrap();
        for case in golden["alignment"]["cases"].as_array().unwrap() {
            let from: [[f64; 2]; 5] = serde_json::from_value(case["landmarks"].clone()).unwrap();
            for (name, size) in [("M_112", 112), ("M_224", 224)] {
                let expected: Similarity = serde_json::from_value(case[name].clone()).unwrap();
                let m = similarity(&from, &template(size, 0.0)).unwrap();
                for (m, e) in m.iter().flatten().zip(expected.iter().flatten()) {
                    assert!((m - e).abs() < 1e-9, "{name}: {m} but {e}");
                }
            }
        }
    }

    #[test]
    fn sixty_eight_points_reduce_to_eyes_nose_and_mouth() {
        let mut points = [[0.0f32; 2]; 68];
        for (i, p) in points.iter_mut().enumerate() {
            *p = [i as f32, 2.0 * i as f32];
        }
        assert_eq!(five_points(&points).unwrap(), [[38.5, 77.0], [44.5, 89.0], [30.0, 60.0], [48.0, 96.0], [54.0, 108.0]]);
        assert!(five_points(&points[..7]).is_err());
    }

    #[test]
    fn the_template_itself_is_left_alone_and_the_outside_is_black() {
        let picture = Pixels::new(112, 112, 3, (0..112 * 112 * 3).map(|i| (i % 251) as u8 | 1).collect());
        let points = TEMPLATE_112.map(|p| p.map(|v| v as f32));
        // Single-precision landmarks shift the map by far less than a grey level.
        let (same, moved) = align(&picture, &points, 112, 0.0).unwrap();
        assert!(same.data.iter().zip(&picture.data).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert!((moved[2][0] - points[2][0]).abs() < 1e-3);
        let (wide, _) = align(&picture, &points, 112, 1.0).unwrap();
        assert_eq!(&wide.data[..3], [0, 0, 0]);
        let middle = (56 * 112 + 56) * 3;
        assert_ne!(wide.data[middle], 0);
    }

    #[test]
    fn coinciding_landmarks_are_refused() {
        assert!(similarity(&[[3.0, 4.0]; 5], &TEMPLATE_112).is_err());
    }
}
