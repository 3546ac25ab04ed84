//! `moue rerun`, and that what is not to change a result does not: a run comes out the same from its manifest, bit for bit, and what differs from
//! then is said.

#![cfg(feature = "train")]

mod bench;
mod terminal;

use bench::{Bench, PLACE, TINY, text, train};
use moue::run::{Manifest, RunFolder, fingerprint};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// What `moue rerun --json` says, and its exit code.
fn rerun(b: &Bench, words: &[&str]) -> (Value, Option<i32>) {
    let output = b.moue(&[&["rerun", "--json"], words].concat());
    let said = text(&output.stdout);
    let value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{words:?}: {e}: {said}{}", text(&output.stderr)));
    (value, output.status.code())
}

fn all_same(said: &Value, parts: &[&str]) {
    assert_eq!(said["same"], json!(true), "{said:#}");
    for name in parts {
        let part = said["results"].as_array().unwrap().iter().find(|part| part["name"] == *name);
        let part = part.unwrap_or_else(|| panic!("no {name} in {said:#}"));
        assert!(part["then"].is_string() && part["then"] == part["now"] && part["difference"].is_null(), "{part:#}");
    }
}

fn differences(said: &Value) -> Vec<String> {
    let all = said["differences"].as_array().unwrap().iter();
    all.map(|d| format!("{}: {} then, {} now", d["what"].as_str().unwrap(), d["then"].as_str().unwrap(), d["now"].as_str().unwrap()))
        .collect()
}

fn weights(b: &Bench, run: &str) -> String {
    fingerprint::of_stage(&RunFolder::open(&b.path(run)).unwrap(), "finetune/pll").unwrap().unwrap()
}

/// Changes the manifest as another time or hand would have written it.
fn edit(b: &Bench, run: &str, change: impl FnOnce(&mut Value)) {
    let path = b.path(run).join("manifest.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn a_finetuning_comes_out_the_same_and_what_changed_is_refused_or_said() {
    let b = Bench::new();
    b.done(&["labels", "f.moue", "--set", "labels.k=3", "--set", "labels.min_votes=1", "--out", "l.csv"]);
    b.done(&train(&["pretrain", "--data", "f.moue", "--out", "A", "--seed", "9"], &[]));
    let inputs = ["finetune", "--data", "f.moue", "--from", "A", "--labels", "l.csv", "--out", "B", "--seed", "4"];
    b.done(&train(&inputs, &[]));
    let (said, code) = rerun(&b, &["B", "--out", "C"]);
    let parts = ["weights of finetune/pll", "weights of baseline/ce", "labels.csv", "history/pll.bin", "predictions/ce.csv", "events"];
    all_same(&said, &parts);
    assert_eq!((code, &said["differences"]), (Some(0), &json!([])), "{said:#}");
    assert_eq!(weights(&b, "B"), weights(&b, "C"));
    assert!(b.results("B") == b.results("C"));
    // Two people compare what `runs show` says.
    assert!(b.done(&["runs", "show", "B"]).contains(&format!("weights    {}", weights(&b, "C"))));
    // The table for people; a repetition can be repeated itself.
    let said = b.done(&["rerun", "C", "--out", "D", "--no-tui"]);
    assert!(said.contains("program, device, data and settings are those of then") && said.trim_end().ends_with("run: D"), "{said}");
    assert!(said.lines().filter(|line| line.ends_with("  same")).count() >= parts.len(), "{said}");

    // Bits that differ although nothing is known to: as if another machine had made the run.
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "other", "--seed", "5"], &[]));
    edit(&b, "other", |m| m["seed"] = json!(6));
    let (said, code) = rerun(&b, &["other", "--out", "E"]);
    assert_eq!((code, &said["same"], &said["differences"]), (Some(1), &json!(false), &json!([])));
    let events = said["results"].as_array().unwrap().iter().find(|part| part["name"] == "events").unwrap();
    assert!(events["difference"].as_str().unwrap().starts_with("step 1 of finetune/pll, scalars loss: "), "{events}");
    // Where a difference was announced, that is no failure.
    edit(&b, "other", |m| m["program"]["burn"] = json!("0.0.1"));
    let (said, code) = rerun(&b, &["other", "--out", "F"]);
    assert_eq!((code, &said["same"]), (Some(0), &json!(false)));
    assert!(differences(&said).iter().any(|line| line.starts_with("burn: 0.0.1 then, ")), "{said:#}");
    assert!(fs::read_to_string(b.path("F/events.jsonl")).unwrap().contains("burn: 0.0.1 then, "));

    // Inputs that changed are refused, unless they are named on purpose.
    let labels = fs::read_to_string(b.path("l.csv")).unwrap();
    b.done(&["labels", "f.moue", "--out", "l.csv"]);
    assert_ne!(labels, fs::read_to_string(b.path("l.csv")).unwrap());
    b.refused(&["rerun", "B", "--out", "X"], 2, &["l.csv is not what the run began with", "--labels"]);
    let (said, code) = rerun(&b, &["B", "--out", "G", "--labels", "l.csv"]);
    assert!(code == Some(0) && differences(&said).iter().any(|line| line.starts_with("--labels (hash): ")), "{said:#}");
    fs::write(b.path("l.csv"), labels).unwrap();
    b.done(&train(&["pretrain", "--data", "f.moue", "--out", "A2", "--seed", "10"], &[]));
    fs::rename(b.path("A"), b.path("A1")).unwrap();
    b.refused(&["rerun", "B", "--out", "X"], 2, &["A is gone", "--from"]);
    fs::rename(b.path("A2"), b.path("A")).unwrap();
    b.refused(&["rerun", "B", "--out", "X"], 2, &["A is not what the run began with"]);
    let (said, _) = rerun(&b, &["B", "--out", "H", "--from", "A1"]);
    all_same(&said, &parts);
    b.refused(&["rerun", "H", "--out", "X", "--data", "none.moue"], 2, &["none.moue"]);
    b.done(&["data", "generate", "--out", "f.moue", "--train", "96", "--valid", "32", "--test", "32", "--size", "32", "--seed", "3"]);
    b.refused(&["rerun", "H", "--out", "X"], 2, &["f.moue", "began with", "--data"]);
    fs::remove_file(b.path("f.moue")).unwrap();
    b.refused(&["rerun", "H", "--out", "X"], 2, &["f.moue is gone", "--data"]);
    edit(&b, "H", |m| m["finished"]["outcome"] = json!("interrupted"));
    b.refused(&["rerun", "H", "--out", "X"], 2, &["H is interrupted", "--resume"]);
    assert!(!b.path("X").exists());
}

/// Generated faces are generated again; a manifest from before all of this was recorded still does, or says what it lacks.
#[test]
fn a_demo_comes_out_the_same_also_from_an_old_manifest() {
    let b = Bench(tempfile::tempdir().unwrap());
    let quick = ["finetune.epochs=1", "pretrain.batch=256", "finetune.batch=256", "run.threads=0"];
    b.done(&train(&["demo", "--quick", "--noise", "1.5", "--out", "A", "--seed", "3"], &quick));
    let (said, code) = rerun(&b, &["A", "--out", "B"]);
    all_same(&said, &["weights of pretrain", "weights of finetune/pll", "weights of baseline/ce", "labels.csv", "predictions/pll.csv"]);
    assert_eq!((code, &said["differences"]), (Some(0), &json!([])), "{said:#}");
    let pack = |run: &str| Manifest::read(&RunFolder::open(&b.path(run)).unwrap()).unwrap().data.unwrap();
    assert!(pack("A").pack_hash == pack("B").pack_hash && pack("B").pack.ends_with("B/faces.moue"));
    // The faces need not be there any more.
    fs::rename(b.path("A/faces.moue"), b.path("kept")).unwrap();
    all_same(&rerun(&b, &["A", "--out", "C"]).0, &["weights of finetune/pll"]);
    fs::rename(b.path("kept"), b.path("A/faces.moue")).unwrap();

    let newer = ["threads", "workers", "program", "generator", "input_hashes"];
    edit(&b, "A", |m| {
        newer.iter().for_each(|field| drop(m.as_object_mut().unwrap().shift_remove(*field)));
        m["device"].as_object_mut().unwrap().shift_remove("features");
        m["settings"]["vit.gone"] = json!({"value": "1", "origin": "default"});
        m["settings"].as_object_mut().unwrap().shift_remove("run.evaluate_flip");
    });
    let (said, code) = rerun(&b, &["A", "--out", "D"]);
    all_same(&said, &["weights of pretrain", "weights of finetune/pll", "labels.csv"]);
    assert_eq!(code, Some(0));
    let found = differences(&said);
    for line in [
        "burn: not recorded then, ",
        "threads: not recorded then, ",
        "device: features: not recorded then, ",
        "vit.gone: 1 then, no such setting now",
        "run.evaluate_flip: no such setting then, false now",
    ] {
        assert!(found.iter().any(|found| found.starts_with(line)), "no `{line}` in {found:#?}");
    }
    fs::remove_file(b.path("A/faces.moue")).unwrap();
    b.refused(&["rerun", "A", "--out", "X"], 2, &["faces.moue is gone", "--data"]);
    edit(&b, "A", |m| m["device"] = Value::Null);
    b.refused(&["rerun", "A", "--out", "X", "--data", "B/faces.moue"], 2, &["which device", "--device"]);
    edit(&b, "A", |m| m["stages"] = json!(["distil"]));
    b.refused(&["rerun", "A", "--out", "X"], 2, &["distil"]);
    assert!(!b.path("X").exists());
}

/// A run made on a machine with one core takes one thread also where there are more.
#[test]
#[cfg(target_os = "linux")]
fn the_number_of_threads_is_that_of_then() {
    let b = Bench::new();
    let words = train(&["finetune", "--data", "f.moue", "--out", "one"], &["run.threads=0"]);
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_moue")]).args(&words).current_dir(b.0.path());
    let output = command.output().expect("`taskset` of util-linux");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (said, code) = rerun(&b, &["one", "--out", "again"]);
    all_same(&said, &["weights of finetune/pll"]);
    assert_eq!(code, Some(0));
    let manifest = Manifest::read(&RunFolder::open(&b.path("again")).unwrap()).unwrap();
    assert_eq!(manifest.threads, Some(1));
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores > 1 {
        assert!(differences(&said).contains(&format!("device: cores: 1 then, {cores} now")), "{said:#}");
        // And the number matters: this many threads round otherwise.
        b.done(&train(&["finetune", "--data", "f.moue", "--out", "many"], &["run.threads=3"]));
        assert_ne!(weights(&b, "one"), weights(&b, "many"));
    }
}

/// A repetition that is stopped goes on, and is compared then.
#[test]
#[cfg(unix)]
fn a_repetition_can_be_stopped_and_goes_on() {
    let b = Bench::new();
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "A"], &["finetune.epochs=20"]));
    let begun = |line: &str| line.starts_with("moue finetune/pll step=") && line.contains(" loss=");
    let (child, lines) = b.until(&["rerun", "A", "--out", "B", "--no-tui"], begun);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(lines.iter().any(|line| line == "stopped; go on with: moue rerun A --resume --out B"));
    let (said, code) = rerun(&b, &["A", "--resume", "--out", "B"]);
    all_same(&said, &["weights of finetune/pll", "weights of baseline/ce", "history/pll.bin", "events"]);
    assert_eq!(code, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn workers_the_log_and_the_dashboard_change_nothing() {
    let b = Bench::new();
    let mut hashes = Vec::new();
    for (run, setting) in [("a", "run.workers=1"), ("b", "run.workers=3"), ("c", "run.log_every=7"), ("d", "run.checkpoint_every=1")] {
        b.done(&train(&["finetune", "--data", "f.moue", "--out", run], &[setting]));
        hashes.push(weights(&b, run));
    }
    let set: Vec<String> = TINY.iter().map(|s| format!("--set {s}")).collect();
    let command = format!("{} finetune --data f.moue --out e {} {} {}", env!("CARGO_BIN_EXE_moue"), PLACE[0], PLACE[1], set.join(" "));
    let terminal = terminal::Terminal::start(&b.path(""), "e", &command);
    terminal.sees("\x1b[?1049h");
    assert!(terminal.ends().0.success());
    hashes.push(weights(&b, "e"));
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
