//! `moue predict`: expressions of new pictures.
//!
//! Owns the search for pictures, what is said of those that cannot be read, and the output. Pictures are decoded in threads of their own while
//! the network works on those before; one picture at a time is in memory for each thread.

use super::output::{check_output, print};
use crate::config::{DeviceChoice, Objective};
use crate::dataset::landmarks::Landmarks;
use crate::dataset::picture::{self, MAX_FILE};
use crate::dataset::{Pixels, sheet};
use crate::engine::loader;
use crate::failure::one_line;
use crate::labels::response::at_temperature;
use crate::pipeline::Recogniser;
use crate::pipeline::recogniser::Prepared;
use crate::report::attention::{self, Panel};
use crate::run::progress::plain;
use crate::usage;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Recognise the expression of cropped face pictures
#[derive(Args, Debug)]
#[command(after_help = "\
Each picture shows one face, cropped; it is brought to the network's size as the importer brought the faces of the run's pack. Where that \
pack is gone, this is said; where it was changed since, it is refused. PNG, JPEG (CMYK, too), WebP, BMP and PNM of any size up to 16384 \
pixels a side are read, upright as the camera noted, 16 bits reduced to 8, transparency over black. Folders are searched to the bottom; files \
in them that are no pictures are reported and skipped.

Probabilities are calibrated: logits are divided by the temperature that fitted the validation faces best (made at the end of `finetune`, or \
now from the run's pack, and kept in the run folder). Where there is none, that is said on standard error, and `temperature` is null.

--explain draws where each class's query looks (the decoder's last layer, mean of its heads); a network with a pooled head has no queries.

Exit code: 0; 1 if a picture could not be read that was named, or that looked like a picture (all others are still recognised); 2 if asked \
for wrongly. With --json such a picture gives a line with `error` in place of `class`.

Example:
  moue predict runs/fp face.png
  moue predict fp.safetensors folder/ --top 3 --json
  moue predict runs/fp folder/ --landmarks points.csv --explain looks.png
  curl -s https://example.org/face.jpg | moue predict runs/fp -")]
pub struct PredictArgs {
    /// Run folder, or a weights file made by `moue export`
    run: PathBuf,
    /// Pictures, folders of pictures, or `-` for one picture on the standard input
    #[arg(required_unless_present = "list")]
    pictures: Vec<PathBuf>,
    /// File with one picture's path a line (`-`: standard input), beside those given
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Classes to print, most likely first
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Table `file,x1,y1,x2,y2,...` of 5 or 68 landmarks; faces that have some are aligned as `moue import --align` does it
    #[arg(long, value_name = "CSV")]
    landmarks: Option<PathBuf>,
    /// Draw where the queries of the classes shown look, for the first 48 faces
    #[arg(long, value_name = "PNG")]
    explain: Option<PathBuf>,
    /// Objective whose network is taken: pll, ce, proden ... (default: what the run is about, not its baseline)
    #[arg(long, value_name = "OBJECTIVE", value_parser = Objective::ALL.map(Objective::name))]
    which: Option<String>,
    /// Class names in the order that you count on; refused if the network has another one
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    classes: Option<Vec<String>>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Pictures that go through the network together.
const BATCH: usize = 64;
/// Faces that --explain draws.
const EXPLAINED: usize = 48;

/// A picture to be looked at.
#[derive(Clone, Debug)]
struct Item {
    path: PathBuf,
    /// Named by the user, not found in a folder.
    named: bool,
}

/// What became of a picture.
enum Made {
    Face,
    /// No picture, and nobody said that it was one.
    Skipped(String),
    Failed(String),
}

/// Some pictures, read.
struct Batch {
    made: Vec<Made>,
    /// Of those that became faces.
    crops: Vec<Pixels>,
    prepared: Prepared,
}

#[derive(Default)]
struct Counts {
    faces: usize,
    skipped: usize,
    failed: usize,
}

impl PredictArgs {
    pub fn run(self) -> Result<()> {
        let landmarks = self.landmarks.as_deref().map(Landmarks::read).transpose()?;
        if let Some(out) = &self.explain {
            check_output(out)?;
        }
        let items = self.items()?;
        let recogniser = Recogniser::open(&self.run, self.which.as_deref(), self.classes.as_deref(), self.device)?;
        if self.explain.is_some() && !recogniser.explains() {
            usage!("--explain shows where the queries of a decoder look; this network has a pooled head and none");
        }
        recogniser.remarks.iter().for_each(|remark| eprintln!("{remark}"));
        let batches: Vec<&[Item]> = items.chunks(BATCH).collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut counts, mut explained) = (Counts::default(), Vec::new());
        loader::ahead(
            0..batches.len(),
            workers,
            2,
            |n| read(batches[n], &recogniser, landmarks.as_ref()),
            |n, batch, _| {
                let logits = recogniser.read_logits(&batch.prepared)?;
                self.tell(batches[n], &batch, &logits, &recogniser, &mut counts)?;
                if self.explain.is_some() && explained.len() < EXPLAINED {
                    explained.extend(self.looks(batches[n], &batch, &logits, &recogniser)?);
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        let Counts { faces, skipped, failed } = counts;
        if let Some(out) = &self.explain {
            explained.truncate(EXPLAINED);
            if explained.is_empty() {
                bail!("there is no face to explain");
            }
            sheet::save(&attention::page(&explained)?, out)?;
            eprintln!("{}: {} of {faces} faces", out.display(), explained.len());
        }
        if items.len() > 1 {
            eprintln!("{faces} faces, {skipped} files skipped that are no pictures, {failed} pictures not readable");
        }
        ensure!(failed == 0, "{failed} of {} pictures could not be read", faces + failed);
        ensure!(faces > 0, "no pictures found: {skipped} files, none of them a picture");
        Ok(())
    }

    /// Everything that was named, with folders searched.
    fn items(&self) -> Result<Vec<Item>> {
        let mut named = self.pictures.clone();
        if let Some(list) = &self.list {
            let input = named.iter().any(|path| path == Path::new("-"));
            if list == Path::new("-") && input {
                usage!("the standard input is either a picture or --list, not both");
            }
            let reader: Box<dyn BufRead> = match list {
                path if path == Path::new("-") => Box::new(std::io::stdin().lock()),
                path if path.is_file() => Box::new(std::io::BufReader::new(File::open(path)?)),
                path => usage!("there is no list {}", path.display()),
            };
            let lines = reader.lines().collect::<Result<Vec<_>, _>>().with_context(|| format!("reading {}", list.display()))?;
            named.extend(lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).map(PathBuf::from));
        }
        let mut items = Vec::new();
        for path in named {
            if path.is_dir() {
                search(&path, &mut items)?;
            } else if path.exists() || path == Path::new("-") {
                items.push(Item { path, named: true });
            } else {
                usage!("{}: no such picture or folder", path.display());
            }
        }
        if items.is_empty() {
            let places = self.pictures.iter().chain(&self.list).map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
            usage!("no pictures found in {places}");
        }
        Ok(items)
    }

    /// One line for each face, and what is to be said of the others.
    fn tell(&self, items: &[Item], batch: &Batch, logits: &[f32], recogniser: &Recogniser, counts: &mut Counts) -> Result<()> {
        let temperature = recogniser.calibration.map(|c| c.temperature);
        let mut rows = logits.chunks(recogniser.classes.len());
        print(|w| {
            for (item, made) in items.iter().zip(&batch.made) {
                match made {
                    Made::Face => {
                        let row = rows.next().context("logits for each face")?;
                        counts.faces += 1;
                        self.line(w, &item.path, &ranked(row, recogniser), temperature)?;
                    }
                    Made::Skipped(why) => {
                        counts.skipped += 1;
                        eprintln!("skipped {}: {why}", plain(&item.path.display().to_string()));
                    }
                    Made::Failed(why) => {
                        counts.failed += 1;
                        eprintln!("{}: {why}", plain(&item.path.display().to_string()));
                        if self.json {
                            writeln!(w, "{}", json!({"file": item.path, "error": why}))?;
                        }
                    }
                }
            }
            Ok(())
        })
    }

    fn line(&self, w: &mut dyn Write, path: &Path, ranked: &[(String, f64)], temperature: Option<f64>) -> Result<()> {
        let top = &ranked[..ranked.len().min(usize::from(self.top))];
        if self.json {
            let probabilities: Map<String, Value> = top.iter().map(|(class, p)| (class.clone(), (*p).into())).collect();
            let line = json!({"file": path, "class": top[0].0, "probabilities": probabilities, "temperature": temperature});
            writeln!(w, "{line}")?;
        } else {
            let top: Vec<String> = top.iter().map(|(class, p)| format!("{class} {:.1} %", 100.0 * p)).collect();
            writeln!(w, "{}\t{}", plain(&path.display().to_string()), plain(&top.join(", ")))?;
        }
        Ok(())
    }

    /// What is drawn of a batch's faces.
    fn looks(&self, items: &[Item], batch: &Batch, logits: &[f32], recogniser: &Recogniser) -> Result<Vec<attention::Row>> {
        let classes = recogniser.classes.len();
        let weights = recogniser.read_attention(&batch.prepared)?.context("a decoder has queries")?;
        let places = weights.len() / (batch.crops.len() * classes).max(1);
        let faces = items.iter().zip(&batch.made).filter(|(_, made)| matches!(made, Made::Face)).map(|(item, _)| item);
        let mut rows = Vec::with_capacity(batch.crops.len());
        for (n, (item, crop)) in faces.zip(&batch.crops).enumerate() {
            let mut panels = Vec::new();
            for (class, probability) in ranked(&logits[n * classes..][..classes], recogniser).into_iter().take(usize::from(self.top)) {
                let c = recogniser.classes.iter().position(|name| *name == class).context("a class of the network")?;
                panels.push(Panel { heat: weights[(n * classes + c) * places..][..places].to_vec(), class, probability });
            }
            rows.push(attention::Row { name: item.path.display().to_string(), face: crop.clone(), panels });
        }
        Ok(rows)
    }
}

/// Classes with their probabilities, most likely first.
fn ranked(logits: &[f32], recogniser: &Recogniser) -> Vec<(String, f64)> {
    let probabilities = at_temperature(logits, recogniser.temperature());
    let mut ranked: Vec<(String, f64)> = recogniser.classes.iter().cloned().zip(probabilities).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// Files of a folder and the folders in it, by name; links to folders are not followed.
fn search(folder: &Path, items: &mut Vec<Item>) -> Result<()> {
    let place = || format!("reading {}", folder.display());
    let mut entries = std::fs::read_dir(folder).with_context(place)?.collect::<Result<Vec<_>, _>>().with_context(place)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().with_context(place)?.is_dir() {
            search(&entry.path(), items)?;
        } else {
            items.push(Item { path: entry.path(), named: false });
        }
    }
    Ok(())
}

fn read(items: &[Item], recogniser: &Recogniser, landmarks: Option<&Landmarks>) -> Batch {
    let (mut made, mut crops) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        made.push(match face(item, recogniser, landmarks) {
            Ok(Ok(crop)) => {
                crops.push(crop);
                Made::Face
            }
            Ok(Err(skipped)) => Made::Skipped(skipped),
            Err(e) => Made::Failed(one_line(&e)),
        });
    }
    let prepared = recogniser.prepare(&crops);
    Batch { made, crops, prepared }
}

/// The crop that the network sees of a picture; `Err` inside: why the file is passed over.
fn face(item: &Item, recogniser: &Recogniser, landmarks: Option<&Landmarks>) -> Result<Result<Pixels, String>> {
    let mut bytes = Vec::new();
    let mut input: Box<dyn Read> =
        if item.named && item.path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(&item.path)?) };
    // A file in a folder may be anything, and of any length: its first bytes tell.
    input.by_ref().take(64).read_to_end(&mut bytes)?;
    if !item.named && !picture::recognised(&bytes) {
        return Ok(Err("no picture in a supported format (PNG, JPEG, WebP, BMP, PNM)".into()));
    }
    input.take(MAX_FILE).read_to_end(&mut bytes)?;
    ensure!((bytes.len() as u64) < MAX_FILE, "the file is larger than {} MiB", MAX_FILE >> 20);
    let picture = picture::decode(&bytes)?;
    drop(bytes);
    let points = landmarks.and_then(|l| l.of(&item.path));
    let face = recogniser.preparation.apply(picture, points, recogniser.side())?;
    Ok(Ok(recogniser.crop(&face)))
}
