// Layer norm of rows [R, D] and its gradients. Twin: src/kernels/reference/layer_norm.rs.
//
// A team of LANES threads has a row and keeps it in registers, up to four quads of values for each lane: memory is read once, the variance
// is that of centred values, and neighbouring lanes read neighbouring values. Sums have one order. A norm may be written in half precision,
// two values to a word; everything is computed in single precision. shared/halves.wgsl stands before this, and one of layer_norm/: where
// results go, and what becomes of the gradient of x.

// A power of two from 16 to 256.
override LANES: u32;
// Quads of a lane; 4 * QUADS * LANES is at least D.
override QUADS: u32;
// Whether a lane has pairs of columns side by side, of which f16 make words. norm: its result is such words instead of one f32 each.
override HALVES: bool;

const THREADS = 256u;

struct Params {
    // Where x, gamma, beta and result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // D
    width: u32,
    epsilon: f32,
}

struct GradientParams {
    // Of x, gamma, the output's gradient and the fourth buffer.
    base: vec4<u32>,
    groups: u32,
    groups_x: u32,
    // Of further buffers, if there are so many.
    fifth: u32,
    sixth: u32,
    seventh: u32,
    eighth: u32,
    width: u32,
    epsilon: f32,
    // Rows of a team.
    turns: u32,
    // Rows of a sample, if there is a mask.
    rows_each: u32,
}

struct SumParams {
    // Of the chunks' sums, and of the gradients of gamma and beta.
    base: vec4<u32>,
    groups: u32,
    groups_x: u32,
    width: u32,
    // G
    chunks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(0) var<uniform> gradient_params: GradientParams;
@group(0) @binding(0) var<uniform> sum_params: SumParams;

// [R, D]
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
// [D]
@group(0) @binding(2) var<storage, read_write> gamma: array<f32>;
// norm: [D]
@group(0) @binding(3) var<storage, read_write> beta: array<f32>;
// norm_gradients: of the output, [R, D].
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;

// norm_sums: the chunks' parts of the gradients of gamma and beta, [G, 2, D], and their sums [D].
@group(0) @binding(1) var<storage, read_write> chunk_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> of_gamma: array<f32>;
@group(0) @binding(3) var<storage, read_write> of_beta: array<f32>;

var<workgroup> shares: array<vec2<f32>, 256>;
// An eighth of the team's lanes each.
var<workgroup> eighths: array<vec2<f32>, 32>;
// A quad of every lane, team by team in the order of columns.
var<workgroup> quads: array<vec2<f32>, 1024>;

// Sum over the lanes of a team, for each of them.
fn team_sum(share: vec2<f32>, thread: u32) -> vec2<f32> {
    shares[thread] = share;
    workgroupBarrier();
    let eighth = LANES / 8u;
    let first = thread / LANES * eighth;
    if thread % LANES < eighth {
        let a = (shares[thread] + shares[thread + eighth]) + (shares[thread + 2u * eighth] + shares[thread + 3u * eighth]);
        let b = (shares[thread + 4u * eighth] + shares[thread + 5u * eighth]) + (shares[thread + 6u * eighth] + shares[thread + 7u * eighth]);
        eighths[first + thread % LANES] = a + b;
    }
    workgroupBarrier();
    var sum = vec2<f32>(0.0, 0.0);
    for (var i = 0u; i < eighth; i++) {
        sum += eighths[first + i];
    }
    return sum;
}

// The columns of a lane's quad.
fn columns(lane: u32, quad: u32) -> vec4<u32> {
    if HALVES {
        let first = 2u * lane + 4u * quad * LANES;
        return vec4<u32>(first, first + 1u, first + 2u * LANES, first + 2u * LANES + 1u);
    }
    let first = lane + 4u * quad * LANES;
    return vec4<u32>(first, first + LANES, first + 2u * LANES, first + 3u * LANES);
}

// A lane's values of the row that begins at `first`, zero beyond `width`. What is read there is not used.
fn row_of_x(first: u32, lane: u32, width: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_x(first, columns(lane, 0u), width);
    if QUADS > 1u {
        row[1] = quad_of_x(first, columns(lane, 1u), width);
    }
    if QUADS > 2u {
        row[2] = quad_of_x(first, columns(lane, 2u), width);
    }
    if QUADS > 3u {
        row[3] = quad_of_x(first, columns(lane, 3u), width);
    }
    return row;
}

fn quad_of_x(first: u32, at: vec4<u32>, width: u32) -> vec4<f32> {
    let values = vec4<f32>(x[first + at.x], x[first + at.y], x[first + at.z], x[first + at.w]);
    return select(vec4<f32>(), values, at < vec4<u32>(width));
}

fn row_of_gamma(first: u32, lane: u32, width: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_gamma(first, columns(lane, 0u), width);
    if QUADS > 1u {
        row[1] = quad_of_gamma(first, columns(lane, 1u), width);
    }
    if QUADS > 2u {
        row[2] = quad_of_gamma(first, columns(lane, 2u), width);
    }
    if QUADS > 3u {
        row[3] = quad_of_gamma(first, columns(lane, 3u), width);
    }
    return row;
}

fn quad_of_gamma(first: u32, at: vec4<u32>, width: u32) -> vec4<f32> {
    let values = vec4<f32>(gamma[first + at.x], gamma[first + at.y], gamma[first + at.z], gamma[first + at.w]);
    return select(vec4<f32>(), values, at < vec4<u32>(width));
}

fn row_of_beta(first: u32, lane: u32, width: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_beta(first, columns(lane, 0u), width);
    if QUADS > 1u {
        row[1] = quad_of_beta(first, columns(lane, 1u), width);
    }
    if QUADS > 2u {
        row[2] = quad_of_beta(first, columns(lane, 2u), width);
    }
    if QUADS > 3u {
        row[3] = quad_of_beta(first, columns(lane, 3u), width);
    }
    return row;
}

fn quad_of_beta(first: u32, at: vec4<u32>, width: u32) -> vec4<f32> {
    let values = vec4<f32>(beta[first + at.x], beta[first + at.y], beta[first + at.z], beta[first + at.w]);
    return select(vec4<f32>(), values, at < vec4<u32>(width));
}

fn row_of_gradient(first: u32, lane: u32, width: u32) -> mat4x4<f32> {
    var row = mat4x4<f32>();
    row[0] = quad_of_gradient(first, columns(lane, 0u), width);
    if QUADS > 1u {
        row[1] = quad_of_gradient(first, columns(lane, 1u), width);
    }
    if QUADS > 2u {
        row[2] = quad_of_gradient(first, columns(lane, 2u), width);
    }
    if QUADS > 3u {
        row[3] = quad_of_gradient(first, columns(lane, 3u), width);
    }
    return row;
}

fn quad_of_gradient(first: u32, at: vec4<u32>, width: u32) -> vec4<f32> {
    let values = vec4<f32>(gradient[first + at.x], gradient[first + at.y], gradient[first + at.z], gradient[first + at.w]);
    return select(vec4<f32>(), values, at < vec4<u32>(width));
}

// Of the row that begins at the word `first`, f32 or pairs of f16.
fn store(row: mat4x4<f32>, halves: bool, first: u32, lane: u32, width: u32) {
    store_quad(row[0], halves, first, columns(lane, 0u), width);
    if QUADS > 1u {
        store_quad(row[1], halves, first, columns(lane, 1u), width);
    }
    if QUADS > 2u {
        store_quad(row[2], halves, first, columns(lane, 2u), width);
    }
    if QUADS > 3u {
        store_quad(row[3], halves, first, columns(lane, 3u), width);
    }
}

fn store_quad(values: vec4<f32>, halves: bool, first: u32, at: vec4<u32>, width: u32) {
    if halves {
        if at.x < width {
            result[first + at.x / 2u] = packed(values.xy);
        }
        if at.z < width {
            result[first + at.z / 2u] = packed(values.zw);
        }
    } else {
        let bits = bitcast<vec4<u32>>(values);
        if at.x < width {
            result[first + at.x] = bits.x;
        }
        if at.y < width {
            result[first + at.y] = bits.y;
        }
        if at.z < width {
            result[first + at.z] = bits.z;
        }
        if at.w < width {
            result[first + at.w] = bits.w;
        }
    }
}

// Value by value.
fn product(a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]);
}

fn sum_of(row: mat4x4<f32>) -> f32 {
    let quad = (row[0] + row[1]) + (row[2] + row[3]);
    return (quad.x + quad.y) + (quad.z + quad.w);
}

// Values less the mean; zero beyond `width`.
fn centred_at(mean: f32, row: mat4x4<f32>, lane: u32, width: u32) -> mat4x4<f32> {
    let end = vec4<u32>(width);
    let less = vec4<f32>(mean);
    return mat4x4<f32>(
        select(vec4<f32>(), row[0] - less, columns(lane, 0u) < end),
        select(vec4<f32>(), row[1] - less, columns(lane, 1u) < end),
        select(vec4<f32>(), row[2] - less, columns(lane, 2u) < end),
        select(vec4<f32>(), row[3] - less, columns(lane, 3u) < end),
    );
}

// result = (x - mean) / deviation * gamma + beta, a row for each team.
@compute @workgroup_size(256)
fn norm(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let width = params.width;
    let lane = thread % LANES;
    let row = group * (THREADS / LANES) + thread / LANES;
    let present = row < (arrayLength(&x) - params.base.x / 4u) / width;
    let values = row_of_x(params.base.x / 4u + row * width, lane, width);
    // Before anything is stored: all buffers might be one, so a compiler may not move these up.
    let factors = row_of_gamma(params.base.y / 4u, lane, width);
    let shifts = row_of_beta(params.base.z / 4u, lane, width);
    let mean = team_sum(vec2<f32>(sum_of(values), 0.0), thread).x / f32(width);
    let centred = centred_at(mean, values, lane, width);
    let variance = team_sum(vec2<f32>(sum_of(product(centred, centred)), 0.0), thread).x / f32(width);
    let made = product(centred * inverseSqrt(variance + params.epsilon), factors) + shifts;
    let words = select(width, width / 2u, HALVES);
    store(made, HALVES, params.base.w / 4u + row * words, lane, select(0u, width, present));
}

// The gradient of x, for `deliver`, and those of gamma and beta as far as they come from this workgroup's chunk of rows.
@compute @workgroup_size(256)
fn norm_gradients(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.y * gradient_params.groups_x + workgroup.x;
    if group >= gradient_params.groups {
        return;
    }
    let width = gradient_params.width;
    let lane = thread % LANES;
    let rows = (arrayLength(&x) - gradient_params.base.x / 4u) / width;
    let factors = row_of_gamma(gradient_params.base.y / 4u, lane, width);
    var to_gamma = mat4x4<f32>();
    var to_beta = mat4x4<f32>();
    for (var turn = 0u; turn < gradient_params.turns; turn++) {
        let row = (group * gradient_params.turns + turn) * (THREADS / LANES) + thread / LANES;
        // A row that does not exist is zero and adds nothing.
        let end = select(0u, width, row < rows);
        let values = row_of_x(gradient_params.base.x / 4u + row * width, lane, end);
        let slope = row_of_gradient(gradient_params.base.z / 4u + row * width, lane, end);
        let before = known(row, lane, end);
        let scaled = product(slope, factors);
        let means = team_sum(vec2<f32>(sum_of(values), sum_of(scaled)), thread) / f32(width);
        let centred = centred_at(means.x, values, lane, end);
        let squares = vec2<f32>(sum_of(product(centred, centred)), sum_of(product(scaled, centred)));
        let moments = team_sum(squares, thread) / f32(width);
        let factor = select(0.0, inverseSqrt(moments.x + gradient_params.epsilon), row < rows);
        let normal = centred * factor;
        to_gamma += product(slope, normal);
        to_beta += slope;
        let turned = centred_at(means.y, scaled, lane, end) - normal * (factor * moments.y);
        deliver(turned * factor, before, row, lane, end);
    }
    let place = first_of_chunks() + group * 2u * width;
    store_chunk(to_gamma[0], to_beta[0], 0u, place, thread);
    if QUADS > 1u {
        store_chunk(to_gamma[1], to_beta[1], 1u, place, thread);
    }
    if QUADS > 2u {
        store_chunk(to_gamma[2], to_beta[2], 2u, place, thread);
    }
    if QUADS > 3u {
        store_chunk(to_gamma[3], to_beta[3], 3u, place, thread);
    }
}

// Sums over teams of one quad of each lane, to the columns that it has.
fn store_chunk(to_gamma: vec4<f32>, to_beta: vec4<f32>, quad: u32, place: u32, thread: u32) {
    let width = gradient_params.width;
    let at = thread / LANES * 4u * LANES + columns(thread % LANES, 0u);
    workgroupBarrier();
    quads[at.x] = vec2<f32>(to_gamma.x, to_beta.x);
    quads[at.y] = vec2<f32>(to_gamma.y, to_beta.y);
    quads[at.z] = vec2<f32>(to_gamma.z, to_beta.z);
    quads[at.w] = vec2<f32>(to_gamma.w, to_beta.w);
    workgroupBarrier();
    for (var i = thread; i < 4u * LANES; i += THREADS) {
        let column = quad * 4u * LANES + i;
        if column < width {
            var sum = vec2<f32>(0.0, 0.0);
            for (var j = i; j < 4u * THREADS; j += 4u * LANES) {
                sum += quads[j];
            }
            chunks[place + column] = sum.x;
            chunks[place + width + column] = sum.y;
        }
    }
}

// Columns of a workgroup of norm_sums, and threads for each.
const COLUMNS = 16u;
const SLICES = 16u;

// Sums of the chunks' parts.
@compute @workgroup_size(256)
fn norm_sums(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.y * sum_params.groups_x + workgroup.x;
    if group >= sum_params.groups {
        return;
    }
    let width = sum_params.width;
    let column = group * COLUMNS + thread % COLUMNS;
    let step = SLICES * 2u * width;
    var sum = 0.0;
    // Four loads before their sum; what does not exist is not added.
    for (var chunk = thread / COLUMNS; chunk < sum_params.chunks; chunk += 4u * SLICES) {
        let place = sum_params.base.x / 4u + chunk * 2u * width + column;
        let parts = vec4<f32>(chunk_sums[place], chunk_sums[place + step], chunk_sums[place + 2u * step], chunk_sums[place + 3u * step]);
        let each = vec4<u32>(chunk, chunk + SLICES, chunk + 2u * SLICES, chunk + 3u * SLICES);
        let real = select(vec4<f32>(), parts, each < vec4<u32>(sum_params.chunks));
        sum += (real.x + real.y) + (real.z + real.w);
    }
    shares[thread] = vec2<f32>(sum, 0.0);
    workgroupBarrier();
    if thread < COLUMNS && column < 2u * width {
        var total = 0.0;
        for (var slice = 0u; slice < SLICES; slice++) {
            total += shares[slice * COLUMNS + thread].x;
        }
        if column < width {
            of_gamma[sum_params.base.y / 4u + column] = total;
        } else {
            of_beta[sum_params.base.z / 4u + column - width] = total;
        }
    }
}
