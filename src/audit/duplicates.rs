//! Faces that stand in the data more than once under different labels.
//!
//! Two pictures are copies if their pixels are the same, or nearly: 128-bit difference hashes (horizontal and vertical neighbours of a 9 x 9
//! miniature, as dHash compares them) that differ in at most [`NEAR`] bits propose a pair, and the correlation of their [`SIDE`]-pixel
//! miniatures decides. Aligned faces look alike and one person's expressions more so, hence the strict second look: what passes is the
//! same photograph, scaled, compressed or brightened.
//!
//! Hashes are compared only where they agree in one of [`BANDS`] bands of 16 bits. Of eight bands, seven differing bits leave one
//! untouched, so no pair is missed; 300,000 faces take seconds instead of the 45 billion comparisons of all pairs.

use crate::dataset::{Class, Pack, Pixels, Split, leaks};
use anyhow::Result;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Bits that two hashes may differ in.
const NEAR: u32 = 7;
const BANDS: usize = 8;
/// Side of the miniatures that are correlated.
const SIDE: usize = 24;
/// Least correlation of two miniatures of the same photograph.
const SAME: f64 = 0.995;
/// Miniature cells along a side of the hash.
const GRID: usize = 9;

/// A picture reduced to what is compared.
struct Print {
    exact: leaks::Print,
    near: u128,
}

/// Faces that are copies of one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub faces: Vec<Copy>,
    /// Whether all are pixel-identical.
    pub exact: bool,
}

/// One face of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    pub id: String,
    pub split: Split,
    pub label: Option<Class>,
}

/// What was found among all faces of a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Groups of copies, whatever their labels.
    pub groups: usize,
    /// Those that stand under more than one label, in pack order.
    pub disputed: Vec<Group>,
}

/// Looks at every picture of the pack.
///
/// # Errors
/// If a picture cannot be read.
pub fn find(pack: &Pack) -> Result<Duplicates> {
    let faces = pack.faces().len();
    let prints: Vec<Print> = (0..faces).into_par_iter().map(|i| Ok(print(&pack.pixels(i)?))).collect::<Result<_>>()?;
    let mut sets = Sets::new(faces);
    let mut first: HashMap<leaks::Print, usize> = HashMap::with_capacity(faces);
    let mut distinct = Vec::new();
    for (i, p) in prints.iter().enumerate() {
        match first.get(&p.exact) {
            Some(&other) => sets.join(i, other),
            None => {
                first.insert(p.exact, i);
                distinct.push(i);
            }
        }
    }
    for (a, b) in near(&distinct, &prints) {
        if sets.root(a) != sets.root(b) && correlation(&miniature(&pack.pixels(a)?, SIDE), &miniature(&pack.pixels(b)?, SIDE)) >= SAME {
            sets.join(a, b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..faces).for_each(|i| groups.entry(sets.root(i)).or_default().push(i));
    groups.retain(|_, members| members.len() > 1);
    let disputed = groups.values().filter(|members| {
        let mut labels = members.iter().filter_map(|&i| pack.faces()[i].label);
        labels.next().is_some_and(|first| labels.any(|label| label != first))
    });
    let copy = |&i: &usize| {
        let face = &pack.faces()[i];
        Copy { id: face.id.clone(), split: face.split, label: face.label }
    };
    let group = |members: &Vec<usize>| Group {
        exact: members.iter().all(|&i| prints[i].exact == prints[members[0]].exact),
        faces: members.iter().map(copy).collect(),
    };
    Ok(Duplicates { disputed: disputed.map(group).collect(), groups: groups.len() })
}

/// Pairs of positions whose hashes differ in at most [`NEAR`] bits, in order.
fn near(distinct: &[usize], prints: &[Print]) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = (0..BANDS)
        .into_par_iter()
        .flat_map_iter(|band| {
            let key = |i: usize| (prints[i].near >> (16 * band)) as u16;
            let mut order = distinct.to_vec();
            order.sort_by_key(|&i| (key(i), i));
            let mut found = Vec::new();
            for bucket in order.chunk_by(|&a, &b| key(a) == key(b)) {
                for (n, &a) in bucket.iter().enumerate() {
                    let close = |&&b: &&usize| (prints[a].near ^ prints[b].near).count_ones() <= NEAR;
                    found.extend(bucket[n + 1..].iter().filter(close).map(|&b| (a, b)));
                }
            }
            found
        })
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn print(pixels: &Pixels) -> Print {
    Print { exact: leaks::print(pixels), near: hash(&miniature(pixels, GRID)) }
}

/// One bit for each pair of neighbours: whether the left, or the upper one is brighter.
fn hash(grid: &[f32]) -> u128 {
    let at = |x: usize, y: usize| grid[y * GRID + x];
    let mut bits = 0u128;
    for (y, x) in (0..GRID - 1).flat_map(|y| (0..GRID - 1).map(move |x| (y, x))) {
        bits = bits << 2 | u128::from(at(x, y) > at(x + 1, y)) << 1 | u128::from(at(x, y) > at(x, y + 1));
    }
    bits
}

/// The picture's brightness on `side` x `side` cells, each the mean of the pixels in it; `[side, side]`.
fn miniature(pixels: &Pixels, side: usize) -> Vec<f32> {
    let (w, h, c) = (pixels.width, pixels.height, pixels.channels);
    // The cell of each column; a picture smaller than the grid repeats its pixels.
    let span = |cell: usize, n: usize| {
        let start = (cell * n / side).min(n - 1);
        start..((cell + 1) * n / side).clamp(start + 1, n)
    };
    let mut cells = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let (rows, columns) = (span(y, h), span(x, w));
            let count = rows.len() * columns.len() * c;
            let row =
                |v: usize| pixels.data[(v * w + columns.start) * c..(v * w + columns.end) * c].iter().map(|&p| u64::from(p)).sum::<u64>();
            cells.push(rows.map(row).sum::<u64>() as f32 / count as f32);
        }
    }
    cells
}

/// Pearson's correlation; of two flat pictures 1, of a flat and another one 0.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len() as f64;
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x) - ma, f64::from(y) - mb);
        (ab, aa, bb) = (ab + x * y, aa + x * x, bb + y * y);
    }
    if aa == 0.0 || bb == 0.0 { f64::from(u8::from(aa == bb)) } else { ab / (aa * bb).sqrt() }
}

/// Disjoint sets of positions.
struct Sets(Vec<usize>);

impl Sets {
    fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    /// The lowest position in the set of `i`.
    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::generated::{GeneratorConfig, generate, protocol};
    use crate::dataset::{Face, PackWriter};
    use crate::random::{RngExt, Streams};

    type Change = fn(&Pixels) -> Pixels;

    /// Generated faces, and after them altered copies of the first ones under labels of their own.
    fn pack(folder: &std::path::Path, copies: &[(usize, Class, Change)]) -> Pack {
        let config = GeneratorConfig { train: 400, valid: 0, test: 0, size: 48, ..Default::default() };
        let path = folder.join("f.moue");
        let mut writer = PackWriter::create(&path, protocol()).unwrap();
        generate(&config, &mut writer).unwrap();
        writer.finish(serde_json::json!({})).unwrap();
        let plain = Pack::open(&path).unwrap();
        let path = folder.join("g.moue");
        let mut writer = PackWriter::create(&path, protocol()).unwrap();
        for (i, face) in plain.faces().iter().enumerate() {
            writer.push(face.clone(), &plain.pixels(i).unwrap()).unwrap();
        }
        for (n, (of, label, change)) in copies.iter().enumerate() {
            let face = Face { label: Some(*label), ..Face::new(format!("copy-{n}"), Split::Test) };
            writer.push(face, &change(&plain.pixels(*of).unwrap())).unwrap();
        }
        writer.finish(serde_json::json!({})).unwrap();
        Pack::open(&path).unwrap()
    }

    fn brighter(p: &Pixels) -> Pixels {
        Pixels::new(p.width, p.height, 1, p.data.iter().map(|&v| (f32::from(v) * 0.8 + 30.0) as u8).collect())
    }

    fn noisy(p: &Pixels) -> Pixels {
        let mut rng = Streams::new(1).at("noise", &[]);
        let change = |&v: &u8| (f32::from(v) + 6.0 * (rng.random::<f32>() - 0.5)).clamp(0.0, 255.0) as u8;
        Pixels::new(p.width, p.height, 1, p.data.iter().map(change).collect())
    }

    fn doubled(p: &Pixels) -> Pixels {
        let (w, h) = (2 * p.width, 2 * p.height);
        let at = |i: usize| p.data[(i / w / 2) * p.width + (i % w) / 2];
        Pixels::new(w, h, 1, (0..w * h).map(at).collect())
    }

    #[test]
    fn copies_under_other_labels_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(&pack(folder.path(), &[])).unwrap(), Duplicates::default());
        let clean = pack(folder.path(), &[]);
        let other = |i: usize| (clean.faces()[i].label.unwrap() + 1) % 8;
        let own = clean.faces()[9].label.unwrap();
        let copies: [(usize, Class, Change); 5] =
            [(3, other(3), Pixels::clone), (5, other(5), brighter), (6, other(6), noisy), (7, other(7), doubled), (9, own, Pixels::clone)];
        let pack = pack(folder.path(), &copies);
        let found = find(&pack).unwrap();
        assert_eq!((found.groups, found.disputed.len()), (5, 4));
        for (group, (of, label, _)) in found.disputed.iter().zip(copies) {
            let faces: Vec<(&str, Option<Class>)> = group.faces.iter().map(|f| (f.id.as_str(), f.label)).collect();
            let original = &pack.faces()[of];
            assert_eq!((faces[0], faces[1].1), ((original.id.as_str(), original.label), Some(label)));
            assert_eq!(group.exact, of == 3);
        }
    }

    #[test]
    fn pictures_of_any_size_have_a_miniature() {
        for (w, h) in [(1, 1), (3, 50), (9, 9), (24, 23), (1000, 2)] {
            let p = Pixels::new(w, h, 3, (0..w * h * 3).map(|i| i as u8).collect());
            assert!(miniature(&p, SIDE).iter().all(|v| (0.0..=255.0).contains(v)));
        }
        let flat = miniature(&Pixels::new(5, 5, 1, vec![9; 25]), SIDE);
        assert!(flat.iter().all(|v| *v == 9.0));
        assert_eq!(correlation(&flat, &flat), 1.0);
        assert_eq!(correlation(&flat, &(0..576).map(|i| i as f32).collect::<Vec<_>>()), 0.0);
    }

    /// The bands miss no pair that the comparison of all pairs finds.
    #[test]
    fn no_near_pair_is_missed() {
        let mut rng = Streams::new(3).at("bits", &[]);
        let mut prints: Vec<Print> = Vec::new();
        for i in 0..200u64 {
            let near = (0..8).fold(0u128, |h, _| h << 16 | u128::from(rng.random_range(0..1u32 << 16)));
            prints.push(Print { exact: u128::from(2 * i).to_le_bytes(), near });
            let flips = rng.random_range(0..12);
            let changed = (0..flips).fold(near, |h, _| h ^ 1 << rng.random_range(0..128));
            prints.push(Print { exact: u128::from(2 * i + 1).to_le_bytes(), near: changed });
        }
        let all: Vec<usize> = (0..prints.len()).collect();
        let close = |&(a, b): &(usize, usize)| (prints[a].near ^ prints[b].near).count_ones() <= NEAR;
        let expected: Vec<(usize, usize)> = all.iter().flat_map(|&a| (a + 1..prints.len()).map(move |b| (a, b))).filter(close).collect();
        assert!(expected.len() > 80);
        assert_eq!(near(&all, &prints), expected);
    }
}
