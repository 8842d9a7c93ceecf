//! Which loop serves a connection.
//!
//! At first, the loop that accepts a connection serves it. To give it to another loop, that loop must be woken, which
//! costs as much as a request; for most connections that close after one answer, that does not pay. A connection that
//! rests after an answer is known to stay: it is given away if another loop has clearly fewer connections.
//!
//! At `connections_max`, the longest-idle connection of all loops makes room:
//!
//! ```text
//! settle ─┬─ below the limit ──────────────────────────────────▶ here
//!         ├─ another loop has a longer-idle one ───────────────▶ passed on to that loop, once
//!         ├─ one here makes room ──────────────────────────────▶ here
//!         ├─ a loop has not been asked yet ────────────────────▶ passed on to the next loop
//!         └─ none is idle anywhere ────────────────────────────▶ 503
//! ```

use std::time::Duration;

use super::{Books, EventLoop};
use crate::http::Peer;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::inbox::{Arrival, Message};
use crate::server::notice::Want;
use crate::server::phase::{Clock, Fill};
use crate::server::stream::Stream;
use crate::server::table::Token;
use crate::server::transfer::Transfer;
use crate::sync::{Arc, Ordering};

/// How many idle connections to check for one that can make room.
const LOOKS_MAX: u32 = 8;
/// How many refused connections may linger beyond `connections_max`; more are dropped without an answer.
const REFUSALS_MAX: usize = 128;

impl EventLoop {
    /// Takes a connection in, here or on another loop, if there is room or one can make room; otherwise refuses it.
    pub(super) fn settle(&mut self, mut arrival: Arrival, buffer: &mut ReadBuffer) {
        if self.shared.has_counted_one_more() {
            self.enter_arrival(arrival.stream, arrival.peer, arrival.listener);
        } else if let Some(index) = self.books.loop_idle_longer().filter(|_| !arrival.is_sent) {
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
        self.books.handle().was_handed_over();
        self.settle(arrival, buffer);
    }

    /// A connection that another loop has given away. The count over all loops includes it already.
    pub(super) fn take_transfer(&mut self, transfer: Transfer) {
        self.books.handle().was_handed_over();
        // If the system has nothing left to watch it with, it is closed, as an idle connection may be at any time.
        let _ = self.books.enter(Connection::transferred(transfer));
    }

    /// Answers 503 and closes: there are `connections_max` connections, and none is idle.
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

    /// Counts and enters a new connection. `None`: the system has nothing left to watch it with. It is closed; as after
    /// a failed accept, that is reported and the listener paused, since the next connections had better wait than be
    /// closed too.
    pub(super) fn take_in(&mut self, stream: Stream, peer: Peer, listener: usize) -> Option<Token> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.enter_arrival(stream, peer, listener)
    }

    /// The same for a connection that has been counted.
    fn enter_arrival(&mut self, stream: Stream, peer: Peer, listener: usize) -> Option<Token> {
        let entered = self.books.enter(Connection::new(Arc::new(stream), peer, self.books.now));
        entered.map_err(|error| self.pause_listener(listener, &error)).ok()
    }

    /// Gives a connection that rests after its first answer to the loop that has the fewest connections, if it has
    /// clearly fewer. Returns false if the connection stays. Nothing is lost on the way: what comes meanwhile waits in
    /// the socket, and the other loop's poller reports it.
    pub(super) fn find_place(&mut self, token: Token) -> bool {
        let Some(index) = self.books.loop_with_fewer() else { return false };
        let Some(connection) = self.books.give_away(token) else { return false };
        let message = Message::Transfer(connection.into_transfer());
        if let Err(Message::Transfer(transfer)) = self.shared.hand_over(message, index) {
            // That loop has drained and left, as this one is about to.
            let _ = self.books.enter(Connection::transferred(transfer));
        }
        true
    }
}

impl Books {
    /// Closes the connection that has been idle longest. Returns false if none has been idle for `idle_min`.
    pub(super) fn make_room(&mut self, idle_min: Duration, buffer: &mut ReadBuffer) -> bool {
        for _ in 0..LOOKS_MAX {
            let Some(token) = self.longest_idle(idle_min) else { return false };
            let connection = &mut self.table[token];
            // It may have sent a request that nobody has read yet: then it is not idle, and is served soon.
            connection.look_again();
            connection.load_into(buffer);
            let fill = connection.fill(buffer);
            connection.keep(buffer);
            let Fill::Bytes(count) = fill else {
                self.close(token);
                return true;
            };
            self.counts.bytes_in.add(count as u64);
            // Without a clock, the next search does not find it again.
            self.timeouts.stop(token.index());
            self.look_later(token);
        }
        false
    }

    /// The loop with the longest-idle connection, if that is idle for longer than all of this loop's. As of that loop's
    /// last wait.
    fn loop_idle_longer(&self) -> Option<usize> {
        let own_us = self.idle_since_us();
        let loops = self.shared.loops.iter().map(|handle| handle.idle_since_us.load(Ordering::Relaxed)).enumerate();
        let others = loops.filter(|(index, _)| *index != self.index);
        others.min_by_key(|(_, since_us)| *since_us).filter(|(_, since_us)| *since_us < own_us).map(|(index, _)| index)
    }

    fn longest_idle(&self, idle_min: Duration) -> Option<Token> {
        let since = self.timeouts.longest_since(Clock::Idle)?;
        if self.now < since + idle_min { None } else { self.longest(Clock::Idle) }
    }

    /// The loop with the fewest connections, if it has clearly fewer than this one.
    fn loop_with_fewer(&self) -> Option<usize> {
        let own = self.handle().connections.load(Ordering::Relaxed);
        let (index, least) = self.shared.least_loaded();
        (index != self.index && own > least + 1 + least / 16).then_some(index)
    }
}
