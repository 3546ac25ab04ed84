//! A small valid file of every format that moue reads: what fuzzing starts from, and what the hostile tests damage.
//!
//! Everything is made here; no picture of a person is among them.

use image::{DynamicImage, ImageFormat, RgbImage};
use moue::config::{Resolved, preset_text};
use moue::dataset::{Face, Pack, PackWriter, Pixels, Protocol, Split};
use moue::run::checkpoint::{Checkpoint, State};
use moue::run::history::{Flip, Frame, Header, HistoryWriter, Subject};
use moue::run::manifest::{Data, Setting};
use moue::run::predictions::Predictions;
use moue::run::{At, Body, Event, Level, Manifest, Outcome, Phase, RunFolder, Scalars, Stage, event::VERSION};
use moue::weights::file::{Named, write};
use moue::weights::{Card, Layout};
use serde_json::json;
use std::io::{Cursor, Write};
use std::path::Path;
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// A valid input of a target.
pub struct Sample {
    pub target: &'static str,
    pub name: &'static str,
    /// Which of the target's formats this is; the first byte of an input where there are several.
    pub kind: Option<u8>,
    pub bytes: Vec<u8>,
}

impl Sample {
    /// What the target is given.
    pub fn input(&self) -> Vec<u8> {
        self.kind.into_iter().chain(self.bytes.iter().copied()).collect()
    }
}

const CLASSES: [&str; 3] = ["calm", "glad", "sad"];

/// Every format, each once.
pub fn all() -> Vec<Sample> {
    let sample = |target, name, kind, bytes| Sample { target, name, kind, bytes };
    let one = |target, name, bytes| sample(target, name, None, bytes);
    let of = |target, kind: u8, name, bytes| sample(target, name, Some(kind), bytes);
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        one("pack", "pack", pack()),
        of("events", b'e', "events.jsonl", events()),
        of("events", b'm', "manifest.json", manifest()),
        of("events", b'h', "history", history()),
        of("events", b'p', "predictions.csv", predictions()),
        of("events", b'l', "labels.csv", text(DECIDED)),
        of("events", b'i', "media picture", picture(ImageFormat::Png, 40, 30)),
        of("checkpoint", b'c', "checkpoint", checkpoint()),
        of("checkpoint", b's', "state.json", serde_json::to_vec(&state()).unwrap()),
        one("weights", "safetensors", safetensors()),
        one("weights", "pth", pytorch()),
        of("importers", b'z', "ferplus.zip", ferplus_zip(FERPLUS)),
        of("importers", b't', "ferplus label.csv", text(FERPLUS)),
        of("importers", b'f', "fer2013.csv", fer2013()),
        of("importers", b'g', "fer2013.csv.gz", gz(fer2013().split(|b| *b == 0).next().unwrap())),
        of("importers", b'r', "rafdb list", text("train_1.jpg 4\ntrain_2.jpg 5\ntest_1.jpg 1\n")),
        of("importers", b'd', "rafdb distribution", text("train_1 0 0 0.1 0.9 0 0 0\ntrain_2.jpg 0 0 0 0 1 0 0\n")),
        of("importers", b'a', "affectnet.csv", affectnet()),
        of("importers", b'n', "npy landmarks", npy()),
        of("importers", b'v', "votes.csv", text("file,split,calm,glad,sad,unknown\na.png,train,4,6,0,0\nb.png,valid,0,1,8,1\n")),
        of(
            "importers",
            b'o',
            "annotations.csv",
            text("file,annotator,label,split\na.png,x,calm,train\na.png,y,glad,train\nb.png,x,sad,test\n"),
        ),
        of("importers", b'c', "candidates.csv", text("file,candidates,split,label\na.png,calm|glad,train,\nb.png,sad,test,sad\n")),
        of("importers", b'k', "landmarks.csv", text("file,x1,y1\na.png,1,2,3,4,5,6,7,8,9,10\n\"b, c.png\",9,8,7,6,5,4,3,2,1,0\n")),
        of("importers", b's', "labels for a pack", text("id,candidates\nf0,calm|glad\nf1,sad\n")),
        of("importers", b'i', "png", picture(ImageFormat::Png, 24, 20)),
        of("importers", b'i', "jpeg", picture(ImageFormat::Jpeg, 24, 20)),
        of("importers", b'i', "webp", picture(ImageFormat::WebP, 24, 20)),
        of("importers", b'i', "bmp", picture(ImageFormat::Bmp, 12, 10)),
        of("importers", b'i', "pnm", picture(ImageFormat::Pnm, 12, 10)),
        one("config", "config.toml", preset_text("demo").unwrap().into()),
        one("config", "--set", text("vit.dim=64\nfinetune.lr=1e-3\nmask.kind=random\nencoder.backbone=resnet18\nmask.ratio=0.4")),
    ]
}

/// A folder in memory, where there is one: everything here is written, synced and read thousands of times.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The bytes of a file that `make` writes.
fn written(make: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = scratch();
    let path = folder.path().join("file");
    make(&path);
    std::fs::read(path).unwrap()
}

fn protocol() -> Protocol {
    Protocol {
        name: "three".into(),
        classes: CLASSES.map(String::from).into(),
        extra_columns: vec!["unknown".into()],
        rule: "majority".into(),
        source: "made".into(),
    }
}

pub fn write_pack(path: &Path) {
    let mut writer = PackWriter::create(path, protocol()).unwrap();
    for i in 0..6u16 {
        let mut face = Face::new(format!("f{i}"), Split::ALL[usize::from(i / 2)]);
        (face.label, face.truth) = (Some(i % 3), Some(0));
        face.votes = vec![u32::from(i), 3, 2, 1];
        face.panel = vec![Some(i % 4), None];
        face.candidates = vec![0, 2];
        face.landmarks = vec![[1.5, 2.0]; 5];
        let channels = if i == 5 { 3 } else { 1 };
        writer.push(face, &Pixels::new(8, 6, channels, (0..48 * channels).map(|v| (v * 37 + usize::from(i)) as u8).collect())).unwrap();
    }
    writer.finish(json!({"importer": "folder", "settings": {"size": 8}, "annotators": ["x", "y"], "notes": []})).unwrap();
}

fn pack() -> Vec<u8> {
    written(write_pack)
}

fn events() -> Vec<u8> {
    let at = |stage, label: &str, step: u64| At::stage(stage, label).step(step, step as f64 / 2.0);
    let (run, pre) = (At::run(), |step| at(Stage::Pretrain, "", step));
    let pll = |step| at(Stage::Finetune, "pll", step);
    let score = |split| Body::Evaluation {
        split,
        accuracy: 0.5,
        mean_recall: 0.25,
        per_class: vec![Some(0.5), None, Some(0.0)],
        confusion: vec![vec![1, 1, 0], vec![0, 0, 0], vec![2, 0, 3]],
        loss: Some(1.25),
        macro_f1: Some(0.25),
        calibration_error: Some(f64::NAN),
    };
    let picture = Body::Picture { path: "media/pretrain-2.png".into(), columns: 4, rows: 2, gap: 2 };
    let confidence = Body::Confidence { histogram: vec![1; 20], resolved: 3, ambiguous: 20, flips: 2, recovered: Some(0.75) };
    let watched = Body::Watched { face: "f0".into(), candidates: vec![0, 2], confidences: vec![0.25, 0.75], truth: Some(0) };
    let all = [
        (run.clone(), Body::RunStarted { command: "moue demo".into(), version: "0.1.0".into() }),
        (pre(0), Body::Phase { name: Phase::Compile, elapsed: Some(0.5) }),
        (pre(0), Body::StageStarted { steps: 4, epochs: 2.0, batch: 2, faces: 4 }),
        (pre(2), Body::Scalars(Scalars::from([("loss", 0.5), ("lr", 1e-3)]))),
        (pre(2), picture),
        (pre(4), Body::StageFinished { elapsed: 12.5 }),
        (pll(0), Body::StageStarted { steps: 4, epochs: 2.0, batch: 2, faces: 2 }),
        (pll(1), Body::Scalars(Scalars::from([("loss", f64::NAN), ("odd", f64::INFINITY)]))),
        (pll(2), confidence),
        (pll(2), watched),
        (pll(2), score(Split::Valid)),
        (pll(4), score(Split::Test)),
        (pll(4), Body::Checkpoint { path: "checkpoints/finetune-pll-00000004.ckpt".into() }),
        (run.clone(), Body::Message { level: Level::Warning, text: "two\nlines".into() }),
        (run.clone(), Body::RunResumed { command: "moue demo --resume".into(), version: "0.1.0".into() }),
        (run, Body::RunFinished { outcome: Outcome::Completed, message: String::new() }),
    ];
    let line = |(i, (at, body)): (usize, (At, Body))| {
        let event = Event { v: VERSION, t: i as f64 * 1.5, stage: at.stage, label: at.label, step: at.step, epoch: at.epoch, body };
        serde_json::to_string(&event).unwrap() + "\n"
    };
    all.into_iter().enumerate().map(line).collect::<String>().into_bytes()
}

fn manifest() -> Vec<u8> {
    let folder = scratch();
    let pack = folder.path().join("f.moue");
    write_pack(&pack);
    let mut manifest = Manifest::new(["moue", "demo"].map(String::from).to_vec(), 7);
    manifest.stages = ["pretrain", "finetune/pll"].map(String::from).to_vec();
    manifest.settings.set("finetune.epochs", Setting { value: json!(2), origin: "default".into() });
    manifest.device = json!({"name": "a device", "cores": 2});
    // Beside the run, so that the same text serves every folder.
    manifest.data = Some(Data { pack: "f.moue".into(), ..Data::of(&Pack::open(&pack).unwrap()) });
    manifest.inputs.set("from", "runs/earlier".to_string());
    manifest.finish(Outcome::Completed);
    serde_json::to_vec_pretty(&manifest).unwrap()
}

fn history() -> Vec<u8> {
    let subject = |id: &str| Subject { id: id.into(), given: Some(0), candidates: vec![0, 2], votes: vec![4, 0, 6, 0] };
    let header = Header {
        objective: "pll".into(),
        classes: CLASSES.map(String::from).into(),
        pack_hash: "0123".into(),
        faces: vec![subject("f0"), subject("f1")],
    };
    written(|path| {
        let (mut writer, _) = HistoryWriter::open(path, &header, 1).unwrap();
        for epoch in 1..=2 {
            let flips = vec![Flip { face: 1, step: u64::from(epoch) * 2, from: 0, to: 2 }];
            writer.append(&Frame { epoch, step: u64::from(epoch) * 2, confidences: vec![128, 127, 51, 204], flips }, false).unwrap();
        }
    })
}

fn predictions() -> Vec<u8> {
    written(|path| {
        let pack = path.with_file_name("f.moue");
        write_pack(&pack);
        let probabilities = [0.5, 0.25, 0.25].repeat(6);
        Predictions::of(&Pack::open(&pack).unwrap(), &[0, 1, 2, 3, 4, 5], probabilities).write(path).unwrap();
    })
}

/// What a run decided.
const DECIDED: &str =
    "id,given,decided,margin,ambiguous,truth,calm,glad,sad\nf0,calm,sad,0.5,1,calm,0.25,0,0.75\nf1,glad,glad,1,0,,0,1,0\n";

fn state() -> State {
    State {
        format: 1,
        stage: "finetune/pll".into(),
        step: 4,
        steps: 4,
        seed: 1,
        classes: CLASSES.map(String::from).into(),
        protocol_hash: protocol().hash(),
        protocol: Some(protocol()),
        settings: Resolved::default().entries().take(12).map(|(key, value, _)| (key.to_string(), value)).collect(),
        ..State::default()
    }
}

fn checkpoint() -> Vec<u8> {
    let blobs = vec![("model.bpk".to_string(), (0..=255).collect()), ("optimizer.bpk".to_string(), vec![7; 99])];
    written(|path| Checkpoint::new(state(), blobs).write(path).unwrap())
}

/// A checkpoint with this for its state.
pub fn checkpoint_of(state: &[u8]) -> Vec<u8> {
    zipped(CompressionMethod::Stored, &[("state.json", state), ("model.bpk", &[7; 16])])
}

fn safetensors() -> Vec<u8> {
    let card = Card { layout: Layout::Moue, ..Card::imported("a test", &Resolved::default()) };
    let tensors = [
        Named { name: "encoder.norm.gamma".into(), shape: vec![4], values: vec![1.0; 4] },
        Named { name: "encoder.patch_embed.weight".into(), shape: vec![2, 3], values: vec![0.5; 6] },
    ];
    written(|path| write(path, &tensors, &card).unwrap())
}

/// What `torch.save({"weight": torch.zeros(2, 3)}, ...)` writes, less what is not needed.
fn pytorch() -> Vec<u8> {
    pytorch_with(
        b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\n\
          FloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x03K\x01\x86q\x09\x89}q\x0atq\x0b\
          Rq\x0cs.",
    )
}

/// A PyTorch checkpoint with this pickle.
pub fn pytorch_with(pickle: &[u8]) -> Vec<u8> {
    let values: Vec<u8> = (0..6u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
    let entries: [(&str, &[u8]); 4] = [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &values), ("a/version", b"3\n")];
    zipped(CompressionMethod::Stored, &entries)
}

pub fn zipped(method: CompressionMethod, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub const FERPLUS: &str = "a.png,\"(0, 0, 24, 20)\",4,0,0,1,3,2,0,0,0,0\nb.png,\"(0, 0, 24, 20)\",0,9,0,0,0,0,0,0,0,1\n";

/// The archive that FERPlus's folder makes, with these labels for its training faces.
pub fn ferplus_zip(labels: &str) -> Vec<u8> {
    let face = picture(ImageFormat::Png, 24, 20);
    let entries: [(&str, &[u8]); 5] = [
        ("FER2013Train/label.csv", labels.as_bytes()),
        ("FER2013Train/a.png", &face),
        ("FER2013Train/b.png", &face),
        ("FER2013Test/label.csv", FERPLUS.lines().next().unwrap().as_bytes()),
        ("FER2013Test/a.png", &face),
    ];
    zipped(CompressionMethod::Deflated, &entries)
}

/// `fer2013.csv`, a zero byte, `fer2013new.csv`.
fn fer2013() -> Vec<u8> {
    let pixels = "7 ".repeat(48 * 48);
    let faces = format!("emotion,pixels,Usage\n0,{pixels},Training\n1,{pixels},PublicTest\n");
    let votes = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n\
                 Training,fer0.png,4,0,6,0,0,0,0,0,0,0\nPublicTest,fer1.png,0,9,0,0,0,0,0,0,1,0\n";
    [faces.as_bytes(), votes.as_bytes()].join(&0)
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn affectnet() -> Vec<u8> {
    let points = ["1.5"; 136].join(";");
    let head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal";
    format!("{head}\n1/a.png,0,0,24,20,{points},3,0.1,0.2\n1/b.png,2,2,9,9,{points},9,0,0\n").into_bytes()
}

pub fn npy() -> Vec<u8> {
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (136,), }\n";
    let values = (0..136).flat_map(|v| f64::from(v).to_le_bytes());
    let head = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    head.into_iter().chain(values).collect()
}

pub fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let colour = |x: u32, y: u32| image::Rgb([(x * 9) as u8 ^ y as u8, (y * 5) as u8, (x * y) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::from_fn(width, height, colour)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A finished run with everything in it that a run can hold, beside its pack.
pub fn write_run(root: &Path) -> RunFolder {
    let folder = RunFolder::create(&root.join("run")).unwrap();
    write_pack(&root.join("run/f.moue"));
    let files: [(std::path::PathBuf, Vec<u8>); 6] = [
        (folder.events(), events()),
        (folder.manifest(), manifest()),
        (folder.history("pll"), history()),
        (folder.predictions("pll"), predictions()),
        (folder.labels(), DECIDED.into()),
        (folder.media().join("pretrain-2.png"), picture(ImageFormat::Png, 40, 30)),
    ];
    for (path, bytes) in files {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}
