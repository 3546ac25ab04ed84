//! Short hashes, for two people (or `moue rerun`) to see whether they have the same: the weights of a network, a file, the program.

use super::checkpoint::{self, State};
use super::folder::RunFolder;
use crate::dataset::protocol::hex;
use anyhow::{Context, Result};
use flate2::Crc;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, copy};
use std::path::Path;

/// Hexadecimal digits that are shown of a hash.
const DIGITS: usize = 16;

/// Of the weights in the newest checkpoint of a stage of a run; none where there is none, or it is from before checkpoints held hashes.
///
/// # Errors
/// Where the file cannot be read or is damaged.
pub fn of_stage(folder: &RunFolder, stage: &str) -> Result<Option<String>> {
    let newest = checkpoint::list(folder, stage)?.pop().map(|path| State::read(&path)).transpose()?;
    Ok(newest.and_then(|state| Some(state.weights()?.chars().take(DIGITS).collect())))
}

/// Of all bytes of a file: 16 hexadecimal digits.
///
/// # Errors
/// Where it cannot be read.
pub fn file(path: &Path) -> Result<String> {
    File::open(path).map_err(anyhow::Error::from).and_then(sha256).with_context(|| format!("reading {}", path.display()))
}

/// Of bytes in memory: 16 hexadecimal digits.
pub fn bytes(data: &[u8]) -> String {
    short(&Sha256::digest(data))
}

fn short(digest: &[u8]) -> String {
    hex(&digest[..DIGITS / 2])
}

fn sha256(mut data: impl Read) -> Result<String> {
    let mut hash = Sha256::new();
    copy(&mut data, &mut hash)?;
    Ok(short(&hash.finalize()))
}

/// Of this program's file, by a checksum that is quick for a large file; none where the system does not tell which file it is.
pub fn program() -> Option<String> {
    let mut file = File::open(std::env::current_exe().ok()?).ok()?;
    let (mut crc, mut length, mut buffer) = (Crc::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(format!("{:08x}-{length}", crc.sum())),
            n => {
                crc.update(&buffer[..n]);
                length += n;
            }
        }
    }
}
