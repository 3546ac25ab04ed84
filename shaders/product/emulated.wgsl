// What shaders/product.wgsl computes with, on any device: of 16 x 16 values of C each of 32 lanes holds eight of a row, and reads what it needs
// of A and B where that lies. For tests of everything around the matrices, on whole numbers of 8 bits: no feature is needed, and tiles take
// half as much workgroup memory.

@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

alias Stored = u32;
const STORED_BYTES = 4u;
// Values from one row of 32 to the next in `scratch`: with more it would not fit into the 32 kB that some drivers have.
const WIDE_SCRATCH = 32u;
// The place in the tile.
alias FragmentA = u32;
alias FragmentB = u32;

struct FragmentC {
    x: vec4<f32>,
    y: vec4<f32>,
}

fn value(stored: Stored, i: u32) -> f32 {
    return f32(extractBits(bitcast<i32>(stored), i % 4u * 8u, 8u));
}

fn value_of_a(place: u32, row: u32, k: u32) -> f32 {
    if TURN_A {
        return value(tile_a[place + k * WIDE_A + row / 4u], row);
    }
    return value(tile_a[place + row * NARROW + k / 4u], k);
}

fn value_of_b(place: u32, k: u32, column: u32) -> f32 {
    if TURN_B {
        return value(tile_b[place + column * NARROW + k / 4u], k);
    }
    return value(tile_b[place + k * WIDE_B + column / 4u], column);
}

fn load_a(place: u32) -> FragmentA {
    return place;
}

fn load_b(place: u32) -> FragmentB {
    return place;
}

fn own_row_of_16() -> u32 {
    return lane_of_subgroup % 16u;
}

fn own_column_of_16() -> u32 {
    return lane_of_subgroup / 16u * 8u;
}

fn add_product(a: FragmentA, b: FragmentB, c: FragmentC) -> FragmentC {
    let column = own_column_of_16();
    var total = c;
    for (var k = 0u; k < 16u; k++) {
        let left_value = value_of_a(a, own_row_of_16(), k);
        for (var j = 0u; j < 4u; j++) {
            total.x[j] += left_value * value_of_b(b, k, column + j);
            total.y[j] += left_value * value_of_b(b, k, column + 4u + j);
        }
    }
    return total;
}

fn store_sums(c: FragmentC, place: u32) {
    let first = place + own_row_of_16() * params.row_c + own_column_of_16();
    for (var j = 0u; j < 4u; j++) {
        sums[first + j] = c.x[j];
        sums[first + 4u + j] = c.y[j];
    }
}

fn store_scratch(c: FragmentC, place: u32) {
    let first = place + own_row_of_16() * SCRATCH_ROW + own_column_of_16();
    for (var j = 0u; j < 4u; j++) {
        scratch[first + j] = c.x[j];
        scratch[first + 4u + j] = c.y[j];
    }
}
