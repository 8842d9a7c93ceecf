//! How many handlers may run at once, and which request comes next when more want to.
//!
//! A handler runs on the thread that holds its loop, until it turns out to be slow: then a spare takes the loop, and
//! the handler is *displaced*. So the running handlers are the displaced ones, counted here, and the busy words, at
//! most one per loop. While the limit has room for the displaced ones and one on every loop, no busy word needs to be
//! counted; that is the common case, and costs two loads.
//!
//! Why the count is never too low: a holder announces itself before it reads the count, and a spare raises the count
//! before it claims a loop. All these operations are sequentially consistent, so they have one order; in it, if two
//! loops want the last permit, the second sees the first.
//!
//! Why no queued request is forgotten: a loop publishes it before it looks for a permit once more, and a thread gives a
//! permit back before it looks for a queued request.

use std::time::Instant;

use super::word::Word;
use crate::sync::{self, AtomicU64, AtomicUsize, Mutex, Ordering};

#[derive(Debug)]
pub(crate) struct Permits {
    pub(crate) words: Vec<Word>,
    /// How many displaced handlers still run.
    displaced: AtomicUsize,
    /// How many handlers may run at once.
    max: usize,
    /// Locked to get a permit when few are left.
    entry: Mutex<()>,
    /// Per loop: when its oldest queued request began to wait, in µs (at least 1); 0 if the queue is empty.
    waiting: Vec<AtomicU64>,
    /// How many loops have a queued request.
    queues: AtomicUsize,
    started: Instant,
}

impl Permits {
    /// Raises `max` to one per loop: with fewer, some loops could not serve at all.
    pub(crate) fn new(loops: usize, max: usize) -> Self {
        Self {
            words: (0..loops).map(|_| Word::new()).collect(),
            displaced: AtomicUsize::new(0),
            max: max.max(loops),
            entry: Mutex::new(()),
            waiting: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            queues: AtomicUsize::new(0),
            started: sync::now(),
        }
    }

    /// Takes a permit for a request that has just come. It must not overtake queued requests.
    pub(crate) fn enter(&self, index: usize) -> bool {
        if self.queues.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let word = &self.words[index];
        word.announce();
        if self.displaced.load(Ordering::SeqCst) + self.words.len() <= self.max {
            return true;
        }
        word.withdraw();
        self.enter_among_few(index)
    }

    /// Takes a permit for this loop's oldest queued request, if that is the oldest of all loops and a permit is free.
    /// `Err`: the loop whose request comes first, if it is another one.
    pub(crate) fn enter_waiting(&self, index: usize) -> Result<(), Option<usize>> {
        match self.next_in_line() {
            Some(next) if next != index => Err(Some(next)),
            _ if self.enter_among_few(index) => Ok(()),
            _ => Err(None),
        }
    }

    /// How many handlers run.
    pub(crate) fn running(&self) -> usize {
        // The words first: a handler that a spare displaces in between then counts twice. In the other order it would
        // not count at all, and one more than `max` could run.
        let busy = self.words.iter().filter(|word| word.load().is_busy()).count();
        busy + self.displaced()
    }

    fn enter_among_few(&self, index: usize) -> bool {
        let _entry = self.entry.lock();
        let word = &self.words[index];
        word.announce();
        let is_free = self.running() <= self.max;
        if !is_free {
            word.withdraw();
        }
        is_free
    }

    /// A spare is about to claim a loop with a slow handler.
    pub(crate) fn displace(&self) {
        self.displaced.fetch_add(1, Ordering::SeqCst);
    }

    /// A displaced handler has returned, or was not displaced after all.
    pub(crate) fn replace(&self) {
        self.displaced.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn displaced(&self) -> usize {
        self.displaced.load(Ordering::SeqCst)
    }

    /// Publishes when this loop's oldest queued request began to wait. Returns true if that has changed: a thread that
    /// gave back a permit meanwhile may have woken this loop as the next in line when it no longer was.
    pub(crate) fn publish(&self, index: usize, since: Option<Instant>) -> bool {
        let since_us = since.map_or(0, |since| {
            u64::try_from(since.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX).max(1)
        });
        let before = self.waiting[index].swap(since_us, Ordering::SeqCst);
        match (before, since_us) {
            (0, 1..) => _ = self.queues.fetch_add(1, Ordering::SeqCst),
            (1.., 0) => _ = self.queues.fetch_sub(1, Ordering::SeqCst),
            _ => {}
        }
        before != since_us
    }

    /// The loop with the oldest queued request, if there is one.
    pub(crate) fn next_in_line(&self) -> Option<usize> {
        if self.queues.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let waiting = self.waiting.iter().enumerate().map(|(index, since)| (since.load(Ordering::SeqCst), index));
        waiting.filter(|(since, _)| *since > 0).min().map(|(_, index)| index)
    }
}
