//! The dashboard over a run of its own process, on a real terminal: it comes, it steers, it goes, and whatever happens the terminal is given back.
#![cfg(all(feature = "train", target_os = "linux"))]

mod bench;
mod terminal;

use bench::{Bench, TINY};
use moue::dashboard::live::Live;
use moue::dashboard::theme::{Theme, ThemeName};
use moue::run::{At, Body, Control, EventReader, EventWriter, RunFolder, Status, Supervision};
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
    terminal.press("q");
    terminal.sees("stopping");
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

/// This very program again, as the command in the terminal: the named test below, which is not run otherwise.
fn again(root: &Path, name: &str) -> Terminal {
    let own = std::env::current_exe().unwrap();
    Terminal::start(root, name, &format!("env MOUE_LIVE_FOLDER=. {} --exact --ignored --nocapture {name}", own.display()))
}

fn in_terminal(then: impl FnOnce(&Live)) {
    let folder = std::env::var_os("MOUE_LIVE_FOLDER").expect("only in a terminal of another test");
    let folder = RunFolder::create(&Path::new(&folder).join("run")).unwrap();
    let live = Live::open(Theme::new(ThemeName::Dark, false), None, Control::default()).unwrap();
    let writer = EventWriter::create(&folder, Supervision::default().sinks).unwrap();
    let prints = live.prints();
    let attached = prints.attach(writer.sender());
    live.show(&folder);
    writer.sender().emit(&At::run(), Body::RunStarted { command: "made up".into(), version: "0".into() });
    then(&live);
    drop((attached, live));
    writer.finish().unwrap();
}

#[test]
#[ignore = "run in a terminal by a_panic_gives_the_terminal_back"]
fn panics() {
    in_terminal(|_| {
        std::thread::sleep(Duration::from_millis(500));
        panic!("this was forced");
    });
}

#[test]
fn a_panic_gives_the_terminal_back() {
    let root = tempfile::tempdir().unwrap();
    let (_, written) = again(root.path(), "panics").ends();
    let (during, after) = written.rsplit_once("\x1b[?1049l").unwrap();
    assert!(during.contains("\x1b[?1049h") && after.contains("this was forced"), "{after}");
    assert!(!after.contains("\x1b[38"), "the dashboard goes on drawing: {after}");
}

#[test]
#[ignore = "run in a terminal by what_libraries_print_becomes_part_of_the_run"]
fn prints() {
    in_terminal(|_| {
        // Past what the test harness catches.
        use std::io::Write;
        writeln!(std::io::stdout(), "a driver says hello").unwrap();
        writeln!(std::io::stderr(), "and warns").unwrap();
        std::thread::sleep(Duration::from_millis(500));
    });
}

#[test]
fn what_libraries_print_becomes_part_of_the_run() {
    let root = tempfile::tempdir().unwrap();
    again(root.path(), "prints").ends();
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
