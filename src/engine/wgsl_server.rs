//! burn's compute server with the WGSL compiler, on an adapter where burn would take another one by itself. It owns the request of the wgpu
//! device, what the server says the device can do, and the registration under the id that burn looks up. Which compiler an adapter gets is
//! decided in [`adapters`](super::adapters).
//!
//! Where a Vulkan driver has the buffer addresses and the memory model that SPIR-V kernels need, cubecl makes SPIR-V, and there is no option
//! against it. On drivers without explicit layouts of workgroup memory that SPIR-V is invalid. Through WGSL it is naga that makes the SPIR-V,
//! which is right everywhere, and slower: no cooperative matrices, no raw pointers. Only the set-up differs; burn sees the usual device.

use super::adapters::AdapterInfo;
use anyhow::{Context, Result, anyhow};
use cubecl::WgpuCompilationOptions;
use cubecl::client::Client;
use cubecl::device_handle::ServiceCreationError;
use cubecl::features::{AtomicUsage, Plane, TypeUsage};
use cubecl::future::block_on;
use cubecl::ir::{AddressType, ElemType, FloatKind, IntKind, Type, UIntKind};
use cubecl::ir::{DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties};
use cubecl::profile::TimingMethod;
use cubecl::wgpu::{AutoCompiler, RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuServer, WgpuSetup};
use cubecl_common::device::{Device, ServiceId};
use cubecl_server::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_server::logging::ServerLogger;
use cubecl_server::runtime::Runtime;
use cubecl_server::server::ServerUtilities;
use std::sync::Arc;
use wgpu::{Backends, DeviceDescriptor, DeviceType, Features, Instance, InstanceDescriptor, Limits, MemoryHints};

/// The type under which burn's wgpu devices are registered. It can compile to every language; the options choose.
pub(super) type Server = WgpuServer<AutoCompiler>;

/// Opens `adapter` so that burn finds it as `device`. Fails if something is registered as `device` already.
pub(super) fn open(device: &WgpuDevice, adapter: &AdapterInfo, options: RuntimeOptions) -> Result<WgpuSetup> {
    let setup = block_on(request(adapter))?;
    let server = server(&setup, device, adapter, options);
    Client::try_init(device.to_id(), server).map_err(|e: ServiceCreationError| anyhow!("registering {device:?}: {e:?}"))?;
    Ok(setup)
}

async fn request(info: &AdapterInfo) -> Result<WgpuSetup> {
    let backend = info.api.backend();
    let backends = Backends::from(backend);
    let instance = Instance::new(InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() });
    let adapter = instance.enumerate_adapters(backends).await.into_iter().nth(info.index);
    let adapter = adapter.with_context(|| format!("{} is gone", info.place()))?;
    let descriptor = DeviceDescriptor {
        label: Some("moue"),
        // Buffers that can be mapped are slow on a GPU with its own memory, and nothing here is written for an experimental feature.
        required_features: adapter.features() - Features::MAPPABLE_PRIMARY_BUFFERS - Features::all_experimental_mask(),
        required_limits: adapter.limits(),
        // cubecl pools its buffers itself.
        memory_hints: MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await.context("requesting the device")?;
    Ok(WgpuSetup { instance, adapter, device, queue, backend })
}

fn server(setup: &WgpuSetup, device: &WgpuDevice, adapter: &AdapterInfo, options: RuntimeOptions) -> Server {
    let (limits, features) = (setup.device.limits(), setup.device.features());
    let mut properties = properties(setup.adapter.get_info(), &limits, features);
    register_types(&mut properties, features);
    properties.memory.set_max_memory(adapter.memory.unwrap_or(0));
    let compilation = WgpuCompilationOptions {
        supports_u64: properties.supports_type(ElemType::UInt(UIntKind::U64)),
        // These two make the choice.
        supports_vulkan_compiler: false,
        supports_msl_compiler: false,
        ..Default::default()
    };
    let (memory, timing) = (properties.memory.clone(), properties.timing_method);
    let layout = ContiguousMemoryLayoutPolicy::new(memory.alignment as usize);
    let service = ServiceId::of::<Server>(device.to_id());
    let target = WgpuRuntime::<AutoCompiler>::target_properties();
    let (utilities, captures) = ServerUtilities::init(service, "wgpu<wgsl>", properties, target, Arc::new(ServerLogger::default()), layout);
    WgpuServer::new(
        memory,
        options.memory_config,
        compilation,
        setup.device.clone(),
        setup.queue.clone(),
        options.tasks_max,
        setup.backend,
        timing,
        utilities,
        captures,
    )
}

/// What cubecl has to know of any wgpu adapter, short of the types that a compiler supports.
pub(super) fn properties(info: wgpu::AdapterInfo, limits: &Limits, features: Features) -> DeviceProperties {
    // Some reductions ask for the size of subgroups even where they do without; a driver that names none gets the widest range there is.
    let (plane_min, plane_max) = match (info.subgroup_min_size, info.subgroup_max_size) {
        (0, 0) => (8, 128),
        sizes => sizes,
    };
    let cubes = limits.max_compute_workgroups_per_dimension;
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: plane_min,
        plane_size_max: plane_max,
        // wgpu may need one for itself.
        max_bindings: limits.max_storage_buffers_per_shader_stage.saturating_sub(1),
        max_shared_memory_size: limits.max_compute_workgroup_storage_size as usize,
        max_cube_count: (cubes, cubes, cubes),
        max_units_per_cube: limits.max_compute_invocations_per_workgroup,
        max_cube_dim: (limits.max_compute_workgroup_size_x, limits.max_compute_workgroup_size_y, limits.max_compute_workgroup_size_z),
        num_streaming_multiprocessors: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        max_vector_size: 4,
        cube_mma_reserved_shared_memory: 0,
    };
    let alignment = limits.min_uniform_buffer_offset_alignment.max(limits.min_storage_buffer_offset_alignment);
    let memory = MemoryDeviceProperties::new(limits.max_storage_buffer_binding_size.min(limits.max_buffer_size), alignment.into());
    let timing = if features.contains(Features::TIMESTAMP_QUERY) { TimingMethod::Device } else { TimingMethod::System };
    // Keys what is kept between runs, such as autotuning: it has to differ from that of the same adapter under SPIR-V.
    let fingerprint = format!("wgsl_{}_{}", info.vendor, info.device);
    let identity = DeviceIdentity { name: info.name, fingerprint, physical: None };
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, timing, identity);
    // As in burn: software drivers are slower with them.
    if features.contains(Features::SUBGROUP) && info.device_type != DeviceType::Cpu {
        properties.features.plane.insert(Plane::Ops);
    }
    properties
}

/// The types that WGSL, as naga reads it, has on a device with these features.
fn register_types(properties: &mut DeviceProperties, features: Features) {
    use ElemType::{Bool, Float, Index, Int, UInt};
    properties.register_address_type(AddressType::U32);
    let always = [Index, UInt(UIntKind::U32), Int(IntKind::I32), Float(FloatKind::F32), Float(FloatKind::Flex32), Bool];
    let optional = [
        (Features::SHADER_INT64, Int(IntKind::I64)),
        (Features::SHADER_INT64, UInt(UIntKind::U64)),
        (Features::SHADER_F64, Float(FloatKind::F64)),
        (Features::SHADER_F16, Float(FloatKind::F16)),
    ];
    let optional = optional.into_iter().filter(|(needed, _)| features.contains(*needed)).map(|(_, kind)| kind);
    for kind in always.into_iter().chain(optional) {
        properties.register_type_usage(kind, TypeUsage::all());
    }
    let float_atomics = features.contains(Features::SHADER_FLOAT32_ATOMIC).then_some(Float(FloatKind::F32));
    for kind in [Int(IntKind::I32), UInt(UIntKind::U32)].into_iter().chain(float_atomics) {
        properties.register_atomic_type_usage(Type::atomic(kind), AtomicUsage::LoadStore | AtomicUsage::Exchange | AtomicUsage::Add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::{AdapterInfo, Backend};

    fn of(kind: DeviceType, features: Features) -> DeviceProperties {
        let mut properties = properties(AdapterInfo::new(kind, Backend::Vulkan), &Limits::default(), features);
        register_types(&mut properties, features);
        properties
    }

    #[test]
    fn types_and_subgroups_follow_the_features() {
        let (half, float) = (ElemType::Float(FloatKind::F16), ElemType::Float(FloatKind::F32));
        let plain = of(DeviceType::DiscreteGpu, Features::empty());
        assert!(plain.supports_type(float) && !plain.supports_type(half) && plain.features.plane.is_empty());
        let rich = of(DeviceType::DiscreteGpu, Features::SHADER_F16 | Features::SUBGROUP);
        assert!(rich.supports_type(half) && rich.features.plane.contains(Plane::Ops));
        assert!(of(DeviceType::Cpu, Features::SUBGROUP).features.plane.is_empty());
        assert!(!rich.supports_type(ElemType::UInt(UIntKind::U8)), "WGSL has no bytes");
    }
}
