//! Whole training steps beside a second implementation: `tests/parity/twin.py`, PyTorch in double precision, made from the papers and
//! not from this code.
//!
//! Each case trains a small but complete network for ten steps on the path that training takes (objective, shards, optimiser, schedule)
//! and writes weights, 8-bit crops, masks, candidate sets and gradients for the twin, which computes its own. Compared are, each in its own
//! measure ([`Quantity`]): the first loss, every gradient of the first step, the first revised confidences, the losses of all ten steps, and
//! the parameters that the twin's optimiser reaches from moue's gradients. Then the twin computes it all again with one fault after another, and each
//! must be noticed where it belongs.
//!
//! ```sh
//! cargo test --release --test parity -- --nocapture     # prints the worst figures
//! ```
//! Needs a `python3` with torch, numpy and safetensors. Without one the tests say so and do nothing, unless `MOUE_NEEDS_TORCH` is set.
#![cfg(feature = "train")]

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use moue::config;
use moue::config::{Activation, Backbone, Below, MaskKind, Metric, Normalize, Order, Positions, QueryInit, Response, Settings, Stem};
use moue::dataset::generated::{self, GeneratorConfig};
use moue::dataset::{Pack, PackWriter, Split};
use moue::engine::fit::Passed;
use moue::engine::objective::{Objective, Source};
use moue::engine::optimizer::Optimizer;
use moue::engine::read_values;
use moue::engine::schedule::Schedule;
use moue::engine::shards::{Position, Shards};
use moue::engine::step::Place;
use moue::finetune::Finetune;
use moue::labels::Candidates;
use moue::model::init::Init;
use moue::model::{Classifier, Crops, Encoder, MaskedModel, MaskedVit};
use moue::pipeline::Training;
use moue::pretrain::MaskedModelling;
use moue::random::Streams;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

const STEPS: usize = 10;
const FACES: usize = 24;
/// Odd, so that the two shards differ in size.
const BATCH: usize = 15;
/// A gradient that the twin, in double precision, finds to be this small beside the network's largest is zero by its nature (the bias of
/// attention keys is), and moue's must then be below [`ZERO_SINGLE`] of that largest: there is nothing to be relative to.
const ZERO_DOUBLE: f64 = 1e-12;
const ZERO_SINGLE: f64 = 1e-6;

/// What is compared, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Quantity {
    /// |a - b| / |b| of the first step's loss.
    Loss,
    /// max |a - b| / max |b| over a parameter's gradient in the first step, before clipping.
    Gradient,
    /// |a - b| of confidences after the first step that revises them.
    Confidence,
    /// |a - b| / |b| of the loss, over all steps.
    Trajectory,
    /// max |a - b| over a parameter after all steps, less what ten roundings to single precision explain, beside the farthest that any
    /// of its values came.
    Optimizer,
}

impl Quantity {
    fn bound(self) -> f64 {
        match self {
            Quantity::Loss | Quantity::Confidence => 1e-5,
            Quantity::Gradient => 1e-4,
            Quantity::Trajectory | Quantity::Optimizer => 1e-3,
        }
    }
}

/// The worst figure of each quantity and the tensor it was found in.
type Worst = BTreeMap<Quantity, (f64, String)>;

struct Recording {
    case: Value,
    /// All that the twin reads.
    tensors: BTreeMap<String, Stored>,
    losses: Vec<f64>,
    gradients: BTreeMap<String, Vec<f64>>,
    rows: Vec<f64>,
    start: BTreeMap<String, Vec<f64>>,
    end: BTreeMap<String, Vec<f64>>,
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn floats(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }
}

/// Every parameter's path and shape with its values, or with its gradient where gradients are given.
#[derive(Default)]
struct Collect<'a> {
    gradients: Option<&'a GradientsParams>,
    path: Vec<String>,
    found: Vec<(String, Vec<usize>, Vec<f32>)>,
    frozen: Vec<String>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if !param.val().is_require_grad() {
            self.frozen.push(path.clone());
        }
        let tensor = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val().inner()),
        };
        if let Some(tensor) = tensor {
            self.found.push((path, tensor.dims().to_vec(), read_values(tensor).unwrap()));
        }
    }
}

/// Moves every parameter a little, without a source of randomness.
struct Stir;

impl ModuleMapper for Stir {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|t| {
            let (shape, trains, device) = (t.dims(), t.is_require_grad(), t.device());
            let moves = (0..shape.iter().product()).map(|i: usize| 0.2 * (i as f32 * 1.7 + 1.0).sin()).collect();
            (t.detach() + Tensor::from_data(TensorData::new::<f32, _>(moves, shape), &device)).detach().set_require_grad(trains)
        })
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// What the generic part of a recording has to know about an objective.
trait Recorded: Objective {
    fn crops(batch: &<Self::Source as Source>::Batch) -> &Crops;

    /// `[B, N]`, 1: hidden.
    fn mask(_batch: &<Self::Source as Source>::Batch) -> Option<Vec<f32>> {
        None
    }

    fn rows(&self) -> Vec<f64> {
        Vec::new()
    }
}

impl Recorded for Finetune {
    fn crops(batch: &<Self::Source as Source>::Batch) -> &Crops {
        &batch.views[0].crops
    }

    fn rows(&self) -> Vec<f64> {
        wide(self.decisions().1.rows())
    }
}

impl Recorded for MaskedModelling<MaskedVit> {
    fn crops(batch: &<Self::Source as Source>::Batch) -> &Crops {
        &batch.crops
    }

    fn mask(batch: &<Self::Source as Source>::Batch) -> Option<Vec<f32>> {
        Some(batch.hidden.iter().map(|&h| f32::from(u8::from(h))).collect())
    }
}

/// Trains for ten steps and writes down what happens.
fn record<O: Recorded>(objective: &mut O, mut model: O::Model, s: &Settings, training: Training, device: &Device) -> Recording {
    let (section, peak, floor) = match training {
        Training::Pretrain => ("pretrain", s.pretrain.lr, s.pretrain.min_lr),
        _ => ("finetune", s.finetune.lr, s.finetune.min_lr),
    };
    let schedule = Schedule { peak, floor, warmup_steps: 3.0, steps: STEPS as u64 };
    let mut optimizer = Optimizer::new(&model, &training.optimizer(s));
    let shards = Shards::new(2).unwrap();
    let source = objective.source();
    let mut tensors = BTreeMap::new();
    let mut start = Collect::default();
    model.visit(&mut start);
    assert!(!start.found.is_empty());
    for (path, shape, values) in &start.found {
        tensors.insert(format!("start/{path}"), Stored::floats(shape.clone(), values));
    }
    let (mut losses, mut first, mut rows) = (Vec::new(), BTreeMap::new(), Vec::new());
    let order: Vec<Vec<usize>> = (0..STEPS).map(|step| (0..BATCH).map(|i| (7 * step + i) % FACES).collect()).collect();
    for (step, positions) in order.iter().enumerate() {
        let parts: Vec<_> = positions.chunks(BATCH.div_ceil(2)).map(|part| source.prepare(step as u64, part).unwrap()).collect();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| O::crops(part).pixels().to_vec()).collect();
        let shape = vec![BATCH, s.data.size, s.data.size, s.data.channels];
        tensors.insert(format!("pixels/{step}"), Stored { dtype: Dtype::U8, shape, bytes });
        let mask: Vec<f32> = parts.iter().filter_map(|part| O::mask(part)).flatten().collect();
        if !mask.is_empty() {
            tensors.insert(format!("mask/{step}"), Stored::floats(vec![BATCH, s.grid().pow(2)], &mask));
        }
        let position = Position { streams: Streams::new(0), stage: training.kind(), step: step as u64 };
        let pass = Passed::over(&*objective, &model, 1.0, &parts, None, position, Place { shards: &shards, device }).unwrap();
        let mut gradients = Collect { gradients: Some(&pass.gradients), ..Collect::default() };
        model.visit(&mut gradients);
        for (path, shape, values) in gradients.found {
            tensors.insert(format!("gradients/{step}/{path}"), Stored::floats(shape, &values));
            if step == 0 {
                first.insert(path, wide(&values));
            }
        }
        losses.push(pass.loss);
        model = optimizer.step(model, pass.gradients, pass.norm, schedule.rate(step as u64));
        if !pass.responses.is_empty() {
            objective.after_step(step as u64, positions, &pass.responses);
        }
        if step == s.revise.start_epoch {
            rows = objective.rows();
        }
    }
    let mut end = Collect::default();
    model.visit(&mut end);
    let values = |found: Vec<(String, Vec<usize>, Vec<f32>)>| found.into_iter().map(|(path, _, v)| (path, wide(&v))).collect();
    let case = json!({
        "settings": s,
        "schedule": {"stage": section, "peak": peak, "floor": floor, "warmup_steps": 3.0, "steps": STEPS},
        "positions": order,
        "frozen": start.frozen,
    });
    Recording { case, tensors, losses, gradients: first, rows, start: values(start.found), end: values(end.found) }
}

/// Faces with votes of a divided panel.
fn pack(folder: &Path) -> Arc<Pack> {
    let path = folder.join("faces.moue");
    let mut writer = PackWriter::create(&path, generated::protocol()).unwrap();
    let config = GeneratorConfig { train: FACES, valid: 0, test: 0, size: 40, noise: 1.5, ..GeneratorConfig::default() };
    generated::generate(&config, &mut writer).unwrap();
    writer.finish(generated::provenance(&config)).unwrap();
    Arc::new(Pack::open(&path).unwrap())
}

/// A network with everything that the paper's has, only smaller. Nothing random in a forward pass: the twin could not draw the same.
fn small() -> Settings {
    let mut s = Settings::default();
    (s.data.size, s.hog.cell) = (32, 4);
    (s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads) = (8, 48, 3, 3);
    (s.decoder.heads, s.decoder.dropout, s.finetune.drop_path) = (3, 0.0, 0.0);
    // Above the votes of most faces, so that most are ambiguous.
    (s.labels.k, s.labels.min_votes) = (3, 1);
    (s.finetune.lr, s.pretrain.lr) = (2e-3, 2e-3);
    s
}

fn finetuning(s: &Settings, partial: bool, folder: &Path) -> Recording {
    let (pack, device, streams) = (pack(folder), Device::flex().autodiff(), Streams::new(3));
    let classes = pack.protocol().classes.len();
    let candidates = Candidates::build(&pack, &s.labels).unwrap();
    let kind = if partial { config::Objective::Pll } else { config::Objective::Ce };
    let mut objective = Finetune::new(kind, pack, Some(&candidates), s, streams).unwrap();
    let init = Init { streams, device: &device };
    let mut model = Classifier::new(&init, Encoder::new(&init, s), classes, s);
    if s.encoder.backbone == Backbone::Resnet18 {
        // Its blocks begin with a gain of zero, behind which every gradient is zero.
        model = model.map(&mut Stir);
    }
    let table = objective.decisions().1;
    assert_eq!(table.len(), FACES);
    let candidates: Vec<_> = (0..FACES).map(|face| table.candidates(face).to_vec()).collect();
    let mut recording = record(&mut objective, model, s, Training::Finetune(kind), &device);
    let more = json!({"kind": "finetune", "objective": kind.name(), "classes": classes, "candidates": candidates});
    recording.case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    recording
}

fn pretraining(s: &Settings, folder: &Path) -> Recording {
    let (pack, device, streams) = (pack(folder), Device::flex().autodiff(), Streams::new(4));
    let train = pack.split(Split::Train);
    let mut objective = MaskedModelling::<MaskedVit>::new(pack, train, s, streams);
    let model = MaskedVit::new(&Init { streams, device: &device }, s);
    let mut recording = record(&mut objective, model, s, Training::Pretrain, &device);
    recording.case["kind"] = json!("maskfeat");
    recording
}

/// A tensor of the twin's, in double precision.
fn answered(file: &SafeTensors, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("the twin has no {name}: {e}"));
    assert_eq!(tensor.dtype(), Dtype::F64, "{name}");
    tensor.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

fn difference(ours: &[f64], expected: &[f64], name: &str) -> f64 {
    assert_eq!(ours.len(), expected.len(), "{name}");
    assert!(expected.iter().all(|v| v.is_finite()), "the twin's {name} is not finite");
    let differences: Vec<f64> = ours.iter().zip(expected).map(|(a, b)| a - b).collect();
    if differences.iter().all(|d| d.is_finite()) { largest(&differences) } else { f64::INFINITY }
}

fn compare(ours: &Recording, answer: &Path) -> Worst {
    let bytes = std::fs::read(answer).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut worst = Worst::new();
    let mut note = |quantity, figure: f64, name: String| {
        let entry = worst.entry(quantity).or_insert((figure, name.clone()));
        if figure > entry.0 {
            *entry = (figure, name);
        }
    };
    for (step, (a, b)) in ours.losses.iter().zip(answered(&file, "losses")).enumerate() {
        let figure = difference(&[*a], &[b], "loss") / b.abs();
        if step == 0 {
            note(Quantity::Loss, figure, "loss".into());
        }
        note(Quantity::Trajectory, figure, format!("loss of step {step}"));
    }
    let names: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_prefix("gradients/")).collect();
    assert_eq!(names.len(), ours.gradients.len(), "the twin has gradients for other parameters");
    let expected: Vec<_> = names.iter().map(|path| (path, answered(&file, &format!("gradients/{path}")))).collect();
    let overall = expected.iter().map(|(_, g)| largest(g)).fold(0.0, f64::max);
    for (path, expected) in expected {
        let gradient = ours.gradients.get(*path).unwrap_or_else(|| panic!("moue has no gradient for {path}"));
        let difference = difference(gradient, &expected, path);
        let figure = match largest(&expected) {
            zero if zero <= ZERO_DOUBLE * overall => difference / overall / ZERO_SINGLE * Quantity::Gradient.bound(),
            scale => difference / scale,
        };
        note(Quantity::Gradient, figure, path.to_string());
    }
    if !ours.rows.is_empty() {
        note(Quantity::Confidence, difference(&ours.rows, &answered(&file, "rows"), "rows"), "rows".into());
    }
    for (path, end) in &ours.end {
        let expected = answered(&file, &format!("replayed/{path}"));
        let moved = difference(&ours.start[path], &expected, path);
        let rounding = STEPS as f64 * f64::from(f32::EPSILON) * largest(&expected);
        let excess = (difference(end, &expected, path) - rounding).max(0.0);
        note(Quantity::Optimizer, if excess == 0.0 { 0.0 } else { excess / moved }, path.clone());
    }
    worst
}

/// Whether the twin can run; says why not.
fn torch() -> bool {
    static MISSING: LazyLock<Option<String>> =
        LazyLock::new(|| match Command::new("python3").args(["-c", "import torch, numpy, safetensors.torch"]).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or("no reason given").to_string()),
            Err(e) => Some(format!("python3: {e}")),
        });
    let Some(reason) = &*MISSING else { return true };
    assert!(std::env::var_os("MOUE_NEEDS_TORCH").is_none(), "MOUE_NEEDS_TORCH is set, but the PyTorch twin cannot run: {reason}");
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: parity with PyTorch needs python3 with torch, numpy and safetensors ({reason})");
    false
}

/// Runs the twin on a recording: it must agree, and every fault must be seen in its quantity.
fn agree(name: &str, ours: Recording, folder: &Path, faults: &[(&str, Quantity)]) {
    std::fs::write(folder.join("case.json"), ours.case.to_string()).unwrap();
    let views = ours.tensors.iter().map(|(name, t)| (name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    serialize_to_file(views, None, &folder.join("moue.safetensors")).unwrap();
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/twin.py"))
        .arg(folder)
        .args(faults.iter().flat_map(|(fault, _)| ["--fault", fault]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let worst = compare(&ours, &folder.join("twin.safetensors"));
    for (quantity, (figure, tensor)) in &worst {
        println!("{name}: {quantity:?} {figure:.1e} of {:.0e} ({tensor})", quantity.bound());
    }
    for (quantity, (figure, tensor)) in &worst {
        assert!(*figure <= quantity.bound(), "{name}: {quantity:?} of {tensor} is off by {figure:.2e}, allowed {:.0e}", quantity.bound());
    }
    for (fault, quantity) in faults {
        let (figure, tensor) = &compare(&ours, &folder.join(format!("twin-{fault}.safetensors")))[quantity];
        println!("{name}, fault {fault}: {quantity:?} {figure:.1e} ({tensor})");
        assert!(*figure > quantity.bound(), "{name}: the fault {fault} is not seen in {quantity:?} ({figure:.2e})");
    }
}

#[test]
fn finetuning_as_in_the_paper() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    // Low enough that a fresh network is sure of some faces, and for clipping to be at work.
    (s.revise.theta, s.finetune.clip) = (0.2, 0.5);
    let ours = finetuning(&s, true, folder.path());
    let classes = ours.case["classes"].as_u64().unwrap() as usize;
    let sets = ours.case["candidates"].as_array().unwrap().iter().map(|set| set.as_array().unwrap().len());
    let ambiguous = ours.rows.chunks(classes).zip(sets).take(BATCH).filter(|(_, candidates)| *candidates > 1);
    let (sure, unsure): (Vec<_>, Vec<_>) = ambiguous.partition(|(row, _)| row.contains(&1.0));
    assert!(
        sure.len() > 2 && unsure.len() > 2,
        "{} ambiguous rows became one-hot, {} not: both are to be compared",
        sure.len(),
        unsure.len()
    );
    let faults = [
        ("attention-scale", Quantity::Loss),
        ("theta", Quantity::Confidence),
        ("layer-decay", Quantity::Optimizer),
        ("no-decay", Quantity::Optimizer),
        ("clip", Quantity::Optimizer),
    ];
    agree("finetune, paper", ours, folder.path(), &faults);
}

#[test]
fn finetuning_with_every_choice_turned() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.data.channels, s.data.normalize) = (1, Normalize::PerFace);
    (s.vit.stem, s.vit.activation, s.vit.positions, s.vit.cls) = (Stem::Conv, Activation::Relu, Positions::Sincos, false);
    (s.decoder.self_attn, s.decoder.pre_norm) = (true, true);
    (s.queries.init, s.uniform.tau) = (QueryInit::Random, 0.05);
    (s.revise.response, s.revise.metric, s.revise.below) = (Response::Softmax, Metric::Ratio, Below::Top2Uniform);
    (s.revise.order, s.revise.ema, s.revise.theta, s.finetune.beta2) = (Order::BeforeLoss, 0.7, 0.2, 0.999);
    s.revise.start_epoch = 1;
    let ours = finetuning(&s, true, folder.path());
    agree("finetune, turned", ours, folder.path(), &[("tau", Quantity::Gradient), ("attention-scale", Quantity::Gradient)]);
}

#[test]
fn finetuning_with_fixed_queries() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.queries.trainable, s.decoder.use_cls) = (false, true);
    (s.revise.metric, s.revise.below, s.revise.theta) = (Metric::Top1, Below::KeepAll, 0.4);
    agree("finetune, fixed queries", finetuning(&s, true, folder.path()), folder.path(), &[("layer-decay", Quantity::Optimizer)]);
}

#[test]
fn plain_cross_entropy_on_a_pooled_head() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.decoder.enabled, s.data.normalize) = (false, Normalize::Half);
    agree("plain, pooled", finetuning(&s, false, folder.path()), folder.path(), &[("attention-scale", Quantity::Gradient)]);
}

#[test]
fn finetuning_a_small_resnet() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.encoder.backbone, s.resnet.width, s.data.channels) = (Backbone::Resnet18, 8, 1);
    let faults = [("norm-groups", Quantity::Gradient), ("layer-decay", Quantity::Optimizer)];
    agree("finetune, resnet18", finetuning(&s, true, folder.path()), folder.path(), &faults);
}

#[test]
fn plain_cross_entropy_on_a_large_resnet() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.encoder.backbone, s.resnet.width, s.data.size, s.decoder.enabled) = (Backbone::Resnet18, 6, 96, false);
    agree("plain, resnet18", finetuning(&s, false, folder.path()), folder.path(), &[("norm-groups", Quantity::Gradient)]);
}

#[test]
fn masked_modelling_as_in_the_paper() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ours = pretraining(&small(), folder.path());
    let faults =
        [("hog-bin", Quantity::Loss), ("hidden-only", Quantity::Loss), ("clip", Quantity::Trajectory), ("no-decay", Quantity::Optimizer)];
    agree("maskfeat, paper", ours, folder.path(), &faults);
}

#[test]
fn masked_modelling_with_every_choice_turned() {
    if !torch() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut s = small();
    (s.data.channels, s.data.normalize) = (1, Normalize::PerFace);
    (s.vit.stem, s.vit.activation, s.vit.positions, s.vit.cls) = (Stem::Conv, Activation::Relu, Positions::Sincos, false);
    (s.hog.window, s.mask.kind, s.mask.ratio, s.pretrain.clip) = (8, MaskKind::Random, 0.6, 1.0);
    agree("maskfeat, turned", pretraining(&s, folder.path()), folder.path(), &[("hog-bin", Quantity::Loss)]);
}
