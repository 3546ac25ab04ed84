// Normalised patches of 8-bit pictures, only those that an index list names: what a masked encoder does not see is never made. Twin:
// src/kernels/reference/patch_pixels.rs.
//
// A workgroup makes one patch, [P, P, C] in the order of the picture. Each picture brings its own scale and shift for each channel.

override CHANNELS: u32;
// P: side of a patch in pixels.
override SIDE: u32;

struct Params {
    // Where pixels, scales, index and result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    width: u32,
    height: u32,
    // K: patches named for each picture.
    kept: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Bytes [B, H, W, C].
@group(0) @binding(1) var<storage, read_write> pixels: array<u32>;
// [B, 2, C]: scales, then shifts.
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;
// [B, K]
@group(0) @binding(3) var<storage, read_write> index: array<i32>;
// [B, K, P * P * C]
@group(0) @binding(4) var<storage, read_write> result: array<f32>;

const LANES = 64u;

@compute @workgroup_size(64)
fn patch_pixels(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let face = group / params.kept;
    let side = SIDE;
    let patches_x = params.width / side;
    let patch_ = index[params.base.z / 4u + group];
    let present = patch_ >= 0 && u32(patch_) < patches_x * (params.height / side);
    let place = select(0u, u32(patch_), present);
    let span = side * CHANNELS;
    let row_bytes = params.width * CHANNELS;
    let corner = params.base.x + (face * params.height + place / patches_x * side) * row_bytes + place % patches_x * span;
    let scale = params.base.y / 4u + face * 2u * CHANNELS;
    let target_patch = params.base.w / 4u + group * side * span;
    for (var i = lane; i < side * span; i += LANES) {
        let channel = i % CHANNELS;
        let byte = corner + i / span * row_bytes + i % span;
        let value = f32((pixels[byte >> 2u] >> ((byte & 3u) * 8u)) & 255u);
        result[target_patch + i] = select(0.0, value * scales[scale + channel] + scales[scale + CHANNELS + channel], present);
    }
}
