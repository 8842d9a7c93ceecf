//! One integration crate: behaviour on real sockets, and of the real binary where that is what users meet.
//!
//! No test depends on how fast the machine is: each waits for an event, with a bound that only a hang reaches.

// A test says what it expects by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// Nothing here is anybody else's.
#![allow(unreachable_pub)]

mod support;

mod admin;
mod answered;
mod causes;
mod check;
mod closing;
mod command;
mod compile;
mod drain;
#[cfg(all(unix, feature = "signals"))]
mod examples;
mod fairness;
mod group;
mod handlers;
mod handoff;
#[cfg(all(target_os = "linux", feature = "sys"))]
mod handshakes;
#[cfg(unix)]
mod inherited;
mod limits;
mod listeners;
#[cfg(unix)]
mod notify;
mod overload;
mod owed;
mod pipelined;
#[cfg(unix)]
mod restart;
mod router;
mod signals;
mod stats;
mod streaming;
mod tidy;
mod under_load;
mod wire;
