//! Runs our WGSL on the wgpu device and queue that burn uses: compiles and keeps pipelines, binds buffers, cuts a batch that is larger than
//! one binding may be, and dispatches. Knows no tensor (that is [`queue`](super::queue)), and of single kernels only which of the products a
//! device gets right.
//!
//! Our shaders do not go through cubecl, which takes WGSL only where its own compiler is WGSL. They are ordinary compute pipelines on the
//! same queue, whatever compiler burn chose.
//!
//! Every storage binding is `read_write`: burn hands out pieces of large buffers, two operands may be pieces of the same one, and wgpu
//! allows that within a dispatch only if both are bound in the same way.

use super::attention;
use super::processors;
use super::product::{self, Way};
use super::queue::Copied;
use super::timer::{Lap, Name, Timer};
use crate::failure::{expect_panics, survive};
use cubecl::wgpu::{WgpuDevice, WgpuSetup};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use wgpu::util::{BufferInitDescriptor, DeviceExt};

/// Buffers whose beginnings stand in `base` of every shader's `Params`; those of further ones stand behind `groups_x`.
pub const BASES: usize = 4;

/// An entry point of a shader.
#[derive(Debug)]
pub struct Kernel {
    /// File name under `shaders/`, without its ending; of a product also what becomes of it.
    pub name: &'static str,
    pub source: &'static str,
    pub entry: &'static str,
    /// Storage buffers, at bindings 1 and up; binding 0 is the uniform `Params`.
    pub buffers: usize,
    /// Of these, those that it writes, which are the last ones.
    pub results: usize,
    /// Whether it goes without wgpu's bounds checks: no index comes from a tensor, and sizes are checked on the host. Its data begins at
    /// multiples of [`ALIGNED`] bytes of what is bound.
    pub checks_itself: bool,
    /// Whether its parameters are others at every step, so that nothing is gained by keeping them.
    pub varies: bool,
}

/// Values of a shader's `override` constants, by name.
pub type Constants = Vec<(&'static str, u32)>;

/// What four f32 take, which some kernels read at once.
pub const ALIGNED: u64 = 16;

/// Where data lies.
#[derive(Clone, Debug)]
pub struct Region {
    pub buffer: wgpu::Buffer,
    /// Where it begins, in bytes.
    pub offset: u64,
}

/// The data of a storage buffer of a launch; `P` says where it is.
#[derive(Clone, Debug)]
pub struct Operand<P = Region> {
    pub place: P,
    /// Bytes of data.
    pub size: u64,
    /// Bytes that belong to one sample, of which the last may have fewer; 0 where all samples share the whole.
    pub per_sample: u64,
}

/// One use of a kernel.
#[derive(Clone, Debug)]
pub struct Launch<P = Region> {
    pub kernel: &'static Kernel,
    pub constants: Constants,
    pub operands: Vec<Operand<P>>,
    pub samples: usize,
    /// Workgroups for each sample.
    pub groups: usize,
    /// What `Params` holds after `base`, `groups`, `groups_x` and the beginnings of more than [`BASES`] buffers.
    pub params: Vec<u32>,
}

impl<P> Launch<P> {
    /// The operands that the kernel reads only.
    pub fn sources(&self) -> &[Operand<P>] {
        &self.operands[..self.operands.len() - self.kernel.results]
    }

    /// Those that it writes.
    pub fn results(&self) -> &[Operand<P>] {
        &self.operands[self.operands.len() - self.kernel.results..]
    }

    /// The same launch with its data elsewhere.
    pub fn placed<Q, E>(self, mut place: impl FnMut(P) -> Result<Q, E>) -> Result<Launch<Q>, E> {
        let Self { kernel, constants, operands, samples, groups, params } = self;
        let placed =
            operands.into_iter().map(|Operand { place: old, size, per_sample }| Ok(Operand { place: place(old)?, size, per_sample }));
        let operands = placed.collect::<Result<_, E>>()?;
        Ok(Launch { kernel, constants, operands, samples, groups, params })
    }
}

/// Why a kernel did not run.
#[derive(Clone, Debug, PartialEq)]
pub enum GpuError {
    /// One sample alone is larger than a binding of the device may be.
    TooLarge { kernel: &'static str, bytes: u64, limit: u64 },
    /// Data of a kernel that reads [`ALIGNED`] bytes at once begins in the midst of them.
    Unaligned { kernel: &'static str, offset: u64 },
    /// The driver does not take the shader.
    Pipeline { kernel: &'static str, reason: String },
    /// A buffer cannot be read.
    Buffer { reason: String },
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuError::TooLarge { kernel, bytes, limit } => {
                write!(f, "kernel {kernel}: one sample takes {bytes} bytes, the device binds at most {limit}")
            }
            GpuError::Unaligned { kernel, offset } => {
                write!(f, "kernel {kernel}: data begins {offset} bytes into what is bound, not at a multiple of {ALIGNED}")
            }
            GpuError::Pipeline { kernel, reason } => write!(f, "kernel {kernel}: the driver refuses it: {reason}"),
            GpuError::Buffer { reason } => write!(f, "reading a buffer: {reason}"),
        }
    }
}

impl std::error::Error for GpuError {}

struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// File and entry point of a shader, and its constants.
type PipelineKey = (&'static str, &'static str, Constants);

/// A wgpu device with the pipelines made on it so far.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    bounds: Bounds,
    pipelines: Mutex<HashMap<PipelineKey, Arc<Pipeline>>>,
    /// By their words: launches are much the same from step to step, and a new buffer for each costs more than the launch.
    params: Mutex<HashMap<Vec<u32>, wgpu::Buffer>>,
    /// How products of f32 and of f16 are computed, where they come out right.
    single: Option<Way>,
    halves: Option<Way>,
    /// For each of [`attention::WIDTHS`], once somebody has asked: whether attention comes out right.
    attention: [OnceLock<bool>; attention::WIDTHS.len()],
    /// That work is shared out to.
    processors: usize,
    /// While launches are timed.
    timer: Mutex<Option<Timer>>,
}

/// Buffers of parameters that are kept.
const MOST_PARAMS: usize = 4096;

impl Gpu {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let bounds = Bounds::of(&device.limits());
        let (pipelines, params, timer) = (Mutex::default(), Mutex::default(), Mutex::default());
        let attention = Default::default();
        Self { device, queue, bounds, pipelines, params, single: None, halves: None, attention, processors: 1, timer }
    }

    /// With products in the best way that the device has and gets right.
    fn of(setup: &WgpuSetup) -> Self {
        let mut this = Self::new(setup.device.clone(), setup.queue.clone());
        let ways = product::ways(&this.device, &setup.adapter);
        // A driver may also answer with a panic of wgpu's.
        let _quiet = expect_panics();
        let works = |way: &Way| survive(|| Ok(product::works(&this, *way)?)).unwrap_or(false);
        let [single, halves] = ways.map(|ways| ways.into_iter().find(works));
        (this.single, this.halves, this.processors) = (single, halves, processors::count(&setup.adapter));
        this
    }

    /// How this device multiplies matrices of f32, or of f16 where `halves`; none where our kernels do not.
    pub fn products(&self, halves: bool) -> Option<Way> {
        if halves { self.halves } else { self.single }
    }

    /// How attention of f16 with heads of this width has kernels of its own; none where it is made of products. Tried where it is asked for
    /// first: few widths are.
    pub fn attention(&self, width: usize) -> Option<Way> {
        let (way, place) = (self.halves?, attention::WIDTHS.iter().position(|w| *w == width)?);
        let works = || {
            let _quiet = expect_panics();
            survive(|| Ok(attention::works(self, way, width)?)).unwrap_or(false)
        };
        self.attention[place].get_or_init(works).then_some(way)
    }

    /// How many of them the device has, as far as is known.
    pub fn processors(&self) -> usize {
        self.processors
    }

    /// Bytes that a kernel may bind at once.
    pub fn largest_binding(&self) -> u64 {
        self.bounds.binding.saturating_sub(self.bounds.alignment + 4)
    }

    /// Values of a buffer that can be copied from, once all that has been submitted is done.
    ///
    /// # Errors
    /// When the device does not hand them out.
    pub fn read(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>, GpuError> {
        read(&self.device, &self.queue, buffer)
    }

    /// Submits a copy of values to where the host can read them, for [`Gpu::copied`].
    pub fn copy_out(&self, place: &Region, size: u64) -> Copied {
        copy_out(&self.device, &self.queue, &place.buffer, place.offset, size)
    }

    /// The values of a copy, once it is done.
    ///
    /// # Errors
    /// When the device does not hand them out.
    pub fn copied(&self, copied: Copied) -> Result<Vec<f32>, GpuError> {
        mapped(&self.device, copied)
    }

    /// From now on the time of each launch is taken, until [`Gpu::laps`] asks for it. Whether the device can do that.
    pub fn time_launches(&self) -> bool {
        let can = self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        *self.timer.lock().unwrap_or_else(PoisonError::into_inner) = can.then(Timer::default);
        can
    }

    /// The time of each launch since [`Gpu::time_launches`]; no more is taken.
    ///
    /// # Errors
    /// When the device does not hand them out.
    pub fn laps(&self) -> Result<Vec<Lap>, GpuError> {
        let timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take();
        timer.map_or(Ok(Vec::new()), |timer| timer.read(&self.device, &self.queue))
    }

    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Submits launches to the queue, in their order; does not wait for them.
    ///
    /// # Errors
    /// Where one of them cannot run: none of them does then.
    pub fn run(&self, launches: &[Launch]) -> Result<(), GpuError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("moue") });
        let launches: Vec<&Launch> = launches.iter().filter(|launch| launch.samples > 0 && launch.groups > 0).collect();
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        match timer.as_mut() {
            None => self.encode(&mut encoder, &launches, None)?,
            Some(timer) => {
                for launch in launches {
                    let times = timer.next(&self.device, Name::of(launch));
                    self.encode(&mut encoder, &[launch], Some(times))?;
                }
            }
        }
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// In a pass of their own.
    fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        launches: &[&Launch],
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) -> Result<(), GpuError> {
        let mut dispatches = Vec::new();
        // A buffer for each would cost more than its launch.
        let mut varying = Vec::new();
        for &launch in launches {
            let pipeline = self.pipeline(launch.kernel, &launch.constants)?;
            for part in self.bounds.parts(launch)? {
                let windows: Vec<Window> = launch.operands.iter().map(|o| Window::of(o, &part, self.bounds.alignment)).collect();
                let groups = self.bounds.dispatch(launch, &part);
                let words = words(launch, &part, &windows, groups);
                let params = if launch.kernel.varies {
                    let begin = varying.len().next_multiple_of(self.bounds.uniform as usize / size_of::<u32>());
                    varying.resize(begin, 0);
                    varying.extend(&words);
                    Params::Varying(begin..varying.len())
                } else {
                    Params::Kept(self.params(words))
                };
                dispatches.push((launch, pipeline.clone(), windows, params, groups));
            }
        }
        let varying = (!varying.is_empty()).then(|| self.new_params(&varying));
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("moue"), timestamp_writes });
        for (launch, pipeline, windows, params, [x, y]) in &dispatches {
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &self.bind(&pipeline.layout, launch, windows, params.binding(varying.as_ref())), &[]);
            pass.dispatch_workgroups(*x, *y, 1);
        }
        Ok(())
    }

    fn bind(
        &self,
        layout: &wgpu::BindGroupLayout,
        launch: &Launch,
        windows: &[Window],
        params: wgpu::BufferBinding<'_>,
    ) -> wgpu::BindGroup {
        let storage = launch.operands.iter().zip(windows).map(|(operand, w)| wgpu::BufferBinding {
            buffer: &operand.place.buffer,
            offset: w.start,
            size: NonZeroU64::new(w.size),
        });
        let buffers = std::iter::once(params).chain(storage).map(wgpu::BindingResource::Buffer);
        let entries: Vec<_> = buffers.enumerate().map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource }).collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(launch.kernel.entry), layout, entries: &entries })
    }

    /// Kept for the launches that need the same.
    fn params(&self, words: Vec<u32>) -> wgpu::Buffer {
        let mut params = self.params.lock().unwrap_or_else(PoisonError::into_inner);
        if params.len() >= MOST_PARAMS {
            params.clear();
        }
        params.entry(words).or_insert_with_key(|words| self.new_params(words)).clone()
    }

    fn new_params(&self, words: &[u32]) -> wgpu::Buffer {
        self.device.create_buffer_init(&BufferInitDescriptor {
            label: Some("params"),
            contents: bytemuck::cast_slice(words),
            usage: wgpu::BufferUsages::UNIFORM,
        })
    }

    /// Compiles what will be wanted on all processors: some drivers take a second for a shader. What they refuse is told where it is used.
    pub fn prepare(&self, wanted: &[(&'static Kernel, Constants)]) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((kernel, constants)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.pipeline(kernel, constants).ok();
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }

    fn pipeline(&self, kernel: &'static Kernel, constants: &Constants) -> Result<Arc<Pipeline>, GpuError> {
        let pipelines = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kernel.name, kernel.entry, constants.clone());
        if let Some(known) = pipelines().get(&key).cloned() {
            return Ok(known);
        }
        // What a driver's compiler refuses is an internal error.
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let invalid = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = Arc::new(self.compile(kernel, constants));
        let errors = [invalid, internal].map(|scope| cubecl::future::block_on(scope.pop()));
        if let Some(error) = errors.into_iter().flatten().next() {
            return Err(GpuError::Pipeline {
                kernel: kernel.name,
                reason: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
            });
        }
        Ok(pipelines().entry(key).or_insert(made).clone())
    }

    fn compile(&self, kernel: &Kernel, constants: &Constants) -> Pipeline {
        let label = Some(kernel.entry);
        let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(kernel.source.into()) };
        let module = if kernel.checks_itself {
            #[expect(unsafe_code, reason = "checks of every access cost a tenth of the speed")]
            // SAFETY: the kernel reads and writes only what its sizes say, and the host checks these against its operands.
            unsafe {
                self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        } else {
            self.device.create_shader_module(descriptor)
        };
        let entries: Vec<_> = (0..=kernel.buffers as u32)
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: if binding == 0 { wgpu::BufferBindingType::Uniform } else { wgpu::BufferBindingType::Storage { read_only: false } },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let constants: Vec<(&str, f64)> = constants.iter().map(|&(name, value)| (name, f64::from(value))).collect();
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry),
            // The kernels write workgroup memory before they read it.
            compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, zero_initialize_workgroup_memory: false },
            cache: None,
        });
        Pipeline { pipeline, layout }
    }
}

/// What a shader's `Params` holds for a part of a launch, of `groups` workgroups along x and y.
fn words(launch: &Launch, part: &Range<usize>, windows: &[Window], groups: [u32; 2]) -> Vec<u32> {
    let mut words = [0u32; BASES].to_vec();
    words.iter_mut().zip(windows).for_each(|(base, w)| *base = w.base as u32);
    words.extend([(part.len() * launch.groups) as u32, groups[0]]);
    words.extend(windows.iter().skip(BASES).map(|w| w.base as u32));
    words.extend(&launch.params);
    words.resize(words.len().next_multiple_of(4), 0);
    words
}

/// Where the `Params` of a dispatch are.
enum Params {
    Kept(wgpu::Buffer),
    /// These words of the buffer of all that vary.
    Varying(Range<usize>),
}

impl Params {
    fn binding<'a>(&'a self, varying: Option<&'a wgpu::Buffer>) -> wgpu::BufferBinding<'a> {
        match self {
            Self::Kept(buffer) => wgpu::BufferBinding { buffer, offset: 0, size: None },
            Self::Varying(words) => {
                let bytes = |words: usize| (words * size_of::<u32>()) as u64;
                let buffer = varying.expect("a buffer where there are words");
                wgpu::BufferBinding { buffer, offset: bytes(words.start), size: NonZeroU64::new(bytes(words.len())) }
            }
        }
    }
}

/// Values of a buffer that can be copied from, once all that has been submitted is done.
///
/// # Errors
/// When the device does not hand them out.
pub fn read<T: bytemuck::Pod>(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) -> Result<Vec<T>, GpuError> {
    mapped(device, copy_out(device, queue, buffer, 0, buffer.size()))
}

fn copy_out(device: &wgpu::Device, queue: &wgpu::Queue, source: &wgpu::Buffer, offset: u64, size: u64) -> Copied {
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let buffer = device.create_buffer(&wgpu::BufferDescriptor { label: Some("copied"), size, usage, mapped_at_creation: false });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("copied") });
    encoder.copy_buffer_to_buffer(source, offset, &buffer, 0, size);
    Copied { buffer, submission: queue.submit([encoder.finish()]) }
}

/// The values of a copy, once it is done.
fn mapped<T: bytemuck::Pod>(device: &wgpu::Device, Copied { buffer, submission }: Copied) -> Result<Vec<T>, GpuError> {
    let told = |e: &dyn fmt::Display| GpuError::Buffer { reason: e.to_string() };
    let (tell, heard) = mpsc::channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| drop(tell.send(result)));
    device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None }).map_err(|e| told(&e))?;
    heard.recv().map_err(|e| told(&e))?.map_err(|e| told(&e))?;
    let view = buffer.get_mapped_range(..).map_err(|e| told(&e))?;
    Ok(bytemuck::pod_collect_to_vec(&view))
}

/// What the device allows.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Bytes of a binding.
    binding: u64,
    /// Bytes between offsets at which a binding may begin: of storage, and of uniforms.
    alignment: u64,
    uniform: u64,
    /// Workgroups along one dimension of a dispatch.
    groups: u64,
}

impl Bounds {
    fn of(limits: &wgpu::Limits) -> Self {
        // Shaders count bytes in 32 bits.
        let binding = limits.max_storage_buffer_binding_size.min(u64::from(u32::MAX) - 3);
        let [alignment, uniform] = [limits.min_storage_buffer_offset_alignment, limits.min_uniform_buffer_offset_alignment].map(u64::from);
        Self { binding, alignment, uniform, groups: u64::from(limits.max_compute_workgroups_per_dimension) }
    }

    /// Ranges of samples that fit into one dispatch each, as even as possible.
    fn parts(&self, launch: &Launch) -> Result<Vec<Range<usize>>, GpuError> {
        let kernel = launch.kernel.name;
        let mut most = launch.samples as u64;
        for operand in &launch.operands {
            let offset = operand.place.offset % self.alignment;
            if launch.kernel.checks_itself && !offset.is_multiple_of(ALIGNED) {
                return Err(GpuError::Unaligned { kernel, offset });
            }
            let needed = operand.per_sample.max(if operand.per_sample == 0 { operand.size } else { 0 });
            // The data may begin anywhere behind an aligned offset and ends on a whole word.
            let room = self.binding.saturating_sub(self.alignment + 4);
            if needed > room {
                return Err(GpuError::TooLarge { kernel, bytes: needed, limit: self.binding });
            }
            most = most.min(room.checked_div(operand.per_sample).unwrap_or(most));
        }
        most = most.min((self.groups * self.groups).min(u64::from(u32::MAX)) / launch.groups as u64);
        if most == 0 {
            return Err(GpuError::TooLarge { kernel, bytes: launch.groups as u64, limit: self.groups * self.groups });
        }
        let count = (launch.samples as u64).div_ceil(most) as usize;
        let each = launch.samples.div_ceil(count);
        Ok((0..count).map(|i| i * each..((i + 1) * each).min(launch.samples)).filter(|r| !r.is_empty()).collect())
    }

    /// Workgroups along x and y; kernels do nothing in those beyond the last with work.
    fn dispatch(&self, launch: &Launch, part: &Range<usize>) -> [u32; 2] {
        let groups = (part.len() * launch.groups) as u64;
        let x = groups.min(self.groups);
        [x as u32, groups.div_ceil(x) as u32]
    }
}

/// The piece of a buffer that a dispatch binds, and where in it the data begins.
struct Window {
    start: u64,
    size: u64,
    base: u64,
}

impl Window {
    fn of(operand: &Operand, part: &Range<usize>, alignment: u64) -> Self {
        let skipped = part.start as u64 * operand.per_sample;
        let begin = operand.place.offset + skipped;
        let left = operand.size.saturating_sub(skipped);
        // Not beyond the data: a shader may take the binding's length for the end of a last sample that is not whole.
        let length = if operand.per_sample == 0 { left } else { left.min(part.len() as u64 * operand.per_sample) };
        let start = begin - begin % alignment;
        let base = begin - start;
        let size = (base + length).next_multiple_of(4).max(4).min(operand.place.buffer.size() - start);
        Self { start, size, base }
    }
}

static SHARED: Mutex<Vec<(WgpuDevice, Arc<Gpu>)>> = Mutex::new(Vec::new());

/// Lets kernels run on the device and queue of `setup` for burn's tensors on `device`.
pub fn share(device: &WgpuDevice, setup: &WgpuSetup) {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.iter().all(|(known, _)| known != device) {
        shared.push((device.clone(), Arc::new(Gpu::of(setup))));
    }
}

/// The shared device under burn's `device`, if there is one.
pub fn shared(device: &WgpuDevice) -> Option<Arc<Gpu>> {
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.iter().find(|(known, _)| known == device).map(|(_, gpu)| gpu.clone())
}
