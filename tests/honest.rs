//! What held-out labels can change: nothing but the scores on them. And copies of held-out faces among the training faces are told.

#![cfg(feature = "train")]

mod bench;

use bench::{Bench, train};
use burn::prelude::Device;
use moue::config::{Origin, Resolved};
use moue::dataset::{Face, Pack, PackWriter, Split};
use moue::engine::parameters::load_model;
use moue::model::init::Init;
use moue::model::{Classifier, Encoder, MaskedModel, MaskedVit};
use moue::random::Streams;
use moue::run::checkpoint::Checkpoint;
use moue::run::history::{Frame, HistoryReader};
use moue::run::{Body, Event, Level, Manifest, RunFolder};
use moue::weights::parameters::{Parameter, read_parameters};
use std::fs;

/// `f.moue` with every label of a split another one; pixels, votes and truth as they were.
fn poisoned(b: &Bench, name: &str, split: Split) {
    let pack = Pack::open(&b.path("f.moue")).unwrap();
    let classes = pack.protocol().classes.len() as u16;
    let mut writer = PackWriter::create(&b.path(name), pack.protocol().clone()).unwrap();
    for (i, face) in pack.faces().iter().enumerate() {
        let label = face.label.map(|label| if face.split == split { (label + 1 + i as u16 % (classes - 1)) % classes } else { label });
        writer.push(Face { label, ..face.clone() }, &pack.pixels(i).unwrap()).unwrap();
    }
    writer.finish(serde_json::json!({})).unwrap();
}

/// Every checkpoint: which one is the best depends on the valid labels.
const KEPT: &[&str] = &["run.keep_every=1"];

/// Pretraining, partial labels and the baseline.
fn demo(b: &Bench, pack: &str, out: &str) {
    b.done(&train(&["pretrain", "--data", pack, "--out", &format!("{out}-pretrain")], KEPT));
    b.done(&train(&["finetune", "--data", pack, "--from", &format!("{out}-pretrain"), "--out", out], KEPT));
}

/// What every checkpoint of a run holds, by file: the state, the objective's own blobs, and the values of all weights. Those lie in the file,
/// like the optimiser's moments, under ids that are drawn anew in each process; moments show in the weights of the next step.
fn checkpoints(b: &Bench, run: &str) -> Vec<(String, String, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(b.path(run).join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut found = Checkpoint::read(&path).unwrap();
        // burn writes the moments in another order each time; how good the network is on valid is for the choice of the best alone.
        found.state.sha256.remove("optimizer.bpk");
        found.state.score = None;
        all.push((file.clone(), "state".into(), serde_json::to_vec(&found.state).unwrap()));
        all.extend(weights(&found).into_iter().map(|p| (file.clone(), p.path, p.values.iter().flat_map(|v| v.to_le_bytes()).collect())));
        let own = found.blobs.into_iter().filter(|(name, _)| !name.ends_with(".bpk"));
        all.extend(own.map(|(name, bytes)| (file.clone(), name, bytes)));
    }
    all
}

fn weights(checkpoint: &Checkpoint) -> Vec<Parameter> {
    let values = checkpoint.state.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let resolved = Resolved::default().with_values(values, &Origin::Flag).unwrap();
    let (s, device) = (resolved.settings(), Device::flex());
    let init = Init { streams: Streams::new(9), device: &device };
    let read = match checkpoint.state.classes.len() {
        0 => read_parameters(&load_model(MaskedVit::new(&init, s), checkpoint).unwrap()),
        classes => read_parameters(&load_model(Classifier::new(&init, Encoder::new(&init, s), classes, s), checkpoint).unwrap()),
    };
    read.unwrap()
}

/// Frames of the history; its header names the pack.
fn history(b: &Bench, run: &str) -> Vec<Frame> {
    let mut reader = HistoryReader::open(&b.path(run).join("history/pll.bin")).unwrap();
    let (mut frames, mut frame) = (Vec::new(), Frame::default());
    while reader.next_into(&mut frame).unwrap() {
        frames.push(frame.clone());
    }
    assert_eq!(reader.damage(), None);
    frames
}

/// What a run said, without times, speeds, memory and the command line.
fn said(b: &Bench, run: &str) -> Vec<(String, u64, Body)> {
    let keep = |event: Event| {
        let place = event.place();
        let body = match event.body {
            Body::RunStarted { .. } | Body::Phase { .. } => return None,
            Body::StageFinished { .. } => Body::StageFinished { elapsed: 0.0 },
            Body::Scalars(mut scalars) => {
                ["faces_per_second", "memory_bytes"].into_iter().for_each(|name| scalars.set(name, 0.0));
                Body::Scalars(scalars)
            }
            body => body,
        };
        Some((place, event.step, body))
    };
    b.events(run).into_iter().filter_map(keep).collect()
}

/// Events that are no evaluation on `split`, and those that are.
fn parted(events: Vec<(String, u64, Body)>, of: Split) -> (Vec<(String, u64, Body)>, Vec<Body>) {
    let on = |body: &Body| matches!(body, Body::Evaluation { split, .. } if *split == of);
    let scores = events.iter().filter(|e| on(&e.2)).map(|e| e.2.clone()).collect();
    (events.into_iter().filter(|e| !on(&e.2)).collect(), scores)
}

#[test]
fn held_out_labels_change_nothing_but_their_scores() {
    let b = Bench::new();
    demo(&b, "f.moue", "clean");
    for split in [Split::Test, Split::Valid] {
        let name = split.name();
        poisoned(&b, &format!("{name}.moue"), split);
        demo(&b, &format!("{name}.moue"), name);
        for suffix in ["-pretrain", ""] {
            let (clean, theirs) = (format!("clean{suffix}"), format!("{name}{suffix}"));
            let (ours, other) = (checkpoints(&b, &clean), checkpoints(&b, &theirs));
            assert_eq!(ours.len(), other.len());
            assert!(ours.iter().filter(|(_, _, bytes)| bytes.len() > 1000).count() >= 4, "weights of a network");
            for (a, b) in ours.iter().zip(&other) {
                assert_eq!((&a.0, &a.1), (&b.0, &b.1));
                assert!(a.2 == b.2, "{} of {} differs where only {name} labels do", a.1, a.0);
            }
        }
        assert!(fs::read(b.path("clean/labels.csv")).unwrap() == fs::read(b.path(name).join("labels.csv")).unwrap());
        let (ours, other) = (history(&b, "clean"), history(&b, name));
        assert!(ours.len() == 2 && ours == other);
        let ((ours, our_scores), (other, other_scores)) = (parted(said(&b, "clean"), split), parted(said(&b, name), split));
        assert_eq!(ours, other, "{name}");
        assert!(!our_scores.is_empty() && our_scores.len() == other_scores.len());
        our_scores.iter().zip(&other_scores).for_each(|(a, b)| assert_ne!(a, b, "other labels are scored as before"));
    }
}

#[test]
fn copies_of_held_out_faces_are_told_and_kept_on_record() {
    let b = Bench::new();
    let pack = Pack::open(&b.path("f.moue")).unwrap();
    let mut writer = PackWriter::create(&b.path("leaky.moue"), pack.protocol().clone()).unwrap();
    for (i, face) in pack.faces().iter().enumerate() {
        writer.push(face.clone(), &pack.pixels(i).unwrap()).unwrap();
    }
    for (n, &i) in pack.split(Split::Train)[..3].iter().enumerate() {
        let split = if n == 0 { Split::Valid } else { Split::Test };
        writer.push(Face { id: format!("copy-{n}"), split, ..pack.faces()[i].clone() }, &pack.pixels(i).unwrap()).unwrap();
    }
    writer.finish(serde_json::json!({})).unwrap();
    let warnings = |run: &str| -> Vec<String> {
        let warned = |e: Event| match e.body {
            Body::Message { level: Level::Warning, text } => Some(text),
            _ => None,
        };
        b.events(run).into_iter().filter_map(warned).collect()
    };
    let leaks = |run: &str| Manifest::read(&RunFolder::open(&b.path(run)).unwrap()).unwrap().data.unwrap().leaks;
    b.done(&train(&["pretrain", "--data", "f.moue", "--out", "clean"], &[]));
    assert_eq!((warnings("clean"), leaks("clean")), (Vec::new(), Some(Vec::new())));
    assert!(b.done(&["runs", "show", "clean", "--dir", "."]).contains("no held-out face stands among the training faces"));

    b.done(&train(&["finetune", "--data", "leaky.moue", "--out", "leaky"], &[]));
    let told = warnings("leaky");
    let wanted = "1 valid and 2 test faces have a pixel-identical copy among the training faces";
    assert!(told.len() == 1 && told[0].contains(wanted) && told[0].contains("--drop-leaks"), "{told:?}");
    let found: Vec<_> = leaks("leaky").unwrap().iter().map(|l| (l.from, l.to, l.rows_from, l.pairs)).collect();
    assert_eq!(found, [(Split::Valid, Split::Train, 1, 1), (Split::Test, Split::Train, 2, 2)]);
    assert!(b.done(&["runs", "show", "leaky", "--dir", "."]).contains(wanted));
    b.done(&["report", "leaky", "--dir", ".", "--out", "page.html"]);
    assert!(fs::read_to_string(b.path("page.html")).unwrap().matches(wanted).count() >= 2, "in the set-up and beside the results");
}
