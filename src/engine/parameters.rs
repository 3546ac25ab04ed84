//! A network's parameters: on their way into a checkpoint and back, and whether they are there.

use super::read_values;
use crate::run::checkpoint::{Checkpoint, MODEL};
use anyhow::Result;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, FloatDType};
use sha2::{Digest, Sha256};

/// The same model with an id for each parameter that follows from its path, instead of a random one: equal trainings leave equal bytes.
pub fn named<M: Module>(model: M) -> M {
    model.map(&mut Named(Vec::new()))
}

struct Named(Vec<String>);

impl ModuleMapper for Named {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let hash: [u8; 32] = Sha256::digest(self.0.join(".")).into();
        let mut param = param;
        param.id = ParamId::from(u64::from_le_bytes(*hash.first_chunk().expect("32 bytes")));
        param
    }
}

/// Waits until all parameters have been computed.
///
/// # Errors
/// When one of them could not be, for example because the device had no memory for it.
pub fn check_computed<M: Module>(model: &M) -> Result<()> {
    let mut firsts = Firsts(Vec::new());
    model.visit(&mut firsts);
    if firsts.0.is_empty() {
        return Ok(());
    }
    read_values(Tensor::cat(firsts.0, 0)).map(drop)
}

/// The first value of each parameter.
struct Firsts(Vec<Tensor<1>>);

impl ModuleVisitor for Firsts {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().inner().slice([const { 0..1 }; D]).reshape([1]).cast(FloatDType::F32));
    }
}

/// The model's parameters with their ids, as burnpack bytes.
pub fn model_bytes<M: Module + Clone>(model: &M) -> Result<Vec<u8>> {
    Ok(model.clone().into_record().into_bytes().map_err(|e| anyhow::anyhow!("{e}"))?.to_vec())
}

/// Puts a checkpoint's parameters into a model of the same shape.
pub fn load_model<M: Module>(model: M, checkpoint: &Checkpoint) -> Result<M> {
    let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(checkpoint.blob(MODEL)?.to_vec()));
    record
        .and_then(|record| model.try_load_record(record))
        .map_err(|e| anyhow::anyhow!("the saved weights do not fit the network that the settings describe: {e}"))
}
