//! Importers: from the formats in which expression data sets are shipped to one pack.
//!
//! Each format's file makes a [`Listing`]: the card, and every row of the labels with the place of its picture. [`run`] then decodes the
//! pictures on all cores, looks for pixel-identical copies between splits, writes the pack in listing order and says what it did
//! ([`Imported`]). It refuses a label order that can be read in two ways, and stops at the first picture that does not decode unless
//! told to skip such pictures; it never fills in what the source does not say.

pub mod affectnet;
pub mod ferplus;
pub mod folder;
mod npy;
pub mod rafdb;
mod report;
pub mod table;

pub use super::leaks::Leak;
pub use report::Imported;
pub use table::Place;

use super::leaks::{self, Print};
use super::pack::{MAX_SIDE, PackWriter};
use super::picture::{self, MAX_FILE};
use super::protocol::check_text;
use super::{Class, Face, Pixels, Protocol, Split};
use crate::failure::Usage;
use crate::limits::{self, AtMost};
use crate::random::{SliceRandom, Streams};
use crate::transform::align::align;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use fast_image_resize::Resizer;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use zip::ZipArchive;

/// Threads that decode; beyond this the disk is the limit.
const MAX_THREADS: usize = 16;
pub(crate) const UNREADABLE: &str = "picture missing or unreadable";
pub(crate) const LEAKED: &str = "pixel-identical copy in valid or test (--drop-leaks)";

/// What happens to pictures and faces after listing, the same for all formats.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Side in pixels of the stored pictures; `None`: each at its own size.
    pub size: Option<usize>,
    /// Warp faces with 5 or 68 landmarks to the ArcFace template; `Some(margin)` shows `1 + margin` times its field of view.
    pub align: Option<f64>,
    /// Leave out train faces that have a pixel-identical copy in valid or test.
    pub drop_leaks: bool,
    /// Count pictures that cannot be read as dropped instead of stopping.
    pub skip_unreadable: bool,
}

/// Where the pixels of a row are.
#[derive(Clone, Debug)]
pub enum Origin {
    File(PathBuf),
    /// An entry of the listing's archive.
    Zipped(String),
    Raw(Pixels),
}

/// One row of the labels.
#[derive(Clone, Debug)]
pub struct Item {
    /// Landmarks are in pixels of the source picture here.
    pub face: Face,
    pub origin: Origin,
    /// Face box `[x, y, width, height]` in pixels of the source picture.
    pub crop: Option<[i64; 4]>,
    /// The label row, for error messages.
    pub place: Place,
    /// Why the face stays out of the pack; it still takes part in the search for copies.
    pub drop: Option<&'static str>,
}

impl Item {
    pub fn new(face: Face, origin: Origin, place: Place) -> Self {
        Self { face, origin, crop: None, place, drop: None }
    }
}

/// Everything a source says, before any picture is decoded.
#[derive(Clone, Debug)]
pub struct Listing {
    pub importer: &'static str,
    pub card: Protocol,
    pub items: Vec<Item>,
    /// The zip file that [`Origin::Zipped`] entries lie in.
    pub archive: Option<PathBuf>,
    /// Rows left out already, by reason: rows without a face, classes outside the card.
    pub dropped: BTreeMap<String, usize>,
    /// What a reader of the pack must know about its making.
    pub notes: Vec<String>,
    /// Label files that were read.
    pub sources: Vec<String>,
    /// Names of the annotators, in the order of the faces' panels; empty where nobody is known.
    pub annotators: Vec<String>,
}

impl Listing {
    pub fn new(importer: &'static str, card: Protocol) -> Self {
        let (items, dropped, notes, sources, annotators) = Default::default();
        Self { importer, card, items, archive: None, dropped, notes, sources, annotators }
    }

    pub(crate) fn count_dropped(&mut self, reason: impl Into<String>) {
        *self.dropped.entry(reason.into()).or_default() += 1;
    }

    /// Moves `share` of the labelled train faces of each class to valid, drawn by the seed; unlabelled faces stay in train.
    ///
    /// # Errors
    /// If the source has a valid split of its own, or the share leaves valid empty.
    pub fn carve_valid(&mut self, share: f64, seed: u64) -> Result<()> {
        if !(share > 0.0 && share < 1.0) {
            usage!("--valid-share {share} is not between 0 and 1");
        }
        if self.items.iter().any(|i| i.face.split == Split::Valid) {
            usage!("--valid-share is for sources without a valid split; this one has its own");
        }
        let mut moved = 0;
        for class in 0..self.card.classes.len() {
            let ours = |i: &Item| i.face.split == Split::Train && i.drop.is_none() && i.face.label == Some(class as Class);
            let mut members: Vec<usize> = (0..self.items.len()).filter(|&i| ours(&self.items[i])).collect();
            members.shuffle(&mut Streams::new(seed).at("import-valid", &[class as u64]));
            members.truncate((members.len() as f64 * share).round() as usize);
            moved += members.len();
            for i in members {
                self.items[i].face.split = Split::Valid;
            }
        }
        if moved == 0 {
            usage!("--valid-share {share} moves no face to valid; take a larger share");
        }
        self.notes.push(format!("{moved} train faces moved to valid: share {share} of each class, seed {seed}"));
        Ok(())
    }
}

/// Makes ids unique: a name that occurs again gets the number of its row.
#[derive(Default)]
pub(crate) struct Ids(HashSet<String>);

impl Ids {
    pub fn unique(&mut self, name: &str, row: u64) -> String {
        let mut id = name.to_owned();
        while !self.0.insert(id.clone()) {
            id = format!("{id}#{row}");
        }
        id
    }
}

/// Refuses a source that is not there, before anything else is done.
pub(crate) fn must_exist(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => usage!("{} does not exist", path.display()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A file name from a label file: inside its folder, nowhere else, and fit for an id.
pub(crate) fn plain_name<'a>(name: &'a str, place: &Place) -> Result<&'a str> {
    let inside = |part: &str| !part.is_empty() && part != ".." && part != "." && !part.contains(':');
    if !name.split(['/', '\\']).all(inside) {
        bail!("{place}: `{}` is no file name inside the picture folder", table::clip(name));
    }
    fit_for_id(name, place)
}

/// A picture's name, of which its face's id is made; `place` is where it was found.
pub(crate) fn fit_for_id(name: &str, place: impl fmt::Display) -> Result<&str> {
    check_text(name).with_context(|| format!("{place}: rename this picture"))?;
    Ok(name)
}

/// Decodes everything in `listing` and writes the pack at `out`.
///
/// # Errors
/// Names the label row and picture at fault, or what keeps the pack from being written. Nothing is left at `out` then.
pub fn run(listing: Listing, options: &Options, out: &Path) -> Result<Imported> {
    check_target(out)?;
    if listing.items.iter().all(|i| i.drop.is_some()) {
        bail!("{}: no face is left to import", listing.sources.join(", "));
    }
    if let Some(size) = options.size.filter(|&s| s == 0 || s > MAX_SIDE) {
        usage!("--size {size} is not between 1 and {MAX_SIDE}");
    }
    let mut writer = PackWriter::create(out, listing.card.clone())?;
    let mut imported = Imported::new(&listing, options);
    // Leaving out copies needs every valid and test picture before the first train picture is written: a pass of its own.
    let mut held_out = HashSet::new();
    if options.drop_leaks {
        decode_all(&listing, options, |item, decoded| {
            if let Ok(Decoded { print, .. }) = decoded
                && item.drop.is_none()
                && item.face.split != Split::Train
            {
                held_out.insert(print);
            }
            Ok(())
        })?;
    }
    let mut unaligned = 0;
    decode_all(&listing, options, |item, decoded| {
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(_) if options.skip_unreadable => {
                imported.count_dropped(item.face.split, UNREADABLE);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        imported.see(item.face.split, decoded.print);
        if let Some(reason) = item.drop {
            imported.count_dropped(item.face.split, reason);
        } else if item.face.split == Split::Train && held_out.contains(&decoded.print) {
            imported.count_dropped(item.face.split, LEAKED);
        } else {
            unaligned += usize::from(options.align.is_some() && item.face.landmarks.is_empty());
            let face = Face { landmarks: decoded.landmarks, ..item.face.clone() };
            imported.keep(&face, decoded.print);
            writer.push(face, &decoded.pixels)?;
        }
        Ok(())
    })?;
    if unaligned > 0 {
        imported.notes.push(format!("{unaligned} faces have no landmarks: resized, not aligned"));
    }
    imported.finish();
    writer.finish(imported.to_json())?;
    Ok(imported)
}

/// A pack may be replaced by a newer one; any other file is taken for a slip of the keyboard.
fn check_target(out: &Path) -> Result<()> {
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        usage!("cannot write pack {}: folder {} does not exist", out.display(), folder.display());
    }
    if out.is_dir() {
        usage!("cannot write pack {}: it is a folder", out.display());
    }
    if let Ok(mut file) = File::open(out) {
        let mut mark = [0; 8];
        if file.read_exact(&mut mark).is_err() || &mark != b"MOUEPACK" {
            usage!("{} exists and is no pack; choose another name for --out", out.display());
        }
    }
    Ok(())
}

struct Decoded {
    pixels: Pixels,
    /// Of the picture before any resizing or alignment.
    print: Print,
    /// In pixels of the stored picture.
    landmarks: Vec<[f32; 2]>,
}

/// Calls `each` for all items in order; the pictures are decoded ahead on several threads.
fn decode_all(listing: &Listing, options: &Options, mut each: impl FnMut(&Item, Result<Decoded>) -> Result<()>) -> Result<()> {
    let items = &listing.items;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).clamp(1, MAX_THREADS);
    let mut progress = Progress::new(items.len());
    std::thread::scope(|scope| {
        // Thread t decodes items t, t + threads, ...; reading the queues in turn restores the order, and their bound the memory.
        let queues: Vec<_> = (0..threads)
            .map(|t| {
                let (sender, queue) = sync_channel(4);
                scope.spawn(move || {
                    let mut loader = Loader::new(listing.archive.clone());
                    for item in items.iter().skip(t).step_by(threads) {
                        if sender.send(loader.decode(item, options)).is_err() {
                            return;
                        }
                    }
                });
                queue
            })
            .collect();
        for (i, item) in items.iter().enumerate() {
            let decoded = queues[i % threads].recv().map_err(|_| anyhow!("{}: a decoder broke off at this picture", item.place))?;
            each(item, decoded)?;
            progress.tick(i + 1);
        }
        Ok(())
    })
}

/// Reads and decodes pictures; each thread has one, with its own handle on the archive.
pub struct Loader {
    archive: Option<PathBuf>,
    zip: Option<ZipArchive<BufReader<File>>>,
    resizer: Resizer,
}

impl Loader {
    pub fn new(archive: Option<PathBuf>) -> Self {
        Self { archive, zip: None, resizer: Resizer::new() }
    }

    /// The picture of `item` as it is in the source: `[H, W, C]`, not cropped, resized or aligned.
    ///
    /// # Errors
    /// Names the label row, the picture and what is wrong with it.
    pub fn source(&mut self, item: &Item) -> Result<Pixels> {
        match &item.origin {
            Origin::Raw(pixels) => Ok(pixels.clone()),
            Origin::File(path) => {
                let bytes = limits::read(path, MAX_FILE).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => anyhow!("picture {} does not exist", path.display()),
                    _ => anyhow!("cannot read picture {} ({e})", path.display()),
                });
                bytes.and_then(|b| picture::decode(&b).with_context(|| format!("picture {}", path.display())))
            }
            Origin::Zipped(name) => self.zipped(name),
        }
        .with_context(|| item.place.to_string())
    }

    fn zipped(&mut self, name: &str) -> Result<Pixels> {
        let path = self.archive.as_deref().context("the listing has no archive")?;
        let zip = match &mut self.zip {
            Some(zip) => zip,
            empty => empty.insert(open_zip(path)?),
        };
        let bytes = read_entry(zip, name, MAX_FILE)?;
        picture::decode(&bytes).with_context(|| format!("picture {name} in {}", path.display()))
    }

    fn decode(&mut self, item: &Item, options: &Options) -> Result<Decoded> {
        let source = self.source(item)?;
        let place = || item.place.to_string();
        let whole = [0, 0, source.width as i64, source.height as i64];
        let region = item.crop.unwrap_or(whole);
        let cropped = if region == whole { None } else { Some(picture::crop(&source, region).with_context(place)?) };
        let face = cropped.as_ref().unwrap_or(&source);
        let print = leaks::print(face);
        let (pixels, landmarks) = match options.align {
            Some(margin) if !item.face.landmarks.is_empty() => {
                let size = options.size.context("alignment needs a size")?;
                align(&source, &item.face.landmarks, size, margin).with_context(place)?
            }
            _ => {
                let pixels = match options.size {
                    Some(size) => picture::resize(&mut self.resizer, face, size).with_context(place)?,
                    None => face.clone(),
                };
                // Pixel centres are at integer coordinates, so a stretch keeps the picture's outer edge at -0.5.
                let (left, top) = (region[0].clamp(0, whole[2]) as f32, region[1].clamp(0, whole[3]) as f32);
                let stretch = |v: f32, from: usize, to: usize| (v + 0.5) * to as f32 / from as f32 - 0.5;
                let moved = item
                    .face
                    .landmarks
                    .iter()
                    .map(|&[x, y]| [stretch(x - left, face.width, pixels.width), stretch(y - top, face.height, pixels.height)]);
                let moved = moved.collect();
                (pixels, moved)
            }
        };
        Ok(Decoded { pixels, print, landmarks })
    }
}

/// Opens a zip file.
///
/// # Errors
/// If it does not exist (usage), or is damaged or cut short.
pub(crate) fn open_zip(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::from(Usage(format!("{} does not exist", path.display()))),
        _ => anyhow::Error::from(e).context(format!("cannot read {}", path.display())),
    })?;
    ZipArchive::new(BufReader::new(file))
        .map_err(|e| anyhow!("{} is no complete zip file ({e}); download or copy it again", path.display()))
}

/// Reads one entry of a zip file, of at most `limit` bytes and no more than its compressed ones can honestly make: the size that an archive
/// states cannot be trusted.
pub(crate) fn read_entry(zip: &mut ZipArchive<BufReader<File>>, name: &str, limit: u64) -> Result<Vec<u8>> {
    let entry = zip.by_name(name).map_err(|e| anyhow!("picture {name} cannot be read from the zip file ({e})"))?;
    let most = limit.min(limits::inflated(entry.compressed_size()));
    let mut bytes = Vec::new();
    AtMost::new(entry, most).read_to_end(&mut bytes).with_context(|| format!("{name} in the zip file is damaged or too large"))?;
    Ok(bytes)
}

/// A line on the terminal for imports that take longer than a few seconds; nothing where stderr is a file.
struct Progress {
    total: usize,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        let next = std::io::stderr().is_terminal().then(|| Instant::now() + Duration::from_secs(2));
        Self { total, next, shown: false }
    }

    fn tick(&mut self, done: usize) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            eprint!("\r{done} of {} pictures", self.total);
            self.next = Some(Instant::now() + Duration::from_secs(1));
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pictures_are_fit_for_ids() {
        let place = Place { file: "votes.csv".into(), line: 2 };
        assert_eq!(plain_name("happy/ä b.png", &place).unwrap(), "happy/ä b.png");
        for name in ["a\u{1b}[2J.png", "a\0.png", "a/\u{9b}.png", "a\tb.png"] {
            let said = crate::failure::one_line(&plain_name(name, &place).unwrap_err());
            assert!(said.starts_with("votes.csv line 2: rename") && said.contains("control character"), "{said}");
        }
    }
}
