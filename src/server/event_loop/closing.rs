//! How a connection ends: after its last answer, or because its time is over.

use super::EventLoop;
use super::service::Look;
use crate::http::{Progress, Reject, Response};
use crate::server::desk::Desk;
use crate::server::phase::{Close, Discarded, Phase, Sent};
use crate::server::table::Token;
use crate::server::timeouts::Clock;

impl EventLoop {
    /// What follows from a write, unless the connection stays as it is: then it returns false.
    pub(super) fn conclude(&mut self, token: Token, sent: Sent) -> bool {
        let Some(connection) = self.table.get_mut(token) else {
            return true;
        };
        match sent {
            Sent::Blocked => self.timeouts.start(token.index(), Clock::Write, self.now),
            Sent::All if connection.must_linger() => {
                // What has come already is thrown away now, since it is not reported again.
                if connection.linger(self.now) {
                    self.look_later(token);
                }
                self.timeouts.start(token.index(), Clock::Linger, self.now);
            }
            // An unfinished request of a peer that has ended will not be finished any more.
            Sent::All if connection.close().is_none() && !connection.has_ended() => return false,
            Sent::All | Sent::Failed => self.drop_connection(token),
        }
        true
    }

    /// Reads what comes behind a last answer and throws it away, so that it cannot reset the connection. Its end, once
    /// read, is the connection's; what comes before it gives it more time, since its client may be in the middle of
    /// sending, and reads the answer behind that.
    pub(super) fn discard(&mut self, token: Token, desk: &mut Desk) {
        let (now, linger_max) = (self.now, self.shared.config.linger_max);
        let Some(connection) = self.table.get_mut(token) else { return };
        match connection.discard(desk) {
            Discarded::End => self.drop_connection(token),
            Discarded::Nothing => {}
            Discarded::Bytes => {
                if now < connection.mark() + linger_max {
                    self.timeouts.start(token.index(), Clock::Linger, now);
                }
                if self.table.get_mut(token).is_some_and(|connection| connection.is_readable()) {
                    self.look_later(token);
                }
            }
        }
    }

    /// A peer has not ended its side for a while. It is given more time as long as it sends, or has yet to take what it
    /// was sent: whatever it sends then must still find a reader.
    pub(super) fn look_at_leaver(&mut self, token: Token, desk: &mut Desk) {
        let Some(connection) = self.table.get_mut(token) else { return };
        connection.look_again();
        self.discard(token, desk);
        let (now, linger_max) = (self.now, self.shared.config.linger_max);
        let is_running = self.timeouts.running(token.index()).is_some();
        match self.table.get_mut(token) {
            Some(connection) if !is_running && now < connection.mark() + linger_max && !connection.is_delivered() => {
                self.timeouts.start(token.index(), Clock::Linger, now);
            }
            Some(_) if !is_running => self.drop_connection(token),
            _ => {}
        }
    }

    /// Answers a connection that has asked nothing yet, and closes it.
    pub(super) fn turn_away(&mut self, token: Token, response: Response) {
        self.start_service(token, Look::Reported);
        self.out.push_refusal(response, false, self.now);
        if let Some(connection) = self.table.get_mut(token) {
            connection.close_with(Close::Lingering);
        }
        let sent = self.flush();
        self.service = None;
        self.conclude(token, sent);
    }

    /// A connection has been quiet for long enough: closed, after 408 if part of a request has come.
    pub(super) fn end_quiet(&mut self, token: Token, phase: Phase, desk: &mut Desk) {
        if phase == Phase::Idle {
            return self.drop_connection(token);
        }
        let Some(connection) = self.table.get_mut(token) else {
            return;
        };
        connection.lay_on(desk);
        self.start_service(token, Look::Reported);
        // Nothing but this very answer is in flight, and a stop is not to wait for a peer that has gone quiet.
        let close = if self.is_draining && phase == Phase::Head { Close::AtOnce } else { Close::Lingering };
        self.reject(Reject::Timeout, close, desk);
        self.put_down(Progress::Nothing, desk);
    }

    /// True while draining, if its last answer was lost on the way and is to be sent again: the client cannot have
    /// asked for more.
    pub(super) fn has_yet_to_be_answered(&mut self, token: Token) -> bool {
        let is_in_time = self.is_draining && self.quiet_since(token) > self.now;
        is_in_time && self.table.get_mut(token).is_some_and(|connection| !connection.is_delivered())
    }

    /// True once a head or a body has taken longer than it may: a trickle does not renew its time.
    pub(super) fn is_late(&mut self, token: Token) -> bool {
        let (now, config) = (self.now, &self.shared.config);
        self.table.get_mut(token).is_some_and(|connection| match connection.phase() {
            Phase::Head => now >= connection.mark() + config.head_timeout,
            Phase::Body => now >= connection.mark() + config.body_timeout,
            _ => false,
        })
    }
}
