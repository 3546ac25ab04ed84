//! The small `.npy` files of AffectNet: one label, or one set of landmarks, a file.
//!
//! Reads plain arrays of up to 1,024 numbers or short strings. Pickled and structured arrays are refused, and so are headers that do
//! not look like NumPy's own, before the parser sees them.

use anyhow::{Context, Result, anyhow, bail};
use npyz::{DType, NpyFile, TypeChar};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MAX_BYTES: u64 = 64 << 10;
const MAX_HEADER: usize = 1024;
const MAX_VALUES: u64 = 1024;

/// All values of an array as numbers; strings are parsed.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn numbers(path: &Path) -> Result<Vec<f64>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| path.display().to_string())
}

fn parse(bytes: &[u8]) -> Result<Vec<f64>> {
    if bytes.len() as u64 > MAX_BYTES {
        bail!("larger than {MAX_BYTES} bytes: no AffectNet annotation");
    }
    check_header(bytes)?;
    let array = NpyFile::new(bytes)?;
    if array.len() > MAX_VALUES {
        bail!("{} values: no AffectNet annotation", array.len());
    }
    let DType::Plain(kind) = array.dtype() else { bail!("a structured array: no AffectNet annotation") };
    if kind.size_field() > 64 {
        bail!("values of {} bytes: no AffectNet annotation", kind.size_field());
    }
    macro_rules! read {
        ($type:ty) => {
            array.into_vec::<$type>()?.into_iter().map(|v| v as f64).collect()
        };
    }
    Ok(match (kind.type_char(), kind.size_field()) {
        (TypeChar::UnicodeStr | TypeChar::ByteStr, _) => {
            let texts = array.into_vec::<String>()?;
            let parse = |t: &String| t.trim().parse().map_err(|_| anyhow!("`{}` is no number", super::table::clip(t)));
            texts.iter().map(parse).collect::<Result<_>>()?
        }
        (TypeChar::Int, 1) => read!(i8),
        (TypeChar::Int, 2) => read!(i16),
        (TypeChar::Int, 4) => read!(i32),
        (TypeChar::Int, 8) => read!(i64),
        (TypeChar::Uint, 1) => read!(u8),
        (TypeChar::Uint, 2) => read!(u16),
        (TypeChar::Uint, 4) => read!(u32),
        (TypeChar::Uint, 8) => read!(u64),
        (TypeChar::Float, 4) => read!(f32),
        (TypeChar::Float, 8) => read!(f64),
        _ => bail!("values of type {kind}: expected numbers or strings"),
    })
}

/// The parser takes memory as the header asks, multiplies the shape unchecked and recurses on brackets: bound all three first.
fn check_header(bytes: &[u8]) -> Result<()> {
    let wrong = || anyhow!("no NumPy array file");
    if bytes.get(..6) != Some(b"\x93NUMPY") {
        return Err(wrong());
    }
    let (start, length) = match bytes.get(6..12) {
        Some(&[1, _, a, b, ..]) => (10, usize::from(u16::from_le_bytes([a, b]))),
        Some(&[_, _, a, b, c, d]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(wrong()),
    };
    if length > MAX_HEADER {
        bail!("a header of {length} bytes: no AffectNet annotation");
    }
    let header = bytes.get(start..start + length).ok_or_else(|| anyhow!("cut short"))?;
    let count = |wanted: &[u8]| header.iter().filter(|b| wanted.contains(b)).count();
    // Twelve digits in all keep every product of the shape below 10^12.
    if count(b"([{") > 2 || count(b",") > 8 || count(b"0123456789") > 12 {
        bail!("not a plain array of few values");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn numbers_and_strings_of_numpy() {
        assert_eq!(parse(&npy("<U1", "()", b"7\0\0\0")).unwrap(), [7.0]);
        assert_eq!(parse(&npy("<U2", "()", b"1\0\0\x000\0\0\0")).unwrap(), [10.0]);
        assert_eq!(parse(&npy("<U2", "(1,)", b"4\0\0\0\0\0\0\0")).unwrap(), [4.0]);
        assert_eq!(parse(&npy("<i8", "()", &5i64.to_le_bytes())).unwrap(), [5.0]);
        assert_eq!(parse(&npy("<f4", "(1,)", &2.0f32.to_le_bytes())).unwrap(), [2.0]);
        assert_eq!(parse(&npy("|u1", "(2, 2)", &[1, 2, 3, 4])).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(parse(&npy("|S1", "()", b"3")).unwrap(), [3.0]);
    }

    #[test]
    fn other_files_are_refused_without_a_panic() {
        let good = npy("<i8", "(2,)", &[0; 16]);
        for keep in 0..good.len() {
            assert!(parse(&good[..keep]).is_err(), "{keep} bytes");
        }
        assert!(parse(&npy("|O", "()", b"pickle")).is_err());
        assert!(parse(&npy("<i8", "(99999999999, 99999999999)", b"")).is_err());
        assert!(parse(&npy("<i8", "(999999, 999999, 999999, 999999)", b"")).is_err());
        assert!(parse(&npy("<i8", &"(".repeat(900), b"")).is_err());
        assert!(parse(&npy("<U1", "()", b"x\0\0\0")).is_err());
        let mut huge = b"\x93NUMPY\x02\x00".to_vec();
        huge.extend(u32::MAX.to_le_bytes());
        assert!(parse(&huge).is_err());
    }
}
