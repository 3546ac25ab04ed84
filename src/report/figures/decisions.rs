//! Figures of labels being decided: how sure they are, what became of the given ones, and the faces worth showing.

use super::{Content, ROWS, Run, Scales, Table, counted, largest, percent, ridges};
use crate::report::figure::axis::evenly;
use crate::report::figure::confusion::Matrix;
use crate::report::figure::ridge::Ridge;
use crate::report::figure::{flips, ridge, strips};
use crate::run::Stage;

/// How sure the labels are, what they became, and how minds changed.
pub(super) fn confidence(run: &Run, scales: &Scales) -> Vec<Content> {
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

/// The stories of single faces, chapter by chapter.
pub(super) fn faces(run: &Run) -> Vec<Content> {
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
