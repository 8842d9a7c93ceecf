//! How an event loop has its handlers called: who may, and who waits.

use std::time::Instant;

use super::EventLoop;
use super::service::Look;
use crate::http::Progress;
use crate::server::call::Call;
use crate::server::desk::Desk;
use crate::server::notice::Want;
use crate::server::table::Token;
use crate::server::timeouts::Clock;

/// Bytes of a path that are kept for the report of handlers that never returned.
const PATH_BYTES_MAX: usize = 256;

/// The handler that is being called.
#[derive(Debug)]
pub(super) struct Calls {
    current: Call,
    /// What has been read behind requests of the desk's load, from the first on that had something behind it. Copied
    /// once for all of them: while a handler runs, its thread has the desk.
    behind: Vec<u8>,
    /// Which load that is, none if 0, and where in it the copy begins.
    load: u64,
    start: usize,
    /// What is behind the current request begins here in the copy.
    from: usize,
}

impl Calls {
    pub(super) fn new(now: Instant) -> Self {
        Self { current: Call::nobody(now), behind: Vec::new(), load: 0, start: 0, from: 0 }
    }

    /// What the handler was called for; somebody else needs it now.
    pub(super) fn take(&mut self) -> Call {
        let next = Call::nobody(self.current.since);
        let behind = self.behind.get(self.from..).unwrap_or_default().to_vec();
        // Whoever turns the loop from now on has another desk, whose loads have the same numbers.
        (self.load, self.from) = (0, self.behind.len());
        Call { behind, ..std::mem::replace(&mut self.current, next) }
    }

    /// Written over and over in the same memory: a call allocates nothing.
    fn note(&mut self, desk: &Desk, now: Instant) {
        let request = desk.request();
        let path = request.raw_path_bytes();
        self.current.path.clear();
        self.current.path.extend_from_slice(path.get(..PATH_BYTES_MAX).unwrap_or(path));
        (self.current.method, self.current.since) = (request.method(), now);
        self.note_behind(desk);
    }

    fn note_behind(&mut self, desk: &Desk) {
        let (load, bytes, end) = desk.load();
        if end == bytes.len() {
            self.from = self.behind.len();
            return;
        }
        if self.load != load {
            self.behind.clear();
            self.behind.extend_from_slice(bytes.get(end..).unwrap_or_default());
            (self.load, self.start) = (load, end);
        }
        self.from = end - self.start;
    }
}

impl EventLoop {
    /// Asks for a permit to call the handler for the request on the desk. Requests that wait already come first.
    pub(super) fn admit(&mut self, desk: &mut Desk) -> bool {
        let Some(service) = &mut self.service else { return false };
        if !service.take_permit()
            && (self.timeouts.longest(Clock::Turn).is_some() || !self.shared.permits.enter(self.seat))
        {
            return false;
        }
        desk.call_for(service.token);
        self.calls.note(desk, self.now);
        true
    }

    /// Answers the request on the desk without a permit, if its handler has promised that it does not block: a health
    /// check or a request to stop is heard even when all handlers are busy. Returns false if not.
    pub(super) fn answer_at_once(&mut self, desk: &mut Desk) -> bool {
        if desk.incoming().is_begun() {
            return false;
        }
        let response = match self.shared.is_at_once(&desk.request()) {
            Ok(false) => return false,
            Ok(true) => self.shared.call_at_once(&desk.request()),
            Err(response) => response,
        };
        self.answer(response, desk);
        true
    }

    /// Has the request on the desk wait for a permit.
    pub(super) fn wait_for_permit(&mut self, desk: &mut Desk) {
        // Nobody has reserved memory yet for a body that came at once.
        if desk.incoming().is_begun() || desk.reserve(&self.shared.bodies) {
            self.put_down(Progress::Whole, desk);
        } else {
            let response = self.shared.refuse_for(Want::Memory, self.now);
            self.answer_without_body(response, desk);
        }
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
        self.start_service(token, Look::Permitted);
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
        self.start_service(token, Look::Reported);
        let mut response = self.shared.refuse_for(Want::Handlers, self.now);
        if desk.incoming().is_begun() {
            // Its body is still on the way, and is not the next request.
            response = response.last();
        }
        self.answer(response, desk);
        // Others wait for a loop whose request waits longer than theirs, and are to know that this one does not.
        self.fall_behind();
    }
}
