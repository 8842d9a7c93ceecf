//! Whether a client is still there, for a handler that asks. A request whose handler does not ask pays nothing: the
//! first question finds the socket, by asking the connection's loop.

use std::time::Duration;

use super::connection::Connection;
use super::inbox::Message;
use super::reply::reply;
use super::shared::Shared;
use super::stream::Stream;
use super::table::{Table, Token};
use crate::http::{Presence, Present};
use crate::sync::{Arc, OnceLock, Weak};

/// How long to wait for the loop. It replies in a few milliseconds, even if its own thread runs the handler, since a
/// spare then takes it over.
const REPLY_TIME: Duration = Duration::from_secs(1);

/// The client of a handler's request, whose connection's loop must be able to go on while the handler runs.
pub(crate) struct Client<'a> {
    shared: &'a Shared,
    /// The index of its loop.
    index: usize,
    token: Token,
    /// Once it has been asked for. Weak, so that the deadline of a stop can close it.
    stream: OnceLock<Weak<Stream>>,
}

impl<'a> Client<'a> {
    /// That of a connection of this loop.
    pub(crate) fn of(shared: &'a Shared, index: usize, token: Token) -> Self {
        Self { shared, index, token, stream: OnceLock::new() }
    }

    /// `None`: the loop has not replied in time.
    fn stream(&self) -> Option<&Weak<Stream>> {
        if self.stream.get().is_none() {
            let (reply, found) = reply();
            let token = self.token;
            let ask = move |table: &Table<Connection>| {
                let stream = table.get(token).map(Connection::stream);
                reply.send(stream.map_or_else(Weak::new, Arc::downgrade));
            };
            let is_asked = self.shared.loops[self.index].inbox.push(Message::Ask(Box::new(ask))).is_ok();
            // A loop that has ended has closed the connection.
            let stream = if is_asked { found.wait(Some(REPLY_TIME))? } else { Weak::new() };
            let _ = self.stream.set(stream);
        }
        self.stream.get()
    }
}

impl Presence for Client<'_> {
    fn present(&self) -> Present {
        self.stream().map_or(Present::There, present)
    }
}

impl Presence for Weak<Stream> {
    fn present(&self) -> Present {
        present(self)
    }
}

/// A connection that is closed has no client.
fn present(stream: &Weak<Stream>) -> Present {
    stream.upgrade().map_or(Present::Gone, |stream| stream.present())
}
