//! Normalised visible patches straight from 8-bit pictures: ours on the device, burn's tensor operations there, and on a CPU PyTorch.
//!
//! `cargo bench --bench patch_pixels [-- --device D --batch N --side N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::prelude::*;
use measure::{Bench, peer, seconds};
use moue::kernels::reference::patch_pixels::Patches;
use moue::kernels::{operations, patch_pixels, upload_index, upload_pixels};

const PATCH: usize = 16;

fn main() {
    let mut bench = Bench::new("patch_pixels: a quarter of the patches", 192);
    let (b, side) = (bench.batch, bench.side);
    let device = bench.device().clone();
    let patches = Patches { width: side, height: side, channels: 3, side: PATCH };
    let kept = (patches.count() / 4).max(1);
    let pixels: Vec<u8> = (0..b * patches.bytes()).map(|i| (i * 7919 % 251) as u8).collect();
    let index: Vec<i32> = (0..b).flat_map(|s| (0..kept).map(move |k| ((k * 4 + s) % patches.count()) as i32)).collect();
    let index = upload_index(index, [b, kept], &device);
    let scales = Tensor::<3>::ones([b, 2, 3], &device);
    let bytes = b * kept * patches.values() * 5;

    let on_device = upload_pixels(pixels.clone(), [b, side, side, 3], &device);
    let times = bench.time_tensor(|| patch_pixels(on_device.clone(), scales.clone(), index.clone(), PATCH).expect("the shapes fit"));
    let ours = bench.row("moue", bytes, times);
    // Numbers, not bytes: WGSL has no byte arithmetic.
    let numbers = pixels.iter().map(|&p| f32::from(p)).collect::<Vec<_>>();
    let numbers = Tensor::<4>::from_data(TensorData::new(numbers, [b, side, side, 3]), &device);
    let times = bench.time_tensor(|| {
        let (numbers, scales) = (numbers.clone().into_dispatch(), scales.clone().into_dispatch());
        Tensor::<3>::from_dispatch(operations::patch_pixels::<Dispatch>(numbers, scales, index.clone().into_dispatch(), patches))
    });
    let theirs = bench.row("burn's tensor operations", bytes, times);
    println!("burn's operations / moue: {:.1}", theirs / ours);

    if bench.open.is_cpu {
        let threads = rayon::current_num_threads();
        let options = [
            ("--batch", b),
            ("--size", side),
            ("--patch", PATCH),
            ("--channels", 3),
            ("--keep", kept),
            ("--threads", threads),
            ("--repeats", bench.rounds),
        ];
        let args: Vec<String> = options.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]).collect();
        match peer("patch_gather.py", &args) {
            Err(why) => println!("no peer: {why}"),
            Ok(told) => {
                for way in ["normalise_first", "gather_first"] {
                    if let Some(times) = seconds(&told["pixels"][way]) {
                        let label = format!("PyTorch {} {way} ({threads} threads)", told["torch"]["version"].as_str().unwrap_or_default());
                        let median = bench.peer(&label, &times);
                        println!("PyTorch {way} / moue: {:.1}", median / ours);
                    }
                }
            }
        }
    }
    bench.finish("patch_pixels");
}
