//! Deadlines in order: one queue per clock.
//!
//! All entries of one clock have the same length, so their queue is always sorted: a new entry goes to the back, and
//! only the front can be due. A connection runs at most one clock at a time, so the queues are lists threaded through
//! one table: starting, stopping and finding the next deadline take constant time, and allocate only when the table
//! grows.

use std::time::{Duration, Instant};

use crate::stop::FAR;

/// What a connection is timed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Between requests, and before the first.
    Idle,
    /// While draining: between requests or within a head, since the last byte.
    Quiet,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
    /// A whole request waits for a worker thread.
    Queue,
    /// The peer is taking an answer: check its rate.
    Write,
    /// We have closed our side, and wait for the peer's end.
    Linger,
}

const CLOCKS: [Clock; 7] =
    [Clock::Idle, Clock::Quiet, Clock::Head, Clock::Body, Clock::Queue, Clock::Write, Clock::Linger];

const NONE: u32 = u32::MAX;

/// The clocks of all connections of a loop, by their index in its table.
#[derive(Debug)]
pub(crate) struct Timeouts {
    lengths: [Duration; CLOCKS.len()],
    queues: [Queue; CLOCKS.len()],
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    front: u32,
    back: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    clock: Option<Clock>,
    since: Option<Instant>,
    before: u32,
    after: u32,
}

const STOPPED: Entry = Entry { clock: None, since: None, before: NONE, after: NONE };

impl Timeouts {
    /// `length` says how long each clock runs.
    pub(crate) fn new(length: impl Fn(Clock) -> Duration) -> Self {
        Self {
            lengths: CLOCKS.map(length),
            queues: [Queue { front: NONE, back: NONE }; CLOCKS.len()],
            entries: Vec::new(),
        }
    }

    /// Starts a clock, and stops the connection's earlier one. `since` is now, or a moment ago on another loop; in that
    /// case the few entries started meanwhile are passed over.
    pub(crate) fn start(&mut self, index: u32, clock: Clock, since: Instant) {
        self.stop(index);
        if self.entries.len() <= index as usize {
            self.entries.resize(index as usize + 1, STOPPED);
        }
        let queue = &mut self.queues[clock as usize];
        let (mut before, mut after) = (queue.back, NONE);
        while before != NONE && self.entries[before as usize].since > Some(since) {
            (before, after) = (self.entries[before as usize].before, before);
        }
        self.entries[index as usize] = Entry { clock: Some(clock), since: Some(since), before, after };
        match before {
            NONE => queue.front = index,
            _ => self.entries[before as usize].after = index,
        }
        match after {
            NONE => queue.back = index,
            _ => self.entries[after as usize].before = index,
        }
    }

    /// Disables this timeout, but keeps its order (`longest`).
    pub(crate) fn suspend(&mut self, clock: Clock) {
        self.lengths[clock as usize] = FAR;
    }

    /// Stops the connection's clock, if one runs.
    pub(crate) fn stop(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return;
        };
        let Entry { clock, before, after, .. } = std::mem::replace(entry, STOPPED);
        let Some(clock) = clock else { return };
        let queue = &mut self.queues[clock as usize];
        if before == NONE {
            queue.front = after;
        } else {
            self.entries[before as usize].after = after;
        }
        if after == NONE {
            queue.back = before;
        } else {
            self.entries[after as usize].before = before;
        }
    }

    /// The clock that a connection runs.
    pub(crate) fn running(&self, index: u32) -> Option<Clock> {
        self.entries.get(index as usize).and_then(|entry| entry.clock)
    }

    /// The connection that has run this clock longest.
    pub(crate) fn longest(&self, clock: Clock) -> Option<u32> {
        Some(self.queues[clock as usize].front).filter(|front| *front != NONE)
    }

    /// When the connection that has run this clock longest started it.
    pub(crate) fn longest_since(&self, clock: Clock) -> Option<Instant> {
        self.entries[self.longest(clock)? as usize].since
    }

    /// The earliest deadline of all clocks.
    pub(crate) fn next(&self) -> Option<Instant> {
        CLOCKS.iter().filter_map(|clock| self.due(*clock)).min()
    }

    /// Stops and returns a clock that has run out.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(u32, Clock)> {
        let clock = *CLOCKS.iter().find(|clock| self.due(**clock).is_some_and(|due| due <= now))?;
        let index = self.longest(clock)?;
        self.stop(index);
        Some((index, clock))
    }

    fn due(&self, clock: Clock) -> Option<Instant> {
        self.longest_since(clock)?.checked_add(self.lengths[clock as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn clocks_run_out_in_order() {
        let start = sync::now();
        let mut timeouts = Timeouts::new(|clock| if clock == Clock::Head { seconds(5) } else { seconds(60) });
        assert_eq!(timeouts.next(), None);
        timeouts.start(0, Clock::Idle, start);
        timeouts.start(7, Clock::Head, start + seconds(1));
        timeouts.start(3, Clock::Head, start + seconds(2));
        timeouts.start(5, Clock::Idle, start + seconds(3));
        assert_eq!(timeouts.next(), Some(start + seconds(6)));
        assert_eq!(timeouts.expired(start + seconds(5)), None);
        assert_eq!(timeouts.expired(start + seconds(9)), Some((7, Clock::Head)));
        // Another clock replaces the first.
        timeouts.start(3, Clock::Idle, start + seconds(9));
        assert_eq!(timeouts.longest(Clock::Head), None);
        assert_eq!(timeouts.longest(Clock::Idle), Some(0));
        // Taken out of the middle.
        timeouts.stop(5);
        assert_eq!(timeouts.running(5), None);
        assert_eq!(timeouts.expired(start + seconds(100)), Some((0, Clock::Idle)));
        assert_eq!(timeouts.expired(start + seconds(100)), Some((3, Clock::Idle)));
        assert_eq!(timeouts.expired(start + seconds(100)), None);
        assert_eq!(timeouts.next(), None);
        timeouts.stop(99);
    }

    #[test]
    fn a_clock_that_began_on_another_loop_takes_its_place() {
        let start = sync::now();
        let mut timeouts = Timeouts::new(|_| seconds(60));
        for (index, since) in [(0, 2), (1, 4), (2, 3), (3, 1), (4, 5)] {
            timeouts.start(index, Clock::Idle, start + seconds(since));
        }
        assert_eq!(timeouts.next(), Some(start + seconds(61)));
        let order: Vec<_> = std::iter::from_fn(|| timeouts.expired(start + seconds(100))).collect();
        assert_eq!(order, [3, 0, 2, 1, 4].map(|index| (index, Clock::Idle)));
        timeouts.start(5, Clock::Idle, start);
        assert_eq!(timeouts.longest(Clock::Idle), Some(5));
    }
}
