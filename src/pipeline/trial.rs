//! A trained network of a run, opened to be measured on a split of a pack.

use super::{find_checkpoint, load};
use crate::config::{DeviceChoice, Settings};
use crate::dataset::{Class, Pack, Split};
use crate::engine::device;
use crate::engine::shards::Shards;
use crate::finetune::{read_logits, scored_faces};
use crate::model::Classifier;
use crate::run::checkpoint::State;
use crate::run::{Manifest, RunFolder};
use crate::usage;
use crate::weights::same_classes;
use anyhow::{Context, Result};
use burn::module::Module;
use std::path::Path;

/// What is to be measured on what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub run: &'a Path,
    /// Objective whose network is taken; none: what the run is about.
    pub which: Option<&'a str>,
    /// The checkpoint with the highest validation accuracy instead of the last.
    pub best: bool,
    /// None: the run's own pack.
    pub data: Option<&'a Path>,
    pub split: Split,
    /// Average over each face and its mirror image, whatever the run's settings say.
    pub flip: bool,
    pub device: DeviceChoice,
}

/// A network and labelled faces.
pub struct Trial {
    /// Of the checkpoint: stage, step, classes.
    pub state: State,
    pub pack: Pack,
    /// Positions of the split's labelled faces in the pack.
    pub faces: Vec<usize>,
    /// What the user has to know of it: which damaged checkpoints were passed over.
    pub remarks: Vec<String>,
    model: Classifier,
    settings: Settings,
    shards: Shards,
}

impl Trial {
    /// # Errors
    /// No such checkpoint, another order of classes, no labelled face in the split, or a pack of the run's own that was changed since.
    pub fn open(request: Request) -> Result<Self> {
        let folder = RunFolder::open(request.run)?;
        let (checkpoint, remarks) = find_checkpoint(&folder, request.which, request.best)?;
        let pack = match request.data {
            Some(path) => Pack::open(path)?,
            None => {
                let data = Manifest::read(&folder)?.data.context("the run names no pack; give one with --data")?;
                let pack = Pack::open(&data.place(&folder))?;
                data.refuse_changed(&pack, &format!("--data {} measures on it as on any other pack", pack.path().display()))?;
                pack
            }
        };
        let path = pack.path().display();
        same_classes(&checkpoint.state.classes, &format!("pack {path}"), &pack.protocol().classes)?;
        let faces = scored_faces(&pack, request.split);
        if faces.is_empty() {
            usage!("pack {path} has no labelled faces in its {} split", request.split);
        }
        let open = device::open(request.device)?;
        let (model, resolved) = load::classifier(&checkpoint, &request.run.display().to_string(), &open.device)?;
        let mut settings = resolved.settings().clone();
        settings.run.evaluate_flip |= request.flip;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = Shards::new(if open.is_cpu { cores } else { 1 })?;
        Ok(Self { state: checkpoint.state, pack, faces, remarks, model: model.valid(), settings, shards })
    }

    /// The faces' given labels.
    pub fn labels(&self) -> Vec<Class> {
        self.faces.iter().filter_map(|&i| self.pack.faces()[i].label).collect()
    }

    /// `[faces, C]`, row-major
    pub fn read_logits(&self) -> Result<Vec<f32>> {
        read_logits(&self.model, &self.pack, &self.faces, &self.settings, &self.shards)
    }

    /// Whether mirror images are averaged in.
    pub fn flips(&self) -> bool {
        self.settings.run.evaluate_flip
    }
}
