//! What a face is, and where faces come from.
//!
//! A [`Face`] is everything known about one picture except its pixels; [`Pixels`] are the picture. Both live together in one
//! [`pack`] file with the [`protocol`] card that says what the labels mean. Importers and the generator write packs; everything
//! downstream reads only packs.
//!
//! This module refuses to guess: a class order that can be read in two ways, a label outside the card, a picture that does not decode
//! are errors, never defaults.

pub mod generated;
pub mod import;
pub mod landmarks;
pub mod leaks;
pub mod pack;
pub mod picture;
pub mod profile;
pub mod protocol;
pub mod sheet;
pub mod votes;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

pub use pack::{Pack, PackWriter};
pub use protocol::Protocol;

/// Index of a class in the [`Protocol`]'s order.
pub type Class = u16;

/// Which part of the data a face belongs to. Training never reads [`Split::Test`]; model choice reads only [`Split::Valid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Valid,
    Test,
}

impl Split {
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.to_ascii_lowercase().as_str() {
            "train" | "training" => Ok(Split::Train),
            "valid" | "validation" | "val" | "publictest" => Ok(Split::Valid),
            "test" | "privatetest" => Ok(Split::Test),
            other => Err(format!("`{other}` is no split (train, valid, test)")),
        }
    }
}

/// Everything known about one face but its pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Face {
    /// Unique within the pack, without control characters; the importer's file name or row.
    pub id: String,
    pub split: Split,
    /// The given label under the card's vote rule. `None`: the rule leaves it open (kept for partial-label training only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Class>,
    /// The true class, where it is known (generated faces). Never read by training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Class>,
    /// Vote counts (or weights in thousandths, where the source gives a distribution), one per [`Protocol::columns`]; empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<u32>,
    /// Column of the card that each annotator of the panel chose (`None`: did not see the face); empty: not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub panel: Vec<Option<Class>>,
    /// Candidate classes that came with the data; empty: to be made from votes or predictions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Class>,
    /// Landmarks in pixel coordinates `[x, y]` of the stored picture (5 or 68 points); empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub landmarks: Vec<[f32; 2]>,
}

impl Face {
    pub fn new(id: impl Into<String>, split: Split) -> Self {
        Self {
            id: id.into(),
            split,
            label: None,
            truth: None,
            votes: Vec::new(),
            panel: Vec::new(),
            candidates: Vec::new(),
            landmarks: Vec::new(),
        }
    }
}

/// An 8-bit picture, rows from the top, channels interleaved: `[H, W, C]`, C = 1 (gray) or 3 (RGB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub data: Vec<u8>,
}

impl Pixels {
    /// # Panics
    /// If `data` is not `width * height * channels` long or `channels` is neither 1 nor 3: both are programming errors.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Self {
        assert!(channels == 1 || channels == 3, "a picture has 1 or 3 channels, not {channels}");
        assert_eq!(data.len(), width * height * channels, "pixel count of a {width}x{height}x{channels} picture");
        Self { width, height, channels, data }
    }
}
