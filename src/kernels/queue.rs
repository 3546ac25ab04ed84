//! Puts launches over burn's tensors between burn's own work.
//!
//! A thread of cubecl's holds what burn has queued up for a device. Our launches go to it as burn's own do, and nobody waits: there what
//! burn has queued up on the streams of these tensors is submitted, and then all launches of one call together. Where they cannot run, what
//! they were to write carries the error, and so does all that is computed from it.
//!
//! A submission costs a processor as much as a small layer costs a GPU. Where several calls are known to come with none of burn's operations
//! between, they go [`together`].

use super::gpu::{self, Gpu, Launch, Operand, Region};
use crate::failure::survive;
use burn::backend::DispatchDevice;
use burn::prelude::Shape;
use burn::tensor::DType;
use burn_wgpu::CubeTensor;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{BufferBinding, IoError, ServerError};
use cubecl::wgpu::{AutoCompiler, WgpuServer};
use cubecl_common::device::Device;
use cubecl_server::id::KernelId;
use cubecl_server::stream::{ExecuteScope, WriteScoped};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Launches that are submitted at once, at most: until they are, memory that only they need cannot be used again.
const MOST_TOGETHER: usize = 8;

/// The way of launches to a device that burn computes on.
#[derive(Clone)]
pub struct Queue {
    gpu: Arc<Gpu>,
    server: DeviceHandle<WgpuServer<AutoCompiler>>,
}

impl Queue {
    /// That of a tensor's device; none where our shaders cannot run.
    pub fn of(x: &CubeTensor) -> Option<Self> {
        let cubecl::Device::Wgpu(device) = &x.device else { return None };
        Some(Self { gpu: gpu::shared(device)?, server: DeviceHandle::new(device.to_id()) })
    }

    /// What launches run on in the end.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Queues launches up, which run one after the other. If one of them cannot run, none does, nor do those that are submitted with them,
    /// and the results of all carry the error.
    ///
    /// # Panics
    /// With tensors of several devices.
    pub fn submit(&self, launches: impl Into<Vec<Launch<BufferBinding>>>) {
        let mut launches = Some(launches.into());
        WAITING.with_borrow_mut(|waiting| {
            if let Some(waiting) = waiting {
                waiting.add(self, launches.take().unwrap_or_default());
            }
        });
        launches.into_iter().for_each(|launches| self.send(launches));
    }

    fn send(&self, launches: Vec<Launch<BufferBinding>>) {
        let gpu = self.gpu.clone();
        let place = |operand: &Operand<BufferBinding>| operand.place.clone();
        let read: Vec<_> = launches.iter().flat_map(Launch::sources).map(place).collect();
        let written: Vec<_> = launches.iter().flat_map(Launch::results).map(place).collect();
        let Some(stream) = written.first().map(|result| result.stream) else { return };
        let service = self.server.service_id();
        assert!(read.iter().chain(&written).all(|binding| binding.service == service), "tensors of several devices");
        self.server.submit(move |server| {
            // A result for which there was no memory says why, as a source does.
            let unallocated: Vec<_> = written.iter().filter(|result| !result.memory.descriptor().is_allocated()).cloned().collect();
            let needed = read.iter().chain(&unallocated);
            let scope = ExecuteScope::launching(server, KernelId::new::<Launch>(), stream, needed, written);
            scope.execute(|server| {
                let streams = server.write_streams();
                // Submits what burn has queued up. The first stream is that on which all of it goes: the one that will go on with our results.
                streams.execute_streams(std::iter::once(stream).chain(read.iter().map(|source| source.stream)).collect());
                // Holds the memory until all is submitted.
                let mut held = Vec::new();
                let mut place = |BufferBinding { memory, offset_start, offset_end, stream, .. }| {
                    let resource = streams.stream(&stream).memory.managed_resource(memory, offset_start, offset_end)?;
                    let place = Region { buffer: resource.resource().buffer.clone(), offset: resource.resource().offset };
                    held.push(resource);
                    Ok(place)
                };
                let launches = launches.into_iter().map(|launch| launch.placed(&mut place)).collect::<Result<Vec<_>, IoError>>()?;
                // Beside its errors: wgpu's, such as a lack of memory, are panics of burn's.
                survive(|| Ok(gpu.run(&launches)?))
                    .map_err(|error| ServerError::Generic { reason: format!("{error:#}"), backtrace: Default::default() })
            });
        });
    }
}

/// Launches of a thread for one device that have not been submitted.
#[derive(Default)]
struct Waiting {
    queue: Option<Queue>,
    launches: Vec<Launch<BufferBinding>>,
}

thread_local! {
    /// None where every call of [`Queue::submit`] is a submission.
    static WAITING: RefCell<Option<Waiting>> = const { RefCell::new(None) };
}

impl Waiting {
    /// Behind those for this device; before those for another one, which go now.
    fn add(&mut self, queue: &Queue, launches: Vec<Launch<BufferBinding>>) {
        if self.queue.as_ref().is_some_and(|known| known.server.service_id() != queue.server.service_id()) {
            self.send();
        }
        self.queue.get_or_insert_with(|| queue.clone());
        self.launches.extend(launches);
        if self.launches.len() >= MOST_TOGETHER {
            self.send();
        }
    }

    fn send(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.send(std::mem::take(&mut self.launches));
        }
    }
}

/// Puts back how a thread submitted before.
struct Before(Option<Waiting>);

impl Drop for Before {
    fn drop(&mut self) {
        let waiting = WAITING.replace(self.0.take());
        // After a panic nobody gets to see what they would have written.
        if !std::thread::panicking() {
            waiting.into_iter().for_each(|mut waiting| waiting.send());
        }
    }
}

fn submitting<T>(way: Option<Waiting>, work: impl FnOnce() -> T) -> T {
    let before = WAITING.with_borrow_mut(|now| {
        now.iter_mut().for_each(Waiting::send);
        std::mem::replace(now, way)
    });
    let _before = Before(before);
    work()
}

/// What the work submits on this thread goes to the device in few submissions. Operations of burn's that it calls would overtake it: their
/// place is [`apart`].
pub fn together<T>(work: impl FnOnce() -> T) -> T {
    submitting(Some(Waiting::default()), work)
}

/// For work with operations of burn's, which may be within [`together`]: all that waits goes before, and what it submits does not wait.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    submitting(None, work)
}

/// Where it is told what became of a copy; nothing where there is none.
#[derive(Clone, Debug)]
pub struct Outlet(pub Sender<Option<Copied>>);

impl Outlet {
    pub fn tell(&self, copied: Option<Copied>) {
        // Nobody may be waiting any more.
        self.0.send(copied).ok();
    }
}

impl Queue {
    /// Copies the values of a contiguous tensor to where the host can read them.
    pub fn copy_out(&self, x: &CubeTensor, outlet: Outlet) {
        WAITING.with_borrow_mut(|now| now.iter_mut().for_each(Waiting::send));
        let (gpu, binding) = (self.gpu.clone(), x.handle.clone().binding());
        let (stream, size) = (binding.stream, (x.meta.num_elements() * x.dtype.size()) as u64);
        self.server.submit(move |server| {
            let scope = ExecuteScope::launching(server, KernelId::new::<Copied>(), stream, std::iter::once(&binding), Vec::new());
            let mut copied = None;
            if !scope.skipped() {
                scope.execute(|server| {
                    let streams = server.write_streams();
                    streams.execute_streams(vec![stream]);
                    let BufferBinding { memory, offset_start, offset_end, stream, .. } = binding.clone();
                    let resource = streams.stream(&stream).memory.managed_resource(memory, offset_start, offset_end)?;
                    let place = Region { buffer: resource.resource().buffer.clone(), offset: resource.resource().offset };
                    copied = survive(|| Ok(gpu.copy_out(&place, size))).ok();
                    Ok(())
                });
            }
            outlet.tell(copied);
        });
    }
}

/// What our shaders run on for tensors of a device; none where they cannot run.
pub fn gpu_of(device: &burn::prelude::Device) -> Option<Arc<Gpu>> {
    match device.as_dispatch() {
        DispatchDevice::Cube(cubecl::Device::Wgpu(device)) => gpu::shared(device),
        _ => None,
    }
}

/// A copy of values that the host will be able to read.
#[derive(Clone, Debug)]
pub struct Copied {
    pub buffer: wgpu::Buffer,
    /// When that is done the copy is there.
    pub submission: wgpu::SubmissionIndex,
}

/// Contiguous tensors as operands, with the bytes of each for a sample (0: shared).
pub fn operands<const N: usize>(tensors: [&CubeTensor; N], per_sample: [u64; N]) -> [Operand<BufferBinding>; N] {
    std::array::from_fn(|i| Operand { per_sample: per_sample[i], ..operand(tensors[i]) })
}

/// A contiguous tensor as an operand that all samples share.
pub fn operand(tensor: &CubeTensor) -> Operand<BufferBinding> {
    let size = (tensor.meta.num_elements() * tensor.dtype.size()) as u64;
    Operand { place: tensor.handle.clone().binding(), size, per_sample: 0 }
}

/// A new tensor without gaps.
pub fn allocate(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let handle = like.client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
}
