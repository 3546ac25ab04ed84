//! Generated faces: drawn expressions whose truth is known, read by a simulated panel that is often wrong.
//!
//! Owns the plan of a pack: which class each face shows, which faces are blends of two classes, who is photographed, and that the same
//! configuration gives the same bytes on any number of threads. The faces serve to measure label disambiguation against a truth that no
//! collected data set has; they are drawings, and no result on them says anything about photographs of people.
//!
//! Faces are 8-bit gray. Four in ten are blends: the truth holds a share of 0.57 to 0.77, so it can be told from the pixels, while the
//! panel is divided between the two components.

pub mod action_units;
mod canvas;
mod draw;
mod features;
mod identity;
pub mod panel;

use super::{Class, Face, PackWriter, Pixels, Protocol, Split};
use crate::random::{RngExt, Stream, Streams};
use crate::usage;
use action_units::{Activation, CLASSES, NEUTRAL, choose, confusable, prototypes};
use anyhow::Result;
use panel::Panel;
use serde::{Deserialize, Serialize};

/// Share of faces that blend two expressions.
const BLENDS: f32 = 0.4;
/// Pictures of one person, on average.
const FACES_PER_PERSON: usize = 8;
/// Class frequencies of the train split, rare classes as rare as in collected data.
const TRAIN_SHARES: [f64; 8] = [0.25, 0.22, 0.13, 0.13, 0.11, 0.05, 0.06, 0.05];
/// Faces rendered between two writes; bounds memory at any pack size.
const BATCH: usize = 2048;

/// What to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratorConfig {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
    /// Side of the square pictures in pixels, 32 to 224.
    pub size: usize,
    pub seed: u64,
    /// Annotator noise, 0 (nearly clean) to 3; 1 divides the panel as hard faces do.
    pub noise: f32,
    /// Worker threads, 0: one per core. Never changes what is generated.
    #[serde(skip)]
    pub threads: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { train: 10_000, valid: 1_000, test: 2_000, size: 48, seed: 0, noise: 1.0, threads: 0 }
    }
}

impl GeneratorConfig {
    /// The faces of `moue demo`: few enough to train on in minutes.
    pub fn demo() -> Self {
        Self { train: 6000, valid: 500, test: 2000, ..Self::default() }
    }

    /// # Errors
    /// A usage error that names the setting out of range.
    pub fn check(&self) -> Result<()> {
        if !(32..=224).contains(&self.size) {
            usage!("faces can be generated from 32 to 224 pixels, not {}", self.size);
        }
        if !(0.0..=3.0).contains(&self.noise) {
            usage!("annotator noise lies between 0 (nearly clean) and 3, not {}", self.noise);
        }
        let total = self.train.checked_add(self.valid).and_then(|n| n.checked_add(self.test));
        match total {
            Some(0) => usage!("nothing to generate: train, valid and test are all 0"),
            Some(n) if n <= 100_000_000 => Ok(()),
            _ => usage!("at most 100 million faces can be generated at once"),
        }
    }

    fn count(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.valid,
            Split::Test => self.test,
        }
    }
}

/// The card of every generated pack.
pub fn protocol() -> Protocol {
    Protocol {
        name: "generated-8".into(),
        classes: CLASSES.map(String::from).to_vec(),
        extra_columns: vec!["unknown".into()],
        rule: "train: the emotion with most of ten votes, a tie goes to the lower class index, `unknown` never wins; \
               valid and test: the true class of the drawing"
            .into(),
        source: "moue data generate: drawn faces and simulated annotators; no photographs".into(),
    }
}

/// What the generator did, for the pack's provenance.
pub fn provenance(config: &GeneratorConfig) -> serde_json::Value {
    serde_json::json!({
        "importer": "moue data generate",
        "moue": env!("CARGO_PKG_VERSION"),
        "generator": config,
        "blends": BLENDS,
        "annotators": panel::ANNOTATORS,
        "train_class_shares": TRAIN_SHARES,
        "valid_and_test_class_shares": "balanced",
        "identities": "disjoint between splits; the person is the `p` part of the face id",
    })
}

/// What one face shows, before it is drawn.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    split: Split,
    index: usize,
    /// Number of the person within the split; people of different splits are different people.
    person: usize,
    truth: usize,
    /// Second component and the share of the true one.
    other: Option<(usize, f32)>,
    intensity: f32,
}

impl Plan {
    fn new(config: &GeneratorConfig, streams: &Streams, split: Split, index: usize) -> Self {
        let mut rng = streams.at("plan", &[split as u64, index as u64]);
        let shares = if split == Split::Train { TRAIN_SHARES } else { [0.125; 8] };
        // A golden-ratio sequence meets the shares closely for any number of faces, and needs only the face's index.
        let mut level = (index as f64 * 0.618_033_988_749_894_9 + (streams.seed() % 1024) as f64 / 1024.0).fract();
        let truth = shares
            .iter()
            .position(|share| {
                level -= share;
                level < 0.0
            })
            .unwrap_or(CLASSES.len() - 1);
        let people = config.count(split).div_ceil(FACES_PER_PERSON).max(1);
        let person = rng.random_range(0..people);
        let other = (rng.random::<f32>() < BLENDS).then(|| (choose(confusable(truth), &mut rng), 0.57 + 0.2 * rng.random::<f32>()));
        let intensity = match other {
            // Next to neutral the strength *is* the share: leave it nearly alone, or the truth could not be seen.
            Some((second, _)) if truth == NEUTRAL || second == NEUTRAL => 0.94 + 0.12 * rng.random::<f32>(),
            Some(_) => 0.75 + 0.35 * rng.random::<f32>(),
            None => 0.62 + 0.48 * rng.random::<f32>().sqrt(),
        };
        Self { split, index, person, truth, other, intensity }
    }

    /// The muscles of this face: a mixture of one variant of each component, scaled; individual variation comes on top.
    fn activation(&self, rng: &mut Stream) -> Activation {
        let mut variant = |class: usize| {
            let all = prototypes(class);
            all[rng.random_range(0..all.len())]
        };
        let main = variant(self.truth);
        let pure = match self.other {
            Some((class, share)) => Activation::mix(&main, &variant(class), share),
            None => main,
        };
        pure.scaled(self.intensity)
    }

    fn generate(&self, config: &GeneratorConfig, streams: &Streams, panel: &Panel) -> (Face, Pixels) {
        let at = [self.split as u64, self.index as u64];
        let identity = identity::Identity::draw(&mut streams.at("identity", &[self.split as u64, self.person as u64]));
        let mut rng = streams.at("expression", &at);
        let activation = self.activation(&mut rng).jittered(0.14, 0.03, &mut rng);
        let capture = identity::Capture::draw(&mut streams.at("capture", &at));
        let (pixels, landmarks) = draw::draw(config.size, &identity, &activation, &capture, &mut streams.at("pixels", &at));

        let columns = panel.read(self.truth, self.other, &mut streams.at("panel", &at));
        let mut face = Face::new(format!("{}-p{:05}-{:07}", self.split, self.person, self.index), self.split);
        face.truth = Some(self.truth as Class);
        face.votes = panel::count(&columns);
        face.label = if self.split == Split::Train { panel::majority(&face.votes).map(|c| c as Class) } else { face.truth };
        face.panel = columns.iter().map(|&c| Some(c as Class)).collect();
        face.landmarks = landmarks.to_vec();
        (face, pixels)
    }
}

/// Draws all faces and appends them to `writer`: train, then valid, then test.
///
/// # Errors
/// A usage error if a setting is out of range; otherwise what the writer reports.
pub fn generate(config: &GeneratorConfig, writer: &mut PackWriter) -> Result<()> {
    config.check()?;
    let streams = Streams::new(config.seed);
    let panel = Panel::new(&streams, config.noise);
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    for split in Split::ALL {
        let count = config.count(split);
        for start in (0..count).step_by(BATCH) {
            let end = (start + BATCH).min(count);
            let part = (end - start).div_ceil(threads);
            let parts: Vec<Vec<(Face, Pixels)>> = std::thread::scope(|scope| {
                let (streams, panel) = (&streams, &panel);
                let workers: Vec<_> = (start..end)
                    .step_by(part)
                    .map(|from| {
                        scope.spawn(move || {
                            (from..(from + part).min(end))
                                .map(|index| Plan::new(config, streams, split, index).generate(config, streams, panel))
                                .collect()
                        })
                    })
                    .collect();
                workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            for (face, pixels) in parts.iter().flatten() {
                writer.push(face.clone(), pixels)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Pack;
    use crate::dataset::profile::Profile;
    use std::collections::HashSet;

    fn pack(config: &GeneratorConfig) -> (tempfile::TempDir, Pack) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.moue");
        let mut writer = PackWriter::create(&path, protocol()).unwrap();
        generate(config, &mut writer).unwrap();
        writer.finish(provenance(config)).unwrap();
        let pack = Pack::open(&path).unwrap();
        (folder, pack)
    }

    fn plans(config: &GeneratorConfig) -> Vec<Plan> {
        let streams = Streams::new(config.seed);
        Split::ALL.iter().flat_map(|&s| (0..config.count(s)).map(move |i| Plan::new(config, &streams, s, i))).collect()
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let config = |threads| GeneratorConfig { train: 37, valid: 5, test: 11, size: 32, threads, ..Default::default() };
        let one = pack(&config(1)).1.hash();
        assert_eq!(one, pack(&config(3)).1.hash());
        assert_eq!(one, pack(&config(16)).1.hash());
        let other = GeneratorConfig { seed: 1, ..config(1) };
        assert_ne!(one, pack(&other).1.hash());
    }

    #[test]
    fn a_face_does_not_depend_on_how_many_follow() {
        let config = GeneratorConfig { train: 64, valid: 0, test: 0, ..Default::default() };
        let longer = GeneratorConfig { valid: 80, ..config.clone() };
        assert_eq!(plans(&config), plans(&longer)[..64]);
    }

    #[test]
    fn blends_lie_on_the_true_side() {
        let config = GeneratorConfig { train: 4000, valid: 0, test: 0, ..Default::default() };
        let streams = Streams::new(9);
        let (mut blends, mut after_jitter) = (0, 0);
        for plan in plans(&config) {
            let Some((other, share)) = plan.other else { continue };
            assert!((0.57..=0.77).contains(&share) && other != plan.truth);
            let at = [plan.index as u64];
            let mixed = plan.activation(&mut streams.at("side", &at));
            // The same draws give the same variants.
            let mut rng = streams.at("side", &at);
            let mut variant = |class: usize| {
                let all = prototypes(class);
                all[rng.random_range(0..all.len())].scaled(plan.intensity)
            };
            let (a, b) = (variant(plan.truth), variant(other));
            assert!(mixed.distance(&a) < mixed.distance(&b), "{plan:?}");
            let face = mixed.jittered(0.14, 0.03, &mut streams.at("jitter", &at));
            blends += 1;
            after_jitter += usize::from(face.distance(&a) < face.distance(&b));
        }
        let share = blends as f32 / 4000.0;
        assert!((0.37..0.43).contains(&share), "share of blends {share}");
        // Variation between faces may cross the line for a few: no data set is perfectly clean.
        assert!(after_jitter as f32 / blends as f32 > 0.97, "{after_jitter} of {blends}");
    }

    #[test]
    fn the_panel_confuses_as_the_noise_level_says() {
        let config = |noise| GeneratorConfig { train: 1500, valid: 0, test: 0, size: 32, noise, ..Default::default() };
        for (noise, ambiguous, right) in [(0.0, 0.0..0.02, 0.0..=1.0), (1.0, 0.28..0.42, 0.55..=0.72), (2.0, 0.3..0.5, 0.28..=0.55)] {
            let (_folder, pack) = pack(&config(noise));
            let profile = Profile::of(&pack, None);
            let share = profile.ambiguous as f64 / profile.voted as f64;
            assert!(ambiguous.contains(&share), "noise {noise}: {share} ambiguous");
            if profile.ambiguous > 100 {
                let majority = profile.ambiguous_right as f64 / profile.ambiguous_known as f64;
                assert!(right.contains(&majority), "noise {noise}: majority right on {majority}");
                let covered = profile.ambiguous_covered as f64 / profile.ambiguous_known as f64;
                assert!(covered >= 0.93, "noise {noise}: truth covered on {covered}");
            }
        }
    }

    #[test]
    fn faces_are_complete_and_people_stay_in_their_split() {
        let config = GeneratorConfig { train: 160, valid: 40, test: 80, size: 40, ..Default::default() };
        let (_folder, pack) = pack(&config);
        let mut people: Vec<(String, Split)> = Vec::new();
        for face in pack.faces() {
            assert_eq!(face.votes.iter().sum::<u32>(), 10);
            assert_eq!(face.panel.len(), 10);
            for (column, &votes) in face.votes.iter().enumerate() {
                assert_eq!(face.panel.iter().filter(|c| **c == Some(column as Class)).count() as u32, votes);
            }
            if face.split != Split::Train {
                assert_eq!(face.label, face.truth);
            }
            assert_eq!(face.landmarks.len(), 5);
            people.push((face.id.rsplit_once('-').unwrap().0.to_string(), face.split));
        }
        // Person numbers restart in every split, but the stream a person is drawn from is named by the split too.
        let streams = Streams::new(config.seed);
        let looks: HashSet<String> = people
            .iter()
            .map(|(id, split)| {
                let number = id.rsplit_once('p').unwrap().1.parse().unwrap();
                format!("{:?}", identity::Identity::draw(&mut streams.at("identity", &[*split as u64, number])))
            })
            .collect();
        let distinct: HashSet<_> = people.iter().collect();
        assert_eq!(looks.len(), distinct.len());
    }

    #[test]
    fn test_classes_are_balanced_and_train_classes_are_not() {
        let config = GeneratorConfig { train: 1000, valid: 0, test: 800, ..Default::default() };
        let mut counts = [[0usize; 8]; 3];
        plans(&config).iter().for_each(|p| counts[p.split as usize][p.truth] += 1);
        assert!(counts[Split::Test as usize].iter().all(|c| (95..=105).contains(c)), "{counts:?}");
        for (count, share) in counts[Split::Train as usize].iter().zip(TRAIN_SHARES) {
            assert!((*count as f64 - 1000.0 * share).abs() < 8.0, "{counts:?}");
        }
    }

    #[test]
    fn pictures_use_the_range_at_every_size() {
        for size in [32, 48, 100, 224] {
            let config = GeneratorConfig { train: 6, valid: 0, test: 0, size, ..Default::default() };
            let (_folder, pack) = pack(&config);
            for i in 0..6 {
                let data = pack.pixels(i).unwrap().data;
                assert_eq!(data.len(), size * size);
                let (low, high) = (data.iter().min().unwrap(), data.iter().max().unwrap());
                assert!(high - low > 80, "size {size}: flat picture {low}..{high}");
            }
        }
    }
}
