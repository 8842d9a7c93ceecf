//! What all event loops of a server share, and how they reach each other.

use std::time::Instant;

use super::budget::Budget;
use super::call::internal_error;
use super::config::Config;
use super::counts::Totals;
use super::handoff::Permits;
use super::inbox::{Inbox, Message};
use super::notice::{Answered, Notice, Want};
use super::shared_listener::SharedListener;
use super::throttle::Throttle;
use crate::group::CutOff;
use crate::http::{BodyPlan, Fault, Handler, Limits, Method, OnFault, Request, Response, Status};
use crate::panics::{Panic, caught};
use crate::stop::{Cause, Stop};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};

pub(crate) type OnAnswer = Box<dyn Fn(&Answered<'_>) + Send + Sync>;
pub(crate) type OnNotice = Box<dyn Fn(&Notice<'_>) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) stop: Stop,
    pub(crate) listeners: Vec<SharedListener>,
    pub(crate) loops: Vec<LoopHandle>,
    pub(crate) permits: Permits,
    /// How often the watcher has looked for slow handlers.
    pub(crate) looks: AtomicUsize,
    /// How many connections all loops have, including those on their way from one loop to another.
    pub(crate) connections: AtomicUsize,
    pub(crate) totals: Arc<Totals>,
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) on_notice: OnNotice,
    pub(crate) on_answer: Option<OnAnswer>,
    pub(crate) started: Instant,
    pub(crate) accept_failed: Throttle,
    /// One for each thing that can run out.
    pub(crate) refused: [Throttle; Want::ALL.len()],
    /// The memory for request bodies that the server holds.
    pub(crate) bodies: Arc<Budget>,
}

/// How the other loops reach one loop.
pub(crate) struct LoopHandle {
    pub(crate) inbox: Inbox,
    /// How many connections the loop holds or is about to get.
    pub(crate) connections: AtomicUsize,
    /// When this loop's longest-idle connection became idle, in µs since `started`; `u64::MAX` if none is. Updated at
    /// each wait.
    pub(crate) idle_since_us: AtomicU64,
    /// What the loop counted at the deadline, in case it does not end in time. `None` before.
    pub(crate) counted: Mutex<Option<CutOff>>,
}

impl LoopHandle {
    /// Uncounts a connection that another loop has handed over: `hand_over` counted it, and entering it counts it
    /// again.
    pub(crate) fn was_handed_over(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Calls the handler. If it panics, reports that and answers 500.
    #[inline]
    pub(crate) fn call(self: &Arc<Self>, request: &Request<'_>) -> Response {
        self.answered(request, caught(|| self.handler.handle(request)))
    }

    /// Calls the handler on the loop's thread, if it has promised not to block there. A streamed response would block
    /// the loop, and breaks the promise: the answer is 500.
    pub(crate) fn answer_at_once(self: &Arc<Self>, request: &Request<'_>) -> Option<Response> {
        match caught(|| self.handler.is_at_once(request)) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(panic) => return Some(self.answer_panic(request, &panic)),
        }
        let response = self.call(request);
        if response.needs_writing(request.method() == Method::Head) {
            let (method, path) = (request.method(), request.raw_path());
            self.tell(&Notice::HandlerPanicked { method, path, text: "it promised to answer at once, and streams" });
            return Some(internal_error());
        }
        Some(response)
    }

    /// Asks the handler what to do with the request's body.
    ///
    /// # Errors
    ///
    /// The answer to send if the handler panicked.
    pub(crate) fn body_plan(&self, request: &Request<'_>) -> Result<BodyPlan, Response> {
        caught(|| self.handler.body_plan(request)).map_err(|panic| self.answer_panic(request, &panic))
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

    /// From here on the response may end on any thread, and its closures may panic there.
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
        self.totals.add_panic();
        self.tell(&Notice::HandlerPanicked { method, path, text: &panic.to_string() });
    }

    fn answer_panic(&self, request: &Request<'_>, panic: &Panic) -> Response {
        self.tell_panic(request.method(), request.raw_path(), panic);
        internal_error()
    }

    /// Answers 503, and reports what ran out: at most once a second for each, with how many were refused since.
    pub(crate) fn refuse_for(&self, want: Want, now: Instant) -> Response {
        self.totals.add_refused(want);
        if let Some(count) = self.refused[want as usize].count(self.started, now) {
            self.tell(&Notice::Refused { want, count });
        }
        Response::text(want.reason()).with_status(Status::SERVICE_UNAVAILABLE).with_field("Retry-After", "1")
    }

    pub(crate) fn tell(&self, notice: &Notice<'_>) {
        // The embedder's closure may panic; the loop goes on.
        let _ = caught(|| (self.on_notice)(notice));
    }

    /// Tells of an answer that has left, or is lost.
    pub(crate) fn tell_answer(&self, answered: &Answered<'_>) {
        let Some(on_answer) = &self.on_answer else { return };
        if let Err(panic) = caught(|| on_answer(answered)) {
            self.totals.add_panic();
            self.tell(&Notice::OnAnswerPanicked { text: &panic.to_string() });
        }
    }

    /// Reports a failed accept, at most once a second over all loops.
    pub(crate) fn tell_accept_failed(&self, listener: &SharedListener, error: &std::io::Error, now: Instant) {
        if self.accept_failed.count(self.started, now).is_some() {
            self.tell(&Notice::AcceptFailed { listener: listener.local_address(), error });
        }
    }

    /// A listener is broken: the group stops, and the rest of the server drains. If the failure became the cause, it is
    /// not reported twice.
    pub(crate) fn listener_failed(&self, listener: &SharedListener, error: &std::io::Error) {
        let who = format!("listener `{}`", listener.local_address());
        if listener.fail() && !self.stop.trigger(Cause::Failed { who, error: error.to_string() }) {
            self.tell(&Notice::ListenerFailed { listener: listener.local_address(), error });
        }
    }

    /// Counts one more connection. Returns false if there are `connections_max` already.
    pub(crate) fn has_counted_one_more(&self) -> bool {
        let has_room = |count: usize| (count < self.config.connections_max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok()
    }

    /// Takes a permit for this loop's oldest queued request, which began to wait at `longest`. Returns false if another
    /// loop's request comes first, no permit is free, or no request waits.
    pub(crate) fn enter_waiting(&self, index: usize, longest: Option<Instant>) -> bool {
        // Publish first, then look for a permit: a thread that gives one back in between finds us.
        let is_news = self.permits.publish(index, longest);
        if longest.is_none() {
            // A permit that was meant for our request now goes to another loop's.
            if is_news {
                self.wake_next_in_line();
            }
            return false;
        }
        let entered = self.permits.enter_waiting(index);
        if let Err(Some(next)) = entered {
            self.loops[next].inbox.wake();
        }
        entered.is_ok()
    }

    /// A permit is not needed after all.
    pub(crate) fn give_permit_back(&self, index: usize) {
        self.permits.words[index].withdraw();
        self.wake_next_in_line();
    }

    /// Wakes the loop whose request has waited longest for a permit.
    #[inline]
    pub(crate) fn wake_next_in_line(&self) {
        if let Some(next) = self.permits.next_in_line() {
            self.loops[next].inbox.wake();
        }
    }

    /// Gives a connection to another loop, which counts it from now on. A loop that has left refuses: then returns the
    /// message.
    pub(crate) fn hand_over(&self, message: Message, index: usize) -> Result<(), Message> {
        let LoopHandle { inbox, connections, .. } = &self.loops[index];
        connections.fetch_add(1, Ordering::Relaxed);
        inbox.push(message).inspect_err(|_| _ = connections.fetch_sub(1, Ordering::Relaxed))
    }

    /// A loop has died: gives a connection that was on its way to it to another loop. Everything else in its inbox ends
    /// with its connections.
    pub(crate) fn pass_to_any(&self, mut message: Message) {
        for index in 0..self.loops.len() {
            if !matches!(message, Message::Arrival(_) | Message::Transfer(_)) {
                return;
            }
            match self.hand_over(message, index) {
                Ok(()) => return,
                Err(refused) => message = refused,
            }
        }
    }

    /// The index of the loop with the fewest connections, and how many it has.
    pub(crate) fn least_loaded(&self) -> (usize, usize) {
        let loads = self.loops.iter().map(|handle| handle.connections.load(Ordering::Relaxed)).enumerate();
        loads.min_by_key(|(_, load)| *load).unwrap_or((0, 0))
    }
}
