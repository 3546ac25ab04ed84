//! What may go wrong in a training goes as it should: numbers that are no longer finite, a full disk, a device that is lost, signals, and a
//! second process on the same run.

#![cfg(feature = "train")]

mod bench;

use anyhow::Result;
use bench::{Bench, PATIENCE, text, train};
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use moue::config::DeviceChoice;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device;
use moue::engine::guard::{ROLLBACKS, Raw};
use moue::engine::objective::{EpochEnd, Objective, Pass, Shard, Source};
use moue::engine::optimizer::OptimizerConfig;
use moue::engine::read_values;
use moue::engine::shards::Shards;
use moue::engine::train::{Ended, Plan, train as run_training};
use moue::failure::survive;
use moue::model::Noise;
use moue::random::Streams;
use moue::run::checkpoint::{self, State};
use moue::run::{At, Body, Control, Event, EventReader, EventWriter, Outcome, RunFolder, Stage};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Faces are numbers, all of them 1 but those named.
struct Numbers {
    faces: usize,
    bad: Option<usize>,
}

impl Source for Numbers {
    type Batch = Vec<f32>;

    fn faces(&self) -> usize {
        self.faces
    }

    fn prepare(&self, _epoch: u64, positions: &[usize]) -> Result<Vec<f32>> {
        Ok(positions.iter().map(|&p| if self.bad == Some(p) { f32::NAN } else { 1.0 }).collect())
    }

    fn upload_ahead(&self, _batch: &Vec<f32>, _device: &Device) {}

    fn names(&self, positions: &[usize]) -> Vec<String> {
        positions.iter().map(|p| format!("face {p}")).collect()
    }

    fn raw(&self, batch: &Vec<f32>) -> Vec<Raw> {
        let bytes = batch.iter().flat_map(|v| v.to_le_bytes()).collect();
        vec![Raw { name: "numbers", dtype: safetensors::Dtype::F32, shape: vec![batch.len()], bytes }]
    }
}

/// A weight that falls by the learning rate at every step, whatever the gradient: so does AdamW. Below `floor` the loss is no number.
struct Falling {
    source: Arc<Numbers>,
    floor: f32,
    room: usize,
    after: fn(u64),
}

impl Objective for Falling {
    type Model = Linear;
    type Source = Numbers;

    fn source(&self) -> Arc<Numbers> {
        self.source.clone()
    }

    fn weight(&self, batch: &Vec<f32>) -> f64 {
        batch.len() as f64
    }

    fn forward(&self, model: &Linear, batch: &Vec<f32>, shard: Shard, _noise: &mut Noise, device: &Device) -> Pass {
        assert!(batch.len() <= self.room, "out of memory");
        let x = Tensor::<2>::from_data(TensorData::new(batch.clone(), [batch.len(), 1]), device);
        let y = model.forward(x);
        // sqrt is NaN below zero, and so is its slope.
        let loss = (y - self.floor).sqrt().mean().mul_scalar(shard.share as f32);
        Pass { loss, response: None }
    }

    fn end_epoch(&mut self, _model: &Linear, end: EpochEnd) -> Result<Option<f64>> {
        (self.after)(end.epoch);
        Ok(None)
    }
}

struct Ran {
    folder: RunFolder,
    ended: Result<f32>,
    events: Vec<Event>,
}

impl Ran {
    fn messages(&self) -> Vec<&str> {
        self.events.iter().filter_map(|e| if let Body::Message { text, .. } = &e.body { Some(text.as_str()) } else { None }).collect()
    }

    fn rates(&self) -> Vec<(u64, f64)> {
        let rate = |e: &Event| if let Body::Scalars(s) = &e.body { Some((e.step, s.get("lr")?)) } else { None };
        self.events.iter().filter_map(rate).collect()
    }
}

/// The falling weight from 1 down: 4 epochs of 5 steps, with a checkpoint after each.
struct Fall {
    rate: f64,
    floor: f32,
    bad: Option<usize>,
    /// Faces at once that there is memory for.
    room: usize,
    device: Device,
    /// Called with the number of each epoch that has ended.
    after: fn(u64),
}

impl Fall {
    fn new(rate: f64, floor: f32) -> Self {
        Self { rate, floor, bad: None, room: usize::MAX, device: Device::flex(), after: |_| {} }
    }

    fn train(&self, root: &Path) -> Ran {
        let path = root.join("run");
        let resume = path.exists();
        let folder = if resume { RunFolder::open(&path).unwrap() } else { RunFolder::create(&path).unwrap() };
        let lock = folder.lock().unwrap();
        let writer = match resume {
            true => EventWriter::resume(&folder, lock, vec![], |_| true),
            false => EventWriter::create(&folder, lock, vec![]),
        };
        let writer = writer.unwrap();
        let device = self.device.clone().autodiff();
        let shards = Shards::new(1).unwrap();
        let (events, control) = (writer.sender(), Control::default());
        let plan = Plan {
            at: At::stage(Stage::Pretrain, ""),
            epochs: 4,
            batch: 2,
            accumulate: 1,
            peak_rate: self.rate,
            floor_rate: self.rate,
            warmup_epochs: 0.0,
            optimizer: OptimizerConfig { weight_decay: 0.0, beta1: 0.0, beta2: 0.0, clip: 0.0, layer_decay: 1.0, depth: 0 },
            log_every: 1,
            checkpoint_every: 1,
            keep_every: 0,
            bad_steps: 3,
            workers: 1,
            streams: Streams::new(0),
            device: &device,
            compiles: false,
            shards: &shards,
            folder: &folder,
            events: &events,
            control: &control,
            kind: "pretrain",
            state: State { stage: "pretrain".into(), ..State::default() },
            resume,
        };
        let fresh = || {
            let mut model = LinearConfig::new(1, 1).with_bias(false).init(&device);
            model.weight = Param::from_tensor(Tensor::ones([1, 1], &device));
            Ok(model)
        };
        let source = Arc::new(Numbers { faces: 10, bad: self.bad });
        let mut objective = Falling { source, floor: self.floor, room: self.room, after: self.after };
        let ended = survive(|| run_training(&mut objective, &fresh, &plan)).map(|ended| match ended {
            Ended::Done(model) => read_values(model.valid().weight.val()).unwrap()[0],
            Ended::Interrupted => panic!("nobody asked to stop"),
        });
        writer.finish().unwrap();
        let events = EventReader::open(&folder).unwrap().map(Result::unwrap).collect();
        Ran { folder, ended, events }
    }
}

fn fall(rate: f64, floor: f32) -> (tempfile::TempDir, Ran) {
    let root = tempfile::tempdir().unwrap();
    let ran = Fall::new(rate, floor).train(root.path());
    (root, ran)
}

#[test]
fn a_step_that_is_not_finite_is_left_out_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let ran = Fall { bad: Some(3), ..Fall::new(0.01, 0.0) }.train(root.path());
    // One of five steps of each of four epochs.
    assert!((ran.ended.as_ref().unwrap() - (1.0 - 16.0 * 0.01)).abs() < 1e-4, "{:?}", ran.ended);
    let told = ran.messages();
    assert!(told.len() == 4 && told.iter().all(|t| t.contains("left out: loss NaN")), "{told:?}");
    let last = ran.events.iter().rev().find_map(|e| if let Body::Scalars(s) = &e.body { s.get("steps_left_out") } else { None });
    assert_eq!(last, Some(4.0));
    assert!(ran.events.iter().all(|e| if let Body::Scalars(s) = &e.body { s.get("loss").unwrap().is_finite() } else { true }));
    assert!(!ran.folder.fault().exists());
}

#[test]
fn a_row_of_them_goes_back_to_the_last_good_checkpoint_with_a_smaller_rate() {
    // The ninth step falls below the floor, so the checkpoint after the tenth is none to go back to. From the one after the fifth, at 0.3 of
    // the rate, the seventeenth does so; from the one after the fifteenth, at 0.09, none does.
    let (_root, ran) = fall(0.1, 0.15);
    let weight = *ran.ended.as_ref().unwrap();
    assert!((weight - (1.0 - 5.0 * 0.1 - 10.0 * 0.03 - 5.0 * 0.009)).abs() < 1e-4, "{weight}");
    let told = ran.messages();
    for back in ["back to step 5, with 0.300 of the learning rate", "back to step 15, with 0.090 of the learning rate"] {
        assert_eq!(told.iter().filter(|t| t.contains(back)).count(), 1, "{told:?}");
    }
    // What was told of the steps that were taken back is taken back as well: the log tells of one training.
    let rates = ran.rates();
    assert_eq!(rates.iter().map(|r| r.0).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>(), "{rates:?}");
    for (step, rate) in [(5, 0.1), (6, 0.03), (15, 0.03), (16, 0.009), (20, 0.009)] {
        assert!((rates[step - 1].1 - rate).abs() < 1e-9, "{rates:?}");
    }
    let newest = checkpoint::newest(&ran.folder, "pretrain", |w| panic!("{w}")).unwrap().unwrap();
    assert_eq!(newest.1.state.step, 20);
    // Before the first checkpoint the way back is to the beginning.
    let (_root, ran) = fall(0.4, 0.0);
    let told = ran.messages();
    assert!(told.iter().any(|t| t.contains("back to step 0, with 0.300")), "{told:?}");
    assert_eq!(ran.events.iter().filter(|e| matches!(e.body, Body::StageStarted { .. })).count(), 1);
}

/// The smaller rate is on the disk as soon as training goes on with it.
#[test]
fn a_run_that_ends_after_it_went_back_goes_on_with_the_smaller_rate() {
    static SECONDS: AtomicUsize = AtomicUsize::new(0);
    static BEGINNINGS: AtomicUsize = AtomicUsize::new(0);
    // The second epoch ends twice, and nothing of the second time is on the disk yet; where going back is to the beginning, the first one.
    fn after_a_checkpoint(epoch: u64) {
        assert!(epoch != 2 || SECONDS.fetch_add(1, Ordering::SeqCst) != 1, "the power is gone");
    }
    fn after_none(epoch: u64) {
        assert!(epoch != 1 || BEGINNINGS.fetch_add(1, Ordering::SeqCst) != 1, "the power is gone");
    }
    for (rate, floor, after, told) in
        [(0.1, 0.15, after_a_checkpoint as fn(u64), "back to step 5"), (0.4, 0.0, after_none, "back to step 0")]
    {
        let (_undisturbed, expected) = fall(rate, floor);
        let root = tempfile::tempdir().unwrap();
        let cut = Fall { after, ..Fall::new(rate, floor) }.train(root.path());
        assert!(format!("{:#}", cut.ended.as_ref().unwrap_err()).contains("the power is gone"), "{:?}", cut.ended);
        assert!(cut.messages().iter().any(|text| text.contains(told)), "{:?}", cut.messages());
        let ran = Fall::new(rate, floor).train(root.path());
        assert_eq!(ran.ended.unwrap().to_bits(), expected.ended.unwrap().to_bits(), "{told}");
    }
}

/// What was found out about the device's memory is not found out again.
#[test]
fn a_run_whose_batches_were_cut_smaller_goes_on_so() {
    let root = tempfile::tempdir().unwrap();
    let small = |after: fn(u64)| Fall { room: 1, after, ..Fall::new(0.01, 0.0) };
    let cut = small(|epoch| assert!(epoch != 2, "the power is gone")).train(root.path());
    assert!(format!("{:#}", cut.ended.as_ref().unwrap_err()).contains("the power is gone"), "{:?}", cut.ended);
    let ran = small(|_| {}).train(root.path());
    assert!((ran.ended.as_ref().unwrap() - (1.0 - 20.0 * 0.01)).abs() < 1e-4, "{:?}", ran.ended);
    let told = ran.messages();
    for text in ["from now on 1 faces at once", "1 faces at once, as before"] {
        assert_eq!(told.iter().filter(|t| t.contains(text)).count(), 1, "{told:?}");
    }
    // Still so at the end, for who goes on from there or looks at it.
    let newest = checkpoint::newest(&ran.folder, "pretrain", |w| panic!("{w}")).unwrap().unwrap().1.state;
    assert_eq!((newest.step, newest.parts), (20, Some(2)));
}

#[test]
fn where_going_back_does_not_help_the_cause_is_kept() {
    let (_root, ran) = fall(1e6, 0.0);
    let error = format!("{:#}", ran.ended.as_ref().unwrap_err());
    assert!(error.contains("diverged") && error.contains("gradient of weight") && error.contains("pretrain.lr"), "{error}");
    let found: serde_json::Value = serde_json::from_slice(&fs::read(ran.folder.fault().join("pretrain.json")).unwrap()).unwrap();
    assert_eq!((&found["first_bad_tensor"], &found["loss"]), (&"gradient of weight".into(), &"NaN".into()), "{found}");
    assert!(found["faces"].as_array().unwrap().len() == 2 && found["faces"][0].as_str().unwrap().starts_with("face "), "{found}");
    let batch = fs::read(ran.folder.fault().join(found["batch"].as_str().unwrap())).unwrap();
    let batch = safetensors::SafeTensors::deserialize(&batch).unwrap();
    assert_eq!(batch.tensor("0.numbers").unwrap().shape(), [2]);
    assert_eq!(ran.messages().iter().filter(|t| t.contains("back to step 0")).count(), ROLLBACKS as usize);
    assert!(ran.messages().iter().any(|t| t.contains(&format!("{:.3} of the learning rate", 0.3f64.powi(ROLLBACKS)))));
}

/// Where the optimiser does not wait for loss and norm: what it made of a bad step is dropped.
fn a_gpu_takes_back_what_is_not_finite(device: &Device) {
    let run = |fall: Fall| {
        let root = tempfile::tempdir().unwrap();
        let ran = Fall { device: device.clone(), ..fall }.train(root.path());
        (root, ran)
    };
    let (_root, ran) = run(Fall { bad: Some(3), ..Fall::new(0.01, 0.0) });
    assert!((ran.ended.as_ref().unwrap() - (1.0 - 16.0 * 0.01)).abs() < 1e-4, "{:?}", ran.ended);
    assert_eq!(ran.messages().iter().filter(|t| t.contains("left out: loss NaN")).count(), 4, "{:?}", ran.messages());
    let (_root, ran) = run(Fall::new(0.1, 0.15));
    let (weight, on_the_cpu) = (*ran.ended.as_ref().unwrap(), fall(0.1, 0.15).1.ended.unwrap());
    assert!((weight - on_the_cpu).abs() < 1e-4, "{weight} {on_the_cpu}");
    let (_root, ran) = run(Fall::new(1e6, 0.0));
    let error = format!("{:#}", ran.ended.as_ref().unwrap_err());
    // Of the root of a negative number some GPUs make a finite slope.
    assert!(error.contains("diverged") && error.contains("first bad tensor"), "{error}");
}

#[test]
fn a_gpu_goes_back_and_a_lost_one_ends_the_run_and_leaves_it_whole() {
    if !adapters().iter().any(|a| a.api == Api::Vulkan) {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
        return;
    }
    static SETUP: OnceLock<cubecl::wgpu::WgpuSetup> = OnceLock::new();
    let open = device::open(DeviceChoice::Vulkan(None)).unwrap();
    SETUP.set(open.setup.clone().unwrap()).map_err(drop).unwrap();
    assert!(!open.is_lost());
    // Here, because the device of a process is lost for all of its tests.
    a_gpu_takes_back_what_is_not_finite(&open.device);
    let root = tempfile::tempdir().unwrap();
    let lose = |epoch| {
        if epoch == 3 {
            SETUP.get().unwrap().device.destroy();
        }
    };
    let ran = Fall { device: open.device.clone(), after: lose, ..Fall::new(0.01, 0.0) }.train(root.path());
    assert!(ran.ended.is_err() && open.is_lost());
    // What was saved before is whole, and goes on elsewhere.
    let (_, saved) = checkpoint::newest(&ran.folder, "pretrain", |w| panic!("{w}")).unwrap().unwrap();
    assert_eq!(saved.state.step, 10);
    let ended = Fall::new(0.01, 0.0).train(root.path()).ended.unwrap();
    assert!((ended - (1.0 - 20.0 * 0.01)).abs() < 1e-3, "{ended}");
}

fn wait(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("the process does not end");
}

#[test]
fn a_diverging_run_ends_with_what_is_needed_to_find_out_why() {
    let b = Bench::new();
    b.refused(
        &train(&["finetune", "--data", "f.moue", "--out", "A"], &["finetune.lr=1e30", "finetune.clip=0"]),
        1,
        &["diverged", "A/fault"],
    );
    let found: serde_json::Value = serde_json::from_slice(&fs::read(b.path("A/fault/finetune-pll.json")).unwrap()).unwrap();
    let pack = moue::dataset::Pack::open(&b.path("f.moue")).unwrap();
    let faces: Vec<&str> = found["faces"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert!(faces.len() == 32 && faces.iter().all(|id| pack.faces().iter().any(|f| f.id == *id)), "{found}");
    let batch = fs::read(b.path("A/fault/finetune-pll.safetensors")).unwrap();
    let batch = safetensors::SafeTensors::deserialize(&batch).unwrap();
    // Two threads share the 32 faces.
    assert_eq!(batch.tensor("1.pixels").unwrap().shape(), [16, 32, 32, 1]);
    assert!(matches!(b.events("A").last().unwrap().body, Body::RunFinished { outcome: Outcome::Failed, .. }));
}

/// Stopped again and again wherever it is, a run ends as if nothing had been; and each time soon.
#[test]
#[cfg(unix)]
fn signals_save_and_end_within_ten_seconds() {
    // Much to measure after every epoch, so that signals come in between as well.
    let b = Bench::with_faces("96", "1500");
    let settings = ["finetune.epochs=4", "run.log_every=2"];
    b.done(&train(&["finetune", "--data", "f.moue", "--out", "whole"], &settings));
    let told = |run: &str| -> Vec<Event> {
        let tells =
            |e: &Event| matches!(e.body, Body::Scalars(_) | Body::Confidence { .. } | Body::Evaluation { .. } | Body::Watched { .. });
        b.events(run).into_iter().filter(tells).map(without_times).collect()
    };
    let (mut stops, mut command) = (0, train(&["finetune", "--data", "f.moue", "--out", "cut"], &settings));
    for round in 0..200 {
        let mut child = b.command(&command).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        // The start of a process takes its time, on a busy machine more of it; then somewhere within the next half second.
        std::thread::sleep(Duration::from_millis(150 + 20 * round + 37 * (round * 7 % 13)));
        let (asked, signal) = (Instant::now(), ["-TERM", "-INT"][round as usize % 2]);
        let alive = child.try_wait().unwrap().is_none();
        if alive {
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        }
        let code = wait(&mut child);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        // Before it listens, a signal is what it is to every process.
        assert!(matches!(code, Some(0) | None), "{code:?}");
        if b.path("cut/manifest.json").exists() && b.path("cut/events.jsonl").exists() {
            command = vec!["finetune", "--resume", "--out", "cut", "--device", "cpu", "--no-tui"];
            let ended = b.events("cut").last().map(|e| e.body.clone());
            if let Some(Body::RunFinished { outcome: Outcome::Completed, .. }) = ended {
                break;
            }
            stops += 1;
        } else {
            let _ = fs::remove_dir_all(b.path("cut"));
        }
    }
    assert!(stops >= 3, "only {stops} signals hit the run");
    assert_eq!(told("cut"), told("whole"));
    let (cut, whole) = (b.results("cut"), b.results("whole"));
    assert_eq!(cut.0, whole.0);
    for (file, (ours, theirs)) in ["labels", "history", "predictions"].iter().zip(cut.1.iter().zip(&whole.1)) {
        assert!(ours == theirs, "{file}: {} bytes instead of {}", ours.len(), theirs.len());
    }
}

/// A step that takes longer than a signal waits for (on a fast machine it may end before).
#[test]
#[cfg(unix)]
fn a_signal_within_a_long_step_saves_what_was_before_it() {
    let b = Bench::with_faces("2000", "16");
    let settings = ["vit.dim=192", "vit.heads=3", "vit.depth=8", "finetune.batch=1000", "finetune.epochs=1", "run.log_every=1"];
    let finetune = |out| train(&["finetune", "--data", "f.moue", "--out", out], &settings);
    b.done(&finetune("whole"));
    let (mut child, _lines) = b.until(&finetune("cut"), |line| line.contains("step=1/2") && line.contains(" loss="));
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let (code, took) = (wait(&mut child), asked.elapsed());
    assert!(took < Duration::from_secs(10), "{took:?}");
    match &b.events("cut").last().unwrap().body {
        Body::RunFinished { outcome: Outcome::Interrupted, message } if message.contains("is begun again") => assert_eq!(code, Some(130)),
        Body::RunFinished { outcome: Outcome::Interrupted, .. } => {
            assert_eq!(code, Some(0));
            eprintln!("SKIPPED: the step ended by itself after {took:?}");
        }
        other => panic!("{code:?}: {other:?}"),
    }
    b.done(&["finetune", "--resume", "--out", "cut", "--device", "cpu", "--no-tui"]);
    assert!(b.results("cut") == b.results("whole"), "the run ends otherwise");
}

fn without_times(event: Event) -> Event {
    let body = match event.body {
        Body::Scalars(s) => Body::Scalars(s.iter().filter(|(name, _)| !matches!(*name, "faces_per_second" | "memory_bytes")).collect()),
        body => body,
    };
    Event { t: 0.0, body, ..event }
}

#[test]
fn a_second_process_on_the_same_run_is_refused() {
    let b = Bench::new();
    let finetune = train(&["finetune", "--data", "f.moue", "--out", "A"], &["finetune.epochs=40"]);
    let (mut child, _lines) = b.until(&finetune, |line| line.contains(" loss="));
    let manifest = fs::read(b.path("A/manifest.json")).unwrap();
    b.refused(&["finetune", "--resume", "--out", "A", "--device", "cpu", "--no-tui"], 2, &["another process"]);
    assert!(manifest == fs::read(b.path("A/manifest.json")).unwrap(), "the refused process wrote into the run");
    assert_eq!(wait(&mut child), Some(0));
    assert!(matches!(b.events("A").last().unwrap().body, Body::RunFinished { outcome: Outcome::Completed, .. }));
}

/// On a disk of two megabytes that a large file fills in the midst of training and leaves again.
#[test]
#[cfg(target_os = "linux")]
fn on_a_full_disk_training_waits_for_room() {
    let b = Bench::new();
    let finetune = |out| train(&["finetune", "--data", "f.moue", "--out", out], &["finetune.epochs=12"]);
    b.done(&finetune("whole"));
    fs::create_dir(b.path("disk")).unwrap();
    // A file system of our own, which only this process and its children see. The shell tells when, and learns from a file when to clear.
    let script = r#"
        mount -t tmpfs -o size=2m tmpfs disk || exit 77
        "$@" > out.txt 2> err.txt & moue=$!
        until grep -q ' loss=' out.txt; do kill -0 $moue || exit 1; sleep 0.01; done
        cat /dev/zero > disk/filler 2> /dev/null
        for i in $(seq 600); do grep -q 'the disk is full' out.txt && break; kill -0 $moue || break; sleep 0.05; done
        cp -r disk/cut seen
        sleep 1
        rm disk/filler
        wait $moue || exit 1
        cp -r disk/cut cut
    "#;
    let command = finetune("disk/cut");
    let ran = Command::new("unshare")
        .args(["-Urm", "bash", "-c", script, "moue", env!("CARGO_BIN_EXE_moue")])
        .args(&command)
        .current_dir(b.path("."))
        .output();
    let ran = match ran {
        Ok(ran) if ran.status.code() != Some(77) && !text(&ran.stderr).contains("unshare") => ran,
        no => {
            // Not everybody may mount; `run::disk` and `run::writer` have tests that need no disk.
            eprintln!("SKIPPED: no file system of our own can be made here: {no:?}");
            return;
        }
    };
    let said = |name: &str| fs::read_to_string(b.path(name)).unwrap_or_default();
    assert_eq!(ran.status.code(), Some(0), "{}\n{}\n{}", text(&ran.stderr), said("out.txt"), said("err.txt"));
    let out = said("out.txt");
    assert!(out.contains("the disk is full") && out.contains("there is room on the disk again"), "{out}");
    // While it waited, no file was half written, and nobody took it for dead.
    let left: Vec<_> = fs::read_dir(b.path("seen/checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    left.iter().filter(|p| p.extension().is_some_and(|e| e == "ckpt")).for_each(|p| drop(checkpoint::Checkpoint::read(p).unwrap()));
    assert!(b.results("cut") == b.results("whole"), "the run ends otherwise");
}
