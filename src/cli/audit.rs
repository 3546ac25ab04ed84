//! `moue audit`: which labels of a run's training faces are wrong, and why it thinks so.

use super::output::{check_output, print};
use crate::audit::annotators::Agreement;
use crate::audit::duplicates::Duplicates;
use crate::audit::measure::Measured;
use crate::audit::{Audit, Request, sheet};
use crate::dataset;
use crate::dataset::Class;
use crate::run::RunFolder;
use crate::run::progress::plain;
use crate::usage;
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Rank the training faces of a run by how likely their given label is wrong
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  moue audit runs/fp --top 50 --sheet suspicious.png\n  moue audit runs/fp --csv audit.csv --label-studio tasks.json \
                  --class fear"
)]
pub struct AuditArgs {
    /// Run folder
    run: PathBuf,
    /// The run's pack, where it no longer lies where the run says
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// Faces to list, draw and hand on (a csv always holds all)
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Only faces that were given this class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Write every ranked face, with all that was weighed
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the top faces as tasks to import into Label Studio, pictures included
    #[arg(long, value_name = "FILE")]
    label_studio: Option<PathBuf>,
    /// Draw the top faces with their labels before and after, as a PNG
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Do not look for copies of a picture under different labels (it reads the whole pack)
    #[arg(long)]
    no_duplicates: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl AuditArgs {
    pub fn run(self) -> Result<()> {
        let outputs = [&self.csv, &self.label_studio, &self.sheet];
        outputs.into_iter().flatten().try_for_each(|path| check_output(path))?;
        if self.top == 0 {
            usage!("--top 0 lists nothing; give at least 1");
        }
        let folder = RunFolder::open(&self.run)?;
        let data = self.data.as_deref();
        let class = self.class.as_deref().map(|name| class(&folder, data, name)).transpose()?;
        let audit = Audit::of(&folder, Request { data, duplicates: !self.no_duplicates, class })?;
        let mut written = Vec::new();
        if let Some(path) = &self.csv {
            audit.write_csv(path)?;
            written.push(format!("{}: {} faces", path.display(), audit.findings.len()));
        }
        if let Some(path) = &self.label_studio {
            audit.write_label_studio(path, self.top)?;
            let tasks = self.top.min(audit.findings.len());
            written.push(format!(
                "{}: {tasks} tasks for Label Studio; the project's labelling interface:\n  {}",
                path.display(),
                audit.labelling_interface()
            ));
        }
        if let Some(path) = &self.sheet {
            dataset::sheet::save(&sheet::sheet(&audit, self.top)?, path)?;
            written.push(path.display().to_string());
        }
        if self.json {
            return print(|w| Ok(writeln!(w, "{}", audit.to_json(self.top))?));
        }
        let mut told: Vec<u8> = Vec::new();
        tell(&mut told, &audit, self.top)?;
        written.iter().try_for_each(|line| writeln!(told, "written: {line}"))?;
        // Names of classes, faces and annotators may be a stranger's.
        print(|w| String::from_utf8_lossy(&told).lines().try_for_each(|line| Ok(writeln!(w, "{}", plain(line))?)))
    }
}

/// The class of a name, known before the audit is made.
fn class(folder: &RunFolder, data: Option<&Path>, name: &str) -> Result<Class> {
    let classes = match crate::run::Manifest::read(folder)?.data {
        Some(data) => data.classes,
        None => match data {
            Some(pack) => dataset::Pack::open(pack)?.protocol().classes.clone(),
            None => usage!("the run names no pack, so --class needs --data"),
        },
    };
    match classes.iter().position(|c| c.eq_ignore_ascii_case(name)) {
        Some(class) => Ok(class as Class),
        None => usage!("--class {name}: the run has the classes {}", classes.join(", ")),
    }
}

fn tell(w: &mut dyn Write, audit: &Audit, top: usize) -> Result<()> {
    let evidence = &audit.evidence;
    let objective = evidence.objective.as_deref().unwrap_or("decided labels");
    let epochs = evidence.traces.as_ref().map_or(String::new(), |t| format!(", history of {} epochs", t.epochs));
    writeln!(
        w,
        "{} ({objective}): {} training faces, {} of them ambiguous{epochs}",
        evidence.folder.path().display(),
        evidence.faces.len(),
        audit.ambiguous()
    )?;
    evidence.notes.iter().try_for_each(|note| writeln!(w, "note: {note}"))?;
    if audit.unjudged > 0 {
        writeln!(w, "note: {} faces have neither a label nor a majority and are not ranked", audit.unjudged)?;
    }
    writeln!(
        w,
        "{} of {} labels are contradicted by the witnesses together; the most suspicious:\n",
        audit.contradicted(),
        audit.findings.len()
    )?;
    let name = |c: Class| audit.name(c);
    let wide = evidence.classes.iter().map(|c| c.chars().count()).max().unwrap_or(0).max(9);
    let ids = audit.findings.iter().take(top).map(|f| evidence.faces[f.face].id.chars().count()).max().unwrap_or(0).clamp(4, 40);
    writeln!(
        w,
        "{:>4}  {:<ids$}  suspicion  {:<wide$}  {:<wide$}  {:<wide$}  margin  {:>7}  flips (late)  settled  truth",
        "", "face", "given", "suggested", "resolved", "votes"
    )?;
    for (n, finding) in audit.findings.iter().take(top).enumerate() {
        let face = &evidence.faces[finding.face];
        let votes = |c: Class| face.votes.get(usize::from(c)).copied().unwrap_or(0);
        let total: u32 = face.votes.iter().sum();
        let split = if total > 0 { format!("{}-{}/{total}", votes(finding.given), votes(finding.suggested)) } else { "-".into() };
        let trace = evidence.traces.as_ref().zip(face.trace);
        let flips = trace.map_or("-".into(), |(t, row)| format!("{} ({})", t.faces[row].flips, t.faces[row].late_flips));
        let settled = trace.map_or("-".into(), |(t, row)| format!("{:.0} %", 100.0 * t.settled(row)));
        let id: String = face.id.chars().take(ids).collect();
        writeln!(
            w,
            "{:>4}  {id:<ids$}  {:>9.3}  {:<wide$}  {:<wide$}  {:<wide$}  {:>6}  {split:>7}  {flips:>12}  {settled:>7}  {}",
            n + 1,
            finding.suspicion,
            name(finding.given),
            name(finding.suggested),
            face.resolved.map_or("-", |(c, _)| name(c)),
            face.resolved.map_or("-".into(), |(_, margin)| format!("{margin:.2}")),
            face.truth.map_or("-", name),
        )?;
    }
    if let Some(measured) = &audit.measured {
        tell_measured(w, measured)?;
    }
    tell_table(w, audit)?;
    tell_annotators(w, audit)?;
    match &audit.duplicates {
        Some(found) => tell_duplicates(w, audit, found, top)?,
        None => writeln!(w, "\ncopies of one picture under different labels: not looked for")?,
    }
    Ok(())
}

fn tell_measured(w: &mut dyn Write, m: &Measured) -> Result<()> {
    writeln!(
        w,
        "\nheld against the truth: {} of {} labels are wrong ({:.1} %); average precision {:.3}",
        m.wrong,
        m.faces,
        100.0 * m.base_rate,
        m.average_precision
    )?;
    for cut in &m.cuts {
        writeln!(
            w,
            "  first {:>6} faces: {:5.1} % wrong ({:.1} times the base rate), {:5.1} % of all wrong labels",
            cut.faces,
            100.0 * cut.precision,
            cut.lift,
            100.0 * cut.recall
        )?;
    }
    Ok(())
}

fn tell_table(w: &mut dyn Write, audit: &Audit) -> Result<()> {
    let classes = &audit.evidence.classes;
    let heads: String = classes.iter().map(|c| format!("{c:>8.7}")).collect();
    if audit.relabelled.is_empty() {
        return Ok(writeln!(w, "\nno labels were decided: no table of flips")?);
    }
    writeln!(w, "\ngiven label (rows) to resolved label (columns), faces:\n{:<14}{heads}", "")?;
    for (class, row) in classes.iter().zip(&audit.relabelled) {
        let cells: String = row.iter().map(|n| if *n == 0 { format!("{:>8}", ".") } else { format!("{n:>8}") }).collect();
        writeln!(w, "{class:<14.13}{cells}")?;
    }
    let mut ways: Vec<(u64, usize, usize)> =
        audit.flips.iter().enumerate().flat_map(|(from, row)| row.iter().enumerate().map(move |(to, n)| (*n, from, to))).collect();
    ways.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let often: Vec<String> =
        ways.iter().filter(|w| w.0 > 0).take(5).map(|(n, from, to)| format!("{} to {} {n}", classes[*from], classes[*to])).collect();
    if !often.is_empty() {
        writeln!(w, "flips during training, most frequent: {}", often.join(", "))?;
    }
    Ok(())
}

fn tell_annotators(w: &mut dyn Write, audit: &Audit) -> Result<()> {
    if audit.annotators.is_empty() {
        let why = match &audit.evidence.pack {
            Some(pack) if pack.faces().iter().any(|f| !f.votes.is_empty()) => "the pack holds vote counts, not who voted for what",
            Some(_) => "the pack holds no votes",
            None => "there is no pack",
        };
        return Ok(writeln!(w, "\nno agreement by annotator: {why}")?);
    }
    let percent = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v));
    let wide = audit.annotators.iter().map(|a| a.annotator.chars().count()).max().unwrap_or(0).clamp(12, 30);
    writeln!(
        w,
        "\n{:<wide$}  {:>6}  {:>8}  {:>11}  {:>6}  {:>13}  {:>8}  reads most often",
        "annotator", "faces", "no class", "with others", "kappa", "with resolved", "truth"
    )?;
    let mut rows: Vec<&Agreement> = audit.annotators.iter().collect();
    // The one who agrees least stands first.
    rows.sort_by(|a, b| a.with_others.unwrap_or(1.0).total_cmp(&b.with_others.unwrap_or(1.0)));
    for a in rows {
        let confusion =
            a.confusion.map_or(String::new(), |(others, own, n)| format!("{} as {} ({n})", audit.name(others), audit.name(own)));
        writeln!(
            w,
            "{:<wide$.wide$}  {:>6}  {:>8}  {:>11}  {:>6}  {:>13}  {:>8}  {confusion}",
            a.annotator,
            a.faces,
            percent(Some(a.no_class)),
            percent(a.with_others),
            a.kappa.map_or("-".into(), |k| format!("{k:.2}")),
            percent(a.with_resolved),
            percent(a.with_truth),
        )?;
    }
    Ok(())
}

fn tell_duplicates(w: &mut dyn Write, audit: &Audit, found: &Duplicates, top: usize) -> Result<()> {
    writeln!(w, "\npictures that stand in the data more than once: {}; under different labels: {}", found.groups, found.disputed.len())?;
    for group in found.disputed.iter().take(top) {
        let faces: Vec<String> =
            group.faces.iter().map(|f| format!("{} ({}, {})", f.id, f.split, f.label.map_or("no label", |c| audit.name(c)))).collect();
        writeln!(w, "  {}: {}", if group.exact { "identical" } else { "near" }, faces.join("  "))?;
    }
    if found.disputed.len() > top {
        writeln!(w, "  and {} more (--json lists all)", found.disputed.len() - top)?;
    }
    Ok(())
}
