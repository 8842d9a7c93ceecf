//! What a server counts: [`Counts`] for each loop, [`Totals`] for the server. [`stats`](super::stats) shows it.
//!
//! A loop counts for itself: one thread at a time has the loop, so to count is to load and to store, without a locked
//! instruction, and no two loops share a cache line. Whoever reads adds the loops up, at any time and without order: a
//! reader may see an answer counted and not yet its bytes. What is rare, or happens without a loop, is counted in one
//! place for all.

use std::time::Duration;

use super::notice::Want;
use super::phase::Clock;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering};

/// The counts of one loop. Aligned, so that nobody else writes to its cache lines, nor to the lines that a processor
/// fetches along.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counts {
    pub(crate) accepted: Counter,
    /// Bytes that loops have read and sent; what handlers' threads do is in [`Totals`].
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    /// By the first digit of their status, from 2 on.
    pub(crate) answers: [Counter; 4],
    /// Those that took as long as each of [`BOUNDS_US`] at most, and longer than the one before; and the others.
    pub(crate) took: [Counter; BOUNDS_US.len() + 1],
    pub(crate) took_ns: Counter,
    pub(crate) connections: Gauge,
    /// How many connections run each clock.
    clocks: [Gauge; Clock::ALL.len()],
}

/// How long an answer takes, in µs: the upper bounds by which answers are counted.
pub(crate) const BOUNDS_US: [u64; 8] = [100, 1000, 5000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

impl Counts {
    /// Counts an answer with this status.
    #[inline]
    pub(crate) fn answer(&self, code: u16) {
        let class = match code {
            ..300 => 0,
            300..400 => 1,
            400..500 => 2,
            500.. => 3,
        };
        self.answers[class].add(1);
    }

    /// Counts answers that have taken so long.
    #[inline]
    pub(crate) fn took(&self, answers: u32, took: Duration) {
        // Without `as_nanos`, whose 128 bits take as long as all the rest.
        let took_ns = took.as_secs().wrapping_mul(1_000_000_000).wrapping_add(took.subsec_nanos().into());
        let bucket = BOUNDS_US.iter().take_while(|bound_us| took_ns > **bound_us * 1000).count();
        self.took[bucket].add(answers.into());
        self.took_ns.add(took_ns.wrapping_mul(answers.into()));
    }

    pub(crate) fn clock(&self, clock: Clock) -> &Gauge {
        &self.clocks[clock as usize]
    }
}

/// The counts of a server.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) loops: Vec<Arc<Counts>>,
    pub(crate) drained: AtomicU64,
    pub(crate) cut_off: AtomicU64,
    pub(crate) refused: [AtomicU64; Want::ALL.len()],
    pub(crate) panics: AtomicU64,
    pub(crate) hand_offs: AtomicU64,
    /// Bytes that handlers' threads have read and sent.
    pub(crate) streamed_in: AtomicU64,
    pub(crate) streamed_out: AtomicU64,
}

impl Totals {
    pub(crate) fn new(loops: usize) -> Self {
        Self { loops: (0..loops).map(|_| Arc::default()).collect(), ..Self::default() }
    }

    pub(crate) fn add_refused(&self, want: Want) {
        self.refused[want as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_drained(&self, count: u64) {
        self.drained.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_cut_off(&self, count: usize) {
        self.cut_off.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_hand_off(&self) {
        self.hand_offs.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_streamed_in(&self, bytes: usize) {
        self.streamed_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_streamed_out(&self, bytes: usize) {
        self.streamed_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A number that goes up and down. One thread at a time changes it.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    #[inline]
    pub(crate) fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn down(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(not(target_has_atomic = "64"))]
pub(crate) use wide::Counter;

/// A number that only grows. One thread at a time changes it.
#[cfg(target_has_atomic = "64")]
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

#[cfg(target_has_atomic = "64")]
impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same where the processor has no atomic words of 64 bits.
#[cfg(any(test, not(target_has_atomic = "64")))]
mod wide {
    use crate::sync::{AtomicU32, Ordering, fence};

    /// The high half stands twice: written before the low half and behind it, it is read the other way round. A reader
    /// that finds it the same both times has a low half that goes with it.
    #[derive(Debug, Default)]
    pub(crate) struct Counter {
        low: AtomicU32,
        high: AtomicU32,
        next_high: AtomicU32,
    }

    impl Counter {
        pub(crate) fn add(&self, more: u64) {
            let (low, high) = (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
            let sum = (u64::from(high) << 32 | u64::from(low)).wrapping_add(more);
            let (new_high, new_low) = ((sum >> 32) as u32, (sum & 0xffff_ffff) as u32);
            if new_high == high {
                return self.low.store(new_low, Ordering::Relaxed);
            }
            self.next_high.store(new_high, Ordering::Relaxed);
            // Whoever sees this low half, or a later one, sees the high half that goes with it.
            fence(Ordering::Release);
            self.low.store(new_low, Ordering::Relaxed);
            self.high.store(new_high, Ordering::Release);
        }

        pub(crate) fn get(&self) -> u64 {
            loop {
                let high = self.high.load(Ordering::Acquire);
                let low = self.low.load(Ordering::Acquire);
                // Another one is being written: a few instructions, once in 2^32.
                if self.next_high.load(Ordering::Relaxed) == high {
                    return u64::from(high) << 32 | u64::from(low);
                }
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wide::Counter as Wide;
    use super::*;

    #[test]
    fn a_count_in_two_halves_never_goes_back() {
        const STEP: u64 = (1 << 31) - 7;
        let (count, rounds) = (Wide::default(), 200_000);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..rounds).for_each(|_| count.add(STEP)));
            let mut before = 0;
            while before < rounds * STEP {
                let now = count.get();
                assert!(now >= before && now % STEP == 0, "{now} behind {before}");
                before = now;
            }
        });
    }

    #[test]
    fn answers_are_counted_by_class_and_by_how_long_they_took() {
        let counts = Counts::default();
        [200, 204, 304, 404, 503, 599, 999].into_iter().for_each(|code| counts.answer(code));
        assert_eq!(counts.answers.each_ref().map(Counter::get), [2, 1, 1, 3]);
        counts.took(3, Duration::from_micros(100));
        counts.took(1, Duration::from_micros(101));
        counts.took(2, Duration::from_secs(11));
        assert_eq!(counts.took.each_ref().map(Counter::get), [3, 1, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(counts.took_ns.get(), 22_000_401_000);
    }
}
