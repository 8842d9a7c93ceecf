//! What a loop does at the deadline, or when it dies: counts what it owes, refuses partial requests, and shuts down.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{Books, EventLoop};
use crate::group::CutOff;
use crate::http::{Method, Reject, Response};
use crate::panics::caught;
use crate::server::answered::Asked;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::notice::Notice;
use crate::server::outgoing::Outgoing;
use crate::server::phase::Phase;
use crate::server::table::Token;
use crate::sync::{self, Ordering};

/// How long a loop, at the deadline, counts what clients have sent that no handler has begun with, and then the clients
/// in queues that it abandons. Both are well within the time that a server waits after the deadline for its loops to
/// report.
const COUNT_TIME: Duration = Duration::from_millis(20);

impl EventLoop {
    /// The deadline has passed: counts what is owed, and shuts every socket down.
    pub(crate) fn cut_off(&mut self, buffer: &mut ReadBuffer) {
        let partial = self.books.count_owed(&mut self.cut_off, buffer);
        // Closing thousands may take longer than a server waits.
        let counted = Some(self.cut_off.clone());
        *self.books.handle().counted.lock() = counted;
        partial.into_iter().for_each(|token| self.books.refuse_unfinished(token, &mut self.out, buffer));
        self.books.table.tokens().into_iter().for_each(|token| self.books.shut_down(token));
        // Now descriptors are free to look at the clients in the queues.
        self.intake.abandon_all(sync::now() + COUNT_TIME, &mut self.cut_off, buffer);
    }

    /// No thread runs this loop again, whatever its state. Its clients see their connections end, other loops get the
    /// connections on their way to it, and nobody waits for it or gives it anything. With the last loop gone, nobody
    /// accepts clients that wait in the queues: they are counted.
    pub(crate) fn die(&mut self, buffer: &mut ReadBuffer) {
        self.visit = None;
        self.out.clear();
        self.messages.extend(self.books.handle().inbox.close());
        self.messages.drain(..).for_each(|message| self.shared.pass_to_any(message));
        let listeners = 0..self.shared.listeners.len();
        let unheard: Vec<_> = listeners.filter(|number| self.intake.leave(*number, &mut self.books.poller)).collect();
        let until = sync::now() + COUNT_TIME;
        for token in self.books.table.tokens() {
            let _ = caught(|| {
                if self.books.count_owed_to(token, until, &mut self.cut_off, buffer) == (0, true) {
                    self.books.refuse_unfinished(token, &mut self.out, buffer);
                }
            });
            self.books.shut_down(token);
        }
        let until = sync::now() + COUNT_TIME;
        unheard.into_iter().for_each(|number| self.intake.abandon(number, until, &mut self.cut_off, buffer));
        // A loop with few connections, or an idle one, would attract new ones.
        self.books.handle().connections.store(usize::MAX / 2, Ordering::Relaxed);
        self.books.handle().idle_since_us.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Books {
    /// Counts what all connections are owed. Returns those that are owed nothing but may have sent part of a request.
    fn count_owed(&mut self, cut_off: &mut CutOff, buffer: &mut ReadBuffer) -> Vec<Token> {
        let until = sync::now() + COUNT_TIME;
        let (mut partial, mut uncounted) = (Vec::new(), 0);
        for token in self.table.tokens() {
            match self.count_owed_to(token, until, cut_off, buffer) {
                (0, true) => partial.push(token),
                (_, is_all) => uncounted += usize::from(!is_all),
            }
        }
        if uncounted > 0 {
            let detail = format!("whatever else {uncounted} clients had sent: there was no time to count it");
            cut_off.details.push(detail);
        }
        partial
    }

    /// How many answers a connection is owed; and false if there was no time to count all that it had sent.
    fn count_owed_to(
        &mut self,
        token: Token,
        until: Instant,
        cut_off: &mut CutOff,
        buffer: &mut ReadBuffer,
    ) -> (usize, bool) {
        let connection = &mut self.table[token];
        let (owed, is_all) = connection.owed(buffer, &self.shared.limits, until);
        cut_off.details.extend(describe_owed(connection, owed));
        cut_off.owed += owed;
        (owed, is_all)
    }

    /// Answers 408 to a client that has sent only part of a request, if the socket takes the answer at once.
    fn refuse_unfinished(&mut self, token: Token, out: &mut Outgoing, buffer: &mut ReadBuffer) {
        let connection = &mut self.table[token];
        let is_head = match (connection.phase(), connection.call()) {
            (Phase::Away, Some(call)) if call.body.is_some() && !connection.is_deserted() => {
                // Its handler, which reads the body itself, may have made the socket wait; we do not wait.
                if connection.stream().never_wait().is_err() {
                    return;
                }
                call.method == Method::Head
            }
            (Phase::Away | Phase::Writing | Phase::Lingering, _) => return,
            (Phase::Idle | Phase::Head | Phase::Body | Phase::Waiting, _) => {
                connection.load_into(buffer);
                if !buffer.has_more() {
                    return;
                }
                buffer.incoming().is_head_request()
            }
        };
        // Closing with unread bytes would reset the connection and lose the answer.
        connection.discard(buffer);
        let reject = Reject::Timeout;
        self.shared.tell(&Notice::Rejected { peer: connection.peer(), reject });
        let mut response = Response::text(reject.reason()).with_status(reject.status());
        if self.shared.on_answer.is_some() {
            let asked = connection.call().map(Asked::of);
            let asked = asked.unwrap_or_else(|| Asked::in_part(buffer, connection, self.now));
            asked.tell_with(&mut response, is_head, connection.peer(), &self.shared);
        }
        out.push_refusal(response, is_head, self.now);
        connection.send(out, self.now);
    }

    fn shut_down(&mut self, token: Token) {
        self.table[token].stream().shutdown(Shutdown::Both);
        self.close(token);
    }
}

/// One line for what a connection is owed, or for a handler that still runs although its client has gone.
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
