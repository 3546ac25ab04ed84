//! The contact sheet of an audit: the most suspicious faces, each with its label before and after.
//!
//! Under a face stand its rank and suspicion, the given label struck through where it is contradicted, the suggested one, and for both a pair
//! of bars: the share of the votes (before, pale) and what the witnesses make of it (after, dark). Where the truth is known it is named.

use super::Audit;
use crate::dataset::Class;
use crate::dataset::sheet::{FAINT, GAP, INK, LETTER, MARGIN, PAPER, RULE, WRONG, enlarge, votes, write};
use crate::usage;
use anyhow::{Context, Result};
use image::{Rgb, RgbImage, imageops};

const RIGHT: Rgb<u8> = Rgb([38, 120, 72]);
/// Faces in a row, at most.
const COLUMNS: usize = 6;
const HEADER: u32 = 66;
const LINE: u32 = 12;
/// Lines of text under a face, and the two pairs of bars.
const CAPTION: u32 = 6 * LINE + 4;
const BAR: u32 = 4;

/// Lays out the first `top` findings.
///
/// # Errors
/// Without the pack's pictures ([`Usage`](crate::failure::Usage)), or if one cannot be read.
pub fn sheet(audit: &Audit, top: usize) -> Result<RgbImage> {
    let Some(pack) = &audit.evidence.pack else { usage!("a contact sheet needs the run's pack: say where it is with --data") };
    let shown = &audit.findings[..top.min(audit.findings.len())];
    let place = |n: usize| audit.evidence.faces[shown[n].face].position.context("every face of a pack has a position");
    let largest = (0..shown.len()).map(|n| Ok(pack.size(place(n)?))).collect::<Result<Vec<_>>>()?;
    let largest = largest.iter().map(|s| s.0.max(s.1)).max().unwrap_or(96);
    let cell = (largest as u32 * 144u32.div_ceil(largest as u32)).clamp(144, 224);
    let columns = shown.len().clamp(1, COLUMNS) as u32;
    let rows = shown.len().div_ceil(COLUMNS).max(1) as u32;
    let (column, row) = (cell + GAP, cell + CAPTION + GAP);
    let title = format!("{} - suspicious labels", audit.evidence.folder.name());
    let legend = "bars: share of votes (pale), all witnesses together (dark)";
    let letters = |text: &str, dot: u32| text.chars().count() as u32 * LETTER * dot;
    let width = (2 * MARGIN + columns * column - GAP).max(2 * MARGIN + letters(&title, 2)).max(2 * MARGIN + letters(legend, 1));
    let mut page = RgbImage::from_pixel(width, HEADER + rows * row + MARGIN, PAPER);
    write(&mut page, MARGIN, 20, 2, INK, &title);
    write(&mut page, MARGIN, 44, 1, FAINT, legend);
    for (n, finding) in shown.iter().enumerate() {
        let face = &audit.evidence.faces[finding.face];
        let position = place(n)?;
        let (x, y) = (MARGIN + (n % COLUMNS) as u32 * column, HEADER + (n / COLUMNS) as u32 * row);
        imageops::replace(&mut page, &enlarge(&pack.pixels(position)?, cell)?, i64::from(x), i64::from(y));
        let mut line = y + cell + 4;
        write(&mut page, x, line, 1, FAINT, &format!("{}  suspicion {:.3}", n + 1, finding.suspicion));
        let total: u32 = face.votes.iter().sum();
        let share = |c: Class| if total > 0 { f64::from(face.votes[usize::from(c)]) / f64::from(total) } else { 0.0 };
        let contradicted = finding.is_contradicted();
        for class in [finding.given, finding.suggested] {
            line += LINE;
            let before = class == finding.given;
            let name = audit.name(class);
            write(&mut page, x, line, 1, if before && contradicted { WRONG } else { INK }, name);
            if before && contradicted {
                bar(&mut page, x, line + 3, letters(name, 1), 1, WRONG);
            }
            let width = |share: f64| (share.clamp(0.0, 1.0) * f64::from(cell)).round() as u32;
            line += LINE;
            bar(&mut page, x, line - 2, cell, 2 * BAR, RULE);
            bar(&mut page, x, line - 2, width(share(class)), BAR, FAINT);
            bar(&mut page, x, line - 2 + BAR, width(finding.pooled[usize::from(class)]), BAR, INK);
        }
        line += LINE;
        let fits = (column - LETTER) / LETTER;
        match face.truth {
            Some(truth) => {
                let right = truth == finding.suggested;
                write(&mut page, x, line, 1, if right { RIGHT } else { WRONG }, &format!("truth: {}", audit.name(truth)));
            }
            None => write(&mut page, x, line, 1, FAINT, &votes(&pack.faces()[position], pack.protocol(), fits as usize)),
        }
    }
    Ok(page)
}

fn bar(page: &mut RgbImage, x: u32, y: u32, width: u32, height: u32, colour: Rgb<u8>) {
    for (u, v) in (x..x + width).flat_map(|u| (y..y + height).map(move |v| (u, v))) {
        if u < page.width() && v < page.height() {
            page.put_pixel(u, v, colour);
        }
    }
}
