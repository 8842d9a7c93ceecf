//! The simulation's side of the crate's `sync`: std's names, the world's threads, locks and time.
//!
//! Memory is sequentially consistent here, whatever order is asked for: what a weaker order would allow is not seen.

use std::any::Any;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, OnceLock, Weak};
pub(crate) use std::thread::panicking;

use crate::plan::Fault;
use crate::torture;
use crate::world::{self, MS, Nanos, US, Why, with};

/// 2026, whatever the machine says.
const YEAR_2026: u64 = 1_767_225_600;

pub(crate) fn now() -> Instant {
    world::step(30);
    with(|world| world.instant())
}

pub(crate) fn since_1970() -> Duration {
    let off = with(|world| {
        if world.has(Fault::Calendar) && world.luck.one_in(20) {
            world.count("jumps of the calendar");
            world.calendar_off = world.luck.between(0, 400_000_000) as i64 - 200_000_000;
        }
        world.calendar_off + (world.now / 1_000_000_000) as i64
    });
    Duration::from_secs(YEAR_2026.saturating_add_signed(off)) + Duration::from_nanos(with(|w| w.now % 1_000_000_000))
}

pub(crate) fn sleep(time: Duration) {
    let until = after(time);
    while !world::block(Why::Asleep, Some(until)) {}
}

pub(crate) fn after(time: Duration) -> Nanos {
    with(|world| world.now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)))
}

#[expect(clippy::unnecessary_wraps)] // As std's.
pub(crate) fn available_parallelism() -> io::Result<NonZero<usize>> {
    // Scenarios are made outside of any world.
    let loops = if world::is_there() { with(|world| world.plan.loops) } else { 1 };
    Ok(NonZero::new(loops).unwrap_or(NonZero::<usize>::MIN))
}

// ---- Locks ---------------------------------------------------------------------------------------------------------

fn address<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<()>() as usize
}

/// Wakes who waits for a lock that is free again.
fn released(at: usize) {
    if world::is_there() {
        with(|world| world.wake_all(Why::Lock(at)));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        world::step(40);
        loop {
            if let Some(guard) = self.attempt() {
                return guard;
            }
            world::block(Why::Lock(address(self)), None);
        }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        world::step(40);
        self.attempt()
    }

    fn attempt(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard { mutex: self, guard: Some(guard) }),
            Err(TryLockError::Poisoned(guard)) => Some(MutexGuard { mutex: self, guard: Some(guard.into_inner()) }),
            Err(TryLockError::WouldBlock) => None,
        }
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

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            released(address(self.mutex));
            if !panicking() {
                world::step(20);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

/// A guard of either kind.
pub(crate) struct Held<G>(Option<G>, usize);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> Held<std::sync::RwLockReadGuard<'_, T>> {
        self.acquire(|| match self.0.try_read() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    pub(crate) fn write(&self) -> Held<std::sync::RwLockWriteGuard<'_, T>> {
        self.acquire(|| match self.0.try_write() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    fn acquire<G>(&self, attempt: impl Fn() -> Option<G>) -> Held<G> {
        world::step(40);
        loop {
            if let Some(guard) = attempt() {
                return Held(Some(guard), address(self));
            }
            world::block(Why::Lock(address(self)), None);
        }
    }
}

impl<G: Deref> Deref for Held<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        self.0.as_ref().expect("held")
    }
}

impl<G: DerefMut> DerefMut for Held<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        self.0.as_mut().expect("held")
    }
}

impl<G> Drop for Held<G> {
    fn drop(&mut self) {
        self.0 = None;
        released(self.1);
    }
}

/// One byte, so that two of them have two addresses.
#[derive(Debug)]
pub(crate) struct Condvar(#[expect(dead_code)] u8);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    pub(crate) fn wait<'a, T>(&self, held: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_until(held, None).0
    }

    /// True if the time is over.
    pub(crate) fn wait_timeout<'a, T>(&self, held: MutexGuard<'a, T>, timeout: Duration) -> (MutexGuard<'a, T>, bool) {
        self.wait_until(held, Some(after(timeout)))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut held: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let until = after(timeout);
        while condition(&mut held) && with(|world| world.now) < until {
            held = self.wait_until(held, Some(until)).0;
        }
        held
    }

    /// Lets go of the mutex and waits in one step.
    fn wait_until<'a, T>(&self, mut held: MutexGuard<'a, T>, until: Option<Nanos>) -> (MutexGuard<'a, T>, bool) {
        let mutex = held.mutex;
        held.guard = None;
        released(address(mutex));
        let is_over = world::block(Why::Condition(address(self)), until);
        drop(held);
        (mutex.lock(), is_over)
    }

    pub(crate) fn notify_one(&self) {
        world::step(100);
        if world::is_there() {
            with(|world| world.wake_one(Why::Condition(address(self))));
        }
    }

    pub(crate) fn notify_all(&self) {
        world::step(100);
        if world::is_there() {
            with(|world| world.wake_all(Why::Condition(address(self))));
        }
    }
}

// ---- Atomics -------------------------------------------------------------------------------------------------------

const SC: Ordering = Ordering::SeqCst;

macro_rules! atomics {
    ($($name:ident $value:ty)*) => { $(
        #[derive(Debug, Default)]
        pub(crate) struct $name(std::sync::atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, _: Ordering) -> $value {
                world::step(5);
                self.0.load(SC)
            }

            pub(crate) fn store(&self, new: $value, _: Ordering) {
                world::step(10);
                self.0.store(new, SC);
            }

            pub(crate) fn swap(&self, new: $value, _: Ordering) -> $value {
                world::step(10);
                self.0.swap(new, SC)
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                _: Ordering,
                _: Ordering,
            ) -> Result<$value, $value> {
                world::step(10);
                self.0.compare_exchange(old, new, SC, SC)
            }
        }
    )* };
}

macro_rules! numbers {
    ($($name:ident $value:ty)*) => { $(
        impl $name {
            pub(crate) fn fetch_add(&self, more: $value, _: Ordering) -> $value {
                world::step(10);
                self.0.fetch_add(more, SC)
            }

            pub(crate) fn fetch_sub(&self, less: $value, _: Ordering) -> $value {
                world::step(10);
                self.0.fetch_sub(less, SC)
            }

            pub(crate) fn fetch_update(
                &self,
                _: Ordering,
                _: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                world::step(10);
                self.0.fetch_update(SC, SC, update)
            }
        }
    )* };
}

atomics! { AtomicBool bool AtomicU64 u64 AtomicUsize usize }
numbers! { AtomicU64 u64 AtomicUsize usize }

// ---- Channels ------------------------------------------------------------------------------------------------------

struct Channel<T> {
    state: Mutex<ChannelState<T>>,
    changed: Condvar,
}

struct ChannelState<T> {
    waiting: std::collections::VecDeque<T>,
    room: usize,
    senders: usize,
    is_heard: bool,
}

pub(crate) struct SyncSender<T>(Arc<Channel<T>>);
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

pub(crate) fn sync_channel<T>(room: usize) -> (SyncSender<T>, Receiver<T>) {
    let state = ChannelState { waiting: std::collections::VecDeque::new(), room, senders: 1, is_heard: true };
    let channel = Arc::new(Channel { state: Mutex::new(state), changed: Condvar::new() });
    (SyncSender(Arc::clone(&channel)), Receiver(channel))
}

impl<T> SyncSender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        while state.is_heard && state.waiting.len() >= state.room {
            state = self.0.changed.wait(state);
        }
        if !state.is_heard {
            return Err(value);
        }
        state.waiting.push_back(value);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(crate) fn recv(&self) -> Result<T, ()> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(value) = state.waiting.pop_front() {
                self.0.changed.notify_all();
                return Ok(value);
            }
            if state.senders == 0 {
                return Err(());
            }
            state = self.0.changed.wait(state);
        }
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock();
            state.is_heard = false;
            std::mem::take(&mut state.waiting)
        };
        drop(left);
        self.0.changed.notify_all();
    }
}

// ---- Threads -------------------------------------------------------------------------------------------------------

type Finished<T> = Arc<std::sync::Mutex<Option<Result<T, Box<dyn Any + Send>>>>>;

pub(crate) struct JoinHandle<T> {
    number: usize,
    finished: Finished<T>,
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle({})", self.number)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Builder {
    name: String,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn name(self, name: String) -> Self {
        Self { name }
    }

    pub(crate) fn stack_size(self, _: usize) -> Self {
        self
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        world::step(15 * US);
        torture::refuses_thread(&self.name)?;
        let is_refused = with(|world| {
            let is_refused = world.has(Fault::Threads) && world.net.is_serving && world.luck.one_in(4);
            if is_refused {
                world.count("refused threads");
            }
            is_refused
        });
        if is_refused {
            return Err(io::Error::from_raw_os_error(11));
        }
        let finished: Finished<T> = Arc::default();
        let result = Arc::clone(&finished);
        // A helper runs nobody's code that would leave a value there: it may be joined.
        let may_end_slowly = self.name != "helper";
        let is_worker = self.name.starts_with("worker");
        let number = world::spawn(self.name, move || {
            let value = catch_unwind(AssertUnwindSafe(body));
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            drop(result);
            if may_end_slowly {
                end_slowly(is_worker);
            }
        });
        world::step(US);
        Ok(JoinHandle { number, finished })
    }
}

/// As the seam of the crate has it.
pub(crate) fn spawn(thread: Builder, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread.spawn(body)
}

/// The destructor of a thread-local value may take its time.
fn end_slowly(is_worker: bool) {
    let time = with(|world| {
        let is_slow = world.has(Fault::SlowEnds) && world.luck.one_in(if is_worker { 3 } else { 8 });
        is_slow.then(|| {
            world.count("threads that end slowly");
            world.diary.has_slow_member |= !is_worker;
            world.luck.between(MS, 6000 * MS)
        })
    });
    if let Some(time) = time {
        sleep(Duration::from_nanos(time));
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> Result<T, Box<dyn Any + Send>> {
        world::step(US);
        while !with(|world| world.is_over(self.number)) {
            world::block(Why::Join(self.number), None);
        }
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner).take();
        finished.expect("it has ended, and is joined once")
    }
}
