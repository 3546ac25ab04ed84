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

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::dataset::Class;
use anyhow::{Context, Result, bail};
use flate2::Crc;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub use reader::HistoryReader;
pub use writer::HistoryWriter;

const MARK: &[u8; 8] = b"MOUEHIST";
const FRAME: &[u8; 4] = b"EPOC";
const FORMAT: u32 = 1;
/// A million faces need less; a longer header is a damaged or hostile file.
const MAX_HEADER: u32 = 256 << 20;
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
