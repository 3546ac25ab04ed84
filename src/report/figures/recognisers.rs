//! Figures of finished recognisers on faces not trained on: what they confuse, and whether they are as sure as they are right.

use super::{Content, Run, Table, counted, largest, looks, percent};
use crate::dataset::Split;
use crate::eval::{Bin, Reliability, argmax};
use crate::report::figure::calibration;
use crate::report::figure::confusion::Matrix;
use crate::report::record::Trained;
use crate::report::scores::{is_plain, title};
use crate::run::Predictions;

/// Confusion matrices, the plain recogniser last.
pub(super) fn confusion(run: &Run) -> Vec<Content> {
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
fn reliability(predictions: &Predictions, split: Split) -> Option<(Reliability, usize)> {
    let mut reliability = Reliability::default();
    let mut faces = 0;
    for (i, face) in predictions.faces.iter().enumerate().filter(|(_, f)| f.split == split) {
        let (Some(label), row) = (face.label, predictions.row(i)) else { continue };
        let best = argmax(row);
        reliability.add(f64::from(row[usize::from(best)]), best == label);
        faces += 1;
    }
    (faces > 0).then_some((reliability, faces))
}

/// Reliability diagrams, the plain recogniser last.
pub(super) fn calibrated(run: &Run) -> Vec<Content> {
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
        let row = |(i, b): (usize, &Bin)| {
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
