//! `moue predict` as a user runs it: any picture, folders with other files among them, standard input, lists, landmarks, calibration, and the
//! picture of where queries look.
#![cfg(feature = "train")]

mod bench;

use bench::{Bench, text, train};
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use image::{DynamicImage, GrayImage, Luma, RgbaImage};
use moue::transform::align::TEMPLATE_112;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

const CMYK: &[u8] = include_bytes!("golden/cmyk.jpg");

/// A bench with a finetuned run, `run`, and pictures in `faces/`.
fn prepared() -> Bench {
    let bench = Bench::new();
    bench.done(&train(&["finetune", "--data", "f.moue", "--out", "run"], &["finetune.baseline=false", "run.keep_every=1"]));
    fs::create_dir_all(bench.path("faces/deeper")).unwrap();
    let gray = |w: u32, h: u32| GrayImage::from_fn(w, h, |x, y| Luma([((x * 7 + y * 13) % 256) as u8]));
    gray(40, 30).save(bench.path("faces/a.png")).unwrap();
    gray(1, 1).save(bench.path("faces/b-one-pixel.png")).unwrap();
    fs::write(bench.path("faces/c.txt"), "these are not the faces you are looking for").unwrap();
    let deep = image::ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(40, 30, |x, y| Luma([((x * 7 + y * 13) % 256) as u16 * 257]));
    DynamicImage::from(deep).save(bench.path("faces/deeper/d-16-bit.png")).unwrap();
    fs::write(bench.path("faces/deeper/e-cmyk.jpg"), CMYK).unwrap();
    RgbaImage::from_pixel(9, 9, image::Rgba([200, 100, 50, 128])).save(bench.path("faces/deeper/f-alpha.png")).unwrap();
    bench
}

fn predict(bench: &Bench, args: &[&str]) -> Output {
    bench.moue(&[&["predict", "run", "--device", "cpu"], args].concat())
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A whole PNG file of one black field, a bit a pixel, however large: the rows are compressed as they come.
fn black_png(width: u32, height: u32) -> Vec<u8> {
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::fast());
    // A filter type before the pixels of each row.
    let row = vec![0; 1 + width.div_ceil(8) as usize];
    (0..height).for_each(|_| rows.write_all(&row).unwrap());
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", head), (b"IDAT", rows.finish().unwrap()), (b"IEND", vec![])] {
        let mut sum = Crc::new();
        sum.update(name);
        sum.update(&data);
        file.extend([&(data.len() as u32).to_be_bytes()[..], name, &data, &sum.sum().to_be_bytes()].concat());
    }
    file
}

/// The fixture's four planes, said to be YCCK by Adobe's transform.
fn ycck() -> Vec<u8> {
    let mut bytes = CMYK.to_vec();
    let transform = bytes.windows(5).position(|w| w == b"Adobe").unwrap() + 11;
    bytes[transform] = 2;
    bytes
}

#[test]
fn every_picture_is_recognised_and_everything_else_is_told() {
    let bench = prepared();
    let output = predict(&bench, &["faces", "--json", "--top", "8"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found = lines(&output);
    let names: Vec<&str> = found.iter().map(|l| l["file"].as_str().unwrap()).collect();
    let expected = ["a.png", "b-one-pixel.png", "deeper/d-16-bit.png", "deeper/e-cmyk.jpg", "deeper/f-alpha.png"];
    assert_eq!(names, expected.map(|n| format!("faces/{n}")));
    let said = text(&output.stderr);
    assert!(said.contains("skipped faces/c.txt") && said.contains("5 faces, 1 files skipped"), "{said}");
    let classes = moue::dataset::generated::protocol().classes;
    for line in &found {
        let probabilities = line["probabilities"].as_object().unwrap();
        assert!((probabilities.values().map(|p| p.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-6, "{line}");
        assert!(probabilities.keys().all(|class| classes.contains(class)) && probabilities.len() == classes.len());
    }
    // The same face in 8 and in 16 bits.
    assert_eq!(found[0]["probabilities"], found[2]["probabilities"]);
    // The temperature is the one that finetuning left, whatever the probabilities are.
    let kept: Value = serde_json::from_slice(&fs::read(bench.path("run/calibration.json")).unwrap()).unwrap();
    assert_eq!(found[0]["temperature"], kept["finetune/pll"]["temperature"]);
    assert!(kept["finetune/pll"]["loss"][1].as_f64() <= kept["finetune/pll"]["loss"][0].as_f64(), "{kept}");

    // The same from a weights file, from a list, and from the standard input.
    bench.done(&["export", "run", "--out", "w.safetensors"]);
    let weights = bench.moue(&["predict", "w.safetensors", "faces", "--json", "--top", "8", "--device", "cpu"]);
    assert_eq!(text(&weights.stdout), text(&output.stdout));
    fs::write(bench.path("list.txt"), "faces/a.png\n\nfaces/deeper/e-cmyk.jpg\n").unwrap();
    assert_eq!(lines(&predict(&bench, &["--list", "list.txt", "--json", "--top", "8"])), [found[0].clone(), found[3].clone()]);
    let mut child = bench
        .command(&["predict", "run", "-", "--json", "--top", "8", "--device", "cpu"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(bench.path("faces/a.png")).unwrap()).unwrap();
    let piped = lines(&child.wait_with_output().unwrap());
    assert_eq!((piped[0]["file"].as_str(), &piped[0]["probabilities"]), (Some("-"), &found[0]["probabilities"]));

    // A run from before there was a temperature gets one; a run whose pack is gone has none, and says so.
    fs::remove_file(bench.path("run/calibration.json")).unwrap();
    assert_eq!(lines(&predict(&bench, &["faces/a.png", "--json", "--top", "8"])), [found[0].clone()]);
    assert!(bench.path("run/calibration.json").exists());
    fs::remove_file(bench.path("run/calibration.json")).unwrap();
    fs::rename(bench.path("f.moue"), bench.path("kept.moue")).unwrap();
    let output = predict(&bench, &["faces/a.png", "--json"]);
    let said = text(&output.stderr);
    assert!(lines(&output)[0]["temperature"].is_null() && said.contains("not calibrated"), "{said}");
    assert!(said.contains("f.moue") && said.contains("made of pictures is not known"), "{said}");

    // A pack that was moved with its run is found there; another one in its place is not taken for it.
    let restore = || assert!(fs::copy(bench.path("kept.moue"), bench.path("run/f.moue")).is_ok());
    restore();
    let output = predict(&bench, &["faces/a.png", "--json", "--top", "8"]);
    assert_eq!((lines(&output), text(&output.stderr)), (vec![found[0].clone()], String::new()));
    let readers = [
        &["evaluate", "run", "--device", "cpu"][..],
        &["compare", "run", "run", "--device", "cpu"],
        &["predict", "run", "faces/a.png", "--device", "cpu"],
        &["export", "run", "--out", "x.safetensors"],
    ];
    let other = ["--train", "96", "--valid", "32", "--test", "32", "--size", "32", "--seed", "3"];
    bench.done(&[&["data", "generate", "--out", "run/f.moue"][..], &other].concat());
    readers.iter().for_each(|words| bench.refused(words, 2, &["f.moue was changed since the run was trained on it"]));
    bench.done(&[readers[0], &["--data", "run/f.moue"]].concat());
    restore();
    // Whoever reads a run says that its last checkpoint is damaged.
    fs::write(bench.path("run/checkpoints/finetune-pll-00000006.ckpt"), "torn").unwrap();
    for words in readers {
        let output = bench.moue(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
        assert!(said.contains("finetune-pll-00000006.ckpt") && said.contains("using the one before it"), "{words:?}: {said}");
    }
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_goes_on() {
    let bench = prepared();
    // A PNM header of 20,000 pixels a side costs no pixels: it must be refused before memory is taken.
    fs::write(bench.path("faces/huge.ppm"), "P6 20000 20000 255\n").unwrap();
    // A whole picture of as many, in a file of a few hundred kilobytes, and a line that is too long.
    fs::write(bench.path("faces/full.png"), black_png(20_000, 20_000)).unwrap();
    fs::write(bench.path("faces/line.png"), black_png(20_000, 1)).unwrap();
    // Odd, but pictures: as long as is allowed, and four colours of another kind.
    fs::write(bench.path("faces/long.png"), black_png(16_384, 1)).unwrap();
    fs::write(bench.path("faces/ycck.jpg"), ycck()).unwrap();
    let png = fs::read(bench.path("faces/a.png")).unwrap();
    fs::write(bench.path("faces/cut.png"), &png[..png.len() / 2]).unwrap();
    let output = predict(&bench, &["faces", "--json"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for name in ["huge.ppm", "full.png", "line.png"] {
        assert!(said.contains(&format!("faces/{name}: the picture is larger than 16384 pixels a side")), "{name}: {said}");
    }
    assert!(said.contains("faces/cut.png: damaged"), "{said}");
    assert!(said.ends_with("error: 4 of 11 pictures could not be read\n"), "{said}");
    let failed: Vec<_> = lines(&output).into_iter().filter(|l| l.get("error").is_some()).collect();
    assert_eq!((failed.len(), lines(&output).len()), (4, 11));
    for name in ["long.png", "ycck.jpg"] {
        assert!(lines(&output).iter().any(|l| l["file"] == format!("faces/{name}") && l["class"].is_string()), "{name}");
    }
    // A file that was named is asked to be a picture.
    let output = predict(&bench, &["faces/c.txt", "faces/a.png"]);
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 1));
    fs::create_dir(bench.path("empty")).unwrap();
    bench.refused(&["predict", "run", "empty", "--device", "cpu"], 2, &["no pictures found in empty"]);
    bench.refused(&["predict", "run", "nowhere.png", "--device", "cpu"], 2, &["nowhere.png: no such"]);
    bench.refused(&["predict", "run", "faces/a.png", "--device", "cpu", "--classes", "calm,happy"], 2, &["calm, happy", "neutral"]);
}

#[test]
fn queries_are_shown_where_they_look_and_landmarks_align() {
    let bench = prepared();
    let output = predict(&bench, &["faces", "--top", "3", "--explain", "looks.png"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = image::open(bench.path("looks.png")).unwrap().into_rgb8();
    // Five rows, a face and three panels in each.
    assert!(page.width() >= 4 * 160 && page.height() >= 5 * 160, "{:?}", page.dimensions());
    let coloured = page.pixels().filter(|p| p.0[0].abs_diff(p.0[2]) > 60).count();
    assert!(coloured > 2000, "{coloured} pixels of heat");

    // A face that is turned upside down, with landmarks, is the same as the aligned one.
    let upright = GrayImage::from_fn(112, 112, |x, y| Luma([((x * 2 + y) % 200) as u8]));
    let turned = image::imageops::rotate180(&upright);
    upright.save(bench.path("upright.png")).unwrap();
    turned.save(bench.path("turned.png")).unwrap();
    let points =
        |place: fn([f64; 2]) -> [f64; 2]| TEMPLATE_112.iter().flat_map(|p| place(*p)).map(|v| v.to_string()).collect::<Vec<_>>().join(",");
    let table = format!("upright.png,{}\nturned.png,{}\n", points(|p| p), points(|p| p.map(|v| 111.0 - v)));
    fs::write(bench.path("points.csv"), table).unwrap();
    let seen = |args: &[&str]| -> Vec<f64> {
        let output = predict(&bench, &[&["upright.png", "turned.png", "--json", "--top", "1"], args].concat());
        lines(&output).iter().map(|l| l["probabilities"].as_object().unwrap().values().next().unwrap().as_f64().unwrap()).collect()
    };
    let (aligned, plain) = (seen(&["--landmarks", "points.csv"]), seen(&[]));
    assert!((aligned[0] - aligned[1]).abs() < 1e-3, "{aligned:?}");
    assert!((plain[0] - plain[1]).abs() > (aligned[0] - aligned[1]).abs(), "{plain:?}");

    bench.done(&train(
        &["finetune", "--data", "f.moue", "--out", "pooled"],
        &["finetune.baseline=false", "decoder.enabled=false", "finetune.epochs=1"],
    ));
    bench.refused(&["predict", "pooled", "faces/a.png", "--device", "cpu", "--explain", "no.png"], 2, &["pooled head"]);
}
