//! `moue report` as a user meets it: the binary on run folders that the library wrote: whole, several, crashed, damaged, and such as say
//! little. The page must load nothing, run nothing, and take whatever stands in a run folder for text.

use moue::dataset::generated::{GeneratorConfig, generate, protocol};
use moue::dataset::{Class, Pack, PackWriter, Protocol, Split};
use moue::run::history::{Flip, Frame, Header, HistoryWriter, Layout, Subject, quantise};
use moue::run::manifest::{Data, Setting};
use moue::run::predictions::Predicted;
use moue::run::{At, Body, EventWriter, Manifest, Outcome, Predictions, RunFolder, Scalars, Stage, write_atomic};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
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

/// Self-contained, quiet, well-formed, small.
fn is_whole(page: &str) {
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    for foreign in ["http:", "https:", "//cdn", "<script", "<iframe", "<object", "<embed", "@import", "url(", "javascript:"] {
        assert!(!page.contains(foreign), "{foreign} in the page: {}", around(page, foreign));
    }
    let (mut open, mut ids, mut named): (Vec<&str>, HashSet<&str>, Vec<&str>) = Default::default();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>') || open.contains(&"style"), "a loose `>` after {open:?}: {}", &rest[..start]);
        let (tag, after) = rest[start + 1..].split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes something else");
            continue;
        }
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "tag <{tag}>");
        for (key, value) in pairs(attributes) {
            assert!(!key.starts_with("on"), "{key} would be a script");
            match key {
                "src" | "href" => assert!(value.starts_with("data:") || value.starts_with('#'), "{key}={value}"),
                "id" => assert!(ids.insert(value), "two elements are called {value}"),
                "aria-labelledby" => named.extend(value.split(' ')),
                _ => {}
            }
            if let Some(anchor) = (key == "href").then(|| value.strip_prefix('#')).flatten() {
                named.push(anchor);
            }
            assert!(key != "d" || !value.contains("NaN") && !value.contains("inf"), "{name}: {value}");
        }
        if !["meta", "link", "input", "img"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for name in named {
        assert!(ids.contains(name), "nothing is called {name}");
    }
}

fn pairs(attributes: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rest = attributes.trim_start();
    while !rest.is_empty() {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        match after.strip_prefix("=\"") {
            Some(after) => {
                let (value, after) = after.split_once('"').expect("a quoted value ends");
                pairs.push((key, value));
                rest = after.trim_start();
            }
            None => {
                pairs.push((key, ""));
                rest = after.trim_start();
            }
        }
    }
    pairs
}

fn around<'a>(page: &'a str, what: &'a str) -> &'a str {
    let at = page.find(what).unwrap();
    page.get(at.saturating_sub(60)..(at + 60).min(page.len())).unwrap_or(what)
}

/// What a run of the tests is like.
#[derive(Clone)]
struct Sample {
    name: &'static str,
    objectives: &'static [&'static str],
    epochs: usize,
    pretrained: bool,
    truth: bool,
    history: bool,
    predictions: bool,
    diverges: bool,
    outcome: Option<Outcome>,
    classes: Vec<String>,
}

impl Sample {
    fn new(name: &'static str) -> Self {
        let classes = protocol().classes;
        let (objectives, outcome) = (&["pll", "ce"][..], Some(Outcome::Completed));
        Self {
            name,
            objectives,
            epochs: 6,
            pretrained: true,
            truth: true,
            history: true,
            predictions: true,
            diverges: false,
            outcome,
            classes,
        }
    }

    fn class(&self, i: usize) -> Class {
        (i % self.classes.len()) as Class
    }

    /// Share of the confidence that face `i` gives its second candidate after an epoch: some rise, some fall, some wander.
    fn share(&self, i: usize, epoch: usize) -> f32 {
        let way = epoch as f32 / self.epochs as f32;
        match i % 4 {
            0 => 0.5 + 0.5 * way,
            1 => 0.5 - 0.45 * way,
            2 => 0.5 + 0.4 * (way * 9.0 + i as f32).sin(),
            _ => 0.45 + 0.3 * way * way,
        }
    }

    /// Writes the run below `root/runs`, on the pack's training faces.
    fn write(&self, root: &Path, pack: &Pack) -> RunFolder {
        let folder = RunFolder::create(&root.join("runs").join(self.name)).unwrap();
        let mut manifest = Manifest::new(["moue", "demo", "--set", "run.note=<b>it's</b>"].map(String::from).to_vec(), 7);
        let settings = [("finetune.epochs", self.epochs.to_string(), "flag"), ("finetune.batch", "64".into(), "default")];
        for (key, value, origin) in settings {
            manifest.settings.set(key, Setting { value: value.into(), origin: origin.into() });
        }
        manifest.device = serde_json::json!({"name": "A <i>CPU</i>", "cores": 2});
        manifest.data = Some(Data { classes: self.classes.clone(), ..Data::of(pack) });
        manifest.write(&folder).unwrap();
        let train: Vec<String> = pack.split(Split::Train).into_iter().map(|i| pack.faces()[i].id.clone()).collect();
        let writer = EventWriter::create(&folder, vec![]).unwrap();
        let events = writer.sender();
        events.emit(&At::run(), Body::RunStarted { command: "moue demo".into(), version: "0.1.0".into() });
        if self.pretrained {
            self.stage(&At::stage(Stage::Pretrain, ""), &events, |_, _| {});
            let picture = image::GrayImage::from_fn(64, 48, |x, y| image::Luma([(x * y) as u8]));
            picture.save(folder.media().join("pretrain-00000040.png")).unwrap();
        }
        for objective in self.objectives {
            let stage = if *objective == "ce" { Stage::Baseline } else { Stage::Finetune };
            self.stage(&At::stage(stage, *objective), &events, |at, epoch| {
                if *objective != "ce" {
                    self.tell_confidences(at, epoch, &train, &events);
                }
                self.tell_scores(at, epoch, Split::Valid, &events);
                if epoch == self.epochs {
                    self.tell_scores(at, epoch, Split::Test, &events);
                }
            });
            if self.predictions {
                self.predict(pack).write(&folder.predictions(objective)).unwrap();
            }
        }
        if let Some(outcome) = self.outcome {
            events.emit(&At::run(), Body::RunFinished { outcome, message: "at <last>".into() });
        }
        writer.finish().unwrap();
        if self.objectives.contains(&"pll") {
            self.decide(&folder, &train);
        }
        folder
    }

    fn stage(&self, start: &At, events: &moue::run::EventSender, mut end_epoch: impl FnMut(&At, usize)) {
        events.emit(start, Body::StageStarted { steps: 10 * self.epochs as u64, epochs: self.epochs as f64, batch: 64, faces: 64 });
        for epoch in 1..=self.epochs {
            for part in 1..=10 {
                let step = (epoch * 10 - 10 + part) as u64;
                let loss = if self.diverges && epoch > self.epochs / 2 { f64::NAN } else { 2.0 / (1.0 + step as f64) };
                events.emit(&start.step(step, step as f64 / 10.0), Body::Scalars(Scalars::from([("loss", loss)])));
            }
            end_epoch(&start.step(10 * epoch as u64, epoch as f64), epoch);
        }
        events.emit(&start.step(10 * self.epochs as u64, self.epochs as f64), Body::StageFinished { elapsed: 1.0 });
    }

    fn tell_scores(&self, at: &At, epoch: usize, split: Split, events: &moue::run::EventSender) {
        let n = self.classes.len();
        let right = (40 + 40 * epoch / self.epochs) as u64;
        // The last class does not occur.
        let row = |t: usize| {
            (0..n)
                .map(|p| {
                    if t + 1 == n {
                        0
                    } else if p == t {
                        right
                    } else {
                        u64::from(p == (t + 1) % n) * (100 - right)
                    }
                })
                .collect()
        };
        let confusion = moue::eval::Confusion::from_counts((0..n).map(row).collect()).unwrap();
        let accuracy = if self.diverges { f64::NAN } else { confusion.accuracy() };
        let body = Body::Evaluation {
            split,
            accuracy,
            mean_recall: confusion.mean_recall(),
            per_class: confusion.recalls(),
            macro_f1: Some(confusion.macro_f1()),
            calibration_error: Some(0.123),
            loss: Some(if self.diverges { f64::INFINITY } else { 2.0 - accuracy }),
            confusion: confusion.counts().to_vec(),
        };
        events.emit(at, body);
    }

    fn tell_confidences(&self, at: &At, epoch: usize, train: &[String], events: &moue::run::EventSender) {
        let mut histogram = vec![0; 20];
        for i in 0..train.len() {
            let p = self.share(i, epoch);
            histogram[((p.max(1.0 - p) * 20.0) as usize).min(19)] += 1;
        }
        let (resolved, ambiguous) = (histogram[15..].iter().sum(), train.len() as u64);
        let recovered = self.truth.then_some(0.625);
        events.emit(at, Body::Confidence { histogram, resolved, ambiguous, flips: 30 - epoch.min(30) as u64, recovered });
        for (i, face) in train.iter().take(8).enumerate() {
            let p = f64::from(self.share(i, epoch));
            let candidates = self.candidates(i);
            let truth = self.truth.then(|| candidates[i / 4 % 2]);
            events.emit(at, Body::Watched { face: face.clone(), candidates, confidences: vec![1.0 - p, p], truth });
        }
    }

    fn candidates(&self, i: usize) -> Vec<Class> {
        let mut both = vec![self.class(i), self.class(i + 1)];
        both.sort_unstable();
        both
    }

    /// What the training on candidate sets leaves: `labels.csv` and the history.
    fn decide(&self, folder: &RunFolder, train: &[String]) {
        let name = |c: Class| self.classes[usize::from(c)].as_str();
        let rows: Vec<Vec<String>> = train
            .iter()
            .enumerate()
            .map(|(i, face)| {
                let both = self.candidates(i);
                let p = self.share(i, self.epochs);
                let truth = if self.truth { name(both[i / 4 % 2]) } else { "" };
                let decided = name(both[usize::from(p > 0.5)]);
                [face, name(both[0]), decided, "0.5000", "1", truth].map(String::from).to_vec()
            })
            .collect();
        write_atomic(&folder.labels(), |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(["id", "given", "decided", "margin", "ambiguous", "truth"])?;
            rows.iter().try_for_each(|row| writer.write_record(row))?;
            Ok(writer.flush()?)
        })
        .unwrap();
        if !self.history {
            return;
        }
        let subject = |(i, id): (usize, &String)| {
            let candidates = self.candidates(i);
            Subject { id: id.clone(), given: Some(candidates[0]), candidates, votes: vec![] }
        };
        let faces: Vec<Subject> = train.iter().enumerate().map(subject).collect();
        let layout = Layout::of(&faces);
        let header = Header { objective: "pll".into(), classes: self.classes.clone(), pack_hash: "0".into(), faces };
        let (mut writer, _) = HistoryWriter::open(&folder.history("pll"), &header, 1).unwrap();
        for epoch in 1..=self.epochs {
            let mut frame = Frame { epoch: epoch as u32, step: 10 * epoch as u64, confidences: vec![0; layout.bytes()], flips: vec![] };
            for i in 0..train.len() {
                let (before, now, both) = (self.share(i, epoch - 1), self.share(i, epoch), self.candidates(i));
                frame.confidences[layout.range(i)].copy_from_slice(&[quantise(1.0 - now), quantise(now)]);
                if (before > 0.5) != (now > 0.5) {
                    let (from, to) = if now > 0.5 { (both[0], both[1]) } else { (both[1], both[0]) };
                    frame.flips.push(Flip { face: i as u32, step: frame.step - 5, from, to });
                }
            }
            writer.append(&frame, true).unwrap();
        }
    }

    fn predict(&self, pack: &Pack) -> Predictions {
        let n = self.classes.len();
        let faces: Vec<Predicted> = pack
            .faces()
            .iter()
            .filter(|f| f.label.is_some())
            .map(|f| Predicted { id: f.id.clone(), split: f.split, label: f.label.map(|l| self.class(usize::from(l))), truth: None })
            .collect();
        let sure = |i: usize| 0.5 + 0.49 * (i % 7) as f32 / 7.0;
        let row = |(i, f): (usize, &Predicted)| {
            let hit = if i % 3 == 0 { self.class(usize::from(f.label.unwrap()) + 1) } else { f.label.unwrap() };
            (0..n).map(move |c| if c == usize::from(hit) { sure(i) } else { (1.0 - sure(i)) / (n - 1) as f32 }).collect::<Vec<f32>>()
        };
        let probabilities = faces.iter().enumerate().flat_map(row).collect();
        Predictions { classes: self.classes.clone(), faces, probabilities }
    }
}

fn make_pack(root: &Path, card: Protocol) -> Pack {
    let path = root.join("faces.moue");
    let mut writer = PackWriter::create(&path, card).unwrap();
    generate(&GeneratorConfig { train: 64, valid: 16, test: 48, size: 32, ..GeneratorConfig::default() }, &mut writer).unwrap();
    writer.finish(serde_json::Value::Null).unwrap();
    Pack::open(&path).unwrap()
}

fn generated(root: &Path) -> Pack {
    make_pack(root, protocol())
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

/// Chromium by name, or where `MOUE_CHROMIUM` says.
fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MOUE_CHROMIUM") {
        return Some(path.into());
    }
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "/usr/lib/chromium/chromium"];
    let found = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    names.into_iter().find(found).map(PathBuf::from)
}

/// What a browser makes of a page: the document, whether its console complained, and whether it asked the network for anything.
fn browse(chromium: &Path, root: &Path, page: &Path, width: u32) -> (String, bool, bool) {
    let log = root.join("net.json");
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ])
        .args(["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--window-size={width},1200"))
        .arg(format!("--user-data-dir={}", root.join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let asked = fs::read_to_string(log).unwrap().contains("\"url\":\"http");
    (text(&output.stdout), text(&output.stderr).contains("CONSOLE"), asked)
}

#[test]
fn a_browser_has_nothing_to_complain_of_and_nothing_to_fetch() {
    let Some(chromium) = chromium() else {
        println!("skipped: no Chromium here (name one with MOUE_CHROMIUM)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    Sample::new("demo").write(root.path(), &generated(root.path()));
    let page = report(root.path(), &["demo"]);
    // First a page that does both: the test must be able to fail.
    let bad = root.path().join("bad.html");
    fs::write(&bad, "<!doctype html><img src=\"http://127.0.0.1:9/x.png\"><script>console.error('no')</script>").unwrap();
    let (_, complains, asks) = browse(&chromium, root.path(), &bad, 1280);
    assert!(complains && asks, "the browser notices neither errors nor requests");
    let path = root.path().join("page.html");
    let (document, complains, asks) = browse(&chromium, root.path(), &path, 1280);
    assert!(document.contains("Set-up") && !complains && !asks, "complains: {complains}, asks: {asks}");
    // A phone scrolls down, never sideways. The script that measures is the test's own, in a copy that allows it.
    let policy = page.find("<meta http-equiv").unwrap();
    let policy = policy..policy + page[policy..].find('>').unwrap() + 1;
    let measure =
        "<script>document.body.dataset.over = document.documentElement.scrollWidth - document.documentElement.clientWidth</script></body>";
    let mut copy = fs::File::create(&path).unwrap();
    copy.write_all(page.replace(&page[policy], "").replace("</body>", measure).as_bytes()).unwrap();
    drop(copy);
    for width in [390, 1280] {
        let (document, ..) = browse(&chromium, root.path(), &path, width);
        let over = document.split("data-over=\"").nth(1).and_then(|t| t.split('"').next());
        assert_eq!(over, Some("0"), "pixels wider than the window at {width}");
    }
}
