//! A connection at work: the loop reads, parses and answers its requests.
//!
//! ```text
//!              ┌─ more to read, and time may be over ────────▶ ReadOn
//! run ─▶ parse ┼─ a request is whole, or will be streamed ───▶ Call
//!   ▲      │   ├─ its answer needs no handler ───────────────▶ Answer
//!   │      │   └─ nothing more to do ────────────────────────▶ End
//!   └ read ┘
//! ```
//!
//! [`Serving`] borrows all that this may touch: no other connection, no listener, no clock. What reaches beyond that is
//! returned as a [`Step`], and the loop decides.

use std::time::Instant;

use crate::http::{AfterAnswer, CONTINUE, Persistence, Progress, Reject, Response, Then, Version};
use crate::server::answered::Asked;
use crate::server::buffer::{Caller, Exchange, ReadBuffer};
use crate::server::call::Call;
use crate::server::connection::Connection;
use crate::server::counts::Counts;
use crate::server::notice::{Notice, Want};
use crate::server::outgoing::Outgoing;
use crate::server::phase::{End, Fill, Sent};
use crate::server::poller::Poller;
use crate::server::shared::Shared;
use crate::server::streaming::{Download, Upload};
use crate::server::table::Token;
use crate::sync::Arc;

/// A batch of at least this many bytes is written before another answer is added.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// An answer this short leaves at once and whole: any system sends more before the first acknowledgement.
const SHORT_BYTES: usize = 8 * 1024;
/// How many reads to find out whether a request is the last that has come.
const READS_MAX: u32 = 16;
/// How many answers between two looks at the clock, while handlers are quick. A look takes some 25 ns.
const ANSWERS_UNTIMED: u32 = 64;

/// One visit to a connection: why it began, and what has been done so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    token: Token,
    reason: Reason,
    /// When the first request that it answers had come, as far as is known.
    since: Instant,
    reads: u32,
    answers: u32,
    /// The watcher's number of looks when this visit last looked at the clock: a handler slow enough for the watcher to
    /// see is slow enough to be timed.
    watched: usize,
    /// The visit ends with more to answer.
    has_more: bool,
}

/// Why a visit begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Something has happened to the connection.
    Reported,
    /// The connection's time is over: it closes, unless something has come after all.
    LastLook,
    /// The connection's request waited for a handler's permit, and now has it.
    Permitted,
}

/// What the loop has to do next.
pub(super) enum Step {
    /// Call the handler: the request in the buffer is whole, or has begun and will be streamed.
    Call,
    /// Answer the request in the buffer with this, without its handler.
    Answer(Box<Response>),
    /// Read on if there is time, otherwise end the visit in this state: much has come, and there may be more.
    ReadOn(Progress),
    /// End the visit: nothing is left to do.
    End(Progress),
}

/// Why a request does not get to its handler.
enum Obstacle {
    Reject(Reject),
    /// The handler panicked when asked about the body; this is the answer.
    Answer(Box<Response>),
}

impl Visit {
    pub(super) fn new(token: Token, reason: Reason, since: Instant, watched: usize) -> Self {
        Self { token, reason, since, reads: 0, answers: 0, watched, has_more: false }
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// True if it has a permit that it has not used.
    pub(super) fn has_permit(&self) -> bool {
        self.reason == Reason::Permitted
    }

    pub(super) fn has_read(&self) -> bool {
        self.reads > 0
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answers > 0
    }

    /// When the first request that it answers had come.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What it answers had come earlier.
    pub(super) fn begin_at(&mut self, since: Instant) {
        self.since = since;
    }

    /// Counts what it has answered, at its end.
    pub(super) fn count_in(&self, counts: &Counts, now: Instant) {
        if self.answers > 0 {
            counts.took(self.answers, now.saturating_duration_since(self.since));
        }
    }

    /// True if the connection's time was over when the visit began, and nothing has come after all.
    pub(super) fn is_in_vain(&self) -> bool {
        self.reason == Reason::LastLook && self.reads == 0
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Uses up the permit. Returns false if there is none.
    pub(super) fn take_permit(&mut self) -> bool {
        let has_permit = self.has_permit();
        if has_permit {
            self.reason = Reason::Reported;
        }
        has_permit
    }

    /// True if the loop must look at the clock before it answers more. `looks`: how often the watcher has looked.
    pub(super) fn is_to_be_timed(&mut self, looks: usize) -> bool {
        let is_due = self.answers > 0 && (self.watched != looks || self.answers % ANSWERS_UNTIMED == 0);
        if is_due {
            self.watched = looks;
        }
        is_due
    }

    /// Time is over: leaves what else has been read for the next pass.
    pub(super) fn cut_short(&mut self, has_more: bool) {
        self.has_more = has_more;
    }

    /// Counts an answer in this visit.
    pub(super) fn count_answer(&mut self) {
        self.answers = self.answers.saturating_add(1);
    }
}

/// A connection at work, and all that serving it may touch.
pub(super) struct Serving<'a> {
    shared: &'a Arc<Shared>,
    visit: &'a mut Visit,
    connection: &'a mut Connection,
    out: &'a mut Outgoing,
    poller: &'a mut Poller,
    now: Instant,
    is_draining: bool,
}

impl<'a> Serving<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        visit: &'a mut Visit,
        connection: &'a mut Connection,
        out: &'a mut Outgoing,
        poller: &'a mut Poller,
        now: Instant,
        is_draining: bool,
    ) -> Self {
        Self { shared, visit, connection, out, poller, now, is_draining }
    }

    /// The caller whose request lies in the buffer.
    pub(super) fn caller(&self) -> Caller {
        Caller { token: self.visit.token, peer: self.connection.peer().clone() }
    }

    /// Reads and parses until there is something to do that reaches beyond this connection.
    pub(super) fn run(&mut self, buffer: &mut ReadBuffer) -> Step {
        loop {
            if self.connection.is_closing() || self.connection.is_blocked() {
                return Step::End(Progress::Nothing);
            }
            if self.out.len() >= BATCH_BYTES_MAX && self.flush() != Sent::All {
                return Step::End(Progress::Nothing);
            }
            // The buffer is empty before a read and after the last request: twice for each request that comes alone.
            let progress = if buffer.has_more() { self.progress(buffer) } else { Ok(Progress::Nothing) };
            let progress = match progress {
                Ok(Progress::Whole) => return Step::Call,
                Ok(progress) => progress,
                Err(Obstacle::Answer(response)) => return Step::Answer(response),
                Err(Obstacle::Reject(reject)) => {
                    self.reject(reject, End::Lingering, buffer);
                    return Step::End(Progress::Nothing);
                }
            };
            match progress {
                // Its handler gets the socket, so the answers before it must have left.
                Progress::Begun if self.flush() == Sent::All => return Step::Call,
                Progress::Begun => return Step::End(progress),
                Progress::Body if !buffer.reserve(&self.shared.bodies) => {
                    return without_body(self.shared.refuse_for(Want::Memory, self.now));
                }
                Progress::Body if buffer.incoming().take_awaits_continue() => {
                    self.out.push_interim(CONTINUE);
                    self.flush();
                }
                progress if self.visit.has_read() && self.connection.is_readable() => return Step::ReadOn(progress),
                progress if !self.fill(buffer) => return Step::End(progress),
                _ => {}
            }
        }
    }

    /// Parses what is in the buffer. `Begun`: a request whose handler reads the body itself.
    fn progress(&self, buffer: &mut ReadBuffer) -> Result<Progress, Obstacle> {
        loop {
            let limits = &self.shared.limits;
            let progress = buffer.progress(limits).map_err(Obstacle::Reject)?;
            if progress != Progress::Begun {
                return Ok(progress);
            }
            let plan = self.shared.body_plan(&buffer.request(self.connection.peer()));
            let plan = plan.map_err(|answer| Obstacle::Answer(Box::new(answer)))?;
            if !buffer.follow(plan, limits).map_err(Obstacle::Reject)? {
                return Ok(progress);
            }
        }
    }

    /// Reads once. Returns false if nothing came.
    pub(super) fn fill(&mut self, buffer: &mut ReadBuffer) -> bool {
        match self.connection.fill(buffer) {
            Fill::Bytes(count) => {
                self.out.counts().bytes_in.add(count as u64);
                if !self.visit.has_read() {
                    self.connection.note_pause(self.now);
                }
                self.visit.reads = self.visit.reads.saturating_add(1);
                self.poller.progressed();
                true
            }
            Fill::Nothing => false,
            Fill::Failed => {
                self.connection.end_with(End::AtOnce);
                false
            }
        }
    }

    /// Adds a response to the batch. Its request has left the buffer.
    pub(super) fn answer(&mut self, response: Response, exchange: Exchange, buffer: &mut ReadBuffer) {
        if response.then() == Then::CloseInOrder {
            self.connection.end_with(End::Leaving);
        }
        // After a stop, or once a handler has asked for a close, the last answer is the one after which no whole
        // request has come. An answer is also the last if the client sends no more requests, if its handler has
        // panicked, or if only the connection's end can end it.
        let has_no_end = response.length().is_none() && exchange.version == Version::Http10;
        let is_last = !exchange.keeps_alive
            || response.then() == Then::CloseNow
            || has_no_end
            || ((self.is_draining || self.connection.end() == End::Leaving) && !self.has_successor(buffer));
        let persistence = match (is_last, exchange.version) {
            (true, _) => Persistence::Close,
            (false, Version::Http10) => Persistence::KeepExplicitly,
            (false, Version::Http11) => Persistence::Keep,
        };
        if response.needs_writing(exchange.is_head) {
            self.out.push_head(&response, exchange, persistence, self.now);
        } else {
            self.out.push(response, exchange, persistence, self.now);
        }
        self.visit.count_answer();
        if is_last {
            self.connection.end_with(End::Lingering);
            if exchange.is_last_word && self.visit.answers == 1 && self.out.len() <= SHORT_BYTES {
                self.connection.note_last_word();
            }
        }
    }

    /// True if a whole request waits after the one being answered, here or in the socket; or if one may, and other
    /// connections must get their turn.
    fn has_successor(&mut self, buffer: &mut ReadBuffer) -> bool {
        // A request is limited, and only what has come already is read. But a client that keeps sending must not hold
        // the loop, least of all past its deadline: after these reads, the connection is looked at again.
        for _ in 0..READS_MAX {
            match self.progress(buffer) {
                Ok(Progress::Whole | Progress::Begun) | Err(Obstacle::Answer(_)) => return true,
                Ok(_) => {
                    // Until nothing is left: a short read may have been cut short.
                    self.connection.look_again();
                    if !self.fill(buffer) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Refuses the request in the buffer. The connection closes, since nobody knows where the next request begins.
    #[cold]
    pub(super) fn reject(&mut self, reject: Reject, end: End, buffer: &mut ReadBuffer) {
        self.shared.tell(&Notice::Rejected { peer: self.connection.peer(), reject });
        let response = Response::text(reject.reason()).with_status(reject.status());
        self.turn_away(response, Some(buffer), end);
    }

    /// Answers what is no whole request, of which a part may be in the buffer, and closes.
    #[cold]
    pub(super) fn turn_away(&mut self, mut response: Response, buffer: Option<&ReadBuffer>, end: End) {
        let is_head = buffer.is_some_and(|buffer| buffer.exchange().is_head);
        if self.shared.on_answer.is_some() {
            let asked = buffer.map(|buffer| Asked::in_part(buffer, self.connection, self.now));
            let asked = asked.unwrap_or_else(|| Asked::nothing(self.now));
            asked.tell_with(&mut response, is_head, self.connection.peer(), self.shared);
        }
        self.visit.count_answer();
        self.connection.end_with(end);
        self.out.push_refusal(response, is_head, self.now);
    }

    /// Writes the batch.
    pub(super) fn flush(&mut self) -> Sent {
        let (sent, answers) = self.connection.send(self.out, self.now);
        match sent {
            Sent::All => {}
            Sent::Blocked if self.connection.must_await_room() => {
                // This has never been seen to fail; the clock of a blocked connection tries to write too.
                let _ = self.poller.await_room(self.connection.stream(), self.visit.token.raw());
            }
            Sent::Blocked => {}
            Sent::Failed => self.connection.end_with(End::AtOnce),
        }
        if self.is_draining && answers > 0 {
            self.shared.totals.add_drained(answers);
        }
        sent
    }

    /// Ends the visit: writes the batch, and lets the connection keep what is left in the buffer.
    pub(super) fn end_visit(mut self, buffer: &mut ReadBuffer) -> (Visit, Sent) {
        let sent = self.flush();
        self.connection.keep(buffer);
        (*self.visit, sent)
    }

    /// Ends the visit: a handler works on the answer. Writes the answers before it.
    pub(super) fn go_away(mut self, call: Call) -> (Token, Sent) {
        self.visit.count_in(self.out.counts(), self.now);
        self.connection.go_away(Call { asked: self.visit.since, ..call });
        (self.visit.token, self.flush())
    }

    /// Ends the visit: the handler reads the request's body.
    #[inline(never)]
    pub(super) fn begin_upload(self, buffer: &mut ReadBuffer) -> Upload {
        let mut call = Call::new(
            &buffer.request(self.connection.peer()),
            self.shared.on_answer.is_some(),
            self.visit.since,
            self.now,
        );
        self.visit.count_in(self.out.counts(), self.now);
        let begun = buffer.take_begun(&self.shared.limits);
        let upload = Upload::new(begun, self.caller(), Arc::clone(self.connection.stream()), self.shared);
        call.body = Some(upload.body());
        self.connection.go_away(call);
        upload
    }

    /// Ends the visit: the handler's thread writes the batch, which ends with the answer's head, and then the body.
    pub(super) fn begin_download(self, mut call: Call, after: AfterAnswer, buffer: &mut ReadBuffer) -> Download {
        // The request is being answered: what becomes of its body does not matter any more.
        call.body = None;
        self.connection.keep(buffer);
        let unsent = self.connection.go_downloading(call, self.out, self.now);
        let (stream, patience) = (Arc::clone(self.connection.stream()), self.shared.config.write_timeout);
        Download::new(stream, Arc::clone(&self.shared.totals), patience, unsent, self.visit.token, after)
    }
}

/// An answer before the request's body has come. Nobody knows whether the body follows or the next request does, so the
/// connection closes.
fn without_body(response: Response) -> Step {
    Step::Answer(Box::new(response.last()))
}
