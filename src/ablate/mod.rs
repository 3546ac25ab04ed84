//! Tables of experiments: which runs a table of the paper (or of ours) is made of, and what came of them.
//!
//! ```text
//! tables  (rows as layers of settings)  -> plan (rows x seeds, epochs within a budget) -> runs (one folder each) -> table
//! ```
//! Every run is an ordinary run folder; the table is made from their events alone. Rows whose pretraining settings agree share one
//! pretraining run for each seed. Repeating the command goes on: finished runs are kept, an interrupted one resumes.

pub mod budget;
pub mod table;
pub mod tables;

use crate::config::{Origin, Resolved};
use crate::dataset::{Pack, Split};
use crate::engine::device::OpenDevice;
use crate::engine::precision::Precision;
use crate::finetune::scored_faces;
use crate::labels::Candidates;
use crate::limits;
use crate::pipeline::{Job, JobEnd, Stages, load};
use crate::run::manifest::command_line;
use crate::run::{Control, Manifest, Outcome, RunFolder, Supervision, write_atomic};
use crate::usage;
use anyhow::{Context, Result, bail};
use budget::{Budget, Faces, Pace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tables::{Row, Start, Table};

/// What was asked for.
pub struct Request {
    pub table: &'static Table,
    /// Rows to run, in the table's order.
    pub rows: Vec<&'static Row>,
    /// Preset, file and `--set` as typed, the table's base included.
    pub resolved: Resolved,
    pub seeds: u64,
    /// For one run, its share of pretraining included; none: the preset's epochs.
    pub budget: Option<Budget>,
    pub pack: Arc<Pack>,
    /// Candidate sets from a file, and the file; none: made from the pack under each row's `labels.*`. Of those, a file's sets heed
    /// `include_given` alone.
    pub candidates: Option<Candidates>,
    pub labels: Option<PathBuf>,
    /// A finished pretraining run that stands in for the rows whose encoder it fits.
    pub from: Option<PathBuf>,
    pub device: OpenDevice,
    /// To stop a plan that is being made.
    pub control: Control,
}

/// A stage of the table: one pretraining, or one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Stem of its run folders.
    pub name: String,
    pub epochs: usize,
    /// Estimated for one seed.
    pub seconds: f64,
    /// Every setting as TOML text.
    settings: BTreeMap<String, String>,
    /// Of a row: the pretraining item that it starts from.
    pub from: Option<String>,
    /// A run that exists already and is not repeated.
    given: Option<PathBuf>,
}

/// What the runs of a table take from elsewhere, by [`load::fingerprint`]; none where nothing was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Inputs {
    labels: Option<String>,
    from: Option<String>,
}

impl Inputs {
    /// # Errors
    /// Bad usage where `now` would mix what comes of other inputs into the table in `out`.
    fn refuse_other(&self, now: &Self, out: &Path) -> Result<()> {
        for (flag, then, now) in [("labels", &self.labels, &now.labels), ("from", &self.from, &now.from)] {
            let began = match (then, now) {
                (then, now) if then == now => continue,
                (Some(then), Some(now)) => format!("with another --{flag} ({then} then, {now} now)"),
                (Some(_), None) => format!("with --{flag}"),
                (None, _) => format!("without --{flag}"),
            };
            usage!("the table in {} began {began}: give what it began with, or choose another --out", out.display());
        }
        Ok(())
    }
}

/// All runs of a table; kept beside them so that a repeated command does exactly the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub table: String,
    pub seeds: u64,
    pub pack_hash: String,
    /// None in a plan from before they were kept.
    #[serde(default)]
    inputs: Option<Inputs>,
    /// As typed, in seconds.
    budget: Option<f64>,
    pub pretrainings: Vec<Item>,
    pub rows: Vec<Item>,
}

/// A row with what its finetuning costs.
struct Measured {
    row: &'static Row,
    resolved: Resolved,
    faces: Faces,
    pace: Pace,
}

impl Measured {
    fn seconds(&self, epochs: usize) -> f64 {
        budget::finetune_seconds(self.pace, self.faces, epochs, self.resolved.settings().run.evaluate_every)
    }
}

/// How a table ended.
pub enum End {
    Done,
    Interrupted,
}

const PLAN: &str = "plan.json";

impl Request {
    /// The folder's plan if it has one, else a new one. Measures speeds where a budget or an estimate needs them.
    ///
    /// # Errors
    /// When the folder's plan is of another table, pack, budget or number of seeds, or began with other inputs.
    pub fn plan(&self, out: &Path) -> Result<Plan> {
        let makes_sets = |row: &Row| row.layers.unwrap_or_default().iter().any(|layer| layer.starts_with("labels."));
        if self.candidates.is_some() && self.runnable().any(makes_sets) {
            usage!("{} makes candidate sets of its own for each row, so it cannot take them from --labels", self.table.name);
        }
        let file = out.join(PLAN);
        if file.exists() {
            let place = || format!("reading {}", file.display());
            let plan: Plan = serde_json::from_str(&limits::read_text(&file).with_context(place)?).with_context(place)?;
            let names: Vec<&str> = self.rows.iter().filter(|r| r.layers.is_ok()).map(|r| r.name).collect();
            let same = plan.table == self.table.name
                && plan.seeds == self.seeds
                && plan.pack_hash == self.pack.hash()
                && plan.budget == self.budget.map(|b| b.seconds)
                && plan.rows.iter().map(|r| r.name.as_str()).eq(names)
                && self.settled(&plan)?;
            if !same {
                usage!(
                    "{} holds another table, or the same with other rows, seeds, settings, data or budget: choose another --out",
                    out.display()
                );
            }
            let now = self.inputs()?;
            if let Some(then) = &plan.inputs {
                then.refuse_other(&now, out)?;
            }
            return Ok(Plan { inputs: Some(now), ..plan });
        }
        self.fresh_plan()
    }

    fn inputs(&self) -> Result<Inputs> {
        let of = |path: &Option<PathBuf>| path.as_deref().map(load::fingerprint).transpose();
        Ok(Inputs { labels: of(&self.labels)?, from: of(&self.from)? })
    }

    /// Whether the plan's settings are what is asked for now, epochs apart where a budget chose them.
    fn settled(&self, plan: &Plan) -> Result<bool> {
        let chosen = |key: &str| self.budget.is_some() && BUDGETED.contains(&key);
        // A plan from before a setting existed went by its default.
        let defaults = Resolved::default();
        let default = |name: &str| defaults.entries().find(|(key, ..)| *key == name).map(|(_, value, _)| value);
        for (row, item) in self.runnable().zip(&plan.rows) {
            let now = self.settings_of(row)?;
            let differs = |(key, value, _): (&str, String, &Origin)| {
                !chosen(key) && item.settings.get(key).cloned().or_else(|| default(key)) != Some(value)
            };
            if now.entries().any(differs) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn runnable(&self) -> impl Iterator<Item = &'static Row> {
        self.rows.iter().copied().filter(|r| r.layers.is_ok())
    }

    /// A row's settings.
    fn settings_of(&self, row: &Row) -> Result<Resolved> {
        let mut layers = row.layers.unwrap_or_default().iter().chain(&["finetune.baseline=false"]);
        layers.try_fold(self.resolved.clone(), |r, layer| r.with_layer(layer))?.checked(&Origin::Flag)
    }

    fn candidates_of(&self, resolved: &Resolved) -> Result<Option<Candidates>> {
        let s = resolved.settings();
        Ok(match &self.candidates {
            _ if !s.finetune.objective.is_partial() => None,
            Some(candidates) => Some(candidates.clone().with_given(&self.pack, &s.labels)),
            None => Some(Candidates::build(&self.pack, &s.labels)?),
        })
    }

    fn fresh_plan(&self) -> Result<Plan> {
        let inputs = Some(self.inputs()?);
        let measured = self.runnable().map(|row| self.measure(row)).collect::<Result<Vec<_>>>()?;
        let mut pretrainings: Vec<Item> = Vec::new();
        let mut starts = Vec::new();
        for m in &measured {
            starts.push(match m.row.start {
                Start::Random => None,
                Start::Pretrained => {
                    Some(self.pretraining(&m.resolved, m.seconds(m.resolved.settings().finetune.epochs), &mut pretrainings)?)
                }
            });
        }
        let mut rows = Vec::new();
        for (m, from) in measured.iter().zip(starts) {
            let f = &m.resolved.settings().finetune;
            // A row without pretraining gets the finetuning time of the others, not their pretraining time on top.
            let before = match &from {
                Some(name) => pretrainings.iter().find(|p| &p.name == name),
                None => pretrainings.first(),
            };
            let before = before.map_or(0.0, |p| p.seconds);
            let epochs = match self.budget {
                Some(budget) => budget::epochs_within(budget.seconds - before, f.epochs, |epochs| m.seconds(epochs)),
                None => f.epochs,
            };
            let resolved = with_epochs(m.resolved.clone(), "finetune", epochs, f.epochs, f.warmup)?;
            rows.push(Item {
                name: m.row.name.to_string(),
                epochs,
                seconds: m.seconds(epochs),
                settings: resolved.entries().map(|(k, v, _)| (k.to_string(), v)).collect(),
                from,
                given: None,
            });
        }
        let (table, pack_hash, budget) = (self.table.name.into(), self.pack.hash(), self.budget.map(|b| b.seconds));
        Ok(Plan { table, seeds: self.seeds, pack_hash, inputs, budget, pretrainings, rows })
    }

    /// How fast a row finetunes here.
    fn measure(&self, row: &'static Row) -> Result<Measured> {
        let resolved = self.settings_of(row)?;
        let candidates = self.candidates_of(&resolved)?;
        let faces = Faces {
            train: candidates.as_ref().map_or_else(|| self.pack.split(Split::Train).len(), |c| c.sets.len()),
            valid: scored_faces(&self.pack, Split::Valid).len(),
            test: scored_faces(&self.pack, Split::Test).len(),
        };
        let pace = self.pace(&resolved, false, candidates.as_ref())?;
        Ok(Measured { row, resolved, faces, pace })
    }

    /// How fast a training is here. Without a budget it is only told, and roughly will do.
    fn pace(&self, resolved: &Resolved, pretrain: bool, candidates: Option<&Candidates>) -> Result<Pace> {
        budget::probe(resolved, pretrain, &self.pack, candidates, &self.device, &self.control, self.budget.is_none())
    }

    /// The pretraining that a row starts from, planned if no other row has needed it; its name.
    fn pretraining(&self, resolved: &Resolved, finetune_seconds: f64, planned: &mut Vec<Item>) -> Result<String> {
        let key = |settings: &BTreeMap<String, String>| -> Vec<String> {
            let counts = |k: &str| PRETRAINING.iter().any(|section| k.starts_with(section)) && !BUDGETED.contains(&k);
            settings.iter().filter(|(k, _)| counts(k)).map(|(k, v)| format!("{k}={v}")).collect()
        };
        let wanted: BTreeMap<String, String> = resolved.entries().map(|(k, v, _)| (k.to_string(), v)).collect();
        if let Some(known) = planned.iter().find(|p| key(&p.settings) == key(&wanted)) {
            return Ok(known.name.clone());
        }
        let s = resolved.settings().clone();
        let name = format!("pretrain-{}", planned.len() + 1);
        // A given run fits if finetuning could start from it and it was trained by the same method.
        let given = match &self.from {
            Some(run) => {
                let (_, theirs) = load::pretraining(run, &s)?;
                let same = key(&theirs.entries().map(|(k, v, _)| (k.to_string(), v)).collect()) == key(&wanted);
                same.then(|| run.clone())
            }
            None => None,
        };
        let (epochs, seconds) = if given.is_some() {
            (s.pretrain.epochs, 0.0)
        } else {
            let pace = self.pace(resolved, true, None)?;
            let faces = self.pack.split(Split::Train).len();
            let seconds = |epochs: usize| (epochs * faces) as f64 * pace.train;
            let whole = seconds(s.pretrain.epochs);
            let epochs = match self.budget {
                // The preset's own proportion of pretraining to finetuning.
                Some(b) => budget::epochs_within(b.seconds * whole / (whole + finetune_seconds), s.pretrain.epochs, seconds),
                None => s.pretrain.epochs,
            };
            (epochs, seconds(epochs))
        };
        let resolved = with_epochs(resolved.clone(), "pretrain", epochs, s.pretrain.epochs, s.pretrain.warmup)?;
        let settings = resolved.entries().map(|(k, v, _)| (k.to_string(), v)).collect();
        planned.push(Item { name: name.clone(), epochs, seconds, settings, from: None, given });
        Ok(name)
    }

    /// Does what is left of a plan, seed by seed, so that an unfinished table compares rows rather than seeds.
    pub fn carry_out(
        &self,
        plan: &Plan,
        out: &Path,
        supervise: impl Fn(&RunFolder) -> Result<Supervision>,
        tell: impl Fn(&str),
    ) -> Result<End> {
        std::fs::create_dir_all(out).with_context(|| format!("making the folder {}", out.display()))?;
        write_atomic(&out.join(PLAN), |w| Ok(serde_json::to_writer_pretty(w, plan)?))?;
        let count = (plan.pretrainings.iter().filter(|p| p.given.is_none()).count() + plan.rows.len()) * plan.seeds as usize;
        let mut done = 0;
        for seed in 0..plan.seeds {
            for (item, pretrain) in plan.pretrainings.iter().map(|p| (p, true)).chain(plan.rows.iter().map(|r| (r, false))) {
                if item.given.is_some() {
                    continue;
                }
                done += 1;
                let head = format!("run {done} of {count}: {}, seed {seed}", item.name);
                let path = folder_of(out, item, seed);
                let job = self.job(plan, item, pretrain, seed, &path, out, &supervise)?;
                let Some(job) = job else {
                    tell(&format!("{head} (done before)"));
                    continue;
                };
                tell(&head);
                if let JobEnd::Interrupted = job.run().with_context(|| path.display().to_string())? {
                    return Ok(End::Interrupted);
                }
            }
        }
        Ok(End::Done)
    }

    /// The job of one item; none if it is done.
    #[expect(clippy::too_many_arguments)]
    fn job(
        &self,
        plan: &Plan,
        item: &Item,
        pretrain: bool,
        seed: u64,
        path: &Path,
        out: &Path,
        supervise: impl Fn(&RunFolder) -> Result<Supervision>,
    ) -> Result<Option<Job>> {
        let resume = path.join("manifest.json").exists();
        if resume && finished(&RunFolder::open(path)?)? {
            return Ok(None);
        }
        let folder = if resume { RunFolder::open(path)? } else { RunFolder::create(path)? };
        let values = item.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let resolved = Resolved::default().with_values(values, &Origin::File(out.join(PLAN).display().to_string()))?;
        let from = match &item.from {
            Some(name) => {
                let Some(item) = plan.pretrainings.iter().find(|p| &p.name == name) else {
                    bail!("the plan names no pretraining {name}");
                };
                Some(item.given.clone().unwrap_or_else(|| folder_of(out, item, seed)))
            }
            None => None,
        };
        let supervision = supervise(&folder)?;
        Ok(Some(Job {
            command: command_line(),
            stages: Stages { pretrain, finetune: !pretrain, ..Stages::default() },
            candidates: if pretrain { None } else { self.candidates_of(&resolved)? },
            labels: self.labels.clone().filter(|_| !pretrain && resolved.settings().finetune.objective.is_partial()),
            precision: Precision::of(resolved.settings().run.precision, &self.device)?,
            resolved,
            seed,
            pack: self.pack.clone(),
            device: self.device.clone(),
            folder,
            resume,
            from,
            supervision,
            remarks: Vec::new(),
        }))
    }
}

/// Keys that a budget decides.
const BUDGETED: [&str; 4] = ["pretrain.epochs", "pretrain.warmup", "finetune.epochs", "finetune.warmup"];
/// Sections that pretraining reads.
const PRETRAINING: [&str; 7] = ["data.", "encoder.", "vit.", "hog.", "mask.", "mim.", "pretrain."];

/// The settings with another number of epochs, warm-up shortened in proportion.
fn with_epochs(resolved: Resolved, section: &str, epochs: usize, whole: usize, warmup: f64) -> Result<Resolved> {
    if epochs == whole {
        return Ok(resolved);
    }
    let warmup = warmup * epochs as f64 / whole as f64;
    let resolved = resolved.with_flag(&format!("{section}.epochs={epochs}"))?.with_flag(&format!("{section}.warmup={warmup:?}"))?;
    resolved.checked(&Origin::Flag)
}

/// Where an item's run lies.
pub fn folder_of(out: &Path, item: &Item, seed: u64) -> PathBuf {
    out.join(format!("{}-seed{seed}", item.name))
}

fn finished(folder: &RunFolder) -> Result<bool> {
    Ok(Manifest::read(folder)?.finished.is_some_and(|f| f.outcome == Outcome::Completed))
}

impl Item {
    /// A run that exists already and is not repeated.
    pub fn given(&self) -> Option<&Path> {
        self.given.as_deref()
    }
}

impl Plan {
    /// Estimated for all runs, in seconds.
    pub fn seconds(&self) -> f64 {
        self.pretrainings.iter().chain(&self.rows).map(|item| item.seconds).sum::<f64>() * self.seeds as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeviceChoice;
    use crate::dataset::PackWriter;
    use crate::dataset::generated::{self, GeneratorConfig};
    use crate::engine::device;
    use crate::failure::exit_code;

    /// A request for one row of a table on a few faces, with candidate sets from a file where one is named.
    fn request(folder: &Path, table: &str, row: &str, labels: Option<PathBuf>) -> Request {
        let path = folder.join("f.moue");
        if !path.exists() {
            let mut writer = PackWriter::create(&path, generated::protocol()).unwrap();
            let config = GeneratorConfig { train: 3, valid: 1, test: 1, size: 32, ..GeneratorConfig::default() };
            generated::generate(&config, &mut writer).unwrap();
            writer.finish(serde_json::json!({})).unwrap();
        }
        let (table, pack) = (tables::find(table).unwrap(), Pack::open(&path).unwrap());
        Request {
            table,
            rows: table.rows.iter().filter(|r| r.name == row).collect(),
            resolved: Resolved::default(),
            seeds: 1,
            budget: None,
            candidates: labels.as_deref().map(|path| Candidates::read_csv(path, &pack).unwrap()),
            pack: Arc::new(pack),
            labels,
            from: None,
            device: device::open(DeviceChoice::Cpu).unwrap(),
            control: Control::default(),
        }
    }

    /// Writes sets for the training faces of [`request`]'s pack: so many of the classes that follow each face's given label.
    fn csv(folder: &Path, name: &str, size: usize) -> PathBuf {
        let pack = request(folder, "table6", "random", None).pack;
        let classes = &pack.protocol().classes;
        let mut text = String::from("id,candidates\n");
        for i in pack.split(Split::Train) {
            let given = usize::from(pack.faces()[i].label.unwrap());
            let set: Vec<&str> = (1..=size).map(|n| classes[(given + n) % classes.len()].as_str()).collect();
            text += &format!("{},{}\n", pack.faces()[i].id, set.join("|"));
        }
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_table_goes_on_with_what_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("T");
        std::fs::create_dir(&out).unwrap();
        let with = |labels: Option<PathBuf>| request(folder.path(), "table6", "random", labels);
        let [first, same, other] = [("a.csv", 1), ("b.csv", 1), ("c.csv", 2)].map(|(name, size)| csv(folder.path(), name, size));
        let began = with(Some(first.clone()));
        let settings = began.settings_of(began.rows[0]).unwrap();
        let row = Item {
            name: "random".into(),
            epochs: 1,
            seconds: 1.0,
            settings: settings.entries().map(|(k, v, _)| (k.to_string(), v)).collect(),
            from: None,
            given: None,
        };
        let (table, pack_hash, inputs) = ("table6".into(), began.pack.hash(), Some(began.inputs().unwrap()));
        let plan = Plan { table, seeds: 1, pack_hash, inputs, budget: None, pretrainings: Vec::new(), rows: vec![row] };
        let kept = serde_json::to_value(&plan).unwrap();
        let keep = |plan: &serde_json::Value| std::fs::write(out.join(PLAN), plan.to_string()).unwrap();
        keep(&kept);
        assert_eq!(began.plan(&out).unwrap(), plan);
        assert_eq!(with(Some(same)).plan(&out).unwrap(), plan, "what is in the file counts");
        let refused = |request: &Request, part: &str| {
            let error = request.plan(&out).unwrap_err();
            assert!(exit_code(&error) == 2 && error.to_string().contains(part), "{error:#}");
        };
        refused(&with(Some(other)), "began with another --labels");
        refused(&with(None), "began with --labels");
        refused(&Request { from: Some(first.clone()), ..with(Some(first)) }, "began without --from");
        // A plan that does not know goes on with what there is.
        let mut old = kept;
        old.as_object_mut().unwrap().remove("inputs");
        keep(&old);
        assert_eq!(began.plan(&out).unwrap(), plan);
    }

    #[test]
    fn rows_add_the_given_label_to_the_sets_of_a_file_where_their_settings_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = csv(folder.path(), "a.csv", 2);
        for (row, size) in [("paper", 2), ("robust", 3)] {
            let request = request(folder.path(), "objectives", row, Some(file.clone()));
            let resolved = request.settings_of(request.rows[0]).unwrap();
            let sets = request.candidates_of(&resolved).unwrap().unwrap().sets;
            assert_eq!(sets.len(), 3);
            for (i, set) in sets {
                let given = request.pack.faces()[i].label.unwrap();
                assert_eq!((set.classes.len(), set.classes.contains(&given)), (size, size == 3), "{row}");
            }
        }
    }
}
