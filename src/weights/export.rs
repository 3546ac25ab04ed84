//! A network as a list of named tensors in one of the layouts.

use super::file::Named;
use super::layout::Layout;
use super::parameters::{Parameter, read_parameters};
use super::{Card, Part, TensorFile};
use crate::config::{Activation, Backbone, Settings, Stem};
use crate::usage;
use anyhow::{Context, Result, ensure};
use burn::module::Module;
use std::collections::BTreeMap;

/// Tensors of a whole network (an encoder's paths begin with `encoder.`), read from the device, under a layout's names. [`Layout::Moue`] takes
/// all, the others the encoder alone.
///
/// # Errors
/// [`Usage`](crate::failure::Usage) where the layout has no way to say what the network is.
pub fn export<M: Module>(network: &M, layout: Layout, s: &Settings) -> Result<Vec<Named>> {
    let all = read_parameters(network)?;
    if layout == Layout::Moue {
        return Ok(all.into_iter().map(|Parameter { path, shape, values }| Named { name: path, shape, values }).collect());
    }
    let named = if layout == Layout::Timm { "timm" } else { "transformers" };
    if s.encoder.backbone != Backbone::Vit {
        usage!("{named}'s vision transformer cannot hold a {} backbone; --layout moue can", s.encoder.backbone.name());
    }
    if s.vit.stem == Stem::Conv {
        usage!("{named} has no convolutional stem as vit.stem=conv makes it; --layout moue can hold it");
    }
    if layout == Layout::Hf && !s.vit.cls {
        usage!("transformers' ViT always has a class token, and vit.cls=false; --layout timm can do without one");
    }
    let mut tensors = Vec::new();
    for Parameter { path, shape, values } in all {
        let Some(ours) = path.strip_prefix("encoder.") else { continue };
        let place = layout.places(ours).into_iter().next().with_context(|| format!("{named} has no place for {path}"))?;
        let mut part = shape.clone();
        let width = part.last_mut().context("a parameter has an axis")?;
        let whole = *width;
        *width /= place.names.len();
        let width = *width;
        for (k, name) in place.names.into_iter().enumerate() {
            let columns = values.chunks(whole).flat_map(|row| &row[k * width..(k + 1) * width]).copied().collect();
            let values = place.form.outward(columns, &part, s.vit.patch);
            tensors.push(Named { name, shape: place.form.theirs(&part, s.vit.patch), values });
        }
    }
    Ok(tensors)
}

/// The Python that makes the network that an export's tensors belong to.
pub fn recipe(layout: Layout, s: &Settings, file: &str) -> Option<String> {
    let (size, patch, dim, depth, heads, ratio) = (s.data.size, s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads, s.vit.mlp_ratio);
    let (channels, relu) = (s.data.channels, s.vit.activation == Activation::Relu);
    match layout {
        Layout::Moue => None,
        Layout::Timm => Some(format!(
            "import timm, safetensors.torch\nmodel = timm.models.VisionTransformer(img_size={size}, patch_size={patch}, in_chans={channels}, \
             embed_dim={dim}, depth={depth}, num_heads={heads}, mlp_ratio={ratio}, class_token={}, global_pool='', num_classes=0{})\n\
             model.load_state_dict(safetensors.torch.load_file({file:?}))",
            if s.vit.cls { "True" } else { "False" },
            if relu { ", act_layer='relu'" } else { "" },
        )),
        Layout::Hf => Some(format!(
            "import transformers, safetensors.torch\nconfig = transformers.ViTConfig(image_size={size}, patch_size={patch}, \
             num_channels={channels}, hidden_size={dim}, num_hidden_layers={depth}, num_attention_heads={heads}, intermediate_size={}, \
             hidden_act={:?}, layer_norm_eps=1e-6)\nmodel = transformers.ViTModel.from_pretrained(None, config=config, \
             add_pooling_layer=False, state_dict=safetensors.torch.load_file({file:?}))",
            (dim as f64 * ratio).round(),
            if relu { "relu" } else { "gelu" },
        )),
    }
}

/// Fills a network from a weights file of ours: every parameter must be there, with its shape, under `prefix` and its path.
pub fn load<M: Module>(file: &TensorFile, network: M, prefix: &str) -> Result<M> {
    let mut values = BTreeMap::new();
    for (path, shape) in super::parameters::shapes(&network) {
        let name = format!("{prefix}{path}");
        let found = file.shapes().get(&name).with_context(|| format!("{} has no {name}", file.path().display()))?;
        ensure!(*found == shape, "{}: {name} has the shape {found:?}, its card describes {shape:?}", file.path().display());
        values.insert(path, file.read(&name)?);
    }
    Ok(super::parameters::replaced(network, values))
}

/// Opens a weights file of ours.
///
/// # Errors
/// [`Usage`](crate::failure::Usage) for files of others, and for exports under others' names.
pub fn open(path: &std::path::Path) -> Result<(TensorFile, Card)> {
    let file = TensorFile::open(path)?;
    match file.card() {
        Some(card) if card.layout == Layout::Moue => {
            let card = card.clone();
            Ok((file, card))
        }
        _ => {
            usage!("{} is no weights file of moue's own; make one with `moue import-weights {} --out FILE`", path.display(), path.display())
        }
    }
}

/// Refuses a part of a network where the whole is needed.
pub fn whole(card: &Card, path: &std::path::Path) -> Result<()> {
    if card.part != Part::Classifier {
        usage!(
            "{} holds an encoder ({}), which recognises nothing before `moue finetune --from` has trained it",
            path.display(),
            card.origin
        );
    }
    Ok(())
}
