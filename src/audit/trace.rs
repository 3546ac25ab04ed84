//! What a history says about each face in a few numbers: how often it flipped, when last, and what was believed of it on the way.
//!
//! Streams the file once: memory is a few bytes a candidate and eight a flip, whatever the number of epochs.

use crate::run::HistoryReader;
use crate::run::history::{Frame, Header, Layout, confidence};
use anyhow::Result;

/// Weight of the past in the running mean of confidences, per epoch: the last ten epochs count for two thirds of it.
const MEMORY: f32 = 0.9;
/// The share of the epochs, at the end, whose flips are late.
const LATE: f64 = 0.25;

/// One face's way to its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub flips: u32,
    /// Flips in the last quarter of the epochs.
    pub late_flips: u32,
    /// Epoch of the last flip, from 1; 0: never flipped.
    pub last_flip: u32,
}

/// The traces of all ambiguous faces of a run.
#[derive(Clone, Debug)]
pub struct Traces {
    pub header: Header,
    layout: Layout,
    /// Epochs that the history tells of: the number of the last.
    pub epochs: u32,
    /// In the header's order.
    pub faces: Vec<Trace>,
    /// Flips of all faces, `[from][to]`.
    pub directions: Vec<Vec<u64>>,
    /// Running means and last values of the candidates' confidences.
    means: Vec<f32>,
    last: Vec<u8>,
    /// What ended the history before its end, for people.
    pub damage: Option<String>,
}

impl Traces {
    /// # Errors
    /// Where the disk fails; a damaged history is read up to the damage.
    pub fn read(mut reader: HistoryReader) -> Result<Self> {
        let header = reader.header().clone();
        let layout = reader.layout().clone();
        let mut faces = vec![Trace::default(); header.faces.len()];
        let mut means = vec![0.0f32; layout.bytes()];
        let mut flips: Vec<(u32, u32)> = Vec::new();
        let mut directions = vec![vec![0; header.classes.len()]; header.classes.len()];
        let (mut frame, mut epochs, mut weight) = (Frame::default(), 0, 0.0f32);
        while reader.next_into(&mut frame)? {
            epochs = frame.epoch;
            weight = MEMORY * weight + 1.0 - MEMORY;
            // Divided by the weights' sum, so that the zeros it started from do not count.
            let share = (1.0 - MEMORY) / weight;
            for (mean, &byte) in means.iter_mut().zip(&frame.confidences) {
                *mean += share * (confidence(byte) - *mean);
            }
            for flip in &frame.flips {
                let face = &mut faces[flip.face as usize];
                face.flips += 1;
                face.last_flip = frame.epoch;
                directions[usize::from(flip.from)][usize::from(flip.to)] += 1;
                flips.push((flip.face, frame.epoch));
            }
        }
        let late = f64::from(epochs) * (1.0 - LATE);
        for (face, _) in flips.into_iter().filter(|(_, epoch)| f64::from(*epoch) > late) {
            faces[face as usize].late_flips += 1;
        }
        let damage = reader.damage().map(str::to_string);
        let last = if epochs > 0 { frame.confidences } else { Vec::new() };
        Ok(Self { header, layout, epochs, faces, directions, means, last, damage })
    }

    /// What was believed of face `i` over the epochs, the last ones counting most: one value for each of its candidates.
    pub fn means(&self, i: usize) -> &[f32] {
        &self.means[self.layout.range(i)]
    }

    /// The confidences of face `i` after the last epoch; empty before the first.
    pub fn last(&self, i: usize) -> Vec<f32> {
        self.last.get(self.layout.range(i)).unwrap_or_default().iter().map(|&b| confidence(b)).collect()
    }

    /// The share of the epochs since the last flip of face `i`: 1 for one that never flipped, 0 for one that flipped in the last epoch.
    pub fn settled(&self, i: usize) -> f64 {
        1.0 - f64::from(self.faces[i].last_flip) / f64::from(self.epochs.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::{Flip, HistoryWriter, Subject};

    #[test]
    fn flips_and_means_of_a_history() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("h.bin");
        let subject = |id: &str| Subject { id: id.into(), given: Some(0), candidates: vec![0, 1], votes: vec![5, 5] };
        let header = Header {
            objective: "pll".into(),
            classes: vec!["a".into(), "b".into()],
            pack_hash: "h".into(),
            faces: vec![subject("x"), subject("y")],
        };
        let (mut writer, _) = HistoryWriter::open(&path, &header, 1).unwrap();
        for epoch in 1..=8 {
            let flip = |face| Flip { face, step: u64::from(epoch), from: 0, to: 1 };
            let flips = match epoch {
                2 => vec![flip(0), flip(1)],
                7 => vec![flip(1), flip(1)],
                _ => Vec::new(),
            };
            let confidences = vec![255, 0, if epoch == 8 { 255 } else { 0 }, 0];
            writer.append(&Frame { epoch, step: u64::from(epoch), confidences, flips }, true).unwrap();
        }
        let traces = Traces::read(HistoryReader::open(&path).unwrap()).unwrap();
        assert_eq!(traces.faces, [Trace { flips: 1, late_flips: 0, last_flip: 2 }, Trace { flips: 3, late_flips: 2, last_flip: 7 }]);
        assert_eq!((traces.settled(0), traces.settled(1)), (0.75, 0.125));
        assert_eq!(traces.last(1), [1.0, 0.0]);
        assert_eq!(traces.directions, [[0, 4], [0, 0]]);
        assert!((traces.means(0)[0] - 1.0).abs() < 1e-6 && traces.means(0)[1] == 0.0);
        // One of eight epochs, weighted 0.1 of the sum 1 - 0.9^8.
        assert!((traces.means(1)[0] - 0.1 / (1.0 - 0.9f32.powi(8))).abs() < 1e-5, "{:?}", traces.means(1));
    }
}
