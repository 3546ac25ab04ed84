//! Everything that a run folder says about each training face, gathered from its parts.
//!
//! ```text
//! manifest.json -> pack (given labels, votes, pictures)
//! predictions/<objective>.csv  what the deciding model says        predictions/ce.csv  what plain cross-entropy says
//! history/<objective>.bin      how the label was decided           labels.csv          what was decided
//! ```
//! None of them has to be there, but something must: what is missing is told and done without. Files that are not of this run (other classes,
//! other faces) are refused.

use super::trace::Traces;
use crate::dataset::{Class, Pack, Split};
use crate::limits::Records;
use crate::run::{HistoryReader, Manifest, Predictions, RunFolder};
use crate::usage;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The plain baseline, by the name of its files.
const BASELINE: &str = "ce";

/// One training face.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    pub id: String,
    /// Position in the pack.
    pub position: Option<usize>,
    /// The label that is judged: the given one, or where there is none the majority of the votes.
    pub given: Option<Class>,
    /// Whether `given` comes from the votes.
    pub by_majority: bool,
    pub truth: Option<Class>,
    /// Votes for each class; empty: none recorded.
    pub votes: Vec<u32>,
    /// What training decided, and its margin.
    pub resolved: Option<(Class, f32)>,
    /// Whether training had a choice; `None` where nothing tells.
    pub ambiguous: Option<bool>,
    /// Position in the history.
    pub trace: Option<usize>,
    /// Rows in the predictions.
    pub predicted: Option<usize>,
    pub baseline: Option<usize>,
}

/// All that is known.
pub struct Evidence {
    pub folder: RunFolder,
    /// Class names in label order.
    pub classes: Vec<String>,
    pub faces: Vec<Subject>,
    pub pack: Option<Pack>,
    pub traces: Option<Traces>,
    /// Of the model that the run is about; plain cross-entropy, if it trained nothing else.
    pub predictions: Option<Predictions>,
    /// Of plain cross-entropy beside it.
    pub baseline: Option<Predictions>,
    /// Name of the objective that the run is about, where there are predictions or a history of it.
    pub objective: Option<String>,
    /// What is missing or cut short, and what that means for the audit.
    pub notes: Vec<String>,
}

/// One line of `labels.csv`.
struct Decided {
    given: Option<Class>,
    truth: Option<Class>,
    decided: Class,
    margin: f32,
    ambiguous: bool,
}

impl Evidence {
    /// Reads a run. `data`: the pack, where it no longer lies where the manifest says.
    ///
    /// # Errors
    /// Where nothing in the folder says anything about labels, or a file of it is damaged or not of this run.
    pub fn read(folder: &RunFolder, data: Option<&Path>) -> Result<Self> {
        let mut notes = Vec::new();
        let manifest = Manifest::read(folder)?;
        let known = manifest.data.as_ref();
        let place = data.map(PathBuf::from).or_else(|| Some(known?.place(folder)));
        let pack = match &place {
            Some(path) if data.is_some() || path.exists() => {
                let pack = Pack::open(path)?;
                if known.is_some_and(|known| known.pack_hash != pack.hash()) {
                    usage!("pack {} is not the one that {} was trained on (its hash differs)", path.display(), folder.path().display());
                }
                Some(pack)
            }
            Some(path) => {
                notes.push(format!(
                    "pack {} is gone (say where it is with --data): no pictures, votes of ambiguous faces only",
                    path.display()
                ));
                None
            }
            None => None,
        };
        let (objective, traces) = match find(folder, |f, name| f.history(name), |_| true) {
            Some((name, path)) => (Some(name), Some(Traces::read(HistoryReader::open(&path)?)?)),
            None => (None, None),
        };
        let decided = |name: &str| objective.as_deref().is_none_or(|o| o == name) && name != BASELINE;
        let main = find(folder, |f, name| f.predictions(name), decided);
        let predictions = main.as_ref().map(|(_, path)| Predictions::read(path)).transpose()?;
        let path = folder.predictions(BASELINE);
        let plain = path.is_file().then(|| Predictions::read(&path)).transpose()?;
        // Plain cross-entropy alone is no baseline of anything: then it is the run's model.
        let (predictions, baseline) = if predictions.is_none() { (plain, None) } else { (predictions, plain) };
        let objective = objective.or(main.map(|(name, _)| name)).or(predictions.is_some().then(|| BASELINE.to_string()));

        let classes = match (known, &pack, &predictions, &traces) {
            (Some(known), ..) => known.classes.clone(),
            (_, Some(pack), ..) => pack.protocol().classes.clone(),
            (.., Some(p), _) => p.classes.clone(),
            (.., Some(t)) => t.header.classes.clone(),
            _ => usage!("{} does not say which classes its labels have", folder.path().display()),
        };
        let of = [
            predictions.as_ref().map(|p| ("predictions", &p.classes)),
            baseline.as_ref().map(|p| ("baseline's predictions", &p.classes)),
            traces.as_ref().map(|t| ("history", &t.header.classes)),
        ];
        if let Some((what, theirs)) = of.into_iter().flatten().find(|(_, theirs)| **theirs != classes) {
            bail!("the {what} in {} have the classes {}, the run {}", folder.path().display(), theirs.join(", "), classes.join(", "));
        }
        let labels = folder.labels().is_file().then(|| read_labels(&folder.labels(), &classes)).transpose()?;
        if predictions.is_none() && traces.is_none() && labels.is_none() {
            usage!(
                "{} holds nothing that says anything about labels (no predictions/, history/ or labels.csv): audit a run that has finished a \
                 finetuning stage",
                folder.path().display()
            );
        }
        let mut evidence =
            Self { folder: folder.clone(), classes, faces: Vec::new(), pack, traces, predictions, baseline, objective, notes };
        evidence.gather(labels)?;
        evidence.note_absences();
        Ok(evidence)
    }

    /// Joins the parts by the faces' ids.
    fn gather(&mut self, labels: Option<Vec<(String, Decided)>>) -> Result<()> {
        let classes = self.classes.len();
        let mut faces: Vec<Subject> = Vec::new();
        if let Some(pack) = &self.pack {
            faces.extend(pack.split(Split::Train).into_iter().map(|i| {
                let face = &pack.faces()[i];
                let votes = face.votes.iter().take(classes).copied().collect();
                Subject { id: face.id.clone(), position: Some(i), given: face.label, truth: face.truth, votes, ..Subject::default() }
            }));
        }
        let known = self.pack.is_some();
        let mut by_id: HashMap<String, usize> = faces.iter().enumerate().map(|(n, f)| (f.id.clone(), n)).collect();
        let run = self.folder.path().display().to_string();
        // A face that the pack does not have means that some file belongs to another run.
        let mut place = |id: &str, given: Option<Class>, truth: Option<Class>, what: &str| -> Result<usize> {
            if let Some(&n) = by_id.get(id) {
                return Ok(n);
            }
            if known {
                bail!("the {what} in {run} are of other faces: the pack has no training face `{id}`");
            }
            by_id.insert(id.to_string(), faces.len());
            faces.push(Subject { id: id.to_string(), given, truth, ..Subject::default() });
            Ok(faces.len() - 1)
        };
        let mut joined: Vec<(usize, Part)> = Vec::new();
        for (predictions, what, part) in [
            (&self.predictions, "predictions", Part::Predicted as fn(usize) -> Part),
            (&self.baseline, "baseline's predictions", Part::Baseline),
        ] {
            for (row, face) in predictions.iter().flat_map(|p| p.faces.iter().enumerate()).filter(|(_, f)| f.split == Split::Train) {
                joined.push((place(&face.id, face.label, face.truth, what)?, part(row)));
            }
        }
        for (id, decided) in labels.into_iter().flatten() {
            joined.push((place(&id, decided.given, decided.truth, "labels")?, Part::Decided(decided)));
        }
        for (row, subject) in self.traces.iter().flat_map(|t| t.header.faces.iter().enumerate()) {
            joined.push((place(&subject.id, subject.given, None, "history's faces")?, Part::Trace(row)));
        }
        for (n, part) in joined {
            let face = &mut faces[n];
            match part {
                Part::Predicted(row) => face.predicted = Some(row),
                Part::Baseline(row) => face.baseline = Some(row),
                Part::Decided(d) => {
                    face.ambiguous = Some(d.ambiguous);
                    face.resolved = Some((d.decided, d.margin));
                }
                Part::Trace(row) => {
                    let Some(traces) = &self.traces else { continue };
                    let subject = &traces.header.faces[row];
                    face.trace = Some(row);
                    face.ambiguous = Some(true);
                    if face.votes.is_empty() {
                        face.votes = subject.votes.iter().take(classes).copied().collect();
                    }
                    if face.resolved.is_none() {
                        face.resolved = best(&subject.candidates, &traces.last(row));
                    }
                }
            }
        }
        for face in &mut faces {
            if face.given.is_none() {
                face.given = majority(&face.votes);
                face.by_majority = face.given.is_some();
            }
        }
        self.faces = faces;
        Ok(())
    }

    fn note_absences(&mut self) {
        let run = self.folder.path().display();
        match &self.traces {
            None => self.notes.push(format!(
                "{run} has no history of labels being decided (plain training, or made by an older moue): ranked by predictions, decisions \
                 and votes alone"
            )),
            Some(traces) => self.notes.extend(traces.damage.clone()),
        }
        if self.predictions.is_none() {
            self.notes.push(format!(
                "{run} has no predictions (they are written when a stage ends): faces whose annotators agree cannot be judged"
            ));
        }
        if self.faces.iter().all(|f| f.votes.is_empty()) {
            self.notes.push("no votes: every given label counts as one annotator's".into());
        }
    }
}

enum Part {
    Predicted(usize),
    Baseline(usize),
    Decided(Decided),
    Trace(usize),
}

/// The first objective whose file is there; the run's own before its baseline.
fn find(folder: &RunFolder, path: impl Fn(&RunFolder, &str) -> PathBuf, wanted: impl Fn(&str) -> bool) -> Option<(String, PathBuf)> {
    let names = crate::config::Objective::ALL.map(crate::config::Objective::name);
    let mut found = names.iter().filter(|name| wanted(name)).map(|name| (name.to_string(), path(folder, name)));
    found.find(|(_, path)| path.is_file())
}

/// The candidate believed most, the lower class on ties, and its lead.
fn best(candidates: &[Class], confidences: &[f32]) -> Option<(Class, f32)> {
    let mut ranked: Vec<(f32, Class)> = confidences.iter().copied().zip(candidates.iter().copied()).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let next = ranked.get(1).map_or(0.0, |r| r.0);
    ranked.first().map(|&(value, class)| (class, value - next))
}

/// The class with most votes, if there is exactly one.
fn majority(votes: &[u32]) -> Option<Class> {
    let most = votes.iter().copied().max().filter(|&n| n > 0)?;
    let mut winners = (0..votes.len()).filter(|&c| votes[c] == most);
    let winner = winners.next()?;
    winners.next().is_none().then_some(winner as Class)
}

fn read_labels(path: &Path, classes: &[String]) -> Result<Vec<(String, Decided)>> {
    let context = || format!("labels {}", path.display());
    let mut reader = csv::Reader::from_reader(Records::open(path).with_context(context)?);
    let head = reader.headers().with_context(context)?.clone();
    let columns = ["id", "given", "decided", "margin", "ambiguous", "truth"];
    if !head.iter().take(columns.len()).eq(columns) {
        usage!("{} is no list of decided labels (its first line is not `{},...`)", path.display(), columns.join(","));
    }
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    loop {
        let place = format!("labels {}, line {}", path.display(), reader.position().line());
        if !reader.read_record(&mut record).with_context(|| format!("{place}: cut short or damaged"))? {
            return Ok(rows);
        }
        let class = |text: &str| -> Result<Option<Class>> {
            let known = || classes.iter().position(|c| c == text).map(|c| c as Class);
            if text.is_empty() { Ok(None) } else { known().map(Some).with_context(|| format!("{place}: no class `{text}`")) }
        };
        let margin: f32 = record[3].parse().ok().with_context(|| format!("{place}: `{}` is no margin", &record[3]))?;
        let decided = class(&record[2])?.with_context(|| format!("{place}: nothing decided"))?;
        let (given, truth) = (class(&record[1])?, class(&record[5])?);
        rows.push((record[0].to_string(), Decided { given, truth, decided, margin, ambiguous: &record[4] == "1" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_no_majority() {
        assert_eq!(majority(&[2, 5, 3]), Some(1));
        assert_eq!((majority(&[4, 4, 2]), majority(&[0, 0]), majority(&[])), (None, None, None));
        assert_eq!(best(&[1, 4], &[0.25, 0.75]), Some((4, 0.5)));
        assert_eq!(best(&[1, 4], &[0.5, 0.5]), Some((1, 0.0)));
        assert_eq!(best(&[1, 4], &[]), None);
    }
}
