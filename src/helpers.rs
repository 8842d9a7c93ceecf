//! Helpers: threads for calls that may block, so that a call that does holds up neither its requester nor other calls.
//!
//! ```text
//! put ──▶ queue ──begin──▶ a helper takes the first call ──others wait?──▶ sends for the next helper ──▶ calls ──▶ …
//! ```
//!
//! No call is lost: it stays in the queue until a thread takes it. No call waits for another: while one is queued, a
//! helper is on its way, or has just taken the call before it and is about to send for the next helper. Yet thousands
//! of quick calls need few threads, since a helper that returns takes the next call. If the system has no thread to
//! give, the thread that called `begin` makes the calls: late, but not never.

use std::collections::VecDeque;
use std::time::Instant;

use crate::panics::caught;
use crate::sync::{self, Arc, Builder, Condvar, JoinHandle, Mutex, MutexGuard};

type Call = Box<dyn FnOnce() + Send>;

/// Clones share one queue.
#[derive(Clone)]
pub(crate) struct Helpers(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    all_returned: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Call>,
    /// How many calls have not returned, including those in the queue.
    open: usize,
    /// A helper has been sent for, and has not started yet.
    is_coming: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::new(State::default()), all_returned: Condvar::new() }))
    }

    /// Queues a call. A helper makes it after the next [`begin`](Self::begin), or earlier.
    pub(crate) fn put(&self, call: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        state.queue.push_back(Box::new(call));
        state.open += 1;
    }

    /// Makes sure that the calls in the queue are made.
    pub(crate) fn begin(&self) {
        if self.send_for_one().is_err() {
            self.help();
        }
    }

    /// Waits until all calls have returned, or until the moment that `until` gives, as of now. Returns true if all have
    /// returned.
    pub(crate) fn wait(&self, mut until: impl FnMut(Instant) -> Instant) -> bool {
        let mut state = self.state();
        while state.open > 0 {
            let now = sync::now();
            let timeout = until(now).saturating_duration_since(now);
            if timeout.is_zero() {
                return false;
            }
            state = self.0.all_returned.wait_timeout(state, timeout).0;
        }
        true
    }

    /// Joins the helpers, once all calls have returned. Only for calls that leave nothing behind in their thread that
    /// could block its end.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut self.state().threads);
        threads.into_iter().for_each(|thread| _ = thread.join());
    }

    /// Starts a helper, if a call is queued and no helper is on its way.
    fn send_for_one(&self) -> std::io::Result<()> {
        let mut state = self.state();
        if state.queue.is_empty() || state.is_coming {
            return Ok(());
        }
        let helpers = self.clone();
        // Under the lock of the queue, so that anyone who sees `is_coming` may rely on it.
        let help = move || {
            helpers.state().is_coming = false;
            helpers.help();
        };
        let thread = sync::spawn(Builder::new().name("helper".to_owned()), Box::new(help))?;
        state.is_coming = true;
        state.threads.push(thread);
        Ok(())
    }

    /// Makes the queued calls, one after another.
    fn help(&self) {
        loop {
            let Some(call) = self.state().queue.pop_front() else { return };
            // If no thread can be had, the next call waits for this one.
            let _ = self.send_for_one();
            let _ = caught(call);
            let mut state = self.state();
            state.open -= 1;
            if state.open == 0 {
                self.0.all_returned.notify_all();
            }
        }
    }

    // Nothing panics while this is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}
