//! The pack: one file that holds faces, votes, splits, landmarks and the label-protocol card.
//!
//! ```text
//! "MOUEPACK" | pixels of face 0, 1, 2 ... (u8, [H, W, C] each) | index (one JSON line a face) | header (JSON)
//!            | header length (u64 LE) | "MOUEPEND"
//! ```
//! The header at the end lets a writer stream pictures of any size without knowing their number; a file cut short lacks the closing
//! mark and is refused at once. Index and header are read into memory, pictures only when asked for, at their offset: a pack may be
//! far larger than memory. Packs may come from strangers, so every offset and size is checked before it is used.
//!
//! Writing goes to a temporary file in the same folder that is synced and renamed at the end: a failed import leaves nothing behind.

use super::protocol::{check_text, hex};
use super::{Face, Pixels, Protocol, Split};
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const HEAD: &[u8; 8] = b"MOUEPACK";
const TAIL: &[u8; 8] = b"MOUEPEND";
const VERSION: u32 = 1;
/// No real card or provenance comes near this; a longer header is a damaged or hostile file.
const MAX_HEADER: u64 = 8 << 20;
/// Longest side of a stored picture.
pub const MAX_SIDE: usize = 16_384;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    protocol: Protocol,
    faces: u64,
    pixel_bytes: u64,
    index_bytes: u64,
    pixel_sha256: String,
    index_sha256: String,
    /// What the importer did: source files, what was dropped and why, leaks. For people; not interpreted.
    provenance: serde_json::Value,
}

/// One index line: the face and where its pixels lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(rename = "at")]
    offset: u64,
    #[serde(rename = "size")]
    /// width, height, channels
    size: [u32; 3],
    face: Face,
}

/// Writes a pack; nothing appears under the final name until [`PackWriter::finish`].
pub struct PackWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    protocol: Protocol,
    rows: Vec<Row>,
    ids: HashSet<String>,
    offset: u64,
    pixel_hash: Sha256,
}

impl PackWriter {
    /// # Errors
    /// If the card cannot be ([`Protocol::check`]), or the folder of `path` does not exist or cannot be written.
    pub fn create(path: &Path, protocol: Protocol) -> Result<Self> {
        protocol.check()?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            bail!("cannot write pack {}: it is a folder", path.display());
        }
        let temporary = tempfile::Builder::new()
            .prefix(".moue-pack-")
            .tempfile_in(folder)
            .with_context(|| format!("cannot write pack {}", path.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, temporary);
        file.write_all(HEAD).with_context(|| format!("cannot write pack {}", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            protocol,
            rows: Vec::new(),
            ids: HashSet::new(),
            offset: HEAD.len() as u64,
            pixel_hash: Sha256::new(),
        })
    }

    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// Appends one face.
    ///
    /// # Errors
    /// If the face contradicts the card (label, votes or candidates out of range), its id is taken or holds control characters, or the disk
    /// is full.
    pub fn push(&mut self, face: Face, pixels: &Pixels) -> Result<()> {
        check(&face, &self.protocol, pixels.width, pixels.height).with_context(|| format!("face {}", face.id))?;
        if !self.ids.insert(face.id.clone()) {
            bail!("face id {} occurs twice", face.id);
        }
        self.file.write_all(&pixels.data).with_context(|| format!("cannot write pack {}", self.path.display()))?;
        self.pixel_hash.update(&pixels.data);
        let size = [pixels.width as u32, pixels.height as u32, pixels.channels as u32];
        self.rows.push(Row { offset: self.offset, size, face });
        self.offset += pixels.data.len() as u64;
        Ok(())
    }

    /// Writes index and header, syncs, and gives the file its name.
    pub fn finish(mut self, provenance: serde_json::Value) -> Result<()> {
        let failed = || format!("cannot write pack {}", self.path.display());
        let mut index = Vec::new();
        for row in &self.rows {
            serde_json::to_writer(&mut index, row)?;
            index.push(b'\n');
        }
        let header = serde_json::to_vec(&Header {
            version: VERSION,
            protocol: self.protocol.clone(),
            faces: self.rows.len() as u64,
            pixel_bytes: self.offset - HEAD.len() as u64,
            index_bytes: index.len() as u64,
            pixel_sha256: hex(&self.pixel_hash.clone().finalize()),
            index_sha256: hex(&Sha256::digest(&index)),
            provenance,
        })?;
        if header.len() as u64 > MAX_HEADER {
            bail!("cannot write pack {}: its card and provenance take more than {MAX_HEADER} bytes", self.path.display());
        }
        (|| -> std::io::Result<()> {
            self.file.write_all(&index)?;
            self.file.write_all(&header)?;
            self.file.write_all(&(header.len() as u64).to_le_bytes())?;
            self.file.write_all(TAIL)?;
            self.file.flush()?;
            self.file.get_ref().as_file().sync_all()
        })()
        .with_context(failed)?;
        let temporary = self
            .file
            .into_inner()
            .map_err(|e| anyhow!("{}", e.error()))
            .with_context(|| format!("cannot write pack {}", self.path.display()))?;
        set_plain_permissions(temporary.as_file());
        temporary.persist(&self.path).map_err(|e| e.error).with_context(|| format!("cannot write pack {}", self.path.display()))?;
        Ok(())
    }
}

/// Temporary files are private to the user; a finished pack is an ordinary file.
fn set_plain_permissions(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Failing to widen the mode costs nobody their data.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

fn check(face: &Face, card: &Protocol, width: usize, height: usize) -> Result<()> {
    let (classes, columns) = (card.classes.len(), card.columns().count());
    if face.id.is_empty() {
        bail!("empty id");
    }
    check_text(&face.id).context("its id")?;
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        bail!("picture of {width}x{height} pixels (allowed: 1 to {MAX_SIDE} a side)");
    }
    for (what, class) in [("label", face.label), ("true class", face.truth)] {
        if let Some(c) = class.filter(|&c| usize::from(c) >= classes) {
            bail!("{what} {c} but the label card has {classes} classes");
        }
    }
    if !face.votes.is_empty() && face.votes.len() != columns {
        bail!("{} vote counts but the label card has {columns} columns", face.votes.len());
    }
    if face.votes.iter().try_fold(0u32, |sum, &votes| sum.checked_add(votes)).is_none() {
        bail!("more votes than can be counted");
    }
    if let Some(c) = face.candidates.iter().find(|&&c| usize::from(c) >= classes) {
        bail!("candidate {c} but the label card has {classes} classes");
    }
    if let Some(c) = face.panel.iter().flatten().find(|&&c| usize::from(c) >= columns) {
        bail!("an annotator chose column {c} but the label card has {columns} columns");
    }
    if face.landmarks.iter().flatten().any(|v| !v.is_finite()) {
        bail!("a landmark is not a finite number");
    }
    Ok(())
}

/// An open pack. Cheap to share between threads: pictures are read at their offset without a common cursor.
pub struct Pack {
    path: PathBuf,
    file: PositionedFile,
    header: Header,
    places: Vec<(u64, [u32; 3])>,
    faces: Vec<Face>,
}

impl Pack {
    /// Reads header and index and checks both against their hash; pictures stay on disk.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: no pack, cut short, damaged, or written by a newer moue.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_inner(path).with_context(|| format!("pack {}", path.display()))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        if !path.exists() {
            usage!("there is no such file");
        }
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut mark = [0u8; 8];
        if length < 8 || file.read_exact(&mut mark).is_err() || &mark != HEAD {
            usage!("this is no moue pack (make one with `moue import`)");
        }
        let cut = || anyhow!("the pack is cut short or damaged at its end; import it again");
        if length < 32 {
            return Err(cut());
        }
        let mut end = [0u8; 16];
        file.seek(SeekFrom::End(-16))?;
        file.read_exact(&mut end)?;
        let header_bytes = u64::from_le_bytes(end[..8].try_into().expect("eight bytes"));
        if &end[8..] != TAIL || header_bytes > MAX_HEADER || header_bytes > length - 24 {
            return Err(cut());
        }
        file.seek(SeekFrom::Start(length - 16 - header_bytes))?;
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header)?;
        let header: Header = serde_json::from_slice(&header).context("its header does not parse")?;
        if header.version != VERSION {
            bail!("it has format version {}, this moue reads version {VERSION}", header.version);
        }
        header.protocol.check()?;
        let expected = header.pixel_bytes.checked_add(header.index_bytes).and_then(|b| b.checked_add(24 + header_bytes));
        if expected != Some(length) {
            return Err(cut());
        }
        file.seek(SeekFrom::Start(8 + header.pixel_bytes))?;
        let mut index = vec![0; usize::try_from(header.index_bytes)?];
        file.read_exact(&mut index)?;
        if hex(&Sha256::digest(&index)) != header.index_sha256 {
            bail!("its index is damaged (hash differs); import it again");
        }
        let mut places = Vec::new();
        let mut faces = Vec::new();
        let mut ids = HashSet::new();
        let mut end = HEAD.len() as u64;
        for (n, line) in index.split(|&b| b == b'\n').filter(|l| !l.is_empty()).enumerate() {
            let row: Row = serde_json::from_slice(line).with_context(|| format!("index line {}", n + 1))?;
            let [w, h, c] = row.size.map(u64::from);
            if (c != 1 && c != 3) || w as usize > MAX_SIDE || h as usize > MAX_SIDE {
                bail!("index line {}: impossible picture size {w}x{h}x{c}", n + 1);
            }
            // One after the other, as they were written: pictures that overlap would make much of a small file.
            if row.offset != end || w * h * c > 8 + header.pixel_bytes - end {
                bail!("index line {}: the picture does not lie after the one before it", n + 1);
            }
            end += w * h * c;
            check(&row.face, &header.protocol, w as usize, h as usize).with_context(|| format!("index line {}", n + 1))?;
            if !ids.insert(row.face.id.clone()) {
                bail!("index line {}: face id {} occurs twice", n + 1, row.face.id);
            }
            places.push((row.offset, row.size));
            faces.push(row.face);
        }
        if faces.len() as u64 != header.faces {
            bail!("its header says {} faces, its index has {}", header.faces, faces.len());
        }
        Ok(Self { path: path.to_path_buf(), file: PositionedFile::new(file), header, places, faces })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn protocol(&self) -> &Protocol {
        &self.header.protocol
    }

    pub fn provenance(&self) -> &serde_json::Value {
        &self.header.provenance
    }

    pub fn faces(&self) -> &[Face] {
        &self.faces
    }

    /// Positions (in [`Pack::faces`]) of the faces of one split, in pack order.
    pub fn split(&self, split: Split) -> Vec<usize> {
        (0..self.faces.len()).filter(|&i| self.faces[i].split == split).collect()
    }

    /// Width, height and channels of face `i`.
    pub fn size(&self, i: usize) -> (usize, usize, usize) {
        let [w, h, c] = self.places[i].1;
        (w as usize, h as usize, c as usize)
    }

    /// Reads the picture of face `i` from disk.
    pub fn pixels(&self, i: usize) -> Result<Pixels> {
        let (width, height, channels) = self.size(i);
        Ok(Pixels::new(width, height, channels, self.pixels_at(i, 0..width * height * channels)?))
    }

    /// A part of the picture of face `i`, `range` in bytes.
    pub(super) fn pixels_at(&self, i: usize, range: Range<usize>) -> Result<Vec<u8>> {
        let mut data = vec![0; range.len()];
        self.file
            .read_exact_at(&mut data, self.places[i].0 + range.start as u64)
            .with_context(|| format!("pack {}: picture of face {}", self.path.display(), self.faces[i].id))?;
        Ok(data)
    }

    /// A hash of everything the pack says: card, index (which holds the votes and splits) and pictures.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.header.protocol.hash());
        hash.update(&self.header.index_sha256);
        hash.update(&self.header.pixel_sha256);
        hex(&hash.finalize())
    }

    /// Reads all pictures and compares their hash with the header's.
    pub fn verify(&self) -> Result<()> {
        let mut hash = Sha256::new();
        for i in 0..self.faces.len() {
            hash.update(&self.pixels(i)?.data);
        }
        if hex(&hash.finalize()) != self.header.pixel_sha256 {
            bail!("pack {}: its pictures are damaged (hash differs); import it again", self.path.display());
        }
        Ok(())
    }
}

/// A file that several threads read at their own offsets.
struct PositionedFile {
    #[cfg(any(unix, windows))]
    file: File,
    #[cfg(not(any(unix, windows)))]
    file: std::sync::Mutex<File>,
}

impl PositionedFile {
    #[cfg(any(unix, windows))]
    fn new(file: File) -> Self {
        Self { file }
    }

    #[cfg(unix)]
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buffer = &mut buffer[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    #[cfg(not(any(unix, windows)))]
    fn new(file: File) -> Self {
        Self { file: std::sync::Mutex::new(file) }
    }

    #[cfg(not(any(unix, windows)))]
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Protocol {
        Protocol {
            name: "two".into(),
            classes: vec!["calm".into(), "glad".into()],
            extra_columns: vec!["unknown".into()],
            rule: "argmax".into(),
            source: "test".into(),
        }
    }

    fn sample(path: &Path) -> Vec<(Face, Pixels)> {
        let faces: Vec<_> = (0..3u16)
            .map(|i| {
                let mut face = Face::new(format!("f{i}"), if i == 2 { Split::Test } else { Split::Train });
                face.label = Some(i % 2);
                face.votes = vec![u32::from(i), 3, 1];
                let side = 2 + usize::from(i);
                (face, Pixels::new(side, side, 1, (0..side * side).map(|v| v as u8 * 3).collect()))
            })
            .collect();
        let mut writer = PackWriter::create(path, card()).unwrap();
        for (face, pixels) in &faces {
            writer.push(face.clone(), pixels).unwrap();
        }
        writer.finish(serde_json::json!({"importer": "test"})).unwrap();
        faces
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        let faces = sample(&path);
        let pack = Pack::open(&path).unwrap();
        assert_eq!(pack.faces(), faces.iter().map(|f| f.0.clone()).collect::<Vec<_>>());
        assert_eq!((0..3).map(|i| pack.pixels(i).unwrap()).collect::<Vec<_>>(), faces.iter().map(|f| f.1.clone()).collect::<Vec<_>>());
        assert_eq!(pack.split(Split::Train), [0, 1]);
        pack.verify().unwrap();
    }

    #[test]
    fn every_truncation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        sample(&path);
        let bytes = std::fs::read(&path).unwrap();
        for keep in 0..bytes.len() {
            std::fs::write(&path, &bytes[..keep]).unwrap();
            assert!(Pack::open(&path).is_err(), "a pack of {keep} of {} bytes was accepted", bytes.len());
        }
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        sample(&path);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() - 16 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            // Provenance is free text: a change there shows in nothing that is used.
            let text = String::from_utf8_lossy(&bytes);
            let provenance = text.find("provenance").map_or(usize::MAX, |p| text[..p].len());
            if at < provenance.saturating_sub(2) || provenance == usize::MAX {
                let refused = Pack::open(&path).and_then(|p| p.verify().map(|()| p));
                let noticed = match refused {
                    Err(_) => true,
                    Ok(p) => p.protocol() != &card(),
                };
                assert!(noticed, "byte {at} changed without notice");
            }
        }
    }

    #[test]
    fn contradictions_with_the_card_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PackWriter::create(&folder.path().join("a.moue"), card()).unwrap();
        let picture = Pixels::new(1, 1, 1, vec![0]);
        let mut face = Face::new("x", Split::Train);
        face.label = Some(2);
        assert!(writer.push(face.clone(), &picture).is_err());
        face.label = None;
        face.votes = vec![1, 2];
        assert!(writer.push(face.clone(), &picture).is_err());
        face.votes.clear();
        writer.push(face.clone(), &picture).unwrap();
        assert!(writer.push(face, &picture).is_err());
    }

    /// The bytes with the first `from` in them turned to `to`, which is as long.
    fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    }

    /// DEL is the one control character of ASCII that JSON lets stand as it is.
    #[test]
    fn texts_that_could_steer_a_terminal_are_neither_written_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        let refused = |made: Result<()>, what: &str| {
            let said = crate::failure::one_line(&made.unwrap_err());
            assert!(said.contains(what) && said.contains("control character"), "{what}: {said}");
        };
        for (what, card) in [
            ("class", Protocol { classes: vec!["calm".into(), "glad\u{1b}[2J".into()], ..card() }),
            ("class", Protocol { extra_columns: vec!["un\tknown".into()], ..card() }),
            ("name", Protocol { name: "two\n".into(), ..card() }),
            ("rule", Protocol { rule: "arg\u{9b}max".into(), ..card() }),
            ("source", Protocol { source: "\u{7f}".into(), ..card() }),
        ] {
            refused(PackWriter::create(&path, card).map(drop), &format!("the label card's {what}"));
        }
        let mut writer = PackWriter::create(&path, card()).unwrap();
        refused(writer.push(Face::new("a\rb", Split::Train), &Pixels::new(1, 1, 1, vec![0])), "its id");
        drop(writer);

        sample(&path);
        let whole = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Pack::open(&path).map(drop)
        };
        refused(read(&replaced(&whole, "calm", "ca\u{7f}m")), "the label card's class");
        refused(read(&replaced(&whole, "argmax", "arg\u{7f}ax")), "the label card's rule");
        // The index has a hash, which is made right.
        let hash = |index: &[u8]| hex(&Sha256::digest(index));
        let length = u64::from_le_bytes(whole[whole.len() - 16..whole.len() - 8].try_into().unwrap()) as usize;
        let pixels = 4 + 9 + 16;
        let index = &whole[8 + pixels..whole.len() - 16 - length];
        let wrong = replaced(index, "\"f1\"", "\"f\u{7f}\"");
        let sealed = replaced(&whole, &hash(index), &hash(&wrong));
        refused(read(&replaced(&sealed, "\"f1\"", "\"f\u{7f}\"")), "its id");
    }

    #[test]
    fn an_abandoned_pack_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PackWriter::create(&folder.path().join("a.moue"), card()).unwrap();
        writer.push(Face::new("x", Split::Train), &Pixels::new(1, 1, 1, vec![0])).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
