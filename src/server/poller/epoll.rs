//! Readiness from the kernel: epoll(7).
//!
//! Everything except the calls themselves is std's: its types own and borrow descriptors, and the waker is a pair of
//! its Unix sockets.

use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::event::Event;
use crate::server::listener::Listener;
use crate::server::stream::Stream;
use crate::server::sys::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLOUT,
    EPOLLRDHUP, EpollEvent, control_epoll, new_epoll, wait_epoll,
};
use crate::sync::{Arc, AtomicBool, Ordering};

/// How many events to take from the kernel at a time: enough that many requests share a call, few enough that the first
/// does not wait long for the last.
const EVENTS_MAX: usize = 256;

const WAKER: u64 = u64::MAX;

pub(crate) struct Poller {
    epoll: OwnedFd,
    /// The first `count` of these are what the last wait found. Only the kernel writes them: clearing them for each
    /// wait would take longer than everything else in it.
    found: Box<[EpollEvent]>,
    count: usize,
    reported: usize,
    wake: Waker,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = new_epoll()?;
        let wake = Waker(Arc::new(WakePair::new()?));
        let none = EpollEvent { events: 0, data: 0 };
        let found = vec![none; EVENTS_MAX].into_boxed_slice();
        let poller = Self { epoll, found, count: 0, reported: 0, wake };
        // Level-triggered: it is emptied whenever it is reported.
        poller.control(EPOLL_CTL_ADD, &poller.wake.0.receiver, EPOLLIN, WAKER)?;
        Ok(poller)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.wake.clone()
    }

    pub(crate) fn add(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, stream, EPOLLIN | EPOLLRDHUP | EPOLLET, token)
    }

    /// If there is room already, the next wait reports it.
    pub(crate) fn await_room(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_MOD, stream, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, token)
    }

    /// Exclusive: if several loops wait for the same listener, a connection wakes one.
    pub(crate) fn add_listener(&mut self, listener: &Listener, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, listener, EPOLLIN | EPOLLEXCLUSIVE, token)
    }

    // Fails only if it is not there, which is what was wanted; so too below.
    pub(crate) fn remove(&mut self, stream: &Stream, _: u64) {
        let _ = self.control(EPOLL_CTL_DEL, stream, 0, 0);
    }

    pub(crate) fn remove_listener(&mut self, listener: &Listener, _: u64) {
        let _ = self.control(EPOLL_CTL_DEL, listener, 0, 0);
    }

    /// Closing its only descriptor removes it.
    pub(crate) fn retired(&mut self, _: u64) {}

    pub(crate) fn progressed(&mut self) {}

    fn control(&self, operation: c_int, socket: &impl AsFd, events: u32, token: u64) -> io::Result<()> {
        control_epoll(&self.epoll, operation, socket, EpollEvent { events, data: token })
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up, so that a wait meant to end at a deadline does not end just before it.
        let timeout =
            timeout.map_or(-1, |timeout| c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX));
        // After an error, nothing was found.
        (self.reported, self.count) = (0, 0);
        match wait_epoll(&self.epoll, &mut self.found, timeout) {
            Ok(count) => self.count = count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let EpollEvent { events, data } = *self.found[..self.count].get(self.reported)?;
            self.reported += 1;
            if data == WAKER {
                self.wake.0.clear();
            } else {
                return Some(Event { token: data, is_hangup: events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0 });
            }
        }
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("fd", &self.epoll).finish_non_exhaustive()
    }
}

/// A byte in a socket wakes the poller. A flag prevents a second byte before the first is taken.
#[derive(Debug)]
struct WakePair {
    receiver: UnixStream,
    sender: UnixStream,
    is_awake: AtomicBool,
}

impl WakePair {
    fn new() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        Ok(Self { receiver, sender, is_awake: AtomicBool::new(false) })
    }

    /// First the byte, then the flag. A waker that comes in between finds the flag still set and sends nothing; but the
    /// poller is awake, and has yet to look at what it was woken for. It will see it: the swap reads what the waker
    /// wrote last, and so everything that the waker did before.
    fn clear(&self) {
        let mut bytes = [0; 16];
        while matches!((&self.receiver).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        self.is_awake.swap(false, Ordering::AcqRel);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<WakePair>);

impl Waker {
    pub(crate) fn wake(&self) {
        if !self.0.is_awake.swap(true, Ordering::AcqRel) {
            // Would block only if the buffer is full of such bytes; then the poller is awake.
            let _ = (&self.0.sender).write(&[1]);
        }
    }
}
