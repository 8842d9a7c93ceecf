//! The seam between this crate and the machine: what threads share state by, threads themselves, and time. All of it is
//! std's here. A model checker puts its own in this place and runs the group, the stop and the hand-off, unchanged,
//! through every order that it can think of (`tests/model`); a simulator runs the whole server in a world with a clock
//! of its own (`tests/sim`).
//!
//! No lock here is ever poisoned. Either nothing panics while it is held, or whoever finds the panic gives up what it
//! guards as a whole.

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant, SystemTime};

#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(any(test, not(target_has_atomic = "64")))]
pub(crate) use std::sync::atomic::{AtomicU32, fence};
pub(crate) use std::sync::{Arc, MutexGuard, OnceLock, Weak};
pub(crate) use std::thread::{Builder, JoinHandle, available_parallelism, panicking, sleep};

/// Starts a thread. Not generic: with each closure would come all the code that starts one.
pub(crate) fn spawn(thread: Builder, body: Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>> {
    thread.spawn(body)
}

/// This moment.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long ago 1970 began, by the system's calendar, which may jump; nothing if it stands before.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` if somebody holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(held).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long at most. True if that time is over.
    pub(crate) fn wait_timeout<'a, T>(&self, held: MutexGuard<'a, T>, timeout: Duration) -> (MutexGuard<'a, T>, bool) {
        let (held, waited) = self.0.wait_timeout(held, timeout).unwrap_or_else(PoisonError::into_inner);
        (held, waited.timed_out())
    }

    /// Waits as long as the condition holds, for so long at most.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        held: MutexGuard<'a, T>,
        timeout: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout_while(held, timeout, condition).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Where the processor has none of 64 bits (32-bit PowerPC, MIPS, RISC-V): a lock's.
#[cfg(not(target_has_atomic = "64"))]
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(Mutex<u64>);

#[cfg(not(target_has_atomic = "64"))]
impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(Mutex::new(value))
    }

    /// Locks order what is done to one value. The fences put each access into the one order of all that are
    /// sequentially consistent, whatever order is asked for.
    fn with<T>(&self, access: impl FnOnce(&mut u64) -> T) -> T {
        fence(Ordering::SeqCst);
        let result = access(&mut self.0.lock());
        fence(Ordering::SeqCst);
        result
    }

    pub(crate) fn load(&self, _: Ordering) -> u64 {
        self.with(|value| *value)
    }

    pub(crate) fn store(&self, new: u64, _: Ordering) {
        self.with(|value| *value = new);
    }

    pub(crate) fn swap(&self, new: u64, _: Ordering) -> u64 {
        self.with(|value| std::mem::replace(value, new))
    }

    pub(crate) fn fetch_add(&self, more: u64, _: Ordering) -> u64 {
        self.with(|value| std::mem::replace(value, value.wrapping_add(more)))
    }

    pub(crate) fn compare_exchange(&self, old: u64, new: u64, _: Ordering, _: Ordering) -> Result<u64, u64> {
        self.with(|value| if *value == old { Ok(std::mem::replace(value, new)) } else { Err(*value) })
    }
}
