//! Streaming: a handler's thread reads a request's body as it arrives, or writes a response's body as it is made.
//!
//! Meanwhile the socket belongs to that thread ([`line::Line`]), and waits for the peer instead of the loop. The
//! connection stays in its loop's table, in the phase Away, like that of any slow handler, whether its loop has been
//! taken over or not:
//!
//! ```text
//!                        head has come, `Handler::streams`
//! loop ───────────────────────────────────────────────▶ Upload ──handler has returned──▶ Answer ──▶ loop
//!                        a handler has answered with `Response::stream`
//! loop ◀── Answer ── thread;  loop ── Download ──▶ thread ──body is written──▶ Streamed ──▶ loop
//! ```
//!
//! What goes from a thread to its loop goes in place if the loop still lies in its slot, and by the inbox if not; what
//! a loop has to give to a thread that it was taken from goes by a channel.
//!
//! # Why nothing is lost, and nobody waits for ever
//!
//! - *Bytes:* one side has the socket at a time. A loop gives it away only with nothing left to read on its desk for
//!   this request, and with the answers before this one sent, or given along to be sent first; the thread gives it back
//!   with what has come behind the body. A loop neither reads nor writes a connection that is away and has nothing
//!   unsent.
//! - *Waiting:* each wait for the peer is bounded by its patience, which it loses while it does nothing and earns back
//!   by each 4 KiB. The time that a handler itself takes is not counted.
//! - *A stop* leaves streams alone until the deadline; then the loop shuts the socket down as it does any other, and
//!   whatever the thread waits for fails at once. What is owed is a request that has come whole: of an upload, only
//!   once its body has ended.
//! - *The thread that waits for its loop's Download* gets it, since a loop empties its inbox before it waits and before
//!   it ends; if the connection is gone or the inbox closed, the other end of the channel is dropped, which it notices.

mod download;
mod line;
mod upload;

pub(crate) use download::{Download, Streamed};
pub(crate) use upload::Upload;
