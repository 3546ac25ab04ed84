//! What is done with an input of each fuzz target: everything that a command would do with such a file, short of training.
//!
//! An input may be refused, with whatever error. It must not make the program panic, hang or take memory that its size does not justify,
//! and what is written on the way is whole or is not there. Targets with several formats tell them by the first byte ([`samples`]). Where a
//! checksum stands before what is to be tried, the input is also tried with the checksum made right.

pub mod samples;

use moue::audit::{Audit, Request};
use moue::config::{LabelSettings, Origin, Resolved, Strategy};
use moue::dashboard::app::App;
use moue::dashboard::picture::text;
use moue::dashboard::theme::{Theme, ThemeName};
use moue::dataset::import::{self, Listing, Options, affectnet, ferplus, folder, rafdb};
use moue::dataset::landmarks::Landmarks;
use moue::dataset::profile::Profile;
use moue::dataset::sheet::{SheetConfig, sheet};
use moue::dataset::votes::Rule;
use moue::dataset::{Pack, Split, picture};
use moue::labels::Candidates;
use moue::report::{faces::Faces, figures::Run, page::Report, record::Record};
use moue::run::checkpoint::Checkpoint;
use moue::run::history::{Frame, HistoryReader};
use moue::run::progress::describe;
use moue::run::{EventReader, Predictions, RunFolder, RunSummary, metrics};
use moue::weights::{Card, Part, TensorFile};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Makes what the targets work with, which is no part of any input's time.
pub fn prepare() {
    PLACE.with(|_| {});
}

/// Does with an input what moue does with a file of that kind.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const ALL: [(&str, Target); 6] =
    [("pack", pack), ("events", events), ("checkpoint", checkpoint), ("importers", importers), ("weights", weights), ("config", config)];

/// Most values of a tensor that is read: what a network has a place for is its own affair.
const VALUES: usize = 1 << 16;

thread_local! {
    /// A folder with a run and a pack in it.
    static PLACE: Place = Place::new();
}

struct Place {
    folder: TempDir,
    run: RunFolder,
    face: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let folder = samples::scratch();
        let run = samples::write_run(folder.path());
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { folder, run, face: samples::picture(image::ImageFormat::Png, 24, 20) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A source for an importer: the input as this file, and a picture under each of these names.
    fn source(&self, name: &str, bytes: &[u8], pictures: &[&str]) -> PathBuf {
        let root = self.path("source");
        // Another importer's source may be there.
        let _ = fs::remove_dir_all(&root);
        self.write(&format!("source/{name}"), bytes);
        pictures.iter().for_each(|picture| drop(self.write(&format!("source/{picture}"), &self.face)));
        root
    }

    /// Carries an import out and looks at what it leaves.
    fn import(&self, listing: anyhow::Result<Listing>) {
        let Ok(listing) = listing else { return };
        let out = self.path("out/p.moue");
        let options = Options { size: Some(16), align: None, drop_leaks: true, skip_unreadable: true };
        let done = import::run(listing, &options, &out);
        assert_eq!(done.is_ok(), out.exists(), "an import that failed leaves no pack, one that worked does");
        if done.is_ok() {
            Pack::open(&out).unwrap().verify().unwrap();
            fs::remove_file(&out).unwrap();
        }
        assert_eq!(fs::read_dir(self.path("out")).unwrap().count(), 0, "something was left behind");
    }
}

pub fn pack(input: &[u8]) {
    PLACE.with(|place| {
        read_pack(&place.write("in.moue", input));
        if let Some(sealed) = sealed_pack(input) {
            read_pack(&place.write("in.moue", &sealed));
        }
    });
}

fn read_pack(path: &Path) {
    let Ok(pack) = Pack::open(path) else { return };
    // Damaged pixels are told; all is read nevertheless.
    let _ = pack.verify();
    Split::ALL.into_iter().for_each(|split| drop(Profile::of(&pack, Some(split))));
    moue::audit::annotators::agreement(&pack, |i| pack.faces()[i].label);
    let _ = moue::audit::duplicates::find(&pack);
    for strategy in [Strategy::Votes, Strategy::Distribution, Strategy::File] {
        let settings = LabelSettings { strategy, ..LabelSettings::default() };
        if let Ok(candidates) = Candidates::build(&pack, &settings) {
            candidates.coverage(&pack);
            candidates.sizes();
        }
    }
    let _ = sheet(&pack, &SheetConfig { per_class: 2, split: Split::Train, seed: 0, ambiguous: false });
}

/// The pack with lengths and hashes that fit its index, where its header can be read.
fn sealed_pack(input: &[u8]) -> Option<Vec<u8>> {
    let (rest, length) = input.split_last_chunk::<16>().map(|(rest, end)| (rest, u64::from_le_bytes(*end.first_chunk().unwrap())))?;
    let (body, header) = rest.split_at(rest.len().checked_sub(usize::try_from(length).ok()?)?);
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let pixels = usize::try_from(header.get("pixel_bytes")?.as_u64()?).ok()?.checked_add(8)?;
    let index = body.get(pixels..)?;
    let hash: String = Sha256::digest(index).iter().map(|b| format!("{b:02x}")).collect();
    let lines = index.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count();
    let fields = header.as_object_mut()?;
    fields
        .extend([("index_bytes", json!(index.len())), ("index_sha256", json!(hash)), ("faces", json!(lines))].map(|(k, v)| (k.into(), v)));
    let header = serde_json::to_vec(&header).ok()?;
    Some([body, &header, &(header.len() as u64).to_le_bytes(), b"MOUEPEND"].concat())
}

pub fn events(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    PLACE.with(|place| {
        let run = &place.run;
        let path = match kind {
            b'e' => run.events(),
            b'm' => run.manifest(),
            b'h' => run.history("pll"),
            b'p' => run.predictions("pll"),
            b'l' => run.labels(),
            b'i' => run.media().join("pretrain-2.png"),
            _ => return,
        };
        let whole = fs::read(&path).unwrap();
        let inputs = std::iter::once(bytes.to_vec()).chain((*kind == b'h').then(|| sealed_history(bytes)).flatten());
        for bytes in inputs {
            fs::write(&path, bytes).unwrap();
            read_run(run);
        }
        fs::write(&path, whole).unwrap();
    });
}

fn read_run(run: &RunFolder) {
    let _ = RunSummary::read(run);
    if let Ok(table) = metrics::Table::read(run) {
        let _ = table.write_csv(std::io::sink());
    }
    let mut summary = RunSummary::default();
    for event in EventReader::open(run).unwrap().map_while(Result::ok) {
        summary.apply(&event);
        describe(&event, summary.stage());
    }
    if let Ok(mut history) = HistoryReader::open(&run.history("pll")) {
        let mut frame = Frame::default();
        while history.next_into(&mut frame).unwrap() {}
    }
    let _ = Predictions::read(&run.predictions("pll"));
    if let Ok(app) = App::open(run.path().parent().unwrap(), "run", Theme::new(ThemeName::Dark, false)) {
        for (width, height) in [(120, 40), (30, 9)] {
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            app.draw(buffer.area, &mut buffer);
            text(&buffer);
        }
    }
    let pack = run.path().join("f.moue");
    let _ = Audit::of(run, Request { data: Some(&pack), ..Request::default() });
    if let Ok(record) = Record::read(run.clone()) {
        let faces = Faces::open(&record);
        Report::new(vec![Run::read(record, faces, String::new())]).html();
    }
}

/// The history with the checksums that its header and its frames should have.
fn sealed_history(input: &[u8]) -> Option<Vec<u8>> {
    let header = 16 + usize::try_from(u32::from_le_bytes(*input.get(12..)?.first_chunk()?)).ok()?;
    let sum = |part: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(part);
        crc.sum().to_le_bytes()
    };
    let mut sealed = input.get(..header)?.to_vec();
    sealed.extend(sum(&sealed));
    let mut rest = input.get(header + 4..)?;
    // Frames of the sample's size: two faces of two candidates each.
    while let Some(flips) = rest.get(16..).and_then(<[u8]>::first_chunk) {
        let length = 20 + 4 + 16usize.checked_mul(u32::from_le_bytes(*flips) as usize)?;
        let Some(frame) = rest.get(..length) else { break };
        sealed.extend(frame);
        sealed.extend(sum(frame));
        rest = rest.get(length + 4..).unwrap_or_default();
    }
    sealed.extend(rest);
    Some(sealed)
}

pub fn checkpoint(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    PLACE.with(|place| {
        let path = match kind {
            b'c' => place.write("in.ckpt", bytes),
            b's' => place.write("in.ckpt", &samples::checkpoint_of(bytes)),
            _ => return,
        };
        let Ok(checkpoint) = Checkpoint::read(&path) else { return };
        let _ = checkpoint.blob("model.bpk");
        use_settings(Card::of(&checkpoint.state, Part::Classifier).resolved(&path));
    });
}

pub fn weights(input: &[u8]) {
    PLACE.with(|place| {
        let path = place.write("in.safetensors", input);
        let Ok(file) = TensorFile::open(&path) else { return };
        for (name, shape) in file.shapes() {
            let values = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
            if let Some(values) = values.filter(|n| *n <= VALUES)
                && let Ok(read) = file.read(name)
            {
                assert_eq!(read.len(), values, "{name} {shape:?}");
            }
        }
        if let Some(card) = file.card() {
            use_settings(card.resolved(&path));
        }
    });
}

pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    use_settings(Resolved::default().with_toml(text, &Origin::File("in.toml".into())));
    // The same as flags, as far as it makes sense.
    let mut flags = text.lines().take(8).filter(|line| line.contains('='));
    use_settings(flags.try_fold(Resolved::default(), |all, flag| all.with_flag(flag)).and_then(|all| all.checked(&Origin::Flag)));
}

/// What follows from settings, and that they can be written and read again.
fn use_settings(resolved: anyhow::Result<Resolved>) {
    let Ok(resolved) = resolved else { return };
    let s = resolved.settings();
    let _ = (s.grid(), s.hidden_patches(), s.finetune_patches(), s.token_width(), s.encoder_blocks());
    let entries: Vec<(&str, String)> = resolved.entries().map(|(key, value, _)| (key, value)).collect();
    let again = Resolved::default().with_values(entries.iter().map(|(k, v)| (*k, v.as_str())), &Origin::Run("it".into())).unwrap();
    let kept = |r: &Resolved| r.entries().map(|(key, value, _)| (key, value)).collect::<Vec<_>>();
    assert_eq!(kept(&again), kept(&resolved), "settings change on the way through a file");
}

pub fn importers(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let request = folder::Request { keep_ambiguous: true, ..folder::Request::default() };
    PLACE.with(|place| match kind {
        b'z' => place.import(ferplus::list(&place.write("in.zip", bytes), None, Rule::Majority, true)),
        b't' => {
            let Ok(labels) = std::str::from_utf8(bytes) else { return };
            place.import(ferplus::list(&place.write("in.zip", &samples::ferplus_zip(labels)), None, Rule::Argmax, false));
        }
        b'f' => {
            let (faces, votes) = bytes.split_at(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
            let votes = place.write("votes.csv", votes.get(1..).unwrap_or_default());
            place.import(ferplus::list(&place.write("fer2013.csv", faces), Some(&votes), Rule::Majority, false));
        }
        b'g' => {
            let votes = place.write("votes.csv", b"Usage,Image name\n");
            place.import(ferplus::list(&place.write("fer2013.csv.gz", bytes), Some(&votes), Rule::Majority, false));
        }
        b'r' => {
            let pictures = ["Image/aligned/train_1_aligned.jpg", "Image/aligned/test_1_aligned.jpg"];
            place.import(rafdb::list(&place.source("list_patition_label.txt", bytes, &pictures), rafdb::Pictures::Aligned, None));
        }
        b'd' => {
            let root = place.source("list_patition_label.txt", b"train_1.jpg 4\n", &["Image/aligned/train_1_aligned.jpg"]);
            let shares = place.write("shares.txt", bytes);
            place.import(rafdb::list(&root, rafdb::Pictures::Aligned, Some(&shares)));
        }
        b'a' => place.import(affectnet::list(&place.source("training.csv", bytes, &["1/a.png", "1/b.png"]), None, 8)),
        b'n' => {
            let root = place.source("train_set/annotations/1_lnd.npy", bytes, &["train_set/images/1.png"]);
            let header = "{'descr': '<U1', 'fortran_order': False, 'shape': (), }\n";
            let label = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), b"3\0\0\0"].concat();
            place.write("source/train_set/annotations/1_exp.npy", &label);
            place.import(affectnet::list(&root, None, 8));
        }
        b'v' => place.import(folder::list(&place.source("votes.csv", bytes, &["a.png", "b.png"]), &request)),
        b'o' => place.import(folder::list(&place.source("annotations.csv", bytes, &["a.png", "b.png"]), &request)),
        b'c' => place.import(folder::list(&place.source("candidates.csv", bytes, &["a.png", "b.png"]), &request)),
        b'k' => {
            if let Ok(landmarks) = Landmarks::read(&place.write("landmarks.csv", bytes))
                && let Some(points) = landmarks.of(Path::new("a.png"))
            {
                let source = picture::decode(&place.face).unwrap();
                let _ = moue::transform::align::align(&source, points, 16, 0.1);
            }
        }
        b's' => {
            let pack = Pack::open(&place.run.path().join("f.moue")).unwrap();
            let _ = Candidates::read_csv(&place.write("labels.csv", bytes), &pack);
        }
        b'i' => {
            picture::jpeg_components(bytes);
            if let Ok(pixels) = picture::decode(bytes) {
                picture::resize(&mut Default::default(), &pixels, 16).unwrap();
            }
        }
        _ => {}
    });
}
