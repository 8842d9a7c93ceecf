//! The listeners of a loop: how each is accepted from, and by which token it is reported.

use std::io;
use std::time::Instant;

use crate::group::CutOff;
use crate::http::Peer;
use crate::server::accept_error::AcceptError;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::poller::Poller;
use crate::server::shared::Shared;
use crate::server::shared_listener::Closing;
use crate::server::stream::Stream;
use crate::server::throttle::{Backoff, PAUSE_MIN};
use crate::sync::{self, Arc};

/// Marks a token as a listener's; the rest is its number.
const LISTENER_BIT: u64 = 1 << 63;
/// How much longer than a quiet connection a handshake under way is waited for: a second by default, in which any path
/// is gone back and forth, and a SYN-ACK that was lost is sent again.
const HANDSHAKE_FACTOR: u32 = 4;
/// Most connections accepted at a time, before those that are there get their turn.
const ACCEPTS_MAX: u32 = 64;

pub(super) struct Intake {
    shared: Arc<Shared>,
    paces: Vec<Pace>,
}

/// How one listener is accepted from.
struct Pace {
    /// Connections accepted at a time: twice as many after a queue that was longer, one after a queue that was not. The
    /// system makes a descriptor before it finds the queue empty, so that asking it once more than needed costs half an
    /// accept.
    batch: u32,
    /// For want of descriptors.
    backoff: Backoff,
    resumes_at: Option<Instant>,
    /// Nothing is left for this loop to accept.
    is_over: bool,
    /// Why it could not be closed.
    failure: Option<io::Error>,
}

/// The number of the listener that a token names, if it names one.
pub(super) fn number(token: u64) -> Option<usize> {
    if token & LISTENER_BIT == 0 { None } else { usize::try_from(token & !LISTENER_BIT).ok() }
}

fn token(number: usize) -> u64 {
    LISTENER_BIT | number as u64
}

impl Intake {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let pace = || Pace { batch: 1, backoff: Backoff::new(), resumes_at: None, is_over: false, failure: None };
        let paces = std::iter::repeat_with(pace).take(shared.listeners.len()).collect();
        Self { shared, paces }
    }

    /// Has the poller report all listeners.
    ///
    /// # Errors
    ///
    /// One of them cannot be watched.
    pub(super) fn watch_all(&self, poller: &mut Poller) -> Result<(), String> {
        (0..self.paces.len()).try_for_each(|number| {
            let watched = self.watch(number, poller);
            watched.map_err(|error| {
                format!("cannot watch listener `{}`: {error}", self.shared.listeners[number].local_address())
            })
        })
    }

    pub(super) fn watch(&self, number: usize, poller: &mut Poller) -> io::Result<()> {
        let added = self.shared.listeners[number].with(|listener| poller.add_listener(listener, token(number)));
        added.unwrap_or(Ok(()))
    }

    /// Has the poller report this listener no more.
    pub(super) fn ignore(&self, number: usize, poller: &mut Poller) {
        let removed = self.shared.listeners[number].with(|listener| poller.remove_listener(listener, token(number)));
        if removed.is_none() {
            // Another loop has closed it.
            poller.retired(token(number));
        }
    }

    /// How many connections to accept now. Until one is missing, twice as many the next time.
    pub(super) fn batch(&self, number: usize) -> u32 {
        self.paces[number].batch
    }

    /// One connection from the queue; `None` if the listener is closed.
    pub(super) fn accept(&mut self, number: usize) -> Option<Result<(Stream, Peer), AcceptError>> {
        let accepted = self.shared.listeners[number].accept()?;
        if matches!(accepted, Err(AcceptError::WouldBlock)) {
            self.paces[number].batch = 1;
        }
        Some(accepted)
    }

    /// As many were there as were to be accepted.
    pub(super) fn grow(&mut self, number: usize) {
        let pace = &mut self.paces[number];
        pace.batch = (pace.batch * 2).min(ACCEPTS_MAX);
    }

    /// One could be accepted and entered: the system has what it takes again.
    pub(super) fn recover(&mut self, number: usize) {
        self.paces[number].backoff.reset();
    }

    /// This listener is ignored for a while, each time for longer: the system has nothing to accept or to watch with.
    pub(super) fn pause(&mut self, number: usize, poller: &mut Poller, now: Instant) {
        self.ignore(number, poller);
        let pace = &mut self.paces[number];
        pace.resumes_at = Some(now + pace.backoff.next());
    }

    pub(super) fn is_paused(&self, number: usize) -> bool {
        self.paces[number].resumes_at.is_some()
    }

    /// When the first of the paused listeners is to be looked at again.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.paces.iter().filter_map(|pace| pace.resumes_at).min()
    }

    /// The paused listeners whose time has come. They are paused no more.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let is_due = |pace: &mut Pace| pace.resumes_at.take_if(|at| *at <= now).is_some();
        self.paces.iter_mut().enumerate().filter_map(|(number, pace)| is_due(pace).then_some(number)).collect()
    }

    /// Lets in whoever has come, and nobody any more; the first loop that can does it for all.
    pub(super) fn close(
        &mut self,
        number: usize,
        now: Instant,
        poller: &mut Poller,
    ) -> (Vec<(Stream, Peer)>, io::Result<Closing>) {
        self.ignore(number, poller);
        let mut accepted = Vec::new();
        let closing = self.shared.listeners[number].close(self.handshakes_until(now), &mut accepted);
        (accepted, closing)
    }

    /// Until when handshakes under way are waited for: well within the deadline, so that what they bring is answered.
    fn handshakes_until(&self, now: Instant) -> Instant {
        let until = now + self.shared.config.idle_grace * HANDSHAKE_FACTOR;
        let half = self.shared.stop.deadline().map(|at| now + at.saturating_duration_since(now) / 2);
        half.map_or(until, |half| until.min(half))
    }

    /// What came of an attempt to close this listener. Unless it is over, it is tried again then, or when somebody is
    /// reported.
    pub(super) fn note_closing(
        &mut self,
        number: usize,
        closing: io::Result<Closing>,
        poller: &mut Poller,
        now: Instant,
    ) {
        let again_at = match closing {
            Ok(Closing::Left) => return self.end(number),
            Ok(Closing::Closed) => {
                self.end(number);
                return self.shared.loops.iter().for_each(|index| index.inbox.wake());
            }
            Ok(Closing::Awaits(again_at)) => {
                // Whoever completes one is served at once; if it cannot be watched, when it is tried again.
                let _ = self.watch(number, poller);
                again_at
            }
            Err(error) => {
                self.shared.tell_accept_failed(&self.shared.listeners[number], &error, now);
                self.paces[number].failure = Some(error);
                now + PAUSE_MIN
            }
        };
        self.paces[number].resumes_at = Some(again_at);
    }

    /// Accepts from this listener no more, which other loops may.
    pub(super) fn leave(&mut self, number: usize, poller: &mut Poller) {
        if !self.is_over(number) {
            self.ignore(number, poller);
            self.end(number);
            self.shared.listeners[number].leave();
        }
    }

    fn end(&mut self, number: usize) {
        (self.paces[number].is_over, self.paces[number].resumes_at) = (true, None);
    }

    pub(super) fn is_over(&self, number: usize) -> bool {
        self.paces[number].is_over
    }

    /// True as long as somebody may be left to be accepted.
    pub(super) fn has_open(&self) -> bool {
        self.paces.iter().zip(&self.shared.listeners).any(|(pace, listener)| !pace.is_over && listener.is_open())
    }

    /// The deadline has come: closes all listeners, and counts who has waited in vain.
    pub(super) fn abandon(&mut self, until: Instant, cut_off: &mut CutOff, buffer: &mut ReadBuffer) {
        for (pace, listener) in self.paces.iter().zip(&self.shared.listeners) {
            let (mut owed, place) = (0, listener.local_address());
            let seen = listener.abandon(until, |stream, peer| {
                let mut connection = Connection::new(Arc::new(stream), peer, sync::now());
                owed += connection.owed(buffer, &self.shared.limits, until).0;
            });
            if owed > 0 {
                cut_off.details.push(match &pace.failure {
                    Some(error) => format!("{owed} in the queue of `{place}`, which could not be emptied: {error}"),
                    None => format!("{owed} in the queue of `{place}`, which no thread was free to empty"),
                });
            }
            if let Err(error) = seen {
                owed += 1;
                cut_off.details.push(format!("whoever else was in the queue of `{place}`: {error}"));
            }
            cut_off.owed += owed;
        }
    }
}
