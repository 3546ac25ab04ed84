//! `moue data`: generate faces, look into a pack, check it.
//!
//! Owns the arguments and what is printed; drawing, counting and layout live in `dataset`.

use super::output::check_output;
use crate::dataset::generated::{self, GeneratorConfig};
use crate::dataset::profile::Profile;
use crate::dataset::sheet::{self, SheetConfig};
use crate::dataset::{Pack, PackWriter, Split};
use crate::run::progress::plain;
use crate::usage;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  moue data generate --out faces.moue --train 10000 --noise 1.0
  moue data info faces.moue
  moue data sheet faces.moue --out sheet.png --ambiguous")]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Draw faces with a known truth and let ten simulated annotators disagree about them
    #[command(after_help = "\
About four in ten faces blend two expressions; on these the panel is divided, and at noise 1 its majority is wrong \
on about four in ten of them. Valid and test faces carry the truth as their label. The same settings always give the same bytes.

Example:
  moue data generate --out faces.moue --train 20000 --seed 7")]
    Generate(GenerateArgs),
    /// Print the label card, class counts, how much annotators disagree, and where the pack came from
    #[command(after_help = "Example:\n  moue data info faces.moue")]
    Info {
        /// The pack to read
        pack: PathBuf,
    },
    /// Lay faces out on one labelled picture, a row for each class
    #[command(after_help = "Example:\n  moue data sheet faces.moue --out sheet.png --per-class 10 --ambiguous")]
    Sheet(SheetArgs),
    /// Read every picture and compare with the hashes in the pack
    #[command(after_help = "Example:\n  moue data verify faces.moue")]
    Verify {
        /// The pack to check
        pack: PathBuf,
    },
}

#[derive(Debug, Args)]
struct GenerateArgs {
    /// The pack to write
    #[arg(long, value_name = "PACK")]
    out: PathBuf,
    /// Number of train faces
    #[arg(long, value_name = "N", default_value_t = GeneratorConfig::default().train)]
    train: usize,
    /// Number of validation faces
    #[arg(long, value_name = "N", default_value_t = GeneratorConfig::default().valid)]
    valid: usize,
    /// Number of test faces
    #[arg(long, value_name = "N", default_value_t = GeneratorConfig::default().test)]
    test: usize,
    /// Side of the pictures in pixels, 32 to 224
    #[arg(long, value_name = "PX", default_value_t = GeneratorConfig::default().size)]
    size: usize,
    /// Seed of every random choice
    #[arg(long, value_name = "S", default_value_t = GeneratorConfig::default().seed)]
    seed: u64,
    /// How confused the annotators are: 0 hardly; 1: the majority is wrong on 4 in 10 ambiguous faces; 2: on most; at most 3
    #[arg(long, value_name = "X", default_value_t = GeneratorConfig::default().noise, allow_negative_numbers = true)]
    noise: f32,
}

#[derive(Debug, Args)]
struct SheetArgs {
    /// The pack to read
    pack: PathBuf,
    /// The PNG to write
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    /// Faces in a row, at most 64
    #[arg(long, value_name = "N", default_value_t = 8)]
    per_class: usize,
    /// train, valid or test
    #[arg(long, default_value_t = Split::Train)]
    split: Split,
    /// Which faces are picked
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Only faces with two or more emotions that got at least two of ten votes
    #[arg(long)]
    ambiguous: bool,
}

impl DataArgs {
    pub fn run(self) -> Result<()> {
        match self.command {
            DataCommand::Generate(args) => generate(args),
            DataCommand::Info { pack } => print(&info(&open(&pack)?)),
            DataCommand::Sheet(args) => draw_sheet(args),
            DataCommand::Verify { pack } => verify(&pack),
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<Pack> {
    if !path.exists() {
        usage!("there is no pack {}", path.display());
    }
    if path.is_dir() {
        usage!("{} is a folder, not a pack", path.display());
    }
    Pack::open(path)
}

fn generate(args: GenerateArgs) -> Result<()> {
    let GenerateArgs { out, train, valid, test, size, seed, noise } = args;
    let config = GeneratorConfig { train, valid, test, size, seed, noise, threads: 0 };
    config.check()?;
    check_output(&out)?;
    let start = Instant::now();
    let mut writer = PackWriter::create(&out, generated::protocol())?;
    generated::generate(&config, &mut writer)?;
    writer.finish(generated::provenance(&config))?;
    let (faces, seconds) = (train + valid + test, start.elapsed().as_secs_f64());
    print(&format!("{}: {faces} faces in {seconds:.1} s ({:.0} faces/s)\n", out.display(), faces as f64 / seconds))
}

fn draw_sheet(args: SheetArgs) -> Result<()> {
    let SheetArgs { pack, out, per_class, split, seed, ambiguous } = args;
    if !(1..=64).contains(&per_class) {
        usage!("a row holds 1 to 64 faces, not {per_class}");
    }
    check_output(&out)?;
    let pack = open(&pack)?;
    let config = SheetConfig { per_class, split, seed, ambiguous };
    if pack.split(split).is_empty() {
        usage!("pack {} has no {split} faces", pack.path().display());
    }
    let page = sheet::sheet(&pack, &config)?;
    sheet::save(&page, &out)?;
    print(&format!("{}: {} x {} pixels\n", out.display(), page.width(), page.height()))
}

fn verify(path: &Path) -> Result<()> {
    let pack = open(path)?;
    pack.verify()?;
    print(&format!("{}: {} faces, all hashes match ({})\n", path.display(), pack.faces().len(), &pack.hash()[..16]))
}

fn per_cent(part: usize, whole: usize) -> String {
    if whole == 0 { "-".into() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// The smallest and largest picture.
fn sizes(pack: &Pack) -> String {
    let all = || (0..pack.faces().len()).map(|i| pack.size(i));
    let (Some(low), Some(high)) = (all().min(), all().max()) else { return "no pictures".into() };
    let name = |(w, h, c): (usize, usize, usize)| format!("{w} x {h} {}", if c == 1 { "gray" } else { "RGB" });
    if low == high { name(low) } else { format!("{} to {}", name(low), name(high)) }
}

fn info(pack: &Pack) -> String {
    let card = pack.protocol();
    let mut out = String::new();
    // Writing to a string cannot fail. What a pack says of where it comes from may hold anything.
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", plain(&text));
    };
    line(format!("{}", pack.path().display()));
    line(format!("  faces       {}, {}", pack.faces().len(), sizes(pack)));
    line(format!("  hash        {}", &pack.hash()[..16]));
    line(format!("  card        {} ({})", card.name, card.hash()));
    line(format!("  rule        {}", card.rule));
    line(format!("  source      {}", card.source));
    if !card.extra_columns.is_empty() {
        line(format!("  no class    {}", card.extra_columns.join(", ")));
    }

    let profiles: Vec<Profile> = Split::ALL.iter().map(|&s| Profile::of(pack, Some(s))).collect();
    let width = card.classes.iter().map(|c| c.chars().count()).max().unwrap_or(0).max(22);
    let table =
        |name: &str, cells: Vec<String>| format!("  {name:<width$}{}", cells.iter().map(|c| format!("{c:>12}")).collect::<String>());
    line(String::new());
    line(table("label", Split::ALL.iter().map(|s| s.name().to_string()).collect()));
    for (class, name) in card.classes.iter().enumerate() {
        line(table(name, profiles.iter().map(|p| p.labels[class].to_string()).collect()));
    }
    if profiles.iter().any(|p| p.unlabelled > 0) {
        line(table("(open)", profiles.iter().map(|p| p.unlabelled.to_string()).collect()));
    }
    line(table("all", profiles.iter().map(|p| p.faces.to_string()).collect()));

    if profiles.iter().any(|p| p.voted > 0) {
        line(String::new());
        line(table("votes", Split::ALL.iter().map(|s| s.name().to_string()).collect()));
        for (bin, name) in ["entropy 0 bit", "  to 0.5", "  to 1.0", "  to 1.5", "  above"].iter().enumerate() {
            line(table(name, profiles.iter().map(|p| per_cent(p.entropy[bin], p.voted)).collect()));
        }
        let mean = |p: &Profile| if p.voted == 0 { "-".into() } else { format!("{:.2}", p.entropy_mean) };
        line(table("mean entropy, bit", profiles.iter().map(mean).collect()));
        line(table("ambiguous", profiles.iter().map(|p| per_cent(p.ambiguous, p.voted)).collect()));
        if profiles.iter().any(|p| p.known > 0) {
            line(table("majority is truth", profiles.iter().map(|p| per_cent(p.right, p.known)).collect()));
            line(table("  on ambiguous", profiles.iter().map(|p| per_cent(p.ambiguous_right, p.ambiguous_known)).collect()));
            line(table("  truth among >= 2 of 10", profiles.iter().map(|p| per_cent(p.ambiguous_covered, p.ambiguous_known)).collect()));
        }
        line("  (ambiguous: two or more emotions with at least two of ten votes each)".into());
    }
    line(String::new());
    line("provenance".into());
    let provenance = serde_json::to_string_pretty(pack.provenance()).unwrap_or_default();
    provenance.lines().for_each(|l| line(format!("  {l}")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pack_says_of_itself_does_not_steer_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.moue");
        // JSON escapes what ASCII has of control characters but DEL, and nothing of what comes after.
        let provenance = serde_json::json!({"notes": ["made\u{7f} by \u{9b}2Jhand"], "\u{9d}0;title": 1});
        PackWriter::create(&path, generated::protocol()).unwrap().finish(provenance).unwrap();
        let told = info(&Pack::open(&path).unwrap());
        assert!(told.contains("made  by  2Jhand") && !told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
    }
}
