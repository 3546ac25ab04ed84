//! What comes after the backward pass: the squares that the length of the gradient is made of, and the step of AdamW with clipping and the
//! loss's scale in it.
//!
//! By burn's operations these are a dozen launches for a parameter, and a network has hundreds of parameters, most of them small. On wgpu
//! they are shaders of ours, of eight parameters in one operation: a launch for each step, three for all their squares; everywhere else they are burn's
//! operations in burn's order, so that they give the bits that burn's optimiser does. Nothing here is differentiated.

use super::queue::{Copied, Outlet, Queue, allocate, apart, operand, operands, together};
use super::{adamw as kernel, squares};
use burn::backend::autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy};
use burn::backend::tensor::FloatTensor;
use burn::backend::{AutodiffBackend, Backend, Dispatch, DispatchTensor, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};
use std::sync::mpsc::Sender;

pub use super::reference::adamw::AdamWStep;

/// The updates as part of a backend. [`add_squares`] and [`adamw`] check what these take for granted.
#[backend_extension(Autodiff, Cube, Flex, Fusion)]
pub trait Updates: Backend {
    /// A running sum `[1]` and the squares of all values of x.
    #[fusion(dtype = sum, shape = sum)]
    fn add_squares(sum: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        sum_with_squares::<Self>(sum, x)
    }

    /// [`Updates::add_squares`] of all of them.
    #[fusion(meta = |sum, _tensors| sum.clone())]
    fn add_squares_of(sum: FloatTensor<Self>, #[extension_type] tensors: Eight<Self>) -> FloatTensor<Self> {
        tensors.into_array().into_iter().fold(sum, Self::add_squares)
    }

    /// The same values, which are also copied to where the host can read them, if that can be had.
    #[fusion(dtype = x, shape = x)]
    fn copied_out(x: FloatTensor<Self>, outlet: Outlet) -> FloatTensor<Self> {
        outlet.tell(None);
        x
    }

    /// The new parameter and its first and second moment, from the old ones and the gradient, all of one shape.
    #[fusion(meta = |parameter, _gradient, first, second, _step| (parameter.clone(), first.clone(), second.clone()))]
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stepped::<Self>(parameter, gradient, Some([first, second]), step)
    }

    /// The same with gradients multiplied also by a factor `[1]` that was computed.
    #[fusion(meta = |parameter, _gradient, first, second, _computed, _step| (parameter.clone(), first.clone(), second.clone()))]
    fn computed_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        computed: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        Self::adamw(parameter, multiplied::<Self>(gradient, computed), first, second, step)
    }

    /// [`Updates::computed_adamw`] of one parameter after the other.
    #[fusion(meta = |learnt, _gradients, _computed, _steps| learnt.clone())]
    fn adamw_of(
        #[extension_type] learnt: Learnt<Self>,
        #[extension_type] gradients: Eight<Self>,
        computed: FloatTensor<Self>,
        steps: [AdamWStep; EIGHT],
    ) -> Learnt<Self> {
        learnt.stepped(gradients, steps, |(parameter, first, second), gradient, step| {
            Self::computed_adamw(parameter, gradient, first, second, computed.clone(), step)
        })
    }

    /// [`Updates::adamw`] at the first step of a parameter, when its moments are zero.
    #[fusion(meta = |parameter, gradient, _step| (parameter.clone(), gradient.clone(), gradient.clone()))]
    fn first_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stepped::<Self>(parameter, gradient, None, step)
    }
}

/// How many tensors one operation takes.
const EIGHT: usize = 8;

/// Tensors of any shapes.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Eight<B: Backend> {
    pub a: FloatTensor<B>,
    pub b: FloatTensor<B>,
    pub c: FloatTensor<B>,
    pub d: FloatTensor<B>,
    pub e: FloatTensor<B>,
    pub f: FloatTensor<B>,
    pub g: FloatTensor<B>,
    pub h: FloatTensor<B>,
}

impl<B: Backend> Eight<B> {
    fn of([a, b, c, d, e, f, g, h]: [FloatTensor<B>; EIGHT]) -> Self {
        Self { a, b, c, d, e, f, g, h }
    }

    fn into_array(self) -> [FloatTensor<B>; EIGHT] {
        let Self { a, b, c, d, e, f, g, h } = self;
        [a, b, c, d, e, f, g, h]
    }

    fn map<C: Backend>(self, change: impl FnMut(FloatTensor<B>) -> FloatTensor<C>) -> Eight<C> {
        Eight::of(self.into_array().map(change))
    }
}

/// Parameters and their moments.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion)]
pub struct Learnt<B: Backend> {
    #[extension_type]
    pub parameters: Eight<B>,
    #[extension_type]
    pub first: Eight<B>,
    #[extension_type]
    pub second: Eight<B>,
}

impl<B: Backend> Learnt<B> {
    fn of(each: [Stepped<B>; EIGHT]) -> Self {
        let parts = each.map(|(parameter, first, second)| [parameter, first, second]);
        let [parameters, first, second] = std::array::from_fn(|i| Eight::of(parts.each_ref().map(|part| part[i].clone())));
        Self { parameters, first, second }
    }

    fn into_each(self) -> [Stepped<B>; EIGHT] {
        let [parameters, first, second] = [self.parameters, self.first, self.second].map(Eight::into_array);
        std::array::from_fn(|i| (parameters[i].clone(), first[i].clone(), second[i].clone()))
    }

    /// Each after its step.
    fn stepped(
        self,
        gradients: Eight<B>,
        steps: [AdamWStep; EIGHT],
        mut step: impl FnMut(Stepped<B>, FloatTensor<B>, AdamWStep) -> Stepped<B>,
    ) -> Self {
        let mut beside = gradients.into_array().into_iter().zip(steps);
        Self::of(self.into_each().map(|each| {
            let (gradient, how) = beside.next().expect("as many gradients and steps");
            step(each, gradient, how)
        }))
    }

    fn map<C: Backend>(self, mut change: impl FnMut(FloatTensor<B>) -> FloatTensor<C>) -> Learnt<C> {
        let Self { parameters, first, second } = self;
        let [parameters, first, second] = [parameters, first, second].map(|eight| eight.map(&mut change));
        Learnt { parameters, first, second }
    }
}

/// A parameter and its moments.
type Stepped<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

fn sum_with_squares<B: Backend>(sum: FloatTensor<B>, x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(sum, B::float_sum(B::float_powi_scalar(x, 2.into())))
}

/// Any shape by one value.
fn multiplied<B: Backend>(x: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let ones = Shape::from(vec![1; x.shape().num_dims()]);
    B::float_mul(x, B::float_reshape(factor, ones))
}

/// In the order of burn's AdamW.
fn stepped<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    moments: Option<[FloatTensor<B>; 2]>,
    step: AdamWStep,
) -> Stepped<B> {
    let gradient = if step.factor == 1.0 { gradient } else { B::float_mul_scalar(gradient, step.factor.into()) };
    let mut first = B::float_mul_scalar(gradient.clone(), (1.0 - step.beta1).into());
    let mut second = B::float_mul_scalar(B::float_powi_scalar(gradient, 2.into()), (1.0 - step.beta2).into());
    if let Some([old_first, old_second]) = moments {
        first = B::float_add(B::float_mul_scalar(old_first, step.beta1.into()), first);
        second = B::float_add(B::float_mul_scalar(old_second, step.beta2.into()), second);
    }
    let [first_weight, second_weight] = step.corrections();
    let deviation = B::float_sqrt(B::float_div_scalar(second.clone(), second_weight.into()));
    let update = B::float_div(B::float_div_scalar(first.clone(), first_weight.into()), B::float_add_scalar(deviation, step.epsilon.into()));
    let decay = step.decay();
    let kept = if decay == 0.0 { parameter } else { B::float_mul_scalar(parameter, (1.0 - decay).into()) };
    (B::float_sub(kept, B::float_mul_scalar(update, step.rate.into())), first, second)
}

impl Updates for Flex {}

/// The way to our shaders, where there are values of f32, and a device binds as many buffers as the largest of them wants.
fn queue(tensors: &[&CubeTensor]) -> Option<Queue> {
    let fit = tensors.iter().all(|t| t.dtype == DType::F32 && t.shape().num_elements() > 0);
    let binds = |queue: &Queue| queue.gpu().device().limits().max_storage_buffers_per_shader_stage as usize >= kernel::ADAMW.buffers;
    Queue::of(tensors.first()?).filter(|queue| fit && binds(queue))
}

/// A running sum and the squares of all tensors, whose chunks are added up together; none where our shader does not fit.
fn added_by_shader(sum: &CubeTensor, tensors: &[CubeTensor; EIGHT]) -> Option<CubeTensor> {
    let queue = queue(&tensors.iter().chain([sum]).collect::<Vec<_>>())?;
    let values = tensors.each_ref().map(|x| x.shape().num_elements());
    if values.iter().any(|&values| (values * size_of::<f32>()) as u64 > queue.gpu().largest_binding()) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = tensors.each_ref().map(|x| into_contiguous(x.clone()));
    let [before, after] = [0, 4].map(|i| std::array::from_fn(|k| values[i + k]));
    let chunks = |of: [usize; 4]| of.map(squares::chunks).into_iter().sum::<usize>();
    let (first, all) = (chunks(before), chunks(before) + chunks(after));
    let sums = allocate(sum, Shape::new([all]), DType::F32);
    let made = allocate(sum, Shape::new([1]), DType::F32);
    let sum = into_contiguous(sum.clone());
    queue.submit([
        squares::squares_of_four(before, 0, operands([&a, &b, &c, &d, &sums], [0; 5])),
        squares::squares_of_four(after, first, operands([&e, &f, &g, &h, &sums], [0; 5])),
        squares::add(all, operands([&sums, &sum, &made], [0; 3])),
    ]);
    Some(made)
}

/// A step by our shader; none where it does not fit.
fn stepped_by_shader(
    parameter: &CubeTensor,
    gradient: &CubeTensor,
    moments: Option<[&CubeTensor; 2]>,
    computed: Option<&CubeTensor>,
    step: &AdamWStep,
) -> Option<Stepped<CubeBackend>> {
    let all: Vec<&CubeTensor> = [parameter, gradient].into_iter().chain(moments.into_iter().flatten()).chain(computed).collect();
    let queue = queue(&all)?;
    let shape = parameter.shape();
    let [parameter, gradient] = [parameter, gradient].map(|t| into_contiguous(t.clone()));
    let moments = moments.map(|both| both.map(|t| into_contiguous(t.clone())));
    let made = [(); 3].map(|()| allocate(&parameter, shape.clone(), DType::F32));
    let sources = operands([&parameter, &gradient], [kernel::SAMPLE; 2]);
    let moments = moments.as_ref().map(|both| operands(both.each_ref(), [kernel::SAMPLE; 2]));
    let computed = computed.map(|factor| into_contiguous(factor.clone()));
    let computed = computed.as_ref().map(operand);
    let results = operands(made.each_ref(), [kernel::SAMPLE; 3]);
    queue.submit([kernel::launch(shape.num_elements(), step, sources, moments, computed, results)]);
    Some(made.into())
}

impl Updates for CubeBackend {
    fn copied_out(x: CubeTensor, outlet: Outlet) -> CubeTensor {
        let x = into_contiguous(x);
        match queue(&[&x]) {
            Some(queue) => queue.copy_out(&x, outlet),
            None => outlet.tell(None),
        }
        x
    }

    fn add_squares(sum: CubeTensor, x: CubeTensor) -> CubeTensor {
        let Some(queue) = queue(&[&sum, &x]) else {
            return apart(|| sum_with_squares::<Self>(sum, x));
        };
        let [sum, x] = [sum, x].map(into_contiguous);
        let values = x.shape().num_elements();
        if squares::chunks(values) == 1 {
            let made = allocate(&x, Shape::new([1]), DType::F32);
            queue.submit([squares::add_chunk(values, operands([&x, &sum, &made], [0; 3]))]);
            return made;
        }
        let chunks = allocate(&x, Shape::new([squares::chunks(values)]), DType::F32);
        let made = allocate(&x, Shape::new([1]), DType::F32);
        queue.submit([
            squares::squares(values, operands([&x, &chunks], squares::sizes(values))),
            squares::add(squares::chunks(values), operands([&chunks, &sum, &made], [0; 3])),
        ]);
        made
    }

    fn add_squares_of(sum: CubeTensor, tensors: Eight<Self>) -> CubeTensor {
        let tensors = tensors.into_array();
        added_by_shader(&sum, &tensors).unwrap_or_else(|| together(|| tensors.into_iter().fold(sum, Self::add_squares)))
    }

    fn adamw(
        parameter: CubeTensor,
        gradient: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        stepped_by_shader(&parameter, &gradient, Some([&first, &second]), None, &step)
            .unwrap_or_else(|| apart(|| stepped::<Self>(parameter, gradient, Some([first, second]), step)))
    }

    fn computed_adamw(
        parameter: CubeTensor,
        gradient: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        computed: CubeTensor,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        stepped_by_shader(&parameter, &gradient, Some([&first, &second]), Some(&computed), &step)
            .unwrap_or_else(|| apart(|| stepped::<Self>(parameter, multiplied::<Self>(gradient, computed), Some([first, second]), step)))
    }

    fn adamw_of(learnt: Learnt<Self>, gradients: Eight<Self>, computed: CubeTensor, steps: [AdamWStep; EIGHT]) -> Learnt<Self> {
        together(|| {
            learnt.stepped(gradients, steps, |(parameter, first, second), gradient, step| {
                Self::computed_adamw(parameter, gradient, first, second, computed.clone(), step)
            })
        })
    }

    fn first_adamw(parameter: CubeTensor, gradient: CubeTensor, step: AdamWStep) -> (CubeTensor, CubeTensor, CubeTensor) {
        stepped_by_shader(&parameter, &gradient, None, None, &step).unwrap_or_else(|| stepped::<Self>(parameter, gradient, None, step))
    }
}

impl<B: Updates, C: CheckpointStrategy> Updates for Autodiff<B, C> {
    fn copied_out(x: FloatTensor<Self>, outlet: Outlet) -> FloatTensor<Self> {
        Self::from_inner(B::copied_out(Self::inner(x), outlet))
    }

    fn add_squares(sum: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::add_squares(Self::inner(sum), Self::inner(x)))
    }

    fn add_squares_of(sum: FloatTensor<Self>, tensors: Eight<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::add_squares_of(Self::inner(sum), tensors.map(Self::inner)))
    }

    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [parameter, gradient, first, second] = [parameter, gradient, first, second].map(Self::inner);
        let (parameter, first, second) = B::adamw(parameter, gradient, first, second, step);
        (Self::from_inner(parameter), Self::from_inner(first), Self::from_inner(second))
    }

    fn computed_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        computed: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [parameter, gradient, first, second, computed] = [parameter, gradient, first, second, computed].map(Self::inner);
        let (parameter, first, second) = B::computed_adamw(parameter, gradient, first, second, computed, step);
        (Self::from_inner(parameter), Self::from_inner(first), Self::from_inner(second))
    }

    fn adamw_of(learnt: Learnt<Self>, gradients: Eight<Self>, computed: FloatTensor<Self>, steps: [AdamWStep; EIGHT]) -> Learnt<Self> {
        B::adamw_of(learnt.map(Self::inner), gradients.map(Self::inner), Self::inner(computed), steps).map(Self::from_inner)
    }

    fn first_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, first, second) = B::first_adamw(Self::inner(parameter), Self::inner(gradient), step);
        (Self::from_inner(parameter), Self::from_inner(first), Self::from_inner(second))
    }
}

/// The same values, which are also copied to where the host can read them. `tell` hears of the copy once it is under way, or that there is
/// none: then they have to be read as any others.
pub fn copied_out(values: Tensor<1>, tell: Sender<Option<Copied>>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as Updates>::copied_out(values.into_dispatch(), Outlet(tell)))
}

/// A running sum `[1]` and the squares of all values of `x`: `[1]`.
///
/// # Panics
/// If `sum` is not one value.
pub fn add_squares<const D: usize>(sum: Tensor<1>, x: Tensor<D>) -> Tensor<1> {
    add_squares_of(sum, vec![x.into_dispatch()])
}

/// [`add_squares`] of all tensors, in few operations.
///
/// # Panics
/// If `sum` is not one value.
pub fn add_squares_of(sum: Tensor<1>, tensors: Vec<DispatchTensor>) -> Tensor<1> {
    assert_eq!(sum.dims(), [1], "a running sum is one value");
    let (mut sum, mut rest) = (sum.into_dispatch(), tensors.into_iter());
    while let Some(eight) = rest.as_slice().first_chunk().cloned() {
        sum = <Dispatch as Updates>::add_squares_of(sum, Eight::of(eight));
        rest.by_ref().take(EIGHT).for_each(drop);
    }
    Tensor::from_dispatch(rest.fold(sum, <Dispatch as Updates>::add_squares))
}

/// A parameter that AdamW is to change: its value, gradient and first and second moment, all of one shape, and how.
#[derive(Clone, Debug)]
pub struct Due {
    pub parameter: DispatchTensor,
    pub gradient: DispatchTensor,
    /// None at the first step.
    pub moments: Option<[DispatchTensor; 2]>,
    pub step: AdamWStep,
}

impl Due {
    /// # Panics
    /// With tensors of different shapes.
    pub fn new<const D: usize>(parameter: Tensor<D>, gradient: Tensor<D>, moments: Option<[Tensor<D>; 2]>, step: AdamWStep) -> Self {
        let shape = parameter.dims();
        let same = moments.iter().flatten().chain([&gradient]).all(|t| t.dims() == shape);
        assert!(same, "a gradient or moments of another size than the parameter");
        let [parameter, gradient] = [parameter, gradient].map(Tensor::into_dispatch);
        Self { parameter, gradient, moments: moments.map(|both| both.map(Tensor::into_dispatch)), step }
    }

    /// The new parameter and moments. Gradients are multiplied by a computed factor, if there is one, beside that of the step.
    fn done(self, computed: Option<DispatchTensor>) -> [DispatchTensor; 3] {
        let Self { parameter, gradient, moments, step } = self;
        <[DispatchTensor; 3]>::from(match (moments, computed) {
            (Some([first, second]), None) => <Dispatch as Updates>::adamw(parameter, gradient, first, second, step),
            (Some([first, second]), Some(factor)) => {
                <Dispatch as Updates>::computed_adamw(parameter, gradient, first, second, factor, step)
            }
            (None, None) => <Dispatch as Updates>::first_adamw(parameter, gradient, step),
            (None, Some(factor)) => <Dispatch as Updates>::first_adamw(parameter, multiplied::<Dispatch>(gradient, factor), step),
        })
    }
}

/// A step of AdamW: the new parameter and its first and second moment, from parameter, gradient and moments; without these at the first
/// step. Gradients are multiplied by a computed factor `[1]`, if there is one, beside that of the step.
///
/// # Panics
/// With tensors of different shapes, or a factor that is not one value.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<[Tensor<D>; 2]>,
    computed: Option<Tensor<1>>,
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    assert!(computed.iter().all(|factor| factor.dims() == [1]), "a factor is one value");
    Due::new(parameter, gradient, moments, step).done(computed.map(Tensor::into_dispatch)).map(Tensor::from_dispatch)
}

/// [`adamw`] of one parameter after the other, in few operations once all of them have moments: new parameters and moments.
///
/// # Panics
/// If the factor is not one value.
pub fn adamw_of(all: Vec<Due>, computed: Tensor<1>) -> Vec<[DispatchTensor; 3]> {
    assert_eq!(computed.dims(), [1], "a factor is one value");
    let computed = computed.into_dispatch();
    let (mut made, mut all) = (Vec::with_capacity(all.len()), all.into_iter());
    while all.len() > 0 {
        let some: Vec<Due> = all.by_ref().take(EIGHT).collect();
        match eight(&some) {
            Some((learnt, gradients, steps)) => {
                // The operation alone holds them then, and lets go of them when it is done.
                drop(some);
                let stepped = <Dispatch as Updates>::adamw_of(learnt, gradients, computed.clone(), steps);
                made.extend(stepped.into_each().map(<[DispatchTensor; 3]>::from));
            }
            None => made.extend(some.into_iter().map(|due| due.done(Some(computed.clone())))),
        }
    }
    made
}

/// For one operation, where there are so many, with moments.
fn eight(some: &[Due]) -> Option<(Learnt<Dispatch>, Eight<Dispatch>, [AdamWStep; EIGHT])> {
    let some: &[Due; EIGHT] = some.try_into().ok()?;
    let moments = some.iter().map(|due| due.moments.clone()).collect::<Option<Vec<_>>>()?;
    let learnt = std::array::from_fn(|i| {
        let [first, second] = moments[i].clone();
        (some[i].parameter.clone(), first, second)
    });
    let gradients = some.each_ref().map(|due| due.gradient.clone());
    Some((Learnt::of(learnt), Eight::of(gradients), some.each_ref().map(|due| due.step)))
}
