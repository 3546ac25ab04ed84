//! `moue doctor` as a user meets it: what it says of presets on the CPU, of packs with something wrong, and of wrong requests.

#![cfg(feature = "train")]

mod bench;

use bench::{Bench, text};
use moue::dataset::{Face, Pack, PackWriter, Split};
use serde_json::Value;
use std::fs;

/// The table as JSON, and the exit code.
fn examined(b: &Bench, args: &[&str]) -> (Value, Option<i32>) {
    let output = b.moue(&[&["doctor"], args, &["--device", "cpu", "--json"]].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let json = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}{err}"));
    (json, output.status.code())
}

/// The rows of a name or its beginning; there must be some.
fn rows<'a>(json: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = json["rows"].as_array().unwrap();
    let found: Vec<&Value> = all.iter().filter(|row| row["name"].as_str().unwrap().starts_with(name)).collect();
    assert!(!found.is_empty(), "no row {name} in {json}");
    found
}

/// The row's verdict, and that it says so.
fn says(json: &Value, name: &str, verdict: &str, parts: &[&str]) {
    let row = rows(json, name)[0];
    assert_eq!(row["verdict"], verdict, "{row}");
    let all = format!("{} {}", row["found"].as_str().unwrap(), row["advice"].as_str().unwrap_or_default());
    parts.iter().for_each(|part| assert!(all.contains(part), "no `{part}` in {row}"));
    assert_eq!(verdict == "ok", row.get("advice").is_none(), "what is not ok has advice: {row}");
}

/// Nothing but ok. Not on what others do to the machine meanwhile: memory that they take is a warning.
fn all_ok(b: &Bench, args: &[&str]) -> Value {
    let (json, code) = examined(b, args);
    for row in json["rows"].as_array().unwrap() {
        let busy = row["found"].as_str().unwrap().contains("other programs leave");
        assert!(row["verdict"] == "ok" || busy, "{args:?}: {row}");
    }
    assert_eq!((code, &json["suggestion"]), (Some(0), &Value::Null), "{args:?}");
    json
}

#[test]
fn presets_for_the_cpu_are_ok() {
    let b = Bench::new();
    let demo = all_ok(&b, &[]);
    for name in ["device", "driver", "shaders", "half precision", "memory, pretrain", "memory, finetune", "largest buffer"] {
        rows(&demo, name);
    }
    for name in ["speed, pretrain", "speed, finetune/pll", "speed, baseline/ce", "time", "disk"] {
        rows(&demo, name);
    }
    for name in ["dataset hash", "leaks", "class balance", "label protocol", "candidate sets"] {
        says(&demo, name, "ok", &["no --data given: not checked"]);
    }
    assert!(demo["seconds"].as_f64().is_some_and(|s| s > 0.0), "{demo}");
    all_ok(&b, &["ferplus-cpu"]);
    // Nothing is left behind.
    let left: Vec<String> = fs::read_dir(b.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["f.moue"]);
}

#[test]
fn the_papers_preset_is_stopped_with_something_that_fits() {
    let b = Bench::new();
    let (json, code) = examined(&b, &["paper-rafdb"]);
    assert_eq!((code, json["verdict"].as_str()), (Some(1), Some("stop")), "{json}");
    let stops: Vec<&Value> = json["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == "stop").collect();
    let of = |row: &&Value| row["name"] == "time" || row["name"].as_str().unwrap().starts_with("memory");
    assert!(!stops.is_empty() && stops.iter().all(of), "{stops:?}");
    let suggestion = json["suggestion"]["command"].as_str().expect("a suggestion");
    let words: Vec<&str> = suggestion.split(' ').collect();
    assert_eq!(words[..2], ["moue", "doctor"], "{suggestion}");
    b.done(&words[1..]);
}

#[test]
fn a_table_for_people_ends_in_a_verdict() {
    let b = Bench::new();
    let said = b.done(&["doctor", "demo-quick", "--data", "f.moue", "--device", "cpu"]);
    assert!(said.starts_with("device ") && said.lines().all(|line| line.chars().count() <= 110), "{said}");
    assert!(said.trim_end().ends_with("it can be started"), "{said}");
    let output = b.moue(&["doctor", "demo-quick", "--device", "cpu", "--set", "pretrain.epochs=100000000"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(err.starts_with("error: one check says stop") && err.lines().count() == 1, "{err}");
    assert!(out.contains("more than 7.0 days") && out.contains("try: moue doctor"), "{out}");
}

/// The faces of `f.moue`, each changed as told (none: left out), as another pack.
fn changed(b: &Bench, name: &str, change: impl Fn(usize, Face) -> Option<Face>) {
    let pack = Pack::open(&b.path("f.moue")).unwrap();
    let mut writer = PackWriter::create(&b.path(name), pack.protocol().clone()).unwrap();
    for (i, face) in pack.faces().iter().enumerate() {
        if let Some(face) = change(i, face.clone()) {
            writer.push(face, &pack.pixels(i).unwrap()).unwrap();
        }
    }
    writer.finish(serde_json::json!({})).unwrap();
}

#[test]
fn what_is_wrong_with_a_pack_has_a_row() {
    let b = Bench::new();
    let quick = |pack: &str| examined(&b, &["demo-quick", "--data", pack]);
    let (good, code) = quick("f.moue");
    assert_eq!(code, Some(0), "{good}");
    for name in ["dataset hash", "leaks", "class balance", "label protocol", "candidate sets"] {
        says(&good, name, "ok", &[]);
    }

    // A copy of a training face among the test faces.
    let pack = Pack::open(&b.path("f.moue")).unwrap();
    let first = pack.split(Split::Train)[0];
    let mut writer = PackWriter::create(&b.path("leak.moue"), pack.protocol().clone()).unwrap();
    for (i, face) in pack.faces().iter().enumerate() {
        writer.push(face.clone(), &pack.pixels(i).unwrap()).unwrap();
    }
    let copy = Face { id: "copy".into(), split: Split::Test, ..pack.faces()[first].clone() };
    writer.push(copy, &pack.pixels(first).unwrap()).unwrap();
    writer.finish(serde_json::json!({})).unwrap();
    let (json, code) = quick("leak.moue");
    says(&json, "leaks", "warning", &["1 test face has a pixel-identical copy among the training faces", "--drop-leaks"]);
    assert_eq!(code, Some(0), "a leak does not keep a run from being started");

    // A pixel that is not what it was.
    let mut bytes = fs::read(b.path("f.moue")).unwrap();
    bytes[100] ^= 1;
    fs::write(b.path("flipped.moue"), bytes).unwrap();
    let (json, code) = quick("flipped.moue");
    says(&json, "dataset hash", "stop", &["damaged", "import"]);
    assert_eq!((code, &json["suggestion"]), (Some(1), &Value::Null), "no preset mends a damaged pack: {json}");

    // A class that nobody has, and one that cannot be measured.
    let absent = pack.protocol().classes[2].clone();
    changed(&b, "absent.moue", |_, face| (face.split != Split::Train || face.label != Some(2)).then_some(face));
    let (json, code) = quick("absent.moue");
    says(&json, "class balance", "stop", &[&format!("no training face is labelled {absent}")]);
    assert_eq!(code, Some(1));
    changed(&b, "unmeasured.moue", |_, face| (face.split != Split::Test || face.label != Some(2)).then_some(face));
    says(&quick("unmeasured.moue").0, "class balance", "warning", &[&format!("no test face is labelled {absent}")]);

    // Labels that are not there, and votes that the preset's strategy needs.
    changed(&b, "open.moue", |_, face| Some(Face { label: face.label.filter(|_| face.split != Split::Test), ..face }));
    says(&quick("open.moue").0, "label protocol", "warning", &["no test face has a label"]);
    changed(&b, "votes.moue", |_, face| Some(Face { votes: Vec::new(), panel: Vec::new(), ..face }));
    let (json, code) = quick("votes.moue");
    says(&json, "candidate sets", "stop", &["needs annotator votes"]);
    assert_eq!(code, Some(1));
    let (json, code) = examined(&b, &["demo-quick", "--data", "votes.moue", "--set", "finetune.objective=ce"]);
    says(&json, "candidate sets", "ok", &["none needed"]);
    assert_eq!(code, Some(0), "{json}");
}

#[test]
fn hostile_values_are_refused_or_stopped() {
    let b = Bench::new();
    b.refused(&["doctor", "ferplus-cpuu"], 2, &["ferplus-cpuu", "ferplus-cpu"]);
    b.refused(&["doctor", "demo", "--set", "vit.dim=0"], 2, &["vit.dim"]);
    b.refused(&["doctor", "demo", "--data", "nothing.moue"], 2, &["no such file"]);
    b.refused(&["doctor", "demo", "--config", "nothing.toml"], 2, &["nothing.toml"]);
    fs::write(b.path("text.moue"), "no pack").unwrap();
    b.refused(&["doctor", "demo", "--data", "text.moue"], 2, &["no moue pack"]);
    b.refused(&["doctor", "demo", "--device", "vulkan:99"], 2, &["vulkan:99"]);
    for args in [["doctor", "demo", "--device", "abacus"], ["doctor", "demo", "--faces", "0"]] {
        let output = b.moue(&args);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
    // A network that no machine holds is not made to find that out.
    b.refused(&["doctor", "demo", "--set", "vit.dim=98304"], 2, &["at most 8192"]);
    let (json, code) = examined(&b, &["demo", "--set", "vit.dim=8190", "--set", "vit.depth=256"]);
    says(&json, "memory", "stop", &["the weights alone take at least", "smaller network"]);
    says(&json, "speed, pretrain", "ok", &["not measured"]);
    assert_eq!(code, Some(1));
    // Nor a batch.
    let (json, code) = examined(&b, &["demo", "--set", "pretrain.batch=1000000000"]);
    says(&json, "memory, pretrain", "stop", &["pretrain.batch"]);
    assert_eq!(code, Some(1));
}
