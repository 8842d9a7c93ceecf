//! The stop: one flag, the first cause, one deadline.
//!
//! ```text
//! running ──trigger──▶ announced ──lame duck over──▶ told to stop ──grace over──▶ deadline
//!                      (cause known, still serving)   (`is_set`)
//! ```
//!
//! Without a lame-duck time, which is the default, the first two arrows are one step. The first trigger takes the
//! cause, whatever comes later and however grave it is: what a group died of is what happened first. There is no way
//! back, so a reader that once saw the flag set needs no lock to believe it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::panics::caught;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering, PoisonError, Weak};

/// How long members have to leave, unless the group says otherwise: 3 seconds.
pub const GRACE: Duration = Duration::from_secs(3);

/// Longer times than this, 34 years, are as good as for ever, and would overflow the clock.
pub(crate) const FAR: Duration = Duration::from_secs(1 << 30);

/// Why everything stops.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// Somebody asked for it; the text says by which way, `/shutdown` for example.
    Request(String),
    /// The member of this name returned `Ok`.
    Done(String),
    /// Something failed: a member that returned `Err`, or a part of one that cannot go on.
    Failed {
        /// The member or part.
        who: String,
        /// What it said.
        error: String,
    },
    /// A member panicked.
    Panicked {
        /// The member.
        who: String,
        /// What the panic said.
        text: String,
    },
}

impl Cause {
    /// The same cause, seen from outside the group of this name.
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

/// Tells everybody to stop. Clones are handles to the same stop, and may be triggered from anywhere: a handler, a
/// signal handler's thread, a member.
#[derive(Clone)]
pub struct Stop(Arc<Shared>);

struct Shared {
    set: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    first: Option<(Cause, Instant)>,
    told_at: Option<Instant>,
    ended_at: Option<Instant>,
    grace: Duration,
    lame_duck: Duration,
    on_cause: Vec<OnCause>,
    on_stop: Vec<OnStop>,
}

type OnCause = Box<dyn FnOnce(&Cause) + Send>;
type OnStop = Box<dyn FnOnce() + Send>;

/// Where a stop is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// The cause is known; members are told at this moment.
    Announced(Instant),
    /// Members have been told, and have until this deadline.
    Told(Instant),
}

impl Stop {
    /// A stop that nobody has triggered yet, with a grace period of [`GRACE`].
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            set: AtomicBool::new(false),
            state: Mutex::new(State {
                first: None,
                told_at: None,
                ended_at: None,
                grace: GRACE,
                lame_duck: Duration::ZERO,
                on_cause: Vec::new(),
                on_stop: Vec::new(),
            }),
            changed: Condvar::new(),
        }))
    }

    /// Stops everything. Returns true if this was the first call: its cause is the one that is kept.
    ///
    /// May be called at any time, before the group runs too, and as often as one likes. It does not wait for anybody,
    /// but calls what was registered by [`on_cause`](Self::on_cause) and [`on_stop`](Self::on_stop).
    pub fn trigger(&self, cause: Cause) -> bool {
        let mut state = self.state();
        if state.first.is_some() {
            return false;
        }
        let told = cause.clone();
        state.first = Some((cause, Instant::now()));
        let on_cause = std::mem::take(&mut state.on_cause);
        let is_immediate = state.lame_duck.is_zero();
        drop(state);
        for waker in on_cause {
            shielded(|| waker(&told));
        }
        if is_immediate {
            self.tell();
        }
        true
    }

    /// True once members have been told to stop. One atomic load: poll it as often as you like.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// The first cause, from the moment at which it happened: with a lame-duck time, before [`is_set`](Self::is_set).
    pub fn cause(&self) -> Option<Cause> {
        self.state().first.as_ref().map(|(cause, _)| cause.clone())
    }

    /// The moment by which everybody must have left: the moment of being told, plus the grace period.
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
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until members are told to stop, or for this long. Returns true if they have been told: a job that works
    /// at intervals is `while !stop.wait_timeout(interval) { work() }`.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(self.state(), timeout, |state| state.told_at.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.told_at.is_some()
    }

    /// Calls `waker` once, with the first cause, when it happens; at once if it already has.
    ///
    /// It runs on the thread that triggers, and must not block.
    pub fn on_cause(&self, waker: impl FnOnce(&Cause) + Send + 'static) {
        let mut state = self.state();
        match &state.first {
            None => state.on_cause.push(Box::new(waker)),
            Some((cause, _)) => {
                let cause = cause.clone();
                drop(state);
                waker(&cause);
            }
        }
    }

    /// Calls `waker` once when members are told to stop; at once if they already have been. For a member that waits
    /// on something other than this stop, and has to be woken.
    ///
    /// It runs on the thread that triggers, and must not block.
    pub fn on_stop(&self, waker: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.told_at.is_none() {
            state.on_stop.push(Box::new(waker));
        } else {
            drop(state);
            waker();
        }
    }

    /// The group starts. If the stop has been triggered already, its members are told as soon as they are there, and
    /// have their grace period from now on.
    pub(crate) fn start(&self, grace: Duration, lame_duck: Duration) {
        let mut state = self.state();
        state.grace = grace.min(FAR);
        match state.told_at {
            None => state.lame_duck = lame_duck.min(FAR),
            Some(_) => state.told_at = Some(Instant::now()),
        }
    }

    /// Tells members to stop: the end of the lame-duck time, if there is one.
    pub(crate) fn tell(&self) {
        let mut state = self.state();
        if state.told_at.is_some() {
            return;
        }
        state.told_at = Some(Instant::now());
        self.0.set.store(true, Ordering::Release);
        let on_stop = std::mem::take(&mut state.on_stop);
        drop(state);
        self.0.changed.notify_all();
        for waker in on_stop {
            shielded(waker);
        }
    }

    /// The group has ended: there is nobody left to tell.
    pub(crate) fn end(&self) {
        self.state().ended_at = Some(Instant::now());
    }

    /// The moment at which the group ended.
    #[cfg(feature = "signals")]
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.state().ended_at
    }

    pub(crate) fn phase(&self) -> Phase {
        let state = self.state();
        match (state.told_at, &state.first) {
            (Some(told), _) => Phase::Told(told + state.grace),
            (None, Some((_, at))) => Phase::Announced(*at + state.lame_duck),
            (None, None) => Phase::Running,
        }
    }

    pub(crate) fn grace(&self) -> Duration {
        self.state().grace
    }

    /// The moment of the first cause.
    pub(crate) fn triggered_at(&self) -> Option<Instant> {
        self.state().first.as_ref().map(|(_, at)| *at)
    }

    /// A handle that keeps nothing alive: for a waker that is registered with another stop, so that two that wake each
    /// other do not keep each other for ever.
    pub(crate) fn downgrade(&self) -> WeakStop {
        WeakStop(Arc::downgrade(&self.0))
    }

    // Nothing panics while it is locked; wakers run outside.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// The stop, if anybody still has it.
    pub(crate) fn upgrade(&self) -> Option<Stop> {
        self.0.upgrade().map(Stop)
    }
}

/// How long somebody is waited for after the deadline, to cut off what it holds and to say so.
///
/// A waiter that finds even this long over has not been running (SIGSTOP, a machine that swaps), and nor has whoever it
/// waits for: nobody had a chance to keep the deadline. They are given one, once, and a long one, since there is much
/// to catch up with.
#[derive(Debug)]
pub(crate) struct Slack {
    time: Duration,
    thawed_until: Option<Instant>,
}

impl Slack {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, thawed_until: None }
    }

    /// The moment until which to wait, as it looks `now`.
    pub(crate) fn until(&mut self, deadline: Instant, now: Instant) -> Instant {
        let until = deadline + self.time;
        if until + self.time < now && self.thawed_until.is_none() {
            self.thawed_until = Some(now + self.time * 20);
        }
        self.thawed_until.unwrap_or(until)
    }
}

/// One waker's panic must neither keep the others asleep nor kill the thread that triggered: on the signal thread it
/// would swallow every later signal. The panic hook has reported it.
fn shielded(waker: impl FnOnce()) {
    let _ = caught(waker);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_frozen_past_the_deadline_is_given_time_once() {
        let ms = Duration::from_millis;
        let (deadline, mut slack) = (Instant::now(), Slack::new(ms(100)));
        for late in [0, 99, 100, 101, 200] {
            assert_eq!(slack.until(deadline, deadline + ms(late)), deadline + ms(100), "{late} ms late");
        }
        for late in [5000, 6999, 7000, 60_000] {
            assert_eq!(slack.until(deadline, deadline + ms(late)), deadline + ms(7000), "{late} ms late");
        }
    }
}
