//! The pictures of faces: watched ones, from the pack that the manifest names, and what pretraining makes of some, from the run's `media`.
//!
//! The pack is opened on a thread: a large index takes seconds, and the dashboard waits for nobody. Where the pack is not on this machine
//! the board says so and shows everything else.

use super::state::Sheet;
use crate::dataset::{Pack, Pixels, picture};
use crate::failure::one_line;
use crate::limits;
use crate::run::progress::plain;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

/// A small picture: rows of RGB.
pub type Thumbnail = Vec<Vec<[u8; 3]>>;
type Opened = Result<(Pack, HashMap<String, usize>), String>;
/// Picture and size in pixels.
type Key = (Source, usize, usize);

/// A picture that can be had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A face of the pack, by its id.
    Face(String),
    /// A tile of a page of the run.
    Tile { path: String, column: u32, row: u32 },
}

/// Thumbnails kept; when there are more (many sizes, by resizing the terminal) all are made anew.
const MOST: usize = 512;

#[derive(Default)]
pub struct Faces {
    opened: Option<Arc<OnceLock<Opened>>>,
    /// The run's folder, and the page that was looked at last.
    folder: PathBuf,
    page: RefCell<Option<(String, Option<Pixels>)>>,
    made: RefCell<HashMap<Key, Option<Thumbnail>>>,
}

impl Faces {
    /// Begins to open `pack`; `wait` until it is open. Pages are those of the run in `folder`.
    pub fn open(folder: &Path, pack: Option<PathBuf>, wait: bool) -> Self {
        let folder = folder.to_path_buf();
        let Some(path) = pack else { return Self { folder, ..Self::default() } };
        let opened = Arc::new(OnceLock::new());
        let work = {
            let opened = Arc::clone(&opened);
            move || {
                let pack = Pack::open(&path).map_err(|e| plain(&one_line(&e))).map(|pack| {
                    let index = pack.faces().iter().enumerate().map(|(i, face)| (face.id.clone(), i)).collect();
                    (pack, index)
                });
                let _ = opened.set(pack);
            }
        };
        match thread::Builder::new().name("pack".into()).spawn(work) {
            Ok(thread) if wait => drop(thread.join()),
            _ => {}
        }
        Self { opened: Some(opened), folder, ..Self::default() }
    }

    fn pack(&self) -> Option<&Opened> {
        self.opened.as_ref()?.get()
    }

    /// Whether the pack has been opened or given up.
    pub fn settled(&self) -> bool {
        self.opened.as_ref().is_none_or(|opened| opened.get().is_some())
    }

    /// Why there are no pictures.
    pub fn problem(&self) -> Option<&str> {
        match self.pack()? {
            Ok(_) => None,
            Err(error) => Some(error),
        }
    }

    /// The whole picture; none where it cannot be had.
    pub fn pixels(&self, source: &Source, sheet: Option<&Sheet>) -> Option<Pixels> {
        match source {
            Source::Face(face) => {
                let Some(Ok((pack, index))) = self.pack() else { return None };
                pack.pixels(*index.get(face)?).ok()
            }
            Source::Tile { path, column, row } => {
                let mut page = self.page.borrow_mut();
                if page.as_ref().is_none_or(|(known, _)| known != path) {
                    *page = Some((path.clone(), read_page(&self.folder, path)));
                }
                tile(page.as_ref()?.1.as_ref()?, sheet?, *column, *row)
            }
        }
    }

    /// The picture in `width` x `height` pixels, its middle where the shape differs; none where it cannot be had.
    pub fn thumbnail(&self, source: &Source, sheet: Option<&Sheet>, width: usize, height: usize) -> Option<Thumbnail> {
        if !self.settled() && matches!(source, Source::Face(_)) {
            return None;
        }
        let mut made = self.made.borrow_mut();
        if made.len() >= MOST {
            made.clear();
        }
        // Tiles are compared with one another; only a face of its own may be brightened.
        let stretch = matches!(source, Source::Face(_));
        let make = || Some(shrink(&self.pixels(source, sheet)?, width, height, stretch));
        made.entry((source.clone(), width, height)).or_insert_with(make).clone()
    }
}

/// A page of the run; none where it is missing, too large, or not in the run's folder.
fn read_page(folder: &Path, path: &str) -> Option<Pixels> {
    let path = Path::new(path);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let bytes = limits::read(&folder.join(path), picture::MAX_FILE).ok()?;
    let page = picture::open(&bytes).ok()?.0.into_rgb8();
    Some(Pixels::new(page.width() as usize, page.height() as usize, 3, page.into_raw()))
}

/// One tile of a page.
fn tile(page: &Pixels, sheet: &Sheet, column: u32, row: u32) -> Option<Pixels> {
    let gap = sheet.gap as usize;
    let side = |whole: usize, n: u32| whole.checked_sub(gap)?.checked_div(n as usize)?.checked_sub(gap).filter(|side| *side > 0);
    let (width, height) = (side(page.width, sheet.columns)?, side(page.height, sheet.rows)?);
    if column >= sheet.columns || row >= sheet.rows {
        return None;
    }
    let (left, top) = (gap + column as usize * (width + gap), gap + row as usize * (height + gap));
    let lines = (top..top + height).flat_map(|y| &page.data[(y * page.width + left) * 3..][..width * 3]);
    Some(Pixels::new(width, height, 3, lines.copied().collect()))
}

/// Means over boxes of pixels, of the largest part in the middle that has the wanted shape; `stretch`: over the whole range of greys.
fn shrink(picture: &Pixels, width: usize, height: usize, stretch: bool) -> Thumbnail {
    let (w, h) = (picture.width as f64, picture.height as f64);
    let scale = (w / width.max(1) as f64).min(h / height.max(1) as f64);
    let (left, top) = ((w - scale * width as f64) / 2.0, (h - scale * height as f64) / 2.0);
    let span = |i: usize, start: f64, limit: usize| {
        let from = ((start + i as f64 * scale) as usize).min(limit - 1);
        let to = ((start + (i + 1) as f64 * scale).ceil() as usize).clamp(from + 1, limit);
        from..to
    };
    let mean = |row: usize, column: usize| -> [f64; 3] {
        let (ys, xs) = (span(row, top, picture.height), span(column, left, picture.width));
        let n = (ys.len() * xs.len()) as f64;
        let mut sum = [0.0; 3];
        for y in ys {
            for x in xs.clone() {
                for (k, s) in sum.iter_mut().enumerate() {
                    let channel = if picture.channels == 3 { k } else { 0 };
                    *s += f64::from(picture.data[(y * picture.width + x) * picture.channels + channel]);
                }
            }
        }
        sum.map(|s| s / n)
    };
    let means: Vec<Vec<[f64; 3]>> = (0..height).map(|y| (0..width).map(|x| mean(y, x)).collect()).collect();
    let all = || means.iter().flatten().flatten().copied();
    let (low, high) = (all().fold(255.0, f64::min), all().fold(0.0, f64::max));
    let stretch = if stretch && high - low > 8.0 { 235.0 / (high - low) } else { 1.0 };
    let level = |v: f64| if stretch > 1.0 { (10.0 + (v - low) * stretch).round() as u8 } else { v.round() as u8 };
    means.iter().map(|row| row.iter().map(|c| c.map(level)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_takes_the_middle_and_stretches_the_greys() {
        // Left half 100, right half 140, with margins that must not be seen.
        let mut data = vec![0; 4 * 8];
        for y in 0..4 {
            for x in 2..6 {
                data[y * 8 + x] = if x < 4 { 100 } else { 140 };
            }
        }
        let small = shrink(&Pixels::new(8, 4, 1, data), 2, 2, true);
        assert_eq!(small, [[[10; 3], [245; 3]], [[10; 3], [245; 3]]]);
        let flat = shrink(&Pixels::new(1, 1, 3, vec![9, 10, 11]), 3, 5, true);
        assert!(flat.len() == 5 && flat.iter().flatten().all(|c| *c == [9, 10, 11]));
    }

    #[test]
    fn a_missing_pack_is_told() {
        let faces = Faces::open(Path::new(""), Some("no/such.moue".into()), true);
        assert!(faces.settled() && faces.problem().unwrap().contains("no such file"));
        assert_eq!(faces.thumbnail(&Source::Face("a".into()), None, 4, 4), None);
        assert!(Faces::open(Path::new(""), None, true).problem().is_none());
    }

    #[test]
    fn tiles_are_cut_out_of_their_page() {
        let folder = tempfile::tempdir().unwrap();
        let mut page = image::RgbImage::new(3 + 2 * 7, 3 + 7);
        for (i, x) in [3, 10].into_iter().enumerate() {
            (0..16).for_each(|k| page.put_pixel(x + k % 4, 3 + k / 4, image::Rgb([100 * (i as u8 + 1); 3])));
        }
        page.save(folder.path().join("a.png")).unwrap();
        let faces = Faces::open(folder.path(), None, true);
        let sheet = Sheet { path: "a.png".into(), columns: 2, rows: 1, gap: 3, epoch: 1.0 };
        let tile = |path: &str, column, row| faces.pixels(&Source::Tile { path: path.into(), column, row }, Some(&sheet));
        for column in 0..2 {
            let tile = tile("a.png", column, 0).unwrap();
            assert_eq!((tile.width, tile.height), (4, 4));
            assert!(tile.data.iter().all(|&v| v == 100 * (column as u8 + 1)), "{:?}", tile.data);
        }
        assert!(tile("a.png", 2, 0).is_none() && tile("a.png", 0, 1).is_none());
        // A log from a stranger names what it likes.
        let inside = folder.path().join("a.png").display().to_string();
        assert!(tile("../a.png", 0, 0).is_none() && tile(&inside, 0, 0).is_none() && tile("b.png", 0, 0).is_none());
        std::fs::write(folder.path().join("c.png"), b"no picture").unwrap();
        assert!(tile("c.png", 0, 0).is_none());
    }
}
