//! Figures of training: accuracy and losses of recognisers epoch by epoch, and what pretraining came to.

use super::{Content, ROWS, Run, Scales, Table, looks, number, percent, smooth};
use crate::failure::one_line;
use crate::report::faces::sheet;
use crate::report::figure::axis::{Unit, evenly};
use crate::report::figure::curves::{Curve, Curves};
use crate::report::page::WITHOUT_FACES;
use crate::report::record::Trained;
use crate::run::Stage;

/// Accuracy and losses of all recognisers.
pub(super) fn training(run: &Run, scales: &Scales) -> Vec<Content> {
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

/// Losses of the stages before, and at most `sheets` of their pictures.
pub(super) fn pretraining(run: &Run, scales: &Scales, sheets: usize) -> Vec<Content> {
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
    if run.faces.problem() == Some(WITHOUT_FACES) && !media.is_empty() {
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
