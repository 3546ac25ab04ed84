//! Where results go: the standard output, and files that can be written.

use crate::usage;
use anyhow::Result;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Writes to the standard output. A reader that has seen enough (`moue runs | head`) is no error: the rest is simply not written.
pub fn print(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    forgive(write(&mut out).and_then(|()| Ok(out.flush()?)))?;
    // Dropping the buffer must not try again what the reader did not want.
    let _ = out.into_parts();
    Ok(())
}

/// Refuses an output path whose folder is missing before any work is done.
pub fn check_output(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        usage!("cannot write {}: there is no folder {}", path.display(), folder.display());
    }
    if path.is_dir() {
        usage!("cannot write {}: it is a folder", path.display());
    }
    Ok(())
}

fn forgive(result: Result<()>) -> Result<()> {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        let io = match cause.downcast_ref::<csv::Error>().map(csv::Error::kind) {
            Some(csv::ErrorKind::Io(error)) => Some(error),
            _ => cause.downcast_ref::<io::Error>(),
        };
        io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    match result {
        Err(error) if error.chain().any(broken) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn only_a_closed_reader_is_forgiven() {
        let io = |kind: ErrorKind| io::Error::from(kind);
        assert!(forgive(Err(io(ErrorKind::BrokenPipe)).context("printing")).is_ok());
        assert!(forgive(Err(csv::Error::from(io(ErrorKind::BrokenPipe)).into())).is_ok());
        assert!(forgive(Err(io(ErrorKind::StorageFull).into())).is_err());
        assert!(forgive(Err(csv::Error::from(io(ErrorKind::StorageFull)).into())).is_err());
    }
}
