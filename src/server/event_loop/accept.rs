//! How an event loop takes connections in: accepts them, makes room, and gives them a place on the loop that has the
//! fewest.
//!
//! Whoever accepts a connection serves it, at first. To give it to another loop means to wake that one, which costs as
//! much as a request, and most that are closed after one answer are not worth it. Once a connection rests after an
//! answer it is known to stay, and is given away if another loop has clearly less to carry.

use std::time::{Duration, Instant};

use super::EventLoop;
use crate::http::Peer;
use crate::server::accept_error::AcceptError;
use crate::server::connection::Connection;
use crate::server::desk::Desk;
use crate::server::gate::Gate;
use crate::server::inbox::{Arrival, Parcel, Transfer};
use crate::server::notice::Want;
use crate::server::phase::Fill;
use crate::server::shared::{ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN};
use crate::server::stream::Stream;
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync::{Arc, Ordering};

/// Marks a token as a listener's; the rest is its number.
pub(super) const GATE_BIT: u64 = 1 << 63;

/// Most connections accepted at a time, before those that are there get their turn.
const ACCEPTS_MAX: u32 = 64;
/// Idle connections that are looked at for one that can make room.
const LOOKS_MAX: u32 = 8;
/// Refusals that may linger beyond the most connections; more are dropped without an answer.
const REFUSALS_MAX: usize = 128;

/// How each listener is accepted from.
#[derive(Debug)]
pub(super) struct Intake {
    paces: Vec<Pace>,
}

#[derive(Debug)]
struct Pace {
    /// Connections accepted at a time: twice as many after a queue that was longer, one after a queue that was not. The
    /// system makes a descriptor before it finds the queue empty, so that asking it once more than needed costs half an
    /// accept.
    batch: u32,
    /// The next pause, for want of descriptors.
    pause: Duration,
    resumes_at: Option<Instant>,
    /// Nothing is left for this loop to accept.
    is_over: bool,
    /// Why it could not be closed.
    failure: Option<std::io::Error>,
}

impl Intake {
    pub(super) fn new(gates: usize) -> Self {
        let pace = || Pace { batch: 1, pause: ACCEPT_PAUSE_MIN, resumes_at: None, is_over: false, failure: None };
        Self { paces: std::iter::repeat_with(pace).take(gates).collect() }
    }

    pub(super) fn is_over(&self, number: usize) -> bool {
        self.paces[number].is_over
    }

    pub(super) fn fail(&mut self, number: usize, error: std::io::Error) {
        self.paces[number].failure = Some(error);
    }

    pub(super) fn failure(&self, number: usize) -> Option<&std::io::Error> {
        self.paces[number].failure.as_ref()
    }

    pub(super) fn end(&mut self, number: usize) {
        self.paces[number].is_over = true;
        self.pause_until(number, None);
    }

    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.paces.iter().filter_map(|pace| pace.resumes_at).min()
    }

    /// Has this listener looked at again then, or when it is reported.
    pub(super) fn pause_until(&mut self, number: usize, resumes_at: Option<Instant>) {
        self.paces[number].resumes_at = resumes_at;
    }
}

impl EventLoop {
    pub(super) fn open_gates(&mut self) -> Result<(), String> {
        (0..self.shared.gates.len()).try_for_each(|number| {
            let watched = self.watch_gate(number);
            watched.map_err(|error| format!("cannot watch listener `{}`: {error}", self.shared.gates[number].place()))
        })
    }

    pub(super) fn watch_gate(&mut self, number: usize) -> std::io::Result<()> {
        let poller = &mut self.poller;
        let added = self.shared.gates[number].with(|listener| poller.add_listener(listener, gate_token(number)));
        added.unwrap_or(Ok(()))
    }

    /// A listener has been reported.
    pub(super) fn accept_from(&mut self, token: u64, desk: &mut Desk) {
        let Ok(number) = usize::try_from(token & !GATE_BIT) else {
            return;
        };
        if self.is_draining {
            return self.close_gate(number);
        }
        let batch = self.intake.paces[number].batch;
        for count in 0..batch {
            let Some(accepted) = self.shared.gates.get(number).and_then(Gate::accept) else {
                return;
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.poller.progressed();
                    self.settle(Arrival { stream, peer, gate: number, is_sent: false, refusals: 0 }, desk);
                    if self.intake.paces[number].resumes_at.is_some() {
                        return;
                    }
                    self.intake.paces[number].pause = ACCEPT_PAUSE_MIN;
                }
                Err(AcceptError::WouldBlock) => {
                    self.intake.paces[number].batch = 1;
                    return;
                }
                Err(AcceptError::Transient(_)) => {}
                // The system says so even if nobody waits. If somebody does, the listener is reported again.
                Err(AcceptError::Exhausted(_)) if count > 0 => return,
                // A descriptor limit below the most connections: the longest idle one makes room here too, but not one
                // that has only just come, since nobody may be waiting after all.
                Err(AcceptError::Exhausted(error)) => {
                    if !self.make_room(self.shared.config.idle_grace, desk) {
                        self.shared.tell_accept_failed(&self.shared.gates[number], &error, self.now);
                        return self.pause_gate(number);
                    }
                }
                Err(AcceptError::Stuck(error)) => {
                    self.shared.tell_accept_failed(&self.shared.gates[number], &error, self.now);
                    return self.pause_gate(number);
                }
                Err(AcceptError::Dead(error)) => {
                    self.ignore_gate(number);
                    return self.shared.listener_failed(&self.shared.gates[number], &error);
                }
            }
        }
        self.intake.paces[number].batch = (batch * 2).min(ACCEPTS_MAX);
    }

    fn pause_gate(&mut self, number: usize) {
        self.ignore_gate(number);
        let pace = &mut self.intake.paces[number];
        pace.resumes_at = Some(self.now + pace.pause);
        pace.pause = (pace.pause * 2).min(ACCEPT_PAUSE_MAX);
    }

    /// Has the poller report this listener no more.
    pub(super) fn ignore_gate(&mut self, number: usize) {
        let poller = &mut self.poller;
        let removed = self.shared.gates[number].with(|listener| poller.remove_listener(listener, gate_token(number)));
        if removed.is_none() {
            // Another loop has closed it.
            self.poller.retired(gate_token(number));
        }
    }

    /// Accepts from this listener no more, which other loops may.
    pub(super) fn leave_gate(&mut self, number: usize) {
        if !self.intake.is_over(number) {
            self.ignore_gate(number);
            self.intake.end(number);
            self.shared.gates[number].leave();
        }
    }

    /// Looks at paused listeners again, once their time has come.
    pub(super) fn resume_gates(&mut self) {
        for number in 0..self.intake.paces.len() {
            if self.intake.paces[number].resumes_at.is_some_and(|at| at <= self.now) {
                self.intake.paces[number].resumes_at = None;
                if self.is_draining {
                    self.close_gate(number);
                } else if self.watch_gate(number).is_err() {
                    self.pause_gate(number);
                }
            }
        }
    }

    /// Gives a new connection to another loop; a loop that has left gives it back.
    fn pass_on(&mut self, arrival: Arrival, seat: usize, desk: &mut Desk) {
        let connections = &self.shared.seats[seat].connections;
        connections.fetch_add(1, Ordering::Relaxed);
        if let Err(Parcel::Arrival(arrival)) = self.shared.seats[seat].inbox.push(Parcel::Arrival(arrival)) {
            connections.fetch_sub(1, Ordering::Relaxed);
            self.settle(arrival, desk);
        }
    }

    /// A new connection that another loop has passed on.
    pub(super) fn take_arrival(&mut self, arrival: Arrival, desk: &mut Desk) {
        // It was counted when it was passed on.
        self.shared.seats[self.seat].connections.fetch_sub(1, Ordering::Relaxed);
        self.settle(arrival, desk);
    }

    /// Takes a connection in if there is room, or room can be made: here, or on another loop.
    fn settle(&mut self, mut arrival: Arrival, desk: &mut Desk) {
        if self.shared.has_counted_one_more() {
            self.enter_arrival(arrival.stream, arrival.peer, arrival.gate);
        } else if let Some(seat) = self.seat_idle_longer().filter(|_| !arrival.is_sent) {
            arrival.is_sent = true;
            self.pass_on(arrival, seat, desk);
        } else if self.make_room(Duration::ZERO, desk) && self.shared.has_counted_one_more() {
            self.enter_arrival(arrival.stream, arrival.peer, arrival.gate);
        } else if arrival.refusals + 1 < self.shared.seats.len() {
            arrival.refusals += 1;
            let next = (self.seat + 1) % self.shared.seats.len();
            self.pass_on(arrival, next, desk);
        } else {
            self.refuse_arrival(arrival);
        }
    }

    /// Closes the connection that has been idle for longest. Returns false if none has been idle for `idle_min`.
    fn make_room(&mut self, idle_min: Duration, desk: &mut Desk) -> bool {
        for _ in 0..LOOKS_MAX {
            if self.timeouts.longest_since(Clock::Idle).is_none_or(|since| self.now < since + idle_min) {
                return false;
            }
            let Some(token) = self.longest_idle() else { return false };
            let Some(connection) = self.table.get_mut(token) else { return false };
            // It may have sent a request that has not been looked at yet: then it is not idle, and is served soon.
            connection.look_again();
            connection.lay_on(desk);
            let fill = connection.fill(desk);
            connection.keep(desk);
            if fill != Fill::Bytes {
                self.drop_connection(token);
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
        let seats = self.shared.seats.iter().map(|seat| seat.idle_since_us.load(Ordering::Relaxed)).enumerate();
        let others = seats.filter(|(seat, _)| *seat != self.seat);
        others.min_by_key(|(_, since_us)| *since_us).filter(|(_, since_us)| *since_us < own_us).map(|(seat, _)| seat)
    }

    /// Tells the other loops since when the longest idle connection of this one is.
    pub(super) fn publish_idle(&self) {
        self.shared.seats[self.seat].idle_since_us.store(self.idle_since_us(), Ordering::Relaxed);
    }

    /// In microseconds since the server's start; the greatest number if none is idle.
    fn idle_since_us(&self) -> u64 {
        self.timeouts.longest_since(Clock::Idle).map_or(u64::MAX, |since| {
            let since_start = since.saturating_duration_since(self.shared.started);
            u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX)
        })
    }

    fn longest_idle(&self) -> Option<Token> {
        self.timeouts.longest(Clock::Idle).and_then(|index| self.table.token_at(index))
    }

    /// Answers 503 and closes, since all connections are taken by others that are not idle.
    fn refuse_arrival(&mut self, arrival: Arrival) {
        let response = self.shared.refuse_for(Want::Connections, self.now);
        let refused = self.shared.connections.load(Ordering::Relaxed);
        if refused >= self.shared.config.connections_max + REFUSALS_MAX {
            return;
        }
        if let Some(token) = self.take_in(arrival.stream, arrival.peer, arrival.gate) {
            self.turn_away(token, response);
        }
    }

    /// Enters a new connection. `None`: the system has nothing left to watch it with. It is closed, and as with a
    /// failed accept that is told, and the listener paused: the next ones had better wait than be closed too.
    pub(super) fn take_in(&mut self, stream: Stream, peer: Peer, gate: usize) -> Option<Token> {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.enter_arrival(stream, peer, gate)
    }

    /// The same, once it has been counted.
    fn enter_arrival(&mut self, stream: Stream, peer: Peer, gate: usize) -> Option<Token> {
        let entered = self.enter(Connection::new(Arc::new(stream), peer, self.now));
        let failed = |error| {
            self.shared.tell_accept_failed(&self.shared.gates[gate], &error, self.now);
            self.pause_gate(gate);
        };
        entered.map_err(failed).ok()
    }

    /// Of all connections it is counted as one already: it stays so on its way from loop to loop.
    fn enter(&mut self, connection: Connection) -> std::io::Result<Token> {
        let (clock, mark) = (connection.clock(self.is_draining), connection.mark());
        let token = self.table.insert(connection);
        // The idle grace begins with the stop at the earliest.
        let since = if self.is_draining { self.quiet_since(token) } else { mark };
        self.shared.seats[self.seat].connections.fetch_add(1, Ordering::Relaxed);
        self.timeouts.start(token.index(), clock, since);
        let (poller, connection) = (&mut self.poller, self.table.get_mut(token));
        let watched = connection.map_or(Ok(()), |connection| poller.add(connection.stream(), token.raw()));
        if watched.is_err() {
            self.drop_connection(token);
        }
        watched.map(|()| token)
    }

    /// Gives a connection that rests after its first answer to the loop that has the fewest, if that is clearly fewer.
    /// Returns false if it stays. Nothing is lost on the way: what comes meanwhile waits in the socket, and is reported
    /// when the other loop adds it.
    pub(super) fn find_place(&mut self, token: Token) -> bool {
        if self.is_draining || !self.table.get_mut(token).is_some_and(Connection::needs_place) {
            return false;
        }
        let own = self.shared.seats[self.seat].connections.load(Ordering::Relaxed);
        let (seat, least) = self.shared.least_loaded();
        if seat == self.seat || own <= least + 1 + least / 16 {
            return false;
        }
        let Some(connection) = self.take_out(token) else { return false };
        self.poller.remove(connection.stream(), token.raw());
        let parcel = Parcel::Transfer(connection.into_transfer());
        self.shared.seats[seat].connections.fetch_add(1, Ordering::Relaxed);
        if let Err(Parcel::Transfer(transfer)) = self.shared.seats[seat].inbox.push(parcel) {
            self.shared.seats[seat].connections.fetch_sub(1, Ordering::Relaxed);
            // It has drained and left, as this one is about to.
            let _ = self.enter(Connection::transferred(transfer));
        }
        true
    }

    /// A connection that another loop has given away. It has its place among the most connections already.
    pub(super) fn take_transfer(&mut self, transfer: Transfer) {
        // It was counted when it was given away.
        self.shared.seats[self.seat].connections.fetch_sub(1, Ordering::Relaxed);
        // The system may have nothing left to watch it with: then it is closed, as an idle one may be at any time.
        let _ = self.enter(Connection::transferred(transfer));
    }
}

fn gate_token(number: usize) -> u64 {
    GATE_BIT | number as u64
}
