//! Which connections are in the middle of something: asked of every loop, and told longest first. Costs nothing while
//! nobody asks.

use std::fmt;
use std::time::{Duration, Instant};

use super::call::beginning;
use super::connection::Connection;
use super::inbox::{Message, Responses};
use super::phase::Phase;
use super::shared::Shared;
use super::table::Table;
use crate::http::{Method, Peer};
use crate::stop::FAR;
use crate::sync::{self, Arc, Mutex};

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

/// One question to all loops.
pub(crate) struct Survey {
    most: usize,
    found: Mutex<Vec<Busy>>,
    responses: Responses,
}

impl Survey {
    /// Asks the loops. One that has ended is busy with nothing.
    pub(crate) fn of(shared: &Shared, most: usize) -> Arc<Self> {
        let responses = Responses::of(shared.loops.len());
        let survey = Arc::new(Self { most, found: Mutex::default(), responses });
        for handle in &shared.loops {
            let asked = Arc::clone(&survey);
            let ask = move |table: &Table<Connection>| asked.respond(table.iter(), sync::now());
            if handle.inbox.push(Message::Ask(Box::new(ask))).is_err() {
                survey.responses.respond();
            }
        }
        survey
    }

    /// For each loop, once: its connections.
    pub(crate) fn respond<'a>(&self, connections: impl Iterator<Item = &'a Connection>, now: Instant) {
        let mut longest = Vec::new();
        for connection in connections {
            if let Some((work, since)) = work(connection) {
                self.keep(&mut longest, (since, work, connection), |(since, ..)| std::cmp::Reverse(*since));
            }
        }
        let mut found = self.found.lock();
        for (since, work, connection) in longest {
            let (method, path) = request_line(connection).unzip();
            let (peer, client_has_gone) = (connection.peer().clone(), connection.is_deserted());
            let age = now.saturating_duration_since(since);
            self.keep(
                &mut found,
                Busy { peer, work, method, path: path.unwrap_or_default(), age, client_has_gone },
                |busy| busy.age,
            );
        }
        drop(found);
        self.responses.respond();
    }

    /// Keeps the longest, in order: few, so that no sorting is needed.
    fn keep<T, K: Ord>(&self, longest: &mut Vec<T>, one: T, age: impl Fn(&T) -> K) {
        let place = longest.partition_point(|other| age(other) >= age(&one));
        longest.insert(place, one);
        longest.truncate(self.most);
    }

    /// What those that reply in time are busy with, the longest first.
    pub(crate) fn wait(&self, timeout: Duration) -> Vec<Busy> {
        self.responses.wait(timeout.min(FAR));
        std::mem::take(&mut *self.found.lock())
    }
}

/// What a connection is in the middle of, and since when, unless it is idle, within a head, or being closed.
fn work(connection: &Connection) -> Option<(Work, Instant)> {
    match connection.phase() {
        Phase::Away => connection.call().map(|call| (Work::Handler, call.since)),
        Phase::Writing => connection.blocked_since().map(|since| (Work::Writing, since)),
        Phase::Waiting => Some((Work::Waiting, connection.since())),
        Phase::Body => Some((Work::Body, connection.since())),
        Phase::Idle | Phase::Head | Phase::Lingering => None,
    }
}

/// The method and the beginning of the path of the request that this work is for, if it is known.
fn request_line(connection: &Connection) -> Option<(Method, String)> {
    match connection.phase() {
        Phase::Away => connection.call().map(|call| (call.method, call.path().into_owned())),
        Phase::Waiting | Phase::Body => connection.partial().map(|partial| {
            let request = partial.request(connection.peer());
            let path = String::from_utf8_lossy(beginning(request.raw_path_bytes())).into_owned();
            (request.method(), path)
        }),
        Phase::Idle | Phase::Head | Phase::Writing | Phase::Lingering => None,
    }
}
