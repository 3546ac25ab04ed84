//! `moue export`: a trained network as a file of tensors, for moue, timm or transformers.

use super::output::{check_output, print};
use crate::config::{DeviceChoice, Objective};
use crate::engine::device;
use crate::model::{Encoder, Vit};
use crate::pipeline::load::{self, Network, Trained};
use crate::usage;
use crate::weights::parameters::Branch;
use crate::weights::{Card, Layout, Part, export, file, same_classes};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Write a trained network as a file that moue, timm or transformers reads
#[derive(Args, Debug)]
#[command(after_help = "\
moue: the whole network under moue's names; `moue predict` and `moue finetune --from` read it. timm and hf: the encoder (features after the \
last norm) under the names of timm's VisionTransformer or of transformers' ViTModel; the query decoder has no counterpart there. The file's \
metadata hold a card: settings, class names in label order with the label protocol, and the temperature that calibrates the probabilities.

Example:
  moue export runs/fp --out fp.safetensors
  moue export runs/fp --layout timm --out fp-timm.safetensors")]
pub struct ExportArgs {
    /// Run folder, or a weights file to be written under other names
    run: PathBuf,
    /// File format; there is one
    #[arg(long, value_enum, default_value_t = Format::Safetensors)]
    format: Format,
    /// Whose names and shapes the tensors get
    #[arg(long, value_enum, default_value_t = Layout::Moue)]
    layout: Layout,
    /// File to write (default: <run>-<layout>.safetensors here); an existing file is left alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Objective whose network is taken, or `pretrain` for the pretrained encoder (default: what the run is about)
    #[arg(long, value_name = "OBJECTIVE", value_parser = which())]
    which: Option<String>,
    /// Class names in the order that the reader expects; refused if the network has another one
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    classes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Safetensors,
}

/// Values of `--which` where a pretrained encoder will do.
fn which() -> Vec<&'static str> {
    Objective::ALL.map(Objective::name).into_iter().chain([load::PRETRAINED]).collect()
}

impl ExportArgs {
    pub fn run(self) -> Result<()> {
        let Format::Safetensors = self.format;
        let out = self.out.clone().unwrap_or_else(|| default_name(&self.run, self.layout));
        check_output(&out)?;
        if out.exists() {
            usage!("{} exists; choose another name with --out", out.display());
        }
        let open = device::open(DeviceChoice::Cpu)?;
        let Trained { network, card, resolved, remarks, .. } = load::trained(&self.run, self.which.as_deref(), &open.device)?;
        remarks.iter().for_each(|remark| eprintln!("{remark}"));
        if let Some(classes) = &self.classes {
            same_classes(&card.classes, "--classes", classes)?;
        }
        let s = resolved.settings();
        let tensors = match &network {
            Network::Encoder(vit) => export::export(&Branch { encoder: Encoder::from(Vit::clone(vit)) }, self.layout, s)?,
            Network::Classifier(model) => export::export(&**model, self.layout, s)?,
        };
        let part = if self.layout == Layout::Moue { card.part } else { Part::Encoder };
        let card = Card { part, layout: self.layout, ..card };
        file::write(&out, &tensors, &card)?;
        let values: usize = tensors.iter().map(|t| t.values.len()).sum();
        let (name, origin, step) = (out.display().to_string(), &card.origin, card.step);
        print(|w| {
            writeln!(w, "{name}: {} tensors, {values} values, {origin} after step {step}", tensors.len())?;
            if let (Network::Classifier(_), Part::Encoder) = (&network, part) {
                writeln!(w, "the encoder alone; its head ({}) has no counterpart there", head(&network))?;
            }
            if !card.classes.is_empty() {
                writeln!(w, "classes: {}", card.classes.join(", "))?;
            }
            if let Some(recipe) = export::recipe(self.layout, s, &name) {
                writeln!(w, "to be read with:\n{recipe}")?;
                let normalize = resolved.entry("data.normalize")?.0;
                writeln!(w, "faces are normalised by data.normalize={normalize}")?;
            }
            Ok(())
        })
    }
}

fn head(network: &Network) -> &'static str {
    match network {
        Network::Classifier(model) if model.head.decoder.is_some() => "query decoder",
        _ => "pooled",
    }
}

/// `<run>-<layout>.safetensors` in the current folder.
fn default_name(run: &Path, layout: Layout) -> PathBuf {
    let name =
        run.canonicalize().ok().and_then(|p| Some(p.file_stem()?.to_string_lossy().into_owned())).unwrap_or_else(|| "network".into());
    let layout = layout.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string());
    PathBuf::from(format!("{name}-{layout}.safetensors"))
}
