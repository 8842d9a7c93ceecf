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
//! quiet, since the quiet clock runs only between services. One that comes while the clock runs out is found by the
//! last look, a read between the clock and the close. One behind a running request is looked for, in the buffer and in
//! the socket, before `Connection: close` is said. What remains is the time from a last look until the client's system
//! learns of our FIN, half a round trip, in which every server that ever closes a connection can be surprised. So
//! connections are kept for as long as their clients may be about to ask: see [`quiet`](crate::server::quiet).
//!
//! # Gates that cannot be closed at once
//!
//! ```text
//!            ┌── handshakes are under way: until the next look ──┐
//!            │   no descriptor is left: 5 ms                     │
//!            ▼                                                   │
//! stop ──▶ close the gates ──────────────────────────────────────┤
//!                                                                ├── nobody can follow ──▶ closed
//!                                                                └── the deadline ──▶ abandoned, and counted
//! ```
//!
//! The gate stays open, and the loop serves on meanwhile; it neither ends nor forgets the deadline. How a gate closes,
//! and why nobody is reset, is told in [`gate`](crate::server::gate).
//!
//! No answer says `Connection: close` before every gate refuses newcomers, so that a client that is told to go and
//! comes again at once is refused, or tries again a second later, and is not reset. Where a listener cannot refuse
//! them, it is closed before, but for want of a descriptor: then a client that comes again gets into the queue, and is
//! in it when it is emptied. Nothing is lost, there only is more to do. It ends, since each that was accepted closes,
//! and since clients that fill the queue for ever meet the deadline, and are counted there. Nobody is turned out to
//! make room: an idle client is promised the idle grace too, and who waits has until the deadline.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::EventLoop;
use super::service::Look;
use crate::http::{Method, Progress, Reject, Response};
use crate::panics::caught;
use crate::server::connection::Connection;
use crate::server::desk::Desk;
use crate::server::gate::Closing;
use crate::server::notice::Notice;
use crate::server::phase::{Close, Phase};
use crate::server::quiet::kept_until;
use crate::server::shared::ACCEPT_PAUSE_MIN;
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync::{self, Arc, Ordering};

/// How much longer than a quiet connection a handshake under way is waited for: a second by default, in which any path
/// is gone back and forth, and a SYN-ACK that was lost is sent again.
const HANDSHAKE_FACTOR: u32 = 4;

/// How long it is counted, at the deadline, what clients have sent that nobody has begun with, and then who waits in
/// queues that are abandoned: both well within what a server waits, after the deadline, for what its loops report.
const COUNT_TIME: Duration = Duration::from_millis(20);

impl EventLoop {
    /// Looks at the flag.
    #[inline]
    pub(super) fn follow_stop(&mut self) {
        if !self.is_draining && self.shared.stop.is_set() {
            self.begin_drain();
        }
    }

    /// Looks at the flag, and at the deadline once it is set.
    pub(super) fn watch_stop(&mut self, desk: &mut Desk) {
        self.follow_stop();
        if self.deadline().is_some_and(|deadline| deadline <= sync::now()) {
            self.cut_off(desk);
        }
    }

    /// By when there must be nothing left of what is there now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let is_needed = self.is_draining && (self.table.len() > 0 || self.has_open_gate());
        if is_needed { self.shared.stop.deadline() } else { None }
    }

    /// True once nothing is left, and nobody can bring anything any more.
    pub(super) fn is_over(&self) -> bool {
        let is_empty = self.table.len() == 0 && self.parcels.is_empty();
        self.is_draining && is_empty && !self.has_open_gate() && self.shared.seats[self.seat].inbox.close_if_empty()
    }

    fn has_open_gate(&self) -> bool {
        let mut gates = self.shared.gates.iter().enumerate();
        gates.any(|(number, gate)| !self.intake.is_over(number) && gate.is_open())
    }

    #[cold]
    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.now = sync::now();
        // Whatever was received is answered, or cut off at the deadline.
        self.timeouts.suspend(Clock::Turn);
        // Whoever is being served is not quiet.
        if let Some(service) = self.service {
            self.timeouts.stop(service.token.index());
        }
        for number in 0..self.shared.gates.len() {
            self.close_gate(number);
        }
        let is_quiet =
            |this: &Self, token: Token| matches!(this.timeouts.running(token.index()), Some(Clock::Idle | Clock::Head));
        let tokens = self.table.tokens().into_iter().filter(|token| is_quiet(self, *token)).collect::<Vec<_>>();
        let mut quiet: Vec<_> = tokens.into_iter().map(|token| (self.quiet_since(token), token)).collect();
        // In order, each goes to the back of its clock's queue.
        quiet.sort_unstable_by_key(|(since, _)| *since);
        for (since, token) in quiet {
            self.timeouts.start(token.index(), Clock::Quiet, since);
        }
    }

    /// Since when a connection counts as quiet, so that its idle grace ends when it should: see `quiet`.
    pub(super) fn quiet_since(&mut self, token: Token) -> Instant {
        let (now, idle_grace) = (self.now, self.shared.config.idle_grace);
        let (Some(connection), Some(deadline)) = (self.table.get_mut(token), self.shared.stop.deadline()) else {
            return now;
        };
        let time_to_answer = idle_grace.min(deadline.saturating_duration_since(now) / 4);
        let latest = deadline.checked_sub(time_to_answer).unwrap_or(now);
        let path = if connection.peer().is_local() { None } else { connection.stream().path() };
        let until = kept_until(now, idle_grace, latest, path, connection.rhythm(), connection.answered_at());
        now + until.saturating_duration_since(now + idle_grace)
    }

    /// Lets in whoever has come, and nobody any more; the first loop that can does it for all.
    pub(super) fn close_gate(&mut self, number: usize) {
        if self.intake.is_over(number) {
            return;
        }
        self.ignore_gate(number);
        let mut accepted = Vec::new();
        let closed = self.shared.gates[number].close(self.handshakes_until(), &mut accepted);
        // They stay here: another loop may have left already.
        for (stream, peer) in accepted {
            self.take_in(stream, peer, number);
        }
        match closed {
            Ok(Closing::Left) => self.intake.end(number),
            Ok(Closing::Closed) => {
                self.intake.end(number);
                self.shared.seats.iter().for_each(|seat| seat.inbox.wake());
            }
            Ok(Closing::Awaits(again_at)) => {
                // Whoever completes one is served at once; if it cannot be watched, when it is tried again.
                let _ = self.watch_gate(number);
                self.intake.pause_until(number, Some(again_at));
            }
            Err(error) => {
                self.intake.pause_until(number, Some(self.now + ACCEPT_PAUSE_MIN));
                self.shared.tell_accept_failed(&self.shared.gates[number], &error, self.now);
                self.intake.fail(number, error);
            }
        }
    }

    /// Until when handshakes under way are waited for: well within the deadline, so that what they bring is answered.
    fn handshakes_until(&self) -> Instant {
        let until = self.now + self.shared.config.idle_grace * HANDSHAKE_FACTOR;
        let half = self.shared.stop.deadline().map(|at| self.now + at.saturating_duration_since(self.now) / 2);
        half.map_or(until, |half| until.min(half))
    }

    /// The deadline has come: every socket is shut down, and what was owed is counted.
    pub(crate) fn cut_off(&mut self, desk: &mut Desk) {
        let until = sync::now() + COUNT_TIME;
        let (mut unfinished, mut uncounted) = (Vec::new(), 0);
        for token in self.table.tokens() {
            match self.count_owed(token, until, desk) {
                (0, true) => unfinished.push(token),
                (_, is_all) => uncounted += usize::from(!is_all),
            }
        }
        if uncounted > 0 {
            let detail = format!("whatever else {uncounted} clients had sent: there was no time to count it");
            self.cut_off.details.push(detail);
        }
        // To close thousands may take longer than a server waits.
        let counted = Some(self.cut_off.clone());
        *self.shared.seats[self.seat].counted.lock() = counted;
        unfinished.into_iter().for_each(|token| self.end_unfinished(token, desk));
        self.table.tokens().into_iter().for_each(|token| self.shut_down(token));
        // Now there are descriptors, to see who has waited in vain.
        let until = sync::now() + COUNT_TIME;
        let shared = Arc::clone(&self.shared);
        for (number, gate) in shared.gates.iter().enumerate() {
            let (mut owed, place) = (0, gate.place());
            let seen = gate.abandon(until, |stream, peer| {
                owed += Connection::new(Arc::new(stream), peer, self.now).owed(desk, &shared.limits, until).0;
            });
            if owed > 0 {
                let details = &mut self.cut_off.details;
                details.push(match self.intake.failure(number) {
                    Some(error) => format!("{owed} in the queue of `{place}`, which could not be emptied: {error}"),
                    None => format!("{owed} in the queue of `{place}`, which no thread was free to empty"),
                });
            }
            if let Err(error) = seen {
                owed += 1;
                self.cut_off.details.push(format!("whoever else was in the queue of `{place}`: {error}"));
            }
            self.cut_off.owed += owed;
        }
    }

    /// How many answers a connection is owed, and false if there was no time to count all that it had sent.
    fn count_owed(&mut self, token: Token, until: Instant, desk: &mut Desk) -> (usize, bool) {
        let Some(connection) = self.table.get_mut(token) else { return (0, true) };
        let (owed, is_all) = connection.owed(desk, &self.shared.limits, until);
        self.cut_off.details.extend(describe_owed(connection, owed));
        self.cut_off.owed += owed;
        (owed, is_all)
    }

    fn shut_down(&mut self, token: Token) {
        if let Some(connection) = self.table.get_mut(token) {
            connection.stream().shutdown(Shutdown::Both);
        }
        self.drop_connection(token);
    }

    /// Nobody turns this loop any more, in whatever state it is. Its clients see the end of their connections, those on
    /// their way to it are given to other loops, and nobody waits for it or gives it anything.
    pub(crate) fn die(&mut self, desk: &mut Desk) {
        let shared = Arc::clone(&self.shared);
        self.service = None;
        self.out.clear();
        self.parcels.extend(shared.seats[self.seat].inbox.close());
        std::mem::take(&mut self.parcels).into_iter().for_each(|parcel| shared.pass_to_any(parcel));
        for number in 0..shared.gates.len() {
            self.leave_gate(number);
        }
        let until = sync::now() + COUNT_TIME;
        for token in self.table.tokens() {
            let _ = caught(|| {
                if self.count_owed(token, until, desk) == (0, true) {
                    self.end_unfinished(token, desk);
                }
            });
            self.shut_down(token);
        }
        // The fewest connections, and none that is idle, would draw others here.
        shared.seats[self.seat].connections.store(usize::MAX / 2, Ordering::Relaxed);
        shared.seats[self.seat].idle_since_us.store(u64::MAX, Ordering::Relaxed);
    }

    /// Who has sent a part of a request, and nothing else, is told so, if the socket takes it at once.
    fn end_unfinished(&mut self, token: Token, desk: &mut Desk) {
        self.end_upload(token, desk);
        let Some(connection) = self.table.get_mut(token) else { return };
        connection.lay_on(desk);
        let has_answers = matches!(connection.phase(), Phase::Away | Phase::Writing | Phase::Lingering);
        if has_answers || !desk.has_more() {
            return;
        }
        // Closed with something unread, the connection would be reset, and the answer lost.
        connection.discard(desk);
        self.start_service(token, Look::Reported);
        self.reject(Reject::Timeout, Close::AtOnce, desk);
        self.put_down(Progress::Nothing, desk);
    }
}

impl EventLoop {
    /// The same for whose body its handler reads itself.
    fn end_upload(&mut self, token: Token, desk: &mut Desk) {
        let (patience, now) = (self.shared.config.write_timeout, self.now);
        let Some(connection) = self.table.get_mut(token).filter(|connection| !connection.is_deserted()) else { return };
        let Some(call) = connection.call().filter(|call| call.body.is_some()) else { return };
        let is_head = call.method == Method::Head;
        // Its handler may wait for the peer; we do not.
        if connection.stream().never_wait().is_err() {
            return;
        }
        connection.discard(desk);
        let reject = Reject::Timeout;
        self.shared.tell(&Notice::Rejected { peer: connection.peer(), reject });
        let response = Response::text(reject.reason()).with_status(reject.status());
        self.out.push_refusal(response, is_head, now);
        connection.send(&mut self.out, patience, now);
    }
}

/// One line for what a connection is owed, or for a handler that still runs though its client is gone.
fn describe_owed(connection: &Connection, owed: usize) -> Option<String> {
    let peer = connection.peer();
    match (connection.phase(), connection.call()) {
        (_, Some(call)) if connection.is_deserted() => {
            let (method, path, age) = (call.method, call.path(), call.age());
            Some(format!("{method} {path} for {peer}, which has gone, its handler running for {age} s"))
        }
        (_, Some(call)) => {
            let (method, path, age) = (call.method, call.path(), call.age());
            let what = match owed {
                0 => ", its body not whole".to_owned(),
                1 => String::new(),
                _ => format!(" ({owed} owed to it)"),
            };
            Some(format!("{method} {path} for {peer}{what}, its handler running for {age} s"))
        }
        _ if owed == 0 => None,
        (Phase::Waiting, _) => Some(format!("{owed} for {peer}, waiting for a worker thread")),
        (Phase::Idle | Phase::Head | Phase::Body, _) => Some(format!("{owed} for {peer}, not begun")),
        _ => Some(format!("{owed} for {peer}, which did not take what it was sent")),
    }
}
