//! The protocol, without sockets, threads or clocks: bytes and times in, requests and bytes out.
//!
//! A request passes through these modules from left to right; its answer leaves by the last:
//!
//! ```text
//!             ┌─ head ── fields ─┐
//! incoming ───┤  target, framing ├─▶ request ─▶ handler ─▶ response ─▶ encode (date)
//!             └─ body ── fields ─┘      └ headers, pattern     └ streamed, given
//!                  └ extension
//! ```
//!
//! All of them read bytes with `grammar`, `scan` and `host`, and refuse with `reject`. "Not enough bytes yet" is never
//! an error. Every machine here keeps its place between calls, and no verdict depends on how the bytes were cut: the
//! same bytes give the same answer whole, halved or one at a time.

// Hostile bytes must meet no panic: nothing here indexes, and nothing overflows.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic_in_result_fn)]

mod body;
mod date;
mod encode;
mod extension;
mod fields;
mod framing;
mod given;
mod grammar;
mod handler;
mod head;
mod headers;
mod host;
mod incoming;
mod method;
mod pattern;
mod reject;
mod request;
mod response;
mod scan;
mod status;
mod streamed;
mod target;

pub use handler::{BodyPlan, Handler, Next, around};
pub use headers::{Headers, HeadersIter};
pub use method::{Method, Version};
pub use reject::Reject;
pub use request::{Peer, Request};
pub use response::{Content, FieldError, Response};
pub use status::{Status, StatusError};
pub use streamed::{BodyReader, BodyWriter};

pub(crate) use body::{Body, BodyLimits};
pub(crate) use date::{ImfDate, imf_date};
pub(crate) use encode::{CONTINUE, Persistence, encode};
#[cfg(test)]
pub(crate) use framing::Framing;
pub(crate) use given::{AfterAnswer, Fault, OnFault};
pub(crate) use head::HeadLimits;
pub(crate) use incoming::{Incoming, Limits, Progress};
pub(crate) use pattern::Pattern;
pub(crate) use request::{Presence, Present};
pub(crate) use response::Then;
pub(crate) use streamed::{ReadBody, WriteBody};
