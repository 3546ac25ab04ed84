//! The pictures of watched faces, from the pack that the manifest names, at the size of a few characters.
//!
//! The pack is opened on a thread: a large index takes seconds, and the dashboard waits for nobody. Where the pack is not on this machine
//! the board says so and shows everything else.

use crate::dataset::{Pack, Pixels};
use crate::failure::one_line;
use crate::run::progress::plain;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;

/// A small picture: rows of RGB.
pub type Thumbnail = Vec<Vec<[u8; 3]>>;
type Opened = Result<(Pack, HashMap<String, usize>), String>;
/// Face and size in pixels.
type Key = (String, usize, usize);

/// Thumbnails kept; when there are more (many sizes, by resizing the terminal) all are made anew.
const MOST: usize = 512;

#[derive(Default)]
pub struct Faces {
    opened: Option<Arc<OnceLock<Opened>>>,
    made: RefCell<HashMap<Key, Option<Thumbnail>>>,
}

impl Faces {
    /// Begins to open `pack`; `wait` until it is open.
    pub fn open(pack: Option<PathBuf>, wait: bool) -> Self {
        let Some(path) = pack else { return Self::default() };
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
        Self { opened: Some(opened), made: RefCell::default() }
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

    /// The face in `width` x `height` pixels, its middle where the shape differs; none where the picture cannot be had.
    pub fn thumbnail(&self, face: &str, width: usize, height: usize) -> Option<Thumbnail> {
        let Some(Ok((pack, index))) = self.pack() else { return None };
        let mut made = self.made.borrow_mut();
        if made.len() >= MOST {
            made.clear();
        }
        let make = || Some(shrink(&pack.pixels(*index.get(face)?).ok()?, width, height));
        made.entry((face.into(), width, height)).or_insert_with(make).clone()
    }
}

/// Means over boxes of pixels, of the largest part in the middle that has the wanted shape. The grey range is stretched to be readable.
fn shrink(picture: &Pixels, width: usize, height: usize) -> Thumbnail {
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
    let stretch = if high - low > 8.0 { 235.0 / (high - low) } else { 1.0 };
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
        let small = shrink(&Pixels::new(8, 4, 1, data), 2, 2);
        assert_eq!(small, [[[10; 3], [245; 3]], [[10; 3], [245; 3]]]);
        let flat = shrink(&Pixels::new(1, 1, 3, vec![9, 10, 11]), 3, 5);
        assert!(flat.len() == 5 && flat.iter().flatten().all(|c| *c == [9, 10, 11]));
    }

    #[test]
    fn a_missing_pack_is_told() {
        let faces = Faces::open(Some("no/such.moue".into()), true);
        assert!(faces.settled() && faces.problem().unwrap().contains("no such file"));
        assert_eq!(faces.thumbnail("a", 4, 4), None);
        assert!(Faces::open(None, true).problem().is_none());
    }
}
