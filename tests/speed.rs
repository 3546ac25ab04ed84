//! `moue bench` through the real binary: its protocol, its result, and what it makes of a PyTorch side that is not there, dies or lies.
#![cfg(feature = "train")]

mod bench;

use bench::{Bench, TINY, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a bench of the tiny network, as short as can be.
fn speed(bench: &Bench, args: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let set = TINY.iter().flat_map(|&s| ["--set", s]);
    let short = ["bench", "--preset", "demo", "--device", "cpu", "--rounds", "2", "--seconds", "0.05", "--threads", "2"];
    let words: Vec<&str> = short.into_iter().chain(set).chain(args.iter().copied()).collect();
    let mut command = bench.command(&words);
    change(&mut command);
    command.output().expect("the binary runs")
}

fn folder() -> Bench {
    Bench(tempfile::tempdir().unwrap())
}

fn report(bench: &Bench) -> Value {
    serde_json::from_slice(&std::fs::read(bench.path("speed.json")).unwrap()).unwrap()
}

/// A `python3` that is the only program on the path.
#[cfg(unix)]
fn fake_python(bench: &Bench, script: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let place = bench.path("bin");
    std::fs::create_dir(&place).unwrap();
    let python = place.join("python3");
    std::fs::write(&python, format!("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\n{script}\n")).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    place
}

#[test]
fn every_row_is_measured_alone() {
    let bench = folder();
    let output = speed(&bench, &["--no-peer", "--json", "speed.json", "--profile"], |_| ());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for word in ["moue", "pretrain", "finetune", "predict", "loader", "hog", "backward", "2 threads"] {
        assert!(printed.contains(word), "no {word} in:\n{printed}");
    }
    let report = report(&bench);
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
    assert_eq!(names, ["pretrain", "finetune", "predict", "loader", "hog"]);
    for row in rows {
        let turns = row["ours"]["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 2, "{row}");
        let batch = row["batch"].as_u64().unwrap();
        for turn in turns {
            let (faces, seconds) = (turn["faces"].as_u64().unwrap(), turn["seconds"].as_f64().unwrap());
            assert!(faces >= batch && faces.is_multiple_of(batch) && seconds >= 0.05, "{row}");
        }
        assert!(row["ours"]["faces_per_second"].as_f64().unwrap() > 0.0 && row["ratio"].is_null() && row["peer"].is_null());
        let has_network = !["loader", "hog"].contains(&row["row"].as_str().unwrap());
        assert_eq!(row["ours"]["ready"]["parameters"].is_u64(), has_network, "{row}");
        if cfg!(target_os = "linux") {
            assert!(row["ours"]["peak_bytes"].as_u64().unwrap() > 1 << 20);
        }
    }
    let profiles = report["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 2);
    assert!(profiles.iter().all(|p| p["ours"]["forward"].as_f64().unwrap() > 0.0 && p["ours"]["whole"].as_f64().unwrap() > 0.0));
    assert_eq!((report["threads"].as_u64(), report["version"].as_str()), (Some(2), Some(env!("CARGO_PKG_VERSION"))));
    assert!(report["limits"]["cores"].as_u64().unwrap() > 0 && report["device"]["backend"] == "flex");
    assert_eq!(report["settings"]["vit"]["dim"], 16);
}

#[test]
fn wrong_words_are_bad_usage() {
    let bench = folder();
    bench.refused(&["bench", "--rows", "pretrain,train"], 2, &["`train`", "pretrain, finetune, predict, loader, hog"]);
    bench.refused(&["bench", "--seconds", "0"], 2, &["--seconds 0"]);
    bench.refused(&["bench", "--json", "nowhere/speed.json"], 2, &["nowhere"]);
}

#[cfg(unix)]
#[test]
fn a_peer_that_dies_or_lies_is_an_error() {
    let cases = [
        ("read case; echo 'ImportError: libmkl is broken' >&2; exit 3", ["PyTorch ended", "libmkl is broken"]),
        ("read case; echo 'Loading...'; sleep 1", ["`Loading...`", "no JSON"]),
        ("read case; echo '{\"version\": 3}'", ["PyTorch answers", "version"]),
    ];
    for (script, parts) in cases {
        let bench = folder();
        let place = fake_python(&bench, script);
        let output = speed(&bench, &["--rows", "hog"], |command| {
            command.env("PATH", format!("{}:/usr/bin:/bin", place.display()));
        });
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{script}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "no {part} in {said}"));
    }
}

#[cfg(unix)]
#[test]
fn another_network_is_refused() {
    let bench = folder();
    let ready = r#"{"version": "2", "device": "CPU", "is_cpu": true, "threads": 2, "parameters": 7}"#;
    let place = fake_python(&bench, &format!("read case; echo '{ready}'; read turn"));
    let output = speed(&bench, &["--rows", "predict"], |command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", place.display()));
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("parameters and PyTorch's 7"), "{}", text(&output.stderr));
}

#[test]
fn without_a_peer_the_reason_is_said() {
    let missing = |output: &Output, reason: &str| {
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(printed.lines().any(|line| line.starts_with("hog: no PyTorch (") && line.contains(reason)), "{printed}");
    };
    let bench = folder();
    let nothing = |command: &mut Command| {
        command.env("PATH", Path::new("/nowhere"));
    };
    missing(&speed(&bench, &["--rows", "hog"], nothing), "python3");
    #[cfg(unix)]
    {
        let place = fake_python(&bench, r#"read case; echo '{"why": "torch: No module named torch"}'"#);
        let fake = |command: &mut Command| {
            command.env("PATH", format!("{}:/usr/bin:/bin", place.display()));
        };
        missing(&speed(&bench, &["--rows", "hog"], fake), "torch: No module named torch");
    }
}

/// With PyTorch there is a ratio for every row, and networks of every kind have as many parameters as ours: the program refuses others.
#[test]
fn the_twin_has_our_networks() {
    let probe = Command::new("python3").args(["-c", "import torch, numpy"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("MOUE_NEEDS_TORCH").is_none(), "MOUE_NEEDS_TORCH is set, but there is no PyTorch");
        return;
    }
    let kinds: [&[&str]; 5] = [
        &["--set", "vit.cls=true"],
        &["--set", "vit.cls=true", "--preset", "mae", "--set", "decoder.self_attn=true", "--set", "decoder.dropout=0.1"],
        &["--preset", "mae_hog", "--set", "decoder.enabled=false", "--set", "vit.positions=normal"],
        &["--preset", "simmim", "--set", "vit.activation=gelu", "--set", "decoder.pre_norm=true", "--set", "revise.order=refresh_forward"],
        &["--set", "vit.stem=conv", "--set", "vit.dim=32", "--set", "finetune.objective=ce"],
    ];
    for kind in kinds {
        let bench = folder();
        let args: Vec<&str> = ["--rows", "pretrain,finetune,hog", "--json", "speed.json"].into_iter().chain(kind.iter().copied()).collect();
        let output = speed(&bench, &args, |_| ());
        assert!(output.status.success(), "{kind:?}: {}", text(&output.stderr));
        for row in report(&bench)["rows"].as_array().unwrap() {
            let ratio = &row["ratio"];
            let of = |name: &str| ratio[name].as_f64().unwrap_or_else(|| panic!("{kind:?}: {row}"));
            assert!(of("median") > 0.0 && of("min") <= of("max"), "{kind:?}: {ratio}");
            assert_eq!(row["ours"]["ready"]["parameters"], row["peer"]["ready"]["parameters"], "{kind:?}");
        }
    }
}
