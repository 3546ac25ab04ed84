// What becomes of four values of C side by side: f32, with a bias for each column, times the mask's value for their sample if there is a mask,
// on top of a residual. Samples follow one another in C, `sample_c` values each, also where all of them are rows of one product.

// Else any buffer stands for the mask.
override MASKED: bool;

@group(0) @binding(3) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> mask: array<f32>;
@group(0) @binding(6) var<storage, read_write> result: array<vec4<f32>>;

alias Before = vec4<f32>;

// What is known beforehand of the values at `at`: the residual.
fn known(at: u32) -> Before {
    return residual[params.base.w / 16u + at / 4u];
}

fn finish(at: u32, column: u32, values: vec4<f32>, known_before: Before) {
    var branch = values + bias[params.base.z / 16u + column / 4u];
    if MASKED {
        branch *= mask[params.base_of_fifth / 4u + (at - params.first_c) / params.sample_c];
    }
    result[params.base_of_sixth / 16u + at / 4u] = known_before + branch;
}
