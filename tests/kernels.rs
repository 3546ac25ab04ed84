//! The kernels on every device there is: the whole selftest, the edges of shapes, WebGPU's default limits; and that each shader has its
//! siblings.
//!
//! Without a Vulkan adapter the GPU tests say so and pass, unless MOUE_NEEDS_VULKAN is set: then they fail. `tests/run` sets it.
#![cfg(feature = "train")]

use burn::backend::ops::FloatTensorOps;
use burn::backend::{DispatchDevice, DispatchTensor};
use burn::prelude::*;
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor};
use cubecl::client::Client;
use cubecl::wgpu::{AutoCompiler, WgpuServer};
use cubecl_common::device::Device as _;
use half::f16;
use moue::config::DeviceChoice;
use moue::engine::adapters::{Api, adapters};
use moue::engine::device::open;
use moue::engine::read_values;
use moue::kernels::gpu::{Gpu, GpuError, Kernel, Launch, Operand, Region};
use moue::kernels::product::{self, Way};
use moue::kernels::queue::{Queue, allocate, apart, operands, together};
use moue::kernels::reference;
use moue::kernels::reference::dropout::Mask;
use moue::kernels::reference::patch_gather::Rows;
use moue::kernels::reference::patch_pixels::Patches;
use moue::kernels::updates::{self, AdamWStep, Due};
use moue::kernels::{adamw, attention, column_sums, dropout, layer_norm, patch_gather, softmax, squares};
use moue::kernels::{gather_rows, hog_cells, hog_tokens, patch_pixels, scatter_rows, upload_index, upload_pixels};
use moue::selftest::{Golden, largest_difference};
use std::path::Path;
use std::process::Command;
use wgpu::util::{BufferInitDescriptor, DeviceExt};

fn vulkan() -> Option<Device> {
    if adapters().iter().all(|a| a.api != Api::Vulkan) {
        assert!(std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is there");
        eprintln!("SKIPPED: no Vulkan adapter; tests/vulkan-driver.sh installs one");
        return None;
    }
    Some(open(DeviceChoice::Vulkan(None)).unwrap().device)
}

/// The CPU, and Vulkan where it is.
fn devices() -> Vec<Device> {
    std::iter::once(Device::flex()).chain(vulkan()).collect()
}

#[test]
fn selftest_passes_on_vulkan_and_the_cpu() {
    for device in ["cpu", "vulkan"] {
        if device == "vulkan" && vulkan().is_none() {
            continue;
        }
        let out = Command::new(env!("CARGO_BIN_EXE_moue")).args(["selftest", "--device", device]).output().unwrap();
        let (table, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        eprintln!("{table}");
        assert!(out.status.success(), "{table}\n{errors}");
        assert!(
            table.contains("checks passed")
                && table.lines().nth(1).is_some_and(|l| l.contains(if device == "cpu" { "cpu" } else { "Vulkan" }))
        );
    }
}

/// Of the kernels on cooperative matrices, which few devices have, everything but the matrices themselves: tiles, edges, parts, heads.
#[test]
fn products_are_right() {
    let Some(gpu) = own_device(|limits| limits) else { return };
    for way in [Way::Plain { halves: false }, Way::Plain { halves: true }, Way::Emulated] {
        assert!(product::works(&gpu, way).unwrap(), "{way:?}");
    }
    for width in attention::WIDTHS {
        assert!(attention::works(&gpu, Way::Emulated, width).unwrap(), "heads of {width}");
    }
    // Others are made of products.
    assert!(!attention::works(&gpu, Way::Plain { halves: true }, 64).unwrap() && !attention::works(&gpu, Way::Emulated, 80).unwrap());
}

#[test]
fn selftest_refuses_a_device_that_does_not_exist() {
    let out = Command::new(env!("CARGO_BIN_EXE_moue")).args(["selftest", "--device", "vulkan:99"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn twins_agree_with_the_goldens_and_a_planted_fault_does_not() {
    let golden = Golden::patch_gather().unwrap();
    for stem in golden.stems(".index").unwrap() {
        let [samples, rows, width] = golden.shape(&format!("{stem}.f32.x")).unwrap();
        let index = golden.ints(&format!("{stem}.index")).unwrap();
        let rows = Rows { samples, rows, kept: index.len() / samples, width };
        let x = golden.floats(&format!("{stem}.f32.x")).unwrap();
        let gathered = golden.floats(&format!("{stem}.f32.gathered")).unwrap();
        assert_eq!(reference::patch_gather::gather(&x, &index, &rows), gathered, "{stem}");
        let g = golden.floats(&format!("{stem}.f32.g")).unwrap();
        let scattered = golden.floats(&format!("{stem}.f32.scattered")).unwrap();
        let ours = reference::patch_gather::scatter(&g, &index, &rows, |v| v, |v| v);
        assert!(largest_difference(&ours, &scattered) <= 2e-6, "{stem}");

        let mut wrong = index.clone();
        wrong[0] = if wrong[0] == 0 { rows.rows as i32 } else { 0 };
        assert_ne!(reference::patch_gather::gather(&x, &wrong, &rows), gathered, "{stem}");
        assert!(largest_difference(&reference::patch_gather::scatter(&g, &wrong, &rows, |v| v, |v| v), &scattered) > 1e-3, "{stem}");
    }
    let golden = Golden::patch_pixels().unwrap();
    for stem in golden.stems(".pixels").unwrap() {
        let name = |part: &str| format!("{stem}.{part}");
        let [_, height, width, channels] = golden.shape(&name("pixels")).unwrap();
        let side = golden.ints(&name("side")).unwrap()[0] as usize;
        let patches = Patches { width, height, channels, side };
        let (mut pixels, scales) = (golden.bytes(&name("pixels")).unwrap(), golden.floats(&name("scales")).unwrap());
        let (index, expected) = (golden.ints(&name("index")).unwrap(), golden.floats(&name("patches")).unwrap());
        assert!(
            largest_difference(&reference::patch_pixels::patch_pixels(&pixels, &scales, &index, &patches), &expected) <= 1e-4,
            "{stem}"
        );
        pixels.iter_mut().for_each(|p| *p ^= 0x40);
        assert!(largest_difference(&reference::patch_pixels::patch_pixels(&pixels, &scales, &index, &patches), &expected) > 1.0, "{stem}");
    }
}

#[test]
fn nothing_and_everything() {
    for device in devices() {
        let pixels = |b: usize| upload_pixels(vec![7; b * 16 * 16], [b, 16, 16, 1], &device);
        let scales = |b: usize| Tensor::<3>::ones([b, 2, 1], &device);
        let index = |b: usize, k: usize| upload_index((0..b).flat_map(|_| 0..k as i32).collect(), [b, k], &device);
        // No sample, one sample; nothing kept, all kept.
        for (b, k) in [(0, 4), (1, 0), (1, 4), (0, 0)] {
            let patches = patch_pixels(pixels(b), scales(b), index(b, k), 8).unwrap();
            assert_eq!(patches.dims(), [b, k, 64]);
            assert!(read_values(patches).unwrap().iter().all(|v| *v == 8.0));
            let x = Tensor::<3>::ones([b, 4, 5], &device);
            let gathered = gather_rows(x, index(b, k)).unwrap();
            assert_eq!(gathered.dims(), [b, k, 5]);
            assert!(read_values(gathered.clone()).unwrap().iter().all(|v| *v == 1.0));
            let scattered = scatter_rows(gathered, index(b, k), 4).unwrap();
            assert_eq!(scattered.dims(), [b, 4, 5]);
            assert_eq!(read_values(scattered).unwrap().iter().sum::<f32>(), (b * k * 5) as f32);
        }
        assert_eq!(hog_cells(pixels(0), 8, 0).unwrap().dims(), [0, 1, 9, 2, 2]);
        // Smaller than a cell, or than a patch: no cells, no tokens.
        assert_eq!(hog_cells(pixels(2), 17, 0).unwrap().dims(), [2, 1, 9, 0, 0]);
        assert_eq!(hog_tokens(pixels(2), 8, 0, 24).unwrap().dims(), [2, 0, 81]);
        assert_eq!(patch_pixels(pixels(1), scales(1), index(1, 2), 17).unwrap().dims(), [1, 2, 289]);
    }
}

#[test]
fn gathering_inverts_scattering_through_gradients() {
    for device in devices() {
        let device = device.autodiff();
        let x = Tensor::<3>::from_data(TensorData::new((0..24).map(|v| v as f32).collect::<Vec<_>>(), [2, 4, 3]), &device).require_grad();
        // Between operations that burn fuses.
        let y = gather_rows(x.clone() * 2.0 + 1.0, upload_index(vec![3, 0, 1, 1], [2, 2], &device)).unwrap();
        let gradients = (y.clone() * y).sum().backward();
        let gradient = read_values(x.grad(&gradients).unwrap()).unwrap();
        // d/dx of (2x + 1)^2, as often as the row is taken.
        let times = [1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0];
        let expected: Vec<f32> = (0..24).map(|i| times[i / 3] * 4.0 * (2.0 * i as f32 + 1.0)).collect();
        assert!(largest_difference(&gradient, &expected) <= 1e-3, "{gradient:?}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let device = Device::flex();
    let pixels = |c: usize| upload_pixels(vec![0; 64 * c], [1, 8, 8, c], &device);
    let index = |b: usize, k: usize| upload_index(vec![0; b * k], [b, k], &device);
    let x = || Tensor::<3>::zeros([2, 4, 3], &device);
    let told = [
        hog_cells(pixels(2), 4, 0).err(),
        hog_cells(upload_pixels(Vec::new(), [1, 0, 8, 1], &device), 4, 0).err(),
        hog_cells(pixels(1), 0, 0).err(),
        hog_tokens(pixels(1), 3, 0, 8).err(),
        hog_cells(pixels(1).cast(burn::tensor::IntDType::I32), 4, 0).err(),
        patch_pixels(pixels(1), Tensor::zeros([1, 2, 3], &device), index(1, 1), 4).err(),
        patch_pixels(pixels(1), Tensor::zeros([1, 2, 1], &device), index(2, 1), 4).err(),
        gather_rows(x(), index(1, 2)).err(),
        gather_rows(x(), index(2, 2).cast(burn::tensor::IntDType::I64)).err(),
        scatter_rows(x(), index(2, 3), 9).err(),
        gather_rows(x().cast(burn::tensor::FloatDType::F16), index(2, 2)).err(),
        scatter_rows(x().cast(burn::tensor::FloatDType::F64), index(2, 4), 9).err(),
    ];
    for (i, error) in told.into_iter().enumerate() {
        assert!(error.is_some_and(|e| !e.to_string().is_empty()), "case {i}");
    }
}

/// A device of its own with limits by the caller's choice.
fn own_device(limits: impl Fn(wgpu::Limits) -> wgpu::Limits) -> Option<Gpu> {
    vulkan()?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapter = cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN)).into_iter().next().unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits(adapter.limits()), ..Default::default() };
    let (device, queue) = cubecl::future::block_on(adapter.request_device(&descriptor)).unwrap();
    Some(Gpu::new(device, queue))
}

/// No more than WebGPU's default limits.
fn default_limits() -> Option<Gpu> {
    own_device(|_| wgpu::Limits::defaults())
}

fn buffer(gpu: &Gpu, contents: &[u8], per_sample: u64) -> Operand {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let buffer = gpu.device().create_buffer_init(&BufferInitDescriptor { label: None, contents, usage });
    Operand { place: Region { buffer, offset: 0 }, size: contents.len() as u64, per_sample }
}

fn read(gpu: &Gpu, operand: &Operand) -> Vec<u8> {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let copy = gpu.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: operand.size, usage, mapped_at_creation: false });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&operand.place.buffer, 0, &copy, 0, operand.size);
    gpu.queue().submit([encoder.finish()]);
    copy.slice(..).map_async(wgpu::MapMode::Read, |r| r.unwrap());
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    copy.slice(..).get_mapped_range().unwrap().to_vec()
}

/// 144 MiB where 128 MiB is the most that may be bound.
#[test]
fn a_batch_over_the_largest_binding_is_split() {
    let Some(gpu) = default_limits() else { return };
    let rows = Rows { samples: 3, rows: 12 << 10, kept: 5, width: 1 << 10 };
    let per_sample = (4 * rows.rows * rows.width) as u64;
    assert!(3 * per_sample > gpu.device().limits().max_storage_buffer_binding_size);
    let x: Vec<u32> = (0..rows.samples * rows.rows * rows.width).map(|i| (i as u32).wrapping_mul(2_654_435_761)).collect();
    let index: Vec<i32> = (0..15).map(|i| i * 811 % rows.rows as i32).collect();
    let bytes = |v: &[u32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let source = buffer(&gpu, &bytes(&x), per_sample);
    let list = buffer(&gpu, &index.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(), 20);
    let result = buffer(&gpu, &vec![0xff; 4 * 15 * rows.width], (4 * 5 * rows.width) as u64);
    gpu.run(&[patch_gather::gather(&rows, rows.width, [source, list, result.clone()])]).unwrap();
    assert_eq!(read(&gpu, &result), bytes(&reference::patch_gather::gather(&x, &index, &rows)));

    // A single sample over the limit is told, with the kernel and both numbers.
    let one = Rows { samples: 1, rows: 36 << 10, ..rows };
    let source = buffer(&gpu, &bytes(&x), 3 * per_sample);
    let list = buffer(&gpu, &[0; 20], 20);
    let error = gpu.run(&[patch_gather::gather(&one, rows.width, [source, list, result])]).unwrap_err();
    assert!(matches!(error, GpuError::TooLarge { kernel: "patch_gather", bytes, limit } if bytes == 3 * per_sample && limit < bytes));
}

/// Values from -1 to 1.
fn values(n: usize, salt: u32) -> Vec<f32> {
    (0..n as u32).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// So many values lie before and behind what is [`placed`].
const BEFORE: usize = 67;
const BEHIND: usize = 5;

/// Values in the middle of a buffer.
fn placed(gpu: &Gpu, v: &[f32], per_sample: u64) -> Operand {
    let whole = [vec![f32::NAN; BEFORE], v.to_vec(), vec![f32::NAN; BEHIND]].concat();
    let bytes: Vec<u8> = whole.iter().flat_map(|v| v.to_le_bytes()).collect();
    let Operand { place, .. } = buffer(gpu, &bytes, per_sample);
    Operand { place: Region { offset: 4 * BEFORE as u64, ..place }, size: 4 * v.len() as u64, per_sample }
}

/// What lies there, beside which nothing was written.
fn inside(gpu: &Gpu, operand: &Operand) -> Vec<f32> {
    let bytes = read(gpu, &Operand { size: operand.place.buffer.size(), ..operand.clone() });
    let all: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert!(all[..BEFORE].iter().chain(&all[all.len() - BEHIND..]).all(|v| v.is_nan()), "written outside");
    all[BEFORE..all.len() - BEHIND].to_vec()
}

fn close(what: &str, ours: &[f32], exact: &[f32]) {
    within(1e-5, what, ours, exact);
}

fn within(bound: f64, what: &str, ours: &[f32], exact: &[f32]) {
    let largest = exact.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    let error = largest_difference(ours, exact) / f64::from(largest);
    assert!(error <= bound, "{what}: {error}");
}

/// Values as f16, of which a word holds two.
fn paired(values: &[f32]) -> Vec<f32> {
    let bits = |v: f32| u32::from(f16::from_f32(v).to_bits());
    values.as_chunks::<2>().0.iter().map(|[first, second]| f32::from_bits(bits(*first) | (bits(*second) << 16))).collect()
}

/// The values that such words hold.
fn unpaired(words: &[f32]) -> Vec<f32> {
    words.iter().flat_map(|word| [0u32, 16].map(|by| f16::from_bits((word.to_bits() >> by) as u16).to_f32())).collect()
}

/// Kernels over rows, too: the last workgroup's rows are not whole, and every buffer begins in the middle of another.
#[test]
fn rows_over_the_largest_binding_are_split() {
    let Some(gpu) = default_limits() else { return };
    let (count, width) = (35_001, 1_024);
    assert!(4 * count * width > gpu.device().limits().max_storage_buffer_binding_size as usize);
    let rows = layer_norm::Rows::of(count, width, 1e-6).unwrap();
    let [x, gradient] = [1, 2].map(|salt| values(count * width, salt));
    let [gamma, beta] = [3, 4].map(|salt| values(width, salt));
    let exact = reference::layer_norm::norm(&x, &gamma, &beta, 1e-6);
    for halves in [false, true] {
        let sizes = rows.norm_sizes(halves);
        let out = placed(&gpu, &vec![f32::NAN; if halves { count * width / 2 } else { count * width }], sizes[3]);
        let [x, gamma, beta] = [placed(&gpu, &x, sizes[0]), placed(&gpu, &gamma, 0), placed(&gpu, &beta, 0)];
        gpu.run(&[layer_norm::norm(&rows, halves, [x, gamma, beta, out.clone()])]).unwrap();
        let made = inside(&gpu, &out);
        let (what, made, bound) = if halves { ("norm, f16", unpaired(&made), 1e-3) } else { ("norm", made, 1e-5) };
        within(bound, what, &made, &exact);
    }
    drop(exact);

    let sizes = rows.gradient_sizes();
    let exact = reference::layer_norm::gradients(&x, &gamma, &gradient, 1e-6);
    let [x, gradient] = [placed(&gpu, &x, sizes[0]), placed(&gpu, &gradient, sizes[2])];
    let of_x = placed(&gpu, &vec![f32::NAN; count * width], sizes[3]);
    let chunks = placed(&gpu, &vec![f32::NAN; rows.chunks() * 2 * width], sizes[4]);
    let [of_gamma, of_beta] = [(); 2].map(|()| placed(&gpu, &vec![f32::NAN; width], 0));
    let summed = Operand { per_sample: 0, ..chunks.clone() };
    // One after the other, in one submission.
    gpu.run(&[
        layer_norm::gradients(&rows, [x, placed(&gpu, &gamma, 0), gradient, of_x.clone(), chunks.clone()]),
        layer_norm::sums(&rows, [summed, of_gamma.clone(), of_beta.clone()]),
    ])
    .unwrap();
    inside(&gpu, &chunks);
    for (what, (ours, exact)) in ["x", "gamma", "beta"].iter().zip([of_x, of_gamma, of_beta].iter().zip(&exact)) {
        close(what, &inside(&gpu, ours), exact);
    }

    let (columns, scale) = (1_001, 3.0);
    let rows = softmax::Rows::of(count, width, columns, scale, false).unwrap();
    let scores = values(count * width, 5);
    let made = placed(&gpu, &vec![f32::NAN; count * width], rows.forward_sizes()[1]);
    gpu.run(&[softmax::forward(&rows, [placed(&gpu, &scores, rows.forward_sizes()[0]), made.clone()])]).unwrap();
    close("softmax", &inside(&gpu, &made), &reference::softmax::softmax(&scores, width, columns, scale));
}

/// On top of a residual over more values than may be bound; and along a path, all rows at once, whose buffers are as many as WebGPU grants.
#[test]
fn gradients_of_norms_go_on_beside_a_residual() {
    let small = own_device(|limits| wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..limits });
    let Some((small, gpu)) = small.zip(default_limits()) else { return };
    let width = 96;
    // Samples that end within a workgroup's rows; the last workgroup's are not whole.
    for (gpu, faces, tokens) in [(&small, 1, 4_001), (&gpu, 7, 19)] {
        let count = faces * tokens;
        let rows = layer_norm::Rows::of(count, width, 1e-6).unwrap();
        let [x, gradient, residual] = [1, 2, 3].map(|salt| values(count * width, salt));
        let (gamma, mask) = (values(width, 4), values(faces, 5));
        let [of_x, of_gamma, of_beta] = reference::layer_norm::gradients(&x, &gamma, &gradient, 1e-6);
        let [sum, masked] = reference::layer_norm::along(&of_x, &residual, &mask);
        let sizes = rows.onto_sizes();
        let [x, gamma, gradient, residual] =
            [(&x, 0), (&gamma, 1), (&gradient, 2), (&residual, 3)].map(|(v, i): (_, usize)| placed(gpu, v, sizes[i]));
        let empty = |n: usize, size: u64| placed(gpu, &vec![f32::NAN; n], size);
        let (of_x, chunks) = (empty(count * width, sizes[4]), empty(rows.chunks() * 2 * width, sizes[5]));
        if faces == 1 {
            gpu.run(&[layer_norm::gradients_onto(&rows, [x, gamma, gradient, residual, of_x.clone(), chunks.clone()])]).unwrap();
        } else {
            let (mask, branch) = (placed(gpu, &mask, 0), empty(count * width / 2, 0));
            let launch = |mask| {
                let results = [of_x.clone(), branch.clone(), chunks.clone()];
                layer_norm::gradients_along(&rows, [x.clone(), gamma.clone(), gradient.clone(), residual.clone()], mask, results)
            };
            for (mask, expected) in [(None, &sum), (Some(mask), &masked)] {
                gpu.run(&[launch(mask)]).unwrap();
                within(1e-3, "branch", &unpaired(&inside(gpu, &branch)), expected);
            }
        }
        close("x", &inside(gpu, &of_x), &sum);
        let sums = reference::column_sums::column_sums(&inside(gpu, &chunks), 2 * width);
        close("gamma", &sums[..width], &of_gamma);
        close("beta", &sums[width..], &of_beta);
    }
}

/// Of both types, from and to the middle of buffers: one row; fewer columns than a workgroup has lanes, and more; chunks of rows, of which
/// the last is not whole.
#[test]
fn columns_of_both_types_are_summed() {
    let Some(gpu) = default_limits() else { return };
    for (rows, width) in [(1, 66), (9, 602), (257, 4), (1001, 770)] {
        // Rounded for both: f32 and f16 have the same sums.
        let words = paired(&values(rows * width, 1));
        let x = unpaired(&words);
        for (halves, source) in [(false, &x), (true, &words)] {
            let chunks = column_sums::chunks(rows, width, halves);
            let parts = placed(&gpu, &vec![f32::NAN; chunks * width], 0);
            let sums = placed(&gpu, &vec![f32::NAN; width], 0);
            gpu.run(&[
                column_sums::launch(rows, width, chunks, halves, [placed(&gpu, source, 0), parts.clone()]),
                column_sums::launch(chunks, width, 1, false, [parts.clone(), sums.clone()]),
            ])
            .unwrap();
            inside(&gpu, &parts);
            let what = format!("[{rows}, {width}], in pairs: {halves}");
            close(&what, &inside(&gpu, &sums), &reference::column_sums::column_sums(&x, width));
        }
    }
}

/// A step and a sum over more values than may be bound, from and to the middle of buffers.
#[test]
fn updates_over_the_largest_binding_are_split() {
    let Some(gpu) = own_device(|limits| wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..limits }) else { return };
    let n = 50_001;
    let [parameter, gradient, first] = [1, 2, 3].map(|salt| values(n, salt));
    let second: Vec<f32> = values(n, 4).iter().map(|v| 0.1 + v * v).collect();
    let step = AdamWStep { factor: 0.5, rate: 0.1, weight_decay: 0.3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, time: 3 };
    for (step, later, computed) in [(AdamWStep { time: 1, ..step }, false, None), (step, true, None), (step, true, Some(0.625))] {
        let sources = [&parameter, &gradient].map(|v| placed(&gpu, v, adamw::SAMPLE));
        let moments = later.then(|| [&first, &second].map(|v| placed(&gpu, v, adamw::SAMPLE)));
        let results = [(); 3].map(|()| placed(&gpu, &vec![f32::NAN; n], adamw::SAMPLE));
        let factor = computed.map(|factor| placed(&gpu, &[factor], 0));
        gpu.run(&[adamw::launch(n, &step, sources, moments, factor, results.clone())]).unwrap();
        let step = AdamWStep { factor: step.factor * computed.unwrap_or(1.0), ..step };
        let moments = later.then_some([first.as_slice(), second.as_slice()]);
        let exact = reference::adamw::adamw(&parameter, &gradient, moments, &step);
        for (what, (ours, exact)) in ["parameter", "first", "second"].iter().zip(results.iter().zip(&exact)) {
            close(what, &inside(&gpu, ours), exact);
        }
    }

    let [of_values, of_chunks] = squares::sizes(n);
    let chunks = placed(&gpu, &vec![f32::NAN; squares::chunks(n)], of_chunks);
    let (before, sum) = (placed(&gpu, &[2.5], 0), placed(&gpu, &[f32::NAN], 0));
    gpu.run(&[
        squares::squares(n, [placed(&gpu, &parameter, of_values), chunks.clone()]),
        squares::add(squares::chunks(n), [Operand { per_sample: 0, ..chunks.clone() }, before, sum.clone()]),
    ])
    .unwrap();
    assert_eq!(inside(&gpu, &chunks).len(), squares::chunks(n));
    close("sum", &inside(&gpu, &sum), &[reference::squares::add_squares(2.5, &parameter)]);
}

/// One value, less than a workgroup, one more than it; and columns of a tensor whose rows lie apart.
#[test]
fn updates_of_any_size() {
    for device in devices() {
        let tensor = |v: &[f32]| Tensor::<1>::from_data(TensorData::new(v.to_vec(), [v.len()]), &device);
        let step = AdamWStep { factor: 1.0, rate: 0.1, weight_decay: 0.0, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, time: 1 };
        for n in [1, 3, 255, 257, 4097] {
            let [parameter, gradient] = [1, 2].map(|salt| values(n, salt));
            let made = updates::adamw(tensor(&parameter), tensor(&gradient), None, None, step);
            let exact = reference::adamw::adamw(&parameter, &gradient, None, &step);
            for (ours, exact) in made.into_iter().zip(&exact) {
                close(&format!("{n} values"), &read_values(ours).unwrap(), exact);
            }
            let sum = updates::add_squares(Tensor::zeros([1], &device), tensor(&gradient));
            close(&format!("{n} values"), &read_values(sum).unwrap(), &[reference::squares::add_squares(0.0, &gradient)]);
        }
        // Those that go together, and the rest.
        let all: Vec<Vec<f32>> = (0..19).map(|i| values(1 + 450 * i as usize, i)).collect();
        let sum = || {
            let tensors = all.iter().map(|x| tensor(x).into_dispatch()).collect();
            read_values(updates::add_squares_of(Tensor::zeros([1], &device), tensors)).unwrap()
        };
        let exact = all.iter().fold(0.0, |sum, x| reference::squares::add_squares(sum, x));
        close("many tensors", &sum(), &[exact]);
        assert_eq!(sum(), sum());
        let singly = all.iter().map(|x| tensor(x)).fold(Tensor::zeros([1], &device), updates::add_squares);
        close("one by one", &read_values(singly).unwrap(), &[exact]);
        for later in [false, true] {
            let due = |i: u32| {
                let of = |salt: u32| tensor(&values(1 + 450 * i as usize, 4 * i + salt));
                let moments = later.then(|| [of(2), of(3) * of(3)]);
                Due::new(of(0), of(1), moments, AdamWStep { rate: 0.01 * f64::from(i), time: 1 + i as usize, ..step })
            };
            let factor = || tensor(&[0.625]);
            let read = |made: [DispatchTensor; 3]| made.map(|t| read_values(Tensor::<1>::from_dispatch(t)).unwrap());
            let ours: Vec<_> = updates::adamw_of((0..19).map(due).collect(), factor()).into_iter().map(read).collect();
            let singly: Vec<_> = (0..19).flat_map(|i| updates::adamw_of(vec![due(i)], factor())).map(read).collect();
            assert_eq!(ours, singly);
        }
        let (rows, columns) = (37, 53);
        let (parameter, gradient) = (values(rows * columns, 1), values(rows * columns, 2));
        let turned: Vec<f32> = (0..rows * columns).map(|i| gradient[i % columns * rows + i / columns]).collect();
        let of_turned: Tensor<2> = tensor(&gradient).reshape([columns, rows]);
        let of_turned = of_turned.transpose();
        let made = updates::adamw(tensor(&parameter).reshape([rows, columns]), of_turned.clone(), None, None, step);
        let exact = reference::adamw::adamw(&parameter, &turned, None, &step);
        for (ours, exact) in made.into_iter().zip(&exact) {
            close("columns", &read_values(ours).unwrap(), exact);
        }
        let sum = updates::add_squares(Tensor::zeros([1], &device), of_turned);
        close("columns", &read_values(sum).unwrap(), &[reference::squares::add_squares(0.0, &gradient)]);
    }
}

/// A tensor of burn's as it is under fusion.
fn under_fusion(device: &Device, values: [f32; 4]) -> CubeTensor {
    let DispatchDevice::Cube(device) = device.as_dispatch().clone() else { panic!("Vulkan is wgpu") };
    let cubecl::Device::Wgpu(adapter) = &device else { panic!("{device:?}") };
    let client = Client::load::<WgpuServer<AutoCompiler>>(adapter.to_id());
    let handle = client.create_from_slice(&values.map(f32::to_le_bytes).concat());
    CubeTensor::new_contiguous(client, device, Shape::new([4]), handle, DType::F32)
}

/// More launches than are submitted at once, each of which needs the one before, with an operation of burn's in their midst.
#[test]
fn what_is_submitted_together_keeps_its_order() {
    let Some(device) = vulkan() else { return };
    let x = under_fusion(&device, [1.0, 2.0, 3.0, 4.0]);
    let queue = Queue::of(&x).unwrap();
    let add = |sum: CubeTensor, _: usize| {
        let made = allocate(&x, Shape::new([1]), DType::F32);
        queue.submit([squares::add_chunk(4, operands([&x, &sum, &made], [0; 3]))]);
        made
    };
    let sum = together(|| {
        let first = (0..10).fold(under_fusion(&device, [0.0; 4]), add);
        let doubled = apart(|| CubeBackend::float_mul_scalar(first, 2.0.into()));
        (0..10).fold(doubled, add)
    });
    let bytes = sum.client.read_one(sum.handle).unwrap();
    assert_eq!(bytes[..4], (30.0f32 * (2.0 * 10.0 + 10.0)).to_le_bytes());
}

/// What a launch that cannot run was to write is an error to read, and so is what another launch makes of it.
#[test]
fn a_launch_that_cannot_run_is_told_where_its_results_are_read() {
    static BROKEN: Kernel =
        Kernel { name: "broken", source: "no WGSL", entry: "none", buffers: 2, results: 1, checks_itself: false, varies: false };
    let Some(device) = vulkan() else { return };
    let [x, failed, after, sums] = [[1.0, 2.0, 3.0, 4.0], [0.0; 4], [0.0; 4], [0.0; 4]].map(|values| under_fusion(&device, values));
    let queue = Queue::of(&x).unwrap();
    let read = |tensor: &CubeTensor| tensor.client.read_one(tensor.handle.clone()).map(|bytes| bytes.to_vec());
    let summed = |from: &CubeTensor, to: &CubeTensor| column_sums::launch(2, 2, 1, false, operands([from, to], [0; 2]));
    let broken = operands([&x, &failed], [0; 2]).into();
    // The first of two that go together, and one that comes after them.
    let broken = Launch { kernel: &BROKEN, constants: Vec::new(), operands: broken, samples: 1, groups: 1, params: Vec::new() };
    queue.submit([summed(&x, &sums), broken]);
    queue.submit([summed(&failed, &after)]);
    for tensor in [&sums, &failed, &after] {
        let told = read(tensor).unwrap_err().to_string();
        assert!(told.contains("kernel broken: the driver refuses it"), "{told}");
    }
    // Nothing else is spoilt.
    queue.submit([summed(&x, &sums)]);
    assert_eq!(read(&sums).unwrap()[..8], [4.0f32, 6.0].map(f32::to_le_bytes).concat());
}

/// Names of what a shader lacks in a tree.
fn missing_siblings(root: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for entry in std::fs::read_dir(root.join("shaders")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".wgsl") else { continue };
        let golden = std::fs::read_dir(root.join("tests/golden")).unwrap();
        let siblings = [format!("src/kernels/{name}.rs"), format!("src/kernels/reference/{name}.rs"), format!("benches/{name}.rs")];
        missing.extend(siblings.into_iter().filter(|path| !root.join(path).is_file()));
        let starts = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().starts_with(&format!("{name}."));
        if !golden.into_iter().any(starts) {
            missing.push(format!("tests/golden/{name}.*"));
        }
    }
    missing
}

#[test]
fn every_shader_has_its_siblings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(missing_siblings(root), Vec::<String>::new());
    assert!(std::fs::read_dir(root.join("shaders")).unwrap().count() >= 3);
}

#[test]
fn a_missing_sibling_is_noticed() {
    let tree = tempfile::tempdir().unwrap();
    for folder in ["shaders", "src/kernels/reference", "benches", "tests/golden"] {
        std::fs::create_dir_all(tree.path().join(folder)).unwrap();
    }
    let touch = |path: &str| std::fs::write(tree.path().join(path), "").unwrap();
    touch("shaders/blur.wgsl");
    touch("src/kernels/blur.rs");
    assert_eq!(missing_siblings(tree.path()), ["src/kernels/reference/blur.rs", "benches/blur.rs", "tests/golden/blur.*"]);
    for path in ["src/kernels/reference/blur.rs", "benches/blur.rs", "tests/golden/blur.safetensors"] {
        touch(path);
    }
    assert!(missing_siblings(tree.path()).is_empty());
}

/// Masks begin anywhere in a block of their stream, also where the block's number needs more than 32 bits.
#[test]
fn dropout_writes_nothing_outside() {
    let Some(gpu) = default_limits() else { return };
    let x = values(10_001, 3);
    for first in [0, 5, 15, 16 * u64::from(u32::MAX) + 9] {
        let mask = Mask::new(std::array::from_fn(|i| 0x9e37_79b9 * i as u32), first, 0.3);
        let out = placed(&gpu, &vec![f32::NAN; x.len()], 0);
        gpu.run(&[dropout::launch(x.len(), &mask, [placed(&gpu, &x, 0), out.clone()])]).unwrap();
        assert_eq!(inside(&gpu, &out), reference::dropout::dropout(&x, &mask), "from word {first}");
    }
}
