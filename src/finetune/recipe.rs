//! What each `finetune.objective` is made of: where its targets come from, which loss reads them, and how confidences are revised.
//!
//! The published objectives (METHOD 7) are the same loop with other parts, so each is one line of parts here and nothing else in the
//! crate asks which objective it is. They keep the settings of `revise.*` out: their revision rule is part of what they are.

use crate::config::{Below, FinetuneSettings, Objective, Order, Response, ReviseSettings, Settings};
use crate::transform::augment::Augment;

/// Where the rows that a face is trained against come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// One-hot rows of the given labels.
    Given,
    /// The annotators' votes, as shares.
    Votes,
    /// Candidate sets, uniform at the start.
    Candidates,
}

/// How logits and rows become a loss; see [`super::loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Against the rows, of which `smoothing` is spread over all classes.
    CrossEntropy { smoothing: f64 },
    /// Of the candidates' summed probability; the rows take no part (CC).
    CandidateMass,
    /// Leveraged sigmoid loss, classes outside the candidates weighted by `beta` (LW).
    Leveraged { beta: f64 },
    /// Divergence of several views from the rows, growing to full weight over `ramp` epochs, and the complement's likelihood (CR-PLL).
    Consistency { ramp: f64 },
}

/// An objective, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub targets: Targets,
    pub loss: Loss,
    /// How confidences follow the network; none: rows stay what they are.
    pub revision: Option<ReviseSettings>,
    /// Whether the class queries are spread (paper eq. 2).
    pub uniform: bool,
    /// Strongly augmented views of each face beside the ordinary one.
    pub strong_views: usize,
}

impl Recipe {
    pub fn of(objective: Objective, s: &Settings) -> Self {
        // p over the candidates, renormalised, every batch: the update of PRODEN, RC, CC's reading and CR-PLL.
        let progressive = |order| ReviseSettings {
            enabled: true,
            response: Response::Softmax,
            below: Below::KeepAll,
            theta: 1.0,
            ema: 0.0,
            start_epoch: 0,
            order,
            ..ReviseSettings::default()
        };
        let plain =
            Self { targets: Targets::Given, loss: Loss::CrossEntropy { smoothing: 0.0 }, revision: None, uniform: false, strong_views: 0 };
        let partial =
            |loss, order| Self { targets: Targets::Candidates, loss, revision: Some(progressive(order)), uniform: false, strong_views: 0 };
        let cross_entropy = Loss::CrossEntropy { smoothing: 0.0 };
        match objective {
            Objective::Ce => plain,
            Objective::CeSoft => Self { targets: Targets::Votes, ..plain },
            Objective::CeSmooth => Self { loss: Loss::CrossEntropy { smoothing: s.finetune.smoothing }, ..plain },
            Objective::Pll => {
                let revision = s.revise.enabled.then(|| s.revise.clone());
                Self { revision, uniform: true, ..partial(cross_entropy, Order::AfterStep) }
            }
            Objective::Proden => partial(cross_entropy, Order::AfterStep),
            Objective::Rc => partial(cross_entropy, Order::RefreshForward),
            Objective::Cc => partial(Loss::CandidateMass, Order::AfterStep),
            Objective::Lw => partial(Loss::Leveraged { beta: s.finetune.lw_beta }, Order::RefreshForward),
            Objective::CrPll => {
                let ramp = s.finetune.cr_ramp * s.finetune.epochs as f64;
                Self { strong_views: 2, ..partial(Loss::Consistency { ramp }, Order::AfterStep) }
            }
        }
    }

    /// Whether the response is read from a second forward pass after the step.
    pub fn refreshes(&self) -> bool {
        self.revision.as_ref().is_some_and(|r| r.order == Order::RefreshForward)
    }
}

/// The ordinary augmentation of a face.
pub fn weak(f: &FinetuneSettings) -> Augment {
    Augment { crop_min: f.crop_min, rotate: f.rotate, flip: f.flip, erase: f.erase }
}

/// The strong augmentation of CR-PLL's further views: tighter crops, turned, always erased. Its own (AutoAugment, cutout) shifts colours,
/// which says nothing about an expression. [C]
pub fn strong(f: &FinetuneSettings) -> Augment {
    Augment { crop_min: f.crop_min.min(0.5), rotate: f.rotate.max(15.0), flip: f.flip, erase: 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_papers_own_objective_follows_its_settings() {
        let mut s = Settings::default();
        s.revise.theta = 0.3;
        s.revise.order = Order::BeforeLoss;
        assert_eq!(Recipe::of(Objective::Pll, &s).revision, Some(s.revise.clone()));
        for objective in [Objective::Proden, Objective::Rc, Objective::Cc, Objective::Lw, Objective::CrPll] {
            let recipe = Recipe::of(objective, &s);
            let revision = recipe.revision.clone().unwrap();
            assert_eq!((revision.theta, revision.below, revision.ema), (1.0, Below::KeepAll, 0.0));
            assert!(!recipe.uniform && recipe.targets == Targets::Candidates);
            assert_eq!(recipe.refreshes(), matches!(objective, Objective::Rc | Objective::Lw));
        }
        for objective in [Objective::Ce, Objective::CeSoft, Objective::CeSmooth] {
            assert_eq!(Recipe::of(objective, &s).revision, None);
        }
    }
}
