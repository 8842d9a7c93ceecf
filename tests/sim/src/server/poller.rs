//! Readiness in the simulated network: reported by it, as `epoll` does, or found by `sweep`, as it is.

use std::io;
use std::time::Duration;

pub(crate) use super::event::Event;
use super::listener::Listener;
use super::stream::Stream;
use super::sweep;
use crate::net::WAKER;
use crate::plan::Fault;
use crate::sync::{Arc, AtomicBool, Ordering, after};
use crate::torture::{self, Call, Way};
use crate::world::{self, MS, US, Why, with};

/// Waits in a row that found nothing and took no time: more than any work that is queued explains.
const IN_VAIN_MAX: u64 = 3000;

#[derive(Debug)]
pub(crate) enum Poller {
    Reported(Reported),
    Swept(sweep::Poller),
}

#[derive(Debug)]
pub(crate) struct Reported {
    number: usize,
    found: Vec<(u64, bool)>,
    reported: usize,
    wake: WakePair,
}

/// As `epoll.rs` has it: a byte in a socket, and a flag that prevents a second one.
#[derive(Clone, Debug)]
pub(crate) struct WakePair {
    poller: usize,
    is_awake: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
pub(crate) enum Waker {
    Reported(WakePair),
    Swept(sweep::Waker),
}

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Self::Swept(waker) => waker.wake(),
            Self::Reported(pair) => pair.wake(),
        }
    }
}

impl WakePair {
    fn wake(&self) {
        if !self.is_awake.swap(true, Ordering::AcqRel) {
            world::step(US);
            with(|world| {
                world.net.pollers[self.poller].wake_bytes += 1;
                world.is_ready(self.poller, WAKER);
            });
        }
    }

    fn clear(&self) {
        world::step(US);
        with(|world| world.net.pollers[self.poller].wake_bytes = 0);
        self.is_awake.swap(false, Ordering::AcqRel);
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        if with(|world| world.plan.is_swept) {
            return sweep::Poller::new().map(Self::Swept);
        }
        torture::error_of(Call::NewPoller)?;
        let number = with(|world| {
            world.net.pollers.push(crate::net::Poller::default());
            world.net.pollers.len() - 1
        });
        let wake = WakePair { poller: number, is_awake: Arc::new(AtomicBool::new(false)) };
        Ok(Self::Reported(Reported { number, found: Vec::new(), reported: 0, wake }))
    }

    pub(crate) fn waker(&self) -> Waker {
        match self {
            Self::Reported(poller) => Waker::Reported(poller.wake.clone()),
            Self::Swept(poller) => Waker::Swept(poller.waker()),
        }
    }

    pub(crate) fn add(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        match self {
            Self::Swept(poller) => poller.add(stream, token),
            Self::Reported(poller) => {
                poller.control(Call::Register(stream.number())).inspect_err(|_| with(|world| world.net.pipes[stream.number()].is_excused = true))?;
                with(|world| world.watch(poller.number, token, stream.number()));
                Ok(())
            }
        }
    }

    pub(crate) fn await_room(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        match self {
            Self::Swept(poller) => poller.await_room(stream, token),
            Self::Reported(poller) => {
                poller.control(Call::AwaitRoom(stream.number()))?;
                with(|world| world.watch_room(poller.number, token, stream.number()));
                Ok(())
            }
        }
    }

    pub(crate) fn add_listener(&mut self, listener: &Listener, token: u64) -> io::Result<()> {
        match self {
            Self::Swept(poller) => poller.add_listener(listener, token),
            Self::Reported(poller) => {
                poller.control(Call::RegisterListener(listener.number()))?;
                with(|world| world.watch_listener(poller.number, token, listener.number()));
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&mut self, stream: &Stream, token: u64) {
        match self {
            Self::Swept(poller) => poller.remove(stream, token),
            Self::Reported(poller) => {
                world::step(US);
                with(|world| world.unwatch(poller.number, token, stream.number()));
            }
        }
    }

    pub(crate) fn remove_listener(&mut self, listener: &Listener, token: u64) {
        match self {
            Self::Swept(poller) => poller.remove_listener(listener, token),
            Self::Reported(poller) => {
                world::step(US);
                with(|world| world.unwatch_listener(poller.number, token, listener.number()));
            }
        }
    }

    pub(crate) fn retired(&mut self, token: u64) {
        if let Self::Swept(poller) = self {
            poller.retired(token);
        }
    }

    pub(crate) fn progressed(&mut self) {
        if let Self::Swept(poller) = self {
            poller.progressed();
        }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        with(|world| world.count("waits of loops"));
        match self {
            Self::Swept(poller) => poller.wait(timeout),
            Self::Reported(poller) => poller.wait(timeout),
        }
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        match self {
            Self::Swept(poller) => poller.next(),
            Self::Reported(poller) => poller.next(),
        }
    }
}

impl Reported {
    fn control(&self, call: Call) -> io::Result<()> {
        world::step(US);
        torture::error_of(call)?;
        let has_failed = with(|world| {
            let has_failed = world.has(Fault::Control) && world.net.is_serving && world.luck.one_in(8);
            if has_failed {
                world.count("errors of epoll_ctl");
            }
            has_failed
        });
        if has_failed { Err(io::Error::from_raw_os_error(12)) } else { Ok(()) }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        world::step(US);
        (self.reported, self.found) = (0, Vec::new());
        // In whole milliseconds, rounded up.
        let timeout = timeout.map(|timeout| {
            let ms = u64::try_from(timeout.as_nanos().div_ceil(u128::from(MS))).unwrap_or(u64::MAX).min(1 << 31);
            Duration::from_millis(ms)
        });
        let until = timeout.map(after);
        if with(|world| world.has(Fault::Interrupts) && world.luck.one_in(15)) {
            with(|world| world.count("interrupted waits"));
            return Ok(());
        }
        if with(|world| world.has(Fault::Poller) && world.luck.one_in(60)) {
            with(|world| {
                world.count("failed pollers");
                world.diary.has_poller_failed = true;
            });
            return Err(io::Error::from_raw_os_error(22));
        }
        match torture::fails(Call::Wait) {
            Some(Way::Error(error)) => return Err(io::Error::from_raw_os_error(error)),
            Some(_) => return Ok(()),
            None => {}
        }
        let number = self.number;
        let began = with(|world| world.now);
        loop {
            let is_over = with(|world| {
                let (max, me, now) = (world.plan.events_max, world.me(), world.now);
                self.found = world.found(number, max);
                let is_over = !self.found.is_empty() || until.is_some_and(|until| until <= now);
                let poller = &mut world.net.pollers[number];
                if !is_over {
                    poller.waiting = Some(me);
                } else if self.found.is_empty() && now < began + 20 * US {
                    poller.in_vain += 1;
                    if poller.in_vain == IN_VAIN_MAX {
                        world.break_rule(format!("a loop looked {IN_VAIN_MAX} times in a row and found nothing"));
                    }
                } else {
                    poller.in_vain = 0;
                }
                is_over
            });
            if is_over {
                return Ok(());
            }
            world::block(Why::Poller(number), until);
            let is_interrupted = with(|world| {
                let poller = &mut world.net.pollers[number];
                poller.waiting = None;
                std::mem::take(&mut poller.is_interrupted)
            });
            if is_interrupted {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let (token, is_hangup) = *self.found.get(self.reported)?;
            self.reported += 1;
            if token == WAKER {
                self.wake.clear();
            } else {
                return Some(Event { token, is_hangup });
            }
        }
    }
}
