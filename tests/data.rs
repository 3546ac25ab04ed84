//! `moue data` as a user runs it: the binary, its files, its exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn moue(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).current_dir(folder).args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must work; its standard output.
fn done(folder: &Path, args: &[&str]) -> String {
    let output = moue(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn generated(name: &str, extra: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["data", "generate", "--out", name, "--train", "120", "--valid", "16", "--test", "24"];
    args.extend(extra);
    done(folder.path(), &args);
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn info_tells_counts_and_disagreement() {
    let (folder, _) = generated("a.moue", &[]);
    let info = done(folder.path(), &["data", "info", "a.moue"]);
    let row = |name: &str| -> Vec<String> {
        let line = info.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no row {name} in\n{info}"));
        line.split_whitespace().map(String::from).collect()
    };
    assert_eq!(row("all "), ["all", "120", "16", "24"]);
    // Balanced by construction.
    assert_eq!(row("contempt")[3], "3");
    for part in ["48 x 48 gray", "generated-8", "ambiguous", "majority is truth", "\"noise\": 1.0"] {
        assert!(info.contains(part), "no `{part}` in\n{info}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (_a, first) = generated("a.moue", &["--seed", "11"]);
    let (_b, second) = generated("b.moue", &["--seed", "11"]);
    let (_c, other) = generated("c.moue", &["--seed", "12"]);
    let read = |p: &Path| std::fs::read(p).unwrap();
    assert!(read(&first) == read(&second));
    assert!(read(&first) != read(&other));
}

#[test]
fn the_sheet_is_a_page_of_faces() {
    let (folder, _) = generated("a.moue", &["--size", "64"]);
    let said = done(folder.path(), &["data", "sheet", "a.moue", "--out", "sheet.png", "--per-class", "3"]);
    let page = image::open(folder.path().join("sheet.png")).unwrap().to_rgb8();
    assert!(said.contains(&format!("{} x {}", page.width(), page.height())), "{said}");
    // Eight rows of faces of 2 x 64 pixels.
    assert!(page.height() > 8 * 128 && page.width() > 3 * 128, "{}x{}", page.width(), page.height());
    let paper = *page.get_pixel(0, 0);
    let drawn = page.pixels().filter(|p| **p != paper).count() as f64 / f64::from(page.width() * page.height());
    assert!((0.2..0.9).contains(&drawn), "{drawn} of the page is drawn");
    let tones: std::collections::HashSet<u8> = page.pixels().map(|p| p.0[0]).collect();
    assert!(tones.len() > 100, "{} tones", tones.len());

    // Another seed picks other faces; only ambiguous faces are others again.
    done(folder.path(), &["data", "sheet", "a.moue", "--out", "other.png", "--per-class", "3", "--seed", "1", "--ambiguous"]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(read("sheet.png") != read("other.png"));
    // Nothing but what was asked for lies in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn verify_accepts_what_was_written_and_notices_damage() {
    let (folder, path) = generated("a.moue", &[]);
    assert!(done(folder.path(), &["data", "verify", "a.moue"]).contains("160 faces"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = moue(folder.path(), &["data", "verify", "a.moue"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("damaged"), "{}", text(&output.stderr));
}

#[test]
fn wrong_requests_end_with_2_and_one_line() {
    let (folder, _) = generated("a.moue", &[]);
    let wrong: [&[&str]; 9] = [
        &["data", "info", "nowhere.moue"],
        &["data", "verify", "nowhere.moue"],
        &["data", "sheet", "nowhere.moue", "--out", "x.png"],
        &["data", "info", "."],
        &["data", "generate", "--out", "x.moue", "--size", "12"],
        &["data", "generate", "--out", "x.moue", "--noise", "-1"],
        &["data", "generate", "--out", "x.moue", "--noise", "NaN"],
        &["data", "generate", "--out", "no/such/folder/x.moue"],
        &["data", "sheet", "a.moue", "--out", "x.png", "--per-class", "0"],
    ];
    for args in wrong {
        let output = moue(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{args:?}: {said}");
    }
    assert!(!folder.path().join("x.moue").exists() && !folder.path().join("x.png").exists());
}

#[test]
fn an_empty_split_has_no_sheet() {
    let folder = tempfile::tempdir().unwrap();
    done(folder.path(), &["data", "generate", "--out", "a.moue", "--train", "8", "--valid", "0", "--test", "0"]);
    let output = moue(folder.path(), &["data", "sheet", "a.moue", "--split", "test", "--out", "x.png"]);
    assert_eq!(output.status.code(), Some(2));
    // A pack without test faces still has an account.
    done(folder.path(), &["data", "info", "a.moue"]);
}
