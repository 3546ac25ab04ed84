// Sums over the rows of [R, D], for each of G chunks of rows: [G, D]. Twin: src/kernels/reference/column_sums.rs.
//
// A lane has a column of a chunk, or two side by side in half precision, and adds it up in the order of rows, four sums side by side;
// neighbouring lanes read neighbouring words. Sums are in single precision. Chunks are added up by a second launch.

// Whether a word of the source holds two f16 instead of one f32.
override HALVES: bool;

struct Params {
    // Where source and result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // R
    rows: u32,
    // D
    width: u32,
    // Rows of a chunk.
    chunk: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [R, D]
@group(0) @binding(1) var<storage, read_write> source: array<u32>;
// [G, D]
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

const LANES = 256u;

// The two values of a word, or its only one and zero.
fn values(word: u32) -> vec2<f32> {
    if HALVES {
        return unpack2x16float(word);
    }
    return vec2<f32>(bitcast<f32>(word), 0.0);
}

@compute @workgroup_size(256)
fn column_sums(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    let words = select(params.width, params.width / 2u, HALVES);
    let across = (words + LANES - 1u) / LANES;
    let word = group % across * LANES + lane;
    if group >= params.groups || word >= words {
        return;
    }
    let begin = group / across * params.chunk;
    let end = min(begin + params.chunk, params.rows);
    let first = params.base.x / 4u + word;
    var sums = mat4x2<f32>();
    var row = begin;
    while row + 4u <= end {
        let at = first + row * words;
        let rows = vec4<u32>(source[at], source[at + words], source[at + 2u * words], source[at + 3u * words]);
        sums += mat4x2<f32>(values(rows.x), values(rows.y), values(rows.z), values(rows.w));
        row += 4u;
    }
    while row < end {
        sums[0] += values(source[first + row * words]);
        row += 1u;
    }
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    let chunk_sums = params.base.y / 4u + group / across * params.width;
    if HALVES {
        result[chunk_sums + 2u * word] = sum.x;
        result[chunk_sums + 2u * word + 1u] = sum.y;
    } else {
        result[chunk_sums + word] = sum.x;
    }
}
