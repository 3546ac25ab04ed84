//! An allocator that notes what is asked of it: a header of a few bytes must not cost hundreds of megabytes, and a test that would find out
//! by running out of memory finds out too late.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most that one allocation may take, whatever a small file claims.
pub const LARGEST: usize = 64 << 20;
/// The most that all tests, which run beside each other, may hold at a time.
pub const PEAK: usize = 1 << 30;

static LARGEST_SO_FAR: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK_SO_FAR: AtomicUsize = AtomicUsize::new(0);

struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn note(size: usize) {
    LARGEST_SO_FAR.fetch_max(size, Relaxed);
    let held = HELD.fetch_add(size, Relaxed) + size;
    PEAK_SO_FAR.fetch_max(held, Relaxed);
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait; this one hands everything on to the system's")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Fails where more was asked for than a small file is worth, since the program began.
pub fn check(what: &str) {
    let (largest, peak) = (LARGEST_SO_FAR.load(Relaxed), PEAK_SO_FAR.load(Relaxed));
    assert!(largest <= LARGEST, "{what}, or what ran beside it: one allocation of {} MiB", largest >> 20);
    assert!(peak <= PEAK, "{what}, or what ran beside it: {} MiB held at a time", peak >> 20);
}

#[test]
fn allocations_are_noted() {
    let bytes = std::hint::black_box(vec![1u8; 3 << 20]);
    assert!(LARGEST_SO_FAR.load(Relaxed) >= 3 << 20 && PEAK_SO_FAR.load(Relaxed) >= bytes.len());
}
