//! `moue report`: one page about one run, or about several side by side. Reads run folders, and the pack for faces.

use super::output::{check_output, print};
use crate::failure::one_line;
use crate::report::faces::Faces;
use crate::report::figure::slug;
use crate::report::figures::Run;
use crate::report::page::{Report, WITHOUT_FACES};
use crate::report::record::Record;
use crate::run::{RunFolder, write_atomic};
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Runs beside each other that can still be looked at.
const MOST: usize = 12;

/// Write one self-contained page about a run, or about several side by side
///
/// The page loads nothing and runs nothing: it can be mailed, printed and kept. A run may be named by its path, by its name, or by the
/// beginning of a name that no other run shares; it need not have finished. The page holds pictures of a few training faces: --no-faces
/// leaves them out where the data may not be passed on.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  moue report runs/demo\n  moue report runs/a runs/b --out both.html --figures figures\n  moue report runs/fp --no-faces --out public.html"
)]
pub struct ReportArgs {
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The folder that holds the runs
    #[arg(long, default_value = "runs")]
    dir: PathBuf,
    /// The page [default: report.html in the run's folder; of several runs: report.html here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also write every figure to this folder, as SVG and as PNG
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Leave all pictures of faces out
    #[arg(long)]
    no_faces: bool,
}

impl ReportArgs {
    pub fn run(self) -> Result<()> {
        if self.runs.len() > MOST {
            usage!("{} runs on one page: at most {MOST}", self.runs.len());
        }
        let mut folders: Vec<RunFolder> = Vec::new();
        for run in &self.runs {
            let folder = RunFolder::find(&self.dir, run)?;
            if folders.contains(&folder) {
                usage!("the run {} is named twice", folder.path().display());
            }
            folders.push(folder);
        }
        let out = match (&self.out, folders.as_slice()) {
            (Some(path), _) => path.clone(),
            (None, [folder]) => folder.path().join("report.html"),
            (None, _) => "report.html".into(),
        };
        check_output(&out)?;
        let several = folders.len() > 1;
        let mut runs: Vec<Run> = Vec::new();
        for folder in folders {
            let record = Record::read(folder)?;
            let faces = if self.no_faces { Faces::none(WITHOUT_FACES) } else { Faces::open(&record) };
            // Two folders may share a name.
            let name = if several { format!("{}-{}", runs.len() + 1, slug(&record.name)) } else { String::new() };
            runs.push(Run::read(record, faces, name));
        }
        let report = Report::new(runs);
        let page = report.html();
        write_atomic(&out, |w| Ok(w.write_all(page.as_bytes())?))?;
        let drawn = self.figures.as_ref().map(|folder| write_figures(&report, folder)).transpose()?;
        print(|w| {
            writeln!(w, "{} ({:.1} MB)", out.display(), page.len() as f64 / 1e6)?;
            if let (Some(folder), Some(drawn)) = (&self.figures, &drawn) {
                writeln!(w, "{}: {drawn}", folder.display())?;
            }
            Ok(())
        })
    }
}

/// Says how many there are; where the machine cannot draw PNGs, why.
fn write_figures(report: &Report, folder: &PathBuf) -> Result<String> {
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let (mut drawn, mut problem) = (0, None);
    for figure in report.figures() {
        let path = |ending: &str| folder.join(format!("{}.{ending}", figure.name));
        write_atomic(&path("svg"), |w| Ok(w.write_all(figure.standalone().as_bytes())?))?;
        match figure.png() {
            Ok(png) => write_atomic(&path("png"), |w| Ok(w.write_all(&png)?))?,
            Err(error) => problem = Some(one_line(&error)),
        }
        drawn += 1;
    }
    Ok(match problem {
        Some(problem) => format!("{drawn} figures as SVG; not all as PNG: {problem}"),
        None => format!("{drawn} figures as SVG and PNG"),
    })
}
