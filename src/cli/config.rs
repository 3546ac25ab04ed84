//! `moue config`: settings, presets, and where each value comes from.

use super::output::print;
use super::settings::SettingsArgs;
use crate::config::{KEYS, Origin, Resolved, SECTIONS, is_overlay, preset_names, preset_text};
use anyhow::Result;
use clap::{Args, Subcommand};

/// Explain settings and presets
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue config explain revise.theta --preset ferplus-cpu\n  moue config show --preset demo")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// List presets and all settings with their defaults
    List,
    /// Show every value with its origin
    Show {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Say a setting's value, where it came from, and what it means
    Explain {
        /// Setting, for example revise.theta
        key: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    #[cfg(feature = "train")]
    Plan(super::plan::PlanArgs),
    /// Print a preset's text
    Preset {
        /// Name, as `moue config list` shows it
        name: String,
    },
}

impl ConfigArgs {
    pub fn run(self) -> Result<()> {
        match self.command {
            ConfigCommand::List => {
                let resolved = Resolved::default();
                print(|w| {
                    let (overlays, runs): (Vec<_>, Vec<_>) = preset_names().partition(|name| is_overlay(name));
                    writeln!(w, "presets: {}; to lay over one of them: {}", runs.join(", "), overlays.join(", "))?;
                    let mut section = "";
                    for (key, value, _) in resolved.entries() {
                        let here = key.split('.').next().unwrap_or_default();
                        if here != section {
                            section = here;
                            let doc = SECTIONS.iter().find(|s| s.0 == section).map_or("", |s| s.1);
                            writeln!(w, "\n[{section}]{doc}")?;
                        }
                        let doc = KEYS.iter().find(|k| k.name == key).map_or("", |k| k.doc);
                        writeln!(w, "  {key} = {value}\n     {doc}")?;
                    }
                    Ok(())
                })
            }
            ConfigCommand::Show { settings } => {
                let resolved = settings.resolve(None)?;
                print(|w| {
                    for (key, value, origin) in resolved.entries() {
                        writeln!(w, "{:<40} # {origin}", format!("{key} = {value}"))?;
                    }
                    Ok(())
                })
            }
            ConfigCommand::Explain { key, settings } => {
                let resolved = settings.resolve(None)?;
                let (value, origin) = resolved.entry(&key)?;
                let default = Resolved::default();
                let (default, _) = default.entry(&key)?;
                let doc = KEYS.iter().find(|k| k.name == key).map_or("", |k| k.doc).trim();
                // A default may depend on another setting.
                let changed = *origin != Origin::Default && value != default;
                print(|w| {
                    writeln!(w, "{key} = {value}")?;
                    writeln!(w, "  from:    {origin}{}", if changed { format!(" (default {default})") } else { String::new() })?;
                    Ok(writeln!(w, "  meaning: {doc}")?)
                })
            }
            #[cfg(feature = "train")]
            ConfigCommand::Plan(args) => args.run(),
            ConfigCommand::Preset { name } => {
                let text = preset_text(&name)?;
                print(|w| Ok(w.write_all(text.as_bytes())?))
            }
        }
    }
}
