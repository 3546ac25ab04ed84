use super::*;
use crate::failure::{exit_code, one_line};
use proptest::prelude::*;
use std::ops::Range;
use std::path::Path;

fn header(faces: usize) -> Header {
    let subject = |i: usize| Subject {
        id: format!("face-{i}"),
        given: (!i.is_multiple_of(3)).then_some((i % 3) as Class),
        candidates: if i.is_multiple_of(2) { vec![0, 2] } else { vec![0, 1, 2] },
        votes: vec![i as u32, 4, 3],
    };
    let names = ["anger", "fear", "joy"];
    Header {
        objective: "pll".into(),
        classes: names.map(String::from).to_vec(),
        pack_hash: "hash".into(),
        faces: (0..faces).map(subject).collect(),
    }
}

fn frame(header: &Header, epoch: u32) -> Frame {
    let bytes = Layout::of(&header.faces).bytes();
    let flip = |n: u32| Flip { face: n % header.faces.len() as u32, step: u64::from(10 * epoch + n), from: 0, to: 2 };
    Frame {
        epoch,
        step: u64::from(10 * epoch + 10),
        confidences: (0..bytes).map(|i| (i as u32 * 7 + epoch) as u8).collect(),
        flips: (0..epoch % 4).map(flip).collect(),
    }
}

fn write(path: &Path, header: &Header, epochs: Range<u32>) -> Option<String> {
    let (mut writer, lost) = HistoryWriter::open(path, header, epochs.start).unwrap();
    epochs.for_each(|epoch| writer.append(&frame(header, epoch), epoch % 2 == 0).unwrap());
    lost
}

fn read(path: &Path) -> (Vec<Frame>, Option<String>) {
    let mut reader = HistoryReader::open(path).unwrap();
    let (mut frames, mut frame) = (Vec::new(), Frame::default());
    while reader.next_into(&mut frame).unwrap() {
        frames.push(frame.clone());
    }
    (frames, reader.damage().map(str::to_string))
}

#[test]
fn what_is_written_is_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("history/pll.bin");
    let header = header(5);
    assert_eq!(write(&path, &header, 1..8), None);
    assert_eq!(read(&path), ((1..8).map(|e| frame(&header, e)).collect(), None));
    let reader = HistoryReader::open(&path).unwrap();
    assert_eq!(reader.header(), &header);
    assert_eq!((reader.layout().range(1), reader.layout().bytes()), (2..5, 12));
    let flips = frame(&header, 7).flips;
    assert_eq!(Flip::unpack(&Flip::pack(&flips)), Some(flips));
    assert_eq!(Flip::unpack(&[0; 17]), None);
}

#[test]
fn a_face_takes_few_bytes() {
    // Eight candidates, and a flip in each of three visits.
    let mut header = header(1);
    header.classes = (0..8).map(|c| c.to_string()).collect();
    header.faces[0].candidates = (0..8).collect();
    let flip = Flip { face: 0, step: 1, from: 0, to: 2 };
    let of = |flips| Frame { epoch: 1, step: 1, confidences: vec![0; 8], flips: vec![flip; flips] }.to_bytes().unwrap().len();
    assert!(of(3) - (FRAME_HEAD + 4) <= 64);
    assert_eq!(of(1) - (FRAME_HEAD + 4), 24);
}

proptest! {
    #[test]
    fn a_byte_holds_a_confidence(value in 0f32..=1.0) {
        prop_assert!((confidence(quantise(value)) - value).abs() <= 0.5 / 255.0 + 1e-6);
    }

    /// However often a run is interrupted, and however many epochs beyond its checkpoint it had told: the file is the same.
    #[test]
    fn an_interrupted_history_ends_like_a_whole_one(cuts in prop::collection::vec((1u32..12, 0u32..5), 0..4)) {
        let root = tempfile::tempdir().unwrap();
        let (whole, path) = (root.path().join("whole.bin"), root.path().join("cut.bin"));
        let header = header(4);
        write(&whole, &header, 1..13);
        let mut next = 1;
        for (epochs, beyond) in cuts {
            let done = (next + epochs).min(12);
            // A run that went on beyond its last checkpoint, differently from what it does when it comes back.
            prop_assert_eq!(write(&path, &header, next..done), None);
            let (mut writer, _) = HistoryWriter::open(&path, &header, done).unwrap();
            for epoch in done..done + beyond {
                writer.append(&Frame { step: 1, ..frame(&header, epoch) }, false).unwrap();
            }
            next = done;
        }
        prop_assert_eq!(write(&path, &header, next..13), None);
        prop_assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&whole).unwrap());
    }

    /// Whatever byte is changed, and wherever the file is cut: no panic, and every frame that is given is one that was written.
    #[test]
    fn damage_is_told_and_what_is_whole_is_used(at in 0.0f64..1.0, change in 1u8..=255, cut in any::<bool>()) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("h.bin");
        let header = header(4);
        write(&path, &header, 1..7);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = (at * bytes.len() as f64) as usize;
        if cut { bytes.truncate(place) } else { bytes[place] ^= change }
        std::fs::write(&path, &bytes).unwrap();
        let header_bytes = header.to_bytes().unwrap().len();
        if place < header_bytes {
            let error = HistoryReader::open(&path).err().expect("the header is damaged");
            prop_assert!(one_line(&error).contains("h.bin"), "{error:#}");
        } else {
            let (frames, damage) = read(&path);
            let expected: Vec<Frame> = (1..=frames.len() as u32).map(|e| frame(&header, e)).collect();
            prop_assert_eq!(&frames, &expected);
            // A cut exactly between two frames is a history of fewer epochs.
            prop_assert!(frames.len() < 6 && (damage.is_some() || cut), "{damage:?}");
        }
    }
}

#[test]
fn a_damaged_history_goes_on_and_tells_what_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("h.bin");
    let ours = header(4);
    write(&path, &ours, 1..7);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let damage = read(&path).1.unwrap();
    assert!(damage.contains("h.bin") && damage.contains("cut short") && damage.contains("up to 5"), "{damage}");

    let lost = write(&path, &ours, 7..9).unwrap();
    assert!(lost.contains("epochs 6 to 6") && lost.contains("cut short"), "{lost}");
    assert_eq!(read(&path).0.iter().map(|f| f.epoch).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7, 8]);

    let lost = write(&path, &header(5), 3..5).unwrap();
    assert!(lost.contains("epochs 1 to 2") && lost.contains("other faces"), "{lost}");
    std::fs::remove_file(&path).unwrap();
    let lost = write(&path, &ours, 2..3).unwrap();
    assert!(lost.contains("epochs 1 to 1") && lost.contains("no such file"), "{lost}");
    // A run that begins knows nothing of what lies there.
    assert_eq!(write(&path, &ours, 1..2), None);
    assert_eq!(read(&path).0.len(), 1);
}

#[test]
fn other_files_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("labels.csv");
    let refused = |expected: &str| {
        let error = HistoryReader::open(&path).err().expect("refused");
        assert!(exit_code(&error) == 2 && one_line(&error).contains(expected), "{error:#}");
    };
    refused("no such file");
    for text in ["", "id,given,decided,margin\n"] {
        std::fs::write(&path, text).unwrap();
        refused("no history");
    }
    let mut bytes = header(2).to_bytes().unwrap();
    bytes[8] = 9;
    std::fs::write(&path, bytes).unwrap();
    refused("format 9");
    // Checksums right, content impossible.
    let mut wrong = header(2);
    wrong.faces[0].candidates = vec![0, 7];
    std::fs::write(&path, wrong.to_bytes().unwrap()).unwrap();
    assert!(one_line(&HistoryReader::open(&path).err().unwrap()).contains("face-0"));
    let ours = header(2);
    let far = Frame { flips: vec![Flip { face: 2, step: 1, from: 0, to: 1 }], ..frame(&ours, 1) };
    std::fs::write(&path, [ours.to_bytes().unwrap(), far.to_bytes().unwrap()].concat()).unwrap();
    let (frames, damage) = read(&path);
    assert!(frames.is_empty() && damage.unwrap().contains("no epoch is whole"));
}
