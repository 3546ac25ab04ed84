//! What the device is, what it grants, and whether the trainings have room on it.

use super::{Case, Row, Verdict};
use crate::config;
use crate::engine::adapters::{Compiler, Trouble};
use crate::engine::memory;
use crate::engine::precision::Precision;
use crate::kernels::translate::Demands;
use crate::pipeline::footprint::{bytes, least, way_out, widest_evaluating};
use crate::pipeline::{Fit, Footprint, Regime, Training};

/// Of the main memory that is free now, what a training may take: the rest may be wanted before the training asks for it.
const FREE: f64 = 0.9;

/// Device, driver, shaders and half precision.
pub fn rows(case: &Case) -> Vec<Row> {
    vec![device(case), driver(case), shaders(case), half(case)]
}

fn device(case: &Case) -> Row {
    let open = &case.open;
    let found = format!("{}: {}", open.name, open.why);
    match open.is_cpu || open.is_hardware {
        true => Row::ok("device", found),
        false => Row::warning("device", format!("{found}; it is software"), "--device cpu computes the same, faster"),
    }
}

fn driver(case: &Case) -> Row {
    let Some(adapter) = &case.open.adapter else { return Row::ok("driver", "none needed") };
    let compiler = case.open.compiler.unwrap_or(adapter.compiler);
    let chosen = case.open.kernels.map_or(String::new(), |kernels| format!(", {kernels}"));
    let found = format!("{} {}, kernels compiled to {compiler}{chosen}", adapter.driver, adapter.driver_version);
    judged(found.trim_start(), [compiler, adapter.unasked], adapter.trouble(compiler))
}

/// What is to be said of a driver, with the compiler that is used, and the one that burn would have taken.
fn judged(found: &str, [compiler, unasked]: [Compiler; 2], trouble: Option<Trouble>) -> Row {
    match trouble {
        None => Row::ok("driver", found),
        Some(Trouble::Avoided) if unasked == Compiler::Msl => Row::warning(
            "driver",
            format!("{found}: the system or the GPU is too old for burn's MSL"),
            "results are right, only slower; a newer macOS may do better",
        ),
        Some(Trouble::Avoided) => Row::warning(
            "driver",
            format!("{found}: it lacks explicit layouts of workgroup memory, without which burn's SPIR-V is invalid"),
            "results are right, only slower; a driver with VK_KHR_workgroup_memory_explicit_layout would be faster",
        ),
        Some(Trouble::Wrong) => Row::stop(
            "driver",
            format!("{found}: {compiler} is invalid on this driver, products of matrices may be wrong or end the process"),
            "leave the choice of compiler to moue, or update the driver",
        ),
    }
}

/// Whether our own shaders can run at all.
fn shaders(case: &Case) -> Row {
    let name = "shaders";
    let Some(setup) = &case.open.setup else { return Row::ok(name, "none needed") };
    let demands = match Demands::of_all() {
        Ok(demands) => demands,
        Err(error) => return Row::stop(name, error.lines().next().unwrap_or_default(), "report this: a shader of moue is broken"),
    };
    let short: Vec<String> = (demands.beyond(&setup.device.limits()).iter())
        .map(|short| format!("{} {}, the adapter grants {}", short.have, short.what, short.most))
        .collect();
    let Demands { workgroup_bytes, buffers, threads } = demands;
    match short.is_empty() {
        true => Row::ok(name, format!("{threads} threads, {workgroup_bytes} bytes and {buffers} buffers of a workgroup are granted")),
        false => Row::stop(name, short.join("; "), "--device cpu needs none of it"),
    }
}

fn half(case: &Case) -> Row {
    let name = "half precision";
    let open = &case.open;
    match (case.settings.run.precision, Precision::of(case.settings.run.precision, open)) {
        (_, Err(error)) => Row::stop(name, format!("run.precision = mixed: {error}"), "--precision auto takes what the device has"),
        (config::Precision::Mixed, Ok(_)) if !open.is_hardware => Row::warning(
            name,
            format!("run.precision = mixed, and {} has no hardware for it", open.name),
            "--precision auto computes in single precision here, which is faster",
        ),
        (_, Ok(Precision::Mixed)) => Row::ok(name, "matrix products in half precision"),
        (_, Ok(Precision::Single)) => Row::ok(name, "not used: everything in single precision"),
    }
}

/// What the trainings of a case need.
pub struct Estimates {
    /// One for pretraining and one for finetuning, which folds and the baseline share; no footprint where none is known.
    all: Vec<(Training, Option<Footprint>)>,
    /// Bytes to count on: of the device, and of main memory that is free now.
    usable: Option<f64>,
    free: Option<f64>,
    /// At least so many bytes in the weights alone, where that is more than there is.
    too_large: Option<f64>,
    /// Whether the device and all programs share one memory.
    shares: bool,
    largest_tensor: Option<f64>,
}

impl Estimates {
    pub fn of(case: &Case) -> Self {
        let (open, s) = (&case.open, &case.settings);
        let free = memory::available().map(|bytes| FREE * bytes as f64);
        let usable = open.usable_memory();
        // To count a network it is made, in main memory.
        let least = least(s);
        let too_large = free.into_iter().chain(usable).any(|room| least > room).then_some(least);
        let mut all: Vec<(Training, Option<Footprint>)> = Vec::new();
        for training in case.trainings() {
            let pretrains = training == Training::Pretrain;
            if all.iter().all(|(known, _)| (*known == Training::Pretrain) != pretrains) {
                let footprint = if too_large.is_some() { None } else { Footprint::of(training, s, case.classes(), &case.machine()) };
                all.push((training, footprint));
            }
        }
        let shares = open.shares_memory();
        Self { all, usable, free: free.filter(|_| shares), too_large, shares, largest_tensor: open.largest_tensor() }
    }

    /// The footprint of a training; folds and the baseline have that of finetuning.
    pub fn footprint(&self, training: Training) -> Option<&Footprint> {
        let same = |known: Training| (known == Training::Pretrain) == (training == Training::Pretrain);
        self.all.iter().find(|(known, _)| same(*known))?.1.as_ref()
    }

    /// The most faces at once that there is room for now; none where that is not known.
    pub fn room(&self, training: Training) -> Option<usize> {
        if self.too_large.is_some() {
            return Some(0);
        }
        let footprint = self.footprint(training)?;
        let in_memory = self.free.into_iter().chain(self.usable).map(|memory| footprint.most_within(memory, self.shares));
        in_memory.chain(self.largest_tensor.map(|largest| footprint.most_in_tensors(largest))).min()
    }

    /// Memory and largest buffers.
    pub fn rows(&self, case: &Case) -> Vec<Row> {
        if let Some(least) = self.too_large {
            let found = format!("the weights alone take at least {}", bytes(least));
            return vec![Row::stop("memory", found, "take a smaller network (vit.dim, vit.depth)")];
        }
        let mut rows: Vec<Row> = self.all.iter().map(|(training, footprint)| self.memory(case, *training, footprint.as_ref())).collect();
        rows.push(self.buffers(case));
        rows
    }

    fn memory(&self, case: &Case, training: Training, footprint: Option<&Footprint>) -> Row {
        let section = section(training);
        let name = format!("memory, {section}");
        let Some(footprint) = footprint else {
            return Row::ok(name, format!("no estimate for {}", case.settings.encoder.backbone.name()));
        };
        let needed = footprint.device() + if self.shares { footprint.host } else { 0.0 };
        let at_once = footprint.at_once;
        let Some(usable) = self.usable else {
            let found = format!("{} for {at_once} faces at once; the driver does not tell what there is", bytes(needed));
            return Row::ok(name, found);
        };
        let found = format!("{} for {at_once} faces at once, {} to count on", bytes(needed), bytes(usable));
        if self.shares && footprint.host > usable {
            return Row::stop(
                name,
                found,
                format!("lower {section}.batch: the loader alone keeps {} of faces ready", bytes(footprint.host)),
            );
        }
        let settled = Regime::of(training, &case.settings).accumulate > 0;
        match footprint.fit(footprint.most_within(usable, self.shares)) {
            Fit::Not => Row::stop(name, format!("{found}: not even one face fits"), way_out(&case.settings)),
            Fit::Parts { most } if settled => {
                Row::warning(name, found, format!("--batch auto works on {most} faces at a time; the batch stays what it is"))
            }
            Fit::Parts { most } => Row::ok(name, format!("{found}: {most} faces at a time")),
            Fit::Whole { .. } => match self.free.map(|free| (free, footprint.fit(footprint.most_within(free, self.shares)))) {
                Some((free, Fit::Parts { .. } | Fit::Not)) => Row::warning(
                    name,
                    format!("{found}, but other programs leave {} of it now", bytes(free)),
                    "end them first, or take --batch auto",
                ),
                _ => Row::ok(name, found),
            },
        }
    }

    /// The largest single buffer against what the adapter binds as one.
    fn buffers(&self, case: &Case) -> Row {
        let Some(setup) = &case.open.setup else { return Row::ok("largest buffer", "no limit on the CPU") };
        let limits = setup.device.limits();
        let s = &case.settings;
        let mut needs: Vec<Need> = self
            .all
            .iter()
            .filter_map(|(training, footprint)| {
                let (footprint, section) = (footprint.as_ref()?, section(*training));
                // Where the parts are left open they are as large as there is room for.
                let open = Regime::of(*training, s).accumulate == 0;
                let faces = if open { footprint.at_once.min(self.room(*training).unwrap_or(usize::MAX)) } else { footprint.at_once };
                Some(Need { what: section, faces, each: footprint.widest, setting: Setting::Accumulate(section, footprint.at_once) })
            })
            .collect();
        if !needs.is_empty() {
            let each = widest_evaluating(s);
            needs.push(Need { what: "evaluation", faces: s.run.evaluate_batch, each, setting: Setting::EvaluateBatch });
        }
        fits_bindings(&needs, limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as f64)
    }
}

/// As settings name it.
fn section(training: Training) -> &'static str {
    if training == Training::Pretrain { "pretrain" } else { "finetune" }
}

/// Which setting makes a tensor smaller.
#[derive(Clone, Copy, Debug)]
enum Setting {
    /// Of a section, for so many faces in a batch.
    Accumulate(&'static str, usize),
    EvaluateBatch,
}

/// The largest tensor of some work.
#[derive(Clone, Copy, Debug)]
struct Need {
    what: &'static str,
    faces: usize,
    /// Bytes for a face.
    each: f64,
    setting: Setting,
}

/// Whether every largest tensor is at most `limit` bytes.
fn fits_bindings(needs: &[Need], limit: f64) -> Row {
    let name = "largest buffer";
    let largest = needs.iter().max_by(|a, b| (a.faces as f64 * a.each).total_cmp(&(b.faces as f64 * b.each)));
    let Some(largest) = largest else { return Row::ok(name, format!("no estimate; the adapter binds {}", bytes(limit))) };
    let size = largest.faces as f64 * largest.each;
    let found = format!("{} ({}, {} faces at once), the adapter binds {}", bytes(size), largest.what, largest.faces, bytes(limit));
    let advice: Vec<String> = needs
        .iter()
        .filter(|need| need.faces as f64 * need.each > limit)
        .map(|need| match ((limit / need.each) as usize, need.setting) {
            (0, _) => format!("take a smaller network or input: one face of {} is too large", need.what),
            (most, Setting::Accumulate(section, batch)) => format!("--set {section}.accumulate={}", batch.div_ceil(most)),
            (most, Setting::EvaluateBatch) => format!("--set run.evaluate_batch={most}"),
        })
        .collect();
    let verdict = if advice.is_empty() { Verdict::Ok } else { Verdict::Stop };
    Row { name: name.into(), verdict, found, advice: advice.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_driver_is_a_stop_only_where_it_is_used_as_it_is_broken() {
        let row = |trouble| judged("Mesa 22.3", [Compiler::Spirv; 2], trouble);
        assert_eq!(row(None).verdict, Verdict::Ok);
        assert_eq!(row(Some(Trouble::Avoided)).verdict, Verdict::Warning);
        let wrong = row(Some(Trouble::Wrong));
        assert_eq!(wrong.verdict, Verdict::Stop);
        assert!(wrong.found.contains("SPIR-V is invalid") && wrong.advice.contains("update the driver"), "{wrong:?}");
    }

    #[test]
    fn what_is_larger_than_a_binding_is_told_with_the_parts_that_fit() {
        let train = Need { what: "finetune", faces: 320, each: 1e6, setting: Setting::Accumulate("finetune", 320) };
        let evaluate = Need { what: "evaluation", faces: 256, each: 2e6, setting: Setting::EvaluateBatch };
        assert_eq!(fits_bindings(&[train, evaluate], 1e9).verdict, Verdict::Ok);
        let row = fits_bindings(&[train, evaluate], 1e8);
        assert_eq!((row.verdict, row.advice.as_str()), (Verdict::Stop, "--set finetune.accumulate=4 --set run.evaluate_batch=50"));
        assert!(row.found.starts_with("512.0 MB (evaluation, 256 faces at once), the adapter binds 100.0 MB"), "{}", row.found);
        // What is advised fits.
        let parts = Need { faces: 80, ..train };
        assert_eq!(fits_bindings(&[parts, Need { faces: 50, ..evaluate }], 1e8).verdict, Verdict::Ok);
        let row = fits_bindings(&[train], 9e5);
        assert!(row.advice.contains("one face of finetune is too large"), "{row:?}");
        assert_eq!(fits_bindings(&[], 1e8).verdict, Verdict::Ok);
    }
}
