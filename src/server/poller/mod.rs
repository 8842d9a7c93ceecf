//! Readiness: [`epoll`], where the kernel tells, and [`sweep`], where every socket is tried. Which of the two a server
//! has is decided when it is built: by its system, and by the feature `sys`.
//!
//! Both promise the event loop the same, by the same methods:
//!
//! - `add`: a connection is reported under its token when something about it has changed since it was last reported, or
//!   may have. The loop then reads or writes until the socket would block, or until a read comes back short; it is not
//!   reported again for what it left. (Edge-triggered: one system call fewer a request, and nothing to switch off while
//!   a connection is not to be read from.)
//! - `await_room`: room to write is reported too, from now on. Most connections never need it, and a new one has room,
//!   which would be reported before there is anything to read.
//! - `add_listener`: a listener is reported as long as somebody waits in its queue.
//! - `remove`, `remove_listener`: a socket is reported no more, although it stays open.
//! - `retired`: the socket of this token is about to be closed, after which it is no longer reported; a report that was
//!   under way names a token that the loop has retired, and the loop ignores it.
//! - `progressed`: bytes or connections have moved, so that what comes next may come soon.
//! - `wait`: until something is ready, a waker calls, or the timeout has passed; without one, as long as it takes.
//! - `next`: the next of what the last wait found.
//! - `waker`, [`Waker::wake`]: ends the current wait, or the next one if there is none, from any thread. It never
//!   blocks.

#[cfg(all(target_os = "linux", feature = "sys"))]
mod epoll;
#[cfg(any(test, not(all(target_os = "linux", feature = "sys"))))]
mod sweep;

#[cfg(all(target_os = "linux", feature = "sys"))]
pub(crate) use epoll::{Poller, Waker};
#[cfg(not(all(target_os = "linux", feature = "sys")))]
pub(crate) use sweep::{Poller, Waker};

/// Something is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// As given when the socket was added.
    pub(crate) token: u64,
    /// The peer has ended its direction, or the connection is broken: a short read does not mean that this was all.
    pub(crate) is_hangup: bool,
}
