
// Products of matrices of f16, summed in f32: C [M, N] = A [M, K] B [K, N], for each of many samples and heads. Either matrix may be stored
// turned, A as [K, M] and B as [N, K], so that a layer's forward and backward passes read the same tensors without copies. `Stored`, four
// values as they lie in memory, and what a subgroup does with 16 x 16 of them is written before this (product/matrices.wgsl, or
// product/emulated.wgsl for tests); so is where C goes (product/store.wgsl as it is, product/finish.wgsl through one of product/endings).
//
// A workgroup makes 256 x 128 values of C from slices of 32 along K, which lie in workgroup memory: while one is multiplied, the next is on
// its way through registers. Each of its eight subgroups of 32 lanes makes 64 x 64 of them. K may be cut into `splits` parts with a C each,
// which somebody else adds up. Where C has few columns a workgroup makes 256 x 64 values, 32 x 64 in a subgroup, with half of the registers.

// Whether C has few columns.
override TALL: bool;

@group(0) @binding(1) var<storage, read_write> left: array<Stored>;
@group(0) @binding(2) var<storage, read_write> right: array<Stored>;

const LANES = 256u;
// Rows of C that a workgroup makes, the most columns, and values along K that it takes at a time.
const DOWN = 256u;
const MOST_ACROSS = 128u;
const DEPTH = 32u;
// Eights of values in a row of a tile: along K, and across in A.
const EIGHTS = DEPTH / 8u;
const EIGHTS_A = DOWN / 8u;
// Fours from one row of a tile to the next: two more than are used, so that eight rows lie in different banks of memory.
const NARROW = DEPTH / 4u + 2u;
const WIDE_A = DOWN / 4u + 2u;
const WIDE_B = MOST_ACROSS / 4u + 2u;

// Tiles in fours, with a row for each of DOWN or the columns, or where K is the stored row, a (shorter) tile with a row for each of DEPTH.
var<workgroup> tile_a: array<Stored, 2560>;
var<workgroup> tile_b: array<Stored, 1280>;
// For matrices that are emulated.
var<private> lane_of_subgroup: u32;

// Eight values as they lie in memory.
struct Pair {
    x: Stored,
    y: Stored,
}

// What a lane brings of a slice: four eights of A and two of B, or the first one.
struct Eights {
    a0: Pair,
    a1: Pair,
    a2: Pair,
    a3: Pair,
    b0: Pair,
    b1: Pair,
}

// Of each of a lane's eights: its distance along K, its column if it is of B, and, in fours, where it begins in the tile and, for the
// beginning of K, in memory.
struct Places {
    along_a: vec4<u32>,
    along_b: vec2<u32>,
    column_b: vec2<u32>,
    tile_a: vec4<u32>,
    tile_b: vec2<u32>,
    at_a: vec4<u32>,
    at_b: vec2<u32>,
    // Where K ends, and the last distances along it at which eights begin.
    k_end: u32,
    last_a: u32,
    last_b: u32,
}

// The 64 x 64 values of C that a subgroup makes, or the first 32 rows.
var<private> c00: FragmentC;
var<private> c01: FragmentC;
var<private> c02: FragmentC;
var<private> c03: FragmentC;
var<private> c10: FragmentC;
var<private> c11: FragmentC;
var<private> c12: FragmentC;
var<private> c13: FragmentC;
var<private> c20: FragmentC;
var<private> c21: FragmentC;
var<private> c22: FragmentC;
var<private> c23: FragmentC;
var<private> c30: FragmentC;
var<private> c31: FragmentC;
var<private> c32: FragmentC;
var<private> c33: FragmentC;

fn left_pair(at: u32) -> Pair {
    return Pair(left[at], left[at + 1u]);
}

fn right_pair(at: u32) -> Pair {
    return Pair(right[at], right[at + 1u]);
}

// Columns of C that a workgroup makes.
fn columns_across() -> u32 {
    return select(MOST_ACROSS, 64u, TALL);
}

// Rows that a subgroup makes.
fn rows_each() -> u32 {
    return select(64u, 32u, TALL);
}

// The eights of the slice at `k`. Beyond the last ones these are read once more: a condition around a load keeps drivers from having many
// of them under way.
fn fetch(places: Places, k: u32) -> Eights {
    let along_a = min(k + places.along_a, vec4<u32>(places.last_a));
    let along_b = min(k + places.along_b, vec2<u32>(places.last_b));
    let a = places.at_a + select(along_a / 4u, along_a * params.row_a / 4u, TURN_A);
    let b = places.at_b + select(along_b * params.row_b / 4u, along_b / 4u, TURN_B);
    var eights = Eights(left_pair(a.x), left_pair(a.y), left_pair(a.z), left_pair(a.w), right_pair(b.x), Pair());
    if !TALL {
        eights.b1 = right_pair(b.y);
    }
    return eights;
}

fn zero_unless(present: bool, pair: Pair) -> Pair {
    if present {
        return pair;
    }
    return Pair();
}

// With zero for what lies behind the end of K, and for columns of B from N on. Rows of A from M on do not matter: those of C are not
// written.
fn cut(eights: Eights, places: Places, k: u32) -> Eights {
    let a = k + places.along_a < vec4<u32>(places.k_end);
    let b = (k + places.along_b < vec2<u32>(places.k_end)) & (places.column_b < vec2<u32>(params.n));
    return Eights(
        zero_unless(a.x, eights.a0),
        zero_unless(a.y, eights.a1),
        zero_unless(a.z, eights.a2),
        zero_unless(a.w, eights.a3),
        zero_unless(b.x, eights.b0),
        zero_unless(b.y, eights.b1),
    );
}

fn put_a(at: u32, pair: Pair) {
    tile_a[at] = pair.x;
    tile_a[at + 1u] = pair.y;
}

fn put_b(at: u32, pair: Pair) {
    tile_b[at] = pair.x;
    tile_b[at + 1u] = pair.y;
}

fn put(eights: Eights, places: Places) {
    put_a(places.tile_a.x, eights.a0);
    put_a(places.tile_a.y, eights.a1);
    put_a(places.tile_a.z, eights.a2);
    put_a(places.tile_a.w, eights.a3);
    put_b(places.tile_b.x, eights.b0);
    if !TALL {
        put_b(places.tile_b.y, eights.b1);
    }
}

// Where 16 x 16 values begin in a tile, `across` and `k` from its corner.
fn corner_a(across: u32, k: u32) -> u32 {
    return select(across * NARROW + k / 4u, k * WIDE_A + across / 4u, TURN_A);
}

fn corner_b(across: u32, k: u32) -> u32 {
    return select(k * WIDE_B + across / 4u, across * NARROW + k / 4u, TURN_B);
}

// Adds the product of 16 values along K of the slice in the tiles, from `k` on, to the subgroup's part of C from `row` and `column` on.
fn multiply(row: u32, column: u32, k: u32) {
    let right0 = load_b(corner_b(column, k));
    let right1 = load_b(corner_b(column + 16u, k));
    let right2 = load_b(corner_b(column + 32u, k));
    let right3 = load_b(corner_b(column + 48u, k));
    let left0 = load_a(corner_a(row, k));
    c00 = add_product(left0, right0, c00);
    c01 = add_product(left0, right1, c01);
    c02 = add_product(left0, right2, c02);
    c03 = add_product(left0, right3, c03);
    let left1 = load_a(corner_a(row + 16u, k));
    c10 = add_product(left1, right0, c10);
    c11 = add_product(left1, right1, c11);
    c12 = add_product(left1, right2, c12);
    c13 = add_product(left1, right3, c13);
    if TALL {
        return;
    }
    let left2 = load_a(corner_a(row + 32u, k));
    c20 = add_product(left2, right0, c20);
    c21 = add_product(left2, right1, c21);
    c22 = add_product(left2, right2, c22);
    c23 = add_product(left2, right3, c23);
    let left3 = load_a(corner_a(row + 48u, k));
    c30 = add_product(left3, right0, c30);
    c31 = add_product(left3, right1, c31);
    c32 = add_product(left3, right2, c32);
    c33 = add_product(left3, right3, c33);
}

@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    lane_of_subgroup = lane % 32u;
    let wide = columns_across();
    let across = (params.columns + wide - 1u) / wide;
    let down = (params.m + DOWN - 1u) / DOWN;
    let column = group % across * wide;
    let row = group / across % down * DOWN;
    let part = group / (across * down) % params.splits;
    let matrix = group / (across * down * params.splits);
    let head = matrix % params.heads;
    let sample = matrix / params.heads;
    let first_a = params.base.x / STORED_BYTES * 4u + params.first_a + sample * params.sample_a + head * params.head_a;
    let first_b = params.base.y / STORED_BYTES * 4u + params.first_b + sample * params.sample_b + head * params.head_b;
    let first_c = params.first_c + sample * params.sample_c + head * params.head_c + part * params.split_c;
    let k_begin = part * params.k_each;
    let k_end = min(k_begin + params.k_each, params.k);

    var places: Places;
    places.k_end = k_end;
    let steps = vec4<u32>(0u, 1u, 2u, 3u);
    if TURN_A {
        places.along_a = lane / EIGHTS_A + LANES / EIGHTS_A * steps;
        places.tile_a = places.along_a * WIDE_A + lane % EIGHTS_A * 2u;
        places.at_a = vec4<u32>((first_a + min(row + lane % EIGHTS_A * 8u, (params.m - 1u) / 8u * 8u)) / 4u);
        places.last_a = k_end - 1u;
    } else {
        let down_a = lane / EIGHTS + LANES / EIGHTS * steps;
        places.along_a = vec4<u32>(lane % EIGHTS * 8u);
        places.tile_a = down_a * NARROW + lane % EIGHTS * 2u;
        places.at_a = (first_a + min(row + down_a, vec4<u32>(params.m - 1u)) * params.row_a) / 4u;
        places.last_a = (k_end - 1u) / 8u * 8u;
    }
    if TURN_B {
        let across_b = lane / EIGHTS + LANES / EIGHTS * steps.xy;
        places.along_b = vec2<u32>(lane % EIGHTS * 8u);
        places.column_b = column + across_b;
        places.tile_b = across_b * NARROW + lane % EIGHTS * 2u;
        places.at_b = (first_b + min(places.column_b, vec2<u32>(params.n - 1u)) * params.row_b) / 4u;
        places.last_b = (k_end - 1u) / 8u * 8u;
    } else {
        let eights_b = wide / 8u;
        places.along_b = lane / eights_b + LANES / eights_b * steps.xy;
        places.column_b = vec2<u32>(column + lane % eights_b * 8u);
        places.tile_b = places.along_b * WIDE_B + lane % eights_b * 2u;
        places.at_b = (first_b + min(places.column_b, vec2<u32>((params.n - 1u) / 8u * 8u))) / 4u;
        places.last_b = k_end - 1u;
    }
    let subgroup = lane / 32u;
    let own_row = select(subgroup / 2u, subgroup, TALL) * rows_each();
    let own_column = select(subgroup % 2u * 64u, 0u, TALL);
    // Many a subgroup of the last rows has none where there are few.
    let works = !TALL || row + own_row < params.m;

    var eights = fetch(places, k_begin);
    for (var k = k_begin; k < k_end; k += DEPTH) {
        if column + wide > params.n || k + DEPTH > k_end {
            eights = cut(eights, places, k);
        }
        put(eights, places);
        workgroupBarrier();
        eights = fetch(places, k + DEPTH);
        if works {
            multiply(own_row, own_column, 0u);
            multiply(own_row, own_column, 16u);
        }
        workgroupBarrier();
    }
    deliver(lane, first_c, row, row + own_row, column + own_column);
}
