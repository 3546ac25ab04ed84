// What the gradient of x is added to, [R, D]: the gradient that came past the norm.
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;

fn row_of_residual(row: u32, lane: u32, end: u32) -> mat4x4<f32> {
    let first = gradient_params.base.w / 4u + row * gradient_params.width;
    var values = mat4x4<f32>();
    values[0] = quad_of_residual(first, columns(lane, 0u), end);
    if QUADS > 1u {
        values[1] = quad_of_residual(first, columns(lane, 1u), end);
    }
    if QUADS > 2u {
        values[2] = quad_of_residual(first, columns(lane, 2u), end);
    }
    if QUADS > 3u {
        values[3] = quad_of_residual(first, columns(lane, 3u), end);
    }
    return values;
}

fn quad_of_residual(first: u32, at: vec4<u32>, end: u32) -> vec4<f32> {
    let values = vec4<f32>(residual[first + at.x], residual[first + at.y], residual[first + at.z], residual[first + at.w]);
    return select(vec4<f32>(), values, at < vec4<u32>(end));
}
