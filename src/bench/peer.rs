//! The PyTorch side: `benches/peers/training.py`, brought along so that an installed program has it, started with the `python3` there is.

use super::contestant::Contestant;
use super::{Case, Ready};
use crate::config;
use crate::engine::precision::Precision;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The script that is started, and those that it imports.
const SCRIPTS: [(&str, &str); 3] = [
    ("training.py", include_str!("../../benches/peers/training.py")),
    ("hog.py", include_str!("../../benches/peers/hog.py")),
    ("timing.py", include_str!("../../benches/peers/timing.py")),
];

pub struct Peer {
    script: PathBuf,
    /// Why it cannot be started; none: it can.
    missing: Option<String>,
}

impl Peer {
    /// Writes the scripts into a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn unpack(folder: &Path) -> Result<Self> {
        for (name, text) in SCRIPTS {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        let version = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status();
        let missing = version.err().map(|e| format!("python3: {e}"));
        Ok(Self { script: folder.join(SCRIPTS[0].0), missing })
    }

    /// Inner error: why there is no peer for this case.
    ///
    /// # Errors
    /// It dies, or answers something that is no answer.
    pub fn start(&self, case: &Case, ours: &Ready) -> Result<Result<Contestant, String>> {
        if let Some(missing) = &self.missing {
            return Ok(Err(missing.clone()));
        }
        let mut command = Command::new("python3");
        command.arg("-B").arg(&self.script);
        super::ours::limit_threads(&mut command, case.threads);
        // What `auto` means has been decided by our side.
        let mut case = Case { device: if ours.is_cpu { "cpu" } else { "gpu" }.into(), ..case.clone() };
        let mixed = ours.details["precision"] == Precision::Mixed.name();
        case.settings.run.precision = if mixed { config::Precision::Mixed } else { config::Precision::F32 };
        Contestant::start("PyTorch", command, &case)
    }
}
