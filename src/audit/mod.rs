//! Which labels are wrong: every training face ranked by how much speaks against its given label, from a run folder alone.
//!
//! ```text
//! run folder -> evidence (labels, predictions, history, pack) -> rank -> findings -> text, csv, JSON, Label Studio, contact sheet
//!                  \-> trace (flips, running means)                \-> measure, where the truth is known
//! pack -> annotators (agreement of each), duplicates (one photograph, several labels)
//! ```
//! It reads and never writes into the run; no tensors, no GPU. True labels, where a pack knows them, are read only by [`measure`] and
//! [`annotators`], which judge the audit and decide nothing. Only training faces are ranked; copies are looked for in all splits.

pub mod annotators;
pub mod duplicates;
pub mod evidence;
pub mod export;
pub mod measure;
pub mod rank;
pub mod sheet;
pub mod trace;

use crate::dataset::Class;
use crate::run::RunFolder;
use annotators::Agreement;
use anyhow::Result;
use duplicates::Duplicates;
use evidence::Evidence;
use measure::Measured;
use rank::{Finding, Weights};
use std::path::Path;

/// What is to be audited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The pack, where it no longer lies where the run's manifest says.
    pub data: Option<&'a Path>,
    /// Look for copies, which reads every picture of the pack.
    pub duplicates: bool,
    /// Only faces that were given this class.
    pub class: Option<Class>,
}

/// A run, audited.
pub struct Audit {
    pub evidence: Evidence,
    /// The most suspicious first.
    pub findings: Vec<Finding>,
    /// Of faces that stand in [`Audit::findings`]: `[given][resolved]`. Empty where nothing was resolved.
    pub relabelled: Vec<Vec<u64>>,
    /// Flips on the way, `[from][to]`, of all ambiguous faces; empty without a history.
    pub flips: Vec<Vec<u64>>,
    /// Training faces without a label or a majority that could be judged.
    pub unjudged: usize,
    /// Empty where the pack does not record who voted for what.
    pub annotators: Vec<Agreement>,
    /// `None`: not looked for.
    pub duplicates: Option<Duplicates>,
    /// `None`: the truth is not known, or no label is wrong.
    pub measured: Option<Measured>,
}

impl Audit {
    /// # Errors
    /// What [`Evidence::read`] refuses, and pictures that cannot be read.
    pub fn of(folder: &RunFolder, request: Request) -> Result<Self> {
        let evidence = Evidence::read(folder, request.data)?;
        let mut findings = rank::rank(&evidence, &Weights::default());
        let unjudged = evidence.faces.len() - findings.len();
        if let Some(class) = request.class {
            findings.retain(|f| f.given == class);
        }
        let classes = evidence.classes.len();
        let mut relabelled = vec![vec![0; classes]; classes];
        let mut resolved = false;
        for finding in &findings {
            if let Some((class, _)) = evidence.faces[finding.face].resolved {
                relabelled[usize::from(finding.given)][usize::from(class)] += 1;
                resolved = true;
            }
        }
        let wrong: Option<Vec<bool>> = findings.iter().map(|f| evidence.faces[f.face].truth.map(|t| t != f.given)).collect();
        let annotators = match &evidence.pack {
            Some(pack) => {
                let mut by_position = vec![None; pack.faces().len()];
                for face in &evidence.faces {
                    if let (Some(position), Some((class, _))) = (face.position, face.resolved) {
                        by_position[position] = Some(class);
                    }
                }
                annotators::agreement(pack, |i| by_position[i])
            }
            None => Vec::new(),
        };
        let duplicates = match &evidence.pack {
            Some(pack) if request.duplicates => Some(duplicates::find(pack)?),
            _ => None,
        };
        Ok(Self {
            flips: evidence.traces.as_ref().map(|t| t.directions.clone()).unwrap_or_default(),
            relabelled: if resolved { relabelled } else { Vec::new() },
            measured: wrong.and_then(|wrong| measure::measure(&wrong)),
            findings,
            unjudged,
            annotators,
            duplicates,
            evidence,
        })
    }

    /// The name of a class.
    pub fn name(&self, class: Class) -> &str {
        &self.evidence.classes[usize::from(class)]
    }

    /// Ambiguous training faces, as far as is known.
    pub fn ambiguous(&self) -> usize {
        self.evidence.faces.iter().filter(|f| f.ambiguous == Some(true)).count()
    }

    /// Findings whose witnesses together contradict the given label.
    pub fn contradicted(&self) -> usize {
        self.findings.iter().filter(|f| f.is_contradicted()).count()
    }
}
