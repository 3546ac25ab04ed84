//! FERPlus: ten annotators' votes for the faces of FER2013.
//!
//! Reads the folder layout (`FER2013Train/`, `FER2013Valid/`, `FER2013Test/`, each with a headerless `label.csv` and PNGs), a zip file of
//! it, or `fer2013.csv` joined by row order with `fer2013new.csv`. The number in a FERPlus picture name is not a row number, so names
//! are never used to join; rows whose `Usage` disagrees are refused.

use super::table::{Place, Row, Separator, Table, clip};
use super::{Ids, Item, Listing, Origin, must_exist, open_zip, plain_name, read_entry};
use crate::dataset::votes::{Rule, decide, usable};
use crate::dataset::{Face, Pixels, Protocol, Split};
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use std::io::Cursor;
use std::path::Path;

/// Classes in the order of the vote columns.
pub const CLASSES: [&str; 8] = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"];
/// Vote columns after the classes.
pub const EXTRA_COLUMNS: [&str; 2] = ["unknown", "NF"];
const COLUMNS: usize = CLASSES.len() + EXTRA_COLUMNS.len();
const FOLDERS: [(&str, Split); 3] = [("FER2013Train", Split::Train), ("FER2013Valid", Split::Valid), ("FER2013Test", Split::Test)];
/// Pixels a side of a `fer2013.csv` picture.
const SIDE: usize = 48;
const MAX_LABELS: u64 = 64 << 20;

/// Lists a FERPlus source; `votes` is `fer2013new.csv` where `source` is `fer2013.csv`.
///
/// # Errors
/// Names the file and line that is at fault, or what is missing in the source.
pub fn list(source: &Path, votes: Option<&Path>, rule: Rule, keep_ambiguous: bool) -> Result<Listing> {
    must_exist(source)?;
    let name = source.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_table = name.ends_with(".csv") || name.ends_with(".csv.gz");
    if votes.is_some() && !is_table {
        usage!("--votes goes with a fer2013.csv source; {} has its votes inside (label.csv)", source.display());
    }
    let from = if is_table { "fer2013.csv joined with fer2013new.csv" } else { "FERPlus label.csv" };
    let card = Protocol {
        name: "ferplus-8".into(),
        classes: CLASSES.map(String::from).into(),
        extra_columns: EXTRA_COLUMNS.map(String::from).into(),
        rule: rule.describe().into(),
        source: from.into(),
    };
    let mut listing = Listing::new("ferplus", card);
    if source.is_dir() {
        list_folder(&mut listing, source)?;
    } else if name.ends_with(".zip") {
        list_zip(&mut listing, source)?;
    } else if is_table {
        let Some(votes) = votes else {
            usage!("{} has pixels but no votes; give FERPlus's fer2013new.csv with --votes FILE", source.display())
        };
        list_table(&mut listing, source, votes)?;
    } else {
        usage!("{} is neither a folder, a .zip nor fer2013.csv(.gz)", source.display());
    }
    apply_rule(&mut listing, rule, keep_ambiguous);
    Ok(listing)
}

fn apply_rule(listing: &mut Listing, rule: Rule, keep_ambiguous: bool) {
    let mut kept = 0;
    for item in &mut listing.items {
        match decide(&item.face.votes, CLASSES.len(), rule) {
            Ok(class) => item.face.label = Some(class),
            Err(_) if keep_ambiguous && item.face.split == Split::Train && usable(&item.face.votes, CLASSES.len()) => kept += 1,
            Err(open) => item.drop = Some(open.reason()),
        }
    }
    if rule == Rule::Argmax {
        listing.notes.push("argmax: a tie goes to the column that comes first".into());
    }
    if keep_ambiguous {
        listing.notes.push(format!("{kept} train faces that the rule leaves open are kept without a label (--keep-ambiguous)"));
    }
}

fn list_folder(listing: &mut Listing, source: &Path) -> Result<()> {
    let mut ids = Ids::default();
    for (folder, split) in FOLDERS {
        let labels = source.join(folder).join("label.csv");
        if source.join(folder).is_dir() {
            let table = Table::open(&labels, Separator::Comma)?;
            list_labels(listing, &mut ids, table, split, |name| Origin::File(source.join(folder).join(name)))?;
        }
    }
    if listing.items.is_empty() && source.join("fer2013.csv").is_file() {
        usage!("{} has a fer2013.csv: name that file, and FERPlus's fer2013new.csv with --votes", source.display());
    }
    check_parts(listing, source)
}

fn list_zip(listing: &mut Listing, source: &Path) -> Result<()> {
    let mut zip = open_zip(source)?;
    let names: Vec<String> = zip.file_names().filter_map(|n| n.ok().map(|n| n.into_owned())).collect();
    let mut ids = Ids::default();
    for (folder, split) in FOLDERS {
        let wanted = format!("{folder}/label.csv");
        let mut found = names.iter().filter(|n| **n == wanted || n.ends_with(&format!("/{wanted}")));
        let Some(labels) = found.next() else { continue };
        if let Some(other) = found.next() {
            bail!("{} holds two label files, {labels} and {other}; import one of them", source.display());
        }
        let bytes = read_entry(&mut zip, labels, MAX_LABELS).with_context(|| source.display().to_string())?;
        let table = Table::new(&format!("{} {labels}", source.display()), Cursor::new(bytes), Separator::Comma);
        let prefix = labels.trim_end_matches("label.csv");
        list_labels(listing, &mut ids, table, split, |name| Origin::Zipped(format!("{prefix}{name}")))?;
    }
    listing.archive = Some(source.to_path_buf());
    check_parts(listing, source)
}

fn check_parts(listing: &mut Listing, source: &Path) -> Result<()> {
    if listing.items.is_empty() {
        bail!("{} has no FER2013Train/, FER2013Valid/ or FER2013Test/ with faces in label.csv", source.display());
    }
    for (folder, split) in FOLDERS {
        if listing.items.iter().all(|i| i.face.split != split) {
            listing.notes.push(format!("the source has no {folder}"));
        }
    }
    Ok(())
}

/// Rows such as `fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0`.
fn list_labels(listing: &mut Listing, ids: &mut Ids, mut table: Table, split: Split, origin: impl Fn(&str) -> Origin) -> Result<()> {
    listing.sources.push(table.file().to_string());
    while let Some(row) = table.next()? {
        if row.len() != COLUMNS + 2 {
            bail!(
                "{}: {} fields, expected {} (picture, face box, {COLUMNS} vote columns without a header)",
                row.place,
                row.len(),
                COLUMNS + 2
            );
        }
        let name = plain_name(row.get(0)?, &row.place)?;
        let mut face = Face::new(ids.unique(name, row.place.line), split);
        face.votes = read_votes(&row, 2)?;
        let mut item = Item::new(face, origin(name), row.place.clone());
        item.crop = Some(face_box(row.get(1)?, &row.place)?);
        listing.items.push(item);
    }
    Ok(())
}

fn read_votes(row: &Row, first: usize) -> Result<Vec<u32>> {
    (first..first + COLUMNS).map(|i| row.number(i, "vote count")).collect()
}

/// `(left, top, right, bottom)`; the published files have `(0, 0, 48, 48)` throughout.
fn face_box(text: &str, place: &Place) -> Result<[i64; 4]> {
    let wrong = || anyhow!("{place}: face box `{}` is not `(left, top, right, bottom)`", clip(text));
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(wrong)?;
    let numbers: Vec<i64> =
        inner.split(',').map(|n| n.trim().parse::<u16>().map(i64::from)).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let [left, top, right, bottom] = numbers.try_into().map_err(|_| wrong())?;
    Ok([left, top, right - left, bottom - top])
}

/// Joins `fer2013.csv` (`emotion,pixels,Usage`) and `fer2013new.csv` (`Usage,Image name,<10 votes>`) row by row.
fn list_table(listing: &mut Listing, pixels: &Path, votes: &Path) -> Result<()> {
    let mut faces = Table::open(pixels, Separator::Comma)?.with_header()?;
    let (pixels_at, usage_at) = (faces.column("pixels")?, faces.column("Usage")?);
    let mut counts = Table::open(votes, Separator::Comma)?.with_header()?;
    let (vote_usage, name_at) = (counts.column("Usage")?, counts.column("Image name")?);
    let first = counts.column(CLASSES[0])?;
    for (i, column) in CLASSES.iter().chain(&EXTRA_COLUMNS).enumerate() {
        if counts.column(column)? != first + i {
            bail!(
                "{} line 1: vote columns are not in FERPlus's order ({}, {})",
                counts.file(),
                CLASSES.join(", "),
                EXTRA_COLUMNS.join(", ")
            );
        }
    }
    listing.sources.extend([faces.file().to_string(), counts.file().to_string()]);
    let mut ids = Ids::default();
    while let Some(face_row) = faces.next()? {
        let Some(row) = counts.next()? else {
            bail!("{}: no vote row is left for this picture; {} is shorter and belongs to other data", face_row.place, counts.file());
        };
        let usage = face_row.get(usage_at)?;
        if usage != row.get(vote_usage)? {
            bail!(
                "{}: Usage is `{}` but `{}` in {}; the two files do not belong together",
                face_row.place,
                clip(usage),
                clip(row.get(vote_usage)?),
                row.place
            );
        }
        let split: Split = usage.parse().map_err(|e| anyhow!("{}: {e}", face_row.place))?;
        let name = row.get(name_at)?;
        if name.is_empty() {
            listing.count_dropped("no face: vote row without a picture name");
            continue;
        }
        let mut face = Face::new(ids.unique(plain_name(name, &row.place)?, row.place.line), split);
        face.votes = read_votes(&row, first)?;
        let picture = gray_pixels(face_row.get(pixels_at)?, &face_row.place)?;
        listing.items.push(Item::new(face, Origin::Raw(picture), face_row.place));
    }
    let mut unused = 0usize;
    while counts.next()?.is_some() {
        unused += 1;
    }
    if unused > 0 {
        listing.notes.push(format!("{} has {unused} rows more than {}: those faces are not imported", counts.file(), faces.file()));
    }
    Ok(())
}

fn gray_pixels(text: &str, place: &Place) -> Result<Pixels> {
    let mut data = Vec::with_capacity(SIDE * SIDE);
    for value in text.split_ascii_whitespace() {
        data.push(value.parse::<u8>().map_err(|_| anyhow!("{place}: pixel value `{}` is not 0 to 255", clip(value)))?);
    }
    if data.len() != SIDE * SIDE {
        bail!("{place}: {} pixel values, expected {SIDE} x {SIDE} = {}", data.len(), SIDE * SIDE);
    }
    Ok(Pixels::new(SIDE, SIDE, 1, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { file: "label.csv".into(), line: 7 }
    }

    #[test]
    fn face_boxes_are_corners() {
        assert_eq!(face_box("(0, 0, 48, 48)", &place()).unwrap(), [0, 0, 48, 48]);
        assert_eq!(face_box("(2,3,48,40)", &place()).unwrap(), [2, 3, 46, 37]);
        for wrong in ["", "(1,2,3)", "0, 0, 48, 48", "(a, 0, 48, 48)", "(-1, 0, 48, 48)"] {
            assert!(face_box(wrong, &place()).unwrap_err().to_string().starts_with("label.csv line 7: face box"));
        }
    }

    #[test]
    fn pixel_rows_have_exactly_48_by_48_bytes() {
        let row = "7 ".repeat(SIDE * SIDE);
        assert_eq!(gray_pixels(&row, &place()).unwrap(), Pixels::new(48, 48, 1, vec![7; 2304]));
        assert!(gray_pixels("7 7 7", &place()).is_err());
        assert!(gray_pixels(&row.replacen('7', "256", 1), &place()).is_err());
    }
}
