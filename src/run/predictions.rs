//! `predictions/<objective>.csv`: what a finished stage's model says about each face.
//!
//! One line a face: `id`, `split`, `label` (given), `truth` (where it is known), and for each class `p_<class>`, the softmax probability,
//! of the whole face without augmentation (averaged with its mirror image under `run.evaluate_flip`). Of the training split every face
//! stands there, also one without a label, of the others those that are scored. Of training faces these are the words of a model that
//! trained on them.
//!
//! A csv, because that is what other tools read, and it is small: 300,000 faces of 8 classes take 30 MB and a second.

use super::folder::write_atomic;
use crate::dataset::{Class, Pack, Split};
use crate::limits::Records;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Columns before the classes'.
const COLUMNS: [&str; 4] = ["id", "split", "label", "truth"];
const PREFIX: &str = "p_";
/// How far a row may be from adding up to 1: six decimals a class, and other tools may write fewer.
const TOLERANCE: f32 = 0.01;

/// One face and where its probabilities are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    pub id: String,
    pub split: Split,
    /// The given label.
    pub label: Option<Class>,
    pub truth: Option<Class>,
}

/// What a model says about faces.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Class names in label order.
    pub classes: Vec<String>,
    pub faces: Vec<Predicted>,
    /// `[faces, C]`, row-major.
    pub probabilities: Vec<f32>,
}

impl Predictions {
    /// Of faces at `positions` in a pack, and their `probabilities` `[positions, C]`.
    pub fn of(pack: &Pack, positions: &[usize], probabilities: Vec<f32>) -> Self {
        let face = |&i: &usize| {
            let face = &pack.faces()[i];
            Predicted { id: face.id.clone(), split: face.split, label: face.label, truth: face.truth }
        };
        Self { classes: pack.protocol().classes.clone(), faces: positions.iter().map(face).collect(), probabilities }
    }

    /// The probabilities of face `i`, `[C]`.
    pub fn row(&self, i: usize) -> &[f32] {
        let classes = self.classes.len();
        &self.probabilities[i * classes..(i + 1) * classes]
    }

    /// # Errors
    /// Where the disk fails.
    pub fn write(&self, path: &Path) -> Result<()> {
        let name = |c: Option<Class>| c.map_or("", |c| self.classes[usize::from(c)].as_str());
        let folder = path.parent().context("predictions lie in a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        write_atomic(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            let heads = self.classes.iter().map(|c| format!("{PREFIX}{c}"));
            writer.write_record(COLUMNS.into_iter().map(String::from).chain(heads))?;
            for (i, face) in self.faces.iter().enumerate() {
                for field in [&face.id, face.split.name(), name(face.label), name(face.truth)] {
                    writer.write_field(field)?;
                }
                for p in self.row(i) {
                    writer.write_field(format!("{p:.6}"))?;
                }
                writer.write_record(None::<&[u8]>)?;
            }
            Ok(writer.flush()?)
        })
    }

    /// # Errors
    /// No such file, or one that holds no predictions ([`Usage`](crate::failure::Usage)); a damaged line, by its number.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_inner(path).with_context(|| format!("predictions {}", path.display()))
    }

    fn read_inner(path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => usage!("there is no such file"),
            Err(e) => return Err(e.into()),
        };
        let mut reader = csv::Reader::from_reader(Records::new(file));
        let header = reader.headers().context("its first line does not parse")?.clone();
        let heads: Option<Vec<String>> = header.iter().skip(COLUMNS.len()).map(|h| h.strip_prefix(PREFIX).map(String::from)).collect();
        let classes = match heads {
            Some(classes) if header.iter().take(COLUMNS.len()).eq(COLUMNS) && classes.len() > 1 => classes,
            _ => usage!("these are no predictions (the first line is not `{},{PREFIX}<class>...`)", COLUMNS.join(",")),
        };
        let (mut faces, mut probabilities) = (Vec::new(), Vec::new());
        let mut record = csv::StringRecord::new();
        loop {
            let line = reader.position().line();
            match reader.read_record(&mut record) {
                Ok(false) => break,
                Ok(true) => {}
                Err(e) => return Err(e).with_context(|| format!("line {line}: cut short or damaged")),
            }
            let class = |text: &str| -> Result<Option<Class>> {
                let known = || classes.iter().position(|c| c == text).map(|c| c as Class);
                if text.is_empty() { Ok(None) } else { known().map(Some).with_context(|| format!("line {line}: no class `{text}`")) }
            };
            let split = record[1].parse().map_err(|e| anyhow!("line {line}: {e}"))?;
            faces.push(Predicted { id: record[0].to_string(), split, label: class(&record[2])?, truth: class(&record[3])? });
            let mut sum = 0.0;
            for text in record.iter().skip(COLUMNS.len()) {
                let p: f32 = text
                    .parse()
                    .ok()
                    .filter(|p| (0.0..=1.0).contains(p))
                    .with_context(|| format!("line {line}: `{text}` is no probability"))?;
                sum += p;
                probabilities.push(p);
            }
            if (sum - 1.0).abs() > TOLERANCE {
                bail!("line {line}: the probabilities add up to {sum}");
            }
        }
        Ok(Self { classes, faces, probabilities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{exit_code, one_line};

    fn predictions() -> Predictions {
        let face = |id: &str, split, label, truth| Predicted { id: id.into(), split, label, truth };
        Predictions {
            classes: vec!["calm".into(), "very, very glad".into()],
            faces: vec![
                face("a", Split::Train, Some(0), Some(1)),
                face("b \"quoted\",", Split::Train, None, None),
                face("c", Split::Test, Some(1), None),
            ],
            probabilities: vec![0.25, 0.75, 1.0, 0.0, 0.5, 0.5],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("predictions/pll.csv");
        predictions().write(&path).unwrap();
        assert_eq!(Predictions::read(&path).unwrap(), predictions());
        assert_eq!(Predictions::read(&path).unwrap().row(1), [1.0, 0.0]);
    }

    #[test]
    fn other_and_damaged_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("pll.csv");
        let refused = |code: u8, parts: &[&str]| {
            let error = Predictions::read(&path).unwrap_err();
            let said = one_line(&error);
            assert!(exit_code(&error) == code && parts.iter().all(|p| said.contains(p)), "{said}");
        };
        refused(2, &["pll.csv", "no such file"]);
        for text in ["", "id,given,decided\na,b,c\n", "id,split,label,truth,p_calm\n"] {
            std::fs::write(&path, text).unwrap();
            refused(2, &["no predictions"]);
        }
        let head = "id,split,label,truth,p_calm,p_glad\na,train,calm,,0.5,0.5\n";
        for (line, said) in [
            ("b,train,calm,,0.9\n", "cut short"),
            ("b,train,joy,,0.5,0.5\n", "joy"),
            ("b,somewhere,calm,,0.5,0.5\n", "somewhere"),
            ("b,train,calm,,0.5,x\n", "`x`"),
            ("b,train,calm,,0.5,NaN\n", "`NaN`"),
            ("b,train,calm,,0.5,0.1\n", "add up"),
        ] {
            std::fs::write(&path, [head, line].concat()).unwrap();
            refused(1, &["pll.csv", "line 3", said]);
        }
    }
}
