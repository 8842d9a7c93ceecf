//! The admin listener: a server beside the group, so that it can show how the group stops.
//!
//! ```text
//! bound with the public ones ──▶ serving ──the group is over──▶ draining ──▶ gone
//!                                   │                              └──a second at most──▶ cut off
//!                                   └──it fails──▶ the group stops, with that as its cause
//! ```
//!
//! It is no member of the group: all members stop together, and it has to outlast them. It has a group of its own,
//! whose stop nobody triggers before the other's `run` has returned. So lame duck and drain leave it as it is, and
//! `/status` shows the last line. Yet it holds nothing up: from then on it has its own deadline, and what it still owes
//! then is no failure. One out, all out holds all the same: if it fails, its cause becomes that of the main group.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use allout::{Cause, Config, Group, Outcome, Router, Server, Stop};

use crate::threads;

/// How long its clients have for what they were sent last. One that reads, or has gone, takes next to nothing of it;
/// nor does one that never reads, since the system keeps all that a page is sent.
const GRACE: Duration = Duration::from_secs(1);

/// Its own, so that its clients take nothing of what the public ones have.
pub(crate) fn config() -> Config {
    Config { handlers_max: 8, idle_grace: Duration::ZERO, linger: Duration::from_millis(50), ..Config::small() }
}

/// The admin server, running.
pub(crate) struct Admin {
    stop: Stop,
    outcome: Arc<Mutex<Option<Outcome>>>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Its failure stops the group of `main`.
    ///
    /// # Errors
    ///
    /// The system has no thread for it.
    pub(crate) fn start(server: Server, router: Router, main: &Stop) -> std::io::Result<Self> {
        let mut group = Group::new();
        let (stop, main) = (group.stop(), main.clone());
        stop.on_cause(move |cause| _ = main.trigger(cause.clone()));
        group.add("admin", move |stop| server.run(router, stop));
        let outcome = Arc::new(Mutex::new(None));
        let end = Arc::clone(&outcome);
        let run = move || *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(group.run(GRACE));
        Ok(Self { stop, outcome, thread: threads::start("admin group", Box::new(run))? })
    }

    /// Stops it, once the main group is over. `None` if its thread has panicked, by a fault of our own.
    pub(crate) fn end(self) -> Option<Outcome> {
        self.stop.trigger(Cause::Request("the end".to_owned()));
        self.thread.join().ok()?;
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
