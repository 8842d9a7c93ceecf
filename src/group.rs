//! The group: members start together and leave together.
//!
//! ```text
//! add, add, … ──run──▶ a thread each ──any exit──▶ stop triggered ──▶ all leave, or the deadline passes ──▶ Outcome
//! ```
//!
//! Why not [`std::thread::scope`]? A scope joins every thread before it returns, however long that takes. The whole
//! point of a deadline is to return although somebody did not leave. So threads are detached from the group's stack:
//! each reports its exit on a board, the group waits on the board's condition variable until the deadline, joins those
//! that reported, and names the others. Nothing in std can end them; that is the caller's choice, by leaving `main`.

use std::error::Error;
use std::fmt;
use std::process::{ExitCode, Termination};
use std::time::{Duration, Instant};

use crate::panics::caught;
use crate::stop::{Cause, FAR, GRACE, Phase, Slack, Stop};
use crate::sync::{Arc, Builder, Condvar, JoinHandle, Mutex, MutexGuard, PoisonError};

/// How long after the deadline a group still waits for members that are cutting off what they hold.
const SLACK: Duration = Duration::from_millis(100);
/// The same for a group inside a group, which must report before the outer one stops waiting.
const SLACK_INSIDE: Duration = Duration::from_millis(70);

/// What a member returns. `Err` fails the group; a [`CutOff`] says that it left, but not with all its work done.
pub type MemberResult = Result<(), Box<dyn Error + Send + Sync>>;

type Body = Box<dyn FnOnce(&Stop) -> MemberResult + Send>;
/// A member's name, how it left, and how long after the first cause.
type MemberExit = (String, Exit, Duration);

/// Members that run side by side until any one of them exits.
///
/// ```
/// use std::time::Duration;
///
/// let mut group = allout::Group::new();
/// group.add("worker", |stop| {
///     while !stop.wait_timeout(Duration::from_millis(10)) { /* work */ }
///     Ok(())
/// })?;
/// group.add("main job", |_| Ok(()))?; // done at once, and so everybody leaves
/// let outcome = group.run(Duration::from_secs(3));
/// assert_eq!(outcome.exit_code(), 0);
/// # Ok::<(), allout::Stopped>(())
/// ```
#[derive(Default)]
pub struct Group {
    stop: Stop,
    members: Vec<(String, Body)>,
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
    /// # Errors
    ///
    /// [`Stopped`] if the stop has been triggered: whoever is not in by then stays out.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        body: impl FnOnce(&Stop) -> MemberResult + Send + 'static,
    ) -> Result<(), Stopped> {
        match self.stop.cause() {
            Some(cause) => Err(Stopped(cause)),
            None => {
                self.members.push((name.into(), Box::new(body)));
                Ok(())
            }
        }
    }

    /// Adds a whole group as a member. From now on a cause in either is a cause of both, and both are told to stop at
    /// the same moment: the inner group has the lame-duck time and the deadline of the outer one.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if either has been stopped.
    pub fn add_group(&mut self, name: impl Into<String>, mut inner: Self) -> Result<(), Stopped> {
        if let Some(cause) = inner.stop.cause().or_else(|| self.stop.cause()) {
            return Err(Stopped(cause));
        }
        let name = name.into();
        let prefix = name.clone();
        // It is told by the outer group alone.
        inner.lame_duck = FAR;
        inner.stop.start(GRACE, FAR);
        let (up, down) = (self.stop.downgrade(), inner.stop());
        inner.stop.on_cause(move |cause| {
            if let Some(up) = up.upgrade() {
                up.trigger(cause.clone().within(&prefix));
            }
        });
        self.stop.on_cause(move |cause| {
            down.trigger(cause.clone());
        });
        let down = inner.stop();
        self.stop.on_stop(move || down.tell());
        self.add(name, move |outer| inner.run_within(outer.grace(), SLACK_INSIDE).into_result())
    }

    /// Runs all members and waits until they have left, or until `grace` and at most 100 ms have passed since the
    /// stop; two seconds more only if the whole process stood still at the deadline. An empty group returns at once.
    ///
    /// Every member is run, even if the stop has been triggered before its turn came: a server that is bound may have
    /// clients in its queue, and owes them an answer. Who must not begin in vain looks at the stop first.
    pub fn run(self, grace: Duration) -> Outcome {
        self.run_within(grace, SLACK)
    }

    fn run_within(self, grace: Duration, slack: Duration) -> Outcome {
        let Self { stop, members, lame_duck } = self;
        let exits = if members.is_empty() {
            // Another thread may only just be triggering it, and about to say why: the process must not end before.
            if stop.cause().is_some() {
                stop.wait_timeout(grace);
            }
            Vec::new()
        } else {
            stop.start(grace, lame_duck);
            run_members(members, &stop, Slack::new(slack))
        };
        stop.end();
        let took = stop.triggered_at().map_or(Duration::ZERO, |at| at.elapsed());
        Outcome { cause: stop.cause(), exits, took }
    }
}

/// Starts them all, and waits for them as [`Group::run`] says. What comes back is in the order of [`Outcome::exits`].
fn run_members(members: Vec<(String, Body)>, stop: &Stop, mut slack: Slack) -> Vec<MemberExit> {
    let board = Board::new(stop);
    let mut running: Vec<(String, Option<JoinHandle<()>>)> = Vec::new();
    let mut not_started = Vec::new();
    for (name, body) in members {
        match board.start(running.len(), &name, body, stop) {
            Ok(thread) => running.push((name, Some(thread))),
            Err(error) => {
                let error = format!("cannot start its thread: {error}");
                stop.trigger(Cause::Failed { who: name.clone(), error });
                not_started.push(name);
            }
        }
    }
    let mut left = board.wait(running.len(), stop, &mut slack);
    // All may have left while they were lame ducks. Whoever waits outside the group is told now: nobody else will.
    stop.tell();
    let threads = left.iter().filter_map(|left| running.get_mut(left.member)?.1.take()).collect();
    let joined = board.join(threads, stop, &mut slack);
    if let Some(left) = left.get_mut(joined).filter(|left| left.exit == Exit::Done) {
        // Its work is done, but its thread is still there.
        left.exit = Exit::Missing;
    }

    let told = stop.triggered_at().unwrap_or_else(Instant::now);
    let after = |at: Instant| at.saturating_duration_since(told);
    let (mut exits, missing): (Vec<_>, Vec<_>) = left
        .into_iter()
        .map(|left| (running[left.member].0.clone(), left.exit, after(left.at)))
        .partition(|(_, exit, _)| *exit != Exit::Missing);
    exits.extend(missing);
    let never_left = running.into_iter().filter(|(_, thread)| thread.is_some());
    exits.extend(never_left.map(|(name, _)| (name, Exit::Missing, told.elapsed())));
    exits.extend(not_started.into_iter().map(|name| (name, Exit::NotStarted, Duration::ZERO)));
    exits
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.members.iter().map(|(name, _)| name).collect();
        f.debug_struct("Group").field("stop", &self.stop).field("members", &names).finish()
    }
}

/// Where members report that they have left.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    left: Vec<Left>,
    /// How many of their threads have been joined.
    joined: usize,
}

struct Left {
    member: usize,
    exit: Exit,
    at: Instant,
}

impl Board {
    fn new(stop: &Stop) -> Arc<Self> {
        let board = Arc::new(Self { state: Mutex::new(State::default()), changed: Condvar::new() });
        // The waiter must hear of the stop too, to know its deadline. Locking first closes the gap between its look
        // at the stop and its wait.
        let notify = |board: &Arc<Self>| {
            let board = Arc::clone(board);
            move || {
                drop(board.state());
                board.changed.notify_all();
            }
        };
        let on_cause = notify(&board);
        stop.on_cause(move |_| on_cause());
        stop.on_stop(notify(&board));
        board
    }

    fn start(self: &Arc<Self>, member: usize, name: &str, body: Body, stop: &Stop) -> std::io::Result<JoinHandle<()>> {
        let (board, stop, who) = (Arc::clone(self), stop.clone(), name.to_owned());
        Builder::new().name(who.replace('\0', " ")).spawn(move || {
            // An error may panic too when it is written or dropped. Whatever a member does, it must be reported, since
            // the group would wait for it for ever.
            let exit = caught(|| Exit::of(body(&stop))).unwrap_or_else(|panic| Exit::Panicked(panic.to_string()));
            // First the cause, then the report: whoever reads the board finds the stop triggered.
            stop.trigger(exit.cause(who));
            board.state().left.push(Left { member, exit, at: Instant::now() });
            board.changed.notify_all();
        })
    }

    /// Waits until `count` members have left, or the deadline and the slack have passed.
    fn wait(&self, count: usize, stop: &Stop, slack: &mut Slack) -> Vec<Left> {
        let mut state = self.state();
        while state.left.len() < count {
            let now = Instant::now();
            let until = match stop.phase() {
                Phase::Running => None,
                Phase::Announced(told_at) if told_at <= now => {
                    drop(state);
                    stop.tell();
                    state = self.state();
                    continue;
                }
                Phase::Announced(told_at) => Some(told_at),
                Phase::Told(deadline) => match slack.until(deadline, now) {
                    until if until <= now => break,
                    until => Some(until),
                },
            };
            state = self.changed(state, until.map(|until| until.saturating_duration_since(now)));
        }
        std::mem::take(&mut state.left)
    }

    /// Joins the threads of members that have left, in this order, but not past the deadline and the slack. Returns how
    /// many have been joined.
    ///
    /// They have nothing more to do but to end. That takes no time, unless the destructor of a thread-local value
    /// blocks; std can neither ask a thread if it has ended nor give up a join. So a helper joins, and stays with the
    /// thread that does not end.
    fn join(self: &Arc<Self>, threads: Vec<JoinHandle<()>>, stop: &Stop, slack: &mut Slack) -> usize {
        let count = threads.len();
        let (board, threads) = (Arc::clone(self), Arc::new(Mutex::new(threads)));
        let join = move || {
            let threads = std::mem::take(&mut *threads.lock().unwrap_or_else(PoisonError::into_inner));
            for thread in threads {
                let _ = thread.join();
                board.state().joined += 1;
                board.changed.notify_all();
            }
        };
        let helper = Builder::new().name("join".to_owned()).spawn(join.clone());
        if helper.is_err() {
            // Rather late than not at all.
            join();
        }
        let mut state = self.state();
        while state.joined < count {
            let now = Instant::now();
            let until = stop.deadline().map_or(now, |deadline| slack.until(deadline, now));
            if until <= now {
                return state.joined;
            }
            state = self.changed(state, Some(until - now));
        }
        drop(state);
        // Has nothing thread-local, and so does end.
        let _ = helper.map(JoinHandle::join);
        count
    }

    /// Waits for a change, at most for so long.
    fn changed<'a>(&self, state: MutexGuard<'a, State>, timeout: Option<Duration>) -> MutexGuard<'a, State> {
        match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    // Nothing panics while it is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn of(result: MemberResult) -> Self {
        let Err(error) = result else { return Self::Done };
        match error.downcast::<CutOff>() {
            Ok(cut_off) => Self::CutOff(*cut_off),
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    fn cause(&self, who: String) -> Cause {
        match self {
            Self::Failed(error) => Cause::Failed { who, error: error.clone() },
            Self::Panicked(text) => Cause::Panicked { who, text: text.clone() },
            Self::CutOff(_) | Self::Done | Self::Missing | Self::NotStarted => Cause::Done(who),
        }
    }

    fn is_clean(&self) -> bool {
        matches!(self, Self::Done | Self::NotStarted)
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

/// A member came too late: the group has been stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped(pub Cause);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot add a member to a stopped group: {}", self.0)
    }
}

impl Error for Stopped {}

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
    /// those that did not.
    pub fn exits(&self) -> impl Iterator<Item = (&str, &Exit, Duration)> {
        self.exits.iter().map(|(name, exit, after)| (name.as_str(), exit, *after))
    }

    /// From the first cause to the end.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// True if all left in time and nothing that was owed was cut off.
    pub fn is_complete(&self) -> bool {
        !self.exits.iter().any(|(_, exit, _)| matches!(exit, Exit::CutOff(_) | Exit::Missing))
    }

    /// 1 if a member failed first, 101 if one panicked first; after any other cause 0, or 124 if at the deadline
    /// something owed was cut off or a member had not left.
    pub fn exit_code(&self) -> u8 {
        match &self.cause {
            Some(Cause::Failed { .. }) => 1,
            Some(Cause::Panicked { .. }) => 101,
            _ if self.is_complete() => 0,
            _ => 124,
        }
    }

    /// For the outer group: what remains to be said once the cause has been passed on.
    fn into_result(self) -> MemberResult {
        let mut unclean = self.exits.iter().filter(|(_, exit, _)| !exit.is_clean());
        let owed = |exit: &Exit| match exit {
            Exit::CutOff(cut_off) => cut_off.owed,
            Exit::Missing => 1,
            _ => 0,
        };
        let owed = self.exits.iter().map(|(_, exit, _)| owed(exit)).sum();
        if self.is_complete() {
            unclean.next().map_or(Ok(()), |(name, exit, _)| Err(format!("{name} {exit}").into()))
        } else {
            let details = unclean.map(|(name, exit, _)| format!("{name}: {exit}")).collect();
            Err(Box::new(CutOff { owed, details }))
        }
    }
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        ExitCode::from(self.exit_code())
    }
}
