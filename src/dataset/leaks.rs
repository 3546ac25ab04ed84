//! Pixel-identical faces that stand in two splits: what makes a score on held-out faces too good.
//!
//! Two pictures are the same if a hash of their size and all their pixels is. [`Copies`] counts hashes by split, for importers that have each
//! picture in hand. [`find`] looks through a pack: a glance at the middle of each picture says which may have a copy in another split, and
//! only those are read whole. A clean pack of any size costs one short read a face.

use super::{Pack, Pixels, Split};
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

const SPLITS: usize = Split::ALL.len();
/// Bytes of a picture that a glance reads: different photographs differ there but for flat ones.
const GLANCE: usize = 256;

/// Identifies a picture: hash of its size and pixels.
pub type Print = [u8; 16];

/// Copies between two splits (or within one): groups of faces whose pictures are equal in every pixel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    pub from: Split,
    pub to: Split,
    /// Rows of `from` with at least one copy in `to`.
    pub rows_from: usize,
    /// Rows of `to` with at least one copy in `from`.
    pub rows_to: usize,
    /// Pairs of one row each.
    pub pairs: usize,
}

/// How often each picture was seen in each split.
#[derive(Clone, Debug, Default)]
pub struct Copies(HashMap<Print, [u32; SPLITS]>);

impl Copies {
    pub fn see(&mut self, split: Split, print: Print) {
        self.0.entry(print).or_default()[split as usize] += 1;
    }

    /// Held-out splits against train first, then valid against test, then each split within itself; those without copies are left out.
    pub fn leaks(&self) -> Vec<Leak> {
        use Split::{Test, Train, Valid};
        let mut found = Vec::new();
        for (from, to) in [(Valid, Train), (Test, Train), (Test, Valid), (Train, Train), (Valid, Valid), (Test, Test)] {
            let mut leak = Leak { from, to, rows_from: 0, rows_to: 0, pairs: 0 };
            for group in self.0.values() {
                let (a, b) = (group[from as usize] as usize, group[to as usize] as usize);
                if from == to {
                    if a > 1 {
                        leak.rows_from += a;
                        leak.rows_to += a;
                        leak.pairs += a * (a - 1) / 2;
                    }
                } else if a > 0 && b > 0 {
                    leak.rows_from += a;
                    leak.rows_to += b;
                    leak.pairs += a * b;
                }
            }
            if leak.pairs > 0 {
                found.push(leak);
            }
        }
        found
    }
}

/// The hash of a picture's size and pixels.
pub fn print(pixels: &Pixels) -> Print {
    hashed([pixels.width, pixels.height, pixels.channels], &pixels.data)
}

fn hashed(size: [usize; 3], bytes: &[u8]) -> Print {
    let mut hash = Sha256::new();
    size.iter().for_each(|n| hash.update((*n as u64).to_le_bytes()));
    hash.update(bytes);
    let mut print = [0; 16];
    print.copy_from_slice(&hash.finalize()[..16]);
    print
}

/// Copies between the splits of a pack.
///
/// # Errors
/// If a picture cannot be read.
pub fn find(pack: &Pack) -> Result<Vec<Leak>> {
    let glances: Vec<Print> = (0..pack.faces().len()).into_par_iter().map(|i| glance(pack, i)).collect::<Result<_>>()?;
    let split = |i: usize| pack.faces()[i].split;
    // Which splits each glance was seen in, a bit each.
    let mut seen: HashMap<Print, u8> = HashMap::with_capacity(glances.len());
    glances.iter().enumerate().for_each(|(i, glance)| *seen.entry(*glance).or_default() |= 1 << split(i) as u8);
    let suspects: Vec<usize> = (0..glances.len()).filter(|&i| seen[&glances[i]].count_ones() > 1).collect();
    let prints: Vec<Print> = suspects.par_iter().map(|&i| Ok(print(&pack.pixels(i)?))).collect::<Result<_>>()?;
    let mut copies = Copies::default();
    suspects.iter().zip(prints).for_each(|(&i, print)| copies.see(split(i), print));
    Ok(copies.leaks().into_iter().filter(|leak| leak.from != leak.to).collect())
}

/// Equal for equal pictures; different for almost all others.
fn glance(pack: &Pack, i: usize) -> Result<Print> {
    let (width, height, channels) = pack.size(i);
    let bytes = width * height * channels;
    let start = bytes.saturating_sub(GLANCE) / 2;
    Ok(hashed([width, height, channels], &pack.pixels_at(i, start..(start + GLANCE).min(bytes))?))
}

/// What copies of held-out faces among the training faces mean, in words; none where there are none.
pub fn warning(leaks: &[Leak]) -> Option<String> {
    let training: Vec<&Leak> = leaks.iter().filter(|leak| leak.to == Split::Train && leak.from != Split::Train).collect();
    if training.is_empty() {
        return None;
    }
    let held_out: Vec<String> = training.iter().map(|leak| format!("{} {}", leak.rows_from, leak.from)).collect();
    let faces = if training.iter().map(|leak| leak.rows_from).sum::<usize>() == 1 { "face has a" } else { "faces have a" };
    Some(format!("{} {faces} pixel-identical copy among the training faces, so their scores are too good", held_out.join(" and ")))
}

/// How to be rid of them.
pub const REMEDY: &str = "import again with --drop-leaks, which leaves the training copies out";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Face, PackWriter, Protocol};

    #[test]
    fn copies_are_counted_by_rows_and_pairs() {
        let copies = Copies(HashMap::from([([0; 16], [2, 3, 0]), ([1; 16], [1, 0, 1]), ([2; 16], [1, 0, 0])]));
        let found = copies.leaks();
        let find = |from, to| found.iter().find(|l| (l.from, l.to) == (from, to)).map(|l| (l.rows_from, l.rows_to, l.pairs));
        assert_eq!(find(Split::Valid, Split::Train), Some((3, 2, 6)));
        assert_eq!(find(Split::Test, Split::Train), Some((1, 1, 1)));
        assert_eq!(find(Split::Test, Split::Valid), None);
        assert_eq!(find(Split::Train, Split::Train), Some((2, 2, 1)));
        let text = warning(&found).unwrap();
        assert!(text.starts_with("3 valid and 1 test faces have a pixel-identical copy"), "{text}");
        let own = Leak { from: Split::Train, to: Split::Train, rows_from: 2, rows_to: 2, pairs: 1 };
        assert_eq!(warning(&[own]), None);
    }

    /// Pictures that agree in their middle are not copies; pictures of other sizes are not; copies within a split are no leak.
    #[test]
    fn only_whole_pictures_in_two_splits_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        let (classes, rule, source) = (vec!["calm".into(), "glad".into()], "argmax".into(), "test".into());
        let card = Protocol { name: "two".into(), classes, extra_columns: Vec::new(), rule, source };
        let picture = |side: usize, first: u8| {
            let mut data = vec![7; side * side];
            data[0] = first;
            Pixels::new(side, side, 1, data)
        };
        let mut writer = PackWriter::create(&path, card).unwrap();
        let faces = [
            (Split::Train, picture(32, 1)),
            (Split::Train, picture(32, 1)),
            (Split::Valid, picture(32, 2)),
            (Split::Test, picture(32, 3)),
            (Split::Test, picture(33, 1)),
            (Split::Valid, picture(4, 9)),
            (Split::Test, picture(4, 9)),
            (Split::Test, picture(32, 1)),
        ];
        for (i, (split, pixels)) in faces.iter().enumerate() {
            writer.push(Face::new(format!("f{i}"), *split), pixels).unwrap();
        }
        writer.finish(serde_json::json!({})).unwrap();
        let found = find(&Pack::open(&path).unwrap()).unwrap();
        let leak = |from, to, rows_from, rows_to, pairs| Leak { from, to, rows_from, rows_to, pairs };
        assert_eq!(found, [leak(Split::Test, Split::Train, 1, 2, 2), leak(Split::Test, Split::Valid, 1, 1, 1)]);
    }
}
