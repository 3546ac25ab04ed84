
// Products of matrices of f16, summed in f32: C [M, N] = A [M, K] B [K, N], for each of many samples and heads. Either matrix may be stored
// turned, A as [K, M] and B as [N, K], so that a layer's forward and backward passes read the same tensors without copies. `Stored`, four
// values as they lie in memory, and what a subgroup does with 16 x 16 of them is written before this (product/matrices.wgsl, or
// product/emulated.wgsl for tests).
//
// A workgroup makes 256 x 128 values of C from slices of 32 along K, which lie in workgroup memory: while one is multiplied, the next is on its
// way through registers. Each of its eight subgroups of 32 lanes makes 64 x 64 of them. K may be cut into `splits` parts with a C each,
// which somebody else adds up.

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> left: array<Stored>;
@group(0) @binding(2) var<storage, read_write> right: array<Stored>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

const LANES = 256u;
// Rows and columns of C that a workgroup makes, and values along K that it takes at a time.
const DOWN = 256u;
const ACROSS = 128u;
const DEPTH = 32u;
// Eights of values in a row of a tile: along K, and across in A and in B.
const EIGHTS = DEPTH / 8u;
const EIGHTS_A = DOWN / 8u;
const EIGHTS_B = ACROSS / 8u;
// Fours from one row of a tile to the next: two more than are used, so that eight rows lie in different banks of memory.
const NARROW = DEPTH / 4u + 2u;
const WIDE_A = DOWN / 4u + 2u;
const WIDE_B = ACROSS / 4u + 2u;

// Tiles in fours, with a row for each of DOWN or ACROSS, or where K is the stored row, a (shorter) tile with a row for each of DEPTH.
var<workgroup> tile_a: array<Stored, 2560>;
var<workgroup> tile_b: array<Stored, 1280>;
// 16 x 16 values of each subgroup, where rows beyond M must not be written.
var<workgroup> scratch: array<f32, 2048>;

// For matrices that are emulated.
var<private> lane_of_subgroup: u32;

// Eight values as they lie in memory.
struct Pair {
    x: Stored,
    y: Stored,
}

// Zero where `present` is not.
fn left_pair(present: bool, at: u32) -> Pair {
    var pair = Pair();
    if present {
        pair = Pair(left[at], left[at + 1u]);
    }
    return pair;
}

fn right_pair(present: bool, at: u32) -> Pair {
    var pair = Pair();
    if present {
        pair = Pair(right[at], right[at + 1u]);
    }
    return pair;
}

fn put_a(at: u32, pair: Pair) {
    tile_a[at] = pair.x;
    tile_a[at + 1u] = pair.y;
}

fn put_b(at: u32, pair: Pair) {
    tile_b[at] = pair.x;
    tile_b[at + 1u] = pair.y;
}

// Where 16 x 16 values begin in a tile, `across` and `k` from its corner.
fn corner_a(across: u32, k: u32) -> u32 {
    return select(across * NARROW + k / 4u, k * WIDE_A + across / 4u, TURN_A);
}

fn corner_b(across: u32, k: u32) -> u32 {
    return select(k * WIDE_B + across / 4u, across * NARROW + k / 4u, TURN_B);
}

// Writes the rows below M of 16 x 16 values. All lanes of the workgroup come here together.
fn store_edge(c: FragmentC, lane: u32, first: u32, row: u32, column: u32) {
    let place = lane / 32u * 256u;
    store_scratch(c, place);
    workgroupBarrier();
    for (var i = lane % 32u; i < 256u; i += 32u) {
        let at = vec2<u32>(row + i / 16u, column + i % 16u);
        if at.x < params.m && at.y < params.columns {
            result[first + at.x * params.row_c + at.y] = scratch[place + i];
        }
    }
    workgroupBarrier();
}

fn store_whole(c: FragmentC, first: u32, row: u32, column: u32) {
    if column < params.columns {
        store_result(c, first + row * params.row_c + column);
    }
}

@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    lane_of_subgroup = lane % 32u;
    let across = (params.columns + ACROSS - 1u) / ACROSS;
    let down = (params.m + DOWN - 1u) / DOWN;
    let column = group % across * ACROSS;
    let row = group / across % down * DOWN;
    let part = group / (across * down) % params.splits;
    let matrix = group / (across * down * params.splits);
    let head = matrix % params.heads;
    let sample = matrix / params.heads;
    let first_a = params.base.x / STORED_BYTES * 4u + params.first_a + sample * params.sample_a + head * params.head_a;
    let first_b = params.base.y / STORED_BYTES * 4u + params.first_b + sample * params.sample_b + head * params.head_b;
    let first_c = params.base.z / 4u + params.first_c + sample * params.sample_c + head * params.head_c + part * params.split_c;
    let k_begin = part * params.k_each;
    let k_end = min(k_begin + params.k_each, params.k);

    // This lane's first eight values of A: their distance along K, their row of A, and their places in the tile and, in fours, in memory.
    var along_a = lane % EIGHTS * 8u;
    var row_a = row + lane / EIGHTS;
    var put_at_a = lane / EIGHTS * NARROW + lane % EIGHTS * 2u;
    var at_a = (first_a + row_a * params.row_a + k_begin + along_a) / 4u;
    // From the place in memory to that in the next slice, and to this lane's next eight.
    var slice_a = DEPTH / 4u;
    var next_a = LANES / EIGHTS * params.row_a / 4u;
    if TURN_A {
        along_a = lane / EIGHTS_A;
        row_a = row + lane % EIGHTS_A * 8u;
        put_at_a = lane / EIGHTS_A * WIDE_A + lane % EIGHTS_A * 2u;
        at_a = (first_a + (k_begin + along_a) * params.row_a + row_a) / 4u;
        slice_a = DEPTH * params.row_a / 4u;
        next_a = LANES / EIGHTS_A * params.row_a / 4u;
    }
    // The next eight lie further down, or further along K.
    let more_rows_a = select(LANES / EIGHTS, 0u, TURN_A);
    let more_along_a = select(0u, LANES / EIGHTS_A, TURN_A);
    let put_next_a = select(LANES / EIGHTS * NARROW, LANES / EIGHTS_A * WIDE_A, TURN_A);
    // The same of B.
    var along_b = lane / EIGHTS_B;
    var column_b = column + lane % EIGHTS_B * 8u;
    var put_at_b = lane / EIGHTS_B * WIDE_B + lane % EIGHTS_B * 2u;
    var at_b = (first_b + (k_begin + along_b) * params.row_b + column_b) / 4u;
    var slice_b = DEPTH * params.row_b / 4u;
    var next_b = LANES / EIGHTS_B * params.row_b / 4u;
    if TURN_B {
        along_b = lane % EIGHTS * 8u;
        column_b = column + lane / EIGHTS;
        put_at_b = lane / EIGHTS * NARROW + lane % EIGHTS * 2u;
        at_b = (first_b + column_b * params.row_b + k_begin + along_b) / 4u;
        slice_b = DEPTH / 4u;
        next_b = LANES / EIGHTS * params.row_b / 4u;
    }
    let more_columns_b = select(0u, LANES / EIGHTS, TURN_B);
    let more_along_b = select(LANES / EIGHTS_B, 0u, TURN_B);
    let put_next_b = select(LANES / EIGHTS_B * WIDE_B, LANES / EIGHTS * NARROW, TURN_B);

    var c00 = nothing();
    var c01 = nothing();
    var c02 = nothing();
    var c03 = nothing();
    var c10 = nothing();
    var c11 = nothing();
    var c12 = nothing();
    var c13 = nothing();
    var c20 = nothing();
    var c21 = nothing();
    var c22 = nothing();
    var c23 = nothing();
    var c30 = nothing();
    var c31 = nothing();
    var c32 = nothing();
    var c33 = nothing();
    let subgroup = lane / 32u;
    let own_row = subgroup / 2u * 64u;
    let own_column = subgroup % 2u * 64u;

    var a0 = left_pair(k_begin + along_a < k_end && row_a < params.m, at_a);
    var a1 = left_pair(k_begin + along_a + more_along_a < k_end && row_a + more_rows_a < params.m, at_a + next_a);
    var a2 = left_pair(k_begin + along_a + 2u * more_along_a < k_end && row_a + 2u * more_rows_a < params.m, at_a + 2u * next_a);
    var a3 = left_pair(k_begin + along_a + 3u * more_along_a < k_end && row_a + 3u * more_rows_a < params.m, at_a + 3u * next_a);
    var b0 = right_pair(k_begin + along_b < k_end && column_b < params.n, at_b);
    var b1 = right_pair(k_begin + along_b + more_along_b < k_end && column_b + more_columns_b < params.n, at_b + next_b);
    for (var k = k_begin; k < k_end; k += DEPTH) {
        put_a(put_at_a, a0);
        put_a(put_at_a + put_next_a, a1);
        put_a(put_at_a + 2u * put_next_a, a2);
        put_a(put_at_a + 3u * put_next_a, a3);
        put_b(put_at_b, b0);
        put_b(put_at_b + put_next_b, b1);
        workgroupBarrier();
        let next = k + DEPTH;
        at_a += slice_a;
        at_b += slice_b;
        a0 = left_pair(next + along_a < k_end && row_a < params.m, at_a);
        a1 = left_pair(next + along_a + more_along_a < k_end && row_a + more_rows_a < params.m, at_a + next_a);
        a2 = left_pair(next + along_a + 2u * more_along_a < k_end && row_a + 2u * more_rows_a < params.m, at_a + 2u * next_a);
        a3 = left_pair(next + along_a + 3u * more_along_a < k_end && row_a + 3u * more_rows_a < params.m, at_a + 3u * next_a);
        b0 = right_pair(next + along_b < k_end && column_b < params.n, at_b);
        b1 = right_pair(next + along_b + more_along_b < k_end && column_b + more_columns_b < params.n, at_b + next_b);
        {
            let right0 = load_b(corner_b(own_column, 0u));
            let right1 = load_b(corner_b(own_column + 16u, 0u));
            let right2 = load_b(corner_b(own_column + 32u, 0u));
            let right3 = load_b(corner_b(own_column + 48u, 0u));
            let left0 = load_a(corner_a(own_row, 0u));
            c00 = add_product(left0, right0, c00);
            c01 = add_product(left0, right1, c01);
            c02 = add_product(left0, right2, c02);
            c03 = add_product(left0, right3, c03);
            let left1 = load_a(corner_a(own_row + 16u, 0u));
            c10 = add_product(left1, right0, c10);
            c11 = add_product(left1, right1, c11);
            c12 = add_product(left1, right2, c12);
            c13 = add_product(left1, right3, c13);
            let left2 = load_a(corner_a(own_row + 32u, 0u));
            c20 = add_product(left2, right0, c20);
            c21 = add_product(left2, right1, c21);
            c22 = add_product(left2, right2, c22);
            c23 = add_product(left2, right3, c23);
            let left3 = load_a(corner_a(own_row + 48u, 0u));
            c30 = add_product(left3, right0, c30);
            c31 = add_product(left3, right1, c31);
            c32 = add_product(left3, right2, c32);
            c33 = add_product(left3, right3, c33);
        }
        {
            let right0 = load_b(corner_b(own_column, 16u));
            let right1 = load_b(corner_b(own_column + 16u, 16u));
            let right2 = load_b(corner_b(own_column + 32u, 16u));
            let right3 = load_b(corner_b(own_column + 48u, 16u));
            let left0 = load_a(corner_a(own_row, 16u));
            c00 = add_product(left0, right0, c00);
            c01 = add_product(left0, right1, c01);
            c02 = add_product(left0, right2, c02);
            c03 = add_product(left0, right3, c03);
            let left1 = load_a(corner_a(own_row + 16u, 16u));
            c10 = add_product(left1, right0, c10);
            c11 = add_product(left1, right1, c11);
            c12 = add_product(left1, right2, c12);
            c13 = add_product(left1, right3, c13);
            let left2 = load_a(corner_a(own_row + 32u, 16u));
            c20 = add_product(left2, right0, c20);
            c21 = add_product(left2, right1, c21);
            c22 = add_product(left2, right2, c22);
            c23 = add_product(left2, right3, c23);
            let left3 = load_a(corner_a(own_row + 48u, 16u));
            c30 = add_product(left3, right0, c30);
            c31 = add_product(left3, right1, c31);
            c32 = add_product(left3, right2, c32);
            c33 = add_product(left3, right3, c33);
        }
        workgroupBarrier();
    }

    let r = row + own_row;
    let c = column + own_column;
    if row + DOWN <= params.m {
        store_whole(c00, first_c, r, c);
        store_whole(c01, first_c, r, c + 16u);
        store_whole(c02, first_c, r, c + 32u);
        store_whole(c03, first_c, r, c + 48u);
        store_whole(c10, first_c, r + 16u, c);
        store_whole(c11, first_c, r + 16u, c + 16u);
        store_whole(c12, first_c, r + 16u, c + 32u);
        store_whole(c13, first_c, r + 16u, c + 48u);
        store_whole(c20, first_c, r + 32u, c);
        store_whole(c21, first_c, r + 32u, c + 16u);
        store_whole(c22, first_c, r + 32u, c + 32u);
        store_whole(c23, first_c, r + 32u, c + 48u);
        store_whole(c30, first_c, r + 48u, c);
        store_whole(c31, first_c, r + 48u, c + 16u);
        store_whole(c32, first_c, r + 48u, c + 32u);
        store_whole(c33, first_c, r + 48u, c + 48u);
    } else {
        store_edge(c00, lane, first_c, r, c);
        store_edge(c01, lane, first_c, r, c + 16u);
        store_edge(c02, lane, first_c, r, c + 32u);
        store_edge(c03, lane, first_c, r, c + 48u);
        store_edge(c10, lane, first_c, r + 16u, c);
        store_edge(c11, lane, first_c, r + 16u, c + 16u);
        store_edge(c12, lane, first_c, r + 16u, c + 32u);
        store_edge(c13, lane, first_c, r + 16u, c + 48u);
        store_edge(c20, lane, first_c, r + 32u, c);
        store_edge(c21, lane, first_c, r + 32u, c + 16u);
        store_edge(c22, lane, first_c, r + 32u, c + 32u);
        store_edge(c23, lane, first_c, r + 32u, c + 48u);
        store_edge(c30, lane, first_c, r + 48u, c);
        store_edge(c31, lane, first_c, r + 48u, c + 16u);
        store_edge(c32, lane, first_c, r + 48u, c + 32u);
        store_edge(c33, lane, first_c, r + 48u, c + 48u);
    }
}
