//! The layers of settings as they are typed: preset, file, single values.

use crate::config::{Origin, Resolved, is_overlay};
use anyhow::Result;
use clap::Args;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Arguments of every command that reads settings.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Presets of settings, the later over the earlier (`--preset ferplus-cpu,robust`); `moue config list` names them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub preset: Vec<String>,
    /// TOML file of settings, over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, over preset and file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Faces per optimiser step, in pretraining and finetuning; auto: what the settings say, in as few parts as fit into the device's memory
    /// (short for --set pretrain.batch=... or --set pretrain.accumulate=0, and the same of finetune)
    #[arg(long, value_name = "N|auto")]
    pub batch: Option<Batch>,
    /// What matrix products are computed in: auto, f32 or mixed (short for --set run.precision=...)
    #[arg(long, value_name = "WORD")]
    pub precision: Option<String>,
}

/// What may follow `--batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    Faces(usize),
    /// In as few parts as fit.
    Auto,
}

impl FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse::<usize>()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(faces)) if faces > 0 => Ok(Self::Faces(faces)),
            _ => Err("expected a number of faces, or auto".into()),
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faces(faces) => write!(f, "{faces}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl SettingsArgs {
    /// Whether nothing was typed.
    #[cfg(feature = "train")]
    pub fn is_empty(&self) -> bool {
        self.preset.is_empty() && self.config.is_none() && self.set.is_empty() && self.precision.is_none() && self.batch.is_none()
    }

    /// What was typed, to be typed again: ` --preset demo --set labels.k=3`, or nothing.
    #[cfg(feature = "train")]
    pub fn words(&self) -> String {
        let preset = (!self.preset.is_empty()).then(|| format!(" --preset {}", self.preset.join(",")));
        let file = self.config.iter().map(|file| format!(" --config {}", file.display()));
        let batch = self.batch.iter().map(|batch| format!(" --batch {batch}"));
        let precision = self.precision.iter().map(|word| format!(" --precision {word}"));
        preset.into_iter().chain(file).chain(self.set.iter().map(|set| format!(" --set {set}"))).chain(batch).chain(precision).collect()
    }

    /// Resolves the layers over the defaults; `fallback` is the preset when none was typed that describes a whole run: overlays such as
    /// `robust` leave it in place.
    pub fn resolve(&self, fallback: Option<&str>) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        let whole = |name: &String| !is_overlay(name);
        let fallback = fallback.filter(|_| !self.preset.iter().any(whole));
        for preset in fallback.into_iter().chain(self.preset.iter().map(String::as_str)) {
            resolved = resolved.with_preset(preset)?;
        }
        if let Some(file) = &self.config {
            resolved = resolved.with_file(file)?;
        }
        for assignment in &self.set {
            resolved = resolved.with_flag(assignment)?;
        }
        for section in self.batch.iter().flat_map(|_| ["pretrain", "finetune"]) {
            resolved = resolved.with_flag(&match self.batch {
                Some(Batch::Faces(faces)) => format!("{section}.batch={faces}"),
                _ => format!("{section}.accumulate=0"),
            })?;
        }
        if let Some(word) = &self.precision {
            resolved = resolved.with_flag(&format!("run.precision={word}"))?;
        }
        resolved.checked(&Origin::Flag)
    }
}
