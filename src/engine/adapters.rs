//! What this machine offers to train on: every adapter that a graphics driver reports, and the CPU. Looks only: nothing is opened, nothing
//! is printed, and a machine without any driver is an empty list rather than an error.
//!
//! An adapter is listed once for each API that reaches it, so a GPU on Windows stands under Vulkan and under Dx12.

use super::wgsl_server;
use cubecl::WgpuCompilationOptions;
use cubecl::ir::DeviceProperties;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use wgpu::{Adapter, Backends, DeviceType, Features, Instance, InstanceDescriptor};

/// The graphics APIs, in the order in which they are preferred for the same GPU: the native one of the platform first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Api {
    Metal,
    Vulkan,
    Dx12,
    Gl,
}

/// What sort of device an adapter is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Discrete,
    Integrated,
    Virtual,
    /// The driver does not say. OpenGL never does.
    Other,
    /// A driver that computes in software.
    Cpu,
}

/// The language that burn's kernels are compiled to before the driver sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Compiler {
    /// By cubecl itself, with cooperative matrices where the device has them. Vulkan only.
    #[serde(rename = "SPIR-V")]
    Spirv,
    /// By cubecl itself. Metal only.
    #[serde(rename = "MSL")]
    Msl,
    /// Then translated by wgpu into whatever the driver reads.
    #[serde(rename = "WGSL")]
    Wgsl,
}

/// A [`Compiler`] as it is typed.
pub const LANGUAGES: [&str; 3] = ["spirv", "msl", "wgsl"];

/// How a driver on which burn's own choice of compiler makes invalid kernels is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// With another compiler: right, and slower.
    Avoided,
    /// With that very compiler: results may be wrong, or the process ends.
    Wrong,
}

/// One adapter under one API.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterInfo {
    pub api: Api,
    /// Position among the adapters of the same API, the N of `vulkan:N`.
    pub index: usize,
    pub name: String,
    pub kind: Kind,
    pub driver: String,
    pub driver_version: String,
    pub pci: Option<String>,
    pub f16: bool,
    /// Cooperative matrices (tensor cores), as `16x16x16 f16 x f16 -> f32`.
    pub matrices: Vec<String>,
    /// What burn's kernels are compiled to here.
    pub compiler: Compiler,
    /// What burn would compile to if nobody chose for it; where it differs from `compiler`, its kernels would be wrong, or there are none.
    #[serde(skip)]
    pub unasked: Compiler,
    /// Bytes.
    pub largest_buffer: u64,
    pub largest_storage_binding: u64,
    /// Bytes of the device's own memory, where the API tells.
    pub memory: Option<u64>,
    /// Why nothing is run on this adapter.
    pub refused: Option<String>,
}

/// The processor, as manifests and `moue devices` describe it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuInfo {
    pub name: String,
    /// Vector instructions that sums may be rounded by, as `avx2 fma`; empty on processors that are not asked.
    pub features: String,
    /// Threads that may run at once.
    pub cores: usize,
    pub memory: Option<u64>,
}

impl Api {
    pub const ALL: [Api; 4] = [Api::Metal, Api::Vulkan, Api::Dx12, Api::Gl];

    pub(super) fn backend(self) -> wgpu::Backend {
        match self {
            Api::Metal => wgpu::Backend::Metal,
            Api::Vulkan => wgpu::Backend::Vulkan,
            Api::Dx12 => wgpu::Backend::Dx12,
            Api::Gl => wgpu::Backend::Gl,
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Api::Metal => "Metal",
            Api::Vulkan => "Vulkan",
            Api::Dx12 => "Dx12",
            Api::Gl => "OpenGL",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Other => "other",
            Kind::Cpu => "cpu",
        })
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compiler::Spirv => "SPIR-V",
            Compiler::Msl => "MSL",
            Compiler::Wgsl => "WGSL",
        })
    }
}

impl From<DeviceType> for Kind {
    fn from(kind: DeviceType) -> Self {
        match kind {
            DeviceType::DiscreteGpu => Kind::Discrete,
            DeviceType::IntegratedGpu => Kind::Integrated,
            DeviceType::VirtualGpu => Kind::Virtual,
            DeviceType::Cpu => Kind::Cpu,
            DeviceType::Other => Kind::Other,
        }
    }
}

impl AdapterInfo {
    /// The place of the adapter in lists and messages; for Vulkan it is also what `--device` takes.
    pub fn place(&self) -> String {
        format!("{}:{}", if self.api == Api::Gl { "gl".into() } else { self.api.to_string().to_lowercase() }, self.index)
    }

    /// What is known to go wrong with this driver when burn's kernels are compiled to `compiler`.
    pub fn trouble(&self, compiler: Compiler) -> Option<Trouble> {
        match (self.compiler == self.unasked, compiler == self.unasked) {
            (true, _) => None,
            (false, true) => Some(Trouble::Wrong),
            (false, false) => Some(Trouble::Avoided),
        }
    }

    fn new(api: Api, index: usize, adapter: &Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let kind = Kind::from(info.device_type);
        let native = Native::of(adapter);
        let unasked = match api {
            Api::Metal => Compiler::Msl,
            Api::Vulkan if native.compiles => Compiler::Spirv,
            _ => Compiler::Wgsl,
        };
        let mut this = Self {
            api,
            index,
            name: info.name,
            kind,
            driver: info.driver,
            driver_version: info.driver_info,
            pci: Some(info.device_pci_bus_id).filter(|id| !id.is_empty()),
            f16: features.contains(Features::SHADER_F16),
            matrices: native.matrices,
            compiler: if native.sound { unasked } else { Compiler::Wgsl },
            unasked,
            largest_buffer: limits.max_buffer_size,
            largest_storage_binding: limits.max_storage_buffer_binding_size,
            memory: native.memory,
            refused: None,
        };
        if this.matrices.is_empty() && features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            let shape = |p: &wgpu::CooperativeMatrixProperties| {
                let (ab, cr) = (format!("{:?}", p.ab_type).to_lowercase(), format!("{:?}", p.cr_type).to_lowercase());
                format!("{}x{}x{} {ab} x {ab} -> {cr}", p.m_size, p.n_size, p.k_size)
            };
            this.matrices = adapter.cooperative_matrix_properties().iter().map(shape).collect();
        }
        // burn binds at least an input and an output.
        let computes = limits.max_compute_invocations_per_workgroup > 0 && limits.max_storage_buffers_per_shader_stage >= 2;
        this.refused = (!computes).then(|| "it has no compute shaders".into());
        this
    }
}

/// What burn's own look at an adapter of Vulkan or Metal tells beyond wgpu, which hides the memory and knows only 8x8 matrices.
struct Native {
    matrices: Vec<String>,
    /// Whether burn compiles to the API's own language here.
    compiles: bool,
    /// Whether what comes of that can be used. Where a Vulkan driver lacks `VK_KHR_workgroup_memory_explicit_layout`, cubecl-spirv 0.11.3
    /// mixes up shared memory and the pointer to it. What comes of that is the driver's choice: Mesa's lavapipe (22.3, 25.0) ends the process
    /// with a segmentation fault in matrix products, full sums and layer norms; SwiftShader returns matrix products that are wrong or zero.
    /// Where a system's Metal is too old for burn's MSL, burn opens no device that is asked for by its API.
    sound: bool,
    memory: Option<u64>,
}

impl Native {
    fn of(adapter: &Adapter) -> Self {
        let info = adapter.get_info();
        let backend = info.backend;
        let mut properties = wgsl_server::properties(info, &adapter.limits(), adapter.features());
        let mut options = WgpuCompilationOptions::default();
        let (compiles, sound) = match backend {
            wgpu::Backend::Vulkan => {
                let compiles = cubecl::wgpu::vulkan::register_vulkan_features(adapter, &mut properties, &mut options);
                (compiles, !compiles || options.vulkan.supports_explicit_smem)
            }
            wgpu::Backend::Metal => {
                let compiles = register_metal_features(adapter, &mut properties, &mut options);
                (compiles, compiles)
            }
            _ => (false, true),
        };
        let shapes: BTreeSet<String> = (properties.features.matmul.cmma.iter())
            .map(|c| format!("{}x{}x{} {} x {} -> {}", c.m, c.n, c.k, c.a_type, c.b_type, c.cd_type))
            .collect();
        Self { matrices: shapes.into_iter().collect(), compiles, sound, memory: properties.memory.max_memory() }
    }
}

#[cfg(target_os = "macos")]
use cubecl::wgpu::metal::register_metal_features;

#[cfg(not(target_os = "macos"))]
fn register_metal_features(_: &Adapter, _: &mut DeviceProperties, _: &mut WgpuCompilationOptions) -> bool {
    false
}

/// Every adapter of every API, in the order in which burn counts them.
pub fn adapters() -> Vec<AdapterInfo> {
    let present = Instance::enabled_backend_features();
    let mut found = Vec::new();
    for api in Api::ALL {
        let backends = Backends::from(api.backend());
        if !present.contains(backends) {
            continue;
        }
        // One instance for each API, as burn makes them: the numbers have to mean the same adapters.
        let instance = Instance::new(InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() });
        let of_api = cubecl::future::block_on(instance.enumerate_adapters(backends));
        found.extend(of_api.iter().enumerate().map(|(index, adapter)| AdapterInfo::new(api, index, adapter)));
    }
    found
}

/// The processor of this machine; on systems without `/proc` only its architecture is known.
pub fn cpu() -> CpuInfo {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let name = field("/proc/cpuinfo", "model name").filter(|name| !name.is_empty());
    let kilobytes = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    CpuInfo {
        name: name.unwrap_or_else(|| std::env::consts::ARCH.into()),
        features: vector_instructions(),
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        memory: kilobytes.map(|k| k * 1024),
    }
}

#[cfg(target_arch = "x86_64")]
fn vector_instructions() -> String {
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    known.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_instructions() -> String {
    String::new()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A made-up adapter.
    pub fn adapter(api: Api, index: usize, kind: Kind, name: &str) -> AdapterInfo {
        AdapterInfo {
            api,
            index,
            name: name.into(),
            kind,
            driver: String::new(),
            driver_version: String::new(),
            pci: None,
            f16: true,
            matrices: Vec::new(),
            compiler: if api == Api::Vulkan { Compiler::Spirv } else { Compiler::Wgsl },
            unasked: if api == Api::Vulkan { Compiler::Spirv } else { Compiler::Wgsl },
            largest_buffer: 1 << 30,
            largest_storage_binding: 1 << 30,
            memory: None,
            refused: None,
        }
    }

    #[test]
    fn a_driver_without_explicit_layouts_is_trouble_under_spirv_only() {
        let sound = adapter(Api::Vulkan, 0, Kind::Discrete, "RTX");
        let old = AdapterInfo { compiler: Compiler::Wgsl, ..sound.clone() };
        assert_eq!([Compiler::Spirv, Compiler::Wgsl].map(|c| sound.trouble(c)), [None; 2]);
        assert_eq!(old.trouble(Compiler::Spirv), Some(Trouble::Wrong));
        assert_eq!(old.trouble(old.compiler), Some(Trouble::Avoided));
    }

    #[test]
    fn looking_never_fails() {
        for (i, a) in adapters().iter().enumerate() {
            assert!(!a.place().is_empty(), "adapter {i}");
        }
        assert!(cpu().cores > 0 && !cpu().name.is_empty());
    }
}
