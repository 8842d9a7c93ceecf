//! A visit: what happens between a connection's being taken up and its being put down again.
//!
//! ```text
//! begin ──▶ go_on: read, parse ──▶ a whole request: Turn::Call ──answer──┐
//!             ▲      │                                                   │
//!             └──────┼───────────────────────────────────────────────────┘
//!                    └── nothing more to do ──▶ end_visit: one write for all answers, then rest, linger or drop
//! ```
//!
//! The connection stays in the loop's books; what has been read lies in the buffer, what is to be sent in the loop's
//! outgoing batch. What it comes to is worked out in `serving`, and decided here.

use super::serving::{Reason, Serving, Step, Visit};
use super::{Books, EventLoop, Turn};
use crate::http::{Progress, Reject, Response};
use crate::server::buffer::{Exchange, ReadBuffer};
use crate::server::phase::{End, Phase};
use crate::server::table::Token;
use crate::sync::{self, Ordering};

impl EventLoop {
    /// Takes up a connection that something has happened to.
    pub(super) fn begin(&mut self, token: Token, reason: Reason, buffer: &mut ReadBuffer) {
        match self.books.table[token].phase() {
            Phase::Lingering => self.books.discard(token, buffer),
            Phase::Away => self.books.write_while_away(token),
            // It has been noted that there is something to read. Nobody is called for a client that has gone.
            Phase::Waiting if self.books.table[token].has_reset() => self.books.close(token),
            Phase::Waiting => {}
            Phase::Writing if !self.books.write_on(token) => {}
            Phase::Writing | Phase::Idle | Phase::Head | Phase::Body => self.begin_visit(token, reason, buffer),
        }
    }

    /// Lays a connection in the buffer, to be served.
    pub(super) fn begin_visit(&mut self, token: Token, reason: Reason, buffer: &mut ReadBuffer) {
        self.books.table[token].load_into(buffer);
        self.visit = Some(Visit::new(token, reason, self.shared.looks.load(Ordering::Relaxed)));
    }

    /// The connection that is being served. Its visit ends before it is dropped.
    pub(super) fn serving(&mut self) -> Option<Serving<'_>> {
        let visit = self.visit.as_mut()?;
        let Books { table, poller, now, is_draining, .. } = &mut self.books;
        let connection = &mut table[visit.token()];
        Some(Serving::new(&self.shared, visit, connection, &mut self.out, poller, *now, *is_draining))
    }

    /// Goes on with the connection at hand.
    pub(super) fn go_on(&mut self, buffer: &mut ReadBuffer) -> Option<Turn> {
        let looks = self.shared.looks.load(Ordering::Relaxed);
        if self.visit.as_mut()?.is_to_be_timed(looks) && !self.has_time() {
            self.cut_short(buffer);
            return None;
        }
        let mut serving = self.serving()?;
        match serving.run(buffer) {
            Step::Call => {
                let caller = serving.caller();
                return self.call(caller, buffer);
            }
            Step::Answer(response) => self.answer(*response, buffer),
            Step::ReadOn(_) if self.has_time() && self.serving()?.fill(buffer) => {}
            Step::ReadOn(progress) | Step::End(progress) => self.end_visit(progress, buffer),
        }
        None
    }

    /// False once it is time for others.
    fn has_time(&mut self) -> bool {
        self.books.now = sync::now();
        self.pass.is_in_time(self.books.now)
    }

    /// Leaves what else has been read for the next pass.
    fn cut_short(&mut self, buffer: &mut ReadBuffer) {
        let has_more = buffer.has_more();
        if let Some(visit) = &mut self.visit {
            visit.cut_short(has_more);
        }
        self.end_visit(if has_more { Progress::Head } else { Progress::Nothing }, buffer);
    }

    /// Takes the handler's response to the request in the buffer.
    pub(crate) fn answer(&mut self, response: Response, buffer: &mut ReadBuffer) {
        let exchange = buffer.exchange();
        buffer.finish_request();
        self.push_answer(response, exchange, buffer);
    }

    /// Adds a response to the batch. What it answers has left the buffer.
    pub(super) fn push_answer(&mut self, response: Response, exchange: Exchange, buffer: &mut ReadBuffer) {
        // The listeners first: a client that is told to go comes again at once, and must find them closed, not closing.
        self.follow_stop();
        if let Some(mut serving) = self.serving() {
            serving.answer(response, exchange, buffer);
        }
    }

    /// Ends a visit: writes, and lets the connection rest in whatever it is in the middle of, or go.
    pub(super) fn end_visit(&mut self, progress: Progress, buffer: &mut ReadBuffer) {
        if self.visit.is_some_and(|visit| visit.has_answered() || visit.has_read()) {
            // Handlers and large reads take their time: the next clock must not begin before, and a pass is short.
            self.books.now = sync::now();
        }
        let Some((visit, sent)) = self.serving().map(|serving| serving.end_visit(buffer)) else { return };
        self.visit = None;
        if visit.has_permit() {
            // The request that it was for could not be read after all.
            self.shared.give_permit_back(self.books.index);
        }
        let token = visit.token();
        if self.books.conclude(token, sent) {
            return;
        }
        let connection = &mut self.books.table[token];
        let is_new = connection.rest(progress, visit.has_answered(), self.books.now);
        let has_more = visit.has_more() || connection.is_readable();
        if visit.has_answered() && !self.books.is_draining && connection.needs_place() && self.find_place(token) {
            return;
        }
        if has_more {
            self.books.look_later(token);
        } else if self.books.is_late(token) || (visit.is_in_vain() && !self.books.has_yet_to_be_answered(token)) {
            return self.end_quiet(token, buffer);
        }
        self.books.run_clock(token, is_new, visit.has_read());
    }

    /// A connection has been quiet for long enough: closed, after 408 if part of a request has come.
    fn end_quiet(&mut self, token: Token, buffer: &mut ReadBuffer) {
        let phase = self.books.table[token].phase();
        if phase == Phase::Idle {
            return self.books.close(token);
        }
        // Nothing but this very answer is in flight, and a stop is not to wait for a peer that has gone quiet.
        let end = if self.books.is_draining && phase == Phase::Head { End::AtOnce } else { End::Lingering };
        self.begin_visit(token, Reason::Reported, buffer);
        if let Some(mut serving) = self.serving() {
            serving.reject(Reject::Timeout, end, buffer);
        }
        self.end_visit(Progress::Nothing, buffer);
    }

    /// Answers a connection that has asked nothing yet, and closes it.
    pub(super) fn turn_away(&mut self, token: Token, response: Response, buffer: &mut ReadBuffer) {
        self.begin_visit(token, Reason::Reported, buffer);
        if let Some(mut serving) = self.serving() {
            serving.turn_away(response, false, End::Lingering);
        }
        self.end_visit(Progress::Nothing, buffer);
    }
}
