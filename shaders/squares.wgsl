// The sum of the squares of N values, added to a running sum: the length of gradients. Twin: src/kernels/reference/squares.rs.
//
// A workgroup sums a chunk, each lane its values in their order, four sums side by side; a second launch, of one workgroup, adds up the
// chunks. Neighbouring lanes read neighbouring values, and sums have one order. A single chunk takes one launch.

struct Params {
    // Where values and sums of chunks, or running sums, begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Values of a chunk.
    chunk: u32,
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
@group(0) @binding(0) var<uniform> sum_params: SumParams;

// squares: [N], and sums of chunks [G].
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

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
