//! The layers of settings as they are typed: preset, file, single values.

use crate::config::{Origin, Resolved};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Arguments of every command that reads settings.
#[derive(Args, Debug, Default)]
pub struct SettingsArgs {
    /// Preset of settings; `moue config list` names them
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
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
        self.preset.is_none() && self.config.is_none() && self.set.is_empty()
    }

    /// Resolves the layers over the defaults; `fallback` is the preset when none was typed.
    pub fn resolve(&self, fallback: Option<&str>) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        if let Some(preset) = self.preset.as_deref().or(fallback) {
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
