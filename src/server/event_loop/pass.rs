//! One pass of a loop: its stages, and how long each may begin new work.

use std::time::{Duration, Instant};

/// How long one stage of a pass may begin new work. It does not interrupt a running handler: if that takes long,
/// `handoff` has another thread run the loop.
const SLICE: Duration = Duration::from_micros(500);

/// The stages of a pass, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connections and listeners that the poller has reported.
    Reported,
    /// Connections with more to read or to answer, whose last visit ended before this pass.
    Queued,
    /// Messages from other loops and from handlers' threads.
    Messages,
    /// Requests that wait for a handler's permit.
    Waiting,
    /// Clocks that have run out: last, so that no connection is refused that could be served.
    Clocks,
    /// No work is left: the loop waits.
    Over,
}

/// How far a pass has come.
#[derive(Debug)]
pub(super) struct Pass {
    stage: Stage,
    /// When the stage began, and until when it may begin new work.
    began: Instant,
    until: Instant,
}

impl Pass {
    /// A pass that is over.
    pub(super) fn new(now: Instant) -> Self {
        Self { stage: Stage::Over, began: now, until: now + SLICE }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Instant) {
        self.stage = stage;
        // The stage before usually had nothing to do, and took no time.
        if self.began != now {
            (self.began, self.until) = (now, now + SLICE);
        }
    }

    /// True while the current stage may begin new work. It is true when a stage begins: each does a little in every
    /// pass.
    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        now < self.until
    }
}
