//! One connection: its state, and all changes to it. Only this file sets a phase.
//!
//! ```text
//!            ┌────────────────────────── answered ◀──────────────────────────┐
//!            ▼                                                               │
//! new ──▶ Idle ──first byte──▶ Head ──head whole──▶ Body ──body whole──▶ (answer) ──▶ Writing, if the peer is slow
//!            │                  │                    │     Waiting, if no thread is free ──▶ (answer)
//!            │                  │                    │     Away, if the handler is slow ───▶ (answer)
//!            │                  │                    │                                  │
//!            └──────────────────┴── reject, last answer, timeout ───────────────────────┤
//!                                                                                       ▼
//!                                              gone ◀── peer's end, or quiet ────── Lingering
//! ```
//!
//! A request that comes whole and is answered at once leaves no trace: the phase is the state between two visits.
//! Dropping a connection closes it for good.

use std::net::Shutdown;
use std::time::Instant;

use super::buffer::{Partial, ReadBuffer};
use super::call::Call;
use super::outgoing::{Outgoing, Unsent, Written};
use super::phase::{Clock, Discarded, End, Fill, Phase, Sent};
use super::poller::Event;
use super::quiet::Rhythm;
use super::stream::{Moved, Stream};
use super::transfer::Transfer;
use crate::http::{Limits, Peer, Progress};
use crate::sync::{self, Arc};

/// How many reads at a time to throw away.
const DISCARDS_MAX: u32 = 4;

/// How many reads to count what nobody will answer: enough for a body of 1 MiB, and a little more.
const COUNTED_READS_MAX: u32 = 20;

#[derive(Debug)]
pub(crate) struct Connection {
    /// Shared with the handler's thread while that streams.
    stream: Arc<Stream>,
    peer: Peer,
    phase: Phase,
    /// The bytes of a request that has not come whole, or that waits until the peer has taken the answers before it.
    partial: Option<Box<Partial>>,
    unsent: Option<Box<Unsent>>,
    /// Set when the poller reports it, and cleared when a read shows that nothing is left.
    is_readable: bool,
    /// The peer has sent FIN or reset: a read must follow even a short one.
    is_hung_up: bool,
    /// The peer's end of stream has been read.
    has_ended: bool,
    /// The poller reports room to write.
    awaits_room: bool,
    /// It waits in its loop's queue.
    is_queued: bool,
    /// It has rested after an answer.
    has_answered: bool,
    /// Its loop has been chosen: it stays there.
    has_place: bool,
    end: End,
    /// The client has said that it sends nothing after the request of the last answer, and that request had no body.
    has_last_word: bool,
    /// In Away: the handler that was called.
    call: Option<Box<Call>>,
    /// When the phase began: Idle, Head, Body or Lingering.
    since: Instant,
    rhythm: Rhythm,
}

impl Connection {
    pub(crate) fn new(stream: Arc<Stream>, peer: Peer, now: Instant) -> Self {
        Self {
            stream,
            peer,
            phase: Phase::Idle,
            partial: None,
            unsent: None,
            is_readable: false,
            is_hung_up: false,
            has_ended: false,
            awaits_room: false,
            is_queued: false,
            has_answered: false,
            has_place: false,
            end: End::Open,
            has_last_word: false,
            call: None,
            since: now,
            rhythm: Rhythm::default(),
        }
    }

    /// A connection that another loop has given away. It stays here.
    pub(crate) fn transferred(Transfer { stream, peer, since }: Transfer) -> Self {
        Self { has_answered: true, has_place: true, ..Self::new(stream, peer, since) }
    }

    /// True the first time that it rests after an answer with no state that another loop would need.
    pub(crate) fn needs_place(&mut self) -> bool {
        let is_bare = self.phase == Phase::Idle && self.partial.is_none() && self.end == End::Open && !self.is_queued;
        is_bare && !std::mem::replace(&mut self.has_place, true)
    }

    /// What another loop needs to serve it.
    pub(crate) fn into_transfer(self) -> Transfer {
        Transfer { stream: self.stream, peer: self.peer, since: self.since }
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The peer's end of stream has been read: nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// The last answer has been given: whatever else is read is thrown away.
    pub(crate) fn is_closing(&self) -> bool {
        self.end >= End::Lingering
    }

    /// When the phase began: Idle, Head, Body or Lingering.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The peer has not taken all earlier answers.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// True if, at `now`, the peer has taken too long for the earlier answers.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.unsent.as_ref().is_some_and(|unsent| unsent.is_overdue(now))
    }

    /// True the first time: the caller makes the poller report room from then on.
    pub(crate) fn must_await_room(&mut self) -> bool {
        !std::mem::replace(&mut self.awaits_room, true)
    }

    /// Nobody waits for its handler's answer.
    pub(crate) fn is_deserted(&self) -> bool {
        self.call().is_some_and(|call| call.is_deserted)
    }

    /// True if the peer has reset. Asks the system, since nothing may be read while a request waits.
    pub(crate) fn has_reset(&self) -> bool {
        self.is_hung_up && self.stream.has_failed()
    }

    /// True if a read may bring something.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Counts the answers that are owed: requests received in full and not answered in full, wherever they are.
    /// Counting removes requests that no handler has begun with; an incomplete one stays. It stops at `until`, since
    /// clients may have sent any number: then the second value is false.
    pub(crate) fn owed(&mut self, buffer: &mut ReadBuffer, limits: &Limits, until: Instant) -> (usize, bool) {
        if self.is_deserted() {
            return (0, true);
        }
        let unsent = self.unsent.as_ref().map_or(0, |unsent| unsent.answers());
        let running = self.call().map_or(0, |call| call.owed(until));
        if self.is_closing() {
            return (unsent + running, true);
        }
        match self.call.as_deref_mut() {
            // Its handler has the socket, until the whole body has come.
            Some(Call { body: Some(body), .. }) => match body.behind(until) {
                Some(behind) => self.partial = Partial::behind(&behind),
                None => return (unsent + running, true),
            },
            // What came after the request. If the handler already sends its answer, `partial` has it, with what has
            // come since.
            Some(call) if self.partial.is_none() => {
                self.partial = Partial::behind(&std::mem::take(&mut call.behind));
            }
            _ => {}
        }
        if self.call.is_some() {
            // A handler that sends its answer may have made the socket wait; we do not wait.
            let _ = self.stream.never_wait();
        }
        self.load_into(buffer);
        let (count, is_all) = self.count_whole(buffer, limits, until);
        self.keep(buffer);
        (unsent + running + count, is_all)
    }

    /// Counts the whole requests in the buffer and in the socket; the first in the buffer even after `until`.
    fn count_whole(&mut self, buffer: &mut ReadBuffer, limits: &Limits, until: Instant) -> (usize, bool) {
        let (mut count, mut reads) = (0, 0);
        loop {
            match buffer.progress(limits) {
                Ok(Progress::Whole) => {
                    count += 1;
                    buffer.finish_request();
                }
                // As large as a stream may be: its handler would have read it.
                Ok(Progress::Begun) if buffer.incoming().hold_body(&limits.body.of_stream()).is_ok() => continue,
                Ok(Progress::Begun) | Err(_) => return (count, true),
                Ok(_) if sync::now() < until && reads < COUNTED_READS_MAX => {
                    reads += 1;
                    // Until nothing is left: a short read may have been cut short.
                    self.look_again();
                    if !matches!(self.fill(buffer), Fill::Bytes(_)) {
                        return (count, true);
                    }
                }
                Ok(_) => return (count, false),
            }
            if sync::now() >= until {
                return (count, false);
            }
        }
    }

    /// The bytes of a request that it has kept.
    pub(crate) fn partial(&self) -> Option<&Partial> {
        self.partial.as_deref()
    }

    /// Since when the peer has not taken all earlier answers.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.unsent.as_ref().map(|unsent| unsent.since())
    }

    /// The handler that works on its request, if it is away.
    pub(crate) fn call(&self) -> Option<&Call> {
        self.call.as_deref()
    }

    // ---- Handed in -------------------------------------------------------------------------------------------------

    /// The poller has reported it.
    pub(crate) fn reported(&mut self, event: Event) {
        self.is_readable = true;
        self.is_hung_up |= event.is_hangup;
    }

    /// Notes that it waits in the queue. Returns false if it did already.
    pub(crate) fn enqueue(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    pub(crate) fn dequeue(&mut self) {
        self.is_queued = false;
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.is_queued
    }

    /// The next read is tried even though the poller has reported nothing.
    pub(crate) fn look_again(&mut self) {
        self.is_readable = true;
    }

    /// Loads what it has kept into a buffer.
    pub(crate) fn load_into(&mut self, buffer: &mut ReadBuffer) {
        buffer.load(self.partial.take());
    }

    /// Something has come: notes how long the client has paused since its last answer.
    pub(crate) fn note_pause(&mut self, now: Instant) {
        if let Some(answered) = self.answered_at() {
            self.rhythm.note(now.saturating_duration_since(answered));
        }
    }

    pub(crate) fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// When its last answer was given, if nothing has come since.
    pub(crate) fn answered_at(&self) -> Option<Instant> {
        (self.phase == Phase::Idle && self.has_answered).then_some(self.since)
    }

    /// True if an answer may still be on its way to the client.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Reads once, if there may be something to read.
    pub(crate) fn fill(&mut self, buffer: &mut ReadBuffer) -> Fill {
        if !self.is_readable {
            return Fill::Nothing;
        }
        let (moved, is_full) = buffer.read(&self.stream);
        match moved {
            Moved::Bytes(0) => {
                (self.has_ended, self.is_readable) = (true, false);
                Fill::Nothing
            }
            Moved::Bytes(count) => {
                // A short read has emptied the socket; the poller reports what comes later.
                self.is_readable = is_full || self.is_hung_up;
                Fill::Bytes(count)
            }
            Moved::WouldBlock => {
                self.is_readable = false;
                Fill::Nothing
            }
            Moved::Failed => Fill::Failed,
        }
    }

    /// Brings it at least this near to its end. It never goes back: a broken connection stays broken.
    pub(crate) fn end_with(&mut self, end: End) {
        self.end = self.end.max(end);
    }

    /// The client has said that it sends no more, and its only answer is so short that the client's system gets it
    /// before anything can reset the connection.
    pub(crate) fn note_last_word(&mut self) {
        self.has_last_word = !self.has_answered;
    }

    /// True if the last answer must be protected from what the client may still send: a connection that closes with
    /// unread bytes, or gets bytes afterwards, is reset, and an answer on its way may be lost. A client that has said
    /// that it sends no more is believed, unless something is there.
    pub(crate) fn must_linger(&self) -> bool {
        let is_quiet = self.has_last_word && !self.is_readable && !self.is_hung_up;
        self.end == End::Lingering && !self.has_ended && !is_quiet
    }

    /// True if the peer's system has acknowledged all that was sent, or if our system cannot say.
    pub(crate) fn is_delivered(&self) -> bool {
        self.stream.path().is_none_or(|path| path.is_delivered)
    }

    /// In Away: nobody waits any more for the answer or for those before it.
    pub(crate) fn desert(&mut self) {
        if let Some(call) = &mut self.call {
            call.is_deserted = true;
        }
        self.unsent = None;
        self.end_with(End::AtOnce);
    }

    /// The loop goes on without its handler, which is slow or streams.
    pub(crate) fn go_away(&mut self, call: Call) {
        self.phase = Phase::Away;
        self.call = Some(Box::new(call));
    }

    /// Its handler will write the body itself, after what this returns: the earlier answers that have not left, and the
    /// batch, which ends with the head.
    pub(crate) fn go_downloading(&mut self, call: Call, out: &mut Outgoing, now: Instant) -> Box<Unsent> {
        let mut unsent = match self.unsent.take() {
            Some(mut unsent) => {
                out.append_to(&mut unsent);
                unsent
            }
            None => out.take(now),
        };
        self.go_away(Call { ahead: unsent.share_count(), ..call });
        unsent
    }

    /// Its handler has returned. `partial` is what had come after the request. Returns the call.
    pub(crate) fn come_back(&mut self, partial: Option<Box<Partial>>) -> Option<Call> {
        self.phase = if self.unsent.is_some() { Phase::Writing } else { Phase::Idle };
        if partial.is_some() {
            self.partial = partial;
        }
        // The poller may have reported what came meanwhile; it has not been read.
        self.is_readable = true;
        self.call.take().map(|call| *call)
    }

    // ---- Sent out --------------------------------------------------------------------------------------------------

    /// Sends a batch of answers. If the peer does not take all, keeps the rest; the phase is then `Writing`, unless it
    /// is `Away`. Returns how many answers have left in full.
    pub(crate) fn send(&mut self, out: &mut Outgoing, now: Instant) -> (Sent, u64) {
        if let Some(unsent) = &mut self.unsent {
            out.append_to(unsent);
            return (Sent::Blocked, 0);
        }
        if out.len() == 0 {
            return (Sent::All, 0);
        }
        let (written, unsent) = out.write(&self.stream, now);
        self.unsent = unsent;
        if self.unsent.is_some() && self.phase != Phase::Away {
            self.phase = Phase::Writing;
        }
        (self.sent(written), written.answers)
    }

    /// Sends on what was kept.
    pub(crate) fn send_on(&mut self, now: Instant) -> (Sent, Written) {
        let Some(unsent) = &mut self.unsent else {
            return (Sent::All, Written::default());
        };
        let written = unsent.write(&self.stream, now);
        if unsent.is_done() {
            self.unsent = None;
            // Reports of what came meanwhile may not have been noted.
            self.is_readable = true;
        }
        (self.sent(written), written)
    }

    fn sent(&self, written: Written) -> Sent {
        match (written.has_failed, &self.unsent) {
            (true, _) => Sent::Failed,
            (false, Some(_)) => Sent::Blocked,
            (false, None) => Sent::All,
        }
    }

    // ---- Between visits --------------------------------------------------------------------------------------------

    /// Takes what is left in the buffer, and keeps it unless the last answer has been given.
    pub(crate) fn keep(&mut self, buffer: &mut ReadBuffer) {
        let partial = buffer.unload();
        self.has_last_word &= partial.is_none();
        self.partial = if self.is_closing() { None } else { partial };
    }

    /// All answers have left, and the connection stays: notes its phase. Returns true if that is new, so that its clock
    /// begins anew.
    pub(crate) fn rest(&mut self, progress: Progress, has_answered: bool, now: Instant) -> bool {
        let phase = match progress {
            Progress::Nothing => Phase::Idle,
            Progress::Head => Phase::Head,
            Progress::Body => Phase::Body,
            Progress::Begun | Progress::Whole => Phase::Waiting,
        };
        self.has_answered |= has_answered;
        let is_new = phase != std::mem::replace(&mut self.phase, phase) || has_answered;
        if is_new {
            self.since = now;
        }
        is_new
    }

    /// All answers have left, the last among them: sends FIN. Returns true if there may be something to throw away
    /// already.
    pub(crate) fn linger(&mut self, now: Instant) -> bool {
        (self.phase, self.since) = (Phase::Lingering, now);
        self.is_readable |= self.is_hung_up;
        self.stream.shutdown(Shutdown::Write);
        self.is_readable
    }

    /// Reads and throws away what comes while lingering. Only a read finds the end: whatever the poller reports, bytes
    /// may lie before it.
    pub(crate) fn discard(&mut self, buffer: &mut ReadBuffer) -> Discarded {
        if self.has_ended {
            return Discarded::End;
        }
        let mut discarded = Discarded::Nothing;
        // Bounded, so that a peer that keeps sending cannot hold the loop.
        for _ in 0..DISCARDS_MAX {
            match buffer.discard(&self.stream) {
                Moved::Bytes(0) | Moved::Failed => return Discarded::End,
                Moved::Bytes(_) => discarded = Discarded::Bytes,
                Moved::WouldBlock => {
                    self.is_readable = false;
                    break;
                }
            }
        }
        discarded
    }

    /// The clock of the current phase. A handler has none: in Away, the clock is that of the earlier answers.
    pub(crate) fn clock(&self, is_draining: bool) -> Clock {
        match self.phase {
            Phase::Waiting => Clock::Queue,
            Phase::Idle | Phase::Head if is_draining => Clock::Quiet,
            Phase::Idle => Clock::Idle,
            Phase::Head => Clock::Head,
            Phase::Body => Clock::Body,
            Phase::Writing | Phase::Away => Clock::Write,
            Phase::Lingering => Clock::Linger,
        }
    }
}
