//! What is left at the deadline, or when a loop dies: counted, told to whoever can hear it, and shut down.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{Books, EventLoop};
use crate::group::CutOff;
use crate::http::{Method, Reject, Response};
use crate::panics::caught;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::notice::Notice;
use crate::server::outgoing::Outgoing;
use crate::server::phase::Phase;
use crate::server::table::Token;
use crate::sync::{self, Ordering};

/// How long it is counted, at the deadline, what clients have sent that nobody has begun with, and then who waits in
/// queues that are abandoned: both well within what a server waits, after the deadline, for what its loops report.
const COUNT_TIME: Duration = Duration::from_millis(20);

impl EventLoop {
    /// The deadline has come: every socket is shut down, and what was owed is counted.
    pub(crate) fn cut_off(&mut self, buffer: &mut ReadBuffer) {
        let partial = self.books.count_owed(&mut self.cut_off, buffer);
        // To close thousands may take longer than a server waits.
        let counted = Some(self.cut_off.clone());
        *self.books.index().counted.lock() = counted;
        partial.into_iter().for_each(|token| self.books.refuse_unfinished(token, &mut self.out, buffer));
        self.books.table.tokens().into_iter().for_each(|token| self.books.shut_down(token));
        // Now there are descriptors, to see who has waited in vain.
        self.intake.abandon(sync::now() + COUNT_TIME, &mut self.cut_off, buffer);
    }

    /// Nobody turns this loop any more, in whatever state it is. Its clients see the end of their connections, those on
    /// their way to it are given to other loops, and nobody waits for it or gives it anything.
    pub(crate) fn die(&mut self, buffer: &mut ReadBuffer) {
        self.visit = None;
        self.out.clear();
        self.messages.extend(self.books.index().inbox.close());
        self.messages.drain(..).for_each(|message| self.shared.pass_to_any(message));
        for number in 0..self.shared.listeners.len() {
            self.intake.leave(number, &mut self.books.poller);
        }
        let until = sync::now() + COUNT_TIME;
        for token in self.books.table.tokens() {
            let _ = caught(|| {
                if self.books.count_owed_to(token, until, &mut self.cut_off, buffer) == (0, true) {
                    self.books.refuse_unfinished(token, &mut self.out, buffer);
                }
            });
            self.books.shut_down(token);
        }
        // The fewest connections, and none that is idle, would draw others here.
        self.books.index().connections.store(usize::MAX / 2, Ordering::Relaxed);
        self.books.index().idle_since_us.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Books {
    /// Counts what all connections are owed. Gives those that are owed nothing, and may have sent a part of a request.
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

    /// How many answers a connection is owed, and false if there was no time to count all that it had sent.
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

    /// Whoever has sent a part of a request, and nothing else, is told so, if the socket takes it at once.
    fn refuse_unfinished(&mut self, token: Token, out: &mut Outgoing, buffer: &mut ReadBuffer) {
        let connection = &mut self.table[token];
        let is_head = match (connection.phase(), connection.call()) {
            (Phase::Away, Some(call)) if call.body.is_some() && !connection.is_deserted() => {
                // Its handler, which reads the body itself, may wait for the peer; we do not.
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
        // Closed with something unread, the connection would be reset, and the answer lost.
        connection.discard(buffer);
        let reject = Reject::Timeout;
        self.shared.tell(&Notice::Rejected { peer: connection.peer(), reject });
        out.push_refusal(Response::text(reject.reason()).with_status(reject.status()), is_head, self.now);
        connection.send(out, self.now);
    }

    fn shut_down(&mut self, token: Token) {
        self.table[token].stream().shutdown(Shutdown::Both);
        self.close(token);
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
