//! The dashboard over a run of its own process, on a real terminal: it comes, it steers, it goes, and whatever happens the terminal is given back.
#![cfg(all(feature = "train", target_os = "linux"))]

mod bench;
mod terminal;

use bench::{Bench, TINY};
use moue::dashboard::live::Live;
use moue::dashboard::theme::{Theme, ThemeName};
use moue::run::{At, Body, Control, EventReader, EventWriter, RunFolder, Status};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use terminal::{Terminal, wait};

/// A training that lasts until it is stopped.
fn long(run: &str) -> String {
    let set: Vec<String> = TINY.iter().chain(&["finetune.epochs=9999"]).map(|s| format!("--set {s}")).collect();
    format!("{} finetune --data f.moue --out {run} --device cpu {}", env!("CARGO_BIN_EXE_moue"), set.join(" "))
}

fn bodies(bench: &Bench, run: &str) -> Vec<Body> {
    bench.events(run).into_iter().map(|e| e.body).collect()
}

#[test]
fn keys_steer_the_run() {
    let bench = Bench::new();
    let mut terminal = Terminal::start(&bench.path(""), "keys", &long("keys"));
    ["\x1b[?1049h", "keys", "running", "candidates"].iter().for_each(|what| terminal.sees(what));
    terminal.press("P");
    terminal.sees("paused");
    let steps = || bench.events("keys").last().map(|e| e.step);
    let folder = RunFolder::open(&bench.path("keys")).unwrap();
    // It holds still, and says so to whoever else watches.
    wait("the pause", || matches!(bodies(&bench, "keys").last(), Some(Body::Phase { elapsed: None, .. })));
    let before = steps();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(steps(), before);
    terminal.press("PS");
    wait("the checkpoint", || bodies(&bench, "keys").iter().any(|b| matches!(b, Body::Checkpoint { .. })));
    // So small a network stops before there is a frame that says so; `dashboard::tests` looks at that frame.
    terminal.press("q");
    let (status, written) = terminal.ends();
    let after = written.rsplit("\x1b[?1049l").next().unwrap();
    assert!(status.success() && after.contains("stopped; go on with: moue finetune --resume --out keys"), "{after}");
    let summary = moue::run::RunSummary::read(&folder).unwrap();
    assert_eq!(summary.status(Duration::ZERO), Status::Interrupted);
}

#[test]
fn signals_save_and_a_second_one_ends_at_once() {
    let bench = Bench::new();
    for (run, signals) in [("once", 1), ("twice", 2)] {
        let terminal = Terminal::start(&bench.path(""), run, &long(run));
        ["running", "candidates"].iter().for_each(|what| terminal.sees(what));
        wait("a step", || bench.events(run).iter().any(|e| e.step > 3));
        (0..signals).for_each(|_| terminal.signal("TERM"));
        let (status, _) = terminal.ends();
        // The second may come too late to cut anything short.
        assert!(status.success() || signals == 2 && status.code() == Some(130), "{run}: {status}");
        if signals == 1 {
            assert!(bodies(&bench, run).iter().any(|b| matches!(b, Body::Checkpoint { .. })));
        }
    }
}

/// A connection that breaks takes the terminal, not the run.
#[test]
fn a_terminal_that_goes_away_stops_nothing() {
    let bench = Bench::new();
    let command = long("alone").replace("9999", "30");
    let mut terminal = Terminal::start(&bench.path(""), "alone", &command);
    terminal.sees("running");
    terminal.script.kill().unwrap();
    terminal.script.wait().unwrap();
    wait("the end of the run", || matches!(bodies(&bench, "alone").last(), Some(Body::RunFinished { .. })));
    let summary = moue::run::RunSummary::read(&RunFolder::open(&bench.path("alone")).unwrap()).unwrap();
    assert_eq!(summary.status(Duration::ZERO), Status::Completed);
}

/// Names the folder in which a test of this program is to play the command in the terminal, and not the test around it.
const INSIDE: &str = "MOUE_LIVE_FOLDER";

/// Runs the test called `name` once more, in a terminal, where [`inside`] does its part.
fn again(root: &Path, name: &str) -> Terminal {
    let own = std::env::current_exe().unwrap();
    Terminal::start(root, name, &format!("env {INSIDE}=. {} --exact --nocapture {name}", own.display()))
}

/// In the terminal: shows a run while `then` happens. False outside of it.
fn inside(then: impl FnOnce()) -> bool {
    let Some(folder) = std::env::var_os(INSIDE) else { return false };
    let folder = RunFolder::create(&Path::new(&folder).join("run")).unwrap();
    let live = Live::open(Theme::new(ThemeName::Dark, false), None, Control::default()).unwrap();
    let writer = EventWriter::create(&folder, folder.lock().unwrap(), Vec::new()).unwrap();
    let prints = live.prints();
    let attached = prints.attach(writer.sender());
    live.show(&folder);
    writer.sender().emit(&At::run(), Body::RunStarted { command: "made up".into(), version: "0".into() });
    then();
    std::thread::sleep(Duration::from_millis(500));
    drop((attached, live));
    writer.finish().unwrap();
    true
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let forced = || {
        std::thread::sleep(Duration::from_millis(500));
        panic!("this was forced");
    };
    if inside(forced) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (_, written) = again(root.path(), "a_panic_gives_the_terminal_back").ends();
    let (during, after) = written.rsplit_once("\x1b[?1049l").unwrap();
    assert!(during.contains("\x1b[?1049h") && after.contains("this was forced"), "{after}");
    assert!(!after.contains("\x1b[38"), "the dashboard goes on drawing: {after}");
}

#[test]
fn what_libraries_print_becomes_part_of_the_run() {
    let printed = || {
        // Past what the test harness catches.
        writeln!(std::io::stdout(), "a driver says hello").unwrap();
        writeln!(std::io::stderr(), "and warns").unwrap();
    };
    if inside(printed) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    again(root.path(), "what_libraries_print_becomes_part_of_the_run").ends();
    let folder = RunFolder::open(&root.path().join("run")).unwrap();
    let said: Vec<String> = EventReader::open(&folder)
        .unwrap()
        .filter_map(|e| match e.unwrap().body {
            Body::Message { text, .. } => Some(text),
            _ => None,
        })
        .collect();
    assert!(said.contains(&"printed: a driver says hello".into()) && said.contains(&"printed: and warns".into()), "{said:?}");
}
