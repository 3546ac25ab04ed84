//! The audit for other programs: a csv with every ranked face and all that was weighed, one JSON object, tasks for Label Studio.

use super::Audit;
use super::rank::Finding;
use crate::dataset::{Class, Pack};
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Names in the labelling interface of Label Studio; see [`labelling_interface`].
const CONTROL: &str = "expression";
const OBJECT: &str = "image";

impl Audit {
    /// What is known about one finding, for JSON and Label Studio.
    fn describe(&self, rank: usize, finding: &Finding) -> Value {
        let face = &self.evidence.faces[finding.face];
        let mut value = json!({
            "rank": rank,
            "id": face.id,
            "suspicion": round(finding.suspicion),
            "given": self.name(finding.given),
            "given_by": if face.by_majority { "majority of votes" } else { "label" },
            "suggested": self.name(finding.suggested),
            "contradicted": finding.is_contradicted(),
        });
        let mut set = |key: &str, known: Option<Value>| {
            if let Some(known) = known {
                value[key] = known;
            }
        };
        let named = |c: Class| Value::from(self.name(c));
        set("resolved", face.resolved.map(|(c, _)| named(c)));
        set("margin", face.resolved.map(|(_, margin)| json!(round(f64::from(margin)))));
        set("ambiguous", face.ambiguous.map(Value::from));
        set("vote_entropy", finding.entropy.map(|e| json!(round(e))));
        let votes =
            || face.votes.iter().enumerate().filter(|v| *v.1 > 0).map(|(c, v)| (self.name(c as Class).to_string(), Value::from(*v)));
        set("votes", (!face.votes.is_empty()).then(|| Value::Object(votes().collect())));
        if let (Some(traces), Some(row)) = (&self.evidence.traces, face.trace) {
            let trace = traces.faces[row];
            set("flips", Some(trace.flips.into()));
            set("late_flips", Some(trace.late_flips.into()));
            set("epochs_since_flip", Some((traces.epochs - trace.last_flip).into()));
        }
        set("truth", face.truth.map(named));
        value
    }

    /// Writes every finding, one line each, most suspicious first. Empty fields: not known.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let columns = [
            "rank",
            "id",
            "suspicion",
            "given",
            "given_by",
            "suggested",
            "resolved",
            "margin",
            "ambiguous",
            "votes_given",
            "votes_suggested",
            "votes",
            "vote_entropy",
            "flips",
            "late_flips",
            "epochs_since_flip",
            "epochs",
            "history_given",
            "history_suggested",
            "model_given",
            "model_suggested",
            "baseline_given",
            "baseline_suggested",
            "truth",
        ];
        write_atomic(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(columns)?;
            for (n, finding) in self.findings.iter().enumerate() {
                writer.write_record(self.fields(n + 1, finding))?;
            }
            Ok(writer.flush()?)
        })
    }

    fn fields(&self, rank: usize, finding: &Finding) -> Vec<String> {
        let evidence = &self.evidence;
        let face = &evidence.faces[finding.face];
        let (given, suggested) = (finding.given, finding.suggested);
        let or_empty = |v: Option<String>| v.unwrap_or_default();
        let total: u32 = face.votes.iter().sum();
        let votes = |c: Class| or_empty(face.votes.get(usize::from(c)).map(u32::to_string));
        let model = |c: Class| {
            let row = evidence.predictions.as_ref().zip(face.predicted).map(|(p, row)| p.row(row)[usize::from(c)]);
            or_empty(row.map(|p| format!("{p:.6}")))
        };
        let baseline = |c: Class| {
            let row = evidence.baseline.as_ref().zip(face.baseline).map(|(p, row)| p.row(row)[usize::from(c)]);
            or_empty(row.map(|p| format!("{p:.6}")))
        };
        let trace = evidence.traces.as_ref().zip(face.trace);
        let believed = |c: Class| {
            let mean = trace.map(|(traces, row)| {
                let place = traces.header.faces[row].candidates.binary_search(&c);
                place.map_or(0.0, |k| traces.means(row)[k])
            });
            or_empty(mean.map(|m| format!("{m:.4}")))
        };
        let of_trace = |pick: &dyn Fn(u32, u32, u32) -> u32| {
            or_empty(trace.map(|(t, row)| pick(t.faces[row].flips, t.faces[row].late_flips, t.epochs - t.faces[row].last_flip).to_string()))
        };
        vec![
            rank.to_string(),
            face.id.clone(),
            format!("{:.4}", finding.suspicion),
            self.name(given).into(),
            if face.by_majority { "majority" } else { "label" }.into(),
            self.name(suggested).into(),
            or_empty(face.resolved.map(|(c, _)| self.name(c).into())),
            or_empty(face.resolved.map(|(_, margin)| format!("{margin:.4}"))),
            or_empty(face.ambiguous.map(|a| u8::from(a).to_string())),
            votes(given),
            votes(suggested),
            or_empty((total > 0).then(|| total.to_string())),
            or_empty(finding.entropy.map(|e| format!("{e:.4}"))),
            of_trace(&|flips, _, _| flips),
            of_trace(&|_, late, _| late),
            of_trace(&|_, _, since| since),
            or_empty(trace.map(|(t, _)| t.epochs.to_string())),
            believed(given),
            believed(suggested),
            model(given),
            model(suggested),
            baseline(given),
            baseline(suggested),
            or_empty(face.truth.map(|c| self.name(c).into())),
        ]
    }

    /// The whole audit with its first `top` findings.
    pub fn to_json(&self, top: usize) -> Value {
        let evidence = &self.evidence;
        let table = |counts: &[Vec<u64>]| {
            let rows = counts.iter().enumerate().map(|(from, row)| {
                let cells = row.iter().enumerate().filter(|(_, n)| **n > 0).map(|(to, n)| (self.name(to as Class).to_string(), json!(n)));
                (self.name(from as Class).to_string(), Value::Object(cells.collect()))
            });
            Value::Object(rows.collect())
        };
        let group = |g: &super::duplicates::Group| {
            let faces: Vec<Value> =
                g.faces.iter().map(|f| json!({"id": f.id, "split": f.split, "label": f.label.map(|c| self.name(c))})).collect();
            json!({"exact": g.exact, "faces": faces})
        };
        let annotator = |a: &super::annotators::Agreement| {
            let mut value = serde_json::to_value(a).unwrap_or_default();
            value["confusion"] =
                a.confusion.map_or(Value::Null, |(others, own, n)| json!({"others": self.name(others), "own": self.name(own), "faces": n}));
            value
        };
        json!({
            "run": evidence.folder.path(),
            "objective": evidence.objective,
            "classes": evidence.classes,
            "training_faces": evidence.faces.len(),
            "ambiguous": self.ambiguous(),
            "ranked": self.findings.len(),
            "unjudged": self.unjudged,
            "contradicted": self.contradicted(),
            "epochs": evidence.traces.as_ref().map(|t| t.epochs),
            "findings": self.findings.iter().take(top).enumerate().map(|(n, f)| self.describe(n + 1, f)).collect::<Vec<_>>(),
            "given_to_resolved": table(&self.relabelled),
            "flips": table(&self.flips),
            "annotators": self.annotators.iter().map(annotator).collect::<Vec<_>>(),
            "duplicates": self.duplicates.as_ref().map(|d| json!({"groups": d.groups, "disputed": d.disputed.iter().map(group).collect::<Vec<_>>()})),
            "measured": self.measured,
            "notes": evidence.notes,
        })
    }

    /// Writes the first `top` findings as tasks that Label Studio imports: the picture itself (a PNG as a data URI, so that no server has
    /// to hold it), all that is known about the face, and the suggested class as a prediction for people to accept or mend.
    ///
    /// # Errors
    /// Without the pack's pictures ([`Usage`](crate::failure::Usage)), and where the disk fails.
    pub fn write_label_studio(&self, path: &Path, top: usize) -> Result<()> {
        let Some(pack) = &self.evidence.pack else { usage!("tasks for Label Studio need the run's pack: say where it is with --data") };
        write_atomic(path, |file| {
            writeln!(file, "[")?;
            let last = self.findings.len().min(top);
            for (n, finding) in self.findings.iter().take(top).enumerate() {
                let position = self.evidence.faces[finding.face].position.context("every face of a pack has a position")?;
                let mut data = self.describe(n + 1, finding);
                data[OBJECT] = data_uri(pack, position)?.into();
                let task = json!({
                    "data": data,
                    "predictions": [{
                        "model_version": format!("moue {} audit", env!("CARGO_PKG_VERSION")),
                        "score": round(finding.pooled[usize::from(finding.suggested)]),
                        "result": [{
                            "id": format!("moue-{}", n + 1),
                            "from_name": CONTROL,
                            "to_name": OBJECT,
                            "type": "choices",
                            "value": {"choices": [self.name(finding.suggested)]},
                        }],
                    }],
                });
                writeln!(file, "{task}{}", if n + 1 < last { "," } else { "" })?;
            }
            Ok(writeln!(file, "]")?)
        })
    }

    /// The labelling interface that such tasks need, to be pasted into the project's settings.
    pub fn labelling_interface(&self) -> String {
        let choices: String = self.evidence.classes.iter().map(|c| format!("<Choice value=\"{}\"/>", escaped(c))).collect();
        format!(
            "<View><Image name=\"{OBJECT}\" value=\"${OBJECT}\"/><Choices name=\"{CONTROL}\" toName=\"{OBJECT}\" choice=\"single\">{choices}\
             </Choices></View>"
        )
    }
}

fn round(v: f64) -> f64 {
    (v * 1e4).round() / 1e4
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn data_uri(pack: &Pack, position: usize) -> Result<String> {
    let pixels = pack.pixels(position)?;
    let kind = if pixels.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&pixels.data, pixels.width as u32, pixels.height as u32, kind)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}
