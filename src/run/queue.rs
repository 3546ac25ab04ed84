//! The queue between the training loop and whoever writes or shows its events.
//!
//! Pushing never waits: the queue has no bound, but once its consumer lags by [`LAG`] events, a new intermediate reading takes the place of
//! the last one of its kind that still waits. All other events are kept, in order. Pushing into a closed queue does nothing.

use super::event::{Body, Event};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waiting events from which on readings are coalesced.
pub(super) const LAG: usize = 4096;
/// How far back a reading looks for the one it replaces: enough for a few watched faces.
const REACH: usize = 64;

#[derive(Default)]
struct State {
    events: VecDeque<Arc<Event>>,
    closed: bool,
    /// Events have been taken and are being worked on.
    busy: bool,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

impl Queue {
    /// The state is plain data that every operation leaves whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, event: Arc<Event>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.events.len() >= LAG && matches!(event.body, Body::Scalars(_) | Body::Watched { .. }) {
            let recent = state.events.iter().rev().take(REACH).position(|waiting| waiting.coalesces_with(&event));
            if let Some(back) = recent {
                let index = state.events.len() - 1 - back;
                state.events.remove(index);
            }
        }
        state.events.push_back(event);
        drop(state);
        // The one who takes, and those who wait until all is taken.
        self.news.notify_all();
    }

    /// What waits, after at most `patience`; `None` once the queue is closed and empty. Whoever takes is done with what was taken before.
    pub fn take(&self, patience: Duration) -> Option<VecDeque<Arc<Event>>> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        if std::mem::take(&mut state.busy) {
            self.news.notify_all();
        }
        loop {
            if !state.events.is_empty() {
                state.busy = true;
                return Some(std::mem::take(&mut state.events));
            }
            if state.closed {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(VecDeque::new());
            }
            state = self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until all that was pushed has been taken and worked on; false where that takes longer than `patience`.
    pub fn settle(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.busy || !state.events.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// No more events come in; those that wait can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// Nobody takes events any more: forget those that wait, and all that come.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::{event, every_body};
    use super::*;
    use crate::run::Scalars;

    fn scalars(step: u64) -> Arc<Event> {
        Arc::new(Event { step, ..event(Body::Scalars(Scalars::from([("loss", step as f64)]))) })
    }

    #[test]
    fn a_lagging_consumer_loses_readings_only() {
        let queue = Queue::default();
        for step in 0..LAG as u64 * 3 {
            queue.push(scalars(step));
            if step % 1000 == 0 {
                queue.push(Arc::new(event(Body::Checkpoint { path: step.to_string() })));
            }
        }
        let waiting = queue.take(Duration::ZERO).unwrap();
        assert!(waiting.len() < LAG + 20, "{}", waiting.len());
        let checkpoints = waiting.iter().filter(|e| matches!(e.body, Body::Checkpoint { .. })).count();
        assert_eq!(checkpoints, (LAG * 3).div_ceil(1000));
        // The newest reading is the one that is kept, and steps still rise.
        let steps: Vec<u64> = waiting.iter().filter(|e| matches!(e.body, Body::Scalars(_))).map(|e| e.step).collect();
        assert!(steps.is_sorted() && steps.last() == Some(&(LAG as u64 * 3 - 1)));
    }

    #[test]
    fn settled_means_taken_and_done_with() {
        let queue = Queue::default();
        assert!(queue.settle(Duration::ZERO));
        queue.push(scalars(1));
        assert!(!queue.settle(Duration::from_millis(5)));
        queue.take(Duration::ZERO).unwrap();
        assert!(!queue.settle(Duration::from_millis(5)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.settle(Duration::from_secs(60)));
            assert!(queue.take(Duration::from_millis(20)).unwrap().is_empty());
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn closing_lets_the_rest_through() {
        let queue = Queue::default();
        every_body().into_iter().for_each(|body| queue.push(Arc::new(event(body))));
        queue.close();
        queue.push(scalars(1));
        assert_eq!(queue.take(Duration::from_secs(9)).unwrap().len(), every_body().len());
        assert!(queue.take(Duration::from_secs(9)).is_none());
    }
}
