//! Damaged checkpoints and weights, all the way into a network.

#[path = "../bench/mod.rs"]
mod bench;

use crate::mutate::mutated;
use crate::tried;
use bench::{Bench, train};
use burn::prelude::Device;
use moue::failure::one_line;
use moue::pipeline::load::{classifier, trained};
use moue::run::RunFolder;
use moue::run::checkpoint::{self, Checkpoint, State};
use std::fs;

/// Mutations of each part of a checkpoint, and of a file of weights.
const MUTATIONS: u64 = 500;

/// A network that was trained, and its checkpoint.
fn trained_run() -> (Bench, Checkpoint) {
    let bench = Bench::with_faces("64", "32");
    bench.done(&train(&["finetune", "--data", "f.moue", "--out", "run"], &["finetune.epochs=1", "finetune.baseline=false"]));
    let folder = RunFolder::open(&bench.path("run")).unwrap();
    let (_, checkpoint) = checkpoint::newest(&folder, "finetune/pll", |w| panic!("{w}")).unwrap().unwrap();
    (bench, checkpoint)
}

#[test]
fn no_checkpoint_breaks_the_network_that_it_is_loaded_into() {
    let (_bench, whole) = trained_run();
    assert!(classifier(&whole, "it", &Device::flex()).is_ok());
    let model = whole.blobs.iter().position(|blob| blob.0 == "model.bpk").unwrap();
    let state = serde_json::to_vec(&whole.state).unwrap();
    let mut loaded = 0;
    for number in 0..MUTATIONS {
        // Behind the checksums of the archive.
        let mut damaged = Checkpoint { state: whole.state.clone(), blobs: whole.blobs.clone() };
        damaged.blobs[model].1 = mutated("model.bpk", number, &whole.blobs[model].1, &[]);
        tried(&format!("model.bpk, mutation {number}"), || loaded += u64::from(classifier(&damaged, "it", &Device::flex()).is_ok()));
        if let Ok(state) = serde_json::from_slice(&mutated("state", number, &state, &[])) {
            let damaged = Checkpoint { state, blobs: whole.blobs.clone() };
            tried(&format!("state.json, mutation {number}"), || drop(classifier(&damaged, "it", &Device::flex())));
        }
    }
    // There are as many class names as outputs, or there is no network.
    let names = &whole.state.classes;
    for classes in [names[1..].to_vec(), [&names[..], &["another".to_string()]].concat()] {
        let says = format!("a network of {} classes", classes.len());
        let damaged = Checkpoint { state: State { classes, ..whole.state.clone() }, blobs: whole.blobs.clone() };
        let error = tried(&says, || classifier(&damaged, "it", &Device::flex())).err().map(|error| one_line(&error)).unwrap_or_default();
        assert!(error.contains(&says) && error.contains("do not fit"), "{error}");
    }
    // Most damage is in values, which mean nothing to a checksum here, or in what nobody reads.
    assert!((1..MUTATIONS).contains(&loaded), "{loaded} loaded");
}

#[test]
fn a_network_larger_than_its_file_is_not_made() {
    let (_bench, whole) = trained_run();
    for (key, value) in
        [("vit.dim", "8192"), ("vit.depth", "256"), ("decoder.layers", "200"), ("vit.mlp_ratio", "64.0"), ("vit.patch", "1")]
    {
        let mut damaged = Checkpoint { state: whole.state.clone(), blobs: whole.blobs.clone() };
        damaged.state.settings.iter_mut().filter(|(k, _)| k == key).for_each(|(_, v)| *v = value.into());
        let error = tried(key, || classifier(&damaged, "it", &Device::flex())).err().unwrap_or_else(|| panic!("{key}: loaded"));
        println!("{key}: {}", one_line(&error));
    }
    let mut damaged = Checkpoint { state: whole.state.clone(), blobs: whole.blobs.clone() };
    damaged.state.classes = (0..1_000_000).map(|i| i.to_string()).collect();
    assert!(tried("a million classes", || classifier(&damaged, "it", &Device::flex())).is_err());
}

#[test]
fn no_weights_break_the_network_that_they_are_loaded_into() {
    let (bench, _) = trained_run();
    bench.done(&["export", "run", "--out", "w.safetensors"]);
    let (bytes, path) = (fs::read(bench.path("w.safetensors")).unwrap(), bench.path("damaged.safetensors"));
    assert!(trained(&bench.path("w.safetensors"), None, &Device::flex()).is_ok());
    // Half of the damage goes to the header, which says what the network is.
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for number in 0..MUTATIONS {
        let damaged = if number % 2 == 0 {
            let text = mutated("header", number, &bytes[8..header], &[]);
            [&(text.len() as u64).to_le_bytes()[..], &text, &bytes[header..]].concat()
        } else {
            mutated("weights", number, &bytes, &[])
        };
        fs::write(&path, damaged).unwrap();
        tried(&format!("weights, mutation {number}"), || drop(trained(&path, None, &Device::flex())));
    }
}
