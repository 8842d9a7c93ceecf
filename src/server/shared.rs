//! What all event loops of a server share, and how they reach each other.

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::config::Config;
use super::gate::Gate;
use super::handoff::Permits;
use super::inbox::{Inbox, Parcel};
use super::notice::{Notice, Want};
use super::throttle::Throttle;
use crate::group::CutOff;
use crate::http::{BodyReader, Fault, Handler, Limits, Method, OnFault, Request, Response, Status};
use crate::panics::{Panic, caught};
use crate::stop::{Cause, Stop};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};

pub(crate) type OnNotice = Box<dyn Fn(&Notice<'_>) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) stop: Stop,
    pub(crate) gates: Vec<Gate>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) permits: Permits,
    /// How often the watcher has looked for slow handlers.
    pub(crate) looks: AtomicUsize,
    /// Connections of all loops, including those on their way from one to another.
    pub(crate) connections: AtomicUsize,
    pub(crate) stats: Arc<Stats>,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) on_notice: OnNotice,
    pub(crate) started: Instant,
    pub(crate) accept_failed: Throttle,
    /// One for each thing that can run out.
    pub(crate) refused: [Throttle; Want::ALL.len()],
    /// The memory for bodies held in memory.
    pub(crate) bodies: Arc<Budget>,
}

/// Counts what a server has done. Anybody who holds a clone of the `Arc` can read it.
#[derive(Debug, Default)]
pub struct Stats {
    drained: AtomicU64,
    cut_off: AtomicU64,
    refused: AtomicU64,
}

impl Stats {
    /// How many answers left in full after the stop.
    pub fn finished_while_draining(&self) -> u64 {
        self.drained.load(Ordering::Relaxed)
    }

    /// How many requests had been received in full, but not answered in full, by the deadline.
    pub fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// How many requests and connections were answered 503 because something ran out: see [`Want`].
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn add_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_drained(&self, count: u64) {
        self.drained.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_cut_off(&self, count: usize) {
        self.cut_off.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// How the other loops reach one loop.
pub(crate) struct Seat {
    pub(crate) inbox: Inbox,
    /// How many connections the loop holds or is about to get.
    pub(crate) connections: AtomicUsize,
    /// When this loop's longest-idle connection became idle, in µs since `started`; `u64::MAX` if none is. Updated at
    /// each wait.
    pub(crate) idle_since_us: AtomicU64,
    /// What the loop counted at the deadline, in case it does not end in time. `None` before.
    pub(crate) counted: Mutex<Option<CutOff>>,
}

impl Shared {
    /// Calls the handler. If it panics, reports that and answers 500.
    #[inline]
    pub(crate) fn call(self: &Arc<Self>, request: &Request<'_>) -> Response {
        self.answered(request, caught(|| self.handler.handle(request)))
    }

    /// Calls the handler on the loop. A streamed response would block the loop, and breaks the handler's promise: the
    /// answer is 500.
    pub(crate) fn call_at_once(self: &Arc<Self>, request: &Request<'_>) -> Response {
        let response = self.call(request);
        if response.needs_writing(request.method() == Method::Head) {
            let (method, path) = (request.method(), request.raw_path());
            self.tell(&Notice::HandlerPanicked { method, path, text: "it promised to answer at once, and streams" });
            return internal_error();
        }
        response
    }

    /// Asks the handler whether it answers without the body.
    pub(crate) fn refuse(self: &Arc<Self>, request: &Request<'_>) -> Option<Response> {
        caught(|| self.handler.refuse(request)).transpose().map(|answer| self.answered(request, answer))
    }

    /// Asks the handler whether it can answer on the loop.
    ///
    /// # Errors
    ///
    /// The answer to send if the handler panicked; so too in [`streams`](Self::streams).
    pub(crate) fn is_at_once(&self, request: &Request<'_>) -> Result<bool, Response> {
        caught(|| self.handler.is_at_once(request)).map_err(|panic| self.answer_panic(request, &panic))
    }

    /// Asks the handler whether it reads the body itself.
    pub(crate) fn streams(&self, request: &Request<'_>) -> Result<bool, Response> {
        caught(|| self.handler.streams(request)).map_err(|panic| self.answer_panic(request, &panic))
    }

    /// Calls the handler for a request whose body it reads itself.
    pub(crate) fn call_streaming(self: &Arc<Self>, request: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
        self.answered(request, caught(|| self.handler.handle_streaming(request, body)))
    }

    /// Turns a handler's result into a response.
    #[inline]
    fn answered(self: &Arc<Self>, request: &Request<'_>, answer: Result<Response, Panic>) -> Response {
        match answer {
            Ok(response) if !response.has_closures() => response,
            Ok(response) => self.watch_closures(request, response),
            Err(panic) => self.answer_panic(request, &panic),
        }
    }

    /// From here on a response may end anywhere, and its closures may panic there.
    #[cold]
    fn watch_closures(self: &Arc<Self>, request: &Request<'_>, mut response: Response) -> Response {
        let (shared, method, path) = (Arc::downgrade(self), request.method(), request.raw_path().to_owned());
        let on_fault: OnFault = Arc::new(move |fault| match (fault, shared.upgrade()) {
            (Fault::Panicked(panic), Some(shared)) => shared.tell_panic(method, &path, panic),
            (Fault::Failed(error), Some(shared)) => {
                shared.tell(&Notice::StreamFailed { method, path: &path, error });
            }
            (_, None) => {}
        });
        response.tell_faults(&on_fault);
        response
    }

    /// Reports a handler's panic.
    pub(crate) fn tell_panic(&self, method: Method, path: &str, panic: &Panic) {
        self.tell(&Notice::HandlerPanicked { method, path, text: &panic.to_string() });
    }

    fn answer_panic(&self, request: &Request<'_>, panic: &Panic) -> Response {
        self.tell_panic(request.method(), request.raw_path(), panic);
        internal_error()
    }

    /// Answers 503, and reports what ran out: at most once a second for each, with how many were refused since.
    pub(crate) fn refuse_for(&self, want: Want, now: Instant) -> Response {
        self.stats.add_refused();
        if let Some(count) = self.refused[want as usize].count(self.started, now) {
            self.tell(&Notice::Refused { want, count });
        }
        Response::text(want.reason()).with_status(Status::SERVICE_UNAVAILABLE).with_field("Retry-After", "1")
    }

    pub(crate) fn tell(&self, notice: &Notice<'_>) {
        // The embedder's closure may panic; the loop goes on.
        let _ = caught(|| (self.on_notice)(notice));
    }

    /// Reports a failed accept, at most once a second over all loops.
    pub(crate) fn tell_accept_failed(&self, gate: &Gate, error: &std::io::Error, now: Instant) {
        if self.accept_failed.count(self.started, now).is_some() {
            self.tell(&Notice::AcceptFailed { place: gate.place(), error });
        }
    }

    /// A listener is broken: the group stops, and the rest of the server drains. If the failure became the cause, it is
    /// not reported twice.
    pub(crate) fn listener_failed(&self, gate: &Gate, error: &std::io::Error) {
        let who = format!("listener `{}`", gate.place());
        if gate.fail() && !self.stop.trigger(Cause::Failed { who, error: error.to_string() }) {
            self.tell(&Notice::ListenerFailed { place: gate.place(), error });
        }
    }

    /// Counts one more connection. Returns false if there are already as many as allowed.
    pub(crate) fn has_counted_one_more(&self) -> bool {
        let has_room = |count: usize| (count < self.config.connections_max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok()
    }

    /// Wakes the loop whose request has waited longest for a permit.
    #[inline]
    pub(crate) fn wake_next_in_line(&self) {
        if let Some(next) = self.permits.next_in_line() {
            self.seats[next].inbox.wake();
        }
    }

    /// A loop has died: gives a connection that was on its way to it to another loop. Everything else in its inbox ends
    /// with its connections.
    pub(crate) fn pass_to_any(&self, mut parcel: Parcel) {
        for seat in &self.seats {
            if !matches!(parcel, Parcel::Arrival(_) | Parcel::Transfer(_)) {
                return;
            }
            seat.connections.fetch_add(1, Ordering::Relaxed);
            match seat.inbox.push(parcel) {
                Ok(()) => return,
                Err(refused) => {
                    seat.connections.fetch_sub(1, Ordering::Relaxed);
                    parcel = refused;
                }
            }
        }
    }

    /// The seat with the fewest connections, and how many it has.
    pub(crate) fn least_loaded(&self) -> (usize, usize) {
        let loads = self.seats.iter().map(|seat| seat.connections.load(Ordering::Relaxed)).enumerate();
        loads.min_by_key(|(_, load)| *load).unwrap_or((0, 0))
    }
}

/// The answer to a request whose handler has failed.
pub(crate) fn internal_error() -> Response {
    Response::text("internal server error\n").with_status(Status::INTERNAL_SERVER_ERROR).last()
}

/// How long accepting pauses when no descriptor or memory is left: doubling from the first to the second.
pub(crate) const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
pub(crate) const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
