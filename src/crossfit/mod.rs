//! Cross-fitting: what models say about training faces that they were not trained on (METHOD 2; `topk_all`, `crossfit_disagree`, `gaave`).
//!
//! ```text
//! given labels -> folds -> for each: [cap] -> plain cross-entropy on the others -> predictions (and attacks) on the held-out faces
//!                                                                                       \-> labels::predicted: candidate sets
//! ```
//! Each fold's model starts from the same weights and never sees its own fold, so it cannot have learned the labels it is asked about.
//! Only training faces, their pixels and their given labels enter: no truth, and nothing of the valid and test splits. Training itself is
//! the engine's, the order of stages the pipeline's.

pub mod attack;
pub mod folds;

use crate::config::{LabelSettings, Settings, Strategy};
use crate::dataset::{Class, Pack};
use crate::engine::fit::is_out_of_memory;
use crate::engine::objective::{EpochEnd, Objective, Pass, Shard};
use crate::engine::shards::Shards;
use crate::engine::{loader, read_values};
use crate::eval::argmax;
use crate::failure::{expect_panics, survive};
use crate::finetune::{FaceBatch, Finetune, LabelledFaces};
use crate::labels::candidates::training_faces;
use crate::labels::predicted::kappa;
use crate::labels::{Candidates, Evidence};
use crate::model::{Classifier, Crops, Input, Noise};
use crate::random::Streams;
use crate::usage;
use anyhow::{Context, Result, bail};
use attack::Attack;
use burn::prelude::*;
use burn::tensor::activation::softmax;
use folds::{Folds, capped};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cross-fitting and what it has found out so far.
pub struct CrossFit {
    pack: Arc<Pack>,
    settings: Settings,
    streams: Streams,
    folds: Folds,
    /// Training faces without a given label: every model predicts them.
    unlabelled: Vec<usize>,
    evidence: BTreeMap<usize, Evidence>,
}

/// Deals a pack's labelled training faces to folds; the others are the second part.
///
/// # Errors
/// Bad usage: more folds than labelled faces, or settings that do not fit the pack.
pub fn deal(pack: &Pack, settings: &LabelSettings, streams: &Streams) -> Result<(Folds, Vec<usize>)> {
    let (mut labelled, mut unlabelled) = (Vec::new(), Vec::new());
    for i in training_faces(pack, settings)? {
        match pack.faces()[i].label {
            Some(given) => labelled.push((i, given)),
            None => unlabelled.push(i),
        }
    }
    if labelled.len() < settings.folds {
        usage!(
            "labels.strategy = \"{}\" needs at least one labelled training face for each of labels.folds = {}; pack {} has {}",
            settings.strategy.name(),
            settings.folds,
            pack.path().display(),
            labelled.len()
        );
    }
    Ok((Folds::new(&labelled, settings.folds, streams), unlabelled))
}

impl CrossFit {
    /// # Errors
    /// As [`deal`].
    pub fn new(pack: Arc<Pack>, settings: &Settings, streams: Streams) -> Result<Self> {
        let (folds, unlabelled) = deal(&pack, &settings.labels, &streams)?;
        Ok(Self { pack, settings: settings.clone(), streams, folds, unlabelled, evidence: BTreeMap::new() })
    }

    pub fn folds(&self) -> usize {
        self.folds.count()
    }

    /// What the data cannot give, in a sentence for each class.
    pub fn shortages(&self) -> Vec<String> {
        let all: Vec<Class> = (0..self.folds()).flat_map(|fold| self.folds.held_out(fold)).map(|face| face.1).collect();
        let say = |(class, name): (usize, &String)| match all.iter().filter(|c| usize::from(**c) == class).count() {
            0 => Some(format!("no training face is labelled {name}: no model can learn to predict it")),
            1 => Some(format!("only one training face is labelled {name}: the model that is asked about it has never seen that class")),
            _ => None,
        };
        self.pack.protocol().classes.iter().enumerate().filter_map(say).collect()
    }

    /// The training of a fold's model: plain cross-entropy on the faces outside the fold; under `gaave` no class has more of them than
    /// the median class.
    pub fn training(&self, fold: usize) -> FoldTraining {
        let mut faces = self.folds.training(fold);
        if self.settings.labels.strategy == Strategy::Gaave {
            faces = capped(&faces, fold, &self.streams);
        }
        FoldTraining(Finetune::plain_on(self.pack.clone(), faces, &self.settings, self.streams))
    }

    /// Asks the model of a fold (in evaluation form) about the faces that it has not seen. `accumulate`: the parts of a batch that its
    /// training took in turn.
    ///
    /// # Errors
    /// Unreadable pixels, predictions that are not finite, no memory for a single face; [`Stopped`](crate::run::Stopped) where that is asked
    /// for before the end.
    pub fn ask(&mut self, fold: usize, model: &Classifier, shards: &Shards, accumulate: usize) -> Result<()> {
        let asker = Asker { pack: &self.pack, settings: &self.settings, model, shards, accumulate };
        let attacked = self.settings.labels.strategy == Strategy::Gaave;
        let held_out: Vec<Question> = self.folds.held_out(fold).iter().map(|&(face, given)| (face, attacked.then_some(given))).collect();
        let unlabelled: Vec<Question> = self.unlabelled.iter().map(|&face| (face, None)).collect();
        let said = asker.ask(&held_out)?;
        self.evidence.extend(held_out.iter().map(|question| question.0).zip(said));
        for (&face, said) in self.unlabelled.iter().zip(asker.ask(&unlabelled)?) {
            let classes = said.probabilities.len();
            let mean = self.evidence.entry(face).or_insert_with(|| Evidence { probabilities: vec![0.0; classes], kappa: None });
            let share = self.folds.count() as f32;
            mean.probabilities.iter_mut().zip(said.probabilities).for_each(|(sum, p)| *sum += p / share);
        }
        Ok(())
    }

    /// The candidate sets, once every fold's model has been asked.
    pub fn candidates(&self) -> Candidates {
        Candidates::from_evidence(&self.pack, &self.evidence, &self.settings.labels)
    }
}

/// A face (position in the pack), and the label that an attack shall lead away from, if there is to be one.
type Question = (usize, Option<Class>);

/// Puts questions to one model, all of them with or all without an attack.
struct Asker<'a> {
    pack: &'a Pack,
    settings: &'a Settings,
    model: &'a Classifier,
    shards: &'a Shards,
    accumulate: usize,
}

/// Faces of a part: fewer once the device had no memory for so many.
struct Room(AtomicUsize);

impl Room {
    fn part(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Halves parts that a device has no memory for.
    ///
    /// # Errors
    /// The error itself, where it says something else or parts are single faces.
    fn halve(&self, error: anyhow::Error) -> Result<()> {
        match self.part() {
            part if part > 1 && is_out_of_memory(&error) => {
                self.0.store(part.div_ceil(2), Ordering::Relaxed);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

impl Asker<'_> {
    /// Parts to begin with.
    fn room(&self, attacked: bool) -> Room {
        let s = self.settings;
        // An attack keeps a graph: no more faces than training, which is known to fit into memory.
        let training = || s.finetune.batch.div_ceil(self.shards.count() * self.accumulate.max(1));
        Room(AtomicUsize::new(if attacked { training() } else { s.run.evaluate_batch }))
    }

    /// What the model says about each face.
    fn ask(&self, questions: &[Question]) -> Result<Vec<Evidence>> {
        let input = Input::of(self.settings);
        let device = self.model.devices().into_iter().next().context("a network without parameters")?.inner();
        let room = self.room(questions.first().is_some_and(|question| question.1.is_some()));
        let rounds: Vec<&[Question]> = questions.chunks(room.part() * self.shards.count()).collect();
        let load = |part: &[Question]| -> Result<(Option<Vec<Class>>, Crops)> {
            let faces = part.iter().map(|question| self.pack.pixels(question.0)).collect::<Result<Vec<_>>>()?;
            Ok((part.iter().map(|question| question.1).collect(), input.whole(faces)))
        };
        let cut = |round: usize| rounds[round].chunks(room.part()).map(load).collect::<Result<Vec<_>>>();
        let answer = |parts: &[(Option<Vec<Class>>, Crops)]| -> Result<Vec<Vec<Evidence>>> {
            let answers = self.shards.map(parts, |_, (given, crops)| self.answers(given.as_deref(), crops, &input, &device));
            answers.into_iter().collect()
        };
        let mut said = Vec::with_capacity(questions.len());
        loader::ahead(0..rounds.len(), 1, 2, cut, |round, parts, _| {
            let mut parts = parts?;
            // They may have been cut before there was no memory for such parts.
            if parts.len() < rounds[round].len().div_ceil(room.part()) {
                parts = cut(round)?;
            }
            // Devices without memory panic, which is mended here.
            let _quiet = expect_panics();
            loop {
                self.shards.go_on()?;
                match survive(|| answer(&parts)) {
                    Ok(answers) => break said.extend(answers.into_iter().flatten()),
                    Err(error) => room.halve(error)?,
                }
                device.memory_cleanup();
                parts = cut(round)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(said)
    }

    /// What the model says about each face of one forward pass; attacks those that are `given` a label.
    fn answers(&self, given: Option<&[Class]>, crops: &Crops, input: &Input, device: &Device) -> Result<Vec<Evidence>> {
        let forward = |patches: Tensor<3>| self.model.forward(patches, 0.0, 0.0, &mut Noise::none());
        let likely = |crops: &Crops| softmax(forward(input.upload(crops, device).patches()), 1);
        let mean = (likely(crops) + likely(&input.mirrored(crops))).mul_scalar(0.5);
        let [b, classes] = mean.dims();
        let probabilities = finite(read_values(mean)?)?;
        let kappas = match given {
            None => vec![None; b],
            Some(given) => {
                let (pixels, patching) = input.upload_floats(crops, device);
                let mut rows = vec![0.0f32; b * classes];
                rows.chunks_mut(classes).zip(given).for_each(|(row, &class)| row[usize::from(class)] = 1.0);
                let rows = Tensor::from_data(TensorData::new(rows, [b, classes]), device);
                let attack = Attack::of(&self.settings.labels);
                let iterates = attack.trajectory(pixels, rows, |x| forward(patching.patches(x)))?;
                let logits = finite(read_values(Tensor::stack::<3>(iterates, 1))?)?;
                let held = |(logits, &given): (&[f32], &Class)| Some(kappa(logits.chunks(classes).map(argmax), given));
                logits.chunks(classes * (attack.steps + 1)).zip(given).map(held).collect()
            }
        };
        let rows = probabilities.chunks(classes).zip(kappas);
        Ok(rows.map(|(p, kappa)| Evidence { probabilities: p.to_vec(), kappa }).collect())
    }
}

fn finite(values: Vec<f32>) -> Result<Vec<f32>> {
    if values.iter().any(|v| !v.is_finite()) {
        bail!("a fold's model gives predictions that are not finite; lower finetune.lr or set finetune.clip");
    }
    Ok(values)
}

/// A fold's training: finetuning that is measured on nothing, so that no label beyond its own faces' can enter.
pub struct FoldTraining(Finetune);

impl Objective for FoldTraining {
    type Model = Classifier;
    type Source = LabelledFaces;

    fn source(&self) -> Arc<LabelledFaces> {
        self.0.source()
    }

    fn weight(&self, batch: &FaceBatch) -> f64 {
        self.0.weight(batch)
    }

    fn forward(&self, model: &Classifier, batch: &FaceBatch, shard: Shard, noise: &mut Noise, device: &Device) -> Pass {
        self.0.forward(model, batch, shard, noise, device)
    }

    fn after_step(&mut self, epoch: u64, positions: &[usize], responses: &[f32]) {
        self.0.after_step(epoch, positions, responses);
    }

    fn left_out(&mut self) {
        self.0.left_out();
    }

    fn end_epoch(&mut self, _model: &Classifier, _end: EpochEnd) -> Result<Option<f64>> {
        Ok(None)
    }

    fn state(&self) -> Vec<(String, Vec<u8>)> {
        self.0.state()
    }

    fn restore(&mut self, state: &[(String, Vec<u8>)]) -> Result<()> {
        self.0.restore(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Resolved;
    use crate::dataset::generated::{self, GeneratorConfig};
    use crate::dataset::{Face, PackWriter, Split};
    use crate::engine::objective::Source;
    use crate::labels::Provenance;
    use crate::model::Vit;
    use crate::model::init::Init;
    use burn::module::Module;
    use std::path::Path;

    fn settings(more: &[&str]) -> Settings {
        let tiny = ["data.size=32", "data.channels=1", "vit.dim=16", "vit.heads=2", "vit.depth=1", "decoder.heads=2", "finetune.batch=8"];
        let set = |r: Resolved, word: &&str| r.with_flag(word).unwrap();
        tiny.iter().chain(more).fold(Resolved::default(), set).settings().clone()
    }

    /// Generated faces, each changed by `change`.
    fn pack(folder: &Path, change: impl Fn(usize, &mut Face)) -> Arc<Pack> {
        let path = folder.join("all.moue");
        let mut writer = PackWriter::create(&path, generated::protocol()).unwrap();
        let config = GeneratorConfig { train: 40, valid: 4, test: 4, size: 32, ..GeneratorConfig::default() };
        generated::generate(&config, &mut writer).unwrap();
        writer.finish(serde_json::json!({})).unwrap();
        let all = Pack::open(&path).unwrap();
        let path = folder.join("changed.moue");
        let mut writer = PackWriter::create(&path, generated::protocol()).unwrap();
        for (i, face) in all.faces().iter().enumerate() {
            let mut face = face.clone();
            change(i, &mut face);
            writer.push(face, &all.pixels(i).unwrap()).unwrap();
        }
        writer.finish(serde_json::json!({})).unwrap();
        Arc::new(Pack::open(&path).unwrap())
    }

    /// A network that has learned nothing, but differs from fold to fold.
    fn model(s: &Settings, seed: u64) -> Classifier {
        let device = Device::flex().autodiff();
        let init = Init { streams: Streams::new(seed), device: &device };
        Classifier::new(&init, Vit::new(&init, s), generated::protocol().classes.len(), s).valid()
    }

    fn asked(pack: &Arc<Pack>, s: &Settings, threads: usize) -> CrossFit {
        let mut crossfit = CrossFit::new(pack.clone(), s, Streams::new(2)).unwrap();
        let shards = Shards::new(threads).unwrap();
        for fold in 0..crossfit.folds() {
            crossfit.ask(fold, &model(s, fold as u64), &shards, 2).unwrap();
        }
        crossfit
    }

    #[test]
    fn every_training_face_is_asked_about_once() {
        let folder = tempfile::tempdir().unwrap();
        let pack = pack(folder.path(), |i, face| face.label = face.label.filter(|_| i % 10 != 3));
        let train = pack.split(Split::Train);
        let s = settings(&["labels.strategy=gaave"]);
        let crossfit = asked(&pack, &s, 1);
        assert_eq!(crossfit.evidence.keys().copied().collect::<Vec<_>>(), train);
        for (&face, said) in &crossfit.evidence {
            assert!((said.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert_eq!(said.kappa.is_some(), pack.faces()[face].label.is_some());
            assert!(said.kappa.is_none_or(|kappa| kappa <= 5));
        }
        let candidates = crossfit.candidates();
        assert_eq!(candidates.provenances()[&Provenance::Unlabelled], 4);
        assert_eq!(candidates.kappas(5).unwrap().iter().sum::<usize>(), train.len() - 4);

        // Unlabelled faces hear every model, in the mean; others the one that does not know them.
        let shards = Shards::new(1).unwrap();
        let models = [model(&s, 0), model(&s, 1)];
        let ask = |m: &Classifier, face: usize| {
            let asker = Asker { pack: &pack, settings: &s, model: m, shards: &shards, accumulate: 1 };
            asker.ask(&[(face, None)]).unwrap().remove(0).probabilities
        };
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let open = train.iter().copied().find(|&i| pack.faces()[i].label.is_none()).unwrap();
        let mean: Vec<f32> = ask(&models[0], open).iter().zip(ask(&models[1], open)).map(|(a, b)| (a + b) / 2.0).collect();
        assert!(near(&crossfit.evidence[&open].probabilities, &mean));
        for (fold, own) in models.iter().enumerate() {
            let face = crossfit.folds.held_out(fold)[0].0;
            assert!(near(&crossfit.evidence[&face].probabilities, &ask(own, face)));
            assert!(!near(&crossfit.evidence[&face].probabilities, &ask(&models[1 - fold], face)));
        }

        // Neither batches nor threads matter.
        let other = asked(&pack, &settings(&["labels.strategy=gaave", "finetune.batch=3", "run.evaluate_batch=5"]), 2);
        for (face, said) in &crossfit.evidence {
            assert!(near(&said.probabilities, &other.evidence[face].probabilities));
            assert_eq!(said.kappa, other.evidence[face].kappa);
        }
    }

    #[test]
    fn an_attack_takes_no_more_faces_at_once_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let pack = pack(folder.path(), |_, _| {});
        // Open in the settings, so that the training alone knows.
        let s = settings(&["labels.strategy=gaave", "finetune.accumulate=0", "run.evaluate_batch=5"]);
        let (model, shards) = (model(&s, 0), Shards::new(2).unwrap());
        let part = |accumulate: usize, attacked: bool| {
            Asker { pack: &pack, settings: &s, model: &model, shards: &shards, accumulate }.room(attacked).part()
        };
        assert_eq!([part(1, true), part(2, true), part(8, true), part(2, false)], [4, 2, 1, 5]);

        let room = Room(AtomicUsize::new(3));
        let halved = |says: &'static str| room.halve(anyhow::anyhow!(says)).map(|()| room.part()).map_err(|error| error.to_string());
        assert_eq!(halved("wgpu error: Out of Memory"), Ok(2));
        assert_eq!(halved("an index is out of range"), Err("an index is out of range".into()));
        assert_eq!(halved("out of device memory"), Ok(1));
        assert_eq!(halved("out of device memory"), Err("out of device memory".into()), "not even one face fits");
    }

    #[test]
    fn what_no_model_can_learn_is_told() {
        let folder = tempfile::tempdir().unwrap();
        // No class 0; class 1 only on the first face; class 2 on most.
        let pack = pack(folder.path(), |i, face| face.label = Some(if i == 0 { 1 } else { [2, 3, 2, 4, 2, 2][i % 6] }));
        let crossfit = CrossFit::new(pack.clone(), &settings(&["labels.strategy=gaave"]), Streams::new(2)).unwrap();
        let (said, names) = (crossfit.shortages(), &pack.protocol().classes);
        assert!(said[0].contains("no training face") && said[0].contains(&names[0]), "{said:?}");
        assert!(said[1].contains("only one") && said[1].contains(&names[1]), "{said:?}");
        assert_eq!(said.len(), 2 + names.len() - 5);
        // Frequent classes are cut under gaave alone.
        let uncut = CrossFit::new(pack.clone(), &settings(&["labels.strategy=topk_all"]), Streams::new(2)).unwrap();
        assert_eq!(uncut.training(0).source().faces(), uncut.folds.training(0).len());
        let cut = crossfit.training(0).source().faces();
        assert!(cut < crossfit.folds.training(0).len() && cut > 0, "{cut}");

        let refused =
            |more: &[&str]| crate::failure::one_line(&CrossFit::new(pack.clone(), &settings(more), Streams::new(2)).err().unwrap());
        assert!(refused(&["labels.strategy=gaave", "labels.folds=50"]).contains("labels.folds = 50"));
        assert!(refused(&["labels.strategy=topk_all", "labels.k=9"]).contains("labels.k = 9"));
    }
}
