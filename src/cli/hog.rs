//! `moue hog`: the pretraining target of a picture, to look at and as data.
//!
//! Owns the arguments, reading and the files' names. Pictures are taken as they are: this file refuses what would have to be converted
//! first, because a descriptor of the converted picture would be another one.

use super::output::print;
use crate::config::DeviceChoice;
use crate::dataset::{Pixels, picture};
use crate::engine::{device, read_values};
use crate::kernels::reference::hog::{BINS, Layout, tokens};
use crate::kernels::{hog_cells, upload_pixels};
use crate::limits;
use crate::report::glyphs;
use crate::run::write_atomic;
use crate::usage;
use anyhow::{Context, Result};
use burn::prelude::Device;
use clap::Args;
use image::{ColorType, ImageFormat};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Histograms of oriented gradients, the pretraining target, as a picture of strokes and as data
///
/// An 8-bit RGB or gray picture is taken as it is: not resized, not converted, turned or cropped. A gray file has one channel;
/// transparency is left out, a palette becomes its colours; 16-bit and CMYK files are refused. Rows and columns beyond the last whole cell
/// are left out of the cells, cells beyond the last whole patch out of the tokens.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints one line a picture: how many histograms are empty (no gradient at all), the mean L2 norm of a token, and the pretraining loss (mean \
squared error) of predicting the picture's mean token everywhere, which a network has to beat.

Files: for one picture OUT is the file to write. For several it is a folder; each picture gets NAME.hog.png or NAME.hog.safetensors in it, \
NAME being its own file name without the ending. A folder must exist, or be written with a slash at its end: then it is made.

Tensors, float32: `cells` [C, 9, H / cell, W / cell], bin b holding gradients at 20 b to 20 (b + 1) degrees from the vertical axis, each \
cell of unit length over its bins or zero; `tokens` [N, C * 9 * (patch / cell)^2], patches row by row, within one in the order channel, \
bin, cell row, cell column. The metadata `moue` names the picture, its size and the options.

Example:
  moue hog face.png
  moue hog face.png --png strokes.png --safetensors face.safetensors
  moue hog faces/*.png --png strokes/ --window 16")]
pub struct HogArgs {
    /// Pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Draw the strokes over the dimmed picture, enlarged so that they can be told apart
    #[arg(long, value_name = "OUT")]
    png: Option<PathBuf>,
    /// Write cells and tokens
    #[arg(long, value_name = "OUT")]
    safetensors: Option<PathBuf>,
    /// Side of the Gaussian window that weights gradients within a patch
    #[arg(long, value_name = "off|16", default_value = "off", value_parser = window)]
    window: usize,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PX", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    patch: u16,
    /// Side of a cell in pixels; must divide the patch
    #[arg(long, value_name = "PX", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    cell: u16,
    /// auto, cpu, gpu, vulkan[:n], metal, dx12 or gl
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

fn window(word: &str) -> Result<usize, String> {
    match word {
        "off" => Ok(0),
        "16" => Ok(16),
        _ => Err("the window is off or 16".into()),
    }
}

/// What is computed from one picture: `cells` `[C, 9, H / cell, W / cell]` and `tokens` `[N, T]`.
struct Descriptor {
    cells: Vec<f32>,
    tokens: Vec<f32>,
}

/// Computes the descriptor of one picture.
///
/// # Errors
/// If the device cannot compute it.
fn descriptor(pixels: &Pixels, layout: Layout, patch: usize, device: &Device) -> Result<Descriptor> {
    let Layout { width, height, channels, cell, window } = layout;
    let pixels = upload_pixels(pixels.data.clone(), [1, height, width, channels], device);
    let cells = read_values(hog_cells(pixels, cell, window)?)?;
    Ok(Descriptor { tokens: tokens(&cells, layout, patch), cells })
}

impl HogArgs {
    pub fn run(self) -> Result<()> {
        let (cell, patch) = (usize::from(self.cell), usize::from(self.patch));
        if !patch.is_multiple_of(cell) {
            usage!("--cell {cell} must divide --patch {patch}");
        }
        for image in &self.images {
            if image.is_dir() {
                usage!("{} is a folder, not a picture", image.display());
            }
            if !image.exists() {
                usage!("there is no picture {}", image.display());
            }
        }
        let drawings = targets("--png", self.png.as_deref(), &self.images, ".hog.png")?;
        let tables = targets("--safetensors", self.safetensors.as_deref(), &self.images, ".hog.safetensors")?;
        if let Some(both) = drawings.iter().flatten().find(|d| tables.iter().flatten().any(|t| t == *d)) {
            usage!("--png and --safetensors would both write {}", both.display());
        }
        let open = device::open(self.device)?;
        for ((image, drawing), table) in self.images.iter().zip(&drawings).zip(&tables) {
            let pixels = read(image)?;
            let layout = Layout { width: pixels.width, height: pixels.height, channels: pixels.channels, cell, window: self.window };
            if layout.cells_x() == 0 || layout.cells_y() == 0 {
                let (width, height) = (pixels.width, pixels.height);
                usage!("{}: {width} x {height} pixels are less than one cell of {cell} x {cell}", image.display());
            }
            if let Some(setup) = &open.setup {
                let limits = setup.device.limits();
                let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
                let largest = layout.bytes().max(4 * layout.values(0)) as u64;
                // Some room for where in a buffer the data begins.
                if largest + 4096 > most {
                    let name = &open.name;
                    usage!("{}: its cells take {largest} bytes, {name} binds at most {most}; use --cell, or --device cpu", image.display());
                }
            }
            let made = descriptor(&pixels, layout, patch, &open.device)?;
            let summary = summary(&made, layout, patch);
            print(|w| Ok(writeln!(w, "{}: {summary}", image.display())?))?;
            if let Some(path) = drawing {
                let page = glyphs::glyphs(&made.cells, layout, Some(&pixels), glyphs::scale(layout));
                make_folder(path)?;
                write_atomic(path, |w| Ok(page.write_to(w, ImageFormat::Png)?))?;
                print(|w| Ok(writeln!(w, "{}: {} x {} pixels", path.display(), page.width(), page.height())?))?;
            }
            if let Some(path) = table {
                let bytes = tensors(&made, layout, patch, image)?;
                make_folder(path)?;
                write_atomic(path, |w| Ok(w.write_all(&bytes)?))?;
                print(|w| Ok(writeln!(w, "{}: cells and tokens", path.display())?))?;
            }
        }
        Ok(())
    }
}

/// The file that each picture's output goes to; none where the option was not given.
fn targets(option: &str, out: Option<&Path>, images: &[PathBuf], ending: &str) -> Result<Vec<Option<PathBuf>>> {
    let Some(out) = out else { return Ok(vec![None; images.len()]) };
    let slash = out.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    // Without the slash, with which a file would not be found.
    let out = &*out.components().collect::<PathBuf>();
    if slash && out.exists() && !out.is_dir() {
        usage!("{option} {}/: it is a file, not a folder", out.display());
    }
    let files: Vec<PathBuf> = if out.is_dir() || slash {
        let name = |image: &PathBuf| {
            let mut name = image.file_stem().unwrap_or_default().to_os_string();
            name.push(ending);
            out.join(name)
        };
        images.iter().map(name).collect()
    } else if let [_] = images {
        vec![out.to_path_buf()]
    } else {
        let shown = out.display();
        usage!("{option} {shown} is one file for {} pictures: name a folder, one that exists or with a slash at its end", images.len());
    };
    // The file, or the folder that is still to be made, lies in one that exists.
    if let Some(folder) = out.parent().filter(|folder| !out.is_dir() && !folder.as_os_str().is_empty() && !folder.is_dir()) {
        usage!("{option} {}: there is no folder {}", out.display(), folder.display());
    }
    let inputs: Vec<PathBuf> = images.iter().filter_map(|image| image.canonicalize().ok()).collect();
    let mut seen: HashMap<&Path, &Path> = HashMap::new();
    for (file, image) in files.iter().zip(images) {
        if let Some(other) = seen.insert(file, image) {
            usage!("{} and {} would both be written to {}", other.display(), image.display(), file.display());
        }
        if file.is_dir() {
            usage!("{option}: cannot write {}: it is a folder", file.display());
        }
        if file.canonicalize().is_ok_and(|file| inputs.contains(&file)) {
            usage!("{option} would overwrite the picture {}", file.display());
        }
    }
    Ok(files.into_iter().map(Some).collect())
}

/// Makes the folder of an output where [`targets`] allowed it to be new.
fn make_folder(file: &Path) -> Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            std::fs::create_dir(folder).with_context(|| format!("making the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Reads an 8-bit picture without changing a value.
fn read(path: &Path) -> Result<Pixels> {
    let bytes = limits::read(path, picture::MAX_FILE).with_context(|| format!("reading {}", path.display()))?;
    let (picture, _) = picture::open(&bytes).with_context(|| format!("{} is no readable picture", path.display()))?;
    if picture::jpeg_components(&bytes) == Some(4) {
        usage!("{}: a CMYK picture; pictures are taken as they are, gray or RGB: convert it first", path.display());
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(match picture.color() {
        ColorType::L8 | ColorType::La8 => Pixels::new(width, height, 1, picture.into_luma8().into_raw()),
        ColorType::Rgb8 | ColorType::Rgba8 => Pixels::new(width, height, 3, picture.into_rgb8().into_raw()),
        deep => {
            let bits = 8 * usize::from(deep.bytes_per_pixel()) / usize::from(deep.channel_count());
            usage!("{}: {bits} bits a value; pictures are taken as they are, with 8: convert it first", path.display());
        }
    })
}

/// `112 x 112 RGB, cells 3 x 9 x 14 x 14, tokens 49 x 108, ...`
fn summary(made: &Descriptor, layout: Layout, patch: usize) -> String {
    let Layout { width, height, channels, .. } = layout;
    let (columns, rows, length) = (layout.cells_x(), layout.cells_y(), layout.token_len(patch));
    let colour = if channels == 1 { "gray" } else { "RGB" };
    let plane = columns * rows;
    let empty =
        (0..channels * plane).filter(|i| (0..BINS).all(|bin| made.cells[((i / plane) * BINS + bin) * plane + i % plane] == 0.0)).count();
    let share = 100.0 * empty as f64 / (channels * plane) as f64;
    let count = made.tokens.len() / length;
    let mut text = format!(
        "{width} x {height} {colour}, cells {channels} x {BINS} x {rows} x {columns}, tokens {count} x {length}, {share:.1} % empty"
    );
    if count > 0 {
        let square = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let norm = made.tokens.chunks(length).map(|token| square(token).sqrt()).sum::<f64>() / count as f64;
        let mean_square = square(&made.tokens) / made.tokens.len() as f64;
        let mean = |i: usize| made.tokens.iter().skip(i).step_by(length).map(|&v| f64::from(v)).sum::<f64>() / count as f64;
        let loss = mean_square - (0..length).map(|i| mean(i).powi(2)).sum::<f64>() / length as f64;
        text += &format!(", mean norm {norm:.3}, loss of the mean token {:.4}", loss.max(0.0));
    }
    text
}

/// The descriptor as a safetensors file.
fn tensors(made: &Descriptor, layout: Layout, patch: usize, image: &Path) -> Result<Vec<u8>> {
    let Layout { width, height, channels, cell, window } = layout;
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let (cells, tokens) = (bytes(&made.cells), bytes(&made.tokens));
    let length = layout.token_len(patch);
    let views = [
        ("cells", TensorView::new(Dtype::F32, vec![channels, BINS, layout.cells_y(), layout.cells_x()], &cells)?),
        ("tokens", TensorView::new(Dtype::F32, vec![made.tokens.len() / length, length], &tokens)?),
    ];
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let about = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "image": name, "width": width, "height": height,
        "cell": cell, "patch": patch, "window": window,
    });
    // One entry: a map of several would be written in another order each time.
    Ok(safetensors::serialize(views, Some(HashMap::from([("moue".to_string(), about.to_string())])))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_token_loses_nothing_where_all_tokens_are_equal() {
        let layout = Layout { width: 32, height: 16, channels: 1, cell: 8, window: 0 };
        let token: Vec<f32> = (0..36).map(|i| i as f32 / 36.0).collect();
        let made = Descriptor { cells: vec![0.0; 9 * 8], tokens: [token.clone(), token].concat() };
        let line = summary(&made, layout, 16);
        assert!(line.contains("100.0 % empty") && line.ends_with("loss of the mean token 0.0000"), "{line}");
    }
}
