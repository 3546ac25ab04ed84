//! `moue hog` as a user runs it: the tensors against the golden file and the reference, the files it writes, what it refuses.

#![cfg(feature = "train")]

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use moue::kernels::reference::hog::{self, Layout};
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const GOLDEN: &[u8] = include_bytes!("golden/hog.safetensors");

fn moue(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moue")).current_dir(folder).arg("hog").args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must work; its standard output.
fn done(folder: &Path, args: &[&str]) -> String {
    let output = moue(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must end with `code` and one line; that line.
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = moue(folder, args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{args:?}: {said}");
    said
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Shape and values of a float tensor in a file.
fn tensor(bytes: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32);
    (tensor.shape().to_vec(), tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// Largest difference; a reference that is not finite is no reference.
fn worst(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    assert!(reference.iter().all(|v| v.is_finite()));
    ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mix = |k: u32| ((x * 7919 + y * 104_729 + k * 31 + x * y * 13).wrapping_mul(2_654_435_761) >> 21) as u8;
        Rgb([mix(1), mix(2), mix(3)])
    })
}

#[test]
fn the_golden_pictures_give_the_golden_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let mut compared = 0;
    for key in golden.names() {
        let Some(name) = key.strip_suffix(".input_u8") else { continue };
        let input = golden.tensor(key).unwrap();
        let [channels, height, width] = input.shape()[..] else { panic!("{key}: {:?}", input.shape()) };
        let value = |c: usize, x: u32, y: u32| input.data()[(c * height + y as usize) * width + x as usize];
        let file = folder.path().join(format!("{name}.png"));
        if channels == 1 {
            GrayImage::from_fn(width as u32, height as u32, |x, y| Luma([value(0, x, y)])).save(&file).unwrap();
        } else {
            RgbImage::from_fn(width as u32, height as u32, |x, y| Rgb([0, 1, 2].map(|c| value(c, x, y)))).save(&file).unwrap();
        }
        for (window, word) in [(0, "off"), (16, "16")] {
            done(folder.path(), &[&format!("{name}.png"), "--window", word, "--safetensors", "out.safetensors"]);
            let bytes = fs::read(folder.path().join("out.safetensors")).unwrap();
            let (shape, cells) = tensor(&bytes, "cells");
            assert_eq!(shape, [channels, 9, height / 8, width / 8], "{name}");
            let error = worst(&cells, &tensor(GOLDEN, &format!("{name}.cells.w{window}")).1);
            assert!(error <= 2e-6, "{name} window {word}: {error}");
            compared += 1;
            let key = format!("{name}.tokens.w{window}");
            if golden.tensor(&key).is_ok() {
                let (shape, tokens) = tensor(&bytes, "tokens");
                assert_eq!(shape, [height / 16 * (width / 16), 108], "{name}");
                let error = worst(&tokens, &tensor(GOLDEN, &key).1);
                assert!(error <= 2e-6, "{name} tokens: {error}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 7 * 2 + 6);
}

#[test]
fn sides_that_are_no_multiples_lose_their_rest() {
    let folder = tempfile::tempdir().unwrap();
    let picture = noise(45, 39);
    picture.save(folder.path().join("face.png")).unwrap();
    let said = done(folder.path(), &["face.png", "--safetensors", "face.st", "--png", "face.hog.png"]);
    let line = "face.png: 45 x 39 RGB, cells 3 x 9 x 4 x 5, tokens 4 x 108, 0.0 % empty, mean norm 3.464";
    assert!(said.starts_with(line), "{said}");
    let bytes = fs::read(folder.path().join("face.st")).unwrap();
    let layout = Layout { width: 45, height: 39, channels: 3, cell: 8, window: 0 };
    let cells = hog::cells(picture.as_raw(), layout);
    assert_eq!(tensor(&bytes, "cells"), (vec![3, 9, 4, 5], cells.clone()));
    assert_eq!(tensor(&bytes, "tokens"), (vec![4, 108], hog::tokens(&cells, layout, 16)));
    // Patches from the left and the top: the value of channel 2, bin 7, lower right cell of the last patch.
    let at = |row: usize, column: usize| cells[((2 * 9 + 7) * 4 + row) * 5 + column];
    assert_eq!(tensor(&bytes, "tokens").1[3 * 108 + ((2 * 9 + 7) * 2 + 1) * 2 + 1], at(3, 3));
    let page = image::open(folder.path().join("face.hog.png")).unwrap().to_rgb8();
    assert_eq!(page.dimensions(), (450, 390));
    assert!(said.contains("face.hog.png: 450 x 390 pixels"), "{said}");
    // The metadata say how it was made, and the same command gives the same bytes.
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let about: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["moue"]).unwrap();
    assert_eq!((&about["image"], &about["width"], &about["patch"]), (&"face.png".into(), &45.into(), &16.into()));
    done(folder.path(), &["face.png", "--safetensors", "again.st"]);
    assert!(fs::read(folder.path().join("again.st")).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["again.st", "face.hog.png", "face.png", "face.st"]);
}

#[test]
fn cells_without_a_patch_and_other_geometries() {
    let folder = tempfile::tempdir().unwrap();
    noise(12, 30).save(folder.path().join("narrow.png")).unwrap();
    assert!(done(folder.path(), &["narrow.png", "--safetensors", "a.st"]).contains("cells 3 x 9 x 3 x 1, tokens 0 x 108, 0.0 % empty\n"));
    let bytes = fs::read(folder.path().join("a.st")).unwrap();
    assert_eq!(tensor(&bytes, "tokens"), (vec![0, 108], vec![]));
    assert!(done(folder.path(), &["narrow.png", "--cell", "4", "--patch", "12"]).contains("cells 3 x 9 x 7 x 3, tokens 2 x 243"));
    // A single pixel has no gradient.
    GrayImage::new(1, 1).save(folder.path().join("dot.png")).unwrap();
    assert!(
        done(folder.path(), &["dot.png", "--cell", "1", "--patch", "1"])
            .contains("1 x 1 gray, cells 1 x 9 x 1 x 1, tokens 1 x 9, 100.0 % empty")
    );
}

#[test]
fn pictures_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let picture = noise(32, 32);
    picture.save(at("rgb.png")).unwrap();
    DynamicImage::from(picture.clone()).to_luma8().save(at("gray.png")).unwrap();
    // Transparency hides nothing: the colours are those of the file.
    RgbaImage::from_fn(32, 32, |x, y| {
        let Rgb([r, g, b]) = *picture.get_pixel(x, y);
        Rgba([r, g, b, (x * 8) as u8])
    })
    .save(at("clear.png"))
    .unwrap();
    let values = |name: &str| {
        done(folder.path(), &[name, "--safetensors", "out.st"]);
        tensor(&fs::read(at("out.st")).unwrap(), "cells")
    };
    assert_eq!(values("gray.png").0, [1, 9, 4, 4]);
    assert_eq!(values("clear.png"), values("rgb.png"));
    // The content decides what a file is, not its name.
    picture.save_with_format(at("misnamed.jpg"), ImageFormat::Bmp).unwrap();
    assert_eq!(values("misnamed.jpg"), values("rgb.png"));

    DynamicImage::from(picture.clone()).to_rgb16().save(at("deep.png")).unwrap();
    let said = refused(folder.path(), &["deep.png"], 2);
    assert!(said.contains("deep.png") && said.contains("16 bits") && said.contains("as they are"), "{said}");
    let mut jpeg = std::io::Cursor::new(Vec::new());
    DynamicImage::from(picture).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    fs::write(at("face.jpg"), jpeg.get_ref()).unwrap();
    assert!(done(folder.path(), &["face.jpg"]).contains("32 x 32 RGB"));
}

#[test]
fn what_cannot_be_described_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    noise(20, 7).save(at("low.png")).unwrap();
    fs::write(at("letter.png"), "no picture at all").unwrap();
    noise(32, 32).save(at("face.png")).unwrap();
    let whole = fs::read(at("face.png")).unwrap();
    fs::write(at("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let before = names(folder.path());

    let said = refused(folder.path(), &["low.png", "--png", "out.png", "--safetensors", "out.st"], 2);
    assert!(said.contains("low.png: 20 x 7 pixels") && said.contains("8 x 8"), "{said}");
    for broken in ["letter.png", "cut.png"] {
        let said = refused(folder.path(), &[broken, "--png", "out.png", "--safetensors", "new/"], 1);
        assert!(said.contains(broken), "{said}");
    }
    let usage: [(&[&str], &str); 13] = [
        (&["nowhere.png"], "nowhere.png"),
        (&["."], "is a folder"),
        (&["face.png", "--cell", "6"], "must divide"),
        (&["face.png", "--device", "vulkan:99"], "there is no such adapter"),
        (&["face.png", "--png", "no/such.png"], "there is no folder no"),
        (&["face.png", "--png", "no/such/"], "there is no folder no"),
        (&["face.png", "--png", "low.png/"], "it is a file"),
        (&["face.png", "--png", "face.png"], "overwrite"),
        (&["face.png", "--png", "./face.png"], "overwrite"),
        (&["face.png", "low.png", "--safetensors", "low.png"], "one file for 2 pictures"),
        (&["face.png", "low.png", "--png", "all.png"], "name a folder"),
        (&["face.png", "./face.png", "--png", "new/"], "both be written to new/face.hog.png"),
        (&["face.png", "--png", "out", "--safetensors", "out"], "both write out"),
    ];
    for (args, part) in usage {
        let said = refused(folder.path(), args, 2);
        assert!(said.contains(part), "{args:?}: {said}");
    }
    for args in [&["face.png", "--window", "8"][..], &["face.png", "--cell", "0"], &["face.png", "--device", "cuda"], &[]] {
        assert_eq!(moue(folder.path(), args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(names(folder.path()), before);
}

#[test]
fn several_pictures_go_into_folders() {
    let folder = tempfile::tempdir().unwrap();
    noise(32, 32).save(folder.path().join("a.png")).unwrap();
    noise(48, 32).save(folder.path().join("b.v2.png")).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    let said = done(folder.path(), &["a.png", "b.v2.png", "--png", "strokes/", "--safetensors", "data"]);
    assert_eq!(said.lines().count(), 6, "{said}");
    assert_eq!(names(&folder.path().join("strokes")), ["a.hog.png", "b.v2.hog.png"]);
    assert_eq!(names(&folder.path().join("data")), ["a.hog.safetensors", "b.v2.hog.safetensors"]);
    // One picture into a folder is named by the same rule; both kinds may share one.
    done(folder.path(), &["a.png", "--png", ".", "--safetensors", "."]);
    assert_eq!(names(folder.path()), ["a.hog.png", "a.hog.safetensors", "a.png", "b.v2.png", "data", "strokes"]);
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("a.hog.png") == read("strokes/a.hog.png") && read("a.hog.safetensors") == read("data/a.hog.safetensors"));
}

#[test]
fn a_vertical_edge_is_drawn_as_an_upright_stroke() {
    let folder = tempfile::tempdir().unwrap();
    GrayImage::from_fn(32, 32, |x, _| Luma([if x < 12 { 30 } else { 90 }])).save(folder.path().join("edge.png")).unwrap();
    done(folder.path(), &["edge.png", "--png", "out.png"]);
    let page = image::open(folder.path().join("out.png")).unwrap().to_rgb8();
    assert_eq!(page.dimensions(), (448, 448));
    // Strokes in the second column of cells only, far brighter than the dimmed picture: a few pixels wide, nearly the cell's height.
    let bright: Vec<(u32, u32)> = page.enumerate_pixels().filter(|(_, _, p)| p.0[0] > 200).map(|(x, y, _)| (x, y)).collect();
    assert!(bright.iter().all(|&(x, _)| (163..173).contains(&x)), "{bright:?}");
    let rows = |from: u32| bright.iter().filter(|&&(x, y)| x == 168 && (from..from + 112).contains(&y)).count();
    assert!((0..4).all(|cell| rows(112 * cell) >= 100), "{bright:?}");
}
