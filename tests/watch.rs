//! `moue watch` and `moue replay` as a user meets them: the binary on run folders that the library wrote, without and with a terminal.

#[cfg(target_os = "linux")]
mod terminal;

use moue::dataset::Split;
use moue::run::event::VERSION;
use moue::run::{At, Body, EventWriter, Manifest, Outcome, RunFolder, Scalars, Stage};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
#[cfg(target_os = "linux")]
use terminal::Terminal;

fn moue(args: &[&str], root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).args(args).current_dir(root).env_remove("NO_COLOR").output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

fn write_run(root: &Path) -> RunFolder {
    let folder = RunFolder::create(&root.join("runs/demo-1")).unwrap();
    Manifest::new(vec!["moue".into(), "demo".into()], 7).write(&folder).unwrap();
    let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
    let sender = writer.sender();
    sender.emit(&At::run(), Body::RunStarted { command: "demo".into(), version: "0.1.0".into() });
    let stage = At::stage(Stage::Finetune, "pll");
    sender.emit(&stage, Body::StageStarted { steps: 80, epochs: 2.0, batch: 64, faces: 2560 });
    for step in 1..=80 {
        let at = stage.step(step, step as f64 / 40.0);
        sender.emit(&at, Body::Scalars(Scalars::from([("loss", 1.0 / step as f64), ("lr", 1e-3)])));
        if step % 40 == 0 {
            let body = Body::Evaluation {
                split: Split::Valid,
                accuracy: 0.5 + step as f64 / 400.0,
                mean_recall: 0.5,
                per_class: vec![Some(0.6), Some(0.7)],
                confusion: vec![vec![6, 4], vec![3, 7]],
                macro_f1: None,
                calibration_error: None,
                loss: Some(1.0),
            };
            sender.emit(&at, body);
        }
    }
    sender.emit(&At::run(), Body::RunFinished { outcome: Outcome::Completed, message: String::new() });
    writer.finish().unwrap();
    folder
}

#[test]
fn a_frame_is_printed_as_text_and_as_a_picture() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path());
    let output = moue(&["watch", "demo", "--snapshot", "120x40"], root.path());
    let frame = text(&output.stdout);
    assert!(output.status.success() && frame.lines().count() == 40, "{frame}{}", text(&output.stderr));
    assert!(frame.contains("demo-1") && frame.contains("completed") && frame.contains("70.0 %"), "{frame}");
    let then = text(&moue(&["watch", "demo", "--snapshot", "80x24", "--at", "40", "--ascii"], root.path()).stdout);
    assert!(then.contains("epoch 1.0/2") && then.contains("60.0 %") && !then.contains("70.0 %") && then.is_ascii(), "{then}");
    let output = moue(&["watch", "demo", "--svg", "frame.svg", "--theme", "light"], root.path());
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    let svg = fs::read_to_string(root.path().join("frame.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("<title>moue watch demo-1</title>") && svg.ends_with("</svg>\n"));
}

#[test]
fn what_is_damaged_is_told_and_the_rest_is_shown() {
    let root = tempfile::tempdir().unwrap();
    let folder = write_run(root.path());
    let whole = fs::read_to_string(folder.events()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let middle = [lines[..30].join("\n"), "{\"v\":101,".into(), lines[30..].join("\n")].join("\n") + "\n";
    let newer = whole.replace(&format!("\"v\":{VERSION},"), "\"v\":201,");
    for (log, says, step) in [
        (middle, "events.jsonl:31: damaged event", "step 28/80"),
        (newer, "version 2.1, this moue reads 1.x", "no stage has begun"),
        // A line that is still being written is not there yet.
        (lines[..30].join("\n"), "running", "step 27/80"),
        (lines[..30].join("\n").replace("scalars", "spectra") + "\n", "28 events of a newer moue are not shown", "step  0/80"),
    ] {
        fs::write(folder.events(), log).unwrap();
        let output = moue(&["watch", "demo", "--snapshot", "160x40"], root.path());
        let frame = text(&output.stdout);
        assert!(output.status.success() && frame.contains(says) && frame.contains(step), "{says}, {step}: {frame}");
    }
}

#[test]
fn wrong_requests_are_one_line_and_exit_2() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path());
    for (args, says) in [
        (&["watch", "nope", "--snapshot", "80x24"][..], "no run `nope`"),
        (&["watch", "demo"], "needs a terminal"),
        (&["replay", "demo"], "needs a terminal"),
        (&["watch", "demo", "--snapshot", "80x24", "--at", "81"], "no stage of the run came to step 81"),
        (&["watch", "demo", "--snapshot", "80x24", "--stage", "pretrain"], "the run has no stage pretrain"),
        (&["watch", "demo", "--snapshot", "80"], "not a size such as 120x40"),
        (&["watch", "demo", "--at", "40"], "--snapshot"),
    ] {
        let output = moue(args, root.path());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(says), "{args:?}: {}", text(&output.stderr));
    }
}

/// A frame comes, `q` or a signal ends it, and the terminal is as it was.
#[cfg(target_os = "linux")]
#[test]
fn a_real_terminal_is_given_back() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path());
    for how in ["key", "TERM", "INT"] {
        let mut terminal = Terminal::start(root.path(), how, &format!("{} watch demo", env!("CARGO_BIN_EXE_moue")));
        ["\x1b[?1049h", "demo-1", "completed"].iter().for_each(|what| terminal.sees(what));
        if how == "key" {
            terminal.press("?");
            terminal.sees("smoothing");
            terminal.press("xq");
        } else {
            terminal.signal(how);
        }
        assert!(terminal.ends().0.success(), "{how}");
    }
}

/// Nobody looks any more: what only looks ends.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_goes_away_ends_the_view() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path());
    let mut terminal = Terminal::start(root.path(), "gone", &format!("{} watch demo", env!("CARGO_BIN_EXE_moue")));
    terminal.sees("completed");
    let process = Path::new("/proc").join(terminal.pid());
    assert!(process.exists());
    terminal.script.kill().unwrap();
    terminal.script.wait().unwrap();
    terminal::wait("the end of the view", || !process.exists());
}
