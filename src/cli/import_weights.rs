//! `moue import-weights`: a vision transformer of another program becomes a weights file to start finetuning from.

use super::output::{check_output, print};
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, Resolved};
use crate::engine::device;
use crate::model::init::Init;
use crate::model::{Encoder, Vit};
use crate::random::Streams;
use crate::run::progress::plain;
use crate::usage;
use crate::weights::import::{ENOUGH, Match, Misfit};
use crate::weights::parameters::Branch;
use crate::weights::{Card, Layout, Report, TensorFile, export, file, import};
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Take over the encoder of a timm, MAE, SlowFast MaskFeat or transformers vision transformer
#[derive(Args, Debug)]
#[command(after_help = "\
FILE is a .safetensors file or a PyTorch checkpoint (.pth, .pt, .bin), told apart by content. A checkpoint is parsed as data: nothing in it is \
ever executed. The network may lie anywhere in it (`model`, `state_dict`, `module.` ...). The settings say what network it becomes part of; \
without any, those of the file's own card (files that moue wrote) or the defaults, a ViT-B/16 at 224 pixels.

Position embeddings are interpolated to another grid (bicubic; antialiased for timm's files, as timm does it). Three colour channels become \
one by summing. Everything that matched, that was left over on either side and that did not fit is listed.

Refused (exit code 2): less than 95 % of the encoder's values found, parts of another kind of encoder in the file (layer scale, registers, \
relative positions, more blocks), or vit.activation other than gelu. --partial takes what fits all the same, as a start for training.

Example:
  moue import-weights vit_base.safetensors --set data.normalize=half --out vit-b.safetensors
  moue import-weights mae_pretrain_vit_base.pth --set data.size=112 --out mae-112.safetensors
  moue finetune --data fp.moue --from mae-112.safetensors --set data.size=112")]
pub struct ImportWeightsArgs {
    /// File of weights
    file: PathBuf,
    /// Weights file to write, for `finetune --from`; an existing file is left alone. Without it only the list is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Take what fits, even where the network then computes something else than the file's
    #[arg(long)]
    partial: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Seed of the values that the file does not give
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ImportWeightsArgs {
    pub fn run(self) -> Result<()> {
        if let Some(out) = &self.out {
            check_output(out)?;
            if out.exists() {
                usage!("{} exists; choose another name with --out", out.display());
            }
        }
        let source = TensorFile::open(&self.file)?;
        let resolved = self.resolve(&source)?;
        let s = resolved.settings();
        if s.encoder.backbone != crate::config::Backbone::Vit {
            usage!("encoder.backbone is {}; only vision transformers are imported", s.encoder.backbone.name());
        }
        let open = device::open(DeviceChoice::Cpu)?;
        let init = Init { streams: Streams::new(self.seed), device: &open.device };
        let (vit, report) = import(&source, Vit::new(&init, s), s)?;
        print(|w| {
            if self.json {
                return Ok(writeln!(w, "{}", serde_json::to_string(&report)?)?);
            }
            list(w, &self.file.display().to_string(), &report)?;
            if let Some(card) = source.card() {
                let classes = if card.classes.is_empty() { "no classes".to_string() } else { card.classes.join(", ") };
                let told = format!("card: moue {}, {} after step {}; {classes}", card.moue, card.origin, card.step);
                writeln!(w, "{}", plain(&told))?;
            }
            Ok(())
        })?;
        report.check(self.partial)?;
        let Some(out) = &self.out else { return Ok(()) };
        let origin = self.file.file_name().unwrap_or_default().to_string_lossy();
        let tensors = export::export(&Branch { encoder: Encoder::from(vit) }, Layout::Moue, s)?;
        file::write(out, &tensors, &Card::imported(&format!("{} file {origin}", report.family), &resolved))?;
        if !self.json {
            print(|w| Ok(writeln!(w, "wrote {}; start from it with `moue finetune --from {}`", out.display(), out.display())?))?;
        }
        Ok(())
    }

    /// What was typed; if nothing was, what the file says of itself.
    fn resolve(&self, source: &TensorFile) -> Result<Resolved> {
        match source.card() {
            Some(card) if self.settings.is_empty() => card.resolved(&self.file),
            _ => self.settings.resolve(None),
        }
    }
}

/// Names of tensors are a stranger's, and are made safe for the terminal.
fn list(w: &mut dyn Write, name: &str, report: &Report) -> Result<()> {
    let under = if report.prefix.is_empty() { String::new() } else { format!(", names after `{}`", plain(&report.prefix)) };
    writeln!(w, "{name}: {}{under}", report.family)?;
    writeln!(
        w,
        "\nmatched: {} parameters, {:.1} % of the encoder's values ({:.0} % are needed)",
        report.matched.len(),
        100.0 * report.share,
        100.0 * ENOUGH
    )?;
    let shown = report.matched.iter().map(|Match { ours, theirs, shape, adapted }| {
        let from = if theirs.is_empty() { "-".to_string() } else { format!("{} {shape:?}", theirs.join(" + ")) };
        let how = if adapted.is_empty() { String::new() } else { format!("  ({adapted})") };
        format!("{ours:<28} <- {from}{how}")
    });
    grouped(w, shown)?;
    for (title, names) in [
        ("not in the file, these keep their first values", &report.missing),
        ("left over in the file, without effect on the encoder", &report.beside),
        ("left over in the file, parts of an encoder of another kind", &report.foreign),
    ] {
        if !names.is_empty() {
            writeln!(w, "{title}: {}", names.len())?;
            grouped(w, names.iter().cloned())?;
        }
    }
    if !report.misfits.is_empty() {
        writeln!(w, "of another shape: {}", report.misfits.len())?;
        let shown =
            report.misfits.iter().map(|Misfit { ours, wanted, theirs, found }| format!("{ours} needs {wanted:?}, {theirs} is {found:?}"));
        grouped(w, shown)?;
    }
    if report.outside > 0 {
        writeln!(w, "elsewhere in the file: {} tensors", report.outside)?;
    }
    for note in &report.notes {
        writeln!(w, "note: {}", plain(note))?;
    }
    Ok(())
}

/// Lines that differ only in the number of a block become one, with `*` for the number.
fn grouped(w: &mut dyn Write, lines: impl Iterator<Item = String>) -> Result<()> {
    let starred = |text: &str| {
        let mut out = Vec::new();
        for word in text.split('.') {
            out.push(if word.bytes().all(|b| b.is_ascii_digit()) && !word.is_empty() { "*" } else { word });
        }
        out.join(".")
    };
    let mut groups: Vec<(String, usize)> = Vec::new();
    for line in lines {
        let line = plain(&starred(&line));
        match groups.iter_mut().find(|g| g.0 == line) {
            Some(group) => group.1 += 1,
            None => groups.push((line, 1)),
        }
    }
    for (line, count) in groups {
        if count > 1 { writeln!(w, "  {line}  x {count}")? } else { writeln!(w, "  {line}")? }
    }
    Ok(())
}
