//! Whether the memory that `moue config plan` estimates is what training takes, as the system counts it.

#![cfg(all(feature = "train", target_os = "linux"))]

use moue::config::Resolved;
use moue::engine::precision::Precision;
use moue::pipeline::{Footprint, Machine, Training};
use serde_json::Value;
use std::process::Command;

/// Peak memory of a training row in a process of its own.
fn measured(row: &str, set: &[String]) -> (f64, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moue"));
    command.args(["bench", "--rows", row, "--no-peer", "--rounds", "1", "--seconds", "0.2", "--threads", "2", "--device", "cpu"]);
    command.args(["--precision", "f32", "--json"]).arg(&path).args(set.iter().flat_map(|s| ["--set", s]));
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ours = &json["rows"][0]["ours"];
    let parameters = ours["ready"]["parameters"].as_u64().expect("a number of parameters") as usize;
    (ours["peak_bytes"].as_u64().expect("Linux tells the peak") as f64, parameters)
}

#[test]
fn estimates_are_near_what_is_taken() {
    let machine = Machine { precision: Precision::Single, shards: 2, workers: 2 };
    for (row, training, set) in [
        ("pretrain", Training::Pretrain, vec!["pretrain.batch=128"]),
        ("pretrain", Training::Pretrain, vec!["pretrain.batch=64", "pretrain.method=mae_hog", "mask.kind=random", "mask.ratio=0.75"]),
        ("finetune", Training::Finetune(moue::config::Objective::Pll), vec!["finetune.batch=256"]),
        ("finetune", Training::Finetune(moue::config::Objective::Pll), vec!["finetune.batch=64", "vit.dim=192", "vit.activation=gelu"]),
        ("finetune", Training::Finetune(moue::config::Objective::Pll), vec!["finetune.batch=64", "finetune.accumulate=2", "data.size=96"]),
        ("finetune", Training::Finetune(moue::config::Objective::Pll), vec!["finetune.batch=64", "data.size=96", "run.recompute=true"]),
        ("finetune", Training::Finetune(moue::config::Objective::CrPll), vec!["finetune.batch=128", "finetune.objective=cr_pll"]),
    ] {
        let set: Vec<String> = set.into_iter().map(String::from).collect();
        let resolved = Resolved::default().with_preset("ferplus-cpu").unwrap();
        let resolved = set.iter().try_fold(resolved, |r, s| r.with_flag(s)).unwrap();
        let footprint = Footprint::of(training, resolved.settings(), 8, &machine).expect("a transformer");
        let (peak, parameters) = measured(row, &set);
        assert_eq!(footprint.parameters, parameters, "{row} {set:?}");
        let ratio = (footprint.device() + footprint.host) / peak;
        println!("{row} {set:?}: {:.0} of {:.0} MB, ratio {ratio:.2}", (footprint.device() + footprint.host) / 1e6, peak / 1e6);
        assert!((0.75..1.3).contains(&ratio), "{row} {set:?}: estimated {ratio:.2} times the peak of {:.0} MB", peak / 1e6);
    }
}
