//! `moue rerun`: a finished run done again from its manifest, and held against it bit for bit.

use super::order::{Earlier, Faces, GENERATED, Order, Place};
use super::output::print;
use super::progress::ProgressArgs;
use crate::config::{DeviceChoice, KEYS, Resolved};
use crate::dataset::Pack;
use crate::dataset::generated::GeneratorConfig;
use crate::pipeline::{JobEnd, Stages};
use crate::run::differences::{Difference, differences};
use crate::run::repetition::{self, Part};
use crate::run::{Manifest, Outcome, RunFolder};
use crate::usage;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Do a finished run again from its manifest, and say whether it comes out the same, bit for bit
///
/// Stages, settings, seed, data, candidate sets and the network to start from are those of the run; so are the device, the precision and
/// the number of threads, on which the bits depend. Before it starts it says where program, device or data differ from then. Ends with 0 where
/// results are equal or a difference was announced, with 1 where they differ although nothing does.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue rerun runs/fp --out runs/fp-again\n  moue rerun demo-2026-11-03-1 --device gpu --json")]
pub struct RerunArgs {
    /// Finished run: its path, its name, or the beginning of a name that no other run shares
    run: String,
    /// The folder that holds the runs
    #[arg(long, default_value = "runs")]
    dir: PathBuf,
    /// Run folder to make (default: runs/rerun-<date>-<n>)
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl (default: the device of the run)
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Another pack than the run's, on purpose, or where that lies now
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// Another network to start from, on purpose, or where that lies now
    #[arg(long, value_name = "RUN_OR_WEIGHTS")]
    from: Option<PathBuf>,
    /// Other candidate sets, on purpose, or where they lie now
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Go on with the repetition in --out
    #[arg(long, requires = "out", conflicts_with_all = ["data", "from", "labels"])]
    resume: bool,
    /// Print one JSON object; progress goes to the standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl RerunArgs {
    pub fn run(self) -> Result<()> {
        let earlier = Earlier::read(RunFolder::find(&self.dir, &self.run)?)?;
        let run = earlier.folder.path().display();
        match &earlier.manifest.finished {
            Some(end) if end.outcome == Outcome::Completed => {}
            Some(end) => usage!("{run} is {}, so there is nothing to compare with; finish it with --resume first", end.outcome.name()),
            None => usage!("{run} is not finished, so there is nothing to compare with"),
        }
        let order = if self.resume { self.resumed(&earlier)? } else { self.repeated(&earlier)? };
        let progress = if self.json { self.progress.aside() } else { self.progress };
        let ran = order.carry_out(&progress)?;
        let out = ran.folder.path().display();
        if let JobEnd::Interrupted = ran.end {
            let text = format!("stopped; go on with: moue rerun {} --resume --out {out}", earlier.folder.path().display());
            if self.json {
                bail!("{text}");
            }
            return print(|w| Ok(writeln!(w, "{text}")?));
        }
        // Of a resumed repetition the manifest knows.
        let found = differences(&earlier.manifest, &Manifest::read(&ran.folder)?);
        let parts = repetition::compare(&earlier.folder, &ran.folder)?;
        let same = parts.iter().all(|part| part.difference.is_none());
        print(|w| match self.json {
            true => {
                let value = json!({"run": run.to_string(), "again": out.to_string(), "same": same, "differences": found, "results": parts});
                Ok(writeln!(w, "{value:#}")?)
            }
            false => {
                table(w, &found, &parts)?;
                Ok(writeln!(w, "run: {out}")?)
            }
        })?;
        if !same && !found.iter().any(|difference| difference.matters) {
            bail!("the results differ from those of {run}, and nothing is known of that they could differ by");
        }
        Ok(())
    }

    /// The run again, in a folder of its own.
    fn repeated(&self, earlier: &Earlier) -> Result<Order> {
        let resolved = earlier.settings(|key| KEYS.iter().any(|known| known.name == key))?;
        let stages = stages(earlier, &resolved)?;
        let input = |flag: &str, typed: &Option<PathBuf>| -> Result<Option<PathBuf>> {
            match (typed, earlier.input(flag)) {
                (Some(typed), Some(_)) => Ok(Some(typed.clone())),
                (Some(_), None) => usage!("--{flag}: {} had no such input", earlier.folder.path().display()),
                (None, own) => match earlier.changed(flag)? {
                    Some(why) => usage!("{why}; --{flag} names another one on purpose, or where it lies now"),
                    None => Ok(own),
                },
            }
        };
        let (from, labels) = (input("from", &self.from)?, input("labels", &self.labels)?);
        Ok(Order {
            command: "rerun",
            stages,
            resolved,
            seed: earlier.manifest.seed,
            faces: self.data.clone().map_or_else(|| earlier.faces(), |path| Ok(Faces::Pack(path)))?,
            pack_hash: earlier.pack_hash().filter(|_| self.data.is_none()),
            from,
            labels,
            device: self.device.map_or_else(|| earlier.device(), Ok)?,
            place: Place::New(self.out.clone()),
            repeats: Some(earlier.manifest.clone()),
        })
    }

    /// A repetition that was stopped.
    fn resumed(&self, earlier: &Earlier) -> Result<Order> {
        let begun = Earlier::read(RunFolder::open(self.out.as_deref().unwrap_or(Path::new(".")))?)?;
        if begun.manifest.stages != earlier.manifest.stages || begun.manifest.seed != earlier.manifest.seed {
            usage!("{} is no repetition of {}", begun.folder.path().display(), earlier.folder.path().display());
        }
        let resolved = begun.settings(|_| true)?;
        let stages = stages(&begun, &resolved)?;
        begun.resumed("rerun", stages, resolved, None, self.device)
    }
}

/// The stages whose trainings the manifest names.
fn stages(earlier: &Earlier, resolved: &Resolved) -> Result<Stages> {
    let names = &earlier.manifest.stages;
    let any = |prefixes: &[&str]| names.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    let stages = Stages { pretrain: any(&["pretrain"]), labels: any(&["labels/"]), finetune: any(&["finetune/", "baseline/"]) };
    if names.is_empty() || stages.names(resolved.settings()) != *names {
        usage!("{} is a run of [{}], which this moue does not know how to do", earlier.folder.path().display(), names.join(", "));
    }
    Ok(stages)
}

impl Earlier {
    /// Where the run's faces come from: they are generated again where it generated its own.
    fn faces(&self) -> Result<Faces> {
        let own = self.folder.path().join(GENERATED);
        let generator = match &self.manifest.generator {
            Some(config) => Some(config.clone()),
            // Before the manifest said so, only the pack itself did.
            None if own.exists() => serde_json::from_value::<GeneratorConfig>(Pack::open(&own)?.provenance()["generator"].clone()).ok(),
            None => None,
        };
        match (generator, &self.manifest.data) {
            (Some(config), _) => Ok(Faces::Generated(config)),
            (None, Some(data)) if data.place(&self.folder).exists() => Ok(Faces::Pack(data.place(&self.folder))),
            (None, Some(data)) => usage!("the pack {} is gone; say with --data where it is now", data.pack),
            (None, None) => usage!("{} does not say which pack it was trained on; name it with --data", self.folder.path().display()),
        }
    }
}

/// What differed before, and whether each part of the results does.
fn table(w: &mut dyn Write, found: &[Difference], parts: &[Part]) -> Result<()> {
    writeln!(w)?;
    if found.is_empty() {
        writeln!(w, "program, device, data and settings are those of then")?;
    }
    found.iter().try_for_each(|difference| writeln!(w, "{difference}"))?;
    let width = parts.iter().map(|part| part.name.len()).max().unwrap_or(0);
    let hash = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "-".into());
    writeln!(w, "\n{:<width$}  {:<16}  {:<16}", "", "then", "now")?;
    for part in parts {
        let verdict = part.difference.as_ref().map_or("same".into(), |place| format!("differs: {place}"));
        writeln!(w, "{:<width$}  {:<16}  {:<16}  {verdict}", part.name, hash(&part.then), hash(&part.now))?;
    }
    Ok(())
}
