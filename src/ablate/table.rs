//! What came of a table's runs: means and spreads over seeds, the paper's figures beside, and where its order does not hold.

use super::tables::{Row, Table};
use super::{Plan, folder_of};
use crate::dataset::Pack;
use crate::pipeline::outcome::{Comparison, Scores};
use crate::run::{RunFolder, write_atomic};
use anyhow::Result;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Mean and sample standard deviation; no deviation of a single value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub deviation: Option<f64>,
}

impl Spread {
    /// None without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }

    /// In per cent.
    fn text(self) -> String {
        match self.deviation {
            Some(d) => format!("{:.1} +- {:.1}", 100.0 * self.mean, 100.0 * d),
            None => format!("{:.1}", 100.0 * self.mean),
        }
    }
}

/// A row's figures; none where no run of it is finished.
#[derive(Clone, Debug)]
pub struct Line {
    pub row: &'static Row,
    pub epochs: usize,
    pub seeds: usize,
    pub accuracy: Option<Spread>,
    pub mean_recall: Option<Spread>,
    /// Share of the ambiguous training labels that are right, where the truth is known.
    pub recovered: Option<Spread>,
}

/// A table with its figures.
#[derive(Clone, Debug)]
pub struct Findings {
    pub table: &'static Table,
    /// The split that is measured.
    pub split: &'static str,
    pub seeds: u64,
    pub lines: Vec<Line>,
}

/// Reads the figures of all finished runs of a plan from their events.
pub fn read(table: &'static Table, rows: &[&'static Row], plan: &Plan, pack: &Pack, out: &Path) -> Result<Findings> {
    let mut split = "no";
    let mut lines = Vec::new();
    for &row in rows {
        let item = plan.rows.iter().find(|item| item.name == row.name);
        let mut scores: Vec<Scores> = Vec::new();
        for seed in 0..plan.seeds {
            let Some(folder) = item.map(|item| folder_of(out, item, seed)).filter(|f| f.exists()) else { continue };
            let folder = RunFolder::open(&folder)?;
            if super::finished(&folder)? {
                let comparison = Comparison::read(&folder, pack, None)?;
                split = comparison.split.map_or(split, |s| s.name());
                scores.extend(comparison.rows);
            }
        }
        let spread = |of: &dyn Fn(&Scores) -> Option<f64>| Spread::of(&scores.iter().filter_map(of).collect::<Vec<_>>());
        lines.push(Line {
            row,
            epochs: item.map_or(0, |item| item.epochs),
            seeds: scores.len(),
            accuracy: spread(&|s| Some(s.accuracy)),
            mean_recall: spread(&|s| Some(s.mean_recall)),
            recovered: spread(&|s| s.recovered),
        });
    }
    Ok(Findings { table, split, seeds: plan.seeds, lines })
}

impl Findings {
    /// Heads and cells, the paper's columns last.
    fn cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut heads: Vec<String> = ["", "epochs", "accuracy", "mean class", "labels right"].map(String::from).to_vec();
        heads[2] = format!("{} accuracy", self.split);
        heads.extend(self.table.columns.iter().map(|c| format!("paper {c}")));
        let cell = |s: Option<Spread>| s.map_or("-".to_string(), Spread::text);
        let line = |l: &Line| {
            let title = match l.row.layers {
                Err(why) => format!("{} ({why})", l.row.title),
                Ok(_) => l.row.title.to_string(),
            };
            let epochs = if l.epochs > 0 { l.epochs.to_string() } else { "-".into() };
            let paper = l.row.paper.iter().map(|v| v.map_or("-".to_string(), |v| format!("{v:.2}")));
            [title, epochs, cell(l.accuracy), cell(l.mean_recall), cell(l.recovered)].into_iter().chain(paper).collect()
        };
        (heads, self.lines.iter().map(line).collect())
    }

    /// For a terminal: aligned columns and the notes.
    pub fn text(&self) -> String {
        let (heads, rows) = self.cells();
        let width = |c: usize| std::iter::once(&heads).chain(&rows).map(|r| r[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut text = format!("{}: {}\n", self.table.name, self.table.title);
        for row in std::iter::once(&heads).chain(&rows) {
            let cells = row.iter().zip(&widths).enumerate();
            let line: Vec<String> = cells.map(|(c, (t, &w))| if c == 0 { format!("{t:<w$}") } else { format!("{t:>w$}") }).collect();
            let _ = writeln!(text, "{}", line.join("  ").trim_end());
        }
        text + &self.notes().join("\n") + "\n"
    }

    /// For a README.
    pub fn markdown(&self) -> String {
        let (heads, rows) = self.cells();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = (0..heads.len()).map(|c| if c == 0 { "---".into() } else { "---:".into() }).collect();
        let body: String = rows.iter().map(|r| line(r)).collect();
        format!("{}{}{body}\n{}\n", line(&heads), line(&rule), self.notes().join("\n\n"))
    }

    /// What the figures are, and where the paper's order does not hold.
    fn notes(&self) -> Vec<String> {
        let unfinished = self.lines.iter().any(|l| l.row.layers.is_ok() && (l.seeds as u64) < self.seeds);
        let mut notes = vec![format!(
            "In per cent after the last epoch, mean +- standard deviation over {} seed{}{}.",
            self.seeds,
            if self.seeds == 1 { "" } else { "s" },
            if unfinished { "; not all runs are finished" } else { "" }
        )];
        if !self.table.columns.is_empty() {
            notes.push("paper: its own figures, on its data, at its scale; only orders can be compared.".into());
            notes.extend(self.broken_orders());
        }
        notes
    }

    /// Pairs of rows that the paper has one way round on its first data set, and these runs the other.
    fn broken_orders(&self) -> Vec<String> {
        let known: Vec<(&Line, f64, Spread)> =
            self.lines.iter().filter_map(|l| Some((l, l.row.paper.first().copied().flatten()?, l.accuracy?))).collect();
        let mut broken = Vec::new();
        let mut pairs = 0;
        for (i, (a, theirs_a, ours_a)) in known.iter().enumerate() {
            for (b, theirs_b, ours_b) in &known[i + 1..] {
                let ((low, ours_low), (high, ours_high)) =
                    if theirs_a < theirs_b { ((a, ours_a), (b, ours_b)) } else { ((b, ours_b), (a, ours_a)) };
                pairs += 1;
                let gap = ours_low.mean - ours_high.mean;
                if gap >= 0.0 {
                    let noise = ours_low.deviation.unwrap_or(f64::INFINITY).max(ours_high.deviation.unwrap_or(f64::INFINITY));
                    let sure = if gap > noise { "" } else { ", within the spread" };
                    let (low, high) = (low.row.title, high.row.title);
                    broken.push(format!("the paper's order does not hold: {low} is {:.1} points above {high}{sure}.", 100.0 * gap));
                }
            }
        }
        if broken.is_empty() && pairs > 0 {
            broken.push(format!("all {pairs} pairs of rows stand in the paper's order."));
        }
        broken
    }

    /// Writes `table.md` and `table.csv` beside the runs.
    pub fn write(&self, out: &Path) -> Result<()> {
        write_atomic(&out.join("table.md"), |w| Ok(w.write_all(self.markdown().as_bytes())?))?;
        write_atomic(&out.join("table.csv"), |w| {
            let mut csv = csv::Writer::from_writer(w);
            csv.write_record(["row", "epochs", "seeds", "measure", "mean", "deviation"])?;
            for line in &self.lines {
                let measures = [("accuracy", line.accuracy), ("mean_recall", line.mean_recall), ("labels_right", line.recovered)];
                for (name, spread) in measures.into_iter().filter_map(|(name, s)| Some((name, s?))) {
                    let deviation = spread.deviation.map(|d| d.to_string()).unwrap_or_default();
                    let (epochs, seeds) = (line.epochs.to_string(), line.seeds.to_string());
                    csv.write_record([line.row.name, &epochs, &seeds, name, &spread.mean.to_string(), &deviation])?;
                }
            }
            Ok(csv.flush()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::find;
    use super::*;

    fn findings(accuracies: [&[f64]; 2]) -> Findings {
        let table = find("table6").unwrap();
        let line = |(row, values): (&'static Row, &[f64])| Line {
            row,
            epochs: 3,
            seeds: values.len(),
            accuracy: Spread::of(values),
            mean_recall: None,
            recovered: None,
        };
        Findings { table, split: "test", seeds: 2, lines: table.rows.iter().zip(accuracies).map(line).collect() }
    }

    #[test]
    fn spreads_are_sample_deviations() {
        let s = Spread::of(&[0.6, 0.7, 0.8]).unwrap();
        assert!((s.mean - 0.7).abs() < 1e-12 && (s.deviation.unwrap() - 0.1).abs() < 1e-12);
        assert_eq!((Spread::of(&[0.5]).unwrap().deviation, Spread::of(&[])), (None, None));
    }

    #[test]
    fn a_broken_order_is_said() {
        let clear = findings([&[0.70, 0.71], &[0.60, 0.61]]).text();
        assert!(clear.contains("does not hold: without pretraining is 10.0 points above with pretraining."), "{clear}");
        let near = findings([&[0.60, 0.70], &[0.60, 0.68]]).text();
        assert!(near.contains("1.0 points above with pretraining, within the spread"), "{near}");
        let holds = findings([&[0.60, 0.61], &[0.70, 0.71]]);
        assert!(holds.text().contains("all 1 pairs"), "{}", holds.text());
        assert!(holds.markdown().contains("| without pretraining | 3 | 60.5 +- 0.7 | - | - | 90.81 |"), "{}", holds.markdown());
        assert!(findings([&[0.60], &[]]).text().contains("not all runs are finished"));
    }
}
