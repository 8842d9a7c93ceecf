//! How long a draining server keeps a quiet connection.
//!
//! A client that sends a request while our FIN is on its way to it loses that request. So a connection that may be
//! about to bring one is kept until it has been quiet for long enough:
//!
//! | connection | kept for |
//! |---|---|
//! | any | the idle grace, from the stop or its last byte |
//! | on a long path | long enough for a lost packet to be sent again, and again |
//! | whose client asks at intervals | until it should have asked again, and a little longer |
//!
//! The last two end before the deadline, with time left to answer. A client that is long overdue, or not expected
//! before the deadline, is not waited for.

use std::time::{Duration, Instant};

use super::network_path::NetworkPath;

/// How long a long path gets: this many retransmission timeouts, but at most this many round trips, since the system
/// counts no retransmission timeout below 200 ms. Twice as long if it has lost packets of this connection, since the
/// client's own timeout may then be much longer.
const RETRANSMISSIONS: u32 = 3;
const ROUND_TRIPS: u32 = 20;
/// How late a client's next request may be: this late on a long path; elsewhere as late as its usual pause is long, but
/// at most this.
const LATENESS_MAX: Duration = Duration::from_secs(1);

/// The longest pause that a client has recently made between an answer and its next request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rhythm {
    /// 0 before the first pause.
    pause_ms: u32,
}

impl Rhythm {
    /// A longer pause counts at once, shorter ones little by little.
    pub(crate) fn note(&mut self, pause: Duration) {
        let pause_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        self.pause_ms = pause_ms.max(self.pause_ms - self.pause_ms / 8);
    }
}

/// Until when to keep a connection that stays quiet from `now` on: for the idle grace, or longer, up to `latest`.
/// `answered` is when its last answer left; `None` if it is within a request.
pub(crate) fn kept_until(
    now: Instant,
    idle_grace: Duration,
    latest: Instant,
    path: Option<NetworkPath>,
    rhythm: Rhythm,
    answered: Option<Instant>,
) -> Instant {
    let path = path.map_or(Duration::ZERO, |path| {
        let once = (path.retransmission * RETRANSMISSIONS).min(path.round_trip * ROUND_TRIPS);
        if path.has_lost { once * 2 } else { once }
    });
    let pause = Duration::from_millis(u64::from(rhythm.pause_ms));
    let asks = answered.filter(|_| !pause.is_zero()).map(|answered| answered + pause);
    let lateness = if path.is_zero() { pause.min(LATENESS_MAX) } else { LATENESS_MAX };
    let late = asks.filter(|asks| *asks < latest).map(|asks| asks + lateness);
    let until = late.filter(|late| *late > now).unwrap_or(now) + path;
    until.min(latest).max(now + idle_grace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How long a connection is kept that was answered `quiet` ago and has this pause, with 3 s left.
    #[track_caller]
    fn check(quiet: u64, pause: u64, (round_trip, retransmission, has_lost): (u64, u64, bool), kept: u64) {
        let answered = sync::now();
        let (now, mut rhythm) = (answered + ms(quiet), Rhythm::default());
        rhythm.note(ms(pause));
        let path = NetworkPath {
            round_trip: ms(round_trip),
            retransmission: ms(retransmission),
            has_lost,
            is_delivered: true,
        };
        let until = kept_until(now, ms(250), now + ms(2750), Some(path), rhythm, Some(answered));
        assert_eq!(until - now, ms(kept));
    }

    #[test]
    fn a_connection_is_kept_for_its_path_and_its_rhythm() {
        const HERE: (u64, u64, bool) = (0, 200, false);
        // Without a rhythm: for the idle grace, and longer on a long path.
        check(100, 0, HERE, 250);
        check(100, 0, (10, 210, false), 250);
        check(100, 0, (20, 220, false), 400);
        check(100, 0, (50, 250, false), 750);
        check(100, 0, (100, 300, false), 900);
        check(100, 0, (100, 300, true), 1800);
        check(100, 0, (400, 700, false), 2100);
        check(100, 0, (2000, 6000, false), 2750);
        // Until it should have asked, and as long again, but at most a second.
        check(100, 300, HERE, 500);
        check(100, 1000, HERE, 1900);
        check(0, 1500, (100, 300, false), 2750);
        check(100, 1500, HERE, 2400);
        // Longer on a long path, where closing too soon loses more.
        check(100, 300, (100, 300, false), 2100);
        check(1350, 300, (100, 300, false), 900);
        // Long overdue, or not expected before the deadline.
        check(700, 300, HERE, 250);
        check(100, 3000, HERE, 250);
        check(60_000, 62_000, HERE, 2750);
        check(59_000, 62_000, HERE, 250);
    }

    #[test]
    fn a_longer_pause_counts_at_once_and_is_forgotten_bit_by_bit() {
        let mut rhythm = Rhythm::default();
        rhythm.note(ms(10));
        rhythm.note(ms(800));
        assert_eq!(rhythm.pause_ms, 800);
        rhythm.note(ms(10));
        assert_eq!(rhythm.pause_ms, 700);
        for _ in 0..60 {
            rhythm.note(ms(10));
        }
        assert_eq!(rhythm.pause_ms, 10);
        rhythm.note(Duration::MAX);
        assert_eq!(rhythm.pause_ms, u32::MAX);
    }
}
