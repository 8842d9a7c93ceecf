//! One value from one thread to another, as by a channel that takes a single message; std's channels would be twenty
//! kilobytes of code for it.
//!
//! ```text
//! open ──send──▶ sent ──▶ taken by who waits
//!   └────the reply is dropped──▶ gone: nobody will send
//! ```

use std::time::Duration;

use crate::sync::{Arc, Condvar, Mutex};

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Open,
    Sent(T),
    Gone,
}

/// The end that sends. Whoever waits learns if it is dropped.
pub(crate) struct Reply<T>(Arc<Shared<T>>);

/// The end that waits.
pub(crate) struct Awaited<T>(Arc<Shared<T>>);

pub(crate) fn reply<T>() -> (Reply<T>, Awaited<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Open), changed: Condvar::new() });
    (Reply(Arc::clone(&shared)), Awaited(shared))
}

impl<T> Reply<T> {
    /// Whether or not anybody waits.
    pub(crate) fn send(self, value: T) {
        *self.0.state.lock() = State::Sent(value);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if matches!(*state, State::Open) {
            *state = State::Gone;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<T> Awaited<T> {
    /// Waits for the value. `None` if nobody will send it, or it does not come within `timeout`.
    pub(crate) fn wait(self, timeout: Option<Duration>) -> Option<T> {
        let mut state = self.0.state.lock();
        while matches!(*state, State::Open) {
            match timeout {
                None => state = self.0.changed.wait(state),
                Some(timeout) => {
                    state = self.0.changed.wait_timeout_while(state, timeout, |state| matches!(state, State::Open));
                    break;
                }
            }
        }
        match std::mem::replace(&mut *state, State::Gone) {
            State::Sent(value) => Some(value),
            State::Open | State::Gone => None,
        }
    }
}
