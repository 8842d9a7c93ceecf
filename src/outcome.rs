//! How a group and its members ended, and the exit code that follows.

use std::error::Error;
use std::fmt;
use std::process::{ExitCode, Termination};
use std::time::Duration;

use crate::stop::Cause;

/// What a member returns. `Err` fails the group, except [`CutOff`]: the member has left, but not finished all its work.
pub type MemberResult = Result<(), Box<dyn Error + Send + Sync>>;

/// A member's name, how it left, and how long after the first cause.
pub(crate) type MemberExit = (String, Exit, Duration);

/// How a member left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// It had not left by the deadline, and its thread still runs.
    Missing,
    /// It was never started: the system could not give it a thread.
    NotStarted,
}

impl Exit {
    pub(crate) fn of(error: &(dyn Error + Send + Sync + 'static)) -> Self {
        match error.downcast_ref::<CutOff>() {
            Some(cut_off) => Self::CutOff(cut_off.clone()),
            None => Self::Failed(error.to_string()),
        }
    }

    pub(crate) fn cause(&self, who: String) -> Cause {
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

/// A member's error that says: I left in time, but at the deadline I had to cut off work that I owed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CutOff {
    /// How many pieces of work. For a server: requests received in full but not answered in full.
    pub owed: usize,
    /// One line for each piece of work of which more is known.
    pub details: Vec<String>,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cut off {} owed at the deadline", self.owed)?;
        self.details.iter().try_for_each(|detail| write!(f, "; {detail}"))
    }
}

impl Error for CutOff {}

/// How a group ended. `main` can return it: it becomes the process's exit code. Its `Display` is one line.
///
/// ```
/// use allout::{Exit, GRACE, Group};
///
/// let mut group = Group::new();
/// group.add("job", |_| Err("no luck".into()));
/// let outcome = group.run(GRACE);
/// assert!(outcome.to_string().starts_with("job failed: no luck; ")); // and the time
/// assert_eq!(outcome.exit_code(), 1);
/// for (name, exit, after) in outcome.exits() {
///     assert_eq!((name, exit), ("job", &Exit::Failed("no luck".to_owned())));
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    cause: Option<Cause>,
    exits: Vec<MemberExit>,
    took: Duration,
}

impl Outcome {
    pub(crate) fn new(cause: Option<Cause>, exits: Vec<MemberExit>, took: Duration) -> Self {
        Self { cause, exits, took }
    }

    /// What stopped the group first. `None` only for an empty group.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Each member's name, how it left, and how long after the first cause. First those that left, in that order, then
    /// those that did not. A member of an inner group is named by its path, `inner/job` for example.
    pub fn exits(&self) -> impl Iterator<Item = (&str, &Exit, Duration)> {
        self.exits.iter().map(|(name, exit, after)| (name.as_str(), exit, *after))
    }

    /// How long it took from the first cause to the end.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// True if every member ran and left in time, and no work that was owed was cut off.
    pub fn is_complete(&self) -> bool {
        !self.exits.iter().any(|(_, exit, _)| matches!(exit, Exit::CutOff(_) | Exit::Missing | Exit::NotStarted))
    }

    /// The exit code: 0 if nothing went wrong; 1 if a member failed or could not be started; 101 if one panicked,
    /// whether first or on its way out; otherwise 124 if at the deadline owed work was cut off or a member had not
    /// left.
    ///
    /// If several members failed or panicked, the first decides: the cause, or else the first in
    /// [`exits`](Self::exits).
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

/// One line: what stopped the group first, each member that did not leave well, and how long it took.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => cause.fmt(f)?,
            None => f.write_str("nothing to do")?,
        }
        for (name, exit, _) in &self.exits {
            let is_first = |cause| self.cause == Some(cause);
            match exit {
                Exit::Done => {}
                Exit::Failed(_) | Exit::Panicked(_) if is_first(exit.cause(name.clone())) => {}
                exit => write!(f, "; {name} {exit}")?,
            }
        }
        write!(f, "; {}.{:02} s", self.took.as_secs(), self.took.subsec_millis() / 10)
    }
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        ExitCode::from(self.exit_code())
    }
}
