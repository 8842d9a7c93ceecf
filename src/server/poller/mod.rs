//! Readiness: `epoll`, where the kernel reports it, and `sweep`, where the loop tries every socket. A server has the
//! one that it was built with: its system and the feature `sys` decide.
//!
//! Both promise the event loop the same, by the same methods:
//!
//! - `add`: reports a connection under its token when something about it has changed since its last report, or may
//!   have. The loop then reads or writes until the socket would block, or until a read comes back short; what it leaves
//!   is not reported again. (Edge-triggered: one system call fewer per request, and nothing to switch off while a
//!   connection must not be read.)
//! - `await_room`: from now on, reports room to write too. Most connections never need it, and a new one has room,
//!   which would be reported before there is anything to read.
//! - `add_listener`: reports a listener while connections wait in its queue.
//! - `remove`, `remove_listener`: no longer reports a socket, although it stays open.
//! - `retired`: the socket of this token is about to be closed, after which it is no longer reported; a report that was
//!   under way names a token that the loop has retired, and the loop ignores it.
//! - `progressed`: bytes or connections have moved, so more may come soon.
//! - `wait`: waits until something is ready, a waker calls, or the timeout has passed; without one, for as long as it
//!   takes.
//! - `next`: the next event of the last wait.
//! - `waker`, [`Waker::wake`]: ends the current wait, or the next one if there is none, from any thread. It never
//!   blocks.

#[cfg(all(target_os = "linux", feature = "sys"))]
mod epoll;
mod event;
#[cfg(any(test, not(all(target_os = "linux", feature = "sys"))))]
mod sweep;

#[cfg(all(target_os = "linux", feature = "sys"))]
pub(crate) use epoll::{Poller, Waker};
pub(crate) use event::Event;
#[cfg(not(all(target_os = "linux", feature = "sys")))]
pub(crate) use sweep::{Poller, Waker};
