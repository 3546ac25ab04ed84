//! AdamW with the parameter groups of vision transformers: no weight decay on vectors and tokens, smaller rates for lower layers, and
//! clipping by the global norm of the gradient.

use super::precision::{LossScale, Precision};
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::Bytes;
use std::collections::BTreeMap;

/// Hyper-parameters of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
    /// Rate factor per encoder layer from the top down.
    pub layer_decay: f64,
    /// Encoder blocks, for `layer_decay`.
    pub depth: usize,
}

/// The optimiser's state and groups.
pub struct Optimizer {
    inner: ModuleOptimizer,
    /// Rate factor and the parameters it applies to.
    layers: Vec<(f64, ParamGroup)>,
    clip: f64,
    /// Where gradients come multiplied.
    scale: Option<LossScale>,
}

/// Paths, ids and ranks of all parameters.
#[derive(Default)]
struct Survey {
    path: Vec<String>,
    found: Vec<(String, ParamId, usize)>,
}

impl ModuleVisitor for Survey {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), param.id, D));
    }
}

/// Biases, norms, tokens, positions and queries shrink towards nothing meaningful; they are not decayed.
fn decays(path: &str, rank: usize) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    matches!(rank, 2 | 4) && name != "queries"
}

/// Layer of a parameter for layer-wise rates: embeddings or stem 0, block i at i + 1, everything after the blocks at depth + 1 (BEiT,
/// MaskFeat).
fn layer(path: &str, depth: usize) -> usize {
    let Some(rest) = path.strip_prefix("encoder.") else { return depth + 1 };
    if let Some(block) = rest.strip_prefix("blocks.") {
        return block.split('.').next().and_then(|n| n.parse::<usize>().ok()).map_or(depth + 1, |i| i + 1);
    }
    if rest.starts_with("norm") || rest.starts_with("proj") { depth + 1 } else { 0 }
}

impl Optimizer {
    pub fn new<M: Module>(model: &M, config: &OptimizerConfig) -> Self {
        let mut survey = Survey::default();
        model.visit(&mut survey);
        let adamw = |weight_decay: f64| {
            AdamWConfig::new()
                .with_beta_1(config.beta1 as f32)
                .with_beta_2(config.beta2 as f32)
                .with_epsilon(1e-8)
                .with_weight_decay(weight_decay as f32)
                .build()
        };
        let still = survey.found.iter().filter(|(path, _, rank)| !decays(path, *rank)).map(|p| p.1).collect();
        let inner = ModuleOptimizer::from(adamw(config.weight_decay)).with_group(ParamGroup::from_ids(still), adamw(0.0), None);
        let mut by_layer: BTreeMap<usize, Vec<ParamId>> = BTreeMap::new();
        for (path, id, _) in &survey.found {
            by_layer.entry(layer(path, config.depth)).or_default().push(*id);
        }
        let factor = |layer: usize| config.layer_decay.powi((config.depth + 1 - layer) as i32);
        let layers = by_layer.into_iter().map(|(l, ids)| (factor(l), ParamGroup::from_ids(ids))).collect();
        Self { inner, layers, clip: config.clip, scale: None }
    }

    /// The same optimiser for gradients that were computed in `precision`; those in half precision come multiplied by `scale`.
    #[must_use]
    pub fn in_precision(self, precision: Precision, scale: LossScale) -> Self {
        Self { scale: (precision == Precision::Mixed).then_some(scale), ..self }
    }

    pub fn scale(&self) -> Option<LossScale> {
        self.scale
    }

    /// What the loss is to be multiplied by before the next backward pass.
    pub fn loss_factor(&self) -> f32 {
        self.scale.map_or(1.0, |scale| scale.value)
    }

    /// One step at `rate`, by gradients that are multiplied by [`Optimizer::loss_factor`]; `norm`: their length without that factor.
    pub fn step<M: Module>(&mut self, model: M, gradients: GradientsParams, norm: f64, rate: f64) -> M {
        let clip = if self.clip > 0.0 { (self.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let factor = clip / f64::from(self.loss_factor());
        let gradients = if factor == 1.0 {
            gradients
        } else {
            let mut scaled = Scale { gradients, factor: factor as f32 };
            model.visit(&mut scaled);
            scaled.gradients
        };
        if let Some(scale) = &mut self.scale {
            scale.fitted();
        }
        let mut rates = ModuleLrScheduler::new(rate);
        for (factor, group) in &self.layers {
            rates = rates.with_group(group.clone(), rate * factor);
        }
        self.inner.step(rates.step(), model, gradients)
    }

    /// After gradients that are not finite: whether the loss was scaled so much that this may be why. It is scaled less from now on.
    pub fn overflowed(&mut self) -> bool {
        self.scale.as_mut().is_some_and(LossScale::overflowed)
    }

    pub fn to_bytes(&self) -> std::result::Result<Vec<u8>, String> {
        self.inner.into_bytes().map(|b| b.to_vec()).map_err(|e| e.to_string())
    }

    /// Takes over a saved state; the model must already carry the saved parameters (states belong to parameter ids).
    pub fn restore(mut self, bytes: Vec<u8>) -> std::result::Result<Self, String> {
        self.inner = self.inner.from_bytes(Bytes::from_bytes_vec(bytes)).map_err(|e| e.to_string())?;
        Ok(self)
    }
}

/// The length of all gradients of a model, `[1]`; none where there are none.
pub fn gradient_norm<M: Module>(model: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut norm = SquaredNorm { gradients, sum: None };
    model.visit(&mut norm);
    norm.sum.map(Tensor::sqrt)
}

struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(g) = self.gradients.get::<D>(param.id) {
            let part = g.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + part,
                None => part,
            });
        }
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(g) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, g.mul_scalar(self.factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_follow_names() {
        assert!(decays("encoder.blocks.3.attn.qkv.weight", 2) && decays("head.decoder.weight", 2));
        assert!(!decays("encoder.pos_embed", 3) && !decays("encoder.norm.gamma", 1) && !decays("head.decoder.queries", 2));
        assert_eq!(layer("encoder.patch_embed.weight", 12), 0);
        assert_eq!(layer("encoder.pos_embed", 12), 0);
        assert_eq!(layer("encoder.blocks.11.mlp.fc1.bias", 12), 12);
        assert_eq!(layer("encoder.norm.gamma", 12), 13);
        assert_eq!(layer("encoder.stem.norm.gamma", 8), 0);
        assert_eq!(layer("encoder.blocks.7.shortcut.conv.weight", 8), 8);
        assert_eq!(layer("encoder.proj.weight", 8), 9);
        assert_eq!(layer("head.decoder.queries", 12), 13);
    }
}
