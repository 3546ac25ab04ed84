//! `moue runs` as a user meets it: the binary on run folders that the library wrote.

use moue::dataset::Split;
use moue::dataset::leaks::Leak;
use moue::run::checkpoint::{Checkpoint, State};
use moue::run::manifest::{Data, Setting};
use moue::run::{At, Body, EventWriter, Manifest, Outcome, RunFolder, Scalars, Stage, progress};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn moue(args: &[&str], root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).args(args).current_dir(root).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

fn evaluation(split: Split, accuracy: f64) -> Body {
    let confusion = vec![vec![6, 4], vec![3, 7]];
    Body::Evaluation {
        split,
        accuracy,
        mean_recall: accuracy - 0.1,
        per_class: vec![Some(0.6), Some(0.7)],
        confusion,
        macro_f1: None,
        calibration_error: None,
        loss: Some(1.0),
    }
}

fn write_run(root: &Path, name: &str, outcome: Option<Outcome>) -> RunFolder {
    let folder = RunFolder::create(&root.join("runs").join(name)).unwrap();
    let mut manifest = Manifest::new(vec!["moue".into(), "demo".into()], 7);
    manifest.settings.set("finetune.epochs", Setting { value: 20.into(), origin: "flag".into() });
    manifest.settings.set("finetune.batch", Setting { value: 64.into(), origin: "default".into() });
    manifest.device = serde_json::json!({"name": "A \u{1b}[31mGPU"});
    manifest.changes = vec!["threads from 2 to 3".into(), "device: driver from 1.2 to 1.3".into()];
    manifest.data = Some(Data {
        pack: "faces.pack".into(),
        pack_hash: "0123".into(),
        protocol: "two".into(),
        protocol_hash: "4567".into(),
        classes: vec!["happiness".into(), "neutral".into()],
        leaks: Some(vec![Leak { from: Split::Test, to: Split::Train, rows_from: 3, rows_to: 2, pairs: 4 }]),
    });
    manifest.write(&folder).unwrap();
    let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![progress::log(&folder).unwrap()]).unwrap();
    let sender = writer.sender();
    sender.emit(&At::run(), Body::RunStarted { command: "demo".into(), version: "0.1.0".into() });
    let stage = At::stage(Stage::Finetune, "pll");
    sender.emit(&stage, Body::StageStarted { steps: 80, epochs: 2.0, batch: 64, faces: 2560 });
    for (step, loss, accuracy) in [(40, 0.5, 0.75), (80, f64::NAN, 0.625)] {
        let at = stage.step(step, step as f64 / 40.0);
        sender.emit(&at, Body::Scalars(Scalars::from([("loss", loss), ("lr", 1e-3)])));
        sender.emit(&at, evaluation(Split::Valid, accuracy));
        sender.emit(&at, Body::Confidence { histogram: vec![0; 20], resolved: step, ambiguous: 100, flips: 1, recovered: Some(0.9) });
    }
    let end = stage.step(80, 2.0);
    sender.emit(&end, evaluation(Split::Test, 0.5));
    sender.emit(&end, Body::StageFinished { elapsed: 1.0 });
    if let Some(outcome) = outcome {
        sender.emit(&At::run(), Body::RunFinished { outcome, message: String::new() });
    }
    writer.finish().unwrap();
    folder
}

#[test]
fn the_list_tells_how_runs_went() {
    let root = tempfile::tempdir().unwrap();
    assert!(text(&moue(&["runs"], root.path()).stderr).contains("no runs in runs"));
    write_run(root.path(), "demo-1", Some(Outcome::Completed));
    write_run(root.path(), "other", None);
    let damaged = write_run(root.path(), "wreck", None);
    fs::write(damaged.events(), "{}\n").unwrap();
    fs::create_dir(root.path().join("runs/empty")).unwrap();

    let output = moue(&["runs"], root.path());
    let (list, warnings) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{warnings}");
    let rows: Vec<Vec<&str>> = list.lines().map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows.len(), 4, "{list}");
    assert_eq!(rows[1][..8], ["d", "demo-1", "completed", "finetune/pll", "75.00 %", "62.50 %", "50.00 %", "90.00 %"], "{list}");
    assert_eq!(rows[2][2], "running");
    assert_eq!(rows[3][..3], ["w", "wreck", "damaged"]);
    assert!(warnings.contains("events.jsonl:1:") && !warnings.contains("panicked"), "{warnings}");
    // What a manifest says does not reach the terminal as control codes.
    assert!(list.contains("A  [31mGPU") || list.contains("A [31mGPU"), "{list}");
    assert!(!list.contains('\u{1b}'));
    assert_eq!(text(&moue(&["runs", root.path().join("runs").to_str().unwrap()], Path::new("/")).stdout), list);
}

#[test]
fn one_run_in_full() {
    let root = tempfile::tempdir().unwrap();
    let folder = write_run(root.path(), "demo-1", Some(Outcome::Completed));
    let state = State { stage: "finetune/pll".into(), step: 80, steps: 80, parts: Some(4), ..State::default() };
    Checkpoint::new(state, Vec::new()).write(&folder.checkpoints().join("finetune-pll-00000080.ckpt")).unwrap();
    let shown = text(&moue(&["runs", "show", "d"], root.path()).stdout);
    for part in [
        "status     completed",
        "command    moue demo",
        "seed       7",
        "changed    by a resume: threads from 2 to 3\nchanged    by a resume: device: driver from 1.2 to 1.3\n",
        "protocol   two (4567)",
        "classes    happiness neutral",
        "leaks      3 test faces have a pixel-identical copy among the training faces",
        "finetune.epochs = 20  (flag)",
        "1 at their defaults",
        "finetune/pll  step 80/80  epoch 2.0/2  finished",
        "batch 64  faces 2560\n  at once    16 faces: the device had no memory for more\n",
        "best valid accuracy 75.00 %  mean recall 65.00 %  (epoch 1.0)",
        "loss NaN",
        "80/100 decided (80.00 %)  recovered 90.00 %",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("finetune.batch"));
    assert!(text(&moue(&["runs", "show", "demo-1", "--all"], root.path()).stdout).contains("finetune.batch = 64  (default)"));

    let csv = moue(&["runs", "export", "d", "--csv"], root.path()).stdout;
    assert_eq!(csv, fs::read(folder.metrics()).unwrap());
    let rows: Vec<String> = text(&csv).lines().map(String::from).collect();
    assert_eq!(rows.len(), 1 + 7, "{rows:#?}");
    assert!(rows[0].starts_with("seconds,stage,label,step,epoch,kind,loss,accuracy"));
    assert!(rows[4].contains(",finetune,pll,80,2,train,NaN,"), "{}", rows[4]);
    moue(&["runs", "export", "d", "--csv", "--out", "m.csv"], root.path());
    assert_eq!(fs::read(root.path().join("m.csv")).unwrap(), csv);

    let log = fs::read_to_string(folder.log()).unwrap();
    assert!(log.contains("moue finetune/pll step=80/80 epoch=2.0/2 valid acc=0.6250 mean=0.5250 loss=1.0000\n"), "{log}");
}

#[test]
fn wrong_requests_are_one_line_and_exit_2() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), "a-1", None);
    write_run(root.path(), "a-2", None);
    for (args, says) in [(["runs", "show", "a"], "a-1, a-2"), (["runs", "show", "b"], "no run `b`")] {
        let output = moue(&args, root.path());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("error: ") && error.contains(says) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), "demo-1", Some(Outcome::Completed));
    for args in [&["runs"][..], &["runs", "show", "d"], &["runs", "export", "d", "--csv"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moue"));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = command.args(args).current_dir(root.path()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(child.wait().unwrap().success() && errors.is_empty(), "{args:?}: {errors}");
    }
}
