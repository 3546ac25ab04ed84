//! `moue audit` on a run as large as AffectNet: 300,000 training faces, 100 epochs, simulated. Time and peak memory of the command.
//!
//! ```sh
//! cargo bench --bench audit                            # also --no-default-features
//! cargo bench --bench audit -- --faces 50000 --epochs 20 --pictures 48 --keep DIR
//! ```
//! `--pictures SIDE` also writes a pack of that many gray pictures, in which the audit then looks for copies. The simulated history has the
//! number of flips that the demo's runs show (one face in ten flips in an epoch at first, one in a hundred at the end).

use moue::dataset::{Class, Face, PackWriter, Pixels, Split, generated};
use moue::random::{RngExt, Stream, Streams};
use moue::run::history::{Flip, Frame, Header, HistoryWriter, Subject, quantise};
use moue::run::manifest::Data;
use moue::run::predictions::Predicted;
use moue::run::{Manifest, Predictions, RunFolder};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Options {
    faces: usize,
    epochs: u32,
    pictures: Option<usize>,
    keep: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options { faces: 300_000, epochs: 100, pictures: None, keep: None };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--faces" => options.faces = value.parse().expect("a number of faces"),
            "--epochs" => options.epochs = value.parse().expect("a number of epochs"),
            "--pictures" => options.pictures = Some(value.parse().expect("a side in pixels")),
            "--keep" => options.keep = Some(value.into()),
            _ => panic!("{word} is no option (--faces, --epochs, --pictures, --keep)"),
        }
    }
    options
}

fn main() {
    let options = options();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = options.keep.clone().unwrap_or_else(|| folder.path().to_path_buf());
    let began = Instant::now();
    let run = simulate(&root, &options);
    let size = |path: &Path| std::fs::metadata(path).map_or(0.0, |m| m.len() as f64 / 1e6);
    println!(
        "simulated in {:.1} s: {} faces, {} epochs; history {:.0} MB ({:.1} bytes a face and epoch), predictions {:.0} MB",
        began.elapsed().as_secs_f64(),
        options.faces,
        options.epochs,
        size(&run.history("pll")),
        size(&run.history("pll")) * 1e6 / options.faces as f64 / f64::from(options.epochs),
        size(&run.predictions("pll"))
    );
    for round in 1..=3 {
        let (time, peak) = measured(Command::new(env!("CARGO_BIN_EXE_moue")).args(["audit", "--json"]).arg(run.path()));
        println!(
            "moue audit, round {round}: {:.2} s, peak memory {}",
            time.as_secs_f64(),
            peak.map_or("unknown".into(), |p| format!("{p} MB"))
        );
    }
}

fn simulate(root: &Path, options: &Options) -> RunFolder {
    let run = RunFolder::create(&root.join("run")).expect("a new run folder");
    let streams = Streams::new(0);
    let card = generated::protocol();
    let classes = card.classes.len();
    // Class, second class, and whether the annotators are divided between them.
    let kind = |i: usize| {
        let mut rng = streams.at("face", &[i as u64]);
        let class = rng.random_range(0..classes) as Class;
        (class, (class + 1 + rng.random_range(0..classes as Class - 1)) % classes as Class)
    };
    let votes = |i: usize| {
        let (class, other) = kind(i);
        let mut votes = vec![0; classes + 1];
        (votes[usize::from(class)], votes[usize::from(other)]) = (6, 4);
        votes
    };
    let id = |i: usize| format!("train/{i:07}.png");
    let mut manifest = Manifest::new(vec!["moue".into(), "finetune".into()], 0);
    manifest.data = Some(match options.pictures {
        None => Data {
            pack: root.join("no.moue").display().to_string(),
            pack_hash: "none".into(),
            protocol: card.name.clone(),
            protocol_hash: card.hash(),
            classes: card.classes.clone(),
            leaks: None,
        },
        Some(side) => {
            let path = root.join("faces.moue");
            let mut writer = PackWriter::create(&path, card.clone()).expect("a new pack");
            for i in 0..options.faces {
                let face = Face { label: Some(kind(i).0), votes: votes(i), ..Face::new(id(i), Split::Train) };
                writer.push(face, &picture(side, &mut streams.at("picture", &[i as u64]))).expect("room for pictures");
            }
            writer.finish(serde_json::json!({})).expect("room for the pack");
            Data::of(&moue::dataset::Pack::open(&path).expect("the pack opens"))
        }
    });
    let pack_hash = manifest.data.as_ref().map(|d| d.pack_hash.clone()).unwrap_or_default();
    manifest.write(&run).expect("room for the manifest");

    let predicted = |i: usize| Predicted { id: id(i), split: Split::Train, label: Some(kind(i).0), truth: None };
    let says = |i: usize| {
        let top = usize::from(kind(i).1);
        let p = streams.at("says", &[i as u64]).random::<f32>();
        (0..classes).map(move |c| if c == top { p } else { (1.0 - p) / (classes - 1) as f32 })
    };
    Predictions {
        classes: card.classes.clone(),
        faces: (0..options.faces).map(predicted).collect(),
        probabilities: (0..options.faces).flat_map(says).collect(),
    }
    .write(&run.predictions("pll"))
    .expect("room for the predictions");

    let subject = |i: usize| {
        let (class, other) = kind(i);
        Subject { id: id(i), given: Some(class), candidates: vec![class.min(other), class.max(other)], votes: votes(i) }
    };
    let header = Header { objective: "pll".into(), classes: card.classes, pack_hash, faces: (0..options.faces).map(subject).collect() };
    let (mut writer, _) = HistoryWriter::open(&run.history("pll"), &header, 1).expect("room for the history");
    for epoch in 1..=options.epochs {
        let mut rng = streams.at("epoch", &[u64::from(epoch)]);
        let share = 0.01 + 0.09 * (1.0 - f64::from(epoch) / f64::from(options.epochs));
        let mut frame = Frame { epoch, step: u64::from(epoch) * 1000, ..Frame::default() };
        for (i, subject) in header.faces.iter().enumerate() {
            let first = rng.random::<f32>();
            frame.confidences.extend([quantise(first), quantise(1.0 - first)]);
            if rng.random::<f64>() < share {
                frame.flips.push(Flip { face: i as u32, step: frame.step, from: subject.candidates[0], to: subject.candidates[1] });
            }
        }
        writer.append(&frame, false).expect("room for the history");
    }
    run
}

/// Soft blobs: as alike, and as different, as aligned faces at low resolution.
fn picture(side: usize, rng: &mut Stream) -> Pixels {
    let blobs: Vec<[f32; 4]> =
        (0..6).map(|_| [rng.random(), rng.random(), 0.05 + 0.2 * rng.random::<f32>(), rng.random::<f32>() - 0.5]).collect();
    let value = |i: usize| {
        let (x, y) = ((i % side) as f32 / side as f32, (i / side) as f32 / side as f32);
        let light = |b: &[f32; 4]| b[3] * (1.0 - ((x - b[0]).powi(2) + (y - b[1]).powi(2)) / b[2].powi(2)).max(0.0);
        (128.0 + 150.0 * blobs.iter().map(light).sum::<f32>()).clamp(0.0, 255.0) as u8
    };
    Pixels::new(side, side, 1, (0..side * side).map(value).collect())
}

/// Runs a command to its end: its time, and its peak memory in MB where the system tells (Linux).
fn measured(command: &mut Command) -> (Duration, Option<u64>) {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("moue starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        if let Some(exit) = child.try_wait().expect("the child is ours") {
            assert!(exit.success(), "moue audit failed");
            return (began.elapsed(), peak);
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.map(|k| k / 1024));
        std::thread::sleep(Duration::from_millis(5));
    }
}
