//! The group: members start together and leave together.
//!
//! ```text
//! add, add, … ──run──▶ a thread each ──any exit──▶ stop triggered ──▶ all leave, or the deadline passes ──▶ Outcome
//! ```
//!
//! Why not [`std::thread::scope`]? A scope joins every thread before it returns, however long that takes. The whole
//! point of a deadline is to return even if somebody has not left. So threads are detached from the group's stack: each
//! reports its exit on a board, helpers join those that have reported, and the group waits for both until the deadline
//! and names the members that are missing. Nothing in std can end their threads; the caller can, by leaving `main`.
//!
//! A group inside a group has its own stop, but no thread and no board: its members report to the outermost group,
//! under their path. So there is one wait, with one deadline, and one list of who has left.

use std::fmt;
use std::time::{Duration, Instant};

use crate::helpers::Helpers;
use crate::outcome::MemberExit;
pub use crate::outcome::{CutOff, Exit, MemberResult, Outcome};
use crate::panics::caught;
use crate::stop::{Cause, End, FAR, GRACE, Phase, Slack, Stop};
use crate::sync::{self, Arc, Builder, Condvar, JoinHandle, Mutex, MutexGuard};

/// How long after the deadline a group still waits for members that are cutting off what they hold. A little less than
/// the 100 ms within which `run` must return.
const SLACK: Duration = Duration::from_millis(90);
/// How long a thread may take to end after its member has reported, before it counts as one that never ends.
const JOIN: Duration = Duration::from_millis(50);

type Body = Box<dyn FnOnce(&Stop) -> MemberResult + Send>;
type OnHalfGrace = Box<dyn FnOnce(&[String]) + Send>;

struct Member {
    /// The names of the groups around it, without the outermost, and its own: `inner/job`.
    path: String,
    name: String,
    /// The stop of the group that it was added to.
    stop: Stop,
    body: Body,
}

/// Members that run side by side until any one of them exits.
///
/// ```
/// use std::time::Duration;
///
/// let mut group = allout::Group::new();
/// group.add("worker", |stop| {
///     while !stop.wait_timeout(Duration::from_millis(10)) { /* work */ }
///     Ok(())
/// });
/// group.add("main job", |_| Ok(())); // done at once, and so everybody leaves
/// let outcome = group.run(Duration::from_secs(3));
/// assert_eq!(outcome.exit_code(), 0);
/// ```
///
/// Dropping a group without running it drops its members; signals then no longer trigger its stop.
#[derive(Default)]
pub struct Group {
    stop: Stop,
    members: Vec<Member>,
    /// Groups inside this one. Their members are in `members`.
    inner: Vec<Group>,
    lame_duck: Duration,
    /// For this group and those inside it.
    half_grace: HalfGrace,
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// The group's stop. You may hand it out and trigger it before the group runs.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Lets members work on for `time` after the first cause, before they are told to stop, so that load balancers can
    /// notice (see [`Stop::cause`]). The grace period begins when this time ends.
    pub fn lame_duck(&mut self, time: Duration) {
        self.lame_duck = time;
    }

    /// Calls `listen` once half the grace period is over, if members still run then: with their names, those of members
    /// of inner groups as paths (`inner/job`). It is not called if all have left by then, or if there is no grace.
    ///
    /// In a group that is inside another, it is called at half the grace of the outermost, for its own members alone.
    ///
    /// `listen` runs on a helper thread, so it may block: neither the deadline nor any member waits for it.
    /// [`run`](Self::run) returns only after `listen` has returned, or at the deadline.
    ///
    /// ```
    /// let mut group = allout::Group::new();
    /// group.on_half_grace(|members| eprintln!("still here: {}", members.join(", ")));
    /// ```
    pub fn on_half_grace(&mut self, listen: impl FnOnce(&[String]) + Send + 'static) {
        self.half_grace.calls.push((String::new(), Box::new(listen)));
    }

    /// Adds a member. `body` runs on its own thread, which has the member's name, and should return soon after its stop
    /// is set. When it exits, in whatever way, the group stops.
    ///
    /// A member that is added after the stop still runs (see [`run`](Self::run)).
    pub fn add(&mut self, name: impl Into<String>, body: impl FnOnce(&Stop) -> MemberResult + Send + 'static) {
        let name = name.into();
        self.members.push(Member { path: name.clone(), name, stop: self.stop(), body: Box::new(body) });
    }

    /// Adds a whole group as a member. From now on a cause in either group is a cause of both, and both are told to
    /// stop at the same moment: the outer group's lame-duck time and deadline apply to the inner one.
    ///
    /// The [`Outcome`] names its members by their path, `inner/job` for example. An empty inner group is done at once.
    ///
    /// ```
    /// use allout::{GRACE, Group};
    ///
    /// let (mut outer, mut inner) = (Group::new(), Group::new());
    /// inner.add("job", |_| Err("no luck".into()));
    /// outer.add_group("inner", inner);
    /// assert_eq!(outer.run(GRACE).exits().next().map(|exit| exit.0), Some("inner/job"));
    /// ```
    pub fn add_group(&mut self, name: impl Into<String>, mut inner: Self) {
        let name = name.into();
        if inner.members.is_empty() {
            self.add(name.clone(), |_| Ok(()));
        }
        for mut member in inner.members.drain(..) {
            member.path = format!("{name}/{}", member.path);
            self.members.push(member);
        }
        for (group, listen) in inner.half_grace.calls.drain(..) {
            self.half_grace.calls.push((format!("{name}/{group}"), listen));
        }
        // Only the outer group tells it to stop.
        inner.stop.start(GRACE, FAR);
        let (up, down) = (self.stop.downgrade(), inner.stop());
        inner.stop.wake_on_cause(move |cause| {
            if let Some(up) = up.upgrade() {
                up.trigger(cause.clone().within(&name));
            }
        });
        self.stop.wake_on_cause(move |cause| {
            down.trigger(cause.clone());
        });
        let down = inner.stop();
        self.stop.wake_on_stop(move || down.tell());
        self.inner.push(inner);
    }

    /// Runs all members. Waits until they have left, or until `grace` plus at most 100 ms has passed since they were
    /// told to stop; two seconds more only if the whole process was suspended at the deadline. An empty group returns
    /// at once.
    ///
    /// Every member runs, even if the stop was triggered before it could start: a server that is bound may have clients
    /// in its queue, and owes them an answer. A member that must not start after a stop checks `stop.is_set()` itself.
    pub fn run(mut self, grace: Duration) -> Outcome {
        let stop = self.stop();
        let mut slack = Slack::new(SLACK);
        let members = std::mem::take(&mut self.members);
        let mut half_grace = std::mem::take(&mut self.half_grace);
        half_grace.grace = grace.min(FAR);
        let lame_duck = if members.is_empty() { Duration::ZERO } else { self.lame_duck };
        self.start(grace, lame_duck);
        let exits =
            if members.is_empty() { Vec::new() } else { run_members(members, &stop, &mut slack, &mut half_grace) };
        self.tell();
        self.wait_for_wakers(&mut |now| stop.deadline().map_or(now, |deadline| slack.until(deadline, now)));
        self.end(End::Ran(sync::now()));
        let took = stop.triggered_at().map_or(Duration::ZERO, |at| sync::now() - at);
        Outcome::new(stop.cause(), exits, took)
    }

    fn start(&self, grace: Duration, lame_duck: Duration) {
        self.stop.start(grace, lame_duck);
        self.inner.iter().for_each(|inner| inner.start(grace, FAR));
    }

    /// All members have left, or their time is up. The triggering thread may not have called all wakers yet.
    fn tell(&self) {
        let Some(cause) = self.stop.cause() else { return };
        self.stop.tell();
        for inner in &self.inner {
            inner.stop.trigger(cause.clone());
            inner.tell();
        }
    }

    /// Lets wakers report the stop before the end, if they can.
    fn wait_for_wakers(&self, until: &mut dyn FnMut(Instant) -> Instant) {
        self.stop.wait_for_wakers(&mut *until);
        self.inner.iter().for_each(|inner| inner.wait_for_wakers(until));
    }

    fn end(&self, end: End) {
        self.stop.end(end);
        self.inner.iter().for_each(|inner| inner.end(end));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // If the group has run, its end stands already, and this one is ignored.
        self.end(End::NeverRan);
        // Each separately, since two of them may panic.
        self.members.drain(..).for_each(|member| _ = caught(|| drop(member)));
    }
}

/// Starts them all, and waits as [`Group::run`] says. Returns the exits in the order of [`Outcome::exits`].
fn run_members(members: Vec<Member>, stop: &Stop, slack: &mut Slack, half_grace: &mut HalfGrace) -> Vec<MemberExit> {
    let board = Board::new(stop);
    let mut running = Vec::new();
    let mut not_started = Vec::new();
    for member in members {
        let (path, name, stop) = (member.path.clone(), member.name.clone(), member.stop.clone());
        // A member that is not started is dropped here, which may panic too.
        let error = match caught(|| board.start(running.len(), member)) {
            Ok(Ok(thread)) => {
                running.push((path, Some(thread)));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        stop.trigger(Cause::Failed { who: name, error: format!("cannot start its thread: {error}") });
        not_started.push(path);
    }
    let left = board.wait(&mut running, stop, slack, half_grace);

    let (told, now) = (stop.triggered_at().unwrap_or_else(sync::now), sync::now());
    let (mut exits, mut missing) = (Vec::new(), Vec::new());
    for Left { member, exit, at, is_joined } in left {
        let path = std::mem::take(&mut running[member].0);
        let after = at.saturating_duration_since(told);
        if exit == Exit::Done && !is_joined && at + JOIN <= now {
            // Its work is done, but its thread has not ended.
            missing.push((path, Exit::Missing, after));
        } else {
            exits.push((path, exit, after));
        }
    }
    exits.extend(missing);
    let never_left = running.into_iter().filter(|(_, thread)| thread.is_some());
    exits.extend(never_left.map(|(path, _)| (path, Exit::Missing, sync::now() - told)));
    exits.extend(not_started.into_iter().map(|path| (path, Exit::NotStarted, Duration::ZERO)));
    exits
}

/// The members that have not left.
fn still_here(running: &[(String, Option<JoinHandle<()>>)], left: &[Left]) -> Vec<String> {
    let has_left = |member: usize| left.iter().any(|left| left.member == member);
    let still = running.iter().enumerate().filter(|(member, _)| !has_left(*member));
    still.map(|(_, (path, _))| path.clone()).collect()
}

/// What to call at half the grace period.
#[derive(Default)]
struct HalfGrace {
    /// Each with the path of the group that it was given to: `inner/`.
    calls: Vec<(String, OnHalfGrace)>,
    grace: Duration,
}

impl HalfGrace {
    /// When to call. `None` if there is nothing to call, all have been called, or there is no grace.
    fn at(&self, deadline: Instant) -> Option<Instant> {
        (!self.calls.is_empty() && !self.grace.is_zero()).then(|| deadline - self.grace / 2)
    }

    /// Has each called whose group has members among those that are still here.
    fn tell(&mut self, still: &[String], stop: &Stop) {
        for (group, listen) in self.calls.drain(..) {
            let own = still.iter().filter_map(|path| path.strip_prefix(&group)).map(ToOwned::to_owned);
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                let _ = caught(|| drop(listen));
            } else {
                stop.call(move || listen(&own));
            }
        }
    }
}

/// They are the embedder's: each is dropped separately, since two may panic.
impl Drop for HalfGrace {
    fn drop(&mut self) {
        self.calls.drain(..).for_each(|(_, listen)| _ = caught(|| drop(listen)));
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.members.iter().map(|member| &member.path).collect();
        f.debug_struct("Group").field("stop", &self.stop).field("members", &paths).finish()
    }
}

/// Where members report that they have left, and helpers that they have joined a thread.
struct Board {
    left: Mutex<Vec<Left>>,
    changed: Condvar,
    helpers: Helpers,
}

struct Left {
    member: usize,
    exit: Exit,
    at: Instant,
    is_joined: bool,
}

impl Board {
    fn new(stop: &Stop) -> Arc<Self> {
        let board = Arc::new(Self { left: Mutex::new(Vec::new()), changed: Condvar::new(), helpers: Helpers::new() });
        // The stop must wake the waiter too, so that it learns its deadline. Locking first closes the gap between the
        // waiter's look at the stop and its wait.
        let notify = |board: &Arc<Self>| {
            let board = Arc::clone(board);
            move || {
                drop(board.left());
                board.changed.notify_all();
            }
        };
        let on_cause = notify(&board);
        stop.wake_on_cause(move |_| on_cause());
        stop.wake_on_stop(notify(&board));
        board
    }

    fn start(self: &Arc<Self>, number: usize, member: Member) -> std::io::Result<JoinHandle<()>> {
        let Member { name, stop, body, .. } = member;
        let board = Arc::clone(self);
        let thread = Builder::new().name(name.replace('\0', " "));
        let run = move || {
            // Whatever a member does, its exit must be reported, or the group would wait for ever. Formatting its error
            // may panic. Dropping the error, or a panic's payload, may panic or block: so that comes after the report.
            let result = caught(|| body(&stop));
            let exit = match &result {
                Ok(Ok(())) => Exit::Done,
                Ok(Err(error)) => {
                    caught(|| Exit::of(error.as_ref())).unwrap_or_else(|panic| Exit::Panicked(panic.to_string()))
                }
                Err(panic) => Exit::Panicked(panic.to_string()),
            };
            // First the cause, then the report: anyone who reads the board finds the stop triggered.
            stop.trigger(exit.cause(name));
            board.left().push(Left { member: number, exit, at: sync::now(), is_joined: false });
            board.changed.notify_all();
            let _ = caught(|| drop(result));
        };
        sync::spawn(thread, Box::new(run))
    }

    /// Waits until all these members have left and been joined, or until the deadline and the slack have passed.
    ///
    /// The threads of members that have left only have to end. That takes no time, unless a destructor blocks (of a
    /// thread-local value, for example). std cannot give up a join, and its `is_finished` does not wait for such
    /// values. So helpers join; one of them stays stuck with each thread that does not end.
    fn wait(
        self: &Arc<Self>,
        running: &mut [(String, Option<JoinHandle<()>>)],
        stop: &Stop,
        slack: &mut Slack,
        half_grace: &mut HalfGrace,
    ) -> Vec<Left> {
        let mut left = self.left();
        loop {
            let joinable = left.iter().filter_map(|left| Some((left.member, running[left.member].1.take()?)));
            let joinable: Vec<_> = joinable.collect();
            if !joinable.is_empty() {
                drop(left);
                self.join(joinable);
                left = self.left();
                continue;
            }
            let have_all_left = left.len() == running.len();
            if have_all_left && left.iter().all(|left| left.is_joined) {
                let all = std::mem::take(&mut *left);
                drop(left);
                self.helpers.join();
                return all;
            }
            let now = sync::now();
            let until = match stop.phase() {
                Phase::Running => None,
                // No member is left to work on as a lame duck, or to tell those outside the group that wait for the
                // stop.
                Phase::Announced(told_at) if told_at <= now || have_all_left => {
                    drop(left);
                    stop.tell();
                    left = self.left();
                    continue;
                }
                Phase::Announced(told_at) => Some(told_at),
                Phase::Told(deadline) => match (half_grace.at(deadline), slack.until(deadline, now)) {
                    (Some(half), _) if half <= now => {
                        let still = still_here(running, &left);
                        drop(left);
                        half_grace.tell(&still, stop);
                        left = self.left();
                        continue;
                    }
                    (_, until) if until <= now => return std::mem::take(&mut *left),
                    (half, until) => Some(half.map_or(until, |half| until.min(half))),
                },
            };
            left = self.changed(left, until.map(|until| until.saturating_duration_since(now)));
        }
    }

    fn join(self: &Arc<Self>, threads: Vec<(usize, JoinHandle<()>)>) {
        for (member, thread) in threads {
            let board = Arc::clone(self);
            self.helpers.put(move || {
                let _ = thread.join();
                board.left().iter_mut().filter(|left| left.member == member).for_each(|left| left.is_joined = true);
                board.changed.notify_all();
            });
        }
        self.helpers.begin();
    }

    /// Waits for a change, or until `timeout` has passed.
    fn changed<'a>(&self, left: MutexGuard<'a, Vec<Left>>, timeout: Option<Duration>) -> MutexGuard<'a, Vec<Left>> {
        match timeout {
            None => self.changed.wait(left),
            Some(timeout) => self.changed.wait_timeout(left, timeout).0,
        }
    }

    // Nothing panics while this is locked.
    fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock()
    }
}
