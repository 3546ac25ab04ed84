//! Frames of a run that was made up, held against pictures that were looked at. `MOUE_BLESS=1` writes the pictures anew.

use super::app::{App, Next};
use super::layout::Panel;
use super::picture;
use super::theme::{Theme, ThemeName};
use crate::dataset::{Face, PackWriter, Pixels, Protocol, Split};
use crate::run::manifest::Data;
use crate::run::{At, Body, Control, Event, Level, Manifest, Outcome, Phase, RunFolder, Scalars, Stage, event::VERSION};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const CLASSES: [&str; 7] = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear"];
const STEPS: u64 = 400;
const EPOCHS: u64 = 20;

fn wave(i: u64, period: f64) -> f64 {
    (i as f64 / period * std::f64::consts::TAU).sin()
}

/// A short pretraining and a finetuning that decides its labels, diverges for a moment, and ends well.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    let mut say = |t: f64, at: &At, body: Body| {
        events.push(Event { v: VERSION, t, stage: at.stage, label: at.label.clone(), step: at.step, epoch: at.epoch, body });
    };
    say(0.0, &At::run(), Body::RunStarted { command: "moue demo".into(), version: "0.1.0".into() });
    let pretrain = At::stage(Stage::Pretrain, "");
    say(1.0, &pretrain, Body::Phase { name: Phase::Load, elapsed: None });
    say(3.5, &pretrain, Body::Phase { name: Phase::Load, elapsed: Some(2.5) });
    say(3.5, &pretrain, Body::StageStarted { steps: 40, epochs: 4.0, batch: 64, faces: 640 });
    for step in 1..=40 {
        let at = pretrain.step(step, step as f64 / 10.0);
        say(3.5 + step as f64, &at, Body::Scalars(Scalars::from([("loss", 1.0 / (1.0 + step as f64 / 10.0)), ("lr", 1e-3)])));
    }
    say(44.0, &pretrain.step(40, 4.0), Body::Picture { path: "media/pretrain-40.png".into(), columns: 4, rows: 2, gap: 4 });
    say(44.0, &pretrain.step(40, 4.0), Body::StageFinished { elapsed: 40.5 });
    let stage = At::stage(Stage::Finetune, "pll");
    say(44.0, &stage, Body::StageStarted { steps: STEPS, epochs: EPOCHS as f64, batch: 64, faces: 1280 });
    for step in 1..=STEPS {
        let t = 44.0 + step as f64 * 0.7;
        let at = stage.step(step, step as f64 / (STEPS / EPOCHS) as f64);
        let loss = 0.4 + 1.8 * (-(step as f64) / 120.0).exp() + 0.12 * wave(step, 7.0) * wave(step, 31.0);
        let loss = if (200..204).contains(&step) { f64::NAN } else { loss };
        let lr = 1e-3 * (1.0 - step as f64 / STEPS as f64) + 1e-5;
        let scalars =
            [("loss", loss), ("lr", lr), ("grad_norm", 0.9 + 0.3 * wave(step, 13.0)), ("faces_per_second", 412.0 + 9.0 * wave(step, 40.0))];
        say(t, &at, Body::Scalars(Scalars::from(scalars)));
        if step % (STEPS / EPOCHS) != 0 {
            continue;
        }
        let epoch = step / (STEPS / EPOCHS);
        let sure = epoch as f64 / EPOCHS as f64;
        let histogram =
            (0..20).map(|bin| (1000.0 * (-((bin as f64 / 19.0 - 0.4 - 0.55 * sure) / 0.16).powi(2)).exp()) as u64 * u64::from(bin >= 6));
        let (resolved, recovered) = ((1600.0 * sure.powi(2)) as u64, Some(0.55 + 0.3 * sure));
        say(t, &at, Body::Confidence { histogram: histogram.collect(), resolved, ambiguous: 1600, flips: 320 / epoch, recovered });
        for face in 0..8u64 {
            let p = (0.5 + 0.5 * sure * wave(epoch + face * 3, 17.0 + face as f64)).clamp(0.02, 0.98);
            let candidates = vec![(face % 7) as u16, ((face + 2) % 7) as u16];
            let truth = Some(candidates[usize::from(face % 3 == 0)]);
            say(t, &at, Body::Watched { face: format!("train-{face:05}"), candidates, confidences: vec![p, 1.0 - p], truth });
        }
        let rate = |class: usize| (0.25 + 0.6 * sure + 0.1 * wave(epoch + class as u64, 9.0)).clamp(0.0, 1.0);
        let confusion = (0..7).map(|row| {
            (0..7).map(|c| if row == c { (100.0 * rate(row)) as u64 } else { (100.0 * (1.0 - rate(row)) / 6.0) as u64 }).collect()
        });
        let body = Body::Evaluation {
            split: Split::Valid,
            accuracy: (0..7).map(rate).sum::<f64>() / 7.0,
            mean_recall: (0..7).map(rate).sum::<f64>() / 7.2,
            per_class: (0..7).map(|class| (class != 5).then(|| rate(class))).collect(),
            confusion: confusion.collect(),
            loss: Some(0.7 + 1.3 * (-(step as f64) / 90.0).exp()),
            macro_f1: Some(0.6),
            calibration_error: Some(0.04),
        };
        say(t + 0.3, &at, body);
    }
    let end = stage.step(STEPS, EPOCHS as f64);
    say(325.0, &end, Body::Message { level: Level::Warning, text: "one face\x1b[2J of the pack\nis black".into() });
    say(325.0, &end, Body::Checkpoint { path: "checkpoints/finetune-pll-400.ckpt".into() });
    say(325.0, &end, Body::StageFinished { elapsed: 281.0 });
    say(326.0, &At::run(), Body::RunFinished { outcome: Outcome::Completed, message: String::new() });
    events
}

/// The same with plain cross-entropy after it: in the end the stage that spoke last is not the one that is shown.
fn events_with_baseline() -> Vec<Event> {
    let mut events = events();
    let end = events.pop().unwrap();
    let baseline = At::stage(Stage::Baseline, "ce");
    let mut say = |at: &At, body: Body| {
        events.push(Event { v: VERSION, t: end.t, stage: at.stage, label: at.label.clone(), step: at.step, epoch: at.epoch, body });
    };
    say(&baseline, Body::StageStarted { steps: 100, epochs: 10.0, batch: 64, faces: 1280 });
    for step in 1..=100 {
        say(&baseline.step(step, step as f64 / 10.0), Body::Scalars(Scalars::from([("loss", 1.0 / step as f64)])));
    }
    say(&baseline.step(100, 10.0), Body::StageFinished { elapsed: 1.0 });
    events.push(end);
    events
}

fn write_log(folder: &Path, events: &[Event]) {
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event).unwrap();
        text.push(b'\n');
    }
    fs::write(folder.join("events.jsonl"), text).unwrap();
}

/// A run folder with events, manifest and pictures.
fn run(events: &[Event]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&root.path().join("made-up")).unwrap();
    let card = Protocol {
        name: "seven".into(),
        classes: CLASSES.map(String::from).to_vec(),
        extra_columns: Vec::new(),
        rule: "made up".into(),
        source: "made up".into(),
    };
    let pack = root.path().join("faces.moue");
    let mut writer = PackWriter::create(&pack, card).unwrap();
    for face in 0..8u8 {
        let data = (0..24 * 24).map(|i| ((i % 24) * 10) as u8 ^ (i / 24 * 9) as u8 ^ (face * 16)).collect();
        writer.push(Face::new(format!("train-{face:05}"), Split::Train), &Pixels::new(24, 24, 1, data)).unwrap();
    }
    writer.finish(serde_json::Value::Null).unwrap();
    let mut manifest = Manifest::new(vec!["moue".into(), "demo".into()], 7);
    manifest.stages = vec!["pretrain".into(), "finetune/pll".into(), "baseline/ce".into()];
    manifest.device = serde_json::json!({"name": "A GPU"});
    manifest.data = Some(Data {
        pack: pack.display().to_string(),
        pack_hash: String::new(),
        protocol: "seven".into(),
        protocol_hash: String::new(),
        classes: CLASSES.map(String::from).to_vec(),
        leaks: None,
    });
    manifest.write(&folder).unwrap();
    // Tiles of 32 x 32, each with a slope of its own.
    let page =
        image::RgbImage::from_fn(4 + 4 * 36, 4 + 2 * 36, |x, y| image::Rgb([(x % 36 * 7) as u8, (y % 36 * 7) as u8, (x / 36 * 60) as u8]));
    page.save(folder.media().join("pretrain-40.png")).unwrap();
    write_log(folder.path(), events);
    root
}

fn open(root: &tempfile::TempDir, theme: ThemeName, ascii: bool) -> App {
    App::open(root.path(), "made-up", Theme::new(theme, ascii)).unwrap()
}

fn frame(app: &App, width: u16, height: u16) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    app.draw(buffer.area, &mut buffer);
    buffer
}

fn press(app: &mut App, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '<' => KeyCode::Left,
            '>' => KeyCode::Right,
            c => KeyCode::Char(c),
        };
        assert_eq!(app.key(KeyEvent::new(code, KeyModifiers::NONE)), Next::Stay, "{c} leaves");
    }
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("MOUE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{name} differs; MOUE_BLESS=1 takes the new one:\n{text}");
}

#[test]
fn whole_frames_at_three_sizes() {
    let root = run(&events());
    for (width, height) in [(80, 24), (120, 40), (250, 70)] {
        let mut app = open(&root, ThemeName::Dark, false);
        compare(&format!("end-{width}x{height}.txt"), &picture::text(&frame(&app, width, height)));
        app.seek_step(Some("finetune/pll"), 240).unwrap();
        compare(&format!("middle-{width}x{height}.txt"), &picture::text(&frame(&app, width, height)));
        app.seek_step(Some("pretrain"), 40).unwrap();
        compare(&format!("pretrain-{width}x{height}.txt"), &picture::text(&frame(&app, width, height)));
    }
}

#[test]
fn every_panel_alone_at_three_sizes() {
    let root = run(&events());
    let mut app = open(&root, ThemeName::Mono, true);
    press(&mut app, "z");
    for (i, panel) in Panel::ALL.into_iter().enumerate() {
        let (stage, step) = if panel == Panel::Pictures { ("pretrain", 40) } else { ("finetune/pll", 300) };
        app.seek_step(Some(stage), step).unwrap();
        press(&mut app, &(i + 1).to_string());
        let text: Vec<String> = [(40, 12), (80, 24), (120, 40)].map(|(w, h)| picture::text(&frame(&app, w, h))).to_vec();
        compare(&format!("panel-{}.txt", panel.title()), &text.join("\n"));
    }
}

#[test]
fn any_size_theme_and_state_draws_and_nothing_wild_comes_through() {
    let all = events();
    for take in [0, 1, 3, 4, 60, 300, all.len()] {
        let root = run(&all[..take]);
        for (theme, ascii) in [(ThemeName::Dark, false), (ThemeName::Mono, true), (ThemeName::Light, true), (ThemeName::Safe, false)] {
            let mut app = open(&root, theme, ascii);
            for keys in ["", "lsscp", "z\t\t", "?"] {
                press(&mut app, keys);
                for (width, height) in [(0, 0), (1, 1), (7, 3), (30, 9), (61, 17), (80, 24), (101, 31), (181, 44)] {
                    let buffer = frame(&app, width, height);
                    let wild = buffer.content.iter().find(|c| c.symbol().chars().any(|c| c.is_control() || ascii && !c.is_ascii()));
                    assert!(wild.is_none(), "{wild:?} {theme:?} {keys} {width}x{height}");
                    if theme == ThemeName::Mono {
                        let plain = |c: &ratatui::buffer::Cell| {
                            matches!((c.fg, c.bg), (ratatui::style::Color::Reset, ratatui::style::Color::Reset))
                        };
                        assert!(buffer.content.iter().all(plain), "{width}x{height}");
                    }
                }
            }
        }
    }
}

#[test]
fn keys_change_what_is_seen() {
    let root = run(&events());
    let mut app = open(&root, ThemeName::Dark, false);
    let text = |app: &App| picture::text(&frame(app, 120, 40));
    let first = text(&app);
    // A loss that is not a number leaves a gap, and the gap a mark.
    assert!(first.contains('×') && first.contains("✓ completed"), "{first}");
    press(&mut app, "?");
    let help = picture::text(&frame(&app, 80, 24));
    for key in super::keys::KEYS {
        assert!(help.contains(&format!("{:<10}{}", key.shown, key.help)), "{}: {help}", key.shown);
    }
    press(&mut app, "?");
    assert_eq!(text(&app), first);
    press(&mut app, "<");
    let held = text(&app);
    assert!(held.contains("‖ held") && held.contains("epoch 19.0/20"), "{held}");
    press(&mut app, "[<");
    assert!(text(&app).contains("epoch  8.0/20"), "{}", text(&app));
    // The reports of the epoch are in, not only its last step.
    assert!(text(&app).contains("valid at epoch 8"), "{}", text(&app));
    press(&mut app, "[");
    assert!(text(&app).contains("epoch 4.0/4"), "{}", text(&app));
    press(&mut app, ">");
    assert!(text(&app).contains("epoch  0.0/20"), "{}", text(&app));
    press(&mut app, "f");
    assert_eq!(text(&app).lines().last(), first.lines().last());
    press(&mut app, "/BLACK\n");
    assert!(text(&app).contains("/BLACK 1 matches"), "{}", text(&app));
    press(&mut app, "3pz");
    assert!(text(&app).contains("■ train-00000"), "{}", text(&app));
    press(&mut app, "4c");
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Next::Leave);
}

#[test]
fn a_replay_runs_by_the_clock_and_ends_at_the_end() {
    let root = run(&events());
    let mut app = App::replay(root.path(), "made-up", Theme::new(ThemeName::Dark, false), 10.0);
    let head = |app: &App| picture::text(&frame(app, 120, 40)).lines().next().unwrap().to_string();
    assert!(head(&app).contains("waiting"));
    app.tick(Duration::ZERO);
    assert!(head(&app).contains("replay 10x") && head(&app).ends_with("00:00:00"), "{}", head(&app));
    app.tick(Duration::from_secs(3));
    assert!(head(&app).contains("pretrain") && head(&app).ends_with("00:00:30"), "{}", head(&app));
    press(&mut app, " ");
    app.tick(Duration::from_secs(60));
    assert!(head(&app).contains("held") && head(&app).ends_with("00:00:30"), "{}", head(&app));
    press(&mut app, " ++");
    app.tick(Duration::from_secs(1));
    assert!(head(&app).contains("replay 40x") && head(&app).ends_with("00:01:10"), "{}", head(&app));
    app.tick(Duration::from_secs(60));
    assert!(head(&app).contains("completed") && head(&app).ends_with("00:05:26"), "{}", head(&app));
}

#[test]
fn a_run_that_is_not_there_is_waited_for() {
    let root = run(&events()[..30]);
    let mut app = App::watch(root.path(), "later", Theme::new(ThemeName::Dark, false));
    app.tick(Duration::ZERO);
    let text = picture::text(&frame(&app, 100, 30));
    assert!(text.contains("waiting for later in") && text.contains("○ waiting"), "{text}");
    assert!(App::open(root.path(), "later", Theme::new(ThemeName::Dark, false)).is_err());
    let mut app = App::watch(root.path(), "made", Theme::new(ThemeName::Dark, false));
    app.tick(Duration::ZERO);
    assert!(picture::text(&frame(&app, 100, 30)).contains("● running"));
    // The log grows, and breaks.
    let log = root.path().join("made-up/events.jsonl");
    write_log(&root.path().join("made-up"), &events()[..200]);
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"what?\n").unwrap();
    app.tick(Duration::ZERO);
    let text = picture::text(&frame(&app, 100, 30));
    assert!(text.contains("finetune/pll") && text.contains("events.jsonl:201: damaged event"), "{text}");
}

/// Over a run of its own process: the keys are wishes, and the first `q` waits for the run to save.
#[test]
fn a_live_run_is_steered() {
    let root = run(&events()[..200]);
    let control = Control::default();
    let mut app = App::live(Theme::new(ThemeName::Dark, false), control.clone());
    app.turn_to(root.path().join("soon"));
    app.tick(Duration::ZERO);
    let text = |app: &App| picture::text(&frame(app, 120, 40));
    assert!(text(&app).contains("preparing the data") && text(&app).contains("soon"), "{}", text(&app));
    app.turn_to(root.path().join("made-up"));
    app.tick(Duration::ZERO);
    assert!(text(&app).contains("● running") && text(&app).contains("P pause"), "{}", text(&app));
    press(&mut app, "P");
    assert!(control.paused() && text(&app).contains("paused"), "{}", text(&app));
    press(&mut app, "PS");
    assert!(!control.paused() && control.saving() && text(&app).contains("saving"), "{}", text(&app));
    press(&mut app, "?");
    assert!(text(&app).contains("stop, saving (twice: now)"), "{}", text(&app));
    press(&mut app, "?q");
    assert!(control.stopping() && text(&app).contains("stopping: the step is finished"), "{}", text(&app));
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)), Next::End);

    // Another's run is watched, not steered.
    let mut app = App::watch(root.path(), "made", Theme::new(ThemeName::Dark, false));
    app.tick(Duration::ZERO);
    press(&mut app, "PS");
    assert!(!text(&app).contains("paused") && !text(&app).contains("P pause"), "{}", text(&app));
}

#[test]
fn the_mouse_chooses_zooms_scrolls_and_seeks() {
    let root = run(&events());
    let mut app = open(&root, ThemeName::Dark, false);
    let text = |app: &App| picture::text(&frame(app, 120, 40));
    let find = |app: &App, word: &str| -> (u16, u16) {
        let text = text(app);
        let (row, line) = text.lines().enumerate().find(|(_, line)| line.contains(word)).unwrap();
        (line.split(word).next().unwrap().chars().count() as u16, row as u16)
    };
    let mouse = |app: &mut App, kind, (column, row)| app.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
    let (left, right) = (MouseEventKind::Down(MouseButton::Left), MouseEventKind::Down(MouseButton::Right));
    let at = find(&app, "confusion");
    assert!(!text(&app).contains("neut…"));
    mouse(&mut app, left, at);
    assert!(text(&app).contains("neut…"), "{}", text(&app));
    let at = find(&app, "candidates");
    mouse(&mut app, right, at);
    assert!(!text(&app).contains("neut…") && text(&app).contains("candidates"), "{}", text(&app));
    mouse(&mut app, right, at);
    let (x, y) = find(&app, " log ");
    let before = text(&app);
    mouse(&mut app, MouseEventKind::ScrollUp, (x, y + 3));
    assert_ne!(before, text(&app));
    // The line of progress is the third; a click in its middle shows the middle of the stage.
    mouse(&mut app, left, (57, 2));
    assert!(text(&app).contains("held") && text(&app).contains("epoch 10.0/20"), "{}", text(&app));
}

#[test]
fn keys_and_clicks_are_about_the_stage_that_is_shown() {
    let root = run(&events_with_baseline());
    let mut app = open(&root, ThemeName::Dark, false);
    let text = |app: &App| picture::text(&frame(app, 120, 40));
    assert!(text(&app).contains("epoch 20.0/20"), "{}", text(&app));
    press(&mut app, "3pz");
    assert!(text(&app).contains("■ train-00000"), "{}", text(&app));
    let left = MouseEventKind::Down(MouseButton::Left);
    app.mouse(MouseEvent { kind: left, column: 57, row: 2, modifiers: KeyModifiers::NONE });
    assert!(text(&app).contains("held") && text(&app).contains("epoch 10.0/20"), "{}", text(&app));
}
