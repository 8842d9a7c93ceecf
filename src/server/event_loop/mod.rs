//! The event loop: wait, accept, read, answer, write, time out, drain.
//!
//! A loop is one value and the sole owner of its connections. The thread that holds it runs it:
//!
//! ```text
//!        ┌─▶ reported ─▶ queued ─▶ messages ─▶ waiting ─▶ clocks ─▶ stop? ─▶ wait ─┐
//!        │                                                                        │       a whole request
//! turn ──┴────────────────────────────────────────────────────────────────────────┴──▶ Turn::Call, then `answer`
//!                                                                                 └──▶ Turn::Over
//! ```
//!
//! No pass through these stages takes long, whatever clients send and however many wait. A stage begins new work only
//! within its time slice. When that is over, the loop ends its visit to a connection even if more is left to read or to
//! answer. What is left waits in the queue of its stage, each connection once. The loop comes back to it after it has
//! checked its poller, its inbox, its clocks and the deadline. `drain` has what a stop changes, `deadline` what the
//! deadline changes.
//!
//! A loop does not call handlers. A turn ends with [`Turn::Call`] when a request needs its handler. The request lies in
//! the caller's buffer, and the handler does not need the loop. Only there can the thread let go of the loop: see
//! `handoff`.
//!
//! # Who may name whom
//!
//! ```text
//! this file   one pass: waits, and begins the next piece of work
//!   ├─▶ accept ◀─▶ placement    new connections; which loop serves them
//!   ├─▶ visit ◀─▶ calls         one visit to a connection; which handlers may be called
//!   ├─▶ away                    connections whose handlers work without the loop
//!   └─▶ drain, deadline         what a stop changes, and what the deadline changes
//!
//! values that know no loop, and not each other:
//!   serving    the connection at hand, and all that serving it may touch
//!   books      all connections, with their clocks and reports (`closing`: how one ends)
//!   intake     the listeners, and how fast the loop accepts from each
//!   pass       the stages of a pass, and their time
//! ```
//!
//! What has to reach beyond one of these values is returned: as a [`Step`](serving::Step) or a `bool`. The files above
//! the values are methods of the loop and may use `visit`, by three methods: `begin_visit`, `answer` and `end_visit`.
//! Fields are private to this file; its child modules see them.
//!
//! The modules around the folder (`connection`, `buffer`, `outgoing`, `table`, `timeouts`) know nothing of it. From
//! outside, only `handoff` runs a loop and gives it messages.

mod accept;
mod away;
mod books;
mod calls;
mod closing;
mod deadline;
mod drain;
mod intake;
mod pass;
mod placement;
mod serving;
mod visit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::group::CutOff;
use crate::server::buffer::{Caller, ReadBuffer};
use crate::server::call::Calls;
use crate::server::connection::Connection;
use crate::server::counts::Counts;
use crate::server::inbox::Message;
use crate::server::outgoing::Outgoing;
use crate::server::phase::Clock;
use crate::server::poller::Poller;
use crate::server::shared::Shared;
use crate::server::streaming::Upload;
use crate::server::table::{Table, Token};
use crate::server::timeouts::Timeouts;
use crate::sync::{self, Arc};
use intake::Intake;
use pass::{Pass, Stage};
use serving::{Reason, Visit};

/// Why a turn ended.
// With a separate tag, a caller is moved as a whole: some 40 instructions fewer per request.
#[derive(Debug)]
#[repr(u8)]
pub(crate) enum Turn {
    /// The request in the buffer is whole: call the handler and give its response to [`EventLoop::answer`].
    Call(Caller),
    /// The handler reads this request's body itself. Its answer goes to [`EventLoop::take_message`].
    Stream(Box<Upload>),
    /// The loop has drained and holds nothing.
    Over,
}

pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    books: Books,
    intake: Intake,
    out: Outgoing,
    /// The visit to the connection that is being served, if there is one.
    visit: Option<Visit>,
    calls: Calls,
    messages: VecDeque<Message>,
    pass: Pass,
    /// The pass had no time for all messages, or for all requests that wait for a permit.
    is_behind: bool,
    cut_off: CutOff,
}

/// The connections of a loop, and all that it keeps about each: see [`books`].
struct Books {
    shared: Arc<Shared>,
    /// This loop's index in [`Shared::loops`].
    index: usize,
    counts: Arc<Counts>,
    table: Table<Connection>,
    timeouts: Timeouts,
    poller: Poller,
    /// Connections to look at even if the poller does not report them, each once; and how many of them this pass takes.
    queue: VecDeque<Token>,
    queued_now: usize,
    /// The time at the last wait or answer.
    now: Instant,
    is_draining: bool,
}

impl EventLoop {
    /// A loop that watches all listeners.
    ///
    /// # Errors
    ///
    /// The poller cannot watch one of them.
    pub(crate) fn new(shared: Arc<Shared>, index: usize, poller: Poller) -> Result<Self, String> {
        let mut books = Books::new(Arc::clone(&shared), index, poller);
        let (now, write_timeout) = (books.now, shared.config.write_timeout);
        let out = Outgoing::new(Arc::clone(&books.counts), write_timeout, now);
        let (intake, calls) = (Intake::new(Arc::clone(&shared)), Calls::new(shared.on_answer.is_some()));
        intake.watch_all(&mut books.poller)?;
        Ok(Self {
            shared,
            books,
            intake,
            out,
            visit: None,
            calls,
            messages: VecDeque::new(),
            pass: Pass::new(now),
            is_behind: false,
            cut_off: CutOff::default(),
        })
    }

    /// Runs the loop until it needs a handler or is over.
    ///
    /// # Errors
    ///
    /// The poller cannot wait.
    pub(crate) fn turn(&mut self, buffer: &mut ReadBuffer) -> std::io::Result<Turn> {
        loop {
            if self.visit.is_some() {
                if let Some(turn) = self.go_on(buffer) {
                    return Ok(turn);
                }
            } else if !self.begin_next(buffer) {
                self.watch_stop(buffer);
                if self.is_over() {
                    return Ok(Turn::Over);
                }
                self.wait()?;
            }
        }
    }

    /// Begins the next piece of work of this pass. Returns false if the pass is over.
    fn begin_next(&mut self, buffer: &mut ReadBuffer) -> bool {
        loop {
            let (stage, in_time) = (self.pass.stage(), self.pass.is_in_time(self.books.now));
            let (has_begun, next) = match stage {
                Stage::Reported => (in_time && self.begin_reported(buffer), Stage::Queued),
                Stage::Queued => (in_time && self.begin_queued(buffer), Stage::Messages),
                Stage::Messages => (in_time && self.begin_message(buffer), Stage::Waiting),
                Stage::Waiting => (in_time && self.begin_waiting(buffer), Stage::Clocks),
                Stage::Clocks => (in_time && self.begin_expired(buffer), Stage::Over),
                Stage::Over => return false,
            };
            if has_begun {
                return true;
            }
            match stage {
                Stage::Reported if !in_time => self.books.note_reported(),
                // Nothing wakes the loop for these again: it may have read the wake-up for its inbox already, and a
                // permit may have become free already.
                Stage::Messages | Stage::Waiting if !in_time => self.is_behind = true,
                _ => {}
            }
            self.pass.enter(next, self.books.now);
        }
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let resumes_at = self.intake.resumes_at();
        let due = [self.books.timeouts.next(), resumes_at, self.deadline()].into_iter().flatten().min();
        let has_more = std::mem::take(&mut self.is_behind) || !self.books.queue.is_empty();
        let timeout = match due {
            _ if has_more => Some(Duration::ZERO),
            due => due.map(|due| due.saturating_duration_since(self.books.now)),
        };
        self.books.publish_idle();
        self.books.poller.wait(timeout)?;
        self.books.now = sync::now();
        self.pass.enter(Stage::Reported, self.books.now);
        self.books.queued_now = self.books.queue.len();
        if resumes_at.is_some_and(|at| at <= self.books.now) {
            self.resume_listeners();
        }
        Ok(())
    }

    fn begin_reported(&mut self, buffer: &mut ReadBuffer) -> bool {
        let Some(event) = self.books.poller.next() else { return false };
        if let Some(number) = intake::number(event.token) {
            self.accept_from(number, buffer);
        } else if let Some(token) = self.books.note(event) {
            self.begin(token, Reason::Reported, buffer);
        }
        true
    }

    fn begin_queued(&mut self, buffer: &mut ReadBuffer) -> bool {
        let Some(token) = self.books.next_queued() else { return false };
        self.begin(token, Reason::Reported, buffer);
        true
    }

    fn begin_message(&mut self, buffer: &mut ReadBuffer) -> bool {
        if self.messages.is_empty() {
            let taken = self.books.handle().inbox.take();
            // There are none in nearly every pass, and to extend by none takes a hundred instructions.
            if !taken.is_empty() {
                self.messages.extend(taken);
            }
        }
        let Some(message) = self.messages.pop_front() else { return false };
        self.take_message(message, buffer);
        self.books.now = sync::now();
        true
    }

    /// Takes what a handler's thread or another loop has sent.
    pub(crate) fn take_message(&mut self, message: Message, buffer: &mut ReadBuffer) {
        match message {
            Message::Arrival(arrival) => self.take_arrival(arrival, buffer),
            Message::Transfer(transfer) => self.take_transfer(transfer),
            Message::Answer(answer) => self.take_answer(answer, buffer),
            Message::Streamed(streamed) => self.take_streamed(streamed, buffer),
            // The thread that asked holds the other end, unless it has died.
            Message::Asked(answer, reply) => {
                if let Some(download) = self.start_download(*answer, buffer) {
                    reply.send(download);
                }
            }
            Message::Ask(ask) => ask(&self.books.table),
        }
    }

    fn begin_expired(&mut self, buffer: &mut ReadBuffer) -> bool {
        let Some((token, clock)) = self.books.next_expired() else { return false };
        match clock {
            // Read once more before closing or refusing: bytes may have come at the last moment, or while this process
            // was suspended.
            Clock::Idle | Clock::Quiet | Clock::Head | Clock::Body => {
                self.books.table[token].look_again();
                self.begin(token, Reason::LastLook, buffer);
            }
            Clock::Queue => self.end_queued(token, buffer),
            // Linux reports room only once a third of the send buffer is free: try a write before judging the peer.
            Clock::Write => {
                self.begin(token, Reason::Reported, buffer);
                self.books.judge_reader(token);
            }
            Clock::Linger => self.books.look_at_leaver(token, buffer),
        }
        self.books.now = sync::now();
        true
    }

    /// Begins to drain if the stop has been triggered.
    #[inline]
    fn follow_stop(&mut self) {
        if !self.books.is_draining && self.shared.stop.is_set() {
            self.begin_drain();
        }
    }

    /// The same, and cuts off once the deadline has passed.
    fn watch_stop(&mut self, buffer: &mut ReadBuffer) {
        self.follow_stop();
        if self.deadline().is_some_and(|deadline| deadline <= sync::now()) {
            self.cut_off(buffer);
        }
    }

    /// When the loop cuts off what it still holds. `None` before the stop, or if nothing is left to cut off.
    fn deadline(&self) -> Option<Instant> {
        let is_needed = self.books.is_draining && (self.books.table.len() > 0 || self.intake.has_open());
        if is_needed { self.shared.stop.deadline() } else { None }
    }

    /// True once the loop has drained, holds nothing, and nobody can send it anything.
    fn is_over(&self) -> bool {
        let is_empty = self.books.table.len() == 0 && self.messages.is_empty();
        self.books.is_draining && is_empty && !self.intake.has_open() && self.books.handle().inbox.close_if_empty()
    }

    /// What the deadline cut off. For a loop that is over.
    pub(crate) fn take_cut_off(&mut self) -> CutOff {
        std::mem::take(&mut self.cut_off)
    }
}
