// What becomes of four values of C side by side, gradients of what an activation has made: f16, the gradients of what it was made of.

override RELU: bool;

@group(0) @binding(3) var<storage, read_write> inner: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<u32>>;

alias Before = vec2<u32>;

// What is known beforehand of the values at `at`: what the activation had.
fn known(at: u32) -> Before {
    return inner[params.base.z / 8u + at / 4u];
}

fn finish(at: u32, column: u32, values: vec4<f32>, known_before: Before) {
    let before = numbers(known_before);
    var gradient: vec4<f32>;
    if RELU {
        gradient = select(vec4<f32>(), values, before > vec4<f32>());
    } else {
        gradient = values * gelu_slope(before);
    }
    result[params.base.w / 8u + at / 4u] = rounded(gradient);
}
