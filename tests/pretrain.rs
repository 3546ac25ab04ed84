//! The four ways to pretrain, each as a user runs it: the loss falls, every checkpoint has its picture, and finetuning goes on from the
//! encoder. Networks are so small that a run takes seconds.

#![cfg(feature = "train")]

mod bench;

use bench::Bench;
use moue::run::{Body, Event, Stage};
use std::fs;

const TINY: &[&str] = &[
    "data.size=32",
    "data.channels=1",
    "data.normalize=half",
    "vit.patch=8",
    "vit.dim=24",
    "vit.heads=2",
    "vit.depth=1",
    "vit.positions=sincos",
    "decoder.heads=2",
    "decoder.layers=1",
    "hog.cell=4",
    "mim.decoder_dim=16",
    "mim.decoder_heads=2",
    "mim.decoder_depth=1",
    "pretrain.epochs=1",
    "pretrain.batch=8",
    "pretrain.lr=4e-3",
    "pretrain.warmup=0",
    "pretrain.clip=1",
    "finetune.epochs=1",
    "finetune.batch=32",
    "finetune.baseline=false",
    "run.threads=2",
    "run.log_every=1",
];

/// What the tests of pretraining do beside.
impl Bench {
    /// The loss of every step.
    fn losses(&self, run: &str, stage: Stage) -> Vec<f64> {
        let loss = |e: Event| match e.body {
            Body::Scalars(scalars) if e.stage == stage => scalars.get("loss"),
            _ => None,
        };
        self.events(run).into_iter().filter_map(loss).collect()
    }
}

/// A training command on the tiny network; later settings win.
fn train<'a>(words: &[&'a str], settings: &[&'a str]) -> Vec<&'a str> {
    let set = TINY.iter().chain(settings).flat_map(|&s| ["--set", s]);
    words.iter().copied().chain(["--data", "f.moue", "--device", "cpu", "--no-tui"]).chain(set).collect()
}

/// Mean of the first and of the last quarter.
fn ends(losses: &[f64]) -> (f64, f64) {
    let quarter = losses.len() / 4;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (mean(&losses[..quarter]), mean(&losses[losses.len() - quarter..]))
}

/// Each method with the settings that make it itself, and tiles in a row of its picture.
const METHODS: &[(&str, &[&str], u32)] = &[
    ("maskfeat", &["mask.kind=block"], 4),
    ("mae_hog", &["mask.kind=block"], 4),
    ("mae", &["mask.kind=random", "mask.ratio=0.75", "vit.cls=false"], 3),
    ("simmim", &["mask.kind=random", "mask.ratio=0.6", "mask.unit=2"], 3),
];

#[test]
fn every_method_learns_and_is_finetuned() {
    let b = Bench::with_faces("640", "32");
    for (method, settings, tiles) in METHODS {
        let choice = format!("pretrain.method={method}");
        let settings: Vec<&str> = settings.iter().copied().chain([choice.as_str()]).collect();
        let (from, to) = (format!("{method}-encoder"), format!("{method}-classifier"));
        b.done(&train(&["pretrain", "--out", &from], &settings));
        let losses = b.losses(&from, Stage::Pretrain);
        assert_eq!(losses.len(), 80, "{method}");
        let (first, last) = ends(&losses);
        assert!(last < 0.95 * first, "{method}: the loss goes from {first} to {last}");

        let pictures: Vec<_> = fs::read_dir(b.path(&from).join("media")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(pictures, ["pretrain-00000080.png"], "{method}");
        let picture = image::open(b.path(&from).join("media/pretrain-00000080.png")).unwrap();
        assert_eq!((picture.width(), picture.height()), (8 + tiles * 232, 8 + 6 * 232), "{method}");

        // The network's own keys have to be the same; what pretraining did with it is no concern of finetuning.
        let network: Vec<&str> = settings.iter().copied().filter(|s| s.starts_with("vit.")).collect();
        b.done(&train(&["finetune", "--from", &from, "--out", &to], &network));
        let fresh = format!("{method}-fresh");
        b.done(&train(&["finetune", "--out", &fresh], &network));
        let first = |run: &str| b.losses(run, Stage::Finetune)[0];
        assert!(first(&to) != first(&fresh), "{method}: the pretrained encoder was not used");
    }
}

#[test]
fn pictures_depend_on_nothing_but_the_run() {
    let b = Bench::with_faces("640", "32");
    let run = |out: &str, workers: &str| {
        let settings = ["pretrain.method=mae_hog", "pretrain.epochs=3", "run.checkpoint_every=2", workers];
        b.done(&train(&["pretrain", "--out", out], &settings));
        let media = b.path(out).join("media");
        [160, 240].map(|step| fs::read(media.join(format!("pretrain-{step:08}.png"))).unwrap())
    };
    let [middle, last] = run("a", "run.workers=1");
    assert!(middle != last, "the network learned nothing between two checkpoints");
    assert!([middle, last] == run("b", "run.workers=3"));
    assert_eq!(fs::read_dir(b.path("a/media")).unwrap().count(), 2);
}

#[test]
fn finetuning_on_part_of_the_patches_learns_and_is_scored_on_all() {
    let b = Bench::with_faces("640", "32");
    let finetune = |out, more: &[&'static str]| {
        let settings = [&["finetune.epochs=4", "finetune.lr=3e-3", "finetune.warmup=0"], more].concat();
        b.done(&train(&["finetune", "--out", out], &settings));
        b.losses(out, Stage::Finetune)
    };
    let masked = finetune("masked", &["finetune.mask_ratio=0.4"]);
    let (first, last) = ends(&masked);
    assert!(last < first, "the loss goes from {first} to {last}");
    assert!(masked == finetune("again", &["finetune.mask_ratio=0.4"]), "the same command gave another result");
    assert!(masked != finetune("whole", &[]), "the mask changes nothing");
    let scored = |e: Event| matches!(e.body, Body::Evaluation { .. });
    assert!(b.events("masked").into_iter().any(scored));

    let refused = |settings: &[&str], part: &str| {
        let output = b.moue(&train(&["finetune", "--out", "X"], settings));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(part) && said.lines().count() == 1, "{settings:?}: {said}");
        assert!(!b.path("X").exists());
    };
    refused(&["finetune.mask_ratio=0.4", "vit.stem=conv"], "finetune.mask_ratio = 0.4");
    refused(&["pretrain.method=mae", "vit.stem=conv"], "vit.stem = \"patch\"");
}
