//! Reports at most once a second, with a count, what may happen a thousand times a second; and pauses that grow, before
//! something is tried again that has failed.

use std::time::{Duration, Instant};

use crate::sync::{AtomicUsize, Ordering};

const INTERVAL_MS: usize = 1000;

/// The first pause, and the longest.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Pauses before something is tried again that the system had nothing for.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { pause: PAUSE_MIN }
    }

    /// It has failed: how long to pause, each time twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// It has succeeded.
    pub(crate) fn reset(&mut self) {
        self.pause = PAUSE_MIN;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// When it was last reported, in milliseconds, plus one; 0 if never. Wraps around: on 32-bit machines after 49
    /// days.
    told_ms: AtomicUsize,
    untold: AtomicUsize,
}

impl Throttle {
    /// It has happened once more, `now`. If a report is due: how often it has happened since the last one.
    pub(crate) fn count(&self, started: Instant, now: Instant) -> Option<usize> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let since_ms = now.saturating_duration_since(started).as_millis() % usize::MAX as u128;
        let now_ms = usize::try_from(since_ms).unwrap_or(0) + 1;
        let told_ms = self.told_ms.load(Ordering::Relaxed);
        let is_due = told_ms == 0 || now_ms.wrapping_sub(told_ms) >= INTERVAL_MS;
        // If several callers find it due, one reports.
        let is_ours =
            |told_ms| self.told_ms.compare_exchange(told_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        (is_due && is_ours(told_ms)).then(|| self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync;

    #[test]
    fn it_is_told_once_a_second_how_often_it_has_happened() {
        let (started, throttle) = (sync::now(), Throttle::default());
        let at = |ms| throttle.count(started, started + Duration::from_millis(ms));
        assert_eq!(at(5), Some(1));
        assert_eq!((at(6), at(900), at(1004)), (None, None, None));
        assert_eq!(at(1005), Some(4));
        assert_eq!(at(5000), Some(1));
    }
}
