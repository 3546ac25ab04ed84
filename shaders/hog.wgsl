// Histograms of oriented gradients of 8-bit pictures (MaskFeat; METHOD 3.1). Twin: src/kernels/reference/hog.rs.
//
// A workgroup makes a run of neighbouring cells in one row of cells. Pixels are interleaved, so a lane walks down one byte column (one
// pixel column of one channel) and votes into nine bins of its own; then lanes add up the columns of each cell, and normalise. Every sum
// has one order and there are no atomics: the same picture gives the same bits in every run.

override CELL: u32;
override CHANNELS: u32;
// Side of the Gaussian window over magnitudes; 0: none.
override WINDOW: u32;
// Cells along the side of a patch whose values stand together; 0: [C, 9, cells_y, cells_x].
override PATCH_CELLS: u32;

struct Params {
    // Where pixels, weights and result begin in their bindings, in bytes.
    base: vec4<u32>,
    // Workgroups with work, and workgroups along x of the dispatch.
    groups: u32,
    groups_x: u32,
    width: u32,
    height: u32,
    cells_x: u32,
    cells_y: u32,
    // Runs in a row of cells.
    runs: u32,
    // Values of one picture in the result.
    values: u32,
    // Cells in a run; the last of a row may have fewer.
    run: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// Bytes [B, H, W, C].
@group(0) @binding(1) var<storage, read_write> pixels: array<u32>;
// [WINDOW]: the window is the outer product of these with themselves.
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

const LANES = 192u;
const BINS = 9u;
// BINS * LANES. A cell has at most as many sums as it has columns times BINS.
var<workgroup> votes: array<f32, 1728>;
var<workgroup> sums: array<f32, 1728>;

fn byte_at(index: u32) -> i32 {
    return i32((pixels[index >> 2u] >> ((index & 3u) * 8u)) & 255u);
}

// Mirrors without repeating the border: -1 -> 1, n -> n - 2.
fn mirror(i: i32, n: u32) -> u32 {
    let last = i32(n) - 1;
    let j = abs(i);
    return u32(max(select(j, 2 * last - j, j > last), 0));
}

// Bin of a gradient by its angle from the vertical axis modulo 180 degrees, in steps of 20: counts the borders at or below it. Drivers
// may be off by thousands of units in the last place in atan2; for every pair of Sobel sums of bytes these products decide as exact
// arithmetic does.
fn bin_of(gx: i32, gy: i32) -> u32 {
    let sign = select(1.0, -1.0, gx < 0 || (gx == 0 && gy < 0));
    let x = f32(gx) * sign;
    let y = f32(gy) * sign;
    return borders(x * 0.9396926, y * 0.34202015) + borders(x * 0.76604444, y * 0.64278764)
        + borders(x * 0.5, y * 0.8660254) + borders(x * 0.17364818, y * 0.9848077);
}

// How many of a border and its mirror image lie at or below the gradient.
fn borders(a: f32, b: f32) -> u32 {
    return select(0u, 1u, a >= b) + select(0u, 1u, -a >= b);
}

@compute @workgroup_size(192)
fn hog(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup.y * params.groups_x + workgroup.x;
    if group >= params.groups {
        return;
    }
    let run = group % params.runs;
    let row = (group / params.runs) % params.cells_y;
    let face = group / (params.runs * params.cells_y);
    let first_cell = run * params.run;
    let cells = min(params.run, params.cells_x - first_cell);
    let columns = cells * CELL * CHANNELS;
    let row_bytes = params.width * CHANNELS;
    let picture = params.base.x + face * params.height * row_bytes;

    for (var bin = 0u; bin < BINS; bin++) {
        votes[bin * LANES + lane] = 0.0;
    }
    // A cell wider than the workgroup gives a lane several columns, all of one channel.
    for (var column = lane; column < columns; column += LANES) {
        let byte = first_cell * CELL * CHANNELS + column;
        let x = byte / CHANNELS;
        let channel = byte % CHANNELS;
        let left = mirror(i32(x) - 1, params.width) * CHANNELS + channel;
        let right = mirror(i32(x) + 1, params.width) * CHANNELS + channel;
        let top = row * CELL;
        let above = picture + mirror(i32(top) - 1, params.height) * row_bytes;
        let here = picture + top * row_bytes;
        var n = vec3<i32>(byte_at(above + left), byte_at(above + byte), byte_at(above + right));
        var m = vec3<i32>(byte_at(here + left), byte_at(here + byte), byte_at(here + right));
        for (var i = 0u; i < CELL; i++) {
            let below = picture + mirror(i32(top + i) + 1, params.height) * row_bytes;
            let s = vec3<i32>(byte_at(below + left), byte_at(below + byte), byte_at(below + right));
            let gx = (n.x - n.z) + 2 * (m.x - m.z) + (s.x - s.z);
            let gy = (n.x - s.x) + 2 * (n.y - s.y) + (n.z - s.z);
            var magnitude = sqrt(f32(gx * gx + gy * gy));
            if WINDOW > 0u {
                let at = params.base.y / 4u;
                magnitude *= weights[at + (top + i) % max(WINDOW, 1u)] * weights[at + x % max(WINDOW, 1u)];
            }
            votes[bin_of(gx, gy) * LANES + lane] += magnitude;
            n = m;
            m = s;
        }
    }
    workgroupBarrier();

    // One sum for each bin, cell and channel. Neighbouring lanes take neighbouring cells, which lie in different banks of the memory.
    let lines = cells * CHANNELS;
    for (var item = lane; item < lines * BINS; item += LANES) {
        let bin = item / lines;
        let line = item % lines;
        let first = bin * LANES + (line / CHANNELS) * CELL * CHANNELS + line % CHANNELS;
        var sum = 0.0;
        for (var i = 0u; i < min(CELL, LANES / CHANNELS); i++) {
            sum += votes[first + i * CHANNELS];
        }
        sums[line * BINS + bin] = sum;
    }
    workgroupBarrier();

    for (var item = lane; item < lines * BINS; item += LANES) {
        let bin = item % BINS;
        let channel = (item / BINS) % CHANNELS;
        let cell_x = first_cell + item / (BINS * CHANNELS);
        let first = item - bin;
        var squares = 0.0;
        for (var i = 0u; i < BINS; i++) {
            squares += sums[first + i] * sums[first + i];
        }
        let value = sums[item] / max(sqrt(squares), 1e-12);
        let plane = channel * BINS + bin;
        var at = (plane * params.cells_y + row) * params.cells_x + cell_x;
        if PATCH_CELLS > 0u {
            let side = max(PATCH_CELLS, 1u);
            let patches_x = params.cells_x / side;
            let patch_x = cell_x / side;
            let patch_y = row / side;
            // Cells beyond the last whole patch belong to none.
            if patch_x >= patches_x || patch_y >= params.cells_y / side {
                continue;
            }
            at = (((patch_y * patches_x + patch_x) * CHANNELS * BINS + plane) * side + row % side) * side + cell_x % side;
        }
        result[params.base.z / 4u + face * params.values + at] = value;
    }
}
