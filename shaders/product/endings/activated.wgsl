// What becomes of four values of C side by side: f16, with a bias for each column, and what an activation makes of that. A ReLU leaves the
// same in both.

override RELU: bool;

@group(0) @binding(3) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> inner: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> result: array<vec2<u32>>;

alias Before = vec2<u32>;

// Nothing is known beforehand of the values at `at`.
fn known(at: u32) -> Before {
    return Before();
}

fn finish(at: u32, column: u32, values: vec4<f32>, known_before: Before) {
    let sums = values + bias[params.base.z / 16u + column / 4u];
    // What is not a number stays so.
    let before = rounded(select(sums, vec4<f32>(), vec4<bool>(RELU) & (sums <= vec4<f32>())));
    inner[params.base.w / 8u + at / 4u] = before;
    var behind = before;
    if !RELU {
        behind = rounded(gelu(numbers(before)));
    }
    result[params.base_of_fifth / 8u + at / 4u] = behind;
}
