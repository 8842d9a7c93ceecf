//! How an event loop has its handlers called: who may, who waits, and what happens to those that are slow.

use std::time::Instant;

use super::connection::{Call, Phase, Sent};
use super::desk::Desk;
use super::event_loop::EventLoop;
use super::inbox::Answer;
use super::table::Token;
use super::timeouts::Clock;
use crate::http::{Response, Status};

/// Bytes of a path that are kept for the report of handlers that never returned.
const PATH_BYTES_MAX: usize = 256;

/// The handler that is being called.
#[derive(Debug, Default)]
pub(super) struct Calls {
    current: Call,
}

impl Calls {
    /// Written over and over in the same memory: a call allocates nothing.
    fn note(&mut self, desk: &Desk, now: Instant) {
        let request = desk.request();
        let path = request.raw_path();
        self.current.path.clear();
        self.current.path.push_str(path.get(..PATH_BYTES_MAX).unwrap_or(path));
        (self.current.method, self.current.since) = (Some(request.method()), Some(now));
    }
}

impl EventLoop {
    /// Asks for a permit to call the handler for the request on the desk. Requests that wait already come first.
    pub(super) fn admit(&mut self, desk: &mut Desk) -> bool {
        let Some(service) = &mut self.service else { return false };
        let has_permit = std::mem::take(&mut service.has_permit);
        if !has_permit && (self.timeouts.longest(Clock::Turn).is_some() || !self.shared.permits.enter(self.seat)) {
            return false;
        }
        desk.call_for(service.token);
        self.calls.note(desk, self.now);
        true
    }

    /// Takes up the request that has waited longest, if it is its turn. Returns false if not.
    pub(super) fn begin_waiting(&mut self, desk: &mut Desk) -> bool {
        let permits = &self.shared.permits;
        // First published, then looked for a permit: whoever gives one back in between finds us.
        let is_news = permits.publish(self.seat, self.timeouts.longest_since(Clock::Turn));
        let Some(token) = self.timeouts.longest(Clock::Turn).and_then(|index| self.table.token_at(index)) else {
            // A permit that was meant for a request of ours is for somebody else's now.
            if is_news {
                self.shared.wake_next_in_line();
            }
            return false;
        };
        match permits.enter_waiting(self.seat) {
            Ok(()) => {}
            Err(next) => {
                if let Some(next) = next {
                    self.shared.seats[next].inbox.wake();
                }
                return false;
            }
        }
        self.timeouts.stop(token.index());
        if let Some(connection) = self.table.get_mut(token) {
            connection.lay_on(desk);
        }
        self.start_service(token, false);
        if let Some(service) = &mut self.service {
            service.has_permit = true;
        }
        true
    }

    /// A permit is not needed after all.
    pub(super) fn give_permit_back(&self) {
        self.shared.permits.words[self.seat].withdraw();
        self.shared.wake_next_in_line();
    }

    /// A request has waited for its turn in vain.
    pub(super) fn end_waiting(&mut self, token: Token, desk: &mut Desk) {
        let Some(connection) = self.table.get_mut(token) else { return };
        connection.lay_on(desk);
        self.start_service(token, false);
        let response = Response::text("no worker thread was free in time\n")
            .with_status(Status::SERVICE_UNAVAILABLE)
            .with_field("Retry-After", "1");
        self.answer(response, desk);
    }

    /// The thread that is in the handler has lost this loop to the calling one: its connection is away until the answer
    /// comes by the inbox. The answers before it must not wait for it.
    pub(crate) fn go_on_without_caller(&mut self) {
        self.now = Instant::now();
        let call = std::mem::take(&mut self.calls.current);
        let Some(token) = self.service.map(|service| service.token) else { return };
        if let Some(connection) = self.table.get_mut(token) {
            connection.go_away(call);
        }
        let sent = self.flush();
        self.service = None;
        match sent {
            Sent::All => self.timeouts.stop(token.index()),
            Sent::Blocked => self.timeouts.start(token.index(), Clock::Write, self.now),
            Sent::Failed => self.desert(token),
        }
        self.look_for_reset(token);
    }

    /// A handler works for a client that may have gone meanwhile.
    fn look_for_reset(&mut self, token: Token) {
        if self.table.get_mut(token).is_some_and(|connection| connection.has_reset()) {
            self.desert(token);
        }
    }

    /// Nobody waits for the answer of a handler that runs. Its connection stays until it returns, so that the stop
    /// waits for it, and can name it.
    fn desert(&mut self, token: Token) {
        self.timeouts.stop(token.index());
        if let Some(connection) = self.table.get_mut(token) {
            connection.desert();
        }
    }

    /// The peer takes more of the answers before the one that is being worked on.
    pub(super) fn write_while_away(&mut self, token: Token) {
        let (patience, now) = (self.shared.config.write_timeout, self.now);
        let Some(connection) = self.table.get_mut(token) else { return };
        let (sent, answers) = connection.send_on(patience, now);
        self.count_answers(answers);
        match sent {
            Sent::All => self.timeouts.stop(token.index()),
            Sent::Blocked => {}
            Sent::Failed => self.desert(token),
        }
        self.look_for_reset(token);
    }

    /// A displaced handler has returned.
    pub(super) fn take_answer(&mut self, answer: Answer, desk: &mut Desk) {
        let Answer { token, exchange, response, unfinished } = answer;
        // Its connection may have been cut off meanwhile.
        let Some(connection) = self.table.get_mut(token).filter(|connection| connection.phase() == Phase::Away) else {
            return;
        };
        if connection.is_deserted() {
            return self.drop_connection(token);
        }
        connection.come_back(unfinished);
        connection.lay_on(desk);
        self.start_service(token, false);
        self.push_answer(response, exchange, desk);
    }
}
