//! `moue import`: the arguments of each importer, and the report it prints.
//!
//! Refuses combinations that would be ignored in silence, such as `--align-margin` without `--align`.

use crate::dataset::import::{self, Listing, Options, affectnet, ferplus, folder, rafdb};
use crate::dataset::votes::Rule;
use crate::usage;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;

/// Make a pack from a data set.
#[derive(Debug, Args)]
#[command(
    long_about = "Make a pack from a data set.\n\nA pack is one file with the faces, their votes, splits and landmarks, and the card that says what \
                  the labels mean. Every import prints the counts, how ambiguous the votes are, what was dropped and why, and \
                  pixel-identical copies between splits; the same figures are stored in the pack.",
    after_help = "Examples:\n  moue import ferplus ferplus.zip --out ferplus.moue --drop-leaks\n  moue import rafdb RAF-DB/basic --out \
                  rafdb.moue --valid-share 0.1\n  moue import folder my-faces --out mine.moue --size 112 --classes calm,happy,sad"
)]
pub struct Import {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Source {
    Ferplus(Ferplus),
    Rafdb(Rafdb),
    Affectnet(Affectnet),
    Folder(Folder),
}

/// What every importer can do with pictures.
#[derive(Debug, Args)]
struct Common {
    /// Pack to write; replaced if it is one already
    #[arg(long, value_name = "PACK")]
    out: PathBuf,
    /// Stretch pictures to N x N pixels (default: each keeps its own size)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Align faces with 5 or 68 landmarks to the ArcFace template (at --size, default 112)
    #[arg(long)]
    align: bool,
    /// Show this much more around an aligned face: 0.15 shows 1.15 times the template's field of view (default 0)
    #[arg(long, value_name = "SHARE", requires = "align")]
    align_margin: Option<f64>,
    /// Leave out train faces that have a pixel-identical copy in valid or test
    #[arg(long)]
    drop_leaks: bool,
    /// Count missing and damaged pictures as dropped instead of stopping
    #[arg(long)]
    skip_unreadable: bool,
}

/// Faces of train to be kept aside for validation.
#[derive(Debug, Args)]
struct Carve {
    /// Move this share of the train faces of each class to valid, for sources that have no valid split
    #[arg(long, value_name = "SHARE")]
    valid_share: Option<f64>,
    /// Seed of the draw
    #[arg(long, default_value_t = 0, requires = "valid_share")]
    seed: u64,
}

/// How votes become labels.
#[derive(Debug, Args)]
struct Vote {
    /// Rule that makes labels from votes
    #[arg(long, value_enum, default_value_t = Rule::Majority)]
    rule: Rule,
    /// Keep train faces that the rule leaves open but that have a class with two votes or more: without a label, for
    /// partial-label training
    #[arg(long)]
    keep_ambiguous: bool,
}

/// FERPlus: FER2013Train/, FER2013Valid/, FER2013Test/ with label.csv, a zip of them, or fer2013.csv with --votes
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moue import ferplus FERPlus/data --out ferplus.moue\n  moue import ferplus fer2013.csv.gz --votes \
                        fer2013new.csv --out ferplus.moue --rule argmax")]
struct Ferplus {
    /// Folder, .zip, or fer2013.csv (also .csv.gz)
    source: PathBuf,
    /// FERPlus's fer2013new.csv, joined with fer2013.csv row by row
    #[arg(long, value_name = "FILE")]
    votes: Option<PathBuf>,
    #[command(flatten)]
    vote: Vote,
    #[command(flatten)]
    common: Common,
}

/// RAF-DB basic: EmoLabel/list_patition_label.txt and Image/
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  moue import rafdb RAF-DB/basic --out rafdb.moue --valid-share 0.1\n  moue import rafdb RAF-DB/basic \
                        --pictures original --align --out rafdb.moue")]
struct Rafdb {
    /// The `basic` folder
    source: PathBuf,
    /// Which pictures to take; manual landmarks (Annotation/manual) exist for the original ones
    #[arg(long, value_enum, default_value_t = rafdb::Pictures::Aligned)]
    pictures: rafdb::Pictures,
    /// Annotators' distribution, lines `train_00001.jpg p1 ... p7`; stored as votes in thousandths
    #[arg(long, value_name = "FILE")]
    distribution: Option<PathBuf>,
    #[command(flatten)]
    carve: Carve,
    #[command(flatten)]
    common: Common,
}

/// AffectNet: training.csv and validation.csv, or train_set/ and val_set/ with .npy annotations
#[derive(Debug, Args)]
#[command(
    after_help = "The published validation set is imported as test.\n\nExample:\n  moue import affectnet AffectNet --classes 7 --align \
                        --size 224 --valid-share 0.02 --out affectnet.moue"
)]
struct Affectnet {
    /// Folder with the csv files or with train_set/ and val_set/
    source: PathBuf,
    /// Picture folder of the csv layout (default: Manually_Annotated_Images/, images/ or the source folder)
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// 7, or 8 with contempt
    #[arg(long, default_value_t = 8)]
    classes: usize,
    #[command(flatten)]
    carve: Carve,
    #[command(flatten)]
    common: Common,
}

/// Your own pictures: class folders, or images/ with votes.csv, annotations.csv or candidates.csv
#[derive(Debug, Args)]
#[command(after_help = "Layouts:\n  train/happy/*.png  valid/happy/*.png ...   or   happy/*.png ... with --valid-share\n  images/*  and  \
                        votes.csv: file,split,<class names>[,unknown,NF]   (split may be left out)\n  images/*  and  annotations.csv: \
                        file,annotator,label,split   one line for each answer\n  images/*  and  candidates.csv: file,candidates,split,label   \
                        with candidates as happy|calm\n\nExample:\n  moue import folder my-faces --valid-share \
                        0.1 --seed 7 --out mine.moue")]
struct Folder {
    source: PathBuf,
    /// Class names in label order; needed where classes are numbers
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    classes: Option<Vec<String>>,
    /// Name on the label card (default: folder-<number of classes>)
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    vote: Vote,
    #[command(flatten)]
    carve: Carve,
    #[command(flatten)]
    common: Common,
}

impl Import {
    /// Imports and prints the report on stdout.
    pub fn run(self) -> Result<()> {
        let (listing, common) = match self.source {
            Source::Ferplus(a) => {
                a.common.check()?;
                (ferplus::list(&a.source, a.votes.as_deref(), a.vote.rule, a.vote.keep_ambiguous)?, a.common)
            }
            Source::Rafdb(a) => {
                a.common.check()?;
                (a.carve.apply(rafdb::list(&a.source, a.pictures, a.distribution.as_deref())?)?, a.common)
            }
            Source::Affectnet(a) => {
                a.common.check()?;
                (a.carve.apply(affectnet::list(&a.source, a.images.as_deref(), a.classes)?)?, a.common)
            }
            Source::Folder(a) => {
                a.common.check()?;
                let classes = a.classes.map(|names| names.iter().map(|n| n.trim().to_owned()).collect());
                let request = folder::Request { classes, name: a.name, rule: a.vote.rule, keep_ambiguous: a.vote.keep_ambiguous };
                (a.carve.apply(folder::list(&a.source, &request)?)?, a.common)
            }
        };
        let imported = import::run(listing, &common.options(), &common.out)?;
        let mut stdout = std::io::stdout().lock();
        // A closed pipe (`| head`) is no failure: the pack is written.
        let _ = writeln!(stdout, "{imported}\nwrote {}", common.out.display());
        Ok(())
    }
}

impl Common {
    fn check(&self) -> Result<()> {
        match self.align_margin {
            Some(margin) if !(0.0..=4.0).contains(&margin) => usage!("--align-margin {margin} is not between 0 and 4"),
            _ => Ok(()),
        }
    }

    fn options(&self) -> Options {
        let own = self.size.map(|s| s as usize);
        Options {
            size: if self.align { own.or(Some(crate::transform::align::TEMPLATE_SIDE)) } else { own },
            align: self.align.then(|| self.align_margin.unwrap_or(0.0)),
            drop_leaks: self.drop_leaks,
            skip_unreadable: self.skip_unreadable,
        }
    }
}

impl Carve {
    fn apply(&self, mut listing: Listing) -> Result<Listing> {
        if let Some(share) = self.valid_share {
            listing.carve_valid(share, self.seed)?;
        }
        Ok(listing)
    }
}
