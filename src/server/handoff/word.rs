//! One word per event loop: it says where the loop is and decides who may have it.
//!
//! ```text
//!            announce             lend                claim (the thread that lent it, or a spare: one of them)
//! HELD(n) ───────────▶ BUSY(n+1) ──────▶ LENT(n+1) ───────────────────────────────────────────────▶ HELD(n+1)
//!    ▲                    │ ▲                │
//!    └────── withdraw ────┘ └─ borrow (n+1) ─┘ (the thread that lent it)
//! ```
//!
//! Only the thread that holds the loop announces, withdraws and lends, so these need no comparison. To claim or to
//! borrow is a compare-and-swap from exactly the lending that the claimant knows. Two threads may try it, the one that
//! has lent the loop and the spare that was sent for it, and one succeeds: the loop is never held twice and never lost.
//! A spare that comes late finds another number, since each lending has its own. The lender borrows the loop to have
//! the head of a streamed answer sent, and lends it again while it writes the body: its handler still counts as
//! running.

use crate::sync::{AtomicU64, Ordering};

const STATE: u64 = 0b11;
const HELD: u64 = 0;
const BUSY: u64 = 1;
const LENT: u64 = 2;

#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

/// What a word says at one moment; for a lent loop, which lending it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(u64);

impl Snapshot {
    /// True if the loop lies in its slot while a handler runs.
    pub(crate) fn is_lent(self) -> bool {
        self.0 & STATE == LENT
    }

    /// True if a handler runs on the holder's thread, or is about to.
    pub(crate) fn is_busy(self) -> bool {
        self.0 & STATE != HELD
    }
}

impl Word {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(HELD))
    }

    pub(crate) fn load(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::SeqCst))
    }

    /// The holder will call a handler. Sequentially consistent: anyone who counts the running handlers afterwards
    /// counts this one.
    pub(crate) fn announce(&self) {
        let number = self.0.load(Ordering::Relaxed) >> 2;
        self.0.store((number + 1) << 2 | BUSY, Ordering::SeqCst);
    }

    /// The holder does not call a handler after all.
    pub(crate) fn withdraw(&self) {
        let number = self.0.load(Ordering::Relaxed) >> 2;
        self.0.store(number << 2 | HELD, Ordering::SeqCst);
    }

    /// The holder lets go of the loop. To have the loop again, it must claim it.
    pub(crate) fn lend(&self) -> Snapshot {
        let number = self.0.load(Ordering::Relaxed) >> 2;
        let lending = number << 2 | LENT;
        self.0.store(lending, Ordering::SeqCst);
        Snapshot(lending)
    }

    /// Takes this lending's loop back for a moment, while the same handler goes on; the loop can then be lent again.
    /// Returns false if somebody else has it.
    pub(crate) fn borrow(&self, lending: Snapshot) -> bool {
        let busy = ((lending.0 >> 2) + 1) << 2 | BUSY;
        self.0.compare_exchange(lending.0, busy, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Takes this lending's loop. Returns false if somebody else has it.
    pub(crate) fn claim(&self, lending: Snapshot) -> bool {
        let held = lending.0 & !STATE | HELD;
        self.0.compare_exchange(lending.0, held, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
