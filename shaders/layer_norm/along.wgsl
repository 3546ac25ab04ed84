// Where shaders/layer_norm.wgsl writes the gradient of x to, on top of a residual (layer_norm/residual.wgsl), and what of their sum goes on
// along a path: times a mask's value for the sample, if there is a mask, in half precision.

// Else any buffer stands for the mask.
override MASKED: bool;

// [B]
@group(0) @binding(5) var<storage, read_write> mask: array<f32>;
// The sum, [R, D].
@group(0) @binding(6) var<storage, read_write> result: array<u32>;
// What goes on, [R, D / 2] words.
@group(0) @binding(7) var<storage, read_write> branch: array<u32>;
// A chunk's part of the gradients of gamma and beta, [G, 2, D].
@group(0) @binding(8) var<storage, read_write> chunks: array<f32>;

fn first_of_chunks() -> u32 {
    return gradient_params.eighth / 4u;
}

struct Before {
    residual: mat4x4<f32>,
    share: f32,
}

// What is known beforehand of a row.
fn known(row: u32, lane: u32, end: u32) -> Before {
    var before = Before(row_of_residual(row, lane, end), 1.0);
    if MASKED {
        before.share = mask[gradient_params.fifth / 4u + row / gradient_params.rows_each];
    }
    return before;
}

fn deliver(gradient_of_x: mat4x4<f32>, before: Before, row: u32, lane: u32, end: u32) {
    let width = gradient_params.width;
    let sum = gradient_of_x + before.residual;
    store(sum, false, gradient_params.sixth / 4u + row * width, lane, end);
    let masked = before.share * sum;
    let first = gradient_params.seventh / 4u + row * (width / 2u);
    store_branch(masked[0], first, columns(lane, 0u), end);
    if QUADS > 1u {
        store_branch(masked[1], first, columns(lane, 1u), end);
    }
    if QUADS > 2u {
        store_branch(masked[2], first, columns(lane, 2u), end);
    }
    if QUADS > 3u {
        store_branch(masked[3], first, columns(lane, 3u), end);
    }
}

fn store_branch(values: vec4<f32>, first: u32, at: vec4<u32>, end: u32) {
    if at.x < end {
        branch[first + at.x / 2u] = packed(values.xy);
    }
    if at.z < end {
        branch[first + at.z / 2u] = packed(values.zw);
    }
}
