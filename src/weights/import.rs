//! Matching a file's tensors with an encoder, and telling what came of it.
//!
//! Every parameter of the encoder is looked for under the names of the file's layout, wherever in the file the network lies (`model.`,
//! `module.`, `vit.` ... in front of all its names). Taken over exactly: linear layers, norms, the patch embedding, a projection to queries,
//! keys and values in one or three pieces. Adapted, and told: position embeddings to another grid, three colour channels to one (summed) or
//! one to three (a third each), a missing bias of that projection (zero). Told, because then the features are not those of the file: a class
//! token on one side only, a missing last norm.
//!
//! Refused ([`Report::check`]): a file of which less than [`ENOUGH`] of the encoder's values can be filled, one that holds parts of an encoder
//! that ours has not (layer scale, registers, relative positions, more blocks: it would compute something else), and a network with another
//! activation than the file's.

use super::file::TensorFile;
use super::layout::{Form, Layout, Place};
use super::parameters::{replaced, shapes};
use super::positions::{Filter, resample};
use crate::config::{Activation, Normalize, Settings};
use crate::model::Vit;
use crate::usage;
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Share of the encoder's values that must come from the file.
pub const ENOUGH: f64 = 0.95;
/// Largest grid of position embeddings that is read, patches a side.
const MAX_GRID: usize = 256;

/// A parameter of ours that was filled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    pub ours: String,
    /// Empty where zeros stand for what the file leaves out.
    pub theirs: Vec<String>,
    /// Of each of the file's tensors.
    pub shape: Vec<usize>,
    /// What was done beyond reordering; empty: nothing.
    pub adapted: String,
}

/// A tensor that is there under its name, but with a shape that has no place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Misfit {
    pub ours: String,
    pub wanted: Vec<usize>,
    pub theirs: String,
    pub found: Vec<usize>,
}

/// What importing a file came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The program that the file seems to come from.
    pub family: &'static str,
    /// What stands before all names of the network, for example `model.`.
    pub prefix: String,
    pub matched: Vec<Match>,
    /// Parameters of ours that keep their first values.
    pub missing: Vec<String>,
    pub misfits: Vec<Misfit>,
    /// Tensors of the file that were not used and do not change what an encoder computes: heads, decoders, mask tokens.
    pub beside: Vec<String>,
    /// Tensors of the file that belong to its encoder and have no place in ours.
    pub foreign: Vec<String>,
    /// Tensors of the file that are not under the prefix: optimiser state, other networks.
    pub outside: usize,
    /// What is to be known: what was adapted, and where the features differ from the file's.
    pub notes: Vec<String>,
    /// Share of the encoder's values that came from the file.
    pub share: f64,
    #[serde(skip)]
    refusal: Option<String>,
}

/// Puts a file's weights into an encoder that `s` describes.
///
/// # Errors
/// A file in which no vision transformer is found, or more than one; unreadable tensors. Whether enough was found is for
/// [`Report::check`].
pub fn import(file: &TensorFile, encoder: Vit, s: &Settings) -> Result<(Vit, Report)> {
    let (layout, prefix) = locate(file)?;
    let inside: BTreeMap<&str, &[usize]> =
        file.shapes().iter().filter_map(|(name, shape)| Some((name.strip_prefix(&prefix)?, shape.as_slice()))).collect();
    let mut taking =
        Taking { file, prefix: &prefix, inside: &inside, s, filter: Filter::Plain, used: BTreeSet::new(), values: BTreeMap::new() };
    let has = |start: &str| inside.keys().any(|name| name.starts_with(start));
    let family = match layout {
        Layout::Moue => "moue",
        Layout::Hf => "transformers",
        Layout::Timm if has("decoder_embed") => "MAE",
        Layout::Timm if has("pred_head.") => "SlowFast MaskFeat",
        Layout::Timm => "timm",
    };
    if family == "timm" {
        taking.filter = Filter::Antialiased;
    }
    let mut report = Report {
        family,
        prefix: prefix.clone(),
        matched: Vec::new(),
        missing: Vec::new(),
        misfits: Vec::new(),
        beside: Vec::new(),
        foreign: Vec::new(),
        outside: file.shapes().len() - inside.len(),
        notes: Vec::new(),
        share: 0.0,
        refusal: None,
    };
    let wanted = shapes(&encoder);
    let (mut filled, mut all) = (0, 0);
    for (ours, shape) in &wanted {
        let size: usize = shape.iter().product();
        all += size;
        match taking.take(layout, ours, shape)? {
            Taken::Match(found) => {
                filled += size;
                report.matched.push(found);
            }
            Taken::Misfit(misfit) => {
                report.missing.push(ours.clone());
                report.misfits.push(misfit);
            }
            Taken::Nothing => report.missing.push(ours.clone()),
        }
    }
    report.share = filled as f64 / all as f64;
    for name in inside.keys().filter(|name| !taking.used.contains(**name)) {
        // A file of ours holds heads, too.
        let beside = if layout == Layout::Moue { !name.starts_with("encoder.") } else { layout.beside(name) };
        if beside { report.beside.push((*name).to_string()) } else { report.foreign.push((*name).to_string()) }
    }
    report.tell(layout, &inside, s);
    Ok((replaced(encoder, taking.values), report))
}

/// The layout of a file, and what stands before the names of its network.
fn locate(file: &TensorFile) -> Result<(Layout, String)> {
    for layout in Layout::ALL {
        let prefixes: Vec<&str> = file.shapes().keys().filter_map(|name| name.strip_suffix(layout.mark())).collect();
        // `x.patch_embed` must not pass for `patch_embed` of something that ends in `x`.
        let whole: Vec<&str> = prefixes.into_iter().filter(|p| p.is_empty() || p.ends_with('.')).collect();
        match whole[..] {
            [] => continue,
            [prefix] => return Ok((layout, prefix.to_string())),
            _ => bail!(
                "{} holds several networks ({}): save the one that is meant in a file of its own",
                file.path().display(),
                whole.join(", ")
            ),
        }
    }
    let some: Vec<&str> = file.shapes().keys().take(4).map(String::as_str).collect();
    usage!(
        "{} holds no vision transformer as timm, MAE, SlowFast, transformers or moue name it: none of {}; it has {} tensors{}{}",
        file.path().display(),
        Layout::ALL.map(Layout::mark).join(", "),
        file.shapes().len(),
        if some.is_empty() { "" } else { ", for example " },
        some.join(", ")
    )
}

enum Taken {
    Match(Match),
    Misfit(Misfit),
    Nothing,
}

/// The search for one parameter after another.
struct Taking<'a> {
    file: &'a TensorFile,
    prefix: &'a str,
    inside: &'a BTreeMap<&'a str, &'a [usize]>,
    s: &'a Settings,
    filter: Filter,
    used: BTreeSet<String>,
    values: BTreeMap<String, Vec<f32>>,
}

impl Taking<'_> {
    fn take(&mut self, layout: Layout, ours: &str, shape: &[usize]) -> Result<Taken> {
        let places = layout.places(ours);
        let Some(place) = places.iter().find(|p| p.names.iter().all(|n| self.inside.contains_key(n.as_str()))) else {
            let weight = ours.strip_suffix("attn.qkv.bias").map(|block| format!("{block}attn.qkv.weight"));
            if weight.is_some_and(|weight| self.values.contains_key(&weight)) {
                self.values.insert(ours.into(), vec![0.0; shape.iter().product()]);
                let adapted = "zeros: the file has no such bias".to_string();
                return Ok(Taken::Match(Match { ours: ours.into(), theirs: Vec::new(), shape: Vec::new(), adapted }));
            }
            return Ok(Taken::Nothing);
        };
        self.used.extend(place.names.iter().cloned());
        if place.form == Form::Positions { self.take_positions(place, ours, shape) } else { self.take_parts(place, ours, shape) }
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.file.read(&format!("{}{name}", self.prefix))
    }

    fn misfit(&self, ours: &str, wanted: &[usize], theirs: &str) -> Taken {
        let found = self.inside[theirs].to_vec();
        Taken::Misfit(Misfit { ours: ours.into(), wanted: wanted.to_vec(), theirs: theirs.into(), found })
    }

    /// One tensor, or several that are laid side by side.
    fn take_parts(&mut self, place: &Place, ours: &str, shape: &[usize]) -> Result<Taken> {
        let (patch, parts) = (self.s.vit.patch, place.names.len());
        let mut part = shape.to_vec();
        let Some(width) = part.last_mut() else { return Ok(Taken::Nothing) };
        *width /= parts;
        let width = *width;
        let wanted = place.form.theirs(&part, patch);
        let mut adapted = String::new();
        let mut read = Vec::with_capacity(parts);
        for name in &place.names {
            let found = self.inside[name.as_str()];
            let values = match (place.form, found, &wanted[..]) {
                _ if found == wanted => self.read(name)?,
                (Form::Patches, &[d, 3, h, w], &[dim, 1, p, q]) if (d, h, w) == (dim, p, q) => {
                    adapted = "three colour channels summed into one".into();
                    let area = p * q;
                    self.read(name)?
                        .chunks(3 * area)
                        .flat_map(|rgb| (0..area).map(|i| rgb[i] + rgb[area + i] + rgb[2 * area + i]))
                        .collect()
                }
                (Form::Patches, &[d, 1, h, w], &[dim, 3, p, q]) if (d, h, w) == (dim, p, q) => {
                    adapted = "one channel spread over three".into();
                    let thirds = |plane: &[f32]| plane.iter().map(|v| v / 3.0).collect::<Vec<_>>().repeat(3);
                    self.read(name)?.chunks(p * q).flat_map(thirds).collect()
                }
                _ => return Ok(self.misfit(ours, &wanted, name)),
            };
            read.push(place.form.inward(values, &part, patch));
        }
        let rows: usize = part[..part.len() - 1].iter().product();
        let values = (0..rows).flat_map(|row| read.iter().flat_map(move |part| &part[row * width..][..width])).copied().collect();
        self.values.insert(ours.into(), values);
        Ok(Taken::Match(Match { ours: ours.into(), theirs: place.names.clone(), shape: wanted, adapted }))
    }

    /// Position embeddings: the class token's entry as it is, the others on our grid.
    fn take_positions(&mut self, place: &Place, ours: &str, shape: &[usize]) -> Result<Taken> {
        let (name, dim, grid) = (&place.names[0], self.s.vit.dim, self.s.grid());
        let cls = usize::from(self.s.vit.cls);
        let found = self.inside[name.as_str()];
        let side = |entries: usize| Some(entries.isqrt()).filter(|side| *side > 0 && side * side == entries && *side <= MAX_GRID);
        let has_cls = ["cls_token", "embeddings.cls_token", "encoder.cls_token"].iter().any(|n| self.inside.contains_key(n));
        let (first, theirs) = match *found {
            [1, entries, d] if d == dim && has_cls && side(entries - 1).is_some() => (1, side(entries - 1).unwrap_or(grid)),
            [1, entries, d] if d == dim && side(entries).is_some() => (0, side(entries).unwrap_or(grid)),
            _ => return Ok(self.misfit(ours, shape, name)),
        };
        let values = self.read(name)?;
        let mut notes = Vec::new();
        let mut out = match (cls, first) {
            (0, 1) => {
                notes.push("without the class token's".to_string());
                Vec::new()
            }
            (1, 0) => {
                notes.push("zeros for the class token".to_string());
                vec![0.0; dim]
            }
            (_, first) => values[..first * dim].to_vec(),
        };
        if theirs != grid {
            let how = if self.filter == Filter::Plain { "bicubic" } else { "bicubic, antialiased" };
            notes.push(format!("from {theirs} x {theirs} to {grid} x {grid} ({how})"));
        }
        out.extend(resample(&values[first * dim..], theirs, grid, dim, self.filter));
        self.values.insert(ours.into(), out);
        Ok(Taken::Match(Match { ours: ours.into(), theirs: place.names.clone(), shape: found.to_vec(), adapted: notes.join(", ") }))
    }
}

impl Report {
    /// Fills in what is to be known, and what stands against using the file.
    fn tell(&mut self, layout: Layout, inside: &BTreeMap<&str, &[usize]>, s: &Settings) {
        let blocks = |starts: [&str; 3]| {
            let number = |name: &&str| starts.iter().find_map(|start| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok());
            inside.keys().filter_map(number).max().map_or(0, |last| last + 1)
        };
        if let Some(&[dim, channels, patch, _]) = inside.get(layout.mark()) {
            let depth = blocks(["blocks.", "encoder.layer.", "layers."]);
            self.notes.push(format!(
                "the file's encoder: vit.dim={dim} vit.depth={depth} vit.patch={patch} data.channels={channels}; this network: vit.dim={} \
                 vit.depth={} vit.patch={} data.channels={}",
                s.vit.dim, s.vit.depth, s.vit.patch, s.data.channels
            ));
        }
        for found in self.matched.iter().filter(|m| !m.adapted.is_empty()) {
            self.notes.push(format!("{}: {}", found.ours, found.adapted));
        }
        if self.missing.iter().any(|name| name == "cls_token") {
            self.notes.push("our class token is new: the features are not the file's (vit.cls=false leaves it out)".into());
        }
        if self.beside.iter().chain(&self.foreign).any(|name| name.ends_with("cls_token")) {
            self.notes.push(
                "the file's class token is left out (vit.cls=false): patches no longer attend to it, the features are not the file's"
                    .into(),
            );
        }
        if self.missing.iter().any(|name| name == "norm.gamma") {
            self.notes.push("the file has no norm after the last block: ours starts from scratch, the features are not the file's".into());
        }
        if layout == Layout::Moue {
            return;
        }
        if s.vit.dim != 64 * s.vit.heads {
            self.notes
                .push(format!("no file tells the number of heads; vit.heads={} is taken, though 64 values a head are usual", s.vit.heads));
        }
        let input = match s.data.normalize {
            Normalize::Imagenet => "imagenet (MAE, MaskFeat, DeiT)",
            Normalize::Half => "half (most of timm's and transformers' ViTs)",
            Normalize::PerFace => "per_face (none of these programs')",
        };
        self.notes.push(format!("faces will be normalised by data.normalize={input}; it should be what the file was trained with"));
        if layout == Layout::Hf {
            self.notes.push("norms add 1e-6 to the variance, transformers' ViT 1e-12: features may differ in the fifth digit".into());
        }
        if s.vit.activation != Activation::Gelu {
            self.refusal = Some("vit.activation=relu, and these files are of networks with gelu (set vit.activation=gelu)".into());
        }
        // The class token stands among the foreign ones only where ours has none, which was told.
        self.foreign.retain(|name| !name.ends_with("cls_token") || s.vit.cls);
    }

    /// # Errors
    /// [`Usage`](crate::failure::Usage) where the network would not compute what the file's does; `partial` accepts that, but not a file
    /// of which nothing fits.
    pub fn check(&self, partial: bool) -> Result<()> {
        let percent = (1000.0 * self.share).floor() / 10.0;
        let mut reasons: Vec<String> = self.refusal.iter().cloned().collect();
        if self.share < ENOUGH {
            reasons.push(format!("only {percent} % of the encoder's values are in the file, {} % are needed", 100.0 * ENOUGH));
        }
        if let Some(misfit) = self.misfits.first() {
            let Misfit { ours, wanted, theirs, found } = misfit;
            reasons.push(format!(
                "{} tensors have other shapes, first {theirs} {found:?} for {ours}, which needs {wanted:?}",
                self.misfits.len()
            ));
        }
        if let Some(first) = self.foreign.first() {
            reasons.push(format!("{} tensors belong to an encoder of another kind, first {first}", self.foreign.len()));
        }
        if partial && self.share > 0.0 || reasons.is_empty() {
            return Ok(());
        }
        let hint = if partial { "" } else { " (--partial takes what fits, as a start for training)" };
        usage!("the network would not compute what the file's does: {}{hint}", reasons.join("; "));
    }
}
