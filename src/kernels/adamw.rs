//! Host side of `shaders/adamw.wgsl`: a step of AdamW for one parameter. The CPU twin is [`reference::adamw`](super::reference::adamw).

use super::gpu::{Constants, Kernel, Launch, Operand};
use super::reference::adamw::AdamWStep;

/// Parameter, gradient, first and second moment, a factor `[1]`, then the new parameter and moments; `[N]` each.
pub static ADAMW: Kernel = Kernel {
    name: "adamw",
    source: include_str!("../../shaders/adamw.wgsl"),
    entry: "adamw",
    buffers: 8,
    results: 3,
    checks_itself: false,
    varies: true,
};

/// Values of a workgroup, as in the shader.
const LANES: usize = 256;
/// Bytes of a sample of every buffer: a workgroup's values.
pub const SAMPLE: u64 = 4 * LANES as u64;

/// The shader's constants.
pub fn constants(first: bool, computed: bool) -> Constants {
    vec![("FIRST", u32::from(first)), ("COMPUTED", u32::from(computed))]
}

/// The new parameter and moments of `values` values from parameter and gradient and, but for the first step, moments; all f32. Gradients are
/// multiplied by a computed factor, if there is one, beside that of the step.
pub fn launch<P: Clone>(
    values: usize,
    step: &AdamWStep,
    sources: [Operand<P>; 2],
    moments: Option<[Operand<P>; 2]>,
    computed: Option<Operand<P>>,
    results: [Operand<P>; 3],
) -> Launch<P> {
    let constants = constants(moments.is_none(), computed.is_some());
    // What stands in the place of those that are not there is not read.
    let [first, second] = moments.unwrap_or_else(|| [sources[1].clone(), sources[1].clone()]);
    let computed = computed.unwrap_or_else(|| sources[1].clone());
    let [correction1, correction2] = step.corrections();
    let scalars = [
        step.factor,
        (1.0 - step.decay()) as f32,
        step.rate as f32,
        step.beta1,
        step.beta2,
        1.0 - step.beta1,
        1.0 - step.beta2,
        correction1,
        correction2,
        step.epsilon,
    ];
    Launch {
        kernel: &ADAMW,
        constants,
        operands: sources.into_iter().chain([first, second, computed]).chain(results).collect(),
        samples: values.div_ceil(LANES),
        groups: 1,
        params: scalars.map(f32::to_bits).into(),
    }
}
