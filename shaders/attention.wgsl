
// Scaled dot-product attention of rows of f16, and its gradient, for each of many samples and heads, without scores in memory:
//
//   attention: weights [Q, K] = softmax(scale * queries [Q, W] keys^T [W, K]), read [Q, W] = weights values [K, W]
//   attention_gradient, from the weights and `slopes` [Q, W], the gradient of what is read:
//     of_weights = slopes values^T, of_scores = scale * weights * (of_weights - row sums of weights * of_weights),
//     of_queries = of_scores keys
//
// Both are the same walk (the second one is in attention/gradient.wgsl): rows times the turned `right` (queries and keys; slopes and values)
// make a score for each key, from which comes a share for each key, by which `gathered` (values; keys) is added up. Shares go to memory, too:
// the gradients of keys and values are products over queries, which shaders/product.wgsl makes. Twin: src/kernels/reference/attention.rs.
//
// A workgroup has 128 rows, of which each of its four subgroups of 32 lanes has 32, and each lane one: what a lane holds of a cooperative
// matrix is the driver's secret, so scores go through workgroup memory to the lane that has their row. It walks over the keys twice, 32 at a
// time: what a share needs of the whole row comes first (its largest score and the sum of powers; or, since the row sums of weights *
// of_weights are those of read * slopes, what was read, in f32 again). A tile is on its way through registers while the one before is
// multiplied. The reference is FlashAttention (Dao et al., 2022), with shares kept instead of computed again for keys and values.
//
// `Stored`, four values as they lie in memory, and what a subgroup does with 16 x 16 of them is written before this (attention/matrices.wgsl,
// or attention/emulated.wgsl for tests); so are shared/halves.wgsl and product/rounding.wgsl.

// W: of a head; 16, 32, 48 or 64.
override WIDTH: u32;

const LANES = 128u;
// Rows of a workgroup, and keys at a time.
const DOWN = 128u;
const ACROSS = 32u;
// Eights of values in a row of `shares`.
const EIGHTS = ACROSS / 8u;
const LEAST = -3.4028234e38;
const LOG2_E = 1.4426950408889634;

struct Params {
    // Where the first four buffers begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Of a fifth and a sixth buffer.
    base_of_fifth: u32,
    base_of_sixth: u32,
    // Q and K, and columns of weights, which are zero from K on: K or the next multiple of 16.
    queries: u32,
    keys: u32,
    columns: u32,
    heads: u32,
    // Positive.
    scale: f32,
    // The first value, and values from one row and one sample to the next: heads lie side by side. All are multiples of eight.
    first_left: u32,
    row_left: u32,
    sample_left: u32,
    first_right: u32,
    first_gathered: u32,
    // Of both.
    row_right: u32,
    sample_right: u32,
    first_result: u32,
    row_result: u32,
    sample_result: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// attention: queries, keys, values; attention_gradient: slopes, values, keys.
@group(0) @binding(1) var<storage, read_write> left: array<Stored>;
@group(0) @binding(2) var<storage, read_write> right: array<Stored>;
@group(0) @binding(3) var<storage, read_write> gathered: array<Stored>;
// attention: [B, H, Q, columns].
@group(0) @binding(4) var<storage, read_write> weights: array<Stored>;
// What was added up, in eights. attention: what is read; attention_gradient: of queries.
@group(0) @binding(5) var<storage, read_write> result: array<vec4<u32>>;

// Where tiles of `right` and `gathered` begin in `tiles`.
const RIGHT = 0u;
const GATHERED = ACROSS * TILE_ROW;

// In fours: a row for each key, in two tiles, and for each row of the workgroup.
var<workgroup> tiles: array<Stored, 2u * ACROSS * TILE_ROW>;
var<workgroup> shares: array<Stored, DOWN * SHARES_ROW>;
// 32 columns of f32 of each row of the workgroup.
var<workgroup> scratch: array<vec4<f32>, DOWN * SCRATCH_ROW>;
// For matrices that are emulated.
var<private> lane_of_subgroup: u32;

// The 32 x WIDTH values of `left` of a subgroup.
var<private> left00: FragmentA;
var<private> left01: FragmentA;
var<private> left02: FragmentA;
var<private> left03: FragmentA;
var<private> left10: FragmentA;
var<private> left11: FragmentA;
var<private> left12: FragmentA;
var<private> left13: FragmentA;
// Its 32 x 32 scores.
var<private> scores00: FragmentC;
var<private> scores01: FragmentC;
var<private> scores10: FragmentC;
var<private> scores11: FragmentC;
// The 32 x WIDTH values that it adds up.
var<private> total00: FragmentC;
var<private> total01: FragmentC;
var<private> total02: FragmentC;
var<private> total03: FragmentC;
var<private> total10: FragmentC;
var<private> total11: FragmentC;
var<private> total12: FragmentC;
var<private> total13: FragmentC;
// Never written.
var<private> zero: FragmentC;

// A workgroup's matrix, and a lane's row of it.
struct Place {
    sample: u32,
    head: u32,
    lane: u32,
    // The workgroup's first row, and the lane's.
    top: u32,
    row: u32,
    // Whether a row of the subgroup exists, and the lane's.
    works: bool,
    present: bool,
    // In fours: where the tiles' eights of this lane begin.
    right: vec2<u32>,
    gathered: vec2<u32>,
}

// Eight values as they lie in memory.
struct Pair {
    x: Stored,
    y: Stored,
}

// What a lane brings of a tile of keys: two eights, or the first one, or none.
struct Eights {
    first: Pair,
    second: Pair,
}

// What a lane brings to `shares`, where each row has four eights.
struct Quarters {
    first: Pair,
    second: Pair,
    third: Pair,
    fourth: Pair,
}

// A lane's row of 32 columns.
struct Row {
    x: mat4x4<f32>,
    y: mat4x4<f32>,
}

fn place_of(group: u32, lane: u32) -> Place {
    let down = (params.queries + DOWN - 1u) / DOWN;
    let matrix = group / down;
    var place: Place;
    place.sample = matrix / params.heads;
    place.head = matrix % params.heads;
    place.lane = lane;
    place.top = group % down * DOWN;
    place.row = place.top + lane;
    place.works = place.row - lane % 32u < params.queries;
    place.present = place.row < params.queries;
    let first = place.sample * params.sample_right + place.head * WIDTH;
    let eights = vec2<u32>(lane, lane + LANES);
    let within = eights / (WIDTH / 8u) * params.row_right + eights % (WIDTH / 8u) * 8u;
    place.right = params.base.y / 8u + (params.first_right + first + within) / 4u;
    place.gathered = params.base.z / 8u + (params.first_gathered + first + within) / 4u;
    return place;
}

// Fours from the first key of all to that of a lane's eights of the tile at `key`. Behind the last one it is read once more: a condition
// around a load keeps drivers from having many of them under way.
fn along(lane: u32, key: u32) -> vec2<u32> {
    let own = vec2<u32>(lane, lane + LANES) / (WIDTH / 8u);
    let last = vec2<u32>(params.keys - 1u);
    // Modulo 2^32 where the last one is before a lane's own.
    return (min(own + key, last) - own) * (params.row_right / 4u);
}

// The keys of the next tile; behind the last one, the first ones: a second walk begins there.
fn following(key: u32) -> u32 {
    return select(0u, key + ACROSS, key + ACROSS < params.keys);
}

fn fetch_right(place: Place, key: u32) -> Eights {
    let at = place.right + along(place.lane, key);
    return Eights(Pair(right[at.x], right[at.x + 1u]), Pair(right[at.y], right[at.y + 1u]));
}

fn fetch_gathered(place: Place, key: u32) -> Eights {
    let at = place.gathered + along(place.lane, key);
    return Eights(Pair(gathered[at.x], gathered[at.x + 1u]), Pair(gathered[at.y], gathered[at.y + 1u]));
}

fn zero_unless(present: bool, pair: Pair) -> Pair {
    if present {
        return pair;
    }
    return Pair();
}

// With zero for keys that do not exist: their shares are zero, and zero times anything must be.
fn cut(eights: Eights, lane: u32, key: u32) -> Eights {
    let present = vec2<u32>(lane, lane + LANES) / (WIDTH / 8u) + key < vec2<u32>(params.keys);
    return Eights(zero_unless(present.x, eights.first), zero_unless(present.y, eights.second));
}

// Where a lane's n-th eight of a tile of keys goes.
fn tile_place(eight: u32) -> u32 {
    return eight / (WIDTH / 8u) * TILE_ROW + eight % (WIDTH / 8u) * 2u;
}

// Into the tile that begins at `tile`.
fn put(eights: Eights, lane: u32, tile: u32) {
    if lane < ACROSS * WIDTH / 8u {
        let at = tile + tile_place(lane);
        tiles[at] = eights.first.x;
        tiles[at + 1u] = eights.first.y;
    }
    if lane + LANES < ACROSS * WIDTH / 8u {
        let at = tile + tile_place(lane + LANES);
        tiles[at] = eights.second.x;
        tiles[at + 1u] = eights.second.y;
    }
}

// An eight of the workgroup's rows, into its place in `shares`.
fn put_eight(pair: Pair, eight: u32) {
    let to = eight / EIGHTS * SHARES_ROW + eight % EIGHTS * 2u;
    shares[to] = pair.x;
    shares[to + 1u] = pair.y;
}

fn put_quarters(quarters: Quarters, lane: u32) {
    put_eight(quarters.first, lane);
    put_eight(quarters.second, lane + LANES);
    put_eight(quarters.third, lane + 2u * LANES);
    put_eight(quarters.fourth, lane + 3u * LANES);
}

// Behind the last row and column these are read once more.
fn left_pair(place: Place, column: u32, eight: u32) -> Pair {
    let row = min(place.top + eight / EIGHTS, params.queries - 1u);
    let within = min(column + eight % EIGHTS * 8u, WIDTH - 8u);
    let first = params.first_left + place.sample * params.sample_left + place.head * WIDTH;
    let at = params.base.x / 8u + (first + row * params.row_left + within) / 4u;
    return Pair(left[at], left[at + 1u]);
}

// 32 columns of the workgroup's rows of `left` from `column` on.
fn fetch_left(place: Place, column: u32) -> Quarters {
    let eight = place.lane;
    return Quarters(
        left_pair(place, column, eight),
        left_pair(place, column, eight + LANES),
        left_pair(place, column, eight + 2u * LANES),
        left_pair(place, column, eight + 3u * LANES),
    );
}

// Where a subgroup's 16 x 16 shares begin, from its row `row` and column `column` on.
fn shares_corner(lane: u32, row: u32, column: u32) -> u32 {
    return (lane / 32u * 32u + row) * SHARES_ROW + column / 4u;
}

// Rows of `left`, of which `second` has the columns from 32 on, by way of `shares`. All lanes of the workgroup come here together.
fn load_left(place: Place, first: Quarters, second: Quarters) {
    put_quarters(first, place.lane);
    workgroupBarrier();
    left00 = load_shares(shares_corner(place.lane, 0u, 0u));
    left10 = load_shares(shares_corner(place.lane, 16u, 0u));
    if WIDTH > 16u {
        left01 = load_shares(shares_corner(place.lane, 0u, 16u));
        left11 = load_shares(shares_corner(place.lane, 16u, 16u));
    }
    workgroupBarrier();
    if WIDTH > 32u {
        put_quarters(second, place.lane);
        workgroupBarrier();
        left02 = load_shares(shares_corner(place.lane, 0u, 0u));
        left12 = load_shares(shares_corner(place.lane, 16u, 0u));
        if WIDTH > 48u {
            left03 = load_shares(shares_corner(place.lane, 0u, 16u));
            left13 = load_shares(shares_corner(place.lane, 16u, 16u));
        }
        workgroupBarrier();
    }
}

// Adds the products of 16 values along the width, from `column` on, to the subgroup's scores of the tile's keys.
fn multiply_from(column: u32, upper: FragmentA, lower: FragmentA) {
    let first = load_right(RIGHT + column / 4u);
    let second = load_right(RIGHT + 16u * TILE_ROW + column / 4u);
    scores00 = add_product(upper, first, scores00);
    scores01 = add_product(upper, second, scores01);
    scores10 = add_product(lower, first, scores10);
    scores11 = add_product(lower, second, scores11);
}

// Scores of the keys of `right`, into `scratch`.
fn multiply(place: Place) {
    scores00 = zero;
    scores01 = zero;
    scores10 = zero;
    scores11 = zero;
    multiply_from(0u, left00, left10);
    if WIDTH > 16u {
        multiply_from(16u, left01, left11);
    }
    if WIDTH > 32u {
        multiply_from(32u, left02, left12);
    }
    if WIDTH > 48u {
        multiply_from(48u, left03, left13);
    }
    store_32(place.lane, scores00, scores01, scores10, scores11);
}

// 32 x 32 values of a subgroup.
fn store_32(lane: u32, c00: FragmentC, c01: FragmentC, c10: FragmentC, c11: FragmentC) {
    let at = lane / 32u * 32u * SCRATCH_ROW;
    store_scratch(c00, at);
    store_scratch(c01, at + 4u);
    store_scratch(c10, at + 16u * SCRATCH_ROW);
    store_scratch(c11, at + 16u * SCRATCH_ROW + 4u);
}

// Adds what 16 keys of `gathered` have, from `key` of the tile on, by their shares.
fn gather_from(lane: u32, key: u32) {
    let first_four = GATHERED + key * TILE_ROW;
    let upper = load_shares(shares_corner(lane, 0u, key));
    let lower = load_shares(shares_corner(lane, 16u, key));
    let first = load_gathered(first_four);
    total00 = add_product(upper, first, total00);
    total10 = add_product(lower, first, total10);
    if WIDTH > 16u {
        let second = load_gathered(first_four + 4u);
        total01 = add_product(upper, second, total01);
        total11 = add_product(lower, second, total11);
    }
    if WIDTH > 32u {
        let third = load_gathered(first_four + 8u);
        total02 = add_product(upper, third, total02);
        total12 = add_product(lower, third, total12);
    }
    if WIDTH > 48u {
        let fourth = load_gathered(first_four + 12u);
        total03 = add_product(upper, fourth, total03);
        total13 = add_product(lower, fourth, total13);
    }
}

fn gather(place: Place) {
    gather_from(place.lane, 0u);
    gather_from(place.lane, 16u);
}

// A part of 32 columns of what was added up, into `scratch`.
fn store_total(place: Place, part: u32) {
    if part == 0u {
        store_32(place.lane, total00, total01, total10, total11);
    } else {
        store_32(place.lane, total02, total03, total12, total13);
    }
}

// The lane's four of `scratch`.
fn own(place: Place, four: u32) -> vec4<f32> {
    return scratch[place.lane * SCRATCH_ROW + four];
}

fn own_row(place: Place) -> Row {
    return Row(
        mat4x4<f32>(own(place, 0u), own(place, 1u), own(place, 2u), own(place, 3u)),
        mat4x4<f32>(own(place, 4u), own(place, 5u), own(place, 6u), own(place, 7u)),
    );
}

// Which of four keys from `key` on exist.
fn exist(key: u32) -> vec4<bool> {
    return key + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.keys);
}

fn where_exist(values: vec4<f32>, key: u32, other: f32) -> vec4<f32> {
    return select(vec4<f32>(other), values, exist(key));
}

// Values for the keys from `key` on, and something else where there is no key.
fn of_keys(row: Row, key: u32, other: f32) -> Row {
    if key + ACROSS <= params.keys {
        return row;
    }
    return Row(
        mat4x4<f32>(
            where_exist(row.x[0], key, other),
            where_exist(row.x[1], key + 4u, other),
            where_exist(row.x[2], key + 8u, other),
            where_exist(row.x[3], key + 12u, other),
        ),
        mat4x4<f32>(
            where_exist(row.y[0], key + 16u, other),
            where_exist(row.y[1], key + 20u, other),
            where_exist(row.y[2], key + 24u, other),
            where_exist(row.y[3], key + 28u, other),
        ),
    );
}

fn largest_of(row: Row) -> f32 {
    let x = max(max(row.x[0], row.x[1]), max(row.x[2], row.x[3]));
    let y = max(max(row.y[0], row.y[1]), max(row.y[2], row.y[3]));
    let both = max(x, y);
    return max(max(both.x, both.y), max(both.z, both.w));
}

// e to the power of scaled scores less the largest of all.
fn power(scores: vec4<f32>, most: f32) -> vec4<f32> {
    return exp2((scores - vec4<f32>(most)) * (params.scale * LOG2_E));
}

// The same; zero where there is no key.
fn powers(row: Row, most: f32, key: u32) -> Row {
    let x = mat4x4<f32>(power(row.x[0], most), power(row.x[1], most), power(row.x[2], most), power(row.x[3], most));
    let y = mat4x4<f32>(power(row.y[0], most), power(row.y[1], most), power(row.y[2], most), power(row.y[3], most));
    return of_keys(Row(x, y), key, 0.0);
}

fn sum_of(row: Row) -> f32 {
    let x = (row.x[0] + row.x[1]) + (row.x[2] + row.x[3]);
    let y = (row.y[0] + row.y[1]) + (row.y[2] + row.y[3]);
    let both = x + y;
    return (both.x + both.y) + (both.z + both.w);
}

// A lane's row of `shares`.
fn put_row(place: Place, row: Row) {
    let at = place.lane * SHARES_ROW;
    shares[at] = stored(row.x[0]);
    shares[at + 1u] = stored(row.x[1]);
    shares[at + 2u] = stored(row.x[2]);
    shares[at + 3u] = stored(row.x[3]);
    shares[at + 4u] = stored(row.y[0]);
    shares[at + 5u] = stored(row.y[1]);
    shares[at + 6u] = stored(row.y[2]);
    shares[at + 7u] = stored(row.y[3]);
}

// Where an eight of the tile at `key` lies in weights and their like, in fours, and whether it is there: four lanes side by side have a row.
fn share_at(place: Place, key: u32, eight: u32) -> u32 {
    let row = (place.sample * params.heads + place.head) * params.queries + place.top + eight / EIGHTS;
    return (row * params.columns + key + eight % EIGHTS * 8u) / 4u;
}

fn is_there(place: Place, key: u32, eight: u32) -> bool {
    return place.top + eight / EIGHTS < params.queries && key + eight % EIGHTS * 8u < params.columns;
}

fn eight_of_shares(eight: u32) -> Pair {
    let at = eight / EIGHTS * SHARES_ROW + eight % EIGHTS * 2u;
    return Pair(shares[at], shares[at + 1u]);
}

// Writes an eight of the tile's weights.
fn keep_weights(place: Place, key: u32, eight: u32) {
    if is_there(place, key, eight) {
        let pair = eight_of_shares(eight);
        let at = params.base.w / 8u + share_at(place, key, eight);
        weights[at] = pair.x;
        weights[at + 1u] = pair.y;
    }
}

// The lane's eight of `scratch`.
fn own_eight(place: Place, eight: u32) -> vec4<u32> {
    return vec4<u32>(rounded(own(place, eight * 2u)), rounded(own(place, eight * 2u + 1u)));
}

// Writes what was added up. All lanes of the workgroup come here together.
fn deliver(place: Place) {
    let first = params.first_result + place.sample * params.sample_result + place.head * WIDTH + place.row * params.row_result;
    let at = params.base_of_fifth / 16u + first / 8u;
    for (var part = 0u; part * 32u < WIDTH; part++) {
        store_total(place, part);
        workgroupBarrier();
        if place.present {
            for (var eight = 0u; eight < EIGHTS && part * 32u + eight * 8u < WIDTH; eight++) {
                result[at + part * EIGHTS + eight] = own_eight(place, eight);
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(128)
fn attention(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    lane_of_subgroup = lane % 32u;
    let place = place_of(group, lane);
    // All that is wanted first is asked for at once.
    let first = fetch_left(place, 0u);
    let second = fetch_left(place, 32u);
    var next = fetch_right(place, 0u);
    var next_gathered = fetch_gathered(place, 0u);
    load_left(place, first, second);

    // The largest score of the lane's row so far, and the sum of powers less that.
    var most = LEAST;
    var sum = 0.0;
    for (var key = 0u; key < params.keys; key += ACROSS) {
        put(next, lane, RIGHT);
        workgroupBarrier();
        next = fetch_right(place, following(key));
        if place.works {
            multiply(place);
        }
        workgroupBarrier();
        if place.works {
            let row = of_keys(own_row(place), key, LEAST);
            let before = most;
            most = max(most, largest_of(row));
            sum = sum * power(vec4<f32>(before), most).x + sum_of(powers(row, most, key));
        }
    }
    let share = 1.0 / sum;

    for (var key = 0u; key < params.keys; key += ACROSS) {
        put(next, lane, RIGHT);
        workgroupBarrier();
        next = fetch_right(place, following(key));
        if place.works {
            multiply(place);
        }
        workgroupBarrier();
        put(cut(next_gathered, lane, key), lane, GATHERED);
        next_gathered = fetch_gathered(place, following(key));
        if place.works {
            let row = powers(own_row(place), most, key);
            put_row(place, Row(row.x * share, row.y * share));
        }
        workgroupBarrier();
        keep_weights(place, key, lane);
        keep_weights(place, key, lane + LANES);
        keep_weights(place, key, lane + 2u * LANES);
        keep_weights(place, key, lane + 3u * LANES);
        if place.works {
            gather(place);
        }
    }
    deliver(place);
}
