//! Run folders as the library writes them, of every kind that a test needs, on a pack of generated faces.

use moue::dataset::generated::{GeneratorConfig, generate, protocol};
use moue::dataset::{Class, Pack, PackWriter, Protocol, Split};
use moue::run::history::{Flip, Frame, Header, HistoryWriter, Layout, Subject, quantise};
use moue::run::manifest::{Data, Setting};
use moue::run::predictions::Predicted;
use moue::run::{At, Body, EventWriter, Manifest, Outcome, Predictions, RunFolder, Scalars, Stage, write_atomic};
use std::path::Path;

/// What a run of the tests is like.
#[derive(Clone)]
pub struct Sample {
    pub name: &'static str,
    pub objectives: &'static [&'static str],
    pub epochs: usize,
    pub pretrained: bool,
    pub truth: bool,
    pub history: bool,
    pub predictions: bool,
    pub diverges: bool,
    /// Whether it came to measure itself on the test split.
    pub tested: bool,
    pub outcome: Option<Outcome>,
    pub classes: Vec<String>,
}

impl Sample {
    pub fn new(name: &'static str) -> Self {
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
            tested: true,
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
    pub fn write(&self, root: &Path, pack: &Pack) -> RunFolder {
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
        let writer = EventWriter::create(&folder, folder.lock().unwrap(), vec![]).unwrap();
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
                if epoch == self.epochs && self.tested {
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

pub fn make_pack(root: &Path, card: Protocol) -> Pack {
    let path = root.join("faces.moue");
    let mut writer = PackWriter::create(&path, card).unwrap();
    generate(&GeneratorConfig { train: 64, valid: 16, test: 48, size: 32, ..GeneratorConfig::default() }, &mut writer).unwrap();
    writer.finish(serde_json::Value::Null).unwrap();
    Pack::open(&path).unwrap()
}

pub fn generated(root: &Path) -> Pack {
    make_pack(root, protocol())
}
