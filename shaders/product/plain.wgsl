
// Products of matrices of f32, or of f16 in pairs, summed in f32: C [M, N] = A [M, K] B [K, N], for each of many samples and heads. As
// shaders/product.wgsl, on devices without cooperative matrices: no feature is needed. What becomes of C is written before this
// (product/endings).
//
// A workgroup makes 128 x 128 values of C from slices of 16 along K, which lie in workgroup memory with K downwards: while one is multiplied,
// the next is on its way through registers. Each of its 256 lanes makes 8 x 8 values, four by four of each quarter.

// Whether A and B hold f16.
override HALVES: bool;

// Two values of f32 or four of f16 each.
@group(0) @binding(1) var<storage, read_write> left: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> right: array<vec2<u32>>;

const LANES = 256u;
const SIDE = 128u;
const DEPTH = 16u;
// Fours of values from one row of a tile to the next: one more than are used, so that rows begin in different banks of memory.
const WIDE = 33u;

var<workgroup> tile_a: array<vec4<f32>, 528>;
var<workgroup> tile_b: array<vec4<f32>, 528>;

// The four values from `at` on of A or B.
fn left_at(at: u32) -> vec4<f32> {
    if HALVES {
        let pairs = left[at / 4u];
        return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
    }
    return bitcast<vec4<f32>>(vec4<u32>(left[at / 2u], left[at / 2u + 1u]));
}

fn right_at(at: u32) -> vec4<f32> {
    if HALVES {
        let pairs = right[at / 4u];
        return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
    }
    return bitcast<vec4<f32>>(vec4<u32>(right[at / 2u], right[at / 2u + 1u]));
}

// One value.
fn left_value(at: u32) -> f32 {
    if HALVES {
        return unpack2x16float(left[at / 4u][at / 2u % 2u])[at % 2u];
    }
    return bitcast<f32>(left[at / 2u][at % 2u]);
}

fn right_value(at: u32) -> f32 {
    if HALVES {
        return unpack2x16float(right[at / 4u][at / 2u % 2u])[at % 2u];
    }
    return bitcast<f32>(right[at / 2u][at % 2u]);
}

// Where in a tile the i-th four of a lane lies: its distance along K, and its first row of A or column of B. Lanes side by side read values side
// by side. A four is written by one lane: two that write to one vector would be in each other's way on Metal.
fn place_of(lane: u32, i: u32, rows_along_k: bool) -> vec2<u32> {
    let four = lane + i * LANES;
    return select(vec2<u32>(four / 32u, four % 32u * 4u), vec2<u32>(four % DEPTH, four / DEPTH * 4u), rows_along_k);
}

// A lane's i-th four of the tile at `row` and `k`; zero beyond `k_end`, where the last values are read once more: a condition around a load
// keeps drivers from having many of them under way. So are those of the last row: rows of C from M on are not written. Values behind the end
// of a row, up to a four, may be read: nothing counts on them.
fn fetch_a(lane: u32, i: u32, first: u32, row: u32, k: u32, k_end: u32) -> vec4<f32> {
    let at = vec2<u32>(k, row) + place_of(lane, i, !TURN_A);
    let along = min(at.x, k_end - 1u);
    var value: vec4<f32>;
    if TURN_A {
        value = left_at(first + along * params.row_a + min(at.y, (params.m - 1u) / 4u * 4u));
    } else {
        let rows = first + along + min(at.y + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.m - 1u)) * params.row_a;
        value = vec4<f32>(left_value(rows.x), left_value(rows.y), left_value(rows.z), left_value(rows.w));
    }
    return select(vec4<f32>(), value, at.x < k_end);
}

// The same of B at `column` and `k`, with zero also for columns from N on.
fn fetch_b(lane: u32, i: u32, first: u32, column: u32, k: u32, k_end: u32) -> vec4<f32> {
    let at = vec2<u32>(k, column) + place_of(lane, i, TURN_B);
    let along = min(at.x, k_end - 1u);
    let columns = at.y + vec4<u32>(0u, 1u, 2u, 3u);
    var value: vec4<f32>;
    if TURN_B {
        let rows = first + along + min(columns, vec4<u32>(params.n - 1u)) * params.row_b;
        value = vec4<f32>(right_value(rows.x), right_value(rows.y), right_value(rows.z), right_value(rows.w));
    } else {
        value = right_at(first + along * params.row_b + min(at.y, (params.n - 1u) / 4u * 4u));
    }
    return select(vec4<f32>(), value, vec4<bool>(at.x < k_end) & (columns < vec4<u32>(params.n)));
}

fn put_a(lane: u32, i: u32, value: vec4<f32>) {
    let place = place_of(lane, i, !TURN_A);
    tile_a[place.x * WIDE + place.y / 4u] = value;
}

fn put_b(lane: u32, i: u32, value: vec4<f32>) {
    let place = place_of(lane, i, TURN_B);
    tile_b[place.x * WIDE + place.y / 4u] = value;
}

// Four rows of C from `row` on, whose values from `column` on are the columns of `values`.
fn store(first: u32, row: u32, column: u32, values: mat4x4<f32>) {
    if column >= params.columns {
        return;
    }
    let at = first + row * params.row_c + column;
    if row < params.m {
        finish(at, column, values[0], known(at));
    }
    if row + 1u < params.m {
        finish(at + params.row_c, column, values[1], known(at + params.row_c));
    }
    if row + 2u < params.m {
        finish(at + 2u * params.row_c, column, values[2], known(at + 2u * params.row_c));
    }
    if row + 3u < params.m {
        finish(at + 3u * params.row_c, column, values[3], known(at + 3u * params.row_c));
    }
}

// The products of four values of A with four of B, a row of C in each column.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let across = (params.columns + SIDE - 1u) / SIDE;
    let down = (params.m + SIDE - 1u) / SIDE;
    let column = group % across * SIDE;
    let row = group / across % down * SIDE;
    let part = group / (across * down) % params.splits;
    let matrix = group / (across * down * params.splits);
    let head = matrix % params.heads;
    let sample = matrix / params.heads;
    let value_bytes = select(4u, 2u, HALVES);
    let first_a = params.base.x / value_bytes + params.first_a + sample * params.sample_a + head * params.head_a;
    let first_b = params.base.y / value_bytes + params.first_b + sample * params.sample_b + head * params.head_b;
    let first_c = params.first_c + sample * params.sample_c + head * params.head_c + part * params.split_c;
    let k_begin = part * params.k_each;
    let k_end = min(k_begin + params.k_each, params.k);

    var c00 = mat4x4<f32>();
    var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>();
    var c11 = mat4x4<f32>();
    let own_row = lane / 16u;
    let own_column = lane % 16u;
    var a0 = fetch_a(lane, 0u, first_a, row, k_begin, k_end);
    var a1 = fetch_a(lane, 1u, first_a, row, k_begin, k_end);
    var b0 = fetch_b(lane, 0u, first_b, column, k_begin, k_end);
    var b1 = fetch_b(lane, 1u, first_b, column, k_begin, k_end);
    for (var k = k_begin; k < k_end; k += DEPTH) {
        put_a(lane, 0u, a0);
        put_a(lane, 1u, a1);
        put_b(lane, 0u, b0);
        put_b(lane, 1u, b1);
        workgroupBarrier();
        // Beyond the end these are zero.
        let next = k + DEPTH;
        a0 = fetch_a(lane, 0u, first_a, row, next, k_end);
        a1 = fetch_a(lane, 1u, first_a, row, next, k_end);
        b0 = fetch_b(lane, 0u, first_b, column, next, k_end);
        b1 = fetch_b(lane, 1u, first_b, column, next, k_end);
        for (var step = 0u; step < DEPTH; step++) {
            let left0 = tile_a[step * WIDE + own_row];
            let left1 = tile_a[step * WIDE + 16u + own_row];
            let right0 = tile_b[step * WIDE + own_column];
            let right1 = tile_b[step * WIDE + 16u + own_column];
            c00 += outer(left0, right0);
            c01 += outer(left0, right1);
            c10 += outer(left1, right0);
            c11 += outer(left1, right1);
        }
        workgroupBarrier();
    }

    let r = row + own_row * 4u;
    let c = column + own_column * 4u;
    store(first_c, r, c, c00);
    store(first_c, r, c + 64u, c01);
    store(first_c, r + 64u, c, c10);
    store(first_c, r + 64u, c + 64u, c11);
}
