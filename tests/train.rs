//! The training commands as a user runs them: the chain from faces to predictions, repetition, interruption, and wrong requests. Each
//! test runs the binary on a network so small that training takes seconds.

#![cfg(feature = "train")]

mod bench;

use bench::{Bench, PATIENCE, TINY, text, train};
use moue::dataset::{Pack, PackWriter, Split};
use moue::run::checkpoint::{MODEL, State};
use moue::run::{Body, Event, Manifest, Outcome, RunFolder, Stage};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

fn wait(mut child: Child) -> (Option<i32>, String) {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            return (status.code(), said);
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn from_faces_to_predictions() {
    let b = Bench::new();
    assert!(b.done(&["labels", "f.moue", "--out", "l.csv"]).contains("written: l.csv"));
    b.done(&train(&["pretrain", "--data", "f.moue", "--out", "A"], &[]));
    let said = b.done(&train(&["finetune", "--data", "f.moue", "--from", "A", "--labels", "l.csv", "--out", "B"], &[]));
    assert!(said.contains("partial labels") && said.trim_end().ends_with("run: B"), "{said}");
    for name in ["manifest.json", "events.jsonl", "metrics.csv", "labels.csv", "checkpoints/finetune-pll-00000006.ckpt"] {
        assert!(b.path("B").join(name).is_file(), "{name}");
    }
    let events = b.events("B");
    assert!(matches!(events[0].body, Body::RunStarted { .. }));
    assert!(matches!(events.last().unwrap().body, Body::RunFinished { outcome: Outcome::Completed, .. }));

    let mut labels = csv::Reader::from_path(b.path("B/labels.csv")).unwrap();
    let first = labels.headers().unwrap().iter().position(|h| h.starts_with("confidence_")).unwrap();
    let rows: Vec<csv::StringRecord> = labels.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 96);
    for row in &rows {
        let sum: f64 = row.iter().skip(first).map(|v| v.parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{row:?}");
    }

    let json: serde_json::Value =
        serde_json::from_str(&b.done(&["evaluate", "B", "--split", "test", "--json", "--device", "cpu"])).unwrap();
    let on_record = events.iter().rev().find_map(|e| match &e.body {
        Body::Evaluation { split: Split::Test, accuracy, confusion, .. } if e.stage == Stage::Finetune => Some((*accuracy, confusion)),
        _ => None,
    });
    let (accuracy, confusion) = on_record.unwrap();
    assert_eq!(json["accuracy"].as_f64(), Some(accuracy));
    assert_eq!(json["confusion"], serde_json::json!(confusion));

    // The best checkpoint is kept beside the last, and is what the events say of it.
    let valid = |e: &Event| match &e.body {
        Body::Evaluation { split: Split::Valid, accuracy, .. } if e.stage == Stage::Finetune => Some((e.step, *accuracy)),
        _ => None,
    };
    let best = events.iter().filter_map(valid).reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap();
    let said = b.done(&["evaluate", "B", "--best", "--split", "valid", "--json", "--device", "cpu"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((json["step"].as_u64(), json["accuracy"].as_f64()), (Some(best.0), Some(best.1)));

    image::RgbImage::from_fn(40, 50, |x, y| image::Rgb([x as u8 * 6, y as u8 * 5, 90])).save(b.path("picture.png")).unwrap();
    let said = b.done(&["predict", "B", "picture.png", "--top", "8", "--json", "--device", "cpu"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let shares = json["probabilities"].as_object().unwrap();
    let sum: f64 = shares.values().map(|v| v.as_f64().unwrap()).sum();
    assert!(shares.len() == 8 && (sum - 1.0).abs() < 1e-4, "{said}");
    assert!(shares.contains_key(json["class"].as_str().unwrap()));

    // The same faces under another class name are no measure of this run.
    let pack = Pack::open(&b.path("f.moue")).unwrap();
    let mut card = pack.protocol().clone();
    card.classes[0] = "calm".into();
    let mut other = PackWriter::create(&b.path("other.moue"), card).unwrap();
    for i in pack.split(Split::Test) {
        other.push(pack.faces()[i].clone(), &pack.pixels(i).unwrap()).unwrap();
    }
    other.finish(serde_json::json!({})).unwrap();
    b.refused(&["evaluate", "B", "--data", "other.moue", "--device", "cpu"], 2, &["calm", "neutral"]);

    // Runs and settings that do not fit one another.
    let from = |run| train(&["finetune", "--data", "f.moue", "--from", run, "--out", "X"], &[]);
    b.refused(&from("."), 2, &["no run folder"]);
    b.refused(&from("nowhere"), 2, &["--from nowhere"]);
    b.refused(&from("B"), 2, &["no pretraining checkpoint"]);
    b.refused(&train(&["finetune", "--data", "f.moue", "--from", "A", "--out", "X"], &["vit.dim=32"]), 2, &["vit.dim (16 there, 32 here)"]);
    assert!(!b.path("X").exists());
    // A resume by another command must not turn a finished run into something else.
    let before = fs::read(b.path("B/events.jsonl")).unwrap();
    b.refused(&["pretrain", "--resume", "--out", "B", "--device", "cpu"], 2, &["B is a run of finetune/pll"]);
    b.refused(&["finetune", "--resume", "--out", "B", "--set", "vit.dim=32"], 2, &["--set"]);
    b.refused(&train(&["finetune", "--data", "f.moue", "--out", "B"], &[]), 2, &["--resume"]);
    assert!(before == fs::read(b.path("B/events.jsonl")).unwrap());
}

#[test]
fn the_seed_decides_and_workers_do_not() {
    let b = Bench::new();
    let run = |out, seed, workers| {
        b.done(&train(&["finetune", "--data", "f.moue", "--out", out, "--seed", seed], &[workers]));
        b.results(out)
    };
    let first = run("a", "5", "run.workers=1");
    assert_eq!(first.0.len(), 6);
    assert!(first == run("b", "5", "run.workers=1"), "the same command gave another result");
    // To the last bit, in files that two people can compare by their hash.
    let saved = |run: &str| {
        let mut hashes = State::read(&b.path(run).join("checkpoints/finetune-pll-00000006.ckpt")).unwrap().sha256;
        // burn writes the moments in another order each time.
        hashes.remove("optimizer.bpk");
        hashes
    };
    assert!(saved("a") == saved("b") && saved("a").contains_key(MODEL), "the same command left other bytes");
    assert!(first == run("c", "5", "run.workers=3"), "the number of workers changed the result");
    assert!(first != run("d", "6", "run.workers=1"), "the seed changes nothing");
}

/// Epochs enough that a run lasts a few seconds.
const LONG: &[&str] = &["finetune.epochs=40"];

#[test]
#[cfg(unix)]
fn an_interrupted_run_ends_like_an_uninterrupted_one() {
    let b = Bench::new();
    // The labels file is not what the pack would give, and the encoder not what the seed would: a resume must know both.
    b.done(&["labels", "f.moue", "--set", "labels.k=3", "--set", "labels.min_votes=1", "--out", "l.csv"]);
    b.done(&train(&["pretrain", "--data", "f.moue", "--out", "A", "--seed", "9"], &[]));
    let finetune = |out| train(&["finetune", "--data", "f.moue", "--from", "A", "--labels", "l.csv", "--out", out], LONG);
    b.done(&finetune("whole"));
    let whole = b.results("whole");

    let (child, lines) = b.until(&finetune("cut"), |line| line.starts_with("moue finetune/pll step=") && line.contains(" loss="));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let (code, said) = wait(child);
    let printed: Vec<String> = lines.iter().collect();
    assert_eq!(code, Some(0), "{said}");
    assert!(printed.iter().any(|l| l.contains("moue finetune --resume --out cut")), "{printed:#?}");
    assert!(matches!(b.events("cut").last().unwrap().body, Body::RunFinished { outcome: Outcome::Interrupted, .. }));
    assert!(!b.path("cut/labels.csv").exists(), "the run was over before it was interrupted");

    // It goes on with the candidate sets that it began with, or not at all.
    let labels = fs::read(b.path("l.csv")).unwrap();
    b.done(&["labels", "f.moue", "--out", "l.csv"]);
    b.refused(&["finetune", "--resume", "--out", "cut"], 2, &["l.csv is not what the run began with"]);
    fs::write(b.path("l.csv"), labels).unwrap();
    // The device is the run's own as well.
    b.done(&["finetune", "--resume", "--out", "cut", "--no-tui"]);
    assert!(b.results("cut") == whole, "a resumed run ends otherwise");
    let changes = Manifest::read(&RunFolder::open(&b.path("cut")).unwrap()).unwrap().changes;
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
#[cfg(unix)]
fn a_killed_run_resumes_even_from_the_checkpoint_before_the_last() {
    let b = Bench::new();
    let finetune = |out| train(&["finetune", "--data", "f.moue", "--out", out], LONG);
    b.done(&finetune("whole"));
    let whole = b.results("whole");
    let told = |run: &str| -> Vec<(String, u64, Option<f64>)> {
        let events = b.events(run).into_iter();
        events.filter_map(|e| if let Body::Scalars(s) = &e.body { Some((e.place(), e.step, s.get("loss"))) } else { None }).collect()
    };
    let scalars = told("whole");
    let ends = |run: &str| -> Vec<String> {
        b.events(run).iter().filter(|e| matches!(e.body, Body::StageFinished { .. })).map(Event::place).collect()
    };
    let cases = [("early", "finetune/pll"), ("late", "baseline/ce"), ("torn", "finetune/pll"), ("untold", "finetune/pll")];
    for (out, stage) in cases {
        let place = format!("moue {stage} step=");
        let third = |line: &str| line.starts_with(&place) && line.contains("checkpoint=") && !line.contains("=3/") && !line.contains("=6/");
        let (mut child, _lines) = b.until(&finetune(out), third);
        child.kill().unwrap();
        child.wait().unwrap();
        if out == "torn" {
            let mut kept: Vec<PathBuf> = fs::read_dir(b.path(out).join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
            kept.retain(|p| p.extension().is_some_and(|e| e == "ckpt"));
            kept.sort();
            assert!(kept.len() >= 2, "{kept:?}");
            let newest = kept.last().unwrap();
            let bytes = fs::read(newest).unwrap();
            fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
        }
        if out == "untold" {
            // As if the kill had come between the newest checkpoint and its event, with the events of its epoch still in memory.
            let log = b.path(out).join("events.jsonl");
            let text = fs::read_to_string(&log).unwrap();
            let last = text.rfind("\"checkpoint\":").unwrap();
            let before = text[..last].rfind("\"checkpoint\":").unwrap();
            fs::write(&log, &text[..(before + last) / 2]).unwrap();
        }
        let left = b.path(out).join("checkpoints/.moue-left.part");
        fs::write(&left, "what the killed process had begun").unwrap();
        let said = b.done(&["finetune", "--resume", "--out", out, "--device", "cpu", "--no-tui"]);
        assert_eq!(said.contains("using the one before it"), out == "torn", "{said}");
        assert!(b.results(out) == whole && told(out) == scalars, "{out}: a resumed run ends otherwise");
        // What was done before is not told again.
        assert_eq!(ends(out), ["finetune/pll", "baseline/ce"], "{out}");
        assert!(!left.exists());
    }
    // Killed before the first event.
    fs::remove_dir_all(b.path("early")).unwrap();
    fs::create_dir_all(b.path("early/checkpoints")).unwrap();
    fs::copy(b.path("whole/manifest.json"), b.path("early/manifest.json")).unwrap();
    b.done(&["finetune", "--resume", "--out", "early", "--device", "cpu", "--no-tui"]);
    assert!(b.results("early") == whole && told("early") == scalars);
    // Another pack of the same shape is not what the run began with.
    b.done(&["data", "generate", "--out", "f.moue", "--train", "96", "--valid", "32", "--test", "32", "--size", "32", "--seed", "3"]);
    b.refused(&["finetune", "--resume", "--out", "late", "--device", "cpu"], 2, &["f.moue", "began with"]);
}

#[test]
fn mixed_precision_repeats_resumes_and_is_near_single() {
    let b = Bench::new();
    let finetune = |out, precision| [train(&["finetune", "--data", "f.moue", "--out", out], LONG), vec!["--precision", precision]].concat();
    b.done(&finetune("whole", "mixed"));
    let third = |line: &str| line.starts_with("moue finetune/pll step=9/") && line.contains("checkpoint=");
    let (mut child, _lines) = b.until(&finetune("cut", "mixed"), third);
    child.kill().unwrap();
    child.wait().unwrap();
    b.done(&["finetune", "--resume", "--out", "cut", "--device", "cpu", "--no-tui"]);
    assert!(b.results("cut") == b.results("whole"), "a resumed run ends otherwise");

    let losses = |run: &str| -> Vec<f64> {
        let events = b.events(run).into_iter().filter(|e| e.stage == Stage::Finetune);
        events.filter_map(|e| if let Body::Scalars(s) = e.body { s.get("loss") } else { None }).collect()
    };
    b.done(&finetune("single", "f32"));
    let (single, mixed) = (losses("single"), losses("whole"));
    assert!(single != mixed, "nothing was rounded");
    assert!(single.iter().zip(&mixed).take(6).all(|(a, b)| (a - b).abs() < 0.02 * a), "{single:?} {mixed:?}");
    let precision = |run: &str| {
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(b.path(run).join("manifest.json")).unwrap()).unwrap();
        manifest["device"]["precision"].as_str().unwrap().to_string()
    };
    assert_eq!((precision("whole").as_str(), precision("single").as_str()), ("mixed", "f32"));
    b.refused(&finetune("X", "half"), 2, &["run.precision", "mixed"]);
}

/// The batch is what it was; how much of it is worked on at once is found out.
#[test]
fn a_batch_fits_by_itself() {
    let b = Bench::new();
    let auto = [train(&["finetune", "--data", "f.moue", "--out", "auto"], &[]), vec!["--batch", "auto"]].concat();
    assert!(b.done(&auto).contains("32 faces a step, 32 at once"));
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "plain"], &[]));
    assert!(b.results("auto") == b.results("plain"), "all of it fits, so nothing should differ");
    b.done(&[train(&["finetune", "--data", "f.moue", "--out", "sixteen"], &[]), vec!["--batch", "16"]].concat());
    assert!(b.events("sixteen").iter().any(|e| matches!(e.body, Body::StageStarted { batch: 16, .. })));
    let refused = b.moue(&[train(&["finetune", "--data", "f.moue", "--out", "X"], &[]), vec!["--batch", "many"]].concat());
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("auto"), "{}", text(&refused.stderr));
}

#[test]
fn a_resnet_learns_resumes_and_predicts() {
    let b = Bench::new();
    let network = ["encoder.backbone=resnet18", "resnet.width=8", "finetune.drop_path=0.05", "finetune.layer_decay=1"];
    // The same faces again and again, so that a network that learns is soon seen to.
    let faces = ["finetune.epochs=10", "finetune.crop_min=1", "finetune.flip=false", "finetune.erase=0"];
    let resnet = [network, faces].concat();
    let finetune = |out| train(&["finetune", "--data", "f.moue", "--out", out], &resnet);
    b.done(&finetune("whole"));
    for stage in [Stage::Finetune, Stage::Baseline] {
        let events = b.events("whole").into_iter().filter(|e| e.stage == stage);
        let losses: Vec<f64> = events.filter_map(|e| if let Body::Scalars(s) = e.body { s.get("loss") } else { None }).collect();
        assert_eq!(losses.len(), 30);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[27..]) < 0.9 * mean(&losses[..3]), "{stage:?}: {losses:?}");
    }

    let third = |line: &str| line.starts_with("moue finetune/pll step=9/") && line.contains("checkpoint=");
    let (mut child, _lines) = b.until(&finetune("cut"), third);
    child.kill().unwrap();
    child.wait().unwrap();
    b.done(&["finetune", "--resume", "--out", "cut", "--device", "cpu", "--no-tui"]);
    assert!(b.results("cut") == b.results("whole"), "a resumed run ends otherwise");

    let said = b.done(&["evaluate", "whole", "--split", "test", "--json", "--device", "cpu"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let on_record = b.results("whole").0.into_iter().rev().find_map(|(place, _, body)| match body {
        Body::Evaluation { split: Split::Test, accuracy, .. } if place == "finetune/pll" => Some(accuracy),
        _ => None,
    });
    assert_eq!(json["accuracy"].as_f64(), on_record);
    image::RgbImage::from_fn(40, 50, |x, y| image::Rgb([x as u8 * 6, y as u8 * 5, 90])).save(b.path("picture.png")).unwrap();
    assert!(b.done(&["predict", "whole", "picture.png", "--device", "cpu"]).contains("picture.png"));

    // Pretraining is the transformer's.
    let vit = "encoder.backbone is resnet18";
    b.refused(&train(&["pretrain", "--data", "f.moue", "--out", "X"], &resnet), 2, &[vit, "moue finetune"]);
    b.refused(&train(&["finetune", "--data", "f.moue", "--from", "whole", "--out", "X"], &resnet), 2, &[vit, "leave out --from"]);
    b.refused(&train(&["finetune", "--data", "f.moue", "--out", "X"], &["resnet.width=5"]), 2, &["resnet.width = 5"]);
    assert!(!b.path("X").exists());
}

#[test]
fn wrong_requests_leave_nothing_behind() {
    let b = Bench::new();
    fs::write(b.path("bad.toml"), "[finetune]\nepochs = 2\nbacth = 4\n").unwrap();
    let pack = fs::read(b.path("f.moue")).unwrap();
    fs::write(b.path("cut.moue"), &pack[..pack.len() / 2]).unwrap();
    b.done(&["labels", "f.moue", "--out", "l.csv"]);
    let labels = fs::read_to_string(b.path("l.csv")).unwrap();
    let mut lines: Vec<&str> = labels.lines().collect();
    let (id, class) = ("nobody,neutral,neutral,0,clear,,,", format!("{},neutral,joy,0,clear,,,", lines[3].split(',').next().unwrap()));
    fs::write(b.path("class.csv"), [lines[..3].join("\n"), class].join("\n")).unwrap();
    lines[1] = id;
    fs::write(b.path("id.csv"), lines.join("\n")).unwrap();
    fs::create_dir(b.path("empty")).unwrap();

    let data = |pack| train(&["finetune", "--data", pack, "--out", "X"], &[]);
    let with = |more: &[&'static str]| [data("f.moue"), more.to_vec()].concat();
    b.refused(&with(&["--config", "bad.toml"]), 2, &["bad.toml, line 3", "Did you mean `finetune.batch`"]);
    b.refused(&with(&["--config", "none.toml"]), 2, &["none.toml"]);
    b.refused(&with(&["--preset", "ferplus-cup"]), 2, &["Did you mean `ferplus-cpu`"]);
    b.refused(&with(&["--set", "vit.dim"]), 2, &["key=value"]);
    b.refused(&with(&["--set", "vit.dim=wide"]), 2, &["vit.dim", "usize"]);
    b.refused(&with(&["--set", "revise.theta=1.5"]), 2, &["revise.theta", "[0, 1]"]);
    b.refused(&["finetune", "--data", "f.moue", "--out", "X", "--device", "vulkan:99"], 2, &["vulkan:99"]);
    b.refused(&data("none.moue"), 2, &["none.moue"]);
    b.refused(&data("l.csv"), 2, &["l.csv", "no moue pack"]);
    b.refused(&data("cut.moue"), 1, &["cut.moue", "cut short"]);
    b.refused(&with(&["--labels", "id.csv"]), 1, &["id.csv, line 2", "nobody"]);
    b.refused(&with(&["--labels", "class.csv"]), 1, &["class.csv, line 4", "joy"]);
    b.refused(&["finetune", "--resume", "--out", "empty", "--device", "cpu"], 2, &["empty"]);
    // clap's own refusals are longer.
    let output = b.moue(&["finetune", "--data", "f.moue", "--out", "X", "--device", "nonsense"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.starts_with("error: ") && said.contains("vulkan:N"), "{said}");

    let mut left: Vec<String> = fs::read_dir(b.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["bad.toml", "class.csv", "cut.moue", "empty", "f.moue", "id.csv", "l.csv"]);
    assert_eq!(fs::read_dir(b.path("empty")).unwrap().count(), 0);
}

/// A full disk, in a mount namespace of its own.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let allowed = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs -o size=300k tmpfs \"$0\""]).arg(folder.path()).output();
    if !allowed.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: this machine allows no mount namespace");
        return;
    }
    let tiny: Vec<String> = TINY.iter().map(|s| format!("--set {s}")).collect();
    let demo = format!("pretrain --data demo --out \"$0/run\" --device cpu --no-tui {}", tiny.join(" "));
    for work in ["data generate --out \"$0/x.moue\" --train 2000", demo.as_str()] {
        let script = format!("mount -t tmpfs -o size=300k tmpfs \"$0\" && \"$1\" {work}; echo code=$? left=$(ls -A \"$0\" | wc -l)");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", &script]).arg(folder.path()).arg(env!("CARGO_BIN_EXE_moue"));
        let output = command.output().unwrap();
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(said.trim_end(), "code=1 left=0", "{error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1 && error.contains("No space left"), "{error}");
    }
}

#[test]
fn settings_explain_themselves() {
    let b = Bench(tempfile::tempdir().unwrap());
    let said = b.done(&["config", "explain", "revise.theta", "--preset", "ferplus-cpu"]);
    for part in ["revise.theta = ", "from:", "meaning: Threshold"] {
        assert!(said.contains(part), "{said}");
    }
    let said = b.done(&["config", "explain", "vit.dim", "--set", "vit.dim=96"]);
    assert!(said.contains("vit.dim = 96") && said.contains("--set on the command line (default 768)"), "{said}");
    let shown = b.done(&["config", "show", "--preset", "demo"]);
    let listed = b.done(&["config", "list"]);
    for key in moue::config::KEYS {
        assert!(shown.contains(&format!("{} = ", key.name)) && listed.contains(&format!("  {} = ", key.name)), "{}", key.name);
    }
    assert!(shown.contains("# preset demo") && shown.contains("# default"));
    moue::config::preset_names().for_each(|name| assert!(listed.lines().next().unwrap().contains(name), "{name}"));
    assert_eq!(b.done(&["config", "preset", "demo"]), moue::config::preset_text("demo").unwrap());
    b.refused(&["config", "explain", "revise.thetta"], 2, &["revise.theta"]);
}
