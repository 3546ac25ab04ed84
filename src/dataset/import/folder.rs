//! Your own pictures: class folders, or `images/` with a `votes.csv`, an `annotations.csv` or a `candidates.csv`.
//!
//! Classes are known by name. Numbers in place of names are refused with the readings that published data sets give them, until
//! `--classes` says what they mean; so are votes without a header. Class folders are taken in alphabetical order unless `--classes`
//! gives another.

mod annotations;

use super::table::{Place, Separator, Table, clip};
use super::{Ids, Item, Listing, Origin, fit_for_id, must_exist, plain_name};
use crate::dataset::picture;
use crate::dataset::votes::Rule;
use crate::dataset::{Class, Face, Protocol, Split};
use crate::limits;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Vote columns that are no class, whatever their letter case.
const EXTRA_COLUMNS: [&str; 2] = ["unknown", "NF"];

/// What the command line says about the source.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Class names in label order; for numeric names also their meaning.
    pub classes: Option<Vec<String>>,
    /// Name of the card; default `folder-<number of classes>`.
    pub name: Option<String>,
    pub rule: Rule,
    pub keep_ambiguous: bool,
}

/// Lists a folder in whichever of the layouts it is.
///
/// # Errors
/// Names what is missing or ambiguous, with file and line where there is one.
pub fn list(source: &Path, request: &Request) -> Result<Listing> {
    must_exist(source)?;
    if !source.is_dir() {
        usage!("{} is not a folder", source.display());
    }
    if let Some(classes) = &request.classes {
        let unique: BTreeSet<_> = classes.iter().map(|c| c.to_ascii_lowercase()).collect();
        if classes.len() < 2 || unique.len() != classes.len() || classes.iter().any(String::is_empty) {
            usage!("--classes needs at least two different names, separated by commas");
        }
    }
    type List = fn(&Path, &Path, &Request) -> Result<Listing>;
    let lists: [(&str, List); 3] = [("votes.csv", list_votes), ("annotations.csv", annotations::list), ("candidates.csv", list_candidates)];
    match lists.iter().filter(|(name, _)| source.join(name).is_file()).collect::<Vec<_>>()[..] {
        [] => list_folders(source, request),
        [(name, list)] => list(source, &source.join(name), request),
        [(a, _), (b, _), ..] => usage!("{} has {a} and {b}; keep the one to import", source.display()),
    }
}

fn card(request: &Request, classes: Vec<String>, extra_columns: Vec<String>, rule: &str, source: &str) -> Protocol {
    let name = request.name.clone().unwrap_or_else(|| format!("folder-{}", classes.len()));
    Protocol { name, classes, extra_columns, rule: rule.into(), source: source.into() }
}

/// The meaning of class names as found: sorted names, or what `--classes` makes of them.
fn read_names(found: &BTreeSet<String>, classes: Option<&[String]>, place: &str) -> Result<BTreeMap<String, Class>> {
    if found.len() > limits::CLASSES {
        bail!("{place}: {} class names, allowed are {}", found.len(), limits::CLASSES);
    }
    let mut numbers: Vec<(u32, &String)> = found.iter().filter_map(|n| Some((n.parse().ok()?, n))).collect();
    numbers.sort();
    if !numbers.is_empty() {
        if numbers.len() < found.len() {
            usage!("{place}: some classes are numbers and some are names ({}); give all of them names", join(found));
        }
        let first = numbers[0].0;
        let Some(classes) = classes else {
            usage!(
                "{place}: the classes are numbers and nobody knows their order: {}; say it with --classes a,b,c",
                readings(first, numbers.len())
            )
        };
        let expected = (first..).take(classes.len()).eq(numbers.iter().map(|n| n.0));
        if first > 1 || !expected {
            usage!("{place}: --classes names {} classes, but the numbers are {}", classes.len(), join(numbers.iter().map(|n| n.1)));
        }
        return Ok(numbers.iter().enumerate().map(|(i, (_, name))| (name.to_string(), i as Class)).collect());
    }
    let order: Vec<&str> = match classes {
        Some(classes) => classes.iter().map(String::as_str).collect(),
        None => found.iter().map(String::as_str).collect(),
    };
    let index = |name: &String| {
        let Some(i) = order.iter().position(|c| c.eq_ignore_ascii_case(name)) else {
            usage!("{place}: class `{}` is not among --classes {}", clip(name), order.join(","))
        };
        Ok((name.clone(), i as Class))
    };
    found.iter().map(index).collect()
}

/// The class names in label order.
fn names_in_order(meaning: &BTreeMap<String, Class>, classes: Option<&[String]>) -> Vec<String> {
    classes.map(<[String]>::to_vec).unwrap_or_else(|| {
        let mut names: Vec<(&Class, &String)> = meaning.iter().map(|(n, c)| (c, n)).collect();
        names.sort();
        names.into_iter().map(|(_, n)| n.clone()).collect()
    })
}

fn join(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<String> = names.into_iter().take(12).map(|n| clip(n.as_ref())).collect();
    names.join(", ")
}

/// Two common readings of `count` numbers from `first` on.
fn readings(first: u32, count: usize) -> String {
    const FER2013: [&str; 7] = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"];
    let (a, first_order, b, second_order): (_, &[&str], _, &[&str]) = match (first, count) {
        (1, 0..=7) => ("RAF-DB", &super::rafdb::CLASSES, "FER2013 counted from 1", &FER2013),
        (_, 0..=7) => ("FER2013", &FER2013, "AffectNet", &super::affectnet::CLASSES),
        _ => ("FERPlus", &super::ferplus::CLASSES, "AffectNet", &super::affectnet::CLASSES),
    };
    let spell = |order: &[&str]| {
        order.iter().take(count.max(2)).enumerate().map(|(i, c)| format!("{}={c}", i as u32 + first)).collect::<Vec<_>>().join(" ")
    };
    format!("{a} order is {}, {b} order is {}", spell(first_order), spell(second_order))
}

/// Sub-folders by name; hidden ones are passed over.
fn folders(parent: &Path) -> Result<BTreeMap<String, PathBuf>> {
    read_folder(parent, |path| path.is_dir())
}

fn is_picture(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    picture::EXTENSIONS.contains(&ending.as_str())
}

fn read_folder(parent: &Path, wanted: impl Fn(&Path) -> bool) -> Result<BTreeMap<String, PathBuf>> {
    let context = || format!("cannot read folder {}", parent.display());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(parent).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { bail!("{}: a file name is not UTF-8", path.display()) };
        if !name.starts_with('.') && wanted(&path) {
            found.insert(name.to_owned(), path);
        }
    }
    Ok(found)
}

fn list_folders(source: &Path, request: &Request) -> Result<Listing> {
    let top = folders(source)?;
    let as_split = |name: &String| name.parse::<Split>().ok();
    let splits: Vec<(Split, &String, &PathBuf)> = top.iter().filter_map(|(n, p)| Some((as_split(n)?, n, p))).collect();
    let mut parts = Vec::new();
    if splits.is_empty() {
        parts.push((Split::Train, String::new(), top.clone()));
    } else {
        for &(split, name, path) in &splits {
            if let Some((other, ..)) = parts.iter().map(|(s, n, _)| (n, s)).find(|(_, s)| **s == split) {
                usage!("{}: {other}/ and {name}/ are both the {split} split", source.display());
            }
            parts.push((split, format!("{name}/"), folders(path)?));
        }
        if splits.len() < top.len() {
            let others = top.keys().filter(|n| as_split(n).is_none());
            usage!(
                "{}: besides split folders there are {}; take them away or name splits train, valid, test",
                source.display(),
                join(others)
            );
        }
        parts.sort_by_key(|p| p.0);
    }
    let found: BTreeSet<String> = parts.iter().flat_map(|p| p.2.keys().cloned()).collect();
    if found.len() < 2 {
        usage!(
            "{}: {} class folders, expected at least two (or images/ with votes.csv, annotations.csv or candidates.csv)",
            source.display(),
            found.len()
        );
    }
    let classes = request.classes.as_deref();
    let meaning = read_names(&found, classes, &source.display().to_string())?;
    for (_, prefix, inside) in &parts {
        if classes.is_none()
            && let Some(absent) = found.iter().find(|n| !inside.contains_key(*n))
        {
            usage!(
                "{}: {prefix}{absent} is missing although another split has it; add it (it may be empty) or give --classes",
                source.display()
            );
        }
    }
    let names = names_in_order(&meaning, classes);
    let mut listing = Listing::new("folder", card(request, names, Vec::new(), "label = class folder", "class folders"));
    listing.sources.push(source.display().to_string());
    for (split, prefix, inside) in parts {
        for (class, folder) in inside {
            for (file, path) in read_folder(&folder, |path| !path.is_dir())? {
                if !is_picture(&file) {
                    listing.count_dropped("file in a class folder whose name is no picture's");
                    continue;
                }
                let mut face = Face::new(format!("{prefix}{class}/{}", fit_for_id(&file, folder.display())?), split);
                face.label = Some(meaning[&class]);
                let place = Place { file: folder.display().to_string().into(), line: 0 };
                listing.items.push(Item::new(face, Origin::File(path), place));
            }
        }
    }
    if listing.items.is_empty() {
        bail!("{}: the class folders hold no pictures (PNG, JPEG, WebP, BMP, PNM)", source.display());
    }
    Ok(listing)
}

/// What `votes.csv` and `candidates.csv` share: the `file` and `split` columns, and where pictures lie.
struct Listed {
    table: Table,
    folder: PathBuf,
    file: usize,
    split: Option<usize>,
    ids: Ids,
}

impl Listed {
    fn open(source: &Path, path: &Path) -> Result<Self> {
        let table = Table::open(path, Separator::Comma)?.with_header()?;
        if table.find("file").is_none() && table.header().iter().any(|h| h.parse::<f64>().is_ok()) {
            usage!(
                "{} line 1: there is no header, so the vote order is unknown: {}; put `file,split,<class names>` in the first line",
                table.file(),
                readings(0, table.header().iter().filter(|h| h.parse::<f64>().is_ok()).count())
            );
        }
        let (file, split) = (table.column("file")?, table.find("split"));
        if let Some(twice) = table.header().iter().enumerate().find(|(i, h)| table.find(h) != Some(*i)) {
            bail!("{} line 1: column `{}` occurs twice", table.file(), clip(twice.1));
        }
        let images = source.join("images");
        let folder = if images.is_dir() { images } else { source.to_path_buf() };
        Ok(Self { table, folder, file, split, ids: Ids::default() })
    }

    /// The next row as a face without label, or `None` at the end.
    fn next(&mut self) -> Result<Option<(super::table::Row, Item)>> {
        let Some(row) = self.table.next()? else { return Ok(None) };
        if row.len() != self.table.header().len() {
            bail!("{}: {} fields, but the header has {}", row.place, row.len(), self.table.header().len());
        }
        let name = plain_name(row.get(self.file)?, &row.place)?;
        let split = match self.split {
            Some(i) => row.get(i)?.parse().map_err(|e| anyhow!("{}: {e}", row.place))?,
            None => Split::Train,
        };
        let face = Face::new(self.ids.unique(name, row.place.line), split);
        let item = Item::new(face, Origin::File(self.folder.join(name)), row.place.clone());
        Ok(Some((row, item)))
    }
}

fn list_votes(source: &Path, path: &Path, request: &Request) -> Result<Listing> {
    let mut listed = Listed::open(source, path)?;
    let header = listed.table.header().to_vec();
    let (mut class_columns, mut extra_columns) = (Vec::new(), Vec::new());
    for (i, name) in header.iter().enumerate().filter(|(i, _)| *i != listed.file && Some(*i) != listed.split) {
        let extra = EXTRA_COLUMNS.iter().any(|e| e.eq_ignore_ascii_case(name));
        if extra { extra_columns.push(i) } else { class_columns.push(i) }
    }
    let found: BTreeSet<String> = class_columns.iter().map(|&i| header[i].clone()).collect();
    if found.len() < 2 {
        bail!("{} line 1: {} class columns, expected at least two", listed.table.file(), found.len());
    }
    // Without --classes the file's own column order is the label order: the names say what each column is.
    let in_file: Vec<String> = class_columns.iter().map(|&i| header[i].clone()).collect();
    let numeric = found.iter().any(|n| n.parse::<u32>().is_ok());
    let order = request.classes.as_deref().or((!numeric).then_some(in_file.as_slice()));
    let place = format!("{} line 1", listed.table.file());
    let meaning = read_names(&found, order, &place)?;
    let names = names_in_order(&meaning, order);
    let column_of = |class: usize| class_columns.iter().copied().find(|&i| usize::from(meaning[&header[i]]) == class);
    let columns: Vec<Option<usize>> = (0..names.len()).map(column_of).chain(extra_columns.iter().copied().map(Some)).collect();
    let extra = extra_columns.iter().map(|&i| header[i].clone()).collect();
    let mut listing = Listing::new("folder", card(request, names, extra, request.rule.describe(), "votes.csv"));
    listing.sources.push(listed.table.file().to_string());
    let mut rows = Vec::new();
    while let Some((row, item)) = listed.next()? {
        let value = |column: &Option<usize>| column.map_or(Ok(0.0), |i| row.number::<f64>(i, "vote"));
        let votes: Vec<f64> = columns.iter().map(value).collect::<Result<_>>()?;
        if let Some(wrong) = votes.iter().find(|v| !(0.0..=1e6).contains(*v)) {
            bail!("{}: vote {wrong} is not between 0 and a million", row.place);
        }
        rows.push((votes, item));
    }
    let shares = rows.iter().flat_map(|r| &r.0).any(|v| v.fract() != 0.0);
    if shares {
        listing.card.source.push_str(", shares in thousandths");
    }
    let mut kept = 0;
    for (votes, mut item) in rows {
        let sum: f64 = votes.iter().sum();
        if shares && (sum - 1.0).abs() > 0.02 {
            bail!("{}: the vote shares add up to {sum:.3}; give counts in all rows, or shares that add up to 1", item.place);
        }
        item.face.votes = votes.iter().map(|v| if shares { (v * 1000.0).round() as u32 } else { *v as u32 }).collect();
        let classes = listing.card.classes.len();
        kept += usize::from(annotations::judge(&mut item, classes, request.rule, request.keep_ambiguous));
        listing.items.push(item);
    }
    if request.keep_ambiguous {
        listing.notes.push(format!("{kept} train faces that the rule leaves open are kept without a label (--keep-ambiguous)"));
    }
    not_empty(listing)
}

fn list_candidates(source: &Path, path: &Path, request: &Request) -> Result<Listing> {
    let mut listed = Listed::open(source, path)?;
    let (candidates, label) = (listed.table.column("candidates")?, listed.table.find("label"));
    let mut rows = Vec::new();
    let mut found = BTreeSet::new();
    while let Some((row, item)) = listed.next()? {
        let names: Vec<String> = row.get(candidates)?.split('|').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect();
        let given = label.map(|i| row.get(i)).transpose()?.filter(|l| !l.is_empty()).map(str::to_owned);
        if names.is_empty() && given.is_none() {
            bail!("{}: neither a candidate nor a label", row.place);
        }
        if given.is_none() && item.face.split != Split::Train {
            bail!("{}: a {} face without a label cannot be scored; add one in the `label` column", row.place, item.face.split);
        }
        found.extend(names.iter().chain(&given).cloned());
        rows.push((names, given, item));
    }
    let place = listed.table.file().to_string();
    if found.len() < 2 {
        bail!("{place}: {} class names, expected at least two", found.len());
    }
    let classes = request.classes.as_deref();
    let meaning = read_names(&found, classes, &place)?;
    let names = names_in_order(&meaning, classes);
    let mut listing = Listing::new("folder", card(request, names, Vec::new(), "candidates and labels as given", "candidates.csv"));
    listing.sources.push(place);
    let mut outside = 0;
    for (names, given, mut item) in rows {
        let set: BTreeSet<Class> = names.iter().map(|n| meaning[n]).collect();
        item.face.label = given.map(|g| meaning[&g]);
        outside += usize::from(item.face.label.is_some_and(|l| !set.is_empty() && !set.contains(&l)));
        item.face.candidates = set.into_iter().collect();
        listing.items.push(item);
    }
    if outside > 0 {
        listing.notes.push(format!("{outside} faces have a label that is not among their candidates"));
    }
    not_empty(listing)
}

fn not_empty(listing: Listing) -> Result<Listing> {
    if listing.items.is_empty() {
        bail!("{} lists no face", listing.sources.join(", "));
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn numbers_are_refused_with_two_readings_until_named() {
        let error = read_names(&set(&["0", "1", "2", "3", "4", "5", "6"]), None, "x").unwrap_err().to_string();
        assert!(error.contains("FER2013") && error.contains("AffectNet") && error.contains("--classes"), "{error}");
        let error = read_names(&set(&["1", "2", "3", "4", "5", "6", "7"]), None, "x").unwrap_err().to_string();
        assert!(error.contains("RAF-DB order is 1=surprise") && error.contains("FER2013"), "{error}");
        assert!(readings(0, 8).contains("FERPlus"));
        let named = read_names(&set(&["1", "2", "10"]), Some(&owned(&["a", "b", "c"])), "x");
        assert!(named.is_err(), "1, 2, 10 are not three numbers in a row");
        let named = read_names(&set(&["2", "1"]), Some(&owned(&["a", "b"])), "x").unwrap();
        assert_eq!((named["1"], named["2"]), (0, 1));
        assert!(read_names(&set(&["1", "happy"]), None, "x").is_err());
    }

    #[test]
    #[cfg(unix)]
    fn a_picture_with_an_odd_name_is_told_and_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        for class in ["glad", "sad"] {
            std::fs::create_dir(root.path().join(class)).unwrap();
            std::fs::write(root.path().join(class).join("a.png"), "").unwrap();
        }
        // As macOS leaves them.
        std::fs::write(root.path().join("sad/Icon\r"), "").unwrap();
        assert_eq!(list(root.path(), &Request::default()).unwrap().items.len(), 2);
        std::fs::write(root.path().join("sad/b\r.png"), "").unwrap();
        let said = crate::failure::one_line(&list(root.path(), &Request::default()).unwrap_err());
        assert!(said.contains("/sad: rename this picture: `b\\r.png` holds a control character"), "{said}");
    }

    #[test]
    fn names_follow_the_alphabet_or_the_given_order() {
        assert_eq!(read_names(&set(&["sad", "glad"]), None, "x").unwrap()["sad"], 1);
        assert_eq!(read_names(&set(&["sad", "glad"]), Some(&owned(&["Sad", "glad"])), "x").unwrap()["sad"], 0);
        assert!(read_names(&set(&["sad", "mad"]), Some(&owned(&["sad", "glad"])), "x").is_err());
    }
}
