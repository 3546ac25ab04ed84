//! From the word after `--device` to an opened device: which adapter is meant, why, and burn's device on it.
//!
//! Choosing is a pure function over the list of adapters. A device that does not exist is a [`Usage`](crate::failure::Usage) error that
//! names what does; nothing falls back silently to something that was not asked for.

use super::adapters::{AdapterInfo, Api, Compiler, Kind, adapters, cpu};
use super::tuning::Kernels;
use super::wgsl_server;
use crate::config::{self, DeviceChoice};
use crate::failure::{expect_panics, survive};
use crate::kernels::gpu;
use crate::usage;
use anyhow::{Context, Error, Result, bail};
use burn::prelude::Device;
use cubecl::wgpu::{AutoGraphicsApi, RuntimeOptions, WgpuBackend, WgpuDevice, WgpuDeviceKind, WgpuSetup, try_init_setup};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

/// A device that is ready for tensors.
#[derive(Clone)]
pub struct OpenDevice {
    pub device: Device,
    /// For people, and for the column DEVICE of `moue runs`.
    pub name: String,
    pub is_cpu: bool,
    /// Whether it is a GPU, and not a program that stands in for one.
    pub is_hardware: bool,
    /// What is known of the adapter. None on the CPU.
    pub adapter: Option<AdapterInfo>,
    /// What burn's kernels are compiled to. None on the CPU, where there is nothing to compile.
    pub compiler: Option<Compiler>,
    /// How burn chooses among its kernels. None on the CPU, where there is one of each.
    pub kernels: Option<Kernels>,
    /// What goes into the manifest.
    pub description: Value,
    /// wgpu's instance, adapter, device and queue under burn's device: our shaders run on the same ones. None on the CPU.
    pub setup: Option<WgpuSetup>,
    /// Why this device and no other.
    pub why: String,
}

/// Of the memory that a device has, what a training may count on: the rest is the driver's, the screen's and other programs'.
const USABLE: f64 = 0.9;
/// A device that is well answers at once; one that is merely busy may take a while.
const ANSWER: Duration = Duration::from_secs(10);

impl OpenDevice {
    /// Bytes that a training may count on; none where the driver does not tell.
    pub fn usable_memory(&self) -> Option<f64> {
        self.description["memory"].as_u64().map(|bytes| USABLE * bytes as f64)
    }

    /// Whether what it takes is taken from main memory, where the program and all others are, too.
    pub fn shares_memory(&self) -> bool {
        self.is_cpu || self.adapter.as_ref().is_some_and(|adapter| matches!(adapter.kind, Kind::Integrated | Kind::Cpu))
    }

    /// Bytes of the largest tensor that it holds; none where there is no limit but memory.
    pub fn largest_tensor(&self) -> Option<f64> {
        self.adapter.as_ref().map(|adapter| adapter.largest_buffer.min(adapter.largest_storage_binding) as f64)
    }

    /// Whether the device is gone: unplugged, reset, or given up by its driver. Work on it then fails with errors of every kind, so it is
    /// asked for the least that a device can do: to give four bytes back.
    pub fn is_lost(&self) -> bool {
        let Some(setup) = &self.setup else { return false };
        let _quiet = expect_panics();
        let answer = survive(|| {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let buffer = setup.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false });
            let (tell, told) = mpsc::channel();
            buffer.map_async(wgpu::MapMode::Read, .., move |mapped| drop(tell.send(mapped)));
            match setup.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(ANSWER) }) {
                // It is at work that was there before.
                Err(wgpu::PollError::Timeout) => Ok(()),
                polled => polled.map_err(Error::new).and_then(|_| Ok(told.recv_timeout(ANSWER)??)),
            }
        });
        answer.is_err()
    }
}

/// Opens the device that `choice` means on this machine. The same adapter may be opened again: it is the same device then.
pub fn open(choice: DeviceChoice) -> Result<OpenDevice> {
    open_for(choice, config::Kernels::Auto)
}

/// Like [`open`], with burn's kernels chosen as `kernels` says. A process has one way for each adapter: a second one is an error.
pub fn open_for(choice: DeviceChoice, kernels: config::Kernels) -> Result<OpenDevice> {
    // Loading the graphics drivers takes time, and nobody who asks for the CPU should depend on them.
    let adapters = if choice == DeviceChoice::Cpu { Vec::new() } else { adapters() };
    match pick(choice, &adapters)? {
        (None, why) => Ok(open_cpu(why)),
        (Some(index), why) => open_adapter(&adapters, index, adapters[index].compiler, kernels, why),
    }
}

/// Opens the adapter of `--device vulkan` or `--device metal` with burn's kernels compiled to the language that somebody asked for, of
/// [`LANGUAGES`](super::adapters::LANGUAGES). See [`open_with`].
pub fn open_in(choice: DeviceChoice, language: &str, kernels: config::Kernels) -> Result<OpenDevice> {
    let compiler = match language {
        "spirv" => Compiler::Spirv,
        "msl" => Compiler::Msl,
        _ => Compiler::Wgsl,
    };
    match choice {
        DeviceChoice::Vulkan(None) => open_with(Api::Vulkan, compiler, kernels),
        DeviceChoice::Metal => open_with(Api::Metal, compiler, kernels),
        _ => usage!("--compiler needs --device vulkan or --device metal"),
    }
}

/// Opens the best adapter of an API with a compiler of the caller's choice, for tests and comparisons of the two. Training must never come
/// here: where [`AdapterInfo::compiler`] is WGSL because burn's SPIR-V is unsound, SPIR-V may return wrong matrix products or end the process.
/// Our own shaders and burn's elementwise operations are right there even so.
///
/// A process has one compiler for each adapter: a second one is an error.
pub fn open_with(api: Api, compiler: Compiler, kernels: config::Kernels) -> Result<OpenDevice> {
    let adapters = adapters();
    let Some(index) = best(&adapters, |a| a.api == api && a.refused.is_none()) else {
        usage!("there is no {api} adapter");
    };
    let adapter = &adapters[index];
    // Metal would do with WGSL, too; nobody has tried.
    if compiler != adapter.unasked && (api, compiler) != (Api::Vulkan, Compiler::Wgsl) {
        usage!("burn does not compile to {compiler} on {} ({})", adapter.place(), adapter.name);
    }
    open_adapter(&adapters, index, compiler, kernels, "asked for".into())
}

/// What `auto` takes, as a position in `adapters` or None for the CPU, and why. Discrete before integrated before virtual; then by API, then
/// the one with the most memory. Software adapters are slower than our own CPU code, and OpenGL is taken only when asked for.
pub fn decide(adapters: &[AdapterInfo]) -> (Option<usize>, String) {
    let real = |a: &AdapterInfo| a.kind <= Kind::Virtual && a.api != Api::Gl && a.refused.is_none();
    let Some(best) = best(adapters, real) else {
        let why = match adapters {
            [] => "no graphics driver reports any adapter".to_string(),
            _ => format!("no real GPU: {}", adapters.iter().map(passed_over).collect::<Vec<_>>().join("; ")),
        };
        return (None, why);
    };
    let kind = adapters[best].kind;
    let others = adapters.iter().filter(|a| real(a) && a.kind == kind && a.api == adapters[best].api).count() - 1;
    let why = match (kind, others) {
        (_, 1..) => format!("of {} {kind} GPUs under {} the one with the most memory, or the first", others + 1, adapters[best].api),
        (Kind::Discrete, _) => "the discrete GPU".to_string(),
        _ => format!("an {kind} GPU, and no discrete one is there").replace("an virtual", "a virtual"),
    };
    (Some(best), why)
}

fn passed_over(a: &AdapterInfo) -> String {
    let reason = match (a.api, a.kind) {
        (Api::Gl, _) => "is OpenGL, taken only when asked for",
        (_, Kind::Cpu) => "is software, taken only when asked for",
        _ => a.refused.as_deref().unwrap_or("does not say what it is"),
    };
    format!("{} {reason}", a.place())
}

fn best(adapters: &[AdapterInfo], eligible: impl Fn(&AdapterInfo) -> bool) -> Option<usize> {
    let candidates = adapters.iter().enumerate().filter(|(_, a)| eligible(a));
    candidates.min_by_key(|(_, a)| (a.refused.is_some(), a.kind, a.api, Reverse(a.memory), a.index)).map(|(i, _)| i)
}

/// Like [`decide`], for any choice.
fn pick(choice: DeviceChoice, adapters: &[AdapterInfo]) -> Result<(Option<usize>, String)> {
    let api = match choice {
        DeviceChoice::Cpu => return Ok((None, "asked for".into())),
        DeviceChoice::Auto => return Ok(decide(adapters)),
        DeviceChoice::Gpu => {
            let (picked, why) = decide(adapters);
            if picked.is_none() {
                usage!("--device gpu: {why}; `moue devices` tells more, `--device cpu` works everywhere");
            }
            return Ok((picked, why));
        }
        DeviceChoice::Vulkan(_) => Api::Vulkan,
        DeviceChoice::Metal => Api::Metal,
        DeviceChoice::Dx12 => Api::Dx12,
        DeviceChoice::Gl => Api::Gl,
    };
    let picked = match choice {
        DeviceChoice::Vulkan(Some(index)) => adapters.iter().position(|a| a.api == api && a.index == index),
        _ => best(adapters, |a| a.api == api),
    };
    let Some(picked) = picked else {
        let there: Vec<String> = adapters.iter().map(|a| format!("{} ({})", a.place(), a.name)).collect();
        let there = if there.is_empty() { "no graphics adapter".into() } else { there.join(", ") };
        usage!("--device {choice}: there is no such adapter; this machine has {there}, and the cpu");
    };
    let adapter = &adapters[picked];
    if let Some(reason) = &adapter.refused {
        usage!("--device {choice}: {} ({}) is not usable: {reason}", adapter.place(), adapter.name);
    }
    Ok((Some(picked), "asked for".into()))
}

fn open_cpu(why: String) -> OpenDevice {
    let cpu = cpu();
    let name = format!("CPU ({})", cpu.name);
    let description = json!({
        "name": name, "api": "cpu", "backend": "flex", "cpu": cpu.name, "features": cpu.features, "cores": cpu.cores, "memory": cpu.memory,
    });
    OpenDevice {
        device: Device::flex(),
        name,
        is_cpu: true,
        is_hardware: false,
        adapter: None,
        compiler: None,
        kernels: None,
        description,
        setup: None,
        why,
    }
}

/// burn refuses to set the same adapter up twice in a process, so what has been opened is kept.
static OPENED: Mutex<Vec<(WgpuDevice, Compiler, Kernels, WgpuSetup)>> = Mutex::new(Vec::new());

fn open_adapter(adapters: &[AdapterInfo], picked: usize, compiler: Compiler, kernels: config::Kernels, why: String) -> Result<OpenDevice> {
    let adapter = &adapters[picked];
    let is_hardware = adapter.kind != Kind::Cpu;
    let kernels = Kernels::of(kernels);
    let (device, setup) = set_up(adapters, adapter, compiler, kernels)
        .with_context(|| format!("cannot open {} ({}); --device cpu does without it", adapter.place(), adapter.name))?;
    let mut description = serde_json::to_value(adapter)?;
    description["compiler"] = serde_json::to_value(compiler)?;
    description["backend"] = format!("wgpu, {compiler}").into();
    description["kernels"] = serde_json::to_value(kernels)?;
    // By whom matrices are multiplied.
    let gpu = gpu::shared(&device);
    let products = |halves| gpu.as_ref().and_then(|gpu| gpu.products(halves)).map_or("burn".into(), |way| way.to_string());
    description["products"] = json!({"f32": products(false), "f16": products(true)});
    Ok(OpenDevice {
        device: device.into(),
        name: adapter.name.clone(),
        is_cpu: false,
        is_hardware,
        adapter: Some(adapter.clone()),
        compiler: Some(compiler),
        kernels: Some(kernels),
        description,
        setup: Some(setup),
        why,
    })
}

fn set_up(adapters: &[AdapterInfo], adapter: &AdapterInfo, compiler: Compiler, kernels: Kernels) -> Result<(WgpuDevice, WgpuSetup)> {
    let device = selector(adapters, adapter)?;
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known, choice, setup)) = opened.iter().find(|(known, ..)| *known == device) {
        if (*known, *choice) != (compiler, kernels) {
            bail!("this process has it open with {known} and {choice} kernels instead of {compiler} and {kernels}");
        }
        return Ok((device, setup.clone()));
    }
    let options = RuntimeOptions::with_tasks_max(None)?;
    let setup = if compiler == adapter.unasked {
        try_init_setup::<AutoGraphicsApi>(&device, options)?
    } else {
        wgsl_server::open(&device, adapter, options)?
    };
    let got = setup.adapter.get_info();
    if got.name != adapter.name || got.device_pci_bus_id != adapter.pci.as_deref().unwrap_or_default() {
        bail!("burn opened {} instead: the drivers list their adapters differently each time", got.name);
    }
    kernels.apply(&device, adapter.kind != Kind::Cpu)?;
    gpu::share(&device, &setup);
    opened.push((device.clone(), compiler, kernels, setup.clone()));
    Ok((device, setup))
}

/// burn's name for an adapter: its kind, and its number among those of the same kind and API.
fn selector(adapters: &[AdapterInfo], adapter: &AdapterInfo) -> Result<WgpuDevice> {
    let number = adapters.iter().filter(|a| a.api == adapter.api && a.kind == adapter.kind && a.index < adapter.index).count();
    let kind = match adapter.kind {
        Kind::Discrete => WgpuDeviceKind::DiscreteGpu(number),
        Kind::Integrated => WgpuDeviceKind::IntegratedGpu(number),
        Kind::Virtual => WgpuDeviceKind::VirtualGpu(number),
        Kind::Other => WgpuDeviceKind::Other(number),
        Kind::Cpu if number == 0 => WgpuDeviceKind::Cpu,
        Kind::Cpu => usage!("burn reaches only the first software adapter of an API; hide the others with VK_DRIVER_FILES"),
    };
    Ok(WgpuDevice::new(kind).on(match adapter.api {
        Api::Metal => WgpuBackend::Metal,
        Api::Vulkan => WgpuBackend::Vulkan,
        Api::Dx12 => WgpuBackend::Dx12,
        Api::Gl => WgpuBackend::Gl,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::adapters::tests::adapter;
    use super::*;
    use crate::failure::exit_code;

    #[test]
    fn auto_takes_a_real_gpu() {
        let lavapipe = adapter(Api::Vulkan, 0, Kind::Cpu, "llvmpipe");
        let discrete = adapter(Api::Vulkan, 1, Kind::Discrete, "RTX");
        let integrated = adapter(Api::Vulkan, 2, Kind::Integrated, "UHD");
        let gl = adapter(Api::Gl, 0, Kind::Discrete, "RTX");
        assert_eq!(decide(&[lavapipe.clone(), integrated.clone(), gl.clone(), discrete.clone()]), (Some(3), "the discrete GPU".into()));
        let (picked, why) = decide(&[lavapipe.clone(), integrated.clone(), gl.clone()]);
        assert_eq!((picked, why.as_str()), (Some(1), "an integrated GPU, and no discrete one is there"));
        let virtual_ = adapter(Api::Vulkan, 1, Kind::Virtual, "Venus");
        assert_eq!(decide(&[lavapipe, virtual_]).1, "a virtual GPU, and no discrete one is there");
    }

    #[test]
    fn auto_takes_the_cpu_otherwise_and_says_why() {
        assert_eq!(decide(&[]), (None, "no graphics driver reports any adapter".into()));
        let lavapipe = adapter(Api::Vulkan, 0, Kind::Cpu, "llvmpipe");
        let gl = adapter(Api::Gl, 0, Kind::Discrete, "RTX");
        let (picked, why) = decide(&[lavapipe, gl]);
        assert_eq!(picked, None);
        assert!(why.contains("vulkan:0 is software") && why.contains("gl:0 is OpenGL"), "{why}");
        let mut broken = adapter(Api::Vulkan, 0, Kind::Discrete, "RTX");
        broken.refused = Some("cannot compute".into());
        assert_eq!(decide(&[broken]), (None, "no real GPU: vulkan:0 cannot compute".into()));
    }

    #[test]
    fn the_same_kind_is_decided_by_api_then_memory() {
        let mut small = adapter(Api::Vulkan, 0, Kind::Discrete, "small");
        let mut large = adapter(Api::Vulkan, 1, Kind::Discrete, "large");
        (small.memory, large.memory) = (Some(4 << 30), Some(24 << 30));
        let dx12 = adapter(Api::Dx12, 0, Kind::Discrete, "large");
        let (picked, why) = decide(&[small, large, dx12]);
        assert_eq!((picked, why.starts_with("of 2 discrete GPUs under Vulkan")), (Some(1), true), "{why}");
    }

    #[test]
    fn a_word_means_the_adapter_it_names() {
        let lavapipe = adapter(Api::Vulkan, 0, Kind::Cpu, "llvmpipe");
        let discrete = adapter(Api::Vulkan, 1, Kind::Discrete, "RTX");
        let gl = adapter(Api::Gl, 0, Kind::Other, "RTX");
        let all = [lavapipe, discrete, gl];
        let index = |choice| pick(choice, &all).unwrap().0;
        assert_eq!(index(DeviceChoice::Cpu), None);
        assert_eq!(index(DeviceChoice::Gpu), Some(1));
        assert_eq!(index(DeviceChoice::Vulkan(None)), Some(1));
        assert_eq!(index(DeviceChoice::Vulkan(Some(0))), Some(0));
        assert_eq!(index(DeviceChoice::Gl), Some(2));
    }

    #[test]
    fn what_is_not_there_is_bad_usage_and_tells_what_is() {
        let mut lavapipe = adapter(Api::Vulkan, 0, Kind::Cpu, "llvmpipe");
        for choice in [DeviceChoice::Gpu, DeviceChoice::Vulkan(Some(1)), DeviceChoice::Metal, DeviceChoice::Dx12, DeviceChoice::Gl] {
            let error = pick(choice, std::slice::from_ref(&lavapipe)).unwrap_err();
            assert_eq!(exit_code(&error), 2);
            assert!(error.to_string().contains(&choice.to_string()) && error.to_string().contains("vulkan:0"), "{error}");
        }
        assert!(pick(DeviceChoice::Vulkan(None), &[]).unwrap_err().to_string().contains("no graphics adapter"));
        lavapipe.refused = Some("it has no compute shaders".into());
        assert!(pick(DeviceChoice::Vulkan(None), &[lavapipe]).unwrap_err().to_string().contains("no compute shaders"));
    }
}
