//! Which faces are worth showing, and what is told of each: those that changed their mind most, those decided late, those that ended well
//! against the majority, and those that ended wrong.
//!
//! The ways of all ambiguous faces stand in the run's history, which may be large: it is streamed twice, once to weigh the faces and once for
//! the ways of the few that are chosen. Runs without a history still have the faces that their events follow.

use super::faces::Faces;
use super::figure::strips::{Candidate, Strip};
use super::record::{Label, Record, Watched};
use crate::dataset::Class;
use crate::failure::one_line;
use crate::run::history::{Frame, HistoryReader, confidence};
use anyhow::Result;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Faces of a chapter.
const FACES: usize = 5;

/// How the ambiguous faces of a run came to their labels.
#[derive(Default)]
pub struct Stories {
    pub chapters: Vec<Chapter>,
    /// How many faces they were chosen from.
    pub of: usize,
    /// Every change of a likeliest candidate, `[from][to]`; empty where there is no history.
    pub moves: Vec<Vec<u64>>,
    /// What is missing, and why.
    pub gap: Option<String>,
}

/// How one face came to its label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Story {
    pub face: String,
    pub candidates: Vec<Class>,
    pub given: Option<Class>,
    pub truth: Option<Class>,
    /// Epochs at which the likeliest candidate changed.
    pub flips: Vec<f64>,
    /// Confidence that moved between successive epochs, in all, and where it ended.
    pub moved: f32,
    pub last: Vec<f32>,
    /// Confidence of each candidate at each of the epochs; empty until the face is chosen.
    pub epochs: Vec<f64>,
    pub shares: Vec<Vec<f32>>,
}

/// Faces that have something in common.
pub struct Chapter {
    /// For file names and anchors.
    pub name: &'static str,
    pub title: &'static str,
    pub says: &'static str,
    pub stories: Vec<Story>,
}

impl Stories {
    pub fn read(record: &Record) -> Self {
        let Some(stage) = record.decider() else { return Self::default() };
        let labels: HashMap<&str, &Label> = record.labels.iter().map(|l| (l.face.as_str(), l)).collect();
        let path = record.folder.history(&stage.label);
        let (why, damaged) = match Self::from_history(&path, &labels) {
            Ok(stories) => return stories,
            Err(_) if !path.exists() => ("This run kept no history of every face".to_string(), false),
            Err(error) => (one_line(&error), true),
        };
        let all: Vec<Story> = stage.watched.iter().map(|w| Story::watched(w, labels.get(w.face.as_str()).copied())).collect();
        let (of, mut chapters) = (all.len(), chapters(&all));
        for story in chapters.iter_mut().flat_map(|c| &mut c.stories) {
            if let Some(watched) = stage.watched.iter().find(|w| w.face == story.face) {
                (story.epochs, story.shares) = (watched.epochs.clone(), watched.shares.clone());
            }
        }
        let gap = format!("{why}{} the faces below are chosen from the {of} that its log follows.", if damaged { ";" } else { ":" });
        Self { chapters, of, moves: Vec::new(), gap: Some(gap) }
    }

    fn from_history(path: &Path, labels: &HashMap<&str, &Label>) -> Result<Self> {
        let mut reader = HistoryReader::open(path)?;
        let layout = reader.layout().clone();
        let classes = reader.header().classes.len();
        let mut moves = vec![vec![0; classes]; classes];
        let mut all: Vec<Story> = reader
            .header()
            .faces
            .iter()
            .map(|subject| {
                let truth = labels.get(subject.id.as_str()).and_then(|l| l.truth);
                Story { face: subject.id.clone(), candidates: subject.candidates.clone(), given: subject.given, truth, ..Story::default() }
            })
            .collect();
        let (mut frame, mut before) = (Frame::default(), (0.0, 0));
        while reader.next_into(&mut frame)? {
            for (i, story) in all.iter_mut().enumerate() {
                let now = frame.confidences[layout.range(i)].iter().map(|&byte| confidence(byte));
                story.moved += now.clone().zip(&story.last).map(|(now, before)| (now - before).abs()).sum::<f32>() / 2.0;
                story.last.clear();
                story.last.extend(now);
            }
            let (epoch, step) = (f64::from(frame.epoch), frame.step);
            let at = |flip: u64| before.0 + (epoch - before.0) * (flip.saturating_sub(before.1)) as f64 / (step - before.1).max(1) as f64;
            for flip in &frame.flips {
                if let Some(story) = all.get_mut(flip.face as usize) {
                    story.flips.push(at(flip.step));
                }
                if let Some(n) = moves.get_mut(usize::from(flip.from)).and_then(|row| row.get_mut(usize::from(flip.to))) {
                    *n += 1;
                }
            }
            before = (epoch, step);
        }
        let gap = reader.damage().map(String::from);
        let mut chapters = chapters(&all);
        let places: HashMap<&str, usize> = all.iter().enumerate().map(|(i, s)| (s.face.as_str(), i)).collect();
        let mut reader = HistoryReader::open(path)?;
        while reader.next_into(&mut frame)? {
            for story in chapters.iter_mut().flat_map(|c| &mut c.stories) {
                let shares = &frame.confidences[layout.range(places[story.face.as_str()])];
                story.epochs.push(f64::from(frame.epoch));
                story.shares.push(shares.iter().map(|&byte| confidence(byte)).collect());
            }
        }
        Ok(Self { chapters, of: all.len(), moves, gap })
    }
}

impl Story {
    fn watched(face: &Watched, label: Option<&Label>) -> Self {
        let mut likeliest = face.shares.first().and_then(|s| top(s));
        let mut flips = Vec::new();
        for (epoch, shares) in face.epochs.iter().zip(&face.shares) {
            let now = top(shares);
            if now.is_some() && now != likeliest {
                flips.push(*epoch);
                likeliest = now;
            }
        }
        let between = |pair: &[Vec<f32>]| pair[0].iter().zip(&pair[1]).map(|(a, b)| (a - b).abs()).sum::<f32>() / 2.0;
        let moved: f32 = face.shares.windows(2).map(between).sum();
        Self {
            face: face.face.clone(),
            candidates: face.candidates.clone(),
            given: label.and_then(|l| l.given),
            truth: face.truth.or(label.and_then(|l| l.truth)),
            flips,
            moved: if moved.is_finite() { moved } else { 0.0 },
            last: face.shares.last().cloned().unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The likeliest candidate in the end, and by how much.
    fn end(&self) -> Option<(Class, f32)> {
        let best = top(&self.last)?;
        let second = (0..self.last.len()).filter(|i| *i != best).map(|i| self.last[i]).fold(0.0, f32::max);
        Some((*self.candidates.get(best)?, self.last[best] - second))
    }

    /// With names and a picture.
    pub fn strip(&self, record: &Record, faces: &Faces) -> Strip {
        let known = |c: Class| {
            let notes = [(self.given, "given"), (self.truth, "true")];
            Candidate { class: record.class(c), notes: notes.into_iter().filter(|n| n.0 == Some(c)).map(|n| n.1).collect() }
        };
        Strip {
            id: self.face.clone(),
            picture: faces.picture(&self.face),
            candidates: self.candidates.iter().map(|&c| known(c)).collect(),
            epochs: self.epochs.clone(),
            shares: self.shares.clone(),
            flips: self.flips.clone(),
        }
    }
}

fn top(shares: &[f32]) -> Option<usize> {
    (0..shares.len()).filter(|&i| !shares[i].is_nan()).reduce(|a, b| if shares[b] > shares[a] { b } else { a })
}

/// Chapters of at most five faces each; no face stands in two. Empty ones are left out.
fn chapters(stories: &[Story]) -> Vec<Chapter> {
    let known = stories.iter().any(|s| s.truth.is_some());
    let mut taken: HashSet<&str> = HashSet::new();
    let mut chapters = Vec::new();
    let mut tell = |name, title, says, weight: &dyn Fn(&Story) -> Option<f64>| {
        let free = stories.iter().filter(|s| !taken.contains(s.face.as_str()));
        let mut weighed: Vec<(f64, &Story)> = free.filter_map(|s| Some((weight(s)?, s))).collect();
        weighed.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.face.cmp(&b.1.face)));
        weighed.truncate(FACES);
        taken.extend(weighed.iter().map(|(_, s)| s.face.as_str()));
        let stories: Vec<Story> = weighed.into_iter().map(|(_, s)| s.clone()).collect();
        if !stories.is_empty() {
            chapters.push(Chapter { name, title, says, stories });
        }
    };
    let margin = |s: &Story| s.end().map(|e| f64::from(e.1));
    if known {
        tell("wrong", "Wrong in the end", "The decided label is not the true one; the surest first.", &|s| {
            let (class, margin) = s.end()?;
            (s.truth? != class).then_some(f64::from(margin))
        });
        tell(
            "against",
            "Right against the majority",
            "The decided label is the true one, the given label is not; the surest first.",
            &|s| {
                let (class, margin) = s.end()?;
                (s.truth? == class && s.given.is_some_and(|g| g != class)).then_some(f64::from(margin))
            },
        );
    } else {
        tell("against", "Decided against the given label", "The surest first: these are the labels to look at.", &|s| {
            let (class, margin) = s.end()?;
            s.given.is_some_and(|g| g != class).then_some(f64::from(margin))
        });
        tell("open", "Still open", "The two likeliest candidates are closest.", &|s| margin(s).filter(|m| *m < 0.9).map(|m| -m));
    }
    tell("restless", "Changed their mind most", "Most changes of the likeliest candidate.", &|s| {
        (!s.flips.is_empty()).then(|| s.flips.len() as f64 * 1000.0 + f64::from(s.moved))
    });
    tell("late", "Decided late", "The last change of mind came latest, and settled it.", &|s| {
        s.flips.last().copied().filter(|_| margin(s).is_some_and(|m| m > 0.5))
    });
    if chapters.is_empty() {
        tell_all(&mut chapters, stories);
    }
    chapters
}

/// Where nothing stands out, the first faces stand for all.
fn tell_all(chapters: &mut Vec<Chapter>, stories: &[Story]) {
    let stories: Vec<Story> = stories.iter().take(FACES).cloned().collect();
    if !stories.is_empty() {
        chapters.push(Chapter { name: "faces", title: "Some faces", says: "None of them changed its likeliest candidate.", stories });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A face between classes 1 and 4 whose confidence in class 4 goes this way.
    fn story(face: &str, way: &[f32], given: Class, truth: Option<Class>) -> Story {
        let watched = Watched {
            face: face.into(),
            candidates: vec![1, 4],
            truth,
            epochs: (1..=way.len()).map(|e| e as f64).collect(),
            shares: way.iter().map(|&p| vec![1.0 - p, p]).collect(),
        };
        let label = Label { face: face.into(), given: Some(given), decided: 1, margin: 0.0, ambiguous: true, truth: None };
        Story::watched(&watched, Some(&label))
    }

    #[test]
    fn faces_stand_where_they_belong_and_only_once() {
        let all = [
            story("wrong", &[0.4, 0.6, 0.9], 4, Some(1)),
            story("right", &[0.6, 0.7, 1.0], 1, Some(4)),
            story("restless", &[0.6, 0.4, 0.6, 0.4, 0.9], 4, Some(4)),
            story("calm", &[0.3, 0.2, 0.1], 1, Some(1)),
        ];
        assert_eq!((all[2].flips.as_slice(), all[0].end()), (&[2.0, 3.0, 4.0, 5.0][..], Some((4, 0.79999995))));
        let told: Vec<(&str, Vec<String>)> =
            chapters(&all).into_iter().map(|c| (c.name, c.stories.into_iter().map(|s| s.face).collect())).collect();
        let expected = [("wrong", "wrong"), ("against", "right"), ("restless", "restless")].map(|(c, f)| (c, vec![f.to_string()]));
        assert_eq!(told, expected);
    }

    #[test]
    fn without_truth_nothing_is_called_right_or_wrong() {
        let all = [story("a", &[0.4, 0.9], 1, None), story("b", &[0.5, 0.55], 4, None)];
        let names: Vec<&str> = chapters(&all).iter().map(|c| c.name).collect();
        assert_eq!(names, ["against", "open"]);
        assert_eq!(chapters(&[story("c", &[f32::NAN, f32::NAN], 1, None)])[0].name, "faces");
        assert!(chapters(&[]).is_empty());
    }
}
