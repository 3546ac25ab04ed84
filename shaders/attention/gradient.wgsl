// The gradient of attention: what shaders/attention.wgsl, which stands before this, says of it.

// Weights as attention has left them, and, as they lie, the gradients of scores; that of queries.
@group(0) @binding(4) var<storage, read_write> known_weights: array<Stored>;
@group(0) @binding(5) var<storage, read_write> of_scores: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> of_queries: array<vec4<u32>>;

// What a lane brings to `shares`, where each row has four eights.
struct Quarters {
    first: Pair,
    second: Pair,
    third: Pair,
    fourth: Pair,
}

// The weights of the workgroup's rows for the tile at `key`: what a lane brings to `shares`.
fn fetch_weights(place: Place, key: u32) -> Quarters {
    return Quarters(weights_pair(place, key, 0u), weights_pair(place, key, 1u), weights_pair(place, key, 2u), weights_pair(place, key, 3u));
}

// Behind the last row and column these are read once more.
fn weights_pair(place: Place, key: u32, quarter: u32) -> Pair {
    let eight = place.lane + quarter * LANES;
    let row = min(place.row - place.lane + eight / EIGHTS, params.queries - 1u);
    let column = min(key + eight % EIGHTS * 8u, params.columns - 8u);
    let matrix = place.sample * params.heads + place.head;
    let at = params.base.w / 8u + ((matrix * params.queries + row) * params.columns + column) / 4u;
    return Pair(known_weights[at], known_weights[at + 1u]);
}

// With zero behind the last columns, where keys are zero, too, but what is read may not be a number.
fn put_weights(quarters: Quarters, lane: u32, key: u32) {
    let present = key + lane % EIGHTS * 8u < params.columns;
    put_eight(zero_unless(present, quarters.first), lane);
    put_eight(zero_unless(present, quarters.second), lane + LANES);
    put_eight(zero_unless(present, quarters.third), lane + 2u * LANES);
    put_eight(zero_unless(present, quarters.fourth), lane + 3u * LANES);
}

// The lane's four slopes from `four` on.
fn slopes_at(place: Place, four: u32) -> vec4<f32> {
    let row = min(place.row, params.queries - 1u);
    let first = params.first_left + place.sample * params.sample_left + place.head * WIDTH + row * params.row_left;
    return values_of(left[params.base.x / 8u + first / 4u + four]);
}

// The lane's four weights of the keys from `key` on. Behind the last columns these are read once more.
fn weights_at(place: Place, key: u32) -> vec4<f32> {
    return values_of(known_weights[params.base.w / 8u + place.weights + min(key, params.columns - 4u) / 4u]);
}

fn weights_row(place: Place, key: u32) -> Row {
    return Row(
        mat4x4<f32>(weights_at(place, key), weights_at(place, key + 4u), weights_at(place, key + 8u), weights_at(place, key + 12u)),
        mat4x4<f32>(weights_at(place, key + 16u), weights_at(place, key + 20u), weights_at(place, key + 24u), weights_at(place, key + 28u)),
    );
}

// The gradient of the scores that lie in the lane's `four` of `scratch` as those of weights.
fn of_four_scores(place: Place, key: u32, four: u32, weight: vec4<f32>, mean: f32) -> vec4<f32> {
    return select(vec4<f32>(), params.scale * weight * (own(place, four) - vec4<f32>(mean)), exist(key + four * 4u));
}

// The gradients of the lane's scores of the tile's keys from the eight `eight` on; columns behind the last ones are not written.
fn keep_gradients(place: Place, key: u32, eight: u32, x: vec4<f32>, y: vec4<f32>, mean: f32) {
    let first = eight * 2u;
    let values = rounded_eight(of_four_scores(place, key, first, x, mean), of_four_scores(place, key, first + 1u, y, mean));
    put_shares(place, eight, values);
    if place.present && key + eight * 8u < params.columns {
        of_scores[params.base_of_fifth / 16u + place.weights / 2u + key / 8u + eight] = values;
    }
}

@compute @workgroup_size(128)
fn attention_gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    lane_of_subgroup = lane % 32u;
    let place = place_of(group, lane);

    var next = fetch_right(place, 0u);
    var next_weights = fetch_weights(place, 0u);
    for (var key = 0u; key < params.keys; key += ACROSS) {
        put(cut(next, lane, key), lane, GATHERED);
        put_weights(next_weights, lane, key);
        workgroupBarrier();
        next = fetch_right(place, key + ACROSS);
        next_weights = fetch_weights(place, key + ACROSS);
        if place.works {
            gather(place);
        }
        workgroupBarrier();
    }
    // The mean of the gradients of weights, by weights.
    var mean = 0.0;
    for (var part = 0u; part * 32u < WIDTH; part++) {
        store_total(place, part);
        workgroupBarrier();
        for (var four = 0u; four < 8u && part * 32u + four * 4u < WIDTH; four++) {
            mean += dot(own(place, four), slopes_at(place, part * 8u + four));
        }
        workgroupBarrier();
    }
    total00 = zero;
    total01 = zero;
    total02 = zero;
    total03 = zero;
    total10 = zero;
    total11 = zero;
    total12 = zero;
    total13 = zero;
    load_left(place);

    next = fetch_right(place, 0u);
    var gathered_next = fetch_gathered(place, 0u);
    for (var key = 0u; key < params.keys; key += ACROSS) {
        put(next, lane, RIGHT);
        workgroupBarrier();
        next = fetch_right(place, key + ACROSS);
        let row = weights_row(place, key);
        if place.works {
            multiply(place);
        }
        workgroupBarrier();
        put(cut(gathered_next, lane, key), lane, GATHERED);
        gathered_next = fetch_gathered(place, key + ACROSS);
        keep_gradients(place, key, 0u, row.x[0], row.x[1], mean);
        keep_gradients(place, key, 1u, row.x[2], row.x[3], mean);
        keep_gradients(place, key, 2u, row.y[0], row.y[1], mean);
        keep_gradients(place, key, 3u, row.y[2], row.y[3], mean);
        workgroupBarrier();
        if place.works {
            gather(place);
        }
    }
    for (var part = 0u; part * 32u < WIDTH; part++) {
        store_total(place, part);
        workgroupBarrier();
        if place.present {
            for (var eight = 0u; eight < EIGHTS && part * 32u + eight * 8u < WIDTH; eight++) {
                of_queries[result_at(place, params.base_of_sixth) + part * EIGHTS + eight] = own_eight(place, eight);
            }
        }
        workgroupBarrier();
    }
}
