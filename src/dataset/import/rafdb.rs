//! RAF-DB, basic emotions: one label a face, optionally the annotators' distribution over the seven classes and manual landmarks.
//!
//! The files number the classes 1 to 7 as surprise, fear, disgust, happiness, sadness, anger, neutral; any other number is refused.
//! RAF-DB has no valid split: take a share of train.

use super::table::{Place, Separator, Table, clip};
use super::{Item, Listing, Origin, must_exist, plain_name};
use crate::dataset::{Class, Face, Protocol, Split};
use crate::usage;
use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Classes in the order of the file ids 1 to 7.
pub const CLASSES: [&str; 7] = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"];
/// Faces in the published list, by class: train, test.
const PUBLISHED: [(usize, usize); 7] = [(1290, 329), (281, 74), (717, 160), (4772, 1185), (1982, 478), (705, 162), (2524, 680)];

/// Which pictures to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Pictures {
    /// `Image/aligned/train_00001_aligned.jpg`, 100 x 100 pixels
    #[default]
    Aligned,
    /// `Image/original/train_00001.jpg`, with the manual landmarks
    Original,
}

/// Lists the RAF-DB folder that contains `EmoLabel/` and `Image/`.
///
/// # Errors
/// Names the file and line that is at fault, or what is missing in the folder.
pub fn list(source: &Path, pictures: Pictures, distribution: Option<&Path>) -> Result<Listing> {
    must_exist(source)?;
    let labels = first_file(source, &["EmoLabel/list_patition_label.txt", "list_patition_label.txt"])?;
    let folder = match pictures {
        Pictures::Aligned => first_folder(source, &["Image/aligned", "aligned"])?,
        Pictures::Original => first_folder(source, &["Image/original", "original"])?,
    };
    let landmarks = ["Annotation/manual", "manual"].map(|f| source.join(f)).into_iter().find(|f| f.is_dir());
    let mut card = Protocol {
        name: "rafdb-7".into(),
        classes: CLASSES.map(String::from).into(),
        extra_columns: Vec::new(),
        rule: "label of list_patition_label.txt, ids 1 to 7".into(),
        source: "RAF-DB basic, list_patition_label.txt".into(),
    };
    let shares = match distribution {
        Some(path) => {
            card.source.push_str(" with the annotators' distribution in thousandths");
            Some(read_distribution(path)?)
        }
        None => None,
    };
    let mut listing = Listing::new("rafdb", card);
    let mut table = Table::open(&labels, Separator::Blank)?;
    listing.sources.push(table.file().to_string());
    listing.sources.extend(distribution.map(|p| p.display().to_string()));
    let (mut counts, mut missing, mut disagree) = ([(0, 0); 7], 0, 0);
    let mut seen = std::collections::HashSet::new();
    while let Some(row) = table.next()? {
        if row.len() != 2 {
            bail!("{}: {} fields, expected `train_00001.jpg 5`", row.place, row.len());
        }
        let name = plain_name(row.get(0)?, &row.place)?;
        let split = split_of(name, &row.place)?;
        let id: usize = row.number(1, "class id")?;
        if !(1..=7).contains(&id) {
            bail!("{}: class id {id} is not 1 to 7 (1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral)", row.place);
        }
        if !seen.insert(name.to_owned()) {
            bail!("{}: {name} is listed twice", row.place);
        }
        match split {
            Split::Test => counts[id - 1].1 += 1,
            _ => counts[id - 1].0 += 1,
        }
        let stem = stem(name);
        let file = match pictures {
            Pictures::Aligned => folder.join(format!("{stem}_aligned.jpg")),
            Pictures::Original => folder.join(name),
        };
        let mut face = Face::new(name, split);
        face.label = Some((id - 1) as Class);
        if let Some(shares) = &shares {
            match shares.get(stem) {
                Some(votes) => {
                    let most = votes.iter().max();
                    disagree += usize::from(Some(&votes[id - 1]) != most);
                    face.votes = votes.to_vec();
                }
                None => missing += 1,
            }
        }
        // The manual landmarks belong to the original pictures; on the aligned ones they would lie anywhere.
        if pictures == Pictures::Original
            && let Some(folder) = &landmarks
        {
            face.landmarks = read_landmarks(&folder.join(format!("{stem}_manu_attri.txt")))?;
        }
        listing.items.push(Item::new(face, Origin::File(file), row.place.clone()));
    }
    if listing.items.is_empty() {
        bail!("{} lists no face", labels.display());
    }
    if counts != PUBLISHED {
        listing.notes.push("the counts differ from the published list (12,271 train, 3,068 test)".into());
    }
    if pictures == Pictures::Original && landmarks.is_none() {
        listing.notes.push("no Annotation/manual folder: faces have no landmarks".into());
    }
    if missing > 0 {
        listing.notes.push(format!("{missing} faces have no line in the distribution file: no votes"));
    }
    if disagree > 0 {
        listing.notes.push(format!("{disagree} faces have a label that is not the most voted class of the distribution file"));
    }
    Ok(listing)
}

fn first_file(source: &Path, names: &[&str]) -> Result<PathBuf> {
    match names.iter().map(|n| source.join(n)).find(|p| p.is_file()) {
        Some(path) => Ok(path),
        None => usage!("{} has no {}; give the RAF-DB `basic` folder", source.display(), names[0]),
    }
}

fn first_folder(source: &Path, names: &[&str]) -> Result<PathBuf> {
    match names.iter().map(|n| source.join(n)).find(|p| p.is_dir()) {
        Some(path) => Ok(path),
        None => usage!("{} has no {}/; unpack it there or choose the other pictures with --pictures", source.display(), names[0]),
    }
}

fn split_of(name: &str, place: &Place) -> Result<Split> {
    match name.split('_').next() {
        Some("train") => Ok(Split::Train),
        Some("test") => Ok(Split::Test),
        _ => bail!("{place}: `{}` begins neither with train_ nor with test_", clip(name)),
    }
}

/// `train_00001` of `train_00001.jpg` and of `train_00001_aligned.jpg`.
fn stem(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.strip_suffix("_aligned").unwrap_or(stem)
}

/// Lines `name p1 ... p7`, probabilities in file-id order, as votes in thousandths by picture stem.
fn read_distribution(path: &Path) -> Result<HashMap<String, [u32; 7]>> {
    let mut table = Table::open(path, Separator::Blank)?;
    let mut all = HashMap::new();
    while let Some(row) = table.next()? {
        if row.len() != 8 {
            bail!("{}: {} fields, expected a name and 7 probabilities", row.place, row.len());
        }
        let mut shares = [0.0f64; 7];
        for (i, share) in shares.iter_mut().enumerate() {
            *share = row.number(i + 1, "probability")?;
        }
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|p| !(0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 0.02 {
            bail!("{}: the probabilities add up to {sum:.3}, expected 7 numbers from 0 to 1 that add up to 1", row.place);
        }
        let votes = shares.map(|p| (1000.0 * p).round() as u32);
        if all.insert(stem(row.get(0)?).to_owned(), votes).is_some() {
            bail!("{}: {} has two lines", row.place, clip(row.get(0)?));
        }
    }
    Ok(all)
}

/// The first five lines are `x y`: eyes, nose, mouth corners.
fn read_landmarks(path: &Path) -> Result<Vec<[f32; 2]>> {
    let mut table = Table::open(path, Separator::Blank)?;
    let mut points = Vec::new();
    while points.len() < 5 {
        let Some(row) = table.next()? else { bail!("{}: {} landmarks, expected 5 lines `x y`", path.display(), points.len()) };
        let point: [f32; 2] = [row.number(0, "landmark")?, row.number(1, "landmark")?];
        if row.len() != 2 || point.iter().any(|v| !v.is_finite()) {
            return Err(anyhow!("{}: expected a landmark `x y`", row.place));
        }
        points.push(point);
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(stem("train_00001.jpg"), "train_00001");
        assert_eq!(stem("test_0001_aligned.jpg"), "test_0001");
        let place = Place { file: "l.txt".into(), line: 1 };
        assert_eq!(split_of("test_0001.jpg", &place).unwrap(), Split::Test);
        assert!(split_of("valid_1.jpg", &place).is_err());
    }

    #[test]
    fn the_published_counts_add_up() {
        let sum = PUBLISHED.iter().fold((0, 0), |s, c| (s.0 + c.0, s.1 + c.1));
        assert_eq!(sum, (12_271, 3_068));
    }
}
