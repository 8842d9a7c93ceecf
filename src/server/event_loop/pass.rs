//! A pass through a loop: its stages, and how long each may go on beginning something new.

use std::time::{Duration, Instant};

/// How long one stage of a pass may go on beginning new work. A handler that is running is not interrupted: if it takes
/// long, `handoff` has another thread go on.
const SLICE: Duration = Duration::from_micros(500);

/// What a pass through the loop does, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connections and listeners that the poller has reported.
    Reported,
    /// Connections that had more to read or to be answered when they were put down before this pass.
    Queued,
    /// What others have brought.
    Messages,
    /// Requests that wait for a handler's permit.
    Waiting,
    /// Clocks that have run out: behind all else, so that nobody is told off who may be served.
    Clocks,
    /// Nothing: time to wait.
    Over,
}

/// How far a pass has come.
#[derive(Debug)]
pub(super) struct Pass {
    stage: Stage,
    /// When the stage was entered, and until when it may begin something new.
    began: Instant,
    until: Instant,
}

impl Pass {
    /// One that is over.
    pub(super) fn new(now: Instant) -> Self {
        Self { stage: Stage::Over, began: now, until: now + SLICE }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Instant) {
        self.stage = stage;
        // As a rule the stage before had nothing to do, and took no time.
        if self.began != now {
            (self.began, self.until) = (now, now + SLICE);
        }
    }

    /// True as long as the current stage may begin something new. It was so when the stage was entered: each does a
    /// little in every pass.
    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        now < self.until
    }
}
