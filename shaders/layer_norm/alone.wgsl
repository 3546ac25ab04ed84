// Where shaders/layer_norm.wgsl writes to: the result of a norm, or the gradient of x as it is.

// norm: the output, norm_gradients: the gradient of x; [R, D].
@group(0) @binding(4) var<storage, read_write> result: array<u32>;
// norm_gradients: a chunk's part of the gradients of gamma and beta, [G, 2, D].
@group(0) @binding(5) var<storage, read_write> chunks: array<f32>;

fn first_of_chunks() -> u32 {
    return gradient_params.fifth / 4u;
}

alias Before = vec2<u32>;

// Nothing is known beforehand of a row.
fn known(row: u32, lane: u32, end: u32) -> Before {
    return Before();
}

// Writes a lane's part of the gradient of a row of x, up to the column `end`.
fn deliver(gradient_of_x: mat4x4<f32>, before: Before, row: u32, lane: u32, end: u32) {
    store(gradient_of_x, false, gradient_params.base.w / 4u + row * gradient_params.width, lane, end);
}
