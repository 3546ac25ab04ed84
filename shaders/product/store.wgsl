// Writes C as it is. Cooperative matrices go straight to memory, except rows beyond M, which must not be written.

// Values from one row of `scratch` to the next.
const SCRATCH_ROW = 16u;

// 16 x 16 values of each subgroup.
var<workgroup> scratch: array<f32, 2048>;

fn store(c: FragmentC, first: u32, row: u32, column: u32) {
    if row + 16u <= params.m && column < params.columns {
        store_sums(c, first + row * params.row_c + column);
    }
}

// Writes what is below M of one of four times 16 x 16 values, of which the first begins at `row`. All lanes of the workgroup come here
// together; those that do not have these rows only wait.
fn store_edge(c0: FragmentC, c1: FragmentC, c2: FragmentC, c3: FragmentC, lane: u32, first: u32, row: u32, column: u32) {
    let place = lane / 32u * 256u;
    let edge = params.m / 16u * 16u;
    let present = edge >= row && edge < row + rows_each();
    let index = (edge - row) / 16u;
    if present && index == 0u {
        store_scratch(c0, place);
    }
    if present && index == 1u {
        store_scratch(c1, place);
    }
    if present && index == 2u {
        store_scratch(c2, place);
    }
    if present && index == 3u {
        store_scratch(c3, place);
    }
    workgroupBarrier();
    if present {
        for (var i = lane % 32u; i < 256u; i += 32u) {
            let at = vec2<u32>(edge + i / 16u, column + i % 16u);
            if at.x < params.m && at.y < params.columns {
                sums[first + at.x * params.row_c + at.y] = scratch[place + i];
            }
        }
    }
    workgroupBarrier();
}

// Writes the values of a workgroup, of which the first row is `first_row`, and those of a subgroup begin at `row` and `column`.
fn deliver(lane: u32, first_c: u32, first_row: u32, row: u32, column: u32) {
    let first = params.base.z / 4u + first_c;
    store(c00, first, row, column);
    store(c01, first, row, column + 16u);
    store(c02, first, row, column + 32u);
    store(c03, first, row, column + 48u);
    store(c10, first, row + 16u, column);
    store(c11, first, row + 16u, column + 16u);
    store(c12, first, row + 16u, column + 32u);
    store(c13, first, row + 16u, column + 48u);
    if !TALL {
        store(c20, first, row + 32u, column);
        store(c21, first, row + 32u, column + 16u);
        store(c22, first, row + 32u, column + 32u);
        store(c23, first, row + 32u, column + 48u);
        store(c30, first, row + 48u, column);
        store(c31, first, row + 48u, column + 16u);
        store(c32, first, row + 48u, column + 32u);
        store(c33, first, row + 48u, column + 48u);
    }
    if params.m % 16u != 0u && first_row + DOWN > params.m {
        store_edge(c00, c10, c20, c30, lane, first, row, column);
        store_edge(c01, c11, c21, c31, lane, first, row, column + 16u);
        store_edge(c02, c12, c22, c32, lane, first, row, column + 32u);
        store_edge(c03, c13, c23, c33, lane, first, row, column + 48u);
    }
}
