//! The way out of an event loop.
//!
//! | connection at the stop | what happens |
//! |---|---|
//! | in the accept queue, or with its handshake under way | accepted; the listener is closed when nobody can follow |
//! | a handler runs, or an answer is being written | finished; the answer says `Connection: close` |
//! | a body is arriving | it may, until its own timeout or the deadline, and then 408 |
//! | idle, or part of a head has come | closed once it has been quiet for long enough, 408 first for a part |
//! | requests wait behind the running one | answered in order; the last answer says `Connection: close` |
//!
//! No request can be lost on the way. One that has come whole is answered before its connection is looked at for
//! quiet, since the quiet clock runs only between visits. One that comes while the clock runs out is found by the
//! last look, a read between the clock and the close. One behind a running request is looked for, in the buffer and in
//! the socket, before `Connection: close` is said. What remains is the time from a last look until the client's system
//! learns of our FIN, half a round trip, in which every server that ever closes a connection can be surprised. So
//! connections are kept for as long as their clients may be about to ask: see [`quiet`](crate::server::quiet).
//!
//! # Listeners that cannot be closed at once
//!
//! ```text
//!            ┌── handshakes are under way: until the next look ──┐
//!            │   no descriptor is left: 5 ms                     │
//!            ▼                                                   │
//! stop ──▶ close the listeners ──────────────────────────────────────┤
//!                                                                ├── nobody can follow ──▶ closed
//!                                                                └── the deadline ──▶ abandoned, and counted
//! ```
//!
//! The listener stays open, and the loop serves on meanwhile; it neither ends nor forgets the deadline. How a listener
//! closes, and why nobody is reset, is told in [`listener`](crate::server::listener).
//!
//! No answer says `Connection: close` before every listener refuses newcomers, so that a client that is told to go and
//! comes again at once is refused, or tries again a second later, and is not reset. Where a listener cannot refuse
//! them, it is closed before, but for want of a descriptor: then a client that comes again gets into the queue, and is
//! in it when it is emptied. Nothing is lost, there only is more to do. It ends, since each that was accepted closes,
//! and since clients that fill the queue for ever meet the deadline, and are counted there. Nobody is turned out to
//! make room: an idle client is promised the idle grace too, and who waits has until the deadline.

use super::{Books, EventLoop};
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync;

impl EventLoop {
    #[cold]
    pub(super) fn begin_drain(&mut self) {
        self.books.begin_drain();
        // Whoever is being served is not quiet.
        if let Some(visit) = &self.visit {
            self.books.timeouts.stop(visit.token().index());
        }
        for number in 0..self.shared.listeners.len() {
            self.close_listener(number);
        }
        self.books.watch_quiet();
    }
}

impl Books {
    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.now = sync::now();
        // Whatever was received is answered, or cut off at the deadline.
        self.timeouts.suspend(Clock::Queue);
    }

    /// Whoever is idle, or in the middle of a head, runs the quiet clock from now on.
    fn watch_quiet(&mut self) {
        let is_quiet = |token: &Token| matches!(self.timeouts.running(token.index()), Some(Clock::Idle | Clock::Head));
        let tokens = self.table.tokens().into_iter().filter(is_quiet);
        let mut quiet: Vec<_> = tokens.map(|token| (self.quiet_since(&self.table[token]), token)).collect();
        // In order, each goes to the back of its clock's queue.
        quiet.sort_unstable_by_key(|(since, _)| *since);
        for (since, token) in quiet {
            self.timeouts.start(token.index(), Clock::Quiet, since);
        }
    }
}
