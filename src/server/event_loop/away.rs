//! Connections that are away: the handler is so slow that the loop goes on without it, or has the socket and streams.
//!
//! They stay in the books, where the stop, the deadline and a reset by the client reach them. Their handlers' threads
//! report back by message.

use super::EventLoop;
use super::serving::Reason;
use crate::http::Response;
use crate::server::answered::Asked;
use crate::server::buffer::{Answer, Exchange, Partial, ReadBuffer};
use crate::server::call::Call;
use crate::server::phase::{Clock, Sent};
use crate::server::streaming::{Download, Finish, Streamed};
use crate::server::table::Token;
use crate::sync;

impl EventLoop {
    /// The thread in the handler has lost this loop to the caller of this method. The connection is away until the
    /// answer comes by the inbox, and the answers before it do not wait for it. If the handler has the socket, the
    /// connection is away already.
    pub(crate) fn go_on_without_caller(&mut self) {
        self.books.now = sync::now();
        let call = self.calls.take();
        let Some((serving, call)) = self.serving().zip(call) else { return };
        let (token, sent) = serving.go_away(call);
        self.visit = None;
        match sent {
            Sent::All => self.books.timeouts.stop(token.index()),
            Sent::Blocked => self.books.timeouts.start(token.index(), Clock::Write, self.books.now),
            Sent::Failed => self.books.desert(token),
        }
        self.books.look_for_reset(token);
    }

    /// A displaced handler, or one that had the socket, has returned.
    pub(super) fn take_answer(&mut self, answer: Answer, buffer: &mut ReadBuffer) {
        let Answer { token, exchange, mut response, partial, is_gone } = answer;
        if self.shared.on_answer.is_some() {
            self.tell_away(token, exchange, &mut response);
        }
        if is_gone {
            return self.books.close_away(token);
        }
        if self.take_back(token, partial, buffer).is_some() {
            self.push_answer(response, exchange, buffer);
        }
    }

    /// The end of a late answer will be told of: at once, if nobody waits for it any more.
    #[cold]
    fn tell_away(&mut self, token: Token, exchange: Exchange, response: &mut Response) {
        let connection = self.books.away(token);
        if let Some((call, peer)) = connection.as_deref().and_then(|own| own.call().zip(Some(own.peer()))) {
            Asked::of(call).tell_with(response, exchange.is_head, peer, &self.shared);
        }
    }

    /// Serves a connection again that was away. `None`: it was cut off, or its client has gone.
    fn take_back(&mut self, token: Token, partial: Option<Box<Partial>>, buffer: &mut ReadBuffer) -> Option<Call> {
        let connection = self.books.away(token)?;
        if connection.is_deserted() {
            self.books.close(token);
            return None;
        }
        let call = connection.come_back(partial);
        self.begin_visit(token, Reason::Reported, buffer);
        if let Some((visit, call)) = self.visit.as_mut().zip(call.as_ref()) {
            visit.begin_at(call.asked);
        }
        call
    }

    /// A handler is about to write its answer's body: returns what it needs to send that itself. `None`: the client has
    /// gone, or the connection was cut off.
    pub(crate) fn start_download(&mut self, answer: Answer, buffer: &mut ReadBuffer) -> Option<Download> {
        let Answer { token, exchange, mut response, partial, .. } = answer;
        if self.shared.on_answer.is_some() {
            self.tell_away(token, exchange, &mut response);
        }
        let call = self.take_back(token, partial, buffer)?;
        let after = response.take_after();
        self.push_answer(response, exchange, buffer);
        let download = self.serving()?.begin_download(call, after, buffer);
        self.visit = None;
        self.books.timeouts.stop(token.index());
        Some(download)
    }

    /// A handler has written its answer's body.
    pub(super) fn take_streamed(&mut self, streamed: Streamed, buffer: &mut ReadBuffer) {
        let Streamed { token, answers, finish } = streamed;
        self.follow_stop();
        self.books.count_answers(answers);
        match finish {
            Finish::Whole => {}
            Finish::Torn => return self.books.end_torn(token),
            Finish::Lost => return self.books.close_away(token),
        }
        self.take_back(token, None, buffer);
        if let Some(visit) = &mut self.visit {
            visit.count_answer();
        }
    }
}
