//! Reads `events.jsonl`, of a finished run or of one that is still being written.
//!
//! A line counts once its line feed is there: a torn last line is simply not there *yet*, and iterating again after the end picks up
//! what has been added since. Events of an unknown kind (from a newer moue of the same major version) are skipped and counted. Every
//! other malformed line is an error that names file and line: a damaged log is never shown as if it were whole.

use super::event::{Body, Event, VERSION};
use super::folder::RunFolder;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// No event comes near this; a longer line is a damaged or hostile file.
const MAX_LINE: usize = 4 << 20;

/// What one line holds.
pub(super) enum Line {
    Event(Box<Event>),
    /// An event that only a newer moue understands.
    Unknown,
}

/// A place between two events of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    consumed: u64,
    line: u64,
    skipped: u64,
}

/// The events of a run in the order they were written.
///
/// As an iterator it ends at the present end of the file (or after an error); call `next` again later to follow a live run.
pub struct EventReader {
    path: PathBuf,
    file: BufReader<File>,
    pending: Vec<u8>,
    /// Bytes of complete lines read so far.
    consumed: u64,
    line: u64,
    skipped: u64,
    broken: bool,
}

impl EventReader {
    /// # Errors
    /// If the run has no `events.jsonl` that can be read.
    pub fn open(folder: &RunFolder) -> Result<Self> {
        let path = folder.events();
        let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { path, file: BufReader::new(file), pending: Vec::new(), consumed: 0, line: 0, skipped: 0, broken: false })
    }

    /// Events of unknown kinds so far. A view that shows a run says so when this is not 0.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Where the next event lies, to come back to with [`EventReader::open_at`].
    pub fn mark(&self) -> Mark {
        Mark { consumed: self.consumed, line: self.line, skipped: self.skipped }
    }

    /// Opens the log of `folder` at a place that an earlier reader of the same file marked.
    ///
    /// # Errors
    /// If the run has no `events.jsonl` that can be read.
    pub fn open_at(folder: &RunFolder, mark: Mark) -> Result<Self> {
        let mut reader = Self::open(folder)?;
        let context = || format!("reading {}", reader.path.display());
        reader.file.seek(SeekFrom::Start(mark.consumed)).with_context(context)?;
        (reader.consumed, reader.line, reader.skipped) = (mark.consumed, mark.line, mark.skipped);
        Ok(reader)
    }

    /// Whether the file was replaced since it was opened, as a resume does: open it again to see what follows.
    pub fn replaced(&self) -> bool {
        let Ok(now) = self.path.metadata() else { return false };
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            if let Ok(opened) = self.file.get_ref().metadata()
                && (opened.ino() != now.ino() || opened.dev() != now.dev())
            {
                return true;
            }
        }
        now.len() < self.consumed
    }

    /// Bytes of the lines read so far.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next complete line; `None` at the present end.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>> {
        loop {
            let limit = (MAX_LINE - self.pending.len()) as u64;
            let read = (&mut self.file).take(limit).read_until(b'\n', &mut self.pending);
            read.with_context(|| format!("reading {}", self.path.display()))?;
            if self.pending.last() != Some(&b'\n') {
                if self.pending.len() >= MAX_LINE {
                    bail!("{}:{}: longer than {MAX_LINE} bytes", self.path.display(), self.line + 1);
                }
                return Ok(None);
            }
            self.line += 1;
            self.consumed += self.pending.len() as u64;
            let parsed = parse(&self.pending);
            let blank = self.pending.trim_ascii().is_empty();
            self.pending.clear();
            if !blank {
                return parsed.with_context(|| format!("{}:{}", self.path.display(), self.line)).map(Some);
            }
        }
    }
}

impl Iterator for EventReader {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        while !self.broken {
            match self.next_line() {
                Ok(Some(Line::Event(event))) => return Some(Ok(*event)),
                Ok(Some(Line::Unknown)) => self.skipped += 1,
                Ok(None) => return None,
                Err(error) => {
                    self.broken = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn parse(line: &[u8]) -> Result<Line> {
    let error = match serde_json::from_slice::<Event>(line) {
        Ok(event) if event.v / 100 == VERSION / 100 => return Ok(Line::Event(Box::new(event))),
        Ok(event) => return wrong_major(u64::from(event.v)),
        Err(error) => error,
    };
    // The line is no event of this version: damaged, or newer?
    let value: Value = serde_json::from_slice(line).map_err(|e| anyhow!("damaged event: {e}"))?;
    let version = value["v"].as_u64().ok_or_else(|| anyhow!("not an event (no version `v`)"))?;
    if version / 100 != u64::from(VERSION / 100) {
        return wrong_major(version);
    }
    let kind = value["body"].as_object().and_then(|body| body.keys().next());
    let unknown = kind.is_some_and(|kind| !Body::NAMES.contains(&kind.as_str()));
    // A newer minor may also have new stages or phases inside a known kind.
    if unknown || version > u64::from(VERSION) {
        return Ok(Line::Unknown);
    }
    Err(anyhow!("damaged event: {error}"))
}

fn wrong_major(version: u64) -> Result<Line> {
    usage!("the event has version {}.{}, this moue reads {}.x", version / 100, version % 100, VERSION / 100)
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::{event, every_body};
    use super::*;
    use crate::failure::{exit_code, one_line};
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    fn folder(text: &str) -> (tempfile::TempDir, RunFolder) {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("events.jsonl"), text).unwrap();
        let folder = RunFolder::open(root.path()).unwrap();
        (root, folder)
    }

    fn line(body: Body) -> String {
        serde_json::to_string(&event(body)).unwrap() + "\n"
    }

    #[test]
    fn a_torn_last_line_comes_when_it_is_whole() {
        let whole: String = every_body().into_iter().map(line).collect();
        let (_root, folder) = folder(&whole[..whole.len() - 9]);
        let mut reader = EventReader::open(&folder).unwrap();
        assert_eq!(reader.by_ref().map(Result::unwrap).count(), every_body().len() - 1);
        assert!(reader.next().is_none() && !reader.replaced());
        OpenOptions::new().append(true).open(folder.events()).unwrap().write_all(&whole.as_bytes()[whole.len() - 9..]).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().body, every_body().pop().unwrap());
        assert!(reader.next().is_none());
    }

    /// The line as another version would have written it.
    fn versioned(line: &str, version: u32) -> String {
        let own = format!("\"v\":{VERSION},");
        assert!(line.contains(&own), "{line}");
        line.replace(&own, &format!("\"v\":{version},"))
    }

    #[test]
    fn newer_kinds_are_counted_and_fields_ignored() {
        let known = line(Body::StageFinished { elapsed: 1.0 });
        let text = [
            known.replace("stage_finished", "gradient_flow"),
            known.replace("\"elapsed\"", "\"joules\":3,\"elapsed\""),
            versioned(&known, VERSION + 1).replace("finetune", "distil"),
        ];
        let (_root, folder) = folder(&text.concat());
        let mut reader = EventReader::open(&folder).unwrap();
        assert_eq!(reader.by_ref().map(Result::unwrap).count(), 1);
        assert_eq!(reader.skipped(), 2);
    }

    #[test]
    fn a_marked_place_is_found_again() {
        let whole: String = every_body().into_iter().map(line).collect();
        let (_root, folder) = folder(&whole.replacen("watched", "gazed_at", 1));
        let mut reader = EventReader::open(&folder).unwrap();
        let first: Vec<Event> = reader.by_ref().take(9).map(Result::unwrap).collect();
        let (mark, rest) = (reader.mark(), reader.by_ref().map(Result::unwrap).collect::<Vec<_>>());
        assert_eq!((first.len(), rest.len(), reader.skipped()), (9, every_body().len() - 10, 1));
        let mut again = EventReader::open_at(&folder, mark).unwrap();
        assert_eq!((again.by_ref().map(Result::unwrap).collect::<Vec<_>>(), again.skipped()), (rest, 1));
    }

    #[test]
    fn damage_in_the_middle_names_file_and_line() {
        let known = line(Body::StageFinished { elapsed: 1.0 });
        for (damage, says) in [
            ("{\"v\":101,\n".to_string(), "damaged event"),
            ("{\"t\":1}\n".into(), "not an event"),
            (known.replace("finetune", "distil"), "unknown variant `distil`"),
            (known.replace("1.0", "\"soon\""), "damaged event"),
        ] {
            let (_root, folder) = folder(&format!("{known}{damage}{known}"));
            let mut reader = EventReader::open(&folder).unwrap();
            assert!(reader.next().unwrap().is_ok());
            let error = one_line(&reader.next().unwrap().unwrap_err());
            assert!(error.contains("events.jsonl:2: ") && error.contains(says), "{error}");
            assert!(reader.next().is_none());
        }
    }

    #[test]
    fn another_major_version_is_refused() {
        let known = line(Body::StageFinished { elapsed: 1.0 });
        for newer in [versioned(&known, 203), versioned(&known, 203).replace("stage_fi", "fi")] {
            let (_root, folder) = folder(&newer);
            let error = EventReader::open(&folder).unwrap().next().unwrap().unwrap_err();
            assert!(exit_code(&error) == 2 && one_line(&error).contains("version 2.3"), "{error:#}");
        }
    }
}
