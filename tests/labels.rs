//! `moue labels` with the strategies that predict, as a user runs it, on a network so small that training takes seconds.

#![cfg(feature = "train")]

mod bench;

use bench::Bench;
use moue::dataset::{Face, Pack, PackWriter, Split};
use moue::run::{Body, HistoryReader, Manifest, Outcome, RunFolder, Stage};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const TINY: &[&str] = &[
    "data.size=32",
    "data.channels=1",
    "vit.dim=16",
    "vit.heads=2",
    "vit.depth=1",
    "decoder.heads=2",
    "decoder.layers=1",
    "finetune.epochs=2",
    "finetune.batch=16",
    "finetune.lr=3e-3",
    "finetune.warmup=0",
    "labels.fold_epochs=3",
    "run.threads=2",
    "run.log_every=1",
];

/// What the tests of labels do beside.
impl Bench {
    /// Runs a command that must be refused as bad usage.
    fn misused(&self, args: &[&str], parts: &[&str]) {
        self.refused(args, 2, parts);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes the faces of `f.moue` to another pack, each changed.
    fn changed(&self, name: &str, change: impl Fn(usize, &mut Face)) {
        let pack = Pack::open(&self.path("f.moue")).unwrap();
        let mut writer = PackWriter::create(&self.path(name), pack.protocol().clone()).unwrap();
        for (i, face) in pack.faces().iter().enumerate() {
            let mut face = face.clone();
            change(i, &mut face);
            writer.push(face, &pack.pixels(i).unwrap()).unwrap();
        }
        writer.finish(serde_json::json!({})).unwrap();
    }
}

/// `moue labels` on the tiny network; later settings win.
fn labels<'a>(words: &[&'a str], settings: &[&'a str]) -> Vec<&'a str> {
    let set = TINY.iter().chain(settings).flat_map(|&s| ["--set", s]);
    ["labels"].iter().chain(words).copied().chain(["--device", "cpu", "--no-tui"]).chain(set).collect()
}

/// Rows of a csv as `[id, given, candidates, ambiguous, provenance, kappa, predicted, probability]`.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(header, ["id", "given", "candidates", "ambiguous", "provenance", "kappa", "predicted", "probability"]);
    reader.records().map(|row| row.unwrap().iter().map(String::from).collect()).collect()
}

#[test]
fn every_strategy_makes_candidates_that_finetuning_takes() {
    let b = Bench::new();
    for (strategy, one, many) in [
        ("topk_all", &[][..], &["predicted"][..]),
        ("crossfit_disagree", &["agreed"], &["disagreed"]),
        ("gaave", &["clean"], &["vulnerable", "noisy"]),
    ] {
        let (set, run, out) = (format!("labels.strategy={strategy}"), format!("run-{strategy}"), format!("{strategy}.csv"));
        let said = b.done(&labels(&["f.moue", "--run", &run, "--out", &out], &[&set]));
        for part in
            ["moue labels/fold-0 started steps=9 epochs=3", "moue labels/fold-1 step=9/9", "ambiguous: ", "provenance: ", "truth among"]
        {
            assert!(said.contains(part) || strategy == "gaave" && part.contains("/"), "no `{part}` in {said}");
        }
        assert!(said.contains(&format!("written: {out}\nrun: {run}\n")), "{said}");
        assert_eq!(said.contains("iterates of the attack"), strategy == "gaave");
        assert!(said.contains("predicted as the given label by models that never saw the face: "), "{said}");

        let text = b.read(&out);
        assert_eq!(text, b.read(&format!("{run}/candidates.csv")));
        let rows = rows(&text);
        assert_eq!(rows.len(), 96);
        for row in &rows {
            let (given, set, why) = (&row[1], row[2].split('|').collect::<Vec<_>>(), row[4].as_str());
            assert!(one.contains(&why) || many.contains(&why), "{row:?}");
            assert_eq!((set.len(), &row[3][..]), if many.contains(&why) { (2, "1") } else { (1, "0") }, "{row:?}");
            assert!(many.contains(&why) || set == [given], "{row:?}");
            assert!(!many.contains(&why) || set.contains(&&row[6][..]), "{row:?}");
            assert!((1.0 / 8.0..=1.0).contains(&row[7].parse::<f64>().unwrap()), "{row:?}");
            match row[5].parse::<usize>() {
                Ok(kappa) => assert_eq!(why, ["noisy", "vulnerable", "vulnerable", "vulnerable", "vulnerable", "clean"][kappa]),
                Err(_) => assert!(strategy != "gaave" && row[5].is_empty()),
            }
            assert_eq!(why == "agreed" || why == "disagreed" && row[6] != *given, strategy == "crossfit_disagree", "{row:?}");
        }

        let folder = RunFolder::open(&b.path(&run)).unwrap();
        assert_eq!(Manifest::read(&folder).unwrap().stages, ["labels/fold-0", "labels/fold-1"]);
        let events = b.events(&run);
        assert!(matches!(events.last().unwrap().body, Body::RunFinished { outcome: Outcome::Completed, .. }));
        assert!(events.iter().any(|e| e.stage == Stage::Labels && e.label == "fold-1"));
        assert!(!events.iter().any(|e| matches!(e.body, Body::Evaluation { .. })), "a fold's model was measured on something");

        let run = format!("pll-{strategy}");
        let set = TINY.iter().chain(&["labels.include_given=true"]).flat_map(|&s| ["--set", s]);
        let words = ["finetune", "--data", "f.moue", "--labels", &out, "--out", &run, "--device", "cpu", "--no-tui"];
        assert!(b.done(&words.iter().copied().chain(set).collect::<Vec<_>>()).contains("partial labels"));
        // A file's sets are not the last word where the settings want the given label in them.
        let history = HistoryReader::open(&b.path(&run).join("history/pll.bin")).unwrap();
        assert!(!history.header().faces.is_empty());
        assert!(history.header().faces.iter().all(|face| face.given.is_some_and(|given| face.candidates.contains(&given))));
        let lacks_given = |row: &Vec<String>| row[2].split('|').all(|class| class != row[1]);
        assert!(strategy == "gaave" || rows.iter().any(lacks_given), "every set of {out} has the given label anyway");
    }
}

#[test]
fn only_training_faces_and_their_given_labels_enter() {
    let b = Bench::new();
    // Wrong truths, wrong labels outside the training split, other votes: none of it may be read.
    b.changed("other.moue", |i, face| {
        face.truth = face.truth.map(|t| (t + 3) % 8);
        face.votes.rotate_left(1 + i % 3);
        face.panel.clear();
        if face.split != Split::Train {
            face.label = face.label.map(|l| (l + 1) % 8);
        }
    });
    // Another given label of one training face.
    b.changed("given.moue", |i, face| face.label = face.label.map(|l| if i == 5 { (l + 1) % 8 } else { l }));
    for strategy in ["labels.strategy=topk_all", "labels.strategy=gaave"] {
        let made = |pack: &str, out: &str, seed: &str| {
            b.done(&labels(&[pack, "--out", out, "--seed", seed], &[strategy]));
            b.read(out)
        };
        let first = made("f.moue", "a.csv", "0");
        assert!(first == made("other.moue", "b.csv", "0"), "{strategy}: something foreign was read");
        assert!(first != made("given.moue", "c.csv", "0"), "{strategy}: given labels change nothing");
        assert!(first != made("f.moue", "d.csv", "1"), "{strategy}: the seed changes nothing");
    }
}

#[test]
fn the_given_label_can_be_kept_and_doubt_be_tuned() {
    let b = Bench::new();
    let made = |out: &str, set: &[&str]| {
        let set: Vec<&str> = [&["labels.strategy=gaave"], set].concat();
        (b.done(&labels(&["f.moue", "--out", out], &set)), rows(&b.read(out)))
    };
    let (said, strict) = made("a.csv", &["labels.max_share=0"]);
    let ambiguous = |rows: &[Vec<String>]| rows.iter().filter(|row| row[3] == "1").count();
    assert!(ambiguous(&strict) > 0 && said.contains("warning: more than 0 % of the faces are ambiguous"), "{said}");
    let (_, kept) = made("b.csv", &["labels.include_given=true"]);
    let (_, lenient) = made("c.csv", &["labels.kappa_min=1", "labels.folds=3"]);
    assert!(ambiguous(&lenient) < ambiguous(&strict));
    assert_eq!(strict.len(), kept.len());
    for (row, kept) in strict.iter().zip(&kept) {
        let set = |row: &[String]| row[2].split('|').map(String::from).collect::<Vec<_>>();
        assert!(set(kept).contains(&kept[1]) && set(row).iter().all(|class| set(kept).contains(class)), "{row:?} {kept:?}");
        assert_eq!(set(kept).len(), set(row).len() + usize::from(!set(row).contains(&row[1])));
    }
    // One class each: nothing is ambiguous, and that is no error, neither here nor in training.
    let (said, single) = made("d.csv", &["labels.k=1"]);
    assert!(ambiguous(&single) == 0 && said.contains("nothing to decide"), "{said}");
    let set = TINY.iter().flat_map(|&s| ["--set", s]);
    let words = ["finetune", "--data", "f.moue", "--labels", "d.csv", "--out", "R", "--device", "cpu", "--no-tui"];
    assert!(b.done(&words.into_iter().chain(set).collect::<Vec<_>>()).contains("partial labels"));
}

#[test]
fn faces_and_classes_that_are_missing() {
    let b = Bench::new();
    // Class 0 does not occur, class 1 once, class 2 twice (fewer than folds), and some faces have no label.
    b.changed("odd.moue", |i, face| {
        face.label = match i {
            0 => Some(1),
            1 | 2 => Some(2),
            _ if i % 10 == 9 => None,
            _ => Some(3 + (i % 5) as u16),
        }
    });
    let names = Pack::open(&b.path("odd.moue")).unwrap().protocol().classes.clone();
    for strategy in ["topk_all", "crossfit_disagree", "gaave"] {
        let set = format!("labels.strategy={strategy}");
        let said = b.done(&labels(&["odd.moue", "--out", "odd.csv"], &[&set, "labels.folds=3"]));
        assert!(said.contains(&format!("warning: no training face is labelled {}", names[0])), "{said}");
        assert!(said.contains(&format!("warning: only one training face is labelled {}", names[1])), "{said}");
        assert!(!said.contains(&format!("is labelled {}", names[2])) && said.contains("moue labels/fold-2 finished"), "{said}");
        let rows = rows(&b.read("odd.csv"));
        assert_eq!(rows.len(), 96);
        let open: Vec<&Vec<String>> = rows.iter().filter(|row| row[1].is_empty()).collect();
        assert_eq!(open.len(), 9);
        assert!(open.iter().all(|row| row[4] == "unlabelled" && row[2].contains('|') && row[5].is_empty()), "{open:?}");
        assert!(rows.iter().all(|row| row[1].is_empty() || row[4] != "unlabelled"));
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_goes_on() {
    let b = Bench::new();
    let begin = |run| labels(&["f.moue", "--run", run], &["labels.strategy=gaave", "labels.fold_epochs=30"]);
    b.done(&begin("whole"));
    for (run, place) in [("early", "moue labels/fold-0 step="), ("late", "moue labels/fold-1 step=")] {
        let mut child = b.command(&begin(run)).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with(place) && line.contains("loss=")));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert!(lines.any(|line| line == format!("stopped; go on with: moue labels f.moue --resume --run {run}")));
        assert!(child.wait().unwrap().success());
        assert!(!b.path(run).join("candidates.csv").exists(), "the run was over before it was interrupted");
        b.done(&["labels", "f.moue", "--resume", "--run", run, "--device", "cpu", "--no-tui", "--out", "out.csv"]);
        assert!(b.read("out.csv") == b.read("whole/candidates.csv"), "{run}: a resumed run ends otherwise");
    }
    b.misused(&["finetune", "--resume", "--out", "early", "--device", "cpu"], &["early is a run of labels/fold-0, labels/fold-1"]);
    b.misused(&["labels", "f.moue", "--resume", "--run", "early", "--set", "labels.k=3"], &["--set"]);
    b.misused(&begin("early"), &["--resume", "another folder"]);
}

#[test]
fn wrong_requests_leave_nothing_behind() {
    let b = Bench::new();
    let with = |settings: &[&'static str]| labels(&["f.moue", "--run", "X"], settings);
    b.misused(&with(&["labels.strategy=gaave", "labels.k=9"]), &["labels.k = 9", "8 classes"]);
    b.misused(&with(&["labels.strategy=gaave", "labels.attack_steps=3"]), &["labels.kappa_min = 5", "at most 4"]);
    b.misused(&with(&["labels.strategy=topk_all", "labels.folds=97"]), &["labels.folds = 97", "has 96"]);
    b.misused(&with(&["labels.strategy=topk_all", "labels.folds=1"]), &["labels.folds = 1"]);
    b.misused(&with(&[]), &["--run", "\"votes\""]);
    b.misused(&labels(&["f.moue", "--out", "none/l.csv"], &["labels.strategy=gaave"]), &["no folder none"]);
    b.misused(&labels(&["f.moue", "--from", "nowhere"], &["labels.strategy=gaave"]), &["--from nowhere"]);
    b.misused(&["labels", "f.moue", "--set", "labels.k=9"], &["labels.k = 9"]);
    b.changed("open.moue", |_, face| face.label = None);
    b.misused(&labels(&["open.moue"], &["labels.strategy=gaave"]), &["open.moue has 0"]);
    // Finetuning does not predict by itself, and says what does.
    let command = ["--preset", "demo", "--set", "labels.strategy=gaave"];
    let finetune = [&["finetune", "--data", "f.moue", "--device", "cpu"], &command[..]].concat();
    b.misused(
        &finetune,
        &["`moue labels f.moue --preset demo --set labels.strategy=gaave --out candidates.csv`", "--labels candidates.csv"],
    );
    b.misused(&["demo", "--set", "labels.strategy=topk_all", "--device", "cpu"], &["moue labels PACK"]);
    // An empty set in a file is an error with its place.
    let id = &Pack::open(&b.path("f.moue")).unwrap().faces()[0].id.clone();
    fs::write(b.path("empty.csv"), format!("id,candidates\n{id},\n")).unwrap();
    let output = b.moue(&["finetune", "--data", "f.moue", "--labels", "empty.csv", "--out", "X", "--device", "cpu"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("empty.csv, line 2") && said.contains("no candidates"), "{said}");
    assert!(!b.path("X").exists() && !b.path("runs").exists());
}
