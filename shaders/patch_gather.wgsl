// Rows of [B, N, D] by an index list for each sample, and the way back (masked patch gathering). Twin:
// src/kernels/reference/patch_gather.rs.
//
// A workgroup owns its rows of the result, so nothing is written twice and sums have one order. Rows are handled as 32-bit words: a gather
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
// Rows of the result that one workgroup of a scatter makes: they share the look through the index list.
const BLOCK = 8u;
// For each row of the block a bit for each kept row: 2,048 words are 8,192 bits a row.
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
    copy_row(first, target_row, lane, present);
}

// Four loads before four stores: all buffers might be one, so a compiler may not do that by itself. What is read beyond the row is not
// stored.
fn copy_row(first: u32, target_row: u32, lane: u32, present: bool) {
    for (var i = lane; i < params.words; i += 4u * LANES) {
        let a = source[first + i];
        let b = source[first + i + LANES];
        let c = source[first + i + 2u * LANES];
        let d = source[first + i + 3u * LANES];
        result[target_row + i] = select(0u, a, present);
        if i + LANES < params.words {
            result[target_row + i + LANES] = select(0u, b, present);
        }
        if i + 2u * LANES < params.words {
            result[target_row + i + 2u * LANES] = select(0u, c, present);
        }
        if i + 3u * LANES < params.words {
            result[target_row + i + 3u * LANES] = select(0u, d, present);
        }
    }
}

// result[b, n] = sum of source[b, k] over the k with index[b, k] = n, in the order of k; zero where there is none.
@compute @workgroup_size(64)
fn scatter(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let blocks = (params.rows + BLOCK - 1u) / BLOCK;
    let sample = group / blocks;
    let first_row = group % blocks * BLOCK;
    let rows = min(BLOCK, params.rows - first_row);
    let parts = (params.kept + 31u) / 32u;
    for (var i = lane; i < rows * parts; i += LANES) {
        atomicStore(&hits[i], 0u);
    }
    workgroupBarrier();
    let list = params.base.y / 4u + sample * params.kept;
    for (var k = lane; k < params.kept; k += LANES) {
        // A place before the block is a large number here.
        let row = u32(index[list + k]) - first_row;
        if row < rows {
            atomicOr(&hits[row * parts + k / 32u], 1u << (k % 32u));
        }
    }
    workgroupBarrier();

    let first = params.base.x / 4u + sample * params.kept * params.words;
    for (var row = 0u; row < rows; row++) {
        var found = 0u;
        var only = 0u;
        for (var part = 0u; part < parts; part++) {
            let bits = atomicLoad(&hits[row * parts + part]);
            if bits != 0u && found == 0u {
                only = part * 32u + firstTrailingBit(bits);
            }
            found += countOneBits(bits);
        }
        let target_row = params.base.z / 4u + (sample * params.rows + first_row + row) * params.words;
        if found <= 1u {
            // Copied as it is, or zero.
            copy_row(first + only * params.words, target_row, lane, found == 1u);
        } else {
            for (var i = lane; i < params.words; i += LANES) {
                result[target_row + i] = sum_of(row * parts, parts, first + i);
            }
        }
    }
}

// Sum of the words at `place` + k * words over the bits k of a row in `hits`.
fn sum_of(row: u32, parts: u32, place: u32) -> u32 {
    var sum = vec2<f32>(0.0, 0.0);
    for (var part = 0u; part < parts; part++) {
        var bits = atomicLoad(&hits[row + part]);
        while bits != 0u {
            let word = source[place + (part * 32u + firstTrailingBit(bits)) * params.words];
            if HALVES {
                sum += unpack2x16float(word);
            } else {
                sum.x += bitcast<f32>(word);
            }
            bits &= bits - 1u;
        }
    }
    return select(bitcast<u32>(sum.x), pack2x16float(sum), HALVES);
}
