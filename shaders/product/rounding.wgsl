// Four values of f16 in two words, and GELU. Written after shared/halves.wgsl.

fn rounded(values: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(packed(values.xy), packed(values.zw));
}

fn numbers(pairs: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}

// The normal distribution's density.
fn density(x: vec4<f32>) -> vec4<f32> {
    return 0.3989422804 * exp(-0.5 * x * x);
}

// Its share below x: 26.2.17 in Abramowitz and Stegun, Handbook of Mathematical Functions, off by 7.5e-8 at most.
fn share_below(x: vec4<f32>, density_at_x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.2316419 * abs(x));
    let powers = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    let beyond = density_at_x * powers;
    return select(1.0 - beyond, beyond, x < vec4<f32>());
}

// Where f16 has ended the products below are infinity times zero.
fn gelu(x: vec4<f32>) -> vec4<f32> {
    return select(x * share_below(x, density(x)), vec4<f32>(), x < vec4<f32>(-1e4));
}

// Its derivative.
fn gelu_slope(x: vec4<f32>) -> vec4<f32> {
    let density_at_x = density(x);
    return share_below(x, density_at_x) + select(x * density_at_x, vec4<f32>(), abs(x) > vec4<f32>(1e4));
}
