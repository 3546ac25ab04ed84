// A step of AdamW over N values, of parameters and moments of their gradients. Twin: src/kernels/reference/adamw.rs.
//
// A lane has a value; neighbouring lanes read neighbouring values, and all that is read is read before anything is stored.

// Whether this is the first step: moments are zero, and what is bound in their place is not read.
override FIRST: bool;
// Whether gradients are also multiplied by `computed`, which else is not read.
override COMPUTED: bool;

struct Params {
    // Where parameter, gradient, first and second moment begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Of the computed factor, and of the new parameter and moments.
    computed_base: u32,
    parameter_base: u32,
    first_base: u32,
    second_base: u32,
    // What gradients are multiplied by.
    factor: f32,
    // What is left of a parameter by its decay.
    kept: f32,
    rate: f32,
    // What is left of the moments, and what gradients and their squares are multiplied by in turn.
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    // Weights of all gradients in the moments, together.
    correction1: f32,
    correction2: f32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [N] all of them, but for the computed factor, which is one value.
@group(0) @binding(1) var<storage, read_write> parameter: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> first: array<f32>;
@group(0) @binding(4) var<storage, read_write> second: array<f32>;
@group(0) @binding(5) var<storage, read_write> computed: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_parameter: array<f32>;
@group(0) @binding(7) var<storage, read_write> new_first: array<f32>;
@group(0) @binding(8) var<storage, read_write> new_second: array<f32>;

const LANES = 256u;

@compute @workgroup_size(256)
fn adamw(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    let at = group * LANES + lane;
    if group >= params.groups || at >= arrayLength(&parameter) - params.base.x / 4u {
        return;
    }
    let kept = params.kept * parameter[params.base.x / 4u + at];
    var factor = params.factor;
    if COMPUTED {
        factor *= computed[params.computed_base / 4u];
    }
    let slope = factor * gradient[params.base.y / 4u + at];
    var mean = params.rest1 * slope;
    var square = params.rest2 * (slope * slope);
    if !FIRST {
        mean += params.beta1 * first[params.base.z / 4u + at];
        square += params.beta2 * second[params.base.w / 4u + at];
    }
    let update = (mean / params.correction1) / (sqrt(square / params.correction2) + params.epsilon);
    new_parameter[params.parameter_base / 4u + at] = kept - params.rate * update;
    new_first[params.first_base / 4u + at] = mean;
    new_second[params.second_base / 4u + at] = square;
}
