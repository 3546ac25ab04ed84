//! A network's parameters on their way into a checkpoint and back.

use crate::run::checkpoint::{Checkpoint, MODEL};
use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::prelude::*;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
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
