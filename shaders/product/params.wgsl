// What the shaders for products have in common: arrangement and sizes.

override TURN_A: bool;
override TURN_B: bool;

struct Params {
    // Where the first four buffers begin in their bindings, in bytes: A, B, and those of what becomes of C.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Of a fifth and a sixth buffer, if there are so many.
    base_of_fifth: u32,
    base_of_sixth: u32,
    m: u32,
    // Columns of B that count; the product's others of `columns` are zero.
    n: u32,
    // Columns of C that are written, whole multiples of what a shader writes at once.
    columns: u32,
    k: u32,
    // A multiple of 32, which is one of every shader's slices.
    k_each: u32,
    splits: u32,
    heads: u32,
    // Values from one row to the next, as stored.
    row_a: u32,
    row_b: u32,
    row_c: u32,
    // Values from one head to the next.
    head_a: u32,
    head_b: u32,
    head_c: u32,
    // Values from one sample to the next.
    sample_a: u32,
    sample_b: u32,
    sample_c: u32,
    // Values from one part of K to the next in C.
    split_c: u32,
    // The first value of each.
    first_a: u32,
    first_b: u32,
    first_c: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
