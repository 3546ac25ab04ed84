//! How the runs were made: command, device, seeds, data, and every setting with where it came from.

use crate::report::figures::Run;
use crate::report::record::Record;
use crate::run::Manifest;
use crate::run::manifest::Setting;
use maud::{Markup, html};
use serde_json::Value;

pub fn section(runs: &[Run]) -> Markup {
    let several = runs.len() > 1;
    html! {
        section id="setup" {
            h2 { "Set-up" }
            p class="lead" { "What it takes to do it again." }
            @for run in runs {
                @if several { p class="run" { (run.record.name) } }
                (about(&run.record))
            }
            (plan(runs))
        }
    }
}

fn about(record: &Record) -> Markup {
    let Some(m) = &record.manifest else {
        return html! {
            @if !record.summary.command.is_empty() { pre { code { (record.summary.command) } } }
            p class="missing" { "The run has no manifest that can be read: command, device, data and settings are not known from it." }
        };
    };
    html! {
        pre { code { (m.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")) } }
        dl {
            dt { "folder" } dd { (record.folder.path().display().to_string()) }
            dt { "made" } dd { (m.created) ", by moue " (m.moue)
                @if let Some(end) = &m.finished { "; " (end.outcome.name()) " " (end.at) } }
            dt { "stages" } dd { @if m.stages.is_empty() { "not said" } @else { (m.stages.join(", ")) } }
            dt { "seed" } dd { (m.seed) " (every random stream is derived from it)" }
            dt { "device" } dd { (device(&m.device)) }
            @match &m.data {
                Some(data) => {
                    dt { "data" } dd { (data.pack) }
                    dt { "data hash" } dd { span class="code" { (data.pack_hash) } }
                    dt { "label protocol" } dd { (data.protocol) ", hash " span class="code" { (data.protocol_hash) } }
                    dt { "classes" } dd { (data.classes.join(", ")) }
                    dt { "leaks" } dd { (data.leaks_in_words()) }
                }
                None => { dt { "data" } dd { "not said" } }
            }
            @for (name, value) in m.inputs.iter() { dt { (name) } dd { (value) } }
        }
    }
}

/// Name first, then whatever else the engine says of the device.
fn device(device: &Value) -> String {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
    match device {
        Value::Null => "not said".into(),
        Value::Object(fields) => {
            let name = fields.get("name").map(text).into_iter();
            let rest = fields.iter().filter(|(k, v)| *k != "name" && !v.is_null()).map(|(k, v)| match (k.as_str(), v.as_u64()) {
                ("memory", Some(bytes)) => format!("memory {:.1} GiB", bytes as f64 / f64::from(1 << 30)),
                _ => format!("{k} {}", text(v)),
            });
            name.chain(rest).collect::<Vec<_>>().join(", ")
        }
        other => text(other),
    }
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(safe) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// One line of the plan: a setting in each run.
struct Line<'a> {
    key: &'a str,
    values: Vec<Option<&'a Setting>>,
}

impl Line<'_> {
    fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0].map(|s| &s.value) != pair[1].map(|s| &s.value))
    }

    fn default(&self) -> bool {
        self.values.iter().flatten().all(|s| s.origin == "default")
    }
}

fn plan(runs: &[Run]) -> Markup {
    let manifests: Vec<Option<&Manifest>> = runs.iter().map(|r| r.record.manifest.as_ref()).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in manifests.iter().flatten().flat_map(|m| m.settings.iter()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let lines: Vec<Line> =
        keys.iter().map(|key| Line { key, values: manifests.iter().map(|m| m.and_then(|m| m.settings.get(key))).collect() }).collect();
    let (same, differ): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|l| runs.len() == 1 || !l.differs());
    let (default, chosen): (Vec<&Line>, Vec<&Line>) = same.into_iter().partition(|l| l.default());
    html! {
        @if runs.len() > 1 {
            h3 { "What differs" }
            (facts(runs))
            @if differ.is_empty() { p { "No setting." } } @else { (lines_table(&differ, runs)) }
            h3 { "What is the same" }
        } @else { h3 { "The plan" } }
        @if lines.is_empty() { p class="missing" { "The manifest lists no settings." } }
        @if !chosen.is_empty() {
            p { "Settings that do not stand at their defaults, and the layer that each value came from." }
            (lines_table(&chosen, runs))
        }
        @if !default.is_empty() {
            details { summary { @if let [_] = default[..] { "One setting at its default" } @else { (default.len()) " settings at their defaults" } } (lines_table(&default, runs)) }
        }
    }
}

/// What else differs than settings.
fn facts(runs: &[Run]) -> Markup {
    let of = |get: &dyn Fn(&Manifest) -> String| -> Vec<String> {
        runs.iter().map(|r| r.record.manifest.as_ref().map_or("not known".into(), get)).collect()
    };
    let facts = [
        ("seed", of(&|m| m.seed.to_string())),
        ("device", of(&|m| m.device_name().unwrap_or("not said").into())),
        ("data hash", of(&|m| m.data.as_ref().map_or("not said".into(), |d| d.pack_hash.get(..16).unwrap_or(&d.pack_hash).into()))),
        ("label protocol", of(&|m| m.data.as_ref().map_or("not said".into(), |d| format!("{} {}", d.protocol, d.protocol_hash)))),
        ("moue", of(&|m| m.moue.clone())),
    ];
    let differ: Vec<_> = facts.iter().filter(|(_, values)| values.windows(2).any(|p| p[0] != p[1])).collect();
    html! {
        @if differ.is_empty() { p { "Seed, device, data and version are the same." } }
        @else {
            div class="scroll" { table {
                thead { tr { th { "" } @for run in runs { th scope="col" { (run.record.name) } } } }
                tbody { @for (name, values) in differ { tr { th scope="row" { (name) } @for value in values { td { (value) } } } } }
            } }
        }
    }
}

fn lines_table(lines: &[&Line], runs: &[Run]) -> Markup {
    html! {
        div class="scroll" { table {
            thead { tr {
                th scope="col" { "setting" }
                @if runs.len() == 1 { th scope="col" { "value" } th scope="col" { "from" } }
                @else { @for run in runs { th scope="col" { (run.record.name) } } }
            } }
            tbody {
                @for line in lines {
                    tr {
                        th scope="row" { span class="code" { (line.key) } }
                        @for setting in &line.values {
                            @match setting {
                                Some(s) if runs.len() == 1 => { td { span class="code" { (value(s)) } } td class="origin" { (s.origin) } }
                                Some(s) => td { span class="code" { (value(s)) } " " span class="origin" { (s.origin) } },
                                None => td class="origin" { "not set" },
                            }
                        }
                    }
                }
            }
        } }
    }
}

fn value(setting: &Setting) -> String {
    setting.value.as_str().map_or_else(|| setting.value.to_string(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_can_be_typed_again() {
        let words = ["moue", "demo", "--set", "a.b=[1, 2]", "it's", ""].map(quoted);
        assert_eq!(words.join(" "), r"moue demo --set 'a.b=[1, 2]' 'it'\''s' ''");
    }

    #[test]
    fn devices_are_told_whatever_they_say() {
        assert_eq!(device(&Value::Null), "not said");
        assert_eq!(device(&json!("a GPU")), "a GPU");
        assert_eq!(device(&json!({"api": "cpu", "name": "CPU", "memory": 2147483648u64, "driver": null})), "CPU, api cpu, memory 2.0 GiB");
    }
}
