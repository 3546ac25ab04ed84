//! Line-by-line reading of the label files that data sets ship: comma-separated or blank-separated, with or without a header.
//!
//! A row is one line in all of these formats. So a stray quote cannot swallow the rest of a file, memory stays bounded by
//! [`MAX_LINE`], and every error names the exact line. Lines that are too long, not UTF-8 or have an open quote are refused.

use crate::failure::Usage;
use crate::limits::{self, AtMost};
use anyhow::{Context, Result, anyhow, bail};
use flate2::read::MultiGzDecoder;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// A line of `fer2013.csv` has about 9 kB; nothing real comes near this.
const MAX_LINE: u64 = limits::RECORD;
/// Columns are looked for one by one; nothing real has as many.
const MAX_FIELDS: usize = 4096;

/// Where a row stands: a file and, if known, a line (from 1; 0: the file as a whole).
#[derive(Clone, Debug)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{} line {line}", self.file),
        }
    }
}

/// One row: its fields and where it stands.
#[derive(Debug)]
pub struct Row {
    pub place: Place,
    fields: Vec<String>,
}

impl Row {
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Field `i`, without surrounding blanks.
    pub fn get(&self, i: usize) -> Result<&str> {
        self.fields.get(i).map(String::as_str).ok_or_else(|| anyhow!("{}: field {} is missing", self.place, i + 1))
    }

    /// Field `i` as a number; `what` names it in the error.
    pub fn number<T: FromStr>(&self, i: usize, what: &str) -> Result<T> {
        let text = self.get(i)?;
        text.parse().map_err(|_| anyhow!("{}: {what} `{}` is not a number of the expected kind", self.place, clip(text)))
    }
}

/// At most the first 40 characters of `text`: errors stay one readable line.
pub fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// How fields are separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    Comma,
    /// One or more blanks or tabs.
    Blank,
}

/// Reads rows from a text file.
pub struct Table {
    file: Arc<str>,
    reader: Box<dyn BufRead + Send>,
    separator: Separator,
    line: u64,
    header: Vec<String>,
}

impl Table {
    /// Opens `path`; a name that ends in `.gz` is decompressed on the way.
    pub fn open(path: &Path, separator: Separator) -> Result<Self> {
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => anyhow::Error::from(Usage(format!("{} does not exist", path.display()))),
            _ => anyhow::Error::from(e).context(format!("cannot read {}", path.display())),
        })?;
        let zipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let reader: Box<dyn Read + Send> = if zipped {
            let most = limits::inflated(file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len());
            Box::new(AtMost::new(MultiGzDecoder::new(BufReader::new(file)), most))
        } else {
            Box::new(file)
        };
        Ok(Self::new(&path.display().to_string(), reader, separator))
    }

    pub fn new(name: &str, reader: impl Read + Send + 'static, separator: Separator) -> Self {
        Self { file: name.into(), reader: Box::new(BufReader::with_capacity(1 << 16, reader)), separator, line: 0, header: Vec::new() }
    }

    /// Takes the first line as column names.
    ///
    /// # Errors
    /// If the file is empty.
    pub fn with_header(mut self) -> Result<Self> {
        let Some(row) = self.next()? else { bail!("{} is empty", self.file) };
        self.header = row.fields;
        Ok(self)
    }

    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The column names in the file's order.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The column called `name` (letter case is ignored).
    pub fn find(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|h| h.eq_ignore_ascii_case(name))
    }

    /// The column called `name`.
    ///
    /// # Errors
    /// Names the file, the missing column and the columns that are there.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| anyhow!("{} line 1: column `{name}` is missing (found: {})", self.file, clip_list(&self.header)))
    }

    /// The next row that is not blank.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Row>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            self.line += 1;
            let place = Place { file: self.file.clone(), line: self.line };
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
            let n = read.with_context(|| format!("{place}: cannot read on; the file is damaged or cut short"))?;
            if n == 0 {
                return Ok(None);
            }
            if n as u64 == MAX_LINE {
                bail!("{place}: longer than {MAX_LINE} bytes; this is no label file");
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| anyhow!("{place}: not UTF-8 text"))?;
            let text = if self.line == 1 { text.trim_start_matches('\u{feff}') } else { text };
            let text = text.trim_end_matches(['\n', '\r']);
            if text.trim().is_empty() {
                continue;
            }
            let fields = match self.separator {
                Separator::Blank => text.split_whitespace().map(str::to_owned).collect(),
                Separator::Comma => split_commas(text).ok_or_else(|| anyhow!("{place}: a quote is not closed"))?,
            };
            if fields.len() > MAX_FIELDS {
                bail!("{place}: more than {MAX_FIELDS} fields; this is no label file");
            }
            return Ok(Some(Row { place, fields }));
        }
    }
}

fn clip_list(names: &[String]) -> String {
    let mut text = names.iter().take(12).map(|n| clip(n)).collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(", ...");
    }
    text
}

/// Splits at commas outside double quotes; `""` inside quotes is one quote. `None`: a quote stays open.
fn split_commas(line: &str) -> Option<Vec<String>> {
    if !line.contains('"') {
        return Some(line.split(',').map(|f| f.trim().to_owned()).collect());
    }
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            c => field.push(c),
        }
    }
    fields.push(field.trim().to_owned());
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &'static str, separator: Separator) -> Table {
        Table::new("t.csv", text.as_bytes(), separator)
    }

    #[test]
    fn quotes_blank_lines_and_line_ends() {
        let mut t = table("\u{feff}a,\"(0, 0, 48, 48)\",3\r\n\r\nb,\"say \"\"hi\"\"\",4", Separator::Comma);
        let row = t.next().unwrap().unwrap();
        assert_eq!((row.get(0).unwrap(), row.get(1).unwrap(), row.len()), ("a", "(0, 0, 48, 48)", 3));
        let row = t.next().unwrap().unwrap();
        assert_eq!((row.place.line, row.get(1).unwrap()), (3, "say \"hi\""));
        assert!(t.next().unwrap().is_none());
    }

    #[test]
    fn errors_name_file_and_line() {
        let mut t = table("a b\nc \"x\n", Separator::Blank);
        t.next().unwrap();
        assert_eq!(t.next().unwrap().unwrap().get(2).unwrap_err().to_string(), "t.csv line 2: field 3 is missing");
        let mut t = table("a\n\"b\n", Separator::Comma);
        t.next().unwrap();
        assert_eq!(t.next().unwrap_err().to_string(), "t.csv line 2: a quote is not closed");
        let t = table("x,y\n", Separator::Comma).with_header().unwrap();
        assert_eq!(t.column("z").unwrap_err().to_string(), "t.csv line 1: column `z` is missing (found: x, y)");
        assert!(table("", Separator::Comma).with_header().is_err());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut t = Table::new("t.csv", std::io::repeat(b'x'), Separator::Comma);
        assert!(t.next().unwrap_err().to_string().contains("longer than"));
    }
}
