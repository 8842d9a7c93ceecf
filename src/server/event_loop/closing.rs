//! How a connection ends: after its last answer, or when its time is over.

use std::time::Instant;

use super::Books;
use crate::server::buffer::ReadBuffer;
use crate::server::connection::Connection;
use crate::server::phase::{Clock, Discarded, End, Phase, Sent};
use crate::server::quiet::kept_until;
use crate::server::table::Token;

impl Books {
    /// Closes or deserts a connection whose peer has not taken its answers in time.
    pub(super) fn judge_reader(&mut self, token: Token) {
        let Some(connection) = self.table.get_mut(token).filter(|connection| connection.is_blocked()) else { return };
        if !connection.is_overdue(self.now) {
            self.timeouts.start(token.index(), Clock::Write, self.now);
        } else if connection.phase() == Phase::Away {
            self.desert(token);
        } else {
            self.close(token);
        }
    }

    /// A stream has failed, and its connection ends where it stands. What left before must not be destroyed by a reset.
    pub(super) fn end_torn(&mut self, token: Token) {
        let Some(connection) = self.away(token) else { return };
        connection.end_with(End::Lingering);
        connection.come_back(None);
        self.conclude(token, Sent::All);
    }

    /// Reads what comes after a last answer and throws it away, so that it cannot reset the connection. Once the peer's
    /// end is read, the connection closes. Other bytes give it more time: its client may be in the middle of sending,
    /// and reads the answer only afterwards.
    pub(super) fn discard(&mut self, token: Token, buffer: &mut ReadBuffer) {
        let may_linger = self.may_linger(token);
        let connection = &mut self.table[token];
        match connection.discard(buffer) {
            Discarded::End => self.close(token),
            Discarded::Nothing => {}
            Discarded::Bytes => {
                let is_readable = connection.is_readable();
                if may_linger {
                    self.timeouts.start(token.index(), Clock::Linger, self.now);
                }
                if is_readable {
                    self.look_later(token);
                }
            }
        }
    }

    /// A lingering peer has not ended its side in time. It gets more time while it sends, or while it has not received
    /// all that was sent to it: what it then sends must still find a reader.
    pub(super) fn look_at_leaver(&mut self, token: Token, buffer: &mut ReadBuffer) {
        self.table[token].look_again();
        self.discard(token, buffer);
        let Some(connection) = self.table.get_mut(token) else { return };
        if self.timeouts.running(token.index()).is_some() {
            return;
        }
        if !connection.is_delivered() && self.may_linger(token) {
            self.timeouts.start(token.index(), Clock::Linger, self.now);
        } else {
            self.close(token);
        }
    }

    fn may_linger(&self, token: Token) -> bool {
        self.now < self.table[token].since() + self.shared.config.linger_max
    }

    /// True while draining, if the last answer may have been lost and must be sent again: the client cannot have asked
    /// for more.
    pub(super) fn has_yet_to_be_answered(&self, token: Token) -> bool {
        let connection = &self.table[token];
        self.is_draining && self.quiet_since(connection) > self.now && !connection.is_delivered()
    }

    /// When a connection counts as having become quiet, such that its idle grace ends when it should: see `quiet`.
    pub(super) fn quiet_since(&self, connection: &Connection) -> Instant {
        let (now, idle_grace) = (self.now, self.shared.config.idle_grace);
        let Some(deadline) = self.shared.stop.deadline() else { return now };
        let time_to_answer = idle_grace.min(deadline.saturating_duration_since(now) / 4);
        let latest = deadline.checked_sub(time_to_answer).unwrap_or(now);
        let path = if connection.peer().is_local() { None } else { connection.stream().path() };
        let until = kept_until(now, idle_grace, latest, path, connection.rhythm(), connection.answered_at());
        now + until.saturating_duration_since(now + idle_grace)
    }
}
