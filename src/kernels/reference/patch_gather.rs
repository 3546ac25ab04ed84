//! CPU twin of `shaders/patch_gather.wgsl`: rows of `[B, N, D]` by index (the visible or the masked tokens), and the way back.

use rayon::prelude::*;

/// Sizes of a gather or scatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// B
    pub samples: usize,
    /// N: rows of a sample in the full tensor.
    pub rows: usize,
    /// K: rows of a sample in the gathered tensor.
    pub kept: usize,
    /// D: values in a row.
    pub width: usize,
}

impl Rows {
    fn check(&self, source: usize, index: usize, source_rows: usize) {
        assert_eq!(source, self.samples * source_rows * self.width, "source of {self:?}");
        assert_eq!(index, self.samples * self.kept, "index of {self:?}");
    }
}

/// `[B, N, D]`, `[B, K]` -> `[B, K, D]`; a row that does not exist is zero.
///
/// # Panics
/// If a slice does not have the size that `rows` says.
pub fn gather<T: Copy + Default + Send + Sync>(source: &[T], index: &[i32], rows: &Rows) -> Vec<T> {
    rows.check(source.len(), index.len(), rows.rows);
    let mut out = vec![T::default(); rows.samples * rows.kept * rows.width];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(rows.kept * rows.width).enumerate().for_each(|(sample, out)| {
        let source = &source[sample * rows.rows * rows.width..][..rows.rows * rows.width];
        let list = &index[sample * rows.kept..][..rows.kept];
        for (out, &row) in out.chunks_mut(rows.width).zip(list) {
            if let Some(from) = usize::try_from(row).ok().filter(|&row| row < rows.rows) {
                out.copy_from_slice(&source[from * rows.width..][..rows.width]);
            }
        }
    });
    out
}

/// `[B, K, D]`, `[B, K]` -> `[B, N, D]`: rows of the same place are added in the order of the list, as f32 (`widen`) and rounded once
/// (`narrow`); a single row is copied as it is. Places outside are left out.
///
/// # Panics
/// If a slice does not have the size that `rows` says.
pub fn scatter<T: Copy + Default + Send + Sync>(
    source: &[T],
    index: &[i32],
    rows: &Rows,
    widen: impl Fn(T) -> f32 + Sync,
    narrow: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    rows.check(source.len(), index.len(), rows.kept);
    let mut out = vec![T::default(); rows.samples * rows.rows * rows.width];
    if out.is_empty() || rows.kept == 0 {
        return out;
    }
    out.par_chunks_mut(rows.rows * rows.width).enumerate().for_each(|(sample, out)| {
        let source = &source[sample * rows.kept * rows.width..][..rows.kept * rows.width];
        let mut places: Vec<(usize, usize)> = index[sample * rows.kept..][..rows.kept]
            .iter()
            .enumerate()
            .filter_map(|(k, &row)| usize::try_from(row).ok().filter(|&row| row < rows.rows).map(|row| (row, k)))
            .collect();
        places.sort_unstable();
        for same in places.chunk_by(|a, b| a.0 == b.0) {
            let out = &mut out[same[0].0 * rows.width..][..rows.width];
            let from = |k: usize| &source[k * rows.width..][..rows.width];
            if let [(_, k)] = same {
                out.copy_from_slice(from(*k));
            } else {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = narrow(same.iter().fold(0.0, |sum, &(_, k)| sum + widen(from(k)[i])));
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows = Rows { samples: 2, rows: 4, kept: 3, width: 2 };

    fn numbered(n: usize) -> Vec<f32> {
        (1..=n).map(|v| v as f32).collect()
    }

    #[test]
    fn gathers_rows_and_zeros_for_those_that_do_not_exist() {
        let out = gather(&numbered(16), &[2, 0, 0, 3, -1, 4], &ROWS);
        assert_eq!(out, [5.0, 6.0, 1.0, 2.0, 1.0, 2.0, 15.0, 16.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn scatters_sums_and_leaves_out_places_that_do_not_exist() {
        let out = scatter(&numbered(12), &[2, 0, 2, 3, -1, 4], &ROWS, |v| v, |v| v);
        assert_eq!(out, [3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 8.0]);
    }

    #[test]
    fn nothing_kept_is_nothing_gathered_and_zeros_scattered() {
        let none = Rows { kept: 0, ..ROWS };
        assert!(gather(&numbered(16), &[], &none).is_empty());
        assert_eq!(scatter(&[], &[], &none, |v: f32| v, |v| v), [0.0; 16]);
        assert!(gather::<f32>(&[], &[], &Rows { samples: 0, ..ROWS }).is_empty());
    }
}
