//! Where program, device, data and settings of two runs differ, by their manifests: what `moue rerun` says before it starts.

use super::manifest::{Manifest, Program};
use super::values::Ordered;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub what: String,
    pub then: String,
    pub now: String,
    /// Whether results may differ because of it.
    pub matters: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.matters { "" } else { "; no result depends on it" };
        write!(f, "{}: {} then, {} now{weight}", self.what, self.then, self.now)
    }
}

/// What a manifest from before a field was recorded says of it.
const UNRECORDED: &str = "not recorded";
/// Fields of a device on which no result depends: where it sits, how large it is, how many cores are left to other threads.
const PLACE: [&str; 7] = ["index", "pci", "memory", "cores", "largest_buffer", "largest_storage_binding", "refused"];
/// Settings of the machine, not of the run: they stand in the manifest as what they came to.
pub const SETTLED: [&str; 4] = ["run.threads", "run.workers", "run.precision", "run.kernels"];

/// What [`program`] gives.
const PROGRAM: [&str; 4] = ["burn", "libraries (hash of the lock file)", "built for", "program (checksum and length)"];

fn program(manifest: &Manifest) -> [Option<String>; 4] {
    let recorded = |p: &Program| [Some(p.burn.clone()), Some(p.libraries.clone()), Some(p.target.clone()), p.file.clone()];
    manifest.program.as_ref().map(recorded).unwrap_or_default()
}

/// All differences. The pack's path and those of the inputs are none: what is in them counts.
pub fn differences(then: &Manifest, now: &Manifest) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    found.compare("moue", true, Some(&then.moue), Some(&now.moue));
    for (what, (a, b)) in PROGRAM.iter().zip(program(then).iter().zip(&program(now))) {
        found.compare(what, true, a.as_ref(), b.as_ref());
    }
    found.devices(&then.device, &now.device);
    if then.device["kernels"] == now.device["kernels"] && has_timed_kernels(now) {
        // Which they were is not told by anything.
        let (then, now) = ("the fastest by that run's trials".into(), "the fastest by trials of its own".into());
        found.0.push(Difference { what: "kernels".into(), then, now, matters: true });
    }
    let number = |n: Option<usize>| n.map(|n| n.to_string());
    found.compare("threads", true, number(then.threads).as_ref(), number(now.threads).as_ref());
    found.compare("workers", false, number(then.workers).as_ref(), number(now.workers).as_ref());
    found.compare("seed", true, Some(&then.seed.to_string()), Some(&now.seed.to_string()));
    let pack = |m: &Manifest| m.data.as_ref().map(|d| d.pack_hash.clone());
    found.compare("pack (hash)", true, pack(then).as_ref(), pack(now).as_ref());
    for name in names(&then.inputs, &now.inputs) {
        found.compare(&format!("--{name} (hash)"), true, then.input_hashes.get(name), now.input_hashes.get(name));
    }
    for key in names(&then.settings, &now.settings).into_iter().filter(|key| !SETTLED.contains(key)) {
        let value = |m: &Manifest| m.settings.get(key).map_or("no such setting".into(), |s| shown(&s.value));
        found.compare(key, true, Some(&value(then)), Some(&value(now)));
    }
    for text in &then.changes {
        found.0.push(Difference { what: "changed by a resume".into(), then: text.clone(), now: "nothing".into(), matters: true });
    }
    found.0
}

/// The names in either map, in the order of the second and then of the first.
fn names<'a, A, B>(then: &'a Ordered<A>, now: &'a Ordered<B>) -> Vec<&'a str> {
    let gone = then.iter().map(|(name, _)| name).filter(|name| now.get(name).is_none());
    now.iter().map(|(name, _)| name).chain(gone).collect()
}

/// Whether burn chooses kernels by time, anew in each process: convolutions' even where the others are fixed.
fn has_timed_kernels(manifest: &Manifest) -> bool {
    let is = |key: &str, word: &str| manifest.settings.get(key).is_some_and(|setting| shown(&setting.value).trim_matches('"') == word);
    match manifest.device["kernels"].as_str() {
        Some("fixed") => is("vit.stem", "conv") || is("encoder.backbone", "resnet18"),
        kernels => kernels == Some("timed"),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

struct Found(Vec<Difference>);

impl Found {
    fn compare(&mut self, what: &str, matters: bool, then: Option<&String>, now: Option<&String>) {
        if then != now {
            let said = |value: Option<&String>| value.cloned().unwrap_or_else(|| UNRECORDED.into());
            self.0.push(Difference { what: what.into(), then: said(then), now: said(now), matters });
        }
    }

    fn devices(&mut self, then: &Value, now: &Value) {
        let (Some(a), Some(b)) = (then.as_object(), now.as_object()) else {
            return self.compare("device", true, Some(&shown(then)), Some(&shown(now)));
        };
        for key in b.keys().chain(a.keys().filter(|key| !b.contains_key(*key))) {
            let value = |fields: &serde_json::Map<String, Value>| fields.get(key).map(shown);
            self.compare(&format!("device: {key}"), !PLACE.contains(&key.as_str()), value(a).as_ref(), value(b).as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Setting;
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_differs_is_named() {
        let manifest = || {
            let mut manifest = Manifest::new(Vec::new(), 1);
            manifest.device = json!({"name": "a GPU", "driver": "1.2", "memory": 8});
            manifest.settings.set("vit.dim", Setting { value: json!("16"), origin: "default".into() });
            manifest.settings.set("run.threads", Setting { value: json!("0"), origin: "default".into() });
            (manifest.threads, manifest.workers) = (Some(2), Some(2));
            manifest
        };
        let (mut then, mut now) = (manifest(), manifest());
        assert_eq!(differences(&then, &now), []);
        then.settings.set("vit.gone", Setting { value: json!("1"), origin: "flag".into() });
        then.inputs.set("from", "a".into());
        then.program = None;
        now.device = json!({"name": "a GPU", "driver": "1.3", "memory": 9});
        now.settings.set("vit.dim", Setting { value: json!("32"), origin: "flag".into() });
        now.settings.set("run.threads", Setting { value: json!("2"), origin: "flag".into() });
        (now.workers, now.threads) = (Some(3), Some(4));
        now.inputs.set("from", "b".into());
        now.input_hashes.set("from", "0123".into());
        then.changes.push("threads from 1 to 2".into());
        let found = differences(&then, &now);
        let said: Vec<String> = found.iter().map(Difference::to_string).collect();
        let has = |text: &str| assert!(said.iter().any(|line| line == text), "no `{text}` in {said:#?}");
        has("device: driver: 1.2 then, 1.3 now");
        has("device: memory: 8 then, 9 now; no result depends on it");
        has("workers: 2 then, 3 now; no result depends on it");
        has("threads: 2 then, 4 now");
        has("--from (hash): not recorded then, 0123 now");
        has("vit.dim: 16 then, 32 now");
        has("vit.gone: 1 then, no such setting now");
        has("changed by a resume: threads from 1 to 2 then, nothing now");
        assert!(said.iter().any(|line| line.starts_with("burn: not recorded then")));
        assert_eq!(said.len(), 12, "{said:#?}");
    }

    #[test]
    fn kernels_by_time_may_be_others_each_time() {
        let manifest = |kernels: &str| {
            let mut manifest = Manifest::new(Vec::new(), 1);
            manifest.device = json!({"name": "a GPU", "kernels": kernels});
            manifest
        };
        let (timed, fixed) = (manifest("timed"), manifest("fixed"));
        assert_eq!(differences(&fixed, &fixed), []);
        let said = |then, now| differences(then, now).iter().map(Difference::to_string).collect::<Vec<_>>();
        assert_eq!(said(&timed, &timed), ["kernels: the fastest by that run's trials then, the fastest by trials of its own now"]);
        assert_eq!(said(&timed, &fixed), ["device: kernels: timed then, fixed now"]);
        let mut convolves = manifest("fixed");
        convolves.settings.set("vit.stem", Setting { value: json!("\"conv\""), origin: "default".into() });
        assert!(said(&convolves, &convolves)[0].starts_with("kernels: the fastest"));
    }
}
