//! One connection: its state, and all changes to it. Nothing outside this file sets a phase.
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
//!                                              gone ◀── peer's end, 500 ms ──────── Lingering
//! ```
//!
//! A request that comes whole and is answered at once leaves no trace: the phase is what a connection is found in
//! between two services. A connection closes for good when it is dropped.

use std::borrow::Cow;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::desk::{Desk, Unfinished};
use super::inbox::Transfer;
use super::outgoing::{Outgoing, Unsent, Written};
use super::poller::Event;
use super::stream::{Moved, Stream};
use super::timeouts::Clock;
use crate::http::{Limits, Method, Peer, Progress};

/// The least rate at which an answer must be taken: each so many bytes give a second more.
const WRITE_BYTES_PER_SECOND_MIN: u64 = 4096;

/// What a connection is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: between requests, or before the first.
    Idle,
    /// Part of a head has come.
    Head,
    /// The head and part of the body have come.
    Body,
    /// A request has come, whole or to be streamed, and waits for a worker thread.
    Waiting,
    /// A handler works on its request, and its loop goes on without it; if it streams, it has the socket.
    Away,
    /// The peer has not taken all of an answer.
    Writing,
    /// We have sent FIN, and wait for the peer's.
    Lingering,
}

/// How a connection is to be closed once its last answer has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// With FIN, and reading on until the peer's own, so that no reset destroys the answer.
    Lingering,
    /// At once: nothing is in flight that could be destroyed, or nobody is left to wait.
    AtOnce,
}

/// What one attempt to read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Bytes,
    Nothing,
    Failed,
}

/// What became of the answers that were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    Blocked,
    Failed,
}

/// A handler that has been called, for the report of those that never returned.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As it was sent; the beginning, if it is long.
    pub(crate) path: Vec<u8>,
    pub(crate) since: Instant,
    /// Of a request whose body the handler reads itself: that all of it has come.
    pub(crate) has_come: Option<Arc<AtomicBool>>,
}

/// What a handler's thread is given of a connection to send the body of a response itself.
#[derive(Debug)]
pub(crate) struct Away {
    pub(crate) stream: Arc<Stream>,
    pub(crate) unsent: Option<Box<Unsent>>,
    pub(crate) call: Call,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Shared with a handler's thread while that streams.
    stream: Arc<Stream>,
    peer: Peer,
    phase: Phase,
    /// What is kept of a request that has not come whole, or waits until the peer has taken the answers before it.
    unfinished: Option<Box<Unfinished>>,
    unsent: Option<Box<Unsent>>,
    /// Set by the poller, and until a read shows that nothing is left.
    is_readable: bool,
    /// The peer has sent FIN or reset: a short read is not the last.
    is_hung_up: bool,
    /// The peer's end of stream has been read, or while lingering reported.
    has_ended: bool,
    /// The poller reports room to write.
    awaits_room: bool,
    /// It is decided which loop it stays with.
    has_place: bool,
    close: Option<Close>,
    /// A handler has asked for the connection to be closed after its response, and others follow that one.
    is_leaving: bool,
    /// In Away: the peer has reset, and nobody waits for the answer. The connection stays until its handler returns.
    is_deserted: bool,
    /// In Away: what for.
    call: Option<Box<Call>>,
    /// In Idle, Head and Body, when they began; in Writing, when the peer's patience with us must end.
    mark: Instant,
}

impl Call {
    /// As text. Where it was cut may have been in the middle of a character.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// For how long, in seconds with one decimal. Without floating point, which takes its place in a small binary.
    pub(crate) fn age(&self) -> String {
        let tenths = self.since.elapsed().as_millis() / 100;
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    pub(crate) fn nobody(now: Instant) -> Self {
        Self { method: Method::Get, path: Vec::new(), since: now, has_come: None }
    }

    /// The request has wholly come, so that its answer is owed.
    fn is_owed(&self) -> bool {
        self.has_come.as_ref().is_none_or(|has_come| has_come.load(Ordering::Relaxed))
    }
}

impl Connection {
    pub(crate) fn new(stream: Arc<Stream>, peer: Peer, now: Instant) -> Self {
        Self {
            stream,
            peer,
            phase: Phase::Idle,
            unfinished: None,
            unsent: None,
            is_readable: false,
            is_hung_up: false,
            has_ended: false,
            awaits_room: false,
            has_place: false,
            close: None,
            is_leaving: false,
            is_deserted: false,
            call: None,
            mark: now,
        }
    }

    /// One that another loop has given away stays here.
    pub(crate) fn transferred(Transfer { stream, peer, since }: Transfer) -> Self {
        Self { has_place: true, ..Self::new(stream, peer, since) }
    }

    /// True the first time that it rests after an answer, and keeps nothing that another loop would have to know.
    pub(crate) fn needs_place(&mut self) -> bool {
        let is_bare = self.phase == Phase::Idle && self.unfinished.is_none() && !self.is_leaving;
        is_bare && !std::mem::replace(&mut self.has_place, true)
    }

    /// What another loop needs of it.
    pub(crate) fn into_transfer(self) -> Transfer {
        Transfer { stream: self.stream, peer: self.peer, since: self.mark }
    }

    pub(crate) fn stream(&self) -> &Stream {
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

    pub(crate) fn close(&self) -> Option<Close> {
        self.close
    }

    pub(crate) fn mark(&self) -> Instant {
        self.mark
    }

    /// The peer has not taken all of the answers before.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// True the first time: from then on, the poller is to report room.
    pub(crate) fn must_await_room(&mut self) -> bool {
        !std::mem::replace(&mut self.awaits_room, true)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    pub(crate) fn is_deserted(&self) -> bool {
        self.is_deserted
    }

    /// True if the peer has reset. While its request waits nothing may be read, so it is the system that is asked.
    pub(crate) fn has_reset(&self) -> bool {
        self.is_hung_up && self.stream.has_failed()
    }

    /// True if a read may bring something.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Answers that are owed: requests wholly received and not wholly answered.
    pub(crate) fn owed(&self, limits: &Limits) -> usize {
        let unsent = self.unsent.as_ref().map_or(0, |unsent| unsent.answers());
        let count = || self.unfinished.as_ref().map_or(0, |unfinished| unfinished.count_whole(limits));
        unsent
            + match self.phase {
                Phase::Away if !self.is_deserted => usize::from(self.call().is_some_and(Call::is_owed)),
                Phase::Waiting => count(),
                Phase::Writing if self.close.is_none() => count(),
                _ => 0,
            }
    }

    /// The handler that works on its request.
    pub(crate) fn call(&self) -> Option<&Call> {
        self.call.as_deref()
    }

    // ---- Handed in -------------------------------------------------------------------------------------------------

    /// The poller has reported it.
    pub(crate) fn reported(&mut self, event: Event) {
        self.is_readable = true;
        self.is_hung_up |= event.is_hangup;
        // We have ended it too: nothing is left to be read that anybody would answer.
        self.has_ended |= event.is_over && self.phase == Phase::Lingering;
    }

    /// A read is to be tried although nothing was reported.
    pub(crate) fn look_again(&mut self) {
        self.is_readable = true;
    }

    /// Puts the connection on a desk.
    pub(crate) fn lay_on(&mut self, desk: &mut Desk) {
        desk.take_up(&self.peer, self.unfinished.take());
    }

    /// Reads once, if there may be something to read.
    pub(crate) fn fill(&mut self, desk: &mut Desk) -> Fill {
        if !self.is_readable {
            return Fill::Nothing;
        }
        let (moved, is_full) = desk.read(&self.stream);
        match moved {
            Moved::Bytes(0) => {
                (self.has_ended, self.is_readable) = (true, false);
                Fill::Nothing
            }
            Moved::Bytes(_) => {
                // A short read has emptied the socket; whatever comes later is reported again.
                self.is_readable = is_full || self.is_hung_up;
                Fill::Bytes
            }
            Moved::WouldBlock => {
                self.is_readable = false;
                Fill::Nothing
            }
            Moved::Failed => Fill::Failed,
        }
    }

    /// This answer is the last. A connection that is broken stays so.
    pub(crate) fn close_with(&mut self, close: Close) {
        if self.close != Some(Close::AtOnce) {
            self.close = Some(close);
        }
    }

    /// The connection is to close, but not before the requests behind this one have been answered.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// In Away: nobody waits for the answer any more, nor for those before it.
    pub(crate) fn desert(&mut self) {
        self.is_deserted = true;
        self.unsent = None;
        self.close_with(Close::AtOnce);
    }

    /// Its handler is slow: the loop goes on without it.
    pub(crate) fn go_away(&mut self, call: Call) {
        self.phase = Phase::Away;
        self.call = Some(Box::new(call));
    }

    /// Its handler is going to read the body itself.
    pub(crate) fn go_uploading(&mut self, call: Call) -> Arc<Stream> {
        self.go_away(call);
        Arc::clone(&self.stream)
    }

    /// Its handler is going to write the body itself.
    pub(crate) fn go_downloading(&mut self, call: Call) -> Away {
        self.go_away(call.clone());
        Away { stream: Arc::clone(&self.stream), unsent: self.unsent.take(), call }
    }

    /// Its handler has returned, and left behind what had come after the request. Gives what it was called for.
    pub(crate) fn come_back(&mut self, unfinished: Option<Box<Unfinished>>) -> Option<Call> {
        self.phase = if self.unsent.is_some() { Phase::Writing } else { Phase::Idle };
        if unfinished.is_some() {
            self.unfinished = unfinished;
        }
        // What came meanwhile was reported, and not read.
        self.is_readable = true;
        self.call.take().map(|call| *call)
    }

    // ---- Sent out --------------------------------------------------------------------------------------------------

    /// Sends a batch of answers. What the peer does not take now is kept, and the phase is then `Writing`.
    pub(crate) fn send(&mut self, out: &mut Outgoing, patience: Duration, now: Instant) -> (Sent, u64) {
        if let Some(unsent) = &mut self.unsent {
            out.append_to(unsent);
            return (Sent::Blocked, 0);
        }
        if out.len() == 0 {
            return (Sent::All, 0);
        }
        let (written, unsent) = out.write(&self.stream);
        self.unsent = unsent;
        if self.unsent.is_some() {
            self.mark = now + patience;
            if self.phase != Phase::Away {
                self.phase = Phase::Writing;
            }
        }
        (self.sent(written), written.answers)
    }

    /// Goes on with what was kept.
    pub(crate) fn send_on(&mut self, patience: Duration, now: Instant) -> (Sent, u64) {
        let Some(unsent) = &mut self.unsent else {
            return (Sent::All, 0);
        };
        let written = unsent.write(&self.stream);
        if unsent.is_done() {
            self.unsent = None;
            // Whatever came meanwhile was not reported for us to keep in mind.
            self.is_readable = true;
        }
        // A slow reader earns time by taking bytes, but cannot save it up: a stall ends it all the same.
        let earned = Duration::from_millis(written.bytes as u64 * 1000 / WRITE_BYTES_PER_SECOND_MIN);
        self.mark = (self.mark + earned).min(now + patience);
        (self.sent(written), written.answers)
    }

    fn sent(&self, written: Written) -> Sent {
        match (written.has_failed, &self.unsent) {
            (true, _) => Sent::Failed,
            (false, Some(_)) => Sent::Blocked,
            (false, None) => Sent::All,
        }
    }

    // ---- Put down --------------------------------------------------------------------------------------------------

    /// Takes what is left from the desk: it is needed again unless the last answer has been given.
    pub(crate) fn keep(&mut self, desk: &mut Desk) {
        let unfinished = desk.put_down();
        self.unfinished = if self.close.is_some() { None } else { unfinished };
    }

    /// All answers are out, and the connection stays: what it is in the middle of now. Returns true if that is
    /// something else than before, so that its clock begins anew.
    pub(crate) fn rest(&mut self, progress: Progress, has_answered: bool, now: Instant) -> bool {
        let phase = match progress {
            Progress::Nothing => Phase::Idle,
            Progress::Head => Phase::Head,
            Progress::Body => Phase::Body,
            Progress::Begun | Progress::Whole => Phase::Waiting,
        };
        let is_new = phase != std::mem::replace(&mut self.phase, phase) || has_answered;
        if is_new {
            self.mark = now;
        }
        is_new
    }

    /// All answers are out and the last was among them: FIN. Returns true if something has come already that is to be
    /// thrown away.
    pub(crate) fn linger(&mut self) -> bool {
        self.phase = Phase::Lingering;
        self.is_readable |= self.is_hung_up;
        self.stream.shutdown(Shutdown::Write);
        self.is_readable
    }

    /// Reads and throws away what comes while lingering. Returns true once the peer has ended too.
    pub(crate) fn discard(&mut self, desk: &mut Desk) -> bool {
        if self.has_ended {
            return true;
        }
        // Bounded, so that a peer that keeps sending cannot keep the loop.
        for _ in 0..16 {
            match desk.discard(&self.stream) {
                Moved::Bytes(0) | Moved::Failed => return true,
                Moved::Bytes(_) => {}
                Moved::WouldBlock => {
                    self.is_readable = false;
                    return false;
                }
            }
        }
        false
    }

    /// The clock that the current phase runs by. A handler runs by none.
    pub(crate) fn clock(&self, is_draining: bool) -> Clock {
        match self.phase {
            Phase::Waiting => Clock::Turn,
            Phase::Idle | Phase::Head if is_draining => Clock::Quiet,
            Phase::Idle => Clock::Idle,
            Phase::Head => Clock::Head,
            Phase::Body => Clock::Body,
            Phase::Writing | Phase::Away => Clock::Write,
            Phase::Lingering => Clock::Linger,
        }
    }
}
