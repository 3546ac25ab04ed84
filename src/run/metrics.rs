//! `metrics.csv`: the numbers of a run as a table, derived from its events alone.
//!
//! One row for each evaluation, each logged scalar interval and each report on the labels. The first columns are always those of [`COLUMNS`], in that
//! order; scalars that are not among them follow as further columns, in the order of their first appearance. An empty cell means "not
//! measured in this row"; numbers that are not finite are `NaN`, `inf` and `-inf`.

use super::event::{Body, Event};
use super::folder::{RunFolder, write_atomic};
use super::reader::EventReader;
use anyhow::{Result, ensure};
use std::io::Write;

/// The columns that every table has.
///
/// `seconds` since the run began; `kind`: `train` (means over the interval), `valid` or `test` (an evaluation), `labels` (state of the ambiguous
/// faces); `accuracy`, `mean_recall`, `recovered` as shares of 1; `resolved`, `ambiguous`, `flips` in faces.
pub const COLUMNS: [&str; 17] = [
    "seconds",
    "stage",
    "label",
    "step",
    "epoch",
    "kind",
    "loss",
    "accuracy",
    "mean_recall",
    "resolved",
    "ambiguous",
    "flips",
    "recovered",
    "lr",
    "grad_norm",
    "uniform_loss",
    "faces_per_second",
];

/// Columns before the named numbers.
const FIXED: usize = 6;
/// A log of ours names some thirty numbers. A row is as wide as all columns, so that a log which names another one each time would make a
/// table of the square of its size.
const MOST: usize = 1000;

/// Derives `metrics.csv` of a run.
pub fn write(folder: &RunFolder) -> Result<()> {
    let table = Table::read(folder)?;
    write_atomic(&folder.metrics(), |w| table.write_csv(w))
}

/// All rows of a run, in the order of its events.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Row>,
}

/// What is known in a row.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    fixed: [String; FIXED],
    /// Column and number.
    numbers: Vec<(usize, f64)>,
}

impl Default for Table {
    fn default() -> Self {
        Self { columns: COLUMNS.map(String::from).to_vec(), rows: Vec::new() }
    }
}

impl Table {
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let mut table = Self::default();
        for event in EventReader::open(folder)? {
            table.push(&event?)?;
        }
        Ok(table)
    }

    /// Adds the event's row; events without numbers have none.
    ///
    /// # Errors
    /// Where the table would get too many columns.
    pub fn push(&mut self, event: &Event) -> Result<()> {
        match &event.body {
            Body::Scalars(scalars) => self.row(event, "train", scalars.iter()),
            Body::Evaluation { split, accuracy, mean_recall, loss, macro_f1, calibration_error, .. } => {
                let known = [("accuracy", Some(*accuracy)), ("mean_recall", Some(*mean_recall)), ("loss", *loss)];
                let added = [("macro_f1", *macro_f1), ("calibration_error", *calibration_error)];
                let numbers = known.into_iter().chain(added).filter_map(|(name, value)| Some((name, value?)));
                self.row(event, split.name(), numbers)
            }
            Body::Confidence { resolved, ambiguous, flips, recovered, .. } => {
                let counts = [("resolved", *resolved), ("ambiguous", *ambiguous), ("flips", *flips)].map(|(name, n)| (name, n as f64));
                self.row(event, "labels", counts.into_iter().chain(recovered.map(|share| ("recovered", share))))
            }
            _ => Ok(()),
        }
    }

    fn row<'a>(&mut self, event: &Event, kind: &str, numbers: impl Iterator<Item = (&'a str, f64)>) -> Result<()> {
        let fixed = [
            event.t.to_string(),
            event.stage.name().to_string(),
            event.label.clone(),
            event.step.to_string(),
            event.epoch.to_string(),
            kind.to_string(),
        ];
        let mut known = Vec::new();
        for (name, number) in numbers {
            let column = match self.columns.iter().skip(FIXED).position(|column| column == name) {
                Some(column) => column + FIXED,
                None => {
                    ensure!(self.columns.len() < MOST, "the log names more than {MOST} numbers");
                    self.columns.push(name.to_string());
                    self.columns.len() - 1
                }
            };
            known.push((column, number));
        }
        self.rows.push(Row { fixed, numbers: known });
        Ok(())
    }

    pub fn write_csv(&self, w: impl Write) -> Result<()> {
        let mut csv = csv::Writer::from_writer(w);
        csv.write_record(&self.columns)?;
        for row in &self.rows {
            let mut cells = vec![String::new(); self.columns.len()];
            cells[..FIXED].clone_from_slice(&row.fixed);
            row.numbers.iter().for_each(|(column, number)| cells[*column] = number.to_string());
            csv.write_record(&cells)?;
        }
        Ok(csv.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::{event, every_body};
    use super::*;
    use crate::run::Scalars;

    #[test]
    fn rows_line_up_with_stable_columns() {
        let mut table = Table::default();
        every_body().into_iter().for_each(|body| table.push(&event(body)).unwrap());
        table.push(&event(Body::Scalars(Scalars::from([("mask_ratio", 0.4), ("loss", f64::NAN)])))).unwrap();
        let mut text = Vec::new();
        table.write_csv(&mut text).unwrap();
        let mut csv = csv::Reader::from_reader(text.as_slice());
        let header = csv.headers().unwrap().clone();
        assert_eq!(header.iter().take(COLUMNS.len()).collect::<Vec<_>>(), COLUMNS);
        assert_eq!(header.iter().skip(COLUMNS.len()).collect::<Vec<_>>(), ["macro_f1", "calibration_error", "mask_ratio"]);
        let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        let cell = |row: usize, name: &str| &rows[row][header.iter().position(|h| h == name).unwrap()];
        assert_eq!(rows.len(), 4);
        assert_eq!((cell(0, "kind"), cell(0, "loss"), cell(0, "lr"), cell(0, "accuracy")), ("train", "0.5", "0.001", ""));
        assert_eq!((cell(1, "kind"), cell(1, "resolved"), cell(1, "recovered")), ("labels", "3", "0.75"));
        assert_eq!((cell(2, "kind"), cell(2, "accuracy"), cell(2, "loss"), cell(2, "label")), ("valid", "0.5", "1.25", "pll"));
        assert_eq!((cell(3, "mask_ratio"), cell(3, "loss")), ("0.4", "NaN"));
    }
}
