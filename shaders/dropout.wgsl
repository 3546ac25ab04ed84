// Dropout: values are zero or scaled, as words of a ChaCha8 stream decide (Bernstein, 2008; counter and stream number have 64 bits each, and
// the latter is zero). The same words are drawn on the CPU, so masks are the same on every device; they are drawn again in the backward pass
// instead of being kept. Twin: src/kernels/reference/dropout.rs.
//
// A lane makes a block of 16 words, for 16 values side by side.

struct Params {
    // Where the values and the result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    // Words of the first block that were drawn before.
    skipped: u32,
    values: u32,
    // Where the upper 24 bits of a word are below it, the value goes.
    threshold: u32,
    // The others are multiplied by this.
    scale: f32,
    // Number of the first block.
    block_low: u32,
    block_high: u32,
    key_low: vec4<u32>,
    key_high: vec4<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

// "expand 32-byte k".
const NAME = vec4<u32>(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u);
const DOUBLE_ROUNDS = 4u;

struct Block {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn turned(x: vec4<u32>, bits: u32) -> vec4<u32> {
    return (x << vec4<u32>(bits)) | (x >> vec4<u32>(32u - bits));
}

// A quarter round of every column.
fn columns(from_block: Block) -> Block {
    var x = from_block;
    x.a += x.b;
    x.d = turned(x.d ^ x.a, 16u);
    x.c += x.d;
    x.b = turned(x.b ^ x.c, 12u);
    x.a += x.b;
    x.d = turned(x.d ^ x.a, 8u);
    x.c += x.d;
    x.b = turned(x.b ^ x.c, 7u);
    return x;
}

fn chacha(start: Block) -> Block {
    var x = start;
    for (var i = 0u; i < DOUBLE_ROUNDS; i++) {
        x = columns(x);
        // Diagonals are columns of turned rows.
        x = columns(Block(x.a, x.b.yzwx, x.c.zwxy, x.d.wxyz));
        x = Block(x.a, x.b.wxyz, x.c.zwxy, x.d.yzwx);
    }
    return Block(x.a + start.a, x.b + start.b, x.c + start.c, x.d + start.d);
}

// Values from `at` on, which may lie before the first one or behind the last.
fn drop_four(at: u32, words: vec4<u32>) {
    for (var i = 0u; i < 4u; i++) {
        // Before the first one this is beyond all.
        let place = at + i - params.skipped;
        if place < params.values {
            let factor = select(params.scale, 0.0, (words[i] >> 8u) < params.threshold);
            result[params.base.y / 4u + place] = source[params.base.x / 4u + place] * factor;
        }
    }
}

@compute @workgroup_size(256)
fn dropout(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let index = group * 256u + lane;
    let low = params.block_low + index;
    let high = params.block_high + select(0u, 1u, low < index);
    let block = chacha(Block(NAME, params.key_low, params.key_high, vec4<u32>(low, high, 0u, 0u)));
    let at = index * 16u;
    drop_four(at, block.a);
    drop_four(at + 4u, block.b);
    drop_four(at + 8u, block.c);
    drop_four(at + 12u, block.d);
}
