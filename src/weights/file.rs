//! Files of tensors: reading safetensors and PyTorch checkpoints, writing safetensors.
//!
//! A file is recognised by its first bytes, not by its name. Opening reads names and shapes only; a tensor's values are read when they are
//! asked for, so memory is bounded by what the caller has a place for. PyTorch checkpoints go through `pytorch-reader`: it parses
//! the pickle as data (no import, no call; objects that are no tensors become opaque names), with limits on the pickle (100 MiB), on a
//! tensor (10 GiB), on nesting and on repeated references. Nested dictionaries become dotted names: `model.blocks.0...`.

use super::Card;
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result, anyhow, bail, ensure};
use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// No vision transformer comes near this; a larger file is something else.
const MAX_FILE: u64 = 64 << 30;
/// Largest header of a safetensors file, which is read into memory: a hundred thousand tensors. The format allows six times as much.
const MAX_HEADER: u64 = 16 << 20;

/// The element types that weights come in. All are read as `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F64,
    F32,
    F16,
    Bf16,
}

enum Content {
    Safetensors { file: RefCell<File>, start: u64, header: Metadata },
    Pytorch(PytorchReader),
}

/// An open file.
pub struct TensorFile {
    path: PathBuf,
    content: Content,
    shapes: BTreeMap<String, Vec<usize>>,
    card: Option<Card>,
}

impl TensorFile {
    /// # Errors
    /// [`Usage`](crate::failure::Usage) where there is no such file; otherwise what is wrong with it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_file() {
            usage!("{}: no such file", path.display());
        }
        Self::open_inner(path).with_context(|| format!("{} is no file of weights that can be read", path.display()))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        ensure!(length <= MAX_FILE, "it is larger than {} GiB", MAX_FILE >> 30);
        let mut mark = [0; 9];
        file.read_exact(&mut mark).context("it is too short")?;
        let header = u64::from_le_bytes(*mark.first_chunk().expect("nine bytes"));
        if mark[8] != b'{' {
            let reader = PytorchReader::new(path).map_err(|e| anyhow!("neither safetensors nor a PyTorch checkpoint: {e}"))?;
            let shapes = reader.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
            return Ok(Self { path: path.into(), content: Content::Pytorch(reader), shapes, card: None });
        }
        ensure!(header <= MAX_HEADER && header + 8 <= length, "its header is longer than the file, or than {MAX_HEADER} bytes");
        let mut text = vec![0; header as usize];
        file.seek(SeekFrom::Start(8))?;
        file.read_exact(&mut text)?;
        let metadata: Metadata = serde_json::from_slice(&text).context("its header is damaged")?;
        let start = 8 + header;
        ensure!(start.checked_add(metadata.data_len() as u64) == Some(length), "it is cut short, or longer than its header says");
        let shapes = metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect();
        let card = metadata.metadata().as_ref().and_then(|m| m.get("moue"));
        let card = card.map(|text| Card::from_json(text).context("its card is damaged")).transpose()?;
        let content = Content::Safetensors { file: RefCell::new(file), start, header: metadata };
        Ok(Self { path: path.into(), content, shapes, card })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a file that moue wrote says about itself.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// Names and shapes.
    pub fn shapes(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.shapes
    }

    /// Values of all tensors together.
    pub fn values(&self) -> u64 {
        let size = |shape: &Vec<usize>| shape.iter().fold(1u64, |product, side| product.saturating_mul(*side as u64));
        self.shapes.values().map(size).fold(0, u64::saturating_add)
    }

    /// Values of a tensor as `f32`, row-major.
    ///
    /// # Errors
    /// No such tensor, a damaged one, or one that does not hold real numbers.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.read_inner(name).with_context(|| format!("tensor {name} of {}", self.path.display()))
    }

    fn read_inner(&self, name: &str) -> Result<Vec<f32>> {
        let (element, bytes) = match &self.content {
            Content::Pytorch(reader) => {
                let tensor = reader.get(name).context("there is none")?;
                let element = match tensor.dtype() {
                    DType::F64 => Element::F64,
                    DType::F32 => Element::F32,
                    DType::F16 => Element::F16,
                    DType::BF16 => Element::Bf16,
                    other => bail!("it holds {other:?}, not real numbers"),
                };
                (element, tensor.read()?)
            }
            Content::Safetensors { file, start, header } => {
                let info = header.info(name).context("there is none")?;
                let element = match info.dtype {
                    Dtype::F64 => Element::F64,
                    Dtype::F32 => Element::F32,
                    Dtype::F16 => Element::F16,
                    Dtype::BF16 => Element::Bf16,
                    other => bail!("it holds {other:?}, not real numbers"),
                };
                let (from, to) = info.data_offsets;
                let mut bytes = vec![0; to - from];
                let mut file = file.borrow_mut();
                file.seek(SeekFrom::Start(start + from as u64))?;
                file.read_exact(&mut bytes)?;
                (element, bytes)
            }
        };
        let values = floats(element, &bytes);
        ensure!(values.iter().all(|v| v.is_finite()), "it holds values that are not finite");
        Ok(values)
    }
}

fn floats(element: Element, bytes: &[u8]) -> Vec<f32> {
    match element {
        Element::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        Element::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Element::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Element::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
    }
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Writes a safetensors file, whole or not at all; the same tensors and card give the same bytes.
///
/// The container is written here and not by the crate `safetensors`, whose metadata are a hash map: with the two entries that
/// transformers and we need they would come in another order each time.
pub fn write(path: &Path, tensors: &[Named], card: &Card) -> Result<()> {
    let mut header = Map::new();
    // transformers wants to know which library's order of axes this is.
    header.insert("__metadata__".into(), json!({"format": "pt", "moue": serde_json::to_string(card)?}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + 4 * tensor.values.len();
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, end]});
        let earlier: Option<Value> = header.insert(tensor.name.clone(), entry);
        ensure!(earlier.is_none(), "two tensors are called {}", tensor.name);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // Tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in tensors {
            let bytes: Vec<u8> = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}
