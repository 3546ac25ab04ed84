//! From a running stage to the file, also where an interrupted one left it.

use super::{Frame, Header, HistoryReader};
use crate::run::folder::write_atomic;
use anyhow::{Context, Result, anyhow};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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
    /// Where the disk fails; nothing has been appended then.
    pub fn append(&mut self, frame: &Frame, durable: bool) -> Result<()> {
        let context = || format!("history {}", self.path.display());
        let bytes = frame.to_bytes().with_context(context)?;
        let before = self.file.stream_position().with_context(context)?;
        let mut append = || -> std::io::Result<()> {
            self.file.write_all(&bytes)?;
            if durable { self.file.sync_data() } else { Ok(()) }
        };
        if let Err(error) = append() {
            self.file.set_len(before).and_then(|()| self.file.seek(SeekFrom::Start(before))).with_context(context)?;
            return Err(error).with_context(context);
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
