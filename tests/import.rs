//! `moue import` as a user runs it: every supported layout is built in a temporary folder, imported by the real binary and read back,
//! and every kind of broken source ends in one line, the right exit code and no file.

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use moue::dataset::{Pack, Split};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self, format: &str, source: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_moue"))
            .args(["import", format])
            .arg(self.path(source))
            .arg("--out")
            .arg(self.path("out/p.moue"))
            .args(more)
            .output()
            .unwrap()
    }

    /// Imports, and returns the pack and what was printed.
    fn good(&self, format: &str, source: &str, more: &[&str]) -> (Pack, String) {
        let output = self.import(format, source, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pack = Pack::open(&self.path("out/p.moue")).unwrap();
        pack.verify().unwrap();
        (pack, String::from_utf8(output.stdout).unwrap())
    }

    /// Imports, expects failure with exit code `code` in one line that contains all of `words`, and nothing left behind.
    fn bad(&self, format: &str, source: &str, more: &[&str], code: i32, words: &[&str]) {
        let output = self.import(format, source, more);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 0, "something was left behind");
    }
}

fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gray(seed: u8) -> Vec<u8> {
    encode(GrayImage::from_fn(48, 48, |x, y| Luma([(x as u8).wrapping_mul(5) ^ (y as u8).wrapping_mul(3) ^ seed])), ImageFormat::Png)
}

fn color(width: u32, height: u32, seed: u8, format: ImageFormat) -> Vec<u8> {
    encode(RgbImage::from_fn(width, height, |x, y| Rgb([x as u8 ^ seed, y as u8, seed])), format)
}

const LABELS: &str = "fer0000000.png,\"(0, 0, 48, 48)\",6,0,0,1,3,0,0,0,0,0\nfer0000001.png,\"(0, 0, 48, 48)\",5,5,0,0,0,0,0,0,0,0\n";
const VALID: &str = "fer0028638.png,\"(0, 0, 48, 48)\",0,9,0,0,0,0,0,0,1,0\nfer0028639.png,\"(0, 0, 48, 48)\",0,0,0,0,0,0,0,0,9,0\n";

fn ferplus_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("FER2013Train/label.csv", LABELS.into()),
        ("FER2013Train/fer0000000.png", gray(1)),
        ("FER2013Train/fer0000001.png", gray(2)),
        ("FER2013Valid/label.csv", VALID.into()),
        ("FER2013Valid/fer0028638.png", gray(1)),
        ("FER2013Valid/fer0028639.png", gray(3)),
    ]
}

fn zipped(files: &[(&str, Vec<u8>)], prefix: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(format!("{prefix}{name}"), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn ferplus_folder_and_zip_give_the_same_faces() {
    let place = Place::new();
    for (name, bytes) in ferplus_files() {
        place.write(&format!("fer/{name}"), bytes);
    }
    place.write("fer.zip", zipped(&ferplus_files(), ""));
    place.write("deep.zip", zipped(&ferplus_files(), "FERPlus-master/data/"));
    let (folder, text) = place.good("ferplus", "fer", &[]);
    assert!(text.contains("valid -> train: 1 valid rows have a copy in train (1 train rows, 1 pairs)"), "{text}");
    assert!(text.contains("vote rule: no majority: train 1"), "{text}");
    assert!(text.contains(&format!("card ferplus-8 {}", folder.protocol().hash())), "{text}");
    let faces = folder.faces().to_vec();
    assert_eq!(
        faces.iter().map(|f| (f.id.as_str(), f.split, f.label)).collect::<Vec<_>>(),
        [("fer0000000.png", Split::Train, Some(0)), ("fer0028638.png", Split::Valid, Some(1))]
    );
    assert_eq!(faces[0].votes, [6, 0, 0, 1, 3, 0, 0, 0, 0, 0]);
    assert_eq!(folder.size(0), (48, 48, 1));
    assert_eq!(folder.provenance()["copies_before_rule"][0]["rows_from"], 1);
    assert_eq!(folder.provenance()["counts"]["neutral"]["train"], 1);
    for zip in ["fer.zip", "deep.zip"] {
        let (pack, _) = place.good("ferplus", zip, &[]);
        assert_eq!((pack.hash(), pack.faces()), (folder.hash(), &faces[..]), "{zip}");
    }
}

#[test]
fn ferplus_ambiguous_faces_and_copies() {
    let place = Place::new();
    place.write("fer.zip", zipped(&ferplus_files(), ""));
    let (pack, text) = place.good("ferplus", "fer.zip", &["--keep-ambiguous", "--drop-leaks"]);
    // The train face with a valid copy is gone, the ambiguous train face is here without a label, the valid one is not.
    let ids: Vec<_> = pack.faces().iter().map(|f| (f.id.as_str(), f.label)).collect();
    assert_eq!(ids, [("fer0000001.png", None), ("fer0028638.png", Some(1))]);
    assert!(text.contains("(--drop-leaks): train 1") && text.contains("(no label)"), "{text}");
    let (pack, _) = place.good("ferplus", "fer.zip", &["--rule", "argmax", "--size", "20"]);
    assert_eq!(pack.faces().iter().map(|f| f.label).collect::<Vec<_>>(), [Some(0), Some(0), Some(1)]);
    assert_eq!(pack.size(2), (20, 20, 1));
}

fn fer2013(rows: &[(&str, u8)]) -> String {
    let mut text = String::from("emotion,pixels,Usage\r\n");
    for (usage, value) in rows {
        let pixels = vec![value.to_string(); 48 * 48].join(" ");
        text.push_str(&format!("0,{pixels},{usage}\r\n"));
    }
    text
}

const NEW: &str = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,9,0,0,0,0,0,0,0,1,0
Training,,0,0,0,0,0,0,0,0,0,10
Training,fer0000000.png,0,9,0,0,0,0,0,0,1,0
PublicTest,fer0000007.png,0,0,9,0,0,0,0,0,1,0
PrivateTest,fer0000008.png,0,0,0,9,0,0,0,0,1,0
";

#[test]
fn ferplus_csv_is_joined_by_row() {
    let place = Place::new();
    let pixels = fer2013(&[("Training", 10), ("Training", 11), ("Training", 12), ("PublicTest", 13)]);
    let votes = place.write("fer2013new.csv", NEW);
    let votes = votes.to_str().unwrap();
    place.write("fer2013.csv", &pixels);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(pixels.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    place.write("fer2013.csv.gz", &gz);
    let (pack, text) = place.good("ferplus", "fer2013.csv", &["--votes", votes]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.id.as_str(), f.split, f.label)).collect();
    let name = "fer0000000.png";
    let again = "fer0000000.png#4";
    assert_eq!(faces, [(name, Split::Train, Some(0)), (again, Split::Train, Some(1)), ("fer0000007.png", Split::Valid, Some(2))]);
    assert_eq!([0, 1, 2].map(|i| pack.pixels(i).unwrap().data[5]), [10, 12, 13]);
    assert!(text.contains("has 1 rows more") && text.contains("without a picture name: 1"), "{text}");
    let hash = pack.hash();
    assert_eq!(place.good("ferplus", "fer2013.csv.gz", &["--votes", votes]).0.hash(), hash);

    fs::remove_file(place.path("out/p.moue")).unwrap();
    place.bad("ferplus", "fer2013.csv", &[], 2, &["--votes"]);
    place.write("cut.csv.gz", &gz[..gz.len() / 2]);
    place.bad("ferplus", "cut.csv.gz", &["--votes", votes], 1, &["cut.csv.gz line", "damaged or cut short"]);
    place.write("other.csv", fer2013(&[("Training", 1), ("PublicTest", 2)]));
    place.bad("ferplus", "other.csv", &["--votes", votes], 1, &["other.csv line 3", "fer2013new.csv line 3", "do not belong together"]);
    place.write("short.csv", fer2013(&[("Training", 1)]).replacen("1 1 ", "1 ", 1));
    place.bad("ferplus", "short.csv", &["--votes", votes], 1, &["short.csv line 2", "2303 pixel values"]);
    place.write("headless.csv", "0,1 2 3,Training\n");
    place.bad("ferplus", "headless.csv", &["--votes", votes], 1, &["line 1", "column `pixels` is missing"]);
    let no_fear = place.write("nofear.csv", NEW.replace("fear", "dread"));
    place.bad("ferplus", "fer2013.csv", &["--votes", no_fear.to_str().unwrap()], 1, &["nofear.csv line 1", "`fear` is missing"]);
}

#[test]
fn ferplus_errors() {
    let place = Place::new();
    place.bad("ferplus", "nowhere", &[], 2, &["nowhere", "does not exist"]);
    place.write("empty/readme.txt", "");
    place.bad("ferplus", "empty", &[], 1, &["FER2013Train"]);
    let zip = zipped(&ferplus_files(), "");
    for keep in [0, 10, zip.len() / 2, zip.len() - 30] {
        place.write("cut.zip", &zip[..keep]);
        place.bad("ferplus", "cut.zip", &[], 1, &["cut.zip", "no complete zip file"]);
    }
    let with = |name: &str, bytes: &[u8]| {
        let mut files = ferplus_files();
        files.iter_mut().find(|f| f.0 == name).unwrap().1 = bytes.to_vec();
        place.write("bad.zip", zipped(&files, ""));
    };
    with("FER2013Valid/fer0028638.png", b"no picture at all");
    place.bad("ferplus", "bad.zip", &[], 1, &["FER2013Valid/label.csv line 1", "fer0028638.png", "no picture"]);
    with("FER2013Train/label.csv", b"fer0000000.png,\"(0, 0, 48, 48)\",6,0,0,1,3,0,0,0,0\n");
    place.bad("ferplus", "bad.zip", &[], 1, &["FER2013Train/label.csv line 1", "11 fields"]);
    with("FER2013Train/label.csv", LABELS.replace(",6,", ",six,").as_bytes());
    place.bad("ferplus", "bad.zip", &[], 1, &["label.csv line 1", "`six`"]);
    with("FER2013Train/label.csv", LABELS.replace("fer0000001", "../../fer").as_bytes());
    place.bad("ferplus", "bad.zip", &[], 1, &["label.csv line 2", "no file name inside"]);
    with("FER2013Train/label.csv", LABELS.replace("fer0000001", "fer9").as_bytes());
    place.bad("ferplus", "bad.zip", &[], 1, &["label.csv line 2", "fer9.png"]);
    with("FER2013Train/fer0000001.png", b"P5 60000 60000 255\n");
    place.bad("ferplus", "bad.zip", &[], 1, &["larger than 16384 pixels a side"]);
    let (pack, text) = place.good("ferplus", "bad.zip", &["--skip-unreadable"]);
    assert_eq!(pack.faces().len(), 2);
    assert!(text.contains("missing or unreadable: train 1"), "{text}");
}

#[test]
fn the_target_is_guarded() {
    let place = Place::new();
    place.write("fer.zip", zipped(&ferplus_files(), ""));
    let run = |out: &Path| {
        let source = place.path("fer.zip");
        Command::new(env!("CARGO_BIN_EXE_moue")).args(["import", "ferplus"]).arg(source).arg("--out").arg(out).output().unwrap()
    };
    let before = fs::read(place.path("fer.zip")).unwrap();
    for (out, word) in [(place.path("fer.zip"), "is no pack"), (place.path("out"), "is a folder"), (place.path("no/p"), "does not exist")] {
        let output = run(&out);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(word));
    }
    assert_eq!(fs::read(place.path("fer.zip")).unwrap(), before);
    assert!(run(&place.path("out/p.moue")).status.success() && run(&place.path("out/p.moue")).status.success());
    for more in [&["--align-margin", "0.2"][..], &["--size", "0"], &["--rule", "coin"], &["--align", "--align-margin=-1"]] {
        assert_eq!(place.import("ferplus", "fer.zip", more).status.code(), Some(2), "{more:?}");
    }
}

fn rafdb(place: &Place) {
    place.write("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 5\ntrain_00002.jpg 1\ntest_0001.jpg 7\n");
    for (i, name) in ["train_00001", "train_00002", "test_0001"].iter().enumerate() {
        place.write(&format!("raf/Image/aligned/{name}_aligned.jpg"), color(100, 100, 40 * i as u8, ImageFormat::Jpeg));
        place.write(&format!("raf/Image/original/{name}.jpg"), color(180, 160, 40 * i as u8, ImageFormat::Jpeg));
        place.write(&format!("raf/Annotation/manual/{name}_manu_attri.txt"), "60.5\t70\n110\t70.25\n85\t95\n65\t120\n105\t120\n1\n0\n3\n");
    }
}

#[test]
fn rafdb_aligned_and_original() {
    let place = Place::new();
    rafdb(&place);
    let dist = place.write("distribution.txt", "train_00001.jpg 0 0.1 0 0 0.75 0.15 0\ntest_0001.jpg 0 0 0 0 0 0 1\n");
    let (pack, text) = place.good("rafdb", "raf", &["--distribution", dist.to_str().unwrap()]);
    let faces = pack.faces();
    assert_eq!(faces.iter().map(|f| f.label).collect::<Vec<_>>(), [Some(4), Some(0), Some(6)]);
    assert_eq!(faces.iter().map(|f| f.split).collect::<Vec<_>>(), [Split::Train, Split::Train, Split::Test]);
    assert_eq!(pack.protocol().classes[4], "sadness");
    assert_eq!((&faces[0].votes[..], faces[1].votes.len()), (&[0, 100, 0, 0, 750, 150, 0][..], 0));
    assert!(faces[0].landmarks.is_empty());
    assert_eq!(pack.size(0), (100, 100, 3));
    assert!(text.contains("1 faces have no line in the distribution file") && text.contains("differ from the published"), "{text}");
    let (pack, _) = place.good("rafdb", "raf", &["--pictures", "original"]);
    assert_eq!((pack.size(0), pack.faces()[0].landmarks[0]), ((180, 160, 3), [60.5, 70.0]));
    let (pack, _) = place.good("rafdb", "raf", &["--pictures", "original", "--align", "--align-margin", "0.1"]);
    assert_eq!(pack.size(0), (112, 112, 3));
    assert!((pack.faces()[0].landmarks[0][0] - 40.0).abs() < 4.0, "{:?}", pack.faces()[0].landmarks);
    let (pack, _) = place.good("rafdb", "raf", &["--pictures", "original", "--size", "90"]);
    assert!((pack.faces()[0].landmarks[0][0] - 30.0).abs() < 1e-4, "a stretch by 1/2 keeps picture edges at -0.5");
}

#[test]
fn rafdb_errors() {
    let place = Place::new();
    rafdb(&place);
    let list = "raf/EmoLabel/list_patition_label.txt";
    place.write(list, "train_00001.jpg 5\ntrain_00002.jpg 0\n");
    place.bad("rafdb", "raf", &[], 1, &["list_patition_label.txt line 2", "class id 0"]);
    place.write(list, "train_00001.jpg 5\nvalid_00002.jpg 1\n");
    place.bad("rafdb", "raf", &[], 1, &["line 2", "neither with train_"]);
    place.write(list, "train_00009.jpg 5\n");
    place.bad("rafdb", "raf", &[], 1, &["line 1", "train_00009_aligned.jpg does not exist"]);
    place.write(list, "train_00001.jpg 5\ntrain_00001.jpg 5\n");
    place.bad("rafdb", "raf", &[], 1, &["line 2", "listed twice"]);
    place.write(list, "train_00001.jpg 5\n");
    let dist = place.write("d.txt", "train_00001.jpg 0 0.1 0 0 0.1 0.1 0\n");
    place.bad("rafdb", "raf", &["--distribution", dist.to_str().unwrap()], 1, &["d.txt line 1", "0.300"]);
    place.bad("rafdb", "raf/Image", &[], 2, &["list_patition_label.txt"]);
    place.bad("rafdb", "raf", &["--valid-share", "0.1"], 2, &["moves no face"]);
    place.write("raf/Annotation/manual/train_00001_manu_attri.txt", "60 70\nx 70\n");
    place.bad("rafdb", "raf", &["--pictures", "original"], 1, &["manu_attri.txt line 2", "`x`"]);
}

const AFFECTNET: &str = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n";

fn landmarks() -> String {
    (0..68).map(|i| format!("{};{}", 20.0 + f64::from(i % 10) * 3.0, 20.0 + f64::from(i / 10) * 4.5)).collect::<Vec<_>>().join(";")
}

#[test]
fn affectnet_csv() {
    let place = Place::new();
    let row = |file: &str, id: i32| format!("{file},10,20,50,40,{},{id},0.1,-0.2\n", landmarks());
    place.write(
        "aff/training.csv",
        AFFECTNET.to_string() + &row("1/a.png", 1) + &row("2/b.png", 7) + "2/c.png,NULL,NULL,NULL,NULL,,10,-2,-2\n",
    );
    place.write("aff/validation.csv", AFFECTNET.to_string() + &row("1/v.png", 6));
    for (i, file) in ["1/a.png", "2/b.png", "1/v.png"].iter().enumerate() {
        place.write(&format!("aff/Manually_Annotated_Images/{file}"), color(90, 80, i as u8, ImageFormat::Png));
    }
    let (pack, text) = place.good("affectnet", "aff", &["--classes", "7"]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.id.as_str(), f.split, f.label)).collect();
    assert_eq!(faces, [("1/a.png", Split::Train, Some(1)), ("1/v.png", Split::Test, Some(6))]);
    assert_eq!(pack.size(0), (50, 40, 3));
    // Top left pixel of the face box (10, 20) and a landmark in its coordinates.
    assert_eq!(pack.pixels(0).unwrap().data[..3], [10, 20, 0]);
    assert_eq!((pack.faces()[0].landmarks.len(), pack.faces()[0].landmarks[0]), (68, [10.0, 0.0]));
    assert!(text.contains("imported as test") && text.contains("7 (contempt)") && text.contains("10 (no face)"), "{text}");
    assert_eq!(place.good("affectnet", "aff", &["--align"]).0.size(0), (112, 112, 3));
    assert_eq!(place.good("affectnet", "aff", &[]).0.protocol().name, "affectnet-8");

    fs::remove_file(place.path("out/p.moue")).unwrap();
    place.bad("affectnet", "aff", &["--classes", "6"], 2, &["7 or 8"]);
    place.write("aff/training.csv", row("1/a.png", 1));
    place.bad("affectnet", "aff", &[], 1, &["training.csv line 1", "`subDirectory_filePath` is missing"]);
    place.write("aff/training.csv", AFFECTNET.to_string() + &row("1/a.png", 11));
    place.bad("affectnet", "aff", &[], 1, &["training.csv line 2", "expression 11"]);
    place.write("aff/training.csv", AFFECTNET.to_string() + "1/a.png,10,20,50,40,1;2;3,1,0,0\n");
    place.bad("affectnet", "aff", &[], 1, &["training.csv line 2", "3 landmark values"]);
    place.write("aff/training.csv", AFFECTNET.to_string() + &row("1/a.png", 1).replace("10,20,50", "95,20,50"));
    place.bad("affectnet", "aff", &[], 1, &["training.csv line 2", "outside the picture"]);
    place.bad("affectnet", "aff/Manually_Annotated_Images", &[], 2, &["training.csv"]);
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn affectnet_npy() {
    let place = Place::new();
    let points: Vec<u8> = (0..136).flat_map(|i| f64::from(30 + (i * 7) % 160).to_le_bytes()).collect();
    let labels: [(&str, u32, Vec<u8>); 5] = [
        ("train_set", 10, npy("<U1", "()", b"4\0\0\0")),
        ("train_set", 2, npy("<i8", "()", &7i64.to_le_bytes())),
        ("train_set", 3, npy("<U2", "()", b"1\0\0\x000\0\0\0")),
        ("val_set", 2, npy("<f8", "(1,)", &3.0f64.to_le_bytes())),
        ("val_set", 5, npy("<i4", "()", &0i32.to_le_bytes())),
    ];
    for (i, (set, n, label)) in labels.iter().enumerate() {
        place.write(&format!("aff/{set}/images/{n}.jpg"), color(224, 224, i as u8 * 9, ImageFormat::Jpeg));
        place.write(&format!("aff/{set}/annotations/{n}_exp.npy"), label);
        place.write(&format!("aff/{set}/annotations/{n}_lnd.npy"), npy("<f8", "(136,)", &points));
        place.write(&format!("aff/{set}/annotations/{n}_val.npy"), npy("<U5", "()", &[0; 20]));
    }
    let (pack, text) = place.good("affectnet", "aff", &[]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.id.as_str(), f.split, f.label, f.landmarks.len())).collect();
    assert_eq!(
        faces,
        [
            ("train_set/2", Split::Train, Some(7), 68),
            ("train_set/10", Split::Train, Some(4), 68),
            ("val_set/2", Split::Test, Some(3), 68),
            ("val_set/5", Split::Test, Some(0), 68)
        ]
    );
    assert!(text.contains("10 (no face)"), "{text}");
    fs::remove_file(place.path("out/p.moue")).unwrap();
    place.write("aff/train_set/annotations/2_exp.npy", b"\x93NUMPY\x01\x00\x10");
    place.bad("affectnet", "aff", &[], 1, &["2_exp.npy", "NumPy"]);
    fs::remove_file(place.path("aff/train_set/annotations/2_exp.npy")).unwrap();
    place.bad("affectnet", "aff", &[], 1, &["2_exp.npy"]);
}

#[test]
fn class_folders() {
    let place = Place::new();
    for (i, name) in ["train/sad/1.png", "train/glad/1.png", "train/glad/2.png", "val/sad/7.png", "val/glad/1.png"].iter().enumerate() {
        place.write(&format!("mine/{name}"), color(30 + i as u32, 20, i as u8, ImageFormat::Png));
    }
    place.write("mine/train/sad/notes.txt", "no picture");
    let (pack, text) = place.good("folder", "mine", &["--name", "mine-2"]);
    assert_eq!((pack.protocol().name.as_str(), &pack.protocol().classes[..]), ("mine-2", &["glad".to_string(), "sad".into()][..]));
    assert_eq!(pack.faces()[0].id, "train/glad/1.png");
    assert_eq!(pack.split(Split::Valid).len(), 2);
    assert_eq!(pack.size(2), (30, 20, 3));
    assert!(text.contains("whose name is no picture's: 1"), "{text}");
    let (pack, _) = place.good("folder", "mine", &["--classes", "sad, glad"]);
    assert_eq!(pack.protocol().classes, ["sad", "glad"]);
    assert_eq!(pack.faces()[0].label, Some(1));
    fs::remove_file(place.path("out/p.moue")).unwrap();
    place.bad("folder", "mine", &["--classes", "sad,mad"], 2, &["`glad`", "--classes"]);
    place.bad("folder", "mine", &["--valid-share", "0.5"], 2, &["has its own"]);
    fs::remove_dir_all(place.path("mine/val/sad")).unwrap();
    place.bad("folder", "mine", &[], 2, &["val/sad is missing"]);
    place.bad("folder", "nowhere", &[], 2, &["does not exist"]);
    place.write("one/happy/1.png", gray(1));
    place.bad("folder", "one", &[], 2, &["at least two"]);
}

#[test]
fn valid_share_is_stratified_and_seeded() {
    let place = Place::new();
    for class in ["a", "b"] {
        for i in 0..20 {
            place.write(&format!("mine/{class}/{i}.png"), color(8, 8, i + if class == "a" { 0 } else { 100 }, ImageFormat::Png));
        }
    }
    let split = |seed: &str| {
        let (pack, _) = place.good("folder", "mine", &["--valid-share", "0.25", "--seed", seed]);
        pack.split(Split::Valid).iter().map(|&i| pack.faces()[i].id.clone()).collect::<Vec<_>>()
    };
    let first = split("7");
    assert_eq!((first.iter().filter(|id| id.starts_with("a/")).count(), first.len()), (5, 10));
    assert_eq!(first, split("7"));
    assert_ne!(first, split("8"));
}

#[test]
fn numbered_classes_need_names() {
    let place = Place::new();
    for i in 0..7 {
        place.write(&format!("zero/{i}/x.png"), gray(i));
        place.write(&format!("one/{}/x.png", i + 1), gray(i));
    }
    place.bad("folder", "zero", &[], 2, &["FER2013 order is 0=anger", "AffectNet order is 0=neutral", "--classes"]);
    place.bad("folder", "one", &[], 2, &["RAF-DB order is 1=surprise", "FER2013", "--classes"]);
    place.bad("folder", "one", &["--classes", "a,b"], 2, &["names 2 classes"]);
    let (pack, _) = place.good("folder", "one", &["--classes", "a,b,c,d,e,f,g"]);
    assert_eq!((pack.faces()[6].id.as_str(), pack.faces()[6].label), ("7/x.png", Some(6)));
}

#[test]
fn votes_csv() {
    let place = Place::new();
    for i in 0..4 {
        place.write(&format!("mine/images/{i}.png"), gray(i));
    }
    place.write(
        "mine/votes.csv",
        "file,split,sad,unknown,glad\n0.png,train,5,0,1\n1.png,train,3,0,3\n2.png,valid,0,1,9\n3.png,test,0,9,1\n",
    );
    let (pack, text) = place.good("folder", "mine", &["--keep-ambiguous"]);
    assert_eq!(pack.protocol().columns().collect::<Vec<_>>(), ["sad", "glad", "unknown"]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.label, f.votes.clone())).collect();
    assert_eq!(faces, [(Some(0), vec![5, 1, 0]), (None, vec![3, 3, 0]), (Some(1), vec![0, 9, 1])]);
    assert!(text.contains("the winner is no class (unknown, NF): test 1") && text.contains("vote entropy"), "{text}");
    assert_eq!(place.good("folder", "mine", &["--classes", "glad,sad"]).0.faces()[0].label, Some(1));
    place.write("mine/votes.csv", "file,sad,glad\n0.png,0.75,0.25\n1.png,1,0\n");
    let (pack, _) = place.good("folder", "mine", &[]);
    assert_eq!((&pack.faces()[0].votes[..], &pack.faces()[1].votes[..]), (&[750, 250][..], &[1000, 0][..]));

    fs::remove_file(place.path("out/p.moue")).unwrap();
    let bad = |text: &str, code, words: &[&str]| {
        place.write("mine/votes.csv", text);
        place.bad("folder", "mine", &[], code, words);
    };
    bad("file,0,1,2,3,4,5,6,7\n0.png,1,0,0,0,0,0,0,9\n", 2, &["votes.csv line 1", "FERPlus order", "AffectNet order", "--classes"]);
    bad("0.png,1,0,0,0,0,0,9\n", 2, &["votes.csv line 1", "no header"]);
    bad("name,sad,glad\n0.png,1,2\n", 1, &["votes.csv line 1", "`file` is missing"]);
    bad("file,sad,glad\n0.png,1\n", 1, &["votes.csv line 2", "2 fields"]);
    bad("file,sad,glad\n0.png,1,-2\n", 1, &["votes.csv line 2", "-2"]);
    bad("file,sad,glad\n0.png,0.5,0.2\n", 1, &["votes.csv line 2", "0.700"]);
    bad("file,sad,glad\n9.png,1,7\n", 1, &["votes.csv line 2", "9.png does not exist"]);
    bad("file,split,sad,glad\n0.png,later,1,7\n", 1, &["votes.csv line 2", "`later` is no split"]);
    bad("file,sad,glad,sad\n0.png,1,7,1\n", 1, &["`sad` occurs twice"]);
    bad("file,sad,glad\n", 1, &["lists no face"]);
    bad("", 1, &["is empty"]);
}

#[test]
fn annotations_csv() {
    let place = Place::new();
    for i in 0..3 {
        place.write(&format!("mine/images/{i}.png"), gray(i));
    }
    let answers = "file,annotator,label,split\n0.png,Ada,sad,train\n1.png,Ada,glad,train\n0.png,Ben,sad,train\n1.png,Cy,glad,train\n\
                   0.png,Cy,nf,train\n2.png,Ben,glad,valid\n2.png,Ada,glad,valid\n0.png,Dee,sad,train\n";
    place.write("mine/annotations.csv", answers);
    let (pack, text) = place.good("folder", "mine", &[]);
    assert_eq!(pack.protocol().columns().collect::<Vec<_>>(), ["glad", "sad", "NF"]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.id.as_str(), f.split, f.label, f.votes.clone())).collect();
    assert_eq!(
        faces,
        [
            ("0.png", Split::Train, Some(1), vec![0, 3, 1]),
            ("1.png", Split::Train, Some(0), vec![2, 0, 0]),
            ("2.png", Split::Valid, Some(0), vec![2, 0, 0])
        ]
    );
    assert_eq!(pack.provenance()["annotators"], serde_json::json!(["Ada", "Ben", "Cy", "Dee"]));
    assert_eq!(pack.faces()[0].panel, [Some(1), Some(1), Some(2), Some(1)]);
    assert_eq!(pack.faces()[2].panel, [Some(0), Some(0), None, None]);
    assert!(text.contains("vote entropy"), "{text}");
    let (pack, _) = place.good("folder", "mine", &["--classes", "sad,glad,mad"]);
    assert_eq!((pack.faces()[0].label, pack.faces()[0].panel[2]), (Some(0), Some(3)));

    fs::remove_file(place.path("out/p.moue")).unwrap();
    let bad = |text: &str, code, words: &[&str]| {
        place.write("mine/annotations.csv", text);
        place.bad("folder", "mine", &[], code, words);
    };
    bad("file,annotator\n0.png,Ada\n", 1, &["`label` is missing"]);
    bad("file,annotator,label\n0.png,Ada\n", 1, &["annotations.csv line 2", "2 fields"]);
    bad("file,annotator,label\n0.png,Ada,sad\n0.png,Ada,glad\n", 1, &["annotations.csv line 3", "Ada", "second time"]);
    bad("file,annotator,label\n0.png,Ada,\n", 1, &["annotations.csv line 2", "no label"]);
    bad("file,annotator,label\n0.png,,sad\n", 1, &["annotations.csv line 2", "no annotator"]);
    bad("file,annotator,label,split\n0.png,Ada,sad,train\n0.png,Ben,sad,test\n", 1, &["line 3", "train face in line 2"]);
    bad("file,annotator,label\n0.png,Ada,0\n1.png,Ada,1\n", 2, &["--classes"]);
    bad("file,annotator,label\n0.png,Ada,sad\n", 1, &["at least two"]);
    bad("file,annotator,label\n../0.png,Ada,sad\n", 1, &["no file name inside"]);
    place.write("mine/votes.csv", "file,a,b\n");
    place.bad("folder", "mine", &[], 2, &["votes.csv and annotations.csv"]);
}

#[test]
fn candidates_csv() {
    let place = Place::new();
    for i in 0..3 {
        place.write(&format!("mine/images/{i}.png"), gray(i));
    }
    place.write("mine/candidates.csv", "file,candidates,split,label\n0.png,sad|glad,train,\n1.png,mad,train,mad\n2.png,,valid,glad\n");
    let (pack, _) = place.good("folder", "mine", &[]);
    let faces: Vec<_> = pack.faces().iter().map(|f| (f.label, f.candidates.clone())).collect();
    assert_eq!(pack.protocol().classes, ["glad", "mad", "sad"]);
    assert_eq!(faces, [(None, vec![0, 2]), (Some(1), vec![1]), (Some(0), vec![])]);
    fs::remove_file(place.path("out/p.moue")).unwrap();
    let bad = |text: &str, code, words: &[&str]| {
        place.write("mine/candidates.csv", text);
        place.bad("folder", "mine", &[], code, words);
    };
    bad("file,candidates\n0.png,0|3\n1.png,1|2\n", 2, &["candidates.csv", "FER2013 order", "--classes"]);
    bad("file,candidates,split\n0.png,sad|glad,valid\n", 1, &["candidates.csv line 2", "cannot be scored"]);
    bad("file,candidates\n0.png,\n", 1, &["candidates.csv line 2", "neither"]);
    bad("file,maybe\n0.png,sad\n", 1, &["`candidates` is missing"]);
    place.write("mine/votes.csv", "file,a,b\n");
    place.bad("folder", "mine", &[], 2, &["votes.csv and candidates.csv"]);
}
