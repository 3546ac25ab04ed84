//! What the kernel benches share: timing, the copy bandwidth that a device reaches, the PyTorch side, and the table.
//!
//! Arguments after `--`: `--device auto|cpu|vulkan|...`, `--batch N`, `--side N`, `--rounds N`, `--json FILE`.

// Each bench uses its own part of this.
#![allow(dead_code)]

use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use moue::engine::device::{OpenDevice, open};
use moue::engine::read_values;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

// The program's own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What to measure.
pub struct Bench {
    pub open: OpenDevice,
    pub batch: usize,
    pub side: usize,
    pub rounds: usize,
    json: Option<PathBuf>,
    rows: Vec<Value>,
    copy: f64,
}

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.next()?;
    Some(args.next().unwrap_or_else(|| stop(&format!("{name} needs a value"))))
}

fn stop(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(2)
}

fn number(name: &str, default: usize) -> usize {
    argument(name).map_or(default, |text| text.parse().unwrap_or_else(|_| stop(&format!("{name} {text}: not a number"))))
}

impl Bench {
    /// From the command line; `batch` is the default for a GPU, a CPU or a software driver gets an eighth of it.
    pub fn new(what: &str, batch: usize) -> Self {
        let device = argument("--device").unwrap_or("auto".into());
        let choice = device.parse().unwrap_or_else(|e| stop(&format!("--device {device}: {e}")));
        let open = open(choice).unwrap_or_else(|e| stop(&format!("{e:#}")));
        let small = open.is_cpu || open.description["kind"] == "cpu";
        let batch = number("--batch", if small { batch / 8 } else { batch });
        let (side, rounds) = (number("--side", 224), number("--rounds", 7));
        let copy = copy_bandwidth(&open);
        println!("{what}: batch {batch}, {side} px, on {}, {} threads", open.name, rayon::current_num_threads());
        println!("{}", open.description);
        println!("copy limit of this device: {:.1} GB/s\n", copy / 1e9);
        println!("{:<44} {:>10} {:>10} {:>9} {:>12}", "", "median ms", "min ms", "GB/s", "of copy");
        Self { open, batch, side, rounds, json: argument("--json").map(PathBuf::from), rows: Vec::new(), copy }
    }

    /// Times `work`, which moves `bytes`, and prints a row. Returns the median in seconds.
    pub fn row(&mut self, name: &str, bytes: usize, seconds: Vec<f64>) -> f64 {
        let median = median(&seconds);
        let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let rate = bytes as f64 / median;
        println!("{name:<44} {:>10.3} {:>10.3} {:>9.2} {:>11.1}%", median * 1e3, least * 1e3, rate / 1e9, 100.0 * rate / self.copy);
        self.rows.push(json!({"name": name, "seconds": seconds, "bytes": bytes, "share_of_copy": rate / self.copy}));
        median
    }

    /// A row whose seconds came from somewhere else, without a bandwidth of this device.
    pub fn peer(&mut self, name: &str, seconds: &[f64]) -> f64 {
        let median = median(seconds);
        println!("{name:<44} {:>10.3} {:>10.3}", median * 1e3, seconds.iter().copied().fold(f64::INFINITY, f64::min) * 1e3);
        self.rows.push(json!({"name": name, "seconds": seconds}));
        median
    }

    /// Repeats `work` after one unmeasured time.
    pub fn time(&self, mut work: impl FnMut()) -> Vec<f64> {
        work();
        (0..self.rounds)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            })
            .collect()
    }

    /// Times tensor work on the device until its result is there.
    pub fn time_tensor<const D: usize>(&self, work: impl Fn() -> Tensor<D>) -> Vec<f64> {
        // On a GPU many launches to one read, or the way to the host is all that is measured. Each result is read from: fusion drops what
        // nobody reads.
        let launches = if self.open.is_cpu || self.open.description["kind"] == "cpu" { 1 } else { 10 };
        let seconds = self.time(|| {
            let firsts = (0..launches).map(|_| work().slice([const { 0..1 }; D])).collect();
            read_values(Tensor::cat(firsts, 0)).unwrap_or_else(|e| stop(&format!("{e:#}")));
        });
        seconds.into_iter().map(|s| s / launches as f64).collect()
    }

    pub fn device(&self) -> &Device {
        &self.open.device
    }

    /// f32, and f16 where the device has it.
    pub fn dtypes(&self) -> Vec<DType> {
        let halves = self.device().supports_dtype(FloatDType::F16);
        [DType::F32, DType::F16].into_iter().filter(|dtype| halves || *dtype == DType::F32).collect()
    }

    /// Writes the rows, if asked to.
    pub fn finish(self, what: &str) {
        let Some(path) = self.json else { return };
        let all = json!({
            "bench": what, "batch": self.batch, "side": self.side, "device": self.open.description, "copy_bytes_per_second": self.copy,
            "threads": rayon::current_num_threads(), "version": env!("CARGO_PKG_VERSION"), "rows": self.rows,
        });
        let text = serde_json::to_string_pretty(&all).expect("numbers and strings");
        std::fs::write(&path, text + "\n").unwrap_or_else(|e| stop(&format!("{}: {e}", path.display())));
    }
}

pub fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Of a type, as rows have it.
pub fn name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "f32" }
}

/// Normal numbers.
pub fn random<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let x = Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), device);
    if dtype == DType::F16 { x.cast(FloatDType::F16) } else { x }
}

/// The first value, in f32 whatever it was.
pub fn first<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.slice([const { 0..1 }; D]).cast(FloatDType::F32)
}

/// Prints how fast so many operations were in so many seconds.
pub fn compare(operations: usize, ours: f64, theirs: f64) {
    let speed = |seconds: f64| operations as f64 / seconds / 1e12;
    println!("moue {:.2} TFLOP/s, burn {:.2} TFLOP/s; burn / moue: {:.1}", speed(ours), speed(theirs), theirs / ours);
}

/// Bytes read and written per second by the fastest plain copy: between buffers on a GPU, by all threads on a CPU.
fn copy_bandwidth(open: &OpenDevice) -> f64 {
    const BYTES: usize = 96 << 20;
    let best = |mut copy: Box<dyn FnMut()>| {
        copy();
        let seconds = (0..7).map(|_| {
            let start = Instant::now();
            copy();
            start.elapsed().as_secs_f64()
        });
        seconds.fold(f64::INFINITY, f64::min)
    };
    let seconds = match &open.setup {
        None => {
            let (from, mut to) = (vec![1u8; BYTES], vec![0u8; BYTES]);
            best(Box::new(move || {
                to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20)).for_each(|(to, from)| to.copy_from_slice(from));
                std::hint::black_box(&to);
            }))
        }
        Some(setup) => {
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let new = || {
                setup.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: BYTES as u64, usage, mapped_at_creation: false })
            };
            let (from, to) = (new(), new());
            best(Box::new(move || {
                let mut encoder = setup.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, BYTES as u64);
                setup.queue.submit([encoder.finish()]);
                setup.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
            }))
        }
    };
    2.0 * BYTES as f64 / seconds
}

/// What a script under `benches/peers/` prints, or why there is nothing.
pub fn peer(script: &str, args: &[String]) -> Result<Value, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script);
    let out = Command::new("python3").arg(&path).args(args).output().map_err(|e| format!("python3: {e}"))?;
    if !out.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&out.stderr).trim()));
    }
    let value: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{script}: {e}"))?;
    match value.get("why").and_then(Value::as_str) {
        Some(why) if value["torch"].is_null() => Err(why.to_string()),
        _ => Ok(value),
    }
}

/// The `seconds` of a peer's entry.
pub fn seconds(value: &Value) -> Option<Vec<f64>> {
    value.get("seconds")?.as_array()?.iter().map(Value::as_f64).collect()
}
