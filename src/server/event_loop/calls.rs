//! Which requests of a loop have their handlers called, and which wait.

use super::serving::{Reason, Visit};
use super::{EventLoop, Turn};
use crate::http::Progress;
use crate::server::buffer::{Caller, ReadBuffer};
use crate::server::notice::Want;
use crate::server::phase::Clock;
use crate::server::table::Token;

impl EventLoop {
    /// The request in the buffer is whole, or its body will be streamed. Without a permit for its handler, the request
    /// is answered at once or waits.
    pub(super) fn call(&mut self, caller: Caller, buffer: &mut ReadBuffer) -> Option<Turn> {
        let is_begun = buffer.incoming().is_begun();
        if self.has_permit() {
            if is_begun {
                return self.begin_upload(buffer);
            }
            self.calls.note(buffer, &caller.peer, self.books.now);
            return Some(Turn::Call(caller));
        }
        // A health check or a request to stop gets through even when all handlers are busy.
        let at_once = if is_begun { None } else { self.shared.answer_at_once(&buffer.request(&caller.peer)) };
        match at_once {
            Some(response) => self.answer(response, buffer),
            // A body that came at once has no memory reserved yet.
            None if is_begun || buffer.reserve(&self.shared.bodies) => self.end_visit(Progress::Whole, buffer),
            None => self.answer(self.shared.refuse_for(Want::Memory, self.books.now).last(), buffer),
        }
        None
    }

    /// Asks for a permit to call a handler. Queued requests come first.
    fn has_permit(&mut self) -> bool {
        self.visit.as_mut().is_some_and(Visit::take_permit)
            || (self.books.timeouts.longest(Clock::Queue).is_none() && self.shared.permits.enter(self.books.index))
    }

    /// Takes the request, whose handler reads the body itself, out of the buffer. Its connection is away from then on.
    fn begin_upload(&mut self, buffer: &mut ReadBuffer) -> Option<Turn> {
        let upload = self.serving()?.begin_upload(buffer);
        self.visit = None;
        self.books.timeouts.stop(upload.token().index());
        Some(Turn::Stream(Box::new(upload)))
    }

    /// Begins a visit for this loop's oldest queued request, if that is the next of all loops and gets a permit.
    /// Returns false otherwise.
    pub(super) fn begin_waiting(&mut self, buffer: &mut ReadBuffer) -> bool {
        let longest = self.books.timeouts.longest_since(Clock::Queue);
        let is_its_turn = self.shared.enter_waiting(self.books.index, longest);
        let Some(token) = self.books.longest(Clock::Queue).filter(|_| is_its_turn) else { return false };
        self.books.timeouts.stop(token.index());
        self.begin_visit(token, Reason::Permitted, buffer);
        true
    }

    /// A queued request got no permit in time.
    pub(super) fn end_queued(&mut self, token: Token, buffer: &mut ReadBuffer) {
        self.begin_visit(token, Reason::Reported, buffer);
        let mut response = self.shared.refuse_for(Want::Handlers, self.books.now);
        if buffer.incoming().is_begun() {
            // Its body is still on the way, and must not be read as the next request.
            response = response.last();
        }
        self.answer(response, buffer);
        // Loops with younger requests waited for this one: look at the queue once more, which tells them that it is
        // gone.
        self.is_behind = true;
    }
}
