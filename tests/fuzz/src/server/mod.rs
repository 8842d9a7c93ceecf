//! The rooms of the server as they are, and stand-ins for those that hold sockets: [`stream`], [`listener`],
//! [`shared_listener`] and [`poller`]. A connection's peer is a script, time does not matter, and no system call is made.
//!
//! A new room of `src/server` needs a line here if one of these names it; a new method of a socket, a stand-in. A
//! handler that streams a request's body waits for its peer, whose script then goes on by itself; responses are not
//! streamed here.

#[path = "../../../../src/server/answered.rs"]
mod answered;
#[path = "../../../../src/server/budget.rs"]
mod budget;
#[path = "../../../../src/server/buffer.rs"]
mod buffer;
#[path = "../../../../src/server/busy.rs"]
mod busy;
#[path = "../../../../src/server/call.rs"]
mod call;
#[path = "../../../../src/server/config.rs"]
mod config;
#[path = "../../../../src/server/connection.rs"]
mod connection;
#[path = "../../../../src/server/counts.rs"]
mod counts;
#[path = "../../../../src/server/event_loop/mod.rs"]
mod event_loop;
#[path = "../../../../src/server/handoff/mod.rs"]
mod handoff;
#[path = "../../../../src/server/inbox.rs"]
mod inbox;
#[path = "../../../../src/server/network_path.rs"]
mod network_path;
#[path = "../../../../src/server/notice.rs"]
mod notice;
#[path = "../../../../src/server/outgoing.rs"]
mod outgoing;
#[path = "../../../../src/server/patience.rs"]
mod patience;
#[path = "../../../../src/server/phase.rs"]
mod phase;
#[path = "../../../../src/server/presence.rs"]
mod presence;
#[path = "../../../../src/server/quiet.rs"]
mod quiet;
#[path = "../../../../src/server/reply.rs"]
mod reply;
#[path = "../../../../src/server/shared.rs"]
mod shared;
#[path = "../../../../src/server/streaming/mod.rs"]
mod streaming;
#[path = "../../../../src/server/table.rs"]
mod table;
#[path = "../../../../src/server/throttle.rs"]
mod throttle;
#[path = "../../../../src/server/timeouts.rs"]
mod timeouts;
#[path = "../../../../src/server/transfer.rs"]
mod transfer;

mod accept_error;
mod listener;
pub(crate) mod play;
mod poller;
mod shared_listener;
mod stream;
