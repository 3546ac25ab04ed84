//! `annotations.csv`: one line for each answer, `file,annotator,label` and perhaps `split`.
//!
//! Answers become votes as in `votes.csv`; besides, the pack records who gave which, so that an audit can tell how well each annotator
//! agrees with the others. Names of annotators go into the pack as they are written.

use super::{EXTRA_COLUMNS, Request, card, names_in_order, not_empty, read_names};
use crate::dataset::import::table::{Place, Row, Separator, Table, clip};
use crate::dataset::import::{Item, Listing, Origin, plain_name};
use crate::dataset::votes::{Rule, decide, usable};
use crate::dataset::{Class, Face, Split};
use anyhow::{Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

/// Faces times annotators up to which a pack records who said what: a hundred megabytes of index.
const MAX_PANELS: usize = 20_000_000;

/// One picture and what was said about it.
struct Read {
    name: String,
    split: Split,
    place: Place,
    /// Annotator and answer.
    answers: Vec<(usize, String)>,
}

/// The columns of the file.
struct Columns {
    file: usize,
    annotator: usize,
    label: usize,
    split: Option<usize>,
}

pub(super) fn list(source: &Path, path: &Path, request: &Request) -> Result<Listing> {
    let mut table = Table::open(path, Separator::Comma)?.with_header()?;
    let columns = Columns {
        file: table.column("file")?,
        annotator: table.column("annotator")?,
        label: table.column("label")?,
        split: table.find("split"),
    };
    let mut annotators: Vec<String> = Vec::new();
    let mut members: HashMap<String, usize> = HashMap::new();
    let mut pictures: Vec<Read> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut answered: HashSet<(usize, usize)> = HashSet::new();
    while let Some(row) = table.next()? {
        let (name, annotator, label, split) = columns.read(&row, table.header().len())?;
        let member = *members.entry(annotator.to_owned()).or_insert_with(|| {
            annotators.push(annotator.to_owned());
            annotators.len() - 1
        });
        let n = *by_name.entry(name.to_owned()).or_insert_with(|| {
            pictures.push(Read { name: name.to_owned(), split, place: row.place.clone(), answers: Vec::new() });
            pictures.len() - 1
        });
        let picture = &mut pictures[n];
        if picture.split != split {
            bail!("{}: {} is a {split} face here and a {} face in line {}", row.place, clip(name), picture.split, picture.place.line);
        }
        if !answered.insert((n, member)) {
            bail!("{}: {} answers a second time about {}", row.place, clip(annotator), clip(name));
        }
        picture.answers.push((member, label.to_owned()));
    }
    let file = table.file().to_string();
    let is_extra = |label: &str| EXTRA_COLUMNS.iter().position(|e| e.eq_ignore_ascii_case(label));
    let said: BTreeSet<&String> = pictures.iter().flat_map(|p| p.answers.iter().map(|(_, label)| label)).collect();
    let found: BTreeSet<String> = said.iter().filter(|label| is_extra(label).is_none()).map(|label| label.to_string()).collect();
    if found.len() < 2 {
        bail!("{file}: {} class names, expected at least two", found.len());
    }
    let classes = request.classes.as_deref();
    let meaning = read_names(&found, classes, &file)?;
    let names = names_in_order(&meaning, classes);
    let extra: Vec<usize> = (0..EXTRA_COLUMNS.len()).filter(|&e| said.iter().any(|label| is_extra(label) == Some(e))).collect();
    let mut columns: BTreeMap<&String, Class> = BTreeMap::new();
    for label in said {
        let column = match is_extra(label) {
            Some(e) => names.len() + extra.iter().position(|&x| x == e).unwrap_or(0),
            None => usize::from(meaning[label]),
        };
        columns.insert(label, column as Class);
    }
    let (class_count, column_count) = (names.len(), names.len() + extra.len());
    let extra = extra.into_iter().map(|e| EXTRA_COLUMNS[e].to_string()).collect();
    let mut listing = Listing::new("folder", card(request, names, extra, request.rule.describe(), "annotations.csv"));
    listing.sources.push(file);
    let recorded = pictures.len() * annotators.len() <= MAX_PANELS;
    if !recorded {
        listing.notes.push(format!(
            "{} annotators of {} faces are too many to record who said what: votes only",
            annotators.len(),
            pictures.len()
        ));
    }
    let images = source.join("images");
    let folder = if images.is_dir() { images } else { source.to_path_buf() };
    let mut kept = 0;
    for picture in &pictures {
        let mut face = Face::new(picture.name.clone(), picture.split);
        face.votes = vec![0; column_count];
        if recorded {
            face.panel = vec![None; annotators.len()];
        }
        for (member, label) in &picture.answers {
            let column = columns[label];
            face.votes[usize::from(column)] += 1;
            if recorded {
                face.panel[*member] = Some(column);
            }
        }
        let mut item = Item::new(face, Origin::File(folder.join(&picture.name)), picture.place.clone());
        kept += usize::from(judge(&mut item, class_count, request.rule, request.keep_ambiguous));
        listing.items.push(item);
    }
    if request.keep_ambiguous {
        listing.notes.push(format!("{kept} train faces that the rule leaves open are kept without a label (--keep-ambiguous)"));
    }
    listing.annotators = if recorded { annotators } else { Vec::new() };
    not_empty(listing)
}

/// Gives a face the label that its votes make, or the reason why it has none; whether it is kept without one.
pub(super) fn judge(item: &mut Item, classes: usize, rule: Rule, keep_ambiguous: bool) -> bool {
    match decide(&item.face.votes, classes, rule) {
        Ok(class) => item.face.label = Some(class),
        Err(_) if keep_ambiguous && item.face.split == Split::Train && usable(&item.face.votes, classes) => return true,
        Err(open) => item.drop = Some(open.reason()),
    }
    false
}

impl Columns {
    /// Picture, annotator, answer and split of a row.
    fn read<'a>(&self, row: &'a Row, fields: usize) -> Result<(&'a str, &'a str, &'a str, Split)> {
        if row.len() != fields {
            bail!("{}: {} fields, but the header has {fields}", row.place, row.len());
        }
        let name = plain_name(row.get(self.file)?, &row.place)?;
        let (annotator, label) = (row.get(self.annotator)?, row.get(self.label)?);
        if annotator.is_empty() {
            bail!("{}: no annotator", row.place);
        }
        if label.is_empty() {
            bail!("{}: no label; leave the line out, or write {}", row.place, EXTRA_COLUMNS[0]);
        }
        let split = match self.split {
            Some(i) => row.get(i)?.parse().map_err(|e| anyhow!("{}: {e}", row.place))?,
            None => Split::Train,
        };
        Ok((name, annotator, label, split))
    }
}
