//! The event loop: wait, accept, read, answer, write, time out, drain.
//!
//! A loop is one value and the sole owner of its connections. Whoever holds it turns it:
//!
//! ```text
//!        ┌─▶ reported ─▶ queued ─▶ parcels ─▶ waiting ─▶ clocks ─▶ stop? ─▶ wait ─┐
//!        │                                                                        │       a whole request
//! turn ──┴────────────────────────────────────────────────────────────────────────┴──▶ Turn::Call, then `answer`
//!                                                                                 └──▶ Turn::Over
//! ```
//!
//! No pass through these stages is long, whatever clients send and however many wait. A stage begins something new only
//! within its [`SLICE`] of time, and a connection with more to be read or answered is put down when that is over. What
//! is left waits in the queue of its stage, each connection once, and the loop comes back to it after a look at its
//! poller, its inbox, its clocks and the deadline.
//!
//! It does not call handlers. A turn ends with [`Turn::Call`] when a request is to be answered; the request lies on
//! the caller's desk and the loop is not needed meanwhile. That is the one place at which it can be let go of; how, is
//! the matter of `handoff`.
//!
//! What is done with a connection that was reported is in `service`; accepting is in `accept`, calling handlers in
//! `calls`, the way out in `drain`, and what a connection is, in `connection`.

mod accept;
mod away;
mod calls;
mod closing;
mod drain;
mod service;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::group::CutOff;
use crate::server::connection::Connection;
use crate::server::desk::Desk;
use crate::server::inbox::Parcel;
use crate::server::outgoing::Outgoing;
use crate::server::phase::Phase;
use crate::server::poller::{Event, Poller};
use crate::server::shared::Shared;
use crate::server::table::{Table, Token};
use crate::server::timeouts::{Clock, Timeouts};
use crate::sync::{self, Arc, Ordering};
use accept::{GATE_BIT, Intake};
use calls::Calls;
use service::{Look, Service, Step};

/// How often a peer that does not take its answer is looked at.
const WRITE_LOOK: Duration = Duration::from_secs(1);
/// How long one stage of a pass may go on beginning new work. A handler that is running is not interrupted: if it takes
/// long, `handoff` has another thread go on.
const SLICE: Duration = Duration::from_micros(500);

/// Why a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The request on the desk is whole: call the handler and give its response to [`EventLoop::answer`].
    Call,
    /// The loop has drained, and holds nothing any more.
    Over,
}

/// What a pass through the loop does, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connections and listeners that the poller has reported.
    Reported,
    /// Connections that had more to read or to be answered when they were put down before this pass.
    Queued,
    /// What others have brought.
    Parcels,
    /// Requests that wait for a handler's permit.
    Waiting,
    /// Clocks that have run out: behind all else, so that nobody is told off who may be served.
    Clocks,
    /// Nothing: time to wait.
    Over,
}

pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    /// Which of the shared seats is this loop's.
    seat: usize,
    poller: Poller,
    table: Table<Connection>,
    timeouts: Timeouts,
    /// As of the last wait or answer.
    now: Instant,
    intake: Intake,
    out: Outgoing,
    service: Option<Service>,
    stage: Stage,
    stage_began: Instant,
    stage_until: Instant,
    /// Connections to be looked at without being reported, each once, and how many of them are for this pass.
    queue: VecDeque<Token>,
    queued_now: usize,
    /// There was no time to look at all that others have brought, or at all requests that wait for a permit.
    is_behind: bool,
    parcels: VecDeque<Parcel>,
    calls: Calls,
    is_draining: bool,
    cut_off: CutOff,
}

impl EventLoop {
    /// A loop that watches the listeners of all.
    ///
    /// # Errors
    ///
    /// One of them cannot be watched.
    pub(crate) fn new(shared: Arc<Shared>, seat: usize, poller: Poller) -> Result<Self, String> {
        let config = &shared.config;
        let timeouts = Timeouts::new(|clock| match clock {
            Clock::Idle => config.idle_timeout,
            Clock::Quiet => config.idle_grace,
            Clock::Head => config.head_timeout,
            Clock::Body => config.body_timeout,
            Clock::Turn => config.turn_timeout,
            Clock::Write => WRITE_LOOK.min(config.write_timeout),
            Clock::Linger => config.linger,
        });
        let now = sync::now();
        let intake = Intake::new(shared.gates.len());
        let mut event_loop = Self {
            shared,
            seat,
            poller,
            table: Table::new(),
            timeouts,
            now,
            intake,
            out: Outgoing::new(now),
            service: None,
            stage: Stage::Over,
            stage_began: now,
            stage_until: now + SLICE,
            queue: VecDeque::new(),
            queued_now: 0,
            is_behind: false,
            parcels: VecDeque::new(),
            calls: Calls::new(now),
            is_draining: false,
            cut_off: CutOff::default(),
        };
        event_loop.open_gates()?;
        Ok(event_loop)
    }

    /// Goes on until a handler is to be called or all is over.
    ///
    /// # Errors
    ///
    /// The poller's: it cannot wait.
    pub(crate) fn turn(&mut self, desk: &mut Desk) -> std::io::Result<Turn> {
        loop {
            if self.service.is_some() {
                match self.serve(desk) {
                    Step::Call if self.admit(desk) => return Ok(Turn::Call),
                    Step::Call if self.answer_at_once(desk) => {}
                    Step::Call => self.wait_for_permit(desk),
                    Step::PutDown(progress) => self.put_down(progress, desk),
                }
            } else if !self.begin_next(desk) {
                self.watch_stop(desk);
                if self.is_over() {
                    return Ok(Turn::Over);
                }
                self.wait()?;
            }
        }
    }

    /// Begins with the next piece of work of this pass. Returns false if the pass is over.
    fn begin_next(&mut self, desk: &mut Desk) -> bool {
        loop {
            let in_time = self.is_in_time();
            let (has_begun, next) = match self.stage {
                Stage::Reported if in_time => (self.begin_reported(desk), Stage::Queued),
                Stage::Reported => (self.note_reported(), Stage::Queued),
                Stage::Queued => (in_time && self.begin_queued(desk), Stage::Parcels),
                Stage::Parcels if in_time => (self.begin_parcel(desk), Stage::Waiting),
                Stage::Parcels => (self.fall_behind(), Stage::Waiting),
                Stage::Waiting if in_time => (self.begin_waiting(desk), Stage::Clocks),
                Stage::Waiting => (self.fall_behind(), Stage::Clocks),
                Stage::Clocks => (in_time && self.begin_expired(desk), Stage::Over),
                Stage::Over => return false,
            };
            if has_begun {
                return true;
            }
            self.enter_stage(next);
        }
    }

    fn enter_stage(&mut self, stage: Stage) {
        self.stage = stage;
        // As a rule the stage before had nothing to do, and took no time.
        if self.stage_began != self.now {
            (self.stage_began, self.stage_until) = (self.now, self.now + SLICE);
        }
    }

    /// True as long as the current stage may begin something new. It was so when the stage was entered: each does a
    /// little in every pass.
    pub(super) fn is_in_time(&self) -> bool {
        self.now < self.stage_until
    }

    /// What the deadline cut off, once the loop is over.
    pub(crate) fn take_cut_off(&mut self) -> CutOff {
        std::mem::take(&mut self.cut_off)
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let due = [self.timeouts.next(), self.intake.resumes_at(), self.deadline()].into_iter().flatten().min();
        let has_more = std::mem::take(&mut self.is_behind) || !self.queue.is_empty();
        let timeout = match due {
            _ if has_more => Some(Duration::ZERO),
            due => due.map(|due| due.saturating_duration_since(self.now)),
        };
        self.publish_idle();
        self.poller.wait(timeout)?;
        self.now = sync::now();
        self.enter_stage(Stage::Reported);
        self.queued_now = self.queue.len();
        self.resume_gates();
        Ok(())
    }

    fn begin_reported(&mut self, desk: &mut Desk) -> bool {
        let Some(event) = self.poller.next() else { return false };
        if event.token & GATE_BIT != 0 {
            self.accept_from(event.token, desk);
        } else if let Some(token) = self.note(event) {
            self.begin(token, Look::Reported, desk);
        }
        true
    }

    /// No time is left for what else has been reported: it is for the next pass. Listeners are reported again.
    fn note_reported(&mut self) -> bool {
        while let Some(event) = self.poller.next() {
            if event.token & GATE_BIT == 0 {
                self.note(event).into_iter().for_each(|token| self.look_later(token));
            }
        }
        false
    }

    /// No time is left for what nobody will call for once more: the byte that came with what lies in the inbox may have
    /// been read, and a request that waits may have a permit already.
    pub(super) fn fall_behind(&mut self) -> bool {
        self.is_behind = true;
        false
    }

    /// Notes that a connection was reported. `None`: it has gone since, or is about to be looked at anyway.
    fn note(&mut self, event: Event) -> Option<Token> {
        let token = Token::from_raw(event.token);
        let connection = self.table.get_mut(token)?;
        connection.reported(event);
        (!connection.is_queued()).then_some(token)
    }

    /// Has a connection looked at in the next pass, whatever is reported.
    pub(super) fn look_later(&mut self, token: Token) {
        if self.table.get_mut(token).is_some_and(Connection::enqueue) {
            self.queue.push_back(token);
        }
    }

    fn begin_queued(&mut self, desk: &mut Desk) -> bool {
        let Some(left) = self.queued_now.checked_sub(1) else { return false };
        self.queued_now = left;
        let Some(token) = self.queue.pop_front() else { return false };
        if let Some(connection) = self.table.get_mut(token) {
            connection.dequeue();
            self.begin(token, Look::Reported, desk);
        }
        true
    }

    fn begin_parcel(&mut self, desk: &mut Desk) -> bool {
        if self.parcels.is_empty() {
            self.parcels.extend(self.shared.seats[self.seat].inbox.take());
        }
        let Some(parcel) = self.parcels.pop_front() else { return false };
        self.take_parcel(parcel, desk);
        self.now = sync::now();
        true
    }

    fn begin_expired(&mut self, desk: &mut Desk) -> bool {
        let Some((index, clock)) = self.timeouts.expired(self.now) else { return false };
        if let Some(token) = self.table.token_at(index) {
            self.take_expired(token, clock, desk);
        }
        self.now = sync::now();
        true
    }

    fn take_expired(&mut self, token: Token, clock: Clock, desk: &mut Desk) {
        let Some(connection) = self.table.get_mut(token) else { return };
        match clock {
            // What has come in the last moment is not to be closed away, nor refused: whoever was frozen finds it here.
            Clock::Idle | Clock::Quiet | Clock::Head | Clock::Body => {
                connection.look_again();
                self.begin(token, Look::Last, desk);
            }
            Clock::Turn => self.end_waiting(token, desk),
            Clock::Write => self.look_at_reader(token, desk),
            Clock::Linger => self.look_at_leaver(token, desk),
        }
    }

    /// A peer has not taken its answers for a while. Linux reports room only once a third of the send buffer is free,
    /// so a write is tried before the peer is judged.
    fn look_at_reader(&mut self, token: Token, desk: &mut Desk) {
        self.begin(token, Look::Reported, desk);
        match self.table.get_mut(token) {
            Some(connection) if !connection.is_blocked() => {}
            Some(connection) if connection.mark() > self.now => {
                self.timeouts.start(token.index(), Clock::Write, self.now);
            }
            Some(connection) if connection.phase() == Phase::Away => self.desert(token),
            _ => self.drop_connection(token),
        }
    }

    pub(super) fn count_answers(&self, answers: u64) {
        if self.is_draining && answers > 0 {
            self.shared.stats.add_drained(answers);
        }
    }

    /// Closes a connection, whatever it is in the middle of.
    pub(super) fn drop_connection(&mut self, token: Token) {
        self.poller.retired(token.raw());
        if self.take_out(token).is_some() {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes a connection out of this loop's books, but for the poller's.
    pub(super) fn take_out(&mut self, token: Token) -> Option<Connection> {
        self.timeouts.stop(token.index());
        let connection = self.table.remove(token)?;
        self.shared.seats[self.seat].connections.fetch_sub(1, Ordering::Relaxed);
        Some(connection)
    }
}
