//! How an event loop has its handlers called: who may, and who waits.

use super::serving::{Reason, Visit};
use super::{EventLoop, Turn};
use crate::http::Progress;
use crate::server::desk::{Caller, Desk};
use crate::server::notice::Want;
use crate::server::table::Token;
use crate::server::timeouts::Clock;

impl EventLoop {
    /// The request on the desk has come, wholly or to be streamed. Without a permit for its handler it is answered at
    /// once, or waits.
    pub(super) fn call(&mut self, caller: Caller, desk: &mut Desk) -> Option<Turn> {
        let is_begun = desk.incoming().is_begun();
        if self.has_permit() {
            if is_begun {
                return self.begin_upload(desk);
            }
            self.calls.note(desk, &caller.peer, self.books.now);
            return Some(Turn::Call(caller));
        }
        // A health check or a request to stop is heard even when all handlers are busy.
        let at_once = if is_begun { None } else { self.shared.answer_at_once(&desk.request(&caller.peer)) };
        match at_once {
            Some(response) => self.answer(response, desk),
            // Nobody has reserved memory yet for a body that came at once.
            None if is_begun || desk.reserve(&self.shared.bodies) => self.put_down(Progress::Whole, desk),
            None => self.answer(self.shared.refuse_for(Want::Memory, self.books.now).last(), desk),
        }
        None
    }

    /// Asks for a permit to call a handler. Requests that wait already come first.
    fn has_permit(&mut self) -> bool {
        self.visit.as_mut().is_some_and(Visit::take_permit)
            || (self.books.timeouts.longest(Clock::Queue).is_none() && self.shared.permits.enter(self.books.seat))
    }

    /// Takes the request off the desk whose handler reads the body itself. The connection is away from then on.
    fn begin_upload(&mut self, desk: &mut Desk) -> Option<Turn> {
        let upload = self.serving()?.begin_upload(desk);
        self.visit = None;
        self.books.timeouts.stop(upload.token().index());
        Some(Turn::Stream(Box::new(upload)))
    }

    /// Takes up the request that has waited longest, if it is its turn. Returns false if not.
    pub(super) fn begin_waiting(&mut self, desk: &mut Desk) -> bool {
        let longest = self.books.timeouts.longest_since(Clock::Queue);
        let is_its_turn = self.shared.enter_waiting(self.books.seat, longest);
        let Some(token) = self.books.longest(Clock::Queue).filter(|_| is_its_turn) else { return false };
        self.books.timeouts.stop(token.index());
        self.take_up(token, Reason::Permitted, desk);
        true
    }

    /// A request has waited for its turn in vain.
    pub(super) fn end_queued(&mut self, token: Token, desk: &mut Desk) {
        self.take_up(token, Reason::Reported, desk);
        let mut response = self.shared.refuse_for(Want::Handlers, self.books.now);
        if desk.incoming().is_begun() {
            // Its body is still on the way, and is not the next request.
            response = response.last();
        }
        self.answer(response, desk);
        // Others wait for a loop whose request waits longer than theirs, and are to know that this one does not.
        self.is_behind = true;
    }
}
