//! AdamW with the parameter groups of vision transformers: no weight decay on vectors and tokens, smaller rates for lower layers, and
//! clipping by the global norm of the gradient.

use super::precision::{LossScale, Precision};
use crate::kernels::updates::{AdamWStep, Due, adamw, adamw_of, add_squares_of};
use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::optim::{AdamWState, AdaptiveMomentumState, GradientsParams, LearningRate, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
#[derive(Clone)]
pub struct Optimizer {
    inner: ModuleOptimizer,
    /// Rate factor and the parameters it applies to.
    layers: Vec<(f64, ParamGroup)>,
    clip: f64,
    /// Where gradients come multiplied.
    scale: Option<LossScale>,
    /// Of the step, for the groups.
    walk: Walk,
}

/// What burn's optimisers are not told at a step, so all groups look here: what gradients are multiplied by, and whether a parameter's
/// turn is the time to change it.
#[derive(Clone, Default)]
struct Walk(Arc<Mutex<Turn>>);

#[derive(Default)]
enum Turn {
    /// No step.
    #[default]
    Over,
    /// Each is changed when it is its turn.
    Alone { factor: f32 },
    /// What is to be done is only noted down.
    Noting { factor: f32, due: Vec<Due> },
    /// What was noted down has been done: new parameters and moments, in the order of the turns.
    Done(std::vec::IntoIter<[DispatchTensor; 3]>),
}

impl Walk {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While the work walks over a model.
    fn over<T>(&self, turn: Turn, work: impl FnOnce() -> T) -> (T, Turn) {
        *self.turn() = turn;
        let made = work();
        (made, std::mem::take(&mut *self.turn()))
    }
}

/// AdamW for the parameters of a group. A step is burn's, in one operation; its states are burn's, and so are checkpoints.
#[derive(Clone)]
struct AdamW {
    weight_decay: f32,
    beta1: f32,
    beta2: f32,
    walk: Walk,
}

/// Of AdamW.
const EPSILON: f32 = 1e-8;
/// Added to the length of a gradient that others are divided by.
const LEAST_NORM: f64 = 1e-6;

impl burn::optim::Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => (momentum.time + 1, Some([momentum.moment_1, momentum.moment_2])),
            None => (1, None),
        };
        let Self { weight_decay, beta1, beta2, .. } = *self;
        let step = |factor| AdamWStep { factor, rate, weight_decay, beta1, beta2, epsilon: EPSILON, time };
        let [parameter, moment_1, moment_2] = match &mut *self.walk.turn() {
            Turn::Alone { factor } => adamw(parameter, gradient, moments, None, step(*factor)),
            Turn::Noting { factor, due } => {
                due.push(Due::new(parameter.clone(), gradient, moments, step(*factor)));
                return (parameter, None);
            }
            Turn::Done(made) => made.next().expect("as many turns as were noted down").map(Tensor::from_dispatch),
            Turn::Over => panic!("a turn without a step"),
        };
        let momentum = AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2: None };
        (parameter, Some(AdamWState { momentum }))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState { momentum: state.momentum.to_device(device) }
    }
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
        let walk = Walk::default();
        let adamw = |weight_decay: f64| AdamW {
            weight_decay: weight_decay as f32,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            walk: walk.clone(),
        };
        let still = survey.found.iter().filter(|(path, _, rank)| !decays(path, *rank)).map(|p| p.1).collect();
        let inner = ModuleOptimizer::from(adamw(config.weight_decay)).with_group(ParamGroup::from_ids(still), adamw(0.0), None);
        let mut by_layer: BTreeMap<usize, Vec<ParamId>> = BTreeMap::new();
        for (path, id, _) in &survey.found {
            by_layer.entry(layer(path, config.depth)).or_default().push(*id);
        }
        let share = |layer: usize| config.layer_decay.powi((config.depth + 1 - layer) as i32);
        let layers = by_layer.into_iter().map(|(l, ids)| (share(l), ParamGroup::from_ids(ids))).collect();
        Self { inner, layers, clip: config.clip, scale: None, walk }
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
        let clip = if self.clip > 0.0 { (self.clip / (norm + LEAST_NORM)).min(1.0) } else { 1.0 };
        let turn = Turn::Alone { factor: (clip / f64::from(self.loss_factor())) as f32 };
        let rates = self.rates(rate);
        let (model, _) = self.walk.over(turn, || self.inner.step(rates, model, gradients));
        self.fitted();
        model
    }

    /// The same by the length of the gradients as they are, `[1]`, which nobody has read yet. burn's optimiser has parameters changed one by
    /// one, and the way to the device takes longer than to change a small one there. So there are two walks: one to note down what is to be
    /// done, which is then done many at a time, and one to hand it out.
    pub fn step_by<M: Module>(&mut self, model: M, gradients: GradientsParams, norm: Tensor<1>, rate: f64) -> M {
        let norm = norm.div_scalar(self.loss_factor()).add_scalar(LEAST_NORM);
        let clip = if self.clip > 0.0 { norm.recip().mul_scalar(self.clip).clamp_max(1.0) } else { norm.ones_like() };
        let mut turns = Turns { gradients: &gradients, stand_ins: GradientsParams::new() };
        model.visit(&mut turns);
        let stand_ins = turns.stand_ins;
        let turn = Turn::Noting { factor: 1.0 / self.loss_factor(), due: Vec::new() };
        let (rates, mut inner) = (self.rates(rate), self.inner.clone());
        let (_, turn) = self.walk.over(turn, || inner.step(rates.clone(), model.clone(), gradients));
        let Turn::Noting { due, .. } = turn else { panic!("a walk that began noting down ends so") };
        let turn = Turn::Done(adamw_of(due, clip).into_iter());
        let (model, _) = self.walk.over(turn, || self.inner.step(rates, model, stand_ins));
        self.fitted();
        model
    }

    /// Of each parameter, at this rate.
    fn rates(&self, rate: f64) -> ModuleLearningRate {
        let rates = ModuleLrScheduler::new(rate);
        self.layers.iter().fold(rates, |rates, (factor, group)| rates.with_group(group.clone(), rate * factor)).step()
    }

    fn fitted(&mut self) {
        self.scale.iter_mut().for_each(LossScale::fitted);
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

/// What burn is told that a parameter has a gradient by, when the gradients themselves have been used: its value.
struct Turns<'a> {
    gradients: &'a GradientsParams,
    stand_ins: GradientsParams,
}

impl ModuleVisitor for Turns<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.gradients.get::<D>(param.id).is_some() {
            self.stand_ins.register(param.id, param.val().inner());
        }
    }
}

/// The length of all gradients of a model, `[1]`; none where there are none.
pub fn gradient_norm<M: Module>(model: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut found = Found { gradients, all: Vec::new(), zero: None };
    model.visit(&mut found);
    found.zero.map(|zero| add_squares_of(zero, found.all).sqrt())
}

/// Gradients of a model's parameters, in their order.
struct Found<'a> {
    gradients: &'a GradientsParams,
    all: Vec<DispatchTensor>,
    /// On their device, once there is one of them.
    zero: Option<Tensor<1>>,
}

impl ModuleVisitor for Found<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(g) = self.gradients.get::<D>(param.id) {
            self.zero.get_or_insert_with(|| Tensor::zeros([1], (&g.device(), g.dtype())));
            self.all.push(g.into_dispatch());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::read_values;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::AdamWConfig;

    const CONFIG: OptimizerConfig =
        OptimizerConfig { weight_decay: 0.05, beta1: 0.9, beta2: 0.999, clip: 0.0, layer_decay: 0.75, depth: 2 };

    fn device() -> Device {
        Device::flex().autodiff()
    }

    /// Gradients of a model, with others at every step.
    fn gradients(model: &Linear, step: usize) -> GradientsParams {
        let values: Vec<f32> = (0..20).map(|i| ((7 * i + 13 * step) % 11) as f32 - 4.5).collect();
        let y = model.forward(Tensor::<2>::from_data(TensorData::new(values, [4, 5]), &device()));
        GradientsParams::from_grads((y.clone() * y).mean().backward(), model)
    }

    fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
        read_values(tensor).unwrap().into_iter().map(f32::to_bits).collect()
    }

    fn all(model: &Linear) -> Vec<u32> {
        [bits(model.weight.val().inner()), bits(model.bias.as_ref().unwrap().val().inner())].concat()
    }

    /// burn's optimiser with groups as ours has them.
    fn burns(model: &Linear) -> ModuleOptimizer {
        let adamw = |weight_decay: f64| {
            AdamWConfig::new()
                .with_beta_1(CONFIG.beta1 as f32)
                .with_beta_2(CONFIG.beta2 as f32)
                .with_epsilon(EPSILON)
                .with_weight_decay(weight_decay as f32)
                .build()
        };
        let still = ParamGroup::from_ids(vec![model.bias.as_ref().unwrap().id]);
        ModuleOptimizer::from(adamw(CONFIG.weight_decay)).with_group(still, adamw(0.0), None)
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

    /// Also across a checkpoint, and at each other's.
    #[test]
    fn steps_are_burns_bit_for_bit() {
        for clip in [0.0, 0.3] {
            let mut ours = LinearConfig::new(5, 3).init(&device());
            let mut theirs = ours.clone();
            let config = OptimizerConfig { clip, ..CONFIG };
            let (mut optimizer, mut burns_own) = (Optimizer::new(&ours, &config), burns(&theirs));
            for step in 0..6 {
                let (rate, start) = (0.01 / (step + 1) as f64, all(&ours));
                let norm = f64::from(read_values(gradient_norm(&ours, &gradients(&ours, step)).unwrap()).unwrap()[0]);
                let mut to_theirs = Scale { gradients: gradients(&theirs, step), factor: (clip / (norm + 1e-6)) as f32 };
                if clip > 0.0 {
                    assert!(to_theirs.factor < 1.0);
                    theirs.visit(&mut to_theirs);
                }
                let to_ours = gradients(&ours, step);
                ours = optimizer.step(ours, to_ours, norm, rate);
                theirs = burns_own.step(rate, theirs, to_theirs.gradients);
                assert_eq!(all(&ours), all(&theirs), "clip {clip}, step {step}");
                assert_ne!(all(&ours), start);
                if step == 2 {
                    let bytes = burns_own.into_bytes().unwrap();
                    burns_own = burns(&theirs).from_bytes(Bytes::from_bytes_vec(optimizer.to_bytes().unwrap())).unwrap();
                    optimizer = Optimizer::new(&ours, &config).restore(bytes.to_vec()).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_factor_of_the_loss_is_taken_out() {
        let model = LinearConfig::new(5, 3).init(&device());
        let mut plain = Optimizer::new(&model, &CONFIG);
        let mut scaled = Optimizer::new(&model, &CONFIG).in_precision(Precision::Mixed, LossScale::default());
        // A power of two: nothing is rounded.
        let factor = scaled.loss_factor();
        assert!(factor > 1.0 && factor.log2().fract() == 0.0);
        let mut larger = Scale { gradients: gradients(&model, 0), factor };
        model.visit(&mut larger);
        let ours = scaled.step(model.clone(), larger.gradients, 1.0, 0.01);
        assert_eq!(all(&ours), all(&plain.step(model.clone(), gradients(&model, 0), 1.0, 0.01)));
    }

    #[test]
    fn a_step_by_a_norm_that_nobody_has_read_is_the_same() {
        let model = LinearConfig::new(5, 3).init(&device());
        for clip in [0.0, 0.3] {
            let fresh = || Optimizer::new(&model, &OptimizerConfig { clip, ..CONFIG }).in_precision(Precision::Mixed, LossScale::default());
            let (mut by_value, mut by_tensor) = (fresh(), fresh());
            let (mut ours, mut expected) = (model.clone(), model.clone());
            for step in 0..3 {
                let scaled = || {
                    let mut larger = Scale { gradients: gradients(&model, step), factor: by_value.loss_factor() };
                    model.visit(&mut larger);
                    larger.gradients
                };
                let norm = gradient_norm(&model, &scaled()).unwrap();
                let read = f64::from(read_values(norm.clone()).unwrap()[0]) / f64::from(by_value.loss_factor());
                assert!(clip == 0.0 || read > clip);
                let (to_ours, to_expected) = (scaled(), scaled());
                ours = by_tensor.step_by(ours, to_ours, norm, 0.01);
                expected = by_value.step(expected, to_expected, read, 0.01);
                let close = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-6;
                assert!(all(&ours).iter().zip(&all(&expected)).all(close), "clip {clip}, step {step}");
                assert_ne!(all(&ours), all(&model));
            }
        }
    }

    /// Eighteen parameters, of which two have no gradients at first.
    #[test]
    fn many_at_a_time_are_the_same_as_one_by_one() {
        let model: Vec<Linear> = (0..9).map(|i| LinearConfig::new(3 + i, 2).init(&device())).collect();
        let gradients = |model: &Vec<Linear>, step: usize| {
            let mut all = GradientsParams::new();
            for (i, layer) in model.iter().enumerate().filter(|(i, _)| *i != 4 || step > 0) {
                let values = (0..2 * (3 + i)).map(|k| ((7 * k + 5 * i + 13 * step) % 11) as f32 - 4.5);
                let weight = Tensor::<2>::from_data(TensorData::new(values.collect::<Vec<f32>>(), [3 + i, 2]), &device().inner());
                all.register(layer.bias.as_ref().unwrap().id, weight.clone().sum_dim(0).reshape([2]));
                all.register(layer.weight.id, weight);
            }
            all
        };
        let every = |model: &Vec<Linear>| model.iter().flat_map(all).collect::<Vec<u32>>();
        let fresh = || Optimizer::new(&model, &OptimizerConfig { clip: 1e6, ..CONFIG });
        let (mut many, mut single) = (fresh(), fresh());
        let (mut ours, mut expected) = (model.clone(), model.clone());
        for step in 0..4 {
            let norm = gradient_norm(&ours, &gradients(&ours, step)).unwrap();
            let read = f64::from(read_values(norm.clone()).unwrap()[0]);
            let (to_ours, to_expected) = (gradients(&ours, step), gradients(&expected, step));
            let before = every(&ours);
            ours = many.step_by(ours, to_ours, norm, 0.01);
            expected = single.step(expected, to_expected, read, 0.01);
            assert_eq!(every(&ours), every(&expected), "step {step}");
            assert!(all(&ours[4]) != all(&model[4]) || step == 0);
            assert_ne!(every(&ours), before);
        }
    }

    #[test]
    fn the_norm_is_the_root_of_sums_in_order() {
        let model = LinearConfig::new(5, 3).init(&device());
        let gradients = gradients(&model, 3);
        let [weight, bias] = [
            gradients.get::<2>(model.weight.id).unwrap().square().sum(),
            gradients.get::<1>(model.bias.as_ref().unwrap().id).unwrap().square().sum(),
        ];
        assert_eq!(bits(gradient_norm(&model, &gradients).unwrap()), bits((weight + bias).sqrt()));
        assert!(gradient_norm(&model, &GradientsParams::new()).is_none());
    }

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
