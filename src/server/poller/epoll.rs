//! Readiness from the kernel: epoll(7), the only file of the crate that may say `unsafe`.
//!
//! Three calls are declared against the libc that std already links. Everything else is std's: the descriptors are
//! owned and borrowed by its types, and the waker is a pair of its Unix sockets.

#![allow(unsafe_code)] // The one exception to the crate's rule; each block says why it is sound.

use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Event;
use crate::server::listener::Listener;
use crate::server::stream::Stream;

/// `struct epoll_event` of <sys/epoll.h>; packed on x86-64 alone, where the 32-bit layout was kept.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    data: u64,
}

unsafe extern "C" {
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
    fn epoll_wait(epfd: c_int, events: *mut EpollEvent, maxevents: c_int, timeout: c_int) -> c_int;
}

// <sys/epoll.h>; the same on every architecture.
const EPOLL_CLOEXEC: c_int = 0o2_000_000;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_DEL: c_int = 2;
const EPOLL_CTL_MOD: c_int = 3;
const EPOLLIN: u32 = 0x001;
const EPOLLOUT: u32 = 0x004;
const EPOLLERR: u32 = 0x008;
const EPOLLHUP: u32 = 0x010;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLEXCLUSIVE: u32 = 1 << 28;
const EPOLLET: u32 = 1 << 31;

/// Events taken from the kernel at a time: enough that a call is shared by many requests, few enough that the first
/// does not wait long for the last.
const EVENTS_MAX: c_int = 256;

const WAKER: u64 = u64::MAX;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    /// The first `count` of these are what the last wait found. Written by the kernel alone: to clear them for each
    /// wait would take longer than all else that is done for one.
    found: Box<[EpollEvent]>,
    count: usize,
    reported: usize,
    wake: Arc<WakePair>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the result is checked.
        let fd = unsafe { epoll_create1(EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, so it is open and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let wake = Arc::new(WakePair::new()?);
        let none = EpollEvent { events: 0, data: 0 };
        let found = vec![none; EVENTS_MAX as usize].into_boxed_slice();
        let poller = Self { epoll, found, count: 0, reported: 0, wake };
        // Level-triggered: it is emptied whenever it is reported.
        poller.control(EPOLL_CTL_ADD, poller.wake.receiver.as_fd(), EPOLLIN, WAKER)?;
        Ok(poller)
    }

    pub(crate) fn waker(&self) -> EpollWaker {
        EpollWaker(Arc::clone(&self.wake))
    }

    pub(crate) fn add(&self, stream: &Stream, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, stream.as_fd(), EPOLLIN | EPOLLRDHUP | EPOLLET, token)
    }

    pub(crate) fn remove(&self, socket: &impl AsFd) {
        // Fails only if it is not there, which is what was wanted.
        let _ = self.control(EPOLL_CTL_DEL, socket.as_fd(), 0, 0);
    }

    /// If there is room already, the next wait says so.
    pub(crate) fn await_room(&self, stream: &Stream, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_MOD, stream.as_fd(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, token)
    }

    /// Exclusive: of several loops that wait for the same listener, a connection wakes one.
    pub(crate) fn add_listener(&self, listener: &Listener, token: u64) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, listener.as_fd(), EPOLLIN | EPOLLEXCLUSIVE, token)
    }

    fn control(&self, operation: c_int, fd: BorrowedFd<'_>, events: u32, token: u64) -> io::Result<()> {
        let mut event = EpollEvent { events, data: token };
        // SAFETY: both descriptors are open, as their types vouch for; `event` is a whole epoll_event that outlives
        // the call, which reads it and keeps no pointer to it.
        let result = unsafe { epoll_ctl(self.epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up, so that a wait that was meant to end at a deadline does not end just before it.
        let timeout =
            timeout.map_or(-1, |timeout| c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX));
        // SAFETY: `found` holds EVENTS_MAX events, initialised and writable, and the kernel writes at most that many;
        // nobody else can touch it during the call, since we hold it by `&mut`.
        let count = unsafe { epoll_wait(self.epoll.as_raw_fd(), self.found.as_mut_ptr(), EVENTS_MAX, timeout) };
        self.reported = 0;
        // A negative count is an error, and then nothing was found.
        self.count = usize::try_from(count).unwrap_or(0);
        match count {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()).or_else(|error: io::Error| match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            }),
        }
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            let EpollEvent { events, data } = *self.found[..self.count].get(self.reported)?;
            self.reported += 1;
            if data == WAKER {
                self.wake.clear();
            } else {
                let is_over = events & (EPOLLHUP | EPOLLERR) != 0;
                return Some(Event { token: data, is_hangup: is_over || events & EPOLLRDHUP != 0, is_over });
            }
        }
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.epoll).finish_non_exhaustive()
    }
}

/// A byte in a socket wakes the poller. A flag keeps a second byte from being sent before the first was taken.
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

    /// First the byte, then the flag: a waker that comes between them finds the flag still set and sends none, but the
    /// poller is awake and has not yet looked at what it is woken for. It will see it: the swap reads what the waker
    /// wrote last, and so all that the waker did before.
    fn clear(&self) {
        let mut bytes = [0; 16];
        while matches!((&self.receiver).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        self.is_awake.swap(false, Ordering::AcqRel);
    }
}

#[derive(Debug)]
pub(crate) struct EpollWaker(Arc<WakePair>);

impl EpollWaker {
    pub(crate) fn wake(&self) {
        if !self.0.is_awake.swap(true, Ordering::AcqRel) {
            // Would block only if the buffer is full of such bytes, and then the poller is awake.
            let _ = (&self.0.sender).write(&[1]);
        }
    }
}
