// The gradient of attention: what shaders/attention.wgsl, which stands before this, says of it.

// Weights as attention has left them, and, as they lie, the gradients of scores.
@group(0) @binding(4) var<storage, read_write> known_weights: array<Stored>;
@group(0) @binding(6) var<storage, read_write> of_scores: array<Stored>;

// The weights of the workgroup's rows for the tile at `key`.
fn fetch_weights(place: Place, key: u32) -> Quarters {
    let eight = place.lane;
    return Quarters(
        weights_pair(place, key, eight),
        weights_pair(place, key, eight + LANES),
        weights_pair(place, key, eight + 2u * LANES),
        weights_pair(place, key, eight + 3u * LANES),
    );
}

// Behind the last row and column these are read once more.
fn weights_pair(place: Place, key: u32, eight: u32) -> Pair {
    let row = min(place.top + eight / EIGHTS, params.queries - 1u);
    let column = min(key + eight % EIGHTS * 8u, params.columns - 8u);
    let matrix = place.sample * params.heads + place.head;
    let at = params.base.w / 8u + ((matrix * params.queries + row) * params.columns + column) / 4u;
    return Pair(known_weights[at], known_weights[at + 1u]);
}

// With zero behind the last columns, where keys are zero, too, but what is read may not be a number.
fn put_weights(quarters: Quarters, lane: u32, key: u32) {
    let present = key + lane % EIGHTS * 8u < params.columns;
    put_quarters(
        Quarters(
            zero_unless(present, quarters.first),
            zero_unless(present, quarters.second),
            zero_unless(present, quarters.third),
            zero_unless(present, quarters.fourth),
        ),
        lane,
    );
}

// The lane's four slopes from `four` on.
fn slopes_at(place: Place, four: u32) -> vec4<f32> {
    let row = min(place.row, params.queries - 1u);
    let first = params.first_left + place.sample * params.sample_left + place.head * WIDTH + row * params.row_left;
    return values_of(left[params.base.x / 8u + first / 4u + four]);
}

// The gradient of the scores in the lane's `four` of `scratch` as those of weights, which are in `shares`; as they will be there, infinite
// where f16 ends.
fn of_four_scores(place: Place, four: u32, mean: f32) -> vec4<f32> {
    let weight = values_of(shares[place.lane * SHARES_ROW + four]);
    return numbers(rounded(params.scale * weight * (own(place, four) - vec4<f32>(mean))));
}

fn of_scores_row(place: Place, key: u32, mean: f32) -> Row {
    let x = mat4x4<f32>(
        of_four_scores(place, 0u, mean),
        of_four_scores(place, 1u, mean),
        of_four_scores(place, 2u, mean),
        of_four_scores(place, 3u, mean),
    );
    let y = mat4x4<f32>(
        of_four_scores(place, 4u, mean),
        of_four_scores(place, 5u, mean),
        of_four_scores(place, 6u, mean),
        of_four_scores(place, 7u, mean),
    );
    return of_keys(Row(x, y), key, 0.0);
}

// Writes an eight of the tile's gradients of scores.
fn keep_gradients(place: Place, key: u32, eight: u32) {
    if is_there(place, key, eight) {
        let pair = eight_of_shares(eight);
        let at = params.base_of_sixth / 8u + share_at(place, key, eight);
        of_scores[at] = pair.x;
        of_scores[at + 1u] = pair.y;
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
        next = fetch_right(place, following(key));
        next_weights = fetch_weights(place, following(key));
        if place.works {
            gather(place);
        }
        workgroupBarrier();
    }
    // For what comes behind it.
    let first = fetch_left(place, 0u);
    let second = fetch_left(place, 32u);
    var next_gathered = fetch_gathered(place, 0u);
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
    load_left(place, first, second);

    for (var key = 0u; key < params.keys; key += ACROSS) {
        put(next, lane, RIGHT);
        workgroupBarrier();
        // Nobody gathers by what was there any more.
        put_weights(next_weights, lane, key);
        next = fetch_right(place, following(key));
        next_weights = fetch_weights(place, following(key));
        if place.works {
            multiply(place);
        }
        workgroupBarrier();
        put(cut(next_gathered, lane, key), lane, GATHERED);
        next_gathered = fetch_gathered(place, following(key));
        if place.works {
            put_row(place, of_scores_row(place, key, mean));
        }
        workgroupBarrier();
        keep_gradients(place, key, lane);
        keep_gradients(place, key, lane + LANES);
        keep_gradients(place, key, lane + 2u * LANES);
        keep_gradients(place, key, lane + 3u * LANES);
        if place.works {
            gather(place);
        }
    }
    deliver(place);
}
