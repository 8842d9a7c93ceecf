//! The hand-off: handlers may block, and stall nobody but their own client.
//!
//! An event loop lies in a slot, a lock of its own. The thread that holds the lock turns the loop. When a request is to
//! be answered, the thread lets go of the loop, calls the handler, and takes the loop back: two uncontended operations.
//! A watcher looks at the slots. A loop that has lain in its slot since the last look is given to a spare thread, which
//! turns it from then on. When the slow handler returns, its thread finds the loop gone: it sends the response to the
//! loop's inbox and becomes a spare.
//!
//! # States
//!
//! A loop, told by its [`word`]:
//!
//! ```text
//! HELD ──a request is whole, a permit was had──▶ BUSY ──▶ LENT ──claimed by the thread that lent it──▶ HELD
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
//! A thread that ends while others serve is let go of: the destructors of what handlers have kept in it may take any
//! time. At the end of the server a helper joins those that are left, until the deadline and no longer.
//!
//! A connection of a lent loop stays in the loop's table. What a handler needs, the request's bytes, lies on the desk
//! of its thread; what its client needs, the socket and the answers before this one, lies in the loop. So a spare that
//! takes over can send those answers at once, and the stop, the deadline and every clock reach the connection.
//!
//! # Why nothing is lost, answered twice, or missed
//!
//! - *The loop* is held by exactly one thread: [`Word::claim`] is the only way out of LENT, and one of the two that may
//!   try it succeeds.
//! - *A request* is answered by exactly one thread, the one that called its handler: either it claims the loop and
//!   answers in place, or it puts the answer into the inbox. Which of the two is decided by one compare-and-swap. The
//!   spare that claims the loop marks the connection as away under the slot's lock before it does anything else, so
//!   that nobody reads on behind the request until the answer has come.
//! - *The inbox* is emptied by the loop in each pass; if there is no time for it, the loop does not wait but looks
//!   again in the next. A push wakes the wait. It closes only when the loop holds no connection; an answer whose
//!   connection was cut off at the deadline finds it closed, or finds no connection, and is dropped as its client was.
//! - *A loop that panics*, by a fault of our own, since the embedder's code has nets, is buried by the thread that
//!   holds it: its inbox closes and gives back what is in it, so that whoever has asked it for something or wants to
//!   give it something hears of it; nobody waits for its turn any more; it leaves the listeners, and its clients see
//!   the end. A panic on a thread that has no loop, of our own too, costs one connection. Either ends the server.
//! - *A stop* wakes the poller of every loop. If the loop lies in its slot at that moment, the wake-up stays in the
//!   poller until somebody turns the loop: the handler's thread, or, if that takes too long, a spare.
//! - *A slow handler* is always found: its thread lends the loop first and then looks whether the watcher sleeps; the
//!   watcher says that it will sleep first and then looks whether a loop is lent. One of them sees the other.
//! - *A thread* is always there to take over: spares are started as needed, and [`permits`] bound how many can be held
//!   by handlers. If the system has no thread to give, the loop stays where it is, and the watcher tries again.

mod permits;
mod watcher;
mod word;
mod workers;

pub(crate) use permits::Permits;
pub(crate) use watcher::supervise;

#[expect(unused_imports)] // For the documentation above.
use word::Word;
