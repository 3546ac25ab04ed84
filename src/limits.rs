//! How much of a file is read that may come from a stranger.
//!
//! Packs, runs, weights, pictures and tables are passed on, so none of them is trusted: a size that a file claims is held against what the
//! file is, and what has no size is read up to a bound that nothing real comes near. A bound that is hit is an error that says so, never a
//! shorter file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest text that is read whole: a configuration, a manifest, the state in a checkpoint.
pub const TEXT: u64 = 4 << 20;
/// Longest record of a table.
pub const RECORD: u64 = 1 << 20;
/// Most classes that labels tell apart. Compound emotions are some fifty.
pub const CLASSES: usize = 1000;
/// Longest name of a class or a label card, in bytes.
pub const NAME: usize = 200;

/// The most bytes that may come of `packed` compressed ones: pixels and labels shrink to a tenth, a bomb to a thousandth.
pub fn inflated(packed: u64) -> u64 {
    packed.saturating_mul(200).saturating_add(1 << 20)
}

/// A file's bytes, if there are at most `most` of them.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    AtMost::new(File::open(path)?, most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A text file of at most [`TEXT`] bytes.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, TEXT)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// A reader that fails where more than so many bytes come.
pub struct AtMost<R> {
    inner: R,
    most: u64,
    left: u64,
}

impl<R> AtMost<R> {
    pub fn new(inner: R, most: u64) -> Self {
        Self { inner, most, left: most }
    }
}

impl<R: Read> Read for AtMost<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            return Err(io::Error::other(format!("it holds more than {} bytes", self.most)));
        };
        self.left = left;
        Ok(read)
    }
}

/// A reader of a csv file that fails where a record is longer than [`RECORD`]: the parser itself would take any length into memory. A line
/// feed within quotes ends no record.
pub struct Records<R> {
    inner: R,
    length: u64,
    quoted: bool,
}

impl Records<File> {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }
}

impl<R> Records<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, length: 0, quoted: false }
    }
}

impl<R: Read> Read for Records<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        for byte in &buffer[..read] {
            self.length += 1;
            match byte {
                b'"' => self.quoted = !self.quoted,
                b'\n' | b'\r' if !self.quoted => self.length = 0,
                _ => {}
            }
            if self.length > RECORD {
                return Err(io::Error::other(format!("a record is longer than {RECORD} bytes, or a quote is not closed")));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(mut reader: impl Read) -> io::Result<usize> {
        reader.read_to_end(&mut Vec::new())
    }

    #[test]
    fn a_bound_is_an_error_and_not_a_shorter_file() {
        assert_eq!(length(AtMost::new(&[7; 100][..], 100)).unwrap(), 100);
        assert!(length(AtMost::new(&[7; 101][..], 100)).unwrap_err().to_string().contains("more than 100 bytes"));
        assert!(length(AtMost::new(io::repeat(0), inflated(10))).is_err());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"caf\xe9").unwrap();
        assert!(read_text(&folder.path().join("a")).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn only_a_record_has_a_length() {
        let line = [&b"a,".repeat(400)[..], b"\n"].concat();
        assert_eq!(length(Records::new(&line.repeat(3000)[..])).unwrap(), 3000 * 801);
        assert!(length(Records::new(io::repeat(b'x'))).is_err());
        // Quotes hold line feeds together, and a record ends after the closing one.
        let field = [&b"\"say \"\"hi\"\"\n\","[..], b"b\n"].concat();
        assert_eq!(length(Records::new(&field.repeat(100_000)[..])).unwrap(), field.len() * 100_000);
        assert!(length(Records::new(&[&b"\""[..], &b"a\n".repeat(600_000)].concat()[..])).is_err());
    }
}
