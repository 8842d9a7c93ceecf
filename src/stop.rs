//! The stop: one flag, the first cause, one deadline.
//!
//! ```text
//! running ──trigger──▶ announced ──lame duck over──▶ told to stop ──grace over──▶ deadline
//!                      (cause known, still serving)   (`is_set`)
//! ```
//!
//! Without a lame-duck time (the default), the first two arrows are one step. The first trigger sets the cause; later
//! ones change nothing, however grave: the cause is what happened first. There is no way back, so a reader that has
//! seen the flag set needs no lock to rely on it.
//!
//! Each arrow is one step under the lock: it changes the state, fixes the deadline, takes the wakers, and queues those
//! of the embedder for the helpers. So anyone who sees a cause or a deadline also finds the calls that belong to it and
//! can wait for them. The rest happens outside the lock, in this order:
//!
//! 1. This thread calls our own wakers and notifies the waiters. Our wakers do not block: they wake pollers and
//!    condition variables, and trigger the stops of groups inside and outside this one.
//! 2. Helpers begin to call the embedder's closures. Those may block; only the end of
//!    [`Group::run`](crate::Group::run) waits for them, until its deadline.

use std::fmt;
use std::time::{Duration, Instant};

use crate::helpers::Helpers;
use crate::panics::caught;
use crate::sync::{self, Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Weak};

/// How long members have to leave, unless the group says otherwise: 3 seconds.
pub const GRACE: Duration = Duration::from_secs(3);

/// 34 years. Times are cut to this: as good as for ever, while longer ones would overflow the clock.
pub(crate) const FAR: Duration = Duration::from_secs(1 << 30);

/// Why everything stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// Somebody asked for it. The text says how: `/shutdown` for example.
    Request(String),
    /// The member of this name returned `Ok`.
    Done(String),
    /// Something failed: a member returned `Err`, or a part of one cannot go on.
    Failed {
        /// The member or part.
        who: String,
        /// What it reported.
        error: String,
    },
    /// A member panicked.
    Panicked {
        /// The member.
        who: String,
        /// The panic's message.
        text: String,
    },
}

impl Cause {
    /// The same cause, as the group around the group of this name sees it.
    pub(crate) fn within(self, group: &str) -> Self {
        let inside = |who: String| format!("{group}/{who}");
        match self {
            Self::Signal | Self::Request(_) => self,
            Self::Done(who) => Self::Done(inside(who)),
            Self::Failed { who, error } => Self::Failed { who: inside(who), error },
            Self::Panicked { who, text } => Self::Panicked { who: inside(who), text },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("signal"),
            Self::Request(way) => f.write_str(way),
            Self::Done(who) => write!(f, "{who} is done"),
            Self::Failed { who, error } => write!(f, "{who} failed: {error}"),
            Self::Panicked { who, text } => write!(f, "{who} panicked: {text}"),
        }
    }
}

/// Tells all members to stop. Clones are handles to the same stop. You can trigger it from anywhere: a handler, a
/// signal handler's thread, a member.
#[derive(Clone)]
#[doc(alias = "shutdown")]
pub struct Stop(Arc<Shared>);

struct Shared {
    set: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    helpers: Helpers,
}

struct State {
    first: Option<(Cause, Instant)>,
    told_at: Option<Instant>,
    end: Option<End>,
    grace: Duration,
    lame_duck: Duration,
    /// This crate's own: they never block.
    ours: Wakers,
    /// The embedder's: they may block.
    theirs: Wakers,
}

#[derive(Default)]
struct Wakers {
    on_cause: Vec<OnCause>,
    on_stop: Vec<OnStop>,
}

type OnCause = Box<dyn FnOnce(&Cause) + Send>;
type OnStop = Box<dyn FnOnce() + Send>;

/// How the group of a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ran, until this moment.
    Ran(Instant),
    /// It was dropped without a run.
    NeverRan,
}

/// How far a stop has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// The cause is known; members will be told to stop at this moment.
    Announced(Instant),
    /// Members have been told to stop, and have until this deadline.
    Told(Instant),
}

impl Stop {
    /// A stop that nobody has triggered, with a grace period of [`GRACE`].
    pub fn new() -> Self {
        Self::with_grace(GRACE)
    }

    /// A stop of its own, with this grace period: for a server that runs without a group. (That of a group is given to
    /// [`Group::run`](crate::Group::run).)
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use allout::{Config, MemberResult, Response, Router, Server, Stop};
    ///
    /// fn main() -> MemberResult {
    ///     let stop = Stop::with_grace(Duration::from_secs(10));
    ///     # #[cfg(feature = "signals")]
    ///     allout::signals::install(&stop)?;
    ///     let router = Router::new().get("/ping", |_| Response::text("pong"));
    ///     Server::bind("127.0.0.1:8080", Config::default())?.run(router, &stop)
    /// }
    /// ```
    pub fn with_grace(grace: Duration) -> Self {
        Self(Arc::new(Shared {
            set: AtomicBool::new(false),
            state: Mutex::new(State {
                first: None,
                told_at: None,
                end: None,
                grace: grace.min(FAR),
                lame_duck: Duration::ZERO,
                ours: Wakers::default(),
                theirs: Wakers::default(),
            }),
            changed: Condvar::new(),
            helpers: Helpers::new(),
        }))
    }

    /// Stops everything. Returns true if this was the first call: only the first cause is kept.
    ///
    /// You may call it at any time, even before the group runs, and as often as you like. It waits for nobody; only if
    /// the system has no thread for the embedder's wakers, it calls them itself.
    pub fn trigger(&self, cause: Cause) -> bool {
        let mut state = self.state();
        if state.first.is_some() {
            return false;
        }
        let told = cause.clone();
        state.first = Some((cause, sync::now()));
        let on_cause = std::mem::take(&mut state.ours.on_cause);
        for waker in std::mem::take(&mut state.theirs.on_cause) {
            let told = told.clone();
            self.0.helpers.put(move || waker(&told));
        }
        let on_stop = if state.lame_duck.is_zero() { self.set(&mut state) } else { Vec::new() };
        drop(state);
        on_cause.into_iter().for_each(|waker| _ = caught(|| waker(&told)));
        self.wake(on_stop);
        true
    }

    /// True once members have been told to stop. One atomic load: poll it as often as you like.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// The first cause. It is set as soon as it happens: with a lame-duck time, that is before
    /// [`is_set`](Self::is_set).
    pub fn cause(&self) -> Option<Cause> {
        self.state().first.as_ref().map(|(cause, _)| cause.clone())
    }

    /// When everybody must have left: the moment at which members were told to stop, plus the grace period.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Told(deadline) => Some(deadline),
            Phase::Running | Phase::Announced(_) => None,
        }
    }

    /// Blocks until members are told to stop.
    pub fn wait(&self) {
        let mut state = self.state();
        while state.told_at.is_none() {
            state = self.0.changed.wait(state);
        }
    }

    /// Blocks until members are told to stop, or until `timeout` has passed. Returns true if they have been told. A job
    /// that works at intervals is `while !stop.wait_timeout(interval) { work() }`.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let state = self.0.changed.wait_timeout_while(self.state(), timeout, |state| state.told_at.is_none());
        state.told_at.is_some()
    }

    /// Calls `waker` once, with the first cause, as soon as it happens.
    ///
    /// `waker` runs on a helper thread of the stop, so it may block: neither the deadline nor any other waker waits for
    /// it. [`Group::run`](crate::Group::run) returns only after `waker` has returned, or at the deadline. If the cause
    /// is already known, this call runs `waker` itself, on the calling thread.
    pub fn on_cause(&self, waker: impl FnOnce(&Cause) + Send + 'static) {
        self.when_caused(Box::new(waker), |state| &mut state.theirs);
    }

    /// Calls `waker` once, when members are told to stop. Use it for a member that waits on something other than this
    /// stop and must be woken.
    ///
    /// `waker` runs as for [`on_cause`](Self::on_cause): at once, on the calling thread, if members have already been
    /// told. It cannot be withdrawn: a member that connects again and again registers one waker for whatever
    /// connection is the current one.
    ///
    /// ```
    /// use std::net::{Shutdown, TcpStream};
    /// use std::sync::{Arc, Mutex};
    /// use allout::Stop;
    ///
    /// let stop = Stop::new();
    /// let current: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    /// let waiting = Arc::clone(&current);
    /// stop.on_stop(move || {
    ///     if let Some(stream) = &*waiting.lock().expect("nothing panics with it") {
    ///         let _ = stream.shutdown(Shutdown::Both); // ends its read
    ///     }
    /// });
    /// // For each connection: `current` is set, then `stop.is_set()` is looked at,
    /// // then it is read from.
    /// ```
    pub fn on_stop(&self, waker: impl FnOnce() + Send + 'static) {
        self.when_told(Box::new(waker), |state| &mut state.theirs);
    }

    /// Like [`on_cause`](Self::on_cause), but the triggering thread calls `waker`, before anything else: for our own
    /// wakers, which do not block.
    pub(crate) fn wake_on_cause(&self, waker: impl FnOnce(&Cause) + Send + 'static) {
        self.when_caused(Box::new(waker), |state| &mut state.ours);
    }

    /// Like [`on_stop`](Self::on_stop), but the thread that tells members to stop calls `waker`, before anything else:
    /// for our own wakers, which do not block.
    pub(crate) fn wake_on_stop(&self, waker: impl FnOnce() + Send + 'static) {
        self.when_told(Box::new(waker), |state| &mut state.ours);
    }

    #[inline(never)]
    fn when_caused(&self, waker: OnCause, whose: fn(&mut State) -> &mut Wakers) {
        let mut state = self.state();
        match &state.first {
            None => whose(&mut state).on_cause.push(waker),
            Some((cause, _)) => {
                let cause = cause.clone();
                drop(state);
                waker(&cause);
            }
        }
    }

    #[inline(never)]
    fn when_told(&self, waker: OnStop, whose: fn(&mut State) -> &mut Wakers) {
        let mut state = self.state();
        if state.told_at.is_none() {
            whose(&mut state).on_stop.push(waker);
        } else {
            drop(state);
            waker();
        }
    }

    /// The group starts. If the stop has already been triggered, its members are told to stop as soon as they run, and
    /// their grace period begins now.
    pub(crate) fn start(&self, grace: Duration, lame_duck: Duration) {
        let mut state = self.state();
        state.grace = grace.min(FAR);
        match state.told_at {
            None => state.lame_duck = lame_duck.min(FAR),
            Some(_) => state.told_at = Some(sync::now()),
        }
    }

    /// Tells members to stop. With a lame-duck time, this ends it.
    pub(crate) fn tell(&self) {
        let on_stop = self.set(&mut self.state());
        self.wake(on_stop);
    }

    /// Makes the step to `told`, unless it has been made. Returns our own wakers, for the caller to call.
    fn set(&self, state: &mut State) -> Vec<OnStop> {
        if state.told_at.is_some() {
            return Vec::new();
        }
        state.told_at = Some(sync::now());
        self.0.set.store(true, Ordering::Release);
        std::mem::take(&mut state.theirs.on_stop).into_iter().for_each(|waker| self.0.helpers.put(waker));
        std::mem::take(&mut state.ours.on_stop)
    }

    /// The part of a step that happens outside the lock. Our wakers do not panic themselves, but dropping what they
    /// hold may: one can be the last owner of a value of the embedder's.
    fn wake(&self, on_stop: Vec<OnStop>) {
        self.0.changed.notify_all();
        on_stop.into_iter().for_each(|waker| _ = caught(waker));
        self.0.helpers.begin();
    }

    /// Has a helper make a call that may block.
    pub(crate) fn call(&self, call: impl FnOnce() + Send + 'static) {
        self.0.helpers.put(call);
        self.0.helpers.begin();
    }

    /// Waits until every waker of the embedder's that has been queued has returned, or until the moment that `until`
    /// gives.
    pub(crate) fn wait_for_wakers(&self, until: impl FnMut(Instant) -> Instant) -> bool {
        self.0.helpers.wait(until)
    }

    /// The group has ended. Nobody is left to end a lame-duck time, so from now on a trigger tells members at once.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        state.lame_duck = Duration::ZERO;
        let is_caused = state.first.is_some();
        drop(state);
        if is_caused {
            self.tell();
        }
    }

    #[cfg(feature = "signals")]
    pub(crate) fn ended(&self) -> Option<End> {
        self.state().end
    }

    #[inline(never)]
    pub(crate) fn phase(&self) -> Phase {
        let state = self.state();
        match (state.told_at, &state.first) {
            (Some(told), _) => Phase::Told(told + state.grace),
            (None, Some((_, at))) => Phase::Announced(*at + state.lame_duck),
            (None, None) => Phase::Running,
        }
    }

    /// When the first cause happened.
    pub(crate) fn triggered_at(&self) -> Option<Instant> {
        self.state().first.as_ref().map(|(_, at)| *at)
    }

    /// A handle that keeps nothing alive. A waker registered with another stop holds one, so that two stops that wake
    /// each other do not keep each other alive for ever.
    pub(crate) fn downgrade(&self) -> WeakStop {
        WeakStop(Arc::downgrade(&self.0))
    }

    // Nothing panics while this is locked: wakers run outside.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

/// Drops the wakers that were never called, each separately: they are the embedder's, and two may panic.
impl Drop for Wakers {
    fn drop(&mut self) {
        self.on_cause.drain(..).for_each(|waker| _ = caught(|| drop(waker)));
        self.on_stop.drain(..).for_each(|waker| _ = caught(|| drop(waker)));
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("is_set", &self.is_set()).field("cause", &self.cause()).finish()
    }
}

/// See [`Stop::downgrade`].
pub(crate) struct WeakStop(Weak<Shared>);

impl WeakStop {
    /// The stop, if it still exists.
    pub(crate) fn upgrade(&self) -> Option<Stop> {
        self.0.upgrade().map(Stop)
    }
}

/// How long to wait for somebody after the deadline, while it cuts off what it holds and reports it.
///
/// If even the slack is long past, the whole process was suspended (SIGSTOP, swapping), so nobody could have met the
/// deadline. Grant one extension, a long one, since there is much to catch up with.
#[derive(Debug)]
pub(crate) struct Slack {
    time: Duration,
    thawed_until: Option<Instant>,
}

impl Slack {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, thawed_until: None }
    }

    /// The moment until which to wait, as of `now`.
    pub(crate) fn until(&mut self, deadline: Instant, now: Instant) -> Instant {
        let until = deadline + self.time;
        if until + self.time < now && self.thawed_until.is_none() {
            self.thawed_until = Some(now + self.time * 20);
        }
        self.thawed_until.unwrap_or(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_frozen_past_the_deadline_is_given_time_once() {
        let ms = Duration::from_millis;
        let (deadline, mut slack) = (sync::now(), Slack::new(ms(100)));
        for late in [0, 99, 100, 101, 200] {
            assert_eq!(slack.until(deadline, deadline + ms(late)), deadline + ms(100), "{late} ms late");
        }
        for late in [5000, 6999, 7000, 60_000] {
            assert_eq!(slack.until(deadline, deadline + ms(late)), deadline + ms(7000), "{late} ms late");
        }
    }
}
