//! Weights in and out: what timm, MAE, SlowFast and transformers write becomes an encoder with the same features, and what moue writes is
//! loaded by them without a missing key.
//!
//! Where `python3` has torch, safetensors and timm (or transformers), `tests/parity/exchange.py` makes networks with random weights there;
//! without them those tests say so and do nothing, unless `MOUE_NEEDS_TIMM` is set. `--ignored` runs the same on a whole ViT-B/16.
#![cfg(feature = "train")]

mod bench;

use bench::{Bench, train};
use burn::prelude::*;
use moue::config::{Normalize, Settings};
use moue::dataset::Pixels;
use moue::engine::read_values;
use moue::model::init::Init;
use moue::model::{Encoder, Input, Noise, Vit};
use moue::random::Streams;
use moue::weights::parameters::{Branch, read_parameters};
use moue::weights::{Card, Layout, Report, TensorFile, export, file, import};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn encoder(s: &Settings, seed: u64) -> Vit {
    Vit::new(&Init { streams: Streams::new(seed), device: &Device::flex() }, s)
}

fn features(vit: &Vit, s: &Settings, faces: Vec<Pixels>) -> Vec<f32> {
    let input = Input::of(s);
    let faces = input.upload(&input.whole(faces), &Device::flex());
    read_values(vit.forward(faces.patches(), 0.0, &mut Noise::none())).unwrap()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(b.iter().any(|v| v.abs() > 0.1), "nothing to compare with");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

fn tiny() -> Settings {
    let mut s = Settings::default();
    (s.data.size, s.data.normalize) = (32, Normalize::Half);
    (s.vit.patch, s.vit.dim, s.vit.depth, s.vit.heads, s.hog.cell, s.decoder.heads) = (8, 24, 2, 3, 8, 3);
    s
}

fn settings_of(case: &Value) -> Settings {
    let mut s = tiny();
    let number = |name: &str| case[name].as_u64().unwrap() as usize;
    (s.data.size, s.data.channels, s.vit.patch) = (number("size"), number("channels"), number("patch"));
    (s.vit.dim, s.vit.depth, s.vit.heads) = (number("dim"), number("depth"), number("heads"));
    s.vit.cls = case["cls"].as_bool().unwrap();
    s
}

fn case(from: &str, channels: usize, cls: bool) -> Value {
    json!({"from": from, "size": 32, "patch": 8, "channels": channels, "dim": 24, "depth": 2, "heads": 3, "cls": cls})
}

/// Runs the Python side; false, with the reason, where it cannot be.
fn python(verb: &str, folder: &Path, case: &Value) -> bool {
    let wanted = if case["from"] == "hf" { "transformers" } else { "timm" };
    let check = Command::new("python3").args(["-c", &format!("import torch, safetensors.torch, {wanted}")]).output();
    let missing = match check {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or("no reason given").to_string()),
        Err(e) => Some(format!("python3: {e}")),
    };
    if let Some(reason) = missing {
        assert!(std::env::var_os("MOUE_NEEDS_TIMM").is_none(), "MOUE_NEEDS_TIMM is set, but python3 cannot: {reason}");
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: exchange of weights needs python3 with torch, safetensors and {wanted} ({reason})");
        return false;
    }
    std::fs::write(folder.join("case.json"), case.to_string()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/exchange.py");
    let output = Command::new("python3").arg(script).arg(verb).arg(folder).output().unwrap();
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A network of theirs through both kinds of file, and ours back to them.
fn exchanged(case: &Value, files: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    if !python("make", folder.path(), case) {
        return;
    }
    let s = settings_of(case);
    let bytes = std::fs::read(folder.path().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let (side, channels) = (s.data.size, s.data.channels);
    let pixels = expected.tensor("pixels").unwrap().data().to_vec();
    let faces: Vec<Pixels> = pixels.chunks(side * side * channels).map(|face| Pixels::new(side, side, channels, face.to_vec())).collect();
    let floats = |tensor: &[u8]| tensor.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
    let theirs = floats(expected.tensor("features").unwrap().data());
    for file in files {
        let source = TensorFile::open(&folder.path().join(file)).unwrap();
        let (vit, report) = import(&source, encoder(&s, 1), &s).unwrap();
        report.check(false).unwrap();
        assert_eq!((report.share, &report.missing[..], &report.misfits[..]), (1.0, &[][..], &[][..]), "{report:?}");
        let off = farthest(&features(&vit, &s, faces.clone()), &theirs);
        println!("{} {file}: features off by {off:.1e} ({})", case["from"], report.family);
        assert!(off < 1e-4, "{case} {file}: features are off by {off}");
        // A planted fault must be seen.
        let mut wrong = s.clone();
        wrong.data.normalize = Normalize::Imagenet;
        assert!(farthest(&features(&vit, &wrong, faces.clone()), &theirs) > 1e-2, "another normalisation goes unseen");

        let layout = if case["from"] == "hf" { Layout::Hf } else { Layout::Timm };
        let out = folder.path().join("exported.safetensors");
        file::write(&out, &export::export(&Branch { encoder: Encoder::from(vit) }, layout, &s).unwrap(), &card(layout)).unwrap();
        assert!(python("load", folder.path(), case));
        let bytes = std::fs::read(folder.path().join("loaded.safetensors")).unwrap();
        let loaded = floats(SafeTensors::deserialize(&bytes).unwrap().tensor("features").unwrap().data());
        assert_eq!(loaded, theirs, "our export computes something else there");
    }
}

fn card(layout: Layout) -> Card {
    Card { layout, ..Card::imported("a test", &moue::config::Resolved::default()) }
}

#[test]
fn timm_gives_and_takes() {
    exchanged(&case("timm", 3, true), &["network.safetensors", "network.pth"]);
    exchanged(&case("timm", 1, false), &["network.safetensors"]);
}

#[test]
fn pretraining_checkpoints_of_mae_and_maskfeat_are_found() {
    for from in ["mae", "maskfeat"] {
        exchanged(&case(from, 3, true), &["network.pth"]);
    }
}

#[test]
fn transformers_gives_and_takes() {
    exchanged(&case("hf", 3, true), &["network.safetensors", "network.pth"]);
}

#[test]
fn a_whole_vit_b_16_of_timm() {
    let case = json!({"from": "timm", "name": "vit_base_patch16_224", "size": 224, "patch": 16, "channels": 3, "dim": 768, "depth": 12,
                      "heads": 12, "cls": true});
    exchanged(&case, &["network.safetensors"]);
}

/// The encoder `vit` as a file of a layout, imported under `s`.
fn through(vit: Vit, written: &Settings, layout: Layout, s: &Settings) -> (Vit, Report) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    file::write(&path, &export::export(&Branch { encoder: Encoder::from(vit) }, layout, written).unwrap(), &card(layout)).unwrap();
    import(&TensorFile::open(&path).unwrap(), encoder(s, 2), s).unwrap()
}

#[test]
fn every_layout_goes_there_and_back() {
    let s = tiny();
    for layout in Layout::ALL {
        let (back, report) = through(encoder(&s, 1), &s, layout, &s);
        report.check(false).unwrap();
        assert_eq!(read_parameters(&back).unwrap(), read_parameters(&encoder(&s, 1)).unwrap(), "{layout:?}");
        assert!(report.beside.is_empty() && report.foreign.is_empty() && report.outside == 0, "{report:?}");
    }
}

#[test]
fn grids_channels_and_class_tokens_are_adapted_and_told() {
    let s = tiny();
    let mut other = s.clone();
    (other.data.size, other.data.channels) = (48, 1);
    let (vit, report) = through(encoder(&s, 1), &s, Layout::Timm, &other);
    report.check(false).unwrap();
    let told = report.notes.join("\n");
    assert!(told.contains("from 4 x 4 to 6 x 6 (bicubic, antialiased)") && told.contains("summed into one"), "{told}");
    let parameter = |vit: &Vit, path: &str| read_parameters(vit).unwrap().into_iter().find(|p| p.path == path).unwrap();
    let (ours, theirs) = (parameter(&vit, "pos_embed"), parameter(&encoder(&s, 1), "pos_embed"));
    assert_eq!((ours.shape, &ours.values[..24]), (vec![1, 37, 24], &theirs.values[..24]));

    // A gray face is seen as the same face in three equal channels is.
    let (gray, _) =
        through(encoder(&s, 1), &s, Layout::Timm, &Settings { data: moue::config::Data { channels: 1, ..s.data.clone() }, ..s.clone() });
    let face: Vec<u8> = (0..32 * 32).map(|i| (i * 7 % 251) as u8).collect();
    let colour = face.iter().flat_map(|&v| [v; 3]).collect();
    let gray_settings = Settings { data: moue::config::Data { channels: 1, ..s.data.clone() }, ..s.clone() };
    let off = farthest(
        &features(&gray, &gray_settings, vec![Pixels::new(32, 32, 1, face)]),
        &features(&encoder(&s, 1), &s, vec![Pixels::new(32, 32, 3, colour)]),
    );
    assert!(off < 1e-5, "{off}");

    let mut without = s.clone();
    without.vit.cls = false;
    let (_, report) = through(encoder(&s, 1), &s, Layout::Timm, &without);
    report.check(false).unwrap();
    assert!(report.notes.iter().any(|n| n.contains("class token is left out")), "{report:?}");
}

#[test]
fn what_computes_something_else_is_refused() {
    let s = tiny();
    let refused = |written: &Settings, s: &Settings, words: &[&str]| {
        let (_, report) = through(encoder(written, 1), written, Layout::Timm, s);
        let error = report.check(false).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "no `{word}` in {error}"));
        report.check(true).unwrap();
    };
    let changed = |change: fn(&mut Settings)| {
        let mut changed = s.clone();
        change(&mut changed);
        changed
    };
    let deeper = changed(|s| s.vit.depth = 3);
    refused(&deeper, &s, &["encoder of another kind", "blocks.2."]);
    refused(&s, &deeper, &["95 %"]);
    refused(&s, &changed(|s| s.vit.mlp_ratio = 2.0), &["other shapes", "mlp.fc1"]);
    refused(&s, &changed(|s| s.vit.activation = moue::config::Activation::Relu), &["gelu"]);

    // Layer scale changes the function, a head does not.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut tensors = export::export(&Branch { encoder: Encoder::from(encoder(&s, 1)) }, Layout::Timm, &s).unwrap();
    let mut add = |name: &str, shape: Vec<usize>| {
        tensors.push(file::Named { name: name.into(), values: vec![0.5; shape.iter().product()], shape });
        file::write(&path, &tensors, &card(Layout::Timm)).unwrap();
        import(&TensorFile::open(&path).unwrap(), encoder(&s, 2), &s).unwrap().1
    };
    let report = add("head.weight", vec![5, 24]);
    assert_eq!(report.beside, ["head.weight"]);
    report.check(false).unwrap();
    let report = add("blocks.0.ls1.gamma", vec![24]);
    assert!(report.check(false).unwrap_err().to_string().contains("blocks.0.ls1.gamma"));
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let s = tiny();
    file::write(&path, &export::export(&Branch { encoder: Encoder::from(encoder(&s, 1)) }, Layout::Moue, &s).unwrap(), &card(Layout::Moue))
        .unwrap();
    let whole = std::fs::read(&path).unwrap();
    let opened = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        TensorFile::open(&path).map(|f| f.shapes().len()).map_err(|e| format!("{e:#}"))
    };
    assert!(opened(&whole).unwrap() > 10);
    for cut in [0, 5, 9, 300, whole.len() / 2, whole.len() - 1] {
        let error = opened(&whole[..cut]).unwrap_err();
        assert!(error.contains("no file of weights"), "{error}");
    }
    // A header that claims more than there is must not cost memory.
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(opened(&huge).unwrap_err().contains("longer than"));
    assert!(opened(b"hello, world, this is a text").unwrap_err().contains("neither safetensors nor a PyTorch checkpoint"));
    // Pickles are data: this one would run a command where pickles are executed. It only names a thing without a meaning.
    let mark = folder.path().join("executed");
    let command = format!("touch {}", mark.display());
    let mut reduce = b"\x80\x02cposix\nsystem\nX".to_vec();
    reduce.extend((command.len() as u32).to_le_bytes());
    reduce.extend(command.as_bytes());
    reduce.extend(b"\x85R.");
    assert!(opened(&reduce).is_err());
    assert!(!mark.exists());
}

/// A pack like `from` under another order of classes.
fn reordered(bench: &Bench, from: &str, to: &str) {
    let pack = moue::dataset::Pack::open(&bench.path(from)).unwrap();
    let mut protocol = pack.protocol().clone();
    protocol.classes.swap(0, 1);
    let mut writer = moue::dataset::PackWriter::create(&bench.path(to), protocol).unwrap();
    for (i, face) in pack.faces().iter().enumerate() {
        writer.push(face.clone(), &pack.pixels(i).unwrap()).unwrap();
    }
    writer.finish(Value::Null).unwrap();
}

#[test]
fn a_run_goes_out_and_another_starts_from_it() {
    let bench = Bench::new();
    bench.done(&train(&["finetune", "--data", "f.moue", "--out", "run"], &["finetune.baseline=false"]));
    let said = bench.done(&["export", "run", "--out", "w.safetensors"]);
    let file = TensorFile::open(&bench.path("w.safetensors")).unwrap();
    let (card, protocol) = (file.card().unwrap(), moue::dataset::generated::protocol());
    assert_eq!((&card.classes, card.protocol.as_ref()), (&protocol.classes, Some(&protocol)));
    assert!(card.calibration.is_some_and(|c| c.faces == 32), "{card:?}");
    assert!(said.contains(&protocol.classes.join(", ")), "{said}");
    // The same bytes again, also from the weights file itself; nothing is overwritten.
    for (from, to) in [("run", "again.safetensors"), ("w.safetensors", "third.safetensors")] {
        bench.done(&["export", from, "--out", to]);
        assert!(std::fs::read(bench.path("w.safetensors")).unwrap() == std::fs::read(bench.path(to)).unwrap(), "{to}");
    }
    bench.refused(&["export", "run", "--out", "w.safetensors"], 2, &["exists"]);

    // Another class order is refused with both shown, wherever labels could be mistaken for others.
    let mut swapped = protocol.classes.clone();
    swapped.swap(0, 1);
    let (ours, other) = (protocol.classes.join(", "), swapped.join(", "));
    let orders = [ours.as_str(), other.as_str()];
    reordered(&bench, "f.moue", "other.moue");
    bench.refused(&["evaluate", "run", "--data", "other.moue", "--device", "cpu"], 2, &orders);
    bench.refused(&["export", "run", "--out", "x.safetensors", "--classes", &swapped.join(",")], 2, &orders);
    let from = |data: &'static str, out: &'static str| {
        train(&["finetune", "--data", data, "--from", "w.safetensors", "--out", out], &["finetune.baseline=false"])
    };
    bench.refused(&from("other.moue", "no"), 2, &orders);
    assert!(!bench.path("no").exists());

    // The whole network goes on: head and all.
    bench.done(&from("f.moue", "more"));
    bench.done(&["export", "more", "--out", "more.safetensors"]);
    let first = |name: &str| TensorFile::open(&bench.path(name)).unwrap().read("head.decoder.queries").unwrap();
    let moved = first("w.safetensors").iter().zip(first("more.safetensors")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(moved > 0.0 && moved < 0.5, "queries moved by {moved}");

    // Under others' names only the encoder; what comes back from there starts a training of the same network.
    bench.done(&["export", "run", "--layout", "timm", "--out", "t.safetensors"]);
    bench.refused(&["predict", "t.safetensors", "f.moue", "--device", "cpu"], 2, &["import-weights"]);
    bench.refused(&["finetune", "--data", "f.moue", "--from", "t.safetensors", "--out", "no"], 2, &["import-weights"]);
    let listed = bench.done(&["import-weights", "t.safetensors", "--out", "e.safetensors"]);
    assert!(listed.contains("100.0 % of the encoder's values") && listed.contains("blocks.*.attn.qkv.weight"), "{listed}");
    assert!(listed.contains(&format!("finetune/pll after step 6; {ours}")), "{listed}");
    bench.refused(&["predict", "e.safetensors", "f.moue", "--device", "cpu"], 2, &["holds an encoder"]);
    bench.done(&train(
        &["finetune", "--data", "f.moue", "--from", "e.safetensors", "--out", "third"],
        &["finetune.baseline=false", "finetune.epochs=1"],
    ));
    bench.refused(
        &train(&["finetune", "--data", "f.moue", "--from", "e.safetensors", "--out", "no"], &["vit.depth=2"]),
        2,
        &["vit.depth (1 there, 2 here)"],
    );
    bench.refused(
        &["import-weights", "t.safetensors", "--set", "vit.dim=24", "--out", "no.safetensors"],
        2,
        &["other shapes", "--partial"],
    );
    assert!(!bench.path("no.safetensors").exists());
}
