//! Matrix products over slices: the bounds of `gemm`'s raw pointers are checked here, and nowhere else.

use std::mem::MaybeUninit;

/// Where a matrix's elements lie in a slice.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub start: usize,
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

impl Place {
    /// Rows of `width` values, one after the other.
    pub fn rows(width: usize) -> Self {
        Self { start: 0, row: width, column: 1 }
    }

    /// The same matrix with rows for columns.
    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// Whether a matrix of this size lies within `len` values.
    fn fits(self, rows: usize, columns: usize, len: usize) -> bool {
        if rows == 0 || columns == 0 {
            return true;
        }
        let along = |n: usize, stride: usize| (n - 1).checked_mul(stride);
        let last = along(rows, self.row).zip(along(columns, self.column)).and_then(|(a, b)| a.checked_add(b)?.checked_add(self.start));
        last.is_some_and(|last| last < len)
    }
}

/// A matrix to read.
#[derive(Clone, Copy)]
pub struct Matrix<'a>(pub &'a [f32], pub Place);

/// From how many multiplications on a product is shared among the threads of the pool that asks for it.
const SHARED: usize = 1 << 23;

/// `[m, n]` at `place` of `out` = scale `a` `[m, k]` `b` `[k, n]`.
///
/// # Panics
/// Where a matrix reaches beyond its slice.
#[expect(unsafe_code, reason = "gemm takes raw pointers")]
pub fn product(out: &mut [MaybeUninit<f32>], place: Place, a: Matrix, b: Matrix, [m, k, n]: [usize; 3], scale: f32) {
    assert!(place.fits(m, n, out.len()) && a.1.fits(m, k, a.0.len()) && b.1.fits(k, n, b.0.len()), "a matrix beyond its slice");
    if m == 0 || n == 0 {
        return;
    }
    let shared = m * n * k >= SHARED && rayon::current_num_threads() > 1;
    let parallelism = if shared { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    let strides = |p: Place| (p.column as isize, p.row as isize);
    let ((out_column, out_row), (a_column, a_row), (b_column, b_row)) = (strides(place), strides(a.1), strides(b.1));
    // SAFETY: every element of the three matrices lies in its slice, and `out`, which is borrowed alone, is only written.
    unsafe {
        let (a, b) = (a.0.as_ptr().add(a.1.start), b.0.as_ptr().add(b.1.start));
        let out = out.as_mut_ptr().cast::<f32>().add(place.start);
        gemm::gemm(
            m,
            n,
            k,
            out,
            out_column,
            out_row,
            false,
            a,
            a_column,
            a_row,
            b,
            b_column,
            b_row,
            0.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// [`product`] over values that are there already.
pub fn replace_product(out: &mut [f32], place: Place, a: Matrix, b: Matrix, size: [usize; 3]) {
    #[expect(unsafe_code, reason = "a slice cannot otherwise be seen as one of perhaps uninitialised values")]
    // SAFETY: initialised values seen as perhaps uninitialised; a product only ever writes values to them.
    let out = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast::<MaybeUninit<f32>>(), out.len()) };
    product(out, place, a, b, size, 1.0);
}

/// A new vector that `write` fills. Large tensors are not cleared first: writing them once is what costs.
///
/// # Safety
/// `write` must write every value.
#[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
pub unsafe fn fresh(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the caller's promise.
    unsafe { values.set_len(len) };
    values
}

/// A new matrix `a` `[m, k]` `b` `[k, n]`, row-major.
#[expect(unsafe_code, reason = "large tensors are written once, not cleared first")]
pub fn new_product(a: Matrix, b: Matrix, size: [usize; 3]) -> Vec<f32> {
    let [m, _, n] = size;
    // SAFETY: a product writes all of its m n values.
    unsafe { fresh(m * n, |out| product(out, Place::rows(n), a, b, size, 1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + salt * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn products_of_every_layout() {
        let [m, k, n] = [7, 5, 9];
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let expected: Vec<f32> = (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect();
        let close = |x: &[f32]| x.len() == m * n && x.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&new_product(Matrix(&a, Place::rows(k)), Matrix(&b, Place::rows(n)), [m, k, n])));
        let mut turned = vec![0.0; m * k];
        (0..m * k).for_each(|i| turned[i % k * m + i / k] = a[i]);
        assert!(close(&new_product(Matrix(&turned, Place::rows(m).transposed()), Matrix(&b, Place::rows(n)), [m, k, n])));
        let mut other = values(m * n, 3);
        replace_product(&mut other, Place::rows(n), Matrix(&a, Place::rows(k)), Matrix(&b, Place::rows(n)), [m, k, n]);
        assert!(close(&other));
    }

    #[test]
    #[should_panic(expected = "a matrix beyond its slice")]
    fn nothing_is_read_beyond_a_slice() {
        let a = values(6, 0);
        new_product(Matrix(&a, Place::rows(3)), Matrix(&a, Place { start: 1, row: 2, column: 1 }), [2, 3, 2]);
    }
}
