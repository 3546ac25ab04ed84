//! The contact sheet: a page of faces, a row per class, with what the annotators said.
//!
//! Owns the layout and the lettering, which other sheets of faces use too. Rows are given labels; where the truth is known and differs, the face is framed and the truth named
//! in red. The sheet is for looking at: it reads pictures, never changes a pack.

use super::profile::ambiguous;
use super::{Face, Pack, Pixels, Protocol, Split};
use crate::random::{SliceRandom, Streams};
use anyhow::{Context, Result, anyhow, bail};
use font8x8::UnicodeFonts;
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use std::io::BufWriter;
use std::path::Path;

pub(crate) const PAPER: Rgb<u8> = Rgb([250, 249, 246]);
pub(crate) const INK: Rgb<u8> = Rgb([34, 36, 42]);
pub(crate) const FAINT: Rgb<u8> = Rgb([128, 130, 138]);
pub(crate) const RULE: Rgb<u8> = Rgb([222, 220, 214]);
pub(crate) const WRONG: Rgb<u8> = Rgb([196, 40, 36]);

/// Width and height of a letter.
pub(crate) const LETTER: u32 = 8;
pub(crate) const MARGIN: u32 = 24;
pub(crate) const GAP: u32 = 26;
const HEADER: u32 = 66;
/// Pixels of the largest sheet: a pack may have many classes with long names.
const LARGEST: u64 = 64 << 20;
/// Two lines of text under a face.
const CAPTION: u32 = 30;

/// What to show.
#[derive(Clone, Debug)]
pub struct SheetConfig {
    pub per_class: usize,
    pub split: Split,
    pub seed: u64,
    /// Only faces that annotators read in more than one way.
    pub ambiguous: bool,
}

/// Lays out the sheet: one row of up to `per_class` faces for each class, drawn at random by `seed`.
///
/// # Errors
/// If a picture cannot be read from the pack.
pub fn sheet(pack: &Pack, config: &SheetConfig) -> Result<RgbImage> {
    let card = pack.protocol();
    let rows: Vec<(usize, Vec<usize>)> = (0..card.classes.len())
        .map(|class| {
            let mut all = pack.split(config.split);
            all.retain(|&i| {
                let face = &pack.faces()[i];
                face.label.map(usize::from) == Some(class) && (!config.ambiguous || ambiguous(face, card))
            });
            let total = all.len();
            all.shuffle(&mut Streams::new(config.seed).at("sheet", &[class as u64]));
            all.truncate(config.per_class);
            (total, all)
        })
        .collect();

    let largest = rows.iter().flat_map(|r| &r.1).map(|&i| pack.size(i).0.max(pack.size(i).1)).max().unwrap_or(96);
    // Small pictures grow by a whole factor, large ones are bounded so that the page stays a page.
    let cell = (largest as u32 * 96u32.div_ceil(largest as u32)).clamp(96, 224);
    let longest = card.classes.iter().map(|c| c.chars().count()).max().unwrap_or(0) as u32;
    let left = MARGIN + (longest * 2 * LETTER).max(12 * LETTER) + GAP;
    let (column, row) = (cell + GAP, cell + CAPTION + GAP);
    let title = format!(
        "{} - {}{}",
        pack.path().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        config.split,
        if config.ambiguous { ", ambiguous faces" } else { "" }
    );
    let legend = format!("card {} ({})  |  votes under each face  |  red: the given label is not the truth", card.name, card.hash());
    let content = (left + config.per_class as u32 * column).max(MARGIN + legend.chars().count() as u32 * LETTER);
    let width = content.max(MARGIN + title.chars().count() as u32 * 2 * LETTER) + MARGIN - GAP.min(MARGIN);
    let height = HEADER + rows.len() as u32 * row + MARGIN;
    if u64::from(width) * u64::from(height) > LARGEST {
        bail!("a sheet of {width} x {height} pixels is too large; ask for fewer faces in a row");
    }
    let mut page = RgbImage::from_pixel(width, height, PAPER);
    write(&mut page, MARGIN, 20, 2, INK, &title);
    write(&mut page, MARGIN, 44, 1, FAINT, &legend);

    for (class, (total, faces)) in rows.iter().enumerate() {
        let y = HEADER + class as u32 * row;
        let line = y - GAP / 2 + 2;
        (MARGIN..width - MARGIN).for_each(|x| page.put_pixel(x, line, RULE));
        write(&mut page, MARGIN, y + cell / 2 - 12, 2, INK, &card.classes[class]);
        let note = if *total == 0 { "none".to_string() } else { format!("{} of {total}", faces.len()) };
        write(&mut page, MARGIN, y + cell / 2 + 10, 1, FAINT, &note);
        for (k, &i) in faces.iter().enumerate() {
            let x = left + k as u32 * column;
            let face = &pack.faces()[i];
            let wrong = face.truth.is_some() && face.truth != face.label;
            if wrong {
                frame(&mut page, x, y + 4, cell, 3);
            }
            let picture = enlarge(&pack.pixels(i)?, cell)?;
            imageops::replace(&mut page, &picture, i64::from(x), i64::from(y + 4));
            let fits = (column - LETTER) / LETTER;
            write(&mut page, x, y + cell + 11, 1, INK, &votes(face, card, fits as usize));
            if let (true, Some(truth)) = (wrong, face.truth) {
                write(&mut page, x, y + cell + 22, 1, WRONG, &format!("is {}", card.classes[usize::from(truth)]));
            }
        }
    }
    Ok(page)
}

/// Saves `page` as PNG; the file appears complete or not at all.
pub fn save(page: &RgbImage, path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new().prefix(".moue-sheet-").tempfile_in(folder).with_context(failed)?;
    {
        let mut buffered = std::io::Cursor::new(Vec::new());
        page.write_to(&mut buffered, ImageFormat::Png).with_context(failed)?;
        let mut out = BufWriter::new(file.as_file_mut());
        std::io::Write::write_all(&mut out, buffered.get_ref()).with_context(failed)?;
        std::io::Write::flush(&mut out).with_context(failed)?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private, a sheet is for showing.
        let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    file.persist(path).map_err(|e| e.error).with_context(failed)?;
    Ok(())
}

/// The picture on a square of `cell` pixels, aspect ratio kept.
pub(crate) fn enlarge(pixels: &Pixels, cell: u32) -> Result<RgbImage> {
    let (w, h) = (pixels.width as u32, pixels.height as u32);
    let data = if pixels.channels == 3 { pixels.data.clone() } else { pixels.data.iter().flat_map(|&v| [v; 3]).collect() };
    let picture = RgbImage::from_raw(w, h, data).ok_or_else(|| anyhow!("a picture of {w}x{h} pixels has the wrong length"))?;
    let factor = f64::from(cell) / f64::from(w.max(h));
    let side = |n: u32| ((f64::from(n) * factor).round() as u32).max(1);
    let resized = imageops::resize(&picture, side(w), side(h), FilterType::CatmullRom);
    let mut square = RgbImage::from_pixel(cell, cell, PAPER);
    imageops::replace(&mut square, &resized, i64::from((cell - resized.width()) / 2), i64::from((cell - resized.height()) / 2));
    Ok(square)
}

/// `fea 5 sur 4 +1`: the columns with most votes, as many as fit in `letters`, then the number of votes left out.
pub(crate) fn votes(face: &Face, card: &Protocol, letters: usize) -> String {
    let total: u64 = face.votes.iter().map(|&v| u64::from(v)).sum();
    if total == 0 {
        return "no votes".into();
    }
    // Weights in thousandths are shown in per cent.
    let shown = |v: u64| if total > 99 { (v * 100 + total / 2) / total } else { v };
    let mut columns: Vec<(u64, &str)> = face.votes.iter().map(|&v| u64::from(v)).zip(card.columns()).filter(|c| c.0 > 0).collect();
    columns.sort_by_key(|c| std::cmp::Reverse(c.0));
    let mut text = String::new();
    let mut left = total;
    for (count, name) in columns {
        let short: String = name.chars().take(3).collect();
        let next = format!("{}{short} {}", if text.is_empty() { "" } else { " " }, shown(count));
        let rest = if left > count { format!(" +{}", shown(left - count)) } else { String::new() };
        if !text.is_empty() && text.chars().count() + next.chars().count() + rest.len() > letters {
            return format!("{text} +{}", shown(left));
        }
        text.push_str(&next);
        left -= count;
    }
    text
}

/// A frame of `thick` pixels around the square at `x`, `y`.
fn frame(page: &mut RgbImage, x: u32, y: u32, side: u32, thick: u32) {
    for v in y - thick..y + side + thick {
        for u in x - thick..x + side + thick {
            page.put_pixel(u, v, WRONG);
        }
    }
}

/// Writes `text` with its top left corner at `x`, `y`, each dot `dot` pixels wide; letters beyond the page are cut off.
pub(crate) fn write(page: &mut RgbImage, x: u32, y: u32, dot: u32, colour: Rgb<u8>, text: &str) {
    for (k, letter) in text.chars().enumerate() {
        let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter)).unwrap_or([0x7e; 8]);
        let start = x + k as u32 * LETTER * dot;
        for (v, bits) in glyph.iter().enumerate() {
            for u in 0..8 {
                if bits & (1 << u) != 0 {
                    for (du, dv) in (0..dot).flat_map(|a| (0..dot).map(move |b| (a, b))) {
                        let (px, py) = (start + u * dot + du, y + v as u32 * dot + dv);
                        if px < page.width() && py < page.height() {
                            page.put_pixel(px, py, colour);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Protocol {
        Protocol {
            name: "three".into(),
            classes: vec!["fear".into(), "surprise".into(), "sadness".into()],
            extra_columns: vec!["unknown".into()],
            rule: "argmax".into(),
            source: "test".into(),
        }
    }

    fn said(counts: [u32; 4], letters: usize) -> String {
        let mut face = Face::new("f", Split::Train);
        face.votes = counts.to_vec();
        votes(&face, &card(), letters)
    }

    #[test]
    fn votes_are_named_by_three_letters_and_cut_to_fit() {
        assert_eq!(said([5, 4, 0, 0], 14), "fea 5 sur 4");
        assert_eq!(said([5, 4, 1, 0], 14), "fea 5 sur 4 +1");
        assert_eq!(said([2, 4, 1, 3], 14), "sur 4 unk 3 +3");
        assert_eq!(said([5, 4, 1, 0], 30), "fea 5 sur 4 sad 1");
        assert_eq!(said([0, 0, 10, 0], 14), "sad 10");
        assert_eq!(said([600, 400, 0, 0], 14), "fea 60 sur 40");
        assert_eq!(said([0; 4], 14), "no votes");
    }

    #[test]
    fn odd_shapes_keep_their_aspect_ratio() {
        let square = enlarge(&Pixels::new(20, 10, 1, vec![0; 200]), 100).unwrap();
        assert_eq!(square.dimensions(), (100, 100));
        assert_eq!(square.get_pixel(50, 10), &PAPER);
        assert_eq!(square.get_pixel(50, 50), &Rgb([0, 0, 0]));
    }
}
