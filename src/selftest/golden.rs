//! Golden vectors from `tests/golden/`, made independently of this program (the generators lie beside them).

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A file of golden vectors.
pub struct Golden(SafeTensors<'static>);

impl Golden {
    pub fn adamw() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/adamw.safetensors"))
    }

    pub fn attention() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/attention.safetensors"))
    }

    pub fn column_sums() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/column_sums.safetensors"))
    }

    pub fn dropout() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/dropout.safetensors"))
    }

    pub fn hog() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/hog.safetensors"))
    }

    pub fn layer_norm() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/layer_norm.safetensors"))
    }

    pub fn patch_gather() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/patch_gather.safetensors"))
    }

    pub fn patch_pixels() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/patch_pixels.safetensors"))
    }

    pub fn product() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/product.safetensors"))
    }

    pub fn softmax() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/softmax.safetensors"))
    }

    pub fn squares() -> Result<Self> {
        Self::read(include_bytes!("../../tests/golden/squares.safetensors"))
    }

    fn read(bytes: &'static [u8]) -> Result<Self> {
        Ok(Self(SafeTensors::deserialize(bytes).context("golden vectors")?))
    }

    /// What stands before `ending` in the names that have it, sorted; at least one.
    pub fn stems(&self, ending: &str) -> Result<Vec<String>> {
        let mut stems: Vec<String> = self.0.names().iter().filter_map(|n| n.strip_suffix(ending).map(str::to_string)).collect();
        stems.sort();
        ensure!(!stems.is_empty(), "no golden vector is named *{ending}");
        Ok(stems)
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_ok()
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.0.tensor(name).with_context(|| format!("golden vector {name}"))
    }

    pub fn shape<const D: usize>(&self, name: &str) -> Result<[usize; D]> {
        let tensor = self.tensor(name)?;
        tensor.shape().try_into().with_context(|| format!("golden vector {name} has shape {:?}", tensor.shape()))
    }

    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.tensor(name)?.data().to_vec())
    }

    pub fn ints(&self, name: &str) -> Result<Vec<i32>> {
        Ok(self.tensor(name)?.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
    }

    pub fn halves(&self, name: &str) -> Result<Vec<f16>> {
        Ok(self.tensor(name)?.data().as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect())
    }

    /// Numbers of any float type as f32.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        Ok(match tensor.dtype() {
            Dtype::F16 => self.halves(name)?.into_iter().map(f16::to_f32).collect(),
            Dtype::F32 => tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F64 => tensor.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            other => bail!("golden vector {name} is {other:?}"),
        })
    }

    /// A picture stored as planes `[C, H, W]`, as `[H, W, C]` bytes with its height, width and channels.
    pub fn picture(&self, name: &str) -> Result<(Vec<u8>, [usize; 3])> {
        let [channels, height, width] = self.shape(name)?;
        let planes = self.tensor(name)?.data();
        let pixels = (0..height * width * channels).map(|i| planes[(i % channels) * height * width + i / channels]).collect();
        Ok((pixels, [height, width, channels]))
    }
}
