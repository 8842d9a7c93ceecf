//! What a connection is in the middle of, as it is told.

use std::fmt;
use std::time::Duration;

use crate::http::{Method, Peer};

/// A connection in the middle of something: see [`Stats::busy`](crate::Stats::busy). Its `Display` is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Busy {
    /// Its client.
    pub peer: Peer,
    /// What it is in the middle of.
    pub work: Work,
    /// The request's method; `None` while writing.
    pub method: Option<Method>,
    /// The request's path, as sent and without the query; the first 256 bytes, if it is long. Empty without a method.
    pub path: String,
    /// For how long.
    pub age: Duration,
    /// The client is known to have reset: nobody will read the answer.
    pub client_has_gone: bool,
}

/// What a connection is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Work {
    /// A body is arriving, to be held.
    Body,
    /// The request waits for a handler to end: [`Config::handlers_max`](crate::Config::handlers_max) run.
    Waiting,
    /// A handler works on it, or streams.
    Handler,
    /// The client has yet to take what it was answered.
    Writing,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body => "its body arriving",
            Self::Waiting => "waiting for a worker thread",
            Self::Handler => "its handler running",
            Self::Writing => "taking what it was sent",
        })
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, work, method, path, age, client_has_gone } = self;
        if let Some(method) = method {
            write!(f, "{method} {path} for ")?;
        }
        let gone = if *client_has_gone { ", which has gone" } else { "" };
        let tenths = age.as_secs() * 10 + u64::from(age.subsec_millis() / 100);
        write!(f, "{peer}{gone}, {work} for {}.{} s", tenths / 10, tenths % 10)
    }
}
