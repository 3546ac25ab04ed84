//! AffectNet, manually annotated part: the older csv layout and the newer `.npy` layout.
//!
//! Ids 0 to 7 are neutral, happiness, sadness, surprise, fear, disgust, anger, contempt; 8 (none), 9 (uncertain) and 10 (no face) are
//! dropped and counted. The published validation set serves as the test set in all comparisons, so it is imported as test.

use super::table::{Place, Row, Separator, Table, clip};
use super::{Ids, Item, Listing, Origin, fit_for_id, must_exist, npy, plain_name};
use crate::dataset::{Class, Face, Protocol, Split};
use crate::usage;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// Classes in the order of the ids 0 to 7; `--classes 7` leaves out the last.
pub const CLASSES: [&str; 8] = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"];
const OTHERS: [&str; 3] = ["none", "uncertain", "no face"];

/// Lists an AffectNet folder of either layout with 7 or 8 `classes`; `images` is the picture folder of the csv layout.
///
/// # Errors
/// Names the file and line that is at fault, or what is missing in the folder.
pub fn list(source: &Path, images: Option<&Path>, classes: usize) -> Result<Listing> {
    must_exist(source)?;
    if classes != 7 && classes != 8 {
        usage!("--classes {classes}: AffectNet is used with 7 or 8 classes");
    }
    let is_npy = source.join("train_set").is_dir() || source.join("val_set").is_dir();
    let layout = if is_npy { "npy annotations" } else { "training.csv, validation.csv" };
    let card = Protocol {
        name: format!("affectnet-{classes}"),
        classes: CLASSES[..classes].iter().map(|c| c.to_string()).collect(),
        extra_columns: Vec::new(),
        rule: format!("AffectNet expression ids 0 to {}; other ids dropped; validation set used as test", classes - 1),
        source: format!("AffectNet {layout}"),
    };
    let mut listing = Listing::new("affectnet", card);
    if is_npy {
        if images.is_some() {
            usage!("--images is for the csv layout; {} has the npy layout", source.display());
        }
        list_npy(&mut listing, source)?;
    } else {
        list_csv(&mut listing, source, images)?;
    }
    if listing.items.is_empty() {
        bail!("{}: no face of the {classes} classes", source.display());
    }
    listing.notes.push("AffectNet's validation set is imported as test, by the convention of published results".into());
    Ok(listing)
}

/// The label of an expression id, or `None` after counting why it is outside the card.
fn label_of(listing: &mut Listing, id: f64, place: &Place) -> Result<Option<Class>> {
    if id.fract() != 0.0 || !(0.0..=10.0).contains(&id) {
        bail!("{place}: expression {id} is not one of AffectNet's ids 0 to 10");
    }
    let id = id as usize;
    if id < listing.card.classes.len() {
        return Ok(Some(id as Class));
    }
    let name = CLASSES.iter().chain(&OTHERS).nth(id).unwrap_or(&"other");
    listing.count_dropped(format!("expression {id} ({name}) is outside the card"));
    Ok(None)
}

fn list_csv(listing: &mut Listing, source: &Path, images: Option<&Path>) -> Result<()> {
    let files: Vec<_> = [("training.csv", Split::Train), ("validation.csv", Split::Test)]
        .into_iter()
        .map(|(name, split)| (source.join(name), split))
        .filter(|(path, _)| path.is_file())
        .collect();
    if files.is_empty() {
        usage!("{} has neither training.csv nor validation.csv nor train_set/ nor val_set/", source.display());
    }
    let folder = match images {
        Some(folder) => {
            must_exist(folder)?;
            folder.to_path_buf()
        }
        None => ["Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "images"]
            .map(|f| source.join(f))
            .into_iter()
            .find(|f| f.is_dir())
            .unwrap_or_else(|| source.to_path_buf()),
    };
    let mut ids = Ids::default();
    for (path, split) in files {
        let mut table = Table::open(&path, Separator::Comma)?.with_header()?;
        listing.sources.push(table.file().to_string());
        let (file, expression) = (table.column("subDirectory_filePath")?, table.column("expression")?);
        let face_box = ["face_x", "face_y", "face_width", "face_height"].map(|c| table.column(c));
        let [x, y, width, height] = face_box;
        let face_box = [x?, y?, width?, height?];
        let landmarks = table.column("facial_landmarks")?;
        while let Some(row) = table.next()? {
            let Some(label) = label_of(listing, row.number(expression, "expression")?, &row.place)? else { continue };
            let name = plain_name(row.get(file)?, &row.place)?;
            let mut face = Face::new(ids.unique(name, row.place.line), split);
            face.label = Some(label);
            face.landmarks = landmarks_of(&row, landmarks)?;
            let mut item = Item::new(face, Origin::File(folder.join(name)), row.place.clone());
            let mut region = [0; 4];
            for (value, column) in region.iter_mut().zip(face_box) {
                *value = row.number::<i32>(column, "face box")?.into();
            }
            if region[2] <= 0 || region[3] <= 0 {
                bail!("{}: a face box of {} x {} pixels", row.place, region[2], region[3]);
            }
            item.crop = Some(region);
            listing.items.push(item);
        }
    }
    Ok(())
}

/// `x;y;x;y...`: 68 points.
fn landmarks_of(row: &Row, column: usize) -> Result<Vec<[f32; 2]>> {
    let text = row.get(column)?;
    let values = text.split(';').map(|v| v.trim().parse().map_err(|_| anyhow!("{}: landmark `{}` is no number", row.place, clip(v))));
    points(&values.collect::<Result<Vec<f64>>>()?).with_context(|| row.place.to_string())
}

fn points(values: &[f64]) -> Result<Vec<[f32; 2]>> {
    if values.len() != 136 || values.iter().any(|v| !v.is_finite()) {
        bail!("{} landmark values, expected 68 points (136 numbers)", values.len());
    }
    Ok(values.chunks_exact(2).map(|p| [p[0] as f32, p[1] as f32]).collect())
}

fn list_npy(listing: &mut Listing, source: &Path) -> Result<()> {
    for (set, split) in [("train_set", Split::Train), ("val_set", Split::Test)] {
        let (images, annotations) = (source.join(set).join("images"), source.join(set).join("annotations"));
        if !source.join(set).is_dir() {
            listing.notes.push(format!("the source has no {set}"));
            continue;
        }
        listing.sources.push(annotations.display().to_string());
        for (_, name, image) in numbered_pictures(&images)? {
            let path = annotations.join(format!("{name}_exp.npy"));
            let place = Place { file: path.display().to_string().into(), line: 0 };
            let id = match npy::numbers(&path)?[..] {
                [id] => id,
                ref values => bail!("{place}: {} values, expected one expression id", values.len()),
            };
            let Some(label) = label_of(listing, id, &place)? else { continue };
            let mut face = Face::new(format!("{set}/{name}"), split);
            face.label = Some(label);
            let path = annotations.join(format!("{name}_lnd.npy"));
            if path.is_file() {
                face.landmarks = points(&npy::numbers(&path)?).with_context(|| path.display().to_string())?;
            }
            listing.items.push(Item::new(face, Origin::File(image), place));
        }
    }
    Ok(())
}

/// The pictures of a folder in the order of their numbers; names that are no numbers come last, by name.
fn numbered_pictures(folder: &Path) -> Result<Vec<(u64, String, PathBuf)>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read folder {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read folder {}", folder.display()))?.path();
        let (Some(stem), Some(ending)) = (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|s| s.to_str())) else {
            continue;
        };
        if crate::dataset::picture::EXTENSIONS.contains(&ending.to_ascii_lowercase().as_str()) {
            let stem = fit_for_id(stem, folder.display())?;
            found.push((stem.parse().unwrap_or(u64::MAX), stem.to_owned(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_picture_with_an_odd_name_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1.png"), "").unwrap();
        assert_eq!(numbered_pictures(folder.path()).unwrap().len(), 1);
        std::fs::write(folder.path().join("2\u{1b}.png"), "").unwrap();
        let said = format!("{:#}", numbered_pictures(folder.path()).unwrap_err());
        assert!(said.contains("rename this picture: `2\\u{1b}`"), "{said}");
    }

    #[test]
    fn ids_outside_the_card_are_counted_and_others_refused() {
        let card = Protocol {
            name: "a".into(),
            classes: CLASSES[..7].iter().map(|c| c.to_string()).collect(),
            extra_columns: vec![],
            rule: "".into(),
            source: "".into(),
        };
        let mut listing = Listing::new("affectnet", card);
        let place = Place { file: "t.csv".into(), line: 2 };
        assert_eq!(label_of(&mut listing, 6.0, &place).unwrap(), Some(6));
        assert_eq!(label_of(&mut listing, 7.0, &place).unwrap(), None);
        assert_eq!(label_of(&mut listing, 10.0, &place).unwrap(), None);
        assert!(listing.dropped.keys().any(|k| k.contains("7 (contempt)")) && listing.dropped.keys().any(|k| k.contains("10 (no face)")));
        for wrong in [-1.0, 11.0, 1.5, f64::NAN] {
            assert!(label_of(&mut listing, wrong, &place).is_err());
        }
    }
}
