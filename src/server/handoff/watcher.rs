//! The watcher: the thread that runs the server finds slow handlers and waits for the end.

use std::time::{Duration, Instant};

use super::word::Snapshot;
use super::workers::{LoopEnd, Task, WorkerPool};
use crate::group::{CutOff, MemberResult};
use crate::server::event_loop::EventLoop;
use crate::server::notice::Notice;
use crate::server::shared::Shared;
use crate::server::throttle::{Backoff, Throttle};
use crate::stop::Slack;
use crate::sync::{self, Arc, Ordering};

/// How often to look at the slots while requests are being served: a handler counts as slow after one to two of these.
const LOOK_INTERVAL: Duration = Duration::from_micros(1500);
/// The same while handlers have recently been slow. Where one blocks, others will, and the clients on the same loop
/// wait this long: that is worth the watcher's wake-ups, some 3 µs each.
const LOOK_INTERVAL_ALERT: Duration = Duration::from_micros(300);
/// How long after the last slow handler the watcher stays alert.
const ALERT: Duration = Duration::from_secs(1);
/// After how many looks without a request the watcher goes to sleep: so many that a client that pauses briefly does not
/// wake it for each request.
const QUIET_LOOKS_MAX: u32 = 20;
/// How long after the deadline to wait for loops that are cutting off their connections.
const SLACK: Duration = Duration::from_millis(50);
/// How long after that to look at loops that have not ended.
const LAST_LOOKS: Duration = Duration::from_millis(15);

/// Runs the loops until they have drained, or until a little after the deadline. Fails if an answer was cut off, or a
/// loop failed or did not end.
pub(crate) fn supervise(event_loops: Vec<EventLoop>, shared: &Arc<Shared>) -> MemberResult {
    let loops = event_loops.len();
    let pool = WorkerPool::new(event_loops, Arc::clone(shared));
    let wake = Arc::downgrade(&pool);
    shared.stop.wake_on_stop(move || {
        let Some(pool) = wake.upgrade() else { return };
        pool.shared.loops.iter().for_each(|handle| handle.inbox.wake());
        drop(pool.state());
        pool.watch_changed.notify_all();
    });
    for index in 0..loops {
        if let Err(error) = pool.dispatch(Task::Start(index)) {
            pool.bury(index, format!("cannot start a thread: {error}"));
        }
    }
    Watcher::new(&pool, loops).watch();
    pool.dismiss();
    let deadline = shared.stop.deadline().unwrap_or_else(sync::now);
    cut_off_lent(&pool, loops);
    wait_for_threads(&pool, deadline + SLACK);
    pool.join(deadline);
    total(&pool)
}

/// Waits until only displaced handlers still hold threads.
fn wait_for_threads(pool: &WorkerPool, until: Instant) {
    let mut state = pool.state();
    while state.alive > pool.shared.permits.displaced() {
        let timeout = until.saturating_duration_since(sync::now());
        if timeout.is_zero() {
            break;
        }
        state = pool.watch_changed.wait_timeout(state, timeout).0;
    }
}

/// Cuts off what the loops that have not ended still hold. One look at each is not enough: just then a handler's thread
/// may have the loop, to answer, to call the next handler or to begin a stream, and lend it again; or it may end the
/// loop, since the deadline has passed. So looks at those that are left for a moment longer.
fn cut_off_lent(pool: &WorkerPool, loops: usize) {
    let until = sync::now() + LAST_LOOKS;
    let mut state = pool.state();
    while !state.are_all_over() {
        drop(state);
        (0..loops).for_each(|index| pool.cut_off_lent(index));
        state = pool.state();
        if state.are_all_over() || sync::now() >= until {
            return;
        }
        state = pool.watch_changed.wait_timeout(state, LOOK_INTERVAL).0;
    }
}

fn total(pool: &WorkerPool) -> MemberResult {
    // Keeps the slots of `ends`, for a loop that ends later.
    let ends: Vec<_> = pool.state().ends.iter_mut().map(Option::take).collect();
    let (mut total, mut unknown, mut unclosed) = (CutOff::default(), 0, 0);
    let mut failure = None;
    for (end, handle) in ends.into_iter().zip(&pool.shared.loops) {
        let counted = || std::mem::take(&mut *handle.counted.lock());
        let end = end.unwrap_or_else(|| {
            let counted = counted();
            *if counted.is_some() { &mut unclosed } else { &mut unknown } += 1;
            LoopEnd { cut_off: counted.unwrap_or_default(), error: None }
        });
        total.owed += end.cut_off.owed;
        total.details.extend(end.cut_off.details);
        failure = failure.or(end.error);
    }
    // A loop that has not reported counts as an unclean end; so does one whose connections close only when the process
    // ends.
    if unknown > 0 {
        total.details.push(format!("unknown, since {} did not end in time", event_loops(unknown)));
    }
    if unclosed > 0 {
        total.details.push(format!("{} had no time to close connections", event_loops(unclosed)));
    }
    pool.shared.totals.add_cut_off(total.owed);
    match failure {
        Some(error) if total.owed > 0 => Err(format!("{error}; {total}").into()),
        Some(error) => Err(error.into()),
        None if total.owed > 0 || !total.details.is_empty() => Err(Box::new(total)),
        None => Ok(()),
    }
}

fn event_loops(count: usize) -> String {
    if count == 1 { "1 event loop".to_owned() } else { format!("{count} event loops") }
}

struct Watcher<'a> {
    pool: &'a Arc<WorkerPool>,
    loops: usize,
    /// What each loop's word said at the last look.
    seen: Vec<Snapshot>,
    /// For each loop, the lending for which a spare has been sent.
    sent: Vec<Option<Snapshot>>,
    quiet_looks: u32,
    alert_until: Instant,
    /// When to try again to start a thread, if that failed.
    spawn_at: Instant,
    backoff: Backoff,
    spawn_failed: Throttle,
    started: Instant,
    slack: Slack,
}

impl<'a> Watcher<'a> {
    fn new(pool: &'a Arc<WorkerPool>, loops: usize) -> Self {
        let started = sync::now();
        Self {
            pool,
            loops,
            seen: pool.shared.permits.words.iter().map(super::word::Word::load).collect(),
            sent: vec![None; loops],
            quiet_looks: 0,
            alert_until: started,
            spawn_at: started,
            backoff: Backoff::new(),
            spawn_failed: Throttle::default(),
            started,
            slack: Slack::new(SLACK),
        }
    }

    /// Returns once all loops have ended, or their time is up.
    fn watch(mut self) {
        while !self.is_over() {
            let is_active = self.look();
            self.quiet_looks = if is_active { 0 } else { self.quiet_looks + 1 };
            if self.quiet_looks < QUIET_LOOKS_MAX {
                self.pause();
            } else {
                self.sleep();
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let now = sync::now();
        self.pool.state().are_all_over() || self.until(now).is_some_and(|until| until <= now)
    }

    /// Until when to wait for loops; `None` before the stop.
    fn until(&mut self, now: Instant) -> Option<Instant> {
        self.pool.shared.stop.deadline().map(|deadline| self.slack.until(deadline, now))
    }

    /// Looks at every slot, and sends a spare for a loop that has lain there since the last look. Returns false if
    /// nothing has been served since.
    fn look(&mut self) -> bool {
        self.pool.shared.looks.fetch_add(1, Ordering::Relaxed);
        let mut is_active = false;
        for index in 0..self.loops {
            let snapshot = self.pool.shared.permits.words[index].load();
            let before = std::mem::replace(&mut self.seen[index], snapshot);
            is_active |= snapshot != before || snapshot.is_busy();
            if snapshot == before && snapshot.is_lent() && self.sent[index] != Some(snapshot) {
                self.send_spare(index, snapshot);
            }
        }
        is_active
    }

    fn send_spare(&mut self, index: usize, lending: Snapshot) {
        let now = sync::now();
        if now < self.spawn_at {
            return;
        }
        match self.pool.dispatch(Task::TakeOver(index, lending)) {
            Ok(()) => {
                self.alert_until = now + ALERT;
                self.sent[index] = Some(lending);
                self.backoff.reset();
            }
            Err(error) => {
                self.spawn_at = now + self.backoff.next();
                if self.spawn_failed.count(self.started, now).is_some() {
                    self.pool.shared.tell(&Notice::ThreadFailed { error: &error });
                }
            }
        }
    }

    fn pause(&self) {
        let interval = if sync::now() < self.alert_until { LOOK_INTERVAL_ALERT } else { LOOK_INTERVAL };
        let state = self.pool.state();
        drop(self.pool.watch_changed.wait_timeout(state, interval));
    }

    /// Sleeps until a handler is called, all loops end, or the stop comes; after the stop, no longer than the watcher
    /// waits for loops.
    fn sleep(&mut self) {
        let pool = self.pool;
        pool.is_watcher_asleep.store(true, Ordering::SeqCst);
        // A thread that lent a loop before this may not have seen that we sleep.
        let is_busy = pool.shared.permits.words.iter().any(|word| word.load().is_busy());
        if !is_busy {
            let mut state = pool.state();
            while pool.is_watcher_asleep.load(Ordering::SeqCst) && !state.are_all_over() {
                // Before the stop there is no deadline, and the stop wakes us.
                let now = sync::now();
                let Some(until) = self.until(now) else {
                    state = pool.watch_changed.wait(state);
                    continue;
                };
                let timeout = until.saturating_duration_since(now);
                if timeout.is_zero() {
                    break;
                }
                state = pool.watch_changed.wait_timeout(state, timeout).0;
            }
        }
        pool.is_watcher_asleep.store(false, Ordering::SeqCst);
        self.quiet_looks = 0;
    }
}
