// Where shaders/layer_norm.wgsl writes the gradient of x to, on top of a residual (layer_norm/residual.wgsl).

// Their sum, [R, D].
@group(0) @binding(5) var<storage, read_write> result: array<u32>;
// A chunk's part of the gradients of gamma and beta, [G, 2, D].
@group(0) @binding(6) var<storage, read_write> chunks: array<f32>;

fn first_of_chunks() -> u32 {
    return gradient_params.sixth / 4u;
}

alias Before = mat4x4<f32>;

// What is known beforehand of a row.
fn known(row: u32, lane: u32, end: u32) -> Before {
    return row_of_residual(row, lane, end);
}

fn deliver(gradient_of_x: mat4x4<f32>, before: Before, row: u32, lane: u32, end: u32) {
    store(gradient_of_x + before, false, gradient_params.fifth / 4u + row * gradient_params.width, lane, end);
}
