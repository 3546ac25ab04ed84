//! From the file to frames, up to its end or its damage.

use super::{FLIP, FORMAT, FRAME, FRAME_HEAD, Flip, Frame, Header, Layout, MARK, MAX_HEADER, checksum};
use crate::usage;
use anyhow::{Context, Result, bail};
use flate2::Crc;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Reads a history frame by frame.
pub struct HistoryReader {
    path: PathBuf,
    header: Header,
    layout: Layout,
    file: BufReader<File>,
    /// Bytes read of whole frames and the header, and of the file.
    pub(super) consumed: u64,
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
