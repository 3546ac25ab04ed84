//! Candidate sets: which classes a face may have (METHOD 2).
//!
//! Strategies read votes, a vote distribution, sets that came with the data, or predictions ([`super::predicted`]). Every set carries its
//! [`Provenance`]. Faces that no strategy can label are left out and counted, never given a default. True classes are read only by
//! [`Candidates::coverage`], which measures and decides nothing.

use super::predicted::{Evidence, decide};
use crate::config::{LabelSettings, Strategy};
use crate::dataset::{Class, Face, Pack, Split};
use crate::limits::Records;
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
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
    /// The most likely classes, as of every face (`topk_all`).
    Predicted,
    /// The prediction is the given label (`crossfit_disagree`).
    Agreed,
    /// The prediction is not the given label: the most likely classes (`crossfit_disagree`).
    Disagreed,
    /// The attack did not move the face away from its given label (`gaave`).
    Clean,
    /// The attack moved the face away from its given label: the most likely classes (`gaave`).
    Vulnerable,
    /// Not even the face itself is predicted as its given label: the most likely classes (`gaave`, kappa 0).
    Noisy,
    /// There is no given label to hold a prediction against: the most likely classes in the mean of all folds' models.
    Unlabelled,
}

impl Provenance {
    /// The word in a csv.
    pub fn name(self) -> &'static str {
        match self {
            Provenance::Clear => "clear",
            Provenance::Votes => "votes",
            Provenance::Distribution => "distribution",
            Provenance::GivenOnly => "given_only",
            Provenance::File => "file",
            Provenance::Predicted => "predicted",
            Provenance::Agreed => "agreed",
            Provenance::Disagreed => "disagreed",
            Provenance::Clean => "clean",
            Provenance::Vulnerable => "vulnerable",
            Provenance::Noisy => "noisy",
            Provenance::Unlabelled => "unlabelled",
        }
    }
}

/// What a model that never saw the face predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The most likely class and its probability.
    pub class: Class,
    pub probability: f32,
    /// Iterates of the attack that are predicted as the given label, if there was an attack ([`super::predicted::kappa`]).
    pub kappa: Option<usize>,
}

/// The candidates of one face, in ascending class order.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateSet {
    pub classes: Vec<Class>,
    pub provenance: Provenance,
    /// Where the set comes from predictions.
    pub prediction: Option<Prediction>,
}

impl CandidateSet {
    pub fn is_ambiguous(&self) -> bool {
        self.classes.len() > 1
    }
}

/// Candidate sets of the training faces of a pack.
#[derive(Clone, Debug, PartialEq)]
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

/// The training faces of a pack, if settings and pack fit each other.
///
/// # Errors
/// Bad usage: there are none, or fewer classes than `labels.k`.
pub fn training_faces(pack: &Pack, settings: &LabelSettings) -> Result<Vec<usize>> {
    let classes = pack.protocol().classes.len();
    let train = pack.split(Split::Train);
    if train.is_empty() {
        usage!("pack {} has no training faces", pack.path().display());
    }
    if settings.strategy != Strategy::File && settings.k > classes {
        usage!("labels.k = {}, but pack {} has only {classes} classes", settings.k, pack.path().display());
    }
    Ok(train)
}

impl Candidates {
    /// Makes the candidate sets of the training faces from what the pack holds.
    ///
    /// # Errors
    /// When the strategy needs what the pack does not hold, or predictions (bad usage), or no face is left.
    pub fn build(pack: &Pack, settings: &LabelSettings) -> Result<Self> {
        if settings.strategy.predicts() {
            usage!(
                "labels.strategy = \"{}\" needs models that are trained first: make the candidate sets with \
                 `moue labels {} --out FILE` and the same settings, then give them with --labels FILE",
                settings.strategy.name(),
                pack.path().display()
            );
        }
        let classes = pack.protocol().classes.len();
        let train = training_faces(pack, settings)?;
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
            sets.push((i, CandidateSet { classes: found, provenance, prediction: None }));
        }
        if sets.is_empty() {
            bail!("no training face of {} gets a candidate set under labels.*", pack.path().display());
        }
        Ok(Self { sets, left_out })
    }

    /// Makes the candidate sets of faces (positions in the pack) from predictions.
    pub fn from_evidence(pack: &Pack, evidence: &BTreeMap<usize, Evidence>, settings: &LabelSettings) -> Self {
        let sets = evidence.iter().map(|(&i, said)| (i, decide(said, pack.faces()[i].label, settings)));
        Self { sets: sets.collect(), left_out: 0 }
    }

    /// Reads sets from a csv with the columns `id` and `candidates` (class names separated by `|`); others are ignored. What trains on them
    /// takes them [`with_given`](Self::with_given).
    ///
    /// # Errors
    /// Names file and line: unknown id or class, a face of another split, an id that occurs twice.
    pub fn read_csv(path: &Path, pack: &Pack) -> Result<Self> {
        let mut reader = match Records::open(path) {
            Ok(records) => csv::Reader::from_reader(records),
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
            if found.insert(face, CandidateSet { classes, provenance: Provenance::File, prediction: None }).is_some() {
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

    /// The sets of a file as a training under `settings` takes them: each face's given label joins where `labels.include_given` wants it;
    /// nothing else of `labels.*` touches what a file says.
    #[must_use]
    pub fn with_given(mut self, pack: &Pack, settings: &LabelSettings) -> Self {
        for (i, set) in &mut self.sets {
            if let Some(given) = pack.faces()[*i].label
                && settings.include_given
                && !set.classes.contains(&given)
            {
                set.classes.push(given);
                set.classes.sort_unstable();
            }
        }
        self
    }

    /// Writes `id,given,candidates,ambiguous,provenance,kappa,predicted,probability`, one line a face; the last three are empty where
    /// nothing was predicted or attacked. The truth is not part of it.
    pub fn write_csv(&self, path: &Path, pack: &Pack) -> Result<()> {
        let name = |c: Class| pack.protocol().classes[usize::from(c)].as_str();
        write_atomic(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(["id", "given", "candidates", "ambiguous", "provenance", "kappa", "predicted", "probability"])?;
            for (i, set) in &self.sets {
                let face = &pack.faces()[*i];
                let classes: Vec<&str> = set.classes.iter().map(|&c| name(c)).collect();
                let ambiguous = if set.is_ambiguous() { "1" } else { "0" };
                let said = set.prediction;
                writer.write_record([
                    face.id.as_str(),
                    face.label.map_or("", name),
                    &classes.join("|"),
                    ambiguous,
                    set.provenance.name(),
                    &said.and_then(|p| p.kappa).map_or(String::new(), |kappa| kappa.to_string()),
                    said.map_or("", |p| name(p.class)),
                    &said.map_or(String::new(), |p| format!("{:.4}", p.probability)),
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

    /// Share of the faces with more than one candidate.
    pub fn ambiguous_share(&self) -> f64 {
        self.sets.iter().filter(|(_, set)| set.is_ambiguous()).count() as f64 / self.sets.len().max(1) as f64
    }

    /// Faces with each value of kappa, 0 to `iterates`, of those that were attacked; `None` where none was.
    pub fn kappas(&self, iterates: usize) -> Option<Vec<usize>> {
        let mut counts = vec![0; iterates + 1];
        self.sets.iter().filter_map(|(_, set)| set.prediction?.kappa).for_each(|kappa| counts[kappa] += 1);
        counts.iter().any(|&n| n > 0).then_some(counts)
    }

    /// Share of the faces that are predicted as their given label, of those that have both; `None` where none has.
    pub fn agreement(&self, pack: &Pack) -> Option<f64> {
        let same = self.sets.iter().filter_map(|(i, set)| Some(set.prediction?.class == pack.faces()[*i].label?));
        let same: Vec<bool> = same.collect();
        (!same.is_empty()).then(|| same.iter().filter(|same| **same).count() as f64 / same.len() as f64)
    }

    /// Faces of each provenance that occurs.
    pub fn provenances(&self) -> BTreeMap<Provenance, usize> {
        let mut counts = BTreeMap::new();
        self.sets.iter().for_each(|(_, set)| *counts.entry(set.provenance).or_default() += 1);
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
    use crate::dataset::{Face, PackWriter, Pixels, Protocol};
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

    /// A pack of two classes and an extra column, a face for each row of votes.
    fn pack(folder: &Path, rows: &[(Option<Class>, [u32; 3])]) -> Pack {
        let words = |words: &[&str]| words.iter().map(|w| w.to_string()).collect();
        let card = Protocol {
            name: "two".into(),
            classes: words(&["calm", "glad"]),
            extra_columns: words(&["unknown"]),
            rule: "test".into(),
            source: "test".into(),
        };
        let path = folder.join("two.moue");
        let mut writer = PackWriter::create(&path, card).unwrap();
        for (i, (label, votes)) in rows.iter().enumerate() {
            let face = Face { label: *label, votes: votes.to_vec(), ..Face::new(format!("f{i}"), Split::Train) };
            writer.push(face, &Pixels::new(1, 1, 1, vec![0])).unwrap();
        }
        writer.finish(serde_json::json!({})).unwrap();
        Pack::open(&path).unwrap()
    }

    #[test]
    fn a_row_without_votes_leaves_the_given_label_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pack = pack(folder.path(), &[(Some(1), [0, 0, 0]), (None, [0, 0, 10]), (Some(0), [5, 5, 0])]);
        for strategy in [Strategy::Votes, Strategy::Distribution] {
            let settings = LabelSettings { strategy, ..LabelSettings::default() };
            assert!(from_votes(&[0, 0, 0], 2, &settings).is_empty());
            assert!(from_distribution(&[0, 0, 0], 2, &settings).is_empty());
            let candidates = Candidates::build(&pack, &settings).unwrap();
            assert_eq!((candidates.left_out, candidates.sets.len()), (1, 2));
            assert_eq!((&candidates.sets[0].1.classes[..], candidates.sets[0].1.provenance), (&[1][..], Provenance::GivenOnly));
            assert_eq!(candidates.ambiguous_share(), 0.5);
            assert!(candidates.kappas(5).is_none());
        }
    }

    #[test]
    fn the_given_label_joins_the_sets_of_a_file_only_where_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let pack = pack(folder.path(), &[(Some(0), [0, 0, 0]), (Some(1), [0, 0, 0]), (None, [0, 0, 0])]);
        let path = folder.path().join("sets.csv");
        std::fs::write(&path, "id,candidates\nf0,glad\nf1,calm|glad\nf2,glad\n").unwrap();
        for (include_given, expected) in [(false, [vec![1], vec![0, 1], vec![1]]), (true, [vec![0, 1], vec![0, 1], vec![1]])] {
            let settings = LabelSettings { include_given, k: 1, ..LabelSettings::default() };
            let sets = Candidates::read_csv(&path, &pack).unwrap().with_given(&pack, &settings).sets;
            assert_eq!(sets.iter().map(|(_, set)| set.classes.clone()).collect::<Vec<_>>(), expected, "{include_given}");
            assert!(sets.iter().all(|(_, set)| set.provenance == Provenance::File));
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pack = pack(folder.path(), &[(Some(1), [2, 3, 0])]);
        let refused = |strategy, k| {
            let error = Candidates::build(&pack, &LabelSettings { strategy, k, ..LabelSettings::default() }).unwrap_err();
            assert_eq!(crate::failure::exit_code(&error), 2);
            error.to_string()
        };
        assert!(refused(Strategy::Votes, 3).contains("labels.k = 3"));
        assert!(refused(Strategy::File, 2).contains("no candidate sets"));
        let said = refused(Strategy::Gaave, 2);
        assert!(said.contains("gaave") && said.contains("moue labels") && said.contains("--labels"), "{said}");
    }
}
