//! What a network that predicts hidden patches makes of faces: a row of tiles for each face, rows below one another.
//!
//! Where histograms are predicted: the face, the face as the network sees it, the target's strokes over the dimmed face, and the
//! prediction's. Where pixels are predicted the face itself is the target: the face, what is seen of it, and what is made of it. In a
//! prediction visible patches are the true ones, as nothing is asked about them.

use super::glyphs::glyphs;
use crate::dataset::Pixels;
use crate::kernels::reference::hog::{Layout, from_tokens};
use image::{Rgb, RgbImage, imageops};

/// Sides that a tile and a cell of histograms have at least, in pixels of the picture.
const TILE: usize = 224;
const CELL: usize = 16;
/// Between and around tiles.
pub const GAP: u32 = 8;
const PAPER: Rgb<u8> = Rgb([14, 15, 18]);
/// What stands for a hidden patch.
const HIDDEN: u8 = 128;

/// What is predicted.
pub enum Content<'a> {
    /// Tokens `[N, C * 9 * (P / cell)^2]`.
    Hog { layout: Layout, target: &'a [f32], predicted: &'a [f32] },
    /// Pixels from 0 to 255, `[N, P * P * C]` in the order row, column, channel. Others are drawn as the nearest of these, NaN as 0.
    Pixels { predicted: &'a [f32] },
}

/// The tiles of one square face whose patches of `patch` pixels a side are `hidden` or not, row-major.
///
/// # Panics
/// If the slices do not have the face's size.
pub fn row(face: &Pixels, hidden: &[bool], patch: usize, content: Content) -> Vec<RgbImage> {
    assert_eq!(hidden.len(), (face.width / patch) * (face.height / patch), "a mask of {} patches", hidden.len());
    let seen = patched(face, hidden, patch, |_, _| HIDDEN);
    match content {
        Content::Hog { layout, target, predicted } => {
            let scale = TILE.div_ceil(face.width).max(CELL.div_ceil(layout.cell)) as u32;
            let token = layout.token_len(patch);
            let pasted: Vec<f32> = hidden
                .iter()
                .zip(target.chunks(token).zip(predicted.chunks(token)))
                .flat_map(|(&hidden, (target, predicted))| if hidden { predicted } else { target })
                .copied()
                .collect();
            let strokes = |tokens: &[f32], below: &Pixels| glyphs(&from_tokens(tokens, layout, patch), layout, Some(below), scale);
            vec![enlarged(face, scale), enlarged(&seen, scale), strokes(target, face), strokes(&pasted, &seen)]
        }
        Content::Pixels { predicted } => {
            let values = patch * patch * face.channels;
            let made = patched(face, hidden, patch, |place, i| predicted[place * values + i].round().clamp(0.0, 255.0) as u8);
            let scale = TILE.div_ceil(face.width) as u32;
            [face, &seen, &made].map(|p| enlarged(p, scale)).to_vec()
        }
    }
}

/// The face with other values in hidden patches, by patch and place in it.
fn patched(face: &Pixels, hidden: &[bool], patch: usize, value: impl Fn(usize, usize) -> u8) -> Pixels {
    let Pixels { width, height, channels, ref data } = *face;
    let at = |i: usize| {
        let (x, y, channel) = (i / channels % width, i / channels / width, i % channels);
        let place = y / patch * (width / patch) + x / patch;
        if hidden[place] { value(place, (y % patch * patch + x % patch) * channels + channel) } else { data[i] }
    };
    Pixels::new(width, height, channels, (0..data.len()).map(at).collect())
}

/// A picture in colour with every pixel a square.
fn enlarged(pixels: &Pixels, scale: u32) -> RgbImage {
    let small = RgbImage::from_fn(pixels.width as u32, pixels.height as u32, |x, y| {
        let at = (y as usize * pixels.width + x as usize) * pixels.channels;
        Rgb(std::array::from_fn(|c| pixels.data[at + c.min(pixels.channels - 1)]))
    });
    imageops::resize(&small, small.width() * scale, small.height() * scale, imageops::FilterType::Nearest)
}

/// Rows of tiles of one size on one page.
pub fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let (width, height) = rows.iter().flatten().next().map_or((0, 0), |tile| tile.dimensions());
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let place = |i: u32, side: u32| GAP + i * (side + GAP);
    let mut page = RgbImage::from_pixel(place(columns, width), place(rows.len() as u32, height), PAPER);
    for (y, row) in (0..).zip(rows) {
        for (x, tile) in (0..).zip(row) {
            imageops::replace(&mut page, tile, place(x, width).into(), place(y, height).into());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::reference::hog;

    const LAYOUT: Layout = Layout { width: 16, height: 16, channels: 1, cell: 4, window: 0 };

    fn face(channels: usize) -> Pixels {
        Pixels::new(16, 16, channels, (0..16 * 16 * channels).map(|i| (i * 37 % 251) as u8).collect())
    }

    /// The pixel of a tile that shows a pixel of the face.
    fn shown(tile: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        tile.get_pixel(x * 14 + 7, y * 14 + 7).0
    }

    #[test]
    fn pixels_land_where_their_patch_is() {
        let (face, hidden) = (face(3), [false, true, false, true]);
        // Patch 1 is right above, its values count rows, columns and channels; patch 3 is right below and out of range.
        let predicted: Vec<f32> =
            (0..4 * 192).map(|i| [0.0, (i % 192) as f32, 0.0, if i % 2 == 0 { -9.0 } else { 999.0 }][i / 192]).collect();
        let tiles = row(&face, &hidden, 8, Content::Pixels { predicted: &predicted });
        assert_eq!(tiles.len(), 3);
        for (y, x) in (0..16).flat_map(|y| (0..16).map(move |x| (y, x))) {
            let at = (y * 16 + x) * 3;
            let own = [0, 1, 2].map(|c| face.data[at + c]);
            assert_eq!(shown(&tiles[0], x as u32, y as u32), own);
            let first = (y % 8 * 8 + x % 8) * 3;
            let made = match (x >= 8, y >= 8) {
                (false, _) => own,
                (true, false) => [first, first + 1, first + 2].map(|v| v as u8),
                (true, true) => [first, first + 1, first + 2].map(|v| if v % 2 == 0 { 0 } else { 255 }),
            };
            assert_eq!(shown(&tiles[2], x as u32, y as u32), made, "row {y}, column {x}");
            assert_eq!(shown(&tiles[1], x as u32, y as u32), if x >= 8 { [HIDDEN; 3] } else { own });
        }
    }

    #[test]
    fn strokes_are_the_targets_where_nothing_is_hidden() {
        let face = face(1);
        let target = hog::tokens(&hog::cells(&face.data, LAYOUT), LAYOUT, 8);
        let nothing = vec![0.0; target.len()];
        let tiles = |hidden: &[bool]| row(&face, hidden, 8, Content::Hog { layout: LAYOUT, target: &target, predicted: &nothing });
        let shown = tiles(&[false; 4]);
        assert!(shown.len() == 4 && shown[0] == shown[1] && shown[2] == shown[3] && shown[0] != shown[2]);
        let tiles = tiles(&[false, false, true, false]);
        let near = |a: &Rgb<u8>, b: &Rgb<u8>| a.0.iter().zip(b.0).all(|(a, b)| a.abs_diff(b) <= 2);
        // Away from the border of the patch, where the enlarged backgrounds run into each other.
        for (x, y) in (30..82).flat_map(|x| (142..194).map(move |y| (x, y))) {
            assert_eq!(tiles[3].get_pixel(x, y), tiles[3].get_pixel(50, 170), "a stroke in the hidden patch");
        }
        let strokes = |tile: &RgbImage| {
            (142..194).flat_map(|x| (142..194).map(move |y| (x, y))).map(|(x, y)| *tile.get_pixel(x, y)).collect::<Vec<_>>()
        };
        let (target, pasted) = (strokes(&tiles[2]), strokes(&tiles[3]));
        assert!(target.iter().zip(&pasted).all(|(a, b)| near(a, b)) && target.iter().any(|p| p != &target[0]));
    }

    #[test]
    fn a_sheet_holds_its_tiles_apart() {
        let tile = |v: u8| RgbImage::from_pixel(5, 4, Rgb([v; 3]));
        let page = sheet(&[vec![tile(1), tile(2)], vec![tile(3), tile(4)]]);
        assert_eq!(page.dimensions(), (3 * GAP + 10, 3 * GAP + 8));
        let count = |v: u8| page.pixels().filter(|p| p.0 == [v; 3]).count();
        assert!((1..=4).all(|v| count(v) == 20));
        assert_eq!((page.get_pixel(GAP, GAP).0, page.get_pixel(2 * GAP + 5, 2 * GAP + 4).0), ([1; 3], [4; 3]));
        assert_eq!(page.get_pixel(GAP + 5, GAP), &PAPER);
    }
}
