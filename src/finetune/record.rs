//! What a stage that decides labels notes of each ambiguous face: every flip as it happens, all confidences at the end of an epoch.
//!
//! Owns the flips of the epoch under way, which travel in checkpoints, and the file that finished epochs go to
//! ([`history`](crate::run::history)). It watches and decides nothing.

use crate::config::Objective;
use crate::dataset::Pack;
use crate::engine::objective::EpochEnd;
use crate::labels::{ConfidenceTable, confidence};
use crate::run::history::{self, Frame, Header, HistoryWriter, Subject};
use crate::run::{Body, Level};
use anyhow::{Context, Result};

/// The record of one stage.
pub struct Record {
    objective: Objective,
    /// Rows of the table that are ambiguous, in order: the history's faces.
    rows: Vec<usize>,
    /// Optimiser steps of the epoch under way.
    steps: u64,
    /// Its flips; steps counted within the epoch.
    flips: Vec<history::Flip>,
    /// Opened at the end of the first epoch, when the run folder is known.
    writer: Option<HistoryWriter>,
}

impl Record {
    pub fn new(objective: Objective, table: &ConfidenceTable) -> Self {
        let rows = (0..table.len()).filter(|&i| table.is_ambiguous(i)).collect();
        Self { objective, rows, steps: 0, flips: Vec::new(), writer: None }
    }

    /// Flips of the epoch under way.
    pub fn flips(&self) -> usize {
        self.flips.len()
    }

    /// Notes an optimiser step and what it flipped.
    pub fn step(&mut self, flips: &[confidence::Flip]) {
        self.steps += 1;
        for flip in flips {
            // Only ambiguous rows are revised, so every flip is of one of them.
            if let Ok(face) = self.rows.binary_search(&flip.face) {
                self.flips.push(history::Flip { face: face as u32, step: self.steps, from: flip.from, to: flip.to });
            }
        }
    }

    /// Appends the epoch that has just ended. `train`: the rows' positions in the pack.
    pub fn end_epoch(&mut self, pack: &Pack, train: &[usize], table: &ConfidenceTable, end: &EpochEnd) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let header = self.header(pack, train, table);
                let path = end.folder.history(self.objective.name());
                let (writer, lost) = end.with_room(|| HistoryWriter::open(&path, &header, end.epoch as u32))?;
                if let Some(text) = lost {
                    end.events.emit(end.at, Body::Message { level: Level::Warning, text });
                }
                writer
            }
        };
        let row = |&row: &usize| table.candidates(row).iter().map(move |&c| history::quantise(table.row(row)[usize::from(c)]));
        let before = end.at.step - self.steps;
        let frame = Frame {
            epoch: end.epoch as u32,
            step: end.at.step,
            confidences: self.rows.iter().flat_map(row).collect(),
            flips: self.flips.iter().map(|flip| history::Flip { step: before + flip.step, ..*flip }).collect(),
        };
        end.with_room(|| writer.append(&frame, end.checkpoint))?;
        (self.steps, self.writer) = (0, Some(writer));
        self.flips.clear();
        Ok(())
    }

    fn header(&self, pack: &Pack, train: &[usize], table: &ConfidenceTable) -> Header {
        let subject = |&row: &usize| {
            let face = &pack.faces()[train[row]];
            let candidates = table.candidates(row).to_vec();
            Subject { id: face.id.clone(), given: face.label, candidates, votes: face.votes.clone() }
        };
        Header {
            objective: self.objective.name().into(),
            classes: pack.protocol().classes.clone(),
            pack_hash: pack.hash(),
            faces: self.rows.iter().map(subject).collect(),
        }
    }

    /// The epoch under way, for a checkpoint.
    pub fn state(&self) -> Vec<u8> {
        [self.steps.to_le_bytes().to_vec(), history::Flip::pack(&self.flips)].concat()
    }

    /// Puts [`Record::state`] back.
    ///
    /// # Errors
    /// If the bytes are not of this kind.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let damaged = "the saved flips are damaged";
        let (steps, flips) = state.split_first_chunk().context(damaged)?;
        let flips = history::Flip::unpack(flips).context(damaged)?;
        anyhow::ensure!(flips.iter().all(|f| (f.face as usize) < self.rows.len()), damaged);
        // The file may hold later epochs than the state: it is opened anew, and they are cut off.
        (self.steps, self.flips, self.writer) = (u64::from_le_bytes(*steps), flips, None);
        Ok(())
    }
}
