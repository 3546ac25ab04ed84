//! How many processors a GPU has (streaming multiprocessors, compute units), which wgpu does not tell: work is cut so that all of them are
//! busy to the end.

/// Where nobody tells: that of a GPU of the middle. A wrong number costs a part of the last round.
const USUAL: usize = 64;

/// Those of an adapter; a guess where its driver does not tell.
pub fn count(adapter: &wgpu::Adapter) -> usize {
    told(adapter).filter(|count| *count > 0).unwrap_or(USUAL)
}

/// By Vulkan's extensions of NVIDIA and AMD.
#[cfg(not(target_vendor = "apple"))]
fn told(adapter: &wgpu::Adapter) -> Option<usize> {
    use ash::{amd, nv, vk};
    #[expect(unsafe_code, reason = "the driver is asked past wgpu")]
    // SAFETY: nothing is destroyed, and the handle is dropped before the adapter.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let known = adapter.physical_device_capabilities();
    if known.properties().api_version < vk::API_VERSION_1_1 || adapter.shared_instance().instance_api_version() < vk::API_VERSION_1_1 {
        return None;
    }
    let mut of_nvidia = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
    let mut of_amd = vk::PhysicalDeviceShaderCorePropertiesAMD::default();
    let mut asked = vk::PhysicalDeviceProperties2::default();
    if known.supports_extension(nv::shader_sm_builtins::NAME) {
        asked = asked.push_next(&mut of_nvidia);
    }
    if known.supports_extension(amd::shader_core_properties::NAME) {
        asked = asked.push_next(&mut of_amd);
    }
    #[expect(unsafe_code, reason = "the driver is asked past wgpu")]
    // SAFETY: both are at version 1.1, which has this; the adapter is alive, and every structure is one that the driver knows.
    unsafe {
        adapter.shared_instance().raw_instance().get_physical_device_properties2(adapter.raw_physical_device(), &mut asked);
    }
    let compute_units = of_amd.shader_engine_count * of_amd.shader_arrays_per_engine_count * of_amd.compute_units_per_shader_array;
    Some(of_nvidia.shader_sm_count.max(compute_units) as usize)
}

#[cfg(target_vendor = "apple")]
fn told(_adapter: &wgpu::Adapter) -> Option<usize> {
    None
}
