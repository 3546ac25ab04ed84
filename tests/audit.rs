//! `moue audit` as a user meets it: the binary on run folders that the library wrote, whole, incomplete, damaged and of other runs.

mod bench;

use bench::Bench;
use moue::dataset::{Class, Pack, PackWriter, Split};
use moue::run::history::{Flip, Frame, Header, HistoryWriter, Layout, Subject, quantise};
use moue::run::manifest::Data;
use moue::run::{Manifest, Predictions, RunFolder};
use serde_json::Value;
use std::fs;
use std::path::Path;

const EPOCHS: u32 = 8;

/// What an able model would say of each face, and how the run came to it. Every fifth training face is given a wrong label: of these, some
/// have divided votes and are ambiguous, others are wrong although all agree.
struct Simulated {
    pack: Pack,
    /// Positions of training faces whose given label is wrong.
    wrong: Vec<usize>,
}

/// Writes a pack `f.moue` and a finished run `run` on it.
fn simulate(b: &Bench) -> Simulated {
    let plain = Pack::open(&b.path("f.moue")).unwrap();
    let mut writer = PackWriter::create(&b.path("g.moue"), plain.protocol().clone()).unwrap();
    let mut wrong = Vec::new();
    for (i, face) in plain.faces().iter().enumerate() {
        let mut face = face.clone();
        let truth = face.truth.unwrap();
        let other = (truth + 1) % 8;
        face.votes = vec![0; 9];
        if face.split == Split::Train {
            let label = if i % 5 == 0 { other } else { truth };
            face.label = Some(label);
            // Every other face divides its annotators.
            face.votes[usize::from(label)] = if i % 2 == 0 { 6 } else { 10 };
            face.votes[usize::from(if label == truth { other } else { truth })] += if i % 2 == 0 { 4 } else { 0 };
            // The first annotator always says the truth.
            face.panel = vec![Some(label); 10];
            face.panel[0] = Some(truth);
            if label != truth {
                wrong.push(i);
            }
        }
        writer.push(face, &plain.pixels(i).unwrap()).unwrap();
    }
    // The same picture again, as another class.
    let copy = moue::dataset::Face {
        id: "copy".into(),
        split: Split::Test,
        label: Some((plain.faces()[3].truth.unwrap() + 1) % 8),
        ..plain.faces()[3].clone()
    };
    writer.push(copy, &plain.pixels(3).unwrap()).unwrap();
    writer.finish(serde_json::json!({"annotators": ["Ada", "Ben"]})).unwrap();
    let pack = Pack::open(&b.path("g.moue")).unwrap();
    write_run(&b.path("run"), &pack);
    Simulated { pack, wrong }
}

fn write_run(path: &Path, pack: &Pack) {
    let folder = RunFolder::create(path).unwrap();
    let mut manifest = Manifest::new(vec!["moue".into(), "finetune".into()], 0);
    manifest.data = Some(Data::of(pack));
    manifest.write(&folder).unwrap();
    let train = pack.split(Split::Train);
    let says = |i: usize| {
        let truth = usize::from(pack.faces()[i].truth.unwrap());
        (0..8).map(|c| if c == truth { 0.986 } else { 0.002 }).collect::<Vec<f32>>()
    };
    Predictions::of(pack, &train, train.iter().flat_map(|&i| says(i)).collect()).write(&folder.predictions("pll")).unwrap();
    let ambiguous: Vec<usize> = train.iter().copied().filter(|&i| pack.faces()[i].votes.iter().filter(|v| **v > 0).count() > 1).collect();
    let candidates = |i: usize| -> Vec<Class> { (0..8).filter(|&c| pack.faces()[i].votes[usize::from(c)] > 0).collect() };
    let subject = |&i: &usize| {
        let face = &pack.faces()[i];
        Subject { id: face.id.clone(), given: face.label, candidates: candidates(i), votes: face.votes.clone() }
    };
    let header = Header {
        objective: "pll".into(),
        classes: pack.protocol().classes.clone(),
        pack_hash: pack.hash(),
        faces: ambiguous.iter().map(subject).collect(),
    };
    let (mut history, _) = HistoryWriter::open(&folder.history("pll"), &header, 1).unwrap();
    for epoch in 1..=EPOCHS {
        let believed = |&i: &usize| {
            let truth = pack.faces()[i].truth.unwrap();
            candidates(i).into_iter().map(move |c| quantise(if c == truth { 0.9 } else { 0.1 }))
        };
        // Each face flips once, in the second epoch.
        let flip = |(n, &i): (usize, &usize)| {
            let truth = pack.faces()[i].truth.unwrap();
            let from = candidates(i).into_iter().find(|c| *c != truth).unwrap();
            Flip { face: n as u32, step: 4, from, to: truth }
        };
        let flips = if epoch == 2 { ambiguous.iter().enumerate().map(flip).collect() } else { Vec::new() };
        let frame = Frame { epoch, step: u64::from(epoch) * 3, confidences: ambiguous.iter().flat_map(believed).collect(), flips };
        assert_eq!(frame.confidences.len(), Layout::of(&header.faces).bytes());
        history.append(&frame, false).unwrap();
    }
}

fn json(b: &Bench, args: &[&str]) -> Value {
    let said = b.done(&[&["audit"], args, &["--json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
}

#[test]
fn wrong_labels_come_first_and_every_output_agrees() {
    let b = Bench::with_faces("100", "10");
    let Simulated { pack, wrong } = simulate(&b);
    let found = json(&b, &["run", "--top", "200"]);
    let list = found["findings"].as_array().unwrap();
    assert_eq!((list.len(), wrong.len(), &found["ranked"]), (100, 20, &Value::from(100)));
    let ids: Vec<&str> = list.iter().map(|f| f["id"].as_str().unwrap()).collect();
    // Divided votes and unanimous ones alike: the model has learned the truth, so all wrong labels stand above all right ones.
    let mut first: Vec<&str> = ids[..20].to_vec();
    let mut expected: Vec<&str> = wrong.iter().map(|&i| pack.faces()[i].id.as_str()).collect();
    first.sort_unstable();
    expected.sort_unstable();
    assert_eq!(first, expected);
    let measured = &found["measured"];
    assert_eq!((&measured["average_precision"], &measured["base_rate"], &measured["wrong"]), (&1.0.into(), &0.2.into(), &20.into()));
    assert_eq!(measured["cuts"][1]["lift"], 5.0);
    for finding in list.iter().take(20) {
        assert_eq!(finding["truth"], finding["suggested"], "{finding}");
    }
    let divided = list.iter().find(|f| f["ambiguous"] == true && f["truth"] != f["given"]).unwrap();
    assert_eq!((&divided["flips"], &divided["late_flips"], &divided["epochs_since_flip"]), (&1.into(), &0.into(), &6.into()), "{divided}");
    assert_eq!(divided["resolved"], divided["truth"]);
    assert!((divided["margin"].as_f64().unwrap() - 0.8).abs() < 0.01);
    // Half of the faces are ambiguous, and each was decided as the truth: ten of them against their label.
    let moved: u64 = found["given_to_resolved"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(from, row)| row.as_object().unwrap().iter().filter(move |(to, _)| *to != from))
        .map(|(_, n)| n.as_u64().unwrap())
        .sum();
    assert_eq!((moved, &found["ambiguous"]), (10, &50.into()));
    // Ada always says the truth, the others repeat the label.
    let ada = &found["annotators"][0];
    assert_eq!((&ada["annotator"], &ada["with_truth"], &ada["faces"]), (&"Ada".into(), &1.0.into(), &100.into()));
    assert_eq!((&found["annotators"][1]["annotator"], &found["annotators"][2]["annotator"]), (&"Ben".into(), &"annotator 3".into()));
    assert_eq!(found["annotators"][1]["with_truth"], 0.8);
    let copies = found["duplicates"]["disputed"].as_array().unwrap();
    assert_eq!((copies.len(), &copies[0]["exact"], &copies[0]["faces"][1]["id"]), (1, &true.into(), &"copy".into()));

    let said = b.done(&["audit", "run", "--csv", "a.csv", "--label-studio", "t.json", "--sheet", "s.png", "--top", "7"]);
    for part in
        ["20 of 100 labels are wrong (20.0 %)", "average precision 1.000", "annotator 3", "identical: ", "written: a.csv: 100 faces"]
    {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let mut rows = csv::Reader::from_path(b.path("a.csv")).unwrap();
    let by_csv: Vec<String> = rows.records().map(|r| r.unwrap()[1].to_string()).collect();
    assert_eq!(by_csv, ids);
    let tasks: Value = serde_json::from_str(&fs::read_to_string(b.path("t.json")).unwrap()).unwrap();
    let tasks = tasks.as_array().unwrap();
    assert_eq!(tasks.len(), 7);
    for (task, id) in tasks.iter().zip(&ids) {
        let result = &task["predictions"][0]["result"][0];
        assert_eq!((&task["data"]["id"], &result["type"]), (&(*id).into(), &"choices".into()));
        assert_eq!(result["value"]["choices"][0], task["data"]["suggested"]);
        // The labelling interface that is printed names what the tasks name.
        for (tag, name) in [("Choices name", &result["from_name"]), ("Image name", &result["to_name"])] {
            assert!(said.contains(&format!("{tag}={name}")), "{said}");
        }
        let png = task["data"]["image"].as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
        let png = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, png).unwrap();
        let picture = image::load_from_memory(&png).unwrap();
        let position = pack.faces().iter().position(|f| f.id == *id).unwrap();
        assert_eq!(picture.to_luma8().into_raw(), pack.pixels(position).unwrap().data);
    }
    let sheet = image::open(b.path("s.png")).unwrap();
    assert!(sheet.width() > 6 * 144 && sheet.height() > 2 * 144, "{:?}", (sheet.width(), sheet.height()));

    // One class alone.
    let class = pack.protocol().classes[usize::from(pack.faces()[wrong[0]].label.unwrap())].as_str();
    let of_class = json(&b, &["run", "--class", class, "--top", "200"]);
    assert!(of_class["findings"].as_array().unwrap().iter().all(|f| f["given"] == class));
    let expected: Vec<&&str> = ids.iter().zip(list).filter(|(_, f)| f["given"] == class).map(|(id, _)| id).collect();
    assert!(of_class["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).eq(expected.into_iter().copied()));
    b.refused(&["audit", "run", "--class", "joy"], 2, &["joy", pack.protocol().classes[0].as_str()]);
}

#[test]
fn what_is_missing_is_told_and_done_without() {
    let b = Bench::with_faces("100", "10");
    simulate(&b);
    let precision = |args: &[&str]| {
        let found = json(&b, args);
        (found["measured"]["average_precision"].as_f64(), found["notes"].to_string())
    };
    assert_eq!(precision(&["run", "--no-duplicates"]), (Some(1.0), "[]".into()));

    // A cut history: its whole epochs count.
    let history = b.path("run/history/pll.bin");
    let whole = fs::read(&history).unwrap();
    fs::write(&history, &whole[..whole.len() - 9]).unwrap();
    let (found, notes) = precision(&["run"]);
    assert!(found == Some(1.0) && notes.contains("cut short") && notes.contains("up to 7"), "{notes}");
    // None at all: predictions and votes.
    fs::remove_file(&history).unwrap();
    let (found, notes) = precision(&["run"]);
    assert!(found == Some(1.0) && notes.contains("no history"), "{notes}");
    let said = b.done(&["audit", "run"]);
    assert!(said.contains("note: run has no history") && said.contains("no labels were decided"), "{said}");
    // Plain training alone.
    fs::rename(b.path("run/predictions/pll.csv"), b.path("run/predictions/ce.csv")).unwrap();
    assert_eq!(precision(&["run"]).0, Some(1.0));
    let said = b.done(&["audit", "run"]);
    assert!(said.starts_with("run (ce): 100 training faces"), "{said}");

    // The history alone: only those that were ambiguous can be told apart.
    fs::write(&history, &whole).unwrap();
    fs::remove_dir_all(b.path("run/predictions")).unwrap();
    let found = json(&b, &["run", "--top", "200"]);
    assert!(found["notes"].to_string().contains("no predictions"));
    let list = found["findings"].as_array().unwrap();
    assert!(list[..10].iter().all(|f| f["given"] != f["truth"] && f["ambiguous"] == true), "{list:?}");

    // A moved pack.
    fs::rename(b.path("g.moue"), b.path("moved.moue")).unwrap();
    let found = json(&b, &["run"]);
    assert!(found["notes"].to_string().contains("g.moue is gone") && found["ranked"] == 50, "{found}");
    b.refused(&["audit", "run", "--sheet", "s.png"], 2, &["--data"]);
    b.refused(&["audit", "run", "--label-studio", "t.json"], 2, &["--data"]);
    assert!(!b.path("s.png").exists() && !b.path("t.json").exists());
    assert_eq!(json(&b, &["run", "--data", "moved.moue"])["ranked"], 100);
    b.refused(&["audit", "run", "--data", "f.moue"], 2, &["f.moue", "hash"]);
    b.refused(&["audit", "run", "--data", "nowhere.moue"], 2, &["nowhere.moue"]);
}

#[test]
fn what_cannot_be_audited_is_refused() {
    let b = Bench::with_faces("100", "10");
    let Simulated { pack, .. } = simulate(&b);
    b.refused(&["audit", "nowhere"], 2, &["nowhere", "no run folder"]);
    b.refused(&["audit", "f.moue"], 2, &["f.moue", "no run folder"]);
    b.refused(&["audit", "run", "--top", "0"], 2, &["--top"]);
    b.refused(&["audit", "run", "--csv", "no/a.csv"], 2, &["no/a.csv"]);
    b.refused(&["audit", "run", "--sheet", "."], 2, &["it is a folder"]);

    // A run that has not decided or finished anything.
    let empty = RunFolder::create(&b.path("empty")).unwrap();
    let mut manifest = Manifest::new(vec!["moue".into(), "pretrain".into()], 0);
    manifest.data = Some(Data::of(&pack));
    manifest.write(&empty).unwrap();
    b.refused(&["audit", "empty"], 2, &["empty", "finetuning"]);

    // Foreign files: another kind, other classes, other faces.
    let history = b.path("run/history/pll.bin");
    let whole = fs::read(&history).unwrap();
    fs::write(&history, "id,split\n").unwrap();
    b.refused(&["audit", "run"], 2, &["pll.bin", "no history"]);
    fs::write(&history, &whole[..40]).unwrap();
    b.refused(&["audit", "run"], 1, &["pll.bin", "header"]);
    fs::write(&history, &whole).unwrap();
    let predictions = b.path("run/predictions/pll.csv");
    let good = fs::read_to_string(&predictions).unwrap();
    for (change, code, parts) in [
        (good[..good.len() - 20].to_string(), 1, ["pll.csv", "line 101"]),
        (good.replace("neutral", "calm"), 1, ["predictions", "calm"]),
        (good.replacen("train-", "strain-", 1), 1, ["other faces", "strain-"]),
        ("hello\n".into(), 2, ["pll.csv", "no predictions"]),
    ] {
        fs::write(&predictions, change).unwrap();
        b.refused(&["audit", "run"], code, &parts);
    }
    fs::write(&predictions, good).unwrap();
    fs::write(b.path("run/labels.csv"), "id,split\n").unwrap();
    b.refused(&["audit", "run"], 2, &["labels.csv", "decided labels"]);
    fs::remove_file(b.path("run/labels.csv")).unwrap();
    fs::write(b.path("run/manifest.json"), "{}").unwrap();
    b.refused(&["audit", "run"], 2, &["manifest"]);
}

/// A run as training leaves it.
#[test]
#[cfg(feature = "train")]
fn a_run_that_was_trained_is_audited() {
    let b = Bench::new();
    b.done(&bench::train(&["finetune", "--data", "f.moue", "--out", "B"], &["finetune.epochs=3"]));
    let found = json(&b, &["B", "--top", "1000"]);
    assert_eq!((&found["objective"], &found["epochs"], &found["training_faces"]), (&"pll".into(), &3.into(), &96.into()));
    assert_eq!((&found["notes"], found["annotators"].as_array().unwrap().len()), (&serde_json::json!([]), 10));
    // The history tells of as many flips as the events do, and ends where labels.csv does.
    let flips: u64 =
        b.events("B").iter().filter_map(|e| if let moue::run::Body::Confidence { flips, .. } = e.body { Some(flips) } else { None }).sum();
    let told: u64 =
        found["flips"].as_object().unwrap().values().flat_map(|row| row.as_object().unwrap().values()).map(|n| n.as_u64().unwrap()).sum();
    assert!(flips > 0);
    assert_eq!(flips, told);
    let list = found["findings"].as_array().unwrap();
    assert_eq!(list.iter().filter_map(|f| f["flips"].as_u64()).sum::<u64>(), flips);
    let mut reader = moue::run::HistoryReader::open(&b.path("B/history/pll.bin")).unwrap();
    let (mut frame, layout) = (Frame::default(), reader.layout().clone());
    while reader.next_into(&mut frame).unwrap() {}
    assert_eq!((frame.epoch, frame.step, reader.damage()), (3, 9, None));
    let labels = fs::read_to_string(b.path("B/labels.csv")).unwrap();
    let confidences: std::collections::HashMap<&str, Vec<f32>> = labels
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .map(|fields| (fields[0], fields[6..].iter().map(|v| v.parse().unwrap()).collect()))
        .collect();
    for (n, subject) in reader.header().faces.iter().enumerate() {
        for (byte, class) in frame.confidences[layout.range(n)].iter().zip(&subject.candidates) {
            let exact = confidences[subject.id.as_str()][usize::from(*class)];
            assert!((moue::run::history::confidence(*byte) - exact).abs() < 0.5 / 255.0 + 1e-4, "{}", subject.id);
        }
    }
    // What the model says stands there for all faces, and what it says of the test split is what was evaluated.
    let said = Predictions::read(&b.path("B/predictions/pll.csv")).unwrap();
    assert_eq!(said.faces.len(), 96 + 32 + 32);
    let test: Vec<usize> = (0..said.faces.len()).filter(|&i| said.faces[i].split == Split::Test).collect();
    let right = test.iter().filter(|&&i| Some(moue::eval::argmax(said.row(i))) == said.faces[i].label).count();
    let scored: Value = serde_json::from_str(&b.done(&["evaluate", "B", "--json", "--device", "cpu"])).unwrap();
    assert!((scored["accuracy"].as_f64().unwrap() - right as f64 / test.len() as f64).abs() < 1e-9);
    assert!(b.path("B/predictions/ce.csv").is_file() && !b.path("B/history/ce.bin").exists());
}
