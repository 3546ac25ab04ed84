//! `moue config plan`: what a training would take on this machine, before it starts.

use super::output::print;
use super::settings::SettingsArgs;
use crate::config::{DeviceChoice, Settings};
use crate::dataset::{Pack, Split, generated};
use crate::engine::device::{self, OpenDevice};
use crate::engine::precision::Precision;
use crate::pipeline::footprint::{bytes, way_out};
use crate::pipeline::{Fit, Footprint, Machine, Regime, Training};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Say what pretraining and finetuning would take on this machine: sizes, steps, memory
///
/// Memory is an estimate, without what allocators and drivers keep for themselves. On the device it is the larger of two moments: the
/// backward pass, with all of the faces at once, and on a GPU the optimiser's step, when network and moments are there twice and no faces.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  moue config plan --preset paper-ferplus --device gpu\n  moue config plan --preset ferplus-cpu --data fp.moue"
)]
pub struct PlanArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Pack that would be trained on, for its classes and the number of steps
    #[arg(long, value_name = "PACK")]
    data: Option<PathBuf>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl PlanArgs {
    pub fn run(self) -> Result<()> {
        let resolved = self.settings.resolve(None)?;
        let s = resolved.settings();
        let pack = self.data.as_deref().map(Pack::open).transpose()?;
        let card = pack.as_ref().map_or_else(generated::protocol, |pack| pack.protocol().clone());
        let faces = pack.as_ref().map(|pack| pack.split(Split::Train).len());
        let open = device::open_for(self.device, s.run.kernels)?;
        let precision = Precision::of(s.run.precision, &open)?;
        let machine = Machine::of(s, &open, precision);
        let trainings = [Training::Pretrain, Training::Finetune(s.finetune.objective)];
        let plans: Vec<(Training, Option<Footprint>)> =
            trainings.into_iter().map(|t| (t, Footprint::of(t, s, card.classes.len(), &machine))).collect();
        let text = [where_it_runs(&open, &machine), table(s, &open, &plans, faces), verdict(s, &open, &plans)].concat();
        print(|w| Ok(write!(w, "{text}")?))
    }
}

fn where_it_runs(open: &OpenDevice, machine: &Machine) -> String {
    let memory = open.usable_memory().map_or("memory not told by its driver".into(), |m| format!("{} of memory to count on", bytes(m)));
    let threads = if open.is_cpu { format!(", {} threads", machine.shards) } else { String::new() };
    format!("{}, {}{threads}, {memory}\n\n", open.name, machine.precision.name())
}

fn table(s: &Settings, open: &OpenDevice, plans: &[(Training, Option<Footprint>)], faces: Option<usize>) -> String {
    let mut text = String::new();
    let mut row = |what: &str, cell: &dyn Fn(Training, Option<&Footprint>) -> String| {
        text += &format!("{what:<34}");
        plans.iter().for_each(|(training, plan)| text += &format!("{:>16}", cell(*training, plan.as_ref())));
        text.push('\n');
    };
    let known = |plan: Option<&Footprint>, cell: &dyn Fn(&Footprint) -> String| plan.map_or("not known".into(), cell);
    row("", &|training, _| if training == Training::Pretrain { "pretraining".into() } else { "finetuning".into() });
    row("parameters", &|_, p| known(p, &|p| millions(p.parameters)));
    row("faces a step", &|t, _| Regime::of(t, s).batch.to_string());
    row("faces at once (batch / accumulate)", &|_, p| known(p, &|p| p.at_once.to_string()));
    row("epochs", &|t, _| Regime::of(t, s).epochs.to_string());
    if let Some(faces) = faces {
        row("steps", &|t, _| {
            let regime = Regime::of(t, s);
            (regime.epochs * (faces / regime.batch.min(faces).max(1))).to_string()
        });
    }
    row("weights", &|_, p| known(p, &|p| bytes(p.weights)));
    row("gradients", &|_, p| known(p, &|p| bytes(p.gradients)));
    row("optimiser", &|_, p| known(p, &|p| bytes(p.optimizer)));
    row("what faces need, each", &|_, p| known(p, &|p| bytes(p.face)));
    row("what faces need, all", &|_, p| known(p, &|p| bytes(p.face * p.at_once as f64)));
    // There it steps into memory of its own, which may be more than all of the above.
    if !open.is_cpu {
        row("or while the optimiser steps", &|_, p| known(p, &|p| bytes(p.step())));
    }
    row("at most, on the device", &|_, p| known(p, &|p| bytes(p.device())));
    row("program and loader, main memory", &|_, p| known(p, &|p| bytes(p.host)));
    text
}

/// Whether it fits, and what would.
fn verdict(s: &Settings, open: &OpenDevice, plans: &[(Training, Option<Footprint>)]) -> String {
    let mut text = String::from("\n");
    for (training, plan) in plans {
        let Some((plan, most)) = plan.as_ref().and_then(|plan| Some((plan, plan.most(open)?))) else { continue };
        let name = if *training == Training::Pretrain { "pretrain" } else { "finetune" };
        text += &match plan.fit(most) {
            Fit::Whole { most } => format!("{name} fits; up to about {most} faces at once would\n"),
            Fit::Parts { most } if Regime::of(*training, s).accumulate == 0 => {
                format!("{name} does not fit at once; --batch auto works on about {most} faces at a time\n")
            }
            Fit::Parts { most } => {
                let accumulate = plan.at_once.div_ceil(most);
                format!("{name} does not fit; with --set {name}.accumulate={accumulate} it should (about {most} faces at once)\n")
            }
            Fit::Not => format!("{name} does not fit, not even with one face at once: {}\n", way_out(s)),
        };
    }
    text
}

fn millions(n: usize) -> String {
    format!("{:.2} M", n as f64 / 1e6)
}
