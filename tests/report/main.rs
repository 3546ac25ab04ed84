//! `moue report` as a user meets it: the binary on run folders that the library wrote: whole, several, crashed, damaged, and such as say
//! little. The page must load nothing, run nothing, and take whatever stands in a run folder for text.

mod page;
mod sample;

use moue::dataset::Protocol;
use moue::dataset::generated::protocol;
use moue::run::Outcome;
use page::is_whole;
use sample::{Sample, generated, make_pack};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn moue(args: &[&str], root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).args(args).current_dir(root).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// Makes the page of some runs; what was printed and the page.
fn report(root: &Path, args: &[&str]) -> String {
    let output = moue(&[&["report", "--out", "page.html"], args].concat(), root);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    let page = fs::read_to_string(root.join("page.html")).unwrap();
    is_whole(&page);
    page
}

#[test]
fn a_page_shows_everything_that_a_run_left() {
    let root = tempfile::tempdir().unwrap();
    Sample::new("demo-1").write(root.path(), &generated(root.path()));
    let page = report(root.path(), &["demo", "--figures", "figures"]);
    for says in [
        "Accuracy and how sure it is",
        "80.0\u{202f}%",
        "95\u{202f}% interval",
        "partial labels minus plain cross-entropy: +0.0 points",
        "How sure the labels are, epoch by epoch",
        "From the given to the decided label",
        "From which label to which minds changed",
        "Wrong in the end",
        "Right against the majority",
        "Training loss",
        "Confusion: partial labels",
        "Calibration: plain cross-entropy on majority",
        "Pretraining loss",
        "after step 40",
        r"moue demo --set 'run.note=&lt;b&gt;it'\''s&lt;/b&gt;'",
        "finetune.epochs",
        "One setting at its default",
        "A &lt;i&gt;CPU&lt;/i&gt;",
    ] {
        assert!(page.contains(says), "{says}");
    }
    assert!(!page.contains("class=\"note\"") && page.matches("data:image/jpeg;base64,").count() > 5);
    let names: HashSet<String> =
        fs::read_dir(root.path().join("figures")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    for figure in [
        "results",
        "confidence",
        "outcome",
        "moves",
        "flips",
        "faces-wrong",
        "loss",
        "accuracy",
        "confusion-pll",
        "calibration-ce",
        "pretraining",
    ] {
        assert!(names.contains(&format!("{figure}.svg")), "{figure}: {names:?}");
        let svg = fs::read_to_string(root.path().join(format!("figures/{figure}.svg"))).unwrap();
        assert!(svg.contains("<title") && svg.contains("<desc") && !svg.contains("var("), "{figure}");
    }
    // Without --out the page lies in the run.
    assert!(moue(&["report", "demo"], root.path()).status.success() && root.path().join("runs/demo-1/report.html").is_file());
    let page = report(root.path(), &["demo", "--no-faces"]);
    assert!(!page.contains("data:image/") && page.contains("left out on request"));
}

#[test]
fn several_runs_stand_side_by_side() {
    let root = tempfile::tempdir().unwrap();
    let pack = generated(root.path());
    Sample::new("first").write(root.path(), &pack);
    Sample { epochs: 3, predictions: false, history: false, objectives: &["pll"], ..Sample::new("second") }.write(root.path(), &pack);
    let page = report(root.path(), &["first", "second", "--figures", "figures"]);
    for says in [
        "2 runs side by side",
        "first: partial labels",
        "second: no plain cross-entropy was trained beside it",
        "second: Training loss",
        "What differs",
        "Seed, device, data and version are the same.",
        "no predictions/pll.csv",
        "chosen from the 8 that its log follows",
    ] {
        assert!(page.contains(says), "{says}");
    }
    let loss = |run: &str| fs::read_to_string(root.path().join(format!("figures/{run}-loss.svg"))).unwrap();
    let ticks = |svg: String| svg.matches("class=\"quiet small mid\"").count();
    assert_eq!(ticks(loss("1-first")), ticks(loss("2-second")), "both have the longer run's epochs");
    let output = moue(&["report", "first", "runs/first"], root.path());
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("named twice"), "{}", text(&output.stderr));
}

/// A run that was cut off before its test has figures of other faces: nothing to be held against a finished one's.
#[test]
fn runs_are_compared_on_the_same_split() {
    let root = tempfile::tempdir().unwrap();
    let pack = generated(root.path());
    let bare = Sample { history: false, predictions: false, pretrained: false, ..Sample::new("finished") };
    bare.write(root.path(), &pack);
    Sample { name: "cut", tested: false, outcome: None, ..bare }.write(root.path(), &pack);
    assert!(report(root.path(), &["cut"]).contains(" of the valid faces"));
    for order in [["finished", "cut"], ["cut", "finished"]] {
        let page = report(root.path(), &order);
        let part = |from: &str, to: &str| page.split_once(from).unwrap().1.split_once(to).unwrap().0;
        let left_out = "Left out, for they were not measured on test faces: cut.";
        let lede = part("Most accurate: ", "</p>");
        assert!(lede.contains(" of finished, ") && lede.contains(" of the test faces") && lede.contains(left_out), "{lede}");
        let figure = part("<title id=\"results-title\">", "</svg>");
        assert!(figure.contains("finished: partial labels") && !figure.contains("cut: partial labels"), "{figure}");
        assert!(figure.contains(left_out) && page.matches(left_out).count() == 3, "in the sentence, the figure and its caption");
    }
}

#[test]
fn runs_that_say_little_get_a_page_that_says_what_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let pack = generated(root.path());
    let bare = Sample { history: false, predictions: false, pretrained: false, ..Sample::new("") };
    let cases: Vec<(Sample, &[&str])> = vec![
        (Sample { name: "crashed", outcome: None, ..bare.clone() }, &["This run has not completed", "crashed"]),
        (Sample { name: "stopped", outcome: Some(Outcome::Interrupted), ..bare.clone() }, &["at &lt;last&gt;", "--resume goes on"]),
        (Sample { name: "plain", objectives: &["ce"], ..bare.clone() }, &["No labels were decided", "This run did not pretrain"]),
        (
            Sample { name: "encoder", objectives: &[], pretrained: true, ..bare.clone() },
            &["There is no result", "No recogniser was trained"],
        ),
        (Sample { name: "unknown", truth: false, ..bare.clone() }, &["Decided against the given label"]),
        (Sample { name: "diverged", diverges: true, ..bare.clone() }, &["An accuracy of this run is not a number", "Red crosses"]),
        (Sample { name: "long", epochs: 300, history: true, ..bare.clone() }, &["epoch 300"]),
        (Sample { name: "short", epochs: 1, history: true, ..bare.clone() }, &["epoch 1"]),
    ];
    for (sample, says) in cases {
        sample.write(root.path(), &pack);
        let page = report(root.path(), &[sample.name]);
        for says in says {
            assert!(page.contains(says), "{}: {says}", sample.name);
        }
    }
}

#[test]
fn names_are_text_and_thirty_classes_fit() {
    let root = tempfile::tempdir().unwrap();
    let pack = generated(root.path());
    let mut classes: Vec<String> = (0..30).map(|i| format!("class-{i}")).collect();
    classes[0] = "<script>alert(1)</script>".into();
    classes[1] = "\"><img src=x onerror=alert(1)>".into();
    classes[2] = "</style></svg>&amp;".into();
    Sample { classes, ..Sample::new("hostile") }.write(root.path(), &pack);
    // `report` parses the page: a name that became markup would be a tag of its own.
    let page = report(root.path(), &["hostile", "--figures", "figures"]);
    assert!(page.contains("&lt;script&gt;alert(1)") && page.contains("onerror=alert(1)&gt;") && page.contains("class-29"));
}

#[test]
fn what_is_missing_cut_or_foreign_is_told() {
    let root = tempfile::tempdir().unwrap();
    let pack = generated(root.path());
    let folder = Sample::new("run").write(root.path(), &pack);
    let half = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2 + 3]).unwrap();
    };
    // Within a line, after its first field.
    let torn = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let line = text.len() / 2 + text[text.len() / 2..].find('\n').unwrap() + 1;
        fs::write(path, &text[..line + text[line..].find(',').unwrap() + 1]).unwrap();
    };
    let short = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.lines().take(41).map(|l| l.to_string() + "\n").collect::<String>()).unwrap();
    };
    let end = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
    };
    type Case<'a> = (PathBuf, &'a dyn Fn(&Path), &'a str);
    let cases: [Case; 11] = [
        (folder.labels(), &torn, "labels.csv is damaged"),
        (folder.labels(), &short, "labels.csv holds 40 of 64 training faces"),
        (folder.labels(), &|p| fs::write(p, "a,b\n1,2\n").unwrap(), "labels.csv is no table of decided labels"),
        (folder.labels(), &|p| fs::remove_file(p).unwrap(), "labels.csv is written when"),
        (folder.history("pll"), &half, "so nothing of it can be used; the faces below are chosen from the 8"),
        (folder.history("pll"), &end, "its last frame is cut short; the epochs up to 5 are whole"),
        (folder.history("pll"), &|p| fs::write(p, "no history").unwrap(), "this is no history of a run"),
        (folder.predictions("pll"), &torn, "What finetune/pll predicts is not shown"),
        (folder.media().join("pretrain-00000040.png"), &|p| fs::write(p, "no picture").unwrap(), "A picture of pretraining is not shown"),
        (root.path().join("faces.moue"), &half, "cut short or damaged"),
        (folder.manifest(), &|p| fs::remove_file(p).unwrap(), "The plan, the device and the data hashes cannot be shown"),
    ];
    for (path, damage, says) in cases {
        let whole = fs::read(&path).unwrap();
        damage(&path);
        let page = report(root.path(), &["run"]);
        assert!(page.contains(says), "{}: {says}", path.display());
        fs::write(&path, whole).unwrap();
    }
    // A damaged log is shown up to the damage.
    let log = fs::read_to_string(folder.events()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let damaged = [&lines[..lines.len() / 2], &["{\"v\":101,"], &lines[lines.len() / 2..]].concat().join("\n") + "\n";
    fs::write(folder.events(), damaged).unwrap();
    assert!(report(root.path(), &["run"]).contains("The log is damaged; what follows there is not shown"));
    // Nothing at all is an error, and another pack in the old one's place is noticed.
    fs::write(folder.events(), &log).unwrap();
    let other = Protocol { rule: "another".into(), ..protocol() };
    make_pack(root.path(), other);
    assert!(report(root.path(), &["run"]).contains("is not the pack that the run was trained on"));
    fs::write(folder.manifest(), "{\"name\": \"an npm package\"}").unwrap();
    fs::write(folder.events(), "").unwrap();
    let output = moue(&["report", "run"], root.path());
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("not a run's manifest"), "{}", text(&output.stderr));
    let output = moue(&["report", "nowhere"], root.path());
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("no run `nowhere`"));
}
