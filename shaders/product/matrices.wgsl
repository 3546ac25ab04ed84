enable f16;
enable wgpu_cooperative_matrix;

// What shaders/product.wgsl computes with, on devices with cooperative matrices: the 32 lanes of a subgroup hold 16 x 16 values together.

@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

alias Stored = vec4<f16>;
const STORED_BYTES = 8u;
// Values from one row of 32 to the next in `scratch`: four more than are used, so that rows begin in different banks of memory.
const WIDE_SCRATCH = 36u;
alias FragmentA = coop_mat16x16<f16, A>;
alias FragmentB = coop_mat16x16<f16, B>;
alias FragmentC = coop_mat16x16<f32, C>;

fn load_a(place: u32) -> FragmentA {
    if TURN_A {
        return coopLoad<FragmentA>(&tile_a[place], WIDE_A);
    }
    return coopLoadT<FragmentA>(&tile_a[place], NARROW);
}

fn load_b(place: u32) -> FragmentB {
    if TURN_B {
        return coopLoad<FragmentB>(&tile_b[place], NARROW);
    }
    return coopLoadT<FragmentB>(&tile_b[place], WIDE_B);
}

fn add_product(a: FragmentA, b: FragmentB, c: FragmentC) -> FragmentC {
    return coopMultiplyAdd(a, b, c);
}

fn store_sums(c: FragmentC, place: u32) {
    let row = params.row_c;
    coopStoreT(c, &sums[place], row);
}

fn store_scratch(c: FragmentC, place: u32) {
    coopStoreT(c, &scratch[place], SCRATCH_ROW);
}
