// The sum of the squares of N values, added to a running sum: the length of gradients. Twin: src/kernels/reference/squares.rs.
//
// A workgroup sums a chunk, each lane its values in their order, four sums side by side; a second launch, of one workgroup, adds up the
// chunks. Neighbouring lanes read neighbouring values, and sums have one order. A single chunk takes one launch; of many tensors, four are
// summed in one launch, and the chunks of all of them are added up together.

struct Params {
    // Where values and sums of chunks, or running sums, begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Values of a chunk.
    chunk: u32,
}

struct FourParams {
    // Where the values of four tensors begin in their bindings, in bytes.
    base: vec4<u32>,
    groups: u32,
    groups_x: u32,
    // Where sums of chunks begin in their binding, in bytes, and which of them is that of the first workgroup.
    sums_base: u32,
    place: u32,
    // Values of a chunk of each tensor.
    chunk: vec4<u32>,
    // The workgroup behind the last one of each.
    end: vec4<u32>,
}

struct SumParams {
    // Of the sums of chunks, the running sum, and the new one.
    base: vec4<u32>,
    groups: u32,
    groups_x: u32,
    // G
    chunks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(0) var<uniform> four_params: FourParams;
@group(0) @binding(0) var<uniform> sum_params: SumParams;

// squares: [N], and sums of chunks [G].
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

// squares_of_four: [N] each, and sums of chunks [G] of these and others.
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
@group(0) @binding(4) var<storage, read_write> d: array<f32>;
@group(0) @binding(5) var<storage, read_write> all_sums: array<f32>;

// add_squares: sums of chunks [G], the running sum [1], and the new one; add_chunk the same with values [N] first.
@group(0) @binding(1) var<storage, read_write> chunk_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> running: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

const LANES = 256u;
var<workgroup> shares: array<f32, 256>;

// Sum over the lanes of a workgroup, for each of them.
fn workgroup_sum(share: f32, lane: u32) -> f32 {
    shares[lane] = share;
    workgroupBarrier();
    for (var others = LANES / 2u; others > 0u; others /= 2u) {
        if lane < others {
            shares[lane] += shares[lane + others];
        }
        workgroupBarrier();
    }
    return shares[0];
}

// The sum of the squares of a chunk, for each lane.
fn chunk_sum(group: u32, lane: u32) -> f32 {
    let first = params.base.x / 4u;
    let end = min((group + 1u) * params.chunk, arrayLength(&source) - first);
    var four = vec4<f32>();
    var at = group * params.chunk + lane;
    while at + 3u * LANES < end {
        let place = first + at;
        let values = vec4<f32>(source[place], source[place + LANES], source[place + 2u * LANES], source[place + 3u * LANES]);
        four += values * values;
        at += 4u * LANES;
    }
    while at < end {
        four.x += source[first + at] * source[first + at];
        at += LANES;
    }
    return workgroup_sum((four.x + four.y) + (four.z + four.w), lane);
}

// Sums of the squares of chunks.
@compute @workgroup_size(256)
fn squares(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let sum = chunk_sum(group, lane);
    if lane == 0u {
        sums[params.base.y / 4u + group] = sum;
    }
}

// Words bound for one of four tensors.
fn words(tensor: u32) -> u32 {
    switch tensor {
        case 0u: { return arrayLength(&a); }
        case 1u: { return arrayLength(&b); }
        case 2u: { return arrayLength(&c); }
        default: { return arrayLength(&d); }
    }
}

fn value(tensor: u32, at: u32) -> f32 {
    switch tensor {
        case 0u: { return a[at]; }
        case 1u: { return b[at]; }
        case 2u: { return c[at]; }
        default: { return d[at]; }
    }
}

// The next values of a lane.
fn four_values(tensor: u32, at: u32) -> vec4<f32> {
    switch tensor {
        case 0u: { return vec4<f32>(a[at], a[at + LANES], a[at + 2u * LANES], a[at + 3u * LANES]); }
        case 1u: { return vec4<f32>(b[at], b[at + LANES], b[at + 2u * LANES], b[at + 3u * LANES]); }
        case 2u: { return vec4<f32>(c[at], c[at + LANES], c[at + 2u * LANES], c[at + 3u * LANES]); }
        default: { return vec4<f32>(d[at], d[at + LANES], d[at + 2u * LANES], d[at + 3u * LANES]); }
    }
}

// Sums of the squares of the chunks of four tensors.
@compute @workgroup_size(256)
fn squares_of_four(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * four_params.groups_x + workgroup.x;
    if group >= four_params.groups {
        return;
    }
    var tensor = 0u;
    var begin = 0u;
    while tensor < 3u && group >= four_params.end[tensor] {
        begin = four_params.end[tensor];
        tensor += 1u;
    }
    let first = four_params.base[tensor] / 4u;
    let chunk = four_params.chunk[tensor];
    let end = min((group - begin + 1u) * chunk, words(tensor) - first);
    var four = vec4<f32>();
    var at = (group - begin) * chunk + lane;
    while at + 3u * LANES < end {
        let values = four_values(tensor, first + at);
        four += values * values;
        at += 4u * LANES;
    }
    while at < end {
        let one = value(tensor, first + at);
        four.x += one * one;
        at += LANES;
    }
    let sum = workgroup_sum((four.x + four.y) + (four.z + four.w), lane);
    if lane == 0u {
        all_sums[four_params.sums_base / 4u + four_params.place + group] = sum;
    }
}

// result = running + the sum of the squares of one chunk.
@compute @workgroup_size(256)
fn add_chunk(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let sum = chunk_sum(group, lane);
    if lane == 0u {
        result[params.base.z / 4u] = running[params.base.y / 4u] + sum;
    }
}

// result = running + the sums of all chunks.
@compute @workgroup_size(256)
fn add_squares(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * sum_params.groups_x + workgroup.x;
    if group >= sum_params.groups {
        return;
    }
    var share = 0.0;
    for (var chunk = lane; chunk < sum_params.chunks; chunk += LANES) {
        share += chunk_sums[sum_params.base.x / 4u + chunk];
    }
    let sum = workgroup_sum(share, lane);
    if lane == 0u {
        result[sum_params.base.z / 4u] = running[sum_params.base.y / 4u] + sum;
    }
}
