//! Checks our shaders for every graphics API: valid under naga's full rules without any optional feature, within WebGPU's default limits,
//! and translatable to the language of each. Needs no GPU, so a Linux machine checks what Metal and DX12 get.

use super::gpu::{Constants, Kernel};
use super::reference::hog::Layout;
use super::reference::patch_pixels::Patches;
use super::teams::Team;
use super::{adamw, column_sums, dropout, hog, layer_norm, patch_gather, patch_pixels, product, softmax, squares};
use naga::back::{glsl, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::{BoundsCheckPolicies, Layouter};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage};
use std::collections::HashSet;

/// An entry point with values for its constants.
#[derive(Debug)]
pub struct Variant {
    pub kernel: &'static Kernel,
    pub constants: Constants,
}

/// What a shader becomes.
#[derive(Debug)]
pub struct Translated {
    /// Vulkan: length of the SPIR-V in words.
    pub spirv_words: usize,
    /// Metal.
    pub msl: String,
    /// DX12.
    pub hlsl: String,
    /// OpenGL ES 3.1.
    pub glsl: String,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

/// Every kernel in every combination of constants of the presets, the selftest and the tests, and some beyond.
pub fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for (channels, cell, window) in
        [1, 3].into_iter().flat_map(|c| [1, 4, 5, 8, 16, 80, 200].into_iter().flat_map(move |s| [0, 16].map(|w| (c, s, w))))
    {
        let layout = Layout { width: 224, height: 224, channels, cell, window };
        for patch in [0, cell, 2 * cell] {
            all.push(Variant { kernel: &hog::HOG, constants: hog::constants(&layout, patch) });
        }
    }
    all.push(Variant { kernel: &patch_gather::GATHER, constants: patch_gather::constants(false) });
    all.extend([false, true].map(|halves| Variant { kernel: &patch_gather::SCATTER, constants: patch_gather::constants(halves) }));
    for (channels, side) in [1, 3].into_iter().flat_map(|c| [1, 4, 8, 16, 17].map(|s| (c, s))) {
        let patches = Patches { width: 224, height: 224, channels, side };
        all.push(Variant { kernel: &patch_pixels::PATCH_PIXELS, constants: patch_pixels::constants(&patches) });
    }
    for team in Team::all() {
        let gradients = [&layer_norm::GRADIENTS, &layer_norm::GRADIENTS_ONTO];
        all.extend(gradients.map(|kernel| Variant { kernel, constants: layer_norm::constants(team, false) }));
        let along = [false, true].map(|masked| layer_norm::along_constants(team, masked));
        all.extend(along.map(|constants| Variant { kernel: &layer_norm::GRADIENTS_ALONG, constants }));
        for halves in [false, true] {
            all.push(Variant { kernel: &layer_norm::NORM, constants: layer_norm::constants(team, halves) });
            let both = [&softmax::SOFTMAX, &softmax::GRADIENT];
            all.extend(both.map(|kernel| Variant { kernel, constants: softmax::constants(team, halves) }));
        }
    }
    all.push(Variant { kernel: &layer_norm::SUMS, constants: Constants::new() });
    all.extend([false, true].map(|halves| Variant { kernel: &column_sums::COLUMN_SUMS, constants: column_sums::constants(halves) }));
    let steps = [(false, false), (true, false), (false, true)];
    all.extend(steps.map(|(first, computed)| Variant { kernel: &adamw::ADAMW, constants: adamw::constants(first, computed) }));
    all.extend(
        [&squares::SQUARES, &squares::FOUR, &squares::ADD, &squares::ADD_CHUNK, &dropout::DROPOUT]
            .map(|kernel| Variant { kernel, constants: Constants::new() }),
    );
    for way in [false, true].map(|halves| product::Way::Plain { halves }) {
        let variant = |(turned, tall, finish)| Variant { kernel: way.kernel(finish), constants: way.constants(turned, tall, finish) };
        all.extend(product::uses(way).into_iter().map(variant));
    }
    all
}

impl Variant {
    /// Validates and translates.
    ///
    /// # Errors
    /// What is wrong with the shader, and for which language.
    pub fn translate(&self) -> Result<Translated, String> {
        let entry = self.kernel.entry;
        let told = |what: &'static str| move |e: &dyn std::fmt::Display| format!("shaders/{}.wgsl, {entry}, {what}: {e}", self.kernel.name);
        let module =
            naga::front::wgsl::parse_str(self.kernel.source).map_err(|e| told("parsing")(&e.emit_to_string(self.kernel.source)))?;
        // Core WGSL, although naga counts it as a capability: pack2x16float and unpack2x16float.
        let validator = || Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32);
        let info = validator().validate(&module).map_err(|e| told("validation")(&e.emit_to_string(self.kernel.source)))?;
        let constants = self.constants.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
        let stage = (ShaderStage::Compute, entry);
        let (module, _) = process_overrides(&module, &info, Some(stage), &constants).map_err(|e| told("constants")(&e))?;
        let info = validator().validate(&module).map_err(|e| told("validation with constants")(&e.into_inner()))?;
        let workgroup_bytes = self.check_limits(&module)?;

        let stage = (ShaderStage::Compute, entry.to_string());
        let options = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string() };
        let spirv = spv::write_vec(&module, &info, &spv::Options::default(), Some(&options)).map_err(|e| told("SPIR-V")(&e))?;
        let options = msl::Options { lang_version: (2, 1), ..Default::default() };
        let pipeline = msl::PipelineOptions { entry_point: Some(stage.clone()), ..Default::default() };
        let (msl, _) = msl::write_string(&module, &info, &options, &pipeline).map_err(|e| told("MSL")(&e))?;
        let mut hlsl = String::new();
        let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
        let pipeline = hlsl::PipelineOptions { entry_point: Some(stage) };
        hlsl::Writer::new(&mut hlsl, &options, &pipeline).write(&module, &info, None).map_err(|e| told("HLSL")(&e))?;
        let mut glsl = String::new();
        let options = glsl::Options::default();
        let pipeline = glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string(), multiview: None };
        glsl::Writer::new(&mut glsl, &module, &info, &options, &pipeline, BoundsCheckPolicies::default())
            .and_then(|mut writer| writer.write())
            .map_err(|e| told("GLSL")(&e))?;
        Ok(Translated { spirv_words: spirv.len(), msl, hlsl, glsl, workgroup_bytes })
    }

    /// WebGPU's default limits, which every adapter grants; for products, which burn's operations do where a device has less, what GPUs have.
    fn check_limits(&self, module: &naga::Module) -> Result<u32, String> {
        let demands = Demands::of(module, self.kernel.entry)?;
        let mut limits = wgpu::Limits::defaults();
        if product::PLAIN.iter().any(|plain| plain.name == self.kernel.name) {
            limits.max_compute_workgroup_storage_size = product::PLAIN_BYTES;
        }
        if let Some(short) = demands.beyond(&limits).first() {
            return Err(format!("shaders/{}.wgsl: {} {}, granted are {}", self.kernel.name, short.have, short.what, short.most));
        }
        let Demands { workgroup_bytes, buffers, threads } = demands;
        if buffers as usize != self.kernel.buffers || threads == 0 {
            return Err(format!("shaders/{}.wgsl: {} buffers are bound, the shader has {buffers}", self.kernel.name, self.kernel.buffers));
        }
        Ok(workgroup_bytes)
    }
}

/// What a shader asks of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    pub workgroup_bytes: u32,
    /// Storage buffers.
    pub buffers: u32,
    /// In a workgroup.
    pub threads: u32,
}

/// A demand that a device does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub what: &'static str,
    pub have: u32,
    pub most: u32,
}

impl Demands {
    fn of(module: &naga::Module, entry: &str) -> Result<Self, String> {
        let mut layouter = Layouter::default();
        layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
        let in_space = |wanted: fn(AddressSpace) -> bool| module.global_variables.iter().filter(move |(_, v)| wanted(v.space));
        Ok(Self {
            workgroup_bytes: in_space(|s| s == AddressSpace::WorkGroup).map(|(_, v)| layouter[v.ty].size).sum(),
            // Entry points of one shader may have different buffers at the same binding.
            buffers: in_space(|s| matches!(s, AddressSpace::Storage { .. })).filter_map(|(_, v)| v.binding).collect::<HashSet<_>>().len()
                as u32,
            threads: module.entry_points.iter().find(|e| e.name == entry).map_or(0, |e| e.workgroup_size.iter().product()),
        })
    }

    /// The most that any of our kernels asks, whatever its constants: none of them sizes memory or workgroups. Products are left out: where a
    /// device has too little for them, burn's operations do.
    ///
    /// # Errors
    /// A shader that does not parse.
    pub fn of_all() -> Result<Self, String> {
        let kernels = [
            &adamw::ADAMW,
            &column_sums::COLUMN_SUMS,
            &dropout::DROPOUT,
            &hog::HOG,
            &layer_norm::NORM,
            &layer_norm::GRADIENTS,
            &layer_norm::GRADIENTS_ONTO,
            &layer_norm::GRADIENTS_ALONG,
            &layer_norm::SUMS,
            &patch_gather::GATHER,
            &patch_gather::SCATTER,
            &patch_pixels::PATCH_PIXELS,
            &softmax::SOFTMAX,
            &softmax::GRADIENT,
            &squares::SQUARES,
            &squares::FOUR,
            &squares::ADD,
            &squares::ADD_CHUNK,
        ];
        kernels.into_iter().try_fold(Self::default(), |most, kernel| {
            let module = naga::front::wgsl::parse_str(kernel.source).map_err(|e| e.emit_to_string(kernel.source))?;
            let one = Self::of(&module, kernel.entry)?;
            Ok(Self {
                workgroup_bytes: most.workgroup_bytes.max(one.workgroup_bytes),
                buffers: most.buffers.max(one.buffers),
                threads: most.threads.max(one.threads),
            })
        })
    }

    /// What of them a device does not grant.
    pub fn beyond(&self, limits: &wgpu::Limits) -> Vec<Shortage> {
        let all = [
            ("bytes of workgroup memory", self.workgroup_bytes, limits.max_compute_workgroup_storage_size),
            ("storage buffers", self.buffers, limits.max_storage_buffers_per_shader_stage),
            ("threads in a workgroup", self.threads, limits.max_compute_invocations_per_workgroup),
        ];
        all.into_iter().filter(|(_, have, most)| have > most).map(|(what, have, most)| Shortage { what, have, most }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention;
    use super::*;

    /// The kernels that need features, and are used where they are.
    #[test]
    fn what_is_on_cooperative_matrices_becomes_spirv() {
        let way = product::Way::Matrices;
        let capabilities = Capabilities::SHADER_FLOAT16 | Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::COOPERATIVE_MATRIX;
        let validate = |module: &naga::Module| Validator::new(ValidationFlags::all(), capabilities).validate(module).unwrap();
        let products =
            product::uses(way).into_iter().map(|(turned, tall, finish)| (way.kernel(finish), way.constants(turned, tall, finish)));
        let widths = attention::WIDTHS.map(attention::constants);
        let attentions = widths.iter().flat_map(|constants| attention::MATRICES.iter().map(|kernel| (kernel, constants.clone())));
        for (kernel, constants) in products.chain(attentions) {
            let module = naga::front::wgsl::parse_str(kernel.source).unwrap();
            let constants = constants.iter().map(|&(name, value)| (name.to_string(), f64::from(value))).collect();
            let info = validate(&module);
            let stage = Some((ShaderStage::Compute, kernel.entry));
            let (module, _) = process_overrides(&module, &info, stage, &constants).unwrap();
            let info = validate(&module);
            let demands = Demands::of(&module, kernel.entry).unwrap();
            assert!(demands.workgroup_bytes <= product::WORKGROUP_BYTES && demands.buffers as usize == kernel.buffers, "{demands:?}");
            let options = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: kernel.entry.into() };
            let spirv =
                spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 4), ..Default::default() }, Some(&options)).unwrap();
            // OpCooperativeMatrixMulAddKHR
            assert!(spirv.iter().any(|word| word & 0xffff == 4459));
        }
    }

    #[test]
    fn every_variant_is_valid_everywhere() {
        for variant in variants() {
            let t = variant.translate().unwrap();
            assert!(
                t.spirv_words > 100 && t.msl.contains("kernel void") && t.hlsl.contains("[numthreads(") && t.glsl.contains("void main()")
            );
        }
    }

    #[test]
    fn what_webgpu_does_not_grant_is_told() {
        static GREEDY: Kernel = Kernel {
            name: "greedy",
            entry: "main",
            buffers: 1,
            results: 1,
            checks_itself: false,
            varies: false,
            source: "var<workgroup> a: array<u32, 5000>; @group(0) @binding(1) var<storage, read_write> b: array<u32>;
                @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { a[i] = b[i]; b[i] = a[0]; }",
        };
        let error = Variant { kernel: &GREEDY, constants: Vec::new() }.translate().unwrap_err();
        assert!(error.contains("20000 bytes of workgroup memory"), "{error}");
        static WRONG: Kernel = Kernel {
            name: "wrong",
            entry: "main",
            buffers: 0,
            results: 0,
            checks_itself: false,
            varies: false,
            source: "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }",
        };
        assert!(Variant { kernel: &WRONG, constants: Vec::new() }.translate().unwrap_err().contains("shaders/wrong.wgsl"));
    }
}
