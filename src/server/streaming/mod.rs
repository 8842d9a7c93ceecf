//! Streaming: a handler's thread reads a request's body as it arrives, or writes a response's body as it is made.
//!
//! Meanwhile the socket belongs to that thread ([`line::Line`]), and waits for the peer instead of the loop. The
//! connection stays in its loop's table, in the phase Away, like that of any slow handler, whether its loop has been
//! taken over or not:
//!
//! ```text
//!         head has come, `Handler::streams`
//! loop ────────────────────────────────────▶ Upload ──handler has returned──▶ Answer ──▶ loop
//!
//! a handler has answered with `Response::stream`, and its body is being written
//!   ├── fails before there is anything to send ──▶ Answer, 500 ──▶ loop
//!   └── first bytes ── Answer ──▶ loop ── Download ──▶ thread: head, bytes, … ──end──▶ Streamed ──▶ loop
//! ```
//!
//! Until its first bytes are to be sent, a body that is being written is a handler like any other: its loop has the
//! socket, sends the answers before this one, and looks to the clock of a peer that does not take them.
//!
//! What goes from a thread to its loop goes in place if the loop still lies in its slot, and by the inbox if not; what
//! a loop has to give to a thread that it was taken from goes by a channel.
//!
//! # Why nothing is lost, and nobody waits for ever
//!
//! - *Bytes:* one side has the socket at a time. A loop gives it away only with nothing left to read on its desk for
//!   this request. To an upload it does so only once the answers before it are sent; to a download it gives what is
//!   left of them along, to be sent at once with the head and the first bytes. The thread gives the socket back with
//!   what has come behind the body. A loop neither reads nor writes a connection that is away and has nothing unsent.
//! - *Waiting:* each wait for the peer is bounded by its patience, which it loses while it does nothing and earns back
//!   by each 4 KiB. The time that a handler itself takes is not counted.
//! - *A stop* leaves streams alone until the deadline; then the loop shuts the socket down as it does any other, and
//!   whatever the thread waits for fails at once. What is owed is a request that has come whole: of an upload that is
//!   being read from, one whose body has ended; of one that is not, the loop looks for itself. To any other it answers
//!   408. A handler that still runs is named in either case.
//! - *The thread that waits for its loop's Download* gets it, since a loop empties its inbox before it waits and before
//!   it ends; if the connection is gone or the inbox closed, the other end of the channel is dropped, which it notices.

mod download;
mod line;
mod upload;

pub(crate) use download::{Download, Streamed, write_body};
pub(crate) use upload::{Arriving, Upload};
