//! Which panels are where, from 80x24 (and less) to a wall of a screen.
//!
//! A place may be shared by several panels; the one that was chosen last is in front. So no panel is ever out of reach, and a panel that is
//! in sight does not move because another one got the keys.

use super::View;
use crate::run::Stage;
use ratatui::layout::Rect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    Loss,
    Confidence,
    Board,
    Classes,
    Confusion,
    Labels,
    Numbers,
    Pictures,
    Log,
}

impl Panel {
    pub const ALL: [Panel; 9] = [Loss, Confidence, Board, Classes, Confusion, Labels, Numbers, Pictures, Log];

    pub fn title(self) -> &'static str {
        match self {
            Panel::Loss => "loss",
            Panel::Confidence => "confidence",
            Panel::Board => "candidates",
            Panel::Classes => "classes",
            Panel::Confusion => "confusion",
            Panel::Labels => "labels",
            Panel::Numbers => "numbers",
            Panel::Pictures => "pictures",
            Panel::Log => "log",
        }
    }

    pub fn next(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0) as isize;
        Self::ALL[(at + by).rem_euclid(Self::ALL.len() as isize) as usize]
    }
}

/// A panel in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub panel: Panel,
    pub area: Rect,
    /// All panels of the place, this one among them.
    pub shared: &'static [Panel],
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub header: Rect,
    pub panels: Vec<Placed>,
    pub footer: Rect,
}

/// A place: the panels in it, and its part of the column's height (of the rows that fixed places leave).
struct Place(&'static [Panel], Height);

enum Height {
    Rows(u16),
    Share(u16),
}
use Height::{Rows, Share};
use Panel::*;

pub const HEADER: u16 = 3;
const GUTTER: u16 = 2;

/// What a stage is about, and so which panels it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Labels are being decided.
    Labels,
    /// Classes are learned from labels as they are.
    Classes,
    /// Pictures only.
    Pictures,
}

impl Kind {
    pub fn of(stage: Stage) -> Self {
        match stage {
            Stage::Pretrain => Kind::Pictures,
            Stage::Baseline => Kind::Classes,
            _ => Kind::Labels,
        }
    }
}

type Column<'a> = (u16, &'a [Place]);

pub fn arrange(area: Rect, view: &View, kind: Kind) -> Plan {
    let header = Rect { height: HEADER.min(area.height), ..area };
    let footer = Rect { y: area.bottom().saturating_sub(1), height: u16::from(area.height > HEADER), ..area };
    let body = Rect { y: header.bottom(), height: area.height.saturating_sub(header.height + footer.height), ..area };
    let wide = body.width >= 180 && body.height >= 40;
    let medium = body.width >= 100 && body.height >= 26;
    let panels = if view.zoom || body.width < 60 || body.height < 14 {
        vec![Placed { panel: view.focus(), area: body, shared: &Panel::ALL }]
    } else {
        let plan: &[Column] = match kind {
            Kind::Labels if wide => &[
                (34, &[Place(&[Loss], Share(45)), Place(&[Confidence], Share(33)), Place(&[Labels], Share(22))]),
                (38, &[Place(&[Board], Share(76)), Place(&[Numbers, Pictures], Share(24))]),
                (28, &[Place(&[Classes], Rows(11)), Place(&[Confusion], Share(50)), Place(&[Log], Share(50))]),
            ],
            Kind::Labels if medium => &[
                (50, &[Place(&[Loss], Share(40)), Place(&[Confidence], Share(35)), Place(&[Labels, Numbers, Pictures], Share(25))]),
                (50, &[Place(&[Board], Share(62)), Place(&[Classes, Confusion], Rows(10)), Place(&[Log], Share(38))]),
            ],
            Kind::Labels => &[
                (50, &[Place(&[Loss, Numbers], Share(52)), Place(&[Confidence, Labels], Share(48))]),
                (50, &[Place(&[Board, Log], Share(55)), Place(&[Classes, Confusion, Pictures], Share(45))]),
            ],
            Kind::Classes if medium => &[
                (50, &[Place(&[Loss], Share(64)), Place(&[Numbers, Confidence, Board, Labels, Pictures], Share(36))]),
                (50, &[Place(&[Classes], Rows(10)), Place(&[Confusion], Share(50)), Place(&[Log], Share(50))]),
            ],
            Kind::Classes => &[
                (50, &[Place(&[Loss], Share(52)), Place(&[Log, Numbers, Confidence, Board, Labels, Pictures], Share(48))]),
                (50, &[Place(&[Classes], Share(50)), Place(&[Confusion], Share(50))]),
            ],
            Kind::Pictures if medium => &[
                (50, &[Place(&[Loss], Share(64)), Place(&[Numbers, Confidence, Board, Classes, Confusion, Labels], Share(36))]),
                (50, &[Place(&[Pictures], Share(74)), Place(&[Log], Share(26))]),
            ],
            Kind::Pictures => &[
                (50, &[Place(&[Loss], Share(52)), Place(&[Numbers, Log, Confidence, Labels], Share(48))]),
                (50, &[Place(&[Pictures, Board, Classes, Confusion], Share(100))]),
            ],
        };
        columns(body, view, plan)
    };
    Plan { header, panels, footer }
}

/// `share` hundredths of `room`. Of more than 655 cells the product does not fit into 16 bits.
fn hundredths(room: u16, share: u16) -> u16 {
    (u32::from(room) * u32::from(share) / 100) as u16
}

fn columns(body: Rect, view: &View, plan: &[Column]) -> Vec<Placed> {
    let mut placed = Vec::new();
    let room = body.width - GUTTER * (plan.len() as u16 - 1);
    let (mut x, mut used, mut share) = (body.x, 0, 0);
    for (part, places) in plan {
        share += part;
        let width = hundredths(room, share) - used;
        used += width;
        let fixed: u16 = places.iter().map(|p| if let Rows(n) = p.1 { n } else { 0 }).sum();
        let free = body.height.saturating_sub(fixed);
        let (mut y, mut parts, mut spent) = (body.y, 0, 0);
        for Place(shared, height) in *places {
            let height = match height {
                Rows(n) => *n,
                Share(n) => {
                    parts += n;
                    let height = hundredths(free, parts) - spent;
                    spent += height;
                    height
                }
            };
            let panel = view.recent.iter().copied().find(|p| shared.contains(p)).unwrap_or(shared[0]);
            placed.push(Placed { panel, area: Rect::new(x, y, width, height).intersection(body), shared });
            y += height;
        }
        x += width + GUTTER;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(u16, u16); 12] =
        [(0, 0), (1, 1), (20, 5), (59, 80), (80, 24), (100, 33), (120, 40), (179, 1000), (180, 44), (200, 60), (250, 70), (900, 1000)];

    const KINDS: [Kind; 3] = [Kind::Labels, Kind::Classes, Kind::Pictures];

    #[test]
    fn panels_fill_the_screen_without_overlap() {
        for ((width, height), kind) in SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (size, kind))) {
            let area = Rect::new(0, 0, width, height);
            let plan = arrange(area, &View::default(), kind);
            let mut all: Vec<Rect> = plan.panels.iter().map(|p| p.area).chain([plan.header, plan.footer]).collect();
            assert!(all.iter().all(|r| area.union(*r) == area || r.area() == 0), "{width}x{height}: {all:?}");
            all.retain(|r| r.area() > 0);
            for (i, a) in all.iter().enumerate() {
                assert!(all[i + 1..].iter().all(|b| !a.intersects(*b)), "{width}x{height}: {all:?}");
            }
            // What is left free are the gutters.
            let free = area.area() - all.iter().map(|r| r.area()).sum::<u32>();
            assert!(free <= u32::from(GUTTER) * 2 * u32::from(height), "{width}x{height}: {free}");
        }
    }

    #[test]
    fn every_panel_can_be_brought_to_the_front() {
        for ((width, height), kind) in SIZES.into_iter().skip(2).flat_map(|size| KINDS.map(|kind| (size, kind))) {
            for panel in Panel::ALL {
                let mut view = View::default();
                view.bring(panel);
                let plan = arrange(Rect::new(0, 0, width, height), &view, kind);
                assert!(plan.panels.iter().any(|p| p.panel == panel), "{panel:?} at {width}x{height}");
            }
        }
    }
}
