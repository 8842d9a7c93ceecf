//! The hand-off: handlers may block, and stall only their own client.
//!
//! Each event loop lies in a slot, under a lock. The thread that holds the lock runs the loop. To answer a request, the
//! thread lets go of the loop, calls the handler, and takes the loop back: two uncontended operations. A watcher looks
//! at the slots. If a loop has lain in its slot since the last look, the watcher sends a spare thread, which runs the
//! loop from then on. When the slow handler returns, its thread finds the loop gone: it sends the response to the
//! loop's inbox and becomes a spare.
//!
//! # States
//!
//! A loop, as its [`word`] says:
//!
//! ```text
//! HELD ──a request is whole and has a permit───▶ BUSY ──▶ LENT ──claimed by the thread that lent it──▶ HELD
//!                                                          └────claimed by a spare────────────────────▶ HELD
//!                                       BUSY ◀── borrowed by the thread that lent it, to stream ── LENT
//! ```
//!
//! A thread:
//!
//! ```text
//! SPARE ──task──▶ HOLDER ──lends──▶ IN HANDLER ──returns, claims──▶ HOLDER
//!   ▲               │                    └──────returns, cannot claim─────▶ gives the answer back ──▶ SPARE
//!   │               └──loop over──▶ SPARE
//!   └── 10 s without a task, and others are left: ends
//! ```
//!
//! A thread that ends while others serve is detached: the destructors of thread-local values that handlers have set may
//! take any time. When the server ends, a helper joins the threads that are left, but only until the deadline.
//!
//! A connection of a lent loop stays in the loop's table. What a handler needs (the request's bytes) lies in its
//! thread's buffer; what its client needs (the socket, the answers before this one) lies in the loop. So a spare that
//! takes over can send those answers at once, and the stop, the deadline and every clock reach the connection.
//!
//! # Why nothing is lost, answered twice, or missed
//!
//! - *The loop* is held by exactly one thread: [`Word::claim`] is the only way out of LENT for good, and exactly one of
//!   the two threads that may try it succeeds.
//! - *A request* is answered by exactly one thread, the one that called its handler: either it claims the loop and
//!   answers in place, or it puts the answer into the inbox. One compare-and-swap decides which. Before anything else,
//!   a spare that claims the loop marks the connection as away, under the slot's lock, so nobody reads on after the
//!   request until the answer has come.
//! - *The inbox* is emptied by the loop in each pass; if there is no time for it, the loop does not wait but looks
//!   again in the next. A push wakes the wait. The inbox closes only when the loop holds no connection. An answer whose
//!   connection was cut off at the deadline finds the inbox closed or the connection gone, and is dropped.
//! - *A loop that panics* does so by a fault of our own, since panics of the embedder's code are caught. The thread
//!   that holds the loop buries it: its inbox closes and gives back its messages, so that anyone who has asked the loop
//!   for something, or wants to give it something, learns of the end; no request queues behind its requests any more;
//!   it leaves the listeners; and its clients see their connections end. A panic of our own on a thread without a loop
//!   costs one connection. Either panic ends the server.
//! - *A stop* wakes the poller of every loop. If a loop lies in its slot at that moment, the wake-up stays in the
//!   poller until somebody runs the loop: the handler's thread, or, if that takes too long, a spare.
//! - *A slow handler* is always found: its thread lends the loop first and then checks whether the watcher sleeps; the
//!   watcher first announces that it will sleep and then checks whether a loop is lent. One of them sees the other.
//! - *A thread* is always there to take over: spares are started as needed, and [`permits`] limit how many of them
//!   handlers can hold. If the system cannot start a thread, the loop stays in its slot, and the watcher tries again.

mod permits;
mod watcher;
mod word;
mod workers;

pub(crate) use permits::Permits;
pub(crate) use watcher::supervise;

#[expect(unused_imports)] // For the documentation above.
use word::Word;
