//! What is to be looked at: pictures of features and predictions, and the report of runs.
//!
//! ```text
//! run folder -> record (what it says, and what is missing) -> scores (the result table), stories (faces worth showing)
//! the pack   -> faces (pictures) ------------------------------------------------\            |
//!                                   figure (one kind a file, SVG and PNG) <- figures -> page (one HTML file)
//! ```
//! A report is made from run folders alone; where the pack can be opened it also shows faces. It needs no GPU and no network, neither to be
//! made nor to be read.

pub mod attention;
pub mod faces;
pub mod figure;
pub mod figures;
pub mod glyphs;
pub mod page;
pub mod reconstruction;
pub mod record;
pub mod scores;
pub mod stories;
