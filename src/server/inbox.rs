//! What others send a loop: another loop's connections, and the answers of displaced handlers.

use std::time::Duration;

use super::buffer::Answer;
use super::connection::Connection;
use super::poller::Waker;
use super::reply::Reply;
use super::stream::Stream;
use super::streaming::{Download, Streamed};
use super::table::Table;
use super::transfer::Transfer;
use crate::http::Peer;
use crate::sync::{Condvar, Mutex};

/// What a loop is asked about its connections.
pub(crate) type Ask = Box<dyn FnOnce(&Table<Connection>) + Send>;

pub(crate) enum Message {
    Arrival(Arrival),
    /// A connection between two requests, from a loop that has more than its share.
    Transfer(Transfer),
    Answer(Answer),
    /// An answer whose body the sender will write, once the loop has sent it the `Download`.
    Asked(Box<Answer>, Reply<Download>),
    Streamed(Streamed),
    /// Has the loop run this, which takes no time, once it comes to its inbox.
    Ask(Ask),
}

/// A connection that another loop has accepted but has no room for.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// The index of its listener.
    pub(crate) listener: usize,
    /// It has been sent to the loop with the longest-idle connection already.
    pub(crate) is_sent: bool,
    /// How many loops have had no room for it.
    pub(crate) refusals: usize,
}

/// How many loops have not come to their inbox yet, of those that were asked to.
pub(crate) struct Responses {
    missing: Mutex<usize>,
    changed: Condvar,
}

impl Responses {
    pub(crate) fn of(loops: usize) -> Self {
        Self { missing: Mutex::new(loops), changed: Condvar::new() }
    }

    /// For each loop, once.
    pub(crate) fn respond(&self) {
        *self.missing.lock() -= 1;
        self.changed.notify_all();
    }

    /// True once all have responded; false if one has not within `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        *self.changed.wait_timeout_while(self.missing.lock(), timeout, |missing| *missing > 0) == 0
    }
}

/// The messages for a loop. The loop closes its inbox when it ends; after that, `push` returns each message.
pub(crate) struct Inbox {
    messages: Mutex<Option<Vec<Message>>>,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { messages: Mutex::new(Some(Vec::new())), waker }
    }

    pub(crate) fn push(&self, message: Message) -> Result<(), Message> {
        match self.messages.lock().as_mut() {
            Some(messages) => messages.push(message),
            None => return Err(message),
        }
        self.waker.wake();
        Ok(())
    }

    pub(crate) fn take(&self) -> Vec<Message> {
        self.messages.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the inbox if it is empty. Returns false if it is not.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut messages = self.messages.lock();
        if messages.as_ref().is_some_and(|messages| !messages.is_empty()) {
            return false;
        }
        *messages = None;
        true
    }

    /// Closes the inbox, and returns what is in it.
    pub(crate) fn close(&self) -> Vec<Message> {
        self.messages.lock().take().unwrap_or_default()
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}
