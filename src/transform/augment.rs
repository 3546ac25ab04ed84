//! One resampling per face: random resized crop, rotation and mirror, then erasing, on 8-bit pixels.
//!
//! All random choices come from the stream that the caller positions at (epoch, face). The result is the integer-valued crop that both
//! the HOG target and the network see.

use crate::dataset::Pixels;
use crate::random::{RngExt, Stream};

/// What may happen to a face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Smallest area share of the crop; 1 keeps the whole face.
    pub crop_min: f64,
    /// Largest rotation in degrees.
    pub rotate: f64,
    pub flip: bool,
    /// Probability of random erasing.
    pub erase: f64,
}

impl Augment {
    /// The whole face, upright: what evaluation uses.
    pub const NONE: Self = Self { crop_min: 1.0, rotate: 0.0, flip: false, erase: 0.0 };
}

/// Aspect ratios of crops, log-uniform (3/4 to 4/3, as MaskFeat's random resized crop).
const ASPECT: (f64, f64) = (0.75, 4.0 / 3.0);
/// Area shares of erased rectangles.
const ERASE_AREA: (f64, f64) = (0.02, 0.25);

/// A rectangle of the source, in pixels, possibly rotated and mirrored, that fills the output.
struct View {
    centre: (f64, f64),
    size: (f64, f64),
    angle: f64,
    mirror: bool,
}

/// Draws a view of `face` and resamples it to `side` x `side` pixels with `channels` channels.
///
/// Draws the same number of values whatever the settings, so switching one off does not move the others.
pub fn augment(face: &Pixels, side: usize, channels: usize, how: &Augment, rng: &mut Stream) -> Pixels {
    let (w, h) = (face.width as f64, face.height as f64);
    let area = how.crop_min + (1.0 - how.crop_min) * rng.random::<f64>();
    let aspect = (ASPECT.0.ln() + (ASPECT.1 / ASPECT.0).ln() * rng.random::<f64>()).exp();
    let (ux, uy): (f64, f64) = (rng.random(), rng.random());
    let angle = (2.0 * rng.random::<f64>() - 1.0) * how.rotate.to_radians();
    let mirror = rng.random::<bool>() && how.flip;
    let erase = rng.random::<f64>() < how.erase;

    let size = if how.crop_min < 1.0 { ((w * (area * aspect).sqrt()).min(w), (h * (area / aspect).sqrt()).min(h)) } else { (w, h) };
    let centre = (size.0 / 2.0 + ux * (w - size.0), size.1 / 2.0 + uy * (h - size.1));
    let mut out = resample(face, side, channels, &View { centre, size, angle, mirror });
    if erase {
        erase_rectangle(&mut out, rng);
    }
    out
}

/// The whole face at `side` x `side` pixels.
pub fn fit(face: &Pixels, side: usize, channels: usize) -> Pixels {
    let (w, h) = (face.width as f64, face.height as f64);
    resample(face, side, channels, &View { centre: (w / 2.0, h / 2.0), size: (w, h), angle: 0.0, mirror: false })
}

fn resample(face: &Pixels, side: usize, channels: usize, view: &View) -> Pixels {
    let unchanged = face.width == side
        && face.height == side
        && view.size == (side as f64, side as f64)
        && view.angle == 0.0
        && !view.mirror
        && face.channels == channels;
    if unchanged {
        return face.clone();
    }
    // Shrinking reads an average over `taps` x `taps` points per output pixel, so that fine detail does not alias.
    let scale = (view.size.0 / side as f64).max(view.size.1 / side as f64);
    let taps = (scale.ceil() as usize).clamp(1, 8);
    let (sin, cos) = view.angle.sin_cos();
    let mut data = Vec::with_capacity(side * side * channels);
    for y in 0..side {
        for x in 0..side {
            let mut sum = [0.0f32; 3];
            for tap in 0..taps * taps {
                let fx = (x as f64 + ((tap % taps) as f64 + 0.5) / taps as f64) / side as f64 - 0.5;
                let fy = (y as f64 + ((tap / taps) as f64 + 0.5) / taps as f64) / side as f64 - 0.5;
                let dx = if view.mirror { -fx } else { fx } * view.size.0;
                let dy = fy * view.size.1;
                let point = (view.centre.0 + cos * dx - sin * dy, view.centre.1 + sin * dx + cos * dy);
                let colour = bilinear(face, point);
                sum.iter_mut().zip(colour).for_each(|(s, c)| *s += c);
            }
            let mean = sum.map(|s| s / (taps * taps) as f32);
            let byte = |v: f32| v.round().clamp(0.0, 255.0) as u8;
            if channels == 1 {
                let gray = if face.channels == 1 { mean[0] } else { 0.299 * mean[0] + 0.587 * mean[1] + 0.114 * mean[2] };
                data.push(byte(gray));
            } else {
                data.extend(mean.map(byte));
            }
        }
    }
    Pixels::new(side, side, channels, data)
}

/// Colour at `point` (pixel centres at .5), border pixels repeated outside; gray is repeated over the channels.
fn bilinear(face: &Pixels, point: (f64, f64)) -> [f32; 3] {
    let clamp = |v: f64, n: usize| v.clamp(0.0, (n - 1) as f64);
    let (px, py) = (clamp(point.0 - 0.5, face.width), clamp(point.1 - 0.5, face.height));
    let (x0, y0) = (px as usize, py as usize);
    let (x1, y1) = ((x0 + 1).min(face.width - 1), (y0 + 1).min(face.height - 1));
    let (fx, fy) = ((px - x0 as f64) as f32, (py - y0 as f64) as f32);
    let mut out = [0.0; 3];
    for (c, value) in out.iter_mut().enumerate().take(face.channels) {
        let at = |x: usize, y: usize| f32::from(face.data[(y * face.width + x) * face.channels + c]);
        let top = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * fx;
        let bottom = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * fx;
        *value = top + (bottom - top) * fy;
    }
    if face.channels == 1 { [out[0]; 3] } else { out }
}

/// Fills a random rectangle with noise (random erasing).
fn erase_rectangle(face: &mut Pixels, rng: &mut Stream) {
    let side = face.width as f64;
    let area = ERASE_AREA.0 + (ERASE_AREA.1 - ERASE_AREA.0) * rng.random::<f64>();
    let aspect = (0.3f64.ln() + (1.0f64 / 0.09).ln() * rng.random::<f64>()).exp();
    let w = ((side * (area * aspect).sqrt()).round() as usize).clamp(1, face.width);
    let h = ((side * (area / aspect).sqrt()).round() as usize).clamp(1, face.height);
    let x0 = rng.random_range(0..=face.width - w);
    let y0 = rng.random_range(0..=face.height - h);
    for y in y0..y0 + h {
        for x in x0..x0 + w {
            for c in 0..face.channels {
                face.data[(y * face.width + x) * face.channels + c] = rng.random();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Streams;

    fn ramp(width: usize, height: usize, channels: usize) -> Pixels {
        let data = (0..width * height * channels).map(|i| ((i / channels) % width * 4) as u8).collect();
        Pixels::new(width, height, channels, data)
    }

    #[test]
    fn nothing_to_do_changes_nothing() {
        let face = ramp(48, 48, 1);
        assert_eq!(augment(&face, 48, 1, &Augment::NONE, &mut Streams::new(0).at("t", &[])), face);
    }

    #[test]
    fn a_mirror_is_exact_and_its_own_inverse() {
        let face = ramp(48, 48, 1);
        let view = |mirror| View { centre: (24.0, 24.0), size: (48.0, 48.0), angle: 0.0, mirror };
        let mirrored = resample(&face, 48, 1, &view(true));
        assert_eq!(mirrored.data[0], face.data[47]);
        assert_eq!(resample(&mirrored, 48, 1, &view(true)), face);
    }

    #[test]
    fn shrinking_averages_and_channels_convert() {
        let face = ramp(60, 40, 3);
        let small = fit(&face, 10, 1);
        assert_eq!((small.width, small.channels), (10, 1));
        // Each output pixel averages six columns of a ramp of slope 4: centres 10, 34, 58 ...
        for (x, &v) in small.data[..10].iter().enumerate() {
            assert!((f32::from(v) - (10.0 + 24.0 * x as f32)).abs() <= 2.0, "{x}: {v}");
        }
        assert_eq!(fit(&ramp(48, 48, 1), 48, 3).data[..6], [0, 0, 0, 4, 4, 4]);
    }

    #[test]
    fn switching_erasing_off_does_not_move_the_crop() {
        let face = ramp(48, 48, 1);
        let how = Augment { crop_min: 0.5, rotate: 10.0, flip: true, erase: 1.0 };
        let a = augment(&face, 48, 1, &how, &mut Streams::new(3).at("t", &[]));
        let b = augment(&face, 48, 1, &Augment { erase: 0.0, ..how }, &mut Streams::new(3).at("t", &[]));
        let same = a.data.iter().zip(&b.data).filter(|(a, b)| a == b).count();
        assert!(same > 48 * 48 / 2 && same < 48 * 48);
    }
}
