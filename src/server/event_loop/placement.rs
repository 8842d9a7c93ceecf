//! On which loop a connection is served.
//!
//! Whoever accepts a connection serves it, at first. To give it to another loop means to wake that one, which costs as
//! much as a request, and most that are closed after one answer are not worth it. Once a connection rests after an
//! answer it is known to stay, and is given away if another loop has clearly less to carry.
//!
//! Where all connections are taken, the longest idle one of all loops makes room:
//!
//! ```text
//! settle ─┬─ there is room ───────────────────────────────────▶ here
//!         ├─ another loop has one that is idle for longer ────▶ passed on to that, once
//!         ├─ one here makes room ─────────────────────────────▶ here
//!         ├─ a loop has not been asked yet ───────────────────▶ passed on to the next
//!         └─ none is idle anywhere ───────────────────────────▶ 503
//! ```

use std::time::Duration;

use super::{Books, EventLoop};
use crate::http::Peer;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::inbox::{Arrival, Message, Transfer};
use crate::server::notice::Want;
use crate::server::phase::Fill;
use crate::server::stream::Stream;
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync::{Arc, Ordering};

/// Idle connections that are looked at for one that can make room.
const LOOKS_MAX: u32 = 8;
/// Refusals that may linger beyond the most connections; more are dropped without an answer.
const REFUSALS_MAX: usize = 128;

impl EventLoop {
    /// Takes a connection in if there is room, or room can be made: here, or on another loop.
    pub(super) fn settle(&mut self, mut arrival: Arrival, buffer: &mut ReadBuffer) {
        if self.shared.has_counted_one_more() {
            self.enter_arrival(arrival.stream, arrival.peer, arrival.listener);
        } else if let Some(index) = self.books.seat_idle_longer().filter(|_| !arrival.is_sent) {
            arrival.is_sent = true;
            self.pass_on(arrival, index, buffer);
        } else if self.books.make_room(Duration::ZERO, buffer) && self.shared.has_counted_one_more() {
            self.enter_arrival(arrival.stream, arrival.peer, arrival.listener);
        } else if arrival.refusals + 1 < self.shared.loops.len() {
            arrival.refusals += 1;
            let next = (self.books.index + 1) % self.shared.loops.len();
            self.pass_on(arrival, next, buffer);
        } else {
            self.refuse_arrival(arrival, buffer);
        }
    }

    /// Gives a new connection to another loop; a loop that has left gives it back.
    fn pass_on(&mut self, arrival: Arrival, index: usize, buffer: &mut ReadBuffer) {
        if let Err(Message::Arrival(arrival)) = self.shared.hand_over(Message::Arrival(arrival), index) {
            self.settle(arrival, buffer);
        }
    }

    /// A new connection that another loop has passed on.
    pub(super) fn take_arrival(&mut self, arrival: Arrival, buffer: &mut ReadBuffer) {
        self.books.index().was_handed_over();
        self.settle(arrival, buffer);
    }

    /// A connection that another loop has given away. It has its place among the most connections already.
    pub(super) fn take_transfer(&mut self, transfer: Transfer) {
        self.books.index().was_handed_over();
        // The system may have nothing left to watch it with: then it is closed, as an idle one may be at any time.
        let _ = self.books.enter(Connection::transferred(transfer));
    }

    /// Answers 503 and closes, since all connections are taken by others that are not idle.
    fn refuse_arrival(&mut self, arrival: Arrival, buffer: &mut ReadBuffer) {
        let response = self.shared.refuse_for(Want::Connections, self.books.now);
        let refused = self.shared.connections.load(Ordering::Relaxed);
        if refused >= self.shared.config.connections_max + REFUSALS_MAX {
            return;
        }
        if let Some(token) = self.take_in(arrival.stream, arrival.peer, arrival.listener) {
            self.turn_away(token, response, buffer);
        }
    }

    /// Enters a new connection. `None`: the system has nothing left to watch it with. It is closed, and as with a
    /// failed accept that is told, and the listener paused: the next ones had better wait than be closed too.
    pub(super) fn take_in(&mut self, stream: Stream, peer: Peer, listener: usize) -> Option<Token> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.enter_arrival(stream, peer, listener)
    }

    /// The same, once it has been counted.
    fn enter_arrival(&mut self, stream: Stream, peer: Peer, listener: usize) -> Option<Token> {
        let entered = self.books.enter(Connection::new(Arc::new(stream), peer, self.books.now));
        entered.map_err(|error| self.pause_listener(listener, &error)).ok()
    }

    /// Gives a connection that rests after its first answer to the loop that has the fewest, if that is clearly fewer.
    /// Returns false if it stays. Nothing is lost on the way: what comes meanwhile waits in the socket, and is reported
    /// when the other loop adds it.
    pub(super) fn find_place(&mut self, token: Token) -> bool {
        let Some(index) = self.books.seat_with_fewer() else { return false };
        let Some(connection) = self.books.give_away(token) else { return false };
        let message = Message::Transfer(connection.into_transfer());
        if let Err(Message::Transfer(transfer)) = self.shared.hand_over(message, index) {
            // It has drained and left, as this one is about to.
            let _ = self.books.enter(Connection::transferred(transfer));
        }
        true
    }
}

impl Books {
    /// Closes the connection that has been idle for longest. Returns false if none has been idle for `idle_min`.
    pub(super) fn make_room(&mut self, idle_min: Duration, buffer: &mut ReadBuffer) -> bool {
        for _ in 0..LOOKS_MAX {
            let Some(token) = self.longest_idle(idle_min) else { return false };
            let connection = &mut self.table[token];
            // It may have sent a request that has not been looked at yet: then it is not idle, and is served soon.
            connection.look_again();
            connection.load_into(buffer);
            let fill = connection.fill(buffer);
            connection.keep(buffer);
            if fill != Fill::Bytes {
                self.close(token);
                return true;
            }
            // No clock until then, by which it would be found here once more.
            self.timeouts.stop(token.index());
            self.look_later(token);
        }
        false
    }

    /// The loop with a connection that has been idle for longer than all of this one's, as of that loop's last wait.
    fn seat_idle_longer(&self) -> Option<usize> {
        let own_us = self.idle_since_us();
        let loops = self.shared.loops.iter().map(|index| index.idle_since_us.load(Ordering::Relaxed)).enumerate();
        let others = loops.filter(|(index, _)| *index != self.index);
        others.min_by_key(|(_, since_us)| *since_us).filter(|(_, since_us)| *since_us < own_us).map(|(index, _)| index)
    }

    fn longest_idle(&self, idle_min: Duration) -> Option<Token> {
        let since = self.timeouts.longest_since(Clock::Idle)?;
        if self.now < since + idle_min { None } else { self.longest(Clock::Idle) }
    }

    /// The loop with the fewest connections, if it has clearly fewer than this one.
    fn seat_with_fewer(&self) -> Option<usize> {
        let own = self.index().connections.load(Ordering::Relaxed);
        let (index, least) = self.shared.least_loaded();
        (index != self.index && own > least + 1 + least / 16).then_some(index)
    }
}
