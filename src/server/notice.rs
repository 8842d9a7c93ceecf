//! What a server reports to whoever runs it. The library prints nothing.

use std::fmt;
use std::io;
use std::time::Duration;

use super::listener::LocalAddress;
use crate::http::{Method, Peer, Reject, Status, Version};

/// A server's report, passed to [`Server::on_notice`](crate::Server::on_notice). Its `Display` is one line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Connections cannot be accepted or watched: no descriptor or memory is left, or the system has refused more than
    /// 64 in a row, for whatever reason. The server tries again, after 5 ms at first and a second at most; it reports
    /// this at most once a second.
    #[non_exhaustive]
    AcceptFailed {
        /// The listener.
        listener: &'a LocalAddress,
        /// The system's error.
        error: &'a io::Error,
    },
    /// A listener broke after something else had stopped the group. Otherwise the failure stops the group, and is
    /// reported as its [`Cause`](crate::Cause) instead.
    #[non_exhaustive]
    ListenerFailed {
        /// The listener.
        listener: &'a LocalAddress,
        /// The system's error.
        error: &'a io::Error,
    },
    /// No thread could be started to take a loop over from a slow handler, so the loop's clients stall. The server
    /// tries again, after 5 ms at first and a second at most; it reports this at most once a second.
    #[non_exhaustive]
    ThreadFailed {
        /// The system's error.
        error: &'a io::Error,
    },
    /// A handler panicked, and its client got 500. Or a closure of its response
    /// ([`Response::stream`](crate::Response::stream), [`on_sent`](crate::Response::on_sent)) panicked when it was
    /// called or dropped. If the closure was writing a streamed body, the client got 500 if nothing had been sent yet;
    /// otherwise it sees that the end of the body is missing.
    #[non_exhaustive]
    HandlerPanicked {
        /// The request's method.
        method: Method,
        /// The request's path, as sent.
        path: &'a str,
        /// The panic's message.
        text: &'a str,
    },
    /// The closure given to [`Server::on_answer`](crate::Server::on_answer) panicked. The answer is not affected.
    #[non_exhaustive]
    OnAnswerPanicked {
        /// The panic's message.
        text: &'a str,
    },
    /// The closure that writes a streamed response's body failed, and not because its client has gone or stalls. The
    /// client got 500 if nothing had been sent yet; otherwise it sees that the end of the body is missing.
    #[non_exhaustive]
    StreamFailed {
        /// The request's method.
        method: Method,
        /// The request's path, as sent.
        path: &'a str,
        /// The closure's error.
        error: &'a str,
    },
    /// Requests or connections were answered 503, because something ran out. Reported at most once a second.
    #[non_exhaustive]
    Refused {
        /// What ran out.
        want: Want,
        /// How many since the last report, including this one. [`Stats::refused`](crate::Stats::refused) counts all.
        count: usize,
    },
    /// A request was refused before any handler saw it. Any client can cause as many of these as it likes.
    #[non_exhaustive]
    Rejected {
        /// Who sent it.
        peer: &'a Peer,
        /// What was wrong with it.
        reject: Reject,
    },
}

/// An answer that has left, or was lost on the way: see [`Server::on_answer`](crate::Server::on_answer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answered<'a> {
    /// Who was answered.
    pub peer: &'a Peer,
    /// The request's method. `None` if no whole head had come, or none that could be understood.
    pub method: Option<Method>,
    /// The request's path, as sent. Empty without a method.
    pub path: &'a str,
    /// What stood behind the first `?`, as sent.
    pub query: Option<&'a str>,
    /// The request's version. `None` without a method.
    pub version: Option<Version>,
    /// The answer's status.
    pub status: Status,
    /// How many bytes the answer's body has as it is sent, with the framing of chunks. If the answer was
    /// [streamed](crate::Response::stream), how many have left; of any other that is not whole, fewer may have left.
    pub bytes: u64,
    /// How long the request had come before its handler was called: it waited for others to end.
    pub waited: Duration,
    /// From when the request had come, whole or to be streamed, until the system had taken the whole answer, or it was
    /// lost. If the request was refused before it was whole: from when its first byte had come.
    pub took: Duration,
    /// The system has taken the whole answer. If not, the client has reset or stalled, the deadline of a stop came, or
    /// the closure that writes a streamed body failed ([`Notice::StreamFailed`]) or panicked.
    pub is_whole: bool,
}

/// What ran out for a request or a connection, so that it was answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Want {
    /// All [`Config::connections_max`](crate::Config::connections_max) connections were open, and none was idle.
    Connections,
    /// [`Config::handlers_max`](crate::Config::handlers_max) handlers ran for longer than the request could wait.
    Handlers,
    /// Bodies held in memory took all of [`Config::bodies_bytes_max`](crate::Config::bodies_bytes_max).
    Memory,
}

impl Want {
    pub(crate) const ALL: [Self; 3] = [Self::Connections, Self::Handlers, Self::Memory];

    /// One line for the peer, with its line feed.
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
    /// True for what clients can cause at will: print it only for somebody who asks for it.
    pub fn is_verbose(&self) -> bool {
        matches!(self, Self::Rejected { .. })
    }
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptFailed { listener, error } => write!(f, "cannot accept on `{listener}`: {error}"),
            Self::ListenerFailed { listener, error } => {
                write!(f, "listener `{listener}` failed: {error}")
            }
            Self::ThreadFailed { error } => write!(f, "cannot start a thread: {error}"),
            Self::HandlerPanicked { method, path, text } => {
                write!(f, "handler of {method} {path} panicked: {text}")
            }
            Self::OnAnswerPanicked { text } => write!(f, "on_answer panicked: {text}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_what_there_is_too_little_of() {
        let texts = Want::ALL.map(|want| Notice::Refused { want, count: 7 }.to_string());
        assert_eq!(texts[1], "refused 7: no worker thread was free in time");
        assert!(Want::ALL.iter().all(|want| !Notice::Refused { want: *want, count: 1 }.is_verbose()));
    }
}
