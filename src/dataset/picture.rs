//! Opening, decoding and reshaping pictures, for every command that reads them.
//!
//! [`open`] is the one place where a picture file is decoded and where its limits stand: sizes are checked against [`MAX_SIDE`] and
//! [`MAX_DECODED`] before memory is taken, because picture files come from strangers. [`decode`] makes faces of any of them: the orientation
//! that a camera noted (EXIF) is carried out, gray pictures keep one channel, all others become RGB (CMYK, too), 16-bit pictures are reduced
//! to 8 bits and transparency is laid over black.

use crate::dataset::Pixels;
use crate::dataset::pack::MAX_SIDE;
use anyhow::{Result, anyhow, bail};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use std::io::Cursor;

/// File name endings that are taken for pictures when a folder is searched.
pub const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "webp", "bmp", "pnm", "pgm", "ppm", "pbm"];

/// Largest picture file that is read.
pub const MAX_FILE: u64 = 256 << 20;

/// Memory one decoder may take.
const MAX_DECODED: u64 = 512 << 20;

/// A picture may always take this much memory, and beyond it this many times its file's size: deflate makes at most 1,032 bytes of one. The
/// header of a picture is a few bytes that claim what they like.
const MODEST: u64 = 32 << 20;
const EXPANSION: u64 = 1100;

/// Whether bytes look like a picture of a supported format; what follows may still be damaged.
pub fn recognised(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok_and(|format| format.reading_enabled())
}

/// The picture in a file of any supported format, recognised by content, with values as they are stored (CMYK: converted to RGB), and the
/// orientation that it should be shown in.
///
/// # Errors
/// If the bytes are no picture, are damaged, or the picture is larger than [`MAX_SIDE`] a side or [`MAX_DECODED`] bytes,
/// or than a file of that size can hold.
pub fn open(bytes: &[u8]) -> Result<(DynamicImage, Orientation)> {
    if !recognised(bytes) {
        bail!("no picture in a supported format (PNG, JPEG, WebP, BMP, PNM)");
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE as u32);
    limits.max_image_height = Some(MAX_SIDE as u32);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let too_large = || anyhow!("the picture is larger than {MAX_SIDE} pixels a side or {} MiB", MAX_DECODED >> 20);
    let failed = |e: ImageError| match e {
        ImageError::Limits(_) => too_large(),
        ImageError::Unsupported(_) => anyhow!("no picture in a supported format (PNG, JPEG, WebP, BMP, PNM)"),
        other => anyhow!("damaged picture ({other})"),
    };
    let mut decoder = reader.into_decoder().map_err(failed)?;
    if decoder.total_bytes() > MAX_DECODED {
        return Err(too_large());
    }
    if decoder.total_bytes() > MODEST.max(EXPANSION.saturating_mul(bytes.len() as u64)) {
        let (width, height) = decoder.dimensions();
        bail!("damaged picture ({} bytes cannot hold {width} x {height} pixels)", bytes.len());
    }
    // Notes that cannot be read do not make a picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).map_err(failed)?, orientation))
}

/// Decodes a picture of any supported format for the eye and for networks: upright, 8 bits, gray or RGB.
///
/// # Errors
/// As [`open`].
pub fn decode(bytes: &[u8]) -> Result<Pixels> {
    let (mut picture, orientation) = open(bytes)?;
    picture.apply_orientation(orientation);
    Ok(to_pixels(picture))
}

/// How many components a JPEG file stores a pixel; None for other files. The decoder turns CMYK into RGB and does not tell.
pub fn jpeg_components(bytes: &[u8]) -> Option<u8> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        match *rest {
            // Fill bytes before a marker, and markers that stand alone.
            [0xFF, 0xFF, ..] => rest = &rest[1..],
            [0xFF, 0x01 | 0xD0..=0xD7, ..] => rest = &rest[2..],
            // A start of frame: length, precision, height, width, components. C4, C8 and CC in its range are other things.
            [0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, _, _, _, _, _, _, _, components, ..] => return Some(components),
            [0xFF, _, high, low, ..] => rest = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..)?,
            _ => return None,
        }
    }
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
    fn components_of_jpeg_headers() {
        let frame = |components: u8| [0xFF, 0xC2, 0, 17, 8, 0, 16, 0, 16, components, 1, 0x22, 0];
        let app = [0xFF, 0xE0, 0, 4, 0xFF, 0xC0, 0xFF];
        let file = |parts: &[&[u8]]| [&[0xFF, 0xD8], &parts.concat()[..]].concat();
        assert_eq!(jpeg_components(&file(&[&frame(1)])), Some(1));
        // What looks like a frame within another segment is none.
        assert_eq!(jpeg_components(&file(&[&app, &frame(4)])), Some(4));
        assert_eq!(jpeg_components(&file(&[&app])), None);
        assert_eq!(jpeg_components(&file(&[&[0xFF, 0xE0, 0xFF]])), None);
        assert_eq!(jpeg_components(b"\x89PNG\r\n"), None);
    }

    /// Three fields, (200, 30, 40), (30, 180, 60) and (240, 240, 240), written as CMYK by Pillow.
    const CMYK: &[u8] = include_bytes!("../../tests/golden/cmyk.jpg");

    #[test]
    fn cmyk_becomes_the_colours_that_were_meant() {
        assert_eq!(jpeg_components(CMYK), Some(4));
        let picture = decode(CMYK).unwrap();
        assert_eq!((picture.width, picture.height, picture.channels), (48, 16, 3));
        for (x, meant) in [(8, [200, 30, 40]), (24, [30, 180, 60]), (40, [240, 240, 240])] {
            let found = &picture.data[(8 * 48 + x) * 3..][..3];
            assert!(found.iter().zip(meant).all(|(a, b): (&u8, u8)| a.abs_diff(b) < 4), "{found:?}, not {meant:?}");
        }
    }

    /// The same planes, said to be YCCK (Adobe's transform 2): each colour is the inverse of what Y, Cb and Cr say, darkened by K.
    #[test]
    fn ycck_is_converted_too() {
        let mut bytes = CMYK.to_vec();
        let transform = bytes.windows(5).position(|w| w == b"Adobe").unwrap() + 11;
        assert_eq!(std::mem::replace(&mut bytes[transform], 2), 0);
        let picture = decode(&bytes).unwrap();
        assert_eq!((picture.width, picture.height, picture.channels), (48, 16, 3));
        for (x, [y, cb, cr]) in [(8, [200.0, 30.0, 40.0]), (24, [30.0, 180.0, 60.0]), (40, [240.0, 240.0, 240.0f64])] {
            let (blue, red) = (cb - 128.0, cr - 128.0);
            let rgb = [y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue];
            let meant = rgb.map(|v| 255.0 - v.clamp(0.0, 255.0));
            let found = &picture.data[(8 * 48 + x) * 3..][..3];
            assert!(found.iter().zip(meant).all(|(&a, b)| (f64::from(a) - b).abs() < 8.0), "{found:?}, not {meant:?}");
        }
    }

    /// A noted quarter turn is carried out.
    #[test]
    fn pictures_are_turned_as_the_camera_noted() {
        let mut picture = RgbaImage::from_pixel(16, 8, Rgba([0, 0, 0, 255]));
        (0..8).for_each(|y| (0..8).for_each(|x| picture.put_pixel(x, y, Rgba([255, 255, 255, 255]))));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(picture).into_rgb8().write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        // An EXIF segment with one entry: orientation 6, to be turned clockwise by 90 degrees.
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut file = bytes.into_inner();
        let segment = [&[0xFF, 0xE1, 0, exif.len() as u8 + 2], &exif[..]].concat();
        file.splice(2..2, segment);
        let turned = decode(&file).unwrap();
        assert_eq!((turned.width, turned.height), (8, 16));
        assert!(turned.data[0] > 200 && turned.data[15 * 8 * 3] < 50);
        assert_eq!(open(&file).unwrap().0.width(), 16);
    }

    #[test]
    fn oversized_and_broken_pictures_are_refused() {
        let mut bytes = png(DynamicImage::new_luma8(4, 4));
        assert!(decode(&bytes[..bytes.len() / 2]).is_err());
        assert!(decode(b"hello").is_err());
        assert!(decode(b"").is_err());
        // A PNM header costs no pixels: the size must be refused before memory is taken.
        assert!(decode(b"P5 60000 60000 255\n").unwrap_err().to_string().contains("larger than"));
        assert!(decode(b"P5 16000 40000 255\n").is_err() && decode(b"P6 16000 16000 255\n").unwrap_err().to_string().contains("MiB"));
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
