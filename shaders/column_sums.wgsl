// Sums over the rows of [R, D], for each of G chunks of rows: [G, D]. Twin: src/kernels/reference/column_sums.rs.
//
// A lane has a column of a chunk and adds it up in the order of rows, four sums side by side; neighbouring lanes read neighbouring values.
// Chunks are added up by a second launch.

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
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
// [G, D]
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

const LANES = 256u;

@compute @workgroup_size(256)
fn column_sums(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    let across = (params.width + LANES - 1u) / LANES;
    let column = group % across * LANES + lane;
    if group >= params.groups || column >= params.width {
        return;
    }
    let begin = group / across * params.chunk;
    let end = min(begin + params.chunk, params.rows);
    let first = params.base.x / 4u + column;
    var sums = vec4<f32>();
    var row = begin;
    while row + 4u <= end {
        let at = first + row * params.width;
        sums += vec4<f32>(source[at], source[at + params.width], source[at + 2u * params.width], source[at + 3u * params.width]);
        row += 4u;
    }
    while row < end {
        sums.x += source[first + row * params.width];
        row += 1u;
    }
    result[params.base.y / 4u + group / across * params.width + column] = (sums.x + sums.y) + (sums.z + sums.w);
}
