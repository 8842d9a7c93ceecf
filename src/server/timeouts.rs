//! Deadlines in order: one queue per clock.
//!
//! All entries of one clock have the same length, so their queue is always sorted: a new entry goes to the back, and
//! only the front can be due. A connection runs at most one clock at a time, so the queues are lists threaded through
//! one table: starting, stopping and finding the next deadline take constant time, and allocate only when the table
//! grows.

use std::time::{Duration, Instant};

use super::counts::Counts;
use super::phase::Clock;
use crate::stop::FAR;
use crate::sync::Arc;

const NONE: u32 = u32::MAX;

/// The clocks of all connections of a loop, by their index in its table.
#[derive(Debug)]
pub(crate) struct Timeouts {
    lengths: [Duration; Clock::ALL.len()],
    queues: [Queue; Clock::ALL.len()],
    entries: Vec<Entry>,
    /// Where it is counted how many run each clock.
    counts: Arc<Counts>,
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
    pub(crate) fn new(counts: Arc<Counts>, length: impl Fn(Clock) -> Duration) -> Self {
        Self {
            lengths: Clock::ALL.map(length),
            queues: [Queue { front: NONE, back: NONE }; Clock::ALL.len()],
            entries: Vec::new(),
            counts,
        }
    }

    /// Starts a clock, and stops the connection's earlier one. `since` is now, or a moment ago on another loop; in that
    /// case the few entries started meanwhile are passed over.
    pub(crate) fn start(&mut self, index: u32, clock: Clock, since: Instant) {
        let stopped = self.unlink(index);
        if stopped != Some(clock) {
            self.note_stopped(stopped);
            self.counts.clock(clock).up();
        }
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
        let stopped = self.unlink(index);
        self.note_stopped(stopped);
    }

    fn note_stopped(&self, clock: Option<Clock>) {
        if let Some(clock) = clock {
            self.counts.clock(clock).down();
        }
    }

    /// Takes the connection out of its clock's queue, if it is in one.
    fn unlink(&mut self, index: u32) -> Option<Clock> {
        let entry = self.entries.get_mut(index as usize)?;
        let Entry { clock, before, after, .. } = std::mem::replace(entry, STOPPED);
        let clock = clock?;
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
        Some(clock)
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
        Clock::ALL.iter().filter_map(|clock| self.due(*clock)).min()
    }

    /// Stops and returns a clock that has run out.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(u32, Clock)> {
        let clock = *Clock::ALL.iter().find(|clock| self.due(**clock).is_some_and(|due| due <= now))?;
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
        let mut timeouts =
            Timeouts::new(Arc::default(), |clock| if clock == Clock::Head { seconds(5) } else { seconds(60) });
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
        let mut timeouts = Timeouts::new(Arc::default(), |_| seconds(60));
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
