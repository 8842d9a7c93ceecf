//! The books of a loop: its connections, and all that it keeps about each of them.
//!
//! | book | what it says |
//! |---|---|
//! | `table` | which connection a token means |
//! | `timeouts` | how long its current phase may still take: at most one clock |
//! | `poller` | what has happened to it |
//! | `queue` | that the next pass looks at it, even if the poller does not report it |
//! | `LoopHandle::connections`, `Shared::connections` | how many there are, here and over all loops |
//!
//! They agree, since only [`enter`](Books::enter), [`close`](Books::close) and [`give_away`](Books::give_away) add and
//! remove, and these do so in all books. Only the queue may name a connection that has gone.
//!
//! A token that a caller got from the books in this turn finds its connection: look it up by index. A token from
//! outside, in a message or a report, may name a connection that has gone: look it up with `get_mut`.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::Books;
use crate::server::connection::Connection;
use crate::server::phase::{Clock, Phase, Sent};
use crate::server::poller::{Event, Poller};
use crate::server::shared::{LoopHandle, Shared};
use crate::server::table::{Table, Token};
use crate::server::timeouts::Timeouts;
use crate::sync::{self, Arc, Ordering};

/// How often to check a peer that does not take its answer.
const WRITE_LOOK: Duration = Duration::from_secs(1);

impl Books {
    pub(super) fn new(shared: Arc<Shared>, index: usize, poller: Poller) -> Self {
        let config = &shared.config;
        let counts = Arc::clone(&shared.totals.loops[index]);
        let timeouts = Timeouts::new(Arc::clone(&counts), |clock| match clock {
            Clock::Idle => config.idle_timeout,
            Clock::Quiet => config.idle_grace,
            Clock::Head => config.head_timeout,
            Clock::Body => config.body_timeout,
            Clock::Queue => config.queue_timeout,
            Clock::Write => WRITE_LOOK.min(config.write_timeout),
            Clock::Linger => config.linger,
        });
        Self {
            shared,
            index,
            counts,
            table: Table::new(),
            timeouts,
            poller,
            queue: VecDeque::new(),
            queued_now: 0,
            now: sync::now(),
            is_draining: false,
        }
    }

    /// How the other loops reach this one.
    pub(super) fn handle(&self) -> &LoopHandle {
        &self.shared.loops[self.index]
    }

    /// Enters a connection. The count over all loops includes it already, and keeps it while it moves from loop to
    /// loop.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or memory left to watch it with. The connection is closed.
    pub(super) fn enter(&mut self, connection: Connection) -> io::Result<Token> {
        let clock = connection.clock(self.is_draining);
        // The idle grace begins with the stop at the earliest.
        let since = if self.is_draining { self.quiet_since(&connection) } else { connection.since() };
        let token = self.table.insert(connection);
        self.handle().connections.fetch_add(1, Ordering::Relaxed);
        self.counts.connections.up();
        self.timeouts.start(token.index(), clock, since);
        let watched = self.poller.add(self.table[token].stream(), token.raw());
        if watched.is_err() {
            self.close(token);
        }
        watched.map(|()| token)
    }

    /// Closes a connection in any phase.
    pub(super) fn close(&mut self, token: Token) {
        self.poller.retired(token.raw());
        if self.take_out(token).is_some() {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes a connection out of the books, except the poller and the count over all loops.
    fn take_out(&mut self, token: Token) -> Option<Connection> {
        self.timeouts.stop(token.index());
        let connection = self.table.remove(token)?;
        self.handle().connections.fetch_sub(1, Ordering::Relaxed);
        self.counts.connections.down();
        Some(connection)
    }

    /// Takes a connection out for another loop to enter.
    pub(super) fn give_away(&mut self, token: Token) -> Option<Connection> {
        let connection = self.take_out(token)?;
        self.poller.remove(connection.stream(), token.raw());
        Some(connection)
    }

    /// Notes that the poller has reported a connection. `None`: the connection has gone or is queued already, or the
    /// token is a listener's.
    pub(super) fn note(&mut self, event: Event) -> Option<Token> {
        let token = Token::from_raw(event.token);
        let connection = self.table.get_mut(token)?;
        connection.reported(event);
        (!connection.is_queued()).then_some(token)
    }

    /// Queues the other reported connections for the next pass: this one has no time left. The poller reports listeners
    /// again.
    pub(super) fn note_reported(&mut self) {
        while let Some(event) = self.poller.next() {
            if let Some(token) = self.note(event) {
                self.look_later(token);
            }
        }
    }

    /// Queues a connection for the next pass, even if the poller does not report it.
    pub(super) fn look_later(&mut self, token: Token) {
        if self.table[token].enqueue() {
            self.queue.push_back(token);
        }
    }

    /// The next connection among those that were queued when this pass began.
    pub(super) fn next_queued(&mut self) -> Option<Token> {
        while let Some(left) = self.queued_now.checked_sub(1) {
            self.queued_now = left;
            let token = self.queue.pop_front()?;
            if let Some(connection) = self.table.get_mut(token) {
                connection.dequeue();
                return Some(token);
            }
        }
        None
    }

    /// The connection whose clock of this kind has run longest.
    pub(super) fn longest(&self, clock: Clock) -> Option<Token> {
        self.timeouts.longest(clock).and_then(|index| self.table.token_at(index))
    }

    /// Stops a clock that has run out, and returns it with its connection.
    pub(super) fn next_expired(&mut self) -> Option<(Token, Clock)> {
        let (index, clock) = self.timeouts.expired(self.now)?;
        Some((self.table.token_at(index)?, clock))
    }

    /// Does what follows from a write. Returns false if the connection stays as it is.
    pub(super) fn conclude(&mut self, token: Token, sent: Sent) -> bool {
        let connection = &mut self.table[token];
        match sent {
            Sent::Blocked => self.timeouts.start(token.index(), Clock::Write, self.now),
            Sent::All if connection.must_linger() => {
                // The poller does not report again what has come already: throw it away in the next pass.
                if connection.linger(self.now) {
                    self.look_later(token);
                }
                self.timeouts.start(token.index(), Clock::Linger, self.now);
            }
            // A peer that has ended its side never finishes its partial request.
            Sent::All if !connection.is_closing() && !connection.has_ended() => return false,
            Sent::All | Sent::Failed => self.close(token),
        }
        true
    }

    /// True once a head or a body has taken longer than its timeout: a trickle does not renew it.
    pub(super) fn is_late(&self, token: Token) -> bool {
        let (connection, config) = (&self.table[token], &self.shared.config);
        match connection.phase() {
            Phase::Head => self.now >= connection.since() + config.head_timeout,
            Phase::Body => self.now >= connection.since() + config.body_timeout,
            _ => false,
        }
    }

    /// Starts the clock of a resting connection's phase. A new phase starts it anew.
    pub(super) fn run_clock(&mut self, token: Token, is_new: bool, has_read: bool) {
        let clock = self.table[token].clock(self.is_draining);
        if is_new || (clock == Clock::Quiet && has_read) || self.timeouts.running(token.index()) != Some(clock) {
            let since = if clock == Clock::Quiet { self.quiet_since(&self.table[token]) } else { self.now };
            self.timeouts.start(token.index(), clock, since);
        }
    }

    /// Writes on with the answers that the peer has not taken. Returns true once all have left.
    pub(super) fn write_on(&mut self, token: Token) -> bool {
        let sent = self.send_on(token);
        match sent {
            Sent::All => self.poller.progressed(),
            Sent::Blocked => {}
            Sent::Failed => self.close(token),
        }
        sent == Sent::All
    }

    /// The same for a connection that is away: these are the answers before the one that its handler works on.
    pub(super) fn write_while_away(&mut self, token: Token) {
        match self.send_on(token) {
            Sent::All => self.timeouts.stop(token.index()),
            Sent::Blocked => {}
            Sent::Failed => self.desert(token),
        }
        self.look_for_reset(token);
    }

    fn send_on(&mut self, token: Token) -> Sent {
        let (sent, written) = self.table[token].send_on(self.now);
        self.counts.bytes_out.add(written.bytes as u64);
        self.count_answers(written.answers);
        sent
    }

    /// While draining, counts answers that have left in full.
    pub(super) fn count_answers(&self, answers: u64) {
        if self.is_draining && answers > 0 {
            self.shared.totals.add_drained(answers);
        }
    }

    /// Deserts a connection whose client has reset while the handler works.
    pub(super) fn look_for_reset(&mut self, token: Token) {
        if self.table[token].has_reset() {
            self.desert(token);
        }
    }

    /// Nobody waits for the answer of this connection's handler. The connection stays until the handler returns, so
    /// that the stop waits for it and can name it.
    pub(super) fn desert(&mut self, token: Token) {
        self.timeouts.stop(token.index());
        self.table[token].desert();
    }

    /// The connection of this token, if it is still there and away.
    pub(super) fn away(&mut self, token: Token) -> Option<&mut Connection> {
        self.table.get_mut(token).filter(|connection| connection.phase() == Phase::Away)
    }

    /// Closes a connection, if it is still there and away.
    pub(super) fn close_away(&mut self, token: Token) {
        if self.away(token).is_some() {
            self.close(token);
        }
    }

    /// Publishes when this loop's longest-idle connection became idle, for the other loops.
    pub(super) fn publish_idle(&self) {
        self.handle().idle_since_us.store(self.idle_since_us(), Ordering::Relaxed);
    }

    /// When the longest-idle connection became idle, in µs since the server's start; `u64::MAX` if none is.
    pub(super) fn idle_since_us(&self) -> u64 {
        self.timeouts.longest_since(Clock::Idle).map_or(u64::MAX, |since| {
            let since_start = since.saturating_duration_since(self.shared.started);
            u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX)
        })
    }
}
