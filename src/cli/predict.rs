//! `moue predict`: expressions of new pictures.

use super::output::print;
use crate::config::{DeviceChoice, Objective};
use crate::dataset::Pixels;
use crate::dataset::pack::MAX_SIDE;
use crate::engine::{device, read_values};
use crate::model::{Input, Noise};
use crate::pipeline::{find_checkpoint, load};
use crate::run::RunFolder;
use crate::usage;
use anyhow::{Context, Result};
use burn::module::Module;
use burn::tensor::activation::softmax;
use clap::Args;
use image::{ImageReader, Limits};
use std::path::{Path, PathBuf};

/// Recognise the expression of cropped face pictures
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  moue predict runs/fp face.png\n  moue predict runs/fp folder/ --top 3 --json")]
pub struct PredictArgs {
    /// Run folder
    run: PathBuf,
    /// Pictures, or folders of pictures, each showing one cropped face
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// Classes to print, most likely first
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Objective whose network is taken: pll, ce, proden ... (default: what the run is about, not its baseline)
    #[arg(long, value_name = "OBJECTIVE", value_parser = Objective::ALL.map(Objective::name))]
    which: Option<String>,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Pictures that go through the network together.
const BATCH: usize = 64;

impl PredictArgs {
    pub fn run(self) -> Result<()> {
        let folder = RunFolder::open(&self.run)?;
        let checkpoint = find_checkpoint(&folder, self.which.as_deref())?;
        let files = list(&self.pictures)?;
        let open = device::open(self.device)?;
        let (model, resolved) = load::classifier(&checkpoint, &self.run.display().to_string(), &open.device)?;
        let (model, input) = (model.valid(), Input::of(resolved.settings()));
        let classes = &checkpoint.state.classes;
        for batch in files.chunks(BATCH) {
            let faces = batch.iter().map(|file| read_picture(file)).collect::<Result<Vec<_>>>()?;
            let faces = input.upload(&input.whole(faces), &open.device);
            let logits = model.forward(faces.patches(), 0.0, 0.0, &mut Noise::none());
            let probabilities = read_values(softmax(logits, 1))?;
            print(|w| {
                for (file, row) in batch.iter().zip(probabilities.chunks(classes.len())) {
                    let mut ranked: Vec<usize> = (0..row.len()).collect();
                    ranked.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                    ranked.truncate(usize::from(self.top));
                    if self.json {
                        let top: serde_json::Map<_, _> = ranked.iter().map(|&c| (classes[c].clone(), row[c].into())).collect();
                        writeln!(w, "{}", serde_json::json!({"file": file, "class": classes[ranked[0]], "probabilities": top}))?;
                    } else {
                        let top: Vec<String> = ranked.iter().map(|&c| format!("{} {:.1} %", classes[c], 100.0 * row[c])).collect();
                        writeln!(w, "{}\t{}", file.display(), top.join(", "))?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Files as given; folders give the pictures directly inside them, by name.
fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
            let mut inside: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            inside.retain(|p| p.is_file() && image::ImageFormat::from_path(p).is_ok());
            inside.sort();
            files.extend(inside);
        } else if path.exists() {
            files.push(path.clone());
        } else {
            usage!("{}: no such picture or folder", path.display());
        }
    }
    if files.is_empty() {
        usage!("no pictures found in {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "));
    }
    Ok(files)
}

fn read_picture(path: &Path) -> Result<Pixels> {
    let decode = || -> Result<image::DynamicImage> {
        let mut reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE as u32);
        limits.max_image_height = Some(MAX_SIDE as u32);
        reader.limits(limits);
        Ok(reader.decode()?)
    };
    let picture = decode().with_context(|| format!("{} is no readable picture", path.display()))?;
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    Ok(if picture.color().has_color() {
        Pixels::new(w, h, 3, picture.into_rgb8().into_raw())
    } else {
        Pixels::new(w, h, 1, picture.into_luma8().into_raw())
    })
}
