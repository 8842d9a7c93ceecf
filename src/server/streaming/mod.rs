//! Streaming: a handler's thread reads a request's body as it arrives, or writes a response's body as it is made.
//!
//! Meanwhile that thread has the socket ([`blocking_socket::BlockingSocket`]), and waits for the peer instead of the
//! loop. The connection stays in its loop's table, in the phase Away, like that of any slow handler, whether or not its
//! loop has been taken over:
//!
//! ```text
//!         head has come, `BodyPlan::Stream`
//! loop ────────────────────────────────────▶ Upload ──handler has returned──▶ Answer ──▶ loop
//!
//! a handler has answered with `Response::stream`, and its body is being written
//!   ├── fails before there is anything to send ──▶ Answer, 500 ──▶ loop
//!   └── first bytes ── Answer ──▶ loop ── Download ──▶ thread: head, bytes, … ──end──▶ Streamed ──▶ loop
//! ```
//!
//! While a response's body has not sent its first bytes, its writer is a handler like any other: the loop has the
//! socket, sends the answers before this one, and times a peer that does not take them.
//!
//! If the loop still lies in its slot, the thread hands over in place; if not, through the inbox. What a loop gives to
//! a thread that it was taken from goes through a channel.
//!
//! # Why nothing is lost, and nobody waits for ever
//!
//! - *Bytes:* one side has the socket at a time. A loop gives it away only when its buffer holds nothing more to read
//!   for this request. To an upload, it gives it only once the earlier answers have left. To a download, it gives the
//!   rest of those along, and the thread sends them with the head and the first bytes. The thread gives the socket back
//!   with what has come after the body. A loop neither reads nor writes a connection that is away and has nothing
//!   unsent.
//! - *Waiting:* the peer's patience bounds each wait. The peer loses it while it does nothing, and each 4 KiB earn a
//!   second back. The time that the handler itself takes does not count.
//! - *A stop* leaves streams alone until the deadline. Then the loop shuts the socket down like any other, and whatever
//!   the thread waits for fails at once. Each request that has come whole is owed an answer. An upload whose handler
//!   waits for more of the body has not come whole; for any other upload, the loop checks for itself. An upload that
//!   has not come whole gets 408. In either case, the loop names a handler that still runs.
//! - *A thread that waits for its loop's Download* gets it, since a loop empties its inbox before it waits and before
//!   it ends. If the connection has gone or the inbox is closed, its reply is dropped, and the
//!   thread notices.

mod arriving;
mod blocking_socket;
mod download;
mod upload;

pub(crate) use arriving::Arriving;
pub(crate) use download::{Download, Finish, Streamed, write_body};
pub(crate) use upload::Upload;
