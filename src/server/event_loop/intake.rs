//! The listeners of a loop: how the loop accepts from each, and by which token the poller reports it.

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
/// How many idle graces to wait for a handshake under way: a second by default, enough for any path there and back, and
/// to send a lost SYN-ACK again.
const HANDSHAKE_FACTOR: u32 = 4;
/// How many connections to accept at most before the existing ones get their turn.
const ACCEPTS_MAX: u32 = 64;

pub(super) struct Intake {
    shared: Arc<Shared>,
    paces: Vec<Pace>,
}

/// How the loop accepts from one listener.
struct Pace {
    /// How many connections to accept at a time: twice as many after a longer queue, one after a shorter one. The
    /// system makes a descriptor before it finds the queue empty, so one `accept` too many costs half an accept.
    batch: u32,
    /// For pauses because no descriptor is free.
    backoff: Backoff,
    resumes_at: Option<Instant>,
    /// This loop has nothing left to accept here.
    is_over: bool,
    /// Why the listener could not be closed.
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

    /// Makes the poller report all listeners.
    ///
    /// # Errors
    ///
    /// The poller cannot watch one of them.
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

    /// Stops the poller from reporting this listener.
    pub(super) fn ignore(&self, number: usize, poller: &mut Poller) {
        let removed = self.shared.listeners[number].with(|listener| poller.remove_listener(listener, token(number)));
        if removed.is_none() {
            // Another loop has closed the listener.
            poller.retired(token(number));
        }
    }

    /// How many connections to accept now. The number doubles each time until the queue is shorter.
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

    /// The queue was at least as long as the batch: doubles the batch.
    pub(super) fn grow(&mut self, number: usize) {
        let pace = &mut self.paces[number];
        pace.batch = (pace.batch * 2).min(ACCEPTS_MAX);
    }

    /// A connection was accepted and entered: the system has descriptors and memory again.
    pub(super) fn recover(&mut self, number: usize) {
        self.paces[number].backoff.reset();
    }

    /// Ignores this listener for a while, each time for longer: the system has nothing left to accept or to watch with.
    pub(super) fn pause(&mut self, number: usize, poller: &mut Poller, now: Instant) {
        self.ignore(number, poller);
        let pace = &mut self.paces[number];
        pace.resumes_at = Some(now + pace.backoff.next());
    }

    pub(super) fn is_paused(&self, number: usize) -> bool {
        self.paces[number].resumes_at.is_some()
    }

    /// When the first pause is over.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.paces.iter().filter_map(|pace| pace.resumes_at).min()
    }

    /// Takes the listeners whose pause is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let is_due = |pace: &mut Pace| pace.resumes_at.take_if(|at| *at <= now).is_some();
        self.paces.iter_mut().enumerate().filter_map(|(number, pace)| is_due(pace).then_some(number)).collect()
    }

    /// Accepts the connections that have come, and no more. The first loop that can closes the listener for all.
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

    /// Until when to wait for handshakes under way: well within the deadline, so that their requests are answered.
    fn handshakes_until(&self, now: Instant) -> Instant {
        let until = now + self.shared.config.idle_grace * HANDSHAKE_FACTOR;
        let half = self.shared.stop.deadline().map(|at| now + at.saturating_duration_since(now) / 2);
        half.map_or(until, |half| until.min(half))
    }

    /// Notes the result of an attempt to close this listener. Unless it is over, the loop tries again at the time noted
    /// here, or when the poller reports the listener.
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
                return self.shared.loops.iter().for_each(|handle| handle.inbox.wake());
            }
            Ok(Closing::Awaits(again_at)) => {
                // If the poller watches it, a client that completes a handshake is served at once; otherwise at the
                // next try.
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

    /// Stops accepting from this listener. Other loops may go on; returns true if none is left.
    pub(super) fn leave(&mut self, number: usize, poller: &mut Poller) -> bool {
        if self.is_over(number) {
            return false;
        }
        self.ignore(number, poller);
        self.end(number);
        self.shared.listeners[number].leave()
    }

    fn end(&mut self, number: usize) {
        (self.paces[number].is_over, self.paces[number].resumes_at) = (true, None);
    }

    pub(super) fn is_over(&self, number: usize) -> bool {
        self.paces[number].is_over
    }

    /// True while a client may be left to accept.
    pub(super) fn has_open(&self) -> bool {
        self.paces.iter().zip(&self.shared.listeners).any(|(pace, listener)| !pace.is_over && listener.is_open())
    }

    /// The deadline has passed: closes all listeners, and counts the requests in their queues.
    pub(super) fn abandon_all(&mut self, until: Instant, cut_off: &mut CutOff, buffer: &mut ReadBuffer) {
        (0..self.paces.len()).for_each(|number| self.abandon(number, until, cut_off, buffer));
    }

    /// Closes a listener that nobody will accept from any more, and counts the requests in its queue.
    pub(super) fn abandon(&mut self, number: usize, until: Instant, cut_off: &mut CutOff, buffer: &mut ReadBuffer) {
        let (pace, listener) = (&self.paces[number], &self.shared.listeners[number]);
        let (mut owed, address) = (0, listener.local_address());
        let seen = listener.abandon(until, |stream, peer| {
            let mut connection = Connection::new(Arc::new(stream), peer, sync::now());
            owed += connection.owed(buffer, &self.shared.limits, until).0;
        });
        if owed > 0 {
            cut_off.details.push(match &pace.failure {
                Some(error) => format!("{owed} in the queue of `{address}`, which could not be emptied: {error}"),
                None => format!("{owed} in the queue of `{address}`, which no thread was free to empty"),
            });
        }
        if let Err(error) = seen {
            owed += 1;
            cut_off.details.push(format!("whoever else was in the queue of `{address}`: {error}"));
        }
        cut_off.owed += owed;
    }
}
