//! The result table with its intervals, what stands out in one sentence, and differences on the same faces.

use super::Report;
use crate::dataset::{Class, Split, leaks};
use crate::eval::argmax;
use crate::eval::bootstrap::{Difference, Paired};
use crate::random::Streams;
use crate::report::figure::confusion::thousands;
use crate::report::figure::{Figure, intervals};
use crate::report::figures::Run;
use crate::report::scores::{Row, Score, is_plain, title};
use crate::run::Predictions;
use maud::{Markup, html};

/// Resamples of a paired difference.
const RESAMPLES: usize = 1000;

/// Two objectives on the same faces.
struct Pair {
    first: String,
    second: String,
    split: Split,
    faces: usize,
    accuracy: Difference,
}

/// The split on which runs are compared: figures of different faces say nothing about each other. Test comes before validation.
fn compared(rows: &[Row]) -> Option<Split> {
    rows.iter().map(|r| r.split).max()
}

/// Which runs have no figure of a split, in a sentence; empty where all have one.
fn left_out(runs: &[Run], rows: &[Row], split: Split) -> String {
    let has = |run: usize| rows.iter().any(|r| r.run == run && r.split == split);
    let others: Vec<&str> = (0..runs.len()).filter(|&i| !has(i)).map(|i| runs[i].record.name.as_str()).collect();
    if others.is_empty() { String::new() } else { format!("Left out, for they were not measured on {split} faces: {}.", others.join(", ")) }
}

pub fn intervals(runs: &[Run], rows: &[Row]) -> Option<Figure> {
    let several = runs.len() > 1;
    let split = compared(rows)?;
    let line = |row: &Row| {
        let name = if several { format!("{}: {}", runs[row.run].record.name, row.title) } else { row.title.clone() };
        intervals::Line { name, plain: row.plain, value: row.accuracy.value, interval: row.accuracy.interval }
    };
    let shown: Vec<&Row> = rows.iter().filter(|r| r.split == split).collect();
    let lines: Vec<intervals::Line> = shown.iter().copied().map(line).collect();
    let gaps: Vec<usize> = (1..shown.len()).filter(|&i| shown[i].run != shown[i - 1].run).collect();
    let measure = format!("{split} accuracy, %, with 95 % interval over faces");
    let mut figure = intervals::draw("results".into(), "Accuracy and how sure it is".into(), &measure, &lines, &gaps);
    let others = left_out(runs, rows, split);
    if !others.is_empty() {
        figure.description += &format!(" {others}");
    }
    Some(figure)
}

/// The best of those rows that can be compared.
fn most_accurate(rows: &[Row]) -> Option<&Row> {
    let split = compared(rows)?;
    let comparable = rows.iter().filter(|r| r.split == split && !r.accuracy.value.is_nan());
    comparable.max_by(|a, b| a.accuracy.value.total_cmp(&b.accuracy.value))
}

/// The page in one sentence.
pub fn lede(report: &Report) -> Markup {
    let of = |run: usize, plain: bool| report.rows.iter().find(|r| r.run == run && r.plain == plain);
    let told = |score: &Score| {
        html! {
            strong { (percent(score.value)) }
            @if let Some((low, high)) = score.interval { " (95\u{202f}% interval " (format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high)) ")" }
        }
    };
    html! {
        @if report.runs.len() == 1 {
            @match (of(0, false), of(0, true)) {
                (Some(ours), Some(plain)) if ours.accuracy.value.is_finite() && plain.accuracy.value.is_finite() => p class="lede" {
                    (told(&ours.accuracy)) " of the " (ours.split) " faces are recognised with " (ours.title) ", "
                    (told(&plain.accuracy)) " with " (plain.title) "."
                },
                (Some(one), None) | (None, Some(one)) if one.accuracy.value.is_finite() => p class="lede" {
                    (told(&one.accuracy)) " of the " (one.split) " faces are recognised with " (one.title) @if !one.finished { " so far" } "."
                },
                (None, None) => p class="lede" { "Nothing has been measured on faces that were not trained on." },
                _ => p class="lede" { "An accuracy of this run is not a number." },
            }
        } @else if let Some(best) = most_accurate(&report.rows) {
            p class="lede" {
                "Most accurate: " (best.title) " of " (report.runs[best.run].record.name) ", " (told(&best.accuracy))
                " of the " (best.split) " faces. All figures of one kind have the same scale. "
                (left_out(&report.runs, &report.rows, best.split))
            }
        }
    }
}

pub fn section(report: &Report) -> Markup {
    html! {
        section id="results" {
            h2 { "Results" }
            @if report.rows.is_empty() {
                p class="missing" { "There is no result: no recogniser was measured on the validation or the test split." }
            } @else {
                p class="lead" { "After the last epoch. Plain cross-entropy on the majority label is the simple thing that has to be beaten." }
                div class="scroll" { (table(report)) }
                div class="grid" {
                    @if let Some(figure) = &report.intervals {
                        figure {
                            h3 { (figure.title) }
                            div class="scroll" { (figure.inline()) }
                            figcaption {
                                "Filled: objectives that use the ambiguity; hollow: plain cross-entropy. Intervals: bootstrap over faces, 1000 \
                                 resamples. They tell how much other faces would change a figure, not how much another seed would."
                                @if let Some(split) = compared(&report.rows) { " " (left_out(&report.runs, &report.rows, split)) }
                            }
                        }
                    }
                    div {
                        h3 { "To be read with it" }
                        @for text in remarks(report) { p { (text) } }
                    }
                }
            }
        }
    }
}

fn table(report: &Report) -> Markup {
    let several = report.runs.len() > 1;
    let right = report.rows.iter().any(|r| r.labels_right.is_some());
    html! {
        table class="results" {
            thead { tr {
                th scope="col" { "objective" }
                th scope="col" class="number" { "accuracy" }
                th scope="col" class="number" { "mean class accuracy" }
                th scope="col" class="number" { "macro F1" }
                th scope="col" class="number" { "calibration error" }
                @if right { th scope="col" class="number" { "ambiguous labels right" } }
                th scope="col" class="number" { "best on validation" }
            } }
            tbody {
                @for (i, row) in report.rows.iter().enumerate() {
                    @if several && (i == 0 || report.rows[i - 1].run != row.run) {
                        tr class="part" { th colspan=(if right { 7 } else { 6 }) scope="rowgroup" { (report.runs[row.run].record.name) } }
                    }
                    tr class=(if row.plain { "plain" } else { "ours" }) {
                        th scope="row" {
                            (row.title)
                            span class="interval" {
                                @if row.faces > 0 { (thousands(row.faces)) " " } (row.split) " faces, epoch " (row.epoch.round())
                                @if !row.finished { ", not finished" }
                            }
                        }
                        (score(Some(&row.accuracy)))
                        (score(Some(&row.mean_recall)))
                        (score(row.macro_f1.as_ref()))
                        td class="number" { (row.calibration_error.map_or("\u{2013}".into(), percent)) }
                        @if right { td class="number" { (row.labels_right.map_or("\u{2013}".into(), percent)) } }
                        td class="number" {
                            @match row.best {
                                Some((accuracy, epoch)) => { (percent(accuracy)) span class="interval" { "epoch " (epoch.round()) } }
                                None => "\u{2013}",
                            }
                        }
                    }
                }
            }
        }
    }
}

fn score(score: Option<&Score>) -> Markup {
    html! {
        td class="number" {
            @match score {
                Some(score) => {
                    (percent(score.value))
                    @if let Some((low, high)) = score.interval { span class="interval" { (format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high)) } }
                }
                None => "\u{2013}",
            }
        }
    }
}

/// What has to be known beside the table.
fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    for (i, run) in report.runs.iter().enumerate() {
        let found = run.record.manifest.as_ref().and_then(|m| m.data.as_ref()?.leaks.as_deref());
        remarks.extend(found.and_then(leaks::warning).map(|text| format!("{}: {text}.", run.record.name)));
        let own: Vec<&Row> = report.rows.iter().filter(|r| r.run == i).collect();
        if !own.is_empty() && !own.iter().any(|r| r.plain) {
            remarks.push(format!(
                "{}: no plain cross-entropy was trained beside it (finetune.baseline), so what the labels are worth is not shown.",
                run.record.name
            ));
        }
    }
    for pair in pairs(report) {
        let Difference { first, second, low, high, second_better } = pair.accuracy;
        let decided = if low > 0.0 || high < 0.0 { "does not contain" } else { "contains" };
        remarks.push(format!(
            "On the same {} {} faces, {} minus {}: {:+.1} points (95 % interval {:+.1} to {:+.1}, which {decided} zero; better in {:.0} % of \
             resamples).",
            pair.faces,
            pair.split,
            pair.second,
            pair.first,
            100.0 * (second - first),
            100.0 * low,
            100.0 * high,
            100.0 * second_better
        ));
    }
    if report.rows.iter().any(|r| r.best.is_some()) {
        remarks.push("Best on validation is chosen by looking; the last epoch is the honest figure.".into());
    }
    if report.rows.iter().any(|r| r.labels_right.is_some()) {
        remarks.push(
            "Ambiguous labels right: share of the ambiguous training faces whose label is the true one, which only generated faces tell; \
             for plain cross-entropy, what the majority vote gives."
                .into(),
        );
    }
    remarks
}

/// In each run plain cross-entropy against its objectives; between runs the first one's objective against the others', where they say
/// something about the same faces.
fn pairs(report: &Report) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let several = report.runs.len() > 1;
    let name = |run: &Run, label: &str, several: bool| {
        let stage = run.record.stages.iter().find(|s| s.recognises() && s.label == label);
        let title = stage.map_or(label.to_string(), |s| title(s.stage, &s.label));
        if several { format!("{title} of {}", run.record.name) } else { title }
    };
    let main = |run: &Run| run.record.stages.iter().find(|s| s.recognises() && !is_plain(s)).map(|s| s.label.clone());
    for run in &report.runs {
        let plain = run.record.stages.iter().find(|s| s.recognises() && is_plain(s)).and_then(|s| run.predicted(&s.label));
        let Some((plain, split)) = plain.zip(run.record.split()) else { continue };
        for (label, predictions) in &run.predictions {
            if run.record.stages.iter().any(|s| s.recognises() && s.label == *label && !is_plain(s)) {
                let names = ("plain cross-entropy".to_string(), name(run, label, several));
                pairs.extend(pair(names, plain, predictions, split));
            }
        }
    }
    let [first, others @ ..] = report.runs.as_slice() else { return pairs };
    let Some((label, split)) = main(first).zip(first.record.split()) else { return pairs };
    let Some(ours) = first.predicted(&label) else { return pairs };
    for other in others {
        let Some(their_label) = main(other) else { continue };
        if let Some(theirs) = other.predicted(&their_label) {
            pairs.extend(pair((name(first, &label, true), name(other, &their_label, true)), ours, theirs, split));
        }
    }
    pairs
}

fn pair((first, second): (String, String), a: &Predictions, b: &Predictions, split: Split) -> Option<Pair> {
    /// Id, given label and prediction of each labelled face.
    fn faces(p: &Predictions, split: Split) -> Vec<(&str, Class, Class)> {
        let of_split = p.faces.iter().enumerate().filter(|(_, f)| f.split == split);
        of_split.filter_map(|(i, f)| Some((f.id.as_str(), f.label?, argmax(p.row(i))))).collect()
    }
    let (mine, theirs) = (faces(a, split), faces(b, split));
    let same = mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(m, t)| (m.0, m.1) == (t.0, t.1)) && a.classes == b.classes;
    if mine.is_empty() || !same {
        return None;
    }
    let labels: Vec<Class> = mine.iter().map(|f| f.1).collect();
    let predicted = |faces: &[(&str, Class, Class)]| faces.iter().map(|f| f.2).collect::<Vec<Class>>();
    let (one, other) = (predicted(&mine), predicted(&theirs));
    let paired = Paired { classes: a.classes.len(), labels: &labels, first: &one, second: &other };
    Some(Pair { first, second, split, faces: labels.len(), accuracy: paired.compare(RESAMPLES, &Streams::new(0)).accuracy })
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}\u{202f}%", 100.0 * share) } else { "not a number".into() }
}
