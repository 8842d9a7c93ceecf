//! Readiness, twice: [`epoll`], where the kernel tells, and [`sweep`], where every socket is tried.
//!
//! Both promise the event loop the same:
//!
//! - A connection is reported when something about it has changed since it was last reported, or may have. The loop
//!   then reads or writes until the socket would block, or until a read comes back short; it is not reported again for
//!   what it left. (Edge-triggered: one system call fewer a request, and nothing to switch off while a connection is
//!   not to be read from.)
//! - A listener is reported as long as somebody waits in its queue.
//! - [`Waker::wake`] ends the current wait, or the next one if there is none. It never blocks.
//! - A socket that is closed is no longer reported; a report that was under way names a token that the loop has
//!   retired, and the loop ignores it.

#[cfg(all(target_os = "linux", feature = "sys"))]
mod epoll;
mod sweep;

use std::io;
use std::time::Duration;

use super::config::Readiness;
use super::listener::Listener;
use super::stream::Stream;
use crate::sync::Arc;

/// Something is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// As given when the socket was added.
    pub(crate) token: u64,
    /// The peer has ended its direction, or the connection is broken: a short read does not mean that this was all.
    pub(crate) is_hangup: bool,
}

/// Either backend.
#[derive(Debug)]
pub(crate) enum Poller {
    #[cfg(all(target_os = "linux", feature = "sys"))]
    Epoll(epoll::Epoll),
    Sweep(sweep::Sweep),
}

impl Poller {
    pub(crate) fn new(readiness: Readiness) -> io::Result<Self> {
        match readiness {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Readiness::Epoll => epoll::Epoll::new().map(Self::Epoll),
            Readiness::Sweep => Ok(Self::Sweep(sweep::Sweep::new())),
        }
    }

    pub(crate) fn waker(&self) -> Waker {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => Waker(Arc::new(WakerKind::Epoll(epoll.waker()))),
            Self::Sweep(sweep) => Waker(Arc::new(WakerKind::Sweep(sweep.waker()))),
        }
    }

    /// Reports `stream` under `token` until it is closed; that it has room to write, only after [`Poller::await_room`].
    pub(crate) fn add(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.add(stream, token),
            Self::Sweep(sweep) => {
                let _ = stream;
                sweep.add(token);
                Ok(())
            }
        }
    }

    /// Reports room to write too, from now on. Most connections never need it, and a new one has room, which would be
    /// reported before there is anything to read.
    pub(crate) fn await_room(&mut self, stream: &Stream, token: u64) -> io::Result<()> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.await_room(stream, token),
            // It reports everything all the time.
            Self::Sweep(_) => {
                let _ = (stream, token);
                Ok(())
            }
        }
    }

    /// Reports `listener` under `token` until it is closed or removed.
    pub(crate) fn add_listener(&mut self, listener: &Listener, token: u64) -> io::Result<()> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.add_listener(listener, token),
            Self::Sweep(sweep) => {
                let _ = listener;
                sweep.add(token);
                Ok(())
            }
        }
    }

    pub(crate) fn remove_listener(&mut self, listener: &Listener, token: u64) {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.remove(listener),
            Self::Sweep(_) => {
                let _ = listener;
                self.retired(token);
            }
        }
    }

    /// Reports `stream` no more, although it stays open.
    pub(crate) fn remove(&mut self, stream: &Stream, token: u64) {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.remove(stream),
            Self::Sweep(_) => {
                let _ = stream;
                self.retired(token);
            }
        }
    }

    /// The socket of this token is about to be closed.
    pub(crate) fn retired(&mut self, token: u64) {
        match self {
            // Closing its only descriptor removes it.
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(_) => {
                let _ = token;
            }
            Self::Sweep(sweep) => sweep.remove(token),
        }
    }

    /// Bytes or connections have moved: what comes next may come soon.
    pub(crate) fn progressed(&mut self) {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(_) => {}
            Self::Sweep(sweep) => sweep.progressed(),
        }
    }

    /// Waits until something is ready, a waker calls, or `timeout` has passed; without one, as long as it takes.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.wait(timeout),
            Self::Sweep(sweep) => {
                sweep.wait(timeout);
                Ok(())
            }
        }
    }

    /// The next of what the last wait found.
    pub(crate) fn next(&mut self) -> Option<Event> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Epoll(epoll) => epoll.next(),
            Self::Sweep(sweep) => sweep.next(),
        }
    }
}

/// Ends a poller's wait, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<WakerKind>);

#[derive(Debug)]
enum WakerKind {
    #[cfg(all(target_os = "linux", feature = "sys"))]
    Epoll(epoll::EpollWaker),
    Sweep(sweep::SweepWaker),
}

impl Waker {
    pub(crate) fn wake(&self) {
        match &*self.0 {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            WakerKind::Epoll(waker) => waker.wake(),
            WakerKind::Sweep(waker) => waker.wake(),
        }
    }
}
