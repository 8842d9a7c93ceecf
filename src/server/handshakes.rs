//! TCP handshakes under way: clients that have our SYN-ACK, or are about to get it, and are not in the queue yet.
//!
//! [`sock_diag`](super::sock_diag) shows them. To look takes the system one or two milliseconds, and about ten if there
//! are 50,000 sockets. So after each look there is a pause, longer than the look was. As a rule none is under way, and
//! that shows without such a look.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sock_diag::{is_any_under_way, is_listener_alone};
use crate::sync;

/// How many times longer than a look the pause after it is, and how long it is at least.
const PAUSE_FACTOR: u32 = 4;
pub(crate) const LOOK_PAUSE_MIN: Duration = Duration::from_millis(5);

/// Handshakes under way at a listener that takes no new ones.
#[derive(Debug)]
pub(crate) struct Handshakes {
    listener: SocketAddr,
    inode: Option<u64>,
    until: Instant,
    next_at: Instant,
    is_over: bool,
}

/// The result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// None is under way any more, their time is over, or the system does not show them.
    Over,
    Again(Instant),
}

impl Handshakes {
    /// Those of a listener whose socket has this inode. Waits for them until `until` at most.
    pub(crate) fn at(listener: SocketAddr, inode: Option<u64>, until: Instant) -> Self {
        Self { listener, inode, until, next_at: sync::now(), is_over: false }
    }

    /// Looks for them, if it is time.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        if now < self.next_at {
            return Look::Again(self.next_at);
        }
        if self.is_over {
            return Look::Over;
        }
        // The system may answer the next time what it could not answer now.
        let may_be = |error: io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        let is_any =
            !is_listener_alone(self.listener, self.inode) && is_any_under_way(self.listener).unwrap_or_else(may_be);
        let then = sync::now();
        // If none is under way, none can follow. Even if the time was over, this look was made: we may have been
        // suspended.
        self.is_over = !is_any || now >= self.until;
        if self.is_over {
            return Look::Over;
        }
        self.next_at = then + (then.saturating_duration_since(now) * PAUSE_FACTOR).max(LOOK_PAUSE_MIN);
        Look::Again(self.next_at)
    }
}
