//! Gathering visible tokens and scattering their gradients: ours on the device, burn's tensor operations there, and on a CPU PyTorch.
//!
//! `cargo bench --bench patch_gather [-- --device D --batch N --json FILE]`

mod measure;

use burn::backend::Dispatch;
use burn::tensor::{Distribution, Tensor};
use measure::{Bench, peer, seconds};
use moue::kernels::{gather_rows, operations, scatter_rows, upload_index};

/// ViT-B/16 at 224 pixels with 40 % hidden.
const TOKENS: usize = 196;
const DIM: usize = 768;
const KEPT: usize = 118;

fn main() {
    let mut bench = Bench::new(&format!("patch_gather: {KEPT} of {TOKENS} tokens of {DIM}"), 192);
    let b = bench.batch;
    let device = bench.device().clone();
    let index: Vec<i32> = (0..b).flat_map(|s| (0..KEPT).map(move |k| ((k * 5 + s * 31) % TOKENS) as i32)).collect();
    let index = upload_index(index, [b, KEPT], &device);
    let full = Tensor::<3>::random([b, TOKENS, DIM], Distribution::Normal(0.0, 1.0), &device);
    let part = Tensor::<3>::random([b, KEPT, DIM], Distribution::Normal(0.0, 1.0), &device);

    let bytes = 2 * 4 * b * KEPT * DIM;
    let times = bench.time_tensor(|| gather_rows(full.clone(), index.clone()).expect("the shapes fit"));
    let gather = bench.row("gather, moue", bytes, times);
    let times = bench.time_tensor(|| {
        let out = operations::gather_rows::<Dispatch>(full.clone().into_dispatch(), index.clone().into_dispatch());
        Tensor::<3>::from_dispatch(out)
    });
    let theirs = bench.row("gather, burn's tensor operations", bytes, times);
    println!("burn's operations / moue: {:.1}", theirs / gather);

    let bytes = 4 * b * (KEPT + TOKENS) * DIM;
    let times = bench.time_tensor(|| scatter_rows(part.clone(), index.clone(), TOKENS).expect("the shapes fit"));
    let scatter = bench.row("scatter, moue", bytes, times);
    let times = bench.time_tensor(|| {
        let out = operations::scatter_rows::<Dispatch>(part.clone().into_dispatch(), index.clone().into_dispatch(), TOKENS);
        Tensor::<3>::from_dispatch(out)
    });
    let theirs = bench.row("scatter, burn's tensor operations", bytes, times);
    println!("burn's operations / moue: {:.1}", theirs / scatter);

    if bench.open.is_cpu {
        let threads = rayon::current_num_threads();
        let options =
            [("--batch", b), ("--tokens", TOKENS), ("--dim", DIM), ("--keep", KEPT), ("--threads", threads), ("--repeats", bench.rounds)];
        let args: Vec<String> = options.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]).collect();
        match peer("patch_gather.py", &args) {
            Err(why) => println!("no peer: {why}"),
            Ok(told) => {
                for (group, way, ours) in [
                    ("gather", "gather", gather),
                    ("gather", "index_select", gather),
                    ("scatter", "scatter_add", scatter),
                    ("scatter", "index_add", scatter),
                ] {
                    if let Some(times) = seconds(&told[group][way]) {
                        let label =
                            format!("{group}, PyTorch {} {way} ({threads} threads)", told["torch"]["version"].as_str().unwrap_or_default());
                        let median = bench.peer(&label, &times);
                        println!("PyTorch {way} / moue: {:.1}", median / ours);
                    }
                }
            }
        }
    }
    bench.finish("patch_gather");
}
