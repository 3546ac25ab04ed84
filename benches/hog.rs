//! HOG of a batch of 8-bit pictures: ours on the device, burn's tensor operations there, and on a CPU PyTorch and scikit-image.
//!
//! `cargo bench --bench hog [-- --device D --batch N --side N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::prelude::*;
use measure::{Bench, peer, seconds};
use moue::kernels::reference::hog::{Layout, batch};
use moue::kernels::{HogSpec, hog_tokens, operations, upload_pixels};

fn main() {
    let mut bench = Bench::new("hog", 192);
    let (b, side) = (bench.batch, bench.side);
    let layout = Layout { width: side, height: side, channels: 3, cell: 8, window: 0 };
    // Smooth with some grain, as photographs are.
    let pixels: Vec<u8> = (0..b * layout.bytes())
        .map(|i| {
            let (x, y) = ((i / 3) % side, i / (3 * side));
            (127.0 + 90.0 * (x as f32 * 0.07).sin() * (y as f32 * 0.05).cos() + ((i * 7919) % 23) as f32) as u8
        })
        .collect();
    let bytes = b * (layout.bytes() + 4 * layout.values(16));
    let device = bench.device().clone();

    let on_device = upload_pixels(pixels.clone(), [b, side, side, 3], &device);
    let ours = bench.time_tensor(|| hog_tokens(on_device.clone(), 8, 0, 16).expect("the shapes fit"));
    let ours = bench.row("moue", bytes, ours);
    // Numbers, not bytes: WGSL has no byte arithmetic.
    let numbers = pixels.iter().map(|&p| f32::from(p)).collect::<Vec<_>>();
    let numbers = Tensor::<4>::from_data(TensorData::new(numbers, [b, side, side, 3]), &device);
    let spec = HogSpec { cell: 8, window: 0, patch: 16 };
    let theirs = bench.time_tensor(|| Tensor::<2>::from_dispatch(operations::hog::<Dispatch>(numbers.clone().into_dispatch(), spec)));
    let operations = bench.row("burn's tensor operations", bytes, theirs);
    println!("burn's operations / moue: {:.1}", operations / ours);

    if bench.open.is_cpu {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (input, result) = (folder.path().join("pixels"), folder.path().join("cells"));
        std::fs::write(&input, &pixels).expect("writing the pixels");
        let cells: Vec<u8> = batch(&pixels, layout, 0).iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(&result, cells).expect("writing the cells");
        let threads = rayon::current_num_threads();
        let options = [("--batch", b), ("--size", side), ("--channels", 3), ("--threads", threads), ("--repeats", bench.rounds)];
        let mut args: Vec<String> = options.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]).collect();
        args.extend(["--input".into(), input.display().to_string(), "--check".into(), result.display().to_string()]);
        match peer("hog.py", &args) {
            Err(why) => println!("no peer: {why}"),
            Ok(told) => {
                for (key, name) in
                    [("torch", "PyTorch, as the reference"), ("torch_direct", "PyTorch, votes into cells"), ("skimage", "scikit-image")]
                {
                    if let Some(times) = seconds(&told[key]) {
                        let label =
                            format!("{name} {} ({} threads)", told[key]["version"].as_str().unwrap_or_default(), told[key]["threads"]);
                        let median = bench.peer(&label, &times);
                        println!("{name} / moue: {:.1}", median / ours);
                    }
                }
                println!(
                    "largest difference to PyTorch: {} ({} off bin borders)",
                    told["max_difference"], told["max_difference_off_border"]
                );
            }
        }
        // Once more after the peer, in case the machine changed its pace.
        let again = bench.time(|| drop(std::hint::black_box(batch(&pixels, layout, 16))));
        bench.row("moue, the twin alone, again", bytes, again);
    }
    bench.finish("hog");
}
