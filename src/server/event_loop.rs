//! The event loop: wait, accept, read, answer, write, time out, drain.
//!
//! A loop is one value and the sole owner of its connections. Whoever holds it turns it:
//!
//! ```text
//!        ┌─▶ events ─▶ expired clocks ─▶ inbox ─▶ stop? ─▶ wait ─┐
//!        │                                                       │      a whole request
//! turn ──┴───────────────────────────────────────────────────────┴──▶ Turn::Call, then `answer`
//!                                                                └──▶ Turn::Over
//! ```
//!
//! It does not call handlers. A turn ends with [`Turn::Call`] when a request is to be answered; the request lies on
//! the caller's desk and the loop is not needed meanwhile. That is the one place at which it can be let go of; how, is
//! the matter of `handoff`.
//!
//! What is done with a connection that was reported is in `service`; accepting is in `accept`, calling handlers in
//! `calls`, the way out in `drain`, and what a connection is, in `connection`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::accept::{GATE_BIT, Intake};
use super::calls::Calls;
use super::connection::{Close, Connection};
use super::desk::Desk;
use super::inbox::Parcel;
use super::outgoing::Outgoing;
use super::poller::{Event, Poller};
use super::service::{Service, Step};
use super::shared::Shared;
use super::table::{Table, Token};
use super::timeouts::{Clock, Timeouts};
use crate::group::CutOff;
use crate::http::{Progress, Reject};

/// How often a peer that does not take its answer is looked at.
const WRITE_LOOK: Duration = Duration::from_secs(1);

/// Why a turn has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The request on the desk is whole: call the handler and give its response to [`EventLoop::answer`].
    Call,
    /// The loop has drained, and holds nothing any more.
    Over,
}

pub(crate) struct EventLoop {
    pub(super) shared: Arc<Shared>,
    /// Which of the shared seats is this loop's.
    pub(super) seat: usize,
    pub(super) poller: Poller,
    pub(super) table: Table<Connection>,
    pub(super) timeouts: Timeouts,
    /// As of the last wait or answer.
    pub(super) now: Instant,
    pub(super) intake: Intake,
    pub(super) out: Outgoing,
    pub(super) service: Option<Service>,
    /// Connections that had more to read when their turn was over: those of this round, and of the next.
    round: VecDeque<Token>,
    pub(super) again: VecDeque<Token>,
    pub(super) parcels: VecDeque<Parcel>,
    pub(super) calls: Calls,
    pub(super) is_draining: bool,
    pub(super) cut_off: CutOff,
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
        let now = Instant::now();
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
            round: VecDeque::new(),
            again: VecDeque::new(),
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
                    Step::Call => self.put_down(Progress::Whole, desk),
                    Step::PutDown(progress) => self.put_down(progress, desk),
                }
            } else if let Some(event) = self.poller.next() {
                self.take_event(event, desk);
            } else if let Some(token) = self.round.pop_front() {
                self.begin(token, false, desk);
            } else if let Some((index, clock)) = self.timeouts.expired(self.now) {
                self.take_expired(index, clock, desk);
            } else if let Some(parcel) = self.parcels.pop_front() {
                self.take_parcel(parcel, desk);
            } else if !self.begin_waiting(desk) {
                self.parcels.extend(self.shared.seats[self.seat].inbox.take());
                self.watch_stop(desk);
                if self.is_over() {
                    return Ok(Turn::Over);
                }
                if self.parcels.is_empty() {
                    self.wait()?;
                }
            }
        }
    }

    /// What the deadline cut off, once the loop is over.
    pub(crate) fn take_cut_off(&mut self) -> CutOff {
        std::mem::take(&mut self.cut_off)
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let due = [self.timeouts.next(), self.intake.resumes_at(), self.deadline()].into_iter().flatten().min();
        let timeout = match due {
            _ if !self.again.is_empty() => Some(Duration::ZERO),
            due => due.map(|due| due.saturating_duration_since(self.now)),
        };
        std::mem::swap(&mut self.round, &mut self.again);
        self.publish_idle();
        self.poller.wait(timeout)?;
        self.now = Instant::now();
        self.resume_gates();
        Ok(())
    }

    fn take_event(&mut self, event: Event, desk: &mut Desk) {
        if event.token & GATE_BIT != 0 {
            self.accept_from(event.token, desk);
            return;
        }
        let token = Token::from_raw(event.token);
        // A report may be older than the connection's end.
        if let Some(connection) = self.table.get_mut(token) {
            connection.reported(event);
            self.begin(token, false, desk);
        }
    }

    fn take_expired(&mut self, index: u32, clock: Clock, desk: &mut Desk) {
        let Some(token) = self.table.token_at(index) else {
            return;
        };
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        match clock {
            // What has come in the last moment is not to be closed away.
            Clock::Idle | Clock::Quiet => {
                connection.look_again();
                self.begin(token, true, desk);
            }
            Clock::Head | Clock::Body => {
                connection.lay_on(desk);
                self.start_service(token, false);
                self.reject(Reject::Timeout, Close::Lingering, desk);
                self.put_down(Progress::Nothing, desk);
            }
            Clock::Turn => self.end_waiting(token, desk),
            Clock::Write => self.look_at_reader(token, desk),
            Clock::Linger => self.drop_connection(token),
        }
    }

    /// A peer has not taken its answers for a while. Linux reports room only once a third of the send buffer is free,
    /// so a write is tried before the peer is judged.
    fn look_at_reader(&mut self, token: Token, desk: &mut Desk) {
        self.begin(token, false, desk);
        match self.table.get_mut(token) {
            Some(connection) if !connection.is_blocked() => {}
            Some(connection) if connection.mark() > self.now => {
                self.timeouts.start(token.index(), Clock::Write, self.now);
            }
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
        self.take_out(token);
    }

    /// Takes a connection out of all books but the poller's.
    pub(super) fn take_out(&mut self, token: Token) -> Option<Connection> {
        self.timeouts.stop(token.index());
        let connection = self.table.remove(token)?;
        self.shared.seats[self.seat].connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        Some(connection)
    }
}
