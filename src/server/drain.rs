//! The way out of an event loop.
//!
//! | connection at the stop | what happens |
//! |---|---|
//! | in the accept queue | accepted; the listener is closed in the same breath ([`Gate::close`]) |
//! | a handler runs, or an answer is being written | finished; the answer says `Connection: close` |
//! | a body is arriving | it may, until its own timeout or the deadline |
//! | idle, or part of a head has come | closed once it has been quiet for the idle grace, 408 first for a part |
//! | requests wait behind the running one | answered in order; the last answer says `Connection: close` |
//!
//! No request can be lost on the way. One that has come whole is answered before its connection is looked at for
//! quiet, since the quiet clock runs only between services. One that comes while the clock runs out is found by the
//! last look, a read between the clock and the close. One behind a running request is looked for, in the buffer and in
//! the socket, before `Connection: close` is said. What remains is the time between a last look and the FIN that
//! follows it, a microsecond or two, in which every server that ever closes a connection can be surprised.
//!
//! [`Gate::close`]: super::listener::Gate::close

use std::net::Shutdown;
use std::time::Instant;

use super::accept::gate_token;
use super::connection::{Call, Connection, Phase};
use super::event_loop::EventLoop;
use super::timeouts::Clock;

impl EventLoop {
    /// Looks at the flag.
    pub(super) fn follow_stop(&mut self) {
        if !self.is_draining && self.shared.stop.is_set() {
            self.begin_drain();
        }
    }

    /// Looks at the flag, and at the deadline once it is set.
    pub(super) fn watch_stop(&mut self) {
        self.follow_stop();
        if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            self.cut_off();
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_draining && self.table.len() > 0 { self.shared.stop.deadline() } else { None }
    }

    /// True once nothing is left, and nobody can bring anything any more.
    pub(super) fn is_over(&self) -> bool {
        let is_empty = self.table.len() == 0 && self.parcels.is_empty();
        self.is_draining && is_empty && self.shared.seats[self.seat].inbox.close_if_empty()
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.now = Instant::now();
        // Whatever was received is answered, or cut off at the deadline.
        self.timeouts.suspend(Clock::Turn);
        // Whoever is being served is not idle: it must not make room for others.
        if let Some(service) = self.service {
            self.timeouts.stop(service.token.index());
        }
        let shared = std::sync::Arc::clone(&self.shared);
        for (number, gate) in shared.gates.iter().enumerate() {
            // The first loop to come here closes it for all.
            let accepted = gate.close(|| self.make_room_blindly());
            self.poller.retired(gate_token(number));
            // They stay here: another loop may have left already.
            for (stream, peer) in accepted {
                self.take_in(stream, peer);
            }
        }
        for token in self.table.tokens() {
            if matches!(self.timeouts.running(token.index()), Some(Clock::Idle | Clock::Head)) {
                self.timeouts.start(token.index(), Clock::Quiet, self.now);
            }
        }
    }

    /// The deadline has come: every socket is shut down, and what was owed is counted.
    fn cut_off(&mut self) {
        for token in self.table.tokens() {
            if let Some(connection) = self.table.get_mut(token) {
                let owed = connection.owed(&self.shared.limits);
                self.cut_off.details.extend(describe_owed(connection, owed));
                self.cut_off.owed += owed;
                connection.stream().shutdown(Shutdown::Both);
            }
            self.drop_connection(token);
        }
    }
}

/// One line for what a connection is owed.
fn describe_owed(connection: &Connection, owed: usize) -> Option<String> {
    let peer = connection.peer();
    match (connection.phase(), connection.call()) {
        _ if owed == 0 => None,
        (_, Some(Call { method, path, since, .. })) => {
            let age = since.elapsed().as_secs_f64();
            Some(format!("{method} {path} for {peer}, its handler running for {age:.1} s"))
        }
        (Phase::Waiting, _) => Some(format!("{owed} for {peer}, waiting for a worker thread")),
        _ => Some(format!("{owed} for {peer}, which did not take what it was sent")),
    }
}
