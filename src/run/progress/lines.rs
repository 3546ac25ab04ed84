//! One line per event that matters, each beginning with `moue` and the stage, values as `name=value`: made for `grep` and `awk`.
//!
//! ```text
//! moue pretrain step=120/800 epoch=3.0/20 loss=0.4312 lr=9.10e-4 img/s=412 eta=00:03:10
//! moue finetune/pll step=400/1600 epoch=5.0/20 valid acc=0.6521 mean=0.5920 loss=1.0213
//! ```
//! Scalars come at most once a second of the run, and always the last ones before an evaluation or the end of a stage. Watched faces and the starts and ends of short phases are left to the
//! event log.

use super::{Pace, plain, short};
use crate::run::clock::hms;
use crate::run::event::{Body, Event, Phase};
use crate::run::summary::{RunSummary, StageSummary};
use crate::run::writer::Sink;
use std::io::{self, Write};

/// Seconds of the run between two lines of scalars.
const INTERVAL: f64 = 1.0;

/// Prints lines to any writer, each flushed.
pub struct Lines<W> {
    out: W,
    summary: RunSummary,
    pace: Pace,
    /// When scalars were last printed.
    printed: Option<f64>,
    /// Scalars that came too soon.
    waiting: Option<String>,
}

impl<W: Write> Lines<W> {
    pub fn new(out: W) -> Self {
        Self { out, summary: RunSummary::default(), pace: Pace::default(), printed: None, waiting: None }
    }

    fn print(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

impl<W: Write + Send> Sink for Lines<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.summary.apply(event);
        match &event.body {
            Body::Phase { name: Phase::Pause, elapsed: Some(seconds) } => self.pace.skip(*seconds),
            Body::StageStarted { .. } => (self.pace, self.printed, self.waiting) = (Pace::default(), None, None),
            Body::Evaluation { .. } | Body::StageFinished { .. } | Body::RunFinished { .. } => {
                if let Some(line) = self.waiting.take() {
                    self.print(&line)?;
                }
            }
            Body::Scalars(_) => {
                self.pace.push(event.t, event.step);
                let eta = self.summary.stage().filter(|s| s.steps > 0).and_then(|s| self.pace.eta(s.steps));
                let Some(mut line) = describe(event, self.summary.stage()) else { return Ok(()) };
                if let Some(eta) = eta {
                    line += &format!(" eta={}", hms(eta));
                }
                if self.printed.is_some_and(|at| event.t - at < INTERVAL) {
                    self.waiting = Some(line);
                    return Ok(());
                }
                (self.printed, self.waiting) = (Some(event.t), None);
                return self.print(&line);
            }
            _ => {}
        }
        match describe(event, self.summary.stage()) {
            Some(line) => self.print(&line),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.waiting.take().map_or(Ok(()), |line| self.print(&line))
    }
}

/// The event's line, without line feed; `None` for what is not worth one. `stage` gives the sizes of the event's stage.
pub fn describe(event: &Event, stage: Option<&StageSummary>) -> Option<String> {
    let stage = stage.filter(|s| s.stage == event.stage && s.label == event.label && s.steps > 0);
    let at = match stage {
        Some(s) => format!("step={}/{} epoch={:.1}/{}", event.step, s.steps, event.epoch, s.epochs),
        None => format!("step={} epoch={:.1}", event.step, event.epoch),
    };
    let says = match &event.body {
        Body::RunStarted { command, version } => format!("started version={version} command: {command}"),
        Body::RunResumed { command, version } => format!("resumed version={version} command: {command}"),
        // The phases that keep a newcomer waiting are announced.
        Body::Phase { name: name @ (Phase::Load | Phase::Compile | Phase::Autotune | Phase::Pause), elapsed: None } => {
            format!("phase={}", name.name())
        }
        Body::Phase { name, elapsed: Some(seconds) } if *seconds >= 1.0 => format!("phase={} elapsed={seconds:.1}s", name.name()),
        Body::StageStarted { steps, epochs, batch, faces } => {
            format!("started steps={steps} epochs={epochs} batch={batch} faces={faces}")
        }
        Body::Scalars(scalars) => {
            let mut line = at;
            for (name, x) in scalars.iter() {
                line += &match name {
                    "faces_per_second" if x >= 10.0 => format!(" img/s={x:.0}"),
                    "faces_per_second" => format!(" img/s={x:.1}"),
                    "memory_bytes" => format!(" memory={:.0}M", x / 1e6),
                    _ => format!(" {name}={}", short(x)),
                };
            }
            line
        }
        Body::Confidence { resolved, ambiguous, flips, recovered, .. } => {
            let recovered = recovered.map(|share| format!(" recovered={share:.4}")).unwrap_or_default();
            format!("{at} labels resolved={resolved}/{ambiguous} flips={flips}{recovered}")
        }
        Body::Evaluation { split, accuracy, mean_recall, loss, .. } => {
            let loss = loss.map(|loss| format!(" loss={}", short(loss))).unwrap_or_default();
            format!("{at} {split} acc={accuracy:.4} mean={mean_recall:.4}{loss}")
        }
        Body::Checkpoint { path } => format!("{at} checkpoint={path}"),
        Body::Picture { path, .. } => format!("{at} picture={path}"),
        Body::Message { level, text } => format!("{}: {text}", level.name()),
        Body::StageFinished { elapsed } => format!("finished step={} elapsed={}", event.step, hms(*elapsed)),
        Body::RunFinished { outcome, message } if message.is_empty() => format!("{} elapsed={}", outcome.name(), hms(event.t)),
        Body::RunFinished { outcome, message } => format!("{} elapsed={} message: {message}", outcome.name(), hms(event.t)),
        Body::Phase { .. } | Body::Watched { .. } => return None,
    };
    Some(plain(&format!("moue {} {says}", event.place())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Split;
    use crate::run::event::tests::{event, every_body};
    use crate::run::{Scalars, Stage};

    fn at(t: f64, step: u64, body: Body) -> Event {
        Event { t, step, epoch: step as f64 / 40.0, stage: Stage::Pretrain, label: String::new(), ..event(body) }
    }

    fn lines(events: &[Event]) -> Vec<String> {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out);
        events.iter().for_each(|e| lines.event(e).unwrap());
        lines.finish().unwrap();
        String::from_utf8(out).unwrap().lines().map(String::from).collect()
    }

    #[test]
    fn dense_lines() {
        let scalars = || Body::Scalars(Scalars::from([("loss", 0.43121), ("lr", 9.1e-4), ("faces_per_second", 412.4)]));
        let evaluation = Body::Evaluation {
            split: Split::Valid,
            accuracy: 0.6521,
            mean_recall: 0.592,
            per_class: vec![],
            confusion: vec![],
            loss: Some(f64::NAN),
            macro_f1: None,
            calibration_error: None,
        };
        let shown = lines(&[
            at(0.0, 0, Body::StageStarted { steps: 800, epochs: 20.0, batch: 64, faces: 2560 }),
            at(1.0, 10, scalars()),
            at(1.5, 15, scalars()), // too soon
            at(12.0, 120, scalars()),
            at(12.1, 120, evaluation),
            at(12.2, 121, scalars()), // too soon, but the last
            at(12.3, 121, Body::StageFinished { elapsed: 12.3 }),
        ]);
        assert_eq!(
            shown,
            [
                "moue pretrain started steps=800 epochs=20 batch=64 faces=2560",
                "moue pretrain step=10/800 epoch=0.2/20 loss=0.4312 lr=9.10e-4 img/s=412",
                "moue pretrain step=120/800 epoch=3.0/20 loss=0.4312 lr=9.10e-4 img/s=412 eta=00:01:08",
                "moue pretrain step=120/800 epoch=3.0/20 valid acc=0.6521 mean=0.5920 loss=NaN",
                "moue pretrain step=121/800 epoch=3.0/20 loss=0.4312 lr=9.10e-4 img/s=412 eta=00:01:09",
                "moue pretrain finished step=121 elapsed=00:00:12",
            ]
        );
    }

    #[test]
    fn every_kind_is_one_line_or_none() {
        let shown = lines(&every_body().into_iter().map(event).collect::<Vec<_>>());
        assert!(shown.iter().all(|line| line.starts_with("moue finetune/pll ")), "{shown:#?}");
        assert!(shown.contains(&"moue finetune/pll phase=compile".to_string()));
        assert!(shown.contains(&"moue finetune/pll warning: two lines".to_string()));
        assert!(shown.iter().any(|line| line.ends_with("labels resolved=3/20 flips=2 recovered=0.7500")));
        // All but the watched face.
        assert_eq!(shown.len(), every_body().len() - 1);
    }
}
