//! `history/<objective>.bin`: how each ambiguous face's confidences moved, epoch by epoch, in a stage that decides labels.
//!
//! ```text
//! "MOUEHIST" | format (u32 LE) | header length (u32) | header (JSON) | CRC-32 of all before
//! frame:  "EPOC" | epoch (u32) | step (u64) | flips (u32)
//!         | one byte a candidate: its confidence at the end of the epoch in 1/255, faces and candidates in the header's order
//!         | flips times: face (u32), step (u64), from (u16), to (u16)
//!         | CRC-32 of the frame
//! ```
//! The header names each ambiguous face with its candidates, votes and given label. Flips are exact: every optimiser step after which a
//! face's best class was another one. Confidences are sampled once an epoch. With the eight classes of the largest label protocol a face
//! takes at most 8 bytes an epoch and 16 for each flip, and flips at most once each time it is trained on: 24 bytes where every face is
//! seen once an epoch, 64 in an epoch that sees it three times.
//!
//! Frames are appended, and on disk before the checkpoint that ends their epoch. A reader streams them, one in memory at a time; of a file
//! that was cut or damaged it gives every whole frame before the damage, and tells. The file never decides anything: training goes on
//! without it.

use super::folder::write_atomic;
use crate::dataset::Class;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use flate2::Crc;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

const MARK: &[u8; 8] = b"MOUEHIST";
const FRAME: &[u8; 4] = b"EPOC";
const FORMAT: u32 = 1;
/// Millions of faces need less; a longer header is a damaged or hostile file.
const MAX_HEADER: u32 = 1 << 30;
/// Mark, epoch, step and number of flips.
const FRAME_HEAD: usize = 20;
const FLIP: usize = 16;

/// What does not change from epoch to epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub objective: String,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// [`Pack::hash`](crate::dataset::Pack::hash) of the faces' pack.
    pub pack_hash: String,
    /// The ambiguous training faces, in training order.
    pub faces: Vec<Subject>,
}

/// One ambiguous face.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub id: String,
    /// The label it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Class>,
    /// In ascending class order; at least two.
    pub candidates: Vec<Class>,
    /// As the pack has them, one for each column of its card; empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<u32>,
}

/// A face's best class became another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    /// Position in [`Header::faces`].
    pub face: u32,
    /// The optimiser step after which it did, counted from 1 over the whole stage.
    pub step: u64,
    pub from: Class,
    pub to: Class,
}

/// What one epoch left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Epochs done, from 1.
    pub epoch: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// One byte a candidate, see [`Layout`].
    pub confidences: Vec<u8>,
    /// In the order of their steps.
    pub flips: Vec<Flip>,
}

/// Where in a frame each face's confidences lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of face `i`: from `starts[i]` to `starts[i + 1]`.
    starts: Vec<u32>,
}

impl Layout {
    pub fn of(faces: &[Subject]) -> Self {
        let mut end = 0;
        let ends = faces.iter().map(|face| {
            end += face.candidates.len() as u32;
            end
        });
        Self { starts: std::iter::once(0).chain(ends).collect() }
    }

    /// Of face `i`, one confidence for each of its candidates.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }

    /// Bytes of all faces.
    pub fn bytes(&self) -> usize {
        *self.starts.last().expect("starts with 0") as usize
    }
}

/// A confidence between 0 and 1 as one byte.
pub fn quantise(confidence: f32) -> u8 {
    (confidence.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// The confidence that a byte stands for, to within 1/510.
pub fn confidence(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

impl Header {
    /// # Errors
    /// What about it cannot be.
    fn check(&self) -> Result<()> {
        for face in &self.faces {
            let known = |c: &Class| usize::from(*c) < self.classes.len();
            if face.candidates.len() < 2
                || !face.candidates.is_sorted_by(|a, b| a < b)
                || !face.candidates.iter().chain(&face.given).all(known)
            {
                bail!("face {} has impossible candidates or an impossible label", face.id);
            }
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).ok().filter(|n| *n <= MAX_HEADER).context("too many faces for one history")?;
        let mut bytes = [MARK.as_slice(), &FORMAT.to_le_bytes(), &length.to_le_bytes(), &json].concat();
        let sum = checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        Ok(bytes)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Frame {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let flips = u32::try_from(self.flips.len()).context("too many flips in one epoch")?;
        let mut bytes = Vec::with_capacity(FRAME_HEAD + self.confidences.len() + FLIP * self.flips.len() + 4);
        bytes.extend(FRAME);
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.step.to_le_bytes());
        bytes.extend(flips.to_le_bytes());
        bytes.extend(&self.confidences);
        self.flips.iter().for_each(|flip| flip.write(&mut bytes));
        let sum = checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        Ok(bytes)
    }
}

impl Flip {
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.face.to_le_bytes());
        bytes.extend(self.step.to_le_bytes());
        bytes.extend(self.from.to_le_bytes());
        bytes.extend(self.to.to_le_bytes());
    }

    fn read(bytes: &[u8; FLIP]) -> Self {
        let (face, rest) = bytes.split_first_chunk().expect("16 bytes");
        let (step, rest) = rest.split_first_chunk().expect("12 bytes");
        let (from, rest) = rest.split_first_chunk().expect("4 bytes");
        let (to, _) = rest.split_first_chunk().expect("2 bytes");
        Self {
            face: u32::from_le_bytes(*face),
            step: u64::from_le_bytes(*step),
            from: Class::from_le_bytes(*from),
            to: Class::from_le_bytes(*to),
        }
    }

    /// Flips for a checkpoint.
    pub fn pack(flips: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FLIP * flips.len());
        flips.iter().for_each(|flip| flip.write(&mut bytes));
        bytes
    }

    /// What [`Flip::pack`] made; none where the bytes are no whole number of flips.
    pub fn unpack(bytes: &[u8]) -> Option<Vec<Self>> {
        let (flips, []) = bytes.as_chunks::<FLIP>() else { return None };
        Some(flips.iter().map(Self::read).collect())
    }
}

/// Reads a history frame by frame.
pub struct HistoryReader {
    path: PathBuf,
    header: Header,
    layout: Layout,
    file: BufReader<File>,
    /// Bytes read of whole frames and the header, and of the file.
    consumed: u64,
    length: u64,
    last: u32,
    buffer: Vec<u8>,
    damage: Option<String>,
}

impl HistoryReader {
    /// # Errors
    /// No such file or another kind of file ([`Usage`](crate::failure::Usage)), a damaged header. Damage behind it is [`Self::damage`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_inner(path).with_context(|| format!("history {}", path.display()))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => usage!("there is no such file"),
            Err(e) => return Err(e.into()),
        };
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut head = [0; 16];
        if file.read_exact(&mut head).is_err() || &head[..8] != MARK {
            usage!("this is no history of a run");
        }
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if word(8) != FORMAT {
            usage!("it has format {}, this moue reads {FORMAT}", word(8));
        }
        let json_bytes = word(12);
        let consumed = head.len() as u64 + u64::from(json_bytes) + 4;
        if json_bytes > MAX_HEADER || consumed > length {
            bail!("it is cut short within its header, so nothing of it can be used");
        }
        let mut json = vec![0; json_bytes as usize];
        file.read_exact(&mut json)?;
        let mut sum = [0; 4];
        file.read_exact(&mut sum)?;
        let mut crc = Crc::new();
        crc.update(&head);
        crc.update(&json);
        if crc.sum() != u32::from_le_bytes(sum) {
            bail!("its header is damaged (checksum differs), so nothing of it can be used");
        }
        let header: Header = serde_json::from_slice(&json).context("its header does not parse")?;
        header.check()?;
        let layout = Layout::of(&header.faces);
        Ok(Self { path: path.to_path_buf(), header, layout, file, consumed, length, last: 0, buffer: Vec::new(), damage: None })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The next frame, into `frame` (whose memory is used again); `false` at the end of what is whole.
    ///
    /// # Errors
    /// Where the disk fails. Damage is no error: it ends the history, see [`Self::damage`].
    pub fn next_into(&mut self, frame: &mut Frame) -> Result<bool> {
        if self.damage.is_some() || self.consumed == self.length {
            return Ok(false);
        }
        let read = self.read_frame(frame).with_context(|| format!("history {}", self.path.display()))?;
        if let Err(what) = read {
            let known = if self.last == 0 { "no epoch is whole".into() } else { format!("the epochs up to {} are whole", self.last) };
            self.damage = Some(format!("history {}: {what}; {known}", self.path.display()));
            return Ok(false);
        }
        Ok(true)
    }

    /// The damage that ended the reading before the file's end, for people.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    fn read_frame(&mut self, frame: &mut Frame) -> Result<Result<(), String>> {
        let left = self.length - self.consumed;
        let cut = || Ok(Err("its last frame is cut short".to_string()));
        if left < FRAME_HEAD as u64 {
            return cut();
        }
        self.buffer.resize(FRAME_HEAD, 0);
        self.file.read_exact(&mut self.buffer)?;
        if &self.buffer[..4] != FRAME {
            return Ok(Err("what follows is no frame".into()));
        }
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let (epoch, flips) = (word(&self.buffer[4..8]), word(&self.buffer[16..20]));
        let step = u64::from_le_bytes(self.buffer[8..16].try_into().expect("eight bytes"));
        let (bytes, flip_bytes) = (self.layout.bytes(), FLIP as u64 * u64::from(flips));
        let total = (FRAME_HEAD + bytes + 4) as u64 + flip_bytes;
        if total > left {
            return cut();
        }
        self.buffer.resize(total as usize, 0);
        self.file.read_exact(&mut self.buffer[FRAME_HEAD..])?;
        let (content, sum) = self.buffer.split_at(total as usize - 4);
        if checksum(content) != word(sum) {
            return Ok(Err("the frame that follows is damaged (checksum differs)".into()));
        }
        let (confidences, flips) = content[FRAME_HEAD..].split_at(bytes);
        (frame.epoch, frame.step) = (epoch, step);
        frame.confidences.clear();
        frame.confidences.extend(confidences);
        frame.flips.clear();
        frame.flips.extend(flips.as_chunks::<FLIP>().0.iter().map(Flip::read));
        let (faces, classes) = (self.header.faces.len(), self.header.classes.len());
        if let Some(flip) = frame.flips.iter().find(|f| f.face as usize >= faces || usize::from(f.from.max(f.to)) >= classes) {
            return Ok(Err(format!("a flip of face {} from {} to {} cannot be", flip.face, flip.from, flip.to)));
        }
        if epoch <= self.last {
            return Ok(Err(format!("epoch {epoch} follows epoch {}", self.last)));
        }
        self.last = epoch;
        self.consumed += total;
        Ok(Ok(()))
    }
}

/// Appends the epochs of a running stage.
pub struct HistoryWriter {
    path: PathBuf,
    file: File,
}

impl HistoryWriter {
    /// Opens the history at `path` to append epoch `next` (from 1): what it already holds of earlier epochs stays, what it holds of this
    /// and later ones is cut off, for a run that goes on from an earlier checkpoint tells them again. Also says what earlier epochs are missing,
    /// if the file there is damaged, gone or of other faces.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn open(path: &Path, header: &Header, next: u32) -> Result<(Self, Option<String>)> {
        let context = || format!("history {}", path.display());
        let (kept, lost) = if next > 1 { whole_before(path, header, next) } else { (None, None) };
        if kept.is_none() {
            let folder = path.parent().context("a history lies in a folder")?;
            std::fs::create_dir_all(folder).with_context(context)?;
            let bytes = header.to_bytes().with_context(context)?;
            write_atomic(path, |w| Ok(w.write_all(&bytes)?))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path).with_context(context)?;
        if let Some(kept) = kept {
            file.set_len(kept).with_context(context)?;
        }
        file.seek(SeekFrom::End(0)).with_context(context)?;
        Ok((Self { path: path.to_path_buf(), file }, lost))
    }

    /// Appends one epoch; `durable`: it is on disk when this returns, as it must be before a checkpoint says that the epoch is done.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn append(&mut self, frame: &Frame, durable: bool) -> Result<()> {
        let context = || format!("history {}", self.path.display());
        self.file.write_all(&frame.to_bytes().with_context(context)?).with_context(context)?;
        if durable {
            self.file.sync_data().with_context(context)?;
        }
        Ok(())
    }
}

/// The length of what the file at `path` holds whole of this header and epochs before `next`; none: begin anew. And what is missing.
fn whole_before(path: &Path, header: &Header, next: u32) -> (Option<u64>, Option<String>) {
    let missing = |from: u32, why: String| Some(format!("the history has no epochs {from} to {} ({why})", next - 1));
    let read = || -> Result<(u64, u32, Option<String>)> {
        let mut reader = HistoryReader::open(path)?;
        if reader.header() != header {
            return Err(anyhow!("{} is of other faces", path.display()));
        }
        let (mut frame, mut kept, mut last) = (Frame::default(), reader.consumed, 0);
        while reader.next_into(&mut frame)? && frame.epoch < next {
            (kept, last) = (reader.consumed, frame.epoch);
        }
        Ok((kept, last, reader.damage().map(str::to_string)))
    };
    match read() {
        Ok((kept, last, damage)) if last + 1 < next => {
            (Some(kept), missing(last + 1, damage.unwrap_or_else(|| "they were never written".into())))
        }
        Ok((kept, ..)) => (Some(kept), None),
        Err(e) => (None, missing(1, crate::failure::one_line(&e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{exit_code, one_line};
    use proptest::prelude::*;

    fn header(faces: usize) -> Header {
        let subject = |i: usize| Subject {
            id: format!("face-{i}"),
            given: (!i.is_multiple_of(3)).then_some((i % 3) as Class),
            candidates: if i.is_multiple_of(2) { vec![0, 2] } else { vec![0, 1, 2] },
            votes: vec![i as u32, 4, 3],
        };
        let names = ["anger", "fear", "joy"];
        Header {
            objective: "pll".into(),
            classes: names.map(String::from).to_vec(),
            pack_hash: "hash".into(),
            faces: (0..faces).map(subject).collect(),
        }
    }

    fn frame(header: &Header, epoch: u32) -> Frame {
        let bytes = Layout::of(&header.faces).bytes();
        let flip = |n: u32| Flip { face: n % header.faces.len() as u32, step: u64::from(10 * epoch + n), from: 0, to: 2 };
        Frame {
            epoch,
            step: u64::from(10 * epoch + 10),
            confidences: (0..bytes).map(|i| (i as u32 * 7 + epoch) as u8).collect(),
            flips: (0..epoch % 4).map(flip).collect(),
        }
    }

    fn write(path: &Path, header: &Header, epochs: Range<u32>) -> Option<String> {
        let (mut writer, lost) = HistoryWriter::open(path, header, epochs.start).unwrap();
        epochs.for_each(|epoch| writer.append(&frame(header, epoch), epoch % 2 == 0).unwrap());
        lost
    }

    fn read(path: &Path) -> (Vec<Frame>, Option<String>) {
        let mut reader = HistoryReader::open(path).unwrap();
        let (mut frames, mut frame) = (Vec::new(), Frame::default());
        while reader.next_into(&mut frame).unwrap() {
            frames.push(frame.clone());
        }
        (frames, reader.damage().map(str::to_string))
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("history/pll.bin");
        let header = header(5);
        assert_eq!(write(&path, &header, 1..8), None);
        assert_eq!(read(&path), ((1..8).map(|e| frame(&header, e)).collect(), None));
        let reader = HistoryReader::open(&path).unwrap();
        assert_eq!(reader.header(), &header);
        assert_eq!((reader.layout().range(1), reader.layout().bytes()), (2..5, 12));
        let flips = frame(&header, 7).flips;
        assert_eq!(Flip::unpack(&Flip::pack(&flips)), Some(flips));
        assert_eq!(Flip::unpack(&[0; 17]), None);
    }

    #[test]
    fn a_face_takes_few_bytes() {
        // Eight candidates, and a flip in each of three visits.
        let mut header = header(1);
        header.classes = (0..8).map(|c| c.to_string()).collect();
        header.faces[0].candidates = (0..8).collect();
        let flip = Flip { face: 0, step: 1, from: 0, to: 2 };
        let of = |flips| Frame { epoch: 1, step: 1, confidences: vec![0; 8], flips: vec![flip; flips] }.to_bytes().unwrap().len();
        assert!(of(3) - (FRAME_HEAD + 4) <= 64);
        assert_eq!(of(1) - (FRAME_HEAD + 4), 24);
    }

    proptest! {
        #[test]
        fn a_byte_holds_a_confidence(value in 0f32..=1.0) {
            prop_assert!((confidence(quantise(value)) - value).abs() <= 0.5 / 255.0 + 1e-6);
        }

        /// However often a run is interrupted, and however many epochs beyond its checkpoint it had told: the file is the same.
        #[test]
        fn an_interrupted_history_ends_like_a_whole_one(cuts in prop::collection::vec((1u32..12, 0u32..5), 0..4)) {
            let root = tempfile::tempdir().unwrap();
            let (whole, path) = (root.path().join("whole.bin"), root.path().join("cut.bin"));
            let header = header(4);
            write(&whole, &header, 1..13);
            let mut next = 1;
            for (epochs, beyond) in cuts {
                let done = (next + epochs).min(12);
                // A run that went on beyond its last checkpoint, differently from what it does when it comes back.
                prop_assert_eq!(write(&path, &header, next..done), None);
                let (mut writer, _) = HistoryWriter::open(&path, &header, done).unwrap();
                for epoch in done..done + beyond {
                    writer.append(&Frame { step: 1, ..frame(&header, epoch) }, false).unwrap();
                }
                next = done;
            }
            prop_assert_eq!(write(&path, &header, next..13), None);
            prop_assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&whole).unwrap());
        }

        /// Whatever byte is changed, and wherever the file is cut: no panic, and every frame that is given is one that was written.
        #[test]
        fn damage_is_told_and_what_is_whole_is_used(at in 0.0f64..1.0, change in 1u8..=255, cut in any::<bool>()) {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("h.bin");
            let header = header(4);
            write(&path, &header, 1..7);
            let mut bytes = std::fs::read(&path).unwrap();
            let place = (at * bytes.len() as f64) as usize;
            if cut { bytes.truncate(place) } else { bytes[place] ^= change }
            std::fs::write(&path, &bytes).unwrap();
            let header_bytes = header.to_bytes().unwrap().len();
            if place < header_bytes {
                let error = HistoryReader::open(&path).err().expect("the header is damaged");
                prop_assert!(one_line(&error).contains("h.bin"), "{error:#}");
            } else {
                let (frames, damage) = read(&path);
                let expected: Vec<Frame> = (1..=frames.len() as u32).map(|e| frame(&header, e)).collect();
                prop_assert_eq!(&frames, &expected);
                // A cut exactly between two frames is a history of fewer epochs.
                prop_assert!(frames.len() < 6 && (damage.is_some() || cut), "{damage:?}");
            }
        }
    }

    #[test]
    fn a_damaged_history_goes_on_and_tells_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("h.bin");
        let ours = header(4);
        write(&path, &ours, 1..7);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let damage = read(&path).1.unwrap();
        assert!(damage.contains("h.bin") && damage.contains("cut short") && damage.contains("up to 5"), "{damage}");

        let lost = write(&path, &ours, 7..9).unwrap();
        assert!(lost.contains("epochs 6 to 6") && lost.contains("cut short"), "{lost}");
        assert_eq!(read(&path).0.iter().map(|f| f.epoch).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7, 8]);

        let lost = write(&path, &header(5), 3..5).unwrap();
        assert!(lost.contains("epochs 1 to 2") && lost.contains("other faces"), "{lost}");
        std::fs::remove_file(&path).unwrap();
        let lost = write(&path, &ours, 2..3).unwrap();
        assert!(lost.contains("epochs 1 to 1") && lost.contains("no such file"), "{lost}");
        // A run that begins knows nothing of what lies there.
        assert_eq!(write(&path, &ours, 1..2), None);
        assert_eq!(read(&path).0.len(), 1);
    }

    #[test]
    fn other_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("labels.csv");
        let refused = |expected: &str| {
            let error = HistoryReader::open(&path).err().expect("refused");
            assert!(exit_code(&error) == 2 && one_line(&error).contains(expected), "{error:#}");
        };
        refused("no such file");
        for text in ["", "id,given,decided,margin\n"] {
            std::fs::write(&path, text).unwrap();
            refused("no history");
        }
        let mut bytes = header(2).to_bytes().unwrap();
        bytes[8] = 9;
        std::fs::write(&path, bytes).unwrap();
        refused("format 9");
        // Checksums right, content impossible.
        let mut wrong = header(2);
        wrong.faces[0].candidates = vec![0, 7];
        std::fs::write(&path, wrong.to_bytes().unwrap()).unwrap();
        assert!(one_line(&HistoryReader::open(&path).err().unwrap()).contains("face-0"));
        let ours = header(2);
        let far = Frame { flips: vec![Flip { face: 2, step: 1, from: 0, to: 1 }], ..frame(&ours, 1) };
        std::fs::write(&path, [ours.to_bytes().unwrap(), far.to_bytes().unwrap()].concat()).unwrap();
        let (frames, damage) = read(&path);
        assert!(frames.is_empty() && damage.unwrap().contains("no epoch is whole"));
    }
}
