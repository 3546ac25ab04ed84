// What becomes of four values of C side by side, of which `at` counts the first from the beginning of the result: they stay as they are.

@group(0) @binding(3) var<storage, read_write> result: array<vec4<f32>>;

// Nothing is known beforehand of the values at `at`.
fn known(at: u32) -> vec2<u32> {
    return vec2<u32>();
}

fn finish(at: u32, column: u32, values: vec4<f32>, known_before: vec2<u32>) {
    result[params.base.z / 16u + at / 4u] = values;
}
