// Hands C to `finish` (product/endings) by fours. What a lane holds of a cooperative matrix is the driver's secret, so values go through
// workgroup memory.

// Values from one row of `scratch` to the next.
const SCRATCH_ROW = WIDE_SCRATCH;

// 16 x 32 values of each subgroup.
var<workgroup> scratch: array<f32, 128u * WIDE_SCRATCH>;

// All lanes of the workgroup come here together.
fn finish_two(left_half: FragmentC, right_half: FragmentC, lane: u32, first: u32, row: u32, column: u32) {
    let place = lane / 32u * (16u * SCRATCH_ROW);
    store_scratch(left_half, place);
    store_scratch(right_half, place + 16u);
    workgroupBarrier();
    let own = vec2<u32>(lane % 32u / 8u, lane % 8u * 4u);
    for (var i = 0u; i < 16u; i += 4u) {
        let at = vec2<u32>(row + i, column) + own;
        if at.x < params.m && at.y < params.columns {
            let four = place + (i + own.x) * SCRATCH_ROW + own.y;
            let values = vec4<f32>(scratch[four], scratch[four + 1u], scratch[four + 2u], scratch[four + 3u]);
            finish(first + at.x * params.row_c + at.y, at.y, values);
        }
    }
    workgroupBarrier();
}

// The values of a workgroup, of which those of a subgroup begin at `row` and `column`.
fn deliver(lane: u32, first_c: u32, first_row: u32, row: u32, column: u32) {
    finish_two(c00, c01, lane, first_c, row, column);
    finish_two(c02, c03, lane, first_c, row, column + 32u);
    finish_two(c10, c11, lane, first_c, row + 16u, column);
    finish_two(c12, c13, lane, first_c, row + 16u, column + 32u);
    if !TALL {
        finish_two(c20, c21, lane, first_c, row + 32u, column);
        finish_two(c22, c23, lane, first_c, row + 32u, column + 32u);
        finish_two(c30, c31, lane, first_c, row + 48u, column);
        finish_two(c32, c33, lane, first_c, row + 48u, column + 32u);
    }
}
