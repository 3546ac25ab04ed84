//! `moue devices` as a user meets it.
#![cfg(feature = "train")]

use serde_json::Value;
use std::process::{Command, Output};

fn devices(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).arg("devices").args(args).envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Hides every graphics driver of a Linux machine.
const NO_DRIVERS: [(&str, &str); 4] = [
    ("VK_DRIVER_FILES", "/nonexistent"),
    ("VK_ICD_FILENAMES", "/nonexistent"),
    ("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent"),
    ("LIBGL_DRIVERS_PATH", "/nonexistent"),
];

#[test]
#[cfg(target_os = "linux")]
fn without_a_driver_there_is_the_cpu() {
    let output = devices(&[], &NO_DRIVERS);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(out.starts_with("DEVICE") && out.lines().any(|line| line.starts_with("cpu ")), "{out}");
    assert!(out.contains("--device auto takes cpu: no graphics driver reports any adapter"), "{out}");

    let json: Value = serde_json::from_slice(&devices(&["--json"], &NO_DRIVERS).stdout).unwrap();
    assert_eq!(json["adapters"], Value::Array(vec![]));
    assert_eq!(json["auto"]["device"], "cpu");
    assert!(json["cpu"]["cores"].as_u64().is_some_and(|cores| cores > 0));
}

#[test]
fn every_adapter_is_told_in_full() {
    let output = devices(&["--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let adapters = json["adapters"].as_array().unwrap();
    for adapter in adapters {
        for key in ["api", "index", "name", "kind", "driver", "driver_version", "compiler", "f16", "matrices", "largest_buffer", "memory"] {
            assert!(adapter.get(key).is_some(), "{key} is missing in {adapter}");
        }
        assert!(["SPIR-V", "MSL", "WGSL"].iter().any(|compiler| adapter["compiler"] == *compiler), "{adapter}");
    }
    let vulkan = adapters.iter().any(|a| a["api"] == "Vulkan");
    assert!(vulkan || std::env::var_os("MOUE_NEEDS_VULKAN").is_none(), "MOUE_NEEDS_VULKAN is set and no Vulkan adapter is listed");
    if vulkan {
        assert!(text(&devices(&[], &[]).stdout).contains("vulkan:0 "));
    }
    // Software is never taken by itself.
    let auto = json["auto"]["device"].as_str().unwrap();
    if adapters.iter().all(|a| a["kind"] == "cpu") {
        assert_eq!(auto, "cpu");
    }
}
