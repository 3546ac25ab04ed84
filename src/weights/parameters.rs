//! A network's parameters by path: listing them, and putting others in their place.

use crate::engine::read_values;
use crate::model::Encoder;
use anyhow::Result;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use std::collections::BTreeMap;

/// One parameter: its path (`blocks.0.norm1.gamma`), its shape and, where they were asked for, its values, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub path: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Paths and shapes, in the network's order.
pub fn shapes<M: Module>(network: &M) -> Vec<(String, Vec<usize>)> {
    let mut listing = Listing::default();
    network.visit(&mut listing);
    listing.found.into_iter().map(|(path, shape, _)| (path, shape)).collect()
}

/// Waits for the device and copies every parameter.
///
/// # Errors
/// Values of all parameters.
pub fn count<M: Module>(network: &M) -> usize {
    shapes(network).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// When the device cannot be read.
pub fn read_parameters<M: Module>(network: &M) -> Result<Vec<Parameter>> {
    let mut listing = Listing { read: true, ..Listing::default() };
    network.visit(&mut listing);
    listing.found.into_iter().map(|(path, shape, values)| Ok(Parameter { path, shape, values: values? })).collect()
}

/// The network with the parameters that `values` names replaced; each must have as many values as the one it replaces.
///
/// # Panics
/// If one has another number of values.
pub fn replaced<M: Module>(network: M, values: BTreeMap<String, Vec<f32>>) -> M {
    network.map(&mut Replace { values, path: Vec::new() })
}

#[derive(Default)]
struct Listing {
    read: bool,
    path: Vec<String>,
    found: Vec<(String, Vec<usize>, Result<Vec<f32>>)>,
}

impl ModuleVisitor for Listing {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = if self.read { read_values(param.val()) } else { Ok(Vec::new()) };
        self.found.push((self.path.join("."), param.val().dims().to_vec(), values));
    }
}

struct Replace {
    values: BTreeMap<String, Vec<f32>>,
    path: Vec<String>,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.values.remove(&self.path.join(".")) else { return param };
        param.map(|old| {
            let (shape, trains, device) = (old.dims(), old.is_require_grad(), old.device());
            Tensor::from_data(TensorData::new(values, shape), &device).set_require_grad(trains)
        })
    }
}

/// An encoder by itself, with the paths that it has in a classifier: `encoder.blocks.0...`.
#[derive(Module, Debug)]
pub struct Branch {
    pub encoder: Encoder,
}
