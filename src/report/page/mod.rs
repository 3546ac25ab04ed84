//! The report: one HTML page that needs no network, no script and no other file.
//!
//! `maud` writes it, so whatever stands in a run folder (class names, messages, paths) is text and never markup. Colours are CSS variables, by
//! the reader's preference or choice light or dark, and always light on paper. This file puts the sections together; [`results`] and
//! [`setup`] hold the tables, [`figures`](super::figures) what is drawn.

mod results;
mod setup;

use super::figure::{Figure, STYLE, WIDTH, variables};
use super::figures::{Content, Part, Run, Table, Topic};
use super::scores::{self, Row};
use crate::run::clock::hms;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const LOOK: &str = include_str!("style.css");

/// Why there are no faces when the reader of the page is not to see them.
pub const WITHOUT_FACES: &str = "faces were left out on request";

/// Topic, anchor, heading, and what it is about.
const SECTIONS: [(Topic, &str, &str, &str); 6] = [
    (
        Topic::Confidence,
        "labels",
        "How the labels were decided",
        "Ambiguous faces begin with a confidence spread over their candidates; training revises it until one candidate stands out.",
    ),
    (
        Topic::Faces,
        "faces",
        "Faces and their candidates",
        "Each strip is one training face. Every column is an epoch and shares out the confidence among the candidates; a tick above marks a \
         change of the likeliest one. Names stand at the height of their share in the end, the decided one in bold.",
    ),
    (Topic::Training, "training", "Training", "Measured while training; nothing here chose anything."),
    (Topic::Confusion, "confusion", "What is confused with what", "After the last epoch."),
    (
        Topic::Calibration,
        "calibration",
        "Calibration",
        "Of predictions that claim a probability of 80 %, 80 % should be right: bars on the diagonal.",
    ),
    (Topic::Pretraining, "pretraining", "Pretraining", "Without labels: hidden patches are predicted from visible ones."),
];

/// Everything that a page is made of.
pub struct Report {
    pub runs: Vec<Run>,
    pub rows: Vec<Row>,
    pub parts: Vec<Part>,
    /// Scores with their intervals; none without scores.
    pub intervals: Option<Figure>,
}

impl Report {
    pub fn new(runs: Vec<Run>) -> Self {
        let rows: Vec<Row> = runs.iter().enumerate().flat_map(|(i, run)| scores::rows(i, &run.record)).collect();
        let parts = super::figures::draw(&runs);
        let intervals = results::intervals(&runs, &rows);
        Self { runs, rows, parts, intervals }
    }

    /// All figures, to be written as files.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        let drawn = self.parts.iter().filter_map(|part| match &part.content {
            Content::Figure(figure, ..) => Some(figure.as_ref()),
            _ => None,
        });
        self.intervals.iter().chain(drawn)
    }

    pub fn html(&self) -> String {
        let names: Vec<&str> = self.runs.iter().map(|r| r.record.name.as_str()).collect();
        let title = names.join(", ");
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="generator" content={ "moue " (env!("CARGO_PKG_VERSION")) };
                    // Whatever a browser might still want to fetch (an icon), it may not.
                    meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                    link rel="icon" href="data:,";
                    title { "moue report: " (title) }
                    style { (PreEscaped(style())) }
                }
                body {
                    (self.header(&names))
                    main {
                        (results::section(self))
                        @for (topic, anchor, heading, lead) in SECTIONS { (self.section(topic, anchor, heading, lead)) }
                        (setup::section(&self.runs))
                    }
                    footer {
                        p { "Made by moue " (env!("CARGO_PKG_VERSION")) " from the run folder"
                            @if self.runs.len() > 1 { "s" } " alone. The page is whole: it loads nothing and runs nothing." }
                    }
                }
            }
        };
        page.into_string()
    }

    fn header(&self, names: &[&str]) -> Markup {
        html! {
            header {
                fieldset class="looks" {
                    legend { "Look" }
                    @for (id, name) in [("auto", "auto"), ("light", "light"), ("dark", "dark")] {
                        label { input type="radio" name="look" id={ "look-" (id) } checked[id == "auto"]; (name) }
                    }
                }
                p class="kicker" { "moue report" }
                h1 { @if let [name] = names { (name) } @else { (names.len()) " runs side by side" } }
                (results::lede(self))
                @for run in &self.runs { (self.about(run, names.len() > 1)) }
                nav aria-label="Sections" {
                    a href="#results" { "Results" }
                    @for (_, anchor, heading, _) in SECTIONS { a href={ "#" (anchor) } { (heading) } }
                    a href="#setup" { "Set-up" }
                }
            }
        }
    }

    fn about(&self, run: &Run, several: bool) -> Markup {
        let record = &run.record;
        let manifest = record.manifest.as_ref();
        let (ending, well) = &record.ending;
        html! {
            ul class="facts" {
                @if several { li { strong { (record.name) } } }
                li { @if *well { "completed" } @else { strong { (ending.split([':', ';']).next().unwrap_or(ending)) } } }
                li { (hms(record.summary.seconds)) " of training" }
                @if let Some(m) = manifest {
                    @if let Some(name) = m.device_name() { li { (name) } }
                    li { "seed " (m.seed) }
                    li { (m.created.get(..10).unwrap_or(&m.created)) }
                }
            }
            @if !well || !record.gaps.is_empty() || !record.messages.is_empty() {
                div class="note" role="note" {
                    @if !well { p { strong { "This run has not completed. " } "It is " (ending) "." } }
                    @for gap in &record.gaps { p { (gap) } }
                    @for (level, text) in &record.messages { p { (level.name()) " in the log: " (text) } }
                }
            }
        }
    }

    fn section(&self, topic: Topic, anchor: &str, heading: &str, lead: &str) -> Markup {
        let several = self.runs.len() > 1;
        html! {
            section id=(anchor) {
                h2 { (heading) }
                p class="lead" { (lead) }
                @if several && topic != Topic::Faces && topic != Topic::Pretraining { (self.abreast(topic)) }
                @else {
                    @for (i, run) in self.runs.iter().enumerate() {
                        @if several { p class="run" { (run.record.name) } }
                        div class="grid" { @for part in self.parts.iter().filter(|p| p.topic == topic && p.run == i) { (content(&part.content, None)) } }
                    }
                }
            }
        }
    }

    /// The runs' figures of one kind beside each other: the first of all, then the second of all ...
    fn abreast(&self, topic: Topic) -> Markup {
        let of = |run: usize| self.parts.iter().filter(move |p| p.topic == topic && p.run == run);
        let most = (0..self.runs.len()).map(|i| of(i).count()).max().unwrap_or(0);
        html! {
            @for n in 0..most {
                div class="grid abreast" {
                    @for (i, run) in self.runs.iter().enumerate() {
                        @if let Some(part) = of(i).nth(n) { (content(&part.content, Some(&run.record.name))) }
                    }
                }
            }
        }
    }
}

/// A figure, a picture, or why there is none; under the run's name where several stand beside each other.
fn content(content: &Content, run: Option<&str>) -> Markup {
    match content {
        Content::Figure(figure, says, numbers) => html! {
            figure class=[(figure.width > WIDTH).then_some("wide")] {
                h3 { @if let Some(run) = run { (run) ": " } (figure.title) }
                div class="scroll" { (figure.inline()) }
                figcaption { (says) }
                (table(numbers))
            }
        },
        Content::Picture { uri, width, height, says } => html! {
            figure {
                img src=(uri) width=(width) height=(height) alt=(says);
                figcaption { (says) }
            }
        },
        Content::Missing(why) => html! { p class="missing" { @if let Some(run) = run { (run) ": " } (why) } },
    }
}

/// The numbers behind a figure, folded away.
fn table(table: &Table) -> Markup {
    html! {
        @if !table.rows.is_empty() {
            details {
                summary { "The numbers" }
                div class="scroll" {
                    table {
                        thead { tr { @for head in &table.head { th scope="col" { (head) } } } }
                        tbody { @for row in &table.rows { tr { @for cell in row { td { (cell) } } } } }
                    }
                }
            }
        }
    }
}

/// Light unless the reader prefers or chooses dark; the choice needs no script.
fn style() -> String {
    let (light, dark) = (variables(false), variables(true));
    format!(
        ":root {{ color-scheme: light dark; {light} }}\n\
         @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n\
         :root:has(#look-light:checked) {{ color-scheme: light; {light} }}\n\
         :root:has(#look-dark:checked) {{ color-scheme: dark; {dark} }}\n\
         @media print {{ :root, :root:has(#look-dark:checked) {{ color-scheme: light; {light} }} }}\n\
         {STYLE}{LOOK}"
    )
}
