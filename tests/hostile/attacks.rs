//! Attacks that are known: paths out of archives, bombs, pickles that call, tables and texts without end, headers that claim the world.

use crate::targets::samples::{self, FERPLUS, gz, npy, picture, pytorch_with, write_pack, zipped};
use crate::tried;
use image::ImageFormat;
use moue::config::{Origin, Resolved};
use moue::dashboard::app::App;
use moue::dashboard::theme::{Theme, ThemeName};
use moue::dataset::import::{self, Options, affectnet, ferplus, folder};
use moue::dataset::landmarks::Landmarks;
use moue::dataset::votes::Rule;
use moue::dataset::{Pack, picture as pictures};
use moue::failure::{exit_code, one_line};
use moue::labels::Candidates;
use moue::run::checkpoint::Checkpoint;
use moue::run::{EventReader, Manifest, Predictions, RunSummary, metrics};
use moue::weights::file::{Named, write};
use moue::weights::{Card, TensorFile};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::SimpleFileOptions;

/// A folder to write in, with nothing in it that an attack should reach.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(samples::scratch())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Must be refused, in one line; what it says.
fn refused<T>(what: &str, act: impl FnOnce() -> anyhow::Result<T>) -> String {
    let Err(error) = tried(what, act) else { panic!("{what}: accepted") };
    let said = one_line(&error);
    assert!(said.chars().count() <= 2003 && !said.contains(char::is_control), "{what}: {said}");
    assert!(matches!(exit_code(&error), 1 | 2), "{what}: {said}");
    said
}

fn import_zip(place: &Place, archive: &[u8]) -> anyhow::Result<import::Imported> {
    let listing = ferplus::list(&place.write("in/faces.zip", archive), None, Rule::Argmax, false)?;
    import::run(listing, &Options::default(), &place.path("in/p.moue"))
}

#[test]
fn nothing_leaves_an_archive() {
    let place = Place::new();
    let outside = place.write("secret.png", picture(ImageFormat::Png, 24, 20));
    let face = picture(ImageFormat::Png, 24, 20);
    for name in ["../../secret.png", "../secret.png", "/etc/passwd", "..\\secret.png", "C:/secret.png", &outside.display().to_string()] {
        let labels = FERPLUS.replace("a.png", name);
        let entries: [(&str, &[u8]); 3] = [("FER2013Train/label.csv", labels.as_bytes()), (name, &face), ("FER2013Train/b.png", &face)];
        let said = refused(name, || import_zip(&place, &zipped(Deflated, &entries)));
        assert!(said.contains("no file name inside"), "{name}: {said}");
    }
    // A link is a picture whose bytes are a path: it is decoded, not followed.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("FER2013Train/label.csv", SimpleFileOptions::default()).unwrap();
    zip.write_all(FERPLUS.as_bytes()).unwrap();
    for link in ["a.png", "b.png"] {
        zip.add_symlink(format!("FER2013Train/{link}"), outside.display().to_string(), SimpleFileOptions::default()).unwrap();
    }
    let said = refused("a link", || import_zip(&place, &zip.finish().unwrap().into_inner()));
    assert!(said.contains("no picture"), "{said}");
    // What stands beside the pictures under such a name is not unpacked, and neither is a checkpoint's.
    let whole = samples::ferplus_zip(FERPLUS);
    let mut zip = zip::ZipWriter::new_append(std::io::Cursor::new(whole)).unwrap();
    for name in ["../escaped.png", "../../escaped.png"] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(&face).unwrap();
    }
    tried("an entry beside", || import_zip(&place, &zip.finish().unwrap().into_inner())).unwrap();
    let state = &samples::all().into_iter().find(|s| s.name == "state.json").unwrap().bytes;
    let path = place.write("in/a.ckpt", zipped(Stored, &[("state.json", state), ("../escaped.bpk", b"x")]));
    assert_eq!(tried("a checkpoint", || Checkpoint::read(&path)).unwrap().blobs[0].0, "../escaped.bpk");
    let mut left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["in", "secret.png"]);
    assert!(!place.0.path().parent().unwrap().join("escaped.png").exists());
}

#[test]
fn bombs_do_not_go_off() {
    let place = Place::new();
    let zeros = vec![0; 60 << 20];
    let face = picture(ImageFormat::Png, 24, 20);
    let labels = zipped(Deflated, &[("FER2013Train/label.csv", &zeros), ("FER2013Train/a.png", &face)]);
    let said = refused("labels that unpack to 60 MB", || import_zip(&place, &labels));
    assert!(said.contains("more than"), "{said}");
    let picture: [(&str, &[u8]); 2] = [("FER2013Train/label.csv", FERPLUS.as_bytes()), ("FER2013Train/a.png", &zeros)];
    let picture = zipped(Deflated, &picture);
    let said = refused("a picture that unpacks to 60 MB", || import_zip(&place, &picture));
    assert!(said.contains("more than"), "{said}");
    let votes = place.write("votes.csv", "Usage,Image name\n");
    for (what, text) in [("blank lines", vec![b'\n'; 60 << 20]), ("rows", b"a,b,c\n".repeat(10 << 20))] {
        let source = place.write("fer2013.csv.gz", gz(&[b"emotion,pixels,Usage\n", &text[..]].concat()));
        refused(what, || ferplus::list(&source, Some(&votes), Rule::Majority, false));
    }
    // Entries that all lie on the same bytes: a small archive that would be a large checkpoint.
    let part = vec![7; 1 << 20];
    let names: Vec<String> = (0..500).map(|i| format!("part-{i:03}")).collect();
    let entries: Vec<(&str, &[u8])> =
        names.iter().enumerate().map(|(i, n)| (n.as_str(), if i == 0 { &part[..] } else { &[][..] })).collect();
    let path = place.write("bomb.ckpt", shared(zipped(Stored, &entries)));
    assert!(path.metadata().unwrap().len() < 2 << 20);
    refused("a checkpoint of entries that overlap", || Checkpoint::read(&path));
}

/// The archive with every entry's place in the directory turned to the first one's bytes.
fn shared(mut archive: Vec<u8>) -> Vec<u8> {
    let mut at = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let (sizes, offset) = (archive[at + 16..at + 28].to_vec(), archive[at + 42..at + 46].to_vec());
    while archive[at..].starts_with(b"PK\x01\x02") {
        archive[at + 16..at + 28].copy_from_slice(&sizes);
        archive[at + 42..at + 46].copy_from_slice(&offset);
        let length = |i: usize| usize::from(u16::from_le_bytes([archive[at + i], archive[at + i + 1]]));
        at += 46 + length(28) + length(30) + length(32);
    }
    archive
}

#[test]
fn pickles_call_nothing() {
    let place = Place::new();
    let mark = place.path("called");
    let command = format!("touch {}", mark.display());
    let call = format!("cos\nsystem\n(S'{command}'\ntR.");
    let nested = format!("\u{80}\u{2}}}X\u{6}\0\0\0weightcos\nsystem\n(S'{command}'\ntRs.");
    let nested: Vec<u8> = nested.chars().map(|c| c as u8).collect();
    for (what, bytes) in
        [("bare", call.as_bytes().to_vec()), ("in a checkpoint", pytorch_with(call.as_bytes())), ("for a tensor", pytorch_with(&nested))]
    {
        let path = place.write("evil.pth", bytes);
        if let Ok(file) = tried(what, || TensorFile::open(&path)) {
            assert!(file.shapes().keys().all(|name| file.read(name).is_err()), "{what}: it holds tensors");
        }
        assert!(!mark.exists(), "{what}: the pickle was executed");
    }
}

/// Writes `head`, then `part` so many times.
fn long(path: &Path, head: &str, part: &str, times: usize) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(head.as_bytes()).unwrap();
    (0..times).for_each(|_| file.write_all(part.as_bytes()).unwrap());
}

#[test]
fn tables_without_end_are_refused() {
    let place = Place::new();
    let pack = place.path("f.moue");
    write_pack(&pack);
    let pack = Pack::open(&pack).unwrap();
    let block = "x".repeat(1 << 20);
    let list = |name: &str| folder::list(name.as_ref(), &folder::Request::default()).map(drop);
    for file in ["votes.csv", "annotations.csv", "candidates.csv"] {
        let root = place.path(&format!("{file}-source"));
        fs::create_dir_all(&root).unwrap();
        let name = root.display().to_string();
        long(&root.join(file), "file,calm,glad,annotator,label,candidates\n\"a", &block, 100);
        refused("a field of 100 MB", || list(&name));
        long(&root.join(file), "file", ",c", 1_000_000);
        refused("a million columns", || list(&name));
        let names: String = (0..200_000).map(|i| format!(",c{i}")).collect();
        fs::write(root.join(file), ["file", &names[..(1 << 20) - 100]].concat()).unwrap();
        refused("a hundred thousand columns in one line", || list(&name));
    }
    let many: String = (0..100_000).map(|i| format!("a.png,p{i},calm\n")).collect();
    place.write("annotations.csv-source/annotations.csv", ["file,annotator,label\n", &many].concat());
    refused("a hundred thousand answers of one class", || list(&place.path("annotations.csv-source").display().to_string()));
    let names: Vec<String> = (0..100_000).map(|i| format!("c{i}")).collect();
    place.write("candidates.csv-source/candidates.csv", format!("file,candidates\na.png,{}\n", names.join("|")));
    refused("a hundred thousand classes", || list(&place.path("candidates.csv-source").display().to_string()));
    let path = place.path("table.csv");
    for (what, head, part, times) in [
        ("a field of 100 MB", "id,split,label,truth,p_calm,p_glad\n\"f0", block.as_str(), 100),
        ("a quote that is not closed", "id,split,label,truth,p_calm,p_glad\n\"f0", "x\n", 10 << 20),
        ("a million columns", "id,split,label,truth,p_calm,candidates", ",p_x", 1_000_000),
    ] {
        long(&path, head, part, times);
        refused(what, || Predictions::read(&path));
        refused(what, || Candidates::read_csv(&path, &pack));
        refused(what, || Landmarks::read(&path));
    }
}

#[test]
fn texts_may_not_be_deep_or_long() {
    let deep = 10_000;
    let arrays = format!("a = {}{}", "[".repeat(deep), "]".repeat(deep));
    let tables = format!("[{}]\nb = 1", vec!["a"; deep].join("."));
    let inline = format!("a = {}1{}", "{a = ".repeat(deep), "}".repeat(deep));
    for text in [&arrays, &tables, &inline] {
        refused("a deep configuration", || Resolved::default().with_toml(text, &Origin::File("x".into())));
        refused("a deep flag", || Resolved::default().with_flag(&format!("vit.dim={}", &text[4..])));
    }
    refused("a name of a megabyte", || Resolved::default().with_flag(&format!("{}=1", "vit.dmi".repeat(150_000))));
    let twice = vec![("vit.dim", "96"); 100_000];
    refused("a setting a hundred thousand times", || Resolved::default().with_values(twice, &Origin::Run("x".into())));

    let place = Place::new();
    let run = samples::write_run(place.0.path());
    let nest = |value: &str| format!("{}{value}{}", "[".repeat(deep), "]".repeat(deep));
    let whole = fs::read_to_string(run.events()).unwrap();
    for (what, line) in [
        ("a deep event", format!("{{\"v\":102,\"body\":{}}}\n", nest("1"))),
        ("an event of many megabytes", format!("{{\"v\":102,\"x\":\"{}\"}}\n", "x".repeat(20 << 20))),
        ("a map of 100,000 numbers", scalars(0..100_000)),
    ] {
        fs::write(run.events(), [&whole, &line].map(String::as_str).concat()).unwrap();
        refused(what, || RunSummary::read(&run));
        assert_eq!(tried(what, || EventReader::open(&run).unwrap().filter(Result::is_ok).count()), 16, "{what}: what came before");
    }
    // What is not looked at may be as deep as it likes.
    let deep_field = whole.lines().next().unwrap().replacen('{', &format!("{{\"x\":{},", nest("1")), 1);
    fs::write(run.events(), deep_field + "\n").unwrap();
    assert_eq!(tried("a deep field", || RunSummary::read(&run)).unwrap().events, 1);
    // Another number in each event: a table of the square of the log.
    fs::write(run.events(), (0..5000).map(|i| scalars(i..i + 1)).collect::<String>()).unwrap();
    refused("a table with 5,000 columns", || metrics::Table::read(&run));
    for text in [nest("1"), format!("{{\"format\":1,\"device\":{}}}", nest("1")), " ".repeat(5 << 20)] {
        fs::write(run.manifest(), text).unwrap();
        refused("a deep manifest", || Manifest::read(&run));
    }
}

/// An event with these numbers.
fn scalars(names: std::ops::Range<usize>) -> String {
    let numbers: Vec<String> = names.map(|i| format!("\"n{i}\":1")).collect();
    format!("{{\"v\":102,\"t\":1.0,\"stage\":\"finetune\",\"step\":1,\"epoch\":1.0,\"body\":{{\"scalars\":{{{}}}}}}}\n", numbers.join(","))
}

/// A curve between far steps has more dots than can be walked.
#[test]
fn steps_may_be_any_numbers() {
    let place = Place::new();
    let run = samples::write_run(place.0.path());
    let steps = [1_000_000_000_000_000_000, 1, u64::MAX, 7];
    let line = |step: u64| scalars(0..1).replace("\"n0\":1", "\"loss\":0.5").replace("\"step\":1,", &format!("\"step\":{step},"));
    fs::write(run.events(), steps.map(line).concat()).unwrap();
    tried("far steps", || {
        let app = App::open(place.0.path(), "run", Theme::new(ThemeName::Dark, false)).unwrap();
        let mut buffer = Buffer::empty(Rect::new(0, 0, 120, 40));
        app.draw(buffer.area, &mut buffer);
        let frame = moue::dashboard::picture::text(&buffer);
        assert!(frame.contains("step 7/0"), "{frame}");
    });
}

#[test]
fn classes_of_weights_have_names_that_may_be_printed() {
    let place = Place::new();
    let path = place.path("w.safetensors");
    let tensors = [Named { name: "encoder.norm.gamma".into(), shape: vec![1], values: vec![1.0] }];
    for (class, wrong) in [("calm", false), ("calm\u{1b}[2J", true), ("ca\u{9b}lm", true)] {
        let card = Card { classes: vec![class.into(), "glad".into()], ..Card::imported("a test", &Resolved::default()) };
        write(&path, &tensors, &card).unwrap();
        if wrong {
            assert!(refused(class, || TensorFile::open(&path)).contains("control character"));
        } else {
            tried(class, || TensorFile::open(&path)).unwrap();
        }
    }
}

#[test]
fn headers_may_claim_what_they_like() {
    let mut png = picture(ImageFormat::Png, 24, 20);
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_be_bytes()
    };
    let bmp = |side: i32| {
        let mut bmp = picture(ImageFormat::Bmp, 12, 10);
        bmp[18..26].copy_from_slice(&[side.to_le_bytes(), side.to_le_bytes()].concat());
        bmp
    };
    // A start of frame with three components.
    let jpeg = |side: u16| {
        let mut jpeg = picture(ImageFormat::Jpeg, 24, 20);
        let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
        jpeg
    };
    for side in [65_535u32, 16_384, 9_000] {
        png[16..24].copy_from_slice(&[side.to_be_bytes(), side.to_be_bytes()].concat());
        let sum = crc(&png[12..29]);
        png[29..33].copy_from_slice(&sum);
        let pnm = format!("P6 {side} {side} 255\n");
        for (what, bytes) in [("PNG", png.clone()), ("JPEG", jpeg(side as u16)), ("BMP", bmp(side as i32)), ("PNM", pnm.into_bytes())] {
            refused(&format!("{what} of {side} pixels a side"), || pictures::decode(&bytes));
        }
    }
    let place = Place::new();
    place.write("source/train_set/images/1.png", picture(ImageFormat::Png, 24, 20));
    for shape in ["(1152921504606846976,)", "(4294967295, 4294967295)", "(999999999999,)"] {
        let whole = npy();
        let header = &whole[10..10 + usize::from(whole[8])];
        let claims = String::from_utf8_lossy(header).replace("(136,)", shape);
        let bytes = [b"\x93NUMPY\x01\x00", &(claims.len() as u16).to_le_bytes()[..], claims.as_bytes(), &[0; 64]].concat();
        place.write("source/train_set/annotations/1_exp.npy", bytes);
        refused("an npy header", || affectnet::list(&place.path("source"), None, 8));
    }
    // A tensor that ends beyond all files.
    let huge = u64::MAX - 499;
    let header = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{huge}]}}}}", huge / 4);
    for length in [header.len() as u64, u64::MAX, 1 << 40, 1 << 24] {
        let path = place.write("huge.safetensors", [&length.to_le_bytes(), header.as_bytes(), &[0; 64]].concat());
        refused("a safetensors header", || TensorFile::open(&path));
    }
}
