//! Cost against size: one setting takes several values while everything else stays, and a power law is fitted to time and memory of a step.

use super::{Bench, Effort, Part, Ready, Rival, Row, limits};
use crate::config::{Origin, Resolved, Settings};
use crate::report::figure::Figure;
use crate::report::figure::scaling::{Line, Scaling};
use crate::usage;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::str::FromStr;

/// A setting and its values in turn, as typed: `vit.dim=48,96,192`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    key: String,
    values: Vec<String>,
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or("expected KEY=VALUE,VALUE,...")?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_string()).collect();
        if values.len() < 2 || values.iter().any(String::is_empty) {
            return Err("at least two values, with commas between them".into());
        }
        Ok(Self { key: key.trim().to_string(), values })
    }
}

/// One value of a setting.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub value: String,
    /// What the cost is held against: the value itself, or for the geometry of the input the number of patches.
    pub size: f64,
    pub parameters: Option<usize>,
    pub milliseconds: f64,
    pub peak_bytes: Option<u64>,
}

/// A training row along an axis.
#[derive(Clone, Debug, Serialize)]
pub struct Course {
    pub row: Row,
    pub key: String,
    /// What [`Point::size`] counts.
    pub counts: &'static str,
    /// Size under the settings as they are.
    pub here: f64,
    pub points: Vec<Point>,
    /// e in milliseconds ~ size^e, by least squares on logarithms.
    pub time_exponent: Option<f64>,
    /// The same of the peak memory, what the process takes for itself included.
    pub memory_exponent: Option<f64>,
    /// Who measured, on what.
    pub ready: Ready,
}

/// All that stays.
pub struct Base<'a> {
    pub resolved: &'a Resolved,
    pub device: String,
    pub threads: usize,
    pub effort: Effort,
}

impl Course {
    /// Measures every value, moue alone.
    ///
    /// # Errors
    /// A setting that is no number or does not fit the others, and what [`Bench::measure`] reports.
    pub fn measure(base: &Base, axis: &Axis, row: Row) -> Result<Self> {
        // All values are looked at before the first is measured.
        let settings = axis.values.iter().map(|value| {
            let resolved = base.resolved.clone().with_flag(&format!("{}={value}", axis.key))?.checked(&Origin::Flag)?;
            let size = size(&axis.key, value, resolved.settings())?;
            Ok((value, size, resolved.settings().clone()))
        });
        let settings: Vec<(&String, f64, Settings)> = settings.collect::<Result<_>>()?;
        let now = base.resolved.entries().find(|(key, ..)| *key == axis.key).map(|(_, value, _)| value);
        let here = size(&axis.key, &now.with_context(|| format!("{} has no value", axis.key))?, base.resolved.settings())?;
        let (mut points, mut ready) = (Vec::with_capacity(settings.len()), None);
        for (value, size, settings) in settings {
            let bench = Bench::start(&settings, &[row], base.device.clone(), base.threads, base.effort, Rival::None)?;
            let measured = bench.measure(row, Part::Whole)?;
            points.push(Point {
                value: value.clone(),
                size,
                parameters: measured.ours.ready.parameters,
                milliseconds: 1e3 * measured.batch as f64 / measured.ours.faces_per_second,
                peak_bytes: measured.ours.peak_bytes,
            });
            ready.get_or_insert(measured.ours.ready);
        }
        let fitted = |cost: &dyn Fn(&Point) -> Option<f64>| exponent(points.iter().filter_map(|p| Some((p.size, cost(p)?))));
        let (time_exponent, memory_exponent) = (fitted(&|p| Some(p.milliseconds)), fitted(&|p| p.peak_bytes.map(|b| b as f64)));
        let ready = ready.context("an axis has values")?;
        Ok(Self { row, key: axis.key.clone(), counts: counts(&axis.key), here, points, time_exponent, memory_exponent, ready })
    }

    fn name(&self) -> String {
        format!("{} ({})", self.counts, self.row.name())
    }
}

/// Settings that change how many patches a face has.
fn is_geometry(key: &str) -> bool {
    matches!(key, "data.size" | "vit.patch")
}

fn counts(key: &str) -> &'static str {
    match key {
        _ if is_geometry(key) => "tokens",
        "vit.dim" => "width",
        "vit.depth" => "depth",
        _ if key.ends_with(".batch") => "batch",
        _ => "value",
    }
}

fn size(key: &str, value: &str, settings: &Settings) -> Result<f64> {
    if is_geometry(key) {
        return Ok(settings.grid().pow(2) as f64);
    }
    match value.parse::<f64>() {
        Ok(size) if size > 0.0 && size.is_finite() => Ok(size),
        _ => usage!("--sweep {key}: {value} is no size; a sweep needs positive numbers"),
    }
}

/// The slope of the line through the logarithms; none of fewer than two sizes.
fn exponent(points: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.map(|(size, cost)| (size.ln(), cost.ln())).collect();
    let n = logs.len() as f64;
    let mean = logs.iter().fold((0.0, 0.0), |m, p| (m.0 + p.0 / n, m.1 + p.1 / n));
    let (across, along) = logs.iter().fold((0.0, 0.0), |(a, b), p| {
        let (x, y) = (p.0 - mean.0, p.1 - mean.1);
        (a + x * y, b + x * x)
    });
    (along > 1e-12).then(|| across / along)
}

/// All courses, with what they were measured on.
pub fn report(base: &Base, courses: &[Course]) -> Value {
    json!({
        "bench": "sweep",
        "version": env!("CARGO_PKG_VERSION"),
        "limits": limits(),
        "threads": base.threads,
        "effort": base.effort,
        "settings": base.resolved.settings(),
        "courses": courses,
    })
}

/// Time and memory of all courses, each against its size.
pub fn figures(courses: &[Course]) -> [Figure; 2] {
    let line = |course: &Course, cost: &dyn Fn(&Point) -> Option<f64>, exponent: Option<f64>| Line {
        name: exponent.map_or(course.name(), |e| format!("{} ^{e:.2}", course.counts)),
        points: course.points.iter().filter_map(|p| Some((p.size / course.here, cost(p)?))).collect(),
    };
    let time: Vec<Line> = courses.iter().map(|c| line(c, &|p| Some(p.milliseconds), c.time_exponent)).collect();
    let memory: Vec<Line> = courses.iter().map(|c| line(c, &|p| p.peak_bytes.map(|b| b as f64 / 1e6), c.memory_exponent)).collect();
    let told = |lines: &[Line]| lines.iter().map(|l| l.name.clone()).collect::<Vec<_>>().join(", ");
    let figure = |name: &str, title: &str, above, lines: Vec<Line>| {
        Scaling { name: name.into(), title: title.into(), description: format!("grows as {}", told(&lines)), above }.draw(&lines)
    };
    [
        figure("scaling-time", "Time of a training step against size", "milliseconds a step", time),
        figure("scaling-memory", "Peak memory of training against size", "peak memory, MB", memory),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_gives_its_exponent() {
        let of = |sizes: &[f64], e: f64| exponent(sizes.iter().map(|s| (*s, 7.0 * s.powf(e))));
        assert!((of(&[48.0, 96.0, 192.0, 384.0], 1.75).unwrap() - 1.75).abs() < 1e-9);
        assert!((of(&[1.0, 3.0], -0.5).unwrap() + 0.5).abs() < 1e-9);
        assert_eq!((of(&[4.0], 1.0), of(&[4.0, 4.0], 1.0), of(&[], 1.0)), (None, None, None));
    }

    #[test]
    fn an_axis_is_a_key_with_values() {
        let axis: Axis = "vit.dim=48, 96".parse().unwrap();
        assert_eq!(axis, Axis { key: "vit.dim".into(), values: vec!["48".into(), "96".into()] });
        for wrong in ["vit.dim", "vit.dim=48", "vit.dim=48,,96"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn geometry_counts_patches_and_words_are_no_sizes() {
        let s = Settings::default();
        assert_eq!((size("data.size", "224", &s).unwrap(), counts("data.size")), (196.0, "tokens"));
        assert_eq!(size("vit.dim", "96", &s).unwrap(), 96.0);
        assert_eq!(crate::failure::exit_code(&size("vit.stem", "conv", &s).unwrap_err()), 2);
    }
}
