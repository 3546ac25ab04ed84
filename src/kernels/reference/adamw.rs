//! The twin of `shaders/adamw.wgsl`, in f64.

/// A step of AdamW (Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019), beside its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// What the gradient is multiplied by first: clipping, and the scale of the loss.
    pub factor: f32,
    pub rate: f64,
    pub weight_decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// Steps of this parameter, with this one.
    pub time: usize,
}

impl AdamWStep {
    /// The part of the parameter that is taken away.
    pub fn decay(&self) -> f64 {
        self.rate * f64::from(self.weight_decay)
    }

    /// Weights of all gradients in the moments, together: what these are divided by.
    pub fn corrections(&self) -> [f32; 2] {
        [self.beta1, self.beta2].map(|beta| 1.0 - beta.powi(self.time as i32))
    }
}

/// The new parameter and moments, from parameter, gradient and moments, `[N]` each; without moments at the first step.
///
/// # Panics
/// With moments of fewer values.
pub fn adamw(parameter: &[f32], gradient: &[f32], moments: Option<[&[f32]; 2]>, step: &AdamWStep) -> [Vec<f32>; 3] {
    let betas = [step.beta1, step.beta2].map(f64::from);
    let corrections = betas.map(|beta| 1.0 - beta.powi(step.time as i32));
    let mut made = [(); 3].map(|()| Vec::with_capacity(parameter.len()));
    for (i, (p, g)) in parameter.iter().zip(gradient).enumerate() {
        let g = f64::from(step.factor) * f64::from(*g);
        let [m, v] = moments.map_or([0.0; 2], |both| both.map(|moment| f64::from(moment[i])));
        let m = betas[0] * m + (1.0 - betas[0]) * g;
        let v = betas[1] * v + (1.0 - betas[1]) * g * g;
        let update = m / corrections[0] / ((v / corrections[1]).sqrt() + f64::from(step.epsilon));
        let p = f64::from(*p) * (1.0 - step.decay()) - step.rate * update;
        made.iter_mut().zip([p, m, v]).for_each(|(values, value)| values.push(value as f32));
    }
    made
}
