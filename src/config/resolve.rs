//! Layers of values become [`Settings`], and every value keeps its [`Origin`].

use super::schema::{KEYS, Settings};
use crate::failure::Usage;
use crate::limits;
use crate::usage;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use toml::{Table, Value};

/// A set of values compiled into the binary.
struct Preset {
    name: &'static str,
    /// Changes some values of another preset, rather than describing a whole run.
    overlay: bool,
    text: &'static str,
}

macro_rules! presets {
    ($($kind:ident: $($name:literal),* ;)*) => {
        const PRESETS: &[Preset] = &[$($(Preset {
            name: $name,
            overlay: presets!(@ $kind),
            text: include_str!(concat!("../../assets/presets/", $name, ".toml")),
        },)*)*];
    };
    (@ runs) => { false };
    (@ overlays) => { true };
}

presets! {
    runs: "demo", "demo-quick", "ferplus-cpu", "ferplus-gpu", "paper-ferplus", "paper-rafdb", "paper-affectnet7", "paper-affectnet8",
        "paper-table2";
    overlays: "paper", "robust", "mae", "mae_hog", "simmim", "vit-tiny", "vit-small", "vit-base", "resnet18";
}

/// Whether a preset is laid over another (`--preset ferplus-cpu,robust`) rather than describing a whole run.
pub fn is_overlay(name: &str) -> bool {
    PRESETS.iter().any(|p| p.name == name && p.overlay)
}

pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|p| p.name)
}

/// The TOML text of a preset.
///
/// # Errors
/// Unknown name: lists the known ones (bad usage).
pub fn preset_text(name: &str) -> Result<&'static str> {
    match PRESETS.iter().find(|p| p.name == name) {
        Some(p) => Ok(p.text),
        None => {
            let near = nearest(name, preset_names()).map(|n| format!(" Did you mean `{n}`?")).unwrap_or_default();
            usage!("no preset is called `{name}`.{near} Known: {}", preset_names().collect::<Vec<_>>().join(", "))
        }
    }
}

/// The layer that set a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    Preset(String),
    File(String),
    Flag,
    /// An earlier run that this one continues or builds on.
    Run(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Preset(name) => write!(f, "preset {name}"),
            Origin::File(path) => write!(f, "file {path}"),
            Origin::Flag => f.write_str("--set on the command line"),
            Origin::Run(path) => write!(f, "run {path}"),
        }
    }
}

/// Values with their origins; [`Resolved::settings`] is what the engine reads.
#[derive(Clone, Debug)]
pub struct Resolved {
    values: BTreeMap<&'static str, (Value, Origin)>,
    settings: Settings,
}

impl Default for Resolved {
    fn default() -> Self {
        let settings = Settings::default();
        let table = Table::try_from(&settings).expect("the schema serialises");
        let values = KEYS
            .iter()
            .map(|key| {
                let (section, field) = key.name.split_once('.').expect("keys are section.field");
                (key.name, (table[section][field].clone(), Origin::Default))
            })
            .collect();
        Self { values, settings }
    }
}

impl Resolved {
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Value (as TOML text) and origin of every key, in schema order.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        KEYS.iter().map(|k| {
            let (value, origin) = &self.values[k.name];
            (k.name, value.to_string(), origin)
        })
    }

    /// Value (as TOML text) and origin of one key.
    ///
    /// # Errors
    /// Unknown key, with the nearest known one.
    pub fn entry(&self, key: &str) -> Result<(String, &Origin)> {
        let name = known(key)?;
        let (value, origin) = &self.values[name];
        Ok((value.to_string(), origin))
    }

    pub fn with_preset(self, name: &str) -> Result<Self> {
        self.with_toml(preset_text(name)?, &Origin::Preset(name.into()))
    }

    pub fn with_file(self, path: &Path) -> Result<Self> {
        let text = match limits::read_text(path) {
            Ok(text) => text,
            Err(e) => usage!("cannot read configuration {}: {e}", path.display()),
        };
        self.with_toml(&text, &Origin::File(path.display().to_string()))
    }

    /// Applies the text of a TOML document with one table per section.
    ///
    /// # Errors
    /// Names the layer, the line and the key.
    pub fn with_toml(mut self, text: &str, origin: &Origin) -> Result<Self> {
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(e) => usage!("{origin}: {}", e.to_string().trim().replace('\n', " ")),
        };
        for (section, fields) in table {
            let Value::Table(fields) = fields else {
                usage!(
                    "{origin}, line {}: `{section}` stands outside any section; known sections: {}",
                    line_of(text, &section),
                    sections()
                );
            };
            for (field, value) in fields {
                let key = format!("{section}.{field}");
                self.set(&key, value, origin.clone()).map_err(|e| Usage(format!("{origin}, line {}: {e}", line_of(text, &field))))?;
            }
        }
        self.checked(origin)
    }

    /// Applies one `key=value` as typed after `--set`. The value is TOML; a bare word is a string.
    pub fn with_flag(mut self, assignment: &str) -> Result<Self> {
        let Some((key, text)) = assignment.split_once('=') else {
            usage!("--set {assignment}: expected key=value, for example --set finetune.epochs=20");
        };
        let (key, text) = (key.trim(), text.trim());
        let value =
            format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v")).unwrap_or_else(|| Value::String(text.to_string()));
        self.set(key, value, Origin::Flag).map_err(|e| Usage(format!("--set {assignment}: {e}")))?;
        Ok(self)
    }

    /// Applies one layer as a table of experiments names it: `key=value`, or else a preset.
    pub fn with_layer(self, layer: &str) -> Result<Self> {
        if layer.contains('=') { self.with_flag(layer) } else { self.with_preset(layer) }
    }

    /// Takes over the values of an earlier run's manifest (`key` -> TOML text).
    pub fn with_values<'a>(mut self, values: impl IntoIterator<Item = (&'a str, &'a str)>, origin: &Origin) -> Result<Self> {
        let mut seen = BTreeSet::new();
        for (key, text) in values {
            if !seen.insert(key) {
                usage!("{origin}: `{key}` has two values");
            }
            let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
            let Some(value) = value else { usage!("{origin}: `{key}` has the unreadable value `{text}`") };
            self.set(key, value, origin.clone()).map_err(|e| Usage(format!("{origin}: {e}")))?;
        }
        self.checked(origin)
    }

    /// Checks ranges and combinations; call once after the last layer.
    pub fn checked(self, origin: &Origin) -> Result<Self> {
        match self.settings.validate() {
            Ok(()) => Ok(self),
            Err(e) => usage!("{origin}: {e}"),
        }
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<()> {
        let name = known(key)?;
        let (section, field) = name.split_once('.').expect("keys are section.field");
        let mut table = Table::try_from(&self.settings).expect("the schema serialises");
        table[section].as_table_mut().expect("sections are tables").insert(field.to_string(), value.clone());
        match table.try_into::<Settings>() {
            Ok(settings) => self.settings = settings,
            Err(e) => {
                let kind = KEYS.iter().find(|k| k.name == name).map_or("", |k| k.kind);
                usage!("`{name}` = {value} does not fit type {kind}: {}", e.message().replace('\n', " "))
            }
        }
        // Normalise through the schema, so that `1` written for a float is kept as the float it becomes.
        let table = Table::try_from(&self.settings).expect("the schema serialises");
        self.values.insert(name, (table[section][field].clone(), origin));
        self.follow();
        Ok(())
    }

    /// Renews the default that another setting decides, as long as no layer has set the value itself.
    fn follow(&mut self) {
        let share = self.settings.labels.strategy.default_share();
        if let Some((value, Origin::Default)) = self.values.get_mut("labels.share") {
            self.settings.labels.share = share;
            *value = Value::Float(share);
        }
    }
}

/// The schema's own spelling of `key`, or bad usage with a suggestion.
fn known(key: &str) -> Result<&'static str> {
    match KEYS.iter().find(|k| k.name == key) {
        Some(k) => Ok(k.name),
        None => {
            let near = nearest(key, KEYS.iter().map(|k| k.name)).map(|n| format!(" Did you mean `{n}`?")).unwrap_or_default();
            usage!("no setting is called `{key}`.{near} `moue config list` shows all")
        }
    }
}

/// The distance takes time and memory in proportion to the word, and no name is like one this long.
const LONGEST_NAME: usize = 64;

fn nearest<'a>(word: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST_NAME {
        return None;
    }
    all.map(|n| (strsim::damerau_levenshtein(word, n), n)).filter(|(d, n)| *d <= 1 + n.len() / 3).min().map(|(_, n)| n)
}

fn sections() -> String {
    super::SECTIONS.iter().map(|s| s.0).collect::<Vec<_>>().join(", ")
}

/// Line on which `name` first stands as a key or table header.
fn line_of(text: &str, name: &str) -> usize {
    let stands = |line: &&str| {
        let line = line.trim_start().trim_start_matches('[').trim_start();
        line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    text.lines().position(|l| stands(&l)).map_or(1, |n| n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_resolves() {
        for name in preset_names() {
            Resolved::default().with_preset(name).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        }
    }

    /// Overlays of pretraining hold no size of any network, so they fit every preset that names one.
    #[test]
    fn methods_are_laid_over_any_preset() {
        for overlay in ["mae", "mae_hog", "simmim"] {
            for base in ["demo", "ferplus-cpu", "ferplus-gpu", "paper-rafdb"] {
                let r = Resolved::default().with_preset(base).and_then(|r| r.with_preset(overlay)).unwrap();
                assert_eq!(r.settings().pretrain.method.name(), overlay, "{base}");
            }
        }
    }

    #[test]
    fn masks_that_do_not_fit_the_network_are_refused() {
        let refused = |flags: &[&str], parts: &[&str]| {
            let r = flags.iter().try_fold(Resolved::default(), |r, flag| r.with_flag(flag)).unwrap();
            let e = r.checked(&Origin::Flag).unwrap_err().to_string();
            assert!(parts.iter().all(|part| e.contains(part)), "{flags:?}: {e}");
        };
        refused(&["vit.stem=conv", "pretrain.method=mae"], &["pretrain.method = \"mae\"", "vit.stem = \"patch\""]);
        refused(&["vit.stem=conv", "finetune.mask_ratio=0.4"], &["finetune.mask_ratio = 0.4", "vit.stem = \"patch\""]);
        refused(&["finetune.mask_ratio=0.999"], &["finetune.mask_ratio", "none of 196"]);
        refused(&["finetune.mask_ratio=1.2"], &["finetune.mask_ratio", "[0, 1]"]);
        refused(&["mask.unit=4"], &["mask.unit = 4", "14 patches"]);
        refused(&["mim.decoder_heads=5"], &["mim.decoder_heads", "512"]);
        refused(&["pretrain.method=mae_hog", "mask.ratio=1"], &["mae_hog", "196 of 196"]);
        refused(&["pretrain.method=mae", "mask.ratio=0"], &["0 of 196"]);
        let fine = Resolved::default().with_flag("vit.stem=conv").and_then(|r| r.with_flag("pretrain.method=simmim")).unwrap();
        assert!(fine.checked(&Origin::Flag).is_ok());
    }

    #[test]
    fn a_later_layer_wins_even_with_the_default_value() {
        let r = Resolved::default()
            .with_toml("[revise]\ntheta = 0.7\n", &Origin::File("x.toml".into()))
            .unwrap()
            .with_flag("revise.theta=0.5")
            .unwrap();
        assert_eq!(r.settings().revise.theta, 0.5);
        assert_eq!(r.entry("revise.theta").unwrap(), ("0.5".to_string(), &Origin::Flag));
        assert_eq!(r.entry("revise.ema").unwrap().1, &Origin::Default);
    }

    #[test]
    fn the_share_follows_the_strategy_until_a_layer_sets_it() {
        let share = |r: &Resolved| {
            let (text, origin) = r.entry("labels.share").unwrap();
            assert_eq!(text, format!("{:?}", r.settings().labels.share));
            (r.settings().labels.share, origin.clone())
        };
        let flags = |flags: &[&str]| share(&flags.iter().try_fold(Resolved::default(), |r, flag| r.with_flag(flag)).unwrap());
        assert_eq!(flags(&[]), (0.0, Origin::Default));
        assert_eq!(flags(&["labels.strategy=distribution"]), (0.2, Origin::Default));
        assert_eq!(flags(&["labels.strategy=distribution", "labels.strategy=votes"]), (0.0, Origin::Default));
        for order in [["labels.share=0", "labels.strategy=distribution"], ["labels.strategy=distribution", "labels.share=0"]] {
            assert_eq!(flags(&order), (0.0, Origin::Flag));
        }
        // An earlier run's value stands, whatever the default was then.
        let values = [("labels.share", "0.0"), ("labels.strategy", "\"distribution\"")];
        let origin = Origin::Run("runs/old".into());
        assert_eq!(share(&Resolved::default().with_values(values, &origin).unwrap()), (0.0, origin));
        for (preset, expected) in [("paper-rafdb", 0.2), ("ferplus-cpu", 0.3), ("paper-ferplus", 0.0), ("paper-affectnet7", 0.0)] {
            assert_eq!(share(&Resolved::default().with_preset(preset).unwrap()).0, expected, "{preset}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_line_and_suggestion() {
        let e =
            Resolved::default().with_toml("[finetune]\nepochs = 3\nbacth = 4\n", &Origin::File("x.toml".into())).unwrap_err().to_string();
        assert!(e.contains("x.toml, line 3") && e.contains("finetune.batch"), "{e}");
        let e = Resolved::default().with_flag("vit.dmi=3").unwrap_err().to_string();
        assert!(e.contains("vit.dim"), "{e}");
    }

    #[test]
    fn wrong_types_and_ranges_are_refused() {
        assert!(Resolved::default().with_flag("vit.dim=wide").is_err());
        assert!(Resolved::default().with_flag("revise.metric=marginal").is_err());
        let r = Resolved::default().with_flag("revise.theta=1.5").unwrap();
        assert!(r.checked(&Origin::Flag).is_err());
        // An integer is a fine float, and an enum is written as a bare word.
        let r = Resolved::default().with_flag("revise.theta=1").unwrap().with_flag("mask.kind=random").unwrap();
        assert_eq!(r.settings().revise.theta, 1.0);
    }

    #[test]
    fn every_key_is_documented() {
        for key in KEYS {
            assert!(key.doc.trim().len() > 10, "{} has no description", key.name);
        }
    }
}
