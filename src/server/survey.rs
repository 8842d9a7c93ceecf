//! What connections are in the middle of, asked of every loop. Costs nothing while nobody asks.

use std::time::{Duration, Instant};

use super::busy::{Busy, Work};
use super::call::beginning;
use super::connection::Connection;
use super::inbox::{Message, Responses};
use super::phase::Phase;
use super::shared::Shared;
use super::table::Table;
use crate::http::Method;
use crate::stop::FAR;
use crate::sync::{self, Arc, Mutex};

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
