//! `moue ablate`: a table of experiments, run and printed.

use super::order::{GENERATED, generated_pack};
use super::output::print;
use super::progress::ProgressArgs;
use super::settings::SettingsArgs;
use crate::ablate::budget::Budget;
use crate::ablate::tables::{Row, TABLES, Table, find};
use crate::ablate::{End, Plan, Request, table};
use crate::config::DeviceChoice;
use crate::dashboard::terminal;
use crate::dataset::Pack;
use crate::dataset::generated::GeneratorConfig;
use crate::engine::device;
use crate::labels::Candidates;
use crate::run::prints;
use crate::usage;
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Run a table of experiments and print it: the paper's tables with its figures beside, or all objectives side by side
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue ablate table8 --data demo --budget 2m --seeds 2 --out ablations/table8\n  \
                  moue ablate objectives --data fp.moue --preset ferplus-cpu --rows ce,ce_soft,proden,paper,robust --out ablations/fp\n\n\
                  The same command again goes on where it stopped; finished runs are kept. With other candidate sets, \
                  another network to start from or other settings it is refused.\n\nTables:\n  \
                  table1, table5 ... table9, k, theta: the paper's; objectives: all of them on one network; pretraining: with and without")]
pub struct AblateArgs {
    /// Table to run
    #[arg(value_name = "TABLE", value_parser = TABLES.iter().map(|t| t.name).collect::<Vec<_>>())]
    table: String,
    /// Pack to train on, or `demo` for generated faces
    #[arg(long, value_name = "PACK")]
    data: String,
    /// Folder for the runs and the table
    #[arg(long, value_name = "DIR", required_unless_present = "plan")]
    out: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Time for each run, its share of pretraining included: 90s, 2m, 1.5h (default: the preset's epochs)
    #[arg(long, value_name = "TIME")]
    budget: Option<Budget>,
    /// Runs of every row, with the seeds 0, 1, 2 ...
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Only these rows, by name (`--plan` lists them)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    rows: Vec<String>,
    /// Candidate sets made by `moue labels` (default: made from the pack under labels.*); labels.include_given applies to them
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Finished pretraining run, for the rows that its settings fit
    #[arg(long, value_name = "RUN")]
    from: Option<PathBuf>,
    /// Show the runs and the estimated time, and stop
    #[arg(long)]
    plan: bool,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl AblateArgs {
    pub fn run(self) -> Result<()> {
        let control = terminal::control(prints::silence_input)?;
        let table = find(&self.table).context("clap knows the tables")?;
        let rows = self.chosen(table)?;
        let mut settings = SettingsArgs { preset: self.settings.preset.clone(), ..self.settings };
        // Under `--config` and `--set`, which the user means to win.
        settings.preset.extend(table.base.iter().map(|p| p.to_string()));
        let demo = self.data == "demo";
        let resolved = settings.resolve(demo.then_some("demo"))?;
        let scratch = tempfile::tempdir().context("making a temporary folder")?;
        let out = self.out.as_deref().unwrap_or(scratch.path());
        // A plan writes nothing; runs keep their faces beside them.
        let home = if self.plan { scratch.path() } else { out };
        let pack = if demo { demo_pack(home)? } else { Pack::open(Path::new(&self.data))? };
        let candidates = self.labels.as_deref().map(|path| Candidates::read_csv(path, &pack)).transpose()?;
        let device = device::open_for(self.device, resolved.settings().run.kernels)?;
        let request = Request {
            table,
            rows,
            resolved,
            seeds: self.seeds,
            budget: self.budget,
            pack: Arc::new(pack),
            candidates,
            labels: self.labels,
            from: self.from,
            device,
            control: control.clone(),
        };
        let plan = request.plan(out)?;
        let shown = print(|w| Ok(write!(w, "{}", describe(table, &request.rows, &plan))?));
        if self.plan {
            return shown;
        }
        // Whoever looked may be gone by now: the runs go on without.
        let progress = self.progress.open(&control);
        let end = request.carry_out(&plan, out, |folder| progress.supervise(folder), |text| progress.tell(text));
        drop(progress);
        let end = end?;
        let findings = table::read(table, &request.rows, &plan, &request.pack, out)?;
        findings.write(out)?;
        print(|w| {
            write!(w, "\n{}", findings.text())?;
            match end {
                End::Done => writeln!(w, "written: {0}/table.md, {0}/table.csv", out.display())?,
                End::Interrupted => writeln!(w, "stopped; the same command goes on")?,
            }
            Ok(())
        })
    }

    /// The rows named by `--rows`, in the table's order.
    fn chosen(&self, table: &'static Table) -> Result<Vec<&'static Row>> {
        let names: Vec<&str> = table.rows.iter().map(|r| r.name).collect();
        if let Some(unknown) = self.rows.iter().find(|r| !names.contains(&r.as_str())) {
            usage!("{} has no row `{unknown}`; its rows: {}", table.name, names.join(", "));
        }
        let rows: Vec<&Row> = table.rows.iter().filter(|r| self.rows.is_empty() || self.rows.iter().any(|n| n == r.name)).collect();
        if let Some(row) = rows.iter().find(|r| r.layers.is_err() && !self.rows.is_empty()) {
            usage!("row `{}` cannot be run: {}", row.name, row.layers.err().unwrap_or_default());
        }
        Ok(rows)
    }
}

/// The generated faces of a table, drawn once: all seeds see the same.
fn demo_pack(folder: &Path) -> Result<Pack> {
    let path = folder.join(GENERATED);
    if path.exists() {
        return Pack::open(&path);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    generated_pack(&GeneratorConfig::demo(), folder)
}

/// The runs and the time they are estimated to take.
fn describe(table: &Table, rows: &[&Row], plan: &Plan) -> String {
    let time = |seconds: f64| Budget { seconds }.to_string();
    let mut text = format!("{}: {}\n", table.name, table.title);
    for item in &plan.pretrainings {
        text += &match item.given() {
            Some(run) => format!("  {:<20} {}\n", item.name, run.display()),
            None => format!("  {:<20} {:>4} epochs, {} a seed\n", item.name, item.epochs, time(item.seconds)),
        };
    }
    for row in rows {
        text += &match (plan.rows.iter().find(|i| i.name == row.name), row.layers) {
            (Some(item), _) => {
                let from = item.from.as_deref().unwrap_or("random weights");
                format!("  {:<20} {:>4} epochs, {} a seed, from {from}: {}\n", item.name, item.epochs, time(item.seconds), row.title)
            }
            (None, Err(why)) => format!("  {:<20} not run ({why}): {}\n", row.name, row.title),
            (None, Ok(_)) => String::new(),
        };
    }
    let runs = (plan.rows.len() + plan.pretrainings.iter().filter(|p| p.given().is_none()).count()) * plan.seeds as usize;
    text + &format!("{runs} runs, about {:.2} hours on this device\n", plan.seconds() / 3600.0)
}
