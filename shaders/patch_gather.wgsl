// Rows of [B, N, D] by an index list for each sample, and the way back (masked patch gathering). Twin:
// src/kernels/reference/patch_gather.rs.
//
// A workgroup owns one row of the result, so nothing is written twice and sums have one order. Rows are handled as 32-bit words: a gather
// never looks at the numbers, and half precision needs no shader feature.

// Whether a word holds two f16 instead of one f32.
override HALVES: bool;

struct Params {
    // Where source, index and result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // N: rows of a sample in the full tensor.
    rows: u32,
    // K: rows of a sample in the gathered tensor.
    kept: u32,
    // Words in a row.
    words: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// gather: [B, N, words]; scatter: [B, K, words].
@group(0) @binding(1) var<storage, read_write> source: array<u32>;
// [B, K]
@group(0) @binding(2) var<storage, read_write> index: array<i32>;
// gather: [B, K, words]; scatter: [B, N, words].
@group(0) @binding(3) var<storage, read_write> result: array<u32>;

const LANES = 64u;
// Bits for 65,536 kept rows.
const SET_WORDS = 2048u;
var<workgroup> hits: array<atomic<u32>, 2048>;

// result[b, k] = source[b, index[b, k]]; a row that does not exist is zero.
@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let row = index[params.base.y / 4u + group];
    let present = row >= 0 && u32(row) < params.rows;
    let sample = group / params.kept;
    let first = params.base.x / 4u + (sample * params.rows + select(0u, u32(row), present)) * params.words;
    let target_row = params.base.z / 4u + group * params.words;
    for (var i = lane; i < params.words; i += LANES) {
        result[target_row + i] = select(0u, source[first + i], present);
    }
}

// result[b, n] = sum of source[b, k] over the k with index[b, k] = n, in the order of k; zero where there is none.
@compute @workgroup_size(64)
fn scatter(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let sample = group / params.rows;
    let row = i32(group % params.rows);
    let parts = (params.kept + 31u) / 32u;
    for (var i = lane; i < min(parts, SET_WORDS); i += LANES) {
        atomicStore(&hits[i], 0u);
    }
    workgroupBarrier();
    let list = params.base.y / 4u + sample * params.kept;
    for (var k = lane; k < params.kept; k += LANES) {
        if index[list + k] == row {
            atomicOr(&hits[k / 32u], 1u << (k % 32u));
        }
    }
    workgroupBarrier();

    let first = params.base.x / 4u + sample * params.kept * params.words;
    let target_row = params.base.z / 4u + group * params.words;
    for (var i = lane; i < params.words; i += LANES) {
        var found = 0u;
        var word = 0u;
        var sum = vec2<f32>(0.0, 0.0);
        for (var part = 0u; part < parts; part++) {
            var bits = atomicLoad(&hits[part]);
            while bits != 0u {
                let k = part * 32u + firstTrailingBit(bits);
                bits &= bits - 1u;
                word = source[first + k * params.words + i];
                if HALVES {
                    sum += unpack2x16float(word);
                } else {
                    sum.x += bitcast<f32>(word);
                }
                found++;
            }
        }
        // A single row is copied as it is; none leaves the zero that `word` began with.
        if found > 1u {
            word = select(bitcast<u32>(sum.x), pack2x16float(sum), HALVES);
        }
        result[target_row + i] = word;
    }
}
