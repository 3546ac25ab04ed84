//! What an import did: counts, how ambiguous the votes are, what was dropped and why, and pixel-identical copies between splits.
//!
//! The same figures are printed ([`Imported`]'s `Display`) and stored in the pack's provenance ([`Imported::to_json`]).

use super::{Listing, Options};
use crate::dataset::leaks::{Copies, Leak, Print};
use crate::dataset::{Face, Protocol, Split, votes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Upper ends, in bits, of the vote-entropy buckets; the first holds unanimous votes, one more follows the last.
const BUCKETS: [f64; 5] = [0.0, 0.5, 1.0, 1.5, 2.0];
const BUCKET_NAMES: [&str; 6] = ["unanimous", "to 0.5", "to 1.0", "to 1.5", "to 2.0", "above 2"];
const SPLITS: usize = Split::ALL.len();

/// How ambiguous the votes of one split are; entropy in bits over the class columns of faces that have votes for a class.
#[derive(Clone, Debug, Serialize)]
pub struct EntropyProfile {
    pub split: Split,
    pub faces: usize,
    pub mean_bits: f64,
    /// Share of faces by bucket: unanimous, up to 0.5, 1.0, 1.5, 2.0 bits, above.
    pub shares: [f64; 6],
}

/// The result of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    pub importer: &'static str,
    pub card: Protocol,
    pub sources: Vec<String>,
    /// `[class][split]`; the last row counts faces without a label.
    pub counts: Vec<[usize; SPLITS]>,
    /// What was left out: reason, then rows by split. Rows whose split no longer matters count under `None`.
    pub dropped: BTreeMap<String, BTreeMap<Option<Split>, usize>>,
    pub entropy: Vec<EntropyProfile>,
    /// Copies among all rows, before the vote rule.
    pub leaks: Vec<Leak>,
    /// Copies among the faces in the pack.
    pub leaks_in_pack: Vec<Leak>,
    pub notes: Vec<String>,
    annotators: Vec<String>,
    settings: serde_json::Value,
    seen: Copies,
    kept: Copies,
    bits: [Vec<f64>; SPLITS],
}

impl Imported {
    pub(super) fn new(listing: &Listing, options: &Options) -> Self {
        let dropped = listing.dropped.iter().map(|(reason, &n)| (reason.clone(), BTreeMap::from([(None, n)]))).collect();
        Self {
            importer: listing.importer,
            card: listing.card.clone(),
            sources: listing.sources.clone(),
            counts: vec![[0; SPLITS]; listing.card.classes.len() + 1],
            dropped,
            entropy: Vec::new(),
            leaks: Vec::new(),
            leaks_in_pack: Vec::new(),
            notes: listing.notes.clone(),
            annotators: listing.annotators.clone(),
            settings: serde_json::json!({
                "size": options.size, "align_margin": options.align, "drop_leaks": options.drop_leaks, "skip_unreadable": options.skip_unreadable,
            }),
            seen: Copies::default(),
            kept: Copies::default(),
            bits: Default::default(),
        }
    }

    pub(super) fn count_dropped(&mut self, split: Split, reason: &str) {
        *self.dropped.entry(reason.to_owned()).or_default().entry(Some(split)).or_default() += 1;
    }

    pub(super) fn see(&mut self, split: Split, print: Print) {
        self.seen.see(split, print);
    }

    pub(super) fn keep(&mut self, face: &Face, print: Print) {
        self.kept.see(face.split, print);
        let class = face.label.map_or(self.card.classes.len(), usize::from);
        self.counts[class][face.split as usize] += 1;
        if let Some(bits) = votes::entropy(&face.votes, self.card.classes.len()) {
            self.bits[face.split as usize].push(bits);
        }
    }

    /// Turns the collected rows into figures.
    pub(super) fn finish(&mut self) {
        self.leaks = std::mem::take(&mut self.seen).leaks();
        self.leaks_in_pack = std::mem::take(&mut self.kept).leaks();
        for split in Split::ALL {
            let bits = std::mem::take(&mut self.bits[split as usize]);
            if !bits.is_empty() {
                self.entropy.push(profile(split, &bits));
            }
        }
        if self.total(Split::Valid) == 0 {
            self.notes.push("the pack has no valid split: a model cannot be chosen by validation".into());
        }
    }

    /// Faces of a split in the pack.
    pub fn total(&self, split: Split) -> usize {
        self.counts.iter().map(|row| row[split as usize]).sum()
    }

    /// The copies between two splits among all rows before the vote rule.
    pub fn leak(&self, from: Split, to: Split) -> Option<&Leak> {
        self.leaks.iter().find(|l| (l.from, l.to) == (from, to))
    }

    /// Everything above for the pack's provenance.
    pub fn to_json(&self) -> serde_json::Value {
        let by_split = |row: &[usize; SPLITS]| Split::ALL.map(|s| (s.name().to_owned(), row[s as usize].into()));
        let object = |entries: Vec<(String, serde_json::Value)>| serde_json::Value::Object(entries.into_iter().collect());
        let names = self.card.classes.iter().map(String::as_str).chain(["(no label)"]);
        let counts = names.zip(&self.counts).map(|(name, row)| (name.to_owned(), object(by_split(row).into()))).collect();
        let dropped = self.dropped.iter().map(|(reason, by)| {
            let by = by.iter().map(|(split, &n)| (split.map_or("all", Split::name).to_owned(), n.into())).collect();
            (reason.clone(), object(by))
        });
        serde_json::json!({
            "importer": self.importer,
            "moue": env!("CARGO_PKG_VERSION"),
            "sources": self.sources,
            "settings": self.settings,
            "counts": object(counts),
            "dropped": object(dropped.collect()),
            "vote_entropy": self.entropy,
            "copies_before_rule": self.leaks,
            "copies_in_pack": self.leaks_in_pack,
            "notes": self.notes,
            "annotators": self.annotators,
        })
    }
}

fn profile(split: Split, bits: &[f64]) -> EntropyProfile {
    let mut shares = [0.0; BUCKETS.len() + 1];
    for &b in bits {
        // Rounding in the logarithms must not push one full bit into the next bucket.
        let bucket = BUCKETS.iter().position(|&end| b <= end + 1e-9).unwrap_or(BUCKETS.len());
        shares[bucket] += 1.0 / bits.len() as f64;
    }
    EntropyProfile { split, faces: bits.len(), mean_bits: bits.iter().sum::<f64>() / bits.len() as f64, shares }
}

/// `12345` as `12,345`.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(d);
    }
    text
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.card.classes.iter().map(String::as_str).chain(["(no label)", "total"]).collect();
        let wide = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        writeln!(f, "{:wide$}  {:>9}  {:>9}  {:>9}", "faces", "train", "valid", "test")?;
        let total = Split::ALL.map(|s| self.total(s));
        for (i, (name, row)) in names.iter().zip(self.counts.iter().chain([&total])).enumerate() {
            if i == self.card.classes.len() && row.iter().sum::<usize>() == 0 {
                continue;
            }
            writeln!(f, "{name:wide$}  {:>9}  {:>9}  {:>9}", grouped(row[0]), grouped(row[1]), grouped(row[2]))?;
        }
        if !self.entropy.is_empty() {
            writeln!(f, "\nvote entropy over the classes, bits")?;
            write!(f, "{:5}  {:>9}  {:>5}", "split", "faces", "mean")?;
            BUCKET_NAMES.iter().try_for_each(|name| write!(f, "  {name:>9}"))?;
            writeln!(f)?;
            for p in &self.entropy {
                write!(f, "{:5}  {:>9}  {:>5.3}", p.split.name(), grouped(p.faces), p.mean_bits)?;
                p.shares.iter().try_for_each(|s| write!(f, "  {:>8.1}%", 100.0 * s))?;
                writeln!(f)?;
            }
        }
        writeln!(f, "\ndropped")?;
        if self.dropped.is_empty() {
            writeln!(f, "  nothing")?;
        }
        for (reason, by_split) in &self.dropped {
            let parts: Vec<String> =
                by_split.iter().map(|(split, &n)| format!("{}{}", split.map_or(String::new(), |s| format!("{s} ")), grouped(n))).collect();
            writeln!(f, "  {reason}: {}", parts.join(", "))?;
        }
        for (title, leaks) in [("all rows, before any rule", &self.leaks), ("faces in the pack", &self.leaks_in_pack)] {
            writeln!(f, "\npixel-identical copies, {title}")?;
            if leaks.is_empty() {
                writeln!(f, "  none")?;
            }
            for l in leaks {
                if l.from == l.to {
                    writeln!(f, "  within {}: {} rows in {} pairs", l.from, grouped(l.rows_from), grouped(l.pairs))?;
                } else {
                    let [a, b, p] = [l.rows_from, l.rows_to, l.pairs].map(grouped);
                    writeln!(f, "  {} -> {}: {a} {} rows have a copy in {} ({b} {} rows, {p} pairs)", l.from, l.to, l.from, l.to, l.to)?;
                }
            }
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nnotes")?;
            self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        }
        write!(f, "\ncard {} {}: {}", self.card.name, self.card.hash(), self.card.classes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_buckets_and_thousands() {
        let p = profile(Split::Train, &[0.0, 0.4, 1.0, 2.5]);
        assert_eq!(p.shares, [0.25, 0.25, 0.25, 0.0, 0.0, 0.25]);
        assert!((p.mean_bits - 0.975).abs() < 1e-12);
        assert_eq!([grouped(0), grouped(999), grouped(28558), grouped(1234567)], ["0", "999", "28,558", "1,234,567"]);
    }
}
