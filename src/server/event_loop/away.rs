//! Connections that are away: their handlers were too slow for the loop to wait, or have the socket and stream.
//!
//! They stay in the table, where the stop, the deadline and a reset of their client reach them. What their handlers'
//! threads have to say comes as a parcel.

use super::EventLoop;
use super::service::{Look, Service};
use crate::server::call::Call;
use crate::server::desk::{Desk, Unfinished};
use crate::server::inbox::{Answer, Parcel};
use crate::server::phase::{Phase, Sent};
use crate::server::streaming::{Download, Streamed, Upload};
use crate::server::table::Token;
use crate::server::timeouts::Clock;
use crate::sync::{self, Arc};

impl EventLoop {
    /// The thread that is in the handler has lost this loop to the calling one: its connection is away until the answer
    /// comes by the inbox. The answers before it must not wait for it.
    pub(crate) fn go_on_without_caller(&mut self) {
        self.now = sync::now();
        let call = self.calls.take();
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
    pub(super) fn desert(&mut self, token: Token) {
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

    /// A handler has returned that had been displaced, or had the socket.
    fn take_answer(&mut self, answer: Answer, desk: &mut Desk) {
        let Answer { token, exchange, response, unfinished, is_gone } = answer;
        if is_gone {
            return self.drop_away(token);
        }
        if self.take_back(token, unfinished, desk).is_some() {
            self.push_answer(response, exchange, desk);
        }
    }

    /// Serves a connection again that was away. `None`: it was cut off meanwhile, or its client has gone.
    fn take_back(&mut self, token: Token, unfinished: Option<Box<Unfinished>>, desk: &mut Desk) -> Option<Call> {
        let connection = self.table.get_mut(token).filter(|connection| connection.phase() == Phase::Away)?;
        if connection.is_deserted() {
            self.drop_connection(token);
            return None;
        }
        let call = connection.come_back(unfinished);
        connection.lay_on(desk);
        self.start_service(token, Look::Reported);
        call
    }

    fn drop_away(&mut self, token: Token) {
        if self.table.get_mut(token).is_some_and(|connection| connection.phase() == Phase::Away) {
            self.drop_connection(token);
        }
    }
}

/// Of handlers that stream: see `streaming`.
impl EventLoop {
    /// Takes the request off the desk if its handler reads the body itself. The connection is away from then on.
    pub(crate) fn take_upload(&mut self, desk: &mut Desk) -> Option<Upload> {
        if !desk.incoming().is_begun() {
            return None;
        }
        let Service { token, .. } = self.service.take()?;
        let mut call = self.calls.take();
        let connection = self.table.get_mut(token)?;
        let begun = desk.take_begun(&self.shared.limits);
        let upload = Upload::new(begun, token, Arc::clone(connection.stream()), &self.shared);
        call.body = Some(upload.body());
        connection.go_away(call);
        self.timeouts.stop(token.index());
        Some(upload)
    }

    /// Gives what a handler needs to send its answer itself, whose body it is about to write. `None`: there is nobody
    /// to send it to.
    pub(crate) fn start_download(&mut self, answer: Answer, desk: &mut Desk) -> Option<Download> {
        let Answer { token, exchange, mut response, unfinished, .. } = answer;
        let mut call = self.take_back(token, unfinished, desk)?;
        // It is being answered, whatever was to come of its body.
        call.body = None;
        let after = response.take_after();
        self.push_answer(response, exchange, desk);
        self.service = None;
        self.timeouts.stop(token.index());
        let connection = self.table.get_mut(token)?;
        connection.keep(desk);
        Some(Download::new(connection.go_downloading(call, &mut self.out), token, after, &self.shared))
    }

    /// A handler has written the body of its answer.
    fn take_streamed(&mut self, streamed: Streamed, desk: &mut Desk) {
        let Streamed { token, answers, is_whole } = streamed;
        self.follow_stop();
        self.count_answers(answers);
        if !is_whole {
            return self.drop_away(token);
        }
        self.take_back(token, None, desk);
        if let Some(service) = &mut self.service {
            service.answers = service.answers.saturating_add(1);
        }
    }

    /// Takes what a handler's thread brings.
    pub(crate) fn take_parcel(&mut self, parcel: Parcel, desk: &mut Desk) {
        match parcel {
            Parcel::Arrival(arrival) => self.take_arrival(arrival, desk),
            Parcel::Transfer(transfer) => self.take_transfer(transfer),
            Parcel::Answer(answer) => self.take_answer(answer, desk),
            Parcel::Streamed(streamed) => self.take_streamed(streamed, desk),
            // Whoever has asked has an end of the channel, unless it died.
            Parcel::Asked(answer, reply) => {
                if let Some(download) = self.start_download(*answer, desk) {
                    let _ = reply.send(download);
                }
            }
            #[cfg(test)]
            Parcel::Test(code) => code(),
        }
    }
}
