//! The layers of settings as they are typed: preset, file, single values.

use crate::config::{Origin, Resolved, is_overlay};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Arguments of every command that reads settings.
#[derive(Args, Debug, Default)]
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
}

impl SettingsArgs {
    /// Whether nothing was typed.
    #[cfg(feature = "train")]
    pub fn is_empty(&self) -> bool {
        self.preset.is_empty() && self.config.is_none() && self.set.is_empty()
    }

    /// What was typed, to be typed again: ` --preset demo --set labels.k=3`, or nothing.
    #[cfg(feature = "train")]
    pub fn words(&self) -> String {
        let preset = (!self.preset.is_empty()).then(|| format!(" --preset {}", self.preset.join(",")));
        let file = self.config.iter().map(|file| format!(" --config {}", file.display()));
        preset.into_iter().chain(file).chain(self.set.iter().map(|set| format!(" --set {set}"))).collect()
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
        resolved.checked(&Origin::Flag)
    }
}
