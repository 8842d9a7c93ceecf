//! The model checker's side of the crate's `sync`: std's names, shuttle's threads and locks.
//!
//! Time is what a checker has none of. A wait with a timeout is therefore a step that lets others run and then times
//! out; a wait without one returns only if it is woken, so that a wake-up that is lost shows as a deadlock.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::sync::{Arc, Weak};
pub(crate) use shuttle::thread::{Builder, JoinHandle};
pub(crate) use std::thread::panicking;

pub(crate) fn spawn(thread: Builder, body: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
    thread.spawn(body)
}

/// Only ever compared with deadlines that are far away.
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[derive(Debug)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Knows its mutex, so that a wait that times out can take it again.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, guard: Some(guard) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("held")
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, mut held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let guard = held.guard.take().expect("held");
        held.guard = Some(self.0.wait(guard).unwrap_or_else(PoisonError::into_inner));
        held
    }

    pub(crate) fn wait_timeout<'a, T>(&self, held: MutexGuard<'a, T>, _timeout: Duration) -> (MutexGuard<'a, T>, bool) {
        let mutex = held.mutex;
        drop(held);
        shuttle::thread::yield_now();
        (mutex.lock(), true)
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut held: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        if condition(&mut held) { self.wait_timeout(held, timeout).0 } else { held }
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
