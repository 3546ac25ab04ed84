// What shaders that write half precision have in common; it stands before them.

// Two values of f16. WGSL leaves open what becomes of those beyond its range: some hardware makes the largest number of them, some drivers
// another sign. Here they are infinite, which training must see.
fn packed(values: vec2<f32>) -> u32 {
    var pair = pack2x16float(values);
    if abs(values.x) >= 65520.0 {
        pair = (pair & 0xffff0000u) | 0x7c00u | ((bitcast<u32>(values.x) >> 16u) & 0x8000u);
    }
    if abs(values.y) >= 65520.0 {
        pair = (pair & 0xffffu) | 0x7c000000u | (bitcast<u32>(values.y) & 0x80000000u);
    }
    return pair;
}
