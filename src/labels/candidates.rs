//! Candidate sets: which classes a face may have (METHOD 2).
//!
//! Strategies read votes, a vote distribution, or sets that came with the data. Every set carries its [`Provenance`]. Faces that no
//! strategy can label are left out and counted, never given a default. True classes are read only by [`Candidates::coverage`], which
//! measures and decides nothing.

use crate::config::{LabelSettings, Strategy};
use crate::dataset::{Class, Face, Pack, Split};
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Why a set is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Only one class passed the rule.
    Clear,
    /// Several classes passed the vote rule.
    Votes,
    /// Several classes passed the share threshold of a distribution.
    Distribution,
    /// No class passed; the given label stands alone.
    GivenOnly,
    /// Came with the data or from a file.
    File,
}

impl Provenance {
    fn name(self) -> &'static str {
        match self {
            Provenance::Clear => "clear",
            Provenance::Votes => "votes",
            Provenance::Distribution => "distribution",
            Provenance::GivenOnly => "given_only",
            Provenance::File => "file",
        }
    }
}

/// The candidates of one face, in ascending class order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateSet {
    pub classes: Vec<Class>,
    pub provenance: Provenance,
}

impl CandidateSet {
    pub fn is_ambiguous(&self) -> bool {
        self.classes.len() > 1
    }
}

/// Candidate sets of the training faces of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Face position in the pack and its set, in pack order.
    pub sets: Vec<(usize, CandidateSet)>,
    /// Training faces that no rule could label.
    pub left_out: usize,
}

/// How often the truth lies in the candidate set, where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub ambiguous: usize,
    pub ambiguous_covered: usize,
    /// Ambiguous faces whose given label is the truth: what majority vote recovers.
    pub ambiguous_given_right: usize,
    pub clear: usize,
    pub clear_covered: usize,
}

/// Classes that pass the vote rule, most votes first, lower index on ties, at most `k`.
///
/// A class needs `min_votes` votes and `share` of the votes for classes that were not dropped; votes for extra columns (unknown, NF) are.
pub fn from_votes(votes: &[u32], classes: usize, settings: &LabelSettings) -> Vec<Class> {
    let kept = |v: u32| if v < settings.min_votes { 0 } else { v };
    let total: u32 = votes[..classes].iter().map(|&v| kept(v)).sum();
    let mut passed: Vec<(u32, Class)> = votes[..classes]
        .iter()
        .enumerate()
        .map(|(c, &v)| (kept(v), c as Class))
        .filter(|&(v, _)| v > 0 && f64::from(v) >= settings.share * f64::from(total))
        .collect();
    passed.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    passed.truncate(settings.k);
    passed.into_iter().map(|(_, c)| c).collect()
}

/// The vote shares of a face's classes, `[C]`, single votes below `labels.min_votes` dropped; of a face without such votes its given label.
/// None where there is neither.
pub fn shares(face: &Face, classes: usize, settings: &LabelSettings) -> Option<Vec<f32>> {
    let kept = |v: u32| if v < settings.min_votes { 0 } else { v };
    let votes: Vec<u32> = face.votes.iter().take(classes).map(|&v| kept(v)).collect();
    let total: u32 = votes.iter().sum();
    if total > 0 {
        return Some(votes.iter().map(|&v| v as f32 / total as f32).collect());
    }
    let label = usize::from(face.label?);
    Some((0..classes).map(|c| f32::from(u8::from(c == label))).collect())
}

/// Classes whose share of a distribution reaches `share`, largest first, at most `k`; always the largest.
pub fn from_distribution(weights: &[u32], classes: usize, settings: &LabelSettings) -> Vec<Class> {
    let total: u32 = weights[..classes].iter().sum();
    let mut ranked: Vec<(u32, Class)> = weights[..classes].iter().enumerate().map(|(c, &w)| (w, c as Class)).collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let passes = |n: usize, w: u32| w > 0 && (n == 0 || f64::from(w) >= settings.share * f64::from(total));
    ranked.into_iter().enumerate().filter(|&(n, (w, _))| passes(n, w)).take(settings.k).map(|(_, (_, c))| c).collect()
}

impl Candidates {
    /// Makes the candidate sets of the training faces.
    ///
    /// # Errors
    /// When the strategy needs what the pack does not hold (bad usage), or no face is left.
    pub fn build(pack: &Pack, settings: &LabelSettings) -> Result<Self> {
        let classes = pack.protocol().classes.len();
        let train = pack.split(Split::Train);
        if train.is_empty() {
            usage!("pack {} has no training faces", pack.path().display());
        }
        let has_votes = train.iter().any(|&i| !pack.faces()[i].votes.is_empty());
        let has_sets = train.iter().any(|&i| !pack.faces()[i].candidates.is_empty());
        match settings.strategy {
            Strategy::Votes | Strategy::Distribution if !has_votes => usage!(
                "labels.strategy needs annotator votes, but pack {} has none (give candidate sets with --labels FILE, or train plain \
                 cross-entropy with --set finetune.objective=ce)",
                pack.path().display()
            ),
            Strategy::File if !has_sets => usage!(
                "labels.strategy = \"file\" but pack {} holds no candidate sets (give them with --labels FILE)",
                pack.path().display()
            ),
            _ => {}
        }
        let mut sets = Vec::new();
        let mut left_out = 0;
        for i in train {
            let face = &pack.faces()[i];
            let (mut found, many) = match settings.strategy {
                Strategy::Votes if !face.votes.is_empty() => (from_votes(&face.votes, classes, settings), Provenance::Votes),
                Strategy::Distribution if !face.votes.is_empty() => {
                    (from_distribution(&face.votes, classes, settings), Provenance::Distribution)
                }
                Strategy::File => (face.candidates.clone(), Provenance::File),
                _ => (Vec::new(), Provenance::GivenOnly),
            };
            let empty = found.is_empty();
            if let Some(given) = face.label
                && (empty || settings.include_given && !found.contains(&given))
            {
                found.push(given);
            }
            if found.is_empty() {
                left_out += 1;
                continue;
            }
            found.sort_unstable();
            found.dedup();
            let provenance = match found.len() {
                _ if empty => Provenance::GivenOnly,
                _ if many == Provenance::File => Provenance::File,
                1 => Provenance::Clear,
                _ => many,
            };
            sets.push((i, CandidateSet { classes: found, provenance }));
        }
        if sets.is_empty() {
            bail!("no training face of {} gets a candidate set under labels.*", pack.path().display());
        }
        Ok(Self { sets, left_out })
    }

    /// Reads sets from a csv with the columns `id` and `candidates` (class names separated by `|`); others are ignored.
    ///
    /// # Errors
    /// Names file and line: unknown id or class, a face of another split, an id that occurs twice.
    pub fn read_csv(path: &Path, pack: &Pack) -> Result<Self> {
        let mut reader = match csv::Reader::from_path(path) {
            Ok(reader) => reader,
            Err(e) => usage!("cannot read labels {}: {e}", path.display()),
        };
        let headers = reader.headers().with_context(|| format!("labels {}", path.display()))?.clone();
        let column = |name: &str| headers.iter().position(|h| h.trim() == name);
        let (Some(id_column), Some(set_column)) = (column("id"), column("candidates")) else {
            bail!("labels {}: line 1 must name the columns `id` and `candidates`", path.display());
        };
        let by_id: HashMap<&str, usize> = pack.faces().iter().enumerate().map(|(i, f)| (f.id.as_str(), i)).collect();
        let mut found: HashMap<usize, CandidateSet> = HashMap::new();
        for (n, record) in reader.records().enumerate() {
            let line = n + 2;
            let place = || format!("labels {}, line {line}", path.display());
            let record = record.with_context(place)?;
            let id = record.get(id_column).unwrap_or("");
            let Some(&face) = by_id.get(id) else { bail!("{}: no face of {} has the id `{id}`", place(), pack.path().display()) };
            if pack.faces()[face].split != Split::Train {
                bail!("{}: face `{id}` belongs to the {} split; only training faces have candidates", place(), pack.faces()[face].split);
            }
            let mut classes = Vec::new();
            for name in record.get(set_column).unwrap_or("").split('|').map(str::trim).filter(|n| !n.is_empty()) {
                match pack.protocol().class_index(name) {
                    Some(c) => classes.push(c),
                    None => bail!("{}: `{name}` is no class of {} ({})", place(), pack.protocol().name, pack.protocol().classes.join(", ")),
                }
            }
            classes.sort_unstable();
            classes.dedup();
            if classes.is_empty() {
                bail!("{}: face `{id}` has no candidates", place());
            }
            if found.insert(face, CandidateSet { classes, provenance: Provenance::File }).is_some() {
                bail!("{}: face `{id}` occurs twice", place());
            }
        }
        let train = pack.split(Split::Train);
        let left_out = train.len() - found.len();
        let sets: Vec<_> = train.into_iter().filter_map(|i| found.remove(&i).map(|set| (i, set))).collect();
        if sets.is_empty() {
            bail!("labels {}: no training face has candidates", path.display());
        }
        Ok(Self { sets, left_out })
    }

    /// Writes `id,given,candidates,ambiguous,provenance`, one line a face. The truth is not part of it.
    pub fn write_csv(&self, path: &Path, pack: &Pack) -> Result<()> {
        let name = |c: Class| pack.protocol().classes[usize::from(c)].as_str();
        write_atomic(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(["id", "given", "candidates", "ambiguous", "provenance"])?;
            for (i, set) in &self.sets {
                let face = &pack.faces()[*i];
                let classes: Vec<&str> = set.classes.iter().map(|&c| name(c)).collect();
                let ambiguous = if set.is_ambiguous() { "1" } else { "0" };
                writer.write_record([
                    face.id.as_str(),
                    face.label.map_or("", name),
                    &classes.join("|"),
                    ambiguous,
                    set.provenance.name(),
                ])?;
            }
            writer.flush()?;
            Ok(())
        })
    }

    /// Faces with each number of candidates: `sizes()[k]` have k.
    pub fn sizes(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for (_, set) in &self.sets {
            let k = set.classes.len();
            if counts.len() <= k {
                counts.resize(k + 1, 0);
            }
            counts[k] += 1;
        }
        counts
    }

    /// Compares with the truth where the pack knows it; `None` where it does not.
    pub fn coverage(&self, pack: &Pack) -> Option<Coverage> {
        let mut c = Coverage::default();
        let mut known = false;
        for (i, set) in &self.sets {
            let face = &pack.faces()[*i];
            let Some(truth) = face.truth else { continue };
            known = true;
            let covered = usize::from(set.classes.contains(&truth));
            if set.is_ambiguous() {
                c.ambiguous += 1;
                c.ambiguous_covered += covered;
                c.ambiguous_given_right += usize::from(face.label == Some(truth));
            } else {
                c.clear += 1;
                c.clear_covered += covered;
            }
        }
        known.then_some(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn golden_vote_rules() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/misc.json")).unwrap();
        let list = |v: &Value| -> Vec<u32> { v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect() };
        let rows = golden["ferplus"].as_array().unwrap();
        assert!(rows.len() >= 10);
        for row in rows {
            for (key, k, share) in [("candidates_k2", 2, 0.0), ("candidates_k3", 3, 0.0), ("candidates_k2_share30", 2, 0.3)] {
                let settings = LabelSettings { k, share, ..LabelSettings::default() };
                let mut found: Vec<u32> = from_votes(&list(&row["votes"]), 8, &settings).into_iter().map(u32::from).collect();
                found.sort_unstable();
                assert_eq!(found, list(&row[key]), "{key} of {row}");
            }
        }
    }

    #[test]
    fn a_distribution_always_keeps_its_largest_class() {
        let settings = LabelSettings { share: 0.6, k: 2, ..LabelSettings::default() };
        assert_eq!(from_distribution(&[100, 500, 400], 3, &settings), [1]);
        let settings = LabelSettings { share: 0.2, k: 2, ..LabelSettings::default() };
        assert_eq!(from_distribution(&[250, 500, 250], 3, &settings), [1, 0]);
    }
}
