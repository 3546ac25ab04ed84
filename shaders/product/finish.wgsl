// Hands C to `finish` (product/endings) by fours, with what is known of each of them beforehand (`Before`). What a lane holds of a
// cooperative matrix is the driver's secret, so values go through workgroup memory.

// Values from one row of `scratch` to the next.
const SCRATCH_ROW = WIDE_SCRATCH;

// 16 x 32 values of each subgroup.
var<workgroup> scratch: array<f32, 128u * WIDE_SCRATCH>;

// What is known beforehand of a lane's fours of 16 x 32 values, which lie four rows apart.
struct Known {
    first: Before,
    second: Before,
    third: Before,
    fourth: Before,
}

// Where the first of a lane's fours lies in 16 x 32 values.
fn own(lane: u32) -> vec2<u32> {
    return vec2<u32>(lane % 32u / 8u, lane % 8u * 4u);
}

// What lies behind the last row or column is read from there: a condition around a load keeps drivers from having many of them under way.
fn known_at(first: u32, row: u32, column: u32) -> Before {
    return known(first + min(row, params.m - 1u) * params.row_c + min(column, params.columns - 4u));
}

// Of the values from `row` and `column` on.
fn known_of(lane: u32, first: u32, row: u32, column: u32) -> Known {
    let at = vec2<u32>(row, column) + own(lane);
    return Known(
        known_at(first, at.x, at.y),
        known_at(first, at.x + 4u, at.y),
        known_at(first, at.x + 8u, at.y),
        known_at(first, at.x + 12u, at.y),
    );
}

// The four in `scratch`, of C at a row and column.
fn finish_four(four: u32, first: u32, row: u32, column: u32, before: Before) {
    if row < params.m && column < params.columns {
        let values = vec4<f32>(scratch[four], scratch[four + 1u], scratch[four + 2u], scratch[four + 3u]);
        finish(first + row * params.row_c + column, column, values, before);
    }
}

// All lanes of the workgroup come here together.
fn finish_two(left_half: FragmentC, right_half: FragmentC, lane: u32, first: u32, row: u32, column: u32, before: Known) {
    let place = lane / 32u * (16u * SCRATCH_ROW);
    store_scratch(left_half, place);
    store_scratch(right_half, place + 16u);
    workgroupBarrier();
    let at = vec2<u32>(row, column) + own(lane);
    let four = place + own(lane).x * SCRATCH_ROW + own(lane).y;
    finish_four(four, first, at.x, at.y, before.first);
    finish_four(four + 4u * SCRATCH_ROW, first, at.x + 4u, at.y, before.second);
    finish_four(four + 8u * SCRATCH_ROW, first, at.x + 8u, at.y, before.third);
    finish_four(four + 12u * SCRATCH_ROW, first, at.x + 12u, at.y, before.fourth);
    workgroupBarrier();
}

// The values of a workgroup, of which those of a subgroup begin at `row` and `column`. What is known of the next ones is on its way while
// some are finished.
fn deliver(lane: u32, first_c: u32, first_row: u32, row: u32, column: u32) {
    let before0 = known_of(lane, first_c, row, column);
    let before1 = known_of(lane, first_c, row, column + 32u);
    finish_two(c00, c01, lane, first_c, row, column, before0);
    let before2 = known_of(lane, first_c, row + 16u, column);
    finish_two(c02, c03, lane, first_c, row, column + 32u, before1);
    let before3 = known_of(lane, first_c, row + 16u, column + 32u);
    finish_two(c10, c11, lane, first_c, row + 16u, column, before2);
    if TALL {
        finish_two(c12, c13, lane, first_c, row + 16u, column + 32u, before3);
        return;
    }
    let before4 = known_of(lane, first_c, row + 32u, column);
    finish_two(c12, c13, lane, first_c, row + 16u, column + 32u, before3);
    let before5 = known_of(lane, first_c, row + 32u, column + 32u);
    finish_two(c20, c21, lane, first_c, row + 32u, column, before4);
    let before6 = known_of(lane, first_c, row + 48u, column);
    finish_two(c22, c23, lane, first_c, row + 32u, column + 32u, before5);
    let before7 = known_of(lane, first_c, row + 48u, column + 32u);
    finish_two(c30, c31, lane, first_c, row + 48u, column, before6);
    finish_two(c32, c33, lane, first_c, row + 48u, column + 32u, before7);
}
