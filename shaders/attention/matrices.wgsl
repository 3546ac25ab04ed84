enable f16;
enable wgpu_cooperative_matrix;

// What shaders/attention.wgsl computes with, on devices with cooperative matrices: the 32 lanes of a subgroup hold 16 x 16 values together.

alias Stored = vec4<f16>;
// Fours from one row to the next of a tile of keys, of shares and, of f32, of `scratch`: more than are used, so that rows begin in different
// banks of memory.
const TILE_ROW = 18u;
const SHARES_ROW = 10u;
const SCRATCH_ROW = 9u;
alias FragmentA = coop_mat16x16<f16, A>;
alias FragmentB = coop_mat16x16<f16, B>;
alias FragmentC = coop_mat16x16<f32, C>;

fn values_of(four: Stored) -> vec4<f32> {
    return vec4<f32>(four);
}

fn stored(values: vec4<f32>) -> Stored {
    return vec4<f16>(values);
}

fn load_shares(place: u32) -> FragmentA {
    return coopLoadT<FragmentA>(&shares[place], SHARES_ROW);
}

// Turned: a column for each key.
fn load_right(place: u32) -> FragmentB {
    return coopLoad<FragmentB>(&tiles[place], TILE_ROW);
}

fn load_gathered(place: u32) -> FragmentB {
    return coopLoadT<FragmentB>(&tiles[place], TILE_ROW);
}

fn add_product(a: FragmentA, b: FragmentB, c: FragmentC) -> FragmentC {
    return coopMultiplyAdd(a, b, c);
}

fn store_scratch(c: FragmentC, place: u32) {
    coopStoreT(c, &scratch[place], SCRATCH_ROW);
}
