//! A folder to work in, the binary, and a network so small that it trains in seconds: shared by the tests of the training commands.

// Each test program uses its own part of this.
#![allow(dead_code)]

use moue::run::{Body, Event, EventReader, RunFolder};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub const TINY: &[&str] = &[
    "data.size=32",
    "data.channels=1",
    "vit.stem=patch",
    "vit.dim=16",
    "vit.heads=2",
    "vit.depth=1",
    "decoder.heads=2",
    "decoder.layers=1",
    "pretrain.epochs=1",
    "pretrain.batch=32",
    "finetune.epochs=2",
    "finetune.batch=32",
    // Large enough that two epochs change predictions.
    "finetune.lr=3e-3",
    "finetune.warmup=0",
    "run.threads=2",
    "run.log_every=1",
];

pub const PLACE: [&str; 3] = ["--device", "cpu", "--no-tui"];
/// Longer than any run here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Every evaluation with its place and step; labels, history and predictions as bytes.
pub type Results = (Vec<(String, u64, Body)>, [Vec<u8>; 3]);

pub struct Bench(pub tempfile::TempDir);

impl Bench {
    /// A folder with a small pack, `f.moue`.
    pub fn new() -> Self {
        Self::with_faces("96", "32")
    }

    /// The same with so many training faces, and so many in either other split.
    pub fn with_faces(train: &str, others: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.done(&["data", "generate", "--out", "f.moue", "--train", train, "--valid", others, "--test", others, "--size", "32"]);
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moue"));
        command.current_dir(self.0.path()).args(args);
        command
    }

    pub fn moue(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs a command that must work; its standard output.
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.moue(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that must be refused: its exit code, one line on stderr that holds every part, no panic.
    pub fn refused(&self, args: &[&str], code: i32, parts: &[&str]) {
        let output = self.moue(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{args:?}: {said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "{args:?}: no `{part}` in {said}"));
    }

    pub fn events(&self, run: &str) -> Vec<Event> {
        EventReader::open(&RunFolder::open(&self.path(run)).unwrap()).unwrap().map(Result::unwrap).collect()
    }

    /// What a run found out: every evaluation with its place, the labels, their history, and what the model says about each face.
    pub fn results(&self, run: &str) -> Results {
        let scores = self.events(run).into_iter().filter(|e| matches!(e.body, Body::Evaluation { .. }));
        let files = ["labels.csv", "history/pll.bin", "predictions/pll.csv"];
        let scores = scores.map(|e| (e.place(), e.step, e.body)).collect();
        (scores, files.map(|file| fs::read(self.path(run).join(file)).unwrap_or_else(|e| panic!("{run}/{file}: {e}"))))
    }

    /// Starts a command and waits until it has printed a line that `enough` accepts.
    pub fn until(&self, args: &[&str], enough: impl Fn(&str) -> bool) -> (Child, mpsc::Receiver<String>) {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if enough(&line) {
                return (child, lines);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("{args:?} never came so far");
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A training command on the tiny network; later settings win.
pub fn train<'a>(words: &[&'a str], settings: &[&'a str]) -> Vec<&'a str> {
    let set = TINY.iter().chain(settings).flat_map(|&s| ["--set", s]);
    words.iter().copied().chain(PLACE).chain(set).collect()
}
