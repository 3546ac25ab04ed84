//! Where the class queries look: a row for each face, the face itself and then one panel a class, heat over the face.
//!
//! What is drawn is handed in; this file owns colours and layout. Each panel's heat is scaled by its own largest value, so that a class that
//! looks everywhere a little can be told from one that looks at one place; how sure the network is stands below, in numbers.

use crate::dataset::Pixels;
use crate::dataset::sheet::{FAINT, INK, LETTER, MARGIN, PAPER, enlarge, write};
use anyhow::Result;
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, Rgb, RgbImage};

/// One class's panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    pub class: String,
    pub probability: f64,
    /// Weights over the places of the face, `[G * G]` row-major, not negative.
    pub heat: Vec<f32>,
}

/// One face.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    /// The square crop that the network saw.
    pub face: Pixels,
    pub panels: Vec<Panel>,
}

/// Side of a panel, and the height of what is written below it.
const CELL: u32 = 160;
const CAPTION: u32 = 32;
const GAP: u32 = 14;
const HEADER: u32 = 46;
/// Colours of heat from none to the most: dark violet, red, yellow.
const RAMP: [[f32; 3]; 4] = [[20.0, 8.0, 60.0], [150.0, 30.0, 110.0], [238.0, 90.0, 40.0], [252.0, 240.0, 110.0]];
/// How much of the face the hottest place hides.
const COVER: f32 = 0.72;

/// Draws the page.
///
/// # Errors
/// A face whose pixels are not what its size says.
///
/// # Panics
/// If a panel's heat is not a square grid.
pub fn page(rows: &[Row]) -> Result<RgbImage> {
    let title = "where each class's query looks: cross-attention of the decoder's last layer, mean of its heads";
    let columns = 1 + rows.iter().map(|row| row.panels.len()).max().unwrap_or(0) as u32;
    let content = (columns * (CELL + GAP) - GAP).max(title.len() as u32 * LETTER);
    let mut page = RgbImage::from_pixel(content + 2 * MARGIN, HEADER + rows.len() as u32 * (CELL + CAPTION) + MARGIN / 2, PAPER);
    write(&mut page, MARGIN, 18, 1, FAINT, title);
    for (r, row) in rows.iter().enumerate() {
        let y = HEADER + r as u32 * (CELL + CAPTION);
        let place = |column: u32| MARGIN + column * (CELL + GAP);
        let face = enlarge(&row.face, CELL)?;
        imageops::replace(&mut page, &face, i64::from(place(0)), i64::from(y));
        write(&mut page, place(0), y + CELL + 6, 1, FAINT, &tail(&row.name));
        for (column, panel) in (1..).zip(&row.panels) {
            let x = place(column);
            imageops::replace(&mut page, &heated(&face, &panel.heat), i64::from(x), i64::from(y));
            let percent = format!(" {:.1} %", 100.0 * panel.probability);
            let room = (CELL / LETTER) as usize - percent.len();
            let class: String = panel.class.chars().take(room).collect();
            write(&mut page, x, y + CELL + 6, 1, INK, &format!("{class}{percent}"));
        }
    }
    Ok(page)
}

/// The end of a name, as much as fits under a face.
fn tail(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let room = (CELL / LETTER) as usize;
    if letters.len() <= room { name.to_string() } else { "..".chars().chain(letters[letters.len() - room + 2..].iter().copied()).collect() }
}

/// A face in gray with heat over it.
fn heated(face: &RgbImage, heat: &[f32]) -> RgbImage {
    let grid = heat.len().isqrt();
    assert_eq!(grid * grid, heat.len(), "a square grid of places");
    let most = heat.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let small =
        ImageBuffer::<Luma<f32>, Vec<f32>>::from_fn(grid as u32, grid as u32, |x, y| Luma([heat[y as usize * grid + x as usize] / most]));
    let large = imageops::resize(&small, face.width(), face.height(), FilterType::Triangle);
    RgbImage::from_fn(face.width(), face.height(), |x, y| {
        let [r, g, b] = face.get_pixel(x, y).0.map(f32::from);
        let gray = 0.299 * r + 0.587 * g + 0.114 * b;
        let v = large.get_pixel(x, y).0[0].clamp(0.0, 1.0);
        Rgb(colour(v).map(|c| (gray + (c - gray) * COVER * v.sqrt()).round() as u8))
    })
}

fn colour(v: f32) -> [f32; 3] {
    let at = v * (RAMP.len() - 1) as f32;
    let low = (at as usize).min(RAMP.len() - 2);
    std::array::from_fn(|c| RAMP[low][c] + (RAMP[low + 1][c] - RAMP[low][c]) * (at - low as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_lies_where_the_weight_is() {
        let mut heat = vec![0.0; 16];
        heat[7] = 0.4;
        let face = Pixels::new(8, 8, 1, vec![100; 64]);
        let panel = Panel { class: "a class with a very long name indeed".into(), probability: 0.5, heat };
        let row = Row { name: "folder/with/a/long/path/face.png".into(), face, panels: vec![panel.clone(), panel] };
        let page = page(&[row.clone(), row]).unwrap();
        assert_eq!(page.height(), HEADER + 2 * (CELL + CAPTION) + MARGIN / 2);
        // Row 1, column 3 of the grid of 4, in the second panel of the second face.
        let (x, y) = (MARGIN + 2 * (CELL + GAP), HEADER + CELL + CAPTION);
        let hot = page.get_pixel(x + CELL * 7 / 8, y + CELL * 3 / 8).0;
        let cold = page.get_pixel(x + CELL / 8, y + CELL * 7 / 8).0;
        assert_eq!(cold, [100; 3]);
        assert!(hot[0] > 180 && hot[0] > hot[2] + 60, "{hot:?}");
        assert_eq!(tail("short.png"), "short.png");
        assert_eq!(tail("a/long/path/to/face.png").len(), 20);
    }
}
