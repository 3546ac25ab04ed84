//! The label-protocol card: what the numbers of a label file mean.
//!
//! Most irreproducible expression results come down to this card not being written anywhere: seven or eight classes, anger before
//! disgust or after, how ties and `unknown` votes are counted. It is stored in every pack, hashed into every checkpoint, and two
//! cards that differ are never mixed in silence.

use super::Class;
use crate::limits;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Class names in label order, the vote columns and the rule that turned votes into labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Short name, for example `ferplus-8`.
    pub name: String,
    /// Class names; a label is an index into this list.
    pub classes: Vec<String>,
    /// Vote columns after the classes that are no class themselves, for example `unknown` and `NF`.
    #[serde(default)]
    pub extra_columns: Vec<String>,
    /// The rule that made labels from votes, in words precise enough to repeat it.
    pub rule: String,
    /// Where the data came from, for example `FERPlus label.csv`.
    pub source: String,
}

impl Protocol {
    /// Whether labels can be read by this card.
    ///
    /// # Errors
    /// No class, more than [`limits::CLASSES`] columns, a name that is empty, longer than [`limits::NAME`] or taken, or a text with control
    /// characters ([`check_text`]).
    pub fn check(&self) -> Result<()> {
        if self.classes.is_empty() || self.columns().count() > limits::CLASSES {
            bail!("the label card has {} classes (allowed: 1 to {})", self.classes.len(), limits::CLASSES);
        }
        let mut seen = HashSet::new();
        if let Some(name) = self.columns().find(|name| name.is_empty() || name.len() > limits::NAME || !seen.insert(*name)) {
            bail!("the label card's class `{}` is empty, too long or there twice", name.chars().take(40).collect::<String>());
        }
        if self.name.len() > limits::NAME {
            bail!("the label card's name is longer than {} bytes", limits::NAME);
        }
        let columns = self.columns().map(|name| ("class", name));
        let texts = [("name", self.name.as_str()), ("rule", self.rule.as_str()), ("source", self.source.as_str())];
        columns.chain(texts).try_for_each(|(what, text)| check_text(text).with_context(|| format!("the label card's {what}")))
    }

    /// All vote columns: the classes, then the extra ones.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.classes.iter().chain(&self.extra_columns).map(String::as_str)
    }

    pub fn class_index(&self, name: &str) -> Option<Class> {
        self.classes.iter().position(|c| c.eq_ignore_ascii_case(name)).map(|i| i as Class)
    }

    /// The first 16 hex digits of the SHA-256 of the card's canonical JSON.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("a card of strings serialises");
        hex(&Sha256::digest(json))[..16].to_string()
    }
}

/// Whether a text may stand on a terminal, where names of classes and faces are shown: packs come from strangers.
///
/// # Errors
/// A control character, which could move the cursor, colour or clear the screen.
pub fn check_text(text: &str) -> Result<()> {
    if text.contains(char::is_control) {
        bail!("`{}` holds a control character", text.chars().take(40).flat_map(char::escape_debug).collect::<String>());
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
