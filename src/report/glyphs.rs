//! Histograms of oriented gradients as pictures: in each cell nine strokes through its centre, one per bin.
//!
//! A stroke lies *along* the edges that voted for its bin, so the strokes redraw the contours that the descriptor kept. It is as bright
//! as the bin's weight and as long as the weight's square root: a cell with one clear edge shows one full stroke, a cell without
//! direction a small star. Of several channels the mean is drawn.
//!
//! Bins are 20 degrees wide and a vote does not tell where in the bin it fell, so a stroke stands for its bin's middle: vertical edges lie
//! in the middle of bin 4 and are drawn exactly vertical, horizontal ones on the border of bins 8 and 0 and lean by ten degrees.

use crate::dataset::Pixels;
use crate::kernels::reference::hog::{BINS, Layout};
use image::imageops::{self, FilterType};
use image::{GrayImage, Luma, Rgb, RgbImage};

/// Strokes at full weight.
const LIGHT: [f32; 3] = [255.0, 245.0, 226.0];
/// What is left of a white background: dark and cool, so that nothing in it is taken for a stroke.
const DIM: [f32; 3] = [0.34, 0.37, 0.42];
/// Shown where there is no background.
const DARK: [f32; 3] = [14.0, 15.0, 18.0];
/// Side of a cell on the page that shows its nine strokes apart.
const READABLE: u32 = 32;
/// Longer side of a page that shows a face.
const PAGE: u32 = 448;
/// Longest side of a page that is enlarged.
const LARGEST: u32 = 4096;
/// How far a dark background is lightened before it is dimmed.
const MAX_GAIN: f32 = 3.0;

/// The whole factor that makes the strokes of a picture readable: cells of at least 32 pixels on a page of at least 448, unless the page
/// would be larger than 4096 pixels a side. At least 1.
pub fn scale(layout: Layout) -> u32 {
    let longest = layout.width.max(layout.height).max(1) as u32;
    READABLE.div_ceil(layout.cell as u32).max(PAGE.div_ceil(longest)).min(LARGEST / longest).max(1)
}

/// The direction of the edges in the middle of a bin, as a unit step `(right, down)`.
///
/// Bin b holds gradients at angles of 20 b to 20 (b + 1) degrees from the vertical axis, that is along `(sin, cos)` in steps right and
/// down. The edge is perpendicular to its gradient.
pub fn edge(bin: usize) -> (f32, f32) {
    let (sin, cos) = ((bin as f32 + 0.5) * std::f32::consts::PI / BINS as f32).sin_cos();
    (cos, -sin)
}

/// Draws `cells` `[C, 9, H / cell, W / cell]`, weights between 0 and 1, on a page of `W * scale` x `H * scale` pixels. Weights outside (a
/// network's guesses) are drawn as the nearest of these, NaN not at all. The background is the picture that the cells describe, or what is
/// left of it under a mask; none gives a dark page.
///
/// # Panics
/// If `cells` or `background` do not have the layout's size.
pub fn glyphs(cells: &[f32], layout: Layout, background: Option<&Pixels>, scale: u32) -> RgbImage {
    let (columns, rows) = (layout.cells_x(), layout.cells_y());
    let plane = columns * rows;
    assert_eq!(cells.len(), layout.channels * BINS * plane, "cells of {layout:?}");
    let mut page = page(layout, background, scale);
    let side = layout.cell as u32 * scale;
    let mut light = vec![0.0f32; (side * side) as usize];
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        light.fill(0.0);
        for bin in 0..BINS {
            let weight = |channel: usize| cells[(channel * BINS + bin) * plane + row * columns + column].clamp(0.0, 1.0);
            let mean = (0..layout.channels).map(weight).sum::<f32>() / layout.channels as f32;
            if mean > 0.0 {
                stroke(&mut light, side, bin, mean);
            }
        }
        let (left, top) = (column as u32 * side, row as u32 * side);
        for (at, &share) in light.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            let Rgb(below) = page.get_pixel_mut(left + at as u32 % side, top + at as u32 / side);
            for (value, full) in below.iter_mut().zip(LIGHT) {
                let dark = f32::from(*value);
                *value = (dark + (full - dark) * share).round() as u8;
            }
        }
    }
    page
}

/// Lays one stroke into a cell's light `[side, side]`. Where strokes cross, the brighter one stays: added up, the crossing would outshine
/// them all.
fn stroke(light: &mut [f32], side: u32, bin: usize, weight: f32) {
    let (right, down) = edge(bin);
    let middle = side as f32 / 2.0;
    let thick = (side as f32 * 0.038).max(0.6);
    // The round ends stay within the cell, or neighbours would run into each other.
    let reach = (middle - thick - 0.5).max(0.0) * weight.sqrt();
    for (at, value) in light.iter_mut().enumerate() {
        let (x, y) = ((at as u32 % side) as f32 + 0.5 - middle, (at as u32 / side) as f32 + 0.5 - middle);
        let along = (x * right + y * down).clamp(-reach, reach);
        let distance = (x - along * right).hypot(y - along * down);
        *value = value.max(weight * (thick + 0.5 - distance).clamp(0.0, 1.0));
    }
}

/// The empty page: the background enlarged, without colour, dimmed. A dark picture is lightened first, or nothing of it would be left.
fn page(layout: Layout, background: Option<&Pixels>, scale: u32) -> RgbImage {
    let (width, height) = (layout.width as u32, layout.height as u32);
    let Some(pixels) = background else {
        return RgbImage::from_pixel(width * scale, height * scale, Rgb(DARK.map(|v| v as u8)));
    };
    assert_eq!((pixels.width, pixels.height), (layout.width, layout.height), "the background's size");
    let gray = GrayImage::from_fn(width, height, |x, y| {
        let at = (y as usize * pixels.width + x as usize) * pixels.channels;
        Luma([match &pixels.data[at..at + pixels.channels] {
            [gray] => *gray,
            rgb => ((299 * u32::from(rgb[0]) + 587 * u32::from(rgb[1]) + 114 * u32::from(rgb[2]) + 500) / 1000) as u8,
        }])
    });
    let gain = gain(&gray);
    let gray = if scale == 1 { gray } else { imageops::resize(&gray, width * scale, height * scale, FilterType::CatmullRom) };
    RgbImage::from_fn(width * scale, height * scale, |x, y| {
        let value = (f32::from(gray.get_pixel(x, y).0[0]) * gain).min(255.0);
        Rgb(DIM.map(|share| (value * share).round() as u8))
    })
}

/// The factor that makes all but the brightest hundredth of a picture's pixels at most white, between 1 and 3.
fn gain(gray: &GrayImage) -> f32 {
    let mut counts = [0usize; 256];
    gray.pixels().for_each(|p| counts[usize::from(p.0[0])] += 1);
    let mut brighter = 0;
    let bright = (1..256).rev().find(|&value| {
        brighter += counts[value];
        brighter * 100 > gray.pixels().len()
    });
    (255.0 / bright.unwrap_or(1) as f32).clamp(1.0, MAX_GAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::reference::hog;

    fn layout(width: usize, height: usize, channels: usize) -> Layout {
        Layout { width, height, channels, cell: 8, window: 0 }
    }

    /// A gray picture of 64 x 64 pixels from a brightness by column and row.
    fn picture(brightness: impl Fn(f32, f32) -> f32) -> Pixels {
        let at = |i: usize| brightness((i % 64) as f32, (i / 64) as f32).round().clamp(0.0, 255.0) as u8;
        Pixels::new(64, 64, 1, (0..64 * 64).map(at).collect())
    }

    /// The angle of the light on a page within a square, in degrees counterclockwise from the right: the main axis of its moments.
    fn angle(page: &RgbImage, left: u32, top: u32, side: u32) -> f32 {
        let middle = side as f32 / 2.0;
        let (mut xx, mut xy, mut yy) = (0.0f32, 0.0f32, 0.0f32);
        for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
            let light = f32::from(page.get_pixel(left + column, top + row).0[0]) - DARK[0];
            // Up is positive here.
            let (x, y) = (column as f32 + 0.5 - middle, middle - row as f32 - 0.5);
            (xx, xy, yy) = (xx + light * x * x, xy + light * x * y, yy + light * y * y);
        }
        (0.5 * (2.0 * xy).atan2(xx - yy)).to_degrees().rem_euclid(180.0)
    }

    /// Degrees between two undirected lines.
    fn between(a: f32, b: f32) -> f32 {
        let apart = (a - b).rem_euclid(180.0);
        apart.min(180.0 - apart)
    }

    /// The angle drawn in the cell in row 4, column 4 (pixels 32 to 39) for a picture.
    fn drawn(pixels: &Pixels) -> f32 {
        let page = glyphs(&hog::cells(&pixels.data, layout(64, 64, 1)), layout(64, 64, 1), None, 4);
        angle(&page, 128, 128, 32)
    }

    #[test]
    fn strokes_lie_along_edges() {
        let step = |side: bool| if side { 200.0 } else { 40.0 };
        assert!(between(drawn(&picture(|x, _| step(x >= 36.0))), 90.0) < 0.5, "a vertical edge");
        assert!(between(drawn(&picture(|x, _| 4.0 * x)), 90.0) < 0.5, "a horizontal ramp");
        // On a border of two bins: half a bin off.
        assert!(between(drawn(&picture(|_, y| step(y >= 36.0))), 0.0) < 10.5, "a horizontal edge");
        assert!(between(drawn(&picture(|_, y| 4.0 * y)), 0.0) < 10.5, "a vertical ramp");
        // Equal brightness where x + y is constant: a slash, rising to the right. And a backslash.
        assert!(between(drawn(&picture(|x, y| step(x + y >= 72.0))), 45.0) < 5.5, "a rising edge");
        assert!(between(drawn(&picture(|x, y| step(x >= y))), 135.0) < 5.5, "a falling edge");
    }

    #[test]
    fn gratings_of_every_angle_are_drawn_along_their_lines() {
        for degrees in (0..180).step_by(3) {
            let (sin, cos) = (degrees as f32).to_radians().sin_cos();
            // Lines at this angle, counted counterclockwise: brightness varies across them.
            let pixels = picture(|x, y| 128.0 + 120.0 * ((sin * x + cos * y) * 0.4).sin());
            let cells = hog::cells(&pixels.data, layout(64, 64, 1));
            // The whole picture as one cell, without the edges of the picture.
            let sum = |bin: usize| (1..7).flat_map(|r| (1..7).map(move |c| (r, c))).map(|(r, c)| cells[bin * 64 + r * 8 + c]).sum::<f32>();
            let strongest = (0..BINS).max_by(|&a, &b| sum(a).total_cmp(&sum(b))).unwrap();
            let mut one = vec![0.0; BINS];
            one[strongest] = 1.0;
            let page = glyphs(&one, layout(8, 8, 1), None, 4);
            let off = between(angle(&page, 0, 0, 32), degrees as f32);
            // Half a bin, and what Sobel's small filter and rounding add.
            assert!(off < 12.0, "lines at {degrees} degrees are drawn {off} degrees off");
        }
    }

    #[test]
    fn the_middle_of_a_bin_is_where_the_kernel_puts_it() {
        for bin in 0..BINS {
            // A plane whose gradient lies across the bin's edges, steep enough that rounding hardly turns it.
            let (right, down) = edge(bin);
            let pixels = picture(|x, y| 128.0 + 16.0 * (-(x - 36.0) * down + (y - 36.0) * right));
            let cells = hog::cells(&pixels.data, layout(64, 64, 1));
            let weight = |b: usize| cells[b * 64 + 4 * 8 + 4];
            assert!(weight(bin) > 0.9, "bin {bin}: {:?}", (0..BINS).map(weight).collect::<Vec<_>>());
        }
    }

    #[test]
    fn weight_is_brightness_and_length() {
        let lit = |weight: f32| {
            let mut cells = vec![0.0; BINS];
            cells[4] = weight;
            let page = glyphs(&cells, layout(8, 8, 1), None, 4);
            let brightest = page.pixels().map(|p| p.0[0]).max().unwrap();
            let rows = (0..32).filter(|&y| (0..32).any(|x| page.get_pixel(x, y).0[0] > DARK[0] as u8 + 4)).count();
            (brightest, rows)
        };
        assert_eq!(lit(1.0).0, 255);
        let (brightest, rows) = lit(0.25);
        assert!((70..80).contains(&brightest), "{brightest}");
        assert!(rows < lit(0.5).1 && lit(0.5).1 < lit(1.0).1, "{rows} rows");
        // The page around a stroke of full length stays dark: strokes do not leave their cell.
        let mut cells = vec![0.0; BINS * 9];
        (0..BINS).for_each(|bin| cells[bin * 9 + 4] = 1.0);
        let page = glyphs(&cells, layout(24, 24, 1), None, 4);
        let outside = page.enumerate_pixels().filter(|(x, y, _)| !(32..64).contains(x) || !(32..64).contains(y));
        assert!(outside.into_iter().all(|(_, _, p)| p.0 == DARK.map(|v| v as u8)));
    }

    #[test]
    fn what_is_no_weight_is_drawn_as_the_nearest_or_not_at_all() {
        let page = |weight: f32| glyphs(&[weight; BINS], layout(8, 8, 1), None, 4);
        let empty = page(0.0);
        assert!(page(-0.3) == empty && page(f32::NAN) == empty && page(f32::NEG_INFINITY) == empty);
        assert!(page(1.7) == page(1.0) && page(f32::INFINITY) == page(1.0) && page(1.0) != empty);
        // Channels are drawn as their mean.
        let three = |a: f32, b: f32, c: f32| {
            let cells: Vec<f32> = [a, b, c].iter().flat_map(|&v| [v; BINS]).collect();
            glyphs(&cells, layout(8, 8, 3), None, 4)
        };
        assert!(three(0.25, 0.5, 0.75) == page(0.5));
    }

    #[test]
    fn the_background_is_the_whole_picture_dimmed() {
        // 20 x 13 pixels: 2 x 1 cells, the rest of the picture stays without strokes.
        let white = Pixels::new(20, 13, 3, vec![255; 20 * 13 * 3]);
        let page = glyphs(&[0.0; 3 * BINS * 2], layout(20, 13, 3), Some(&white), 4);
        assert_eq!(page.dimensions(), (80, 52));
        assert!(page.pixels().all(|p| p.0 == [87, 94, 107]));
        let page = glyphs(&[1.0; 3 * BINS * 2], layout(20, 13, 3), Some(&white), 4);
        assert!(page.enumerate_pixels().all(|(x, y, p)| p.0 == [87, 94, 107] || x < 64 && y < 32));
        // A dark picture is lightened as if its brightest tone were white, but at most threefold.
        let tone = |value: u8| {
            let flat = Pixels::new(8, 8, 1, vec![value; 64]);
            glyphs(&[0.0; BINS], layout(8, 8, 1), Some(&flat), 1).get_pixel(3, 3).0
        };
        assert_eq!((tone(150), tone(40), tone(0)), ([87, 94, 107], [41, 44, 50], [0; 3]));
    }

    #[test]
    fn small_pictures_are_enlarged_and_large_ones_bounded() {
        assert_eq!(scale(layout(112, 112, 3)), 4);
        assert_eq!(scale(layout(48, 40, 1)), 10);
        assert_eq!(scale(Layout { cell: 5, ..layout(400, 40, 1) }), 7);
        assert_eq!(scale(Layout { cell: 40, ..layout(480, 224, 1) }), 1);
        assert_eq!(scale(layout(1500, 100, 3)), 2);
        assert_eq!(scale(layout(9000, 100, 3)), 1);
    }
}
