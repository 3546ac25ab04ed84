//! Work ahead of the training loop: worker threads make items, one consumer takes them in order.

use anyhow::Result;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Condvar, Mutex, PoisonError};

struct Window<T> {
    /// Next item that nobody has started.
    next: usize,
    /// Next item the consumer wants.
    wanted: usize,
    ready: BTreeMap<usize, T>,
    stopped: bool,
}

/// Makes `items` on `workers` threads, at most `ahead` items beyond the consumer, and consumes them in order on the calling thread.
///
/// `consume` also gets a look at the item behind the one that it is given, if that is ready.
///
/// What is made may depend on nothing but the item's number, so the result does not depend on `workers`. Stops early when `consume`
/// says so or fails.
pub fn ahead<T: Send>(
    items: Range<usize>,
    workers: usize,
    ahead: usize,
    make: impl Fn(usize) -> T + Sync,
    mut consume: impl FnMut(usize, T, Option<&T>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let window = Mutex::new(Window { next: items.start, wanted: items.start, ready: BTreeMap::new(), stopped: false });
    let changed = Condvar::new();
    let lock = || window.lock().unwrap_or_else(PoisonError::into_inner);
    /// Releases the other side when one side leaves, also by panic.
    struct Stop<'a, T>(&'a Mutex<Window<T>>, &'a Condvar);
    impl<T> Drop for Stop<'_, T> {
        fn drop(&mut self) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
            self.1.notify_all();
        }
    }
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| {
                loop {
                    let item = {
                        let mut w = lock();
                        while !w.stopped && w.next < items.end && w.next >= w.wanted + ahead.max(1) {
                            w = changed.wait(w).unwrap_or_else(PoisonError::into_inner);
                        }
                        if w.stopped || w.next >= items.end {
                            return;
                        }
                        w.next += 1;
                        w.next - 1
                    };
                    let guard = Stop(&window, &changed);
                    let made = make(item);
                    std::mem::forget(guard);
                    lock().ready.insert(item, made);
                    changed.notify_all();
                }
            });
        }
        let _stop = Stop(&window, &changed);
        let mut next: Option<T> = None;
        for item in items.clone() {
            let made = {
                let mut w = lock();
                loop {
                    if let Some(made) = next.take().or_else(|| w.ready.remove(&item)) {
                        w.wanted = item + 1;
                        break Some(made);
                    }
                    if w.stopped {
                        break None;
                    }
                    w = changed.wait(w).unwrap_or_else(PoisonError::into_inner);
                }
            };
            next = lock().ready.remove(&(item + 1));
            changed.notify_all();
            // A worker that panicked stops the window; leaving the scope passes its panic on.
            let Some(made) = made else { break };
            if consume(item, made, next.as_ref())?.is_break() {
                break;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_whatever_the_workers() {
        for workers in [1, 2, 5] {
            let mut seen = Vec::new();
            ahead(
                3..40,
                workers,
                4,
                |i| i * i,
                |i, v, next| {
                    assert!(next.is_none_or(|next| *next == (i + 1) * (i + 1)));
                    seen.push((i, v));
                    Ok(ControlFlow::Continue(()))
                },
            )
            .unwrap();
            assert_eq!(seen, (3..40).map(|i| (i, i * i)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn stops_early_and_on_errors() {
        let mut count = 0;
        ahead(
            0..1000,
            3,
            2,
            |i| i,
            |_, _, _| {
                count += 1;
                Ok(if count == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        )
        .unwrap();
        assert_eq!(count, 5);
        assert!(ahead(0..10, 2, 2, |i| i, |i, _, _| if i == 3 { anyhow::bail!("no") } else { Ok(ControlFlow::Continue(())) }).is_err());
    }

    #[test]
    fn a_panicking_worker_does_not_hang_the_loop() {
        let result = std::panic::catch_unwind(|| {
            ahead(0..10, 2, 2, |i| if i == 4 { panic!("made of glass") } else { i }, |_, _, _| Ok(ControlFlow::Continue(())))
        });
        assert!(result.is_err());
    }
}
