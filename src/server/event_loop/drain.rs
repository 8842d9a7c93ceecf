//! How an event loop drains after a stop.
//!
//! | connection at the stop | what happens |
//! |---|---|
//! | in the accept queue, or with its handshake under way | accepted; the listener closes once nobody can follow |
//! | a handler runs, or an answer is being written | finished; the answer says `Connection: close` |
//! | a body is arriving | read on, until its own timeout or the deadline; then 408 |
//! | idle, or part of a head has come | closed once quiet for long enough; a part gets 408 first |
//! | requests wait behind the running one | answered in order; the last answer says `Connection: close` |
//!
//! No request is lost on the way. A whole request is answered before its connection is checked for quiet, since the
//! quiet clock runs only between visits. A request that comes while the clock runs out is found by the last look, a
//! read between the clock and the close. Before an answer says `Connection: close`, the loop looks for a next request
//! in the buffer and in the socket. What remains is the time from a last look until the client's system learns of our
//! FIN, half a round trip: any server that ever closes a connection has this gap. So a connection is kept for as long
//! as its client may be about to ask: see [`quiet`](crate::server::quiet).
//!
//! # Listeners that cannot be closed at once
//!
//! ```text
//!            ┌── handshakes are under way: until the next look ──┐
//!            │   no descriptor is left: 5 ms                     │
//!            ▼                                                   │
//! stop ──▶ close the listeners ──────────────────────────────────┤
//!                                                                ├── nobody can follow ──▶ closed
//!                                                                └── the deadline ──▶ abandoned, and counted
//! ```
//!
//! Meanwhile the listener stays open and the loop serves on; it does not end, and still watches the deadline.
//! [`shared_listener`](crate::server::shared_listener) says how a listener closes, and why nobody is reset.
//!
//! No answer says `Connection: close` before every listener refuses newcomers: a client that is sent away and comes
//! back at once is refused, or tries again a second later, but is not reset. A listener that cannot refuse newcomers is
//! closed before that, unless no descriptor is free. Then a client that comes back gets into the queue, and is accepted
//! when the queue is emptied. Nothing is lost; there is only more to do. It ends, since every accepted connection
//! closes, and since clients that fill the queue for ever meet the deadline and are counted there. No connection is
//! closed to make room: an idle client is promised the idle grace too, and a waiting client has until the deadline.

use super::{Books, EventLoop};
use crate::server::phase::Clock;
use crate::server::table::Token;
use crate::sync;

impl EventLoop {
    #[cold]
    pub(super) fn begin_drain(&mut self) {
        self.books.begin_drain();
        // A connection that is being served is not quiet.
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
        // Every request received is answered, or cut off at the deadline.
        self.timeouts.suspend(Clock::Queue);
    }

    /// Starts the quiet clock of every connection that is idle or in the middle of a head.
    fn watch_quiet(&mut self) {
        let is_quiet = |token: &Token| matches!(self.timeouts.running(token.index()), Some(Clock::Idle | Clock::Head));
        let tokens = self.table.tokens().into_iter().filter(is_quiet);
        let mut quiet: Vec<_> = tokens.map(|token| (self.quiet_since(&self.table[token]), token)).collect();
        // In order of time, each start appends at the back of the clock's queue.
        quiet.sort_unstable_by_key(|(since, _)| *since);
        for (since, token) in quiet {
            self.timeouts.start(token.index(), Clock::Quiet, since);
        }
    }
}
