//! Decoding and reshaping pictures for import.
//!
//! Gray pictures keep one channel, all others become RGB; 16-bit pictures are reduced to 8 bits and transparency is laid over black.
//! Sizes are checked against [`MAX_SIDE`] before memory is taken, because picture files come from strangers.

use crate::dataset::Pixels;
use crate::dataset::pack::MAX_SIDE;
use anyhow::{Result, anyhow, bail};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{ColorType, DynamicImage, ImageError, ImageReader, Limits};
use std::io::Cursor;

/// File name endings that are taken for pictures when a folder is searched.
pub const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "bmp", "pnm", "pgm", "ppm", "pbm"];

/// Memory one decoder may take.
const MAX_DECODED: u64 = 512 << 20;

/// Decodes a picture of any supported format, recognised by content.
///
/// # Errors
/// If the bytes are no picture, are damaged, or the picture is larger than [`MAX_SIDE`] a side.
pub fn decode(bytes: &[u8]) -> Result<Pixels> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format().is_none() {
        bail!("no picture in a supported format (PNG, JPEG, WebP, BMP, PNM)");
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| match e {
        ImageError::Limits(_) => anyhow!("the picture is larger than {MAX_SIDE} pixels a side or {} MiB", MAX_DECODED >> 20),
        ImageError::Unsupported(_) => anyhow!("no picture in a supported format (PNG, JPEG, WebP, BMP, PNM)"),
        other => anyhow!("damaged picture ({other})"),
    })?;
    Ok(to_pixels(picture))
}

fn to_pixels(picture: DynamicImage) -> Pixels {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let over_black = |value: u8, alpha: u8| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8;
    match picture.color() {
        ColorType::L8 | ColorType::L16 => Pixels::new(width, height, 1, picture.into_luma8().into_raw()),
        ColorType::La8 | ColorType::La16 => {
            let data = picture.into_luma_alpha8().pixels().map(|p| over_black(p[0], p[1])).collect();
            Pixels::new(width, height, 1, data)
        }
        color if color.has_alpha() => {
            let data = picture.into_rgba8().pixels().flat_map(|p| [0, 1, 2].map(|c| over_black(p[c], p[3]))).collect();
            Pixels::new(width, height, 3, data)
        }
        _ => Pixels::new(width, height, 3, picture.into_rgb8().into_raw()),
    }
}

/// The part `[x, y, width, height]` of a picture; what lies outside is cut off.
///
/// # Errors
/// If nothing of it lies inside.
pub fn crop(source: &Pixels, [x, y, width, height]: [i64; 4]) -> Result<Pixels> {
    let clamp = |v: i64, side: usize| v.clamp(0, side as i64) as usize;
    let (left, right) = (clamp(x, source.width), clamp(x.saturating_add(width), source.width));
    let (top, bottom) = (clamp(y, source.height), clamp(y.saturating_add(height), source.height));
    if left >= right || top >= bottom {
        bail!("the face box ({x}, {y}, {width}, {height}) lies outside the picture of {}x{} pixels", source.width, source.height);
    }
    let c = source.channels;
    let data = (top..bottom).flat_map(|row| &source.data[(row * source.width + left) * c..(row * source.width + right) * c]);
    Ok(Pixels::new(right - left, bottom - top, c, data.copied().collect()))
}

/// Stretches to `size` x `size` pixels with an antialiasing bilinear filter.
pub fn resize(resizer: &mut Resizer, source: &Pixels, size: usize) -> Result<Pixels> {
    if (source.width, source.height) == (size, size) {
        return Ok(source.clone());
    }
    let kind = if source.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let from = ImageRef::new(source.width as u32, source.height as u32, &source.data, kind)?;
    let mut to = Image::new(size as u32, size as u32, kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    resizer.resize(&from, &mut to, &options)?;
    Ok(Pixels::new(size, size, source.channels, to.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};

    fn png(picture: DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn gray_stays_gray_and_transparency_becomes_black() {
        let gray = decode(&png(DynamicImage::new_luma16(3, 2))).unwrap();
        assert_eq!((gray.width, gray.height, gray.channels), (3, 2, 1));
        let mut clear = RgbaImage::new(2, 1);
        clear.put_pixel(0, 0, Rgba([200, 100, 50, 255]));
        clear.put_pixel(1, 0, Rgba([200, 100, 50, 0]));
        assert_eq!(decode(&png(clear.into())).unwrap().data, [200, 100, 50, 0, 0, 0]);
    }

    #[test]
    fn oversized_and_broken_pictures_are_refused() {
        let mut bytes = png(DynamicImage::new_luma8(4, 4));
        assert!(decode(&bytes[..bytes.len() / 2]).is_err());
        assert!(decode(b"hello").is_err());
        assert!(decode(b"").is_err());
        // A PNM header costs no pixels: the size must be refused before memory is taken.
        assert!(decode(b"P5 60000 60000 255\n").unwrap_err().to_string().contains("larger than"));
        bytes[0] = 0;
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn crop_and_resize() {
        let picture = Pixels::new(4, 3, 1, (0..12).collect());
        assert_eq!(crop(&picture, [1, 1, 2, 9]).unwrap().data, [5, 6, 9, 10]);
        assert!(crop(&picture, [4, 0, 2, 2]).is_err());
        assert!(crop(&picture, [0, 0, 0, 2]).is_err());
        let flat = Pixels::new(9, 5, 3, vec![77; 9 * 5 * 3]);
        assert_eq!(resize(&mut Resizer::new(), &flat, 4).unwrap(), Pixels::new(4, 4, 3, vec![77; 48]));
    }
}
