//! The importer on the real FERPlus files, where they are: `$MOUE_FERPLUS`, or `../shared/data/ferplus` beside the checkout.
//!
//! Figures are those of the official rule on `label.csv`. Nothing here writes a face outside a temporary folder.

use moue::dataset::import::{self, Loader, Options, ferplus};
use moue::dataset::votes::Rule;
use moue::dataset::{Pack, Pixels, Split};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ferplus");
    let folder = std::env::var_os("MOUE_FERPLUS").map_or(beside, PathBuf::from);
    let found = folder.join("ferplus_train_valid.zip").is_file();
    if !found {
        println!("skipped: no ferplus_train_valid.zip in {} (set MOUE_FERPLUS)", folder.display());
    }
    found.then_some(folder)
}

#[test]
fn official_rule_gives_the_published_counts_and_finds_the_leak() {
    let Some(data) = data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("p.moue");
    let list = |keep| ferplus::list(&data.join("ferplus_train_valid.zip"), None, Rule::Majority, keep).unwrap();
    let imported = import::run(list(false), &Options::default(), &out).unwrap();
    println!("{imported}");
    assert_eq!([Split::Train, Split::Valid, Split::Test].map(|s| imported.total(s)), [25_045, 3_191, 0]);
    assert_eq!(imported.leak(Split::Valid, Split::Train).map(|l| l.rows_from), Some(279));
    let pack = Pack::open(&out).unwrap();
    assert_eq!((pack.faces().len(), pack.size(0)), (28_236, (48, 48, 1)));

    let options = Options { drop_leaks: true, ..Options::default() };
    let clean = import::run(list(true), &options, &out).unwrap();
    let between = clean.leaks_in_pack.iter().filter(|l| l.from != l.to).count();
    assert_eq!((clean.total(Split::Valid), between), (3_191, 0));
    assert_eq!(clean.leak(Split::Valid, Split::Train).map(|l| l.rows_from), Some(279));
    let open = Pack::open(&out).unwrap().faces().iter().filter(|f| f.label.is_none()).map(|f| f.split).collect::<Vec<_>>();
    assert!(!open.is_empty() && open.iter().all(|&s| s == Split::Train));
}

#[test]
fn argmax_gives_the_published_counts() {
    let Some(data) = data() else { return };
    let mut counts = BTreeMap::new();
    // Votes of all rows; the pixels of most of them are not here.
    let text = std::fs::read_to_string(data.join("fer2013new.csv")).unwrap();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let votes: Vec<u32> = fields[2..].iter().map(|v| v.parse().unwrap()).collect();
        if !fields[1].is_empty() {
            for (name, rule) in [("majority", Rule::Majority), ("argmax", Rule::Argmax)] {
                let labelled = moue::dataset::votes::decide(&votes, 8, rule).is_ok();
                *counts.entry((name, fields[0])).or_insert(0) += usize::from(labelled);
            }
        }
    }
    let of = |rule| ["Training", "PublicTest", "PrivateTest"].map(|usage| counts[&(rule, usage)]);
    assert_eq!(of("majority"), [25_060, 3_199, 3_153]);
    assert_eq!(of("argmax"), [28_389, 3_553, 3_546]);
}

#[test]
fn the_csv_join_agrees_with_the_pictures_in_the_zip() {
    let Some(data) = data() else { return };
    let csv = ferplus::list(&data.join("fer2013_head1167.csv.gz"), Some(&data.join("fer2013new.csv")), Rule::Majority, false).unwrap();
    let zip = ferplus::list(&data.join("ferplus_train_valid.zip"), None, Rule::Majority, false).unwrap();
    let by_name: HashMap<&str, usize> = zip.items.iter().enumerate().map(|(i, item)| (item.face.id.as_str(), i)).collect();
    let mut loader = Loader::new(zip.archive.clone());
    let (mut compared, mut votes_differ, mut absent, mut last) = (0, 0, 0, None);
    for item in &csv.items {
        let Some(&i) = by_name.get(item.face.id.as_str()) else {
            absent += 1;
            continue;
        };
        let mine: Pixels = Loader::new(None).source(item).unwrap();
        assert_eq!(mine, loader.source(&zip.items[i]).unwrap(), "{}: pixels differ", item.face.id);
        assert_eq!(item.face.split, zip.items[i].face.split);
        assert!(last < Some(i), "{}: out of order", item.face.id);
        last = Some(i);
        compared += 1;
        votes_differ += usize::from(item.face.votes != zip.items[i].face.votes);
    }
    println!("{compared} faces agree in every pixel, {absent} are not in the zip, {votes_differ} have other votes");
    assert!(compared > 1_100 && absent < 20, "{compared} compared, {absent} absent");
}
