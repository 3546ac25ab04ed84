//! All figures of a report, by topic and run, drawn to the same scales; and what cannot be drawn, with the reason.

use super::faces::{Faces, sheet};
use super::figure::axis::{Unit, evenly, range};
use super::figure::confusion::Matrix;
use super::figure::curves::{Curve, Curves};
use super::figure::ridge::Ridge;
use super::figure::{Figure, calibration, flips, ridge, slug, strips};
use super::record::{Record, Trained};
use super::scores::{is_plain, title};
use super::stories::Stories;
use crate::dataset::Split;
use crate::eval::Reliability;
use crate::failure::one_line;
use crate::run::{Predictions, Stage};

/// One run with everything that is drawn of it.
pub struct Run {
    pub record: Record,
    pub faces: Faces,
    pub stories: Stories,
    /// Objective and what its model says about every face.
    pub predictions: Vec<(String, Predictions)>,
    /// Part of file names; empty where only one run is reported.
    pub slug: String,
}

/// Sections of the report that hold figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Confidence,
    Faces,
    Training,
    Confusion,
    Calibration,
    Pretraining,
}

/// Part of a section.
pub struct Part {
    pub topic: Topic,
    /// Position of the run.
    pub run: usize,
    pub content: Content,
}

pub enum Content {
    /// A figure, what else has to be known to read it, and its numbers as a table: head and rows.
    Figure(Box<Figure>, String, Table),
    /// A picture as a data URI with its size, and what it shows.
    Picture { uri: String, width: u32, height: u32, says: String },
    /// What is not there, and why.
    Missing(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Rows of a table beside a curve.
const ROWS: usize = 24;
/// Pictures of pretraining of a run: the first and the last; of many runs the last, so that the page stays small.
const SHEETS: usize = 2;
const MANY: usize = 4;

impl Run {
    /// Reads what stands beside the record; what of that is damaged is told in its gaps.
    pub fn read(mut record: Record, faces: Faces, slug: String) -> Self {
        let mut predictions = Vec::new();
        for stage in record.stages.iter().filter(|s| s.recognises()) {
            let path = record.folder.predictions(&stage.label);
            if path.exists() {
                match Predictions::read(&path) {
                    Ok(found) => predictions.push((stage.label.clone(), found)),
                    Err(error) => record.gaps.push(format!("What {} predicts is not shown: {}.", stage.place(), one_line(&error))),
                }
            }
        }
        let stories = Stories::read(&record);
        Self { record, faces, stories, predictions, slug }
    }

    fn name(&self, parts: &[&str]) -> String {
        slug([&[self.slug.as_str()], parts].concat().join("-").as_str())
    }

    pub fn predicted(&self, objective: &str) -> Option<&Predictions> {
        self.predictions.iter().find(|p| p.0 == objective).map(|p| &p.1)
    }
}

/// Everything, in the order of the page.
pub fn draw(runs: &[Run]) -> Vec<Part> {
    let scales = Scales::of(runs);
    let mut parts = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let mut add = |topic, content: Vec<Content>| parts.extend(content.into_iter().map(|content| Part { topic, run: i, content }));
        add(Topic::Confidence, confidence(run, &scales));
        add(Topic::Faces, faces(run));
        add(Topic::Training, training(run, &scales));
        add(Topic::Confusion, confusion(run));
        add(Topic::Calibration, calibrated(run));
        add(Topic::Pretraining, pretraining(run, &scales, if runs.len() > MANY { 1 } else { SHEETS }));
    }
    parts
}

/// What all runs are drawn to.
struct Scales {
    epochs: f64,
    loss: (f64, f64),
    accuracy: (f64, f64),
    confidence: f64,
    flips: (f64, f64),
    pretrain: (f64, (f64, f64)),
}

impl Scales {
    fn of(runs: &[Run]) -> Self {
        let stages = |wanted: fn(&Trained) -> bool| runs.iter().flat_map(|r| &r.record.stages).filter(move |s| wanted(s));
        let finetune = || stages(Trained::recognises);
        let epochs = |s: &Trained| s.epochs.max(s.loss.points().last().map_or(0.0, |p| p.x)).max(s.valid.last().map_or(0.0, |r| r.epoch));
        let most = |all: &mut dyn Iterator<Item = f64>| all.filter(|v| v.is_finite()).fold(1.0, f64::max);
        let losses = finetune().flat_map(|s| smooth(s).into_iter().filter_map(|p| p.1).chain(s.valid.iter().filter_map(|r| r.loss)));
        let shares = finetune().flat_map(|s| s.valid.iter().chain(&s.test).map(|r| r.accuracy));
        let pretrain = || stages(|s| !s.recognises());
        let ridges: Vec<Ridge> = finetune().flat_map(ridges).collect();
        Self {
            epochs: most(&mut finetune().map(epochs)),
            loss: padded(range(losses), 0.0),
            accuracy: padded(range(shares), 0.0),
            confidence: ridge::lowest(&ridges),
            flips: (
                most(&mut finetune().filter(|s| !s.flips.is_empty()).map(epochs)),
                most(&mut finetune().flat_map(|s| s.flips.iter().map(|f| f.1 as f64))),
            ),
            pretrain: (
                most(&mut pretrain().map(epochs)),
                padded(range(pretrain().flat_map(|s| smooth(s).into_iter().filter_map(|p| p.1))), f64::NEG_INFINITY),
            ),
        }
    }
}

/// A little room around the values, but not below what they cannot be.
fn padded(range: Option<(f64, f64)>, least: f64) -> (f64, f64) {
    let (low, high) = range.unwrap_or((0.0, 1.0));
    let room = ((high - low) * 0.06).max(1e-6);
    ((low - room).max(least), high + room)
}

/// The training loss without its jitter: a short training is hardly smoothed.
fn smooth(stage: &Trained) -> Vec<(f64, Option<f64>)> {
    let readings: u32 = stage.loss.points().map(|p| p.count).sum();
    stage.loss.smoothed(1.0 - 1.0 / (f64::from(readings) * 0.02).max(1.0))
}

fn ridges(stage: &Trained) -> Vec<Ridge> {
    let decided = |x: f64| stage.decided.iter().find(|d| d.0 == x).map(|d| d.1);
    stage.confidence.rows().into_iter().map(|r| Ridge { epoch: r.x, shares: r.shares, decided: decided(r.x) }).collect()
}

fn number(v: f64) -> String {
    if v.is_finite() { format!("{v:.4}") } else { "not a number".into() }
}

fn percent(v: f64) -> String {
    if v.is_finite() { format!("{:.1} %", 100.0 * v) } else { "not a number".into() }
}

fn training(run: &Run, scales: &Scales) -> Vec<Content> {
    let stages = looks(run);
    if stages.is_empty() {
        return vec![Content::Missing("No recogniser was trained.".into())];
    }
    let mut parts = Vec::new();
    let epochs = (0.0, scales.epochs);
    let accuracy: Vec<Curve> = stages
        .iter()
        .filter(|(_, s)| !s.valid.is_empty() || !s.test.is_empty())
        .map(|&(look, s)| Curve {
            name: short(s),
            look,
            points: s.valid.iter().map(|r| (r.epoch, r.accuracy.is_finite().then_some(r.accuracy))).collect(),
            after: s.test.last().map(|r| r.accuracy).filter(|a| a.is_finite()),
            best: s.best().map(|r| (r.epoch, r.accuracy)),
        })
        .collect();
    if accuracy.is_empty() {
        parts.push(Content::Missing("No accuracy was measured.".into()));
    } else {
        let curves = Curves {
            name: run.name(&["accuracy"]),
            title: "Accuracy on faces not trained on".into(),
            description: told(&accuracy, percent),
            unit: Unit::Percent,
            above: "validation accuracy, %",
            epochs,
            values: scales.accuracy,
        };
        let says = "Ring: best epoch on validation. Diamond: test split, measured once, after the last epoch.";
        parts.push(Content::Figure(Box::new(curves.draw(&accuracy)), says.into(), tabled(&accuracy, percent)));
    }
    let losses: Vec<Curve> = stages
        .iter()
        .filter(|(_, s)| !s.loss.is_empty())
        .map(|&(look, s)| Curve { name: short(s), look, points: smooth(s), after: None, best: None })
        .collect();
    if losses.is_empty() {
        parts.push(Content::Missing("No loss was logged.".into()));
        return parts;
    }
    let curves = |name: &str, title: &str, above, description| Curves {
        name: run.name(&[name]),
        title: title.into(),
        description,
        unit: Unit::Plain,
        above,
        epochs,
        values: scales.loss,
    };
    let lost = losses.iter().any(|c| c.points.iter().any(|p| p.1.is_none()));
    let broken = if lost { " Red crosses: the loss was not a number." } else { "" };
    let says = format!("Each objective minimises a loss of its own: their heights do not compare, their courses do.{broken}");
    let drawn = curves("loss", "Training loss", "training loss, smoothed", told(&losses, number)).draw(&losses);
    parts.push(Content::Figure(Box::new(drawn), says, tabled(&losses, number)));
    let valid: Vec<Curve> = stages
        .iter()
        .filter(|(_, s)| s.valid.iter().any(|r| r.loss.is_some()))
        .map(|&(look, s)| Curve {
            name: short(s),
            look,
            points: s.valid.iter().filter_map(|r| Some((r.epoch, r.loss?))).map(|(e, l)| (e, l.is_finite().then_some(l))).collect(),
            after: None,
            best: None,
        })
        .collect();
    if !valid.is_empty() {
        let drawn = curves("valid-loss", "Validation loss", "cross-entropy on validation", told(&valid, number)).draw(&valid);
        let says = "The same measure for all: cross-entropy against the given labels of faces not trained on.";
        parts.push(Content::Figure(Box::new(drawn), says.into(), tabled(&valid, number)));
    }
    parts
}

/// Recognisers with their looks: plain cross-entropy has the same in every run.
fn looks(run: &Run) -> Vec<(usize, &Trained)> {
    let mut others = [0, 2, 3].into_iter().cycle();
    let recognisers = run.record.stages.iter().filter(|s| s.recognises());
    recognisers.map(|s| (if is_plain(s) { 1 } else { others.next().unwrap_or(0) }, s)).collect()
}

/// A name that fits beside a curve.
fn short(stage: &Trained) -> String {
    match stage.label.as_str() {
        "" => stage.stage.name().into(),
        "pll" => "partial labels".into(),
        "ce" => "plain (ce)".into(),
        label => label.into(),
    }
}

fn told(curves: &[Curve], text: fn(f64) -> String) -> String {
    let one = |c: &Curve| {
        let ends = c.points.first().zip(c.points.last());
        let test = c.after.map(|v| format!(", test {}", text(v))).unwrap_or_default();
        let way = ends.map(|(a, b)| format!("from {} to {}", text(a.1.unwrap_or(f64::NAN)), text(b.1.unwrap_or(f64::NAN))));
        format!("{} goes {}{test}.", c.name, way.unwrap_or_else(|| "unmeasured".into()))
    };
    curves.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The curves at some of the epochs of the first.
fn tabled(curves: &[Curve], text: fn(f64) -> String) -> Table {
    let head = ["epoch".to_string()].into_iter().chain(curves.iter().map(|c| c.name.clone())).collect();
    let epochs: Vec<f64> = curves.iter().max_by_key(|c| c.points.len()).map(|c| c.points.iter().map(|p| p.0).collect()).unwrap_or_default();
    let cell = |c: &Curve, epoch: f64| c.points.iter().find(|p| p.0 == epoch).map_or("\u{2013}".into(), |p| text(p.1.unwrap_or(f64::NAN)));
    let row = |&i: &usize| {
        let epoch = epochs[i];
        [format!("{:.1}", epoch)].into_iter().chain(curves.iter().map(|c| cell(c, epoch))).collect()
    };
    Table { head, rows: evenly(epochs.len(), ROWS).iter().map(row).collect() }
}

fn confidence(run: &Run, scales: &Scales) -> Vec<Content> {
    let Some(stage) = run.record.decider() else {
        let why = if run.record.stages.iter().any(|s| s.stage == Stage::Finetune) {
            "The objective of this run decides no labels, or did not come to report on them."
        } else {
            "No labels were decided: the run has no training on candidate sets."
        };
        return vec![Content::Missing(why.into())];
    };
    let ridges = ridges(stage);
    let figure = ridge::draw(run.name(&["confidence"]), "How sure the labels are, epoch by epoch".into(), &ridges, scales.confidence);
    let says = "The paper's figure 5 over time: each row is an epoch, heights are square roots of shares. A label is decided when its margin over \
                the next candidate exceeds revise.theta.";
    let head = ["epoch", "below 0.6", "0.6 to 0.8", "0.8 to 0.95", "above 0.95", "decided"].map(String::from).to_vec();
    let row = |&i: &usize| {
        let Ridge { epoch, shares, decided } = &ridges[i];
        let part = |bins: std::ops::Range<usize>| percent(shares[bins].iter().map(|&s| f64::from(s)).sum());
        let decided = decided.map_or("\u{2013}".into(), percent);
        vec![format!("{epoch:.0}"), part(0..12), part(12..16), part(16..19), part(19..20), decided]
    };
    let table = Table { head, rows: evenly(ridges.len(), ROWS).iter().map(row).collect() };
    let mut parts = vec![Content::Figure(Box::new(figure), says.into(), table)];
    let mut outcome = vec![vec![0; run.record.classes.len()]; run.record.classes.len()];
    for label in run.record.labels.iter().filter(|l| l.ambiguous) {
        if let Some(given) = label.given {
            outcome[usize::from(given)][usize::from(label.decided)] += 1;
        }
    }
    let says = "Ambiguous training faces with a given label; the diagonal keeps it.";
    parts.push(match moved(run, "outcome", "From the given to the decided label", &outcome, ("given", "decided"), says) {
        Some(figure) => figure,
        None if run.record.labels.is_empty() => {
            Content::Missing("There are no decided labels to show: labels.csv is written when a training that decides labels ends.".into())
        }
        None => Content::Missing("No ambiguous face has a given label, so nothing can be said of labels kept or changed.".into()),
    });
    let figure = flips::draw(run.name(&["flips"]), "Changes of mind".into(), &stage.flips, scales.flips.0, scales.flips.1);
    let rows = evenly(stage.flips.len(), ROWS).into_iter().map(|i| vec![format!("{:.1}", stage.flips[i].0), stage.flips[i].1.to_string()]);
    let table = Table { head: ["epoch", "changes"].map(String::from).to_vec(), rows: rows.collect() };
    parts.push(Content::Figure(Box::new(figure), "A face may change more than once between two reports.".into(), table));
    let says = "Every change of a likeliest candidate during training.";
    parts.extend(moved(run, "moves", "From which label to which minds changed", &run.stories.moves, ("from", "to"), says));
    parts
}

/// How labels moved from class to class; none where none did.
fn moved(run: &Run, name: &str, title: &str, counts: &[Vec<u64>], (rows, columns): (&str, &str), says: &str) -> Option<Content> {
    if counts.iter().flatten().all(|n| *n == 0) {
        return None;
    }
    let classes = &run.record.classes;
    let says = format!("{says} Largest: {}.", largest(classes, counts));
    let (name, title, description) = (run.name(&[name]), title.to_string(), says.clone());
    // Only an outcome can stay what it was.
    let framed = rows == "given";
    let drawn = Matrix { name, title, description, classes, counts, rows, columns, framed }.draw();
    Some(Content::Figure(Box::new(drawn), says, counted(classes, counts)))
}

/// The three largest cells off the diagonal, in words.
fn largest(classes: &[String], counts: &[Vec<u64>]) -> String {
    let name = |c: usize| classes.get(c).cloned().unwrap_or_else(|| format!("class {c}"));
    let cells = counts.iter().enumerate().flat_map(|(r, row)| row.iter().enumerate().map(move |(c, n)| (*n, r, c)));
    let mut cells: Vec<(u64, usize, usize)> = cells.filter(|(n, r, c)| *n > 0 && r != c).collect();
    cells.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let words: Vec<String> = cells.iter().take(3).map(|&(n, r, c)| format!("{} \u{2192} {} ({n})", name(r), name(c))).collect();
    if words.is_empty() { "none off the diagonal".into() } else { words.join(", ") }
}

fn counted(classes: &[String], counts: &[Vec<u64>]) -> Table {
    let name = |c: usize| classes.get(c).cloned().unwrap_or_else(|| format!("class {c}"));
    let head = [String::new()].into_iter().chain((0..counts.len()).map(name)).collect();
    let row = |(r, row): (usize, &Vec<u64>)| [name(r)].into_iter().chain(row.iter().map(u64::to_string)).collect();
    Table { head, rows: counts.iter().enumerate().map(row).collect() }
}

fn faces(run: &Run) -> Vec<Content> {
    let stories = &run.stories;
    let mut parts: Vec<Content> = stories.gap.iter().map(|gap| Content::Missing(gap.clone())).collect();
    if stories.chapters.is_empty() {
        parts.push(Content::Missing("No face was followed while its label was decided.".into()));
        return parts;
    }
    if let Some(problem) = run.faces.problem() {
        parts.push(Content::Missing(format!("Names stand in the place of faces: {problem}.")));
    }
    for chapter in &stories.chapters {
        let strips: Vec<strips::Strip> = chapter.stories.iter().map(|s| s.strip(&run.record, &run.faces)).collect();
        let description = format!("{} {} faces of {}.", chapter.says, strips.len(), stories.of);
        let figure = strips::draw(run.name(&["faces", chapter.name]), chapter.title.into(), description, &strips);
        let head = ["face", "candidates", "in the end", "changes at epoch"].map(String::from).to_vec();
        let row = |s: &strips::Strip| {
            let named =
                |c: &strips::Candidate| if c.notes.is_empty() { c.class.clone() } else { format!("{} ({})", c.class, c.notes.join(", ")) };
            let last = s.shares.last().cloned().unwrap_or_default();
            vec![
                s.id.clone(),
                s.candidates.iter().map(named).collect::<Vec<_>>().join(" / "),
                last.iter().map(|v| format!("{v:.2}")).collect::<Vec<_>>().join(" / "),
                s.flips.iter().map(|e| format!("{e:.1}")).collect::<Vec<_>>().join(", "),
            ]
        };
        let table = Table { head, rows: strips.iter().map(row).collect() };
        parts.push(Content::Figure(Box::new(figure), chapter.says.into(), table));
    }
    parts
}

fn confusion(run: &Run) -> Vec<Content> {
    let Some(split) = run.record.split() else { return vec![Content::Missing("Nothing was measured on faces not trained on.".into())] };
    let mut parts = Vec::new();
    let mut stages: Vec<&Trained> = run.record.stages.iter().filter(|s| s.recognises()).collect();
    stages.sort_by_key(|s| is_plain(s));
    for stage in stages {
        let name = title(stage.stage, &stage.label);
        let Some(confusion) = stage.scored(split).and_then(|r| r.confusion.as_ref()) else {
            parts.push(Content::Missing(format!("{name}: no confusion matrix of the {split} split.")));
            continue;
        };
        let counts = confusion.counts();
        let description =
            format!("Rows are true classes, columns predictions, on {split}. Most confused: {}.", largest(&run.record.classes, counts));
        let (title, classes) = (format!("Confusion: {name}"), &run.record.classes);
        let figure = Matrix {
            name: run.name(&["confusion", &stage.label]),
            title,
            description,
            classes,
            counts,
            rows: "true",
            columns: "predicted",
            framed: true,
        };
        let says = format!("The {split} split. Most confused: {}.", largest(classes, counts));
        parts.push(Content::Figure(Box::new(figure.draw()), says, counted(classes, counts)));
    }
    parts
}

/// How sure a model is of its predictions on a split, against the given labels, as evaluations measure it.
pub fn reliability(predictions: &Predictions, split: Split) -> Option<(Reliability, usize)> {
    let mut reliability = Reliability::default();
    let mut faces = 0;
    for (i, face) in predictions.faces.iter().enumerate().filter(|(_, f)| f.split == split) {
        let (Some(label), row) = (face.label, predictions.row(i)) else { continue };
        let best = crate::eval::argmax(row);
        reliability.add(f64::from(row[usize::from(best)]), best == label);
        faces += 1;
    }
    (faces > 0).then_some((reliability, faces))
}

fn calibrated(run: &Run) -> Vec<Content> {
    let Some(split) = run.record.split() else { return vec![Content::Missing("Nothing was measured on faces not trained on.".into())] };
    let mut parts = Vec::new();
    let mut stages = looks(run);
    stages.sort_by_key(|(_, s)| is_plain(s));
    for (look, stage) in stages {
        let name = title(stage.stage, &stage.label);
        let Some((reliability, faces)) = run.predicted(&stage.label).and_then(|p| reliability(p, split)) else {
            let known = stage.scored(split).and_then(|r| r.calibration_error);
            let error = known.map_or(String::new(), |e| format!(" Its calibration error, from the log: {:.1} %.", 100.0 * e));
            let file = format!("predictions/{}.csv", stage.label);
            parts.push(Content::Missing(format!("{name}: no reliability diagram, as the run has no {file} for the {split} split.{error}")));
            continue;
        };
        let figure = calibration::draw(run.name(&["calibration", &stage.label]), format!("Calibration: {name}"), &reliability, look);
        let says = format!("{faces} faces of the {split} split. Red: between what is claimed and what is right.");
        let head = ["probability", "faces", "claimed", "right"].map(String::from).to_vec();
        let bins = reliability.bins();
        let row = |(i, b): (usize, &crate::eval::Bin)| {
            let edge = |i: usize| i as f64 / bins.len() as f64;
            let n = b.faces.max(1) as f64;
            vec![
                format!("{:.2} to {:.2}", edge(i), edge(i + 1)),
                b.faces.to_string(),
                percent(b.confidence / n),
                percent(b.right as f64 / n),
            ]
        };
        let rows = bins.iter().enumerate().filter(|(_, b)| b.faces > 0).map(row).collect();
        parts.push(Content::Figure(Box::new(figure), says, Table { head, rows }));
    }
    parts
}

fn pretraining(run: &Run, scales: &Scales, sheets: usize) -> Vec<Content> {
    let stages: Vec<&Trained> = run.record.stages.iter().filter(|s| !s.recognises() && !s.loss.is_empty()).collect();
    let mut parts = Vec::new();
    let (pretrained, folds): (Vec<&Trained>, Vec<&Trained>) = stages.into_iter().partition(|s| s.stage == Stage::Pretrain);
    for (stages, name, heading) in [(pretrained, "pretraining", "Pretraining loss"), (folds, "folds", "Cross-fitting loss")] {
        let curve = |(look, s): (usize, &&Trained)| Curve { name: short(s), look, points: smooth(s), after: None, best: None };
        let curves: Vec<Curve> = stages.iter().enumerate().map(curve).collect();
        if curves.is_empty() {
            continue;
        }
        let figure = Curves {
            name: run.name(&[name]),
            title: heading.into(),
            description: told(&curves, number),
            unit: Unit::Plain,
            above: "training loss, smoothed",
            epochs: (0.0, scales.pretrain.0),
            values: scales.pretrain.1,
        };
        parts.push(Content::Figure(Box::new(figure.draw(&curves)), String::new(), tabled(&curves, number)));
    }
    if parts.is_empty() {
        let from = run.record.manifest.as_ref().and_then(|m| m.inputs.get("from"));
        parts.push(Content::Missing(match from {
            Some(from) => format!("This run did not pretrain: its encoder comes from {from}."),
            None => "This run did not pretrain.".into(),
        }));
    }
    let media = &run.record.media;
    if run.faces.problem() == Some(super::page::WITHOUT_FACES) && !media.is_empty() {
        parts.push(Content::Missing("The pictures of pretraining show faces, and are left out.".into()));
        return parts;
    }
    let chosen = if sheets == 1 { media.len().checked_sub(1).into_iter().collect() } else { evenly(media.len(), sheets) };
    for i in chosen {
        let name = media[i].file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let step = name.rsplit('-').next().and_then(|s| s.parse::<u64>().ok());
        let says = step.map_or(name.clone(), |step| format!("What the network makes of a few training faces after step {step}."));
        parts.push(match sheet(&media[i]) {
            Ok((uri, width, height)) => Content::Picture { uri, width, height, says },
            Err(error) => Content::Missing(format!("A picture of pretraining is not shown: {}.", one_line(&error))),
        });
    }
    parts
}
