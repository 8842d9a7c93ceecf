//! What became of the requests of a stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    crossed: AtomicU64,
    queued: AtomicU64,
    unanswered: Mutex<Vec<String>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Sent when the server had a right to have closed the connection already.
    pub(crate) fn crossed(&self) {
        self.crossed.fetch_add(1, Ordering::Relaxed);
    }

    /// In the queue of a listener that was broken from outside, which resets whoever is in it.
    pub(crate) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// Owed: the stop has to say that it was cut off.
    pub(crate) fn unanswered(&self, what: String) {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(crate) fn fault(&self, what: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Answered, crossed, queued.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [&self.answered, &self.crossed, &self.queued].map(|count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn take(&self) -> (Vec<String>, Vec<String>) {
        let take =
            |list: &Mutex<Vec<String>>| std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
        (take(&self.unanswered), take(&self.faults))
    }
}
