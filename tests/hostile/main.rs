//! Input is hostile: packs, runs, checkpoints, weights, pictures and tables come from strangers.
//!
//! A valid sample of every format is damaged in 500 ways, and what fuzzing found is tried again; nothing may panic, take more than five
//! seconds or more memory than the file is worth, or leave something half written. [`attacks`] are made by hand; [`program`] asks the binary
//! itself. What is done with an input stands in `tests/fuzz/targets.rs`, which the fuzz targets share.
//!
//! `MOUE_BLESS=1` writes the samples into `tests/fuzz/corpus`, for fuzzing to start from.

#[path = "../fuzz/targets.rs"]
mod targets;

mod attacks;
#[cfg(feature = "train")]
mod checkpoints;
mod memory;
mod mutate;
mod program;

use mutate::mutated;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use targets::samples::{self, Sample};

/// Mutations of each sample.
const MUTATIONS: u64 = 500;
/// The most that one input may take, less the time that a busy machine made it wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is being tried, by thread, and since when: for the watchdog.
static TRIED: Mutex<Vec<(std::thread::ThreadId, String, Instant)>> = Mutex::new(Vec::new());

/// Ends the program where an input takes for ever: a test that hangs would tell nobody which.
fn watch() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let tried = TRIED.lock().unwrap_or_else(|e| e.into_inner());
                if let Some((_, what, since)) = tried.iter().find(|(_, _, since)| since.elapsed() > 12 * PATIENCE) {
                    eprintln!("{what}: still at it after {} s", since.elapsed().as_secs());
                    std::process::exit(101);
                }
            }
        });
    });
}

/// How long this thread has waited for a processor so far; nothing on systems that do not tell.
fn waited() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(told.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Does what `what` names; panics, and everything that takes too long, are failures that say so.
pub fn tried<T>(what: &str, act: impl FnOnce() -> T) -> T {
    tried_within(PATIENCE, what, act)
}

/// The same with another bound.
pub fn tried_within<T>(patience: Duration, what: &str, act: impl FnOnce() -> T) -> T {
    watch();
    let (thread, start, waited_before) = (std::thread::current().id(), Instant::now(), waited());
    TRIED.lock().unwrap_or_else(|e| e.into_inner()).push((thread, what.to_string(), start));
    let done = catch_unwind(AssertUnwindSafe(act));
    TRIED.lock().unwrap_or_else(|e| e.into_inner()).retain(|(t, ..)| *t != thread);
    let took = start.elapsed().saturating_sub(waited() - waited_before);
    let value = done.unwrap_or_else(|panic| panic!("{what}: panicked: {}", moue::failure::panic_text(&*panic)));
    assert!(took < patience, "{what}: took {took:?}");
    memory::check(what);
    value
}

fn target(name: &str) -> fn(&[u8]) {
    targets::ALL.iter().find(|(known, _)| *known == name).unwrap().1
}

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// All samples of a target as they are, and damaged.
fn damaged(name: &str) {
    let samples: Vec<Sample> = samples::all().into_iter().filter(|s| s.target == name).collect();
    assert!(!samples.is_empty());
    let bytes: Vec<&[u8]> = samples.iter().map(|s| s.bytes.as_slice()).collect();
    let run = target(name);
    targets::prepare();
    for sample in &samples {
        if std::env::var_os("MOUE_BLESS").is_some() {
            fs::create_dir_all(corpus(name)).unwrap();
            let file = format!("sample-{}", sample.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
            fs::write(corpus(name).join(file), sample.input()).unwrap();
        }
        tried(&format!("{name}: {}", sample.name), || run(&sample.input()));
        let start = Instant::now();
        for number in 0..MUTATIONS {
            let input: Vec<u8> = sample.kind.into_iter().chain(mutated(sample.name, number, &sample.bytes, &bytes)).collect();
            tried(&format!("{name}: {}, mutation {number}", sample.name), || run(&input));
        }
        println!("{name}: {}: {MUTATIONS} mutations in {:.1} s", sample.name, start.elapsed().as_secs_f32());
    }
}

macro_rules! damaged {
    ($($test:ident: $target:literal;)*) => { $(#[test] fn $test() { damaged($target); })* };
}

damaged! {
    damaged_packs: "pack";
    damaged_runs: "events";
    damaged_checkpoints: "checkpoint";
    damaged_sources: "importers";
    damaged_weights: "weights";
    damaged_settings: "config";
}

/// Every sample is accepted as it is: otherwise its mutations would only try the first check.
#[test]
fn samples_are_valid() {
    let root = tempfile::tempdir().unwrap();
    let run = samples::write_run(root.path());
    moue::dataset::Pack::open(&run.path().join("f.moue")).unwrap().verify().unwrap();
    let summary = moue::run::RunSummary::read(&run).unwrap();
    assert_eq!((summary.stages.len(), summary.events, summary.skipped), (2, 16, 0));
    let audit = moue::audit::Audit::of(&run, moue::audit::Request { data: Some(&run.path().join("f.moue")), ..Default::default() });
    assert_eq!(audit.unwrap().findings.len(), 2);
    for sample in samples::all() {
        let path = root.path().join("sample");
        fs::write(&path, &sample.bytes).unwrap();
        match sample.name {
            "safetensors" | "pth" => {
                let file = moue::weights::TensorFile::open(&path).unwrap();
                assert!(file.shapes().keys().all(|name| file.read(name).is_ok()) && !file.shapes().is_empty());
            }
            "checkpoint" => assert!(moue::run::checkpoint::Checkpoint::read(&path).is_ok()),
            "png" | "jpeg" | "webp" | "bmp" | "pnm" => assert!(moue::dataset::picture::decode(&sample.bytes).is_ok(), "{}", sample.name),
            "config.toml" => assert!(moue::config::Resolved::default().with_file(&path).is_ok()),
            _ => {}
        }
    }
}

/// What fuzzing found worth keeping, and every input that once was a finding.
#[test]
fn the_corpus_is_replayed() {
    targets::prepare();
    for (name, run) in targets::ALL {
        let mut files: Vec<PathBuf> = fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let inputs: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let bytes: usize = inputs.iter().map(Vec::len).sum();
        assert!((1..=48).contains(&files.len()) && bytes <= 200_000, "{name}: {} files, {bytes} bytes", files.len());
        for (file, input) in files.iter().zip(&inputs) {
            tried(&file.display().to_string(), || run(input));
        }
    }
}
