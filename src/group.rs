//! The group: members start together and leave together.
//!
//! ```text
//! add, add, … ──run──▶ a thread each ──any exit──▶ stop triggered ──▶ all leave, or the deadline passes ──▶ Outcome
//! ```
//!
//! Why not [`std::thread::scope`]? A scope joins every thread before it returns, however long that takes. The whole
//! point of a deadline is to return although somebody did not leave. So threads are detached from the group's stack:
//! each reports its exit on a board, helpers join those that have reported, and the group waits for both until the
//! deadline and names the others. Nothing in std can end them; that is the caller's choice, by leaving `main`.
//!
//! A group inside a group has a stop of its own, but neither a thread nor a board: its members report to the outermost
//! group, under their path. So there is one wait, with one deadline, and one list of who has left.

use std::error::Error;
use std::fmt;
use std::process::{ExitCode, Termination};
use std::time::{Duration, Instant};

use crate::helpers::Helpers;
use crate::panics::caught;
use crate::stop::{Cause, End, FAR, GRACE, Phase, Slack, Stop};
use crate::sync::{self, Arc, Builder, Condvar, JoinHandle, Mutex, MutexGuard};

/// How long after the deadline a group still waits for members that are cutting off what they hold. Somewhat less than
/// the 100 ms after which `run` has returned.
const SLACK: Duration = Duration::from_millis(90);
/// How long a thread has to end once its member has reported, so that it is not taken for one that never ends.
const JOIN: Duration = Duration::from_millis(50);

/// What a member returns. `Err` fails the group; a [`CutOff`] says that it left, but not with all its work done.
pub type MemberResult = Result<(), Box<dyn Error + Send + Sync>>;

type Body = Box<dyn FnOnce(&Stop) -> MemberResult + Send>;
/// A member's name, how it left, and how long after the first cause.
type MemberExit = (String, Exit, Duration);

struct Member {
    /// The names of the groups that it is in, from the outermost but one, and its own: `inner/job`.
    path: String,
    name: String,
    /// That of the group that it was added to.
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
/// A group that is dropped without a run drops its members, and signals that were to stop it no longer do.
#[derive(Default)]
pub struct Group {
    stop: Stop,
    members: Vec<Member>,
    /// Groups inside, whose members are among those above.
    inner: Vec<Group>,
    lame_duck: Duration,
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// The group's stop: it may be handed out and triggered before the group runs.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Lets members work on for this long between the first cause and being told to stop, so that load balancers can
    /// take notice (see [`Stop::cause`]). The grace period counts from its end.
    pub fn lame_duck(&mut self, time: Duration) {
        self.lame_duck = time;
    }

    /// Adds a member. `body` runs on a thread of its own, which bears the member's name, and should return soon after
    /// the stop that it is given is set. Its exit, by whichever way, ends the group.
    ///
    /// A member that is added after the stop is run too (see [`run`](Self::run)).
    pub fn add(&mut self, name: impl Into<String>, body: impl FnOnce(&Stop) -> MemberResult + Send + 'static) {
        let name = name.into();
        self.members.push(Member { path: name.clone(), name, stop: self.stop(), body: Box::new(body) });
    }

    /// Adds a whole group as a member. From now on a cause in either is a cause of both, and both are told to stop at
    /// the same moment: the inner group has the lame-duck time and the deadline of the outer one.
    ///
    /// The [`Outcome`] names its members by their path, `inner/job` for example. An empty group inside is done at once.
    pub fn add_group(&mut self, name: impl Into<String>, mut inner: Self) {
        let name = name.into();
        if inner.members.is_empty() {
            self.add(name.clone(), |_| Ok(()));
        }
        for mut member in inner.members.drain(..) {
            member.path = format!("{name}/{}", member.path);
            self.members.push(member);
        }
        // It is told by the outer group alone.
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

    /// Runs all members and waits until they have left, or until `grace` and at most 100 ms have passed since the
    /// stop; two seconds more only if the whole process stood still at the deadline. An empty group returns at once.
    ///
    /// Every member is run, even if the stop has been triggered before its turn came: a server that is bound may have
    /// clients in its queue, and owes them an answer. A member that must not begin in vain looks at the stop first.
    pub fn run(mut self, grace: Duration) -> Outcome {
        let stop = self.stop();
        let mut slack = Slack::new(SLACK);
        let members = std::mem::take(&mut self.members);
        let lame_duck = if members.is_empty() { Duration::ZERO } else { self.lame_duck };
        self.start(grace, lame_duck);
        let exits = if members.is_empty() { Vec::new() } else { run_members(members, &stop, &mut slack) };
        self.tell();
        self.wait_for_wakers(&mut |now| stop.deadline().map_or(now, |deadline| slack.until(deadline, now)));
        self.end(End::Ran(sync::now()));
        let took = stop.triggered_at().map_or(Duration::ZERO, |at| sync::now() - at);
        Outcome { cause: stop.cause(), exits, took }
    }

    fn start(&self, grace: Duration, lame_duck: Duration) {
        self.stop.start(grace, lame_duck);
        self.inner.iter().for_each(|inner| inner.start(grace, FAR));
    }

    /// All members have left, or had their time. Whoever has triggered may not have come to all wakers yet.
    fn tell(&self) {
        let Some(cause) = self.stop.cause() else { return };
        self.stop.tell();
        for inner in &self.inner {
            inner.stop.trigger(cause.clone());
            inner.tell();
        }
    }

    /// What wakers have to say about the stop is said before the end, if they can say it.
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
        // Not its first end if it has run.
        self.end(End::NeverRan);
        // Each by itself, since two of them may panic.
        self.members.drain(..).for_each(|member| _ = caught(|| drop(member)));
    }
}

/// Starts them all, and waits for them as [`Group::run`] says. What comes back is in the order of [`Outcome::exits`].
fn run_members(members: Vec<Member>, stop: &Stop, slack: &mut Slack) -> Vec<MemberExit> {
    let board = Board::new(stop);
    let mut running = Vec::new();
    let mut not_started = Vec::new();
    for member in members {
        let (path, name, stop) = (member.path.clone(), member.name.clone(), member.stop.clone());
        // One that is not started is dropped, which may panic too.
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
    let left = board.wait(&mut running, stop, slack);

    let (told, now) = (stop.triggered_at().unwrap_or_else(sync::now), sync::now());
    let (mut exits, mut missing) = (Vec::new(), Vec::new());
    for Left { member, exit, at, is_joined } in left {
        let path = std::mem::take(&mut running[member].0);
        let after = at.saturating_duration_since(told);
        if exit == Exit::Done && !is_joined && at + JOIN <= now {
            // Its work is done, but its thread is still there.
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

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.members.iter().map(|member| &member.path).collect();
        f.debug_struct("Group").field("stop", &self.stop).field("members", &paths).finish()
    }
}

/// Where members report that they have left, and helpers that they have joined their threads.
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
        // The waiter must hear of the stop too, to know its deadline. Locking first closes the gap between its look
        // at the stop and its wait.
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
        Builder::new().name(name.replace('\0', " ")).spawn(move || {
            // Whatever a member does, it must be reported, since the group would wait for it for ever. An error may
            // panic too when it is written; and it is dropped, like what a panic carries, only after the report, since
            // that may panic or block.
            let result = caught(|| body(&stop));
            let exit = match &result {
                Ok(Ok(())) => Exit::Done,
                Ok(Err(error)) => {
                    caught(|| Exit::of(error.as_ref())).unwrap_or_else(|panic| Exit::Panicked(panic.to_string()))
                }
                Err(panic) => Exit::Panicked(panic.to_string()),
            };
            // First the cause, then the report: whoever reads the board finds the stop triggered.
            stop.trigger(exit.cause(name));
            board.left().push(Left { member: number, exit, at: sync::now(), is_joined: false });
            board.changed.notify_all();
            let _ = caught(|| drop(result));
        })
    }

    /// Waits until all of these members have left and been joined, or the deadline and the slack have passed.
    ///
    /// Those that have left have nothing more to do but to end. That takes no time, unless a destructor blocks, of a
    /// thread-local value for example; std can neither ask a thread whether it has ended nor give up a join. So helpers
    /// join, of which one stays with a thread that does not end.
    fn wait(
        self: &Arc<Self>,
        running: &mut [(String, Option<JoinHandle<()>>)],
        stop: &Stop,
        slack: &mut Slack,
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
                // Nobody is left to work on as a lame duck, nor to tell whoever waits outside the group.
                Phase::Announced(told_at) if told_at <= now || have_all_left => {
                    drop(left);
                    stop.tell();
                    left = self.left();
                    continue;
                }
                Phase::Announced(told_at) => Some(told_at),
                Phase::Told(deadline) => match slack.until(deadline, now) {
                    until if until <= now => return std::mem::take(&mut *left),
                    until => Some(until),
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

    /// Waits for a change, at most for so long.
    fn changed<'a>(&self, left: MutexGuard<'a, Vec<Left>>, timeout: Option<Duration>) -> MutexGuard<'a, Vec<Left>> {
        match timeout {
            None => self.changed.wait(left),
            Some(timeout) => self.changed.wait_timeout(left, timeout).0,
        }
    }

    // Nothing panics while it is locked.
    fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock()
    }
}

/// How a member left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It returned `Ok`.
    Done,
    /// It returned `Err`, with this text.
    Failed(String),
    /// It panicked, with this text.
    Panicked(String),
    /// It left in time, but had to cut off work that it owed.
    CutOff(CutOff),
    /// It had not left when the deadline passed, and its thread still runs.
    Missing,
    /// It was never started, since the system had no thread for it.
    NotStarted,
}

impl Exit {
    fn of(error: &(dyn Error + Send + Sync + 'static)) -> Self {
        match error.downcast_ref::<CutOff>() {
            Some(cut_off) => Self::CutOff(cut_off.clone()),
            None => Self::Failed(error.to_string()),
        }
    }

    fn cause(&self, who: String) -> Cause {
        match self {
            Self::Failed(error) => Cause::Failed { who, error: error.clone() },
            Self::Panicked(text) => Cause::Panicked { who, text: text.clone() },
            Self::CutOff(_) | Self::Done | Self::Missing | Self::NotStarted => Cause::Done(who),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::CutOff(cut_off) => cut_off.fmt(f),
            Self::Missing => f.write_str("did not leave in time"),
            Self::NotStarted => f.write_str("not started"),
        }
    }
}

/// A member's error that says: I left in time, but work that I owed had to be cut off at the deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOff {
    /// How many pieces of work; for a server, requests wholly received and not wholly answered.
    pub owed: usize,
    /// One line for each piece of which more is known.
    pub details: Vec<String>,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut off {} owed at the deadline", self.owed)?;
        self.details.iter().try_for_each(|detail| write!(f, "; {detail}"))
    }
}

impl Error for CutOff {}

/// How a group ended. `main` can return it: it is the process's exit code.
#[derive(Clone, Debug)]
#[must_use]
pub struct Outcome {
    cause: Option<Cause>,
    exits: Vec<MemberExit>,
    took: Duration,
}

impl Outcome {
    /// What stopped it first. `None` only for a group that was empty.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Each member's name, how it left, and how long after the first cause; in the order in which they left, then
    /// those that did not. A member of a group inside has a path for a name, `inner/job` for example.
    pub fn exits(&self) -> impl Iterator<Item = (&str, &Exit, Duration)> {
        self.exits.iter().map(|(name, exit, after)| (name.as_str(), exit, *after))
    }

    /// From the first cause to the end.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// True if all members ran, all left in time, and nothing that was owed was cut off.
    pub fn is_complete(&self) -> bool {
        !self.exits.iter().any(|(_, exit, _)| matches!(exit, Exit::CutOff(_) | Exit::Missing | Exit::NotStarted))
    }

    /// What went wrong, and 0 only if nothing did: 1 if a member failed or could not be started, 101 if one panicked,
    /// be it first or on its way out; else 124 if at the deadline something owed was cut off or a member had not left.
    ///
    /// If members have failed and panicked, it is the code of the one that did so first: that of the cause, or else of
    /// the first one in [`exits`](Self::exits).
    pub fn exit_code(&self) -> u8 {
        let first = match &self.cause {
            Some(Cause::Failed { .. }) => Some(1),
            Some(Cause::Panicked { .. }) => Some(101),
            _ => None,
        };
        let later = self.exits.iter().find_map(|(_, exit, _)| match exit {
            Exit::Failed(_) | Exit::NotStarted => Some(1),
            Exit::Panicked(_) => Some(101),
            Exit::Done | Exit::CutOff(_) | Exit::Missing => None,
        });
        first.or(later).unwrap_or(if self.is_complete() { 0 } else { 124 })
    }
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        ExitCode::from(self.exit_code())
    }
}
