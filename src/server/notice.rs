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
    /// Connections cannot be accepted, or not be watched: for want of a descriptor or memory, or since the system has
    /// refused 64 in a row for whatever reason. It is tried again, after 5 ms at first and a second at last; told at
    /// most once a second.
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
    /// dropped. Of a stream that was being written, the client got 500 if nothing had been sent, else it sees that the
    /// body's end is missing.
    HandlerPanicked {
        /// The request's method.
        method: Method,
        /// The request's path, as it was sent.
        path: &'a str,
        /// What the panic said.
        text: &'a str,
    },
    /// What writes the body of a streamed response failed, and not because its client has gone or stalls. The client
    /// got 500 if nothing had been sent, else it sees that the body's end is missing.
    StreamFailed {
        /// The request's method.
        method: Method,
        /// The request's path, as it was sent.
        path: &'a str,
        /// What it has failed with.
        error: &'a str,
    },
    /// Requests or connections were answered 503, since there was too little of something; told at most once a second.
    Refused {
        /// Of what.
        want: Want,
        /// How many since it was told last, this one included. All are counted in
        /// [`Stats::refused`](crate::Stats::refused).
        count: usize,
    },
    /// A request was refused before any handler saw it. Any client can cause as many of these as it likes.
    Rejected {
        /// Who sent it.
        peer: &'a Peer,
        /// What was wrong with it.
        reject: Reject,
    },
}

/// What there was too little of for a request or a connection, so that it was answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Want {
    /// All [`Config::connections_max`](crate::Config::connections_max) connections were taken, and none was idle.
    Connections,
    /// [`Config::threads`](crate::Config::threads) handlers ran for longer than the request could wait.
    Handlers,
    /// Bodies that are held in memory took all of [`Config::bodies_bytes_max`](crate::Config::bodies_bytes_max).
    Memory,
}

impl Want {
    pub(crate) const ALL: [Self; 3] = [Self::Connections, Self::Handlers, Self::Memory];

    /// One line for the peer.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Connections => "too many connections\n",
            Self::Handlers => "no worker thread was free in time\n",
            Self::Memory => "no memory for the request body\n",
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().trim_end())
    }
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
            Self::Refused { want, count } => write!(f, "refused {count}: {want}"),
            Self::Rejected { peer, reject } => {
                write!(f, "rejected {peer}: {} ({reject})", reject.status())
            }
        }
    }
}
