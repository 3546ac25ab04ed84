// Softmax of rows [M, P] of which the first K columns count, and its gradient. Twin: src/kernels/reference/softmax.rs.
//
// A team of LANES threads has a row and keeps it in registers, up to four quads of values for each lane. Weights, and the gradient of what
// softmax was taken of, may be in half precision, two to a word; everything is computed in single precision. shared/halves.wgsl stands before
// this.

// A power of two from 16 to 256.
override LANES: u32;
// Quads of a lane; 4 * QUADS * LANES is at least P.
override QUADS: u32;
// Whether a word of weights holds two f16 instead of one f32.
override HALVES: bool;

const THREADS = 256u;
const LEAST = -3.4028234e38;

struct Params {
    // softmax: of scores and weights; softmax_gradient: of weights, their gradient and the result. In bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // P
    width: u32,
    // K
    columns: u32,
    // Of scores.
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

// softmax: [M, P] -> [M, P]
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> made: array<u32>;

// softmax_gradient: [M, P], [M, P] -> [M, P]
@group(0) @binding(1) var<storage, read_write> weights: array<u32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<u32>;

var<workgroup> shares: array<f32, 256>;
// An eighth of the team's lanes each.
var<workgroup> eighths: array<f32, 32>;

// Sum over the lanes of a team, for each of them.
fn team_sum(share: f32, thread: u32) -> f32 {
    shares[thread] = share;
    workgroupBarrier();
    let eighth = LANES / 8u;
    let first = thread / LANES * eighth;
    if thread % LANES < eighth {
        let a = (shares[thread] + shares[thread + eighth]) + (shares[thread + 2u * eighth] + shares[thread + 3u * eighth]);
        let b = (shares[thread + 4u * eighth] + shares[thread + 5u * eighth]) + (shares[thread + 6u * eighth] + shares[thread + 7u * eighth]);
        eighths[first + thread % LANES] = a + b;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < eighth; i++) {
        sum += eighths[first + i];
    }
    return sum;
}

// The largest value of a team.
fn team_max(share: f32, thread: u32) -> f32 {
    shares[thread] = share;
    workgroupBarrier();
    let eighth = LANES / 8u;
    let first = thread / LANES * eighth;
    if thread % LANES < eighth {
        let a = max(max(shares[thread], shares[thread + eighth]), max(shares[thread + 2u * eighth], shares[thread + 3u * eighth]));
        let b = max(shares[thread + 4u * eighth], shares[thread + 5u * eighth]);
        let c = max(shares[thread + 6u * eighth], shares[thread + 7u * eighth]);
        eighths[first + thread % LANES] = max(a, max(b, c));
    }
    workgroupBarrier();
    var most = LEAST;
    for (var i = 0u; i < eighth; i++) {
        most = max(most, eighths[first + i]);
    }
    return most;
}

// The columns of a lane's quad: two pairs side by side where a word holds a pair.
fn columns(lane: u32, quad: u32) -> vec4<u32> {
    if HALVES {
        let first = 2u * lane + 4u * quad * LANES;
        return vec4<u32>(first, first + 1u, first + 2u * LANES, first + 2u * LANES + 1u);
    }
    let first = lane + 4u * quad * LANES;
    return vec4<u32>(first, first + LANES, first + 2u * LANES, first + 3u * LANES);
}

// Words in a row of weights.
fn words() -> u32 {
    return select(params.width, params.width / 2u, HALVES);
}

// A lane's scores, scaled, of the row that begins at `first`; the least number beyond K columns. What is read there is not used.
fn row_of_scores(first: u32, lane: u32) -> mat4x4<f32> {
    let none = vec4<f32>(LEAST);
    var row = mat4x4<f32>(none, none, none, none);
    row[0] = quad_of_scores(first, columns(lane, 0u));
    if QUADS > 1u {
        row[1] = quad_of_scores(first, columns(lane, 1u));
    }
    if QUADS > 2u {
        row[2] = quad_of_scores(first, columns(lane, 2u));
    }
    if QUADS > 3u {
        row[3] = quad_of_scores(first, columns(lane, 3u));
    }
    return row;
}

fn quad_of_scores(first: u32, at: vec4<u32>) -> vec4<f32> {
    let values = vec4<f32>(scores[first + at.x], scores[first + at.y], scores[first + at.z], scores[first + at.w]);
    return select(vec4<f32>(LEAST), values * params.scale, at < vec4<u32>(params.columns));
}

// A lane's gradients of weights; zero beyond K columns.
fn row_of_gradient(first: u32, lane: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_gradient(first, columns(lane, 0u));
    if QUADS > 1u {
        row[1] = quad_of_gradient(first, columns(lane, 1u));
    }
    if QUADS > 2u {
        row[2] = quad_of_gradient(first, columns(lane, 2u));
    }
    if QUADS > 3u {
        row[3] = quad_of_gradient(first, columns(lane, 3u));
    }
    return row;
}

fn quad_of_gradient(first: u32, at: vec4<u32>) -> vec4<f32> {
    let values = vec4<f32>(gradient[first + at.x], gradient[first + at.y], gradient[first + at.z], gradient[first + at.w]);
    return counted(values, at);
}

// A lane's weights; zero beyond K columns. `first` counts words.
fn row_of_weights(first: u32, lane: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_weights(first, columns(lane, 0u));
    if QUADS > 1u {
        row[1] = quad_of_weights(first, columns(lane, 1u));
    }
    if QUADS > 2u {
        row[2] = quad_of_weights(first, columns(lane, 2u));
    }
    if QUADS > 3u {
        row[3] = quad_of_weights(first, columns(lane, 3u));
    }
    return row;
}

fn quad_of_weights(first: u32, at: vec4<u32>) -> vec4<f32> {
    var values: vec4<f32>;
    if HALVES {
        values = vec4<f32>(unpack2x16float(weights[first + at.x / 2u]), unpack2x16float(weights[first + at.z / 2u]));
    } else {
        let bits = vec4<u32>(weights[first + at.x], weights[first + at.y], weights[first + at.z], weights[first + at.w]);
        values = bitcast<vec4<f32>>(bits);
    }
    return counted(values, at);
}

// e to the power of values less `most`; zero beyond K columns.
fn powers(values: vec4<f32>, most: f32, at: vec4<u32>) -> vec4<f32> {
    return counted(exp(values - vec4<f32>(most)), at);
}

// Values in the first K columns, zero in those beyond even if there was no number to divide by.
fn counted(values: vec4<f32>, at: vec4<u32>) -> vec4<f32> {
    return select(vec4<f32>(), values, at < vec4<u32>(params.columns));
}

fn sum_of(row: mat4x4<f32>) -> f32 {
    let quad = (row[0] + row[1]) + (row[2] + row[3]);
    return (quad.x + quad.y) + (quad.z + quad.w);
}

fn store_made(values: vec4<f32>, first: u32, at: vec4<u32>) {
    if HALVES {
        if at.x < params.width {
            made[first + at.x / 2u] = packed(values.xy);
        }
        if at.z < params.width {
            made[first + at.z / 2u] = packed(values.zw);
        }
    } else {
        let bits = bitcast<vec4<u32>>(values);
        if at.x < params.width {
            made[first + at.x] = bits.x;
        }
        if at.y < params.width {
            made[first + at.y] = bits.y;
        }
        if at.z < params.width {
            made[first + at.z] = bits.z;
        }
        if at.w < params.width {
            made[first + at.w] = bits.w;
        }
    }
}

fn store_result(values: vec4<f32>, first: u32, at: vec4<u32>) {
    if HALVES {
        if at.x < params.width {
            result[first + at.x / 2u] = packed(values.xy);
        }
        if at.z < params.width {
            result[first + at.z / 2u] = packed(values.zw);
        }
    } else {
        let bits = bitcast<vec4<u32>>(values);
        if at.x < params.width {
            result[first + at.x] = bits.x;
        }
        if at.y < params.width {
            result[first + at.y] = bits.y;
        }
        if at.z < params.width {
            result[first + at.z] = bits.z;
        }
        if at.w < params.width {
            result[first + at.w] = bits.w;
        }
    }
}

// made = softmax(scale * scores) over K columns, zero in those beyond; a row for each team.
@compute @workgroup_size(256)
fn softmax(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let lane = thread % LANES;
    let row = group * (THREADS / LANES) + thread / LANES;
    let present = row < (arrayLength(&scores) - params.base.x / 4u) / params.width;
    let values = row_of_scores(params.base.x / 4u + row * params.width, lane);
    let quad = max(max(values[0], values[1]), max(values[2], values[3]));
    let most = team_max(max(max(quad.x, quad.y), max(quad.z, quad.w)), thread);
    var row_powers = mat4x4<f32>();
    row_powers[0] = powers(values[0], most, columns(lane, 0u));
    if QUADS > 1u {
        row_powers[1] = powers(values[1], most, columns(lane, 1u));
    }
    if QUADS > 2u {
        row_powers[2] = powers(values[2], most, columns(lane, 2u));
    }
    if QUADS > 3u {
        row_powers[3] = powers(values[3], most, columns(lane, 3u));
    }
    let share = row_powers * (1.0 / team_sum(sum_of(row_powers), thread));
    if present {
        let first = params.base.y / 4u + row * words();
        store_made(counted(share[0], columns(lane, 0u)), first, columns(lane, 0u));
        if QUADS > 1u {
            store_made(counted(share[1], columns(lane, 1u)), first, columns(lane, 1u));
        }
        if QUADS > 2u {
            store_made(counted(share[2], columns(lane, 2u)), first, columns(lane, 2u));
        }
        if QUADS > 3u {
            store_made(counted(share[3], columns(lane, 3u)), first, columns(lane, 3u));
        }
    }
}

// scale * weights * (gradient - mean), zero beyond K columns.
fn of_scores(weight: vec4<f32>, slope: vec4<f32>, mean: f32, at: vec4<u32>) -> vec4<f32> {
    return counted(params.scale * weight * (slope - vec4<f32>(mean)), at);
}

// The gradient of scores from that of weights; a row for each team.
@compute @workgroup_size(256)
fn softmax_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let lane = thread % LANES;
    let row = group * (THREADS / LANES) + thread / LANES;
    let present = row < (arrayLength(&gradient) - params.base.y / 4u) / params.width;
    let weight = row_of_weights(params.base.x / 4u + row * words(), lane);
    let slope = row_of_gradient(params.base.y / 4u + row * params.width, lane);
    let both = mat4x4<f32>(weight[0] * slope[0], weight[1] * slope[1], weight[2] * slope[2], weight[3] * slope[3]);
    let mean = team_sum(sum_of(both), thread);
    if present {
        let first = params.base.z / 4u + row * words();
        store_result(of_scores(weight[0], slope[0], mean, columns(lane, 0u)), first, columns(lane, 0u));
        if QUADS > 1u {
            store_result(of_scores(weight[1], slope[1], mean, columns(lane, 1u)), first, columns(lane, 1u));
        }
        if QUADS > 2u {
            store_result(of_scores(weight[2], slope[2], mean, columns(lane, 2u)), first, columns(lane, 2u));
        }
        if QUADS > 3u {
            store_result(of_scores(weight[3], slope[3], mean, columns(lane, 3u)), first, columns(lane, 3u));
        }
    }
}
