//! What a server has to say to whoever runs it. The library prints nothing.

use std::fmt;
use std::io;

use super::listener::Bound;
use crate::http::{Method, Peer, Reject};

/// Something that a server wants to be known, given to [`Server::on_notice`](crate::Server::on_notice). Its `Display`
/// is one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Connections cannot be accepted, or not be watched, for want of a descriptor or memory. It is tried again, after
    /// 5 ms at first and a second at last; told at most once a second.
    AcceptFailed {
        /// Of which listener.
        place: &'a Bound,
        /// What the system said.
        error: &'a io::Error,
    },
    /// A listener is broken, after something else had stopped the group. Otherwise it is what stops the group, and told
    /// as its [`Cause`](crate::Cause).
    ListenerFailed {
        /// Which one.
        place: &'a Bound,
        /// What the system said.
        error: &'a io::Error,
    },
    /// No thread can be started to take a loop over from a slow handler, which stalls the loop's clients. It is tried
    /// again, after 5 ms at first and a second at last; told at most once a second.
    ThreadFailed {
        /// What the system said.
        error: &'a io::Error,
    },
    /// A handler panicked, and its client got 500; or a closure did that came with its response
    /// ([`Response::stream`](crate::Response::stream), [`and_then`](crate::Response::and_then)), when it was called or
    /// dropped. Of a stream, the client sees that its end is missing.
    HandlerPanicked {
        /// The request's method.
        method: Method,
        /// The request's path, as it was sent.
        path: &'a str,
        /// What the panic said.
        text: &'a str,
    },
    /// What writes the body of a streamed response failed, and not because its client has gone or stalls. The client
    /// sees that the body's end is missing.
    StreamFailed {
        /// The request's method.
        method: Method,
        /// The request's path, as it was sent; its first 256 bytes.
        path: &'a str,
        /// What it has failed with.
        error: &'a str,
    },
    /// A request was refused before any handler saw it. Any client can cause as many of these as it likes.
    Rejected {
        /// Who sent it.
        peer: &'a Peer,
        /// What was wrong with it.
        reject: Reject,
    },
}

impl Notice<'_> {
    /// True for what clients cause at will: worth a line only to somebody who is looking for it.
    pub fn is_verbose(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptFailed { place, error } => write!(f, "cannot accept on `{place}`: {error}"),
            Self::ListenerFailed { place, error } => {
                write!(f, "listener `{place}` failed: {error}")
            }
            Self::ThreadFailed { error } => write!(f, "cannot start a thread: {error}"),
            Self::HandlerPanicked { method, path, text } => {
                write!(f, "handler of {method} {path} panicked: {text}")
            }
            Self::StreamFailed { method, path, error } => {
                write!(f, "stream of {method} {path} failed: {error}")
            }
            Self::Rejected { peer, reject } => {
                write!(f, "rejected {peer}: {} ({reject})", reject.status())
            }
        }
    }
}
