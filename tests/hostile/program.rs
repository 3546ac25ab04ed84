//! The binary itself on damaged files: an exit code of its own, one line on standard error, and nothing half written.

use crate::mutate::mutated;
use crate::targets::samples::{self, Sample};
use crate::{memory, tried_within};
#[cfg(feature = "train")]
use moue::config::Resolved;
use moue::dataset::Pack;
#[cfg(feature = "train")]
use moue::weights::Card;
#[cfg(feature = "train")]
use moue::weights::file::{Named, write};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Mutations of each sample that the binary is asked about; in the process itself many more are tried.
const ASKED: u64 = 12;

/// The most that a command may take, which has to be started and waits as the machine does.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a sample's file goes in a run's folder, and the commands that read it. `OUT` is a file that the command writes.
type Asked = (&'static str, &'static str, &'static [&'static [&'static str]]);

/// Into a small encoder: the default one takes seconds to be made.
#[cfg(feature = "train")]
const SMALL_SAFETENSORS: [&str; 10] = small("w.safetensors");
#[cfg(feature = "train")]
const SMALL_PTH: [&str; 10] = small("w.pth");

#[cfg(feature = "train")]
const fn small(file: &'static str) -> [&'static str; 10] {
    ["import-weights", file, "--out", "OUT", "--set", "vit.dim=48", "--set", "vit.depth=1", "--set", "data.size=32"]
}

const ASKS: &[Asked] = &[
    (
        "pack",
        "run/f.moue",
        &[&["data", "info", "run/f.moue"], &["labels", "run/f.moue", "--out", "OUT"], &["data", "sheet", "run/f.moue", "--out", "OUT"]],
    ),
    (
        "events.jsonl",
        "run/events.jsonl",
        &[&["runs", "export", "run", "--dir", ".", "--csv", "--out", "OUT"], &["report", "run", "--dir", ".", "--out", "OUT"]],
    ),
    ("manifest.json", "run/manifest.json", &[&["runs", "show", "run", "--dir", "."], &["audit", "run", "--csv", "OUT"]]),
    (
        "history",
        "run/history/pll.bin",
        &[&["audit", "run", "--data", "run/f.moue", "--csv", "OUT"], &["report", "run", "--dir", ".", "--out", "OUT"]],
    ),
    ("predictions.csv", "run/predictions/pll.csv", &[&["audit", "run", "--data", "run/f.moue", "--sheet", "OUT"]]),
    ("labels.csv", "run/labels.csv", &[&["audit", "run", "--data", "run/f.moue", "--label-studio", "OUT"]]),
    (
        "media picture",
        "run/media/pretrain-2.png",
        &[&["report", "run", "--dir", ".", "--out", "OUT"], &["watch", "run", "--dir", ".", "--svg", "OUT"]],
    ),
    ("ferplus.zip", "f.zip", &[&["import", "ferplus", "f.zip", "--out", "OUT"]]),
    ("votes.csv", "source/votes.csv", &[&["import", "folder", "source", "--out", "OUT"]]),
    ("annotations.csv", "source/annotations.csv", &[&["import", "folder", "source", "--out", "OUT"]]),
    ("candidates.csv", "source/candidates.csv", &[&["import", "folder", "source", "--out", "OUT"]]),
    ("png", "source/votes/a.png", &[&["import", "folder", "source", "--out", "OUT"]]),
    (
        "config.toml",
        "c.toml",
        &[&["config", "show", "--config", "c.toml"], &["labels", "run/f.moue", "--config", "c.toml", "--out", "OUT"]],
    ),
    #[cfg(feature = "train")]
    ("safetensors", "w.safetensors", &[&SMALL_SAFETENSORS, &["predict", "w.safetensors", "run/media", "--device", "cpu"]]),
    #[cfg(feature = "train")]
    ("pth", "w.pth", &[&SMALL_PTH]),
];

/// Runs a command in `root`: it must end by itself, and say in one line why where it fails.
fn asked(what: &str, root: &Path, words: &[&str]) {
    let output = tried_within(PATIENCE, what, || {
        Command::new(env!("CARGO_BIN_EXE_moue")).args(words).current_dir(root).stdin(Stdio::null()).output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(1 | 2) => {
            let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
            assert!(errors == 1 && said.lines().last().unwrap().starts_with("error: "), "{what}: {said}");
        }
        other => panic!("{what}: ended with {other:?}: {said}"),
    }
    let out = root.join("OUT");
    assert_eq!(out.exists(), output.status.success() && words.contains(&"OUT"), "{what}: an output, although: {said}");
    if out.exists() {
        whole(what, &out, words[0]);
        fs::remove_file(&out).unwrap();
    }
    left(what, root);
}

/// Whether an output that was written is all there.
fn whole(what: &str, out: &Path, command: &str) {
    let bytes = fs::read(out).unwrap();
    let ends = |end: &[u8]| assert!(bytes.ends_with(end), "{what}: {} bytes without their end", bytes.len());
    match (command, bytes.first_chunk::<4>()) {
        ("import", _) => Pack::open(out).unwrap().verify().unwrap(),
        ("report", _) => ends(b"</html>"),
        (_, Some(b"\x89PNG")) => ends(b"IEND\xaeB`\x82"),
        ("watch", _) => ends(b"</svg>\n"),
        _ => assert!(!bytes.is_empty(), "{what}: an empty file"),
    }
}

/// No file under a temporary name is left, anywhere in the folder.
fn left(what: &str, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(!name.starts_with(".moue-"), "{what}: {name} is left");
        if path.is_dir() {
            left(what, &path);
        }
    }
}

#[test]
fn the_program_ends_by_itself() {
    let samples = samples::all();
    for (name, file, commands) in ASKS {
        let sample: &Sample = samples.iter().find(|s| s.name == *name).unwrap();
        let root = tempfile::tempdir().unwrap();
        samples::write_run(root.path());
        let face = samples::picture(image::ImageFormat::Png, 24, 20);
        if let Some(folder) = file.strip_prefix("source/") {
            // Two class folders, or pictures beside the table.
            for picture in if folder.ends_with(".csv") { ["a.png", "b.png"] } else { ["votes/b.png", "other/c.png"] } {
                let path = root.path().join("source").join(picture);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &face).unwrap();
            }
        }
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for number in 0..=ASKED {
            // The sample itself first.
            let bytes = if number == 0 { sample.bytes.clone() } else { mutated(name, 10_000 + number, &sample.bytes, &[]) };
            fs::write(&path, &bytes).unwrap();
            for words in *commands {
                asked(&format!("{} of {name}, mutation {number}", words.join(" ")), root.path(), words);
            }
        }
    }
    memory::check("the program's tests");
}

/// What others call things is printed without what could move the cursor or clear the screen.
#[test]
fn names_do_not_steer_the_terminal() {
    let root = tempfile::tempdir().unwrap();
    let run = samples::write_run(root.path());
    // What would be held against the other files' names is gone.
    [run.path().join("f.moue"), run.history("pll")].iter().for_each(|path| fs::remove_file(path).unwrap());
    let renamed = |path: &Path, from: &str, to: &str| fs::write(path, fs::read_to_string(path).unwrap().replace(from, to)).unwrap();
    renamed(&run.manifest(), "\"calm\"", "\"calm\\u001b[2J\"");
    for table in [run.predictions("pll"), run.labels()] {
        renamed(&table, "calm", "calm\u{1b}[2J");
        renamed(&table, "f0", "f0\u{9b}2J");
    }
    let printed = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moue")).args(words).current_dir(root.path()).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{words:?}: {said:?}");
        said
    };
    let said = printed(&["audit", "run"]);
    assert!(said.contains("f0 2J") && said.contains("calm [2J"), "{said}");
    #[cfg(feature = "train")]
    {
        let path = root.path().join("w.safetensors");
        let tensor = |name: &str| Named { name: name.into(), shape: vec![1], values: vec![1.0] };
        let tensors = ["p\u{1b}[2J.encoder.patch_embed.weight", "p\u{1b}[2J.encoder.x\u{9b}2J"].map(tensor);
        write(&path, &tensors, &Card::imported("a\u{7f} test", &Resolved::default())).unwrap();
        let said = printed(&["import-weights", "w.safetensors", "--set", "vit.dim=48", "--set", "vit.depth=1", "--set", "data.size=32"]);
        assert!(said.contains("names after `p [2J.`") && said.contains("encoder.x 2J") && said.contains("a  test"), "{said}");
    }
}
