// What becomes of four values of C side by side: f16.

@group(0) @binding(3) var<storage, read_write> result: array<vec2<u32>>;

fn finish(at: u32, column: u32, values: vec4<f32>) {
    result[params.base.z / 8u + at / 4u] = rounded(values);
}
