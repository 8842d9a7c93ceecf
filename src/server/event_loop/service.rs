//! A service: what happens between a connection's report and its being put down again.
//!
//! ```text
//! begin ──▶ serve: read, parse ──▶ a whole request: Call ──answer──┐
//!             ▲      │                                             │
//!             └──────┼─────────────────────────────────────────────┘
//!                    └── nothing more to do ──▶ put_down: one write for all answers, then rest, linger or drop
//! ```
//!
//! The connection stays in the loop's table; what has been read lies on the desk, what is to be sent in the loop's
//! outgoing batch.

use super::EventLoop;
use crate::http::{CONTINUE, Persistence, Progress, Reject, Response, Version};
use crate::server::desk::{Desk, Exchange};
use crate::server::notice::{Notice, Want};
use crate::server::phase::{Close, Fill, Phase, Sent};
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync::{self, Ordering};

/// Answers are written before another one is added to so many bytes.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// An answer that leaves at once and whole: less than any system sends before the first acknowledgement.
const SHORT_BYTES: usize = 8 * 1024;
/// Reads to find out if a request is the last that has come.
const READS_MAX: u32 = 16;
/// Answers between two looks at the clock, as long as handlers are quick. A look takes some 25 ns.
const ANSWERS_UNTIMED: u32 = 64;

/// A connection being served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) token: Token,
    pub(super) reads: u32,
    pub(super) answers: u32,
    look: Look,
    /// How often the watcher had looked when the clock was last looked at: a handler that is slow enough to be seen is
    /// slow enough to be timed.
    watched: usize,
    /// It was put down with more to be answered.
    has_more: bool,
}

impl Service {
    /// True the first time, if a handler may be called for it.
    pub(super) fn take_permit(&mut self) -> bool {
        let has_permit = self.look == Look::Permitted;
        if has_permit {
            self.look = Look::Reported;
        }
        has_permit
    }
}

/// Why a connection is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Something has happened to it.
    Reported,
    /// Its time is over: unless something has come after all, it is closed.
    Last,
    /// Its request had to wait for a handler's permit, and now has it.
    Permitted,
}

/// What stands between a request and its handler.
enum Obstacle {
    Reject(Reject),
    /// The handler has panicked when it was asked about the body, and this is the answer.
    Answer(Box<Response>),
}

/// What a step of a service came to.
pub(super) enum Step {
    Call,
    PutDown(Progress),
}

impl EventLoop {
    /// Takes up a connection that something has happened to.
    pub(super) fn begin(&mut self, token: Token, look: Look, desk: &mut Desk) {
        let (patience, now) = (self.shared.config.write_timeout, self.now);
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        match connection.phase() {
            Phase::Lingering => return self.discard(token, desk),
            Phase::Writing => {
                let (sent, answers) = connection.send_on(patience, now);
                self.count_answers(answers);
                match sent {
                    Sent::Blocked => return,
                    Sent::Failed => return self.drop_connection(token),
                    Sent::All => self.poller.progressed(),
                }
            }
            // It has been noted that there is something to read. Nobody is called for a client that has gone.
            Phase::Waiting => {
                if connection.has_reset() {
                    self.drop_connection(token);
                }
                return;
            }
            Phase::Away => return self.write_while_away(token),
            Phase::Idle | Phase::Head | Phase::Body => {}
        }
        if let Some(connection) = self.table.get_mut(token) {
            connection.lay_on(desk);
            self.start_service(token, look);
        }
    }

    pub(super) fn start_service(&mut self, token: Token, look: Look) {
        let watched = self.shared.looks.load(Ordering::Relaxed);
        self.service = Some(Service { token, reads: 0, answers: 0, look, watched, has_more: false });
    }

    /// Reads and parses until a request is whole or there is nothing more to do.
    pub(super) fn serve(&mut self, desk: &mut Desk) -> Step {
        loop {
            let Some(connection) = self.service.and_then(|service| self.table.get_mut(service.token)) else {
                return Step::PutDown(Progress::Nothing);
            };
            if connection.close().is_some() || connection.is_blocked() {
                return Step::PutDown(Progress::Nothing);
            }
            if !self.may_answer_on() {
                return self.cut_short(desk);
            }
            if self.out.len() >= BATCH_BYTES_MAX && self.flush() != Sent::All {
                return Step::PutDown(Progress::Nothing);
            }
            // Nothing is there before a read and behind the last request: twice for each that comes alone.
            let progress = if desk.has_more() { self.progress(desk) } else { Ok(Progress::Nothing) };
            let progress = match progress {
                Ok(Progress::Whole) => return Step::Call,
                Ok(Progress::Begun) => {
                    if desk.awaits_continue() && self.refuse(desk) {
                        continue;
                    }
                    // Its handler gets the socket, so nothing before it must be left to be sent.
                    return if self.flush() == Sent::All { Step::Call } else { Step::PutDown(Progress::Begun) };
                }
                Ok(progress) => progress,
                Err(Obstacle::Reject(reject)) => {
                    self.reject(reject, Close::Lingering, desk);
                    return Step::PutDown(Progress::Nothing);
                }
                Err(Obstacle::Answer(response)) => {
                    self.answer_without_body(*response, desk);
                    continue;
                }
            };
            if progress == Progress::Body && !desk.reserve(&self.shared.bodies) {
                let response = self.shared.refuse_for(Want::Memory, self.now);
                self.answer_without_body(response, desk);
                continue;
            }
            if progress == Progress::Body && desk.incoming().take_awaits_continue() {
                if !self.refuse(desk) {
                    self.out.push_interim(CONTINUE);
                    self.flush();
                }
                continue;
            }
            if !self.read(desk) {
                return Step::PutDown(progress);
            }
        }
    }

    /// Understands what is on the desk. `Begun`: a request whose handler reads the body itself.
    #[inline]
    fn progress(&self, desk: &mut Desk) -> Result<Progress, Obstacle> {
        loop {
            let progress = desk.progress(&self.shared.limits).map_err(Obstacle::Reject)?;
            if progress != Progress::Begun
                || self.shared.streams(&desk.request()).map_err(|response| Obstacle::Answer(Box::new(response)))?
            {
                return Ok(progress);
            }
            desk.incoming().hold_body(&self.shared.limits).map_err(Obstacle::Reject)?;
        }
    }

    /// Leaves what else has been read for the next pass.
    fn cut_short(&mut self, desk: &Desk) -> Step {
        let has_more = desk.has_more();
        if let Some(service) = &mut self.service {
            service.has_more = has_more;
        }
        Step::PutDown(if has_more { Progress::Head } else { Progress::Nothing })
    }

    /// False once it is time for others, with answers given and more to be given.
    fn may_answer_on(&mut self) -> bool {
        let looks = self.shared.looks.load(Ordering::Relaxed);
        let Some(service) = &mut self.service else { return false };
        if service.answers == 0 || (service.watched == looks && service.answers % ANSWERS_UNTIMED != 0) {
            return true;
        }
        service.watched = looks;
        self.now = sync::now();
        self.is_in_time()
    }

    /// False once it is time for others, and there may be more to read.
    fn may_read_on(&mut self) -> bool {
        let Some(service) = self.service else { return false };
        let is_readable = self.table.get_mut(service.token).is_some_and(|connection| connection.is_readable());
        if service.reads == 0 || !is_readable {
            return true;
        }
        self.now = sync::now();
        self.is_in_time()
    }

    /// Reads once, unless it is time for others. Returns false if nothing came.
    fn read(&mut self, desk: &mut Desk) -> bool {
        self.may_read_on() && self.fill(desk)
    }

    fn fill(&mut self, desk: &mut Desk) -> bool {
        let Some(service) = &mut self.service else { return false };
        let Some(connection) = self.table.get_mut(service.token) else { return false };
        match connection.fill(desk) {
            Fill::Bytes => {
                if service.reads == 0 {
                    connection.note_pause(self.now);
                }
                service.reads = service.reads.saturating_add(1);
                self.poller.progressed();
                true
            }
            Fill::Nothing => false,
            Fill::Failed => {
                connection.close_with(Close::AtOnce);
                false
            }
        }
    }

    /// RFC 9110 §10.1.1: the client is asked for the body only if somebody will read it. True if it was answered
    /// without.
    fn refuse(&mut self, desk: &mut Desk) -> bool {
        let Some(response) = self.shared.refuse(&desk.request()) else { return false };
        self.answer_without_body(response, desk);
        true
    }

    /// Answers the request on the desk before its body has come. Whether that will follow is not known, so that the
    /// next request could not be told from it: the connection closes.
    pub(super) fn answer_without_body(&mut self, response: Response, desk: &mut Desk) {
        let exchange = Exchange { keeps_alive: false, ..desk.exchange() };
        desk.finish_request();
        self.push_answer(response, exchange, desk);
        self.flush();
    }

    /// Takes the handler's response to the request on the desk.
    pub(crate) fn answer(&mut self, response: Response, desk: &mut Desk) {
        let exchange = desk.exchange();
        desk.finish_request();
        self.push_answer(response, exchange, desk);
    }

    /// Adds a response to the batch. What it answers has left the desk.
    pub(super) fn push_answer(&mut self, response: Response, exchange: Exchange, desk: &mut Desk) {
        // The listeners first: a client that is told to go comes again at once, and must find them closed, not closing.
        self.follow_stop();
        let connection = self.service.and_then(|service| self.table.get_mut(service.token));
        let is_leaving = connection.is_some_and(|connection| {
            if response.is_closing() {
                connection.leave();
            }
            connection.is_leaving()
        });
        // The last answer is the one behind which no further whole request has come, unless the client has said that
        // it sends none, its handler has panicked, or nothing but the connection's end can end it.
        let has_no_end = response.is_streamed() && exchange.version == Version::Http10;
        let is_last = !exchange.keeps_alive
            || response.is_last()
            || has_no_end
            || ((self.is_draining || is_leaving) && !self.has_successor(desk));
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
        let Some(service) = &mut self.service else { return };
        service.answers = service.answers.saturating_add(1);
        if let (true, Some(connection)) = (is_last, self.table.get_mut(service.token)) {
            connection.close_with(Close::Lingering);
            if exchange.is_last_word && service.answers == 1 && self.out.len() <= SHORT_BYTES {
                connection.note_last_word();
            }
        }
    }

    /// True if a whole request waits behind the one that is being answered, here or still in the socket; or if one may,
    /// and it is time for others.
    fn has_successor(&mut self, desk: &mut Desk) -> bool {
        if let Some(connection) = self.service.and_then(|service| self.table.get_mut(service.token)) {
            connection.look_again();
        }
        // However many reads the next one takes: a request is limited, and only what has come already is read. But a
        // client that goes on asking must not keep the loop, from its deadline least of all. It is looked at again.
        for _ in 0..READS_MAX {
            match self.progress(desk) {
                Ok(Progress::Whole | Progress::Begun) | Err(Obstacle::Answer(_)) => return true,
                Ok(_) if self.fill(desk) => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Refuses the request on the desk. The connection closes: where the next request begins is not known.
    pub(super) fn reject(&mut self, reject: Reject, close: Close, desk: &mut Desk) {
        let Some(service) = &mut self.service else {
            return;
        };
        service.answers = service.answers.saturating_add(1);
        let Some(connection) = self.table.get_mut(service.token) else {
            return;
        };
        connection.close_with(close);
        self.shared.tell(&Notice::Rejected { peer: connection.peer(), reject });
        let response = Response::text(reject.reason()).with_status(reject.status());
        self.out.push_refusal(response, desk.incoming().is_head_request(), self.now);
    }

    /// Writes the answers that have been gathered.
    pub(super) fn flush(&mut self) -> Sent {
        let (patience, now) = (self.shared.config.write_timeout, self.now);
        let at_hand = self.service.and_then(|service| self.table.get_mut(service.token).zip(Some(service)));
        let Some((connection, service)) = at_hand else {
            self.out.clear();
            return Sent::Failed;
        };
        let (sent, answers) = connection.send(&mut self.out, patience, now);
        match sent {
            Sent::All => {}
            Sent::Blocked if connection.must_await_room() => {
                let (stream, token) = (connection.stream(), service.token.raw());
                // Never seen to fail; the clock of a blocked connection looks for room too.
                let _ = self.poller.await_room(stream, token);
            }
            Sent::Blocked => {}
            Sent::Failed => connection.close_with(Close::AtOnce),
        }
        self.count_answers(answers);
        sent
    }

    /// Ends a service: writes, and lets the connection rest in whatever it is in the middle of, or go.
    pub(super) fn put_down(&mut self, progress: Progress, desk: &mut Desk) {
        if self.service.is_some_and(|service| service.answers > 0 || service.reads > 0) {
            // Handlers and large reads take their time: the next clock must not begin before, and a pass is short.
            self.now = sync::now();
        }
        let sent = self.flush();
        let Some(service) = self.service.take() else { return };
        let Service { token, reads, answers, look, has_more, .. } = service;
        if look == Look::Permitted {
            // The request that it was for could not be read after all.
            self.give_permit_back();
        }
        let Some(connection) = self.table.get_mut(token) else { return };
        connection.keep(desk);
        if self.conclude(token, sent) {
            return;
        }
        let (now, is_draining) = (self.now, self.is_draining);
        let Some(connection) = self.table.get_mut(token) else { return };
        let is_new = connection.rest(progress, answers > 0, now);
        if answers > 0 && self.find_place(token) {
            return;
        }
        let Some(connection) = self.table.get_mut(token) else { return };
        let has_more = has_more || connection.is_readable();
        let (phase, clock) = (connection.phase(), connection.clock(is_draining));
        if has_more {
            self.look_later(token);
        } else if self.is_late(token) || (look == Look::Last && reads == 0 && !self.has_yet_to_be_answered(token)) {
            return self.end_quiet(token, phase, desk);
        }
        if is_new || (clock == Clock::Quiet && reads > 0) || self.timeouts.running(token.index()) != Some(clock) {
            let since = if clock == Clock::Quiet { self.quiet_since(token) } else { now };
            self.timeouts.start(token.index(), clock, since);
        }
    }
}
