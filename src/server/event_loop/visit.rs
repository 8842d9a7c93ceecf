//! A visit: the loop loads a connection into the buffer, serves it, and lets it rest or go.
//!
//! ```text
//! begin ──▶ go_on: read, parse ──▶ a whole request: Turn::Call ──answer──┐
//!             ▲      │                                                   │
//!             └──────┼───────────────────────────────────────────────────┘
//!                    └── nothing more to do ──▶ end_visit: one write for all answers, then rest, linger or drop
//! ```
//!
//! The connection stays in the loop's books; what has been read lies in the buffer, what will be sent in the loop's
//! outgoing batch. `serving` works out what a visit comes to, and this file acts on it.

use super::serving::{Reason, Serving, Step, Visit};
use super::{Books, EventLoop, Turn};
use crate::http::{Progress, Reject, Response};
use crate::server::answered::Asked;
use crate::server::buffer::{Exchange, ReadBuffer};
use crate::server::phase::{End, Phase};
use crate::server::table::Token;
use crate::sync::{self, Ordering};

impl EventLoop {
    /// Begins work on a connection that was reported, queued, or whose clock has run out.
    pub(super) fn begin(&mut self, token: Token, reason: Reason, buffer: &mut ReadBuffer) {
        match self.books.table[token].phase() {
            Phase::Lingering => self.books.discard(token, buffer),
            Phase::Away => self.books.write_while_away(token),
            // No handler is called for a client that has gone. If there is something to read, the connection has noted
            // it.
            Phase::Waiting if self.books.table[token].has_reset() => self.books.close(token),
            Phase::Waiting => {}
            Phase::Writing if !self.books.write_on(token) => {}
            Phase::Writing | Phase::Idle | Phase::Head | Phase::Body => self.begin_visit(token, reason, buffer),
        }
    }

    /// Loads a connection into the buffer, to serve it.
    pub(super) fn begin_visit(&mut self, token: Token, reason: Reason, buffer: &mut ReadBuffer) {
        let connection = &mut self.books.table[token];
        connection.load_into(buffer);
        let since = if connection.phase() == Phase::Waiting { connection.since() } else { self.books.now };
        self.visit = Some(Visit::new(token, reason, since, self.shared.looks.load(Ordering::Relaxed)));
    }

    /// The connection that is being served. Its visit ends before the connection closes.
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

    /// False once other connections must get their turn.
    fn has_time(&mut self) -> bool {
        self.books.now = sync::now();
        self.pass.is_in_time(self.books.now)
    }

    /// Ends the visit and leaves what else has been read for the next pass.
    fn cut_short(&mut self, buffer: &mut ReadBuffer) {
        let has_more = buffer.has_more();
        if let Some(visit) = &mut self.visit {
            visit.cut_short(has_more);
        }
        self.end_visit(if has_more { Progress::Head } else { Progress::Nothing }, buffer);
    }

    /// Takes the handler's response to the request in the buffer.
    pub(crate) fn answer(&mut self, response: Response, buffer: &mut ReadBuffer) {
        if self.shared.on_answer.is_some() {
            return self.answer_and_tell(response, buffer);
        }
        let exchange = buffer.exchange();
        buffer.finish_request();
        self.push_answer(response, exchange, buffer);
    }

    /// The same, if the end of the answer is to be told. Apart, so that it costs the others nothing.
    #[cold]
    fn answer_and_tell(&mut self, mut response: Response, buffer: &mut ReadBuffer) {
        let exchange = buffer.exchange();
        if let Some(visit) = &self.visit {
            let peer = self.books.table[visit.token()].peer();
            let asked = Asked::by(&buffer.request(peer), visit.since(), self.books.now);
            asked.tell_with(&mut response, exchange.is_head, peer, &self.shared);
        }
        buffer.finish_request();
        self.push_answer(response, exchange, buffer);
    }

    /// Adds a response to the batch. Its request has left the buffer.
    pub(super) fn push_answer(&mut self, response: Response, exchange: Exchange, buffer: &mut ReadBuffer) {
        // Close the listeners first: a client that reads `Connection: close` comes back at once, and must find them
        // closed, not closing.
        self.follow_stop();
        if let Some(mut serving) = self.serving() {
            serving.answer(response, exchange, buffer);
        }
    }

    /// Ends a visit: writes the answers, then lets the connection rest in its phase, linger, or close.
    pub(super) fn end_visit(&mut self, progress: Progress, buffer: &mut ReadBuffer) {
        if let Some(visit) = self.visit.as_ref().filter(|visit| visit.has_answered() || visit.has_read()) {
            // Handlers and large reads take time: the next clock must not begin before now, and the pass must notice.
            self.books.now = sync::now();
            visit.count_in(&self.books.counts, self.books.now);
        }
        let Some((visit, sent)) = self.serving().map(|serving| serving.end_visit(buffer)) else { return };
        self.visit = None;
        if visit.has_permit() {
            // Its request could not be read after all.
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

    /// A connection has been quiet for long enough: closes it, after 408 if part of a request has come.
    fn end_quiet(&mut self, token: Token, buffer: &mut ReadBuffer) {
        let phase = self.books.table[token].phase();
        if phase == Phase::Idle {
            return self.books.close(token);
        }
        // If only this answer is in flight, a stop does not wait for a peer that has gone quiet.
        let is_first = !self.books.table[token].has_answered();
        let is_at_once = self.books.is_draining && phase == Phase::Head && is_first;
        let end = if is_at_once { End::AtOnce } else { End::Lingering };
        self.begin_visit(token, Reason::Reported, buffer);
        if let Some(mut serving) = self.serving() {
            serving.reject(Reject::Timeout, end, buffer);
        }
        self.end_visit(Progress::Nothing, buffer);
    }

    /// Answers a connection that has asked nothing yet, and closes it after lingering.
    pub(super) fn turn_away(&mut self, token: Token, response: Response, buffer: &mut ReadBuffer) {
        self.begin_visit(token, Reason::Reported, buffer);
        if let Some(mut serving) = self.serving() {
            serving.turn_away(response, None, End::Lingering);
        }
        self.end_visit(Progress::Nothing, buffer);
    }
}
