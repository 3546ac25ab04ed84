// What shaders/attention.wgsl computes with, on any device: of 16 x 16 values of A each of 32 lanes holds a row, of C eight values of a row,
// and it reads what it needs of B where that lies. For tests of everything around the matrices: no feature is needed, and rows have no gaps,
// so that all fits into the 32 kB of workgroup memory that some drivers have.

// Four values of f16.
alias Stored = vec2<u32>;
const TILE_ROW = 16u;
const SHARES_ROW = 8u;
const SCRATCH_ROW = 8u;
// A row.
alias FragmentA = mat4x4<f32>;

// The place in `tiles`.
struct FragmentB {
    place: u32,
    // There is a column for each key instead of a row.
    turned: bool,
}

struct FragmentC {
    x: vec4<f32>,
    y: vec4<f32>,
}

fn values_of(four: Stored) -> vec4<f32> {
    return numbers(four);
}

fn stored(values: vec4<f32>) -> Stored {
    return rounded(values);
}

fn own_row_of_16() -> u32 {
    return lane_of_subgroup % 16u;
}

fn own_column_of_16() -> u32 {
    return lane_of_subgroup / 16u * 8u;
}

fn load_shares(place: u32) -> FragmentA {
    let first = place + own_row_of_16() * SHARES_ROW;
    return mat4x4<f32>(
        values_of(shares[first]),
        values_of(shares[first + 1u]),
        values_of(shares[first + 2u]),
        values_of(shares[first + 3u]),
    );
}

fn load_right(place: u32) -> FragmentB {
    return FragmentB(place, true);
}

fn load_gathered(place: u32) -> FragmentB {
    return FragmentB(place, false);
}

// Four values of a row of B from `column` on.
fn four_of_b(b: FragmentB, k: u32, column: u32) -> vec4<f32> {
    if b.turned {
        let at = b.place + column * TILE_ROW + k / 4u;
        return vec4<f32>(
            values_of(tiles[at])[k % 4u],
            values_of(tiles[at + TILE_ROW])[k % 4u],
            values_of(tiles[at + 2u * TILE_ROW])[k % 4u],
            values_of(tiles[at + 3u * TILE_ROW])[k % 4u],
        );
    }
    return values_of(tiles[b.place + k * TILE_ROW + column / 4u]);
}

fn add_product(a: FragmentA, b: FragmentB, c: FragmentC) -> FragmentC {
    let column = own_column_of_16();
    var row = a;
    var total = c;
    for (var k = 0u; k < 16u; k++) {
        let value = row[k / 4u][k % 4u];
        total.x += value * four_of_b(b, k, column);
        total.y += value * four_of_b(b, k, column + 4u);
    }
    return total;
}

fn store_scratch(c: FragmentC, place: u32) {
    let first = place + own_row_of_16() * SCRATCH_ROW + own_column_of_16() / 4u;
    scratch[first] = c.x;
    scratch[first + 1u] = c.y;
}
