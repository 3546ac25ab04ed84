//! Every finetuning objective and every order of revision as a user runs them, and what measures them: `evaluate`, `compare`, `ablate`.

#![cfg(feature = "train")]

mod bench;

use bench::{Bench, PLACE, train};
use moue::config::Objective;
use moue::run::Body;
use serde_json::Value;
use std::fs;

#[test]
fn every_objective_trains_and_is_measured() {
    let b = Bench::new();
    for objective in Objective::ALL {
        let name = objective.name();
        let set = format!("finetune.objective={name}");
        let said = b.done(&train(&["finetune", "--data", "f.moue", "--out", name], &[&set, "finetune.baseline=false"]));
        assert!(said.contains(objective.title()) && said.contains("Best epoch on valid"), "{said}");
        let label = |e: &moue::run::Event| e.label == name;
        let losses: Vec<f64> = b.events(name).iter().filter(|e| label(e)).filter_map(|e| loss(&e.body)).collect();
        assert!(losses.len() >= 4 && losses.iter().all(|l| l.is_finite()), "{name}: {losses:?}");
        assert_eq!(b.path(name).join("labels.csv").exists(), objective.is_partial(), "{name}");
        let value: Value = serde_json::from_str(&b.done(&["evaluate", name, "--json", "--device", "cpu"])).unwrap();
        for measure in ["accuracy", "mean_recall", "macro_f1", "calibration_error"] {
            assert!((0.0..=1.0).contains(&value[measure].as_f64().unwrap()), "{name} {measure}: {value}");
        }
    }
    // The same crops, order and random masks: what differs is the objective.
    let first = |run: &str| b.events(run).iter().find_map(|e| loss(&e.body)).unwrap();
    assert_eq!(first("proden"), first("rc"));
    assert_ne!(first("proden"), first("cc"));

    let flipped: Value = serde_json::from_str(&b.done(&["evaluate", "ce", "--flip", "--json", "--device", "cpu"])).unwrap();
    let plain: Value = serde_json::from_str(&b.done(&["evaluate", "ce", "--json", "--device", "cpu"])).unwrap();
    assert!(flipped["loss"] != plain["loss"] && flipped["flip"] == true);

    let compared: Value = serde_json::from_str(&b.done(&["compare", "ce", "proden:proden", "--json", "--device", "cpu"])).unwrap();
    let d = &compared["accuracy"];
    assert!(d["low"].as_f64() <= d["difference"].as_f64() && d["difference"].as_f64() <= d["high"].as_f64(), "{compared}");
    assert_eq!(plain["accuracy"], d["first"]);
    assert!(b.done(&["compare", "ce", "ce", "--device", "cpu"]).contains("contains zero"));
    b.refused(&["compare", "ce:nonsense", "rc", "--device", "cpu"], 2, &["nonsense", "proden"]);
    b.refused(&["compare", "ce", "nowhere", "--device", "cpu"], 2, &["nowhere"]);
}

fn loss(body: &Body) -> Option<f64> {
    match body {
        Body::Scalars(scalars) => scalars.get("loss"),
        _ => None,
    }
}

#[test]
fn every_order_of_revision_decides_labels() {
    let b = Bench::new();
    let mut tables = Vec::new();
    for order in ["after_step", "before_loss", "refresh_forward"] {
        let set = format!("revise.order={order}");
        b.done(&train(&["finetune", "--data", "f.moue", "--out", order], &[&set, "finetune.baseline=false", "revise.theta=0.02"]));
        tables.push(fs::read_to_string(b.path(order).join("labels.csv")).unwrap());
    }
    assert!(tables[0] != tables[1] && tables[0] != tables[2] && tables[1] != tables[2]);
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "fixed"], &["revise.enabled=false", "finetune.baseline=false"]));
    assert!(!b.path("fixed").join("labels.csv").exists());
    // Balanced drawing is another order of faces, and no less repeatable.
    for run in ["even", "even-again"] {
        b.done(&train(&["finetune", "--data", "f.moue", "--out", run], &["finetune.balanced=true", "finetune.baseline=false"]));
    }
    assert_eq!(b.results("even"), b.results("even-again"));
    assert_ne!(b.results("even").1[0], tables[0].as_bytes());
}

#[test]
fn unusual_labels_are_defined_or_refused() {
    let b = Bench::new();
    let finetune = |out: &'static str, more: &[&'static str]| train(&[&["finetune", "--data", "f.moue", "--out", out], more].concat(), &[]);
    // An empty set, in a file of otherwise good ones.
    let ids: Vec<String> = moue::dataset::Pack::open(&b.path("f.moue")).unwrap().faces().iter().take(3).map(|f| f.id.clone()).collect();
    fs::write(b.path("empty.csv"), format!("id,candidates\n{},happiness|anger\n{},\n", ids[0], ids[1])).unwrap();
    b.refused(&finetune("X", &["--labels", "empty.csv"]), 1, &["empty.csv, line 3", "no candidates"]);
    // All faces unambiguous: nothing to decide, and it says so by the counts.
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "clear"], &["labels.k=1"]));
    let states = b.events("clear").into_iter().filter_map(|e| match e.body {
        Body::Confidence { ambiguous, flips, .. } => Some((ambiguous, flips)),
        _ => None,
    });
    assert!(states.into_iter().all(|s| s == (0, 0)));
    // One class nowhere in train: it is trained around, and its recall on the other splits is plain to see.
    let rows = moue::dataset::Pack::open(&b.path("f.moue")).unwrap();
    let mut csv = String::from("id,candidates\n");
    for face in rows.faces().iter().filter(|f| f.split == moue::dataset::Split::Train) {
        if let Some(label) = face.label.filter(|l| *l != 3) {
            csv += &format!("{},{}\n", face.id, rows.protocol().classes[usize::from(label)]);
        }
    }
    fs::write(b.path("absent.csv"), csv).unwrap();
    let said = b.done(&finetune("absent", &["--labels", "absent.csv"]));
    assert!(said.contains("partial labels"), "{said}");
}

#[test]
fn a_table_is_planned_run_and_resumed() {
    let b = Bench::new();
    let table = |more: &[&'static str]| train(&[&["ablate", "table6", "--data", "f.moue", "--seeds", "2"], more].concat(), &[]);
    let planned = b.done(&table(&["--plan", "--out", "T"]));
    assert!(planned.contains("6 runs, about") && !b.path("T").exists(), "{planned}");
    let said = b.done(&table(&["--out", "T"]));
    assert!(said.contains("92.05") && said.contains("paper RAF-DB") && said.contains("2 seeds"), "{said}");
    assert!(said.contains("order does not hold") || said.contains("stand in the paper's order"), "{said}");
    let again = b.done(&table(&["--out", "T"]));
    assert_eq!(again.matches("(done before)").count(), 6, "{again}");
    // The same figures, from the same events.
    let figures = |text: &str| text[text.rfind("table6:").unwrap()..].to_string();
    assert_eq!(figures(&said), figures(&again));
    assert!(fs::read_to_string(b.path("T/table.md")).unwrap().contains("| with pretraining |"));
    // A run that was lost is done again, alone.
    fs::remove_dir_all(b.path("T/pretrained-seed1")).unwrap();
    assert_eq!(b.done(&table(&["--out", "T"])).matches("(done before)").count(), 5);
    b.refused(&train(&["ablate", "table6", "--data", "f.moue", "--seeds", "3", "--out", "T"], &[]), 2, &["T holds another table"]);
    b.refused(&train(&["ablate", "table6", "--data", "f.moue", "--rows", "nine", "--out", "U"], &[]), 2, &["`nine`", "random, pretrained"]);
    b.refused(&["ablate", "table1", "--data", "f.moue", "--rows", "pico", "--out", "U", PLACE[0], PLACE[1]], 2, &["pico", "not built"]);
    // Its runs are told apart from those that made their sets themselves.
    b.done(&["labels", "f.moue", "--out", "sets.csv"]);
    let one = ["ablate", "table6", "--data", "f.moue", "--rows", "random", "--seeds", "1", "--labels", "sets.csv", "--out", "V"];
    b.done(&train(&one, &[]));
    let runs = fs::read_dir(b.path("V")).unwrap().filter_map(|e| fs::read(e.unwrap().path().join("manifest.json")).ok());
    let inputs: Vec<Value> = runs.map(|text| serde_json::from_slice::<Value>(&text).unwrap()["inputs"].clone()).collect();
    assert!(inputs.len() == 1 && inputs[0]["labels"].as_str().unwrap().ends_with("sets.csv"), "{inputs:?}");
    let limited = b.done(&table(&["--plan", "--budget", "1s"]));
    assert!(limited.contains("epochs"), "{limited}");
}
