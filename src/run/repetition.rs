//! Whether two runs found out the same, bit for bit, and where they first part: weights, labels, histories, predictions and events.
//!
//! Of events only what they tell of the training is compared: scalars but for speed and memory, confidences, evaluations, watched faces. When
//! it happened, how often the run was interrupted, and which checkpoints were kept is no part of the result.

use super::event::{Body, Event};
use super::folder::RunFolder;
use super::history::{Frame, HistoryReader};
use super::reader::EventReader;
use super::{Manifest, fingerprint};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One part of what a run leaves, in both runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    pub name: String,
    /// Fingerprints; none where the run has no such part.
    pub then: Option<String>,
    pub now: Option<String>,
    /// Where they first differ; none where they are equal.
    pub difference: Option<String>,
}

impl Part {
    fn new(name: impl Into<String>, then: Option<String>, now: Option<String>, place: impl FnOnce() -> Result<String>) -> Result<Self> {
        let difference = match (&then, &now) {
            (a, b) if a == b => None,
            (None, _) => Some("only the new run has it".into()),
            (_, None) => Some("the new run lacks it".into()),
            _ => Some(place()?),
        };
        Ok(Self { name: name.into(), then, now, difference })
    }
}

/// Readings of events that depend on the machine's pace.
const PACE: [&str; 2] = ["faces_per_second", "memory_bytes"];

/// Compares all parts that either run has.
///
/// # Errors
/// Where a run is damaged or cannot be read.
pub fn compare(then: &RunFolder, now: &RunFolder) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for stage in Manifest::read(now)?.stages {
        let (a, b) = (fingerprint::of_stage(then, &stage)?, fingerprint::of_stage(now, &stage)?);
        parts.push(Part::new(format!("weights of {stage}"), a, b, || Ok("the values of its parameters".into()))?);
    }
    for name in file_names(then, now)? {
        let (a, b) = (then.path().join(&name), now.path().join(&name));
        let hash = |path: &Path| path.exists().then(|| fingerprint::file(path)).transpose();
        parts.push(Part::new(name.display().to_string(), hash(&a)?, hash(&b)?, || first_in_file(&a, &b))?);
    }
    let (a, b) = (told(then)?, told(now)?);
    let hash = |events: &[Value]| Some(fingerprint::bytes(events.iter().map(Value::to_string).collect::<String>().as_bytes()));
    parts.push(Part::new("events", hash(&a), hash(&b), || Ok(first_in_events(&a, &b)))?);
    Ok(parts)
}

/// Files of results in either run, relative to it.
fn file_names(then: &RunFolder, now: &RunFolder) -> Result<Vec<PathBuf>> {
    let mut names = BTreeSet::new();
    for run in [then, now] {
        let single = [run.labels(), run.candidates(), run.calibration()].into_iter().filter(|path| path.exists());
        names.extend(single.filter_map(|path| path.file_name().map(PathBuf::from)));
        for folder in ["history", "predictions"].map(PathBuf::from) {
            let Ok(entries) = fs::read_dir(run.path().join(&folder)) else { continue };
            for entry in entries {
                names.insert(folder.join(entry.with_context(|| format!("reading {}", run.path().display()))?.file_name()));
            }
        }
    }
    Ok(names.into_iter().collect())
}

fn first_in_file(a: &Path, b: &Path) -> Result<String> {
    match a.extension().and_then(|e| e.to_str()) {
        Some("csv") => first_in_csv(a, b),
        Some("bin") => first_in_history(a, b),
        _ => Ok("its contents".into()),
    }
}

fn first_in_csv(a: &Path, b: &Path) -> Result<String> {
    let open = |path: &Path| csv::ReaderBuilder::new().has_headers(false).flexible(true).from_path(path);
    let (mut first, mut second) = (open(a)?.into_records(), open(b)?.into_records());
    let mut head = csv::StringRecord::new();
    for line in 1.. {
        match (first.next().transpose()?, second.next().transpose()?) {
            (Some(x), Some(y)) if x == y => {
                if line == 1 {
                    head = x;
                }
            }
            (Some(x), Some(y)) => {
                let column = x.iter().zip(&y).position(|(x, y)| x != y).unwrap_or(x.len().min(y.len()));
                let (name, cell) =
                    (head.get(column).unwrap_or("a column more"), |row: &csv::StringRecord| row.get(column).map(String::from));
                let said = |row: &csv::StringRecord| cell(row).unwrap_or_else(|| "nothing".into());
                return Ok(format!("line {line}, {name}: {} then, {} now", said(&x), said(&y)));
            }
            (None, None) => break,
            (x, _) => return Ok(format!("line {line}: only {} has it", if x.is_some() { "the earlier run" } else { "the new run" })),
        }
    }
    Ok("in how the lines are written".into())
}

fn first_in_history(a: &Path, b: &Path) -> Result<String> {
    let (mut first, mut second) = (HistoryReader::open(a)?, HistoryReader::open(b)?);
    if first.header() != second.header() {
        return Ok("the faces, their candidates or classes".into());
    }
    let (mut x, mut y) = (Frame::default(), Frame::default());
    loop {
        match (first.next_into(&mut x)?, second.next_into(&mut y)?) {
            (true, true) if x == y => {}
            (true, true) => {
                let Some(byte) = x.confidences.iter().zip(&y.confidences).position(|(x, y)| x != y) else {
                    return Ok(format!("flips of epoch {}", x.epoch));
                };
                let subjects = &first.header().faces;
                let face = (0..subjects.len()).find(|&i| first.layout().range(i).contains(&byte)).context("every byte is of a face")?;
                return Ok(format!("epoch {}, confidences of {}", x.epoch, subjects[face].id));
            }
            (false, false) => return Ok("behind the last whole epoch".into()),
            (more, _) => return Ok(format!("epochs: {} has more", if more { "the earlier run" } else { "the new run" })),
        }
    }
}

/// What the events of a run tell of its training, one value for each.
fn told(run: &RunFolder) -> Result<Vec<Value>> {
    if !run.events().exists() {
        return Ok(Vec::new());
    }
    let mut told = Vec::new();
    for event in EventReader::open(run)? {
        let event = event?;
        if matches!(event.body, Body::Scalars(_) | Body::Confidence { .. } | Body::Evaluation { .. } | Body::Watched { .. }) {
            told.push(value(&event)?);
        }
    }
    Ok(told)
}

fn value(event: &Event) -> Result<Value> {
    let mut body = serde_json::to_value(&event.body)?;
    if let Some(scalars) = body.get_mut("scalars").and_then(Value::as_object_mut) {
        PACE.iter().for_each(|name| drop(scalars.shift_remove(*name)));
    }
    Ok(json!({"place": event.place(), "step": event.step, "epoch": event.epoch, "body": body}))
}

fn first_in_events(a: &[Value], b: &[Value]) -> String {
    let place = |event: &Value| format!("step {} of {}", event["step"], event["place"].as_str().unwrap_or_default());
    match a.iter().zip(b).find(|(x, y)| x != y) {
        Some((x, y)) => format!("{}, {}", place(x), leaf(x, y)),
        None => format!("{} then, {} now", a.len(), b.len()),
    }
}

/// The first value in which two differ, with its name.
fn leaf(a: &Value, b: &Value) -> String {
    let inner = match (a, b) {
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            x.iter().zip(y.values()).find(|((_, x), y)| x != y).map(|((name, x), y)| (name.clone(), x, y))
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().find(|(_, (x, y))| x != y).map(|(i, (x, y))| (i.to_string(), x, y))
        }
        _ => None,
    };
    match inner {
        // The names of the parts of an event are not for people.
        Some((name, x, y)) if name == "body" => leaf(x, y),
        Some((name, x, y)) if x.is_object() || x.is_array() => format!("{name} {}", leaf(x, y)),
        Some((name, x, y)) => format!("{name}: {x} then, {y} now"),
        None => format!("{a} then, {b} now"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{At, Outcome};
    use super::super::{EventWriter, Scalars};
    use super::*;
    use crate::dataset::Split;

    fn run(root: &Path, name: &str, losses: &[f64], resumed_at: Option<u64>) -> RunFolder {
        let folder = RunFolder::create(&root.join(name)).unwrap();
        Manifest::new(Vec::new(), 0).write(&folder).unwrap();
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
        let (events, stage) = (writer.sender(), At::stage(super::super::Stage::Finetune, "pll"));
        for (step, &loss) in (1..).zip(losses) {
            let speed = if name == "a" { 1.0 } else { 2.0 };
            events.emit(&stage.step(step, 0.5), Body::Scalars(Scalars::from([("loss", loss), ("faces_per_second", speed)])));
            if resumed_at == Some(step) {
                events.emit(&stage.step(step, 0.5), Body::StageStarted { steps: 9, epochs: 1.0, batch: 1, faces: 9 });
            }
        }
        events.emit(&At::run(), Body::RunFinished { outcome: Outcome::Completed, message: name.into() });
        writer.finish().unwrap();
        folder
    }

    #[test]
    fn runs_part_where_they_first_differ() {
        let root = tempfile::tempdir().unwrap();
        let difference = |parts: Vec<Part>, name: &str| parts.into_iter().find(|part| part.name == name).unwrap().difference;
        let a = run(root.path(), "a", &[0.5, 0.25, 0.125], None);
        let b = run(root.path(), "b", &[0.5, 0.25, 0.125], None);
        fs::write(a.labels(), "id,joy\nx,0.5\ny,0.25\n").unwrap();
        fs::write(b.labels(), "id,joy\nx,0.5\ny,0.25\n").unwrap();
        assert!(compare(&a, &b).unwrap().iter().all(|part| part.difference.is_none() && part.then.is_some()));
        fs::write(b.labels(), "id,joy\nx,0.5\ny,0.75\n").unwrap();
        assert_eq!(difference(compare(&a, &b).unwrap(), "labels.csv").unwrap(), "line 3, joy: 0.25 then, 0.75 now");
        fs::remove_file(b.labels()).unwrap();
        assert_eq!(difference(compare(&a, &b).unwrap(), "labels.csv").unwrap(), "the new run lacks it");

        let other = run(root.path(), "c", &[0.5, 0.75, 0.125], None);
        let said = difference(compare(&a, &other).unwrap(), "events").unwrap();
        assert_eq!(said, "step 2 of finetune/pll, scalars loss: 0.25 then, 0.75 now");
        // That a run was resumed is no difference, but what it then tells may be one.
        let resumed = run(root.path(), "d", &[0.5, 0.25, 0.125], Some(2));
        assert_eq!(difference(compare(&a, &resumed).unwrap(), "events"), None);
        let parted = run(root.path(), "f", &[0.5, 0.25, 0.0625], Some(2));
        assert_eq!(
            difference(compare(&a, &parted).unwrap(), "events").unwrap(),
            "step 3 of finetune/pll, scalars loss: 0.125 then, 0.0625 now"
        );
        let short = run(root.path(), "e", &[0.5, 0.25], None);
        assert_eq!(difference(compare(&a, &short).unwrap(), "events").unwrap(), "3 then, 2 now");
        let scores = json!({"evaluation": {"split": Split::Test, "per_class": [0.5, null]}});
        let others = json!({"evaluation": {"split": Split::Test, "per_class": [0.5, 0.25]}});
        assert_eq!(leaf(&json!({"body": scores}), &json!({"body": others})), "evaluation per_class 1: null then, 0.25 now");
    }
}
