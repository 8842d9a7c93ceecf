//! Signals as a member: SIGINT, SIGTERM and SIGHUP stop a group. The only file that names `ctrlc`.
//!
//! All three stop gracefully; `ctrlc` does not say which one came. The first triggers the stop.
//! Supervisors often send two, so repeats within half a second of the first count as the same signal. A later one means
//! that somebody has lost patience: the process exits at once.
//!
//! A process has one signal handler, but may run one group after another. So the handler is set once, and looks up
//! which stops to trigger. A group that has been stopped gives up its place when the next one installs itself, or half
//! a second after its end at the latest: until then, a signal counts as meant for it. A group that is dropped without a
//! run gives up its place at once, and so does a stop that nobody holds any more, except that repeats of a signal that
//! it has had still count as its own.
//!
//! ```no_run
//! use allout::{GRACE, Group, Outcome, signals};
//!
//! fn main() -> Result<Outcome, signals::InstallError> {
//!     let mut group = Group::new();
//!     let signals = signals::install(&group.stop())?; // before anything is bound
//!     group.add("signals", move |stop| signals.run(stop));
//!     Ok(group.run(GRACE))
//! }
//! ```

use std::fmt;
use std::time::{Duration, Instant};

use crate::group::MemberResult;
use crate::panics::caught;
use crate::server::remove_socket_files;
use crate::stop::{Cause, End, Stop, WeakStop};
use crate::sync::{self, Arc, Mutex, MutexGuard};

/// How long after the first signal others count as repeats of it.
const REPEAT: Duration = Duration::from_millis(500);

struct Listening {
    stop: WeakStop,
    force: Arc<dyn Fn() + Send + Sync>,
    first: Option<Instant>,
}

impl Listening {
    /// True if a signal that comes now can no longer be meant for this group.
    fn is_over(&self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < REPEAT;
        let is_live = || match self.stop.upgrade().map(|stop| stop.ended()) {
            None | Some(Some(End::NeverRan)) => false,
            Some(Some(End::Ran(at))) => is_recent(at),
            Some(None) => true,
        };
        !self.first.is_some_and(is_recent) && !is_live()
    }
}

struct Registry {
    is_installed: bool,
    listening: Vec<Listening>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { is_installed: false, listening: Vec::new() });

/// The member that listens to signals.
#[derive(Debug)]
pub struct Signals(());

/// Starts to listen: from now on SIGINT, SIGTERM and SIGHUP trigger `stop`, even if nothing runs yet. A signal more
/// than 500 ms after the first exits the process at once with code 130, after [removing](crate::remove_socket_files)
/// the files of its listening Unix sockets.
///
/// The handler stays for the life of the process, for all three signals, SIGHUP included. A signal that comes when no
/// group listens any more exits the process with code 130, much as it would have ended without a handler. A group that
/// was dropped without a run does not listen.
///
/// # Errors
///
/// [`InstallError`] if another part of the process has set a handler through `ctrlc`, or the system refuses.
pub fn install(stop: &Stop) -> Result<Signals, InstallError> {
    install_with(stop, || {
        remove_socket_files();
        std::process::exit(130);
    })
}

/// Like [`install`], but a signal more than 500 ms after the first calls `force`, which should end the process: print a
/// line, call [`remove_socket_files`] if you listen on Unix sockets, and exit with code 130. `force` runs on the thread
/// that waits for signals: while it blocks, no other signal is handled.
///
/// # Errors
///
/// Those of [`install`].
pub fn install_with(stop: &Stop, force: impl Fn() + Send + Sync + 'static) -> Result<Signals, InstallError> {
    let mut registry = registry();
    if !registry.is_installed {
        // Not `try_set_handler`: it takes an ignored signal for one that somebody handles, and a shell starts
        // background jobs with SIGINT ignored.
        ctrlc::set_handler(|| {
            // A panic would end ctrlc's thread, and all later signals would be swallowed.
            let _ = caught(|| signalled(sync::now()));
        })
        .map_err(InstallError)?;
        registry.is_installed = true;
    }
    let now = sync::now();
    let is_past =
        |listening: &Listening| listening.is_over(now) || listening.stop.upgrade().is_none_or(|stop| stop.is_set());
    let past = take(&mut registry.listening, is_past);
    registry.listening.push(Listening { stop: stop.downgrade(), force: Arc::new(force), first: None });
    drop(registry);
    forget(past);
    Ok(Signals(()))
}

impl Signals {
    /// Runs as a member: waits for the stop. The handler's own thread does the listening.
    ///
    /// # Errors
    ///
    /// None; this is the type of every member.
    pub fn run(self, stop: &Stop) -> MemberResult {
        stop.wait();
        Ok(())
    }
}

/// A signal has come. Runs on ctrlc's thread, which is an ordinary one.
fn signalled(now: Instant) {
    let mut registry = registry();
    let past = take(&mut registry.listening, |listening| listening.is_over(now));
    if registry.listening.is_empty() {
        std::process::exit(130);
    }
    let (mut stops, mut forces) = (Vec::new(), Vec::new());
    for listening in &mut registry.listening {
        match listening.first {
            None => {
                listening.first = Some(now);
                stops.extend(listening.stop.upgrade());
            }
            Some(first) if now.saturating_duration_since(first) >= REPEAT => forces.push(Arc::clone(&listening.force)),
            Some(_) => {}
        }
    }
    drop(registry);
    for stop in &stops {
        stop.trigger(Cause::Signal);
    }
    // A signal that stops a group only now must not kill it because somebody is impatient with another.
    if stops.is_empty() {
        for force in forces {
            force();
        }
    }
    forget(past);
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock()
}

/// Takes out what is past. The caller drops it after it has unlocked the registry: `force` is the embedder's, and
/// dropping what it holds may do anything.
fn take(listening: &mut Vec<Listening>, is_past: impl FnMut(&Listening) -> bool) -> Vec<Listening> {
    let (past, rest) = std::mem::take(listening).into_iter().partition(is_past);
    *listening = rest;
    past
}

fn forget(past: Vec<Listening>) {
    past.into_iter().for_each(|listening| _ = caught(|| drop(listening)));
}

/// Cannot listen to signals.
#[derive(Debug)]
pub struct InstallError(ctrlc::Error);

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `ctrlc`'s own text for a system error does not say which one it was.
        match &self.0 {
            ctrlc::Error::System(error) => write!(f, "cannot listen to signals: {error}"),
            ctrlc::Error::MultipleHandlers => {
                f.write_str("cannot listen to signals: another part of the process has set a handler")
            }
            error => write!(f, "cannot listen to signals: {error}"),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_system_said() {
        let system = std::io::Error::from_raw_os_error(11);
        let wanted = format!("cannot listen to signals: {system}");
        assert_eq!(InstallError(ctrlc::Error::System(system)).to_string(), wanted);
        let taken = InstallError(ctrlc::Error::MultipleHandlers).to_string();
        assert_eq!(taken, "cannot listen to signals: another part of the process has set a handler");
    }
}
