//! What other programs call the tensors of a vision transformer, and how they lay them out.
//!
//! [`Layout::Timm`] is also what MAE and SlowFast's MaskFeat use (and DeiT, and most that came after); [`Layout::Hf`] is transformers'
//! `ViTModel`. All three are the transformer of Dosovitskiy et al. 2021 that ours is: pre-norm blocks, one projection to queries, keys and
//! values (transformers keeps three), exact GELU, a norm after the last block. Paths on our side are relative to the encoder.
//!
//! | ours | timm | why |
//! |---|---|---|
//! | linear weight `[d_in, d_out]` | `[d_out, d_in]` | PyTorch's order |
//! | `patch_embed.weight` `[P * P * C, D]` | `[D, C, P, P]` | a convolution there, a linear layer over flat patches here |
//! | `gamma`, `beta` of norms | `weight`, `bias` | |
//! | `attn.qkv` | `attn.qkv`, or `attn.q`, `attn.k`, `attn.v` | |

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whose names and shapes a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// moue's own: the whole network, to be read by `finetune --from` and `predict`
    Moue,
    /// timm's `VisionTransformer` (also MAE, MaskFeat): the encoder
    Timm,
    /// transformers' `ViTModel`: the encoder
    Hf,
}

/// How one tensor becomes ours, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Same,
    /// `[d_out, d_in]` there, `[d_in, d_out]` here.
    Transposed,
    /// `[D, C, P, P]` there, `[P * P * C, D]` here.
    Patches,
    /// `[1, T, D]` on both sides, where the grids may differ.
    Positions,
}

/// Where a parameter of ours is found: one tensor, or several that lie beside each other on its last axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub names: Vec<String>,
    pub form: Form,
}

impl Place {
    fn one(name: impl Into<String>, form: Form) -> Self {
        Self { names: vec![name.into()], form }
    }
}

impl Layout {
    pub const ALL: [Layout; 3] = [Layout::Moue, Layout::Timm, Layout::Hf];

    /// A name that every file of the layout has.
    pub fn mark(self) -> &'static str {
        match self {
            Layout::Moue => "encoder.patch_embed.weight",
            Layout::Timm => "patch_embed.proj.weight",
            Layout::Hf => "embeddings.patch_embeddings.projection.weight",
        }
    }

    /// Where a parameter of the encoder may be found, what is usual first: that is also where an export puts it.
    pub fn places(self, ours: &str) -> Vec<Place> {
        match self {
            Layout::Moue => vec![Place::one(format!("encoder.{ours}"), if ours == "pos_embed" { Form::Positions } else { Form::Same })],
            Layout::Timm => timm(ours),
            Layout::Hf => hf(ours),
        }
    }

    /// Whether a tensor that the encoder has no place for leaves the encoder's function alone: heads and pretraining decoders, which read
    /// its output, and mask tokens, which are not in use when it sees everything.
    pub fn beside(self, name: &str) -> bool {
        const AFTER: [&str; 15] = [
            "head",
            "fc_norm",
            "fc.",
            "classifier",
            "pooler.",
            "pre_logits",
            "lm_head",
            "mask_token",
            "embeddings.mask_token",
            "decoder",
            "pred_head.",
            "hogs.",
            "projector",
            "predictor",
            "dec_pos_embed",
        ];
        AFTER.iter().any(|start| name.starts_with(start))
    }
}

/// The last part of a path and what stands before it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// The file's word for the last part of a path of ours, and the form that goes with it. Norms have `gamma` and `beta`, linear layers
/// `weight` and `bias`.
fn leaf(ours: &str) -> (&'static str, Form) {
    match ours {
        "gamma" => ("weight", Form::Same),
        "beta" | "bias" => ("bias", Form::Same),
        _ => ("weight", Form::Transposed),
    }
}

fn timm(ours: &str) -> Vec<Place> {
    let (module, last) = split(ours);
    let (word, form) = leaf(last);
    match ours {
        "cls_token" => vec![Place::one("cls_token", Form::Same)],
        "pos_embed" => vec![Place::one("pos_embed", Form::Positions)],
        "patch_embed.weight" => vec![Place::one("patch_embed.proj.weight", Form::Patches)],
        "patch_embed.bias" => vec![Place::one("patch_embed.proj.bias", Form::Same)],
        // SlowFast keeps the norm after the last block in the head of its pretraining.
        "norm.gamma" | "norm.beta" => ["norm", "pred_head.transforms.0.0"].map(|norm| Place::one(format!("{norm}.{word}"), form)).into(),
        _ => match module.strip_suffix(".attn.qkv") {
            Some(block) => {
                let parts = ["q", "k", "v"].map(|part| format!("{block}.attn.{part}.{word}")).into();
                vec![Place::one(format!("{module}.{word}"), form), Place { names: parts, form }]
            }
            None => vec![Place::one(format!("{module}.{word}"), form)],
        },
    }
}

fn hf(ours: &str) -> Vec<Place> {
    let (module, last) = split(ours);
    let (word, form) = leaf(last);
    match ours {
        "cls_token" => return vec![Place::one("embeddings.cls_token", Form::Same)],
        "pos_embed" => return vec![Place::one("embeddings.position_embeddings", Form::Positions)],
        "patch_embed.weight" => return vec![Place::one("embeddings.patch_embeddings.projection.weight", Form::Patches)],
        "patch_embed.bias" => return vec![Place::one("embeddings.patch_embeddings.projection.bias", Form::Same)],
        "norm.gamma" | "norm.beta" => return vec![Place::one(format!("layernorm.{word}"), form)],
        _ => {}
    }
    let inside = module.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    let Some((block, part)) = inside else { return Vec::new() };
    // As files have it, and as modules have it since transformers 5.
    let (file, module): (&[&str], &[&str]) = match part {
        "norm1" => (&["layernorm_before"], &["layernorm_before"]),
        "norm2" => (&["layernorm_after"], &["layernorm_after"]),
        "attn.qkv" => (
            &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
            &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        ),
        "attn.proj" => (&["attention.output.dense"], &["attention.o_proj"]),
        "mlp.fc1" => (&["intermediate.dense"], &["mlp.fc1"]),
        "mlp.fc2" => (&["output.dense"], &["mlp.fc2"]),
        _ => return Vec::new(),
    };
    let place = |start: &str, names: &[&str]| Place { names: names.iter().map(|n| format!("{start}.{block}.{n}.{word}")).collect(), form };
    vec![place("encoder.layer", file), place("layers", module)]
}

impl Form {
    /// The shape that a tensor of a file should have for a parameter (or part of one) of ours; positions may have another grid.
    pub fn theirs(self, ours: &[usize], patch: usize) -> Vec<usize> {
        match (self, ours) {
            (Form::Transposed, &[d_in, d_out]) => vec![d_out, d_in],
            (Form::Patches, &[values, dim]) => vec![dim, values / (patch * patch), patch, patch],
            _ => ours.to_vec(),
        }
    }

    /// A tensor of a file, of shape [`Form::theirs`], in our order.
    pub fn inward(self, values: Vec<f32>, ours: &[usize], patch: usize) -> Vec<f32> {
        self.reordered(values, ours, patch, true)
    }

    /// A parameter of ours in the file's order.
    pub fn outward(self, values: Vec<f32>, ours: &[usize], patch: usize) -> Vec<f32> {
        self.reordered(values, ours, patch, false)
    }

    fn reordered(self, values: Vec<f32>, ours: &[usize], patch: usize, inward: bool) -> Vec<f32> {
        let &[rows, columns] = ours else { return values };
        let channels = rows / (patch * patch).max(1);
        // Row `r` of a patch embedding is pixel `r / C` and channel `r % C`.
        let theirs = |row: usize, column: usize| match self {
            Form::Transposed => column * rows + row,
            Form::Patches => (column * channels + row % channels) * patch * patch + row / channels,
            Form::Same | Form::Positions => row * columns + column,
        };
        if matches!(self, Form::Same | Form::Positions) {
            return values;
        }
        let mut out = vec![0.0; values.len()];
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let (here, there) = (row * columns + column, theirs(row, column));
            if inward { out[here] = values[there] } else { out[there] = values[here] }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_programs() {
        let first = |layout: Layout, ours: &str| layout.places(ours)[0].names.join(" ");
        assert_eq!(first(Layout::Timm, "blocks.3.norm1.gamma"), "blocks.3.norm1.weight");
        assert_eq!(first(Layout::Timm, "blocks.3.attn.qkv.bias"), "blocks.3.attn.qkv.bias");
        assert_eq!(first(Layout::Timm, "patch_embed.weight"), "patch_embed.proj.weight");
        assert_eq!(first(Layout::Timm, "norm.beta"), "norm.bias");
        assert_eq!(Layout::Timm.places("norm.beta")[1].names, ["pred_head.transforms.0.0.bias"]);
        assert_eq!(
            first(Layout::Hf, "blocks.3.attn.qkv.weight"),
            "encoder.layer.3.attention.attention.query.weight encoder.layer.3.attention.attention.key.weight \
             encoder.layer.3.attention.attention.value.weight"
        );
        assert_eq!(first(Layout::Hf, "blocks.0.mlp.fc2.bias"), "encoder.layer.0.output.dense.bias");
        assert_eq!(first(Layout::Moue, "blocks.0.mlp.fc2.bias"), "encoder.blocks.0.mlp.fc2.bias");
        // A convolutional stem has no place in theirs.
        assert!(Layout::Hf.places("stem.convs.0.weight").is_empty());
    }

    #[test]
    fn orders_go_there_and_back() {
        for (form, ours, theirs) in
            [(Form::Transposed, [2, 3], vec![3, 2]), (Form::Patches, [12, 5], vec![5, 3, 2, 2]), (Form::Same, [4, 4], vec![4, 4])]
        {
            let values: Vec<f32> = (0..ours[0] * ours[1]).map(|v| v as f32).collect();
            assert_eq!(form.theirs(&ours, 2), theirs);
            let out = form.outward(values.clone(), &ours, 2);
            assert!(form == Form::Same || out != values);
            assert_eq!(form.inward(out, &ours, 2), values);
        }
        // Pixel 1 (second of the first row), channel 2, output 4.
        let values: Vec<f32> = (0..60).map(|v| v as f32).collect();
        assert_eq!(Form::Patches.outward(values.clone(), &[12, 5], 2)[(4 * 3 + 2) * 4 + 1], values[(3 + 2) * 5 + 4]);
    }
}
