//! The trainings of a run: which a command asks for, what each is called, and the settings that are its own.

use crate::config::{Objective, Settings};
use crate::engine::optimizer::OptimizerConfig;
use crate::run::event::place;
use crate::run::{At, Stage};

/// What a command may ask for, in the order in which it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    pub pretrain: bool,
    /// Candidate sets from predictions.
    pub labels: bool,
    pub finetune: bool,
}

/// One training of a run, with a name for events, checkpoints and the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    Pretrain,
    /// The model that does not see this fold.
    Fold(usize),
    /// Finetuning under an objective.
    Finetune(Objective),
}

impl Training {
    /// Its first step, as events place it.
    pub fn at(self) -> At {
        match self {
            Training::Pretrain => At::stage(Stage::Pretrain, ""),
            Training::Fold(fold) => At::stage(Stage::Labels, format!("fold-{fold}")),
            // The plain baseline is a stage of its own kind.
            Training::Finetune(Objective::Ce) => At::stage(Stage::Baseline, Objective::Ce.name()),
            Training::Finetune(objective) => At::stage(Stage::Finetune, objective.name()),
        }
    }

    /// As events name it: `pretrain`, `labels/fold-0`, `finetune/pll`, `baseline/ce`.
    pub fn name(self) -> String {
        let at = self.at();
        place(at.stage, &at.label)
    }

    /// Names the streams of face order and random masks: objectives of one kind differ in nothing else.
    pub fn kind(self) -> &'static str {
        match self {
            Training::Pretrain => "pretrain",
            Training::Fold(_) => "labels",
            Training::Finetune(_) => "finetune",
        }
    }

    /// Hyper-parameters of the optimiser.
    pub fn optimizer(self, s: &Settings) -> OptimizerConfig {
        let (p, f, depth) = (&s.pretrain, &s.finetune, s.encoder_blocks());
        match self {
            Training::Pretrain => {
                OptimizerConfig { weight_decay: p.weight_decay, beta1: p.beta1, beta2: p.beta2, clip: p.clip, layer_decay: 1.0, depth }
            }
            Training::Fold(_) | Training::Finetune(_) => OptimizerConfig {
                weight_decay: f.weight_decay,
                beta1: f.beta1,
                beta2: f.beta2,
                clip: f.clip,
                layer_decay: f.layer_decay,
                depth,
            },
        }
    }
}

impl Stages {
    /// The trainings that settings make of the stages; the plain baseline comes last.
    pub fn trainings(self, settings: &Settings) -> Vec<Training> {
        let mut all = Vec::new();
        if self.pretrain && settings.pretrain.epochs > 0 {
            all.push(Training::Pretrain);
        }
        if self.labels {
            all.extend((0..settings.labels.folds).map(Training::Fold));
        }
        if self.finetune {
            let chosen = settings.finetune.objective;
            all.push(Training::Finetune(chosen));
            if settings.finetune.baseline && chosen != Objective::Ce {
                all.push(Training::Finetune(Objective::Ce));
            }
        }
        all
    }

    /// Their names, as the manifest lists them.
    pub fn names(self, settings: &Settings) -> Vec<String> {
        self.trainings(settings).into_iter().map(Training::name).collect()
    }
}

/// What of a training's plan stands in settings of its own.
pub struct Regime {
    pub epochs: usize,
    pub batch: usize,
    pub accumulate: usize,
    pub lr: f64,
    pub min_lr: f64,
    /// In epochs.
    pub warmup: f64,
}

impl Regime {
    pub fn of(training: Training, s: &Settings) -> Self {
        let (p, f) = (&s.pretrain, &s.finetune);
        match training {
            Training::Pretrain => {
                Self { epochs: p.epochs, batch: p.batch, accumulate: p.accumulate, lr: p.lr, min_lr: p.min_lr, warmup: p.warmup }
            }
            Training::Finetune(_) => {
                Self { epochs: f.epochs, batch: f.batch, accumulate: f.accumulate, lr: f.lr, min_lr: f.min_lr, warmup: f.warmup }
            }
            // A short finetuning: the warm-up keeps its share.
            Training::Fold(_) => {
                let epochs = s.labels.fold_epochs;
                let whole = Self::of(Training::Finetune(Objective::Ce), s);
                Self { epochs, warmup: whole.warmup * epochs as f64 / whole.epochs as f64, ..whole }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_become_named_trainings() {
        let mut s = Settings::default();
        let names = |stages: Stages, s: &Settings| stages.names(s).join(" ");
        let demo = Stages { pretrain: true, finetune: true, ..Stages::default() };
        assert_eq!(names(demo, &s), "pretrain finetune/pll baseline/ce");
        s.finetune.baseline = false;
        s.pretrain.epochs = 0;
        assert_eq!(names(demo, &s), "finetune/pll");
        s.finetune.objective = Objective::Ce;
        assert_eq!(names(demo, &s), "baseline/ce");
        s.labels.folds = 3;
        assert_eq!(names(Stages { labels: true, ..Stages::default() }, &s), "labels/fold-0 labels/fold-1 labels/fold-2");
    }

    #[test]
    fn a_fold_trains_like_a_short_finetuning() {
        let s = Settings::default();
        let (fold, whole) = (Regime::of(Training::Fold(1), &s), Regime::of(Training::Finetune(Objective::Ce), &s));
        assert_eq!((fold.epochs, fold.batch, fold.lr), (12, whole.batch, whole.lr));
        // 5 of 100 epochs warm up, so 0.6 of 12 do.
        assert!((fold.warmup - 0.6).abs() < 1e-9 && whole.warmup == 5.0);
    }
}
